//! A program for each finding: the event on its standard input, nothing in its environment but PATH, and so much time.
//!
//! A program that ran has had its finding, however it ended; one that could not be started is tried again. What it says is
//! logged, cut and without credentials.

use super::{Carrier, Delivered, Failure, Item};
use crate::progress::Redact;
use crate::spec::CommandSpec;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of its output until it ends; the rest is read and counted.
const OUTPUT_MAX: usize = 64 << 10;
/// What is logged of that, characters: far less, so that a credential that was cut is not near.
const SHOWN: usize = 2048;
/// How often it is looked whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Time for the output that is left when it has.
const REST: Duration = Duration::from_millis(200);

pub(super) struct Command {
    spec: CommandSpec,
    redact: Redact,
}

/// How a program ended.
struct Ended {
    /// `None` when it was killed because its time was up.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    /// Bytes of output beyond that.
    more: usize,
}

impl Command {
    pub fn new(spec: CommandSpec, redact: Redact) -> Command {
        Command { spec, redact }
    }

    fn run(&self, item: &Item) -> io::Result<()> {
        let (program, arguments) = match self.spec.argv.split_first() {
            Some(split) => split,
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let child = std::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = item.line.clone();
        line.push(b'\n');
        let ended = attend(child, &line, self.spec.timeout)?;
        self.log_outcome(program, item, &ended);
        Ok(())
    }

    fn log_outcome(&self, program: &str, item: &Item, ended: &Ended) {
        let rule = item.event.finding.as_ref().map_or("", |f| &f.rule);
        let mut output = String::new();
        if !ended.output.is_empty() {
            let clean = (self.redact)(&ended.output);
            output = clean.trim_end().chars().take(SHOWN).collect::<String>();
            output = output.escape_debug().to_string();
            if ended.more > 0 || clean.trim_end().chars().nth(SHOWN).is_some() {
                output.push_str(&format!(
                    " ... of {} bytes",
                    ended.output.len() + ended.more
                ));
            }
        }
        match ended.status {
            Some(status) if status.success() => {
                tracing::info!(program, rule, output, "a response ran");
            }
            Some(status) => {
                tracing::error!(program, rule, %status, output, "a response failed");
            }
            None => tracing::error!(
                program,
                rule,
                output,
                "a response took too long and was ended"
            ),
        }
    }
}

impl Carrier for Command {
    /// All at once, and back when all have ended.
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let this = &*self;
        let failed: Vec<io::Error> = std::thread::scope(|scope| {
            let running: Vec<_> = items
                .iter()
                .map(|item| {
                    // The unit bounds how many there may be.
                    std::thread::Builder::new().spawn_scoped(scope, move || this.run(item))
                })
                .collect();
            running
                .into_iter()
                .filter_map(|thread| match thread.map(|thread| thread.join()) {
                    Ok(Ok(result)) => result.err(),
                    Ok(Err(_)) => Some(io::Error::other("its thread ended")),
                    Err(error) => Some(error),
                })
                .collect()
        });
        match failed.first() {
            None => Ok(Delivered::default()),
            Some(error) => {
                let program = self.spec.argv.first().map_or("", String::as_str);
                Err(Failure::later(format!("{program}: {error}")))
            }
        }
    }
}

/// Feeds a program and reads what it says, until it ends or its time is up; then it and whatever is left of its process
/// group is killed.
fn attend(mut child: Child, input: &[u8], timeout: Duration) -> io::Result<Ended> {
    let group = Pid::from_child(&child);
    let mut talk = Talk {
        stdin: child.stdin.take().map(|pipe| (pipe, 0)),
        outputs: Vec::new(),
        output: Vec::new(),
        more: 0,
    };
    let talked = talk_until_it_ends(&mut talk, &mut child, input, Instant::now() + timeout);
    if !matches!(talked, Ok(Some(_))) {
        // It is not waited for yet, so the number is still its own. Also where it could not be talked to: it must not go on.
        let _ = kill_process_group(group, Signal::KILL);
        child.wait()?;
    }
    let status = talked?;
    // What it said last is there; what it left behind may hold the pipe open for ever.
    let rest = Instant::now() + REST;
    talk.stdin = None;
    while !talk.outputs.is_empty() && Instant::now() < rest && talk.step(input)? {}
    Ok(Ended {
        status,
        output: talk.output,
        more: talk.more,
    })
}

