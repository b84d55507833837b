//! Answers questions of gRPC clients from what the store remembers.

use crate::engine::{CommandSender, Memory};
use keytrail_export::{AnswerError, Answers, AnswersSource, Page};
use keytrail_findings::StageInput;
use keytrail_host::clock::wall_ns;
use keytrail_proto::v1;
use keytrail_store::{DecoySeen, ReadError, Reader};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much later than a use its event may come: an open without a read, the end of a word and a destination are
/// waited for, and records of an idle host are read four times a second.
const DECIDED: Duration = Duration::from_millis(2_500);

/// More are of no use, and each event is compared with them.
const MOST_DECOYS: usize = 1000;

struct Remembered {
    commands: CommandSender,
    reader: Reader,
    epoch: u64,
    fingerprint_key: String,
    /// Fingerprints, once somebody asked.
    decoys: Mutex<Option<BTreeSet<String>>>,
}

/// The answers of a running engine.
pub fn source(memory: Memory) -> AnswersSource {
    Arc::new(Remembered {
        commands: memory.commands,
        reader: memory.reader,
        epoch: memory.epoch,
        fingerprint_key: memory.fingerprint_key,
        decoys: Mutex::default(),
    })
}

fn error(e: ReadError) -> AnswerError {
    match e {
        ReadError::Bad(sentence) => AnswerError::Bad(sentence),
        ReadError::NotFound(sentence) => AnswerError::NotFound(sentence),
        ReadError::Database { .. } => AnswerError::Unavailable(e.to_string()),
    }
}

fn now() -> i64 {
    i64::try_from(wall_ns()).unwrap_or(i64::MAX)
}

fn nanoseconds(time: &pbjson_types::Timestamp) -> i64 {
    let seconds = time.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(time.nanos.into())
}

fn timestamp(ns: i64) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: ns.div_euclid(1_000_000_000),
        nanos: ns.rem_euclid(1_000_000_000) as i32,
    }
}

impl Answers for Remembered {
    fn list_credentials(
        &self,
        ask: &v1::ListCredentialsRequest,
    ) -> Result<v1::ListCredentialsResponse, AnswerError> {
        self.reader.list_credentials(ask).map_err(error)
    }

    fn get_credential(
        &self,
        ask: &v1::GetCredentialRequest,
    ) -> Result<v1::GetCredentialResponse, AnswerError> {
        self.reader.get_credential(ask).map_err(error)
    }

    fn history_status(&self) -> Result<v1::GetHistoryStatusResponse, AnswerError> {
        let mut status = self.reader.history_status().map_err(error)?;
        status.fingerprint_key.clone_from(&self.fingerprint_key);
        Ok(status)
    }

    /// A yes comes at once. What is asked about the last moments is not denied before everything of then is decided.
    fn check_use(&self, ask: &v1::CheckUseRequest) -> Result<v1::CheckUseResponse, AnswerError> {
        let asked = now();
        let mut ask = ask.clone();
        let to = ask.to.as_ref().map_or(asked, nanoseconds).min(asked);
        ask.to = Some(timestamp(to));
        let first = self
            .reader
            .check_use(&ask, asked, self.epoch)
            .map_err(error)?;
        let decided = to.saturating_add(i64::try_from(DECIDED.as_nanos()).unwrap_or(i64::MAX));
        let early = decided.saturating_sub(asked);
        if first.verdict == i32::from(v1::Verdict::Yes) || early <= 0 {
            return Ok(first);
        }
        std::thread::sleep(Duration::from_nanos(early.unsigned_abs()).min(DECIDED));
        self.reader
            .check_use(&ask, now(), self.epoch)
            .map_err(error)
    }

    fn list_uses(&self, ask: &v1::ListUsesRequest) -> Result<v1::ListUsesResponse, AnswerError> {
        self.reader.list_uses(ask).map_err(error)
    }

    fn list_coverage(
        &self,
        ask: &v1::ListCoverageRequest,
    ) -> Result<v1::ListCoverageResponse, AnswerError> {
        self.reader
            .list_coverage(ask, now(), self.epoch)
            .map_err(error)
    }

    fn list_findings(
        &self,
        ask: &v1::ListFindingsRequest,
    ) -> Result<v1::ListFindingsResponse, AnswerError> {
        self.reader.list_findings(ask).map_err(error)
    }

    fn graph(&self, ask: &v1::GetGraphRequest) -> Result<v1::GetGraphResponse, AnswerError> {
        self.reader.graph(ask).map_err(error)
    }

    fn events_after(&self, after: &v1::EventId) -> Result<Page, AnswerError> {
        let resumed = self.reader.events_after(after).map_err(error)?;
        Ok(Page {
            events: resumed.events,
            gap: resumed.gap,
            more: resumed.more,
            written: resumed.written,
        })
    }

