//! Pipes: who can read from them and write to them, and what may have gone through. Pure: time comes with the record.

use super::{Holding, Passed};
use keytrail_model::{Pid, PipeId};
use std::collections::{HashMap, VecDeque};

/// Pipes known at most.
const MAX_PIPES: usize = 16_384;
/// Processes that read from one pipe, and that write to one.
const MAX_READERS: usize = 16;
const MAX_WRITERS: usize = 256;
/// Pipes of one process, the last ones, from which something is still expected.
const MAX_READ: usize = 64;
/// Credentials that may have gone through one pipe.
const MAX_CARRIED: usize = 64;
/// How long a pipe is remembered that nobody is known to have open: a shell may have it between two of its commands.
const KEEP_NS: u64 = 600_000_000_000;
/// And for how long what was put into a FIFO that nobody writes to any more: who had it open then may begin to read a little
/// later.
const LEFT_NS: u64 = 500_000_000;

/// A credential that was put into a pipe, as far as is known.
#[derive(Clone, Debug)]
pub struct Carried {
    /// As the writer holds it, with the way up to the writer.
    pub holding: Holding,
    pub passed: Passed,
    pub writer: Pid,
    pub by: By,
}

/// By what a credential may have been passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Pipe,
    /// A pseudo-terminal of this path: who has its other end.
    Terminal(String),
    /// A file of this path; empty when it is not known.
    File(String),
    /// A Unix socket of this name; empty for a nameless pair.
    Socket(String),
}

#[derive(Debug, Default)]
struct Pipe {
    /// Each with whether it is their standard input; others take what their children write.
    readers: Vec<(Pid, bool)>,
    /// Readers that found no room since anything was carried: that is no loss as long as nothing is.
    left_out: u64,
    writers: Vec<Pid>,
    /// Writers that opened it by its name, a FIFO or a terminal: of what they hold goes on what they put into it.
    loose: Vec<Pid>,
    /// When the last writer left.
    left_ns: u64,
    /// Of a FIFO; empty when it is not known or there is none.
    name: String,
    /// Somebody was known to write to it.
    written: bool,
    carried: Vec<Carried>,
    /// Credentials that found no room, and are counted.
    refused: u64,
    /// It waits to be forgotten.
    idle: bool,
}

impl Pipe {
    /// Nobody writes to it, or has it as standard input. A shell that takes what its commands write may take more later, but
    /// not so much later.
    fn is_over(&self) -> bool {
        let written = !self.writers.is_empty() || !self.loose.is_empty();
        !written && self.readers.iter().all(|(_, stdin)| !*stdin)
    }

    fn is_written_by(&self, pid: Pid) -> bool {
        self.writers.contains(&pid) || self.loose.contains(&pid)
    }

    fn is_of(&self, pid: Pid) -> bool {
        self.is_written_by(pid) || self.readers.iter().any(|(reader, _)| *reader == pid)
    }
}

/// All pipes, each as long as somebody known has it and a while longer.
#[derive(Debug, Default)]
pub struct Pipes {
    map: HashMap<PipeId, Pipe>,
    /// The pipes of each process.
    of: HashMap<Pid, Vec<PipeId>>,
    /// Pipes that nobody had, and since when.
    idle: VecDeque<(u64, PipeId)>,
    /// What found no room.
    pub dropped: u64,
}

impl Pipes {
    /// Makes the pipe if there is none; where there is no room there is none after it.
    fn make(&mut self, id: PipeId) {
        if self.map.len() >= MAX_PIPES && !self.map.contains_key(&id) {
            let Some((_, oldest)) = self.idle.pop_front() else {
                self.dropped += 1;
                return;
            };
            if let Some(pipe) = self.map.get_mut(&oldest) {
                pipe.idle = false;
                if pipe.is_over() {
                    self.forget(oldest);
                }
            }
        }
        self.map.entry(id).or_default();
    }

    /// Forgets a pipe, also of those who took from it.
    fn forget(&mut self, id: PipeId) {
        let Some(pipe) = self.map.remove(&id) else {
            return;
        };
        for (reader, _) in pipe.readers {
            // What is forgotten is among the oldest.
            if let Some(pipes) = self.of.get_mut(&reader)
                && let Some(at) = pipes.iter().position(|pipe| *pipe == id)
            {
                pipes.remove(at);
            }
        }
    }

    /// Notes a reader; false when it was one already, or there is no room.
    pub fn add_reader(&mut self, id: PipeId, pid: Pid, stdin: bool) -> bool {
        self.make(id);
        let Some(pipe) = self.map.get_mut(&id) else {
            return false;
        };
        if let Some(known) = pipe.readers.iter_mut().find(|(reader, _)| *reader == pid) {
            known.1 |= stdin;
            return false;
        }
        if pipe.readers.len() >= MAX_READERS {
            if pipe.carried.is_empty() {
                pipe.left_out += 1;
            } else {
                self.dropped += 1;
            }
            return false;
        }
        let new = !pipe.is_of(pid);
        pipe.readers.push((pid, stdin));
        if new {
            self.of.entry(pid).or_default().push(id);
        }
        true
    }

