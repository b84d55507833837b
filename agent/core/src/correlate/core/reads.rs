//! Which reads have been reported, by process: each is reported once, and forgotten with its process.

use keytrail_model::{FileFacts, Pid};
use std::collections::{BTreeMap, BTreeSet};

/// Reads remembered at most.
const MAX_READS: usize = 131_072;

/// A program run, a version of a file, a credential.
type Read = (u32, u64, u64, u64, u64);

#[derive(Debug, Default)]
pub struct Reads {
    by_process: BTreeMap<Pid, BTreeSet<Read>>,
    len: usize,
}

impl Reads {
    pub fn contains(&self, pid: Pid, exec: u32, file: &FileFacts, fingerprint: &str) -> bool {
        self.by_process
            .get(&pid)
            .is_some_and(|reads| reads.contains(&read(exec, file, fingerprint)))
    }

    /// Notes a read; true when it is to be reported. `None` when it is and cannot be remembered.
    pub fn insert(
        &mut self,
        pid: Pid,
        exec: u32,
        file: &FileFacts,
        fingerprint: &str,
    ) -> Option<bool> {
        let read = read(exec, file, fingerprint);
        if self.len >= MAX_READS {
            let known = self.by_process.get(&pid);
            return known
                .is_some_and(|reads| reads.contains(&read))
                .then_some(false);
        }
        let new = self.by_process.entry(pid).or_default().insert(read);
        self.len += usize::from(new);
        Some(new)
    }

    pub fn forget(&mut self, pid: Pid) {
        if let Some(reads) = self.by_process.remove(&pid) {
            self.len -= reads.len();
        }
    }
}

fn read(exec: u32, file: &FileFacts, fingerprint: &str) -> Read {
    (
        exec,
        file.device,
        file.inode,
        file.ctime_ns,
        short(fingerprint),
    )
}

/// Fingerprints are keyed hashes: 64 bits of one tell those of one file apart. FNV-1a.
fn short(fingerprint: &str) -> u64 {
    fingerprint
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(tgid: u32) -> Pid {
        Pid { tgid, start: 1 }
    }

    #[test]
    fn a_read_is_reported_once_and_forgotten_with_its_process() {
        let mut reads = Reads::default();
        let file = FileFacts::default();
        assert_eq!(reads.insert(pid(1), 1, &file, "a"), Some(true));
        assert_eq!(reads.insert(pid(1), 1, &file, "a"), Some(false));
        assert_eq!(reads.insert(pid(1), 1, &file, "b"), Some(true));
        assert_eq!(reads.insert(pid(1), 2, &file, "a"), Some(true));
        assert!(reads.contains(pid(1), 1, &file, "a") && !reads.contains(pid(2), 1, &file, "a"));
        reads.forget(pid(1));
        assert!(!reads.contains(pid(1), 1, &file, "a"));
        assert_eq!(reads.len, 0);
    }

    #[test]
    fn what_finds_no_room_is_reported_and_not_remembered() {
        let mut reads = Reads::default();
        for n in 0..MAX_READS as u64 {
            let file = FileFacts {
                inode: n,
                ..FileFacts::default()
            };
            assert_eq!(reads.insert(pid(n as u32 % 100), 1, &file, "a"), Some(true));
        }
        let file = FileFacts::default();
        assert_eq!(reads.insert(pid(0), 1, &file, "a"), Some(false));
        assert_eq!(reads.insert(pid(0), 1, &file, "b"), None);
        reads.forget(pid(1));
        assert_eq!(reads.insert(pid(0), 1, &file, "b"), Some(true));
    }
}