    fn list_baselines(
        &self,
        ask: &v1::ListBaselinesRequest,
    ) -> Result<v1::ListBaselinesResponse, AnswerError> {
        self.reader.list_baselines(ask, now()).map_err(error)
    }

    fn update_baseline(
        &self,
        ask: &v1::UpdateBaselineRequest,
    ) -> Result<v1::UpdateBaselineResponse, AnswerError> {
        let fingerprints = self.reader.fingerprints(&ask.credential).map_err(error)?;
        let accept = match v1::BaselineAction::try_from(ask.action) {
            Ok(v1::BaselineAction::Accept) => true,
            Ok(v1::BaselineAction::Reset) => false,
            _ => return Err(AnswerError::Bad("there is no such action".into())),
        };
        for fingerprint in &fingerprints {
            let before = self.baseline(fingerprint)?;
            let known = fingerprint.clone();
            self.commands.stage_input(&match accept {
                true => StageInput::Accept { fingerprint: known },
                false => StageInput::Reset { fingerprint: known },
            });
            // What is answered is on disk: an agent that dies now must not forget it.
            self.wait_until_applied(fingerprint, accept, before.as_ref())?;
        }
        Ok(v1::UpdateBaselineResponse { fingerprints })
    }

    fn list_decoys(&self) -> Result<v1::ListDecoysResponse, AnswerError> {
        self.reader.list_decoys().map_err(error)
    }

    fn add_decoy(&self, ask: &v1::AddDecoyRequest) -> Result<v1::AddDecoyResponse, AnswerError> {
        let decoy = ask.decoy.clone().unwrap_or_default();
        if !decoy.fingerprint.starts_with("kt1:") || decoy.fingerprint.len() != 36 {
            return Err(AnswerError::Bad("this is no fingerprint".into()));
        }
        self.change_decoys(DecoySeen {
            fingerprint: decoy.fingerprint,
            kind: decoy.kind,
            path: decoy.path,
            planted_ns: Some(now()),
        })?;
        Ok(v1::AddDecoyResponse {})
    }

    fn remove_decoy(
        &self,
        ask: &v1::RemoveDecoyRequest,
    ) -> Result<v1::RemoveDecoyResponse, AnswerError> {
        self.change_decoys(DecoySeen {
            fingerprint: ask.fingerprint.clone(),
            kind: String::new(),
            path: String::new(),
            planted_ns: None,
        })?;
        Ok(v1::RemoveDecoyResponse {})
    }
}

/// How long a change of what is usual waits for the disk, and how often it is looked for.
const APPLIED_WITHIN: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

impl Remembered {
    fn baseline(&self, fingerprint: &str) -> Result<Option<v1::Baseline>, AnswerError> {
        let ask = v1::ListBaselinesRequest {
            credential: fingerprint.to_owned(),
        };
        let found = self.reader.list_baselines(&ask, now()).map_err(error)?;
        Ok(found.baselines.into_iter().next())
    }

    /// Waits until a change of a baseline can be read from the disk.
    fn wait_until_applied(
        &self,
        fingerprint: &str,
        accept: bool,
        before: Option<&v1::Baseline>,
    ) -> Result<(), AnswerError> {
        let started = Instant::now();
        while started.elapsed() < APPLIED_WITHIN {
            // Forgotten, or learned anew since.
            let applied = match self.baseline(fingerprint)? {
                None => !accept,
                Some(now) if accept => now.accepted,
                Some(now) => before.is_none_or(|before| {
                    now.uses < before.uses || before.accepted && !now.accepted
                }),
            };
            if applied {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        if self.baseline(fingerprint)?.is_none() {
            return Err(AnswerError::NotFound(
                "nothing is known of what is usual for it: it was not used yet".into(),
            ));
        }
        Err(AnswerError::Unavailable(
            "it was reported, and is not on disk yet: see the agent's log for why the state directory cannot be written".into(),
        ))
    }

    /// One decoy more or less, for memory and for the stage of findings.
    fn change_decoys(&self, change: DecoySeen) -> Result<(), AnswerError> {
        // What was changed a moment ago may not be on disk yet.
        let mut known = self.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut decoys = match &*known {
            Some(decoys) => decoys.clone(),
            None => {
                let decoys = self.reader.list_decoys().map_err(error)?.decoys;
                decoys.into_iter().map(|d| d.fingerprint).collect()
            }
        };
        if change.planted_ns.is_some() {
            if decoys.len() >= MOST_DECOYS {
                return Err(AnswerError::Bad(format!(
                    "there are {MOST_DECOYS} decoys already"
                )));
            }
            decoys.insert(change.fingerprint.clone());
        } else if !decoys.remove(&change.fingerprint) {
            return Err(AnswerError::NotFound("there is no such decoy".into()));
        }
        *known = Some(decoys.clone());
        self.commands.stage_input(&StageInput::Decoys { decoys });
        self.commands.decoy(change);
        Ok(())
    }
}
