//! Reads of other processes' environments and memory, from the sensor to the core.

use super::line::Line;
use keytrail_host::clock::boot_ns;
use keytrail_ingest::start_of;
use keytrail_model::{Observation, Pid, Stamp, TakenSeen};
use keytrail_sensor::ProcessRead;

/// What told of them. It has no time of its own: a read was before it was told.
const HOOK: &str = "fanotify";

/// Reads that wait for what is not known of their victim yet.
const MAX_LATE: usize = 1_024;

/// How long a read waits for its reader's program.
const LATE_NS: u64 = 300_000_000;

impl Line {
    /// One read out of a process. Only what was read out of holders is told.
    pub fn process_read(&mut self, read: &ProcessRead) {
        let Some(victim) = self.process(read.victim, start_of(read.victim)) else {
            return;
        };
        if self.waits(victim.tgid) && self.late_reads.len() < MAX_LATE {
            // What it was begun with is known when a file has been inspected.
            self.late_reads.push(*read);
            return;
        }
        if !self.core.holds(victim) {
            return;
        }
        let start = read.identity.map(|identity| identity.start_ticks);
        let Some(reader) = self.process(read.reader, start) else {
            return;
        };
        // Its exec may wait behind a file, or not be whole yet.
        let begins = self
            .core
            .processes()
            .get(reader)
            .is_some_and(|p| p.exec == 0);
        if (begins || self.waits(reader.tgid))
            && boot_ns() < read.boot_ns.saturating_add(LATE_NS)
            && self.late_reads.len() < MAX_LATE
        {
            self.late_reads.push(*read);
            return;
        }
        if self.own.is(reader) {
            self.own.leave_out();
            return;
        }
        self.introduce(reader);
        let known = self.core.processes().get(reader);
        let who = read.identity.unwrap_or_default();
        let at = Stamp {
            boot_ns: read.boot_ns,
            pid: reader,
            tid: reader.tgid,
            uid: known.map_or(who.uid, |p| p.uid),
            euid: known.map_or(who.euid, |p| p.euid),
            gid: known.map_or(who.gid, |p| p.gid),
            cgroup_id: 0,
            comm: known.map_or_else(String::new, |p| p.comm.clone()),
        };
        self.step(&Observation::Taken(TakenSeen {
            at,
            victim,
            what: read.what,
            hook: HOOK.to_owned(),
        }));
        if reader != victim && self.core.holds(reader) {
            // What it sends from now on is captured.
            let only_keys = self.core.only_signs(reader);
            self.deferred.set_holder(reader.tgid, only_keys, 0);
            self.deferred.libraries(reader.tgid);
        }
    }

    /// A process by its number now; of one that is gone, the last that is remembered under it.
    fn process(&self, tgid: u32, start: Option<u64>) -> Option<Pid> {
        let pid = start.map(|start| Pid { tgid, start });
        pid.or_else(|| self.core.processes().latest(tgid))
    }
}
