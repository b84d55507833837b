//! Was it used? Random histories with random holes: never a no where a use could hide, never a yes without one.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail_model::{DestinationMethod, EventKind, EvidenceGrade, GapReason, Signal};
use keytrail_proto::v1::{
    CheckUseRequest, CheckUseResponse, Credential, Destination, Event, EventId, Evidence,
    Executable, Gap, HiddenInterval, HostName, Process, UseAct, Verdict,
};
use keytrail_store::{Ledger, Retention};
use pbjson_types::Timestamp;
use proptest::prelude::*;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

const SECOND: i64 = 1_000_000_000;
const FINGERPRINT: &str = "kt1:00112233445566778899aabbccddeeff";
const PROGRAMS: [&str; 3] = ["/usr/bin/curl", "/usr/bin/wget", "/opt/app"];
const HOSTS: [&str; 2] = ["a.example", "b.example"];
/// Seconds a history lasts.
const LENGTH: i64 = 3 * 3600;

/// A use that happened, whoever saw it.
#[derive(Clone, Copy, Debug)]
struct Truth {
    at: i64,
    act: UseAct,
    program: usize,
    host: usize,
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    from: i64,
    to: i64,
    reason: usize,
    /// What is lost of what could be: by the last bit of a use's time.
    parity: i64,
}

/// Reasons, their signals, and the acts that a use of is lost by them.
const LOSSES: [(GapReason, Signal, &[UseAct]); 5] = [
    (GapReason::RecordsLost, Signal::FileRead, &[UseAct::Read]),
    (GapReason::RecordsLost, Signal::Exec, ALL),
    (GapReason::HookRefused, Signal::Exec, ALL),
    (
        GapReason::EnvironmentTruncated,
        Signal::Exec,
        &[UseAct::Held],
    ),
    (GapReason::Offsets, Signal::Exec, ALL),
];

const ALL: &[UseAct] = &[UseAct::Read, UseAct::Held, UseAct::Sent];

/// The same throughout: a second that passes between a truth and its question is no hole.
fn start() -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    *START.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() - LENGTH - 600
    })
}

