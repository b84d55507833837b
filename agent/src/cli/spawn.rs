//! Starts a command held before its first instruction, so that sensors can be attached before it runs.
//!
//! The child keeps everything of ours: stdin, stdout, stderr, terminal, process group, environment, working directory.

mod inherited;
mod signals;

use super::exit;
use rustix::io::Errno;
use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;

/// What a shell searches when PATH is not set (confstr(_CS_PATH) and /usr/local).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Why a command does not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{}: command not found", shown(.0))]
    NotFound(OsString),
    #[error("{name}: cannot execute: {1}", name = shown(.0))]
    NotExecutable(OsString, io::Error),
    #[error("cannot start a process: {0}")]
    Other(io::Error),
}

fn shown(name: &OsString) -> String {
    crate::output::escape(&name.to_string_lossy()).into_owned()
}

impl SpawnError {
    /// The exit status a shell would give.
    pub fn status(&self) -> u8 {
        match self {
            SpawnError::NotFound(_) => exit::NOT_FOUND,
            SpawnError::NotExecutable(..) => exit::NOT_EXECUTABLE,
            SpawnError::Other(_) => exit::FAILED,
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Status(u8),
    Signal(u8),
}

impl Ended {
    /// As a shell shows it: 128+N for signal N.
    pub fn status(self) -> u8 {
        match self {
            Ended::Status(s) => s,
            Ended::Signal(s) => s.saturating_add(128),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Status(s) => write!(f, "exit status {s}"),
            Ended::Signal(s) => write!(f, "killed by signal {s}"),
        }
    }
}

/// Finds the file a shell would execute.
///
/// # Errors
/// [`SpawnError::NotFound`], or [`SpawnError::NotExecutable`] when only unsuitable files have that name.
pub fn find(program: &OsStr) -> Result<PathBuf, SpawnError> {
    let candidate = |path: &Path| -> Result<PathBuf, io::Error> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() {
            return Err(Errno::ACCESS.into());
        }
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?;
        Ok(path.to_owned())
    };
    let mut refused = None;
    let mut consider = |path: &Path| match candidate(path) {
        Ok(path) => Some(path),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            None
        }
        Err(e) => {
            refused.get_or_insert(e);
            None
        }
    };
    let found = if program.as_bytes().contains(&b'/') {
        consider(Path::new(program))
    } else if program.is_empty() {
        None
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&path).find_map(|dir| {
            // An empty entry means the working directory.
            let dir = if dir.as_os_str().is_empty() {
                Path::new(".").to_owned()
            } else {
                dir
            };
            consider(&dir.join(program))
        })
    };
    found.ok_or_else(|| match refused {
        Some(e) => SpawnError::NotExecutable(program.into(), e),
        None => SpawnError::NotFound(program.into()),
    })
}

/// A child that waits before exec. Dropping it ends it without executing anything.
#[derive(Debug)]
pub struct Held {
    pid: c_int,
    name: OsString,
    // `None` once released.
    release: Option<File>,
    errors: File,
}

/// A child that runs.
#[derive(Debug)]
pub struct Running {
    pid: c_int,
}

