//! What left, where to, with which evidence.

use super::{Core, attack};
use crate::correlate::event;
use crate::correlate::tls::{APPLICATION_DATA, Carries, Link, Unsent};
use crate::process::{Holding, Proc};
use keytrail_model::event::{Evidence, Truncation};
use keytrail_model::{
    Bound, Channel, DestinationMethod, Direction, Endpoints, Event, EventKind, EvidenceGrade,
    GapReason, GapSeen, Hit, HostName, IdentifiedBy, Payload, Pid, SendSeen, Signal, TaskInfo,
    TlsSeen, WriteTarget,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A payload that left, and where to.
#[derive(Clone, Debug)]
pub(super) struct Outbound {
    pub at: TaskInfo,
    pub(super) payload: Payload,
    pub(super) link: Link,
    /// Which stream of bytes it is a part of.
    pub stream: Stream,
    /// Who asked for the connection, where no flow tells.
    pub(super) direction: Option<Direction>,
    /// Path of the file, pipe or terminal it was written to.
    pub(super) path: String,
    pub(super) hook: String,
}

/// Bytes that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// In clear by this socket.
    Socket(u64),
    /// By this TLS session.
    Session(u64),
    /// In clear by this socket, as a part of a TLS handshake.
    Handshake(u64),
    /// By this Unix socket, or as a datagram.
    Unix(u64),
    Udp(u64),
    /// Written to this inode of this device.
    Written(WriteTarget, u64, u64),
}

impl Stream {
    pub(super) fn channel(self) -> Channel {
        match self {
            Self::Socket(_) => Channel::Tcp,
            Self::Session(_) | Self::Handshake(_) => Channel::Tls,
            Self::Unix(_) => Channel::Unix,
            Self::Udp(_) => Channel::Udp,
            Self::Written(WriteTarget::File, ..) => Channel::File,
            Self::Written(WriteTarget::Pipe, ..) => Channel::Pipe,
            Self::Written(WriteTarget::Terminal, ..) => Channel::Terminal,
        }
    }
}

impl Core {
    pub(super) fn on_tls_write(&mut self, seen: &TlsSeen) {
        self.notes_hooked(&seen.at);
        let (pid, session) = (seen.at.pid, seen.session);
        let continues = seen.payload.continues;
        self.tls.resolve_words(pid, session, seen.call, continues);
        self.resolve_words(pid, Stream::Session(session), continues);
        self.count_cut(pid, &seen.payload);
        self.notes_exchange(&seen.at, &seen.payload);
        self.tls.enter(seen.clone());
    }

    /// A payload of a holder that was longer than what is inspected.
    pub(super) fn count_cut(&mut self, pid: Pid, payload: &Payload) {
        let undecoded = &payload.undecoded;
        if (payload.truncated || !undecoded.is_empty()) && self.holds(pid) {
            self.dropped
                .add(Bound::Payload, u64::from(payload.truncated));
            let messages = undecoded.headers + undecoded.cut + undecoded.lost;
            self.dropped.add(Bound::Decoding, u64::from(messages));
        }
    }

    /// What a send was proven to carry.
    fn carried(&mut self, send: &SendSeen, carries: Carries) {
        for (seen, method) in carries.proven {
            let flow = self.flows.entry(&send.at, &send.ends);
            flow.hooked = true;
            flow.add_hosts(&seen.payload.hosts);
            let link = Link {
                ends: Some(send.ends.clone()),
                method,
            };
            self.sent(Outbound::of_write(seen, link));
        }
    }

    /// More records of the send before, whose bytes are counted.
    fn on_more_records(&mut self, send: &SendSeen) {
        let flow = self.flows.entry(&send.at, &send.ends);
        flow.add_hosts(&send.payload.hosts);
        let session = flow.handshake || !flow.begun;
        let carries = self.tls.send(send, session);
        let flow = self.flows.entry(&send.at, &send.ends);
        flow.hooked |= carries.earlier || send.tls_call.is_some() && carries.application;
        self.carried(send, carries);
    }

