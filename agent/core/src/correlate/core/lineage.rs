//! A holder sent bytes in which nothing known was seen: judged by what was held when they left, and once.

use super::{Core, MAX_LINEAGE, metadata};
use crate::correlate::event;
use crate::correlate::flow::{Key, Mark};
use crate::process::{Holding, HoldingPlace, Proc};
use keytrail_model::event::{Event, Evidence, Truncation};
use keytrail_model::{
    Channel, DestinationMethod, Direction, EventKind, EvidenceGrade, GapReason, GapSeen,
    LineageBasis, Pid, Signal, TaskInfo,
};
use std::collections::BTreeSet;

/// So few bytes beside what proofs account for are the framing of a protocol (an HTTP/2 connection begins with about
/// 100), and have no room for much else.
const MIN_BESIDE: u64 = 256;
/// Pairs of holder and destination of which lineage was reported; beyond it it is reported again.
const MAX_REPORTED: usize = 16_384;

/// Programs of which writes to a TLS library were seen. Of one that is forgotten it may be told that its library is not hooked,
/// until it writes again.
const MAX_HOOKED: usize = 4_096;

/// A program, by its file: path, device and inode. What an interpreter has for TLS is its script's choice.
pub(super) type Program = (String, u64, u64, String);

pub(super) fn program(proc: &Proc) -> Program {
    let exe = &proc.exe;
    let script = proc.script.clone();
    (exe.path.clone(), exe.device, exe.inode, script)
}

/// What lineage is reported once: who obtained the credential first (or serves it), which one, and the other end.
pub(super) type LineageKey = (Pid, String, String, u16);

/// What a connection says of itself when its lineage is decided.
struct Sent {
    direction: Option<Direction>,
    channel: Channel,
    /// TLS, or another protocol that encrypts, whose content was not seen.
    blind: bool,
    /// By a library of which no write was ever seen, though nothing was lost.
    unhooked: bool,
    cut: bool,
    coverage: Vec<String>,
}

impl Core {
    /// Decides the lineage of one connection.
    pub(super) fn lineage(&mut self, key: Key) {
        if self
            .flows
            .get(key)
            .is_some_and(|flow| !flow.claimed.is_empty() && flow.beside() < MIN_BESIDE)
        {
            // So far there is nothing beside what was proven; what is sent next may be.
            self.flows.postpone(key);
            return;
        }
        let held = self.held_at_send(key);
        let sent = self.describe_sent(key);
        self.flows.decided(
            key,
            held.iter().map(|(h, _)| h.credential.fingerprint.clone()),
        );
        let Some(mut sent) = sent.filter(|_| !held.is_empty()) else {
            return;
        };
        let mut news = Vec::new();
        for (holding, mark) in held {
            if self.is_news(key, &sent, &holding, mark.at.boot_ns) {
                news.push((holding, mark));
            } else {
                self.table
                    .count_unreported(holding.origin, |unreported| unreported.sends += 1);
            }
        }
        if news.len() > MAX_LINEAGE {
            sent.coverage.push(format!(
                "{} more credentials are held and not listed",
                news.len() - MAX_LINEAGE
            ));
        }
        let first = self.out.len();
        for (holding, mark) in news.iter().take(MAX_LINEAGE) {
            self.report_lineage(key, &sent, holding, mark);
        }
        self.group(first);
        if sent.unhooked && !news.is_empty() {
            self.report_uncovered(key, news[0].1.at.boot_ns);
        }
    }

    /// What the process held while it sent, and was not reported for this connection yet, with where what was sent since begins.
    fn held_at_send(&self, key: Key) -> Vec<(Holding, Mark)> {
        let (Some(flow), Some(proc)) = (self.flows.get(key), self.table.get(key.0)) else {
            return Vec::new();
        };
        let mut named = BTreeSet::new();
        let mut held = Vec::new();
        // What was first seen in use, and what is only brought into a container, come last: they hide no holding of another kind.
        let last = |h: &&Holding| match h.place {
            _ if h.brings => 2,
            HoldingPlace::Use(_) => 1,
            _ => 0,
        };
        let mut holdings: Vec<&Holding> = proc.holdings.iter().collect();
        holdings.sort_by_key(last);
        for holding in holdings {
            let fingerprint = &holding.credential.fingerprint;
            // To ask a service again is no use of what it gave before.
            if matches!(&holding.place, HoldingPlace::Service(asked) if metadata::is_of(asked, &flow.ends))
            {
                continue;
            }
            // Every client of the service has one, for nothing else.
            if matches!(holding.place, HoldingPlace::Use(_))
                && holding.credential.kind == "aws-imds-token"
            {
                continue;
            }
            if flow.claimed.contains(fingerprint) || flow.reported.contains(fingerprint) {
                continue;
            }
            if let Some(mark) = flow.since(holding.from_ns)
                && named.insert(fingerprint.clone())
            {
                held.push((holding.clone(), mark));
            }
        }
        held
    }

