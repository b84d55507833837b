//! HTTP/1 messages as they are sent (RFC 9112), in whatever writes: where heads, bodies and chunks are, and what heads
//! say. What is in the bytes is the business of others.

use super::coded::Encoding;
use super::encode;
use super::host::host_name;
use super::matcher::Matcher;
use super::presented;
use super::request;
use keytrail_model::{HostName, Request};
use zeroize::Zeroizing;

/// First bytes of every HTTP/2 connection (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest line that is kept when it is split over writes; the rest of a longer one is skipped.
const MAX_LINE: usize = 8 * 1024;
/// Longest head that is followed: beyond, a missing `Host` is given up.
const MAX_HEAD: usize = 64 * 1024;
/// Most names kept of one request.
const MAX_HOSTS: usize = 8;
/// Longest method looked for; the registered ones are shorter.
const MAX_METHOD: usize = 20;
/// Longest line with the size of a chunk: extensions are rare.
const MAX_SIZE_LINE: usize = 256;

/// Follows the messages of one connection.
#[derive(Default)]
pub struct Http {
    state: ParseState,
    /// An unfinished line; it may hold a secret.
    line: Zeroizing<Vec<u8>>,
    /// Bytes of this head so far.
    seen: usize,
    /// It was said that a message begins.
    announced: bool,
    head: Head,
}

/// What the head of the current message says.
#[derive(Clone, Default)]
pub struct Head {
    pub hosts: Vec<HostName>,
    pub request: Request,
    /// It is a request, not a response.
    pub is_request: bool,
    /// An encoding of its body that cannot be told from its first bytes.
    pub encoding: Option<Encoding>,
    /// `Upgrade: websocket`, and whether its messages may be compressed.
    pub websocket: bool,
    pub deflate: bool,
    /// Headers that hold a credential, by their place in `presented`, until the head ends.
    presented: Vec<(usize, Zeroizing<Vec<u8>>)>,
    switches: bool,
    length: u64,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ParseState {
    /// Between messages: one may begin with the next bytes.
    #[default]
    Outside,
    /// So many bytes of the preface of HTTP/2 were there.
    Preface(usize),
    /// In the first line.
    Line,
    /// Among the header lines.
    Headers,
    /// In a header line that is too long to keep.
    Skipping,
    /// In a body of which `.0` bytes are to come.
    Body(u64),
    /// In the line with the size of a chunk.
    Size,
    /// In a chunk of which `.0` bytes are to come.
    Chunk(u64),
    /// In the line break behind a chunk, or behind the last one (in its trailer).
    Behind,
    Trailer,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of no message.
    Other,
    /// A message begins here; nothing was taken.
    Begins,
    /// Of a head.
    Head,
    /// Of a body that is there as it is, and whether it ends here.
    Body(bool),
    /// Of a chunk.
    Chunk,
    /// Between chunks.
    Framing,
    /// The end of the last chunk.
    Ended,
    /// The head of a message behind which WebSocket frames follow.
    WebSocket,
    /// The preface of HTTP/2 ends here.
    Http2,
}

impl Http {
    /// Bytes kept.
    pub fn kept(&self) -> usize {
        let presented = self.head.presented.iter();
        self.line.len() + presented.map(|(_, value)| value.len()).sum::<usize>()
    }

    /// The headers of a request that hold a credential, once its head has ended.
    pub fn take_presented(&mut self) -> Vec<(usize, Zeroizing<Vec<u8>>)> {
        match self.state {
            ParseState::Line | ParseState::Headers | ParseState::Skipping => Vec::new(),
            _ => std::mem::take(&mut self.head.presented),
        }
    }

    /// Whether values of headers are kept for the end of the head.
    pub fn presents(&self) -> bool {
        !self.head.presented.is_empty()
    }