    pub(super) fn on_send(&mut self, send: &SendSeen) {
        self.table.touch(&send.at);
        if send.ends.is_unix() || send.ends.is_udp() {
            self.on_message(send);
            return;
        }
        if send.goes_on.is_some() {
            self.on_more_records(send);
            return;
        }
        self.on_metadata(send);
        self.flows.direct(send);
        let flow = self.flows.entry(&send.at, &send.ends);
        // Records on a connection that began otherwise are relayed, or dressed up.
        let session = flow.handshake || !flow.begun;
        flow.handshake |= send.tls_record.is_some_and(|(kind, _)| kind == 0x16);
        let carries = self.tls.send(send, session);
        let proc = self.table.get(send.at.pid);
        // The records of a handshake may begin what has content: that of a server has.
        let data = send
            .tls_record
            .is_some_and(|(kind, _)| kind == APPLICATION_DATA);
        let unseen = data && carries.content && !proc.is_some_and(|proc| proc.hooked);
        // A handshake alone, or the alert that ends a connection, says nothing about the holder's payload: lineage begins
        // with application bytes.
        let flow = if send.tls_record.is_some() && !carries.content {
            self.flows.entry(&send.at, &send.ends)
        } else {
            let version = self.table.version(send.at.pid);
            self.flows
                .sent(&send.at, &send.ends, send.payload.total, version)
        };
        flow.tls |= send.tls_record.is_some();
        flow.unseen |= unseen;
        if send.tls_record.is_none() {
            flow.inspect(&send.payload);
        }
        flow.hooked |= carries.earlier || send.tls_call.is_some() && carries.application;
        flow.add_hosts(&send.payload.hosts);
        if flow.hook.is_empty() {
            flow.hook.clone_from(&send.hook);
        }
        self.carried(send, carries);
        if send.tls_record.is_some() && !send.payload.hits.is_empty() {
            let stream = Stream::Handshake(send.ends.sock);
            self.sent(Outbound::by_socket(send, stream));
        }
        if send.tls_record.is_none() {
            self.count_cut(send.at.pid, &send.payload);
            self.notes_exchange(&send.at, &send.payload);
            let stream = Stream::Socket(send.ends.sock);
            self.resolve_words(send.at.pid, stream, send.payload.continues);
            if !send.payload.hits.is_empty() {
                self.sent(Outbound::by_socket(send, stream));
            }
        }
    }

    pub(super) fn decide_tls(&mut self, boot_ns: u64, only: Option<Pid>) {
        let flows = &mut self.flows;
        let decided = self.tls.due(boot_ns, only, |pid| flows.only_tls(pid));
        for (seen, link) in decided.left {
            self.sent(Outbound::of_write(seen, link));
        }
        for (seen, why) in decided.unsent {
            self.unsent(&seen, why);
        }
        self.dropped.add(Bound::Destinations, decided.given_up);
    }

