//! Files that have to be inspected before a record about them can be ingested: asked for, and taken in when the answer
//! comes.

use super::asked::{Inspection, Purpose, Verdict};
use super::convert;
use super::digested::Digested;
use super::files::{KnownFile, NewVersion, min_confidence};
use super::inspection::{
    Answer, Missed, NewFile, Outcome, PathSubject, ReaderBytes, SeenFile, Subject, Who,
};
use super::stage::Digest;
use crate::decode::Record;
use keytrail_abi::{FileId, FileNew, Header};
use keytrail_model::{InventoryUpdate, Unread, Why};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

/// Surveys, and what they find.
const WATCH_SET: Who = Who {
    user: 0,
    process: 0,
};
/// All that nobody asks about: one turn for all of it, under a number no user has.
const UNFOLLOWED: Who = Who {
    user: u32::MAX,
    process: 0,
};

impl Digest {
    /// The inspection that has to be made, or has been, before this record is ingested.
    pub fn inspection(&mut self, record: &Record<'_>) -> Option<Inspection> {
        let (file, ctime_ns, header, subject) = self.subject(record)?;
        if self.asked.recent(file, ctime_ns).is_some() {
            return None;
        }
        if let Some(asked) = self.asked.by_file.get(&(file, ctime_ns)) {
            return Some(asked.clone());
        }
        let boot_ns = header.boot_ns;
        let called = match &subject {
            Subject::Inode(new) => Some(called(&new.record)),
            _ => None,
        };
        let (verdict, seen) = <(Arc<OnceLock<_>>, Arc<OnceLock<_>>)>::default();
        let who = Who {
            user: header.euid,
            process: header.tgid,
        };
        let id = match self.ask(subject, who) {
            Ok(id) => id,
            Err(missed) => {
                let inspection = Inspection {
                    id: u64::MAX,
                    verdict,
                    seen,
                };
                inspection.decide(Verdict::Missed(missed));
                return Some(inspection);
            }
        };
        let inspection = Inspection { id, verdict, seen };
        let purpose = match called {
            Some(called) => Purpose::New {
                file,
                ctime_ns,
                boot_ns,
                inspection: inspection.clone(),
                called,
            },
            None => Purpose::Version {
                file,
                ctime_ns,
                boot_ns,
                inspection: inspection.clone(),
            },
        };
        self.purpose(id, purpose);
        self.asked
            .by_file
            .insert((file, ctime_ns), inspection.clone());
        Some(inspection)
    }

    /// What has to be inspected for a record: the file, its version, whose record it is.
    fn subject(&self, record: &Record<'_>) -> Option<(FileId, u64, Header, Subject)> {
        match record {
            Record::FileNew(r, content) => {
                let known = self
                    .files
                    .table
                    .get(r.file)
                    .is_some_and(|k| k.version.facts.ctime_ns == r.ctime_ns);
                if known {
                    return None;
                }
                let pid = convert::pid(r.header.tgid, r.header.start_ns);
                let new = NewFile {
                    record: *r,
                    bytes: ReaderBytes::new(content),
                    path: self.reported_path(pid, r.file),
                };
                Some((r.file, r.ctime_ns, r.header, Subject::Inode(Box::new(new))))
            }
            Record::File(r) => {
                let known = self.files.table.get(r.file)?;
                if !known.lacks(r.ctime_ns) {
                    return None;
                }
                let subject = PathSubject {
                    root: known.root.clone(),
                    path: known.version.facts.path.clone(),
                    expected: Some(r.file),
                    known: Some(known.as_known()),
                };
                Some((r.file, r.ctime_ns, r.header, Subject::Path(subject)))
            }
            _ => None,
        }
    }

    fn ask(&mut self, subject: Subject, who: Who) -> Result<u64, Missed> {
        let who = if self.is_unfollowed { UNFOLLOWED } else { who };
        self.inspector
            .ask(subject, who, keytrail_host::clock::boot_ns())
    }

    /// Has the areas of the watch set surveyed that may have changed.
    pub fn watch(&mut self) {
        for survey in self.files.surveys() {
            let area = survey.area.clone();
            match self.ask(Subject::Area(Box::new(survey)), WATCH_SET) {
                Ok(id) => {
                    self.purpose(id, Purpose::Survey(area));
                }
                Err(missed) => {
                    self.files.not_surveyed(&area);
                    self.files.table.dropped.add(missed.bound(), 1);
                }
            }
        }
    }

