//! Connections of holders: what left by them, and whether a stronger claim than lineage was made about it.

use super::schedule::Schedule;
use keytrail_model::{Direction, Endpoints, HostName, Payload, Pid, Request, SendSeen, TaskInfo};
use std::collections::{BTreeMap, BTreeSet};

/// How long a connection may turn out to carry the secret itself before it is reported as lineage only.
const LINEAGE_DELAY_NS: u64 = 1_000_000_000;
/// A connection without traffic for this long is forgotten: its socket address may be reused.
pub(super) const IDLE_NS: u64 = 300_000_000_000;
/// Connections kept at most; the oldest keys go first.
const MAX_FLOWS: usize = 32_768;
/// Names kept per connection.
const MAX_HOSTS: usize = 8;
/// Moments of one connection that are told apart by what its process held.
const MAX_MARKS: usize = 16;
/// Ports of processes, and peers they asked for, that are remembered.
const MAX_ASKED: usize = 16_384;

/// One connection of one process.
#[derive(Debug)]
pub struct Flow {
    pub ends: Endpoints,
    pub hosts: Vec<HostName>,
    pub sent_bytes: u64,
    /// Of what was sent in clear or given to a TLS library: what was inspected.
    pub inspected: u64,
    /// A part of that was not captured.
    pub cut: bool,
    /// Who asked for it, where that is known.
    pub direction: Option<Direction>,
    /// The first send after each change of what the process holds, since lineage was last decided.
    marks: Vec<Mark>,
    /// The version of the holdings at the last send.
    version: u64,
    /// The last send that counts for lineage.
    pub sent_ns: u64,
    /// When lineage is decided; `None` when nothing was sent since it was, and nothing was seen.
    due_ns: Option<u64>,
    decided: bool,
    last_ns: u64,
    /// When it is next inspected whether it is idle.
    idle_ns: u64,
    /// Fingerprints already reported on this connection: as observed or identified, and as lineage.
    pub claimed: BTreeSet<String>,
    pub reported: BTreeSet<String>,
    /// Bytes in clear that proofs account for: a proven credential with the words around it.
    pub accounted: u64,
    /// It was seen from its beginning, by a process that held something already: all that was sent on it was reported.
    pub begun: bool,
    /// A TLS handshake was sent.
    pub handshake: bool,
    /// TLS records were sent.
    pub tls: bool,
    /// At least one TLS write on this connection was seen in clear.
    pub hooked: bool,
    /// TLS records with content left before any write of the process to its library was seen.
    pub unseen: bool,
    /// Header fields that refer to what was sent before we looked were in what was given to the library.
    pub undecoded: bool,
    /// Datagrams of a protocol that encrypts were sent.
    pub sealed: bool,
    pub hook: String,
}

/// What had been sent when something else was held than before.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The first send from then on.
    pub at: TaskInfo,
    pub sent_bytes: u64,
    pub inspected: u64,
}

/// So much of a payload with a proven credential is taken for what goes with it: the head of a request.
const AROUND: u64 = 1_024;
/// The same of one that has a body, or of which it is not known.
const WITH_BODY: u64 = 512;
/// What TLS adds to what is sent: its handshake, and less than an eighth for the records.
const HANDSHAKE: u64 = 4_096;

impl Flow {
    fn new(ends: &Endpoints, boot_ns: u64, idle_ns: u64) -> Self {
        Self {
            ends: ends.clone(),
            hosts: Vec::new(),
            sent_bytes: 0,
            inspected: 0,
            cut: false,
            direction: None,
            marks: Vec::new(),
            version: 0,
            sent_ns: 0,
            due_ns: None,
            decided: false,
            last_ns: boot_ns,
            idle_ns,
            claimed: BTreeSet::new(),
            accounted: 0,
            reported: BTreeSet::new(),
            begun: false,
            handshake: false,
            tls: false,
            hooked: false,
            unseen: false,
            undecoded: false,
            sealed: false,
            hook: String::new(),
        }
    }

    /// Notes how much of a payload in clear was inspected.
    pub fn inspect(&mut self, payload: &Payload) {
        self.inspected = self.inspected.saturating_add(payload.inspected);
        self.cut |= payload.truncated;
        self.undecoded |= payload.undecoded.headers > 0;
    }

