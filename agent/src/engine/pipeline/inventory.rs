//! Keeps the inventory current: what the background found and what records revealed goes into it, new credentials come
//! out as observations, and a thread of its own writes it to the state directory.

use super::Pipeline;
use super::reports::Reports;
use crate::engine::coverage;
use keytrail_abi::FileId;
use keytrail_findings::facts::CredentialFacts;
use keytrail_host::clock::{boot_ns, wall_ns};
use keytrail_host::procfs;
use keytrail_ingest::background::{Background, InspectedFile, Report};
use keytrail_ingest::min_confidence;
use keytrail_ingest::{KnownFile, file_key};
use keytrail_inventory::live::{Baseline, Change, ContentDiff, Live, Workload};
use keytrail_inventory::model::Entry;
use keytrail_inventory::state::{HOST, Run, State, StateError, is_corrupt};
use keytrail_model::{
    CredentialRef, FileInspection, InventoryUpdate, Observation, SensorChange, TaskInfo, Why,
};
use keytrail_store::PlaceSeen;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches of changes that may wait for the disk.
const QUEUE: usize = 64;
/// Changes are written together after this long.
const TOGETHER: Duration = Duration::from_millis(250);
/// Whether a whole inventory was taken is asked this often, when nothing is to be written.
const LOOK: Duration = Duration::from_secs(5);
/// Changes that may wait for it beyond those; what comes after is lost, and reported this often, nanoseconds.
const WAITING: usize = 16_384;
const LOST_NS: u64 = 10_000_000_000;
/// How long a new credential waits for the name of its writer, nanoseconds.
const UNATTRIBUTED_NS: u64 = 600_000_000;

/// The inventory and who feeds and keeps it.
pub(crate) struct Inventory {
    pub live: Live,
    background: Option<Background>,
    /// What the background has reported, until the records of before have been taken in.
    reports: Reports,
    writer: Option<Writer>,
    /// What is new in files whose writer the background may still name, and until when that is waited for, nanoseconds since
    /// boot: a reader, or the watched directory, often reports a file first.
    pub(super) unattributed: Vec<(u64, ContentDiff)>,
    /// Changes that the disk was too slow for.
    waiting: Vec<Change>,
    /// Changes that were not written, and when more of them may be reported.
    lost: u64,
    lost_due_ns: u64,
}

impl Inventory {
    /// The inventory as it is stored in `dir`, or an empty one that is kept nowhere.
    pub fn open(dir: Option<&Path>) -> Inventory {
        let mut baseline = Baseline {
            agent_started_ns: wall_ns(),
            inventory_started: 0,
        };
        let mut known = Vec::new();
        let mut writer = None;
        if let Some(dir) = dir {
            let opened =
                stored(dir)
                    .map_err(|e| e.to_string())
                    .and_then(|(state, run, entries)| {
                        baseline.inventory_started = run.as_ref().map_or(0, |r| r.started);
                        known = entries;
                        Writer::start(state, run.map_or(0, |r| r.id)).map_err(|e| e.to_string())
                    });
            match opened {
                Ok(started) => writer = Some(started),
                // Events do not depend on it.
                Err(error) => tracing::error!(%error, "the inventory is not kept"),
            }
        }
        Inventory {
            live: Live::new(baseline, known),
            background: None,
            reports: Reports::default(),
            writer,
            unattributed: Vec::new(),
            waiting: Vec::new(),
            lost: 0,
            lost_due_ns: 0,
        }
    }

    /// What was learnt is no credential: it is not reported as a new one.
    pub fn withdraw(&mut self, fingerprint: &str) {
        for (_, diff) in &mut self.unattributed {
            diff.created.retain(|c| c.fingerprint != fingerprint);
            diff.rotated.retain(|(c, _)| c.fingerprint != fingerprint);
            diff.removed.retain(|c| c.fingerprint != fingerprint);
        }
        self.unattributed.retain(|(_, diff)| !diff.is_empty());
    }

