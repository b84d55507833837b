//! Accesses reported by fanotify, which wait for the ring's records of the same batch.

use keytrail_abi::FileAccess;
use std::collections::HashMap;

/// In order of arrival, and by process: a send or an exit asks for those of its own.
#[derive(Debug, Default)]
pub(super) struct Accesses {
    waiting: Vec<Option<FileAccess>>,
    by_process: HashMap<u32, Vec<usize>>,
}

impl Accesses {
    pub fn push(&mut self, access: FileAccess) {
        let at = self.waiting.len();
        self.by_process
            .entry(access.header.tgid)
            .or_default()
            .push(at);
        self.waiting.push(Some(access));
    }

    pub fn is_empty(&self) -> bool {
        self.by_process.is_empty()
    }

    /// Takes those of one process.
    pub fn take_of(&mut self, tgid: u32) -> Vec<FileAccess> {
        let of = self.by_process.remove(&tgid).unwrap_or_default();
        of.into_iter()
            .filter_map(|at| self.waiting.get_mut(at)?.take())
            .collect()
    }

    /// Takes all.
    pub fn take(&mut self) -> Vec<FileAccess> {
        self.by_process.clear();
        std::mem::take(&mut self.waiting)
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_abi::{FileId, Header};
    use std::time::{Duration, Instant};

    fn access(tgid: u32, size: u64) -> FileAccess {
        FileAccess {
            header: Header {
                tgid,
                ..Header::default()
            },
            file: FileId::default(),
            size,
            ctime_ns: 0,
            access: 0,
            count: 1,
        }
    }

    fn sizes(accesses: &[FileAccess]) -> Vec<u64> {
        accesses.iter().map(|a| a.size).collect()
    }

    #[test]
    fn those_of_a_process_come_first_and_the_rest_in_order() {
        let mut accesses = Accesses::default();
        for (n, tgid) in [7, 8, 7, 9, 8].into_iter().enumerate() {
            accesses.push(access(tgid, n as u64));
        }
        assert_eq!(sizes(&accesses.take_of(8)), [1, 4]);
        assert!(accesses.take_of(8).is_empty() && !accesses.is_empty());
        assert_eq!(sizes(&accesses.take()), [0, 2, 3]);
        assert!(accesses.is_empty() && accesses.take().is_empty());
    }

    /// A send asks for its own, however many others wait.
    #[test]
    fn asking_for_one_process_does_not_cost_what_the_others_are() {
        let mut accesses = Accesses::default();
        for tgid in 0..60_000 {
            accesses.push(access(tgid, 0));
        }
        let began = Instant::now();
        for tgid in 100_000..160_000 {
            assert!(accesses.take_of(tgid).is_empty());
        }
        // To go over all of them each time takes minutes.
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
