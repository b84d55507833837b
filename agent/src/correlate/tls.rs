//! From a TLS write to the socket that carried it. A wrong destination is worse than "unknown": each rung of the
//! ladder needs positive proof, and what none proves stays unknown.

use crate::model::{Ends, Pid, SendSeen, TlsSeen};
use std::collections::{BTreeMap, VecDeque};

/// How long a TLS write waits for the send that carries it.
const WAIT_NS: u64 = 500_000_000;
/// Most bytes of plaintext in one TLS record (RFC 8446, section 5.1).
const RECORD_MAX: u64 = 16_384;
/// Content type of application data.
pub const APPLICATION_DATA: u8 = 0x17;
/// TLS writes waiting at most; beyond it the oldest are decided early.
const MAX_WAITING: usize = 8_192;
/// Recent TLS sends kept per process.
const MAX_RECENT: usize = 64;

/// A TLS write whose socket is not known yet.
#[derive(Debug)]
pub struct Waiting {
    pub seen: TlsSeen,
    due_ns: u64,
}

#[derive(Debug)]
struct Recent {
    boot_ns: u64,
    ends: Ends,
    record_len: u16,
}

/// The last write of a session that found its socket: tells a retry from a new write.
#[derive(Debug)]
struct Resolved {
    total: u64,
    fingerprints: Vec<String>,
    boot_ns: u64,
}

#[derive(Debug, Default)]
pub struct TlsLinks {
    /// The call each thread is in.
    current: BTreeMap<(Pid, u32), Waiting>,
    /// Calls that ended without a nested send, oldest first.
    waiting: VecDeque<Waiting>,
    recent: BTreeMap<Pid, VecDeque<Recent>>,
    resolved: BTreeMap<(Pid, u64), Resolved>,
}

/// How the destination of a TLS write was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub ends: Option<Ends>,
    pub method: &'static str,
}

impl TlsLinks {
    /// A thread entered a TLS write.
    pub fn enter(&mut self, seen: TlsSeen) {
        let key = (seen.at.pid, seen.at.tid);
        let due_ns = seen.at.boot_ns + WAIT_NS;
        if let Some(mut before) = self.current.remove(&key) {
            if before.seen.call == seen.call {
                // One call in several records: the parts belong together.
                merge(&mut before.seen, seen);
                self.current.insert(key, before);
                return;
            }
            let retry = before.seen.session == seen.session
                && before.seen.payload.total == seen.payload.total
                && fingerprints(&before.seen) == fingerprints(&seen);
            if !retry && !before.seen.payload.hits.is_empty() {
                self.waiting.push_back(before);
            }
        }
        self.current.insert(key, Waiting { seen, due_ns });
    }

    /// A send: the TLS write it proves to carry, if any.
    pub fn send(&mut self, send: &SendSeen) -> Option<TlsSeen> {
        let (kind, len) = send.tls_record?;
        if kind != APPLICATION_DATA {
            return None;
        }
        if let Some((call, _)) = send.tls_call {
            let key = (send.at.pid, send.at.tid);
            let fits = self
                .current
                .get(&key)
                .is_some_and(|w| w.seen.call == call && fits(w.seen.payload.total, len));
            if fits {
                let seen = self.current.remove(&key)?.seen;
                self.remember(&seen);
                return Some(seen);
            }
            return None;
        }
        let recent = self.recent.entry(send.at.pid).or_default();
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(Recent {
            boot_ns: send.at.boot_ns,
            ends: send.ends.clone(),
            record_len: len,
        });
        None
    }

    fn remember(&mut self, seen: &TlsSeen) {
        if self.resolved.len() >= MAX_WAITING {
            self.resolved.pop_first();
        }
        self.resolved.insert(
            (seen.at.pid, seen.session),
            Resolved {
                total: seen.payload.total,
                fingerprints: fingerprints(seen),
                boot_ns: seen.at.boot_ns,
            },
        );
    }