    /// Forgets them: the head does not end.
    pub fn forget_presented(&mut self) {
        self.head.presented.clear();
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Forgets what it was in the middle of: what comes next does not follow.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets bytes that may be of a secret, and what cannot be followed without them.
    pub fn wipe(&mut self) {
        if !matches!(self.state, ParseState::Body(_) | ParseState::Chunk(_))
            || !self.line.is_empty()
        {
            self.reset();
        }
    }

    /// No message is being followed.
    pub fn is_outside(&self) -> bool {
        self.state == ParseState::Outside
    }

    /// In the first line of a message.
    pub fn is_first_line(&self) -> bool {
        self.state == ParseState::Line
    }

    /// In the chunks of a body.
    pub fn is_chunked(&self) -> bool {
        matches!(
            self.state,
            ParseState::Size | ParseState::Chunk(_) | ParseState::Behind | ParseState::Trailer
        )
    }

    /// So many bytes come that are not seen.
    pub fn skip(&mut self, bytes: u64) {
        self.state = match self.state {
            ParseState::Body(left) if bytes < left => ParseState::Body(left - bytes),
            ParseState::Chunk(left) if bytes < left => ParseState::Chunk(left - bytes),
            _ => return self.reset(),
        };
    }

    /// What `rest` begins with, and how much of it that is.
    pub fn step(&mut self, rest: &[u8], matcher: &Matcher) -> (usize, Piece) {
        match self.state {
            ParseState::Outside => self.outside(rest),
            ParseState::Preface(seen) => self.preface(rest, seen),
            ParseState::Body(left) => {
                let here = left.min(rest.len() as u64);
                self.state = if here == left {
                    ParseState::Outside
                } else {
                    ParseState::Body(left - here)
                };
                (here as usize, Piece::Body(here == left))
            }
            ParseState::Chunk(left) => {
                let here = left.min(rest.len() as u64);
                self.state = if here == left {
                    ParseState::Behind
                } else {
                    ParseState::Chunk(left - here)
                };
                (here as usize, Piece::Chunk)
            }
            ParseState::Line | ParseState::Headers | ParseState::Skipping | ParseState::Trailer => {
                match memchr::memchr(b'\n', rest) {
                    Some(end) => (end + 1, self.line_end(&rest[..end], matcher)),
                    None => {
                        self.keep(rest, MAX_LINE);
                        (rest.len(), self.piece())
                    }
                }
            }
            ParseState::Size | ParseState::Behind => match memchr::memchr(b'\n', rest) {
                Some(end) => (end + 1, self.line_end(&rest[..end], matcher)),
                None => {
                    self.keep(rest, MAX_SIZE_LINE);
                    (rest.len(), self.piece())
                }
            },
        }
    }

    fn piece(&self) -> Piece {
        match self.state {
            ParseState::Outside => Piece::Other,
            ParseState::Size | ParseState::Behind | ParseState::Trailer => Piece::Framing,
            _ => Piece::Head,
        }
    }

    fn outside(&mut self, rest: &[u8]) -> (usize, Piece) {
        let common = rest.len().min(HTTP2_PREFACE.len());
        let place = if rest[..common] == HTTP2_PREFACE[..common] {
            ParseState::Preface(0)
        } else if may_begin(rest) {
            ParseState::Line
        } else {
            return (rest.len(), Piece::Other);
        };
        // The head of the message before is still asked for.
        if !std::mem::replace(&mut self.announced, true) {
            return (0, Piece::Begins);
        }
        self.reset();
        self.state = place;
        (0, Piece::Head)
    }

    fn preface(&mut self, rest: &[u8], seen: usize) -> (usize, Piece) {
        let wanted = &HTTP2_PREFACE[seen..];
        let here = wanted.len().min(rest.len());
        if rest[..here] != wanted[..here] {
            // `P` begins methods as well; what follows decides.
            self.state = ParseState::Line;
            self.line = encode::copy(&HTTP2_PREFACE[..seen]);
            return (0, Piece::Head);
        }
        if here == wanted.len() {
            self.reset();
            return (here, Piece::Http2);
        }
        self.state = ParseState::Preface(seen + here);
        (here, Piece::Head)
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, part: &[u8], most: usize) {
        self.seen = self.seen.saturating_add(part.len());
        if self.seen > MAX_HEAD {
            return self.reset();
        }
        if self.state == ParseState::Skipping {
            return;
        }
        if self.line.len() + part.len() > most {
            self.line = Zeroizing::default();
            // A first line of that length is none, nor the size of a chunk.
            match self.state {
                ParseState::Headers | ParseState::Trailer => self.state = ParseState::Skipping,
                _ => self.reset(),
            }
            return;
        }
        if self.line.capacity() < self.line.len() + part.len() {
            // Doubling keeps many small writes linear; a fresh buffer, because the old one is to be wiped.
            let mut larger = encode::buffer((self.line.len() + part.len()).max(64) * 2);
            larger.extend_from_slice(&self.line);
            self.line = larger;
        }
        self.line.extend_from_slice(part);
    }

    fn line_end(&mut self, end: &[u8], matcher: &Matcher) -> Piece {
        self.seen = self.seen.saturating_add(end.len() + 1);
        if self.seen > MAX_HEAD {
            self.reset();
            return Piece::Head;
        }
        if self.line.is_empty() {
            return self.line_done(end, matcher);
        }
        let mut whole = encode::buffer(self.line.len() + end.len());
        whole.extend_from_slice(&self.line);
        whole.extend_from_slice(end);
        self.line = Zeroizing::default();
        self.line_done(&whole, matcher)
    }

    fn line_done(&mut self, line: &[u8], matcher: &Matcher) -> Piece {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            // Behind too long a trailer line as well: the head's end ends the message then.
            ParseState::Skipping => self.state = ParseState::Headers,
            ParseState::Line => {
                if self.head.first_line(line, matcher) {
                    self.state = ParseState::Headers;
                } else {
                    self.reset();
                }
            }
            ParseState::Headers if line.is_empty() => return self.head_done(),
            ParseState::Headers => self.head.header(line),
            ParseState::Size => match chunk_size(line) {
                Some(0) => {
                    self.state = ParseState::Trailer;
                    return Piece::Framing;
                }
                Some(size) => {
                    self.seen = 0;
                    self.state = ParseState::Chunk(size);
                    return Piece::Framing;
                }
                None => {
                    self.reset();
                    return Piece::Other;
                }
            },
            ParseState::Behind if line.is_empty() => {
                self.state = ParseState::Size;
                return Piece::Framing;
            }
            ParseState::Behind => {
                self.reset();
                return Piece::Other;
            }
            ParseState::Trailer if line.is_empty() => {
                self.state = ParseState::Outside;
                self.line = Zeroizing::default();
                return Piece::Ended;
            }
            ParseState::Trailer => return Piece::Framing,
            _ => {}
        }
        Piece::Head
    }