impl Held {
    /// Forks. Call it while the process has one thread and before anything is loaded into the kernel.
    ///
    /// # Errors
    /// The command cannot be found or executed, or the kernel gives no process.
    pub fn spawn(command: &[OsString]) -> Result<Held, SpawnError> {
        let name = command.first().cloned().unwrap_or_default();
        let path = find(&name)?;
        let c_string =
            |s: &OsStr| CString::new(s.as_bytes()).map_err(|e| SpawnError::Other(e.into()));
        let path = c_string(path.as_os_str())?;
        let argv = command
            .iter()
            .map(|a| c_string(a))
            .collect::<Result<Vec<_>, _>>()?;
        let shell = c"/bin/sh";
        let pointers = terminated(argv.iter().map(|a| a.as_ptr()));
        // A script without `#!` is run by the shell, as execvp(3) does.
        let script = terminated(
            [shell.as_ptr(), path.as_ptr()]
                .into_iter()
                .chain(argv.iter().skip(1).map(|a| a.as_ptr())),
        );
        let (wait, release) = pipe()?;
        let (errors, report) = pipe()?;
        let as_started = AsStarted {
            signals: inherited::dispositions(),
            closed: inherited::closed(),
        };
        // SAFETY: the child below only makes async-signal-safe calls and touches memory made before the fork, so it
        // does not matter which locks other threads held.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(SpawnError::Other(io::Error::last_os_error()));
        }
        if pid == 0 {
            // SAFETY: we are the child of a fork; all pointers are to NUL-terminated strings and NULL-terminated
            // arrays that live in this frame, and this never returns.
            unsafe {
                child(
                    wait.as_raw_fd(),
                    release.as_raw_fd(),
                    report.as_raw_fd(),
                    &as_started,
                    path.as_ptr(),
                    pointers.as_ptr(),
                    script.as_ptr(),
                )
            }
        }
        Ok(Held {
            pid,
            name,
            release: Some(release),
            errors,
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Lets the child execute its command.
    ///
    /// # Errors
    /// exec failed: as the kernel said.
    pub fn release(mut self) -> Result<Running, SpawnError> {
        if let Some(mut release) = self.release.take() {
            // It fails when the child was killed meanwhile: then waiting for it tells how.
            let _ = release.write_all(b"x");
        }
        let mut errno = [0; 4];
        // A successful exec closes the other end: nothing to read.
        let failed = self.errors.read_exact(&mut errno).is_ok();
        if !failed {
            return Ok(Running { pid: self.pid });
        }
        signals::stop_forwarding();
        let _ = reap(self.pid);
        let e = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
        let e = match e.kind() {
            // The file was there a moment ago: what is missing is what its first line names.
            io::ErrorKind::NotFound => {
                io::Error::other("its interpreter (or itself, just now) is missing")
            }
            _ => e,
        };
        Err(SpawnError::NotExecutable(self.name.clone(), e))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Still held: closing the pipe makes it exit.
        if self.release.take().is_some() {
            signals::stop_forwarding();
            let _ = reap(self.pid);
        }
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Waits for its end. What signals sent to this process do meanwhile: [`stand_in_for`].
    ///
    /// # Errors
    /// The kernel does not know the child (somebody else waited for it).
    pub fn wait(self) -> io::Result<Ended> {
        wait_without_reaping(self.pid)?;
        // From here on the pid may be somebody else's.
        signals::stop_forwarding();
        reap(self.pid)
    }
}

/// Makes this process behave as one that the command runs in the place of: signals that are sent to us go to the
/// command. Call it after [`Held::spawn`], so that the command keeps the dispositions we were started with.
pub fn stand_in_for(held: &Held) {
    signals::forward_to(held.pid);
}

fn terminated(pointers: impl Iterator<Item = *const c_char>) -> Vec<*const c_char> {
    pointers.chain(std::iter::once(ptr::null())).collect()
}

fn pipe() -> Result<(File, File), SpawnError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| SpawnError::Other(e.into()))?;
    Ok((read.into(), write.into()))
}

/// What the command gets back of what Rust's runtime changed in us.
struct AsStarted {
    signals: [(c_int, libc::sighandler_t); 2],
    closed: [Option<c_int>; 3],
}

/// # Safety
/// Only in the child of a fork; pointers as execve(2) wants them.
unsafe fn child(
    wait: c_int,
    release: c_int,
    report: c_int,
    as_started: &AsStarted,
    path: *const c_char,
    argv: *const *const c_char,
    script: *const *const c_char,
) -> ! {
    // SAFETY: async-signal-safe calls on descriptors and pointers the caller vouches for.
    unsafe {
        // Our own copy of the writing end would keep the read below waiting after the parent's death.
        libc::close(release);
        let mut byte = 0u8;
        let got = loop {
            let got = libc::read(wait, (&raw mut byte).cast(), 1);
            if got >= 0 || *libc::__errno_location() != libc::EINTR {
                break got;
            }
        };
        if got != 1 {
            libc::_exit(exit::NOT_FOUND.into());
        }
        for (signal, disposition) in as_started.signals {
            libc::signal(signal, disposition);
        }
        for fd in as_started.closed.into_iter().flatten() {
            libc::close(fd);
        }
        libc::execve(path, argv, environ);
        if *libc::__errno_location() == libc::ENOEXEC {
            // Its first word is the shell.
            libc::execve(*script, script, environ);
        }
        let errno = (*libc::__errno_location()).to_ne_bytes();
        libc::write(report, errno.as_ptr().cast(), errno.len());
        libc::_exit(exit::NOT_FOUND.into())
    }
}

fn wait_without_reaping(pid: c_int) -> io::Result<()> {
    loop {
        // SAFETY: siginfo_t is plain data and large enough; the kernel writes to it only.
        let done = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PID,
                pid.unsigned_abs(),
                &mut info,
                libc::WEXITED | libc::WNOWAIT,
            )
        };
        if done == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}

fn reap(pid: c_int) -> io::Result<Ended> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours to write to.
        let done = unsafe { libc::waitpid(pid, &mut status, 0) };
        if done == pid {
            return Ok(match libc::WIFSIGNALED(status) {
                // Both fit: signals end at 64, statuses at 255.
                true => Ended::Signal(libc::WTERMSIG(status) as u8),
                false => Ended::Status(libc::WEXITSTATUS(status) as u8),
            });
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}