    fn describe_sent(&self, key: Key) -> Option<Sent> {
        let flow = self.flows.get(key)?;
        let tls = flow.tls && !flow.hooked;
        let blind = tls || flow.sealed;
        let begun_ns = flow.since(0).map_or(0, |mark| mark.at.boot_ns);
        // A write whose record was lost looks like one that nobody hooked.
        let lost = tls && self.lost_ns >= begun_ns;
        let unhooked = tls && !lost && !self.is_hooked(key.0);
        let cut = flow.cut && !blind;
        let mut coverage = Vec::new();
        // The program ran before its library was hooked: what is seen from then on may refer to what was sent before.
        if flow.hooked && flow.unseen {
            coverage.push(
                "TLS left by this connection before the first write to its library was seen: the content of that was not \
                 seen"
                    .to_owned(),
            );
        }
        if flow.undecoded {
            coverage.push(
                "header fields that refer to what was sent before the connection was inspected could not be decoded"
                    .to_owned(),
            );
        }
        if flow.sealed {
            coverage.push("the payload is QUIC or DTLS: its content was not seen".to_owned());
        }
        if tls {
            coverage.push(if lost {
                "the payload is TLS and its content was not seen: records were lost meanwhile, or its library is not \
                 hooked"
                    .to_owned()
            } else if unhooked {
                let why = self.why_unhooked(key.0, begun_ns);
                format!(
                    "the payload is TLS by a library that is not hooked{why}: its content was not seen"
                )
            } else {
                "the payload is TLS, and nothing was seen to be given to a library for this connection: its content \
                 was not seen"
                    .to_owned()
            });
        }
        if cut {
            coverage.push(
                "single sends were longer than what is inspected: what was behind that was not seen"
                    .to_owned(),
            );
        }
        let channel = if flow.ends.is_udp() {
            Channel::Udp
        } else if flow.tls || flow.hosts.iter().any(|h| h.provenance == "sni") {
            Channel::Tls
        } else {
            Channel::Tcp
        };
        Some(Sent {
            direction: self.flows.direction(key.0, flow),
            channel,
            blind,
            unhooked,
            cut,
            coverage,
        })
    }

    /// Whether it is worth an event that this was held. What is only brought into a container is no news of who brings it;
    /// where it is seen in what that sends, it is reported as that. A server does not give its private key to its clients, and what
    /// else it holds is reported once of each of them; what was only inherited is reported once of all relatives and each
    /// destination.
    fn is_news(&mut self, key: Key, sent: &Sent, holding: &Holding, boot_ns: u64) -> bool {
        let Some(flow) = self.flows.get(key).filter(|_| !holding.brings) else {
            return false;
        };
        let accepted = sent.direction == Some(Direction::Accepted);
        if accepted && holding.credential.is_private_key() {
            return false;
        }
        let (who, port) = if accepted {
            (key.0, flow.ends.local_port)
        } else if holding.basis(boot_ns) != LineageBasis::Own {
            (holding.origin, flow.ends.peer_port)
        } else if flow.ends.is_udp() {
            // Many take a new socket for each datagram.
            (key.0, flow.ends.peer_port)
        } else {
            return true;
        };
        let reported: LineageKey = (
            who,
            holding.credential.fingerprint.clone(),
            flow.ends.peer_ip.clone(),
            port,
        );
        if self.reported_lineage.len() >= MAX_REPORTED && !self.reported_lineage.contains(&reported)
        {
            self.reported_lineage.pop_first();
        }
        self.reported_lineage.insert(reported)
    }

