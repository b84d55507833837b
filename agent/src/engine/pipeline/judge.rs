//! The stage of findings within the loop: what it is told at the start, what it finds, what it has learned.

use super::Pipeline;
use keytrail_findings::{Facts, Stage, StageInput};
use keytrail_model::{Dropped, Observation};
use keytrail_proto::v1;
use keytrail_store::Ledger;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

/// Files of rules of this site, and bytes of one.
const MOST_FILES: usize = 256;
const MOST_BYTES: u64 = 64 << 10;
/// What is handed to the ledger before it is waited for: with one piece more, fewer than may wait there.
const AT_ONCE: usize = 8_192;

/// Judges events from the moment it is told what is usual; until then it finds nothing.
#[derive(Default)]
pub(crate) struct Judge(Option<Stage>);

impl Judge {
    /// What an observation tells. Rules that are wrong are logged.
    pub fn apply(&mut self, input: &str) {
        let input: StageInput = match serde_json::from_str(input) {
            Ok(input) => input,
            Err(error) => {
                tracing::error!(%error, "what the findings were told is not understood");
                return;
            }
        };
        let stage = self.0.get_or_insert_with(|| {
            let (stage, errors) = Stage::builtin();
            for error in errors {
                tracing::error!(%error, "a built-in rule is refused");
            }
            stage
        });
        for error in stage.apply(input) {
            tracing::error!(%error, "a rule of findings is refused");
        }
    }

    /// What found no room since the last time.
    pub fn dropped(&mut self) -> Dropped {
        let stage = self.0.as_mut();
        stage.map_or_else(Dropped::default, |stage| std::mem::take(stage.dropped()))
    }

    /// The findings that an event makes, as events without numbers; the event gets its environment.
    pub fn step(&mut self, event: &mut v1::Event) -> Vec<v1::Event> {
        let Some(stage) = &mut self.0 else {
            return Vec::new();
        };
        let found = stage.step(&Facts::of(event));
        stage.environment().clone_into(&mut event.environment);
        let event = &*event;
        found
            .iter()
            .map(|finding| Facts::finding_event(finding, event))
            .collect()
    }
}

impl Pipeline {
    /// Tells the stage what is known from before; an agent that remembers nothing judges nothing.
    pub fn begin_findings(&mut self, rules: &Path) {
        let Some(ledger) = &self.ledger else { return };
        let input = match ledger.findings() {
            Ok(known) => StageInput::Start {
                rules: read_rules(rules),
                baselines: known
                    .baselines
                    .into_iter()
                    .filter_map(|(fingerprint, body)| {
                        Some((fingerprint, serde_json::from_str(&body).ok()?))
                    })
                    .collect(),
                repeats: known.repeats,
                decoys: known.decoys.into_iter().collect(),
            },
            Err(error) => {
                tracing::error!(%error, "what is usual cannot be read: it is learned anew");
                StageInput::Start {
                    rules: read_rules(rules),
                    baselines: Default::default(),
                    repeats: Vec::new(),
                    decoys: Default::default(),
                }
            }
        };
        match serde_json::to_string(&input) {
            Ok(input) => self.step(&Observation::Findings { input }),
            Err(error) => tracing::error!(%error, "there will be no findings"),
        }
    }

    /// A piece of what was learned and of what was found again goes to the ledger.
    pub fn keep_findings(&mut self) {
        if let (Some(stage), Some(ledger)) = (&mut self.judge.0, &self.ledger) {
            take_back(stage, ledger);
            keep_piece(stage, ledger);
        }
    }

    /// At the end of a run all of it goes there. What is not written by then is counted.
    pub fn keep_all_findings(&mut self, end: Instant) -> Learned {
        match (&mut self.judge.0, &self.ledger) {
            (Some(stage), Some(ledger)) => keep_all(stage, ledger, end),
            _ => Learned::default(),
        }
    }
}

/// How much was learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// For which something else is usual than before.
    pub credentials: usize,
    /// Findings that were made again.
    pub findings: usize,
}

impl Learned {
    /// What the stage has not handed out yet.
    fn of(stage: &Stage) -> Learned {
        Learned {
            credentials: stage.changed(),
            findings: stage.repeated(),
        }
    }

    pub fn sum(self) -> usize {
        self.credentials + self.findings
    }

    fn and(self, more: Learned) -> Learned {
        Learned {
            credentials: self.credentials + more.credentials,
            findings: self.findings + more.findings,
        }
    }
}

/// Pieces go to the ledger as long as they find room there for certain, and then it is waited for.
fn keep_all(stage: &mut Stage, ledger: &Ledger, end: Instant) -> Learned {
    take_back(stage, ledger);
    let mut given = Learned::default();
    while given.sum() + Learned::of(stage).sum() > 0 {
        if !ledger.flush_by(end) {
            // Whether what was given gets there is not known.
            return given.and(Learned::of(stage));
        }
        if take_back(stage, ledger) && given.sum() > 0 {
            // A disk that refuses is not asked again.
            break;
        }
        given = Learned::default();
        while given.sum() < AT_ONCE && Learned::of(stage).sum() > 0 {
            given = given.and(keep_piece(stage, ledger));
        }
    }
    Learned::of(stage)
}

fn keep_piece(stage: &mut Stage, ledger: &Ledger) -> Learned {
    let mut given = Learned::default();
    for (fingerprint, baseline) in stage.take_changed() {
        let body = baseline.and_then(|b| serde_json::to_string(&b).ok());
        ledger.baseline(fingerprint, body);
        given.credentials += 1;
    }
    for repeat in stage.take_repeated() {
        ledger.repeat(repeat);
        given.findings += 1;
    }
    given
}

/// What the ledger could not keep is handed out again; whether there was any.
fn take_back(stage: &mut Stage, ledger: &Ledger) -> bool {
    let unkept = ledger.unkept();
    let any = !unkept.is_empty();
    stage.change_again(&unkept.baselines);
    stage.repeat_again(unkept.repeats);
    any
}

/// Names and texts of the files in a directory, by name.
pub(crate) fn read_rules(dir: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    paths.truncate(MOST_FILES);
    let mut rules = Vec::new();
    for path in paths {
        let mut text = String::new();
        let read =
            fs::File::open(&path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => rules.push((path.display().to_string(), text)),
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "a rule of findings cannot be read");
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests;