    /// A credential was given to a TLS library, and nobody can say that it was sent.
    fn unsent(&mut self, seen: &TlsSeen, why: Unsent) {
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
            detail: format!(
                "{exe} gave {} to its TLS library, and {}",
                named.into_iter().collect::<Vec<_>>().join(", "),
                match why {
                    Unsent::Nothing =>
                        "nothing was seen to leave for it: the connection was broken, or is none over TCP and its bytes left \
                         outside of the call",
                    Unsent::Handshake =>
                        "a handshake of this process had not ended: nobody can say whether it left",
                    Unsent::Inside =>
                        "that gave it, encrypted, to another TLS session of the process (as with an HTTPS proxy), of which \
                         nothing was seen to leave for it: the connection was broken, or is none over TCP",
                }
            ),
            remedy: "none where TLS goes over a Unix socket by way of memory, or is DTLS: such writes are not joined with what left"
                .to_owned(),
            count: 1,
            signal: Some(Signal::TcpSend),
            pid: Some(seen.at.pid),
            ..GapSeen::new(GapReason::TlsWriteUnsent, seen.at.boot_ns)
        });
    }

    /// What came next in a stream: identifiers that ended the payload before are words, or parts of longer ones.
    pub(super) fn resolve_words(&mut self, pid: Pid, stream: Stream, continues: bool) {
        let now = self.pending_words.take_stream(pid, stream);
        if !continues {
            self.words(now);
        }
    }

    /// Nothing came next for long enough, or nothing can (of one process, when it is going away).
    pub(super) fn end_words(&mut self, boot_ns: u64, only: Option<Pid>) {
        let now = match only {
            Some(pid) => self.pending_words.take_process(pid),
            None => self.pending_words.take_ripe(boot_ns),
        };
        self.words(now);
    }

    fn words(&mut self, outbound: VecDeque<Outbound>) {
        for mut outbound in outbound {
            for hit in &mut outbound.payload.hits {
                hit.open = false;
            }
            self.sent(outbound);
        }
    }

    /// Reports what a payload carried.
    pub(super) fn sent(&mut self, mut outbound: Outbound) {
        let named = std::mem::take(&mut outbound.payload.hits);
        let (open, hits) = self
            .proven(&outbound, named)
            .into_iter()
            .partition(|hit| hit.open);
        outbound.payload.hits = hits;
        self.claim(&outbound);
        outbound.payload.hits = open;
        if !outbound.payload.hits.is_empty() && !self.pending_words.push(outbound) {
            self.dropped.add(Bound::Identifiers, 1);
        }
    }

    /// Of what was known in a payload, that which says what it seems to say.
    fn proven(&self, outbound: &Outbound, hits: Vec<Hit>) -> Vec<Hit> {
        let public = |by: Option<IdentifiedBy>| {
            matches!(
                by,
                Some(IdentifiedBy::PublicKey | IdentifiedBy::ClientCertificate)
            )
        };
        let mut asked = None;
        let mut shows = |this: &Self| {
            // Whoever serves shows the public half of his key to everybody, and files are full of them.
            *asked.get_or_insert_with(|| this.asks(outbound))
        };
        // Many passwords have the same user: it is the one that this process holds, if there is one.
        let held = |hit: &Hit| {
            self.table.get(outbound.at.pid).is_some_and(|p| {
                holding_of(p, &hit.credential.fingerprint, outbound.at.boot_ns).is_some()
            })
        };
        let logins = hits
            .iter()
            .filter(|hit| hit.by == Some(IdentifiedBy::ScramLogin) && held(hit))
            .count();
        let proven: Vec<Hit> = hits
            .into_iter()
            .filter(|hit| match hit.by {
                by if public(by) => shows(self),
                Some(IdentifiedBy::ScramLogin) => logins == 1 && held(hit),
                _ => true,
            })
            .collect();
        let best = best_proofs(&proven);
        proven
            .into_iter()
            .filter(|hit| {
                hit.secret
                    || best
                        .get(&(hit.credential.fingerprint.clone(), hit.request))
                        .is_none_or(|by| hit.by >= *by)
            })
            .collect()
    }

    /// Whether the process asked for the connection that these bytes went by.
    fn asks(&self, outbound: &Outbound) -> bool {
        if matches!(outbound.stream, Stream::Written(..)) {
            return false;
        }
        if matches!(outbound.stream, Stream::Unix(_)) {
            return outbound.direction != Some(Direction::Accepted);
        }
        let ends = outbound.link.ends.as_ref();
        let flow = ends.and_then(|ends| self.flows.known(outbound.at.pid, ends));
        flow.is_some_and(|flow| flow.direction == Some(Direction::Outgoing))
    }

    fn claim(&mut self, outbound: &Outbound) {
        if let Stream::Written(_, device, inode) = outbound.stream {
            return self.claim_written(outbound, (device, inode));
        }
        let Outbound {
            at, payload, link, ..
        } = outbound;
        let mut hosts: Vec<HostName> = payload.hosts.clone();
        let mut direction = outbound.direction;
        // The socket may carry another connection by now, whose names are not those of this one.
        if let Some(ends) = &link.ends
            && let Some(flow) = self.flows.with_ends(at.pid, ends)
        {
            flow.add_hosts(&payload.hosts);
            hosts.clone_from(&flow.hosts);
            direction = flow.direction;
            if matches!(outbound.stream, Stream::Session(_)) {
                flow.hooked = true;
                flow.inspect(payload);
            }
            flow.account(payload);
            for hit in &payload.hits {
                flow.claimed.insert(hit.credential.fingerprint.clone());
            }
        }
        if link.ends.is_none() {
            // It left by one of the connections: none of them may be reported as lineage only.
            let tls = outbound.stream.channel() == Channel::Tls;
            for flow in self.flows.of(at.pid).filter(|flow| flow.tls == tls) {
                flow.cut |= payload.truncated;
                flow.account(payload);
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
        let first = self.out.len();
        for hit in &payload.hits {
            if !hit.secret && secret.contains(hit.credential.fingerprint.as_str()) {
                continue;
            }
            let (counted, kept) = self.repeated(outbound, hit, &hosts, direction);
            if counted {
                continue;
            }
            let mut e = self.sent_event(outbound, hit, &hosts);
            if let Some(to) = &mut e.destination {
                to.direction = direction;
            }
            if let Some(number) = kept {
                self.repeat_by(number, &e);
            }
            self.report_sent(e, outbound);
        }
        self.group(first);
        if outbound.stream.channel() == Channel::Unix {
            self.put_into_service(outbound);
        }
    }

    pub(super) fn sent_event(
        &mut self,
        outbound: &Outbound,
        hit: &Hit,
        hosts: &[HostName],
    ) -> Event {
        let Outbound {
            at,
            payload,
            link,
            stream,
            hook,
            ..
        } = outbound;
        let channel = stream.channel();
        let mut e = self.event(EventKind::CredentialSent, at.boot_ns);
        e.process = Some(self.table.describe(at.pid));
        e.credential = Some(self.best(&hit.credential));
        let holding = self
            .table
            .get(at.pid)
            .and_then(|p| holding_of(p, &hit.credential.fingerprint, at.boot_ns));
        let path = event::path(holding);
        e.source = Some(event::holding_source(holding, self.boot_wall_ns));
        let mut to = event::destination(link.ends.as_ref(), hosts);
        to.peer = link.ends.as_ref().and_then(|ends| self.peer(ends));
        e.destination = Some(to);
        e.evidence = Some(Evidence {
            grade: Some(if hit.secret {
                EvidenceGrade::Observed
            } else {
                EvidenceGrade::Identified
            }),
            transform: Some(hit.transform),
            channel,
            payload_bytes: payload.total,
            inspected_bytes: payload.inspected,
            destination_method: Some(link.method),
            part: hit.part.clone(),
            occurrences: hit.occurrences,
            hook: hook.clone(),
            lineage_basis: None,
            layers: hit.layers.clone(),
            path,
            identified_by: hit.by,
            in_body: hit.body,
            in_url: hit.target,
        });
        e.request = hit
            .request
            .and_then(|at| payload.requests.get(usize::from(at)))
            .cloned();
        if payload.truncated {
            e.truncation = Some(Truncation {
                payload: true,
                ..Truncation::default()
            });
        }
        e.attack = attack(&[match channel {
            Channel::Tls => "T1078",
            // It stays on this host.
            Channel::Unix => "",
            Channel::Udp => "T1048.003",
            _ => "T1041",
        }]);
        e
    }
}

impl Outbound {
    pub(super) fn ends(&self) -> Option<&Endpoints> {
        self.link.ends.as_ref()
    }

    pub(super) fn method(&self) -> DestinationMethod {
        self.link.method
    }

    /// What a send carries itself.
    fn by_socket(send: &SendSeen, stream: Stream) -> Self {
        Self {
            at: send.at.clone(),
            payload: send.payload.clone(),
            link: Link {
                ends: Some(send.ends.clone()),
                method: DestinationMethod::Socket,
            },
            stream,
            direction: None,
            path: String::new(),
            hook: send.hook.clone(),
        }
    }

    pub(super) fn of_write(seen: TlsSeen, link: Link) -> Self {
        Self {
            at: seen.at,
            payload: seen.payload,
            link,
            stream: Stream::Session(seen.session),
            direction: None,
            path: String::new(),
            hook: seen.hook,
        }
    }
}

/// What each credential that was not seen itself is best known by, within one request.
fn best_proofs(hits: &[Hit]) -> BTreeMap<(String, Option<u16>), Option<IdentifiedBy>> {
    let mut best = BTreeMap::new();
    for hit in hits.iter().filter(|hit| !hit.secret && !hit.open) {
        let key = (hit.credential.fingerprint.clone(), hit.request);
        let by = best.entry(key).or_insert(hit.by);
        *by = (*by).max(hit.by);
    }
    best
}

/// The strongest holding of a credential that its process had at this time: what it obtained itself before what it inherited.
fn holding_of<'a>(proc: &'a Proc, fingerprint: &str, boot_ns: u64) -> Option<&'a Holding> {
    let mut of = proc
        .holdings
        .iter()
        .filter(|h| h.credential.fingerprint == fingerprint && h.from_ns <= boot_ns);
    let first = of.next()?;
    if first.inherited_from.is_none() {
        return Some(first);
    }
    Some(of.find(|h| h.inherited_from.is_none()).unwrap_or(first))
}
