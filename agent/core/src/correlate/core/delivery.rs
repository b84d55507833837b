//! A credential's way into a container is the work of its runtime, and no use.
//!
//! A runtime writes and reads the configuration of a container, with the container's environment in it, and starts a
//! process that has it. What such a program reads is reported when it is known what came of it: nothing, if a process it
//! started (by forks and execs that were seen) has the very credential in its environment, in the cgroup that bears the
//! name the configuration's directory has, or the runtime was given; that exposure says who brought it. Otherwise it is
//! a read like any other. No name of a program counts.

use super::Core;
use super::send::Outbound;
use crate::process::{Holding, HoldingPlace, Proc};
use keytrail_model::event::{Delivery, PathStep};
use keytrail_model::{Event, EventKind, FileFacts, PeerSeen, Pid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So long a container may take to begin after its runtime has read what is to run in it.
const READ_NS: u64 = 5_000_000_000;
/// So long it is waited for a reader of a configuration that was written.
const WRITTEN_NS: u64 = 2_000_000_000;
/// What may wait of one credential, and of all; beyond it, it is reported at once.
const MAX_OF_ONE: usize = 32;
const MAX_WAITING: usize = 1_024;
/// Configurations remembered; a forgotten one costs an event of its end.
const MAX_BROUGHT: usize = 4_096;
/// Credentials remembered of one.
const MAX_IN_ONE: usize = 256;

/// Device and inode.
type FileKey = (u64, u64);

#[derive(Default)]
pub(super) struct Deliveries {
    /// By fingerprint.
    waiting: BTreeMap<String, Vec<Waiting>>,
    len: usize,
    brought: BTreeMap<FileKey, Brought>,
    order: VecDeque<FileKey>,
}

/// A read or a new file that may be a step of a delivery.
struct Waiting {
    due_ns: u64,
    event: Event,
    who: Option<Pid>,
    file: FileKey,
    /// What the container may be called; empty for a file that was written.
    names: Vec<String>,
}

impl Waiting {
    /// Is it a write of this file, or that it was new?
    fn wrote(&self, path: &str) -> bool {
        match self.event.kind {
            EventKind::CredentialCreated => true,
            EventKind::CredentialSent => {
                let to = self.event.destination.as_ref();
                to.is_some_and(|to| to.path == path)
            }
            _ => false,
        }
    }
}

/// A configuration from which a container was started.
struct Brought {
    path: String,
    container: String,
    /// Who started it, and what is above that.
    line: Vec<Pid>,
    /// Those of them who read it.
    readers: Vec<Pid>,
    fingerprints: BTreeSet<String>,
}

impl Deliveries {
    /// Gives the event back when there is no room for it.
    fn wait(&mut self, fingerprint: &str, waiting: Waiting) -> Option<Event> {
        let of = self.waiting.get(fingerprint).map_or(0, Vec::len);
        if self.len >= MAX_WAITING || of >= MAX_OF_ONE {
            return Some(waiting.event);
        }
        let of = self.waiting.entry(fingerprint.to_owned()).or_default();
        of.push(waiting);
        self.len += 1;
        None
    }

    /// Takes what of a credential is a step of the delivery.
    fn take(&mut self, fingerprint: &str, is: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let Some(of) = self.waiting.get_mut(fingerprint) else {
            return Vec::new();
        };
        let taken: Vec<Waiting> = of.extract_if(.., |waiting| is(waiting)).collect();
        self.len -= taken.len();
        if of.is_empty() {
            self.waiting.remove(fingerprint);
        }
        taken
    }

    /// Takes the events of which nothing came, in the order of their time.
    pub fn take_due(&mut self, boot_ns: u64) -> Vec<Event> {
        let due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, of)| of.iter().any(|waiting| waiting.due_ns <= boot_ns))
            .map(|(fingerprint, _)| fingerprint.clone())
            .collect();
        let mut events: Vec<Event> = due
            .iter()
            .flat_map(|fingerprint| self.take(fingerprint, |waiting| waiting.due_ns <= boot_ns))
            .map(|waiting| waiting.event)
            .collect();
        events.sort_by_key(|e| e.boot_ns);
        events
    }

    fn remember(&mut self, file: FileKey, brought: Brought) {
        match self.brought.get_mut(&file) {
            Some(known) if known.path == brought.path && known.line == brought.line => {
                if known.fingerprints.len() < MAX_IN_ONE {
                    known.fingerprints.extend(brought.fingerprints);
                }
                return;
            }
            Some(known) => {
                *known = brought;
                return;
            }
            None => {}
        }
        self.brought.insert(file, brought);
        self.order.push_back(file);
        if self.order.len() > MAX_BROUGHT
            && let Some(oldest) = self.order.pop_front()
        {
            self.brought.remove(&oldest);
        }
    }

    fn of(&self, file: &FileFacts, fingerprint: &str) -> Option<&Brought> {
        self.brought
            .get(&key(file))
            .filter(|b| b.path == file.path && b.fingerprints.contains(fingerprint))
    }
}