    fn report_lineage(&mut self, key: Key, sent: &Sent, holding: &Holding, mark: &Mark) {
        let credential = self.best(&holding.credential);
        let Some(flow) = self.flows.get(key) else {
            return;
        };
        let at = mark.at.boot_ns;
        let ends = flow.ends.clone();
        let bytes = flow.sent_bytes.saturating_sub(mark.sent_bytes);
        let inspected = flow.inspected.saturating_sub(mark.inspected).min(bytes);
        let mut e = self.event(EventKind::CredentialSent, at);
        e.process = Some(self.table.describe(key.0));
        e.credential = Some(credential);
        e.source = Some(event::holding_source(Some(holding), self.boot_wall_ns));
        let mut to = event::destination(Some(&flow.ends), &flow.hosts);
        to.direction = sent.direction;
        e.destination = Some(to);
        e.evidence = Some(Evidence {
            payload_bytes: bytes,
            inspected_bytes: if sent.blind { 0 } else { inspected },
            destination_method: Some(DestinationMethod::Socket),
            lineage_basis: Some(holding.basis(at)),
            path: event::path(Some(holding)),
            ..Evidence::new(Some(EvidenceGrade::Lineage), sent.channel, &flow.hook)
        });
        if sent.cut {
            e.truncation = Some(Truncation {
                payload: true,
                ..Truncation::default()
            });
        }
        e.coverage.clone_from(&sent.coverage);
        if holding.since_ns > flow.sent_ns {
            e.coverage.push(
                "the read was reported without its time: it may have come after what was sent"
                    .to_owned(),
            );
        }
        let (counted, kept) = self.repeated_lineage(key.0, &ends, &e);
        if counted {
            return;
        }
        if let Some(number) = kept {
            self.repeat_by(number, &of_all(e.clone()));
        }
        self.emit(e);
    }

    /// A write to a TLS library was seen: it is hooked, in this process and in others that run the same program.
    pub(super) fn notes_hooked(&mut self, at: &TaskInfo) {
        let Some(proc) = self.table.touch(at) else {
            return;
        };
        if std::mem::replace(&mut proc.hooked, true) {
            return;
        }
        let program = program(proc);
        if self.hooked.len() >= MAX_HOOKED && !self.hooked.contains(&program) {
            self.hooked.pop_first();
        }
        self.hooked.insert(program);
    }

    /// Whether a write to a TLS library was ever seen of this process, or of its program.
    fn is_hooked(&self, pid: Pid) -> bool {
        let proc = self.table.get(pid);
        proc.is_some_and(|proc| proc.hooked || self.hooked.contains(&program(proc)))
    }

    /// Why a process's library is not hooked, in parentheses; nothing where its file was not searched, or tells nothing.
    fn why_unhooked(&self, pid: Pid, since_ns: u64) -> String {
        let proc = self.table.get(pid);
        let why = proc.and_then(|proc| self.unhooked.why(proc, since_ns));
        why.map_or_else(String::new, |why| format!(" ({why})"))
    }

    fn report_uncovered(&mut self, key: Key, boot_ns: u64) {
        let pid = key.0;
        let begun = self.flows.get(key).and_then(|flow| flow.since(0));
        let why = self.why_unhooked(pid, begun.map_or(boot_ns, |mark| mark.at.boot_ns));
        let to = self.flows.get(key).map_or_else(String::new, |flow| {
            let (ip, port) = (&flow.ends.peer_ip, flow.ends.peer_port);
            match ip.contains(':') {
                true => format!(" to [{ip}]:{port}"),
                false => format!(" to {ip}:{port}"),
            }
        });
        let exe = self
            .table
            .get(pid)
            .map_or_else(String::new, |p| p.exe.path.clone());
        if self.uncovered.insert(exe.clone()) {
            self.on_gap(&GapSeen {
                detail: format!(
                    "{exe} sends TLS{to} by a library that is not hooked{why}: its payloads cannot be inspected"
                ),
                remedy: "`keytrail doctor` lists which libraries are covered and what to do about the rest"
                    .to_owned(),
                count: 1,
                signal: Some(Signal::TlsWrite),
                pid: Some(pid),
                ..GapSeen::new(GapReason::LibraryNotCovered, boot_ns)
            });
        }
    }
}

/// An event that is to stand for many more: those who came to a port of the process's own are none of them the one reported last.
fn of_all(mut event: Event) -> Event {
    if let Some(to) = &mut event.destination
        && to.direction == Some(Direction::Accepted)
    {
        to.ip.clear();
        to.port = 0;
        if let Some(evidence) = &mut event.evidence {
            evidence.destination_method = Some(DestinationMethod::Unknown);
        }
        event
            .coverage
            .push("to many who came to this port: who each of them was is not reported".to_owned());
    }
    event
}
