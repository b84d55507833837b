//! BPF programs of others that can deceive the agent or those it watches, and others who have its maps and programs.
//!
//! A thread of low priority lists the programs of the host, inspects the instructions of those that trace, once each, for
//! calls of `bpf_probe_write_user` and `bpf_override_return`, and looks in /proc whether somebody else has a map or a
//! program of the agent open. Who has one for less than the time between two looks, or pinned in a file system, is missed.

use super::bpf::{self, Program};
use keytrail_host::{
    priority,
    procfs::{self, list_pids},
};
use keytrail_model::status::Refused;
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufReader},
    os::fd::RawFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

/// A start has enough to do.
const FIRST: Duration = Duration::from_secs(5);
/// Programs of one host that are inspected.
const PROGRAMS_MAX: usize = 10_000;
/// Descriptors of one look that are inspected.
const DESCRIPTORS_MAX: usize = 1_000_000;
/// Of them, those of one process: who opens many must not hide others.
const OF_ONE_MAX: usize = 16_384;
/// Who has something open is reported if it still has it this much later: a process that the agent starts has all it has for
/// a moment.
const CONFIRM: Duration = Duration::from_millis(200);
/// The next look comes no sooner than this many times the processor time that the last one took: half a percent of one.
const SHARE: u32 = 200;
/// Holders that are remembered as reported.
const REPORTED_MAX: usize = 10_000;

/// Kinds of programs by linux/bpf.h that may call these functions, with what people call them.
const TRACING: [(u32, &str); 8] = [
    (2, "kprobe"),
    (5, "tracepoint"),
    (7, "perf_event"),
    (17, "raw_tracepoint"),
    (24, "raw_tracepoint_writable"),
    (26, "tracing"),
    (28, "ext"),
    (29, "lsm"),
];

/// What a program can do by which function of the kernel.
const POWERS: [(&str, &str); 2] = [
    ("bpf_probe_write_user", "can write into users' memory"),
    (
        "bpf_override_return",
        "can change what the kernel's functions return",
    ),
];
/// What calls in a program are relative to.
const CALL_BASE: &str = "__bpf_call_base";

/// A process that has something open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub tgid: u32,
    /// When it began, as in `Pid`; 0: not known. Its number alone may be another's when it is reported.
    pub start: u64,
    /// Path of its program, or its name.
    pub program: String,
}

/// What was found; each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignNews {
    /// A program of somebody else can do this.
    Power { program: Loaded, can: &'static str },
    /// A program of somebody else uses a map of the agent.
    UsesMap { program: Loaded, map: String },
    /// Somebody else has a map, a program or a link of the agent open.
    Opened { holder: Holder, what: String },
    /// It cannot be known what programs do.
    Unknown(Refused),
}

/// A program of somebody else, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: u32,
    pub name: String,
    pub kind: &'static str,
    /// Who loaded it.
    pub uid: u32,
    /// Nanoseconds since boot.
    pub loaded_ns: u64,
    /// Who has it, or a link of it, open.
    pub holders: Vec<Holder>,
}

/// The thread, as the sensor holds it. It ends with it.
pub struct Foreign {
    news: Receiver<ForeignNews>,
    _stop: Sender<()>,
}

impl Foreign {
    /// # Errors
    /// When there is no thread.
    pub fn start(interval: Duration) -> io::Result<Self> {
        let (report, news) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        thread::Builder::new()
            .name("foreign-bpf".into())
            .spawn(move || {
                priority::lower_this_thread();
                let mut scan = Scan::default();
                let mut rest = interval.min(FIRST);
                // Until the other end is dropped.
                while stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
                    let begin = spent();
                    for found in scan.scan() {
                        if report.send(found).is_err() {
                            return;
                        }
                    }
                    rest = interval.max(spent().saturating_sub(begin) * SHARE);
                }
            })?;
        Ok(Self { news, _stop: stop })
    }

    /// What was found since the last call.
    pub fn take(&self) -> Vec<ForeignNews> {
        self.news.try_iter().collect()
    }
}

/// Processor time of this thread.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// What was inspected and reported before.
#[derive(Default)]
struct Scan {
    /// Programs that were inspected.
    known: BTreeSet<u32>,
    /// (process, its start, what).
    reported: BTreeSet<(u32, u64, Thing)>,
    helpers: Option<Helpers>,
    /// What was said to be unknown, each once.
    said: BTreeSet<Unseen>,
    /// The process to begin with.
    from: u32,
}