impl Core {
    /// Tells of a read, unless it may be one of a runtime.
    pub(super) fn report_read(&mut self, e: Event, file: &FileFacts, who: Pid) {
        let names = self.table.get(who).and_then(|proc| named(proc, file));
        let (Some(names), Some(credential)) = (names, e.credential.clone()) else {
            self.emit(e);
            return;
        };
        let fingerprint = &credential.fingerprint;
        if self.is_step(who, file, fingerprint) {
            self.table
                .mark_brought(who, is_from(fingerprint, key(file)));
            return;
        }
        let waiting = Waiting {
            due_ns: e.boot_ns.saturating_add(READ_NS),
            event: e,
            who: Some(who),
            file: key(file),
            names,
        };
        if let Some(e) = self.deliveries.wait(fingerprint, waiting) {
            self.emit(e);
        }
    }

    /// Tells of a new file, unless it may be a container's configuration.
    pub(super) fn report_created(&mut self, e: Event, file: &FileFacts, who: Option<Pid>) {
        let credential = e.credential.clone();
        let Some(credential) = credential.filter(|_| file.path.ends_with("/config.json")) else {
            self.emit(e);
            return;
        };
        let fingerprint = &credential.fingerprint;
        if let Some(brought) = self.deliveries.of(file, fingerprint)
            && who.is_none_or(|who| brought.line.contains(&who))
        {
            return;
        }
        let read_ns = self.deliveries.waiting.get(fingerprint).and_then(|of| {
            of.iter()
                .filter(|w| w.file == key(file))
                .map(|w| w.due_ns)
                .max()
        });
        let waiting = Waiting {
            due_ns: read_ns
                .unwrap_or_default()
                .max(e.boot_ns.saturating_add(WRITTEN_NS)),
            event: e,
            who,
            file: key(file),
            names: Vec::new(),
        };
        if let Some(e) = self.deliveries.wait(fingerprint, waiting) {
            self.emit(e);
        }
    }

    /// Tells that a credential was written to a file, unless that may be a container's configuration.
    pub(super) fn report_written(&mut self, e: Event, file: FileKey, who: Pid) {
        let path = e.destination.as_ref().map_or("", |to| to.path.as_str());
        let facts = FileFacts {
            path: path.to_owned(),
            device: file.0,
            inode: file.1,
            ..FileFacts::default()
        };
        self.report_created(e, &facts, Some(who));
    }

    /// Tells that a credential was sent, unless a runtime may have said it to the process it starts: by a pair of sockets
    /// without a name, which relatives alone can have, after it had read the configuration.
    pub(super) fn report_sent(&mut self, e: Event, outbound: &Outbound) {
        let who = outbound.at.pid;
        let its_own = outbound.link.ends.as_ref().is_some_and(|ends| {
            let made_by = ends.peer.as_deref().filter(|peer| peer.start != 0);
            let is_above = |peer: &PeerSeen| {
                let maker = Pid {
                    tgid: peer.tgid,
                    start: peer.start,
                };
                self.table.line(who).contains(&maker)
            };
            ends.is_unix() && ends.path.is_empty() && made_by.is_none_or(is_above)
        });
        let credential = e.credential.clone().filter(|_| its_own);
        let read = credential.and_then(|credential| {
            let of = self.deliveries.waiting.get(&credential.fingerprint)?;
            let read = of
                .iter()
                .find(|w| w.who == Some(who) && !w.names.is_empty())?;
            Some((credential, read.due_ns, read.file))
        });
        let Some((credential, due_ns, file)) = read else {
            self.emit(e);
            return;
        };
        let waiting = Waiting {
            due_ns,
            event: e,
            who: Some(who),
            file,
            names: Vec::new(),
        };
        if let Some(e) = self.deliveries.wait(&credential.fingerprint, waiting) {
            self.emit(e);
        }
    }

    /// Whether an open of a configuration is a step of what has been reported as a delivery.
    pub(super) fn is_step(&self, who: Pid, file: &FileFacts, fingerprint: &str) -> bool {
        let Some(brought) = self.deliveries.of(file, fingerprint) else {
            return false;
        };
        self.table.get(who).is_some_and(|proc| {
            named(proc, file).is_some()
                && !bears(&proc.cgroup, &brought.container)
                && (brought.line.contains(&who) || self.is_below(who, &brought.readers))
        })
    }

    /// Whether the end of a configuration is that of a container whose delivery has been reported.
    pub(super) fn is_its_end(&self, who: Option<Pid>, file: &FileFacts, fingerprint: &str) -> bool {
        self.deliveries
            .of(file, fingerprint)
            .is_some_and(|brought| {
                who.is_none_or(|who| {
                    brought.line.contains(&who) || self.is_below(who, &brought.readers)
                })
            })
    }

