//! The self-test while the agent runs: now and then a process of its own does what hooks are there to see, and what does
//! not show up has stopped firing. Only what has fired in such a trial before can be missed in one, and only twice in a
//! row; a trial in which records were lost counts for nothing.

use super::activity::{SESSION, done};
use super::hooks;
use keytrail_abi::{Exec, Fork, Header, Kind, TlsWrite};
use keytrail_host::clock::both;
use keytrail_model::Signal;
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    mem::offset_of,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, SyncSender, TryRecvError},
    thread,
};

/// Records of starting programs that are kept until the number of the process is known.
const EARLY_MAX: usize = 4_096;
/// Records of what has happened are there after this time.
const ARRIVAL_NS: u64 = 1_000_000_000;
/// After a trial in which something was missing for the first time.
const AGAIN_NS: u64 = 2_000_000_000;
/// Trials in a row in which something has to be missing.
const MISSING: u32 = 2;
/// A trial takes ten seconds at most (its process ends itself): one that has no end after this is left behind.
const GIVEN_UP_NS: u64 = 30_000_000_000;
/// Trials in a row without a verdict after which it is told that hooks are not tried.
const UNJUDGED: u32 = 5;

/// How often, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialOptions {
    /// Nanoseconds between two.
    pub interval_ns: u64,
    /// A file that nobody else has a reason to read, on a disk.
    pub file: Option<PathBuf>,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub signal: Signal,
    pub fires: bool,
    /// The last trial in which it was as it had been, by the wall clock.
    pub since_wall_ns: u64,
}

/// Trials have come to no verdict for a while, or do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untried {
    pub trials: u32,
    /// The last verdict, by the wall clock.
    pub since_wall_ns: u64,
    pub is_over: bool,
}

/// What the sensor has to do for a trial.
pub enum Step {
    /// The process is there: it is to be taken for a holder, and then let go.
    Begin(u32, ChildStdin),
    /// The trial is over.
    Over(Vec<Verdict>),
}

enum News {
    Started(u32, ChildStdin),
    /// It ended, with this status if it ended by itself.
    Ended(Option<u8>),
}

/// What happened to processes before the number of the right one was known.
type Early = Vec<(u32, Signal)>;

#[derive(Default)]
struct Trial {
    /// 0 until it is known.
    tgid: u32,
    early: Early,
    seen: Vec<Signal>,
    status: Option<u8>,
    ended_ns: Option<u64>,
    spoiled: bool,
    /// Its process has ended: from here on its number is another's.
    over: bool,
    begun_ns: u64,
}

/// The thread that starts those processes, as the sensor holds it, and what was found.
pub struct Trials {
    options: TrialOptions,
    ask: SyncSender<()>,
    news: Receiver<News>,
    due_ns: u64,
    trial: Option<Trial>,
    judge: Judge,
    verdicts: Verdicts,
}

