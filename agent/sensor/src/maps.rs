//! The kernel side's maps, typed.

use super::limit::Limit;
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use keytrail_abi::{
    Budget, FileId, Kind, Learn, OutKey, ProcState, ReadKey, SEEN_CLEAN, SelfTest, Watch,
    state::counter,
};
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

macro_rules! pod {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);
        // SAFETY: transparent over a repr(C) struct of integers without padding; every bit pattern is a value.
        unsafe impl Pod for $name {}
    )+};
}

pod! {
    PodFile(FileId), PodWatch(Watch), PodState(ProcState), PodKey(ReadKey), PodSelfTest(SelfTest), PodLearn(Learn),
    PodCounters([u64; counter::COUNT]), PodBudget(Budget), PodOut(OutKey),
}

/// Calls beyond the bound that each program has: no room was missing, and nobody else's were left out.
pub const ATTACH_LIMIT: &str = "process_attach_limit";

/// Records lost since the last question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Name of the record kind, or `process_table` when the table of processes was full, [`ATTACH_LIMIT`], `fanotify`, or
    /// `hook_nested` for calls of a hook that the kernel passed over because the CPU was inside the same one already.
    pub kind: &'static str,
    pub cpu: u32,
    pub count: u64,
}

/// Payloads of a kind that reached a limit, on the whole host since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedTotal {
    pub kind: &'static str,
    pub limit: Limit,
    pub count: u64,
}

/// What a thread of the agent asks about a file, and the answer.
pub struct LearnMap {
    map: Array<MapData, PodLearn>,
    fd: OwnedFd,
}

impl LearnMap {
    /// The map behind a descriptor; `None` if it is another one.
    pub fn of(fd: OwnedFd) -> Option<Self> {
        let map = Map::Array(MapData::from_fd(fd.try_clone().ok()?).ok()?);
        Some(Self {
            map: Array::try_from(map).ok()?,
            fd,
        })
    }

    /// The same map once more.
    ///
    /// # Errors
    /// Without a descriptor.
    pub fn fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Asks for what this thread reads next.
    ///
    /// # Errors
    /// Never, unless the map is not ours.
    pub fn set(&mut self, thread: u64) -> io::Result<()> {
        let learn = Learn {
            thread,
            ..Learn::default()
        };
        self.map
            .set(0, PodLearn(learn), 0)
            .map_err(io::Error::other)
    }

    pub fn get(&self) -> Option<Learn> {
        self.map.get(&0, 0).ok().map(|learn| learn.0)
    }
}

pub struct Maps {
    procs: HashMap<MapData, u32, PodState>,
    watched: HashMap<MapData, PodFile, PodWatch>,
    bits: Array<MapData, u64>,
    seen: HashMap<MapData, PodFile, u64>,
    read_seen: HashMap<MapData, PodKey, u64>,
    counters: PerCpuArray<MapData, PodCounters>,
    self_test: Array<MapData, PodSelfTest>,
    learn: LearnMap,
    waiting: Array<MapData, u32>,
    asks: Array<MapData, u64>,
    budgets: HashMap<MapData, u32, PodBudget>,
    pipe_readers: HashMap<MapData, PodFile, u32>,
    pipe_out: HashMap<MapData, PodOut, PodFile>,
    lost_before: Vec<[u64; counter::COUNT]>,
}