    /// Notes a writer.
    pub fn add_writer(&mut self, id: PipeId, pid: Pid) {
        self.make(id);
        let Some(pipe) = self.map.get_mut(&id) else {
            return;
        };
        pipe.written = true;
        if pipe.writers.contains(&pid) {
            return;
        }
        if pipe.writers.len() >= MAX_WRITERS {
            self.dropped += 1;
            return;
        }
        let new = !pipe.is_of(pid);
        pipe.loose.retain(|writer| *writer != pid);
        pipe.writers.push(pid);
        if new {
            self.of.entry(pid).or_default().push(id);
        }
    }

    /// Notes a writer that opened it by its name.
    pub fn add_loose_writer(&mut self, id: PipeId, pid: Pid) {
        self.make(id);
        let Some(pipe) = self.map.get_mut(&id) else {
            return;
        };
        pipe.written = true;
        if pipe.writers.contains(&pid) || pipe.loose.contains(&pid) {
            return;
        }
        if pipe.loose.len() >= MAX_WRITERS {
            self.dropped += 1;
            return;
        }
        let new = !pipe.is_of(pid);
        pipe.loose.push(pid);
        if new {
            self.of.entry(pid).or_default().push(id);
        }
    }

    /// The name of a FIFO, once it is known; whether that is news.
    pub fn set_name(&mut self, id: PipeId, name: &str) -> bool {
        match self.map.get_mut(&id) {
            Some(pipe) if pipe.name.is_empty() => {
                name.clone_into(&mut pipe.name);
                true
            }
            _ => false,
        }
    }

    /// What was put into a FIFO is gone when all have closed it, and another one may have its number by now. To be asked before
    /// somebody has it.
    pub fn forget_left(&mut self, id: PipeId, now_ns: u64) {
        if let Some(pipe) = self.map.get_mut(&id)
            && !pipe.name.is_empty()
            && pipe.writers.is_empty()
            && pipe.loose.is_empty()
            && pipe.left_ns.saturating_add(LEFT_NS) < now_ns
        {
            pipe.carried.clear();
            pipe.name.clear();
        }
    }

    /// Whether it is a FIFO whose name is known.
    #[must_use]
    pub fn is_named(&self, id: PipeId) -> bool {
        self.map.get(&id).is_some_and(|pipe| !pipe.name.is_empty())
    }

    /// What a step by this pipe is called.
    #[must_use]
    pub fn name(&self, id: PipeId) -> String {
        match self.map.get(&id) {
            Some(pipe) if !pipe.name.is_empty() => pipe.name.clone(),
            _ => format!("pipe:[{}]", id.inode),
        }
    }

    /// Whoever was taken for a reader because an ancestor of a writer had the other end open, while somebody has it as
    /// standard input after all.
    pub fn take_takers(&mut self, id: PipeId) -> Vec<Pid> {
        let Some(pipe) = self.map.get_mut(&id) else {
            return Vec::new();
        };
        let takers: Vec<Pid> = pipe
            .readers
            .extract_if(.., |(_, stdin)| !*stdin)
            .map(|(pid, _)| pid)
            .collect();
        for pid in &takers {
            if !self.map.get(&id).is_some_and(|p| p.is_of(*pid))
                && let Some(pipes) = self.of.get_mut(pid)
            {
                pipes.retain(|pipe| *pipe != id);
            }
        }
        takers
    }

    /// Whether somebody has it as standard input.
    #[must_use]
    pub fn is_stdin(&self, id: PipeId) -> bool {
        let pipe = self.map.get(&id);
        pipe.is_some_and(|pipe| pipe.readers.iter().any(|(_, stdin)| *stdin))
    }

    /// Whether somebody was known to write to it.
    #[must_use]
    pub fn is_written(&self, id: PipeId) -> bool {
        self.map.get(&id).is_some_and(|pipe| pipe.written)
    }

    #[must_use]
    pub fn readers(&self, id: PipeId) -> Vec<Pid> {
        self.map.get(&id).map_or_else(Vec::new, |pipe| {
            pipe.readers.iter().map(|(pid, _)| *pid).collect()
        })
    }

    #[must_use]
    pub fn writers(&self, id: PipeId) -> &[Pid] {
        self.map.get(&id).map_or(&[], |pipe| &pipe.writers)
    }

    /// The pipes a process can write to.
    #[must_use]
    pub fn written_by(&self, pid: Pid) -> Vec<PipeId> {
        let Some(pipes) = self.of.get(&pid) else {
            return Vec::new();
        };
        let writes = |id: &&PipeId| self.writers(**id).contains(&pid);
        pipes.iter().filter(writes).copied().collect()
    }

