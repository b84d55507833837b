//! One record in, its observations out.

use super::exec::{self, Execs, Finished};
use super::files::{Discovered, Discovery, Files, min_confidence, renamed};
use super::registry::Registry;
use super::{Kernel, stamp};
use crate::decode::Record;
use keytrail_abi as abi;
use keytrail_host::procfs;
use keytrail_model::{
    Access, Dropped, FileSeen, Observation, Pid, PlaceNews, SendSeen, Snapshot, Stamp, TlsSeen, Why,
};
use keytrail_payload::{Chunk, Layer, StreamKey, Streams};
use keytrail_secret::Classifier;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What the digest is made of.
pub struct DigestOptions {
    pub classifier: Arc<Classifier>,
    pub registry: Registry,
    pub streams: Streams,
    pub files: Files,
}

/// The stage after which no secret bytes exist.
pub struct Digest {
    pub classifier: Arc<Classifier>,
    pub registry: Registry,
    streams: Streams,
    pub files: Files,
    execs: Execs,
    discovery: Discovery,
    /// New files that could not be found again since the last tick.
    pub unlocated: u64,
    dropped: Dropped,
    /// The last exec of each process: what a forked child may be settled by.
    last_exec: HashMap<u32, u64>,
    /// When a process was read from /proc: older execs of it are told already.
    snapshot_at: HashMap<Pid, u64>,
    /// A record that held payload, environment or argv was in the ring since the last wipe.
    pub ring_dirty: bool,
}

/// A process whose kernel state can be decided now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    pub pid: Pid,
    pub exec_id: u64,
}

/// What one record became.
#[derive(Default)]
pub struct Digested {
    pub observations: Vec<Observation>,
    pub settle: Vec<Settle>,
    /// Files found to hold credentials, to be watched from now on.
    pub watch: Vec<(PathBuf, abi::FileId)>,
    /// Files (and change times) that need no further look.
    pub clean: Vec<(abi::FileId, u64)>,
    /// What was found in files, for the inventory.
    pub places: Vec<PlaceNews>,
    /// Watched inodes that are other files by now.
    pub unwatch: Vec<abi::FileId>,
}

impl Digest {
    #[must_use]
    pub fn new(options: DigestOptions) -> Self {
        let DigestOptions {
            classifier,
            registry,
            streams,
            files,
        } = options;
        Self {
            classifier,
            registry,
            streams,
            files,
            execs: Execs::default(),
            discovery: Discovery::default(),
            unlocated: 0,
            dropped: Dropped::default(),
            last_exec: HashMap::new(),
            snapshot_at: HashMap::new(),
            ring_dirty: false,
        }
    }

    /// Digests one record. `hook` names the hook that made it.
    pub fn record(&mut self, record: &Record<'_>, hook: &str, out: &mut Digested) {
        match record {
            Record::Exec(r) => {
                self.ring_dirty = true;
                self.last_exec.insert(r.header.tgid, r.exec_id);
                self.streams.close_sessions(stamp::stamp(&r.header).pid);
                self.execs.begin(*r);
            }
            Record::ExecChunk(r, data) => {
                self.ring_dirty = true;
                if let Some(done) = self
                    .execs
                    .chunk(r, data, &self.classifier, &mut self.registry)
                {
                    self.finished(done, out);
                }
            }
            Record::Fork(r) => {
                let child = stamp::pid(r.child_tgid, r.child_start_ns);
                if let Some(exec_id) = self.last_exec.get(&r.header.tgid).copied() {
                    out.settle.push(Settle {
                        pid: child,
                        exec_id,
                    });
                    self.last_exec.insert(child.tgid, exec_id);
                }
                out.observations.push(Observation::Fork {
                    at: stamp::stamp(&r.header),
                    child,
                    child_ns_tgid: r.child_ns_tgid,
                });
            }
            Record::Exit(r) => {
                self.last_exec.remove(&r.header.tgid);
                let at = stamp::stamp(&r.header);
                self.streams.close_process(at.pid);
                self.snapshot_at.remove(&at.pid);
                let code = r.exit_code.cast_signed();
                out.observations.push(Observation::Exit {
                    at,
                    status: code >> 8 & 0xff,
                    signal: code & 0x7f,
                });
            }
            Record::File(r) => self.file(r, hook, out),
            Record::Connect(r) => {
                let at = stamp::stamp(&r.header);
                // The hook that sees a connect before there is a connection knows no socket.
                if r.ends.sock != 0 {
                    self.streams.close_socket(at.pid, r.ends.sock);
                }
                let ends = stamp::ends(&r.ends);
                out.observations.push(Observation::Connect { at, ends });
            }
            Record::SockSend(r, data) => {
                self.ring_dirty = true;
                out.observations.push(self.send(r, data, hook));
            }
            Record::TlsWrite(r, data) => {
                self.ring_dirty = true;
                out.observations.push(self.tls(r, data, hook));
            }
            Record::FileNew(r) => self.discover(r, hook, out),
            Record::Canary(_) => {}
        }
    }

