//! Carries out what stages ask for, in their order: nobody else does.
//!
//! What is for the core or the inventory is done at once, since what follows may rest on it. What is for the sensor waits
//! until its rings have been drained.

use super::{Pipeline, as_pipe};
use crate::engine::coverage;
use keytrail_abi::{FileId, PASSED, PROC_HOLDER, PROC_KEYS, ProcState, watch};
use keytrail_host::clock::boot_ns;
use keytrail_model::{Answers, Capture, Effect, FileKey, GapSeen, PipeId, SensorChange};
use keytrail_sensor::Sensor;
use std::time::Duration;

/// Time that files which answer at once may take all together; the others are watched in a moment.
const WATCHES: Duration = Duration::from_millis(100);

impl Pipeline {
    pub fn carry_out(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Decide(decision) => {
                    let effects = self.core.decide(decision);
                    self.carry_out(effects);
                }
                Effect::Inventory(news) => {
                    self.update_inventory(news);
                }
                Effect::Sensor(change) => self.change(change),
            }
        }
    }

    /// A change of what the sensor sees, made when its rings have been drained.
    pub fn change(&mut self, change: SensorChange) {
        if let SensorChange::MarkClean { file, .. } = &change
            && self.lanes.of_pipe(as_pipe(*file)).is_some()
        {
            // What its writer puts into it is not known yet: who reads it is to be reported.
            return;
        }
        self.changes.push(change);
    }

    /// Changes what the sensor sees as was asked until now.
    pub fn apply(&mut self, sensor: &mut Sensor) {
        let mut gaps = Vec::new();
        for change in self.changes.drain(..) {
            gaps.extend(apply(change, sensor));
        }
        for (path, error) in sensor.take_watches(WATCHES) {
            // What is gone already cannot be read.
            if error.kind() != std::io::ErrorKind::NotFound {
                gaps.push(coverage::unwatched(&path, &error, boot_ns()));
            }
        }
        for gap in gaps {
            self.gap(gap);
        }
    }
}

/// Returns what is not seen for want of room.
fn apply(change: SensorChange, sensor: &mut Sensor) -> Option<GapSeen> {
    match change {
        SensorChange::SetProcess {
            tgid,
            capture,
            answers,
        } => set_process(sensor, tgid, capture, exec_id(answers)),
        SensorChange::SetStreams {
            tgid,
            stdin,
            stdout,
        } => {
            let [stdin, stdout] = [stdin, stdout].map(|pipe| pipe.map(of_pipe).unwrap_or_default());
            sensor.set_streams(tgid, stdin, stdout);
        }
        SensorChange::Watch { path, file } => {
            if let Err(error) = sensor.watch(&path, file_id(file), watch::FILE) {
                return Some(coverage::unwatched(&path, &error, boot_ns()));
            }
        }
        SensorChange::Unwatch { file } => sensor.unwatch(file_id(file)),
        SensorChange::MarkClean { file, ctime_ns } => sensor.set_clean(file_id(file), ctime_ns),
        SensorChange::ScanLibraries { tgid } => sensor.search_process(tgid),
        SensorChange::ScanProgram { tgid } => sensor.search_program(tgid),
        SensorChange::ScanWritten { file, path } => sensor.offer_program(file, path),
        SensorChange::WatchProcfs { tgid } => sensor.has_own_procfs(tgid),
    }
    None
}

fn set_process(sensor: &mut Sensor, tgid: u32, capture: Capture, exec_id: u64) {
    let state = match capture {
        Capture::Nothing => return sensor.clear_process(tgid, exec_id),
        Capture::Keys => PROC_KEYS,
        Capture::All => PROC_HOLDER,
    };
    let state = ProcState {
        state,
        met: 0,
        exec_id,
    };
    sensor.set_process(tgid, state);
}

fn exec_id(answers: Answers) -> u64 {
    match answers {
        Answers::Any => 0,
        Answers::Own(exec_id) => exec_id,
        Answers::Passed(exec_id) => exec_id | PASSED,
    }
}

fn file_id(file: FileKey) -> FileId {
    FileId {
        ino: file.inode,
        dev: file.device,
        pad: 0,
    }
}

fn of_pipe(pipe: PipeId) -> FileId {
    FileId {
        ino: pipe.inode,
        dev: u32::try_from(pipe.device).unwrap_or(0),
        pad: 0,
    }
}