    fn follow(&self, look: &FileInspection) {
        if let Some(background) = &self.background {
            let seen = FileId {
                ino: look.facts.inode,
                dev: u32::try_from(look.facts.device).unwrap_or(0),
                pad: 0,
            };
            let seen = (seen, look.facts.ctime_ns);
            background.follow(look.root.clone(), look.raw.clone(), seen);
        }
    }

    fn store(&mut self) {
        if let Some(walked) = self.writer.as_ref().and_then(Writer::walked) {
            self.live.adopt(walked.started, walked.entries);
        }
        self.waiting.extend(self.live.take_changes());
        if self.waiting.is_empty() {
            return;
        }
        let Some(writer) = &self.writer else {
            self.waiting.clear();
            return;
        };
        self.waiting = writer.write(std::mem::take(&mut self.waiting));
        let over = self.waiting.len().saturating_sub(WAITING);
        self.waiting.truncate(WAITING);
        self.lost += over as u64 + writer.lost.swap(0, Ordering::Relaxed);
    }

    /// Changes that were not written and are to be reported now.
    fn take_lost(&mut self, now_ns: u64) -> Option<u64> {
        if self.lost == 0 || now_ns < self.lost_due_ns {
            return None;
        }
        self.lost_due_ns = now_ns + LOST_NS;
        Some(std::mem::take(&mut self.lost))
    }
}

impl Pipeline {
    /// Starts inspecting what is written; a kernel that does not report it is a gap.
    pub fn start_background(&mut self) {
        let files = &self.digest.files;
        let options = self.digest.inspection_options().clone();
        match Background::start(self.digest.classifier.clone(), files.named(), options) {
            Ok(background) => self.inventory.background = Some(background),
            Err(error) => self.gap(coverage::writes_unseen(
                "files that are written are inspected only when they are read",
                &error.to_string(),
                boot_ns(),
            )),
        }
    }

    /// Fetches what the background has reported. To be called before the records are: then who did what it reports is known
    /// by the time that it is taken in, however soon that one was gone.
    pub fn reports(&mut self) {
        while !self.inventory.reports.is_full()
            && let Some(report) = self
                .inventory
                .background
                .as_mut()
                .and_then(Background::report)
        {
            self.inventory.reports.push(report, boot_ns());
        }
    }

    /// Takes in what the background found.
    pub fn background(&mut self) {
        let now_ns = boot_ns();
        while let Some(report) = {
            let waits = |writer| self.lanes.of(writer).is_some();
            self.inventory.reports.next(now_ns, waits)
        } {
            match report {
                Report::Inspected(inspected) => {
                    self.inspected(*inspected);
                    keytrail_payload::scrub_stack();
                }
                Report::Clean(file, ctime_ns) => self.clean(file, ctime_ns),
                Report::Program(file, path) => {
                    self.change(SensorChange::ScanWritten { file, path });
                }
                Report::Persistence(seen) => {
                    let at = self.writer(seen.writer, seen.boot_ns);
                    self.step(&Observation::Persistence {
                        at,
                        boot_ns: seen.boot_ns,
                        file: seen.file,
                        technique: seen.technique.to_owned(),
                        link: seen.link,
                    });
                }
                Report::Gone { root, raw, life } => {
                    self.forget(&root, &String::from_utf8_lossy(&raw), None);
                    if let Some(life) = life {
                        let held = self.held_in(&raw, &root, true);
                        self.lived(&life, &life.before, held, &[]);
                    }
                    self.update_inventory(InventoryUpdate::Gone { root, raw });
                }
                Report::Changed {
                    root,
                    raw,
                    facts,
                    life,
                } => {
                    let held = self.held_in(&raw, &root, false);
                    self.lived(&life, &facts, held, &[]);
                }
                Report::Namespace(tgid) => {
                    self.digest.files.add_process(tgid);
                }
                Report::Unmarked(unmarked) => {
                    let what = format!(
                        "files written on {} ({}) are inspected only when they are read",
                        unmarked.point, unmarked.kind
                    );
                    self.gap(coverage::writes_unseen(&what, &unmarked.error, boot_ns()));
                }
                Report::Ended => self.gap(coverage::writes_unseen(
                    "files that are written are inspected only when they are read",
                    "the thread that inspects them has ended",
                    boot_ns(),
                )),
                Report::Stuck => self.gap(coverage::writes_stuck(boot_ns())),
                Report::Skipped { count, why } => {
                    self.gap(coverage::not_inspected(count, why, boot_ns()));
                }
            }
        }
        self.report_unattributed(now_ns);
        self.inventory.store();
        if let Some(count) = self.inventory.take_lost(now_ns) {
            self.gap(coverage::unlisted(count, now_ns));
        }
    }

