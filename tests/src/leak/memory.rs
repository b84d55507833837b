//! The memory of a running process, page by page, and a core image of it.

use super::{PIECE, Pieces, Scanner};
use crate::command::act;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// What was searched and found.
#[derive(Debug, Default)]
pub struct MemoryReport {
    pub mappings: usize,
    pub bytes: u64,
    /// Mapped maps of the kernel: ring buffers.
    pub rings: usize,
    pub ring_bytes: u64,
    /// Readable mappings of which no page could be read.
    pub unreadable: Vec<String>,
    pub found: BTreeSet<String>,
}

const PAGE: usize = 4096;

impl Scanner {
    /// Searches every readable mapping of a process. It stands still meanwhile, so that nothing moves away from
    /// under the search.
    pub fn memory(&self, pid: u32) -> MemoryReport {
        let _stopped = Stopped::new(pid);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut report = MemoryReport::default();
        for line in maps.lines() {
            self.mapping(&memory, line, &mut report);
        }
        assert!(report.mappings > 0, "no memory of {pid} could be read");
        report
    }

    fn mapping(&self, memory: &fs::File, line: &str, report: &mut MemoryReport) {
        let mut fields = line.splitn(6, ' ');
        let range = fields.next().unwrap_or_default();
        let rights = fields.next().unwrap_or_default();
        let name = fields.nth(3).unwrap_or_default().trim();
        // Kernel pages without a page behind them.
        if !rights.starts_with('r') || matches!(name, "[vvar]" | "[vvar_vclock]" | "[vsyscall]") {
            return;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (hex(start), hex(end));
        let place = if name.is_empty() {
            "anonymous memory"
        } else {
            name
        };
        let mut pieces = Pieces::new(self);
        let mut buffer = vec![0; PIECE];
        let mut at = start;
        let mut read = 0;
        while at < end {
            let want = PIECE.min(usize::try_from(end - at).unwrap());
            if let Ok(count @ 1..) = memory.read_at(&mut buffer[..want], at) {
                pieces.feed(&buffer[..count], &mut report.found, place);
                at += count as u64;
                read += count as u64;
            } else if want > PAGE {
                // One bad page must not hide the others.
                for _ in 0..want / PAGE {
                    match memory.read_at(&mut buffer[..PAGE], at) {
                        Ok(count @ 1..) => {
                            pieces.feed(&buffer[..count], &mut report.found, place);
                            read += count as u64;
                        }
                        _ => pieces.cut(),
                    }
                    at += PAGE as u64;
                }
            } else {
                pieces.cut();
                at += want as u64;
            }
        }
        if read == 0 {
            report.unreadable.push(line.to_owned());
            return;
        }
        report.mappings += 1;
        report.bytes += read;
        if name.contains("bpf-map") || name.contains("bpf_map") {
            report.rings += 1;
            report.ring_bytes += read;
        }
    }

    /// Has gdb write a core image of the process, mappings that are excluded from core dumps included, and
    /// searches it.
    pub fn core_image(&self, pid: u32, dir: &Path) -> super::FileReport {
        let prefix = dir.join("core");
        act("gcore")
            .arg("-a")
            .arg("-o")
            .arg(&prefix)
            .arg(pid.to_string())
            .limit(180)
            .run()
            .ok();
        let image = PathBuf::from(format!("{}.{pid}", prefix.display()));
        let report = self.files(std::slice::from_ref(&image), &[]);
        fs::remove_file(image).unwrap();
        assert!(report.bytes > 100_000, "the core image is empty");
        report
    }
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

/// A process that stands still until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(pid: u32) -> Self {
        let pid = pid.cast_signed();
        // SAFETY: kill touches no memory.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: kill touches no memory.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}