    /// Who brought a credential into the container in which a process begins with it in its environment.
    pub(super) fn delivered(&mut self, pid: Pid, fingerprint: &str) -> Option<Box<Delivery>> {
        let of = self.deliveries.waiting.get(fingerprint)?;
        let proc = self.table.get(pid)?;
        let line = self.table.line(pid).split_off(1);
        let (file, container) = of.iter().find_map(|waiting| {
            let who = waiting.who.filter(|who| line.contains(who))?;
            let by = self.table.get(who)?;
            Some((waiting.file, inside(proc, by, &waiting.names)?))
        })?;
        let readers: Vec<Pid> = of
            .iter()
            .filter(|waiting| waiting.file == file && !waiting.names.is_empty())
            .filter_map(|waiting| waiting.who)
            .filter(|who| line.contains(who))
            .collect();
        let others: Vec<Pid> = of.iter().filter_map(|waiting| waiting.who).collect();
        let steps: BTreeSet<Pid> = others
            .into_iter()
            .filter(|who| line.contains(who) || self.is_below(*who, &readers))
            .collect();
        let taken = self.deliveries.take(fingerprint, |waiting| {
            waiting.file == file && waiting.who.is_none_or(|who| steps.contains(&who))
        });
        let read = taken.iter().find(|waiting| !waiting.names.is_empty());
        let path = read
            .and_then(|waiting| waiting.event.source.as_ref())
            .map_or_else(String::new, |source| source.path.clone());
        let reported = self.steps(&line, &taken, &path);
        self.table.take_holdings(pid, is_from(fingerprint, file));
        for who in line.iter().chain(&steps) {
            self.table.mark_brought(*who, is_from(fingerprint, file));
        }
        let brought = Brought {
            path,
            container: container.clone(),
            line,
            readers,
            fingerprints: BTreeSet::from([fingerprint.to_owned()]),
        };
        self.deliveries.remember(file, brought);
        Some(Box::new(Delivery {
            container,
            path: reported,
        }))
    }

    /// Those of a line who wrote or read a configuration, from the outermost on.
    fn steps(&self, line: &[Pid], taken: &[Waiting], path: &str) -> Vec<PathStep> {
        let mut reported = Vec::new();
        for who in line.iter().rev() {
            let wrote = |w: &&Waiting| w.who == Some(*who) && w.wrote(path);
            let read = |w: &&Waiting| w.who == Some(*who) && !w.names.is_empty();
            for (how, of) in [
                ("wrote", taken.iter().find(wrote)),
                ("read", taken.iter().find(read)),
            ] {
                if of.is_some() {
                    reported.push(self.stage(*who, how, path.to_owned()));
                }
            }
        }
        reported
    }

    fn is_below(&self, who: Pid, readers: &[Pid]) -> bool {
        self.table.line(who).iter().any(|p| readers.contains(p))
    }
}

fn key(file: &FileFacts) -> FileKey {
    (file.device, file.inode)
}

fn is_from(fingerprint: &str, file: FileKey) -> impl Fn(&Holding) -> bool {
    move |holding| {
        holding.credential.fingerprint == fingerprint
            && matches!(&holding.place, HoldingPlace::File(facts) if key(facts) == file)
    }
}

/// What a container is called whose configuration this file may be to the process: the directory of an OCI bundle, in which
/// it runs or which it was given, or what `exec` was given as the process to start.
fn named(proc: &Proc, file: &FileFacts) -> Option<Vec<String>> {
    let (dir, name) = file.path.rsplit_once('/')?;
    let mut above = dir.rsplit('/');
    let mut called = above.next()?;
    if called == "userdata" {
        // containers/storage: ID/userdata.
        called = above.next()?;
    }
    if called.is_empty() {
        return None;
    }
    let given = |word: &String| word.trim_end_matches('/') == dir || word == called;
    let bundle = name == "config.json" && (proc.cwd == dir || proc.argv.iter().any(given));
    let exec = proc
        .argv
        .windows(2)
        .any(|pair| pair[0] == "--process" && pair[1] == file.path);
    if !bundle && !exec {
        return None;
    }
    let mut names = vec![called.to_owned()];
    // Of `create` and `exec` it is the last argument.
    names.extend(proc.argv.last().cloned());
    Some(names)
}

/// What the container is called in which a process is, and who started it is not.
fn inside(proc: &Proc, by: &Proc, names: &[String]) -> Option<String> {
    let is = |name: &&String| bears(&proc.cgroup, name) && !bears(&by.cgroup, name);
    if let Some(name) = names.iter().find(is) {
        return Some(name.clone());
    }
    // It was gone before its cgroup could be read: the kernel reported its pid namespace.
    let own = |p: &Proc| p.ns_tgid != 0 && p.pid.is_some_and(|pid| p.ns_tgid != pid.tgid);
    let gone = proc.cgroup.is_empty() && own(proc) && !own(by);
    names.first().filter(|_| gone).cloned()
}

/// Whether a part of a cgroup's path is this name, or ends with it as systemd's scopes do (`cri-containerd-ID.scope`).
fn bears(cgroup: &str, name: &str) -> bool {
    !name.is_empty()
        && cgroup.split('/').any(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            part.strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', ':']))
        })
}
