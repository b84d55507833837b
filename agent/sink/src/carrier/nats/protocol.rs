//! What a server says. Everything is bounded, and what does not fit the protocol is refused.

use serde::Deserialize;

/// Longest line: the one that says what the server is names all servers of a cluster.
pub(super) const LINE_MAX: usize = 64 << 10;
/// Longest message: acknowledgements are small.
const MESSAGE_MAX: usize = 64 << 10;
/// Of what a server says so much is shown.
const SHOWN: usize = 200;
/// `JSStreamMessageExceedsMaximumErr` of nats-server's errors.json.
const TOO_LARGE: u64 = 10_054;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Info(Info),
    Message(Message),
    Ping,
    Pong,
    Ok,
    Err(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub headers: bool,
    pub jetstream: bool,
    pub tls_required: bool,
    pub max_payload: Option<usize>,
    pub nonce: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub subject: String,
    /// `NATS/1.0 503` and what follows, when there are headers.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// An operation, and how many bytes it took.
    Whole(Operation, usize),
    /// More has to come.
    Part,
    Wrong,
}

/// The operation at the beginning of these bytes.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    // Long lines are looked through once for each read: at most four times.
    let Some(end) = bytes.iter().take(LINE_MAX).position(|b| *b == b'\n') else {
        return if bytes.len() >= LINE_MAX {
            Parsed::Wrong
        } else {
            Parsed::Part
        };
    };
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (word, rest) = match line.iter().position(|b| matches!(b, b' ' | b'\t')) {
        Some(at) => (&line[..at], line[at + 1..].trim_ascii()),
        None => (line, &b""[..]),
    };
    let one = |operation| Parsed::Whole(operation, end + 1);
    match word.to_ascii_uppercase().as_slice() {
        b"PING" => one(Operation::Ping),
        b"PONG" => one(Operation::Pong),
        b"+OK" => one(Operation::Ok),
        b"-ERR" => one(Operation::Err(shown(&String::from_utf8_lossy(rest)))),
        b"INFO" => {
            serde_json::from_slice(rest).map_or(Parsed::Wrong, |info| one(Operation::Info(info)))
        }
        b"MSG" => message(rest, &bytes[end + 1..], false, end + 1),
        b"HMSG" => message(rest, &bytes[end + 1..], true, end + 1),
        _ => Parsed::Wrong,
    }
}

/// `SUBJECT SID [REPLY] [LENGTH OF HEADERS] LENGTH`, then so many bytes and the end of a line.
fn message(arguments: &[u8], rest: &[u8], has_head: bool, before: usize) -> Parsed {
    let Ok(arguments) = std::str::from_utf8(arguments) else {
        return Parsed::Wrong;
    };
    let words: Vec<&str> = arguments.split_ascii_whitespace().take(6).collect();
    let least = if has_head { 4 } else { 3 };
    if !(least..=least + 1).contains(&words.len()) {
        return Parsed::Wrong;
    }
    let number = |back: usize| words[words.len() - back].parse::<usize>().ok();
    let total = number(1);
    let head = if has_head { number(2) } else { Some(0) };
    let (Some(total), Some(head)) = (total, head) else {
        return Parsed::Wrong;
    };
    if total > MESSAGE_MAX || head > total {
        return Parsed::Wrong;
    }
    let Some(end) = rest.get(total..total + 2) else {
        return Parsed::Part;
    };
    if end != b"\r\n" {
        return Parsed::Wrong;
    }
    let message = Message {
        subject: words[0].to_owned(),
        head: rest[..head].to_vec(),
        body: rest[head..total].to_vec(),
    };
    Parsed::Whole(Operation::Message(message), before + total + 2)
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// The stream has it, maybe since an earlier try.
    Stored,
    /// The stream does not take one so large.
    Large,
    /// No stream takes the subject.
    Nobody,
    Failed(String),
    /// Whoever said this is no stream.
    Strange,
}

impl Ack {
    pub fn of(message: &Message) -> Ack {
        #[derive(Deserialize)]
        struct Body {
            stream: Option<String>,
            seq: Option<u64>,
            error: Option<Fault>,
        }
        #[derive(Deserialize)]
        struct Fault {
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        if message.head.starts_with(b"NATS/1.0 503") {
            return Ack::Nobody;
        }
        match serde_json::from_slice(&message.body) {
            Ok(Body {
                error: Some(fault), ..
            }) if fault.err_code == TOO_LARGE => Ack::Large,
            Ok(Body {
                error: Some(fault), ..
            }) => Ack::Failed(shown(&fault.description)),
            Ok(Body {
                stream: Some(_),
                seq: Some(_),
                error: None,
            }) => Ack::Stored,
            _ => Ack::Strange,
        }
    }
}

/// What may be shown of a text from elsewhere.
fn shown(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    text.chars().filter(plain).take(SHOWN).collect()
}
