//! What is started beside the workload: nothing, the agent, or a peer.

use super::{Row, measure};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How to tell that a subject is at work.
enum Ready {
    Socket(PathBuf),
    /// It does not say; that its output counted the workload shows afterwards that it was.
    After(Duration),
}

/// How to count what a subject delivered, from its output.
#[derive(Clone, Copy)]
enum Delivered {
    /// It is not meant to say anything about this workload.
    Nothing,
    /// Lines with this word.
    Lines(&'static str),
    /// The total that bpftrace prints at its end.
    Total,
}

pub struct Subject {
    pub name: &'static str,
    /// None: the control, which shows how much two runs of the same differ.
    command: Option<Vec<String>>,
    before: Option<&'static str>,
    after: Option<&'static str>,
    ready: Ready,
    delivered: Delivered,
    signal: &'static str,
}

/// The tracepoints that a server passes where the agent uses no trampolines.
const PLACES: [&str; 3] = ["tcp_sendmsg_locked", "sys_enter", "mm_filemap_get_pages"];

/// Subjects of a row, the control and keytrail first.
pub fn of(
    row: Row,
    (agent, programs): (&Path, &Path),
    work: &Path,
    slow: u32,
    auditd: bool,
) -> Vec<Subject> {
    let mut subjects = vec![control(), keytrail(agent, work)];
    subjects.extend(peer_of(row, programs, slow));
    if row == Row::Rest {
        subjects.retain(|subject| subject.name == "keytrail");
    }
    if auditd && row == Row::File {
        subjects.push(audit(slow));
    }
    subjects
}

/// A program that is there so many seconds after its start.
fn peer(
    name: &'static str,
    words: &[&str],
    delivered: Delivered,
    (seconds, slow): (u64, u32),
) -> Subject {
    Subject {
        name,
        command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        before: None,
        after: None,
        ready: Ready::After(Duration::from_secs(seconds * u64::from(slow.clamp(1, 4)))),
        delivered,
        signal: "INT",
    }
}

/// Who does something like it.
fn peer_of(row: Row, programs: &Path, slow: u32) -> Option<Subject> {
    Some(match row {
        Row::File => peer(
            "opensnoop (libbpf-tools)",
            &["opensnoop"],
            Delivered::Lines("bench_file"),
            (3, slow),
        ),
        Row::Exec => peer(
            "execsnoop (libbpf-tools)",
            &["execsnoop"],
            Delivered::Lines("true"),
            (3, slow),
        ),
        Row::Tls => {
            let program = format!("uprobe:{}:SSL_write {{ @ = count(); }}", libssl().display());
            peer(
                "bpftrace, SSL_write counted",
                &["bpftrace", "-e", &program],
                Delivered::Total,
                (6, slow),
            )
        }
        // The least that anything at these places costs: programs that do nothing.
        Row::NginxTls
        | Row::NginxTlsLarge
        | Row::NginxPlain
        | Row::NginxTlsRate
        | Row::NginxPlainRate
        | Row::NginxProxy
        | Row::Postgres
        | Row::Holder => {
            let words = empty_programs(programs);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Subject {
                // Who starts the bench in the background of a script has SIGINT ignored, and all that it starts with it.
                signal: "TERM",
                ..peer(
                    "programs that do nothing, at the same places",
                    &words,
                    Delivered::Nothing,
                    (1, slow),
                )
            }
        }
        // No peer inspects as much: what counts is the control.
        Row::NginxTlsLargeRate
        | Row::Redis
        | Row::Git
        | Row::CompileHolder
        | Row::Compile
        | Row::Inventory
        | Row::Large
        | Row::Classify
        | Row::Rest => return None,
    })
}

fn audit(slow: u32) -> Subject {
    Subject {
        before: Some("auditctl -D; auditctl -w /etc/shadow -p r && auditctl -e 1"),
        after: Some("auditctl -e 0; auditctl -D"),
        signal: "TERM",
        ..peer(
            "auditd, another file watched",
            &["auditd", "-n"],
            Delivered::Nothing,
            (3, slow),
        )
    }
}

fn empty_programs(programs: &Path) -> Vec<String> {
    let program = programs.join("bench_empty").display().to_string();
    let mut words = vec![program, libssl().display().to_string()];
    words.push("SSL_write".to_owned());
    words.extend(PLACES.map(str::to_owned));
    words
}

fn control() -> Subject {
    Subject {
        name: "nothing (control)",
        command: None,
        before: None,
        after: None,
        ready: Ready::After(Duration::ZERO),
        delivered: Delivered::Nothing,
        signal: "TERM",
    }
}

pub fn keytrail(agent: &Path, work: &Path) -> Subject {
    let socket = work.join("keytrail.sock");
    let words = [
        agent.display().to_string(),
        "agent".to_owned(),
        "--listen".to_owned(),
        format!("unix:{}", socket.display()),
        "--state-dir".to_owned(),
        work.join("state").display().to_string(),
    ];
    Subject {
        name: "keytrail",
        command: Some(words.to_vec()),
        before: None,
        after: None,
        ready: Ready::Socket(socket),
        delivered: Delivered::Nothing,
        signal: "TERM",
    }
}

/// Where this machine has libssl 3.
fn libssl() -> PathBuf {
    [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ]
    .into_iter()
    .map(|dir| Path::new(dir).join("libssl.so.3"))
    .find(|path| path.exists())
    .unwrap_or_else(|| "libssl.so.3".into())
}

/// A subject at work.
pub struct Running<'a> {
    subject: &'a Subject,
    child: Option<Child>,
    output: PathBuf,
}

