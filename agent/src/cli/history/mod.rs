//! Questions about the past: `credentials`, `credential`, `used`, `uses`, `findings`, `coverage`, `graph`.

mod args;
mod used;

pub use args::{
    BaselineArgs, CoverageArgs, CredentialArgs, CredentialsArgs, FindingsArgs, GraphArgs,
    GraphShape, Shape, UsedArgs, UsesArgs,
};
pub(super) use used::run as used;

use super::filter_args::When;
use super::{exit, fail};
use crate::output::{Style, history as render, json, sarif, yaml};
use args::BaselineAction;
use keytrail_export::{Channel, Target, connect_channel};
use keytrail_proto::v1::baseline_service_client::BaselineServiceClient;
use keytrail_proto::v1::history_service_client::HistoryServiceClient;
use keytrail_proto::v1::inventory_service_client::InventoryServiceClient;
use keytrail_proto::v1::{
    self, GetCredentialRequest, GetGraphRequest, ListBaselinesRequest, ListCoverageRequest,
    ListCredentialsRequest, ListFindingsRequest, ListUsesRequest, UpdateBaselineRequest,
};
use serde::Serialize;
use std::io::{self, Write as _};
use tonic::{Code, Status};

/// Largest answer: a page of uses with every field at its limit is far below.
const MAX_MESSAGE: usize = 64 << 20;
/// Rows of one page.
const PAGE: u32 = 1000;

/// Why a command ends, with its exit status.
pub(super) struct End {
    pub status: u8,
    pub sentence: String,
}

pub(super) type Outcome = Result<u8, End>;

impl From<io::Error> for End {
    fn from(e: io::Error) -> End {
        End {
            status: if e.kind() == io::ErrorKind::BrokenPipe {
                exit::OK
            } else {
                exit::FAILED
            },
            sentence: format!("cannot write: {e}"),
        }
    }
}

impl From<Status> for End {
    fn from(e: Status) -> End {
        let status = match e.code() {
            Code::InvalidArgument => exit::USAGE,
            _ => exit::FAILED,
        };
        let sentence = if e.code() == Code::Unimplemented {
            "this agent does not answer questions about the past: upgrade it, or give it a state directory".into()
        } else {
            e.message().to_owned()
        };
        End { status, sentence }
    }
}

/// Connects, asks, and turns what went wrong into one line.
pub(super) fn run(target: &Target, work: impl AsyncFnOnce(Channel) -> Outcome) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e, exit::FAILED),
    };
    runtime.block_on(async {
        let channel = match connect_channel(target).await {
            Ok(channel) => channel,
            Err(e) => return fail(&e, exit::status_of(&e)),
        };
        match work(channel).await {
            Ok(status) => status,
            Err(End {
                status: exit::OK, ..
            }) => exit::OK,
            Err(end) => fail(&end.sentence, end.status),
        }
    })
}

fn inventory(channel: Channel) -> InventoryServiceClient<Channel> {
    InventoryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

pub(super) fn history(channel: Channel) -> HistoryServiceClient<Channel> {
    HistoryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn line<T: Serialize + prost::Name>(message: &T) -> Result<String, End> {
    let text = json(message).map_err(|e| End {
        status: exit::FAILED,
        sentence: e.to_string(),
    })?;
    Ok(text + "\n")
}

fn document<T: Serialize + prost::Name>(message: &T) -> io::Result<String> {
    Ok(yaml(message)? + "\n")
}

/// Rows as they were asked for: JSON one object a line, YAML one document an object.
pub(super) fn show<T: Serialize + prost::Name>(
    shape: Shape,
    rows: &[T],
    table: impl Fn(&[T]) -> render::Rows,
) -> Result<(), End> {
    match shape {
        Shape::Json => {
            for row in rows {
                print(&line(row)?)?;
            }
        }
        Shape::Yaml => {
            for row in rows {
                print(&document(row)?)?;
            }
        }
        Shape::Csv => print(&table(rows).csv())?,
        Shape::Table | Shape::Wide => print(&table(rows).text(&Style::of(io::stdout())))?,
    }
    Ok(())
}

pub(super) fn credentials(args: &CredentialsArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let mut client = inventory(channel);
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let answer = client
                .list_credentials(ListCredentialsRequest {
                    credential: args.credential.clone().unwrap_or_default(),
                    page_size: PAGE.min(args.limit.saturating_sub(all.len() as u32).max(1)),
                    page_token,
                })
                .await?
                .into_inner();
            all.extend(answer.credentials);
            page_token = answer.next_page_token;
            if page_token.is_empty() || all.len() >= args.limit as usize {
                break;
            }
        }
        let wide = args.output == Shape::Wide || args.output == Shape::Csv;
        show(args.output, &all, |rows| render::credentials(rows, wide))?;
        more(!page_token.is_empty());
        Ok(exit::OK)
    })
}

pub(super) fn credential(args: &CredentialArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let answer = inventory(channel)
            .get_credential(GetCredentialRequest {
                credential: args.credential.clone(),
            })
            .await?
            .into_inner();
        match args.output {
            Shape::Json => print(&line(&answer)?)?,
            Shape::Yaml => print(&document(&answer)?)?,
            Shape::Csv => print(&render::uses(&answer.uses, true).csv())?,
            Shape::Table | Shape::Wide => print(&render::passport(
                &answer,
                args.output == Shape::Wide,
                &Style::of(io::stdout()),
            ))?,
        }
        Ok(exit::OK)
    })
}

