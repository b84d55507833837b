//! What the sensor does about its hooks while it runs: looks whether they are at their places, exercises them, puts on
//! again what can be, and says what became of them.

use super::{
    Attached, Sensor,
    foreign::ForeignNews,
    hooks,
    trials::{self, Step, Untried},
    watch,
};
use keytrail_abi::{PROC_HOLDER, ProcState, state::watch as flags};
use keytrail_model::Signal;
use keytrail_model::status::{ATTACHED_AGAIN, FIRED, Refused, SILENT, TAKEN_OFF};
use std::time::Duration;

/// The file of the trials lies on a disk of the agent's own choice: it is there in a moment.
const WATCHED_WITHIN: Duration = Duration::from_millis(50);

/// Something became of the hook of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookChange {
    pub signal: Signal,
    pub hook: String,
    pub fate: HookFate,
    /// When it was last known to be as it had been, by the wall clock.
    pub since_wall_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookFate {
    /// It was taken off from outside. Whether it was put on again, or why not.
    TakenOff {
        how: &'static str,
        again: Result<(), Refused>,
    },
    /// It is at its place and tells nothing any more.
    Silent,
    /// It tells again.
    Fires,
}

impl Sensor {
    /// Whether hooks were taken off since the last call, and puts them on again: one system call a hook.
    pub fn check_hooks(&mut self, wall_ns: u64) -> Vec<HookChange> {
        let since_wall_ns = std::mem::replace(&mut self.looked_wall_ns, wall_ns);
        let off = self.attached.check();
        if off.is_empty() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for off in off {
            let again = hooks::again(&mut self.ebpf, off.hook);
            for signal in off.signals {
                if let Some(report) = self.status.signal_mut(signal) {
                    let word = if again.is_ok() {
                        ATTACHED_AGAIN
                    } else {
                        TAKEN_OFF
                    };
                    word.clone_into(&mut report.self_test);
                }
                changes.push(HookChange {
                    signal,
                    hook: off.hook.point.name(),
                    fate: HookFate::TakenOff {
                        how: off.how,
                        again: again.clone(),
                    },
                    since_wall_ns,
                });
            }
        }
        self.attached = Attached::find(&self.ebpf);
        changes
    }

    /// Goes on with provoking the hooks. To be called after a drain; `lost`: records were lost since the last call.
    pub fn try_hooks(&mut self, now_ns: u64, wall_ns: u64, lost: bool) -> Vec<HookChange> {
        let Some(trials) = &mut self.trials else {
            return Vec::new();
        };
        if lost {
            trials.spoil();
        }
        match trials.step(now_ns, wall_ns) {
            None => Vec::new(),
            Some(Step::Begin(tgid, stdin)) => {
                self.prepare_trial(tgid);
                trials::go(stdin);
                Vec::new()
            }
            Some(Step::Over(verdicts)) => verdicts
                .into_iter()
                .filter_map(|verdict| self.verdict(verdict))
                .collect(),
        }
    }

    /// Whether trials have stopped coming to a verdict, or do so again, since the last call.
    pub fn untried(&mut self) -> Option<Untried> {
        self.trials.as_mut()?.untried()
    }

    /// Other BPF programs, and others who have the agent's, since the last call.
    pub fn foreign(&self) -> Vec<ForeignNews> {
        self.foreign.as_ref().map_or_else(Vec::new, |f| f.take())
    }

    /// So that what the process does is reported.
    fn prepare_trial(&mut self, tgid: u32) {
        if !std::mem::replace(&mut self.canary_kept, true)
            && let Err(error) = self.libraries.keep_canary(&mut self.ebpf)
        {
            tracing::debug!("no probe to be tried: {error}");
            if let Some(trials) = &mut self.trials {
                trials.forget(Signal::TlsWrite);
            }
        }
        if let Some(path) = self.trials.as_ref().and_then(|t| t.file()).cloned()
            && let Ok(file) = watch::file_id(&path)
            && self.trial_file != Some(file)
        {
            // Kept: that the mark is taken off is to be noticed. A refused one shows in the result.
            let _ = self.watch(&path, file, flags::FILE);
            self.collect_watches(WATCHED_WITHIN);
            self.trial_file = Some(file);
        }
        let before = self.maps.process(tgid).unwrap_or_default();
        self.maps.set_process(
            tgid,
            ProcState {
                state: PROC_HOLDER,
                ..before
            },
        );
    }

    fn verdict(&mut self, verdict: trials::Verdict) -> Option<HookChange> {
        let report = self.status.signal_mut(verdict.signal)?;
        if report.self_test == TAKEN_OFF {
            // Reported when it was.
            return None;
        }
        let (word, fate) = if verdict.fires {
            (FIRED, HookFate::Fires)
        } else {
            (SILENT, HookFate::Silent)
        };
        word.clone_into(&mut report.self_test);
        let hook = report.hook.clone();
        if !verdict.fires
            && verdict.signal == Signal::FileOpen
            && let Some(fanotify) = &self.fanotify
        {
            self.watches.mark_again(fanotify);
        }
        Some(HookChange {
            signal: verdict.signal,
            hook,
            fate,
            since_wall_ns: verdict.since_wall_ns,
        })
    }
}