impl Trials {
    /// `fired`: signals that were seen to fire a moment ago.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(options: TrialOptions, fired: &[Signal]) -> std::io::Result<Self> {
        let (now_ns, wall_ns) = both();
        let (ask, asked) = mpsc::sync_channel(1);
        let (sender, news) = mpsc::channel();
        let file = options.file.clone();
        thread::Builder::new()
            .name("self-test".into())
            .spawn(move || {
                keytrail_host::priority::lower_this_thread();
                while asked.recv().is_ok() {
                    let status = run(file.as_deref(), &sender);
                    if sender.send(News::Ended(status)).is_err() {
                        return;
                    }
                }
            })?;
        let mut judge = Judge::default();
        judge.judge(fired, fired, wall_ns);
        Ok(Self {
            due_ns: now_ns.saturating_add(options.interval_ns),
            options,
            ask,
            news,
            trial: None,
            judge,
            verdicts: Verdicts {
                since_wall_ns: wall_ns,
                ..Verdicts::default()
            },
        })
    }

    pub fn file(&self) -> Option<&PathBuf> {
        self.options.file.as_ref()
    }

    /// A record passes by; true: it is of the trial and of nobody else's interest.
    #[inline]
    pub fn sees(&mut self, bytes: &[u8], is_from_fanotify: bool) -> bool {
        match &mut self.trial {
            None => false,
            Some(trial) => trial.sees(bytes, is_from_fanotify),
        }
    }

    /// This signal cannot be exercised here.
    pub fn forget(&mut self, signal: Signal) {
        self.judge.signals.remove(&signal);
    }

    /// Records were lost: what is not there may be among them.
    pub fn spoil(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.spoiled = true;
        }
    }

    /// Whether trials have stopped coming to a verdict, or do so again, since the last call.
    pub fn untried(&mut self) -> Option<Untried> {
        self.verdicts.news.take()
    }

    /// To be called after a drain, and after losses were asked for.
    pub fn step(&mut self, now_ns: u64, wall_ns: u64) -> Option<Step> {
        let Some(trial) = &mut self.trial else {
            if now_ns >= self.due_ns {
                self.begin(now_ns);
            }
            return None;
        };
        match self.news.try_recv() {
            Ok(News::Started(tgid, go)) => {
                trial.is_of(tgid);
                return Some(Step::Begin(tgid, go));
            }
            Ok(News::Ended(status)) => {
                trial.status = status;
                trial.ended_ns = Some(now_ns);
            }
            Err(TryRecvError::Empty) if trial.is_given_up(now_ns) => {
                // What it still says is not heard.
                self.trial = None;
                self.verdicts.none();
                return None;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                // The thread is gone: nothing more comes of it, which is reported in the end.
                self.trial = None;
                self.verdicts.none();
                return None;
            }
        }
        if trial.ended_ns? + ARRIVAL_NS > now_ns {
            return None;
        }
        let trial = self.trial.take()?;
        let tried = trial.status.filter(|_| !trial.spoiled).map(tried);
        let (verdicts, again) = match tried.filter(|tried| !tried.is_empty()) {
            Some(tried) => {
                self.verdicts.one(wall_ns);
                self.judge.judge(&tried, &trial.seen, wall_ns)
            }
            None => {
                self.verdicts.none();
                (Vec::new(), false)
            }
        };
        if again {
            self.due_ns = self.due_ns.min(now_ns + AGAIN_NS);
        }
        Some(Step::Over(verdicts))
    }

    fn begin(&mut self, now_ns: u64) {
        self.due_ns = now_ns.saturating_add(self.options.interval_ns);
        // Of a trial that was left behind; its process ends when nobody lets it go.
        while self.news.try_recv().is_ok() {}
        // Before it is asked for: nothing of it passes unseen.
        self.trial = Some(Trial {
            begun_ns: now_ns,
            ..Trial::default()
        });
        if self.ask.try_send(()).is_err() {
            self.trial = None;
            self.verdicts.none();
        }
    }
}

/// How trials end. Lost records spoil one now and then; but who spoils them all blinds the agent to its own hooks.
#[derive(Debug, Default)]
struct Verdicts {
    /// Trials in a row without one.
    missed: u32,
    /// The last one.
    since_wall_ns: u64,
    is_reported: bool,
    news: Option<Untried>,
}

impl Verdicts {
    fn one(&mut self, wall_ns: u64) {
        if std::mem::take(&mut self.is_reported) {
            self.report(true);
        }
        (self.missed, self.since_wall_ns) = (0, wall_ns);
    }

    fn none(&mut self) {
        self.missed = self.missed.saturating_add(1);
        if self.missed >= UNJUDGED && !std::mem::replace(&mut self.is_reported, true) {
            self.report(false);
        }
    }

    fn report(&mut self, is_over: bool) {
        self.news = Some(Untried {
            trials: self.missed,
            since_wall_ns: self.since_wall_ns,
            is_over,
        });
    }
}

/// Starts a process and waits for its end.
fn run(file: Option<&Path>, sender: &mpsc::Sender<News>) -> Option<u8> {
    if let Some(file) = file.filter(|file| !file.exists()) {
        // One that cannot be made is not read, and nothing is missed.
        let _ = make(file);
    }
    let mut child = Command::new("/proc/self/exe")
        .arg("self-test-activity")
        .args(file)
        .env_clear()
        // A pipe, which is reported at its exec.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    if let Some(go) = child.stdin.take() {
        // Without a receiver it is closed, and the process ends.
        let _ = sender.send(News::Started(child.id(), go));
    }
    let status = child.wait().ok()?.code()?;
    u8::try_from(status).ok()
}