/// `None`: its time was up.
fn talk_until_it_ends(
    talk: &mut Talk,
    child: &mut Child,
    input: &[u8],
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    if let Some(pipe) = child.stdout.take() {
        talk.listen(pipe)?;
    }
    if let Some(pipe) = child.stderr.take() {
        talk.listen(pipe)?;
    }
    if let Some((pipe, _)) = &talk.stdin {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    loop {
        talk.step(input)?;
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= deadline {
            return Ok(ended);
        }
    }
}

trait Output: Read + AsFd {}
impl<T: Read + AsFd> Output for T {}

struct Talk {
    /// With how much of the input it has taken.
    stdin: Option<(ChildStdin, usize)>,
    outputs: Vec<Box<dyn Output>>,
    output: Vec<u8>,
    more: usize,
}

impl Talk {
    fn listen(&mut self, pipe: impl Output + 'static) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.outputs.push(Box::new(pipe));
        Ok(())
    }

    /// Waits a moment for either side and moves what can be moved. Returns whether anything was read.
    fn step(&mut self, input: &[u8]) -> io::Result<bool> {
        let mut waiting: Vec<PollFd<'_>> = self
            .outputs
            .iter()
            .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
            .collect();
        if let Some((pipe, _)) = &self.stdin {
            waiting.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut waiting, Some(&moment)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.feed(input);
        Ok(self.read())
    }

    fn feed(&mut self, input: &[u8]) {
        let Some((mut pipe, taken)) = self.stdin.take() else {
            return;
        };
        match pipe.write(&input[taken..]) {
            // When all is written the pipe is closed: that is the end of its input.
            Ok(n) if taken + n < input.len() => self.stdin = Some((pipe, taken + n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.stdin = Some((pipe, taken)),
            // A program need not read.
            _ => {}
        }
    }

    fn read(&mut self) -> bool {
        let mut any = false;
        let mut buffer = [0; 4096];
        let mut open = Vec::new();
        for mut pipe in self.outputs.drain(..) {
            match pipe.read(&mut buffer) {
                Ok(0) => continue,
                Ok(n) => {
                    any = true;
                    let room = OUTPUT_MAX.saturating_sub(self.output.len()).min(n);
                    self.output.extend_from_slice(&buffer[..room]);
                    self.more += n - room;
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => continue,
            }
            open.push(pipe);
        }
        self.outputs = open;
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn command(script: &str, timeout: Duration) -> (Command, Arc<Mutex<Vec<Vec<u8>>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let redact: Redact = Arc::new(move |text: &[u8]| {
            heard.lock().unwrap().push(text.to_vec());
            String::new()
        });
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        (Command::new(CommandSpec { argv, timeout }, redact), said)
    }

    fn item(line: &[u8]) -> Item {
        Item {
            event: Arc::default(),
            line: line.to_vec(),
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn it_gets_the_event_and_nothing_of_the_agents_environment() {
        let (mut command, said) = command("cat; env; pwd; echo err >&2", LONG);
        command.deliver(&[item(b"{\"a\":1}")]).unwrap();
        let said = String::from_utf8(said.lock().unwrap().concat()).unwrap();
        assert!(said.starts_with("{\"a\":1}\n"), "{said}");
        assert!(
            said.contains("PATH=") && said.contains("\n/\n") && said.contains("err\n"),
            "{said}"
        );
        // What the shell itself adds aside.
        let alien = said.lines().filter(|l| l.contains('='));
        let alien: Vec<&str> = alien
            .filter(|l| {
                !["PATH=", "PWD=", "SHLVL=", "_="]
                    .iter()
                    .any(|own| l.starts_with(own))
            })
            .collect();
        assert!(alien.is_empty(), "{alien:?}");
    }

    #[test]
    fn input_and_output_of_any_length_and_a_program_that_does_not_read() {
        let line = vec![b'x'; 1 << 20];
        let (mut cat, said) = command("cat", LONG);
        cat.deliver(&[item(&line)]).unwrap();
        assert_eq!(said.lock().unwrap().concat().len(), OUTPUT_MAX);
        let (mut deaf, _) = command("exit 3", LONG);
        deaf.deliver(&[item(&line)]).unwrap();
    }

    #[test]
    fn its_time_is_limited_and_so_is_that_of_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let (mut command, _) = command(&script, Duration::from_millis(300));
        let started = Instant::now();
        command.deliver(&[item(b"{}")]).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        let pid = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < deadline, "what it started goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn who_leaves_something_behind_is_not_waited_for() {
        let (mut command, _) = command("sleep 5 & echo done", LONG);
        let started = Instant::now();
        command.deliver(&[item(b"{}")]).unwrap();
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn several_run_at_once_and_what_cannot_be_started_is_tried_again() {
        let (mut sleep, _) = command("sleep 1", LONG);
        let started = Instant::now();
        let items: Vec<Item> = (0..8).map(|_| item(b"{}")).collect();
        sleep.deliver(&items).unwrap();
        assert!(started.elapsed() < Duration::from_secs(6));
        let (mut none, _) = command("", LONG);
        none.spec.argv = vec!["/nowhere/program".into()];
        let failed = none.deliver(&items[..1]).unwrap_err();
        assert!(matches!(failed, Failure::Later { .. }), "{failed:?}");
    }
}
