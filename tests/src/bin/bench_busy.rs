//! Load for an agent on a busy host: sends whose number is known, and what an agent is heard to make of them.
//!
//! `bench_busy send SECONDS RATE BYTES` sends over loopback, one in a hundred with the secret of its environment; a RATE
//! of 0 is as fast as it goes. Prints how many it sent, and how many of them carried the secret.
//!
//! `bench_busy latency SOCKET ROUNDS` sends the secret and waits for the event at the agent's socket. Prints
//! milliseconds: the median, p99 and the longest.
//!
//! `bench_busy counters SOCKET` prints the agent's counters of sends and losses.

use keytrail_proto::v1::stream_events_response::Response;
use keytrail_proto::v1::{
    Counters, EventKind, Filter, GetStatusRequest, StreamEventsRequest,
    event_service_client::EventServiceClient,
};
use std::{
    env, io,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// The environment variable that makes this program a holder.
const SECRET: &str = "GITHUB_TOKEN";
/// One send in so many carries the secret.
const ONE_IN: u64 = 100;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["send", seconds, rate, bytes] => numbers([seconds, rate, bytes])
            .and_then(|[seconds, rate, bytes]| send(seconds, rate, bytes)),
        ["latency", socket, rounds] => {
            numbers([rounds]).and_then(|[rounds]| asynchronous(latency(socket.to_owned(), rounds)))
        }
        ["counters", socket] => asynchronous(counters(socket.to_owned())),
        _ => {
            eprintln!(
                "usage: bench_busy send SECONDS RATE BYTES | latency SOCKET ROUNDS | counters SOCKET"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_busy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn numbers<const N: usize>(words: [&str; N]) -> Result<[u64; N], Error> {
    let mut out = [0; N];
    for (number, word) in out.iter_mut().zip(words) {
        *number = word.parse()?;
    }
    Ok(out)
}

fn asynchronous(work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(work)
}

/// A connection to a thread that reads whatever comes.
fn connection() -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while other.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A message of so many bytes, with the secret in it or not.
fn message(bytes: usize, secret: Option<&str>) -> Vec<u8> {
    let mut text = b"state=ready; ".to_vec();
    if let Some(secret) = secret {
        text.extend_from_slice(format!("Authorization: token {secret}\r\n").as_bytes());
    }
    while text.len() < bytes {
        text.extend_from_slice(b"lorem ipsum dolor sit amet. ");
    }
    text.truncate(bytes);
    text
}

fn send(seconds: u64, rate: u64, bytes: u64) -> Result<(), Error> {
    let secret = env::var(SECRET)?;
    let bytes = usize::try_from(bytes)?;
    let (plain, secret) = (message(bytes, None), message(bytes, Some(&secret)));
    let mut stream = connection()?;
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let (mut sent, mut secrets) = (0u64, 0u64);
    while Instant::now() < end {
        // In small bursts: sleeping for each would be the generator's limit.
        for _ in 0..ONE_IN {
            let carries = sent % ONE_IN == 0;
            stream.write_all(if carries { &secret } else { &plain })?;
            sent += 1;
            secrets += u64::from(carries);
        }
        if rate > 0 {
            let due = began + Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!("{sent} {secrets} {:.0}", sent as f64 / took);
    Ok(())
}

async fn client(socket: String) -> Result<EventServiceClient<Channel>, Error> {
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(connect)
        .await?;
    Ok(EventServiceClient::new(channel))
}

async fn latency(socket: String, rounds: u64) -> Result<(), Error> {
    let secret = env::var(SECRET)?;
    let request = StreamEventsRequest {
        filter: Some(Filter {
            kinds: vec![EventKind::CredentialSent.into()],
            ..Filter::default()
        }),
        ..StreamEventsRequest::default()
    };
    let mut events = client(socket)
        .await?
        .stream_events(request)
        .await?
        .into_inner();
    let me = std::process::id();
    let message = message(200, Some(&secret));
    let mut times = Vec::new();
    for _ in 0..rounds {
        // At rest: nothing else is on its way.
        tokio::time::sleep(Duration::from_millis(60)).await;
        // To another port each time: what goes to one again and again is reported together.
        let mut stream = connection()?;
        let began = Instant::now();
        stream.write_all(&message)?;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), events.message()).await??;
            let Some(Response::Event(event)) = next.ok_or("the stream ended")?.response else {
                continue;
            };
            if event.process.is_some_and(|process| process.pid == me) {
                break;
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{:.2} {:.2} {:.2}", at(0.5), at(0.99), at(1.0));
    Ok(())
}

async fn counters(socket: String) -> Result<(), Error> {
    let status = client(socket)
        .await?
        .get_status(GetStatusRequest::default())
        .await?
        .into_inner();
    let Counters { records, lost, .. } = status.counters.unwrap_or_default();
    let of = |name: &str| records.get(name).copied().unwrap_or(0);
    let lost: u64 = lost.values().sum();
    println!("{} {} {lost}", of("tcp_send"), of("file_read"));
    Ok(())
}
