//! Kernel-side changes asked for while records are being taken in.

use super::coverage;
use keytrail_abi::{FileId, PROC_HOLDER, PROC_KEYS, ProcState};
use keytrail_host::clock::boot_ns;
use keytrail_model::{GapSeen, PipeId};
use keytrail_sensor::Sensor;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// Time that files which answer at once may take all together; the others are watched in a moment.
const WATCHES: Duration = Duration::from_millis(100);

/// Kernel-side changes asked for while the ring is being drained; done right after.
#[derive(Default)]
pub(super) struct Deferred(Vec<Op>);

enum Op {
    Set(u32, ProcState),
    Clear(u32, u64),
    Watch(PathBuf, FileId, u32),
    Unwatch(FileId),
    Clean(FileId, u64),
    /// A holder is about to talk: what it has mapped may be new.
    Libraries(u32),
    /// A holder's program is looked at.
    Program(u32),
    /// Standard streams, where they are pipes, of a process that ran before.
    Streams(u32, FileId, FileId),
    /// A process of another pid namespace: reads in its procfs are listened to.
    Procfs(u32),
    /// A file that may be a program was written.
    Written(OwnedFd, PathBuf),
}

impl Deferred {
    pub fn set_process(&mut self, tgid: u32, state: ProcState) {
        self.0.push(Op::Set(tgid, state));
    }

    /// This process holds something: what it sends is captured. One that holds `only_keys` answers with signatures,
    /// so less of its answers is looked into.
    pub fn set_holder(&mut self, tgid: u32, only_keys: bool, exec_id: u64) {
        let state = ProcState {
            state: if only_keys { PROC_KEYS } else { PROC_HOLDER },
            met: 0,
            exec_id,
        };
        self.set_process(tgid, state);
    }

    pub fn clear_process(&mut self, tgid: u32, exec_id: u64) {
        self.0.push(Op::Clear(tgid, exec_id));
    }

    pub fn watch(&mut self, path: PathBuf, file: FileId) {
        self.0
            .push(Op::Watch(path, file, keytrail_abi::watch::FILE));
    }

    pub fn unwatch(&mut self, file: FileId) {
        self.0.push(Op::Unwatch(file));
    }

    pub fn set_clean(&mut self, file: FileId, ctime_ns: u64) {
        self.0.push(Op::Clean(file, ctime_ns));
    }

    pub fn libraries(&mut self, tgid: u32) {
        self.0.push(Op::Libraries(tgid));
    }

    pub fn program(&mut self, tgid: u32) {
        self.0.push(Op::Program(tgid));
    }

    pub fn streams(&mut self, tgid: u32, streams: [Option<PipeId>; 2]) {
        let [stdin, stdout] = streams.map(|pipe| {
            pipe.map_or_else(FileId::default, |pipe| FileId {
                ino: pipe.inode,
                dev: u32::try_from(pipe.device).unwrap_or(0),
                pad: 0,
            })
        });
        self.0.push(Op::Streams(tgid, stdin, stdout));
    }

    pub fn procfs(&mut self, tgid: u32) {
        self.0.push(Op::Procfs(tgid));
    }

    pub fn written(&mut self, file: OwnedFd, path: PathBuf) {
        self.0.push(Op::Written(file, path));
    }

    /// Returns what could not be watched.
    pub fn apply(&mut self, sensor: &mut Sensor) -> Vec<GapSeen> {
        let mut gaps = Vec::new();
        for op in self.0.drain(..) {
            match op {
                Op::Set(tgid, state) => sensor.set_process(tgid, state),
                Op::Clear(tgid, exec_id) => sensor.clear_process(tgid, exec_id),
                Op::Watch(path, file, flags) => {
                    if let Err(error) = sensor.watch(&path, file, flags) {
                        gaps.push(coverage::unwatched(&path, &error, boot_ns()));
                    }
                }
                Op::Unwatch(file) => sensor.unwatch(file),
                Op::Clean(file, ctime_ns) => sensor.set_clean(file, ctime_ns),
                Op::Libraries(tgid) => sensor.search_process(tgid),
                Op::Program(tgid) => sensor.search_program(tgid),
                Op::Streams(tgid, stdin, stdout) => sensor.set_streams(tgid, stdin, stdout),
                Op::Procfs(tgid) => sensor.has_own_procfs(tgid),
                Op::Written(file, path) => sensor.offer_program(file, path),
            }
        }
        for (path, error) in sensor.take_watches(WATCHES) {
            // What is gone already cannot be read.
            if error.kind() != std::io::ErrorKind::NotFound {
                gaps.push(coverage::unwatched(&path, &error, boot_ns()));
            }
        }
        gaps
    }
}
