//! Records that wait for a file to be inspected: those of one process and of its children stay in order, those of
//! everybody else go on.

use keytrail_abi::FileAccess;
use keytrail_ingest::Inspection;
use keytrail_ingest::decode::{DecodeError, Record, decode};
use keytrail_model::PipeId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// Records, and bytes of them, that may wait in one lane.
const MAX_RECORDS: usize = 8_192;
const MAX_BYTES: usize = 8 << 20;
/// Bytes that may wait in all lanes together.
const MAX_TOTAL: usize = 32 << 20;
/// Longest that a record waits: it holds bytes of a program's memory, which stay no longer than two seconds. Unless one
/// inspection may take longer than that by the configuration.
const MAX_AGE_NS: u64 = 1_800_000_000;
/// Behind that.
const MORE_NS: u64 = 500_000_000;
/// Pipes of processes whose records wait.
const MAX_PIPES: usize = 4_096;

/// A record of its own, kept as it came. Wiped when it is freed, like all of this process's memory.
pub(super) enum Bytes {
    Ring(Box<[u8]>),
    Access(Box<FileAccess>),
}

impl Bytes {
    pub fn decode(&self) -> Result<Record<'_>, DecodeError> {
        match self {
            Self::Ring(bytes) => decode(bytes),
            Self::Access(access) => Ok(Record::File(**access)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ring(bytes) => bytes.len(),
            Self::Access(_) => size_of::<FileAccess>(),
        }
    }
}

/// A record that waits.
pub(super) struct Held {
    pub bytes: Bytes,
    pub hook: Arc<str>,
    pub inspection: Option<Inspection>,
    /// When it came, nanoseconds since boot.
    came_ns: u64,
    /// Its place among all that wait, in the order they came.
    at: u64,
}

impl Held {
    pub fn new(bytes: Bytes, hook: Arc<str>, inspection: Option<Inspection>, came_ns: u64) -> Self {
        Self {
            bytes,
            hook,
            inspection,
            came_ns,
            at: 0,
        }
    }

    fn is_ready(&self) -> bool {
        self.inspection
            .as_ref()
            .is_none_or(|inspection| inspection.verdict().is_some())
    }
}

#[derive(Default)]
struct Lane {
    records: VecDeque<Held>,
    bytes: usize,
    processes: Vec<u32>,
}

/// All lanes.
pub(super) struct Lanes {
    max_age_ns: u64,
    lanes: HashMap<u64, Lane>,
    of_process: HashMap<u32, u64>,
    /// Lanes whose first record waits for this inspection.
    blocked: HashMap<u64, Vec<u64>>,
    /// Lanes whose first record waits for another lane.
    behind: Vec<u64>,
    /// Pipes, and files, that processes whose records wait write to, and the lane.
    pipes: HashMap<PipeId, u64>,
    bytes: usize,
    next: u64,
    came: u64,
}