/// Why something is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unseen {
    Programs,
    ManyPrograms,
    Functions,
    ManyDescriptors,
    DescriptorsOfOne,
}

/// An object of the kernel by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Map(u32),
    Program(u32),
}

/// The distances of [`POWERS`] from [`CALL_BASE`]; `None`: this kernel has no such function.
type Helpers = [Option<i32>; POWERS.len()];

impl Scan {
    fn scan(&mut self) -> Vec<ForeignNews> {
        let mut news = Vec::new();
        let listed = bpf::programs(PROGRAMS_MAX);
        // After the list: what the agent loads meanwhile is not on it.
        let own = Own::now();
        let ids = match listed {
            Ok(ids) => ids,
            Err(error) => {
                self.unknown(
                    Unseen::Programs,
                    &format!("the host's BPF programs cannot be listed: {error}"),
                    &mut news,
                );
                Vec::new()
            }
        };
        if ids.len() >= PROGRAMS_MAX {
            self.unknown(
                Unseen::ManyPrograms,
                &format!(
                    "there are more than {PROGRAMS_MAX} programs, and only so many are inspected"
                ),
                &mut news,
            );
        }
        self.known.retain(|id| ids.binary_search(id).is_ok());
        let mut suspects = Vec::new();
        for id in ids {
            if own.things.contains_key(&Thing::Program(id)) || !self.known.insert(id) {
                continue;
            }
            // One that is gone, or that is refused, is seen no more than it was.
            let Ok(Some(program)) = bpf::program(id, |kind| kind_word(kind).is_some()) else {
                continue;
            };
            let map = program
                .maps
                .iter()
                .find_map(|map| own.things.get(&Thing::Map(*map)));
            let powers = self.powers(&program, &mut news);
            if map.is_some() || !powers.is_empty() {
                suspects.push((program, map.cloned(), powers));
            }
        }
        let found = self.descriptors(
            &mut |thing| {
                own.things.contains_key(&thing)
                    || suspects
                        .iter()
                        .any(|(program, _, _)| thing == Thing::Program(program.id))
            },
            &mut news,
        );
        for (program, map, powers) in suspects {
            let loaded = loaded(&program, &found);
            if let Some(map) = map {
                news.push(ForeignNews::UsesMap {
                    program: loaded.clone(),
                    map,
                });
            }
            news.extend(powers.into_iter().map(|can| ForeignNews::Power {
                program: loaded.clone(),
                can,
            }));
        }
        self.opened(&own, found, &mut news);
        news
    }

