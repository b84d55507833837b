//! What is remembered of each connection between two payloads, in bounds and only for moments.

use super::hits::Hits;
use super::http::RequestHead;
use super::matcher::Matcher;
use super::tail::StreamTail;
use super::tls::{HANDSHAKE, Hello, HelloAssembler, record_header};
use crate::model::{HostName, Payload, Pid};
use std::collections::{BTreeMap, HashMap};

/// Most connections remembered; the longest idle is dropped for a new one.
pub const MAX_STREAMS: usize = 16 * 1024;
/// Most bytes of payload tails in all; the longest idle ones are wiped first.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// A connection idle for this long loses the bytes kept of it: a secret written in two halves further apart
/// is not found, and no secret stays in memory for longer.
pub const WIPE_NS: u64 = 1_000_000_000;
/// A connection idle for this long is forgotten.
pub const DROP_NS: u64 = 30_000_000_000;

/// On which side of the encryption a payload was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Given to a TLS library; `id` is its session pointer.
    Tls,
    /// Given to a socket; `id` is its `struct sock`.
    Socket,
}

/// Names a connection while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    pub pid: Pid,
    pub layer: Layer,
    pub id: u64,
}

/// One captured record of a write.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub boot_ns: u64,
    pub bytes: &'a [u8],
    /// Bytes handed over in the whole call.
    pub total: u64,
    /// Bytes of the call before these; above 0 in continuation records.
    pub offset: u64,
    /// Some bytes of the call after these were not captured, and will not come.
    pub truncated: bool,
}

#[derive(Default)]
struct State {
    tail: StreamTail,
    head: RequestHead,
    hello: HelloAssembler,
    /// Offset at which the call goes on; 0 between calls.
    next: u64,
    /// Place in one of the two queues.
    since: (u64, u64),
    /// Bytes are kept, and counted in `Streams::bytes`.
    kept: usize,
}

impl State {
    fn wipe(&mut self) {
        self.tail.wipe();
        self.head.reset();
        self.hello = HelloAssembler::new();
        self.next = 0;
        self.kept = 0;
    }
}

/// The connections with recent payloads.
#[derive(Default)]
pub struct Streams {
    states: HashMap<StreamKey, State>,
    /// Those with bytes, and those without, by the time of the last payload and its number.
    warm: BTreeMap<(u64, u64), StreamKey>,
    cold: BTreeMap<(u64, u64), StreamKey>,
    bytes: usize,
    count: u64,
    now: u64,
}

impl Streams {
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections remembered.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Payload bytes kept, of all connections.
    pub fn kept_bytes(&self) -> usize {
        self.bytes
    }

    /// What is in the next bytes of a connection. The caller wipes them.
    ///
    /// `hosts` are the names stated in these bytes, or in the head of the request they belong to.
    /// `truncated`: bytes of the call are missing before or after these, or candidates were too many to confirm.
    pub fn on_payload(&mut self, matcher: &Matcher, key: StreamKey, chunk: Chunk<'_>) -> Payload {
        self.expire(chunk.boot_ns);
        let mut state = self.take(&key).unwrap_or_default();
        let hole = chunk.offset != state.next;
        if hole {
            // What was kept is not what comes before these bytes: joined, they might show a secret that never was.
            state.wipe();
        }
        let mut hits = Hits::new();
        matcher.scan(&mut state.tail, chunk.bytes, &mut hits);
        let hosts = host_names(&mut state, key.layer, chunk.bytes);
        let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
        if chunk.truncated {
            state.wipe();
        } else {
            state.next = if end < chunk.total { end } else { 0 };
        }
        let truncated = chunk.truncated || (hole && chunk.offset > 0) || hits.limited();
        self.put(key, state);
        Payload {
            total: chunk.total,
            inspected: chunk.bytes.len() as u64,
            truncated,
            hits: hits.into_vec(),
            hosts,
        }
    }

    /// The connection is over: forgets it and wipes its bytes. To be called as well when a new connection is seen
    /// under a key, because the kernel and the libraries use their pointers again.
    pub fn close(&mut self, key: &StreamKey) {
        self.take(key);
    }

    /// Wipes what is idle for [`WIPE_NS`], drops what is idle for [`DROP_NS`]. To be called on every tick.
    pub fn expire(&mut self, boot_ns: u64) {
        // Records of different CPUs come slightly out of order.
        self.now = self.now.max(boot_ns);
        while let Some((&(since, _), &key)) = self.warm.first_key_value()
            && since.saturating_add(WIPE_NS) <= self.now
        {
            self.cool(&key);
        }
        while let Some((&(since, _), &key)) = self.cold.first_key_value()
            && since.saturating_add(DROP_NS) <= self.now
        {
            self.take(&key);
        }
    }

    /// Wipes a connection's bytes and remembers the rest.
    fn cool(&mut self, key: &StreamKey) {
        let Some(mut state) = self.take(key) else {
            return;
        };
        state.wipe();
        self.cold.insert(state.since, *key);
        self.states.insert(*key, state);
    }

    fn take(&mut self, key: &StreamKey) -> Option<State> {
        let state = self.states.remove(key)?;
        self.warm.remove(&state.since);
        self.cold.remove(&state.since);
        self.bytes = self.bytes.saturating_sub(state.kept);
        Some(state)
    }

    fn put(&mut self, key: StreamKey, mut state: State) {
        while self.states.len() >= MAX_STREAMS {
            let oldest = [self.cold.first_key_value(), self.warm.first_key_value()]
                .into_iter()
                .flatten()
                .min();
            let Some(oldest) = oldest.map(|(_, &key)| key) else {
                break;
            };
            self.take(&oldest);
        }
        self.count += 1;
        state.since = (self.now, self.count);
        state.kept = state.tail.len() + state.head.kept();
        self.bytes += state.kept;
        self.warm.insert(state.since, key);
        self.states.insert(key, state);
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.warm.first_key_value().map(|(_, &key)| key) else {
                break;
            };
            self.cool(&oldest);
        }
    }
}

fn host_names(state: &mut State, layer: Layer, bytes: &[u8]) -> Vec<HostName> {
    let hello = layer == Layer::Socket
        && (state.hello.is_waiting()
            || record_header(bytes).is_some_and(|r| r.content_type == HANDSHAKE));
    if hello {
        match state.hello.push(bytes) {
            Hello::Name(name) => return vec![name],
            Hello::Partial | Hello::Nameless => return Vec::new(),
            Hello::Other => {}
        }
    }
    state.head.push(bytes)
}