    /// Tells of new credentials whose writer nobody has named until now.
    pub fn report_unattributed(&mut self, now_ns: u64) {
        for (due_ns, diff) in std::mem::take(&mut self.inventory.unattributed) {
            if due_ns <= now_ns {
                self.report_diff(diff);
            } else {
                self.inventory.unattributed.push((due_ns, diff));
            }
        }
    }

    /// Learns what was found in a file that was written.
    fn inspected(&mut self, inspected: InspectedFile) {
        let InspectedFile {
            root,
            raw,
            version,
            inspected,
            writer,
            boot_ns,
            life,
        } = inspected;
        let (id, ctime_ns) = (version.id, version.facts.ctime_ns);
        let min = min_confidence(self.digest.files.is_named(&version.facts.path));
        self.digest.count(&inspected);
        let registry = &mut self.digest.registry;
        let (known, held) = KnownFile::learn(version, root, &inspected, min, registry);
        // Their secret bytes are needed no longer.
        drop(inspected);
        let mut inspection = known.inspection(held, min, Why::Accessed, boot_ns);
        inspection.raw = raw;
        inspection.writer = writer;
        let table = &mut self.digest.files.table;
        if known.credentials.is_empty() {
            if table.get(id).is_some() {
                // It is watched still: that costs nothing, and something may be written to it again.
                table.insert(id, known);
            } else {
                self.clean(id, ctime_ns);
            }
        } else {
            let path = known.access_path();
            let (root, name) = (known.root.clone(), known.version.facts.path.clone());
            if table.insert(id, known) {
                let file = file_key(id);
                self.change(SensorChange::Watch { path, file });
                self.forget(&root, &name, Some(id));
            }
        }
        let facts = inspection.facts.clone();
        let of = (inspection.root.clone(), inspection.raw.clone());
        // What lies below a mount is still there.
        let covers = life.as_ref().is_some_and(|life| life.covers());
        let below = covers.then(|| self.held_in(&of.1, &of.0, false));
        let turned = self.update_inventory(InventoryUpdate::Inspected(Box::new(inspection)));
        if covers {
            for (_, diff) in &mut self.inventory.unattributed {
                if diff.facts.path == facts.path {
                    diff.removed.clear();
                }
            }
        }
        if writer != 0 {
            for (due_ns, diff) in &mut self.inventory.unattributed {
                if diff.facts.path == facts.path {
                    (diff.writer, *due_ns) = (writer, 0);
                }
            }
        }
        if let Some(life) = life {
            let held = below.unwrap_or_else(|| self.held_in(&of.1, &of.0, false));
            self.lived(&life, &facts, held, &turned);
        }
    }

    /// Files known under a path they do not have any more; all but `keep`.
    fn forget(&mut self, root: &Path, path: &str, keep: Option<FileId>) {
        for id in self.digest.files.table.at(root, path) {
            if Some(id) != keep {
                self.digest.files.table.remove(id);
                self.change(SensorChange::Unwatch { file: file_key(id) });
            }
        }
    }

    fn clean(&mut self, file: FileId, ctime_ns: u64) {
        // What a holder has just written may hold a credential that is packed or encrypted: who reads it is to be reported.
        if !self.digest.is_handed_on(file) {
            let file = file_key(file);
            self.change(SensorChange::MarkClean { file, ctime_ns });
        }
        self.update_inventory(InventoryUpdate::Clean {
            device: u64::from(file.dev),
            inode: file.ino,
        });
    }