    /// What a program can do.
    fn powers(&mut self, program: &Program, news: &mut Vec<ForeignNews>) -> Vec<&'static str> {
        if program.code.is_empty() {
            return Vec::new();
        }
        // A pass over a large file: only where somebody has programs that trace.
        let helpers = match self.helpers {
            Some(helpers) => helpers,
            None => match fs::File::open("/proc/kallsyms").and_then(|f| helpers(BufReader::new(f)))
            {
                Ok(Some(helpers)) => *self.helpers.insert(helpers),
                Ok(None) => {
                    self.unknown(Unseen::Functions, "/proc/kallsyms shows no addresses", news);
                    return Vec::new();
                }
                Err(error) => {
                    self.unknown(Unseen::Functions, &format!("/proc/kallsyms: {error}"), news);
                    return Vec::new();
                }
            },
        };
        let calls = calls(&program.code);
        POWERS
            .iter()
            .zip(helpers)
            .filter(|(_, helper)| helper.is_some_and(|helper| calls.contains(&helper)))
            .map(|((_, can), _)| *can)
            .collect()
    }

    fn unknown(&mut self, what: Unseen, why: &str, news: &mut Vec<ForeignNews>) {
        if !self.said.insert(what) {
            return;
        }
        let (unknown, remedy) = match what {
            Unseen::Programs | Unseen::Functions => (
                "whether a BPF program of somebody else can write into users' memory is not known",
                "run the agent with CAP_SYS_ADMIN and CAP_SYSLOG, and kernel.kptr_restrict of 1 at most",
            ),
            Unseen::ManyPrograms => (
                "whether every BPF program of somebody else can write into users' memory is not known",
                "find out who loads that many programs",
            ),
            Unseen::ManyDescriptors => (
                "who else has maps and programs of the agent open is known late",
                "find out which processes have that many descriptors open",
            ),
            Unseen::DescriptorsOfOne => (
                "whether every process has nothing of the agent open is not known",
                "find out why that process has that many descriptors open; a limit (ulimit -n) keeps it from that",
            ),
        };
        news.push(ForeignNews::Unknown(Refused {
            hook: "bpf(2)".to_owned(),
            reason: format!("{unknown}: {why}"),
            remedy: remedy.to_owned(),
        }));
    }

    /// What of interest all processes have open. Where there is more than is inspected, the next look begins where this
    /// one has ended.
    fn descriptors(
        &mut self,
        is_of_interest: &mut dyn FnMut(Thing) -> bool,
        news: &mut Vec<ForeignNews>,
    ) -> Descriptors {
        let mut pids = list_pids();
        let first = pids.partition_point(|pid| *pid < self.from);
        pids.rotate_left(first);
        let scanned = descriptors(&pids, DESCRIPTORS_MAX, OF_ONE_MAX, is_of_interest);
        if let Some(pid) = scanned.cut {
            let why = format!(
                "{}[{pid}] has more than {OF_ONE_MAX} descriptors, and only so many of one process are inspected",
                holder(pid, 0).program
            );
            self.unknown(Unseen::DescriptorsOfOne, &why, news);
        }
        self.from = scanned.left_at.unwrap_or(0);
        if scanned.left_at.is_some() {
            let why = format!(
                "there are more than {DESCRIPTORS_MAX} descriptors, and only so many are inspected each time"
            );
            self.unknown(Unseen::ManyDescriptors, &why, news);
        }
        scanned.found
    }

    /// Who has something of the agent open.
    fn opened(&mut self, own: &Own, found: Descriptors, news: &mut Vec<ForeignNews>) {
        let me = std::process::id();
        let new: Vec<(u32, u64, BTreeSet<Thing>)> = found
            .into_iter()
            .filter(|(pid, _)| *pid != me)
            .filter_map(|(pid, Open { start, things })| {
                let things: BTreeSet<Thing> = things
                    .into_iter()
                    .filter(|thing| own.things.contains_key(thing))
                    .filter(|thing| !self.reported.contains(&(pid, start, *thing)))
                    .collect();
                (!things.is_empty()).then_some((pid, start, things))
            })
            .collect();
        if new.is_empty() {
            return;
        }
        thread::sleep(CONFIRM);
        let pids: Vec<u32> = new.iter().map(|(pid, _, _)| *pid).collect();
        let still = descriptors(&pids, DESCRIPTORS_MAX, OF_ONE_MAX, &mut |thing| {
            own.things.contains_key(&thing)
        })
        .found;
        for (pid, start, things) in new {
            // What the agent has started has what the agent has until its own program begins.
            if is_own_child(pid) || procfs::pid_of(pid).is_none_or(|now| now.start != start) {
                continue;
            }
            let things: Vec<Thing> = things
                .into_iter()
                .filter(|thing| {
                    let now = still.get(&pid).filter(|now| now.start == start);
                    now.is_some_and(|now| now.things.contains(thing))
                })
                .collect();
            if things.is_empty() {
                continue;
            }
            let names: BTreeSet<&str> = things
                .iter()
                .filter_map(|thing| own.things.get(thing).map(String::as_str))
                .collect();
            news.push(ForeignNews::Opened {
                holder: holder(pid, start),
                what: names.into_iter().collect::<Vec<_>>().join(", "),
            });
            if self.reported.len() + things.len() > REPORTED_MAX {
                self.reported.clear();
            }
            self.reported
                .extend(things.into_iter().map(|thing| (pid, start, thing)));
        }
    }
}

/// What the agent has, with what it is called.
struct Own {
    things: BTreeMap<Thing, String>,
}

impl Own {
    fn now() -> Self {
        let mut things = BTreeMap::new();
        let mut all = usize::MAX;
        for (fd, info) in bpf_descriptors(std::process::id(), &mut all) {
            for thing in things_of(&info) {
                let name = match thing {
                    Thing::Map(id) => match fd.parse::<RawFd>().map(bpf::map) {
                        Ok(Ok((same, name))) if same == id => format!("map {name}"),
                        _ => format!("map {id}"),
                    },
                    Thing::Program(id) => format!("program {id}"),
                };
                things.insert(thing, name);
            }
        }
        Self { things }
    }
}

/// What of interest a process has open, and when it began.
struct Open {
    start: u64,
    things: BTreeSet<Thing>,
}

