//! What the tests need to know of the machine they run on.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// How much longer than on bare metal things may take: 10 under software emulation.
///
/// `KEYTRAIL_TEST_SLOW=N` sets it; an emulated CPU is recognised by its name.
#[must_use]
pub fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        if let Ok(text) = std::env::var("KEYTRAIL_TEST_SLOW") {
            return text.parse().unwrap_or(10).max(1);
        }
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if cpu.contains("QEMU TCG") { 10 } else { 1 }
    })
}

/// Whether this is an emulated machine, where absolute times mean nothing.
#[must_use]
pub fn is_slow() -> bool {
    slowness() > 1
}

/// A time limit, in seconds of a real machine.
#[must_use]
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * slowness()
}

/// Polls until `done` gives something, or panics with `what` when the time is up.
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(
            started.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A watch for what a process promises to do promptly: time on the wall, without what its threads waited for a processor
/// while others had it. That is the machine's doing and may be seconds; of several threads, the one that waited longest
/// counts.
pub struct Stopwatch {
    began: Instant,
    before: BTreeMap<u32, Duration>,
    waited: Duration,
}

impl Stopwatch {
    /// For a process that is about to be started.
    #[must_use]
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            before: BTreeMap::new(),
            waited: Duration::ZERO,
        }
    }

    /// For a process that runs.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self {
            before: waits(pid),
            ..Self::start()
        }
    }

    /// Takes in what the process's threads have waited. What it does not see of a thread before that one's end counts as
    /// the process's own time, so of what ends it is called again and again.
    pub fn inspect(&mut self, pid: u32) {
        for (thread, waited) in waits(pid) {
            let before = self.before.get(&thread).copied().unwrap_or_default();
            self.waited = self.waited.max(waited.saturating_sub(before));
        }
    }

    /// Time without the waits of before the last look.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.waited)
    }
}

/// How long each thread of a process was ready to run and had no processor, since its start: the second number of
/// schedstat, proc(5). Nothing of a process that is gone.
#[must_use]
pub fn waits(pid: u32) -> BTreeMap<u32, Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| {
            let id = thread.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let waited = text.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, Duration::from_nanos(waited)))
        })
        .collect()
}

/// The right to run agents. Held by one test at a time, so that they do not compete for the two cores of a small
/// machine and their times stay honest.
#[must_use]
pub struct Turn {
    _guard: MutexGuard<'static, ()>,
}

/// Waits for this test's turn. Fails in plain words without root.
pub fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    require_root();
    Turn {
        // A test that failed in its turn must not fail the ones after it.
        _guard: TURN.lock().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Fails unless the tests run as root.
pub fn require_root() {
    // SAFETY: geteuid has no preconditions.
    let uid = unsafe { libc::geteuid() };
    assert!(
        uid == 0,
        "these tests load kernel probes: run them as root (uid 0, not {uid}), for example with `cargo xtask test host`"
    );
}

/// The agent under test.
///
/// `KEYTRAIL_BIN`, else the one beside this test program, else the guest's.
#[must_use]
pub fn keytrail() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            let named = std::env::var_os("KEYTRAIL_BIN").map(PathBuf::from);
            let beside = std::env::current_exe().ok().and_then(|exe| {
                // target/debug/deps/host-0123 and target/debug/keytrail
                exe.ancestors()
                    .skip(1)
                    .take(2)
                    .map(|dir| dir.join("keytrail"))
                    .find(|file| file.is_file())
            });
            let found = named
                .or(beside)
                .or_else(|| Some(PathBuf::from("/job/keytrail")).filter(|file| file.is_file()))
                .or_else(|| find("keytrail"));
            found.expect("no keytrail to test: build it, or set KEYTRAIL_BIN")
        })
        .clone()
}

/// The first two numbers of the kernel's version.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A program on PATH.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

/// A directory of one test. It stays when the test fails, for a look.
pub struct Scratch {
    dir: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Under /var/tmp: a disk, also where /tmp is kept in memory. File reads are seen in the page cache of disks
    /// on every kernel; tmpfs has a case of its own.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("keytrail-test-")
            .tempdir_in(std::env::var_os("KEYTRAIL_TEST_DIR").unwrap_or("/var/tmp".into()))
            .expect("cannot make a directory for the test");
        // Other users' programs are started in it too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir: Some(dir) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it lives until drop").path()
    }

    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A directory in it, made with its parents.
    pub fn make(&self, name: &str) -> PathBuf {
        let dir = self.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}

/// Whether the machine has IPv6 on loopback.
#[must_use]
pub fn has_ipv6() -> bool {
    fs::read_to_string("/proc/net/if_inet6")
        .unwrap_or_default()
        .lines()
        .any(|line| line.ends_with(" lo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopwatch_leaves_out_what_was_waited_for_a_processor() {
        let pid = std::process::id();
        let mut watch = Stopwatch::of(pid);
        std::thread::sleep(Duration::from_millis(50));
        watch.inspect(pid);
        assert!(watch.took() <= watch.began.elapsed());
        assert!(waits(pid).len() > 1, "the test's thread and the main one");
        watch.waited = Duration::from_secs(1000);
        assert_eq!(watch.took(), Duration::ZERO);
    }
}