    fn head_done(&mut self) -> Piece {
        self.seen = 0;
        if self.head.websocket && (self.head.is_request || self.head.switches) {
            self.state = ParseState::Outside;
            return Piece::WebSocket;
        }
        self.state = match (self.head.chunked, self.head.length) {
            (true, _) => ParseState::Size,
            (false, 0) => ParseState::Outside,
            (false, length) => ParseState::Body(length),
        };
        Piece::Head
    }
}

impl Head {
    /// Takes the first line of a request or a response; whether it is one.
    fn first_line(&mut self, line: &[u8], matcher: &Matcher) -> bool {
        if line.starts_with(b"HTTP/1.") {
            self.switches = line.get(8..12) == Some(b" 101");
            self.request.protocol = "http/1.1".to_owned();
            self.request.status_class = request::status_class(line.get(9..12).unwrap_or_default());
            return line.len() >= 12;
        }
        let Some((method, target, host)) = request_line(line) else {
            return false;
        };
        self.is_request = true;
        self.request.protocol = "http/1.1".to_owned();
        self.request.method = request::method(method);
        self.request.path = request::path(target, matcher);
        self.name(host);
        true
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let has = |word: &[u8]| {
            let lower = Zeroizing::new(value.to_ascii_lowercase());
            memchr::memmem::find(&lower, word).is_some()
        };
        if is(b"host") {
            self.name(host_name(value).map(|name| HostName {
                name,
                provenance: "host_header".to_owned(),
            }));
        } else if is(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            self.length = length.unwrap_or(0);
            self.request.content_length = length;
        } else if is(b"transfer-encoding") {
            self.chunked = value.to_ascii_lowercase().ends_with(b"chunked");
        } else if is(b"content-type") {
            self.request.content_type = request::content_type(value);
        } else if is(b"content-encoding") {
            self.encoding = content_encoding(value);
        } else if is(b"upgrade") {
            self.websocket = has(b"websocket");
        } else if is(b"sec-websocket-extensions") {
            self.deflate = has(b"permessage-deflate");
        } else if self.is_request
            && self.presented.len() < presented::MOST
            && presented::LENGTHS.contains(&value.len())
            && let Some(place) = presented::place(name)
        {
            self.presented.push((place, encode::copy(value)));
        }
    }

