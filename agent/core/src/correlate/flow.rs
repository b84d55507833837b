//! Connections of holders: what left by them, and whether a stronger claim than lineage was made about it.

use keytrail_model::{Ends, HostName, Payload, Pid, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// How long a connection may turn out to carry the secret itself before it is reported as lineage only.
const LINEAGE_DELAY_NS: u64 = 1_000_000_000;
/// A connection without traffic for this long is forgotten: its socket address may be reused.
const IDLE_NS: u64 = 300_000_000_000;
/// Connections kept at most; the oldest keys go first.
const MAX_FLOWS: usize = 32_768;
/// Names kept per connection.
const MAX_HOSTS: usize = 8;

/// One connection of one process.
#[derive(Debug)]
pub struct Flow {
    pub ends: Ends,
    pub hosts: Vec<HostName>,
    /// Who sent first.
    pub at: Stamp,
    pub sent_bytes: u64,
    /// Of what was sent in clear or given to a TLS library: what was looked into.
    pub inspected: u64,
    /// A part of that was not captured.
    pub cut: bool,
    /// When lineage is decided; `None` when nothing was sent yet or it is decided.
    due_ns: Option<u64>,
    decided: bool,
    last_ns: u64,
    /// Fingerprints already reported as observed or identified on this connection.
    pub claimed: BTreeSet<String>,
    /// It was seen from its beginning, by a process that held something already: all that was sent on it was told.
    pub begun: bool,
    /// A TLS handshake was sent.
    pub handshake: bool,
    /// TLS records were sent.
    pub tls: bool,
    /// At least one TLS write on this connection was seen in clear.
    pub hooked: bool,
    pub hook: String,
}

impl Flow {
    /// Notes how much of a payload in clear was looked into.
    pub fn inspect(&mut self, payload: &Payload) {
        self.inspected = self.inspected.saturating_add(payload.inspected);
        self.cut |= payload.truncated;
    }

    pub fn add_hosts(&mut self, hosts: &[HostName]) {
        for host in hosts {
            if self.hosts.len() < MAX_HOSTS && !self.hosts.contains(host) {
                self.hosts.push(host.clone());
            }
        }
    }
}

/// Process, socket, and when the connection was first seen: the kernel uses the addresses of sockets again.
pub type Key = (Pid, u64, u64);

/// Connections in a stable order. Those whose socket was used again stay until lineage is decided.
#[derive(Debug, Default)]
pub struct Flows {
    map: BTreeMap<Key, Flow>,
    /// Connections that were forgotten before lineage was decided, because there were too many.
    pub dropped: u64,
}

impl Flows {
    /// The flow of a socket; a socket address used again for another connection starts a new one.
    pub fn entry(&mut self, at: &Stamp, ends: &Ends) -> &mut Flow {
        let last = self.of_socket(at.pid, ends.sock).next_back();
        let key = match last {
            Some((key, flow)) if same_connection(&flow.ends, ends) => *key,
            Some((key, flow)) => {
                let old = (*key, flow.due_ns.is_some());
                if !old.1 {
                    self.map.remove(&old.0);
                }
                (at.pid, ends.sock, at.boot_ns.max(old.0.2 + 1))
            }
            None => (at.pid, ends.sock, at.boot_ns),
        };
        if self.map.len() >= MAX_FLOWS && !self.map.contains_key(&key) {
            let undecided = self
                .map
                .pop_first()
                .is_some_and(|(_, f)| f.due_ns.is_some());
            self.dropped += u64::from(undecided);
        }
        let flow = self.map.entry(key).or_insert_with(|| Flow {
            ends: ends.clone(),
            hosts: Vec::new(),
            at: at.clone(),
            sent_bytes: 0,
            inspected: 0,
            cut: false,
            due_ns: None,
            decided: false,
            last_ns: at.boot_ns,
            claimed: BTreeSet::new(),
            begun: false,
            handshake: false,
            tls: false,
            hooked: false,
            hook: String::new(),
        });
        if flow.ends.local_port == 0 {
            flow.ends = ends.clone();
        }
        flow.last_ns = at.boot_ns;
        flow
    }

    pub fn get(&self, key: Key) -> Option<&Flow> {
        self.map.get(&key)
    }

    /// The connection of a process with these ends.
    pub fn with_ends(&mut self, pid: Pid, ends: &Ends) -> Option<&mut Flow> {
        let sock = ends.sock;
        self.map
            .range_mut((pid, sock, 0)..=(pid, sock, u64::MAX))
            .map(|(_, flow)| flow)
            .rfind(|flow| flow.ends == *ends)
    }

    fn of_socket(&self, pid: Pid, sock: u64) -> impl DoubleEndedIterator<Item = (&Key, &Flow)> {
        self.map.range((pid, sock, 0)..=(pid, sock, u64::MAX))
    }

    /// Notes that bytes left: from now on lineage is due.
    pub fn sent(&mut self, at: &Stamp, ends: &Ends, bytes: u64) -> &mut Flow {
        let flow = self.entry(at, ends);
        flow.sent_bytes += bytes;
        if flow.due_ns.is_none() && !flow.decided {
            flow.due_ns = Some(at.boot_ns + LINEAGE_DELAY_NS);
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
    pub fn only_tls(&mut self, pid: Pid) -> Option<Ends> {
        let mut tls = self.of(pid).filter(|f| f.tls);
        let first = tls.next()?.ends.clone();
        tls.next().is_none().then_some(first)
    }

    /// Takes the keys of the flows whose lineage is to be decided now (all of a process when `only` is set).
    pub fn due(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<Key> {
        let mut out = Vec::new();
        for (key, flow) in &mut self.map {
            let ripe = match only {
                Some(pid) => key.0 == pid && flow.due_ns.is_some(),
                None => flow.due_ns.is_some_and(|due| due <= boot_ns),
            };
            if ripe {
                flow.due_ns = None;
                flow.decided = true;
                out.push(*key);
            }
        }
        out
    }

    pub fn forget(&mut self, pid: Pid) {
        let keys: Vec<_> = self
            .map
            .range((pid, 0, 0)..=(pid, u64::MAX, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.map.remove(&key);
        }
    }

    /// Forgets what is idle, and what has a successor on its socket and is decided.
    pub fn expire(&mut self, boot_ns: u64) {
        let mut later: Option<(Pid, u64)> = None;
        let mut gone = Vec::new();
        for (key, flow) in self.map.iter().rev() {
            let replaced = later == Some((key.0, key.1));
            later = Some((key.0, key.1));
            if flow.due_ns.is_none() && (replaced || flow.last_ns + IDLE_NS <= boot_ns) {
                gone.push(*key);
            }
        }
        for key in gone {
            self.map.remove(&key);
        }
    }
}

/// A connection may be seen before it has a local port.
fn same_connection(known: &Ends, seen: &Ends) -> bool {
    known.peer_ip == seen.peer_ip
        && known.peer_port == seen.peer_port
        && (known.local_port == seen.local_port || known.local_port == 0)
}