    fn finished(&mut self, done: Finished, out: &mut Digested) {
        let pid = done.seen.at.pid;
        out.settle.push(Settle {
            pid,
            exec_id: done.exec_id,
        });
        if self
            .snapshot_at
            .get(&pid)
            .is_some_and(|at| done.seen.at.boot_ns <= *at)
        {
            // /proc was read after this exec: it has been told, and more truly.
            return;
        }
        if let Some(home) = &done.home {
            self.files.add_home(done.mnt_ns, home);
        }
        out.observations
            .push(Observation::Exec(Box::new(done.seen)));
    }

    fn file(&mut self, r: &abi::FileAccess, hook: &str, out: &mut Digested) {
        let Some(known) = self.files.table.get(r.file) else {
            return;
        };
        if r.ctime_ns != 0 && r.ctime_ns != known.version.facts.ctime_ns {
            let (root, mut path) = (known.root.clone(), known.version.facts.path.clone());
            let mut look = |path: &str| {
                let Self {
                    files,
                    classifier,
                    registry,
                    ..
                } = &mut *self;
                let learnt = files.table.learn(&root, path, classifier, registry);
                let same = learnt.as_ref().is_some_and(|l| l.id == r.file);
                (learnt, same)
            };
            let (mut again, mut same) = look(&path);
            // Renamed in its directory since: by inode it is the same file.
            if !same
                && let Some(now) = renamed(&root, &path, r.file)
                && let (moved, true) = look(&now)
            {
                (again, same, path) = (moved, true, now);
            }
            if let Some(learnt) = again
                && let Some(held) = learnt.held
                && let Some(known) = self.files.table.get(learnt.id)
            {
                let min = min_confidence(self.files.is_named(&path));
                let look = known.look(held, min, Why::Met, r.header.boot_ns);
                out.places.push(PlaceNews::Looked(Box::new(look)));
            }
            if !same {
                // The path leads elsewhere: the inode is another file now, and was read under a name we do not know.
                self.files.table.remove(r.file);
                self.unlocated += 1;
                out.unwatch.push(r.file);
                return;
            }
        }
        let Some(known) = self.files.table.get(r.file) else {
            return;
        };
        let Some((facts, credentials)) = known.as_read(r.ctime_ns, r.size) else {
            // What was read is gone; what is there now was not read.
            self.unlocated += 1;
            return;
        };
        let access = match r.access {
            abi::access::OPEN => Access::Open,
            abi::access::MMAP | abi::access::MAPPED => Access::Mmap,
            _ => Access::Read,
        };
        out.observations.push(Observation::File(Box::new(FileSeen {
            at: stamp::stamp(&r.header),
            access,
            file: facts.clone(),
            credentials: credentials.to_vec(),
            unreadable: known.unreadable.clone(),
            truncated: known.truncated,
            hook: hook.to_owned(),
        })));
    }

