//! What left, where to, with which evidence.

use super::{Core, MAX_LINEAGE, attack};
use crate::correlate::event;
use crate::correlate::flow::{Flow, Key};
use crate::correlate::tls::{Link, is_application};
use crate::process::{Holding, Proc};
use keytrail_model::{Bound, GapSeen, Hit, HostName, Payload, Pid, SendSeen, Stamp, TlsSeen};
use keytrail_proto::v1;
use std::collections::{BTreeSet, VecDeque};

/// How long an identifier at the end of a payload may turn out to be a part of a longer word: for as long as the
/// bytes of a connection are kept to be joined with the next.
const OPEN_WORD_NS: u64 = 1_000_000_000;
/// Such identifiers kept at most; beyond it the oldest are dropped, not claimed.
const MAX_OPEN: usize = 4_096;

/// A payload that left, and where to.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    at: Stamp,
    payload: Payload,
    link: Link,
    /// Which stream of bytes it is a part of.
    stream: Stream,
    hook: String,
}

/// Bytes that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// In clear by this socket.
    Socket(u64),
    /// By this TLS session.
    Session(u64),
}

impl Stream {
    fn channel(self) -> &'static str {
        match self {
            Self::Socket(_) => "tcp",
            Self::Session(_) => "tls",
        }
    }
}

impl Core {
    pub(super) fn on_tls_write(&mut self, seen: &TlsSeen) {
        self.table.touch(&seen.at);
        let (pid, session) = (seen.at.pid, seen.session);
        let continues = seen.payload.continues;
        self.tls.settle_words(pid, session, seen.call, continues);
        self.settle_words(pid, Stream::Session(session), continues);
        self.count_cut(pid, &seen.payload);
        self.tls.enter(seen.clone());
    }

    /// A payload of a holder that was longer than what is looked into.
    fn count_cut(&mut self, pid: Pid, payload: &Payload) {
        if payload.truncated && self.holds(pid) {
            self.dropped.add(Bound::Payload, 1);
        }
    }

    pub(super) fn on_send(&mut self, send: &SendSeen) {
        self.table.touch(&send.at);
        let application = is_application(send);
        let handshake = send.tls_record.is_some() && !application;
        let flow = self.flows.entry(&send.at, &send.ends);
        // Records on a connection that began otherwise are relayed, or dressed up.
        let session = flow.handshake || !flow.begun;
        flow.handshake |= send.tls_record.is_some_and(|(kind, _)| kind == 0x16);
        let carries = self.tls.send(send, session);
        // A handshake alone says nothing about the holder's payload: lineage begins with application bytes.
        let flow = if handshake {
            self.flows.entry(&send.at, &send.ends)
        } else {
            self.flows.sent(&send.at, &send.ends, send.payload.total)
        };
        flow.tls |= send.tls_record.is_some();
        if send.tls_record.is_none() {
            flow.inspect(&send.payload);
        }
        flow.hooked |= carries.earlier || send.tls_call.is_some() && application;
        flow.add_hosts(&send.payload.hosts);
        if flow.hook.is_empty() {
            flow.hook.clone_from(&send.hook);
        }
        let link = |method| Link {
            ends: Some(send.ends.clone()),
            method,
        };
        if let Some(seen) = carries.nested {
            flow.hooked = true;
            flow.add_hosts(&seen.payload.hosts);
            self.sent(Passage::of_write(seen, link("nested_send")));
        }
        if send.tls_record.is_none() {
            self.count_cut(send.at.pid, &send.payload);
            let stream = Stream::Socket(send.ends.sock);
            self.settle_words(send.at.pid, stream, send.payload.continues);
            if !send.payload.hits.is_empty() {
                self.sent(Passage {
                    at: send.at.clone(),
                    payload: send.payload.clone(),
                    link: link("socket"),
                    stream,
                    hook: send.hook.clone(),
                });
            }
        }
    }

    pub(super) fn decide_tls(&mut self, boot_ns: u64, only: Option<Pid>) {
        let flows = &mut self.flows;
        let decided = self.tls.due(boot_ns, only, |pid| flows.only_tls(pid));
        for (seen, link) in decided.left {
            self.sent(Passage::of_write(seen, link));
        }
        for seen in decided.unsent {
            self.unsent(&seen);
        }
    }

