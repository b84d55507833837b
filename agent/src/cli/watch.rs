//! `keytrail watch`: a client of a running agent.

use super::args::WatchArgs;
use super::filter_args::When;
use super::{exit, fail};
use crate::output::{Local, Style, Summary, Writer};
use keytrail_export::{Client, connect};
use keytrail_proto::v1::stream_events_response::Response;
use keytrail_proto::v1::{
    GetStatusRequest, GetStatusResponse, StreamEventsRequest, StreamEventsResponse,
};
use pbjson_types::Timestamp;
use std::io::{self, Stdout};
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// A footer is not worth waiting longer for.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn run(args: &WatchArgs) -> u8 {
    // One thread keeps the connection alive while this one may be held up by a full pipe or a paused terminal.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(watch(args)),
        Err(e) => fail(&e, exit::FAILED),
    }
}

/// Why a stream was left.
enum End {
    /// As many events as were asked for, or Ctrl-C.
    Enough,
    /// The agent ended the stream.
    Stopped,
    Broke(Status),
    Output(io::Error),
}

async fn watch(args: &WatchArgs) -> u8 {
    let mut client = match connect(args.agent.target()).await {
        Ok(client) => client,
        Err(e) => return fail(&e, exit::status_of(&e)),
    };
    let (until, ends) = match end_of(args) {
        Ok(end) => end,
        Err(e) => return fail(&e, exit::USAGE),
    };
    // Who asks for nothing to come wants what there is.
    let since = args
        .since
        .or((ends == StreamEnd::WithThePast && args.last.is_none()).then_some(When::All));
    let request = StreamEventsRequest {
        filter: Some(args.filter.filter()),
        since: since.map(When::timestamp),
        last: args.last,
        after: None,
        until,
        past_only: ends == StreamEnd::WithThePast,
    };
    let mut stream = match client.stream_events(request).await {
        Ok(response) => response.into_inner(),
        Err(e) if e.code() == Code::InvalidArgument => return fail(&e.message(), exit::USAGE),
        Err(e) => {
            return fail(
                &format_args!("{}: {}", args.agent.address, e.message()),
                exit::FAILED,
            );
        }
    };
    let first = status(&mut client).await;
    if args.output.is_for_people()
        && let Some(note) = remembered(since, first.as_ref())
    {
        eprintln!("{note}");
    }
    let mut writer = Writer::new(io::stdout(), args.output, Style::of(io::stdout())).condensed();
    let mut summary = Summary::default();
    let mut end = tokio::select! {
        end = pump(&mut stream, &mut writer, &mut summary, args.count) => end,
        () = ends.wait() => End::Enough,
        _ = tokio::signal::ctrl_c() => End::Enough,
    };
    if matches!(end, End::Stopped) && ends == StreamEnd::WithThePast {
        end = End::Enough;
    }
    if let Err(e) = writer.finish() {
        end = End::Output(e);
    }
    let exit_status = match &end {
        End::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => return exit::OK,
        End::Output(e) => return fail(&format_args!("cannot write: {e}"), exit::FAILED),
        End::Enough => exit::OK,
        End::Stopped => {
            eprintln!("keytrail: the agent stopped");
            exit::OK
        }
        End::Broke(e) => {
            let address = &args.agent.address;
            fail(
                &format_args!(
                    "the connection to the agent on {address} broke: {}",
                    e.message()
                ),
                exit::FAILED,
            )
        }
    };
    if args.output.is_for_people() {
        let last = match end {
            End::Enough => status(&mut client).await.or(first),
            _ => first,
        };
        let libraries = last.as_ref().map(|s| s.libraries.as_slice());
        let style = Style::of(std::io::stderr());
        eprintln!("{}", summary.footer(libraries, None, &style));
    }
    exit_status
}

/// When the stream ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamEnd {
    Never,
    WithThePast,
    In(Duration),
}

impl StreamEnd {
    async fn wait(self) {
        match self {
            StreamEnd::In(time) => tokio::time::sleep(time).await,
            // The stream says when.
            StreamEnd::Never | StreamEnd::WithThePast => std::future::pending().await,
        }
    }
}

/// An interval that ends before it begins.
#[derive(Debug, thiserror::Error)]
#[error("--until is before --since")]
struct Backwards;

/// `--until` and `--no-follow`: what the agent is told, and what is waited for.
fn end_of(args: &WatchArgs) -> Result<(Option<Timestamp>, StreamEnd), Backwards> {
    let Some(until) = args.until.map(When::timestamp) else {
        let ends = match args.no_follow {
            true => StreamEnd::WithThePast,
            false => StreamEnd::Never,
        };
        return Ok((None, ends));
    };
    if let Some(since) = args.since.map(When::timestamp)
        && (since.seconds, since.nanos) > (until.seconds, until.nanos)
    {
        return Err(Backwards);
    }
    let now = When::Ago(Duration::ZERO).timestamp();
    let left = until.seconds.saturating_sub(now.seconds);
    let ends = match u64::try_from(left) {
        Ok(left) if left > 0 && !args.no_follow => StreamEnd::In(Duration::from_secs(left)),
        _ => StreamEnd::WithThePast,
    };
    Ok((Some(until), ends))
}

/// Since when there is anything to show: silence is not "nothing".
fn remembered(since: Option<When>, status: Option<&GetStatusResponse>) -> Option<String> {
    let asked = since?.timestamp();
    let started = status?.node.as_ref()?.started?;
    // Where a time was given the agent itself says what is missing, to every client.
    (asked.seconds == 0).then(|| {
        format!(
            "-- remembered since {}, when this agent started",
            Local::of(&started).full()
        )
    })
}

async fn pump(
    stream: &mut Streaming<StreamEventsResponse>,
    writer: &mut Writer<Stdout>,
    summary: &mut Summary,
    count: Option<u64>,
) -> End {
    loop {
        let response = match stream.message().await {
            Ok(Some(StreamEventsResponse {
                response: Some(response),
            })) => response,
            // A kind of message this version does not know.
            Ok(Some(StreamEventsResponse { response: None })) => continue,
            Ok(None) => return End::Stopped,
            Err(e) => return End::Broke(e),
        };
        let written = match response {
            // The headings say that the connection stands, before anything happens.
            Response::Status(_) => writer.header(),
            Response::Event(event) => {
                summary.add(&event);
                writer.event(&event)
            }
            Response::Gap(gap) => {
                summary.missed(&gap);
                writer.gap(gap)
            }
        };
        if let Err(e) = written {
            return End::Output(e);
        }
        if count.is_some_and(|n| summary.events() >= n) {
            return End::Enough;
        }
    }
}

async fn status(client: &mut Client) -> Option<GetStatusResponse> {
    let answer =
        tokio::time::timeout(STATUS_PATIENCE, client.get_status(GetStatusRequest {})).await;
    answer.ok()?.ok().map(tonic::Response::into_inner)
}
