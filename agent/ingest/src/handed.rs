//! Files that processes of interest have just written: who reads one is told of, whatever is found in it. What was packed or
//! encrypted on its way holds nothing that could be seen.

use keytrail_abi::FileId;
use keytrail_model::{FileSeen, Pid};
use std::collections::{HashMap, VecDeque};

/// Files remembered; the oldest go first.
const MAX_FILES: usize = 8_192;
/// For how long after the last write.
pub const KEEP_NS: u64 = 600_000_000_000;

/// Reads that may have overtaken the write: its record waits while what its process read before is inspected.
const MAX_EARLY: usize = 1_024;
const EARLY_NS: u64 = 5_000_000_000;
/// A read is told again for so many writes.
const MAX_AGAIN: u32 = 64;

struct Written {
    path: String,
    by: Pid,
    /// Several wrote it.
    many: bool,
    last_ns: u64,
}

/// Who wrote which file.
#[derive(Default)]
pub struct Handed {
    map: HashMap<FileId, Written>,
    order: VecDeque<FileId>,
    /// Each with how often it was told.
    early: VecDeque<(FileId, FileSeen, u32)>,
}

impl Handed {
    /// A file is read that nobody is known to have written; its path is what the reader's own name of it is.
    pub fn early(&mut self, file: FileId, seen: FileSeen) {
        if self.early.len() >= MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((file, seen, 0));
    }

    /// The reads of a file by others that came after this write of it and were told before, each with the path it was written
    /// under where the names agree. Told again for the next writes: all of them came before the read.
    pub fn overtook(&mut self, file: FileId, by: Pid, at_ns: u64, path: &str) -> Vec<FileSeen> {
        let is_late = |seen: &FileSeen| seen.at.boot_ns.saturating_add(EARLY_NS) < at_ns;
        self.early.retain(|(_, seen, _)| !is_late(seen));
        let mut told = Vec::new();
        for (id, seen, times) in &mut self.early {
            if *id != file || seen.at.pid == by || seen.at.boot_ns < at_ns || *times >= MAX_AGAIN {
                continue;
            }
            *times += 1;
            let mut seen = seen.clone();
            let same = !path.is_empty() && path.rsplit('/').next() == Some(seen.file.path.as_str());
            seen.file.path = if same { path.to_owned() } else { String::new() };
            told.push(seen);
        }
        told
    }

    /// Whether some read may have overtaken its write.
    pub fn has_early(&self, file: FileId) -> bool {
        self.early.iter().any(|(id, ..)| *id == file)
    }

    /// A process writes to a file; an empty path is not known.
    pub fn write(&mut self, file: FileId, path: &str, by: Pid, now_ns: u64) {
        if let Some(written) = self.map.get_mut(&file) {
            written.many |= written.by != by;
            written.last_ns = now_ns;
            if written.path != path && !path.is_empty() {
                path.clone_into(&mut written.path);
            }
            return;
        }
        if self.map.len() >= MAX_FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
        self.order.push_back(file);
        let written = Written {
            path: path.to_owned(),
            by,
            many: false,
            last_ns: now_ns,
        };
        self.map.insert(file, written);
    }

    /// Whether a file was written so lately that its readers are told of.
    pub fn has(&self, file: FileId, now_ns: u64) -> bool {
        self.map
            .get(&file)
            .is_some_and(|w| now_ns <= w.last_ns.saturating_add(KEEP_NS))
    }

    /// The path of such a file that another process wrote.
    pub fn read(&self, file: FileId, by: Pid, now_ns: u64) -> Option<&str> {
        let written = self.map.get(&file)?;
        let others = written.many || written.by != by;
        (others && self.has(file, now_ns)).then_some(written.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::{Access, FileFacts, Stamp};

    fn file(ino: u64) -> FileId {
        FileId {
            ino,
            dev: 1,
            pad: 0,
        }
    }

    fn pid(tgid: u32) -> Pid {
        Pid { tgid, start: 1 }
    }

    #[test]
    fn others_read_what_was_written_a_while_ago() {
        let mut handed = Handed::default();
        handed.write(file(1), "/tmp/x", pid(1), 5);
        assert_eq!(handed.read(file(1), pid(2), 6), Some("/tmp/x"));
        assert_eq!(handed.read(file(1), pid(1), 6), None);
        assert_eq!(handed.read(file(2), pid(2), 6), None);
        assert!(handed.has(file(1), 5 + KEEP_NS) && !handed.has(file(1), 6 + KEEP_NS));
        // Two wrote it: what the other put in is news to each.
        handed.write(file(1), "", pid(2), 7);
        assert_eq!(handed.read(file(1), pid(1), 8), Some("/tmp/x"));
    }

    #[test]
    fn a_read_that_overtook_its_write_is_told_behind_it() {
        let seen = |tgid, boot_ns| FileSeen {
            at: Stamp {
                boot_ns,
                pid: pid(tgid),
                tid: tgid,
                uid: 0,
                euid: 0,
                gid: 0,
                cgroup_id: 0,
                comm: String::new(),
            },
            access: Access::Read,
            file: FileFacts {
                path: "x".to_owned(),
                ..FileFacts::default()
            },
            credentials: Vec::new(),
            unreadable: None,
            truncated: false,
            hook: String::new(),
        };
        let mut handed = Handed::default();
        handed.early(file(1), seen(2, 100));
        handed.early(file(1), seen(1, 100));
        handed.early(file(2), seen(2, 100));
        assert!(handed.has_early(file(1)) && !handed.has_early(file(3)));
        // Written after it was read.
        assert!(handed.overtook(file(1), pid(1), 101, "/tmp/x").is_empty());
        let told = handed.overtook(file(1), pid(1), 99, "/tmp/x");
        assert_eq!((told.len(), told[0].at.pid), (1, pid(2)));
        assert_eq!(told[0].file.path, "/tmp/x");
        let told = handed.overtook(file(1), pid(1), 99, "/tmp/y");
        assert_eq!(told[0].file.path, "", "under another name");
        assert!(
            handed
                .overtook(file(1), pid(1), 101 + EARLY_NS, "/tmp/x")
                .is_empty()
        );
        assert!(!handed.has_early(file(1)));
    }

    #[test]
    fn the_oldest_go_first() {
        let mut handed = Handed::default();
        for ino in 0..=MAX_FILES as u64 {
            handed.write(file(ino), "", pid(1), 1);
        }
        assert_eq!(
            (handed.map.len(), handed.order.len()),
            (MAX_FILES, MAX_FILES)
        );
        assert!(!handed.has(file(0), 1) && handed.has(file(MAX_FILES as u64), 1));
    }
}