    /// A file that was not seen before: looked into now, before any later record of its reader.
    fn discover(&mut self, r: &abi::FileNew, hook: &str, out: &mut Digested) {
        let at = stamp::stamp(&r.header);
        let known = self
            .files
            .table
            .get(r.file)
            .is_some_and(|k| k.version.facts.ctime_ns == r.ctime_ns);
        let found = if known {
            Discovered::Holds(None)
        } else {
            self.discovery
                .look(r, &mut self.files, &self.classifier, &mut self.registry)
        };
        // Settled once the file was looked into, whatever came of it.
        if r.exec_id != 0 {
            // A child forked before this is settled is settled by the same number.
            self.last_exec.insert(r.header.tgid, r.exec_id);
            out.settle.push(Settle {
                pid: at.pid,
                exec_id: r.exec_id,
            });
        }
        match found {
            Discovered::Holds(look) => {
                out.places.extend(look.map(PlaceNews::Looked));
                let Some(known) = self.files.table.get(r.file) else {
                    return;
                };
                out.watch.push((known.access_path(), r.file));
                let Some((facts, credentials)) = known.as_read(r.ctime_ns, r.size) else {
                    self.unlocated += 1;
                    return;
                };
                let access = if matches!(r.access, abi::access::MMAP | abi::access::MAPPED) {
                    Access::Mmap
                } else {
                    Access::Read
                };
                let seen = FileSeen {
                    access,
                    file: facts.clone(),
                    credentials: credentials.to_vec(),
                    unreadable: None,
                    truncated: known.truncated,
                    hook: hook.to_owned(),
                    at: at.clone(),
                };
                out.observations.push(Observation::File(Box::new(seen)));
            }
            Discovered::Clean => {
                out.places.push(PlaceNews::Clean {
                    device: u64::from(r.file.dev),
                    inode: r.file.ino,
                });
                out.clean.push((r.file, r.ctime_ns));
            }
            Discovered::Lost => {
                out.clean.push((r.file, r.ctime_ns));
                self.unlocated += 1;
            }
        }
    }

    fn send(&mut self, r: &abi::SockSend, data: &[u8], hook: &str) -> Observation {
        let at = stamp::stamp(&r.header);
        let key = StreamKey {
            pid: at.pid,
            layer: Layer::Socket,
            id: r.ends.sock,
            ends: (r.ends.peer, r.ends.peer_port, r.ends.local_port),
        };
        let chunk = chunk(&r.header, data, r.offset, r.total);
        let sent = self.streams.on_send(&self.registry.matcher, key, chunk);
        if sent.handshake {
            self.streams.close_sessions(at.pid);
        }
        let mut records = sent.records.iter().map(|r| (r.content_type, r.length));
        Observation::Send(Box::new(SendSeen {
            ends: stamp::ends(&r.ends),
            payload: sent.payload,
            tls_record: records.next(),
            tls_more: records.collect(),
            tls_call: (r.tls_call != 0).then_some((r.tls_call, r.tls_session)),
            hook: hook.to_owned(),
            at,
        }))
    }

    fn tls(&mut self, r: &abi::TlsWrite, data: &[u8], hook: &str) -> Observation {
        let at = stamp::stamp(&r.header);
        let key = StreamKey {
            pid: at.pid,
            layer: Layer::Tls,
            id: r.tls_session,
            ends: Default::default(),
        };
        let chunk = chunk(&r.header, data, r.offset, r.total);
        let payload = self.streams.on_payload(&self.registry.matcher, key, chunk);
        Observation::TlsWrite(Box::new(TlsSeen {
            call: r.tls_call,
            session: r.tls_session,
            payload,
            hook: hook.to_owned(),
            at,
        }))
    }

    /// A process as /proc shows it now; `None` when it is gone.
    pub fn snapshot(&mut self, tgid: u32, boot_ns: u64) -> Option<Snapshot> {
        let snapshot = self.look(tgid, boot_ns, true)?;
        self.snapshot_at.insert(snapshot.at.pid, boot_ns);
        Some(snapshot)
    }

