//! The real agent, as a daemon of one test.

use crate::{
    command::{Background, act, sh},
    events::{Ask, Event, list, parse_lines},
    machine::{Scratch, Stopwatch, keytrail, patience, wait_for, waits},
    plant, stream,
};
use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How an agent is started.
pub struct Setup {
    dir: PathBuf,
    home: PathBuf,
    config: String,
    args: Vec<OsString>,
}

impl Setup {
    /// Everything of the agent lies in `SCRATCH/agent`; its home is `SCRATCH/home`, whose usual credential files
    /// are watched.
    #[must_use]
    pub fn new(scratch: &Scratch) -> Self {
        let home = scratch.make("home");
        Self {
            dir: scratch.make("agent"),
            config: format!(
                "watch = [\"{home}/.aws/credentials\", \"{home}/*.json\", \"{home}/odd/*.json\"]\n",
                home = home.display()
            ),
            home,
            args: Vec::new(),
        }
    }

    /// Another line of the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config += line;
        self.config.push('\n');
        self
    }

    /// Replaces the configuration file.
    #[must_use]
    pub fn whole_config(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts the agent and waits until it sees.
    pub fn start(self) -> Agent {
        let agent = self.launch(&[]);
        agent.ready();
        agent
    }

    /// Starts the agent by another program (`unshare -m sh -c ... sh`), does not wait.
    pub fn launch(self, by: &[&str]) -> Agent {
        let config = self.dir.join("agent.toml");
        fs::write(&config, &self.config).unwrap();
        let log = self.dir.join("stderr");
        let binary = keytrail();
        let mut words: Vec<OsString> = by.iter().map(OsString::from).collect();
        words.push(binary.into_os_string());
        let started = Instant::now();
        let process = act(&words[0])
            .args(&words[1..])
            .arg("agent")
            .arg("--config")
            .arg(&config)
            .arg("--listen")
            .arg(listen(&self.dir))
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .args(["--print", "-o", "json"])
            .args(&self.args)
            .env("HOME", &self.home)
            .spawn_reading(&log);
        let output = process.output();
        Agent {
            setup: self,
            process: Mutex::new(process),
            started,
            output,
            parsed: Mutex::default(),
        }
    }
}

fn listen(dir: &Path) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(dir.join("sock"));
    address
}

/// What was made of the agent's output so far.
#[derive(Default)]
struct Parsed {
    /// Bytes of whole lines.
    upto: usize,
    events: Vec<Event>,
}

/// A running agent. It prints every event as a JSON line on stdout, from its first one on: that is what
/// [`Agent::events`] reads.
pub struct Agent {
    setup: Setup,
    process: Mutex<Background>,
    started: Instant,
    output: Arc<Mutex<Vec<u8>>>,
    parsed: Mutex<Parsed>,
}

impl Agent {
    /// With the usual setup.
    pub fn start(scratch: &Scratch) -> Self {
        Setup::new(scratch).start()
    }

    /// Waits until it serves and its hooks are there.
    pub fn ready(&self) {
        wait_for("the agent to serve", patience(60), || {
            if let Some(status) = self.process.lock().unwrap().ended() {
                panic!("the agent ended with {status}:\n{}", self.log());
            }
            UnixStream::connect(self.socket()).ok()
        });
        wait_for("the agent's hooks", patience(20), || {
            let status = stream::status(&self.socket());
            status
                .signals
                .iter()
                .any(|s| !s.hook.is_empty())
                .then_some(())
        });
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().pid()
    }

    /// Processor time it has taken so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // utime and stime are fields 14 and 15, in hundredths of a second; the name before may hold blanks.
        let ticks: u64 = stat[stat.rfind(')').unwrap()..]
            .split(' ')
            .skip(12)
            .take(2)
            .map(|t| t.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(10 * ticks)
    }

    /// How long its threads waited for a processor so far: of each since its start, the longest.
    #[must_use]
    pub fn waited(&self) -> Duration {
        waits(self.pid()).into_values().max().unwrap_or_default()
    }