    /// A credential was given to a TLS library, and nothing left that may have carried it: the connection was broken, or
    /// is of a kind that is not seen. Nobody can say that it was sent.
    fn unsent(&mut self, seen: &TlsSeen) {
        let named: BTreeSet<String> = seen
            .payload
            .hits
            .iter()
            .map(|hit| {
                let credential = &hit.credential;
                format!("{} {}", credential.kind, credential.fingerprint)
            })
            .collect();
        let exe = self
            .table
            .get(seen.at.pid)
            .map_or_else(String::new, |p| p.exe.path.clone());
        self.on_gap(&GapSeen {
            boot_ns: seen.at.boot_ns,
            reason: "tls_write_unsent".to_owned(),
            detail: format!(
                "{exe} gave {} to its TLS library, and nothing was seen to leave for it: the connection was broken, or is \
                 none over TCP",
                named.into_iter().collect::<Vec<_>>().join(", ")
            ),
            remedy: "sends over Unix sockets and UDP are not seen".to_owned(),
            count: 1,
            signal: "tcp_send".to_owned(),
            pid: Some(seen.at.pid),
            ..GapSeen::default()
        });
    }

    /// What came next in a stream: identifiers that ended the payload before are words, or parts of longer ones.
    fn settle_words(&mut self, pid: Pid, stream: Stream, continues: bool) {
        let (now, later) = std::mem::take(&mut self.open_words)
            .into_iter()
            .partition(|p| p.at.pid == pid && p.stream == stream);
        self.open_words = later;
        if !continues {
            self.words(now);
        }
    }

    /// Nothing came next for long enough, or nothing can (of one process, when it is going away).
    pub(super) fn end_words(&mut self, boot_ns: u64, only: Option<Pid>) {
        let (now, later) =
            std::mem::take(&mut self.open_words)
                .into_iter()
                .partition(|p| match only {
                    Some(pid) => p.at.pid == pid,
                    None => p.at.boot_ns.saturating_add(OPEN_WORD_NS) <= boot_ns,
                });
        self.open_words = later;
        self.words(now);
    }

    fn words(&mut self, passages: VecDeque<Passage>) {
        for mut passage in passages {
            for hit in &mut passage.payload.hits {
                hit.open = false;
            }
            self.sent(passage);
        }
    }

    /// Reports what a payload carried.
    fn sent(&mut self, mut passage: Passage) {
        let (open, hits) = std::mem::take(&mut passage.payload.hits)
            .into_iter()
            .partition(|hit| hit.open);
        passage.payload.hits = hits;
        self.claim(&passage);
        passage.payload.hits = open;
        if !passage.payload.hits.is_empty() {
            if self.open_words.len() >= MAX_OPEN {
                self.dropped.add(Bound::Identifiers, 1);
                self.open_words.pop_front();
            }
            self.open_words.push_back(passage);
        }
    }

    fn claim(&mut self, passage: &Passage) {
        let Passage {
            at, payload, link, ..
        } = passage;
        let mut hosts: Vec<HostName> = payload.hosts.clone();
        // The socket may carry another connection by now, whose names are not those of this one.
        if let Some(ends) = &link.ends
            && let Some(flow) = self.flows.with_ends(at.pid, ends)
        {
            flow.add_hosts(&payload.hosts);
            hosts.clone_from(&flow.hosts);
            if passage.stream.channel() == "tls" {
                flow.hooked = true;
                flow.inspect(payload);
            }
            for hit in &payload.hits {
                flow.claimed.insert(hit.credential.fingerprint.clone());
            }
        }
        if link.ends.is_none() {
            // It left by one of the connections: none of them may be reported as lineage only.
            for flow in self.flows.of(at.pid) {
                flow.cut |= payload.truncated;
                for hit in &payload.hits {
                    flow.claimed.insert(hit.credential.fingerprint.clone());
                }
            }
        }
        let secret: BTreeSet<&str> = payload
            .hits
            .iter()
            .filter(|h| h.secret)
            .map(|h| h.credential.fingerprint.as_str())
            .collect();
        for hit in &payload.hits {
            if !hit.secret && secret.contains(hit.credential.fingerprint.as_str()) {
                continue;
            }
            let e = self.sent_event(passage, hit, &hosts);
            self.emit(e);
        }
    }

    fn sent_event(&self, passage: &Passage, hit: &Hit, hosts: &[HostName]) -> v1::Event {
        let Passage {
            at,
            payload,
            link,
            stream,
            hook,
        } = passage;
        let channel = stream.channel();
        let mut e = self.event("credential_sent", at.boot_ns);
        e.process = Some(self.table.describe(at.pid));
        e.credential = Some(event::credential(&hit.credential));
        let holding = self
            .table
            .get(at.pid)
            .and_then(|p| holding_of(p, &hit.credential.fingerprint));
        e.source = Some(event::holding_source(holding, self.boot_wall_ns));
        e.destination = Some(event::destination(link.ends.as_ref(), hosts));
        e.evidence = Some(v1::Evidence {
            grade: if hit.secret { "observed" } else { "identified" }.to_owned(),
            transform: hit.transform.clone(),
            channel: channel.to_owned(),
            payload_bytes: payload.total,
            inspected_bytes: payload.inspected,
            destination_method: link.method.to_owned(),
            part: hit.part.clone(),
            occurrences: hit.occurrences,
            hook: hook.clone(),
        });
        if payload.truncated {
            e.truncation = Some(v1::Truncation {
                payload: true,
                ..v1::Truncation::default()
            });
        }
        e.attack = attack(&[if channel == "tls" { "T1078" } else { "T1041" }]);
        e
    }