    /// Readable when an answer is there.
    #[must_use]
    pub fn answers_fd(&self) -> BorrowedFd<'_> {
        self.inspector.fd()
    }

    /// When an inspection's time is up, nanoseconds since boot.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.inspector.next_deadline()
    }

    /// Whether no inspection is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inspector.is_idle()
    }

    /// Takes in the next answer; the number of the inspection that it decides. `None` when there is no answer.
    pub fn answer(&mut self, now_ns: u64, out: &mut Digested) -> Option<u64> {
        let answer = self.inspector.poll(now_ns)?;
        let id = answer.id;
        let (purpose, for_unfollowed) = match self.asked.purposes.remove(&id) {
            Some(purpose) => purpose,
            // Given up before it was begun, and answered all the same.
            None => return Some(id),
        };
        if for_unfollowed {
            self.for_unfollowed(|digest| digest.take_answer(answer, purpose, now_ns, out));
        } else {
            self.take_answer(answer, purpose, now_ns, out);
        }
        Some(id)
    }

    fn purpose(&mut self, id: u64, purpose: Purpose) {
        self.asked
            .purposes
            .insert(id, (purpose, self.is_unfollowed));
    }

    fn take_answer(&mut self, answer: Answer, purpose: Purpose, now_ns: u64, out: &mut Digested) {
        let Answer { id, outcome, last } = answer;
        match &purpose {
            Purpose::New {
                file,
                ctime_ns,
                boot_ns,
                inspection,
                ..
            }
            | Purpose::Version {
                file,
                ctime_ns,
                boot_ns,
                inspection,
            } => {
                let is_new = matches!(purpose, Purpose::New { .. });
                self.asked.by_file.remove(&(*file, *ctime_ns));
                let verdict = match outcome {
                    Ok(outcome) => {
                        let (verdict, seen) =
                            self.inspected(outcome, Why::Accessed, is_new, *boot_ns, out);
                        let of_it = |seen: &Arc<KnownFile>| {
                            seen.version.id == *file && seen.version.facts.ctime_ns == *ctime_ns
                        };
                        if let Some(seen) = seen.filter(of_it) {
                            // The first one counts.
                            let _ = inspection.seen.set(seen);
                        }
                        verdict
                    }
                    Err(missed) => Verdict::Missed(missed),
                };
                inspection.decide(verdict);
                if !matches!(verdict, Verdict::Missed(_)) {
                    self.asked.remember(*file, *ctime_ns, inspection, verdict);
                }
                if let Purpose::New { called, .. } = &purpose {
                    self.report_kernel(*file, *ctime_ns, verdict, out);
                    if verdict == Verdict::Gone {
                        out.news(InventoryUpdate::Unread(called.clone()));
                    }
                }
            }
            Purpose::Watched(why) => match outcome {
                Ok(outcome) => {
                    self.inspected(outcome, *why, false, now_ns, out);
                }
                Err(missed) => self.files.table.dropped.add(missed.bound(), 1),
            },
            Purpose::Survey(area) => match outcome {
                Ok(Outcome::Area(found)) => {
                    for new in self.files.surveyed(*found, out) {
                        self.inspect_watched(new);
                    }
                }
                Ok(_) => self.files.not_surveyed(area),
                Err(missed) => {
                    if last {
                        self.files.not_surveyed(area);
                    }
                    self.files.table.dropped.add(missed.bound(), 1);
                }
            },
        }
        if !last {
            self.purpose(id, purpose);
        }
    }

    /// A new file was inspected, whoever still waits for it.
    fn report_kernel(&mut self, file: FileId, ctime_ns: u64, verdict: Verdict, out: &mut Digested) {
        match verdict {
            Verdict::Known => {
                if let Some(known) = self.files.table.get(file).filter(|known| !known.is_gone) {
                    out.watch(known.access_path(), file);
                }
            }
            Verdict::Clean => {
                out.news(InventoryUpdate::Clean {
                    device: u64::from(file.dev),
                    inode: file.ino,
                });
                // Who else reads a file that was just written is to be reported.
                if !self.handed.has(file, keytrail_host::clock::boot_ns()) {
                    out.mark_clean(file, ctime_ns);
                }
            }
            Verdict::Gone => out.mark_clean(file, ctime_ns),
            Verdict::Missed(_) => {}
        }
    }

    fn inspect_watched(&mut self, new: NewVersion) {
        let NewVersion { subject, user, why } = new;
        let who = Who { user, ..WATCH_SET };
        match self.ask(Subject::Path(subject), who) {
            Ok(id) => {
                self.purpose(id, Purpose::Watched(why));
            }
            Err(missed) => self.files.table.dropped.add(missed.bound(), 1),
        }
    }

    /// Learns what was found. `only_holders`: a file without a credential is not kept.
    fn inspected(
        &mut self,
        outcome: Outcome,
        why: Why,
        only_holders: bool,
        boot_ns: u64,
        out: &mut Digested,
    ) -> (Verdict, Option<Arc<KnownFile>>) {
        let seen = match outcome {
            Outcome::File(seen) => *seen,
            Outcome::Clean => return (Verdict::Clean, None),
            Outcome::Unchanged => return (Verdict::Known, None),
            Outcome::Gone | Outcome::Area(_) => return (Verdict::Gone, None),
        };
        let SeenFile {
            root,
            version,
            inspected,
            named,
            is_gone,
        } = seen;
        let id = version.id;
        let min = min_confidence(named);
        let (known, held) = match inspected {
            Ok(inspected) => {
                self.count(&inspected);
                let (mut known, held) =
                    KnownFile::learn(version, root, &inspected, min, &mut self.registry);
                known.is_gone = is_gone;
                (known, Some(held))
            }
            Err(error) => {
                let reason = error.to_string();
                (KnownFile::unreadable(version, root, Some(reason)), None)
            }
        };
        if only_holders && known.credentials.is_empty() {
            return (Verdict::Clean, None);
        }
        let seen = Arc::new(known.clone());
        // What is gone lies nowhere.
        let held = held.filter(|_| !is_gone);
        let inspection = held.map(|held| known.inspection(held, min, why, boot_ns));
        let is_new = self.files.table.get(id).is_none();
        let path = known.access_path();
        if !self.files.table.insert(id, known) {
            return (Verdict::Gone, None);
        }
        if is_new && !only_holders {
            out.watch(path, id);
        }
        if let Some(inspection) = inspection {
            out.news(InventoryUpdate::Inspected(Box::new(inspection)));
        }
        (Verdict::Known, Some(seen))
    }
}

/// Under which name a file was read.
fn called(new: &FileNew) -> Unread {
    let name = |level: usize| match new.names.get(level) {
        Some(name) if level < new.depth as usize => name
            .iter()
            .take_while(|byte| **byte != 0)
            .copied()
            .collect(),
        _ => Vec::new(),
    };
    Unread {
        name: name(0),
        parent: name(1),
        boot_ns: new.header.boot_ns,
    }
}
