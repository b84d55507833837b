//! What metadata services answer: the credentials in it are learnt as those of a file are. The bytes stay only until the
//! answer is whole, and for a second at most.

use super::convert;
use super::files::min_confidence;
use super::registry::Registry;
use keytrail_abi as abi;
use keytrail_abi::header::flags;
use keytrail_model::{AnswerSeen, Pid};
use keytrail_secret::{Classifier, Origin};
use std::collections::{HashMap, HashSet};
use zeroize::Zeroizing;

/// Longest answer, with its head, that is waited for: what gives credentials is shorter.
const MAX_BYTES: usize = 128 << 10;
/// Longest head.
const MAX_HEAD: usize = 16 << 10;
/// Lines of one.
const MAX_LINES: usize = 64;
/// Times that it is tried whether an answer without a length is whole.
const MAX_TRIES: u32 = 16;
/// Room for an answer at first.
const ROOM: usize = 4 << 10;
/// Answers that are waited for at a time.
const MAX_WAITING: usize = 256;
/// How long one is.
const KEEP_NS: u64 = 1_000_000_000;

/// Whose answer, by who takes it in and its socket.
type Key = (Pid, u64);

/// An answer so far.
struct Part {
    bytes: Zeroizing<Vec<u8>>,
    /// Where its body begins, and how long that is.
    body: Option<(usize, Length)>,
    since_ns: u64,
    /// Where in its call the next record begins.
    next: u32,
    /// How often it was tried whether it is whole.
    tries: u32,
}

/// How long a body is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
    /// It ends with the connection.
    Open,
}

/// Answers that have not come whole.
#[derive(Default)]
pub(super) struct Answers {
    waiting: HashMap<Key, Part>,
    /// What comes on these until the next request gives nothing.
    passed: HashSet<Key>,
    /// What found no room, was too long, had a hole, or did not come whole in time.
    pub given_up: u64,
}

impl Answers {
    /// Something was asked for on this connection: what comes next is its answer.
    pub fn asked(&mut self, sock: u64) {
        if self.waiting.is_empty() && self.passed.is_empty() {
            return;
        }
        // Whoever takes it in: no two sockets have one address at a time.
        self.passed.retain(|(_, of)| *of != sock);
        self.keep(|(_, of), _| *of != sock);
    }

    pub fn forget(&mut self, pid: Pid) {
        self.keep(|(of, _), _| *of != pid);
        self.passed.retain(|(of, _)| *of != pid);
    }

    pub fn expire(&mut self, now_ns: u64) {
        self.keep(|_, part| part.since_ns.saturating_add(KEEP_NS) > now_ns);
    }

    /// What is not kept does not come whole any more.
    fn keep(&mut self, of: impl Fn(&Key, &Part) -> bool) {
        let before = self.waiting.len();
        self.waiting.retain(|key, part| of(key, part));
        self.given_up += (before - self.waiting.len()) as u64;
    }

