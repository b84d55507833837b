//! `keytrail report`: what a running agent remembers, as one page.

use super::args::AddressArgs;
use super::exit;
use super::filter_args::{When, parse_since, parse_when};
use super::history::{End, history, run as ask};
use crate::output::fingerprint::short_fingerprint;
use crate::output::report::{Found, MOST, Report, Row, Unseen, count, findings, fold_acts, html};
use crate::output::{history as render, utc};
use keytrail_export::Channel;
use keytrail_proto::v1::{
    FindingRecord, GetGraphRequest, GetGraphResponse, GetHistoryStatusRequest,
    GetHistoryStatusResponse, GetStatusRequest, ListCoverageRequest, ListCoverageResponse,
    ListFindingsRequest, ListUsesRequest, NodeStatus, Use, UseAct,
    event_service_client::EventServiceClient,
};
use pbjson_types::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Rows of one page of an answer.
const PAGE: u32 = 1_000;

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// From so long ago (30s, 5m, 2h, 7d), or from this time (2026-11-28T21:03, in the local zone unless it says otherwise),
    /// or with all the agent remembers.
    #[arg(long, value_name = "DURATION|TIME|all", value_parser = parse_since, default_value = "1d")]
    pub since: When,

    /// Until then [default: now].
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub to: Option<When>,

    /// Write the page here [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs) -> u8 {
    ask(&args.agent.target(), async |channel| {
        let from = args.since.timestamp();
        let to = args.to.unwrap_or(When::Ago(Default::default())).timestamp();
        let remembered = remembered(channel, from, to).await?;
        let page = html(&report(remembered, &from, &to));
        match &args.output {
            None => io::stdout().write_all(page.as_bytes())?,
            Some(path) => std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)
                .and_then(|mut file| file.write_all(page.as_bytes()))
                .map_err(|e| End {
                    status: exit::USAGE,
                    sentence: format!("{}: {e}", path.display()),
                })?,
        }
        Ok(exit::OK)
    })
}

/// Answers of the agent.
#[derive(Default)]
struct Remembered {
    node: NodeStatus,
    status: GetHistoryStatusResponse,
    findings: Vec<FindingRecord>,
    more_findings: bool,
    graph: GetGraphResponse,
    uses: Vec<Use>,
    more_uses: bool,
    coverage: ListCoverageResponse,
}

async fn remembered(channel: Channel, from: Timestamp, to: Timestamp) -> Result<Remembered, End> {
    let mut all = Remembered::default();
    let mut events = EventServiceClient::new(channel.clone());
    let status = events.get_status(GetStatusRequest {}).await?.into_inner();
    all.node = status.node.unwrap_or_default();
    let mut client = history(channel);
    let (from, to) = (Some(from), Some(to));
    let asked = GetHistoryStatusRequest {};
    all.status = client.get_history_status(asked).await?.into_inner();
    let mut page_token = String::new();
    loop {
        let answer = client
            .list_findings(ListFindingsRequest {
                from,
                to,
                page_size: PAGE,
                page_token,
                ..Default::default()
            })
            .await?
            .into_inner();
        all.findings.extend(answer.findings);
        page_token = answer.next_page_token;
        if page_token.is_empty() || all.findings.len() >= MOST {
            break;
        }
    }
    all.more_findings = !page_token.is_empty();
    let mut page_token = String::new();
    loop {
        let answer = client
            .list_uses(ListUsesRequest {
                from,
                to,
                page_size: PAGE,
                page_token,
                ..Default::default()
            })
            .await?
            .into_inner();
        all.uses.extend(answer.uses);
        page_token = answer.next_page_token;
        if page_token.is_empty() || all.uses.len() >= MOST {
            break;
        }
    }
    all.more_uses = !page_token.is_empty();
    let asked = GetGraphRequest {
        from,
        to,
        ..Default::default()
    };
    all.graph = client.get_graph(asked).await?.into_inner();
    let asked = ListCoverageRequest { from, to };
    all.coverage = client.list_coverage(asked).await?.into_inner();
    Ok(all)
}

fn report(all: Remembered, from: &Timestamp, to: &Timestamp) -> Report {
    let mut report = Report {
        title: format!("Credentials on {}", all.node.host),
        summary: sentences(&all),
        ..Report::default()
    };
    let since = all.status.uses_since.as_ref();
    let begin = since
        .filter(|since| since.seconds > from.seconds)
        .unwrap_or(from);
    report.facts = vec![
        ("Host".to_owned(), all.node.host.clone()),
        ("From".to_owned(), utc(begin)),
        ("To".to_owned(), utc(to)),
        ("By".to_owned(), format!("keytrail {}", all.node.version)),
        (
            "Fingerprint key".to_owned(),
            all.status.fingerprint_key.clone(),
        ),
    ];
    if begin != from && from.seconds > 0 {
        report.partial.push(format!(
            "the agent remembers nothing from before {}",
            utc(begin)
        ));
    }
    if all.more_findings || all.more_uses {
        report
            .partial
            .push("there is more than a page shows: ask for a shorter time".to_owned());
    }
    report.findings = fold_acts(all.findings.into_iter().map(found).collect());
    report.graph = all.graph;
    report.timeline = all.uses.iter().map(row).collect();
    report.timeline.reverse();
    report.gaps = all
        .coverage
        .hidden
        .into_iter()
        .map(|h| {
            let time = |t: Option<Timestamp>| t.as_ref().map(utc).unwrap_or_default();
            Unseen {
                reason: h.reason,
                detail: format!("{} to {}: {}", time(h.from), time(h.to), h.detail),
                remedy: h.remedy,
                count: h.count,
            }
        })
        .collect();
    report.notes = vec![
        "Uses are summed up by the hour: the time is that of the first one. observed: the secret's own bytes were in what \
         was sent. identified: only its public identifier was. lineage: a program that had it sent something, in which \
         it was not seen."
            .to_owned(),
        "No inventory is in this report: `keytrail inventory` says what lies on the host.".to_owned(),
    ];
    report
}

