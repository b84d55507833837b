//! Messages into a topic of Kafka (<https://kafka.apache.org/protocol>).
//!
//! Each event is a message with its id as its key, by which it belongs to a partition, and as the header `event.id`. A batch is
//! delivered when every replica that is in sync has acknowledged each of its messages; one request at a time is under way to
//! a partition, so that they lie there in the order of the events. The published clients that need no C (rskafka) ask the C
//! library for addresses (see `resolve`), bring a runtime and try again for as long as they like; the others are C, with a
//! TLS of their own. Of all that a sink does, it needs to log in, to ask who leads, and to produce.

mod bytes;
mod connection;
mod fault;
mod login;
mod partition;
mod protocol;
mod records;
mod scram;

use super::{Carrier, Delivered, Failure, Item};
use crate::format::{Reporter, time_ns, uid};
use crate::spec::KafkaSpec;
use connection::Connection;
use fault::Fault;
use protocol::{Code, Topic};
use records::Record;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Bytes of a batch of one partition; brokers take a mebibyte unless they are told otherwise.
const BATCH_MAX: usize = 900 << 10;
/// Connections that are kept.
const CONNECTIONS_MAX: usize = 32;
/// How long it is believed who leads which partition when nobody says otherwise, as Kafka's clients do.
const OLD: Duration = Duration::from_secs(300);

pub(super) struct Kafka {
    spec: KafkaSpec,
    client: String,
    topic: Option<(Instant, Topic)>,
    /// By the number of the broker; the last used is the last.
    connections: VecDeque<(i32, Connection)>,
}

/// Consecutive events for one partition.
struct Part<'a> {
    partition: usize,
    messages: Vec<Message<'a>>,
}

#[derive(Clone)]
struct Message<'a> {
    id: String,
    time_ms: i64,
    value: &'a [u8],
}

impl Message<'_> {
    fn of(item: &Item) -> Message<'_> {
        let time = time_ns(item.event.time.as_ref()).div_euclid(1_000_000);
        Message {
            id: uid(&item.event),
            time_ms: i64::try_from(time).unwrap_or(0),
            value: &item.line,
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            id: &self.id,
            time_ms: self.time_ms,
            value: self.value,
        }
    }
}

