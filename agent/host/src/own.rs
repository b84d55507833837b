//! Which processes are keytrail's own: an agent that sees another one inspect files, or a self-test send, sees nobody
//! use a credential.
//!
//! A name proves nothing, nor does an executable that anybody may run. So a keytrail process announces itself, and only
//! root can: by a file named after its pid and start time in a directory that belongs to root and that nobody else may
//! write to. Pid and start time name one process for the whole boot, so what is left there by the dead names nobody.

use crate::procfs;
use keytrail_model::Pid;
use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// On a file system that does not outlive the boot.
pub const DIR: &str = "/run/keytrail/own";
/// The dead are remembered so long, because an agent may learn late what they did.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Processes whose answer is kept.
const MAX_ANSWERS: usize = 4096;

/// Whether this process makes no [`DIR`].
static GUEST: AtomicBool = AtomicBool::new(false);

/// From here on this process is a guest: it announces itself only where an agent has been before, and leaves a host
/// without one as it was.
pub fn be_a_guest() {
    GUEST.store(true, Ordering::Relaxed);
}

/// Where this process is announced, if it is.
#[must_use]
pub fn announcement() -> Option<std::path::PathBuf> {
    let me = procfs::pid_of(std::process::id())?;
    let path = Path::new(DIR).join(name(me));
    path.exists().then_some(path)
}

/// Announces this process, for as long as it lives. To be called before it inspects anything. Without root nothing is
/// announced: who cannot prove to be keytrail counts like everybody else.
pub fn announce() {
    if GUEST.load(Ordering::Relaxed) && !Path::new(DIR).is_dir() {
        return;
    }
    if rustix::process::geteuid().is_root() {
        // Where it cannot be written, other agents count this process: that is no reason not to go on.
        let _ = announce_in(Path::new(DIR));
    }
}

/// # Errors
/// The directory cannot be made or is not root's alone, or the file cannot be made.
pub fn announce_in(dir: &Path) -> Result<(), Errno> {
    if let Some(parent) = dir.parent() {
        let _ = DirBuilder::new().recursive(true).mode(0o755).create(parent);
    }
    let _ = DirBuilder::new().mode(0o700).create(dir);
    let dir = open(dir)?;
    forget_the_dead(&dir);
    let me = procfs::pid_of(std::process::id()).ok_or(Errno::SRCH)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(&dir, name(me), flags, Mode::RUSR | Mode::WUSR).map(drop)
}

fn name(pid: Pid) -> String {
    format!("{}-{}", pid.tgid, pid.start)
}

/// The directory, if it is root's and nobody else may write to it.
fn open(dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&dir)?;
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(Errno::PERM);
    }
    Ok(dir)
}

fn forget_the_dead(dir: &OwnedFd) {
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else {
        return;
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().ok().and_then(parse) else {
            continue;
        };
        if procfs::pid_of(pid.tgid) == Some(pid) {
            continue;
        }
        let old = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(
            |stat| {
                let since = now.saturating_sub(Duration::from_secs(
                    u64::try_from(stat.st_mtime).unwrap_or(0),
                ));
                since > REMEMBERED
            },
        );
        if old {
            let _ = rustix::fs::unlinkat(dir, entry.file_name(), AtFlags::empty());
        }
    }
}

fn parse(name: &str) -> Option<Pid> {
    let (tgid, start) = name.split_once('-')?;
    Some(Pid {
        tgid: tgid.parse().ok()?,
        start: start.parse().ok()?,
    })
}

/// Asked which processes are keytrail's.
#[derive(Debug, Default)]
pub struct Own {
    dir: Option<OwnedFd>,
    answers: HashMap<Pid, bool>,
    /// What was left out so far.
    left_out: u64,
}

impl Own {
    /// Looks into [`DIR`], which is made if it can be.
    #[must_use]
    pub fn new() -> Own {
        announce();
        Own::at(Path::new(DIR))
    }

    #[must_use]
    pub fn at(dir: &Path) -> Own {
        Own {
            dir: open(dir).ok(),
            ..Own::default()
        }
    }

    /// Whether a process has proven to be keytrail. It announces itself before it inspects anything, so the answer does
    /// not change while it runs one program.
    pub fn is(&mut self, pid: Pid) -> bool {
        let Some(dir) = &self.dir else {
            return false;
        };
        if let Some(answer) = self.answers.get(&pid) {
            return *answer;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.clear();
        }
        let found = rustix::fs::accessat(dir, name(pid), Access::EXISTS, AtFlags::empty()).is_ok();
        self.answers.insert(pid, found);
        if found {
            tracing::info!(
                pid = pid.tgid,
                "a process of keytrail: what it inspects, sends and is told is no use of a credential"
            );
        }
        found
    }

    /// Something that a keytrail process did was left out.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A process runs another program or has ended.
    pub fn forget(&mut self, pid: Pid) {
        self.answers.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn me() -> Pid {
        procfs::pid_of(std::process::id()).unwrap()
    }

    #[test]
    fn who_announced_itself_is_known_and_nobody_else() {
        assert!(
            rustix::process::geteuid().is_root(),
            "announcing needs root"
        );
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("keytrail/own");
        assert!(!Own::at(&dir).is(me()), "there is no directory");
        announce_in(&dir).unwrap();
        let mut own = Own::at(&dir);
        assert!(own.is(me()));
        let later = Pid {
            start: me().start + 1,
            ..me()
        };
        assert!(!own.is(later), "another process with the same number");
        // An answer holds until the process runs something else.
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.unwrap();
        let pid = procfs::pid_of(child.id()).unwrap();
        assert!(!own.is(pid));
        std::fs::write(dir.join(name(pid)), "").unwrap();
        assert!(!own.is(pid));
        own.forget(pid);
        assert!(own.is(pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_proves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("own");
        announce_in(&dir).unwrap();
        let allow = |mode| std::fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        allow(0o1777);
        assert!(!Own::at(&dir).is(me()));
        assert_eq!(announce_in(&dir), Err(Errno::PERM));
        allow(0o700);
        assert!(Own::at(&dir).is(me()));
        std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
        assert!(!Own::at(&dir).is(me()));
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(!Own::at(&link).is(me()));
    }

    #[test]
    fn the_long_dead_are_forgotten_and_the_living_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("own");
        announce_in(&dir).unwrap();
        let old = std::time::SystemTime::now() - 2 * REMEMBERED;
        for name in ["4194303-1", "4194303-2", &name(me()), "unrelated"] {
            let file = std::fs::File::create(dir.join(name)).unwrap();
            if name != "4194303-2" {
                file.set_modified(old).unwrap();
            }
        }
        announce_in(&dir).unwrap();
        let exists = |name: &str| dir.join(name).exists();
        assert!(!exists("4194303-1"));
        assert!(exists("4194303-2") && exists(&name(me())) && exists("unrelated"));
    }
}
