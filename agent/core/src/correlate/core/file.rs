//! Files: an open is not a read.

use super::{Core, OPEN_DELAY_NS, PendingOpen, attack};
use crate::correlate::event;
use crate::process::HoldingPlace;
use keytrail_model::{Access, FileSeen, GapSeen, Pid};
use keytrail_proto::v1;

/// Programs of one process back from the present one that an open may have been of.
const MAX_PROGRAMS: u32 = 4;

impl Core {
    pub(super) fn on_file(&mut self, seen: &FileSeen) {
        self.table.touch(&seen.at);
        let key = (seen.at.pid, seen.file.device, seen.file.inode);
        if seen.access == Access::Open {
            let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
            // fanotify knows processes, not programs: an open may be told after the exec that came after it, and after
            // the read it led to.
            let read = seen.credentials.iter().any(|c| {
                let file = &seen.file;
                let ctime = file.ctime_ns;
                (exec.saturating_sub(MAX_PROGRAMS)..=exec).any(|exec| {
                    self.reads.contains(&(
                        seen.at.pid,
                        exec,
                        file.device,
                        file.inode,
                        ctime,
                        c.fingerprint.clone(),
                    ))
                })
            });
            if !read && !seen.credentials.is_empty() && !self.opens.contains_key(&key) {
                self.opens.insert(
                    key,
                    PendingOpen {
                        seen: seen.clone(),
                        due_ns: seen.at.boot_ns + OPEN_DELAY_NS,
                    },
                );
            }
            return;
        }
        self.opens.remove(&key);
        if let Some(why) = &seen.unreadable {
            self.on_gap(&GapSeen {
                boot_ns: seen.at.boot_ns,
                reason: "file_unreadable".to_owned(),
                detail: format!(
                    "{} was read; what it holds is not known: {why}",
                    seen.file.path
                ),
                remedy: "let the agent read the file (CAP_DAC_READ_SEARCH)".to_owned(),
                count: 1,
                signal: "file_read".to_owned(),
                pid: Some(seen.at.pid),
                ..GapSeen::default()
            });
        }
        let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
        for credential in &seen.credentials {
            self.hold(
                &seen.at,
                credential,
                HoldingPlace::File(Box::new(seen.file.clone())),
            );
            let once = (
                seen.at.pid,
                exec,
                seen.file.device,
                seen.file.inode,
                seen.file.ctime_ns,
                credential.fingerprint.clone(),
            );
            if !self.reads.insert(once) {
                continue;
            }
            let mut e = self.event("credential_read", seen.at.boot_ns);
            e.process = Some(self.table.describe(seen.at.pid));
            e.credential = Some(event::credential(credential));
            e.source = Some(event::file_source(&seen.file));
            e.evidence = Some(v1::Evidence {
                grade: "observed".to_owned(),
                channel: "file".to_owned(),
                hook: seen.hook.clone(),
                ..v1::Evidence::default()
            });
            if seen.truncated {
                e.truncation = Some(v1::Truncation {
                    file: true,
                    ..v1::Truncation::default()
                });
            }
            e.attack = attack(&[&credential.attack]);
            self.emit(e);
        }
    }

    pub(super) fn opened(&mut self, key: (Pid, u64, u64)) {
        let Some(open) = self.opens.remove(&key) else {
            return;
        };
        for credential in &open.seen.credentials {
            let mut e = self.event("credential_opened", open.seen.at.boot_ns);
            e.process = Some(self.table.describe(key.0));
            e.credential = Some(event::credential(credential));
            e.source = Some(event::file_source(&open.seen.file));
            e.evidence = Some(v1::Evidence {
                channel: "file".to_owned(),
                hook: open.seen.hook.clone(),
                ..v1::Evidence::default()
            });
            self.emit(e);
        }
    }
}
