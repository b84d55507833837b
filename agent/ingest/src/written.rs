//! What processes write to, and how its bytes follow each other.

use super::convert;
use crate::decode;
use keytrail_abi::{self as abi, records::target};
use keytrail_model::{Pid, WriteTarget};
use keytrail_payload::{Layer, StreamKey};
use std::collections::{BTreeMap, HashMap};

/// Processes whose targets are remembered, and targets of each. What is forgotten is written to without a name.
const MAX_PROCESSES: usize = 16_384;
const MAX_TARGETS: usize = 256;

/// Paths by process and file, as the kernel side reported them.
#[derive(Default)]
pub struct Targets(BTreeMap<Pid, HashMap<abi::FileId, String>>);

impl Targets {
    pub fn learn(&mut self, r: &abi::FdTarget) {
        let pid = convert::pid(r.header.tgid, r.header.start_ns);
        if self.0.len() >= MAX_PROCESSES && !self.0.contains_key(&pid) {
            self.0.pop_first();
        }
        let of = self.0.entry(pid).or_default();
        if of.len() >= MAX_TARGETS {
            of.clear();
        }
        of.insert(r.file, path(r));
    }

    /// Empty when it is not known.
    pub fn path(&self, pid: Pid, file: abi::FileId) -> &str {
        self.0
            .get(&pid)
            .and_then(|of| of.get(&file))
            .map_or("", String::as_str)
    }

    pub fn forget(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    pub fn forget_dead(&mut self, lives: impl Fn(u32) -> bool) {
        self.0.retain(|pid, _| lives(pid.tgid));
    }
}

/// The names of the record, outermost first. Where there were more, or one was cut, it says so.
fn path(r: &abi::FdTarget) -> String {
    let depth = (r.depth as usize).min(abi::TARGET_DEPTH);
    let names = r.names.get(..depth).unwrap_or_default();
    let mut path = String::new();
    if depth == abi::TARGET_DEPTH {
        path.push('\u{2026}');
    }
    for bytes in names.iter().rev() {
        path.push('/');
        path.push_str(&decode::name(bytes));
        // The last byte is the end of the text: a name that needs them all was longer.
        if bytes.get(abi::TARGET_NAME - 2).is_some_and(|b| *b != 0) {
            path.push('\u{2026}');
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// Whether a part of a path is missing.
pub fn is_cut(path: &str) -> bool {
    path.contains('\u{2026}')
}

pub fn target(number: u32) -> WriteTarget {
    match number {
        target::PIPE => WriteTarget::Pipe,
        target::TERMINAL => WriteTarget::Terminal,
        _ => WriteTarget::File,
    }
}

/// Bytes go on with those written before to the same file by the same process, unless some in between were passed over.
pub fn stream(pid: Pid, r: &abi::FdWrite) -> StreamKey {
    let mut ends = [0; 16];
    ends[..4].copy_from_slice(&r.file.dev.to_ne_bytes());
    ends[8..].copy_from_slice(&r.holes.to_ne_bytes());
    StreamKey {
        pid,
        layer: Layer::Written,
        id: r.file.ino,
        ends: (ends, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd_target(names: &[&str], depth: u32) -> abi::FdTarget {
        // SAFETY: integers and bytes only.
        let mut r: abi::FdTarget = unsafe { std::mem::zeroed() };
        r.header.tgid = 7;
        r.depth = depth;
        for (place, name) in r.names.iter_mut().zip(names) {
            place[..name.len()].copy_from_slice(name.as_bytes());
        }
        r
    }

    #[test]
    fn names_become_a_path_that_says_what_it_lacks() {
        assert_eq!(
            path(&fd_target(&["x.log", "log", "var"], 3)),
            "/var/log/x.log"
        );
        assert_eq!(path(&fd_target(&[], 0)), "/");
        let long = "a".repeat(abi::TARGET_NAME - 1);
        let cut = path(&fd_target(&[&long, "d"], 2));
        assert!(cut.starts_with("/d/aaa") && cut.ends_with("a\u{2026}"));
        let deep = ["n"; abi::TARGET_DEPTH];
        let cut = path(&fd_target(&deep, abi::TARGET_DEPTH as u32));
        assert!(cut.starts_with("\u{2026}/n/n"), "{cut}");
        // A record that lies is no reason to fall.
        assert_eq!(path(&fd_target(&deep, 9_999)), cut);
    }

    #[test]
    fn a_target_is_known_to_its_process_until_that_ends() {
        let mut targets = Targets::default();
        let r = fd_target(&["f"], 1);
        targets.learn(&r);
        let pid = convert::pid(7, 0);
        assert_eq!(targets.path(pid, r.file), "/f");
        assert_eq!(targets.path(convert::pid(8, 0), r.file), "");
        targets.forget(pid);
        assert_eq!(targets.path(pid, r.file), "");
    }

    #[test]
    fn what_was_passed_over_parts_streams() {
        // SAFETY: as above.
        let mut r: abi::FdWrite = unsafe { std::mem::zeroed() };
        let pid = convert::pid(7, 0);
        let before = stream(pid, &r);
        r.holes = 1;
        assert_ne!(before, stream(pid, &r));
        r.holes = 0;
        r.file.dev = 9;
        assert_ne!(before, stream(pid, &r));
    }
}