    /// Whether the record of a process's exec was lost, so that nothing is known of the program it runs now.
    #[must_use]
    pub fn missed(&self, tgid: u32, exec_id: u64) -> bool {
        self.last_exec.get(&tgid) != Some(&exec_id)
    }

    /// Who a process is, but not what it holds: for records of processes nobody told about. It may have executed
    /// something else since the record; the record of that will say what it holds.
    pub fn acquaint(&mut self, tgid: u32, boot_ns: u64) -> Option<Snapshot> {
        self.look(tgid, boot_ns, false)
    }

    fn look(&mut self, tgid: u32, boot_ns: u64, holdings: bool) -> Option<Snapshot> {
        let facts = procfs::facts(tgid)?;
        let pid = Pid {
            tgid,
            start: facts.start,
        };
        let mut found = Vec::new();
        let mut env_unreadable = None;
        match procfs::area(tgid, "environ") {
            _ if !holdings => {}
            Ok((block, _)) => found.extend(exec::in_environment(
                &block,
                &self.classifier,
                &mut self.registry,
            )),
            // No memory: a kernel thread, or gone by now.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => env_unreadable = Some(e.to_string()),
        }
        let mut argv = Vec::new();
        if let Ok((area, _)) = procfs::area(tgid, "cmdline") {
            let (shown, in_argv) = exec::arguments(&area, &self.classifier, &mut self.registry);
            argv = shown;
            if holdings {
                found.extend(in_argv);
            }
        }
        // Kernel threads have neither; a process that went away in between must not look like one.
        if procfs::pid_of(tgid) != Some(pid) {
            return None;
        }
        let parent = procfs::pid_of(facts.ppid).unwrap_or(Pid {
            tgid: facts.ppid,
            start: 0,
        });
        Some(Snapshot {
            at: Stamp {
                boot_ns,
                pid,
                tid: tgid,
                uid: facts.uid,
                euid: facts.euid,
                gid: facts.gid,
                cgroup_id: 0,
                comm: facts.comm,
            },
            parent,
            exe: procfs::exe(tgid).unwrap_or_default(),
            ns_tgid: facts.ns_tgid,
            argv,
            cwd: procfs::cwd(tgid).unwrap_or_default(),
            cgroup: procfs::cgroup(tgid).unwrap_or_default(),
            loginuid: facts.loginuid,
            session: facts.session,
            found,
            env_unreadable,
            executed: false,
        })
    }

    /// Looks again at directories that changed.
    pub fn watch(&mut self, boot_ns: u64, kernel: &mut dyn Kernel, out: &mut Digested) {
        self.files.rescan(
            &self.classifier,
            &mut self.registry,
            kernel,
            boot_ns,
            &mut out.places,
        );
    }

    /// Time passes: late execs are finished, payload tails wiped.
    pub fn tick(&mut self, boot_ns: u64, out: &mut Digested) {
        for done in self
            .execs
            .overdue(boot_ns, &self.classifier, &mut self.registry)
        {
            self.finished(done, out);
        }
        self.streams.expire(boot_ns);
    }

    /// Does something of which nobody asks what it could not see.
    pub fn unasked(&mut self, act: impl FnOnce(&mut Self)) {
        let (unlocated, dropped) = (self.unlocated, self.dropped().clone());
        act(self);
        self.unlocated = unlocated;
        *self.dropped() = dropped;
    }

    /// What found no room, or was looked at in part, since it was last taken.
    pub fn dropped(&mut self) -> &mut Dropped {
        self.dropped.gather(&mut self.registry.dropped);
        self.dropped.gather(&mut self.execs.dropped);
        self.dropped.gather(&mut self.files.table.dropped);
        &mut self.dropped
    }
}

fn chunk<'a>(header: &abi::Header, bytes: &'a [u8], offset: u32, total: u64) -> Chunk<'a> {
    use abi::header::flags::{TRUNCATED, UNREADABLE};
    Chunk {
        boot_ns: header.boot_ns,
        bytes,
        total,
        offset: u64::from(offset),
        truncated: header.flags & (TRUNCATED | UNREADABLE) != 0,
    }
}