    /// Notes that credentials were proven in a payload.
    pub fn account(&mut self, payload: &Payload) {
        if payload.hits.is_empty() {
            return;
        }
        let mut asked = payload
            .requests
            .iter()
            .filter(|r| r.status_class == 0)
            .peekable();
        let most = match asked.peek() {
            None => WITH_BODY,
            Some(_) => asked.map(head).sum(),
        };
        self.accounted += payload.inspected.min(most);
    }

    /// Bytes that no proof accounts for. Of a connection whose plaintext is seen what TLS adds is none; a write that could
    /// not be tied to a connection is in its ciphertext all the same.
    pub fn beside(&self) -> u64 {
        let sent = if self.tls && self.hooked {
            let plain = (self.sent_bytes - self.sent_bytes / 8).saturating_sub(HANDSHAKE);
            self.inspected.max(plain)
        } else {
            self.sent_bytes
        };
        sent.saturating_sub(self.accounted)
    }

    pub fn add_hosts(&mut self, hosts: &[HostName]) {
        for host in hosts {
            if self.hosts.len() < MAX_HOSTS && !self.hosts.contains(host) {
                self.hosts.push(host.clone());
            }
        }
    }

    /// Where what was sent begins that somebody sent who held something since `from_ns`; `None` when nothing was sent
    /// since then.
    pub fn since(&self, from_ns: u64) -> Option<Mark> {
        if self.sent_ns < from_ns {
            return None;
        }
        let after = self.marks.iter().find(|m| m.at.boot_ns >= from_ns);
        after.cloned().or_else(|| {
            let mut mark = self.marks.last()?.clone();
            mark.at.boot_ns = self.sent_ns;
            Some(mark)
        })
    }
}

/// Bytes of a request that are not its body, as far as that is known.
fn head(request: &Request) -> u64 {
    match request.content_length {
        Some(length) => request.bytes.saturating_sub(length).min(AROUND),
        None if request.content_type.is_empty() => AROUND,
        None => WITH_BODY,
    }
}

/// Process, socket (see [`place`]), and when the connection was first seen: the kernel uses the addresses of sockets again.
pub type Key = (Pid, u64, u64);

/// Connections in a stable order. Those whose socket was used again stay until lineage is decided.
#[derive(Debug, Default)]
pub struct Flows {
    map: BTreeMap<Key, Flow>,
    /// Which of them something is to be done with, by time: a tick inspects these only.
    schedule: Schedule<Key>,
    /// Peers (address and port) that processes asked for a connection.
    asked: BTreeSet<(Pid, String, u16)>,
    /// The peer that was first seen at a local port, and whether there was another: then the port is one that is
    /// listened on.
    ports: BTreeMap<(Pid, u16), (String, u16, bool)>,
    /// Connections that were forgotten before lineage was decided, because there were too many.
    pub dropped: u64,
}

impl Flows {
    /// The flow of a socket; a socket address used again for another connection starts a new one.
    pub fn entry(&mut self, at: &TaskInfo, ends: &Endpoints) -> &mut Flow {
        self.slot(at, ends).1
    }

    fn slot(&mut self, at: &TaskInfo, ends: &Endpoints) -> (Key, &mut Flow, &mut Schedule<Key>) {
        let key = self.key(at, ends);
        if self.map.len() >= MAX_FLOWS
            && !self.map.contains_key(&key)
            && let Some(first) = self.map.keys().next().copied()
        {
            let undecided = self.remove(first).is_some_and(|f| f.due_ns.is_some());
            self.dropped += u64::from(undecided);
        }
        let schedule = &mut self.schedule;
        let flow = self.map.entry(key).or_insert_with(|| {
            let idle_ns = at.boot_ns.saturating_add(IDLE_NS);
            schedule.idle.insert((idle_ns, key));
            Flow::new(ends, at.boot_ns, idle_ns)
        });
        if flow.ends.local_port == 0 {
            flow.ends = ends.clone();
        }
        flow.last_ns = at.boot_ns;
        (key, flow, schedule)
    }

    /// Under what the flow of a socket is kept from now on.
    fn key(&mut self, at: &TaskInfo, ends: &Endpoints) -> Key {
        let place = place(ends);
        let last = self.of_socket(at.pid, place).next_back();
        match last {
            Some((key, flow)) if same_connection(&flow.ends, ends) => *key,
            Some((key, flow)) => {
                let (old, undecided) = (*key, flow.due_ns.is_some());
                if undecided {
                    self.schedule.replaced.insert(old);
                } else {
                    self.remove(old);
                }
                (at.pid, place, at.boot_ns.max(old.2 + 1))
            }
            None => (at.pid, place, at.boot_ns),
        }
    }

