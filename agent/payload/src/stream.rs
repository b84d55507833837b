//! What is remembered of each connection between two payloads, in bounds and only for moments.

use super::ages::WIPE_NS;
use super::hits::Hits;
use super::matcher::Matcher;
use super::presented::Unknown;
use super::sink::Sink;
use super::tail::StreamTail;
use super::talk::Talk;
use super::tls::{HANDSHAKE, Hello, HelloAssembler, RECORD_HEADER, RecordHeader, record_header};
use keytrail_model::{Direction, Hit, IdentifiedBy, Payload, Pid};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Most connections remembered; the longest idle is dropped for a new one.
pub const MAX_STREAMS: usize = 16 * 1024;
/// Most bytes of payload tails in all; the longest idle ones are wiped first.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// A connection idle for this long is forgotten.
pub const DROP_NS: u64 = 30_000_000_000;
/// The same for one whose next bytes cannot be read without what was said before, such as HTTP/2.
pub const DROP_LASTING_NS: u64 = 900_000_000_000;
/// Most bytes of what is remembered of such connections; the longest idle ones are forgotten first.
pub const MAX_HELD: usize = 32 * 1024 * 1024;

/// TLS records reported for one send.
const MAX_RECORDS: usize = 8;

/// Signatures that are verified at once at most, and how long one more takes: at about 40 µs each, 1 % of a processor.
const MAX_SIGNATURES: u32 = 256;
const SIGNATURE_NS: u64 = 4_000_000;

/// On which side of the encryption a payload was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Given to a TLS library; `id` is its session pointer.
    Tls,
    /// Given to a socket; `id` is its `struct sock`.
    Socket,
    /// Written to a file, a pipe or a terminal; `id` is its inode, and `ends` begin with its device.
    Written,
}

/// Names a connection while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    pub pid: Pid,
    pub layer: Layer,
    pub id: u64,
    /// Peer, its port and ours: a socket used again for another connection is another stream.
    pub ends: ([u8; 16], u16, u16),
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

impl<'a> Chunk<'a> {
    /// A call of which all was captured.
    pub fn whole(boot_ns: u64, bytes: &'a [u8]) -> Self {
        Self {
            boot_ns,
            bytes,
            total: bytes.len() as u64,
            offset: 0,
            truncated: false,
        }
    }
}

#[derive(Default)]
struct State {
    talk: Talk,
    hello: HelloAssembler,
    /// Offset at which the call goes on; 0 between calls.
    next: u64,
    /// The record that the last send left unfinished: its type, and how many bytes of it are to come.
    record: (u8, u64),
    /// The call that goes on consists of TLS records; offset of the next header in it, as far as the headers tell.
    cipher: bool,
    header: u64,
    /// When its texts were last inspected for old bytes.
    aged_ns: u64,
    /// Place in one of the queues.
    since: (u64, u64),
    /// Bytes are kept, and counted in `Streams::bytes`.
    kept: usize,
    /// The same for what is no secret and stays, in `Streams::held`.
    held: usize,
}

impl State {
    fn wipe(&mut self) {
        self.talk.wipe();
        self.hello = HelloAssembler::new();
        self.next = 0;
        self.kept = 0;
    }

    /// Bytes are missing before the next ones: joined, they might show what never was. How many is known or not.
    fn break_off(&mut self, missing: Option<u64>, sink: &mut Sink<'_>) {
        self.talk.skip(missing, sink);
        self.hello = HelloAssembler::new();
        self.next = 0;
        self.record = (0, 0);
    }

    /// Where the next bytes of the call are expected to begin.
    fn advance(&mut self, chunk: &Chunk<'_>) {
        let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
        self.next = if end < chunk.total && !chunk.truncated {
            end
        } else {
            0
        };
    }
}

/// What one send on a socket turned out to be.
#[derive(Debug, Default)]
pub struct Sent {
    pub payload: Payload,
    /// The TLS records that begin in it, as far as they were captured. A send that only goes on with a record begun
    /// before has one entry, of length 0.
    pub records: Vec<RecordHeader>,
    /// More of a call that consists of TLS records: offset of the first of these in the call.
    pub goes_on: Option<u64>,
    /// A handshake begins: a client's hello, on a connection it asked for, or a server's.
    pub hello: Option<Direction>,
}