    fn name(&mut self, host: Option<HostName>) {
        let Some(host) = host.filter(|_| self.is_request) else {
            return;
        };
        // The target of an absolute form overrides `Host`.
        if self.request.host.is_empty() {
            self.request.host.clone_from(&host.name);
        }
        if !self.hosts.contains(&host) && self.hosts.len() < MAX_HOSTS {
            self.hosts.push(host);
        }
    }
}

/// The encodings that do not tell themselves by their first bytes.
pub fn content_encoding(value: &[u8]) -> Option<Encoding> {
    if value.eq_ignore_ascii_case(b"br") {
        Some(Encoding::Brotli)
    } else if value.eq_ignore_ascii_case(b"deflate") {
        // zlib, as the standard says; what is sent without its head is found by its first byte.
        Some(Encoding::Zlib)
    } else {
        None
    }
}

/// The size of a chunk (RFC 9112 section 7.1), extensions left aside.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    digits.iter().try_fold(0u64, |all, &c| {
        Some(all << 4 | u64::from(char::from(c).to_digit(16)?))
    })
}

/// Is there a whole request line at the beginning?
pub(super) fn begins_request(bytes: &[u8]) -> bool {
    let line = memchr::memchr(b'\n', bytes).and_then(|end| bytes[..end].strip_suffix(b"\r"));
    line.is_some_and(|line| line.len() < MAX_LINE && request_line(line).is_some())
}

/// Could these be the first bytes of a message? Some letters of a method and a space, or a version.
fn may_begin(bytes: &[u8]) -> bool {
    const VERSION: &[u8] = b"HTTP/1.";
    let common = bytes.len().min(VERSION.len());
    if bytes[..common] == VERSION[..common] {
        return true;
    }
    let letters = bytes
        .iter()
        .take(MAX_METHOD + 1)
        .take_while(|c| c.is_ascii_uppercase() || **c == b'-')
        .count();
    letters > 0 && letters <= MAX_METHOD && bytes.get(letters).is_none_or(|&c| c == b' ')
}

/// Method, target, and the host the target names, of a request line of HTTP/1.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], Option<HostName>)> {
    let mut words = line.split(|&c| c == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some()
        || method.is_empty()
        || target.is_empty()
        || !matches!(version, b"HTTP/1.1" | b"HTTP/1.0")
    {
        return None;
    }
    let host = |authority: &[u8], provenance: &str| {
        host_name(authority).map(|name| HostName {
            name,
            provenance: provenance.to_owned(),
        })
    };
    if method == b"CONNECT" {
        return Some((method, target, host(target, "connect_target")));
    }
    // Absolute form (RFC 9112 section 3.2.2): what a proxy is told; it overrides `Host`.
    let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    let Some(scheme) = scheme else {
        return Some((method, target, None));
    };
    let rest = &target[scheme.len()..];
    let end = rest
        .iter()
        .position(|c| matches!(c, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let authority = &rest[..end];
    // Userinfo is no part of the name, and may be a secret.
    let after_user = memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]);
    Some((method, target, host(after_user, "request_target")))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
