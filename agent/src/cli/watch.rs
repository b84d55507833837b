//! `keytrail watch`: a client of a running agent.

use super::args::{Since, WatchArgs};
use super::{exit, fail};
use crate::output::{Format, Style, Summary, Writer};
use keytrail_export::{Client, ClientError, connect};
use keytrail_proto::v1::stream_events_response::Response;
use keytrail_proto::v1::{
    Filter, GetStatusRequest, GetStatusResponse, StreamEventsRequest, StreamEventsResponse,
};
use std::io::{self, Stdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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

/// Exit status for a failed connection.
pub(super) fn status_of(e: &ClientError) -> u8 {
    match e {
        ClientError::NoAgent(_) => exit::NO_AGENT,
        ClientError::Denied(_) => exit::NOT_PERMITTED,
        ClientError::Other { .. } => exit::FAILED,
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
    let mut client = match connect(&args.agent.address).await {
        Ok(client) => client,
        Err(e) => return fail(&e, status_of(&e)),
    };
    let filter = Filter {
        kinds: args.kind.clone(),
        credentials: args.credential.clone(),
        pids: args.pid.clone(),
        min_confidence: args.min_confidence,
    };
    let request = StreamEventsRequest {
        filter: Some(filter),
        since: args.since.map(since),
        last: args.last,
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
    let mut writer = Writer::new(io::stdout(), args.output, Style::of(io::stdout()));
    let mut summary = Summary::default();
    let end = tokio::select! {
        end = pump(&mut stream, &mut writer, &mut summary, args.count) => end,
        _ = tokio::signal::ctrl_c() => End::Enough,
    };
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
    if args.output != Format::Json {
        let last = match end {
            End::Enough => status(&mut client).await.or(first),
            _ => first,
        };
        let libraries = last.as_ref().map(|s| s.libraries.as_slice());
        eprintln!("{}", summary.footer(libraries, None));
    }
    exit_status
}

/// A time span before now as a time; what is longer ago than there is time is the beginning of it.
fn since(since: Since) -> pbjson_types::Timestamp {
    let at = match since {
        Since::All => None,
        Since::Ago(ago) => SystemTime::now().checked_sub(ago),
    };
    let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let at = at.unwrap_or_default();
    pbjson_types::Timestamp {
        seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        nanos: at.subsec_nanos().cast_signed(),
    }
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