fn timestamp(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn used(truth: &Truth, epoch: u64, sequence: u64) -> Arc<Event> {
    let sent = truth.act == UseAct::Sent;
    Arc::new(Event {
        id: Some(EventId {
            epoch,
            sequence,
            ..Default::default()
        }),
        time: timestamp(truth.at),
        kind: match truth.act {
            UseAct::Read => EventKind::CredentialRead,
            UseAct::Held => EventKind::CredentialExposed,
            _ => EventKind::CredentialSent,
        }
        .number(),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: FINGERPRINT.into(),
            ..Default::default()
        }),
        process: Some(Process {
            pid: 7,
            executable: Some(Executable {
                path: PROGRAMS[truth.program].into(),
                device: 1,
                inode: truth.program as u64 + 1,
                fresh: false,
                upper_layer: false,
            }),
            ..Default::default()
        }),
        destination: sent.then(|| Destination {
            ip: "192.0.2.1".into(),
            port: 443,
            hosts: vec![HostName {
                name: HOSTS[truth.host].into(),
                provenance: "sni".into(),
            }],
            ..Default::default()
        }),
        evidence: Some(Evidence {
            grade: EvidenceGrade::Observed.number(),
            destination_method: if sent {
                DestinationMethod::Socket.number()
            } else {
                0
            },
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn lost(loss: &Loss, epoch: u64, sequence: u64) -> Arc<Event> {
    let (reason, signal, _) = LOSSES[loss.reason];
    Arc::new(Event {
        id: Some(EventId {
            epoch,
            sequence,
            ..Default::default()
        }),
        time: timestamp(loss.to),
        kind: EventKind::CoverageGap.number(),
        gap: Some(Gap {
            reason: reason.number(),
            signal: signal.number(),
            from: timestamp(loss.from),
            to: timestamp(loss.to),
            count: 1,
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Whether this use is one that the loss swallowed.
fn swallows(loss: &Loss, truth: &Truth) -> bool {
    (loss.from..=loss.to).contains(&truth.at)
        && LOSSES[loss.reason].2.contains(&truth.act)
        && truth.at % 2 == loss.parity
}

/// What an agent that ran at these times, with these losses, has on disk; and which of the uses it saw.
fn live(
    dir: &Path,
    runs: &[(i64, i64)],
    truths: &[Truth],
    losses: &[Loss],
    kept: u64,
    clean: bool,
) -> Vec<Truth> {
    let mut seen = Vec::new();
    for (epoch, (from, to)) in (1u64..).zip(runs) {
        let retention = Retention {
            events: kept,
            ..Retention::default()
        };
        let ledger = Ledger::open_with(dir, retention).unwrap();
        ledger
            .begin_run_at("boot", (*from * SECOND) as u64)
            .unwrap();
        let mut sequence = 0;
        let mut next = || {
            sequence += 1;
            sequence
        };
        let inside = |at: i64| (*from..=*to).contains(&at);
        for truth in truths.iter().filter(|t| inside(t.at)) {
            let swallowed = losses
                .iter()
                .any(|loss| inside(loss.from) && inside(loss.to) && swallows(loss, truth));
            if !swallowed {
                seen.push(*truth);
                ledger.record(used(truth, epoch, next()));
            }
        }
        for loss in losses.iter().filter(|l| inside(l.from) && inside(l.to)) {
            ledger.record(lost(loss, epoch, next()));
        }
        ledger.heartbeat((*to * SECOND) as u64);
        ledger.flush();
        // Of one that was killed the last seconds are not known.
        if clean {
            ledger.end_run(std::time::Duration::from_secs(5)).unwrap();
        }
    }
    seen
}

#[derive(Clone, Debug)]
struct Asked {
    from: i64,
    to: i64,
    acts: Vec<UseAct>,
    program: Option<usize>,
    host: Option<usize>,
}

impl Asked {
    fn matches(&self, truth: &Truth) -> bool {
        (self.from..=self.to).contains(&truth.at)
            && (self.acts.is_empty() || self.acts.contains(&truth.act))
            && self.program.is_none_or(|p| p == truth.program)
            && self
                .host
                .is_none_or(|h| truth.act == UseAct::Sent && h == truth.host)
    }

    fn ask(&self, dir: &Path) -> CheckUseResponse {
        let ledger = Ledger::open(dir).unwrap();
        let now = (start() + LENGTH + 300) * SECOND;
        ledger
            .reader()
            .check_use(
                &CheckUseRequest {
                    credential: FINGERPRINT[..16].into(),
                    from: timestamp(self.from),
                    to: timestamp(self.to),
                    by: self.program.map_or(String::new(), |p| PROGRAMS[p].into()),
                    to_host: self.host.map_or(String::new(), |h| HOSTS[h].into()),
                    acts: self.acts.iter().map(|a| (*a).into()).collect(),
                    environment: String::new(),
                },
                now,
                // None of the runs lives any more.
                u64::MAX,
            )
            .unwrap()
    }
}

fn act() -> impl Strategy<Value = UseAct> {
    prop_oneof![Just(UseAct::Read), Just(UseAct::Held), Just(UseAct::Sent)]
}

fn truths() -> impl Strategy<Value = Vec<Truth>> {
    let one = (0..LENGTH, act(), 0..PROGRAMS.len(), 0..HOSTS.len()).prop_map(
        |(at, act, program, host)| Truth {
            at: start() + at,
            act,
            program,
            host,
        },
    );
    proptest::collection::vec(one, 0..24)
}

fn losses() -> impl Strategy<Value = Vec<Loss>> {
    let one = (0..LENGTH, 0..900i64, 0..LOSSES.len(), 0..2i64).prop_map(
        |(from, length, reason, parity)| Loss {
            from: start() + from,
            to: start() + (from + length).min(LENGTH),
            reason,
            parity,
        },
    );
    proptest::collection::vec(one, 0..3)
}

/// Times at which the agent starts and ends, in turn.
fn runs() -> impl Strategy<Value = Vec<(i64, i64)>> {
    proptest::collection::btree_set(0..LENGTH, 2..7).prop_map(|ends| {
        let ends: Vec<i64> = ends.into_iter().map(|at| start() + at).collect();
        ends.chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        0..LENGTH,
        prop_oneof![0..60i64, 0..LENGTH],
        proptest::collection::vec(act(), 0..2),
        proptest::option::of(0..PROGRAMS.len()),
        proptest::option::of(0..HOSTS.len()),
    )
        .prop_map(|(from, length, mut acts, program, host)| {
            if host.is_some() {
                acts.clear();
            }
            Asked {
                from: start() + from,
                to: start() + (from + length).min(LENGTH),
                acts,
                program,
                host,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn never_a_wrong_answer(
        runs in runs(),
        truths in truths(),
        losses in losses(),
        kept in prop_oneof![Just(0u64), Just(3), Just(200_000)],
        questions in proptest::collection::vec(asked(), 8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let seen = live(dir.path(), &runs, &truths, &losses, kept, false);
        for question in questions {
            let answer = question.ask(dir.path());
            let verdict = Verdict::try_from(answer.verdict).unwrap();
            let was = truths.iter().any(|truth| question.matches(truth));
            let was_seen = seen.iter().any(|truth| question.matches(truth));
            match verdict {
                Verdict::No => prop_assert!(!was, "denied: {question:?}\n{runs:?}\n{truths:?}\n{losses:?}"),
                Verdict::Yes => prop_assert!(was_seen, "invented: {question:?}\n{answer:?}"),
                _ => prop_assert!(!answer.hidden.is_empty(), "unknown without a reason: {question:?}"),
            }
        }
    }

    /// The other way round: with nothing hidden every answer is exact, as long as single events are kept.
    #[test]
    fn with_nothing_hidden_every_answer_is_exact(
        truths in truths(),
        questions in proptest::collection::vec(asked(), 8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let whole = [(start(), start() + LENGTH)];
        live(dir.path(), &whole, &truths, &[], 200_000, true);
        for question in questions {
            let was = truths.iter().any(|truth| question.matches(truth));
            let answer = question.ask(dir.path());
            let verdict = Verdict::try_from(answer.verdict).unwrap();
            // What inherits it, and what its holders send, is not reported one by one once somebody has it.
            let unreported = |h: &HiddenInterval| h.reason.ends_with("_not_told");
            let exact = match verdict {
                Verdict::Yes => was,
                Verdict::No => !was,
                _ => !was && answer.hidden.iter().all(unreported),
            };
            prop_assert!(exact, "{question:?}\n{truths:?}\n{answer:?}");
            let had = truths.iter().any(|truth| truth.at <= question.to);
            if !had || question.acts == [UseAct::Read] {
                prop_assert!(verdict != Verdict::Unknown, "{question:?}\n{answer:?}");
            }
        }
    }
}

#[test]
fn a_name_that_was_never_met_is_not_denied_and_a_fingerprint_is() {
    let dir = tempfile::tempdir().unwrap();
    live(
        dir.path(),
        &[(start(), start() + LENGTH)],
        &[],
        &[],
        100,
        true,
    );
    let ledger = Ledger::open(dir.path()).unwrap();
    let ask = |credential: &str| {
        let question = CheckUseRequest {
            credential: credential.into(),
            from: timestamp(start() + 10),
            to: timestamp(start() + 20),
            ..Default::default()
        };
        let now = (start() + LENGTH) * SECOND;
        ledger.reader().check_use(&question, now, u64::MAX).unwrap()
    };
    assert_eq!(ask("octocat").verdict, i32::from(Verdict::Unknown));
    assert_eq!(ask("octocat").hidden[0].reason, "identifier_unknown");
    assert_eq!(ask(FINGERPRINT).verdict, i32::from(Verdict::No));
}
