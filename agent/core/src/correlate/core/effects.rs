//! What the sensor has to see otherwise after an observation: whose payloads are captured, and where TLS libraries are
//! searched for.

use super::Core;
use keytrail_model::{Answers, Capture, Decision, Effect, Observation, Pid, SensorChange};

impl Core {
    /// The kernel side captures the payloads of a process until it is told that it holds nothing. So it does those of who
    /// reads what the process writes, and so on: they are decided with it.
    #[must_use]
    pub fn decide(&self, decision: Decision) -> Vec<Effect> {
        let Decision { pid, exec_id } = decision;
        let mut effects = vec![self.decide_one(pid, Answers::Own(exec_id))];
        effects.extend(
            self.downstream(pid)
                .into_iter()
                .map(|reader| self.decide_one(reader, Answers::Passed(exec_id))),
        );
        effects
    }

    fn decide_one(&self, pid: Pid, answers: Answers) -> Effect {
        let capture = if self.holds(pid) {
            self.capture_of_holder(pid)
        } else if self.may_be_fed(pid) {
            Capture::All
        } else {
            Capture::Nothing
        };
        Effect::Sensor(SensorChange::SetProcess {
            tgid: pid.tgid,
            capture,
            answers,
        })
    }

    /// What follows from an observation that was taken in.
    pub(super) fn effects_of(&mut self, observation: &Observation) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Who was passed something holds it from now on, whatever was decided before.
        for pid in std::mem::take(&mut self.given) {
            self.met(pid, &mut effects);
        }
        match observation {
            Observation::Connect { at, .. } if self.holds(at.pid) => {
                if let Some(proc) = self.table.get_mut(at.pid)
                    && !std::mem::replace(&mut proc.connected, true)
                {
                    effects.push(scan_libraries(at.pid));
                }
            }
            Observation::Exec(exec) => {
                let pid = exec.at.pid;
                effects.extend(watch_procfs(pid, exec.ns_tgid));
                if self.holds(pid) {
                    effects.push(SensorChange::ScanProgram { tgid: pid.tgid }.into());
                    if let Some(proc) = self.table.get(pid) {
                        self.unhooked.asked(proc, exec.at.boot_ns);
                    }
                }
            }
            Observation::Snapshot(snapshot) => {
                let pid = snapshot.at.pid;
                effects.extend(watch_procfs(pid, snapshot.ns_tgid));
                if self.holds(pid) {
                    effects.push(self.holder(pid));
                }
            }
            Observation::File(seen) if self.holds(seen.at.pid) => {
                self.met(seen.at.pid, &mut effects);
            }
            Observation::Answer(seen) if self.holds(seen.at.pid) => {
                self.met(seen.at.pid, &mut effects);
            }
            Observation::InUse(seen) if self.holds(seen.at.pid) => {
                self.met(seen.at.pid, &mut effects);
            }
            Observation::Taken(seen) if seen.at.pid != seen.victim && self.holds(seen.at.pid) => {
                self.met(seen.at.pid, &mut effects);
            }
            _ => {}
        }
        effects
    }

    /// A process holds something, and may have connected before it did.
    fn met(&self, pid: Pid, effects: &mut Vec<Effect>) {
        effects.extend([self.holder(pid), scan_libraries(pid)]);
    }

    /// Said whatever was decided before: a decision about the program before may have been on its way.
    fn holder(&self, pid: Pid) -> Effect {
        Effect::Sensor(SensorChange::SetProcess {
            tgid: pid.tgid,
            capture: self.capture_of_holder(pid),
            answers: Answers::Any,
        })
    }

    fn capture_of_holder(&self, pid: Pid) -> Capture {
        if self.only_signs(pid) {
            Capture::Keys
        } else {
            Capture::All
        }
    }
}

fn scan_libraries(pid: Pid) -> Effect {
    SensorChange::ScanLibraries { tgid: pid.tgid }.into()
}

/// Of a process in another pid namespace, which has a procfs of its own.
fn watch_procfs(pid: Pid, ns_tgid: u32) -> Option<Effect> {
    let tgid = pid.tgid;
    (ns_tgid != 0 && ns_tgid != tgid).then(|| SensorChange::WatchProcfs { tgid }.into())
}