    /// More of an answer; what is in it once it is whole, if anything is.
    pub fn take(
        &mut self,
        (r, data): (&abi::MessageSend, &[u8]),
        hook: &str,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Option<AnswerSeen> {
        let at = convert::task_info(&r.header);
        let key = (at.pid, r.ends.sock);
        let cut = r.header.flags & (flags::TRUNCATED | flags::UNREADABLE) != 0;
        let hole = r.header.flags & flags::AFTER_HOLE != 0;
        let begins = r.offset == 0 && data.starts_with(b"HTTP/1.");
        if begins && !self.waiting.contains_key(&key) {
            // The request was not seen.
            self.passed.remove(&key);
        }
        let waiting = self.waiting.get(&key);
        let torn = waiting.is_some_and(|part| hole || part.next != r.offset);
        if torn || cut && !self.passed.contains(&key) {
            self.give_up(key);
        }
        if self.passed.contains(&key) {
            return None;
        }
        let end = u64::from(r.offset) + data.len() as u64;
        let next = if end < r.total { end as u32 } else { 0 };
        let body = match self.push(key, data, (at.boot_ns, next)) {
            State::Whole(body) => body,
            State::More => return None,
            State::Nothing => {
                self.pass(key);
                return None;
            }
            State::TooMuch => {
                self.give_up(key);
                return None;
            }
        };
        self.pass(key);
        let findings = classifier.classify(&body, Origin::Text);
        let credentials = registry.learn_held(&findings, min_confidence(false));
        (!credentials.is_empty()).then(|| AnswerSeen {
            at,
            ends: convert::endpoints(&r.ends),
            credentials,
            hook: hook.to_owned(),
        })
    }

    fn give_up(&mut self, key: Key) {
        self.given_up += 1;
        self.pass(key);
    }

    /// What else comes before the next request is of no interest.
    fn pass(&mut self, key: Key) {
        self.waiting.remove(&key);
        if self.passed.len() >= MAX_WAITING {
            self.passed.clear();
        }
        self.passed.insert(key);
    }

    /// `next`: where in its call the next record begins.
    fn push(&mut self, key: Key, data: &[u8], (now_ns, next): (u64, u32)) -> State {
        if !self.waiting.contains_key(&key) && self.waiting.len() >= MAX_WAITING {
            return State::TooMuch;
        }
        let part = self.waiting.entry(key).or_insert_with(|| Part {
            bytes: Zeroizing::new(Vec::with_capacity(ROOM)),
            body: None,
            since_ns: now_ns,
            next: 0,
            tries: 0,
        });
        part.next = next;
        if part.bytes.len() + data.len() > MAX_BYTES {
            return State::TooMuch;
        }
        part.append(data);
        part.state(data.len())
    }
}

/// What an answer is so far.
enum State {
    Whole(Zeroizing<Vec<u8>>),
    /// The rest is still to come.
    More,
    /// It is none that gives anything.
    Nothing,
    /// It is longer than what is waited for, or there are too many.
    TooMuch,
}

impl Part {
    /// What has to move is wiped where it was.
    fn append(&mut self, data: &[u8]) {
        let length = self.bytes.len() + data.len();
        if length > self.bytes.capacity() {
            let mut more = Zeroizing::new(Vec::with_capacity(length.max(2 * self.bytes.len())));
            more.extend_from_slice(&self.bytes);
            self.bytes = more;
        }
        self.bytes.extend_from_slice(data);
    }