    /// News of a place: into the inventory, and on as an observation when a credential is new there. Answers what took
    /// another's place.
    pub fn update_inventory(&mut self, mut news: InventoryUpdate) -> Vec<CredentialRef> {
        if let InventoryUpdate::Inspected(look) = &news
            && !look.held.is_empty()
        {
            self.inventory.follow(look);
            self.remember(look);
        }
        // What is kept of a place has no secret in its name.
        match &mut news {
            InventoryUpdate::Inspected(look) => self.hide_in_name(&mut look.raw),
            InventoryUpdate::Gone { raw, .. } => self.hide_in_name(raw),
            InventoryUpdate::Clean { .. } | InventoryUpdate::Unread(_) => {}
        }
        let now = i64::try_from(wall_ns() / 1_000_000_000).unwrap_or(i64::MAX);
        if let Some(diff) = self.inventory.live.take(news, now, workload) {
            let turned = diff.rotated.iter().map(|(c, _)| c.clone()).collect();
            // A file that is being written may hold nothing for a moment.
            let wait = diff.writer == 0 || !diff.removed.is_empty();
            if wait && self.inventory.background.is_some() {
                self.inventory
                    .unattributed
                    .push((boot_ns() + UNATTRIBUTED_NS, diff));
            } else {
                self.report_diff(diff);
            }
            return turned;
        }
        Vec::new()
    }

    /// What the inventory has of the file of this name, of one that went a moment ago too where `gone` is set.
    fn held_in(&mut self, raw: &[u8], root: &Path, gone: bool) -> Vec<CredentialRef> {
        let mut raw = raw.to_vec();
        self.hide_in_name(&mut raw);
        self.inventory.live.held_in(&raw, workload(root), gone)
    }

    /// Takes learnt secrets out of a name, as the walk does (`[redacted KIND FINGERPRINT]`).
    fn hide_in_name(&self, raw: &mut Vec<u8>) {
        if let Some(shown) = self.digest.registry.matcher.redact(raw) {
            *raw = shown.into_bytes();
        }
    }

    /// What lies in a file is remembered, also when nobody uses it.
    fn remember(&self, look: &FileInspection) {
        let Some(ledger) = &self.ledger else { return };
        let path = self.digest.registry.matcher.redact(&look.raw);
        let path = path.as_deref().unwrap_or(&look.facts.path);
        for held in &look.held {
            if held.confidence < look.min_confidence {
                continue;
            }
            ledger.place(PlaceSeen {
                credential: CredentialFacts {
                    fingerprint: held.fingerprint.clone(),
                    kind: held.kind.clone(),
                    identifier: held.identifier.clone(),
                    confidence: held.confidence,
                    privilege: held.privilege.into(),
                    expires: held.expires,
                },
                place: format!("file:{path}"),
                owner_uid: look.facts.owner_uid,
                owner_gid: look.facts.owner_gid,
                mode: format!("{:04o}", look.facts.mode & 0o7777),
                time_ns: i64::try_from(wall_ns()).unwrap_or(i64::MAX),
            });
        }
    }

    /// The process that wrote a file, if it is known and was there before.
    pub(super) fn writer(&self, tgid: u32, boot_ns: u64) -> Option<TaskInfo> {
        if tgid == 0 || self.waits(tgid) {
            // What it runs by now is not known: nobody is named rather than the program before.
            return None;
        }
        let table = self.core.processes();
        let pid = table.latest(tgid)?;
        let process = table.get(pid)?;
        let started_ns = pid.start.saturating_mul(keytrail_model::TICK_NS);
        (started_ns <= boot_ns).then(|| TaskInfo {
            boot_ns,
            pid,
            tid: tgid,
            uid: process.uid,
            euid: process.euid,
            gid: process.gid,
            cgroup_id: 0,
            comm: process.comm.clone(),
        })
    }
}