fn make(file: &Path) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    file.write_all(b"keytrail self-test\n")
}

/// Lets the process go. A pipe has room for a byte.
pub fn go(mut stdin: ChildStdin) {
    // If it is gone its status says that nothing was done.
    let _ = stdin.write_all(b"1");
}

/// What a process did that ended with this status.
fn tried(status: u8) -> Vec<Signal> {
    if status == 0 {
        return Vec::new();
    }
    let mut signals = vec![Signal::Fork, Signal::Exec, Signal::Exit, Signal::Pipes];
    for (bit, of) in [
        (done::FILE, &[Signal::FileOpen, Signal::FileRead][..]),
        (done::TCP, &[Signal::Connect, Signal::TcpSend]),
        (done::UNIX, &[Signal::UnixSend]),
        (done::UDP, &[Signal::UdpSend]),
        (done::WRITE, &[Signal::FdWrite]),
        (done::MEMORY, &[Signal::ProcessAttach]),
        (done::PROBED, &[Signal::TlsWrite]),
    ] {
        if status & bit != 0 {
            signals.extend_from_slice(of);
        }
    }
    signals
}

impl Trial {
    fn is_given_up(&self, now_ns: u64) -> bool {
        self.ended_ns.is_none() && now_ns.saturating_sub(self.begun_ns) > GIVEN_UP_NS
    }

    fn sees(&mut self, bytes: &[u8], is_from_fanotify: bool) -> bool {
        let word = |at| u32::from_ne_bytes(super::number(bytes, at));
        let kind = u16::from_ne_bytes(super::number(bytes, offset_of!(Header, kind)));
        let tgid = word(offset_of!(Header, tgid));
        // The record of its end may be lost. But it was waited for, and whoever does something later is another. (What
        // fanotify reports has the time at which it was read.)
        let boot_ns = u64::from_ne_bytes(super::number(bytes, offset_of!(Header, boot_ns)));
        if !is_from_fanotify && self.ended_ns.is_some_and(|ended_ns| boot_ns > ended_ns) {
            return false;
        }
        let (of, signal) = match kind {
            Kind::FORK => (word(offset_of!(Fork, child_tgid)), Signal::Fork),
            Kind::EXEC if word(offset_of!(Exec, parent_tgid)) == std::process::id() => {
                (tgid, Signal::Exec)
            }
            Kind::EXEC | Kind::EXEC_CHUNK => return false,
            // The queue has reads that the better hook may not see.
            Kind::FILE_READ if is_from_fanotify => return self.is_its(tgid),
            Kind::FILE_NEW | Kind::FD_TARGET => return self.is_its(tgid),
            Kind::TLS_WRITE => {
                let session = super::number(bytes, offset_of!(TlsWrite, tls_session));
                if u64::from_ne_bytes(session) != SESSION {
                    return false;
                }
                (tgid, Signal::TlsWrite)
            }
            kind => match hooks::signal_of(kind) {
                Some(signal) => (tgid, signal),
                None => return false,
            },
        };
        let is_life = matches!(
            signal,
            Signal::Fork | Signal::Exec | Signal::Pipes | Signal::Exit
        );
        if self.tgid == 0 {
            if is_life {
                // Another process of a number that has ended before.
                if signal == Signal::Fork {
                    self.early.retain(|(other, _)| *other != of);
                }
                self.early.push((of, signal));
                // What came first may have been it.
                self.spoiled |= self.early.len() > EARLY_MAX;
                self.early.truncate(EARLY_MAX);
            }
            return false;
        }
        if !self.is_its(of) {
            return false;
        }
        self.seen.push(signal);
        self.over = signal == Signal::Exit;
        // Who follows processes has to know of its beginning and its end.
        !is_life
    }

    /// A process is this trial's until its end is seen: then its number is anybody's, at once.
    fn is_its(&self, tgid: u32) -> bool {
        tgid != 0 && tgid == self.tgid && !self.over
    }

    fn is_of(&mut self, tgid: u32) {
        self.tgid = tgid;
        let early = std::mem::take(&mut self.early);
        self.seen
            .extend(early.iter().filter(|(of, _)| *of == tgid).map(|(_, s)| s));
        self.over = self.seen.contains(&Signal::Exit);
    }
}

