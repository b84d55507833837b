//! `/metrics`, `/healthz` and `/readyz` by HTTP/1.1, for Prometheus and for probes.
//!
//! Whoever reaches the port may ask: so it tells counts only, asks the engine once a second at most, and holds a few
//! connections for a bounded time.

mod measures;
mod text;

pub use measures::measures;

use super::hub::Hub;
use super::service::StatusSource;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 16;
/// How long one may last, and how long the head of a request may take.
const LASTS: Duration = Duration::from_secs(60);
const HEAD: Duration = Duration::from_secs(5);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 << 10;
/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// Between inspections of the engine's progress, and how long it may make none.
const LOOK: Duration = Duration::from_secs(2);
const STALLED: Duration = Duration::from_secs(30);
/// Rest after a port or a connection that could not be had.
const AGAIN: Duration = Duration::from_secs(2);

/// Grows as long as the engine makes progress. It may wait: it runs off the async threads.
pub type ProgressSource = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What is reported.
#[derive(Clone)]
pub struct Metrics {
    pub hub: Arc<Hub>,
    pub status: StatusSource,
    pub progress: ProgressSource,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct MetricsServer {
    bound: watch::Receiver<Option<SocketAddr>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl MetricsServer {
    /// Serves on `listen` as soon as that is free, with the tasks of `runtime`.
    pub fn start(runtime: &Handle, listen: SocketAddr, metrics: Metrics) -> MetricsServer {
        let (beat, alive) = watch::channel(Instant::now());
        let (set_bound, bound) = watch::channel(None);
        let responder = Arc::new(Responder {
            metrics: metrics.clone(),
            alive,
            made: Mutex::default(),
        });
        MetricsServer {
            bound,
            tasks: [
                runtime.spawn(follow(metrics.progress, beat)),
                runtime.spawn(serve(listen, responder, set_bound)),
            ],
        }
    }

    /// Where it listens, once it does.
    pub async fn bound(&self) -> Option<SocketAddr> {
        let mut bound = self.bound.clone();
        bound.wait_for(Option::is_some).await.ok().and_then(|b| *b)
    }
}

/// Notes when the engine last made progress.
async fn follow(progress: ProgressSource, beat: watch::Sender<Instant>) {
    let mut last = None;
    loop {
        let progress = progress.clone();
        let now = tokio::task::spawn_blocking(move || progress()).await.ok();
        if now != last {
            last = now;
            beat.send_replace(Instant::now());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn serve(
    listen: SocketAddr,
    responder: Arc<Responder>,
    bound: watch::Sender<Option<SocketAddr>>,
) {
    let mut said = false;
    let listener = loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => break listener,
            Err(e) if !said => {
                tracing::error!("metrics cannot be served on {listen}: {e}");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving metrics");
        bound.send_replace(Some(address));
    }
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let responder = responder.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(LASTS, converse(stream, responder)).await;
                });
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn converse(stream: TcpStream, responder: Arc<Responder>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let responder = responder.clone();
        async move { Ok::<_, Infallible>(responder.answer(&request).await) }
    });
    let spoken = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(e) = spoken {
        tracing::debug!(error = %e, "who asked for metrics was lost");
    }
}

struct Responder {
    metrics: Metrics,
    /// When the engine last made progress.
    alive: watch::Receiver<Instant>,
    made: Mutex<Option<(Instant, Arc<Made>)>>,
}

/// What was found out at a time.
struct Made {
    text: String,
    /// Why this agent is not ready.
    unready: Option<&'static str>,
}

fn plain(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn said(problem: Option<&str>) -> Response<String> {
    let (status, sentence) = match problem {
        None => (StatusCode::OK, "ok"),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem),
    };
    plain(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

impl Responder {
    async fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let body = "only GET\n".to_owned();
            return plain(StatusCode::METHOD_NOT_ALLOWED, "text/plain", body);
        }
        match request.uri().path() {
            "/healthz" => said(self.stalled()),
            "/readyz" => said(self.stalled().or(self.made().await.unready)),
            "/metrics" => plain(
                StatusCode::OK,
                text::CONTENT_TYPE,
                self.made().await.text.clone(),
            ),
            _ => plain(
                StatusCode::NOT_FOUND,
                "text/plain",
                "/metrics, /healthz, /readyz\n".to_owned(),
            ),
        }
    }

    fn stalled(&self) -> Option<&'static str> {
        (self.alive.borrow().elapsed() > STALLED).then_some("the engine makes no progress")
    }

    /// Made anew at most once a second, however many ask.
    async fn made(&self) -> Arc<Made> {
        let mut kept = self.made.lock().await;
        if let Some((at, made)) = &*kept
            && at.elapsed() < FRESH
        {
            return made.clone();
        }
        let Metrics { hub, status, .. } = self.metrics.clone();
        let made = tokio::task::spawn_blocking(move || {
            let status = status();
            Made {
                text: text::render(&measures(&status, &hub)),
                unready: match status.signals.iter().any(|s| !s.hook.is_empty()) {
                    true => None,
                    false => Some("no sensor is attached"),
                },
            }
        });
        let made = Arc::new(made.await.unwrap_or(Made {
            text: String::new(),
            unready: Some("the agent has no status"),
        }));
        *kept = Some((Instant::now(), made.clone()));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands still is reported, by both probes; the engine is asked only when it lives.
    #[tokio::test]
    async fn an_engine_without_progress_is_not_well() {
        let responder = |alive, hook: &str| {
            let status = keytrail_proto::v1::GetStatusResponse {
                signals: vec![keytrail_proto::v1::SignalStatus {
                    hook: hook.to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            Responder {
                metrics: Metrics {
                    hub: Hub::new(),
                    status: Arc::new(move || status.clone()),
                    progress: Arc::new(|| 0),
                },
                alive: watch::channel(alive).1,
                made: Mutex::default(),
            }
        };
        let now = Instant::now();
        let well = responder(now, "raw_tp:x");
        assert_eq!((well.stalled(), well.made().await.unready), (None, None));
        assert!(responder(now, "").made().await.unready.is_some());
        // A machine that has just booted has no such time.
        if let Some(long_ago) = now.checked_sub(STALLED * 2) {
            assert!(responder(long_ago, "raw_tp:x").stalled().is_some());
        }
        assert_eq!(said(Some("x")).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    /// Progress is what changes, not what is there.
    #[tokio::test]
    async fn progress_is_followed() {
        let (beat, mut alive) = watch::channel(Instant::now());
        let turns = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let source: ProgressSource = {
            let turns = turns.clone();
            Arc::new(move || turns.load(std::sync::atomic::Ordering::Relaxed))
        };
        let task = tokio::spawn(follow(source, beat));
        alive.changed().await.unwrap();
        turns.store(1, std::sync::atomic::Ordering::Relaxed);
        alive.changed().await.unwrap();
        let again = tokio::time::timeout(LOOK * 2, alive.changed()).await;
        assert!(again.is_err(), "no progress counts as progress");
        task.abort();
    }
}