    /// Decides the writes that waited long enough (or all of one process that is going away).
    pub fn due(
        &mut self,
        boot_ns: u64,
        only: Option<Pid>,
        mut only_tls: impl FnMut(Pid) -> Option<Ends>,
    ) -> Vec<(TlsSeen, Link)> {
        let ripe = |w: &Waiting| only.map_or(w.due_ns <= boot_ns, |pid| w.seen.at.pid == pid);
        let mut out = Vec::new();
        let keys: Vec<_> = self
            .current
            .iter()
            .filter(|(_, w)| ripe(w))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            if let Some(w) = self.current.remove(&key)
                && !w.seen.payload.hits.is_empty()
            {
                self.waiting.push_back(w);
            }
        }
        let over = self.waiting.len().saturating_sub(MAX_WAITING);
        let mut index = 0;
        self.waiting.retain_mut(|w| {
            index += 1;
            if !ripe(w) && index > over {
                return true;
            }
            out.push(std::mem::replace(&mut w.seen, empty()));
            false
        });
        let decided = out
            .into_iter()
            .filter(|seen| !self.is_retry(seen))
            .map(|seen| {
                let link = self.link(&seen, &mut only_tls);
                (seen, link)
            })
            .collect();
        self.recent.retain(|pid, sends| {
            while sends
                .front()
                .is_some_and(|s| s.boot_ns + 2 * WAIT_NS < boot_ns)
            {
                sends.pop_front();
            }
            !sends.is_empty() && only != Some(*pid)
        });
        self.resolved
            .retain(|(pid, _), r| r.boot_ns + 10 * WAIT_NS > boot_ns && only != Some(*pid));
        decided
    }

    /// The same bytes handed over again because the socket was full: the first call was reported already.
    fn is_retry(&self, seen: &TlsSeen) -> bool {
        self.resolved
            .get(&(seen.at.pid, seen.session))
            .is_some_and(|r| {
                r.total == seen.payload.total
                    && r.fingerprints == fingerprints(seen)
                    && r.boot_ns <= seen.at.boot_ns
            })
    }

    fn link(&self, seen: &TlsSeen, only_tls: &mut impl FnMut(Pid) -> Option<Ends>) -> Link {
        let candidates = self.recent.get(&seen.at.pid);
        let mut fitting: Option<&Ends> = None;
        for send in candidates.into_iter().flatten() {
            let in_time =
                send.boot_ns >= seen.at.boot_ns && send.boot_ns <= seen.at.boot_ns + WAIT_NS;
            if !in_time || !fits_exactly(seen.payload.total, send.record_len) {
                continue;
            }
            match fitting {
                None => fitting = Some(&send.ends),
                Some(other) if *other == send.ends => {}
                // Two sockets sent a record of this length: neither is proven.
                Some(_) => {
                    return Link {
                        ends: None,
                        method: "unknown",
                    };
                }
            }
        }
        if let Some(ends) = fitting {
            return Link {
                ends: Some(ends.clone()),
                method: "record_length",
            };
        }
        match only_tls(seen.at.pid) {
            Some(ends) => Link {
                ends: Some(ends),
                method: "single_socket",
            },
            None => Link {
                ends: None,
                method: "unknown",
            },
        }
    }
}

fn empty() -> TlsSeen {
    TlsSeen {
        at: crate::model::Stamp {
            boot_ns: 0,
            pid: Pid { tgid: 0, start: 0 },
            tid: 0,
            uid: 0,
            euid: 0,
            gid: 0,
            cgroup_id: 0,
            comm: String::new(),
        },
        call: 0,
        session: 0,
        payload: crate::model::Payload::default(),
        hook: String::new(),
    }
}

fn merge(into: &mut TlsSeen, more: TlsSeen) {
    let payload = &mut into.payload;
    payload.inspected += more.payload.inspected;
    payload.total = payload.total.max(more.payload.total);
    payload.truncated |= more.payload.truncated;
    for hit in more.payload.hits {
        match payload.hits.iter_mut().find(|h| {
            h.credential.fingerprint == hit.credential.fingerprint
                && h.transform == hit.transform
                && h.part == hit.part
                && h.secret == hit.secret
        }) {
            Some(known) => known.occurrences += hit.occurrences,
            None => payload.hits.push(hit),
        }
    }
    for host in more.payload.hosts {
        if !payload.hosts.contains(&host) {
            payload.hosts.push(host);
        }
    }
}

fn fingerprints(seen: &TlsSeen) -> Vec<String> {
    let mut out: Vec<_> = seen
        .payload
        .hits
        .iter()
        .map(|h| h.credential.fingerprint.clone())
        .collect();
    out.sort();
    out.dedup();
    out
}

/// Whether a record of `len` bytes can begin the encryption of `total` bytes: TLS 1.3 adds 17, TLS 1.2 16 to about 80.
fn fits(total: u64, len: u16) -> bool {
    let first = total.min(RECORD_MAX);
    (first + 16..=first + 96).contains(&u64::from(len))
}

/// The overheads without padding: TLS 1.3 (17), TLS 1.2 AES-GCM (24), ChaCha20-Poly1305 (16).
fn fits_exactly(total: u64, len: u16) -> bool {
    let first = total.min(RECORD_MAX);
    [16, 17, 24]
        .iter()
        .any(|overhead| first + overhead == u64::from(len))
}
