//! Starting programs with an environment of their own and a time limit.

use crate::machine::patience;
use std::{
    ffi::OsStr,
    io::{Read, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Where programs are looked for, whatever the PATH of who runs the tests.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program about to be started. Its environment is PATH, LANG and what the test adds: credentials of whoever
/// runs the tests stay out of the game.
pub struct Act {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
}

/// A shell script; `$1` and so on are given by [`Act::arg`].
#[must_use]
pub fn sh(script: &str) -> Act {
    act("sh").arg("-c").arg(script).arg("sh")
}

/// A program by name or path.
#[must_use]
pub fn act(program: impl AsRef<OsStr>) -> Act {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/");
    Act {
        command,
        stdin: Vec::new(),
        limit: patience(60),
    }
}

impl Act {
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads on stdin; nothing without this.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Lets it take longer than a minute of a real machine.
    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = patience(seconds);
        self
    }

    /// Raises the limit of the stack, and with it the room for argv and environment (a quarter of it, at most 6 MiB).
    #[must_use]
    pub fn stack_limit(mut self, bytes: u64) -> Self {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: setrlimit is async-signal-safe and `limit` is a copy owned by the closure.
        unsafe {
            self.command.pre_exec(move || {
                if libc::setrlimit(libc::RLIMIT_STACK, &limit) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Done {
        self.run_watched(|_| {})
    }

    /// The same; `look` is called with its pid again and again until then.
    pub fn run_watched(self, look: impl FnMut(u32)) -> Done {
        let limit = self.limit;
        let text = format!("{:?}", self.command.get_program());
        let mut background = self.start(Stdio::piped(), Stdio::piped());
        let stdout = drain(background.child.stdout.take());
        let stderr = drain(background.child.stderr.take());
        let status = background.wait_watched(limit, &text, look);
        Done {
            pid: background.pid(),
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Leaves it running, its output thrown away. It ends with the value.
    pub fn spawn(self) -> Background {
        self.start(Stdio::null(), Stdio::null())
    }

    /// As [`Act::spawn`], with stdout kept in memory (see [`Background::output`]) and stderr in a file: a file that is
    /// read while the agent runs is of interest to the agent.
    pub fn spawn_reading(self, stderr: &Path) -> Background {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(stderr)
            .unwrap();
        let mut background = self.start(Stdio::piped(), file.into());
        let pipe = background.child.stdout.take();
        let output = background.output.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            let mut pipe = pipe.expect("it is piped");
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                output.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        background
    }

    /// As [`Act::spawn`], with stdin held open: see [`Background::say`].
    pub fn spawn_listening(mut self) -> Background {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = self.command.spawn().unwrap();
        Background {
            child,
            output: Arc::default(),
        }
    }

    fn start(mut self, stdout: Stdio, stderr: Stdio) -> Background {
        self.command.stdout(stdout).stderr(stderr);
        self.command.stdin(if self.stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", self.command.get_program()));
        if let Some(mut pipe) = child.stdin.take() {
            let bytes = self.stdin;
            // It may not want all of it.
            std::thread::spawn(move || {
                let _ = pipe.write_all(&bytes);
            });
        }
        Background {
            child,
            output: Arc::default(),
        }
    }
}

fn drain(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// How a program ended.
pub struct Done {
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Done {
    /// Fails unless it ended with status 0.
    pub fn ok(self) -> Self {
        assert!(
            self.status.success(),
            "{}: {}\n{}",
            self.status,
            self.stderr_text(),
            self.stdout_text()
        );
        self
    }

    /// Exit status, or 128 and the signal as a shell shows it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails when a failure was not put in plain words: a panic, a backtrace, Rust's debug output, or nothing.
    pub fn plain_words(&self) -> String {
        let text = self.stderr_text();
        for word in ["panicked", "RUST_BACKTRACE", "Os {", "Error {", "unwrap()"] {
            assert!(!text.contains(word), "not plain words: {text}");
        }
        assert!(!text.trim().is_empty(), "it failed without a word");
        text
    }
}

/// A program that runs until it is told otherwise.
pub struct Background {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Background {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, when it was started by [`Act::spawn_reading`]. Goes on to exist when it ends.
    #[must_use]
    pub fn output(&self) -> Arc<Mutex<Vec<u8>>> {
        self.output.clone()
    }

    /// What it has written so far.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        self.output.lock().unwrap().clone()
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) {
        let pipe = self.child.stdin.as_mut().expect("spawn_listening");
        writeln!(pipe, "{line}").unwrap();
        pipe.flush().unwrap();
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill touches no memory; the pid is that of a child that has not been waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    #[must_use]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; kills it and fails when that takes too long.
    pub fn wait(&mut self, limit: Duration, what: &str) -> ExitStatus {
        self.wait_watched(limit, what, |_| {})
    }

    fn wait_watched(
        &mut self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(u32),
    ) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if started.elapsed() > limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("{what} did not end within {limit:?}");
            }
            look(self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it now.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}