impl Subject {
    /// Starts it and waits until it is at work.
    pub fn start(&self, work: &Path) -> Result<Running<'_>> {
        let output = work.join("subject.out");
        let Some(words) = &self.command else {
            return Ok(Running {
                subject: self,
                child: None,
                output,
            });
        };
        if let Some(script) = self.before {
            cmd::output(cmd::clean("sh").args(["-c", script]))?;
        }
        let file = fs::File::create(&output)?;
        let program = cmd::find(&words[0]).unwrap_or_else(|| PathBuf::from(&words[0]));
        let child = Command::new(&program)
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut running = Running {
            subject: self,
            child: Some(child),
            output,
        };
        match &self.ready {
            Ready::After(time) => thread::sleep(*time),
            Ready::Socket(path) => {
                let started = Instant::now();
                while UnixStream::connect(path).is_err() {
                    running.check()?;
                    if started.elapsed() > Duration::from_secs(120) {
                        bail!(
                            "{} does not listen after two minutes: {}",
                            self.name,
                            running.said()
                        );
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                running.wait_idle()?;
            }
        }
        running.check()?;
        Ok(running)
    }
}

impl Running<'_> {
    /// Its process, when it has one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until it is at rest: it may listen before it has inspected every process and file that was there
    /// already.
    pub fn wait_idle(&mut self) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let mut before = measure::processor_time(pid)?;
        for _ in 0..60 {
            thread::sleep(Duration::from_secs(1));
            self.check()?;
            let now = measure::processor_time(pid)?;
            // Under 1% of a processor.
            if now.saturating_sub(before) < 10_000_000 {
                return Ok(());
            }
            before = now;
        }
        bail!("{} is still busy after a minute", self.subject.name)
    }

    /// An error when it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!(
                "{} ended early with {status}: {}",
                self.subject.name,
                self.said()
            );
        }
        Ok(())
    }

    /// The end of what it wrote.
    fn said(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("; ")
    }

    /// Ends it; returns how many events it delivered, where it is meant to.
    pub fn stop(mut self) -> Result<Option<u64>> {
        self.check()?;
        if let Some(mut child) = self.child.take() {
            cmd::run(
                cmd::clean("kill")
                    .args([format!("-{}", self.subject.signal), child.id().to_string()]),
            )?;
            let started = Instant::now();
            while child.try_wait()?.is_none() {
                if started.elapsed() > Duration::from_secs(60) {
                    child.kill()?;
                    child.wait()?;
                    bail!(
                        "{} did not end within a minute of SIG{}",
                        self.subject.name,
                        self.subject.signal
                    );
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        if let Some(script) = self.subject.after {
            cmd::output(cmd::clean("sh").args(["-c", script]))?;
        }
        let text = fs::read(&self.output).unwrap_or_default();
        Ok(count(
            &String::from_utf8_lossy(&text),
            self.subject.delivered,
        ))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Only on the way out of an error: nothing measured must keep running.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn count(output: &str, delivered: Delivered) -> Option<u64> {
    match delivered {
        Delivered::Nothing => None,
        Delivered::Lines(word) => Some(
            output
                .lines()
                .filter(|line| line.split_whitespace().any(|field| field == word))
                .count() as u64,
        ),
        Delivered::Total => Some(
            output
                .lines()
                .find_map(|line| line.strip_prefix("@: ")?.trim().parse().ok())
                .unwrap_or(0),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_delivered() {
        assert_eq!(
            count("Attaching 1 probe...\n\n\n@: 5501\n", Delivered::Total),
            Some(5501)
        );
        assert_eq!(count("Attaching\n", Delivered::Total), Some(0));
        let snoop = "PID COMM FD ERR PATH\n1 bench_file 3 0 /x\n2 other 3 0 /bench_file\n3 bench_file 3 0 /x\n";
        assert_eq!(count(snoop, Delivered::Lines("bench_file")), Some(2));
        assert_eq!(count("anything", Delivered::Nothing), None);
    }
}