impl Kafka {
    pub fn new(spec: KafkaSpec, reporter: &Reporter) -> Kafka {
        Kafka {
            spec,
            client: format!("keytrail {}", reporter.host)
                .chars()
                .take(200)
                .collect(),
            topic: None,
            connections: VecDeque::new(),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.spec.timeout
    }

    /// How many partitions there are; asks for the topic where nothing fresh is known of it.
    fn partitions(&mut self) -> Result<usize, Fault> {
        let fresh = self.topic.as_ref();
        if let Some((_, topic)) = fresh.filter(|(asked, _)| asked.elapsed() < OLD) {
            return Ok(topic.leaders.len());
        }
        let topic = self.ask()?;
        let count = topic.leaders.len();
        self.topic = Some((Instant::now(), topic));
        Ok(count)
    }

    /// Asks one broker after the other.
    fn ask(&self) -> Result<Topic, Fault> {
        let mut last = Fault::Strange;
        for broker in &self.spec.brokers {
            let deadline = self.deadline();
            let answer = Connection::open(
                &self.spec,
                &self.client,
                &broker.host,
                broker.port,
                deadline,
            )
            .and_then(|mut connection| {
                let request = protocol::metadata(&self.spec.topic);
                connection.call(protocol::METADATA, &request, deadline)
            });
            let topic = answer.and_then(|answer| {
                let topic = protocol::topic(&answer).ok_or(Fault::Strange)?;
                match Code(topic.code) {
                    code if !code.is_good() => Err(Fault::Said(code)),
                    _ if topic.leaders.is_empty() => Err(Fault::Strange),
                    _ => Ok(topic),
                }
            });
            match topic {
                Ok(topic) => return Ok(topic),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// The connection to a broker of the topic, out of those that are kept.
    fn connection(&mut self, node: i32) -> Result<Connection, Fault> {
        if let Some(at) = self.connections.iter().position(|(n, _)| *n == node)
            && let Some((_, connection)) = self.connections.remove(at)
        {
            return Ok(connection);
        }
        let topic = self.topic.as_ref().map(|(_, topic)| topic);
        let place = topic.and_then(|topic| topic.brokers.get(&node));
        let (host, port) = place.ok_or(Fault::Strange)?;
        Connection::open(&self.spec, &self.client, host, *port, self.deadline())
    }

    fn keep(&mut self, node: i32, connection: Connection) {
        self.connections.push_back((node, connection));
        if self.connections.len() > CONNECTIONS_MAX {
            self.connections.pop_front();
        }
    }

    fn forget(&mut self) {
        self.topic = None;
        self.connections.clear();
    }

    /// The leader of a partition.
    fn leader(&self, partition: usize) -> Result<i32, Fault> {
        let topic = self.topic.as_ref().map(|(_, topic)| topic);
        let leader = topic.and_then(|topic| topic.leaders.get(partition));
        leader
            .copied()
            .filter(|node| *node >= 0)
            .ok_or(Fault::Leaderless(partition as i32))
    }

    /// Produces the first part of each partition; gives what became of each, by its place among the parts.
    fn round(&mut self, parts: &VecDeque<Part<'_>>) -> Result<Vec<(usize, Code)>, Fault> {
        let mut seen = BTreeSet::new();
        let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            if seen.insert(part.partition) {
                let leader = self.leader(part.partition)?;
                by_leader.entry(leader).or_default().push(at);
            }
        }
        let mut done = Vec::new();
        for (node, places) in by_leader {
            match self.produce(node, parts, &places) {
                Ok(codes) => done.extend(codes),
                // What others have taken does not go there again.
                Err(fault) if done.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn produce(
        &mut self,
        node: i32,
        parts: &VecDeque<Part<'_>>,
        places: &[usize],
    ) -> Result<Vec<(usize, Code)>, Fault> {
        let batches: Vec<(i32, Vec<u8>)> = places
            .iter()
            .map(|at| {
                let records: Vec<Record<'_>> =
                    parts[*at].messages.iter().map(Message::record).collect();
                (parts[*at].partition as i32, records::batch(&records))
            })
            .collect();
        let timeout = i32::try_from(self.spec.timeout.as_millis()).unwrap_or(i32::MAX);
        let request = protocol::produce(&self.spec.topic, &batches, timeout);
        let mut connection = self.connection(node)?;
        let answer = connection.call(protocol::PRODUCE, &request, self.deadline())?;
        let codes = protocol::produced(&answer).ok_or(Fault::Strange)?;
        self.keep(node, connection);
        places
            .iter()
            .map(|at| {
                let partition = parts[*at].partition as i32;
                let found = codes.iter().find(|(number, _)| *number == partition);
                found.map(|(_, code)| (*at, *code)).ok_or(Fault::Strange)
            })
            .collect()
    }

    /// Delivers the parts until none is left.
    fn all(&mut self, parts: &mut VecDeque<Part<'_>>) -> Result<Refused, Fault> {
        let mut refused = Refused::default();
        // What is known may be old, once.
        let mut may_be_old = true;
        while !parts.is_empty() {
            let round = self.round(parts);
            let fault = match round {
                Ok(codes) => sort_by_code(parts, &codes, &mut refused),
                Err(fault) => Some(fault),
            };
            match fault {
                None => {}
                Some(fault) if may_be_old && fault.is_of_old_news() => {
                    may_be_old = false;
                    self.forget();
                    self.partitions()?;
                }
                Some(fault) => return Err(fault),
            }
        }
        Ok(refused)
    }
}

/// Messages that the broker never takes.
#[derive(Default)]
struct Refused {
    count: u64,
    code: Option<Code>,
}

/// Takes out what was taken, and cuts in two what has a message in it that is not wanted. Gives the first failure of another kind.
fn sort_by_code(
    parts: &mut VecDeque<Part<'_>>,
    codes: &[(usize, Code)],
    refused: &mut Refused,
) -> Option<Fault> {
    let mut codes: Vec<(usize, Code)> = codes.to_vec();
    // From behind, so that places stay what they are.
    codes.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
    let mut fault = None;
    for (at, code) in codes {
        if code.is_good() {
            parts.remove(at);
        } else if code.is_of_records() {
            let Some(mut part) = parts.remove(at) else {
                continue;
            };
            if part.messages.len() == 1 {
                refused.count += 1;
                refused.code = Some(code);
                continue;
            }
            let messages = part.messages.split_off(part.messages.len() / 2);
            let partition = part.partition;
            parts.insert(
                at,
                Part {
                    partition,
                    messages,
                },
            );
            parts.insert(at, part);
        } else {
            fault = Some(Fault::Said(code));
        }
    }
    fault
}

/// The events by partitions, in order within each, in batches that brokers take.
fn parts(items: &[Item], partitions: usize) -> VecDeque<Part<'_>> {
    let mut parts: VecDeque<Part<'_>> = VecDeque::new();
    // The last part of each partition, and the bytes in it.
    let mut open: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for item in items {
        let message = Message::of(item);
        let partition = partition::partition(&message.id, partitions);
        let room = message.record().room();
        match open.get_mut(&partition) {
            Some((at, bytes)) if *bytes + room <= BATCH_MAX => {
                *bytes += room;
                parts[*at].messages.push(message);
            }
            _ => {
                open.insert(partition, (parts.len(), room));
                let messages = vec![message];
                parts.push_back(Part {
                    partition,
                    messages,
                });
            }
        }
    }
    parts
}

impl Carrier for Kafka {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let partitions = self.partitions().map_err(Failure::later)?;
        let mut parts = parts(items, partitions);
        let refused = match self.all(&mut parts) {
            Ok(refused) => refused,
            Err(fault) => {
                // Certificates, credentials and leaders may be others by the next time.
                self.forget();
                return Err(Failure::later(fault));
            }
        };
        let why = refused.code.map(|code| format!("the broker says: {code}"));
        let why = why.unwrap_or_default();
        if refused.count == items.len() as u64 && refused.count > 0 {
            return Err(Failure::Refused(why));
        }
        Ok(Delivered {
            left_out: refused.count,
            why,
            ..Delivered::default()
        })
    }
}

#[cfg(test)]
mod tests;
