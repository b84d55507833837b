//! One record in, its observations out.

use super::answers::Answers;
use super::asked::{Asked, Inspection, Verdict};
use super::convert;
use super::digested::Digested;
use super::dns_pieces::DnsPieces;
use super::exec::{self, Execs, Finished};
use super::files::{Files, Inspected, KnownFile, Version, Views};
use super::handed::Handed;
use super::in_use::{InUse, UsedCredentials};
use super::inspection::{InspectionOptions, Inspector, Missed};
use super::registry::Registry;
use super::shown::Shown;
use super::written::{self, Targets};
use crate::decode::{self, Record};
use keytrail_abi as abi;
use keytrail_host::areas::area;
use keytrail_host::clock::boot_ns;
use keytrail_host::procfs;
use keytrail_model::{
    Access, Bound, CredentialRef, Direction, Dropped, FileFacts, FileSeen, Observation, Pid,
    SendSeen, Snapshot, Socket, TaskInfo, TlsSeen, WriteSeen, WriteTarget,
};
use keytrail_payload::{Chunk, Layer, StreamKey, Streams, Unknown, record_header};
use keytrail_secret::Classifier;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;

/// What the digest is made of.
pub struct DigestOptions {
    pub classifier: Arc<Classifier>,
    pub registry: Registry,
    pub streams: Streams,
    pub files: Files,
    pub inspection: InspectionOptions,
}

/// The stage after which no secret bytes exist.
pub struct Digest {
    pub classifier: Arc<Classifier>,
    pub registry: Registry,
    pub(super) streams: Streams,
    pub files: Files,
    execs: Execs,
    pub(super) inspector: Inspector,
    pub(super) asked: Asked,
    /// New files that could not be found again since the last tick.
    pub unlocated: u64,
    dropped: Dropped,
    /// Nobody asks what cannot be seen now.
    pub(super) is_unfollowed: bool,
    /// The last exec of each process: what a forked child may be decided by.
    last_exec: HashMap<u32, u64>,
    /// What processes write to.
    targets: Targets,
    /// Files that they have just written.
    pub(super) handed: Handed,
    /// What metadata services answer.
    answers: Answers,
    /// What nobody knew before it was used.
    pub(super) in_use: InUse,
    /// What is asked of name services in pieces.
    pub(super) dns_pieces: DnsPieces,
    /// What mount namespaces show.
    views: Views,
    /// The key by which what is given to TLS libraries is hashed.
    digests: RandomState,
    shown: Shown,
    /// When a process was read from /proc: older execs of it are reported already.
    snapshot_at: HashMap<Pid, u64>,
    /// A record that held payload, environment or argv was in the ring since the last wipe.
    pub ring_dirty: bool,
}

impl Digest {
    /// # Errors
    /// The threads that inspect files cannot be started.
    pub fn new(options: DigestOptions) -> io::Result<Self> {
        let DigestOptions {
            classifier,
            registry,
            streams,
            files,
            inspection,
        } = options;
        Ok(Self {
            inspector: Inspector::start(classifier.clone(), files.named(), inspection)?,
            asked: Asked::default(),
            classifier,
            registry,
            streams,
            files,
            execs: Execs::default(),
            unlocated: 0,
            dropped: Dropped::default(),
            is_unfollowed: false,
            last_exec: HashMap::new(),
            targets: Targets::default(),
            handed: Handed::default(),
            answers: Answers::default(),
            in_use: InUse::default(),
            dns_pieces: DnsPieces::default(),
            views: Views::default(),
            digests: RandomState::new(),
            shown: Shown::default(),
            snapshot_at: HashMap::new(),
            ring_dirty: false,
        })
    }