    fn remove(&mut self, key: Key) -> Option<Flow> {
        let flow = self.map.remove(&key)?;
        self.schedule.forget(key, flow.due_ns, flow.idle_ns);
        Some(flow)
    }

    /// A process asked for a connection.
    pub fn asked(&mut self, at: &TaskInfo, ends: &Endpoints) -> &mut Flow {
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_first();
        }
        self.asked
            .insert((at.pid, ends.peer_ip.clone(), ends.peer_port));
        let flow = self.entry(at, ends);
        flow.direction = Some(Direction::Outgoing);
        flow
    }

    /// Did the process ask for a connection to this peer?
    pub fn asked_for(&self, pid: Pid, ends: &Endpoints) -> bool {
        self.asked
            .contains(&(pid, ends.peer_ip.clone(), ends.peer_port))
    }

    /// Notes who asked for the connection of a send, as far as it tells.
    pub fn direct(&mut self, send: &SendSeen) {
        let (pid, ends) = (send.at.pid, &send.ends);
        let asked = self.asked_for(pid, ends);
        // Whoever asked for a connection did not accept it, even if both sides opened it at once.
        let known = asked
            .then_some(Direction::Outgoing)
            .or(send.direction)
            .or(send.hello);
        if known.is_none() && ends.local_port != 0 {
            if self.ports.len() >= MAX_ASKED {
                self.ports.pop_first();
            }
            let first = self
                .ports
                .entry((pid, ends.local_port))
                .or_insert_with(|| (ends.peer_ip.clone(), ends.peer_port, false));
            first.2 |= (&first.0, first.1) != (&ends.peer_ip, ends.peer_port);
        }
        let flow = self.entry(&send.at, ends);
        if asked || send.direction.is_some() || flow.direction.is_none() {
            flow.direction = known.or(flow.direction);
        }
    }

    /// Who asked for a connection, if that is known by now.
    pub fn direction(&self, pid: Pid, flow: &Flow) -> Option<Direction> {
        flow.direction.or_else(|| {
            // Datagrams to several peers leave by one port whoever began.
            if flow.ends.is_udp() {
                return None;
            }
            let (_, _, several) = self.ports.get(&(pid, flow.ends.local_port))?;
            several.then_some(Direction::Accepted)
        })
    }

    pub fn get(&self, key: Key) -> Option<&Flow> {
        self.map.get(&key)
    }

    /// The connection of a process with these ends.
    pub fn with_ends(&mut self, pid: Pid, ends: &Endpoints) -> Option<&mut Flow> {
        let place = place(ends);
        self.map
            .range_mut((pid, place, 0)..=(pid, place, u64::MAX))
            .map(|(_, flow)| flow)
            .rfind(|flow| flow.ends == *ends || ends.is_udp() && same_connection(&flow.ends, ends))
    }

    /// As [`Flows::with_ends`], to inspect.
    pub fn known(&self, pid: Pid, ends: &Endpoints) -> Option<&Flow> {
        self.of_socket(pid, place(ends))
            .map(|(_, flow)| flow)
            .rfind(|flow| flow.ends == *ends || ends.is_udp() && same_connection(&flow.ends, ends))
    }

    fn of_socket(&self, pid: Pid, sock: u64) -> impl DoubleEndedIterator<Item = (&Key, &Flow)> {
        self.map.range((pid, sock, 0)..=(pid, sock, u64::MAX))
    }

    /// Notes that bytes left while the process's holdings had this version: lineage is due when that is news.
    pub fn sent(&mut self, at: &TaskInfo, ends: &Endpoints, bytes: u64, version: u64) -> &mut Flow {
        let (key, flow, schedule) = self.slot(at, ends);
        let news = !flow.decided || flow.version != version;
        if news
            && (flow.marks.is_empty() || flow.version != version)
            && flow.marks.len() < MAX_MARKS
        {
            flow.marks.push(Mark {
                at: at.clone(),
                sent_bytes: flow.sent_bytes,
                inspected: flow.inspected,
            });
        }
        flow.version = version;
        flow.sent_bytes += bytes;
        if news {
            flow.sent_ns = flow.sent_ns.max(at.boot_ns);
            flow.decided = false;
            let due_ns = *flow.due_ns.get_or_insert(at.boot_ns + LINEAGE_DELAY_NS);
            schedule.due.insert((due_ns, key));
        }
        flow
    }

    /// Flows of one process, in socket order.
    pub fn of(&mut self, pid: Pid) -> impl Iterator<Item = &mut Flow> {
        self.map
            .range_mut((pid, 0, 0)..=(pid, u64::MAX, u64::MAX))
            .map(|(_, flow)| flow)
    }

    /// The only connection of a process that carried TLS records, if there is just one.
    pub fn only_tls(&mut self, pid: Pid) -> Option<Endpoints> {
        let mut tls = self.of(pid).filter(|f| f.tls);
        let first = tls.next()?.ends.clone();
        tls.next().is_none().then_some(first)
    }

    /// The keys of the flows whose lineage is to be decided now (all of a process when `only` is set).
    pub fn due(&self, boot_ns: u64, only: Option<Pid>) -> Vec<Key> {
        let keys = |(key, _): (&Key, &Flow)| *key;
        match only {
            Some(pid) => self
                .map
                .range((pid, 0, 0)..=(pid, u64::MAX, u64::MAX))
                .filter(|(_, flow)| flow.due_ns.is_some())
                .map(keys)
                .collect(),
            None => self.schedule.due_by(boot_ns),
        }
    }

    /// Lineage of a flow is decided: it is again when its process sends after it obtained something else.
    pub fn decided(&mut self, key: Key, reported: impl IntoIterator<Item = String>) {
        self.postpone(key);
        if let Some(flow) = self.map.get_mut(&key) {
            flow.decided = true;
            flow.marks.clear();
            flow.reported.extend(reported);
        }
    }

    /// Lineage of a flow is decided with what is sent on it next.
    pub fn postpone(&mut self, key: Key) {
        if let Some(flow) = self.map.get_mut(&key)
            && let Some(due_ns) = flow.due_ns.take()
        {
            self.schedule.due.remove(&(due_ns, key));
        }
    }

    pub fn forget(&mut self, pid: Pid) {
        let keys: Vec<_> = self
            .map
            .range((pid, 0, 0)..=(pid, u64::MAX, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.remove(key);
        }
        let asked: Vec<_> = self
            .asked
            .range((pid, String::new(), 0)..)
            .take_while(|a| a.0 == pid)
            .cloned()
            .collect();
        for peer in asked {
            self.asked.remove(&peer);
        }
        let ports: Vec<_> = self
            .ports
            .range((pid, 0)..=(pid, u16::MAX))
            .map(|(key, _)| *key)
            .collect();
        for port in ports {
            self.ports.remove(&port);
        }
    }

    /// Forgets what is idle, and what has a successor on its socket and is decided.
    pub fn expire(&mut self, boot_ns: u64) {
        let decided = |key: &Key| self.map.get(key).is_none_or(|flow| flow.due_ns.is_none());
        let mut gone: Vec<Key> = self
            .schedule
            .replaced
            .iter()
            .copied()
            .filter(decided)
            .collect();
        for (idle_ns, key) in self.schedule.idle_by(boot_ns) {
            let Some(flow) = self.map.get_mut(&key) else {
                continue;
            };
            let idle = flow.last_ns + IDLE_NS <= boot_ns;
            if idle && flow.due_ns.is_none() {
                gone.push(key);
                continue;
            }
            // What is idle and undecided is inspected again when it is due.
            let again = if idle {
                boot_ns
            } else {
                flow.last_ns + IDLE_NS
            };
            flow.idle_ns = again;
            self.schedule.idle.remove(&(idle_ns, key));
            self.schedule.idle.insert((again, key));
        }
        for key in gone {
            self.remove(key);
        }
    }
}

/// The socket a flow is kept under. One socket may send datagrams to many peers, and many take a new one for each datagram:
/// those are told apart by the peer, under a number that no address of the kernel's is (FNV-1a).
fn place(ends: &Endpoints) -> u64 {
    if !ends.is_udp() {
        return ends.sock;
    }
    let port = ends.peer_port.to_le_bytes();
    let bytes = ends.peer_ip.bytes().chain(port);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 1 | 1
}

/// A connection may be seen before it has a local port; of datagrams it does not matter.
fn same_connection(known: &Endpoints, seen: &Endpoints) -> bool {
    known.peer_ip == seen.peer_ip
        && known.peer_port == seen.peer_port
        && known.is_udp() == seen.is_udp()
        && (known.is_udp() || known.local_port == seen.local_port || known.local_port == 0)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