    /// The same, and what it opened by name to write to.
    #[must_use]
    pub fn reached_by(&self, pid: Pid) -> Vec<PipeId> {
        let Some(pipes) = self.of.get(&pid) else {
            return Vec::new();
        };
        let writes = |id: &&PipeId| {
            let pipe = self.map.get(*id);
            pipe.is_some_and(|pipe| pipe.writers.contains(&pid) || pipe.loose.contains(&pid))
        };
        pipes.iter().filter(writes).copied().collect()
    }

    /// The pipes a process can read from: its standard input, and what its children write for it.
    pub fn read_by(&self, pid: Pid) -> impl Iterator<Item = PipeId> {
        let reads = move |id: &&PipeId| {
            let pipe = self.map.get(id);
            pipe.is_some_and(|pipe| pipe.readers.iter().any(|(reader, _)| *reader == pid))
        };
        // A shell may have taken from thousands of children: what is still to come is of the last ones.
        let of = self.of.get(&pid).map_or(&[][..], Vec::as_slice);
        of.iter().rev().take(MAX_READ).filter(reads).copied()
    }

    /// What may go through a pipe.
    #[must_use]
    pub fn carried(&self, id: PipeId) -> &[Carried] {
        self.map.get(&id).map_or(&[], |pipe| &pipe.carried)
    }

    /// So many of a writer's credentials find no room in a pipe: each is counted once, however often they are looked at.
    pub fn refuse(&mut self, id: PipeId, count: u64) {
        if let Some(pipe) = self.map.get_mut(&id) {
            self.dropped += count.saturating_sub(pipe.refused);
            pipe.refused = pipe.refused.max(count);
        }
    }

    /// How many more credentials a pipe has room for.
    #[must_use]
    pub fn room(&self, id: PipeId) -> usize {
        self.map
            .get(&id)
            .map_or(0, |pipe| MAX_CARRIED.saturating_sub(pipe.carried.len()))
    }

    /// Notes what may go through a pipe; false when that is no news. What is known already comes by another way from now
    /// on if `renew` is set.
    pub fn carry(&mut self, id: PipeId, carried: &Carried, renew: bool) -> bool {
        let Some(pipe) = self.map.get_mut(&id) else {
            return false;
        };
        let fingerprint = &carried.holding.credential.fingerprint;
        let known = pipe
            .carried
            .iter_mut()
            .find(|c| c.holding.credential.fingerprint == *fingerprint);
        if let Some(known) = known {
            let news = renew && known.passed.path != carried.passed.path;
            if news {
                *known = carried.clone();
            }
            return news;
        }
        if pipe.carried.len() >= MAX_CARRIED {
            self.dropped += 1;
            return false;
        }
        pipe.carried.push(carried.clone());
        self.dropped += std::mem::take(&mut pipe.left_out);
        true
    }

    /// Takes back what a process was thought to have put into a pipe.
    pub fn revoke(&mut self, id: PipeId, writer: Pid, fingerprint: &str) {
        if let Some(pipe) = self.map.get_mut(&id) {
            pipe.carried
                .retain(|c| c.writer != writer || c.holding.credential.fingerprint != fingerprint);
        }
    }

    pub fn withdraw(&mut self, fingerprint: &str) {
        for pipe in self.map.values_mut() {
            pipe.carried
                .retain(|c| c.holding.credential.fingerprint != fingerprint);
        }
    }

    /// A process has other streams from now on, or is gone.
    pub fn leave(&mut self, pid: Pid, boot_ns: u64) {
        for id in self.of.remove(&pid).unwrap_or_default() {
            let Some(pipe) = self.map.get_mut(&id) else {
                continue;
            };
            pipe.readers.retain(|(reader, _)| *reader != pid);
            let wrote = pipe.is_written_by(pid);
            pipe.writers.retain(|writer| *writer != pid);
            pipe.loose.retain(|writer| *writer != pid);
            if wrote && pipe.writers.is_empty() && pipe.loose.is_empty() {
                pipe.left_ns = boot_ns;
            }
            if !pipe.is_over() {
                continue;
            }
            // Who takes from it is told once: the next command that writes to it may still come.
            if pipe.carried.is_empty() && pipe.readers.is_empty() {
                self.forget(id);
            } else if !std::mem::replace(&mut pipe.idle, true) {
                self.idle.push_back((boot_ns, id));
            }
        }
    }

    /// Forgets pipes that nobody has had for long.
    pub fn expire(&mut self, boot_ns: u64) {
        while let Some(&(since, id)) = self.idle.front()
            && since.saturating_add(KEEP_NS) <= boot_ns
        {
            self.idle.pop_front();
            if let Some(pipe) = self.map.get_mut(&id) {
                pipe.idle = false;
                if pipe.is_over() {
                    self.forget(id);
                }
            }
        }
    }
}
