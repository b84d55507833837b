//! What is known of the sockets that TLS records leave by: which cipher they have, whose session they carry, and whether
//! a handshake on them has ended.

use super::records::{Before, Ciphers, Flight};
use keytrail_model::{Endpoints, Pid, SendSeen, TlsSeen};
use std::collections::{BTreeMap, BTreeSet};

/// Sockets and sessions remembered; beyond it the oldest keys go first, and what they proved is unknown.
const MAX_SOCKETS: usize = 32_768;
/// Without records for so long a socket is forgotten: its address may be used again.
const IDLE_NS: u64 = 300_000_000_000;
/// A handshake that a write may be waiting for began at most so long before it.
const GREETING_NS: u64 = 10_000_000_000;

#[derive(Debug)]
struct Socket {
    ends: Endpoints,
    before: Before,
    /// The session it carries, once that is proven.
    session: Option<u64>,
    /// When its last handshake began.
    hello_ns: u64,
    last_ns: u64,
}

/// What a proof showed about a session.
#[derive(Clone, Copy, Debug)]
struct Session {
    ciphers: Ciphers,
    proven_ns: u64,
}

#[derive(Debug, Default)]
pub struct Sockets {
    sockets: BTreeMap<(Pid, u64), Socket>,
    sessions: BTreeMap<(Pid, u64), Session>,
    /// Handshakes of which no data was seen yet: process, when they began, socket.
    greetings: BTreeSet<(Pid, u64, u64)>,
    /// The last hello of a process: a session's pointer may be another session's since.
    hellos: BTreeMap<Pid, u64>,
}

impl Sockets {
    /// Notes what a send of TLS records reports its socket; returns the send as records.
    pub fn send(&mut self, send: &SendSeen) -> Option<Flight> {
        send.tls_record?;
        let (pid, now) = (send.at.pid, send.at.boot_ns);
        let key = (pid, send.ends.sock);
        if self.sockets.len() >= MAX_SOCKETS && !self.sockets.contains_key(&key) {
            self.drop_first();
        }
        let new = || Socket {
            ends: send.ends.clone(),
            before: Before::NOTHING,
            session: None,
            hello_ns: 0,
            last_ns: now,
        };
        let socket = self.sockets.entry(key).or_insert_with(new);
        if socket.ends != send.ends || send.hello.is_some() {
            self.greetings.remove(&(pid, socket.hello_ns, key.1));
            *socket = new();
        }
        if send.hello.is_some() {
            socket.hello_ns = now;
            self.greetings.insert((pid, now, key.1));
            self.hellos.insert(pid, now);
        }
        socket.last_ns = now;
        let flight = Flight::of(send, socket.before)?;
        socket.before = flight.after();
        let mut records = send.tls_record.iter().chain(&send.tls_more);
        if records.any(|(kind, _)| *kind == super::records::APPLICATION_DATA) {
            self.greetings.remove(&(pid, socket.hello_ns, key.1));
        }
        Some(flight)
    }

    /// The session that the socket of a send is known to carry.
    pub fn session(&self, send: &SendSeen) -> Option<u64> {
        let socket = self.sockets.get(&(send.at.pid, send.ends.sock))?;
        (socket.ends == send.ends)
            .then_some(socket.session)
            .flatten()
    }

    /// The ciphers that a session may have, by what it was proven to have sent.
    pub fn ciphers(&self, pid: Pid, session: u64) -> Ciphers {
        let hello = self.hellos.get(&pid).copied().unwrap_or(0);
        self.sessions
            .get(&(pid, session))
            .filter(|s| s.proven_ns > hello)
            .map_or(Ciphers::ANY, |s| s.ciphers)
    }

    /// A write was sent within its own call: that proves session, socket and cipher.
    pub fn carries(&mut self, send: &SendSeen, session: u64, cipher: Ciphers) {
        if let Some(socket) = self.sockets.get_mut(&(send.at.pid, send.ends.sock)) {
            socket.before.ciphers = socket.before.ciphers.and(cipher);
        }
        self.bind(send.at.pid, &send.ends, session, send.at.boot_ns);
    }

    /// Nothing spoke against a write's having left by this connection.
    pub fn proven(&mut self, pid: Pid, ends: &Endpoints, session: u64, sent_ns: u64) {
        self.bind(pid, ends, session, sent_ns);
    }

    fn bind(&mut self, pid: Pid, ends: &Endpoints, session: u64, sent_ns: u64) {
        let Some(socket) = self.sockets.get_mut(&(pid, ends.sock)) else {
            return;
        };
        if socket.ends != *ends {
            return;
        }
        socket.session = Some(session);
        let ciphers = socket.before.ciphers;
        if self.sessions.len() >= MAX_SOCKETS {
            self.sessions.pop_first();
        }
        self.sessions.insert(
            (pid, session),
            Session {
                ciphers,
                proven_ns: sent_ns,
            },
        );
    }

    /// Whether a handshake of this write's process had not ended by now that may be its session's.
    pub fn is_greeting(&self, seen: &TlsSeen) -> bool {
        let pid = seen.at.pid;
        let known = self.sessions.get(&(pid, seen.session));
        let hello = self.hellos.get(&pid).copied().unwrap_or(0);
        if known.is_some_and(|s| s.proven_ns > hello) {
            return false;
        }
        let from = seen.at.boot_ns.saturating_sub(GREETING_NS);
        self.greetings
            .range((pid, from, 0)..=(pid, u64::MAX, u64::MAX))
            .next()
            .is_some()
    }

    fn remove(&mut self, key: (Pid, u64)) {
        if let Some(socket) = self.sockets.remove(&key) {
            self.greetings.remove(&(key.0, socket.hello_ns, key.1));
        }
    }

    fn drop_first(&mut self) {
        if let Some((key, _)) = self.sockets.first_key_value() {
            self.remove(*key);
        }
    }

    pub fn forget(&mut self, pid: Pid) {
        fn keys<T>(map: &BTreeMap<(Pid, u64), T>, pid: Pid) -> Vec<(Pid, u64)> {
            let of = map.range((pid, 0)..=(pid, u64::MAX));
            of.map(|(key, _)| *key).collect()
        }
        for key in keys(&self.sockets, pid) {
            self.remove(key);
        }
        for key in keys(&self.sessions, pid) {
            self.sessions.remove(&key);
        }
        self.hellos.remove(&pid);
    }

    pub fn expire(&mut self, boot_ns: u64) {
        let fresh = |at: u64| at.saturating_add(IDLE_NS) > boot_ns;
        let idle: Vec<_> = self
            .sockets
            .iter()
            .filter(|(_, socket)| !fresh(socket.last_ns))
            .map(|(key, _)| *key)
            .collect();
        for key in idle {
            self.remove(key);
        }
        self.sessions.retain(|_, session| fresh(session.proven_ns));
        self.hellos.retain(|_, at| fresh(*at));
    }
}