/// The connections with recent payloads.
#[derive(Default)]
pub struct Streams {
    /// Boxed: each payload takes its connection's out and puts it back, and a state is large.
    states: BTreeMap<StreamKey, Box<State>>,
    /// Those with bytes, those without, and those without that are remembered longer, by the time of the last payload and its number.
    warm: BTreeMap<(u64, u64), StreamKey>,
    cold: BTreeMap<(u64, u64), StreamKey>,
    lasting: BTreeMap<(u64, u64), StreamKey>,
    bytes: usize,
    held: usize,
    count: u64,
    now: u64,
    /// Signatures that may be verified now, and since when that many.
    signatures: u32,
    signatures_ns: u64,
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

    /// What is in the next clear bytes of a connection. The caller wipes them.
    ///
    /// `hosts` are the names stated in these bytes, or in the head of the request they belong to.
    /// `truncated`: bytes of the call are missing before or after these, or candidates were too many to confirm.
    pub fn on_payload(&mut self, matcher: &Matcher, key: StreamKey, chunk: Chunk<'_>) -> Payload {
        self.on_payload_with(matcher, key, chunk, None)
    }

    /// The same, and `unknown` is asked about credentials in it that may not be known.
    pub fn on_payload_with<'a>(
        &mut self,
        matcher: &'a Matcher,
        key: StreamKey,
        chunk: Chunk<'_>,
        unknown: Option<&'a mut dyn Unknown>,
    ) -> Payload {
        self.expire(chunk.boot_ns);
        let mut state = self.take(&key).unwrap_or_default();
        self.allow_signatures();
        let payload = clear(matcher, &mut state, chunk, &mut self.signatures, unknown);
        self.put(key, state);
        payload
    }

    fn allow_signatures(&mut self) {
        let more = self.now.saturating_sub(self.signatures_ns) / SIGNATURE_NS;
        if self.signatures_ns == 0 || more >= u64::from(MAX_SIGNATURES) {
            (self.signatures, self.signatures_ns) = (MAX_SIGNATURES, self.now);
        } else {
            self.signatures = (self.signatures + more as u32).min(MAX_SIGNATURES);
            self.signatures_ns += more * SIGNATURE_NS;
        }
    }

    /// What is in the next bytes of a socket. This is the one place that tells TLS records from clear bytes: records,
    /// also those that a send only goes on with, never reach the matcher. All other bytes do, on whatever connection:
    /// one record must not blind us for what follows in clear.
    pub fn on_send(&mut self, matcher: &Matcher, key: StreamKey, chunk: Chunk<'_>) -> Sent {
        self.on_send_with(matcher, key, chunk, None)
    }

    /// The same, and `unknown` is asked about credentials in it that may not be known.
    pub fn on_send_with<'a>(
        &mut self,
        matcher: &'a Matcher,
        key: StreamKey,
        chunk: Chunk<'_>,
        unknown: Option<&'a mut dyn Unknown>,
    ) -> Sent {
        self.expire(chunk.boot_ns);
        let mut state = self.take(&key).unwrap_or_default();
        let mut sent = Sent::default();
        if chunk.offset == 0 {
            sent.records = records(&mut state, &chunk);
            state.cipher = !sent.records.is_empty();
        } else if state.cipher {
            sent.goes_on = Some(state.header);
            sent.records = more_records(&mut state, &chunk);
        }
        if state.cipher {
            sent.payload.hits = shown(matcher, &chunk);
            ciphertext(&mut state, chunk, &mut sent);
        } else {
            self.allow_signatures();
            sent.payload = clear(matcher, &mut state, chunk, &mut self.signatures, unknown);
        }
        self.put(key, state);
        sent
    }

    /// What is in a text that goes on with nothing and that nothing goes on with.
    pub fn alone(matcher: &Matcher, bytes: &[u8]) -> Vec<Hit> {
        let chunk = Chunk::whole(0, bytes);
        let mut state = State::default();
        let payload = clear(matcher, &mut state, chunk, &mut 0, None);
        state.wipe();
        payload.hits
    }

    /// The connection is over: forgets it and wipes its bytes. To be called as well when a new connection is seen
    /// under a key, because the kernel and the libraries use their pointers again.
    pub fn close(&mut self, key: &StreamKey) {
        self.take(key);
    }

    /// Payloads of the connection were not captured: the next one goes on with none that is remembered.
    pub fn interrupt(&mut self, key: &StreamKey) {
        let mut state = self.take(key).unwrap_or_default();
        state.talk.forget();
        state.hello = HelloAssembler::new();
        state.next = 0;
        state.record = (0, 0);
        self.put(*key, state);
    }

    /// A connection begins on this socket.
    pub fn close_socket(&mut self, pid: Pid, sock: u64) {
        self.close_all(pid, Layer::Socket, sock..=sock);
    }

    /// A TLS handshake begins in this process, or its program was replaced: what comes under a session's pointer may be
    /// another session.
    pub fn close_sessions(&mut self, pid: Pid) {
        self.close_all(pid, Layer::Tls, 0..=u64::MAX);
    }

    /// The process is gone.
    pub fn close_process(&mut self, pid: Pid) {
        self.close_all(pid, Layer::Tls, 0..=u64::MAX);
        self.close_all(pid, Layer::Socket, 0..=u64::MAX);
        self.close_all(pid, Layer::Written, 0..=u64::MAX);
    }

    fn close_all(&mut self, pid: Pid, layer: Layer, ids: RangeInclusive<u64>) {
        let bound = |id, ends| StreamKey {
            pid,
            layer,
            id,
            ends,
        };
        let first = bound(*ids.start(), ([0; 16], 0, 0));
        let last = bound(*ids.end(), ([u8::MAX; 16], u16::MAX, u16::MAX));
        let keys: Vec<_> = self.states.range(first..=last).map(|(k, _)| *k).collect();
        for key in keys {
            self.take(&key);
        }
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
        while let Some((&(since, _), &key)) = self.lasting.first_key_value()
            && since.saturating_add(DROP_LASTING_NS) <= self.now
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
        let queue = if state.talk.is_lasting() {
            &mut self.lasting
        } else {
            &mut self.cold
        };
        queue.insert(state.since, *key);
        state.held = state.talk.held();
        self.held += state.held;
        self.states.insert(*key, state);
    }

    fn take(&mut self, key: &StreamKey) -> Option<Box<State>> {
        let state = self.states.remove(key)?;
        self.warm.remove(&state.since);
        self.cold.remove(&state.since);
        self.lasting.remove(&state.since);
        self.bytes = self.bytes.saturating_sub(state.kept);
        self.held = self.held.saturating_sub(state.held);
        Some(state)
    }

    fn put(&mut self, key: StreamKey, mut state: Box<State>) {
        while self.states.len() >= MAX_STREAMS {
            let Some(oldest) = self.oldest() else { break };
            self.take(&oldest);
        }
        self.count += 1;
        state.since = (self.now, self.count);
        state.kept = state.talk.kept();
        state.held = state.talk.held();
        self.bytes += state.kept;
        self.held += state.held;
        self.warm.insert(state.since, key);
        self.states.insert(key, state);
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.warm.first_key_value().map(|(_, &key)| key) else {
                break;
            };
            self.cool(&oldest);
        }
        while self.held > MAX_HELD {
            let Some(oldest) = self.oldest_lasting() else {
                break;
            };
            self.take(&oldest);
        }
    }

    /// The connection that is idle for the longest time.
    fn oldest(&self) -> Option<StreamKey> {
        [&self.cold, &self.warm, &self.lasting]
            .into_iter()
            .filter_map(|queue| queue.first_key_value())
            .min()
            .map(|(_, &key)| key)
    }

    fn oldest_lasting(&self) -> Option<StreamKey> {
        let first = self.lasting.first_key_value();
        first
            .or_else(|| self.warm.first_key_value())
            .map(|(_, &key)| key)
    }
}