fn sentences(all: &Remembered) -> Vec<String> {
    let mut credentials = BTreeSet::new();
    let mut programs = BTreeSet::new();
    let mut left = BTreeSet::new();
    let mut maybe = BTreeSet::new();
    for one in &all.uses {
        credentials.insert(&one.fingerprint);
        programs.insert(one.program.as_ref().map(|p| (&p.path, &p.script)));
        if one.act == i32::from(UseAct::Sent) {
            match one.grade.as_str() {
                "observed" => left.insert(&one.fingerprint),
                "lineage" => maybe.insert(&one.fingerprint),
                _ => false,
            };
        }
    }
    let mut severities: BTreeMap<String, u64> = BTreeMap::new();
    for finding in &all.findings {
        *severities.entry(finding.severity.clone()).or_default() += 1;
    }
    let credentials_of = |n: usize| count(n, "credential", "credentials");
    vec![
        format!(
            "{} had, read or sent {}.",
            count(programs.len(), "program", "programs"),
            credentials_of(credentials.len())
        ),
        match left.len() {
            0 => "No credential was seen to leave in what programs sent.".to_owned(),
            n => format!(
                "Of {} the secret's own bytes were seen in what was sent.",
                credentials_of(n)
            ),
        },
        match maybe.len() {
            0 => "No program that had a credential sent anything in which it was not seen."
                .to_owned(),
            n => format!(
                "Programs that had {} sent something in which it was not seen: it may have left, and nothing proves it.",
                credentials_of(n)
            ),
        },
        findings(&severities),
        match all.coverage.hidden.len() {
            0 => "Nothing is known that could not be seen.".to_owned(),
            n => format!(
                "In {} something could not be seen: the list at the end says what, and what to do.",
                count(n, "interval", "intervals")
            ),
        },
    ]
}

fn found(record: FindingRecord) -> Found {
    let epoch = record.event.as_ref().map_or(0, |event| event.epoch);
    Found {
        act: (epoch, record.act),
        also: String::new(),
        time: record.last.as_ref().map(utc).unwrap_or_default(),
        severity: record.severity,
        rule: record.rule,
        title: record.title,
        credential: short_fingerprint(&record.fingerprint),
        seen: record.seen,
        expected: record.expected,
        remedy: record.remedy,
        techniques: record.techniques,
        count: record.count,
    }
}

/// The grade is in the verb.
fn action_of(one: &Use) -> &'static str {
    match UseAct::try_from(one.act) {
        Ok(UseAct::Read) => "read",
        Ok(UseAct::Held) => "held",
        Ok(UseAct::Sent) if one.grade == "lineage" => "holder sent",
        Ok(UseAct::Sent) if one.grade == "identified" => "named",
        Ok(UseAct::Sent) => "sent",
        _ => "?",
    }
}

fn row(one: &Use) -> Row {
    let place = match render::destination(one) {
        place if place.is_empty() => one.source.clone(),
        place if one.request.is_empty() => place,
        place => format!("{place}, {}", one.request),
    };
    Row {
        time: one.first.as_ref().map(utc).unwrap_or_default(),
        action: format!("{} x{}", action_of(one), one.count),
        process: render::program(one),
        credential: format!(
            "{} {}",
            one.credential_kind,
            short_fingerprint(&one.fingerprint)
        ),
        place,
        grade: one.grade.clone(),
        mark: match action_of(one) {
            "sent" => "bad",
            "holder sent" => "dim",
            _ => "",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_holder_sent_is_not_said_to_have_left() {
        let one = |grade: &str, fingerprint: &str| Use {
            act: UseAct::Sent.into(),
            grade: grade.to_owned(),
            fingerprint: fingerprint.to_owned(),
            ..Use::default()
        };
        let all = Remembered {
            uses: vec![
                one("lineage", "kt1:a"),
                one("lineage", "kt1:a"),
                one("identified", "kt1:b"),
            ],
            ..Remembered::default()
        };
        assert_eq!(row(&all.uses[0]).action, "holder sent x0");
        assert_eq!(row(&all.uses[2]).action, "named x0");
        let text = sentences(&all).join("\n");
        assert!(text.contains("No credential was seen to leave"), "{text}");
        assert!(
            text.contains("Programs that had 1 credential sent something"),
            "{text}"
        );
        let early = Timestamp {
            seconds: 10,
            nanos: 0,
        };
        let late = Timestamp {
            seconds: 20,
            nanos: 0,
        };
        let all = Remembered {
            status: GetHistoryStatusResponse {
                uses_since: Some(late),
                ..Default::default()
            },
            ..all
        };
        let report = report(all, &early, &late);
        assert!(
            report.partial[0].contains("from before 1970-01-01T00:00:20.000Z"),
            "{:?}",
            report.partial
        );
    }
}
