//! The same send again and again: a proxy that puts its token into every request, a client that asks in a loop. The first
//! ones are reported one by one, the rest as one event in ten seconds that says how many it stands for: what is usual must not
//! cost what is not (a ledger that keeps days would keep a minute of such a proxy).

use super::Core;
use super::send::Outbound;
use keytrail_model::event::{Event, Repeats};
use keytrail_model::{
    Channel, DestinationMethod, Direction, Endpoints, EventKind, Hit, HostName, IdentifiedBy,
    LineageBasis, Pid, Transform,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What one window is long, nanoseconds.
pub(super) const WINDOW_NS: u64 = 10_000_000_000;
/// Sends that are reported one by one in a window whose predecessor had no more of them.
pub(super) const ONE_BY_ONE: u32 = 32;
/// Kinds of sends that are remembered. What finds no room is reported one by one.
pub(super) const MAX_KINDS: usize = 4_096;

/// What has to be the same for two sends to be reported as one: all that an event says, but for times, numbers of bytes and the own
/// end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    pid: Pid,
    exec: u32,
    /// Of what the process holds: with it the source may change.
    version: u64,
    fingerprint: String,
    secret: bool,
    by: Option<IdentifiedBy>,
    channel: Channel,
    transform: Transform,
    layers: Vec<Transform>,
    part: String,
    body: bool,
    target: bool,
    truncated: bool,
    method: DestinationMethod,
    direction: Option<Direction>,
    to: Option<To>,
    hosts: Vec<HostName>,
    request: Option<Asked>,
    /// Of lineage: what ties the process to it, and what was not seen.
    lineage: Option<(LineageBasis, Vec<String>)>,
}

/// The far end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct To {
    ip: String,
    port: u16,
    protocol: String,
    path: String,
    net_ns: u32,
}

impl To {
    fn of(ends: &Endpoints) -> Self {
        Self {
            ip: ends.peer_ip.clone(),
            port: ends.peer_port,
            protocol: ends.protocol.clone(),
            path: ends.path.clone(),
            net_ns: ends.net_ns,
        }
    }

    /// A place of a process's own that others come to: all of them are one.
    fn own(ends: &Endpoints) -> Self {
        Self {
            ip: String::new(),
            port: ends.local_port,
            ..Self::of(ends)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    protocol: String,
    method: String,
    host: String,
    path: String,
    content_type: String,
    target: Option<(String, String, String)>,
}

/// Sends of one kind.
#[derive(Debug)]
struct Sends {
    kind: Kind,
    /// When its window ends.
    due_ns: u64,
    /// Reported one by one in it.
    reported: u32,
    /// The window before had more than are reported one by one.
    often: bool,
    /// What the next event of many is made of: the last that was reported one by one.
    like: Option<Box<Event>>,
    more: Sum,
}

/// What of one send goes into the sum of many.
#[derive(Debug, Default)]
struct Act {
    at_ns: u64,
    bytes: u64,
    inspected: u64,
    occurrences: u32,
    asked: u64,
    local_port: u16,
}

/// What an event of many stands for.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    first_ns: u64,
    last_ns: u64,
    bytes: u64,
    inspected: u64,
    occurrences: u32,
    asked: u64,
    local_port: u32,
}

/// All that is remembered, by numbers that go up.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    next: u64,
    numbers: HashMap<Kind, u64>,
    sends: BTreeMap<u64, Sends>,
    due: BTreeSet<(u64, u64)>,
    by_process: BTreeSet<(Pid, u64)>,
}

/// What is to be done with a send.
#[derive(Debug, PartialEq, Eq)]
enum Disposition {
    /// It is one that is reported by itself.
    Report,
    /// The same, and its event is what later ones are reported by.
    ReportAndKeep(u64),
    /// It was counted.
    Counted,
}

