//! Files this process itself writes to: its output, its log, a recording, its state.
//!
//! They are never opened a second time. Nothing secret lies there; events about who reads the events would never end;
//! and closing any descriptor of a file drops all POSIX locks a process has on it (fcntl_locking(2)), those of an open
//! database too.

use keytrail_abi::FileId;
use keytrail_host::kernel_device;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Descriptors inspected.
const MAX_FDS: usize = 65_536;
/// They are looked up again after this time.
const FRESH_NS: u64 = 2_000_000_000;

/// The files as they were a moment ago.
#[derive(Default)]
pub struct OwnFiles {
    files: HashSet<FileId>,
    read_ns: u64,
}

impl OwnFiles {
    pub fn has(&mut self, id: FileId, now_ns: u64) -> bool {
        if self.read_ns == 0 || self.read_ns + FRESH_NS < now_ns {
            self.files = written();
            self.read_ns = now_ns;
        }
        self.files.contains(&id)
    }
}

/// The regular files this process has open for writing.
fn written() -> HashSet<FileId> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    entries
        .take(MAX_FDS)
        .filter_map(Result::ok)
        .filter(|entry| {
            // The link's own mode says how the descriptor was opened (proc(5)).
            fs::symlink_metadata(entry.path()).is_ok_and(|link| link.mode() & 0o200 != 0)
        })
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(fs::Metadata::is_file)
        .map(|meta| FileId {
            ino: meta.ino(),
            dev: kernel_device(meta.dev()),
            pad: 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_not_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "text").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let id = FileId {
            ino: meta.ino(),
            dev: kernel_device(meta.dev()),
            pad: 0,
        };
        let reading = fs::File::open(&path).unwrap();
        assert!(!OwnFiles::default().has(id, 1));
        drop(reading);
        let writing = fs::File::options().append(true).open(&path).unwrap();
        let mut own = OwnFiles::default();
        assert!(own.has(id, 1));
        drop(writing);
        assert!(own.has(id, FRESH_NS) && !own.has(id, 2 * FRESH_NS));
    }
}
