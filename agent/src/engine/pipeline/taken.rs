//! What is taken out of other processes, by reads in /proc and by system calls, from the sensor to the core.

use super::Pipeline;
use crate::engine::coverage;
use keytrail_abi::{ProcessAttach, records::method};
use keytrail_host::{clock::boot_ns, procfs};
use keytrail_ingest::start_of;
use keytrail_model::{Observation, Pid, TICK_NS, Taken, TakenSeen, TaskInfo};
use keytrail_sensor::{Identity, ProcessRead};

/// What reported reads in /proc. It has no time of its own: a read was before it was reported.
const FANOTIFY: &str = "fanotify";

/// What waits for what is not known of its victim yet.
const MAX_LATE: usize = 1_024;

/// How long it waits for its reader's program.
const LATE_NS: u64 = 300_000_000;

/// Somebody took something out of a process.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    boot_ns: u64,
    reader: u32,
    /// Who the reader is; `None` when it was gone before it could be asked.
    identity: Option<Identity>,
    victim: u32,
    what: Taken,
    asked: u64,
    unproven: bool,
    hook: String,
    /// All rings were read once more since it came.
    is_read_again: bool,
}

impl Taking {
    pub fn of_read(read: ProcessRead) -> Self {
        Self {
            boot_ns: read.boot_ns,
            reader: read.reader,
            identity: read.identity,
            victim: read.victim,
            what: read.what,
            asked: 0,
            unproven: false,
            hook: FANOTIFY.to_owned(),
            is_read_again: false,
        }
    }

    /// A system call; `None` when it cannot have brought anything, or is of the caller itself.
    pub fn of_call(pipeline: &mut Pipeline, attach: &ProcessAttach, hook: &str) -> Option<Self> {
        let header = &attach.header;
        let what = match attach.method {
            method::VM_READ => Taken::VmRead,
            method::TRACE => Taken::Traced,
            _ => Taken::Descriptor,
        };
        let Some(victim) = victim(pipeline, attach) else {
            if attach.proven == 1 {
                pipeline.gap(coverage::victim_unknown(header.boot_ns));
            }
            return None;
        };
        if victim == header.tgid {
            return None;
        }
        // The kernel asks for the same user or the capability (and for more, which only ever makes it refuse). Who is
        // traced was let be traced.
        let same_user = || {
            let known = pipeline.core.processes().latest(victim);
            known
                .and_then(|pid| pipeline.core.processes().get(pid))
                .is_none_or(|p| p.uid == header.uid)
        };
        if what != Taken::Traced && attach.capable == 0 && !same_user() {
            return None;
        }
        Some(Self {
            boot_ns: header.boot_ns,
            reader: header.tgid,
            identity: Some(Identity {
                start_ticks: header.start_ns / TICK_NS,
                uid: header.uid,
                euid: header.euid,
                gid: header.gid,
                comm: header.comm,
            }),
            victim,
            what,
            asked: attach.asked,
            unproven: attach.proven == 0,
            hook: hook.to_owned(),
            is_read_again: false,
        })
    }
}

/// The process a call names, by the host's number. A thread stands for its process.
fn victim(pipeline: &Pipeline, attach: &ProcessAttach) -> Option<u32> {
    let of_host = |number: u32| {
        procfs::tgid_of(number)
            .or_else(|| pipeline.core.processes().latest(number).map(|pid| pid.tgid))
    };
    if attach.victim != 0 {
        return of_host(attach.victim);
    }
    if attach.level == 0 {
        return of_host(attach.number);
    }
    pipeline
        .core
        .processes()
        .live()
        .filter(|p| p.ns_tgid == attach.number)
        .filter_map(|p| p.pid)
        .map(|pid| pid.tgid)
        .find(|tgid| procfs::namespace(*tgid, "pid") == Some(attach.pid_ns))
}

impl Pipeline {
    /// Something taken out of a process. Only what was taken out of holders is reported.
    pub fn taking(&mut self, taking: Taking) {
        let Some(victim) = self.process(taking.victim, start_of(taking.victim)) else {
            return;
        };
        if self.waits(victim.tgid) && self.takings.len() < MAX_LATE {
            // What it was begun with is known when a file has been inspected.
            self.takings.push(taking);
            return;
        }
        if !self.core.holds(victim) {
            // What it read a moment before may be in a ring that was read before this one.
            if !taking.is_read_again && self.takings.len() < MAX_LATE {
                self.takings.push(Taking {
                    is_read_again: true,
                    ..taking
                });
            }
            return;
        }
        let start = taking.identity.map(|identity| identity.start_ticks);
        let Some(reader) = self.process(taking.reader, start) else {
            return;
        };
        // Its exec may wait behind a file, or not be whole yet.
        let begins = self
            .core
            .processes()
            .get(reader)
            .is_some_and(|p| p.exec == 0);
        if (begins || self.waits(reader.tgid))
            && boot_ns() < taking.boot_ns.saturating_add(LATE_NS)
            && self.takings.len() < MAX_LATE
        {
            self.takings.push(taking);
            return;
        }
        if self.own.is(reader) {
            self.own.leave_out();
            return;
        }
        self.ensure_known(reader);
        let known = self.core.processes().get(reader);
        let who = taking.identity.unwrap_or_default();
        let at = TaskInfo {
            boot_ns: taking.boot_ns,
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
            what: taking.what,
            asked: taking.asked,
            unproven: taking.unproven,
            hook: taking.hook,
        }));
    }

    /// A process by its number now; of one that is gone, the last that is remembered under it.
    fn process(&self, tgid: u32, start: Option<u64>) -> Option<Pid> {
        let pid = start.map(|start| Pid { tgid, start });
        pid.or_else(|| self.core.processes().latest(tgid))
    }
}
