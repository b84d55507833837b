//! Files: an open is not a read.

use super::opens::Key;
use super::{Core, attack};
use crate::correlate::event;
use crate::process::HoldingPlace;
use keytrail_model::event::{Evidence, Truncation};
use keytrail_model::{
    Access, Bound, Channel, CredentialRef, EventKind, EvidenceGrade, FileAction, FileChange,
    FileFacts, FileSeen, GapReason, GapSeen, Pid, Signal, TaskInfo,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Programs of one process back from the present one that an open may have been of.
const MAX_PROGRAMS: u32 = 4;
/// The hook whose records have the time at which they were fetched.
const UNTIMED: &str = "fanotify";
/// Credentials of one file that something is reported, one by one.
const MAX_REPORTED_OF_FILE: usize = 32;
/// Reads of the version of a file that was withdrawn are reported for so long: they waited for it to be inspected.
const WITHDRAWN_NS: u64 = 2_000_000_000;

impl Core {
    pub(super) fn on_file(&mut self, seen: &FileSeen) {
        // Of a process that was gone when fanotify reported it nothing but the number is known; taken for another process
        // it would take the place of the one we know.
        let owned;
        let seen = match self.table.latest(seen.at.pid.tgid) {
            Some(pid) if seen.at.pid.start == 0 => {
                owned = with_pid(seen, pid);
                &owned
            }
            _ => seen,
        };
        self.table.touch(&seen.at);
        let key = (seen.at.pid, seen.file.device, seen.file.inode);
        if seen.access == Access::Open {
            return self.on_open(key, seen);
        }
        self.opens.remove(&key);
        if seen.credentials.is_empty() {
            self.read_written(seen);
        }
        if let Some(why) = &seen.unreadable {
            self.on_gap(&unreadable(seen, why));
        }
        let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
        let from_ns = self.earliest(&seen.at, &seen.hook);
        let facts = Arc::new(seen.file.clone());
        let first = self.out.len();
        for credential in &seen.credentials {
            match self.withdrawn.get(&credential.fingerprint) {
                Some(&at) if seen.at.boot_ns <= at.saturating_add(WITHDRAWN_NS) => continue,
                // It was learnt again since: it is one after all.
                Some(_) => drop(self.withdrawn.remove(&credential.fingerprint)),
                None => {}
            }
            self.hold(
                &seen.at,
                credential,
                HoldingPlace::File(facts.clone()),
                from_ns,
            );
            match self
                .reads
                .insert(seen.at.pid, exec, &seen.file, &credential.fingerprint)
            {
                Some(true) => {}
                Some(false) => continue,
                None => self.dropped.add(Bound::Reads, 1),
            }
            self.on_read(seen, credential);
        }
        self.group(first);
    }

    /// An open waits for the read that it leads to, unless that was reported already.
    fn on_open(&mut self, key: Key, seen: &FileSeen) {
        let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
        // fanotify knows processes, not programs: an open may be reported after the exec that came after it, and after
        // the read it led to.
        let read = seen.credentials.iter().any(|c| {
            (exec.saturating_sub(MAX_PROGRAMS)..=exec).any(|exec| {
                self.reads
                    .contains(seen.at.pid, exec, &seen.file, &c.fingerprint)
            })
        });
        if !read
            && !seen.credentials.is_empty()
            && !self.opens.contains(&key)
            && !self.opens.insert(key, seen.clone())
        {
            self.dropped.add(Bound::Opens, 1);
        }
    }

    /// One credential of a file was read by this program for the first time.
    fn on_read(&mut self, seen: &FileSeen, credential: &CredentialRef) {
        let mut e = self.event(EventKind::CredentialRead, seen.at.boot_ns);
        e.process = Some(self.table.describe(seen.at.pid));
        e.credential = Some(self.best(credential));
        e.source = Some(event::file_source(&seen.file));
        e.evidence = Some(Evidence::new(
            Some(EvidenceGrade::Observed),
            Channel::File,
            &seen.hook,
        ));
        if seen.truncated {
            e.truncation = Some(Truncation {
                file: true,
                ..Truncation::default()
            });
        }
        e.attack = attack(&[&credential.attack]);
        self.report_read(e, &seen.file, seen.at.pid);
    }

    /// A file came to hold credentials: reported for each once.
    pub(super) fn on_created(
        &mut self,
        at: Option<&TaskInfo>,
        boot_ns: u64,
        file: &FileFacts,
        credentials: &[CredentialRef],
    ) {
        let mut named = BTreeSet::new();
        let first = self.out.len();
        for credential in credentials {
            if !named.insert(&credential.fingerprint) {
                continue;
            }
            let mut e = self.event(EventKind::CredentialCreated, boot_ns);
            e.process = at.map(|at| self.table.describe(at.pid));
            e.credential = Some(self.best(credential));
            e.source = Some(event::file_source(file));
            e.attack = attack(&[&credential.attack]);
            self.report_created(e, file, at.map(|at| at.pid));
        }
        self.group(first);
    }

    /// Something happened to a file with credentials: reported for each.
    pub(super) fn on_file_changed(
        &mut self,
        at: Option<&TaskInfo>,
        boot_ns: u64,
        (file, change): (&FileFacts, &FileChange),
        credentials: &[CredentialRef],
    ) {
        let mut named = BTreeSet::new();
        let mut about: Vec<&CredentialRef> = Vec::new();
        about.extend(credentials.iter().filter(|c| named.insert(&c.fingerprint)));
        let more = about.len().saturating_sub(MAX_REPORTED_OF_FILE);
        about.truncate(MAX_REPORTED_OF_FILE);
        let last = about.len().saturating_sub(1);
        let first = self.out.len();
        for (number, credential) in about.into_iter().enumerate() {
            if change.action == FileAction::Deleted
                && self.is_its_end(at.map(|at| at.pid), file, &credential.fingerprint)
            {
                continue;
            }
            let mut e = self.event(EventKind::CredentialFileChanged, boot_ns);
            e.process = at.map(|at| self.table.describe(at.pid));
            e.credential = Some(self.best(credential));
            e.source = Some(event::file_source(file));
            e.change = Some(Box::new(change.clone()));
            if more > 0 && number == last {
                e.coverage = vec![format!("the same is true of {more} more in this file")];
            }
            e.attack = attack(&[technique(file, change)]);
            self.emit(e);
        }
        self.group(first);
    }

    /// A file that outlives its writer, or a `link` to one (empty: it is none). What `git` checks out is what a repository holds, and told where it is run.
    pub(super) fn on_persistence(
        &mut self,
        at: Option<&TaskInfo>,
        boot_ns: u64,
        file: &FileFacts,
        (technique, link): (&str, &str),
    ) {
        let process = at.map(|at| self.table.describe(at.pid));
        let by_git = process
            .as_ref()
            .and_then(|p| p.executable.as_ref())
            .is_some_and(|exe| exe.path.ends_with("/git"));
        if by_git && !file.path.contains("/.git/hooks/") {
            return;
        }
        let mut e = self.event(EventKind::PersistenceWritten, boot_ns);
        e.process = process;
        e.source = Some(event::file_source(file));
        e.change = (!link.is_empty()).then(|| {
            Box::new(FileChange {
                link: link.to_owned(),
                ..FileChange::new(FileAction::Linked)
            })
        });
        e.attack = attack(&[technique]);
        self.emit(e);
    }

    /// The earliest that something can have been: fanotify reports no time, but that it was after it was last asked.
    pub(super) fn earliest(&self, at: &TaskInfo, hook: &str) -> u64 {
        if hook == UNTIMED {
            self.tick_ns.min(at.boot_ns)
        } else {
            at.boot_ns
        }
    }

    pub(super) fn opened(&mut self, key: Key, open: &FileSeen) {
        let first = self.out.len();
        for credential in &open.credentials {
            if self.is_step(key.0, &open.file, &credential.fingerprint) {
                continue;
            }
            let mut e = self.event(EventKind::CredentialOpened, open.at.boot_ns);
            e.process = Some(self.table.describe(key.0));
            e.credential = Some(self.best(credential));
            e.source = Some(event::file_source(&open.file));
            e.evidence = Some(Evidence::new(None, Channel::File, &open.hook));
            self.emit(e);
        }
        self.group(first);
    }
}

/// A read of which it is not known what it gave.
fn unreadable(seen: &FileSeen, why: &str) -> GapSeen {
    GapSeen {
        detail: format!(
            "{} was read; what it holds is not known: {why}",
            seen.file.path
        ),
        remedy: "let the agent read the file (CAP_DAC_READ_SEARCH)".to_owned(),
        count: 1,
        signal: Some(Signal::FileRead),
        pid: Some(seen.at.pid),
        ..GapSeen::new(GapReason::FileUnreadable, seen.at.boot_ns)
    }
}

/// File and Directory Permissions Modification, where it lets more people read.
fn technique(file: &FileFacts, change: &FileChange) -> &'static str {
    let readable = |mode: u32| mode & 0o044;
    let wider = change
        .before
        .is_some_and(|before| readable(file.mode) & !readable(before.mode) != 0);
    if change.action == FileAction::Permissions && wider {
        "T1222.002"
    } else {
        ""
    }
}

fn with_pid(seen: &FileSeen, pid: Pid) -> FileSeen {
    let mut seen = seen.clone();
    seen.at.pid = pid;
    seen
}