    /// Ingests one record. `hook` names the hook that made it; `inspection` is what [`Digest::inspection`] said of it,
    /// decided or given up.
    pub fn record(
        &mut self,
        record: &Record<'_>,
        hook: &str,
        inspection: Option<&Inspection>,
        out: &mut Digested,
    ) {
        match record {
            Record::Exec(r) => self.exec(r),
            Record::ExecChunk(r, data) => {
                self.ring_dirty = true;
                if let Some(done) = self
                    .execs
                    .chunk(r, data, &self.classifier, &mut self.registry)
                {
                    self.finished(done, out);
                }
            }
            Record::Fork(r) => self.fork(r, out),
            Record::Exit(r) => out.observations.push(self.exit(r)),
            Record::File(r) => self.file(r, hook, inspection, out),
            Record::Connect(r) => out.observations.push(self.connect(r)),
            Record::SockSend(r, data) => {
                self.ring_dirty = true;
                let (seen, used) = self.send(r, data, hook);
                self.learn_in_use(&seen.at, used, out);
                out.observations.push(Observation::Send(Box::new(seen)));
            }
            Record::TlsWrite(r, data) => {
                self.ring_dirty = true;
                let (seen, used) = self.tls(r, data, hook);
                self.learn_in_use(&seen.at, used, out);
                out.observations.push(Observation::TlsWrite(Box::new(seen)));
            }
            Record::Message(r, data) => {
                self.ring_dirty = true;
                let (seen, used) = self.message(r, data, hook);
                self.learn_in_use(&seen.at, used, out);
                out.observations.push(Observation::Send(Box::new(seen)));
            }
            Record::Answer(r, data) => {
                self.ring_dirty = true;
                let (classifier, registry) = (&self.classifier, &mut self.registry);
                let seen = self.answers.take((r, data), hook, classifier, registry);
                out.observations
                    .extend(seen.map(|seen| Observation::Answer(Box::new(seen))));
            }
            Record::FdTarget(r) => self.targets.learn(r),
            Record::FdWrite(r, data) => {
                self.ring_dirty = true;
                out.observations.push(self.write(r, data, hook));
            }
            // Not reported by what it holds: see the engine.
            Record::ProcessAttach(_) => {}
            Record::FileNew(r, content) => {
                self.ring_dirty |= !content.is_empty();
                self.new_file(r, hook, inspection, out);
                self.decide_reader(r, out);
            }
            Record::Pipes(r) if r.exec_id != 0 => self.execs.pipes(r.exec_id, convert::pipes(r)),
            Record::Pipes(r) => passes(r, out),
            Record::Canary(_) => {}
        }
        self.withdraw(record.header().boot_ns, out);
    }

    /// A program begins; what it has in its hands comes in records of its own.
    fn exec(&mut self, r: &abi::Exec) {
        self.ring_dirty = true;
        self.last_exec.insert(r.header.tgid, r.exec_id);
        self.streams
            .close_sessions(convert::task_info(&r.header).pid);
        self.execs.begin(*r);
    }

    fn fork(&mut self, r: &abi::Fork, out: &mut Digested) {
        let child = crate::child_of(r);
        if let Some(exec_id) = self.last_exec.get(&r.header.tgid).copied() {
            out.decide(child, exec_id);
            self.last_exec.insert(child.tgid, exec_id);
        }
        self.views.forked(r.header.tgid, child.tgid);
        out.observations.push(Observation::Fork {
            at: convert::task_info(&r.header),
            child,
            child_ns_tgid: r.child_ns_tgid,
        });
    }

    fn exit(&mut self, r: &abi::Exit) -> Observation {
        self.last_exec.remove(&r.header.tgid);
        let at = convert::task_info(&r.header);
        self.streams.close_process(at.pid);
        self.answers.forget(at.pid);
        self.in_use.forget(at.pid);
        self.targets.forget(at.pid);
        self.snapshot_at.remove(&at.pid);
        let code = r.exit_code.cast_signed();
        Observation::Exit {
            at,
            status: code >> 8 & 0xff,
            signal: code & 0x7f,
            // include/linux/sched/signal.h: the bit that wait(2) shows as WCOREDUMP.
            dumped: (code & 0x80 != 0 && code & 0x7f != 0).then(procfs::core_pattern),
        }
    }

    fn connect(&mut self, r: &abi::Connect) -> Observation {
        let at = convert::task_info(&r.header);
        // The hook that sees a connect before there is a connection knows no socket.
        if r.ends.sock != 0 {
            self.streams.close_socket(at.pid, r.ends.sock);
        }
        let ends = convert::endpoints(&r.ends);
        Observation::Connect { at, ends }
    }