/// Whose certificate a client shows in its handshake: up to TLS 1.2 it goes in clear (RFC 5246 section 7.4.6), and begins
/// the client's second flight. A server's comes behind its hello.
fn shown(matcher: &Matcher, chunk: &Chunk<'_>) -> Vec<Hit> {
    const CERTIFICATE: u8 = 11;
    let is_one = matches!(chunk.bytes, [HANDSHAKE, 3, 0..=3, _, _, CERTIFICATE, ..]);
    if !is_one || chunk.offset != 0 || matcher.is_empty() {
        return Vec::new();
    }
    let mut hits = Hits::new();
    matcher.scan(&mut StreamTail::new(), chunk.bytes, &mut hits);
    hits.only_keys(IdentifiedBy::ClientCertificate);
    hits.into_vec()
}

/// Scans clear bytes.
fn clear<'a>(
    matcher: &'a Matcher,
    state: &mut State,
    chunk: Chunk<'_>,
    signatures: &mut u32,
    unknown: Option<&'a mut (dyn Unknown + 'a)>,
) -> Payload {
    let mut sink = Sink::new(matcher, state.talk.credit);
    sink.unknown = unknown;
    sink.signatures = *signatures;
    sink.now = chunk.boot_ns;
    if state.aged_ns.saturating_add(WIPE_NS / 10) <= sink.now {
        // Others of its texts may be in the middle of something, and get no bytes.
        state.talk.expire(sink.now);
        state.aged_ns = sink.now;
    }
    let hole = chunk.offset != state.next;
    if hole {
        // Inside one call it is known how many bytes are missing.
        let missing = chunk.offset.checked_sub(state.next);
        state.break_off(missing.filter(|_| state.next > 0), &mut sink);
    }
    let bytes = chunk.bytes;
    sink.credit.earn(bytes.len());
    let goes_on = state
        .talk
        .push(bytes, chunk.offset == 0, chunk.total, &mut sink);
    let continues = hole || goes_on;
    state.advance(&chunk);
    if chunk.truncated {
        // What an identifier at the end goes on with will never be known.
        sink.hits.drop_open();
        let end = chunk.offset.saturating_add(bytes.len() as u64);
        state.break_off(chunk.total.checked_sub(end), &mut sink);
    } else if state.talk.message_ended() {
        sink.hits.resolve_all();
    }
    state.talk.credit = sink.credit;
    *signatures = sink.signatures;
    let limited = sink.hits.limited();
    Payload {
        total: chunk.total,
        inspected: bytes.len() as u64,
        truncated: chunk.truncated || (hole && chunk.offset > 0) || limited,
        hits: sink.hits.into_vec(),
        hosts: sink.hosts,
        continues,
        requests: sink.requests,
        undecoded: sink.undecoded,
    }
}