impl Repeated {
    fn note(&mut self, kind: Kind, act: &Act) -> Disposition {
        let now = act.at_ns;
        let Some(number) = self.numbers.get(&kind).copied() else {
            if self.sends.len() < MAX_KINDS {
                self.meet(kind, now);
            }
            return Disposition::Report;
        };
        let Some(sends) = self.sends.get_mut(&number) else {
            return Disposition::Report;
        };
        if !sends.often && sends.reported < ONE_BY_ONE {
            sends.reported += 1;
            return if sends.reported == ONE_BY_ONE {
                Disposition::ReportAndKeep(number)
            } else {
                Disposition::Report
            };
        }
        if sends.like.is_none() {
            return Disposition::Report;
        }
        let sum = &mut sends.more;
        if sum.count == 0 {
            sum.first_ns = now;
        }
        sum.count += 1;
        // Records of several processors may be a little out of order.
        sum.first_ns = sum.first_ns.min(now);
        sum.last_ns = sum.last_ns.max(now);
        sum.bytes += act.bytes;
        sum.inspected += act.inspected;
        sum.occurrences = sum.occurrences.saturating_add(act.occurrences);
        sum.asked += act.asked;
        sum.local_port = u32::from(act.local_port);
        Disposition::Counted
    }

    fn meet(&mut self, kind: Kind, now: u64) {
        let number = self.next;
        self.next += 1;
        let due_ns = now.saturating_add(WINDOW_NS);
        self.due.insert((due_ns, number));
        self.by_process.insert((kind.pid, number));
        self.numbers.insert(kind.clone(), number);
        self.sends.insert(
            number,
            Sends {
                kind,
                due_ns,
                reported: 1,
                often: false,
                like: None,
                more: Sum::default(),
            },
        );
    }

    fn keep(&mut self, number: u64, event: &Event) {
        if let Some(sends) = self.sends.get_mut(&number) {
            sends.like = Some(Box::new(event.clone()));
        }
    }

    /// Events of many whose window has ended, or of a process that goes away, in the order in which their kinds were seen.
    fn take(&mut self, boot_ns: u64, only: Option<Pid>) -> Vec<Event> {
        let numbers: Vec<u64> = match only {
            Some(pid) => {
                let of = (pid, 0)..=(pid, u64::MAX);
                self.by_process
                    .range(of)
                    .map(|(_, number)| *number)
                    .collect()
            }
            None => {
                let due = self.due.iter().take_while(|(due_ns, _)| *due_ns <= boot_ns);
                let mut numbers: Vec<u64> = due.map(|(_, number)| *number).collect();
                numbers.sort_unstable();
                numbers
            }
        };
        let mut events = Vec::new();
        for number in numbers {
            let Some(mut sends) = self.sends.remove(&number) else {
                continue;
            };
            self.due.remove(&(sends.due_ns, number));
            let sum = std::mem::take(&mut sends.more);
            // What goes on as often goes on to be counted; anything else begins anew.
            let goes_on = only.is_none() && sum.count > 0;
            if sum.count > 0
                && let Some(like) = &sends.like
            {
                events.push(of_many(like, &sum));
            }
            if goes_on {
                sends.often = true;
                sends.due_ns = boot_ns.saturating_add(WINDOW_NS);
                self.due.insert((sends.due_ns, number));
                self.sends.insert(number, sends);
            } else {
                self.by_process.remove(&(sends.kind.pid, number));
                self.numbers.remove(&sends.kind);
            }
        }
        events
    }
}

/// One event in place of many.
fn of_many(like: &Event, sum: &Sum) -> Event {
    let mut event = like.clone();
    let since_ns = sum.last_ns.saturating_sub(like.boot_ns);
    event.time_ns = like.time_ns.saturating_add(since_ns);
    event.boot_ns = sum.last_ns;
    event.repeats = Some(Repeats {
        count: sum.count,
        first_ns: event.time_ns.saturating_sub(sum.last_ns - sum.first_ns),
    });
    if let Some(evidence) = &mut event.evidence {
        evidence.payload_bytes = sum.bytes;
        evidence.inspected_bytes = sum.inspected;
        evidence.occurrences = sum.occurrences;
    }
    if let Some(request) = &mut event.request {
        request.bytes = sum.asked;
        if sum.count > 1 {
            request.content_length = None;
        }
    }
    if let Some(to) = &mut event.destination {
        to.local_port = sum.local_port;
    }
    event
}

fn asked_of<'a>(outbound: &'a Outbound, hit: &Hit) -> Option<&'a keytrail_model::Request> {
    outbound.payload.requests.get(usize::from(hit.request?))
}

