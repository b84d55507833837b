//! Connections of holders: what left by them, and whether a stronger claim than lineage was made about it.

use crate::model::{Ends, HostName, Pid, Stamp};
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
    /// When lineage is decided; `None` when nothing was sent yet or it is decided.
    due_ns: Option<u64>,
    decided: bool,
    last_ns: u64,
    /// Fingerprints already reported as observed or identified on this connection.
    pub claimed: BTreeSet<String>,
    /// TLS records were sent.
    pub tls: bool,
    /// At least one TLS write on this connection was seen in clear.
    pub hooked: bool,
    pub hook: String,
}

impl Flow {
    pub fn add_hosts(&mut self, hosts: &[HostName]) {
        for host in hosts {
            if self.hosts.len() < MAX_HOSTS && !self.hosts.contains(host) {
                self.hosts.push(host.clone());
            }
        }
    }
}

/// Connections by process and socket, in a stable order.
#[derive(Debug, Default)]
pub struct Flows {
    map: BTreeMap<(Pid, u64), Flow>,
}

impl Flows {
    /// The flow of a socket; a socket address reused for another peer starts a new one.
    pub fn entry(&mut self, at: &Stamp, ends: &Ends) -> &mut Flow {
        let key = (at.pid, ends.sock);
        let stale = self.map.get(&key).is_some_and(|f| {
            f.ends.peer_ip != ends.peer_ip
                || f.ends.peer_port != ends.peer_port
                || (f.ends.local_port != ends.local_port && f.ends.local_port != 0)
        });
        if stale {
            self.map.remove(&key);
        }
        if self.map.len() >= MAX_FLOWS && !self.map.contains_key(&key) {
            self.map.pop_first();
        }
        let flow = self.map.entry(key).or_insert_with(|| Flow {
            ends: ends.clone(),
            hosts: Vec::new(),
            at: at.clone(),
            sent_bytes: 0,
            due_ns: None,
            decided: false,
            last_ns: at.boot_ns,
            claimed: BTreeSet::new(),
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

    pub fn get_mut(&mut self, pid: Pid, sock: u64) -> Option<&mut Flow> {
        self.map.get_mut(&(pid, sock))
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
            .range_mut((pid, 0)..=(pid, u64::MAX))
            .map(|(_, flow)| flow)
    }

    /// The only connection of a process that carried TLS records, if there is just one.
    pub fn only_tls(&mut self, pid: Pid) -> Option<Ends> {
        let mut tls = self.of(pid).filter(|f| f.tls);
        let first = tls.next()?.ends.clone();
        tls.next().is_none().then_some(first)
    }

    /// Takes the keys of the flows whose lineage is to be decided now (all of a process when `only` is set).
    pub fn due(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<(Pid, u64)> {
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
            .range((pid, 0)..=(pid, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.map.remove(&key);
        }
    }

    pub fn expire(&mut self, boot_ns: u64) {
        self.map
            .retain(|_, flow| flow.due_ns.is_some() || flow.last_ns + IDLE_NS > boot_ns);
    }
}
