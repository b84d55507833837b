//! Files that processes of interest have just written: who reads one is reported, whatever is found in it. What was packed or
//! encrypted on its way holds nothing that could be seen.

use keytrail_abi::FileId;
use keytrail_model::Pid;
use std::collections::{HashMap, VecDeque};

/// Files remembered; the oldest go first.
const MAX_FILES: usize = 8_192;
/// For how long after the last write.
pub const KEEP_NS: u64 = 600_000_000_000;

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
}

impl Handed {
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

    /// Whether a file was written so lately that its readers are reported.
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