    fn finished(&mut self, done: Finished, out: &mut Digested) {
        let pid = done.seen.at.pid;
        out.decide(pid, done.exec_id);
        if self
            .snapshot_at
            .get(&pid)
            .is_some_and(|at| done.seen.at.boot_ns <= *at)
        {
            // /proc was read after this exec: it has been reported, and more truly.
            return;
        }
        self.views
            .begun(pid.tgid, done.mnt_ns, done.seen.at.boot_ns);
        if let Some(home) = &done.home {
            self.files.add_home(done.mnt_ns, home);
        }
        out.observations
            .push(Observation::Exec(Box::new(done.seen)));
        out.observations.extend(done.pipes.map(Observation::Pipes));
    }

    fn file(
        &mut self,
        r: &abi::FileAccess,
        hook: &str,
        inspection: Option<&Inspection>,
        out: &mut Digested,
    ) {
        match inspection.map(verdict) {
            Some(Verdict::Gone) => {
                // The path leads elsewhere: the inode is another file now, and was read under a name we do not know.
                self.files.table.remove(r.file);
                self.unlocated += 1;
                out.unwatch(r.file);
                return;
            }
            Some(Verdict::Missed(missed)) => {
                // What is known is of another version.
                self.dropped.add(missed.bound(), 1);
                return;
            }
            _ => {}
        }
        let seen = inspection.and_then(Inspection::seen);
        let Some(known) = seen.as_deref().or_else(|| self.files.table.get(r.file)) else {
            return;
        };
        let Some((facts, credentials)) =
            as_read(known, &mut self.views, &r.header, r.ctime_ns, r.size)
        else {
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
            at: convert::task_info(&r.header),
            access,
            file: facts,
            credentials,
            unreadable: known.unreadable.clone(),
            truncated: known.truncated,
            hook: hook.to_owned(),
        })));
    }

    /// Learns a path ahead of its record's turn.
    pub fn learn_target(&mut self, target: &abi::FdTarget) {
        self.targets.learn(target);
    }

    /// The path of a file as the kernel side has reported it for this process; empty when it has not, or not all of it.
    pub(super) fn reported_path(&self, pid: Pid, file: abi::FileId) -> String {
        let path = self.targets.path(pid, file);
        if written::is_cut(path) {
            return String::new();
        }
        path.to_owned()
    }

    /// A file that was not seen before: inspected by now, before any later record of its reader.
    fn new_file(
        &mut self,
        r: &abi::FileNew,
        hook: &str,
        inspection: Option<&Inspection>,
        out: &mut Digested,
    ) {
        let at = convert::task_info(&r.header);
        let seen = inspection.map_or_else(|| self.asked.seen(r.file, r.ctime_ns), Inspection::seen);
        let known = seen.as_deref().or_else(|| self.files.table.get(r.file));
        let verdict = inspection.map_or_else(
            || {
                self.asked
                    .recent(r.file, r.ctime_ns)
                    .or(known.map(|_| Verdict::Known))
                    .unwrap_or(Verdict::Missed(Missed::Backlog))
            },
            verdict,
        );
        match verdict {
            Verdict::Known => {
                let Some(known) = known else {
                    self.unlocated += 1;
                    return;
                };
                if inspection.is_none() && !known.is_gone {
                    out.watch(known.access_path(), r.file);
                }
                let Some((facts, credentials)) =
                    as_read(known, &mut self.views, &r.header, r.ctime_ns, r.size)
                else {
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
                    file: facts,
                    credentials,
                    unreadable: None,
                    truncated: known.truncated,
                    hook: hook.to_owned(),
                    at: at.clone(),
                };
                out.observations.push(Observation::File(Box::new(seen)));
            }
            Verdict::Clean => {
                let handed = self.handed.has(r.file, at.boot_ns);
                // Said again: the kernel side may have asked before it knew. Of a file that was just written every program
                // that reads it is to be reported.
                if inspection.is_none() && !handed {
                    out.mark_clean(r.file, r.ctime_ns);
                }
                self.handed_on(r, (at, hook), out);
            }
            Verdict::Gone => {
                self.unlocated += 1;
                self.handed_on(r, (at, hook), out);
            }
            Verdict::Missed(missed) => {
                self.dropped.add(missed.bound(), 1);
                self.handed_on(r, (at, hook), out);
            }
        }
    }

    /// Who reads a new file is decided once that was inspected, whatever came of it.
    fn decide_reader(&mut self, r: &abi::FileNew, out: &mut Digested) {
        if r.exec_id != 0 {
            // A child forked before this is decided is decided by the same number.
            self.last_exec.insert(r.header.tgid, r.exec_id);
            out.decide(convert::pid(r.header.tgid, r.header.start_ns), r.exec_id);
        }
    }

    /// Whether a holder wrote this file a short while ago.
    #[must_use]
    pub fn is_handed_on(&self, file: abi::FileId) -> bool {
        self.handed.has(file, boot_ns())
    }

    /// A file is read that others wrote a while ago, and in which nothing was seen.
    fn handed_on(&self, r: &abi::FileNew, (at, hook): (TaskInfo, &str), out: &mut Digested) {
        let Some(path) = self.handed.read(r.file, at.pid, at.boot_ns) else {
            return;
        };
        let name = decode::name(&r.names[0]);
        let same = !name.is_empty() && path.rsplit('/').next() == Some(name.as_str());
        let path = if same { path } else { "" };
        out.observations.push(Observation::File(Box::new(FileSeen {
            at,
            access: Access::Read,
            file: Version::reported(r, path).facts,
            credentials: Vec::new(),
            unreadable: None,
            truncated: false,
            hook: hook.to_owned(),
        })));
    }

    /// Counts what was left out of a file.
    pub fn count(&mut self, inspected: &Inspected) {
        self.dropped
            .add(Bound::Sampled, u64::from(inspected.truncated));
        let behind_a_bound = u64::from(inspected.bounded && inspected.left_out == 0);
        self.dropped
            .add(Bound::InFile, inspected.left_out + behind_a_bound);
    }

    /// Payloads before this one were passed over: what was kept of the stream does not go on here.
    pub(super) fn after_hole(&mut self, header: &abi::Header, offset: u32, key: &StreamKey) {
        if header.flags & abi::header::flags::AFTER_HOLE != 0 && offset == 0 {
            self.streams.interrupt(key);
        }
    }

    fn send(&mut self, r: &abi::SockSend, data: &[u8], hook: &str) -> (SendSeen, UsedCredentials) {
        let at = convert::task_info(&r.header);
        let key = StreamKey {
            pid: at.pid,
            layer: Layer::Socket,
            id: r.ends.sock,
            ends: (r.ends.peer, r.ends.peer_port, r.ends.local_port),
        };
        let chunk = chunk(&r.header, data, r.offset, r.total);
        self.after_hole(&r.header, r.offset, &key);
        self.answers.asked(r.ends.sock);
        let accepted = r.header.flags & abi::header::flags::ACCEPTED != 0;
        if accepted {
            self.in_use.serves(at.pid);
        }
        let (classifier, registry) = (&self.classifier, &self.registry);
        let mut meeting = self.in_use.meeting(&at, classifier, registry);
        let unknown = (!accepted).then_some(&mut meeting as &mut dyn Unknown);
        let sent = self
            .streams
            .on_send_with(&registry.matcher, key, chunk, unknown);
        let used = meeting.end();
        if sent.hello.is_some() {
            self.streams.close_sessions(at.pid);
        }
        let mut records = sent.records.iter().map(|r| (r.content_type, r.length));
        let seen = SendSeen {
            ends: convert::endpoints(&r.ends),
            payload: sent.payload,
            tls_record: records.next(),
            tls_more: records.collect(),
            goes_on: sent.goes_on,
            tls_call: (r.tls_call != 0).then_some((r.tls_call, r.tls_session)),
            hello: sent.hello,
            direction: accepted.then_some(Direction::Accepted),
            sealed: false,
            asked: 0,
            hook: hook.to_owned(),
            at,
        };
        (seen, used)
    }

    fn write(&mut self, r: &abi::FdWrite, data: &[u8], hook: &str) -> Observation {
        let at = convert::task_info(&r.header);
        let key = written::stream(at.pid, r);
        if r.positioned != 0 && r.offset == 0 {
            self.streams.interrupt(&key);
        }
        let chunk = chunk(&r.header, data, r.offset, r.total);
        let payload = self.streams.on_payload(&self.registry.matcher, key, chunk);
        if written::target(r.target) == WriteTarget::File && r.offset == 0 {
            let path = self.targets.path(at.pid, r.file);
            self.handed.write(r.file, path, at.pid, at.boot_ns);
        }
        Observation::Write(Box::new(WriteSeen {
            target: written::target(r.target),
            device: u64::from(r.file.dev),
            inode: r.file.ino,
            path: self.targets.path(at.pid, r.file).to_owned(),
            payload,
            hook: hook.to_owned(),
            at,
        }))
    }

    /// Makes known what nobody knew before it was used, before its use is reported.
    pub(super) fn learn_in_use(
        &mut self,
        at: &TaskInfo,
        used: UsedCredentials,
        out: &mut Digested,
    ) {
        let (registry, dropped) = (&mut self.registry, &mut self.dropped);
        let seen = self.in_use.learn(at, used, registry, dropped);
        out.observations
            .extend(seen.map(|seen| Observation::InUse(Box::new(seen))));
    }

    fn tls(&mut self, r: &abi::TlsWrite, data: &[u8], hook: &str) -> (TlsSeen, UsedCredentials) {
        let at = convert::task_info(&r.header);
        let key = StreamKey {
            pid: at.pid,
            layer: Layer::Tls,
            id: r.tls_session,
            ends: Default::default(),
        };
        let chunk = chunk(&r.header, data, r.offset, r.total);
        self.after_hole(&r.header, r.offset, &key);
        let (classifier, registry) = (&self.classifier, &self.registry);
        let mut meeting = self.in_use.meeting(&at, classifier, registry);
        let unknown = Some(&mut meeting as &mut dyn Unknown);
        let payload = self
            .streams
            .on_payload_with(&registry.matcher, key, chunk, unknown);
        let used = meeting.end();
        let seen = TlsSeen {
            call: r.tls_call,
            session: r.tls_session,
            socket: (r.sock != 0).then_some(Socket {
                sock: r.sock,
                local_port: r.local_port,
                peer_port: r.peer_port,
            }),
            once: r.once != 0,
            // Keyed, and the key is in no recording: what is short could else be guessed from it. Only of what is here whole:
            // equal beginnings are no equal writes.
            digest: (r.offset == 0 && !data.is_empty() && data.len() as u64 == r.total)
                .then(|| self.digests.hash_one(data)),
            record: record_header(data)
                .filter(|_| r.offset == 0)
                .map(|record| (record.content_type, record.length)),
            payload,
            hook: hook.to_owned(),
            at,
        };
        (seen, used)
    }

    /// A process as /proc shows it now; `None` when it is gone.
    pub fn snapshot(&mut self, tgid: u32, boot_ns: u64) -> Option<Snapshot> {
        let snapshot = self.snapshot_of(tgid, boot_ns, true)?;
        self.snapshot_at.insert(snapshot.at.pid, boot_ns);
        Some(snapshot)
    }

    /// Whether the record of a process's exec was lost, so that nothing is known of the program it runs now.
    #[must_use]
    pub fn missed(&self, tgid: u32, exec_id: u64) -> bool {
        self.last_exec.get(&tgid) != Some(&exec_id)
    }

    /// Who a process is, but not what it holds: for records of processes nobody reported. It may have executed
    /// something else since the record; the record of that will say what it holds.
    pub fn read_process(&mut self, tgid: u32, boot_ns: u64) -> Option<Snapshot> {
        self.snapshot_of(tgid, boot_ns, false)
    }

    fn snapshot_of(&mut self, tgid: u32, boot_ns: u64, holdings: bool) -> Option<Snapshot> {
        let facts = procfs::facts(tgid)?;
        let pid = Pid {
            tgid,
            start: facts.start,
        };
        let mut found = Vec::new();
        let mut env_unreadable = None;
        let mut environment = None;
        match holdings.then(|| area(pid, facts.uid, "environ")) {
            None => {}
            Some(Ok((block, _))) => {
                found.extend(exec::in_environment(
                    &block,
                    &self.classifier,
                    &mut self.registry,
                ));
                environment = Some(block);
            }
            // No memory: a kernel thread, or gone by now.
            Some(Err(e)) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Some(Err(e)) => env_unreadable = Some(e.to_string()),
        }
        let mut argv = Vec::new();
        if let Ok((area, _)) = area(pid, facts.uid, "cmdline") {
            let clear = environment
                .as_ref()
                .map(|block| exec::in_clear(block, &found, &self.registry))
                .unwrap_or_default();
            let (shown, in_argv) =
                exec::arguments(&area, &clear, &self.classifier, &mut self.registry);
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
            at: TaskInfo {
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

    /// Time passes: late execs are finished, payload tails wiped.
    pub fn tick(&mut self, boot_ns: u64, out: &mut Digested) {
        for done in self
            .execs
            .overdue(boot_ns, &self.classifier, &mut self.registry)
        {
            self.finished(done, out);
        }
        self.streams.expire(boot_ns);
        self.answers.expire(boot_ns);
        self.dns_pieces.expire(boot_ns);
        self.withdraw(boot_ns, out);
    }

    /// Tells of what turned out to be no credential, before anything that rests on what it is.
    fn withdraw(&mut self, boot_ns: u64, out: &mut Digested) {
        for fingerprint in self.registry.withdrawn.drain(..).rev() {
            let withdrawn = Observation::Withdrawn {
                boot_ns,
                fingerprint,
            };
            out.observations.insert(0, withdrawn);
        }
    }

    /// A path of the host as a process has it, where that is in a container's own files.
    pub fn path_inside(&mut self, tgid: u32, path: &str) -> Option<String> {
        self.views.in_overlay(tgid, path, boot_ns())
    }

    /// Forgets what is kept of processes that are gone and whose end was not reported.
    pub fn forget_dead(&mut self, lives: impl Fn(u32) -> bool) {
        self.last_exec.retain(|tgid, _| lives(*tgid));
        self.snapshot_at.retain(|pid, _| lives(pid.tgid));
        self.views.forget_dead(&lives);
        self.in_use.forget_dead(&lives);
        self.targets.forget_dead(lives);
    }

    /// The observation as it may be reported; `None` when it may be as it is.
    pub fn shown(&mut self, observation: &Observation) -> Option<Observation> {
        self.shown.of(observation, &self.registry.matcher)
    }

    /// Does something of which nobody asks what it could not see.
    pub fn for_unfollowed<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let (unlocated, dropped) = (self.unlocated, self.dropped().clone());
        let before = std::mem::replace(&mut self.is_unfollowed, true);
        let done = act(self);
        self.is_unfollowed = before;
        self.unlocated = unlocated;
        *self.dropped() = dropped;
        done
    }

    #[must_use]
    pub fn inspection_options(&self) -> &InspectionOptions {
        self.inspector.options()
    }

    /// What found no room, or was inspected in part, since it was last taken.
    pub fn dropped(&mut self) -> &mut Dropped {
        self.dropped.gather(&mut self.registry.dropped);
        self.dropped.gather(&mut self.execs.dropped);
        self.dropped.gather(&mut self.files.table.dropped);
        let given_up = std::mem::take(&mut self.answers.given_up);
        self.dropped.add(Bound::Answers, given_up);
        &mut self.dropped
    }
}

/// Pipes that were reported later than at an exec.
fn passes(r: &abi::Pipes, out: &mut Digested) {
    let pipes = convert::pipes(r);
    if r.pass_id != 0 {
        // Those who read from it waited for what came of it.
        out.decide(pipes.at.pid, r.pass_id);
    }
    out.observations.push(Observation::Pipes(pipes));
}

/// The version of a file that was read, under the path its reader has it at. Where it holds nothing, nobody is reported.
fn as_read(
    known: &KnownFile,
    views: &mut Views,
    by: &abi::Header,
    ctime_ns: u64,
    size: u64,
) -> Option<(FileFacts, Vec<CredentialRef>)> {
    let (facts, credentials) = known.as_read(ctime_ns, size)?;
    let facts = facts.clone();
    if credentials.is_empty() && known.unreadable.is_none() || known.is_gone {
        return Some((facts, credentials.to_vec()));
    }
    let facts = views.seen_by(by.tgid, &known.root, facts, by.boot_ns);
    Some((facts, credentials.to_vec()))
}

/// What was decided; what is ingested without waiting for it was given up for want of room.
fn verdict(inspection: &Inspection) -> Verdict {
    inspection
        .verdict()
        .unwrap_or(Verdict::Missed(Missed::Backlog))
}

pub(super) fn chunk<'a>(
    header: &abi::Header,
    bytes: &'a [u8],
    offset: u32,
    total: u64,
) -> Chunk<'a> {
    use abi::header::flags::{TRUNCATED, UNREADABLE};
    Chunk {
        boot_ns: header.boot_ns,
        bytes,
        total,
        offset: u64::from(offset),
        truncated: header.flags & (TRUNCATED | UNREADABLE) != 0,
    }
}
