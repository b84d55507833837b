//! Files that who obtained a credential has just written: what may be in them, whatever it looks like by now. Pure: time comes
//! with the record.

use super::Carried;
use keytrail_model::Pid;
use std::collections::{HashMap, VecDeque};

/// Files remembered.
const MAX_FILES: usize = 4_096;
/// Processes that one file is passed on to.
const MAX_READERS: usize = 16;
/// Credentials that may be in one file.
const MAX_CARRIED: usize = 64;
/// A file that nobody has written to for so long is no longer on its way.
const KEEP_NS: u64 = 600_000_000_000;
/// Beyond so many bytes not every write is reported: what the file has more may be of the same writers.
const ALL_REPORTED: u64 = 256 * 1024;
/// What a program writes ahead of what it reads (a salt, a magic number) comes before it is known to hold anything.
const HEADER: u64 = 64;

/// Device and inode.
pub type FileKey = (u64, u64);

#[derive(Debug, Default)]
struct Written {
    path: String,
    /// Bytes that were asked to be written by those who put something in.
    bytes: u64,
    last_ns: u64,
    carried: Vec<Carried>,
    readers: Vec<Pid>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Files {
    map: HashMap<FileKey, Written>,
    /// In the order in which they were written to first.
    order: VecDeque<FileKey>,
    /// What found no room.
    pub dropped: u64,
}

impl Files {
    /// Somebody writes to a file what may hold these. An empty path is not known.
    pub fn write(&mut self, key: FileKey, path: &str, bytes: u64, now_ns: u64, held: Vec<Carried>) {
        let stale = self
            .map
            .get(&key)
            .is_some_and(|f| f.last_ns.saturating_add(KEEP_NS) < now_ns || moved(&f.path, path));
        if stale {
            // The number of a file that is gone is used again.
            self.map.remove(&key);
            self.order.retain(|k| *k != key);
        }
        if !self.map.contains_key(&key) {
            if held.is_empty() {
                return;
            }
            if self.map.len() >= MAX_FILES
                && let Some(oldest) = self.order.pop_front()
                && let Some(file) = self.map.remove(&oldest)
                && file.last_ns.saturating_add(KEEP_NS) >= now_ns
            {
                self.dropped += 1;
            }
            self.order.push_back(key);
        }
        let file = self.map.entry(key).or_default();
        if !path.is_empty() {
            path.clone_into(&mut file.path);
        }
        file.bytes = file.bytes.saturating_add(bytes);
        file.last_ns = now_ns;
        for carried in held {
            let fingerprint = &carried.holding.credential.fingerprint;
            let known = |c: &Carried| c.holding.credential.fingerprint == *fingerprint;
            if file.carried.iter().any(known) {
                continue;
            }
            if file.carried.len() >= MAX_CARRIED {
                self.dropped += 1;
            } else {
                file.carried.push(carried);
            }
        }
    }

    /// Somebody reads a file of this size, under the name it was written under or another: its path and what may be in it,
    /// if all of it is of those who wrote that. Once a process.
    pub fn read(
        &mut self,
        key: FileKey,
        (size, same_name): (u64, bool),
        pid: Pid,
        now_ns: u64,
    ) -> Option<(String, Vec<Carried>)> {
        let file = self.map.get_mut(&key)?;
        // A log that was there before has more in it than they wrote. Under another name the number may be another file's.
        let reported = file.bytes.saturating_add(HEADER);
        let fits =
            size == file.bytes || same_name && (size <= reported || file.bytes >= ALL_REPORTED);
        if !fits
            || file.last_ns.saturating_add(KEEP_NS) < now_ns
            || file.readers.contains(&pid)
            || file.carried.iter().all(|c| c.writer == pid)
        {
            return None;
        }
        if file.readers.len() >= MAX_READERS {
            self.dropped += 1;
            return None;
        }
        file.readers.push(pid);
        let of_others = file.carried.iter().filter(|c| c.writer != pid);
        Some((file.path.clone(), of_others.cloned().collect()))
    }

    /// What may be in a file, by fingerprint.
    #[must_use]
    pub fn known(&self, key: FileKey) -> Vec<&str> {
        self.map.get(&key).map_or_else(Vec::new, |file| {
            let carried = file.carried.iter();
            carried
                .map(|c| c.holding.credential.fingerprint.as_str())
                .collect()
        })
    }

    #[must_use]
    pub fn has(&self, key: FileKey) -> bool {
        self.map.contains_key(&key)
    }

    pub fn withdraw(&mut self, fingerprint: &str) {
        for file in self.map.values_mut() {
            file.carried
                .retain(|c| c.holding.credential.fingerprint != fingerprint);
        }
    }
}

fn moved(known: &str, path: &str) -> bool {
    !known.is_empty() && !path.is_empty() && known != path
}
