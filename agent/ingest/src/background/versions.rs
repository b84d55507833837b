//! Which version of a file was reported. The kernel reports files that are closed by who had them open for writing,
//! whether anything was written or not.

use keytrail_abi::FileId;
use std::collections::HashMap;

/// Files whose last version is remembered.
const MAX_FILES: usize = 4_096;
/// Times of files are those of the kernel's last tick, at most so old (CONFIG_HZ=100), nanoseconds.
const TICK_NS: u64 = 10_000_000;

/// Change times of files, as far as reported.
#[derive(Debug)]
pub struct Versions {
    /// What changed before that changed unseen, nanoseconds since 1970.
    since_ns: u64,
    reported: HashMap<FileId, u64>,
}

impl Versions {
    pub fn new(wall_ns: u64) -> Self {
        Self {
            since_ns: wall_ns.saturating_sub(TICK_NS),
            reported: HashMap::new(),
        }
    }

    /// Whether this version of a file is reported for the first time and was made since the beginning.
    pub fn is_new(&mut self, file: FileId, ctime_ns: u64) -> bool {
        if ctime_ns < self.since_ns || self.reported.get(&file) == Some(&ctime_ns) {
            return false;
        }
        if self.reported.len() >= MAX_FILES && !self.reported.contains_key(&file) {
            // What is forgotten was reported by now: a later close of it is not news.
            self.since_ns = self
                .reported
                .values()
                .copied()
                .max()
                .unwrap_or(self.since_ns);
            self.reported.clear();
        }
        self.reported.insert(file, ctime_ns);
        true
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

    #[test]
    fn what_was_closed_and_not_written_is_no_news() {
        let start = 1_000 * TICK_NS;
        let mut versions = Versions::new(start);
        // Of before the beginning, and by who only had it open.
        assert!(!versions.is_new(file(1), start - 2 * TICK_NS));
        assert!(versions.is_new(file(1), start - TICK_NS / 2));
        assert!(!versions.is_new(file(1), start - TICK_NS / 2));
        assert!(versions.is_new(file(1), start + 5));
        assert!(versions.is_new(file(2), start + 5), "another file");
    }

    #[test]
    fn as_many_as_there_is_room_for() {
        let mut versions = Versions::new(TICK_NS);
        for ino in 0..MAX_FILES as u64 + 1 {
            assert!(versions.is_new(file(ino), 100 + ino));
        }
        assert_eq!(versions.reported.len(), 1);
        assert!(
            !versions.is_new(file(7), 107),
            "reported before, and forgotten"
        );
        assert!(versions.is_new(file(7), 100_000));
    }
}