type Descriptors = BTreeMap<u32, Open>;

/// What came of an inspection of descriptors.
#[derive(Default)]
struct ScannedDescriptors {
    found: Descriptors,
    /// A process that has more than are inspected.
    cut: Option<u32>,
    /// The first process that was not inspected.
    left_at: Option<u32>,
}

/// `most`: descriptors that are inspected in all, `of_one`: of each process.
fn descriptors(
    pids: &[u32],
    most: usize,
    of_one: usize,
    is_of_interest: &mut dyn FnMut(Thing) -> bool,
) -> ScannedDescriptors {
    let mut left = most;
    let mut scanned = ScannedDescriptors::default();
    for &pid in pids {
        if left == 0 {
            scanned.left_at = Some(pid);
            break;
        }
        // Before what it has open: a number that is another's by then is not taken for it.
        let start = procfs::pid_of(pid).map_or(0, |pid| pid.start);
        let share = of_one.min(left);
        let mut rest = share;
        for (_, info) in bpf_descriptors(pid, &mut rest) {
            for thing in things_of(&info) {
                if is_of_interest(thing) {
                    let open = scanned.found.entry(pid).or_insert_with(|| Open {
                        start,
                        things: BTreeSet::new(),
                    });
                    open.things.insert(thing);
                }
            }
        }
        left -= share - rest;
        if rest == 0 && share == of_one {
            scanned.cut.get_or_insert(pid);
        }
    }
    scanned
}

/// Descriptors of BPF objects of a process, each with its fdinfo. `left`: how many descriptors may be inspected.
fn bpf_descriptors(pid: u32, left: &mut usize) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(procfs::path(pid, "fd")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .take_while(|_| {
            let goes_on = *left > 0;
            *left = left.saturating_sub(1);
            goes_on
        })
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            if !target.to_str()?.starts_with("anon_inode:bpf") {
                return None;
            }
            let fd = entry.file_name().to_str()?.to_owned();
            let info = fs::read_to_string(procfs::path(pid, &format!("fdinfo/{fd}"))).ok()?;
            Some((fd, info))
        })
        .collect()
}

/// What a descriptor leads to, by its fdinfo: a map, a program, or the program of a link.
fn things_of(info: &str) -> Vec<Thing> {
    info.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let id = value.trim().parse().ok()?;
            match key {
                "map_id" => Some(Thing::Map(id)),
                "prog_id" => Some(Thing::Program(id)),
                _ => None,
            }
        })
        .collect()
}

fn holder(pid: u32, start: u64) -> Holder {
    let program = procfs::exe(pid).map(|exe| exe.path);
    Holder {
        tgid: pid,
        start,
        program: program
            .or_else(|| procfs::facts(pid).map(|facts| facts.comm))
            .unwrap_or_else(|| "?".to_owned()),
    }
}

fn is_own_child(pid: u32) -> bool {
    let same = |one: u32, other: u32| match (procfs::exe(one), procfs::exe(other)) {
        (Some(one), Some(other)) => (one.device, one.inode) == (other.device, other.inode),
        _ => false,
    };
    let me = std::process::id();
    procfs::facts(pid).is_some_and(|facts| facts.ppid == me) && same(pid, me)
}

fn kind_word(kind: u32) -> Option<&'static str> {
    TRACING
        .iter()
        .find_map(|(number, word)| (*number == kind).then_some(*word))
}

fn loaded(program: &Program, found: &Descriptors) -> Loaded {
    let thing = Thing::Program(program.id);
    Loaded {
        id: program.id,
        name: program.name.clone(),
        kind: kind_word(program.kind).unwrap_or("other"),
        uid: program.uid,
        loaded_ns: program.loaded_ns,
        holders: found
            .iter()
            .filter(|(_, open)| open.things.contains(&thing))
            .map(|(pid, open)| holder(*pid, open.start))
            .collect(),
    }
}

/// Targets of all calls of the kernel's functions in a program, relative to [`CALL_BASE`].
fn calls(code: &[u8]) -> BTreeSet<i32> {
    const CALL: u8 = 0x85;
    code.as_chunks::<8>()
        .0
        .iter()
        // The upper half of the registers' byte: 0 is a function of the kernel, and not of the program or a module.
        .filter(|insn| insn[0] == CALL && insn[1] >> 4 == 0)
        .map(|insn| i32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]))
        .collect()
}