impl Core {
    /// Whether a send was counted and is not reported by itself; and if its event is what later ones are reported by, under which number.
    pub(super) fn repeated(
        &mut self,
        outbound: &Outbound,
        hit: &Hit,
        hosts: &[HostName],
        direction: Option<Direction>,
    ) -> (bool, Option<u64>) {
        let pid = outbound.at.pid;
        let asked = asked_of(outbound, hit).map(|request| Asked {
            protocol: request.protocol.clone(),
            method: request.method.clone(),
            host: request.host.clone(),
            path: request.path.clone(),
            content_type: request.content_type.clone(),
            target: request
                .target
                .as_ref()
                .map(|t| (t.service.clone(), t.kind.clone(), t.name.clone())),
        });
        let exec = self.table.get(pid).map_or(0, |p| p.exec);
        let version = self.table.version(pid);
        let kind = Kind {
            pid,
            exec,
            version,
            fingerprint: hit.credential.fingerprint.clone(),
            secret: hit.secret,
            by: hit.by,
            channel: outbound.stream.channel(),
            transform: hit.transform,
            layers: hit.layers.clone(),
            part: hit.part.clone(),
            body: hit.body,
            target: hit.target,
            truncated: outbound.payload.truncated,
            method: outbound.method(),
            direction,
            to: outbound.ends().map(To::of),
            hosts: hosts.to_vec(),
            request: asked,
            lineage: None,
        };
        let act = Act {
            at_ns: outbound.at.boot_ns,
            bytes: outbound.payload.total,
            inspected: outbound.payload.inspected,
            occurrences: hit.occurrences,
            asked: asked_of(outbound, hit).map_or(0, |request| request.bytes),
            local_port: outbound.ends().map_or(0, |ends| ends.local_port),
        };
        self.count(kind, &act)
    }

    /// The same of an event of lineage: what one process has sent to one place, or given to those who came to one of its own.
    pub(super) fn repeated_lineage(
        &mut self,
        pid: Pid,
        ends: &Endpoints,
        event: &Event,
    ) -> (bool, Option<u64>) {
        let (Some(evidence), Some(credential)) = (&event.evidence, &event.credential) else {
            return (false, None);
        };
        let to = event.destination.as_ref();
        let direction = to.and_then(|to| to.direction);
        let accepted = direction == Some(Direction::Accepted);
        let kind = Kind {
            pid,
            exec: self.table.get(pid).map_or(0, |p| p.exec),
            version: self.table.version(pid),
            fingerprint: credential.fingerprint.clone(),
            secret: false,
            by: None,
            channel: evidence.channel,
            transform: Transform::Raw,
            layers: Vec::new(),
            part: String::new(),
            body: false,
            target: false,
            truncated: event.truncation.is_some(),
            method: DestinationMethod::Socket,
            direction,
            to: Some(if accepted {
                To::own(ends)
            } else {
                To::of(ends)
            }),
            hosts: to.map_or_else(Vec::new, |to| to.hosts.clone()),
            request: None,
            lineage: evidence
                .lineage_basis
                .map(|basis| (basis, event.coverage.clone())),
        };
        let act = Act {
            at_ns: event.boot_ns,
            bytes: evidence.payload_bytes,
            inspected: evidence.inspected_bytes,
            local_port: ends.local_port,
            ..Act::default()
        };
        self.count(kind, &act)
    }

    fn count(&mut self, kind: Kind, act: &Act) -> (bool, Option<u64>) {
        match self.repeats.note(kind, act) {
            Disposition::Report => (false, None),
            Disposition::ReportAndKeep(number) => (false, Some(number)),
            Disposition::Counted => (true, None),
        }
    }

    /// Later sends of this kind are reported by this event.
    pub(super) fn repeat_by(&mut self, number: u64, event: &Event) {
        debug_assert_eq!(event.kind, EventKind::CredentialSent);
        self.repeats.keep(number, event);
    }

    /// Tells what was counted and is due, or what a process that goes away has sent.
    pub(super) fn end_repeats(&mut self, boot_ns: u64, only: Option<Pid>) {
        for event in self.repeats.take(boot_ns, only) {
            self.emit(event);
        }
    }
}