pub(super) fn uses(args: &UsesArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let mut client = history(channel);
        let (from, to) = args.times.interval();
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let answer = client
                .list_uses(ListUsesRequest {
                    from: from.map(When::timestamp),
                    to: to.map(When::timestamp),
                    credential: args.credential.clone().unwrap_or_default(),
                    by: args.by.clone().unwrap_or_default(),
                    environment: args.environment.clone().unwrap_or_default(),
                    to_host: args.to_host.clone().unwrap_or_default(),
                    acts: args.act.iter().map(|act| act.number()).collect(),
                    contexts: args.runs.context.clone(),
                    actors: args.runs.actor.clone(),
                    page_size: PAGE.min(args.limit.saturating_sub(all.len() as u32).max(1)),
                    page_token,
                })
                .await?
                .into_inner();
            all.extend(answer.uses);
            page_token = answer.next_page_token;
            if page_token.is_empty() || all.len() >= args.limit as usize {
                break;
            }
        }
        let wide = args.output == Shape::Wide || args.output == Shape::Csv;
        show(args.output, &all, |rows| render::uses(rows, wide))?;
        more(!page_token.is_empty());
        Ok(exit::OK)
    })
}

pub(super) fn findings(args: &FindingsArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let mut client = history(channel);
        let (from, to) = args.times.interval();
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let answer = client
                .list_findings(ListFindingsRequest {
                    from: from.map(When::timestamp),
                    to: to.map(When::timestamp),
                    credential: args.credential.clone().unwrap_or_default(),
                    rule: args.rule.clone().unwrap_or_default(),
                    contexts: args.runs.context.clone(),
                    actors: args.runs.actor.clone(),
                    page_size: PAGE.min(args.limit.saturating_sub(all.len() as u32).max(1)),
                    page_token,
                })
                .await?
                .into_inner();
            all.extend(answer.findings);
            page_token = answer.next_page_token;
            if page_token.is_empty() || all.len() >= args.limit as usize {
                break;
            }
        }
        let cut = !page_token.is_empty();
        match args.output.plain() {
            Some(shape) => {
                let wide = shape == Shape::Wide || shape == Shape::Csv;
                show(shape, &all, |rows| render::findings(rows, wide))?;
            }
            None => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                sarif::findings(&mut out, &all, cut)?;
                out.flush()?;
            }
        }
        more(cut);
        Ok(exit::OK)
    })
}

pub(super) fn coverage(args: &CoverageArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let (from, to) = args.times.interval();
        let answer = history(channel)
            .list_coverage(ListCoverageRequest {
                from: from.map(When::timestamp),
                to: to.map(When::timestamp),
            })
            .await?
            .into_inner();
        match args.output {
            Shape::Json => print(&line(&answer)?)?,
            Shape::Yaml => print(&document(&answer)?)?,
            Shape::Csv => print(&render::hidden(&answer.hidden, true).csv())?,
            Shape::Table | Shape::Wide => print(&render::coverage(
                &answer,
                args.output == Shape::Wide,
                &Style::of(io::stdout()),
            ))?,
        }
        Ok(exit::OK)
    })
}

pub(super) fn graph(args: &GraphArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let (from, to) = args.times.interval();
        let answer = history(channel)
            .get_graph(GetGraphRequest {
                credential: args.credential.clone().unwrap_or_default(),
                from: from.map(When::timestamp),
                to: to.map(When::timestamp),
            })
            .await?
            .into_inner();
        print(&match args.output {
            GraphShape::Json => line(&answer)?,
            GraphShape::Dot => render::dot(&answer),
            GraphShape::Html => render::html(&answer),
        })?;
        if answer.omitted > 0 {
            eprintln!(
                "keytrail: {} lesser connections are left out: name a credential or a shorter time",
                answer.omitted
            );
        }
        Ok(exit::OK)
    })
}

pub(super) fn baseline(args: &BaselineArgs) -> u8 {
    run(&args.agent.target(), async |channel| {
        let mut client = BaselineServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (credential, change) = match &args.action {
            BaselineAction::List { credential, .. } => (credential.clone(), None),
            BaselineAction::Show { credential } => (Some(credential.clone()), None),
            BaselineAction::Accept { credential } => (
                Some(credential.clone()),
                Some((v1::BaselineAction::Accept, "accepted")),
            ),
            BaselineAction::Reset { credential } => (
                Some(credential.clone()),
                Some((v1::BaselineAction::Reset, "forgotten")),
            ),
        };
        let credential = credential.unwrap_or_default();
        if let Some((action, word)) = change {
            let answer = client
                .update_baseline(UpdateBaselineRequest {
                    credential,
                    action: action.into(),
                })
                .await?
                .into_inner();
            for fingerprint in answer.fingerprints {
                print(&format!("{fingerprint} {word}\n"))?;
            }
            return Ok(exit::OK);
        }
        let answer = client
            .list_baselines(ListBaselinesRequest { credential })
            .await?
            .into_inner();
        match &args.action {
            BaselineAction::List { output, .. } => {
                show(*output, &answer.baselines, render::baselines)?;
            }
            _ => {
                for baseline in &answer.baselines {
                    print(&render::baseline(baseline, &Style::of(io::stdout())))?;
                }
            }
        }
        Ok(exit::OK)
    })
}

/// Says that a list goes on.
fn more(there_is: bool) {
    if there_is {
        eprintln!("keytrail: there are more: raise --limit, or ask for less");
    }
}