impl Lanes {
    /// `inspection_ns`: how long one inspection may take.
    pub fn new(inspection_ns: u64) -> Self {
        Self {
            max_age_ns: MAX_AGE_NS.max(inspection_ns.saturating_add(MORE_NS)),
            lanes: HashMap::new(),
            of_process: HashMap::new(),
            blocked: HashMap::new(),
            behind: Vec::new(),
            pipes: HashMap::new(),
            bytes: 0,
            next: 0,
            came: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lane in which records of a process wait.
    pub fn of(&self, tgid: u32) -> Option<u64> {
        self.of_process.get(&tgid).copied()
    }

    /// The lane in which records of a process wait that writes to this pipe, or file.
    pub fn of_pipe(&self, pipe: PipeId) -> Option<u64> {
        let lane = self.pipes.get(&pipe).copied()?;
        self.lanes.contains_key(&lane).then_some(lane)
    }

    /// A process whose records wait writes to this pipe, or file.
    pub fn writes(&mut self, lane: u64, pipe: PipeId) {
        if let Some(known) = self.pipes.get_mut(&pipe) {
            *known = lane;
            return;
        }
        if self.pipes.len() >= MAX_PIPES {
            let lanes = &self.lanes;
            self.pipes.retain(|_, lane| lanes.contains_key(lane));
        }
        if self.pipes.len() < MAX_PIPES {
            self.pipes.insert(pipe, lane);
        }
    }

    /// Opens a lane for a process.
    pub fn open(&mut self, tgid: u32) -> u64 {
        let lane = self.next;
        self.next += 1;
        self.lanes.insert(lane, Lane::default());
        self.join(lane, tgid);
        lane
    }

    /// Records of this process wait in the same lane from now on: a child whose parent's fork waits.
    pub fn join(&mut self, lane: u64, tgid: u32) {
        if self.of_process.insert(tgid, lane) != Some(lane)
            && let Some(lane) = self.lanes.get_mut(&lane)
        {
            lane.processes.push(tgid);
        }
    }

    /// Adds a record. Returns the lane that has to go on without waiting any longer: this one, or where all together have
    /// become too much, the largest, so that one process does not take the place of others.
    pub fn push(&mut self, lane: u64, mut held: Held) -> Option<u64> {
        self.came += 1;
        held.at = self.came;
        let of = self.lanes.get_mut(&lane)?;
        let bytes = held.bytes.len();
        of.bytes += bytes;
        self.bytes += bytes;
        if of.records.is_empty()
            && let Some(inspection) = held.inspection.as_ref().filter(|_| !held.is_ready())
        {
            self.blocked.entry(inspection.id).or_default().push(lane);
        }
        of.records.push_back(held);
        if of.records.len() >= MAX_RECORDS || of.bytes >= MAX_BYTES {
            return Some(lane);
        }
        (self.bytes >= MAX_TOTAL).then(|| self.largest())?
    }

    fn largest(&self) -> Option<u64> {
        let of = self.lanes.iter().map(|(id, lane)| (lane.bytes, *id));
        of.max().map(|(_, lane)| lane)
    }

    /// The lanes that waited for this inspection.
    pub fn decided(&mut self, inspection: u64) -> Vec<u64> {
        self.blocked.remove(&inspection).unwrap_or_default()
    }

    /// Where the first record of a lane stands among all that wait.
    pub fn first(&self, lane: u64) -> Option<u64> {
        let of = self.lanes.get(&lane)?;
        of.records.front().map(|held| held.at)
    }

    /// Lanes whose first record has waited for too long, each behind the place of that.
    pub fn overdue(&self, now: u64) -> BinaryHeap<Reverse<(u64, u64)>> {
        self.firsts_of(|lane| self.is_overdue(lane, now))
    }

    /// Whether the first record of a lane has waited for too long.
    pub fn is_overdue(&self, lane: u64, now: u64) -> bool {
        let first = self.lanes.get(&lane).and_then(|lane| lane.records.front());
        first.is_some_and(|held| held.came_ns.saturating_add(self.max_age_ns) <= now)
    }

    /// All lanes with something in them, each behind the place of its first record.
    pub fn firsts(&self) -> BinaryHeap<Reverse<(u64, u64)>> {
        self.firsts_of(|_| true)
    }

    fn firsts_of(&self, wanted: impl Fn(u64) -> bool) -> BinaryHeap<Reverse<(u64, u64)>> {
        let of = self.lanes.keys().filter(|lane| wanted(**lane));
        of.filter_map(|lane| Some(Reverse((self.first(*lane)?, *lane))))
            .collect()
    }

    /// Records that wait.
    pub fn waiting(&self) -> u64 {
        let of = self.lanes.values();
        of.map(|lane| lane.records.len() as u64).sum()
    }

    /// Whether something waits in a lane that came before this record of another. Two lanes never wait for each other,
    /// because only one of their first records came before the other.
    pub fn is_before(&self, lane: u64, held: &Held) -> bool {
        let first = self.lanes.get(&lane).and_then(|lane| lane.records.front());
        first.is_some_and(|first| first.at < held.at)
    }

    /// A lane whose first record waits for another lane.
    pub fn wait_behind(&mut self, lane: u64) {
        if !self.behind.contains(&lane) {
            self.behind.push(lane);
        }
    }

    /// Those that waited for other lanes, to be tried again.
    pub fn behind(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.behind)
    }

    /// The next record of a lane, if it waits for nothing, or whatever it waits for when `force` is set. A lane without
    /// any is closed.
    pub fn pop(&mut self, lane: u64, force: bool) -> Option<Held> {
        let of = self.lanes.get_mut(&lane)?;
        let Some(first) = of.records.front() else {
            self.close(lane);
            return None;
        };
        if !force && !first.is_ready() {
            if let Some(inspection) = &first.inspection {
                let blocked = self.blocked.entry(inspection.id).or_default();
                if !blocked.contains(&lane) {
                    blocked.push(lane);
                }
            }
            return None;
        }
        let held = of.records.pop_front()?;
        of.bytes -= held.bytes.len();
        self.bytes -= held.bytes.len();
        Some(held)
    }

    /// Puts a record back that waits again.
    pub fn push_front(&mut self, lane: u64, held: Held) {
        if let Some(of) = self.lanes.get_mut(&lane) {
            of.bytes += held.bytes.len();
            self.bytes += held.bytes.len();
            of.records.push_front(held);
        }
    }

    fn close(&mut self, lane: u64) {
        let Some(of) = self.lanes.remove(&lane) else {
            return;
        };
        if self.lanes.is_empty() {
            self.pipes.clear();
        }
        for tgid in of.processes {
            if self.of_process.get(&tgid) == Some(&lane) {
                self.of_process.remove(&tgid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(size: usize) -> Held {
        Held::new(Bytes::Ring(vec![0; size].into()), "h".into(), None, 7)
    }

    fn sizes(lanes: &mut Lanes, lane: u64) -> Vec<usize> {
        std::iter::from_fn(|| lanes.pop(lane, true))
            .map(|held| held.bytes.len())
            .collect()
    }

    #[test]
    fn children_wait_behind_their_parent_and_others_do_not() {
        let mut lanes = Lanes::new(1_000_000_000);
        let lane = lanes.open(7);
        assert_eq!(lanes.push(lane, held(1)), None);
        lanes.join(lane, 8);
        assert_eq!(
            (lanes.of(7), lanes.of(8), lanes.of(9)),
            (Some(lane), Some(lane), None)
        );
        assert_eq!(lanes.push(lane, held(2)), None);
        assert_eq!(sizes(&mut lanes, lane), [1, 2]);
        assert!(lanes.is_empty() && lanes.of(7).is_none() && lanes.of(8).is_none());
    }

    #[test]
    fn a_lane_waits_for_what_came_before_it_in_another() {
        let mut lanes = Lanes::new(1_000_000_000);
        let (writer, reader) = (lanes.open(7), lanes.open(8));
        lanes.push(reader, held(1));
        lanes.push(writer, held(2));
        lanes.push(reader, held(3));
        // What the reader did before the writer's first does not wait for it.
        let firsts = |lanes: &Lanes| lanes.firsts().pop().map(|Reverse((_, lane))| lane);
        assert_eq!(firsts(&lanes), Some(reader));
        let before = lanes.pop(reader, false).unwrap();
        assert!(!lanes.is_before(writer, &before));
        let after = lanes.pop(reader, false).unwrap();
        assert!(lanes.is_before(writer, &after));
        lanes.push_front(reader, after);
        lanes.wait_behind(reader);
        lanes.wait_behind(reader);
        assert_eq!(firsts(&lanes), Some(writer));
        assert_eq!(lanes.waiting(), 2);
        // And never the other way round.
        let first = lanes.pop(writer, false).unwrap();
        assert!(!lanes.is_before(reader, &first));
        assert!(sizes(&mut lanes, writer).is_empty());
        assert_eq!((lanes.behind(), lanes.behind()), (vec![reader], vec![]));
        let after = lanes.pop(reader, false).unwrap();
        assert!(!lanes.is_before(writer, &after));
    }

    #[test]
    fn who_has_waited_for_too_long_is_named() {
        let mut lanes = Lanes::new(1_000_000_000);
        let lane = lanes.open(7);
        lanes.push(lane, held(1));
        let late = 7 + MAX_AGE_NS;
        assert!(lanes.overdue(late - 1).is_empty());
        let other = lanes.open(8);
        lanes.push(other, held(1));
        // The first that came is the first to go on.
        let first = lanes.overdue(late).pop();
        assert_eq!(first.map(|Reverse((_, lane))| lane), Some(lane));
        assert_eq!(lanes.overdue(late).len(), 2);
        // Put back it is as old as before.
        let first = lanes.pop(lane, true).unwrap();
        assert!(!lanes.is_overdue(lane, late));
        lanes.push_front(lane, first);
        assert!(lanes.is_overdue(lane, late));
        // Who lets an inspection take longer lets records wait longer.
        assert!(Lanes::new(60_000_000_000).max_age_ns > 60_000_000_000);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut lanes = Lanes::new(1_000_000_000);
        let lane = lanes.open(7);
        assert!((1..MAX_RECORDS).all(|_| lanes.push(lane, held(8)).is_none()));
        assert_eq!(lanes.push(lane, held(8)), Some(lane));
        assert_eq!(sizes(&mut lanes, lane).len(), MAX_RECORDS);
        // Few large ones.
        let lane = lanes.open(7);
        assert_eq!(lanes.push(lane, held(MAX_BYTES)), Some(lane));
        sizes(&mut lanes, lane);
        // Many lanes together: whoever has the most goes on, not who comes last.
        let small = lanes.open(8);
        assert_eq!(lanes.push(small, held(1)), None);
        let large: Vec<u64> = (0..MAX_TOTAL / MAX_BYTES)
            .map(|tgid| lanes.open(100 + tgid as u32))
            .collect();
        for lane in &large {
            assert_eq!(lanes.push(*lane, held(MAX_BYTES - 1)), None);
        }
        let over = lanes.push(small, held(8));
        assert!(over.is_some_and(|over| large.contains(&over)), "{over:?}");
    }

    #[test]
    fn a_pid_that_was_given_again_follows_its_new_parent() {
        let mut lanes = Lanes::new(1_000_000_000);
        let (old, new) = (lanes.open(7), lanes.open(8));
        lanes.push(old, held(1));
        lanes.push(new, held(1));
        lanes.join(new, 7);
        assert_eq!(sizes(&mut lanes, old), [1]);
        assert_eq!(lanes.of(7), Some(new));
    }
}
