//! What a capture itself took of the host.

use serde::{Deserialize, Serialize};
use std::fs;

/// What this process took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    pub cpu_seconds: f64,
    pub peak_memory_bytes: u64,
    /// Bytes of all reads and writes, and those that went to a disk (/proc/self/io).
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub disk_bytes_read: u64,
    pub disk_bytes_written: u64,
    /// Files that were opened to be read: by the inventory, and executables.
    pub files_read: u64,
    pub executables_hashed: u64,
    /// Files that were written, all of them.
    pub written: Vec<String>,
}

impl Footprint {
    /// As of now.
    pub fn measure(&mut self) {
        // SAFETY: the struct is whole and ours; getrusage only writes to it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        self.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
        self.peak_memory_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1_024;
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let of = |name: &str| {
            io.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
                .unwrap_or(0)
        };
        self.bytes_read = of("rchar");
        self.bytes_written = of("wchar");
        self.disk_bytes_read = of("read_bytes");
        self.disk_bytes_written = of("write_bytes");
    }
}