/// What trials have shown so far.
#[derive(Debug, Default)]
struct Judge {
    signals: BTreeMap<Signal, Known>,
}

/// Of a signal that has fired.
#[derive(Debug)]
struct Known {
    fired_wall_ns: u64,
    missed: u32,
}

impl Judge {
    /// What is new, and whether something has to be tried again soon.
    fn judge(&mut self, tried: &[Signal], seen: &[Signal], wall_ns: u64) -> (Vec<Verdict>, bool) {
        let mut verdicts = Vec::new();
        let mut again = false;
        for &signal in tried {
            let fires = seen.contains(&signal);
            let Some(known) = self.signals.get_mut(&signal) else {
                if fires {
                    let known = Known {
                        fired_wall_ns: wall_ns,
                        missed: 0,
                    };
                    self.signals.insert(signal, known);
                }
                continue;
            };
            let before = known.missed;
            known.missed = if fires { 0 } else { before.saturating_add(1) };
            if known.missed == MISSING || fires && before >= MISSING {
                verdicts.push(Verdict {
                    signal,
                    fires,
                    since_wall_ns: known.fired_wall_ns,
                });
            }
            again |= (1..=MISSING).contains(&known.missed);
            if fires {
                known.fired_wall_ns = wall_ns;
            }
        }
        (verdicts, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Signal; 2] = [Signal::Connect, Signal::FileOpen];

    #[test]
    fn what_stops_is_reported_once_and_once_when_it_is_back() {
        let mut judge = Judge::default();
        assert_eq!(judge.judge(&ALL, &ALL, 1), (vec![], false));
        assert_eq!(judge.judge(&ALL, &ALL, 2), (vec![], false));
        // Once is chance, and is tried again soon.
        assert_eq!(judge.judge(&ALL, &ALL[..1], 3), (vec![], true));
        assert_eq!(judge.judge(&ALL, &ALL, 4), (vec![], false));
        assert_eq!(judge.judge(&ALL, &ALL[..1], 5), (vec![], true));
        let lost = |fires| Verdict {
            signal: Signal::FileOpen,
            fires,
            since_wall_ns: 4,
        };
        // Whoever mends it is seen soon.
        assert_eq!(judge.judge(&ALL, &ALL[..1], 6), (vec![lost(false)], true));
        assert_eq!(judge.judge(&ALL, &ALL[..1], 7), (vec![], false));
        assert_eq!(judge.judge(&ALL, &ALL, 8), (vec![lost(true)], false));
        assert_eq!(judge.judge(&ALL, &ALL, 9), (vec![], false));
    }

    #[test]
    fn trials_that_come_to_nothing_are_reported_once_until_one_does() {
        let mut verdicts = Verdicts::default();
        verdicts.one(7);
        for _ in 1..UNJUDGED {
            verdicts.none();
            assert_eq!(verdicts.news, None);
        }
        verdicts.none();
        let reported = |trials, is_over| Untried {
            trials,
            since_wall_ns: 7,
            is_over,
        };
        assert_eq!(verdicts.news.take(), Some(reported(UNJUDGED, false)));
        verdicts.none();
        assert_eq!(verdicts.news, None);
        verdicts.one(9);
        assert_eq!(verdicts.news.take(), Some(reported(UNJUDGED + 1, true)));
        verdicts.none();
        verdicts.one(11);
        assert_eq!(verdicts.news, None);
    }

    /// Trials whose thread does what the test has it say.
    fn by_hand() -> (Trials, Receiver<()>, mpsc::Sender<News>) {
        let (ask, asked) = mpsc::sync_channel(1);
        let (sender, news) = mpsc::channel();
        let trials = Trials {
            options: TrialOptions {
                interval_ns: 1,
                file: None,
            },
            ask,
            news,
            due_ns: 0,
            trial: None,
            judge: Judge::default(),
            verdicts: Verdicts::default(),
        };
        (trials, asked, sender)
    }

    #[test]
    fn a_trial_without_an_end_is_left_behind() {
        let (mut trials, asked, sender) = by_hand();
        let mut now = 1;
        for n in 1..=UNJUDGED {
            assert!(trials.step(now, 0).is_none());
            assert!(trials.trial.is_some());
            asked.recv().unwrap();
            now += GIVEN_UP_NS + 1;
            assert!(trials.step(now, 0).is_none());
            assert!(trials.trial.is_none());
            assert_eq!(trials.untried().is_some(), n == UNJUDGED);
        }
        // What the thread says late is of no trial.
        sender.send(News::Ended(Some(done::TCP))).unwrap();
        trials.step(now, 0);
        assert!(trials.step(now + 2 * ARRIVAL_NS, 0).is_none());
        assert!(trials.trial.is_some());
        sender.send(News::Ended(Some(done::TCP))).unwrap();
        now += 3 * ARRIVAL_NS;
        trials.step(now, 0);
        let over = trials.step(now + 2 * ARRIVAL_NS, 5);
        assert!(matches!(over, Some(Step::Over(_))));
        assert!(trials.untried().is_some_and(|untried| untried.is_over));
    }

    #[test]
    fn what_never_fired_and_what_was_not_tried_is_not_missed() {
        let mut judge = Judge::default();
        for at in 0..5 {
            assert_eq!(judge.judge(&ALL, &ALL[..1], at), (vec![], false));
            assert_eq!(judge.judge(&ALL[1..], &[], at), (vec![], false));
        }
        assert!(tried(0).is_empty());
        assert!(tried(done::TCP).contains(&Signal::Connect));
        assert!(!tried(done::TCP).contains(&Signal::FileRead));
    }

    #[test]
    fn what_came_before_its_number_counts_and_others_do_not() {
        let mut trial = Trial::default();
        let record = |kind: u16, tgid: u32| {
            let mut bytes = vec![0u8; 512];
            let mut put = |at: usize, with: &[u8]| bytes[at..at + with.len()].copy_from_slice(with);
            put(offset_of!(Header, kind), &kind.to_ne_bytes());
            put(offset_of!(Header, tgid), &tgid.to_ne_bytes());
            if kind == Kind::EXEC {
                put(
                    offset_of!(Exec, parent_tgid),
                    &std::process::id().to_ne_bytes(),
                );
            }
            bytes
        };
        assert!(!trial.sees(&record(Kind::EXEC, 7), false));
        assert!(!trial.sees(&record(Kind::PIPES, 8), false));
        assert!(!trial.sees(&record(Kind::CONNECT, 7), false));
        trial.is_of(7);
        assert_eq!(trial.seen, [Signal::Exec]);
        assert!(trial.sees(&record(Kind::CONNECT, 7), false));
        assert!(!trial.sees(&record(Kind::CONNECT, 8), false));
        assert!(trial.sees(&record(Kind::FILE_READ, 7), true));
        assert!(trial.sees(&record(Kind::FILE_NEW, 7), false));
        assert!(!trial.sees(&record(Kind::TLS_WRITE, 7), false));
        // Its end is everybody's.
        assert!(!trial.sees(&record(Kind::EXIT, 7), false));
        assert_eq!(trial.seen, [Signal::Exec, Signal::Connect, Signal::Exit]);
        // Whoever has the number from here on is somebody else.
        for kind in [Kind::CONNECT, Kind::FILE_NEW, Kind::FD_TARGET, Kind::EXIT] {
            assert!(!trial.sees(&record(kind, 7), false), "{kind}");
        }
        assert!(!trial.sees(&record(Kind::FILE_READ, 7), true));
        assert!(!trial.sees(&record(Kind::FILE_OPEN, 7), true));
        assert_eq!(trial.seen.len(), 3);
        // Also where the record of its end was lost.
        let mut trial = Trial {
            tgid: 7,
            ended_ns: Some(5),
            ..Trial::default()
        };
        let mut late = record(Kind::CONNECT, 7);
        assert!(trial.sees(&late, false));
        let at = offset_of!(Header, boot_ns);
        late[at..at + 8].copy_from_slice(&6u64.to_ne_bytes());
        assert!(!trial.sees(&late, false));
        let mut trial = Trial::default();
        for pid in 0..=EARLY_MAX {
            let mut other = Trial::default();
            std::mem::swap(&mut other, &mut trial);
            other.tgid = 0;
            other.sees(&record(Kind::EXIT, pid as u32), false);
            trial = other;
        }
        assert!(trial.spoiled);
    }
}
