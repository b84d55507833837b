//! What metadata services answer: the credentials in it are learnt as those of a file are. The bytes stay only until the
//! answer is whole, and for a second at most.

use super::registry::Registry;
use super::stamp;
use keytrail_abi as abi;
use keytrail_model::{AnswerSeen, Pid};
use keytrail_secret::{Classifier, Origin};
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Longest answer, with its head, that is waited for: what gives credentials is shorter.
const MAX_BYTES: usize = 64 << 10;
/// Answers that are waited for at a time.
const MAX_WAITING: usize = 64;
/// How long one is.
const KEEP_NS: u64 = 1_000_000_000;
/// Lines of a head.
const MAX_LINES: usize = 64;
/// What a text says in such a place counts from here on, as in files that nobody has named.
const MIN_CONFIDENCE: f64 = 0.5;

/// An answer so far.
struct Part {
    bytes: Zeroizing<Vec<u8>>,
    since_ns: u64,
}

/// Answers that have not come whole, by who takes them in and its socket.
#[derive(Default)]
pub(super) struct Answers {
    waiting: HashMap<(Pid, u64), Part>,
    /// What found no room, was too long, or did not come whole in time.
    pub given_up: u64,
}

impl Answers {
    /// Something was asked for on this connection: what comes next is its answer.
    pub fn asked(&mut self, pid: Pid, sock: u64) {
        self.waiting.remove(&(pid, sock));
    }

    pub fn forget(&mut self, pid: Pid) {
        self.waiting.retain(|(of, _), _| *of != pid);
    }

    pub fn expire(&mut self, now_ns: u64) {
        let before = self.waiting.len();
        self.waiting
            .retain(|_, part| part.since_ns.saturating_add(KEEP_NS) > now_ns);
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
        let at = stamp::stamp(&r.header);
        let key = (at.pid, r.ends.sock);
        if !self.waiting.contains_key(&key) && self.waiting.len() >= MAX_WAITING {
            self.given_up += 1;
            return None;
        }
        let part = self.waiting.entry(key).or_insert_with(|| Part {
            // Room for all there may be: what grows leaves copies behind.
            bytes: Zeroizing::new(Vec::with_capacity(MAX_BYTES)),
            since_ns: at.boot_ns,
        });
        if part.bytes.len() + data.len() > MAX_BYTES {
            self.waiting.remove(&key);
            self.given_up += 1;
            return None;
        }
        part.bytes.extend_from_slice(data);
        let body = match body(&part.bytes) {
            Body::Whole(body) => body,
            Body::More => return None,
            Body::None => {
                self.waiting.remove(&key);
                return None;
            }
        };
        let findings = classifier.classify(&body, Origin::Text);
        let credentials = registry.learn_held(&findings, MIN_CONFIDENCE);
        self.waiting.remove(&key);
        (!credentials.is_empty()).then(|| AnswerSeen {
            at,
            ends: stamp::ends(&r.ends),
            credentials,
            hook: hook.to_owned(),
        })
    }
}

enum Body {
    Whole(Zeroizing<Vec<u8>>),
    /// The rest is still to come.
    More,
    /// It is no answer that gives anything.
    None,
}

/// The body of an HTTP/1 response with status 200 (RFC 9112): of the length that is said, in chunks, or all there is.
fn body(bytes: &[u8]) -> Body {
    let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut head = httparse::Response::new(&mut lines);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Body::More,
        Err(_) => return Body::None,
    };
    if head.code != Some(200) {
        return Body::None;
    }
    let rest = &bytes[start..];
    let value = |name: &str| {
        let mut lines = head.headers.iter();
        let line = lines.find(|line| line.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(line.value).ok().map(str::trim)
    };
    if value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        return chunked(rest);
    }
    let length = value("content-length").map(str::parse::<usize>);
    match length {
        Some(Ok(length)) if rest.len() < length => Body::More,
        Some(Ok(length)) => Body::Whole(Zeroizing::new(rest[..length].to_vec())),
        Some(Err(_)) => Body::None,
        // It ends with the connection: the object that gives credentials ends with its bracket.
        None if rest.trim_ascii_end().ends_with(b"}") => Body::Whole(Zeroizing::new(rest.to_vec())),
        None if rest.is_empty() || rest.trim_ascii_start().starts_with(b"{") => Body::More,
        None => Body::None,
    }
}

fn chunked(mut rest: &[u8]) -> Body {
    // Room for all of it: what grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Body::More,
            Err(_) => return Body::None,
        };
        if size == 0 {
            return Body::Whole(body);
        }
        let Ok(size) = usize::try_from(size) else {
            return Body::None;
        };
        let Some(chunk) = rest.get(start..).and_then(|rest| rest.get(..size)) else {
            return Body::More;
        };
        body.extend_from_slice(chunk);
        // Behind a chunk there is an empty line.
        let Some(next) = rest.get(start + size + 2..) else {
            return Body::More;
        };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        match body(text.as_bytes()) {
            Body::Whole(body) => Some(String::from_utf8(body.to_vec()).unwrap()),
            Body::More => Some("more".to_owned()),
            Body::None => None,
        }
    }

    #[test]
    fn the_body_of_an_answer_is_found_once_it_is_whole() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        for cut in 0..head.len() + 4 {
            assert_eq!(
                of(&format!("{head}{{ab}}")[..cut]).as_deref(),
                Some("more"),
                "{cut}"
            );
        }
        assert_eq!(of(&format!("{head}{{ab}}")).as_deref(), Some("{ab}"));
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n";
        let whole = format!("{head}2\r\n{{a\r\n2;x=y\r\nb}}\r\n0\r\n\r\n");
        for cut in 0..whole.len() - 3 {
            assert_eq!(of(&whole[..cut]).as_deref(), Some("more"), "{cut}");
        }
        assert_eq!(of(&whole).as_deref(), Some("{ab}"));
        assert_eq!(
            of("HTTP/1.0 200 OK\r\n\r\n{\"a\":1}\n").as_deref(),
            Some("{\"a\":1}\n")
        );
        for none in [
            "HTTP/1.0 200 OK\r\n\r\ni-0123",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            "SSH-2.0-x\r\n",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn what_does_not_come_whole_is_given_up() {
        let mut answers = Answers::default();
        let pid = |tgid| Pid { tgid, start: 1 };
        for n in 0..3 {
            let part = Part {
                bytes: Zeroizing::new(Vec::new()),
                since_ns: u64::from(n) * KEEP_NS,
            };
            answers.waiting.insert((pid(n), 7), part);
        }
        answers.expire(KEEP_NS);
        assert_eq!((answers.waiting.len(), answers.given_up), (2, 1));
        answers.asked(pid(1), 7);
        answers.forget(pid(2));
        assert_eq!((answers.waiting.len(), answers.given_up), (0, 1));
    }
}