    /// A holder sent bytes in which nothing known was seen.
    pub(super) fn lineage(&mut self, key: Key) {
        let pid = key.0;
        let Some(flow) = self.flows.get(key) else {
            return;
        };
        if !flow.claimed.is_empty() {
            return;
        }
        let Flow {
            ends,
            hosts,
            at,
            sent_bytes,
            inspected,
            cut,
            tls,
            hooked,
            hook,
            ..
        } = flow;
        let (ends, hosts, at, bytes, hook) = (
            ends.clone(),
            hosts.clone(),
            at.clone(),
            *sent_bytes,
            hook.clone(),
        );
        let blind = *tls && !*hooked;
        let (inspected, cut) = ((*inspected).min(bytes), *cut && !blind);
        let Some(proc) = self.table.get(pid) else {
            return;
        };
        let mut named = BTreeSet::new();
        let holdings: Vec<Holding> = proc
            .holdings
            .iter()
            .filter(|h| named.insert(h.credential.fingerprint.clone()))
            .cloned()
            .collect();
        if holdings.is_empty() {
            return;
        }
        let exe = proc.exe.path.clone();
        let mut coverage = Vec::new();
        if blind {
            coverage.push(
                "the payload is TLS by a library that is not hooked: its content was not seen"
                    .to_owned(),
            );
        }
        if cut {
            coverage.push(
                "single sends were longer than what is looked into: what was behind that was not seen".to_owned(),
            );
        }
        if holdings.len() > MAX_LINEAGE {
            coverage.push(format!(
                "{} more credentials are held and not listed",
                holdings.len() - MAX_LINEAGE
            ));
        }
        for holding in holdings.iter().take(MAX_LINEAGE) {
            let mut e = self.event("credential_sent", at.boot_ns);
            e.process = Some(self.table.describe(pid));
            e.credential = Some(event::credential(&holding.credential));
            e.source = Some(event::holding_source(Some(holding), self.boot_wall_ns));
            e.destination = Some(event::destination(Some(&ends), &hosts));
            e.evidence = Some(v1::Evidence {
                grade: "lineage".to_owned(),
                channel: if blind || hosts.iter().any(|h| h.provenance == "sni") {
                    "tls"
                } else {
                    "tcp"
                }
                .to_owned(),
                payload_bytes: bytes,
                inspected_bytes: if blind { 0 } else { inspected },
                destination_method: "socket".to_owned(),
                hook: hook.clone(),
                ..v1::Evidence::default()
            });
            if cut {
                e.truncation = Some(v1::Truncation {
                    payload: true,
                    ..v1::Truncation::default()
                });
            }
            e.coverage.clone_from(&coverage);
            self.emit(e);
        }
        if blind && self.uncovered.insert(exe.clone()) {
            self.on_gap(&GapSeen {
                boot_ns: at.boot_ns,
                reason: "library_not_covered".to_owned(),
                detail: format!("{exe} sends TLS by a library that is not hooked: its payloads cannot be looked into"),
                remedy: "`keytrail doctor` lists which libraries are covered and what to do about the rest".to_owned(),
                count: 1,
                signal: "tls_write".to_owned(),
                pid: Some(pid),
                ..GapSeen::default()
            });
        }
    }
}

impl Passage {
    fn of_write(seen: TlsSeen, link: Link) -> Self {
        Self {
            at: seen.at,
            payload: seen.payload,
            link,
            stream: Stream::Session(seen.session),
            hook: seen.hook,
        }
    }
}

/// The strongest holding of a credential: what the process met itself before what it inherited.
fn holding_of<'a>(proc: &'a Proc, fingerprint: &str) -> Option<&'a Holding> {
    let mut of = proc
        .holdings
        .iter()
        .filter(|h| h.credential.fingerprint == fingerprint);
    let first = of.next()?;
    if first.inherited_from.is_none() {
        return Some(first);
    }
    Some(of.find(|h| h.inherited_from.is_none()).unwrap_or(first))
}