    /// Times what it does from now on.
    #[must_use]
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch::of(self.pid())
    }

    /// When its process was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    #[must_use]
    pub fn home(&self) -> &Path {
        &self.setup.home
    }

    /// Directory of everything the agent writes: socket, state, configuration, stdout, stderr.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.setup.dir.join("sock")
    }

    /// `unix:PATH`.
    #[must_use]
    pub fn address(&self) -> OsString {
        listen(&self.setup.dir)
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.setup.dir.join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What it printed so far, as it is.
    #[must_use]
    pub fn printed(&self) -> Vec<u8> {
        self.output.lock().unwrap().clone()
    }

    /// All its events so far.
    pub fn events(&self) -> Vec<Event> {
        let mut parsed = self.parsed.lock().unwrap();
        let output = self.output.lock().unwrap();
        let new = &output[parsed.upto..];
        let whole = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = std::str::from_utf8(&new[..whole]).unwrap().to_owned();
        // The agent must not wait for us.
        drop(output);
        parsed.upto += whole;
        parsed.events.extend(parse_lines(&lines));
        parsed.events.clone()
    }

    /// Number of the latest of them.
    pub fn sequence(&self) -> u64 {
        self.events().iter().map(Ask::sequence).max().unwrap_or(0)
    }

    /// Events about a process and its descendants.
    pub fn tree(&self, root: u32) -> Vec<Event> {
        crate::events::tree(&self.events(), root)
    }

    /// Waits for an event; the failure lists what there was about `root` instead.
    pub fn expect(&self, what: &str, root: u32, is: impl Fn(&Event) -> bool) -> Event {
        self.expect_within(patience(60), what, root, is)
    }

    fn expect_within(
        &self,
        limit: Duration,
        what: &str,
        root: u32,
        is: impl Fn(&Event) -> bool,
    ) -> Event {
        let started = Instant::now();
        loop {
            let events = self.events();
            if let Some(event) = events.iter().find(|e| is(e)) {
                return event.clone();
            }
            self.assert_alive();
            assert!(
                started.elapsed() < limit,
                "waited {limit:?} in vain for {what}; there was:\n{}\nand gaps:\n{}",
                list(&crate::events::tree(&events, root)),
                list(&crate::events::of_kind(&events, "coverage_gap"))
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything that has happened so far has become events, delayed decisions included: what is not
    /// there afterwards is not going to come.
    pub fn wait_idle(&self) {
        self.sentinel();
        // A holder's send and an open without a read are decided after 1 s of the kernel's clock.
        std::thread::sleep(Duration::from_millis(1800));
        self.sentinel();
        // What is due is decided at the end of the turn that took a record in: of the sentinel's own that was reported before.
        self.sentinel();
    }

    /// Lets a process with a fresh credential run and waits for its event: records before it have been processed.
    pub fn sentinel(&self) -> Event {
        let token = plant::github();
        let done = act("true").env("GITHUB_TOKEN", &token.value).run().ok();
        // After a load it comes when that is worked off.
        self.expect_within(patience(60), "the sentinel's exposure", done.pid, |e| {
            e.is("credential_exposed") && e.pid() == done.pid
        })
    }

    /// Fails when the agent has ended.
    pub fn assert_alive(&self) {
        if let Some(status) = self.process.lock().unwrap().ended() {
            panic!("the agent ended with {status}:\n{}", self.log());
        }
    }

    /// How it ended, when it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.lock().unwrap().ended()
    }

    /// SIGSTOP: it stands still until the next SIGCONT.
    pub fn pause(&self) {
        self.process.lock().unwrap().signal(libc::SIGSTOP);
    }

    /// Lets it go on after [`Agent::pause`].
    pub fn resume(&self) {
        self.process.lock().unwrap().signal(libc::SIGCONT);
    }

    /// SIGKILL, and gives its setup back for a restart.
    pub fn kill(self) -> Setup {
        self.process.lock().unwrap().end();
        self.setup
    }

    /// SIGTERM, and nothing else.
    pub fn terminate(&self) {
        self.process.lock().unwrap().signal(libc::SIGTERM);
    }

    /// SIGTERM; how long it takes to end (see [`Stopwatch`]).
    pub fn end_timed(&self, has_ended: impl Fn(&Self) -> bool) -> Duration {
        let pid = self.pid();
        let mut watch = self.stopwatch();
        self.terminate();
        wait_for("the end of the agent", patience(60), || {
            watch.inspect(pid);
            has_ended(self).then_some(())
        });
        watch.took()
    }

    /// Whether its main thread has ended; others may still be in the kernel's hands.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let pid = self.process.lock().unwrap().pid();
        // pid (name) state ...
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
            stat.rsplit(')')
                .next()
                .unwrap_or("")
                .trim_start()
                .starts_with('Z')
        })
    }

    /// SIGTERM; waits for a clean end.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        process.signal(libc::SIGTERM);
        let status = process.wait(patience(20), "the agent after SIGTERM");
        assert!(
            status.success(),
            "the agent stopped with {status}:\n{}",
            self.log()
        );
    }

    /// `keytrail COMMAND --address ...` against it.
    #[must_use]
    pub fn client(&self, command: &str) -> crate::command::Act {
        act(keytrail())
            .arg(command)
            .arg("--address")
            .arg(self.address())
    }

    /// Starts `keytrail watch` and waits until it shows events.
    pub fn watch(&self, format: &str) -> Background {
        let watch = self
            .client("watch")
            .args(["-o", format])
            .spawn_reading(&self.dir().join(format!("watch.{format}.stderr")));
        wait_for("keytrail watch to show an event", patience(20), || {
            let _ = sh("exit 0")
                .env("GITHUB_TOKEN", plant::github().value)
                .run();
            std::thread::sleep(Duration::from_millis(200));
            // The line of headings is there before any event.
            let lines = watch.written().iter().filter(|b| **b == b'\n').count();
            (lines >= 2).then_some(())
        });
        watch
    }
}