/// The TLS records that begin in this send, or the one it goes on with; none when it is not TLS.
fn records(state: &mut State, chunk: &Chunk<'_>) -> Vec<RecordHeader> {
    let (content_type, left) = std::mem::take(&mut state.record);
    state.header = chunk.total;
    let mut at = left;
    if left > 0 && left >= chunk.total {
        state.record = (content_type, left - chunk.total);
        return vec![RecordHeader {
            content_type,
            length: 0,
        }];
    }
    if left > 0 && header_at(chunk.bytes, left).is_none() {
        // No record follows where one should: the bytes speak for themselves.
        at = 0;
    }
    if header_at(chunk.bytes, at).is_none() {
        return Vec::new();
    }
    state.header = at;
    from_header(state, chunk)
}

/// The TLS records that begin in what a call goes on with: pieces of a writev.
fn more_records(state: &mut State, chunk: &Chunk<'_>) -> Vec<RecordHeader> {
    if chunk.offset == state.next && chunk.offset <= state.header {
        from_header(state, chunk)
    } else {
        // Bytes are missing, or a header lies across: where the next one is cannot be determined.
        state.header = chunk.total;
        Vec::new()
    }
}

/// Records from the next header on.
fn from_header(state: &mut State, chunk: &Chunk<'_>) -> Vec<RecordHeader> {
    let mut found = Vec::new();
    while found.len() < MAX_RECORDS
        && let Some(header) = header_at(chunk.bytes, state.header - chunk.offset)
    {
        state.header += RECORD_HEADER as u64 + u64::from(header.length);
        found.push(header);
        if state.header > chunk.total {
            state.record = (header.content_type, state.header - chunk.total);
        }
    }
    found
}

fn header_at(bytes: &[u8], at: u64) -> Option<RecordHeader> {
    record_header(bytes.get(usize::try_from(at).ok()?..)?)
}

/// TLS records are of use for the name in a ClientHello only.
fn ciphertext(state: &mut State, chunk: Chunk<'_>, sent: &mut Sent) {
    state.talk.forget();
    let first = sent.records.first();
    let begins = first.is_some_and(|r| r.content_type == HANDSHAKE && r.length > 0);
    sent.payload.total = chunk.total;
    if begins {
        // Type of the handshake message: 1 ClientHello, 2 ServerHello (RFC 8446 section 4).
        sent.hello = match chunk.bytes.get(RECORD_HEADER) {
            Some(1) => Some(Direction::Outgoing),
            Some(2) => Some(Direction::Accepted),
            _ => None,
        };
    }
    if (begins || state.hello.is_waiting())
        && let Hello::Name(name) = state.hello.push(chunk.bytes)
    {
        sent.payload.hosts.push(name);
    }
    state.advance(&chunk);
}
