//! `keytrail top`: which credentials are in use, by whom, and where they go, live.

mod state;
mod view;

use super::args::TopArgs;
use super::{exit, fail};
use crate::output::{Local, Style, escape};
use keytrail_export::{ClientError, connect};
use keytrail_proto::v1::stream_events_response::Response;
use keytrail_proto::v1::{NodeStatus, StreamEventsRequest};
use pbjson_types::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use state::State;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tonic::Code;
use view::{View, draw};

/// The screen is drawn so often at least: ages grow.
const REDRAW: Duration = Duration::from_millis(500);
/// How long keys are waited for at a time.
const KEYS: Duration = Duration::from_millis(100);
/// What may wait between the connection and the screen; beyond that the agent counts what it could not send.
const QUEUE: usize = 4_096;
/// Rows of a page.
const PAGE: isize = 10;

/// What comes from the connection.
enum News {
    Message(Box<Response>),
    Ended(String),
}

pub(super) fn run(args: &TopArgs) -> u8 {
    if !rustix::termios::isatty(io::stdout()) || !rustix::termios::isatty(io::stdin()) {
        return fail(
            &"top needs a terminal; into files and pipes goes `keytrail watch`",
            exit::USAGE,
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, exit::FAILED),
    };
    let (sender, news) = mpsc::channel(QUEUE);
    // Before the screen is taken: what is wrong is said on the screen that stays.
    if let Err((sentence, status)) = runtime.block_on(subscribe(args, sender)) {
        return fail(&sentence, status);
    }
    let quit = Arc::new(AtomicBool::new(false));
    runtime.spawn(until_signalled(quit.clone()));
    let result = match ratatui::try_init() {
        Ok(mut terminal) => {
            let result = show(&mut terminal, news, &quit);
            ratatui::restore();
            result
        }
        Err(e) => Err(e),
    };
    // The stream ends with the connection.
    runtime.shutdown_background();
    match result {
        Ok(None) => exit::OK,
        Ok(Some(why)) => fail(&why, exit::FAILED),
        Err(e) => fail(&format_args!("the terminal: {e}"), exit::FAILED),
    }
}

async fn subscribe(args: &TopArgs, sender: mpsc::Sender<News>) -> Result<(), (String, u8)> {
    let address = &args.agent.target();
    let failed = |e: &ClientError| (e.to_string(), exit::status_of(e));
    let mut client = connect(address).await.map_err(|e| failed(&e))?;
    let request = StreamEventsRequest {
        filter: Some(args.filter.filter()),
        since: args.since.map(|since| since.timestamp()),
        ..StreamEventsRequest::default()
    };
    let stream = client
        .stream_events(request)
        .await
        .map_err(|e| match e.code() {
            Code::InvalidArgument => (e.message().to_owned(), exit::USAGE),
            _ => (format!("{address}: {}", e.message()), exit::FAILED),
        })?;
    let mut stream = stream.into_inner();
    tokio::spawn(async move {
        // The client keeps the connection.
        let _client = client;
        loop {
            let news = match stream.message().await {
                Ok(Some(message)) => match message.response {
                    Some(response) => News::Message(Box::new(response)),
                    None => continue,
                },
                Ok(None) => News::Ended("the agent stopped".to_owned()),
                Err(e) => News::Ended(format!("the connection broke: {}", e.message())),
            };
            let last = matches!(news, News::Ended(_));
            if sender.send(news).await.is_err() || last {
                return;
            }
        }
    });
    Ok(())
}

async fn until_signalled(quit: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    quit.store(true, Ordering::Relaxed);
}

/// Until the person at the keys has seen enough. Returns why the stream ended, if it did.
fn show(
    terminal: &mut DefaultTerminal,
    mut news: mpsc::Receiver<News>,
    quit: &AtomicBool,
) -> io::Result<Option<String>> {
    let mut state = State::default();
    let mut view = View {
        colour: Style::of(io::stdout()).colour,
        ..View::default()
    };
    // What is shown while it is held still.
    let mut held: Option<(State, i64)> = None;
    let mut drawn = None::<std::time::Instant>;
    let mut dirty = true;
    loop {
        for _ in 0..QUEUE {
            match news.try_recv() {
                Ok(News::Message(response)) => take(*response, &mut state, &mut view),
                Ok(News::Ended(why)) => view.ended = Some(why),
                Err(_) => break,
            }
            dirty |= held.is_none();
        }
        if drawn.is_none_or(|at| at.elapsed() >= if dirty { KEYS } else { REDRAW }) {
            clock(&mut view);
            let (shown, now) = match &held {
                Some((state, now)) => (state, *now),
                None => (&state, view.now),
            };
            let mut view = view.clone();
            view.now = now;
            terminal.draw(|frame| draw(frame, shown, &view))?;
            drawn = Some(std::time::Instant::now());
            dirty = false;
        }
        if event::poll(KEYS)?
            && let Input::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            let shown = held.as_ref().map_or(&state, |(state, _)| state);
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(view.ended),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(view.ended);
                }
                KeyCode::Tab => view.focus = view.focus.next(),
                KeyCode::Char('s') => view.order = view.order.next(),
                KeyCode::Char('p' | ' ') => {
                    view.paused = !view.paused;
                    held = view.paused.then(|| (state.clone(), view.now));
                }
                KeyCode::Down | KeyCode::Char('j') => view.scroll_by(1, shown),
                KeyCode::Up | KeyCode::Char('k') => view.scroll_by(-1, shown),
                KeyCode::PageDown => view.scroll_by(PAGE, shown),
                KeyCode::PageUp => view.scroll_by(-PAGE, shown),
                KeyCode::Home => view.scroll_by(isize::MIN, shown),
                KeyCode::End => view.scroll_by(isize::MAX, shown),
                _ => {}
            }
            drawn = None;
        }
        if quit.load(Ordering::Relaxed) {
            return Ok(view.ended);
        }
    }
}

fn take(response: Response, state: &mut State, view: &mut View) {
    match response {
        Response::Status(node) => view.agent = name(&node),
        Response::Event(event) => state.add(&event),
        Response::Gap(gap) => state.gap(&gap),
    }
}

fn name(node: &NodeStatus) -> String {
    escape(&node.host).into_owned()
}

fn clock(view: &mut View) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    view.now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let local = Local::of(&Timestamp {
        seconds: view.now,
        nanos: 0,
    });
    view.clock = format!("{} {}", local.seconds(), local.zone);
}