/// A map that is not as these sources say.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("the object has no map {0}")]
    Missing(&'static str),
    #[error("map {0}: {1}")]
    Differs(&'static str, MapError),
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// When the object lacks one or its types differ: it was not built from these sources.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, TakeError> {
        fn typed<T: TryFrom<Map, Error = MapError>>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<T, TakeError> {
            let map = ebpf.take_map(name).ok_or(TakeError::Missing(name))?;
            T::try_from(map).map_err(|error| TakeError::Differs(name, error))
        }
        let learn = match ebpf.map("LEARN") {
            Some(Map::Array(map)) => map.fd().as_fd().try_clone_to_owned().ok(),
            _ => None,
        };
        Ok(Self {
            procs: typed(ebpf, "PROCS")?,
            watched: typed(ebpf, "WATCHED")?,
            bits: typed(ebpf, "WATCHED_BITS")?,
            seen: typed(ebpf, "SEEN")?,
            read_seen: typed(ebpf, "READ_SEEN")?,
            counters: typed(ebpf, "COUNTERS")?,
            self_test: typed(ebpf, "SELF_TEST")?,
            learn: learn
                .and_then(LearnMap::of)
                .ok_or(TakeError::Missing("LEARN"))?,
            waiting: typed(ebpf, "WAITING")?,
            asks: typed(ebpf, "ASKS")?,
            budgets: typed(ebpf, "BUDGETS")?,
            pipe_readers: typed(ebpf, "PIPE_READERS")?,
            pipe_out: typed(ebpf, "PIPE_OUT")?,
            lost_before: Vec::new(),
        })
    }

    pub fn process(&self, tgid: u32) -> Option<ProcState> {
        self.procs.get(&tgid, 0).ok().map(|state| state.0)
    }

    /// False when the table is full.
    pub fn set_process(&mut self, tgid: u32, state: ProcState) -> bool {
        self.procs.insert(tgid, PodState(state), 0).is_ok()
    }

    /// A port of loopback stands for a metadata service; 0: none does. False where that cannot be said.
    pub fn set_own_service(&mut self, port: u16) -> bool {
        let place = keytrail_abi::state::asks::SELF_TEST;
        self.asks.set(place, u64::from(port), 0).is_ok()
    }

    pub fn remove_process(&mut self, tgid: u32) {
        // Gone already: its exit was faster.
        let _ = self.procs.remove(&tgid);
    }

    /// The pipes of a process that ran before anybody looked; inode 0 is none. A full LRU map makes room by itself.
    pub fn set_streams(&mut self, tgid: u32, stdin: FileId, stdout: FileId) {
        if stdin.ino != 0 {
            let _ = self.pipe_readers.insert(PodFile(stdin), tgid, 0);
        }
        if stdout.ino != 0 {
            let key = OutKey { tgid, slot: 0 };
            let _ = self.pipe_out.insert(PodOut(key), PodFile(stdout), 0);
        }
    }

    /// A file in a version that needs no further look.
    pub fn set_clean(&mut self, file: FileId, ctime_ns: u64) {
        // Refused, the file is only inspected again.
        let _ = self.seen.insert(PodFile(file), ctime_ns | SEEN_CLEAN, 0);
    }

    /// All processes with a state.
    pub fn processes(&self) -> Vec<(u32, ProcState)> {
        self.procs
            .iter()
            .filter_map(Result::ok)
            .map(|(tgid, state)| (tgid, state.0))
            .collect()
    }

    /// # Errors
    /// When the table is full.
    pub fn set_watched(&mut self, file: FileId, watch: Watch) -> io::Result<()> {
        self.watched
            .insert(PodFile(file), PodWatch(watch), 0)
            .map_err(io::Error::other)
    }

    pub fn clear_watched(&mut self, file: FileId) {
        let _ = self.watched.remove(&PodFile(file));
    }

    /// # Errors
    /// Never, unless the map is not ours.
    pub fn set_bit(&mut self, (word, mask): (u32, u64), set: bool) -> io::Result<()> {
        let before = self.bits.get(&word, 0).map_err(io::Error::other)?;
        let after = if set { before | mask } else { before & !mask };
        self.bits.set(word, after, 0).map_err(io::Error::other)
    }

    /// Start time (nanoseconds since boot) of the process whose read was reported under this key.
    pub fn read_seen(&self, key: ReadKey) -> Option<u64> {
        self.read_seen.get(&PodKey(key), 0).ok()
    }

    pub fn set_read_seen(&mut self, key: ReadKey, start_ns: u64) {
        // A full LRU map makes room by itself.
        let _ = self.read_seen.insert(PodKey(key), start_ns, 0);
    }

    pub fn self_test(&self) -> Option<SelfTest> {
        self.self_test.get(&0, 0).ok().map(|result| result.0)
    }

    /// Where what is learnt is put, for somebody else.
    ///
    /// # Errors
    /// Without a descriptor.
    pub fn learn_fd(&self) -> io::Result<OwnedFd> {
        self.learn.fd()
    }

    /// Says whether user space waits for a record, so that the next one wakes it.
    ///
    /// # Errors
    /// Never, unless the map is not ours.
    pub fn set_waiting(&mut self, waits: bool) -> io::Result<()> {
        self.waiting
            .set(0, u32::from(waits), 0)
            .map_err(io::Error::other)
    }

    /// What was passed over for want of a budget since the start: kind, limit and count of both.
    pub fn passed_over(&self) -> Vec<PassedTotal> {
        let Ok(values) = self.counters.get(&0, 0) else {
            return Vec::new();
        };
        let sum = |place: usize| values.iter().map(|cpu| cpu.0[place]).sum();
        let mut totals = Vec::new();
        for (first, kind) in [
            (counter::PASSED_SENDS, Kind::SOCK_SEND),
            (counter::PASSED_TLS, Kind::TLS_WRITE),
            (counter::PASSED_UNIX, Kind::UNIX_SEND),
            (counter::PASSED_UDP, Kind::UDP_SEND),
        ] {
            for (place, limit) in (first..).zip(Limit::ALL) {
                totals.push(PassedTotal {
                    kind: Kind::name(kind),
                    limit,
                    count: sum(place),
                });
            }
        }
        totals.push(PassedTotal {
            kind: Kind::name(Kind::FD_WRITE),
            limit: Limit::Writes,
            count: sum(counter::PASSED_WRITES),
        });
        totals
    }

    /// What was captured and passed over, by process.
    pub fn budgets(&self) -> Vec<(u32, Budget)> {
        self.budgets
            .iter()
            .filter_map(Result::ok)
            .map(|(tgid, budget)| (tgid, budget.0))
            .collect()
    }

    /// What was lost since the last call.
    pub fn losses(&mut self) -> Vec<Loss> {
        let Ok(values) = self.counters.get(&0, 0) else {
            return Vec::new();
        };
        let mut losses = Vec::new();
        self.lost_before.resize(values.len(), [0; counter::COUNT]);
        for ((cpu, now), before) in (0..).zip(values.iter()).zip(&mut self.lost_before) {
            let kinds = (0..Kind::COUNT as u16)
                .map(|kind| (counter::LOST + kind as usize, Kind::name(kind)));
            let others = [
                (counter::PROCS_FULL, "process_table"),
                (counter::ATTACH_PASSED, ATTACH_LIMIT),
            ];
            for (place, kind) in kinds.chain(others) {
                let count = now.0[place].saturating_sub(before[place]);
                if count != 0 {
                    losses.push(Loss { kind, cpu, count });
                }
            }
            *before = now.0;
        }
        losses
    }
}