    /// After so many new bytes: each is inspected once, however small the pieces are.
    fn state(&mut self, new: usize) -> State {
        if !self
            .bytes
            .starts_with(&b"HTTP/1"[..self.bytes.len().min(6)])
        {
            return State::Nothing;
        }
        let (start, length) = match self.body {
            Some(known) => known,
            None => {
                let from = (self.bytes.len() - new).saturating_sub(3);
                if memchr::memmem::find(&self.bytes[from..], b"\r\n\r\n").is_none() {
                    let more = self.bytes.len() <= MAX_HEAD;
                    return if more { State::More } else { State::TooMuch };
                }
                match head(&self.bytes) {
                    Some(found) => *self.body.insert(found),
                    None => return State::Nothing,
                }
            }
        };
        let body = &self.bytes[start..];
        match length {
            Length::Bytes(length) if length > MAX_BYTES => State::TooMuch,
            Length::Bytes(length) => match body.get(..length) {
                Some(body) => State::Whole(Zeroizing::new(body.to_vec())),
                None => State::More,
            },
            Length::Chunked if body.ends_with(b"0\r\n\r\n") => {
                unchunked(body).map_or(State::Nothing, State::Whole)
            }
            Length::Open if !body.is_empty() && body[0] != b'{' => State::Nothing,
            // The object that gives credentials ends with its bracket.
            Length::Open
                if self.bytes[self.bytes.len() - new..]
                    .trim_ascii_end()
                    .ends_with(b"}") =>
            {
                self.tries += 1;
                if is_json(body) {
                    State::Whole(Zeroizing::new(body.to_vec()))
                } else if self.tries < MAX_TRIES {
                    State::More
                } else {
                    State::TooMuch
                }
            }
            Length::Chunked | Length::Open => State::More,
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Where the body of a response with status 200 begins, and how long it is; `None` for what gives nothing.
fn head(bytes: &[u8]) -> Option<(usize, Length)> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut head = httparse::Response::new(&mut lines);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) if head.code == Some(200) => start,
        _ => return None,
    };
    let value = |name: &str| {
        let mut lines = head.headers.iter();
        let line = lines.find(|line| line.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(line.value).ok().map(str::trim)
    };
    if value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return Some((start, Length::Chunked));
    }
    match value("content-length") {
        Some(length) => Some((start, Length::Bytes(length.parse().ok()?))),
        None => Some((start, Length::Open)),
    }
}

/// `None`: the chunks are not as they say.
fn unchunked(mut rest: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Room for all of it: what grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        if size == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        // Behind a chunk there is an empty line.
        rest = rest.get(end.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (Pid { tgid: 1, start: 1 }, 7);

    /// What comes of these pieces.
    fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, &'static str> {
        let mut answers = Answers::default();
        let mut state = State::More;
        for piece in pieces {
            state = answers.push(KEY, piece, (1, 0));
        }
        match state {
            State::Whole(body) => Ok(String::from_utf8(body.to_vec()).unwrap()),
            State::More => Err("more"),
            State::Nothing => Err("nothing"),
            State::TooMuch => Err("too much"),
        }
    }

    #[test]
    fn the_body_of_an_answer_is_found_once_it_is_whole() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{ab}",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\n{a\r\n2;x=y\r\nb}\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\n{\"a\":{}}\n",
        ] {
            let whole = head.as_bytes();
            let body = of([whole]).unwrap();
            assert!(["{ab}", "{\"a\":{}}\n"].contains(&body.as_str()), "{head}");
            // The line's end behind an open one may come or not.
            let is =
                |found: Result<String, &str>| found.is_ok_and(|found| found.trim() == body.trim());
            let end = head
                .trim_end_matches('\n')
                .len()
                .max(head.rfind("\r\n\r\n").unwrap() + 4);
            assert!(is(of(whole[..end].chunks(1))), "{head}");
            for cut in 1..end {
                assert_eq!(of([&whole[..cut]]), Err("more"), "{cut} of {head}");
                let (a, b) = whole[..end].split_at(cut);
                assert!(is(of([a, b])), "{cut} of {head}");
            }
        }
        for none in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            "HTTP/1.0 200 OK\r\n\r\ni-0123",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert_eq!(of([none.as_bytes()]), Err("nothing"), "{none}");
        }
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n{";
        assert_eq!(of([long.as_bytes()]), Err("too much"));
        let head = [&b"HTTP/1.1 200 OK\r\nx: "[..], &[b'x'; MAX_HEAD]].concat();
        assert_eq!(of([&head[..]]), Err("too much"));
    }

    #[test]
    fn what_does_not_come_whole_is_given_up_and_counted() {
        let mut answers = Answers::default();
        let key = |tgid| (Pid { tgid, start: 1 }, 7);
        for n in 0..4u32 {
            answers.push(key(n), b"HTTP/1.1 200 OK\r\n", (u64::from(n) * KEEP_NS, 0));
        }
        answers.expire(KEEP_NS);
        assert_eq!((answers.waiting.len(), answers.given_up), (3, 1));
        answers.forget(key(2).0);
        answers.give_up(key(3));
        assert_eq!((answers.waiting.len(), answers.given_up), (1, 3));
        assert!(answers.passed.contains(&key(3)));
        // The same socket, whoever takes in what comes.
        answers.asked(7);
        assert_eq!((answers.waiting.len(), answers.given_up), (0, 4));
        assert!(answers.passed.is_empty());
        for n in 0..=MAX_WAITING as u32 {
            let state = answers.push(key(n), b"HTTP", (1, 0));
            assert_eq!(matches!(state, State::TooMuch), n == MAX_WAITING as u32);
        }
    }
}