/// Where [`POWERS`] are in calls, by /proc/kallsyms. `None`: it shows no addresses.
fn helpers(symbols: impl io::BufRead) -> io::Result<Option<Helpers>> {
    let mut base = None;
    let mut found = [None; POWERS.len()];
    for line in symbols.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(_), Some(symbol), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            // Those of modules have a fourth word.
            continue;
        };
        let address = || u64::from_str_radix(address, 16).ok().filter(|at| *at != 0);
        if symbol == CALL_BASE {
            base = address();
        } else if let Some(index) = POWERS.iter().position(|(name, _)| *name == symbol) {
            found[index] = address();
        }
    }
    Ok(base.map(|base| found.map(|at| at.map(|at: u64| at.wrapping_sub(base) as i32))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_their_distance() {
        let symbols = "ffffffff81000000 T _text\nffffffff81200000 t __bpf_call_base\n\
                       ffffffff811ff000 T bpf_probe_write_user\nffffffffc0000000 t bpf_override_return\t[other]\n";
        let found = helpers(symbols.as_bytes()).unwrap().unwrap();
        assert_eq!(found, [Some(-0x1000), None]);
        let hidden =
            "0000000000000000 t __bpf_call_base\n0000000000000000 T bpf_probe_write_user\n";
        assert_eq!(helpers(hidden.as_bytes()).unwrap(), None);
    }

    #[test]
    fn calls_of_the_kernel_are_distinguished_from_those_of_the_program() {
        let insn = |code: u8, registers: u8, imm: i32| {
            let imm = imm.to_ne_bytes();
            [code, registers, 0, 0, imm[0], imm[1], imm[2], imm[3]]
        };
        let code = [
            insn(0x85, 0x00, -0x1000),
            // A subprogram, a kfunc, an addition.
            insn(0x85, 0x10, 5),
            insn(0x85, 0x20, 6),
            insn(0x07, 0x01, 7),
        ]
        .concat();
        assert_eq!(calls(&code).into_iter().collect::<Vec<_>>(), [-0x1000]);
        assert!(calls(&code[..7]).is_empty());
    }

    #[test]
    fn descriptors_say_what_they_lead_to() {
        let map = "pos:\t0\nflags:\t02000002\nmap_type:\t1\nmap_id:\t17\nfrozen:\t0\n";
        assert_eq!(things_of(map), [Thing::Map(17)]);
        let link = "link_type:\tcgroup\nlink_id:\t4\nprog_tag:\tffff\nprog_id:\t9\n";
        assert_eq!(things_of(link), [Thing::Program(9)]);
        assert!(things_of("pos:\t0\n").is_empty());
    }

    #[test]
    fn one_process_s_descriptors_are_a_share_and_what_is_left_out_is_reported() {
        let me = std::process::id();
        let files: Vec<_> = (0..64).map(|_| fs::File::open("/proc/self/stat")).collect();
        assert!(files.iter().all(Result::is_ok));
        let mut child = std::process::Command::new("sleep")
            .arg("20")
            .spawn()
            .unwrap();
        let pids = [me, child.id()];
        let all = |most, of_one| descriptors(&pids, most, of_one, &mut |_| true);
        // One with many leaves the others theirs.
        let scanned = all(1_000, 16);
        assert_eq!((scanned.cut, scanned.left_at), (Some(me), None));
        let scanned = all(16, 16);
        assert_eq!((scanned.cut, scanned.left_at), (Some(me), Some(child.id())));
        let scanned = all(1_000_000, 100_000);
        assert_eq!((scanned.cut, scanned.left_at), (None, None));
        child.kill().unwrap();
        child.wait().unwrap();
        // Each reason once, and none hides another.
        let (mut scan, mut news) = (Scan::default(), Vec::new());
        for what in [
            Unseen::Programs,
            Unseen::Programs,
            Unseen::ManyPrograms,
            Unseen::DescriptorsOfOne,
            Unseen::DescriptorsOfOne,
        ] {
            scan.unknown(what, "why", &mut news);
        }
        assert_eq!(news.len(), 3);
        assert_eq!(holder(me, 7).start, 7);
    }

    #[test]
    fn what_this_process_starts_is_its_own_until_its_program_begins() {
        let mut child = std::process::Command::new("sleep")
            .arg("20")
            .spawn()
            .unwrap();
        assert!(!is_own_child(child.id()));
        assert!(!is_own_child(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(kind_word(2), Some("kprobe"));
        assert_eq!(kind_word(18), None);
    }
}
