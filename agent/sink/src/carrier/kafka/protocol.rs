//! What is asked of a broker and what it answers (<https://kafka.apache.org/protocol>), each in one version that all brokers
//! since Kafka 1.0 speak, those of Kafka 4 included (KIP-896).

use super::bytes::{Put as _, Take};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Partitions of a topic; clusters have fewer altogether.
const PARTITIONS_MAX: usize = 100_000;
/// So much is shown of a text from elsewhere.
const SHOWN: usize = 200;

/// A request and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Api {
    pub key: i16,
    pub version: i16,
    pub name: &'static str,
}

const fn api(key: i16, version: i16, name: &'static str) -> Api {
    Api { key, version, name }
}

pub(super) const PRODUCE: Api = api(0, 3, "Produce");
pub(super) const METADATA: Api = api(3, 4, "Metadata");
pub(super) const HANDSHAKE: Api = api(17, 1, "SaslHandshake");
pub(super) const VERSIONS: Api = api(18, 0, "ApiVersions");
pub(super) const AUTHENTICATE: Api = api(36, 0, "SaslAuthenticate");

/// What a broker says about a request, or about a part of it (<https://kafka.apache.org/protocol#protocol_error_codes>).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub i16);

/// Those that are reported by their names.
const CODES: &[(i16, &str)] = &[
    (2, "CORRUPT_MESSAGE"),
    (3, "UNKNOWN_TOPIC_OR_PARTITION"),
    (5, "LEADER_NOT_AVAILABLE"),
    (6, "NOT_LEADER_OR_FOLLOWER"),
    (7, "REQUEST_TIMED_OUT"),
    (10, "MESSAGE_TOO_LARGE"),
    (17, "INVALID_TOPIC_EXCEPTION"),
    (18, "RECORD_LIST_TOO_LARGE"),
    (19, "NOT_ENOUGH_REPLICAS"),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
    (29, "TOPIC_AUTHORIZATION_FAILED"),
    (31, "CLUSTER_AUTHORIZATION_FAILED"),
    (32, "INVALID_TIMESTAMP"),
    (33, "UNSUPPORTED_SASL_MECHANISM"),
    (35, "UNSUPPORTED_VERSION"),
    (44, "POLICY_VIOLATION"),
    (56, "KAFKA_STORAGE_ERROR"),
    (58, "SASL_AUTHENTICATION_FAILED"),
    (87, "INVALID_RECORD"),
    (89, "THROTTLING_QUOTA_EXCEEDED"),
];

impl Code {
    pub const GOOD: Code = Code(0);

    pub fn is_good(self) -> bool {
        self == Code::GOOD
    }

    /// Some record among them is not wanted, by whomever it is sent and whenever: fewer may be.
    pub fn is_of_records(self) -> bool {
        matches!(self.0, 10 | 18 | 32 | 44 | 87)
    }

    /// What is known of the cluster is old: asked anew, it may go elsewhere.
    pub fn is_of_old_news(self) -> bool {
        matches!(self.0, 3 | 5 | 6 | 56)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match CODES.iter().find(|(code, _)| *code == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Which of these the broker has not, of its answer to [`VERSIONS`].
pub(super) fn lacking(answer: &[u8], wanted: &[Api]) -> Option<Option<&'static str>> {
    let mut take = Take(answer);
    if !Code(take.int16()?).is_good() {
        return None;
    }
    let known = take.array(|take| Some((take.int16()?, take.int16()?, take.int16()?)))?;
    let has = |api: &&Api| {
        known
            .iter()
            .any(|(key, from, to)| *key == api.key && (*from..=*to).contains(&api.version))
    };
    Some(wanted.iter().find(|api| !has(api)).map(|api| api.name))
}

/// A topic as it is now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Topic {
    pub code: i16,
    /// By the number of the partition: the broker that takes its messages, -1 for none.
    pub leaders: Vec<i32>,
    /// Where brokers are.
    pub brokers: BTreeMap<i32, (String, u16)>,
}

/// Asks for a topic, which is not made by that.
pub(super) fn metadata(topic: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.int32(1);
    out.string(topic);
    out.push(0);
    out
}

pub(super) fn topic(answer: &[u8]) -> Option<Topic> {
    let mut take = Take(answer);
    let _throttle = take.int32()?;
    let brokers = take.array(|take| {
        let (node, host, port) = (take.int32()?, take.string()?, take.int32()?);
        let _rack = take.string()?;
        Some((node, (host.to_owned(), u16::try_from(port).ok()?)))
    })?;
    let _cluster = take.string()?;
    let _controller = take.int32()?;
    let mut topics = take.array(|take| {
        let code = take.int16()?;
        let _name = take.string()?;
        let _internal = take.boolean()?;
        let partitions = take.array(|take| {
            let _code = take.int16()?;
            let (number, leader) = (take.int32()?, take.int32()?);
            let _replicas = take.array(Take::int32)?;
            let _in_sync = take.array(Take::int32)?;
            Some((usize::try_from(number).ok()?, leader))
        })?;
        Some((code, partitions))
    })?;
    let (code, partitions) = topics.pop()?;
    let count = partitions.len();
    if count > PARTITIONS_MAX {
        return None;
    }
    let mut leaders = vec![-1; count];
    for (number, leader) in partitions {
        *leaders.get_mut(number)? = leader;
    }
    Some(Topic {
        code,
        leaders,
        brokers: brokers.into_iter().collect(),
    })
}

/// A batch for each of some partitions, to be acknowledged by all that keep them, within so many milliseconds.
pub(super) fn produce(topic: &str, batches: &[(i32, Vec<u8>)], timeout_ms: i32) -> Vec<u8> {
    const ALL: i16 = -1;
    let room: usize = batches.iter().map(|(_, batch)| batch.len() + 8).sum();
    let mut out = Vec::with_capacity(room + topic.len() + 64);
    out.nothing();
    out.int16(ALL);
    out.int32(timeout_ms);
    out.int32(1);
    out.string(topic);
    out.int32(batches.len() as i32);
    for (partition, batch) in batches {
        out.int32(*partition);
        out.bytes(batch);
    }
    out
}

/// What became of each partition's batch.
pub(super) fn produced(answer: &[u8]) -> Option<Vec<(i32, Code)>> {
    let mut take = Take(answer);
    let mut topics = take.array(|take| {
        let _name = take.string()?;
        take.array(|take| {
            let (partition, code) = (take.int32()?, take.int16()?);
            let (_offset, _time) = (take.int64()?, take.int64()?);
            Some((partition, Code(code)))
        })
    })?;
    topics.pop()
}

pub(super) fn handshake(mechanism: &str) -> Vec<u8> {
    let mut out = Vec::new();
    out.string(mechanism);
    out
}

/// What the broker says to it, and which mechanisms it has.
pub(super) fn shaken(answer: &[u8]) -> Option<(Code, String)> {
    let mut take = Take(answer);
    let code = Code(take.int16()?);
    let mechanisms = take.array(Take::string)?;
    Some((code, shown(&mechanisms.join(", "))))
}

pub(super) fn authenticate(token: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(token.len() + 4));
    out.bytes(token);
    out
}

/// What the broker says to it: an error and why, or the mechanism's next token.
pub(super) fn authenticated(answer: &[u8]) -> Option<(Code, String, Vec<u8>)> {
    let mut take = Take(answer);
    let code = Code(take.int16()?);
    let why = shown(take.string()?);
    Some((code, why, take.bytes()?.to_vec()))
}

/// What may be shown of a text from elsewhere.
fn shown(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    text.chars().filter(plain).take(SHOWN).collect()
}