/// The stored inventory; a damaged one is set aside, wherever the damage is seen.
fn stored(dir: &Path) -> Result<(State, Option<Run>, Vec<Entry>), StateError> {
    let mut state = State::open(dir)?;
    let mut host = state.host();
    if let Err(StateError::Database { source, .. }) = &host
        && is_corrupt(source)
    {
        state.begin_anew(source)?;
        host = state.host();
    }
    let (run, entries) = host?;
    Ok((state, run, entries))
}

/// To what a root belongs, by the process it is reached through.
fn workload(root: &Path) -> Workload {
    let tgid = root
        .as_os_str()
        .as_bytes()
        .strip_prefix(b"/proc/")
        .and_then(|rest| std::str::from_utf8(rest.split(|b| *b == b'/').next()?).ok())
        .and_then(|tgid| tgid.parse().ok());
    let Some(tgid) = tgid else {
        return Workload::default();
    };
    let found = keytrail_model::Workload::from_path(&procfs::cgroup(tgid).unwrap_or_default());
    if found.container.is_empty() {
        let namespace = procfs::namespace(tgid, "mnt").unwrap_or(0);
        return (format!("mnt:[{namespace}]"), found.pod);
    }
    (found.container, found.pod)
}

/// Writes changes to the state directory, and sees whether a whole inventory was taken meanwhile.
struct Writer {
    queue: Option<SyncSender<Vec<Change>>>,
    /// Closed when the thread has ended.
    walked: Receiver<Walked>,
    /// Changes that could not be written, until they are reported.
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// How long the end waits for the last changes to be written.
const END: Duration = Duration::from_millis(200);

impl Writer {
    fn start(state: State, last_run: i64) -> io::Result<Writer> {
        let (queue, changes) = sync_channel(QUEUE);
        let (news, walked) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new()
            .name("inventory".to_owned())
            .spawn({
                let lost = lost.clone();
                move || write(state, last_run, &changes, &news, &lost)
            })?;
        Ok(Writer {
            queue: Some(queue),
            walked,
            lost,
            thread: Some(thread),
        })
    }

    fn walked(&self) -> Option<Walked> {
        self.walked.try_recv().ok()
    }

    /// Hands changes over; what finds no room comes back.
    fn write(&self, changes: Vec<Change>) -> Vec<Change> {
        match self.queue.as_ref().map(|q| q.try_send(changes)) {
            Some(Err(TrySendError::Full(changes))) => changes,
            Some(Err(TrySendError::Disconnected(changes))) => {
                self.lost.fetch_add(changes.len() as u64, Ordering::Relaxed);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread writes what it has and ends; one that the disk does not let ends with the process.
        self.queue = None;
        let end = Instant::now() + END;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.walked.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A whole inventory of the host.
struct Walked {
    started: i64,
    entries: Vec<Entry>,
}

/// The last whole inventory, if it is not the one known.
fn newer(state: &State, last_run: i64) -> Option<(i64, Walked)> {
    let run = state.runs(HOST, 1).ok()?.pop()?;
    if run.id == last_run {
        return None;
    }
    let entries = state.entries(&run).ok()?;
    let started = run.started;
    Some((run.id, Walked { started, entries }))
}

fn write(
    mut state: State,
    mut last_run: i64,
    changes: &Receiver<Vec<Change>>,
    news: &SyncSender<Walked>,
    lost: &AtomicU64,
) {
    loop {
        let mut batch = match changes.recv_timeout(LOOK) {
            Ok(batch) => batch,
            Err(RecvTimeoutError::Timeout) => {
                if let Some((id, walked)) = newer(&state, last_run)
                    // Not taken yet: reported the next time.
                    && news.try_send(walked).is_ok()
                {
                    last_run = id;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        loop {
            match changes.recv_timeout(TOGETHER) {
                Ok(more) if batch.len() < 10_000 => batch.extend(more),
                Ok(more) => {
                    batch.extend(more);
                    break;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        let mut noted = state.note(&batch);
        if let Err(StateError::Database { source, .. }) = &noted
            && is_corrupt(source)
        {
            noted = state.begin_anew(source).and_then(|()| state.note(&batch));
        }
        if let Err(error) = noted {
            tracing::error!(%error, "changes of the inventory could not be written");
            lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}
