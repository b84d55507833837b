//! Host names off HTTP/1 request heads (RFC 9112), also when a head comes in several writes.
//!
//! HTTP/2 is recognised by its preface; its header blocks are not decoded here.

use super::host::host_name;
use keytrail_model::HostName;
use zeroize::Zeroizing;

/// First bytes of every HTTP/2 connection (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest line that is kept when it is split over writes; the rest of a longer one is skipped.
const MAX_LINE: usize = 8 * 1024;
/// Longest head that is followed: beyond, a missing `Host` is given up.
const MAX_HEAD: usize = 64 * 1024;
/// Most names kept of one payload.
const MAX_HOSTS: usize = 8;
/// Longest method looked for; the registered ones are shorter.
const MAX_METHOD: usize = 20;

/// Does a connection with this beginning speak HTTP/2?
pub fn looks_like_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(HTTP2_PREFACE)
}

/// Follows the requests of one connection.
#[derive(Default)]
pub struct RequestHead {
    place: Place,
    /// An unfinished line; it may hold a secret.
    line: Zeroizing<Vec<u8>>,
    /// Bytes of this head so far.
    seen: usize,
    /// What the current request's head names.
    hosts: Vec<HostName>,
    /// What its head says about its body.
    length: u64,
    chunked: bool,
    body_ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between requests: one may begin with the next payload.
    #[default]
    Outside,
    /// In the request line.
    Line,
    /// Among the header lines.
    Headers,
    /// In a header line that is too long to keep.
    Skipping,
    /// In a body of which `.0` bytes are to come.
    Body(u64),
    /// In a body that ends with an empty chunk.
    Chunked,
}

impl RequestHead {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the last bytes pushed ended with a body of stated length.
    pub fn body_ended(&self) -> bool {
        self.body_ended
    }

    /// Bytes kept.
    pub fn kept(&self) -> usize {
        self.line.len()
    }

    /// Forgets what it was in the middle of: what comes next does not follow.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The hosts named by the requests that `bytes` belong to, heads and bodies: all names, because
    /// disagreement is telling.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<HostName> {
        self.body_ended = false;
        if self.place == Place::Chunked && begins_request(bytes) {
            self.reset();
        }
        let mut named = if self.place == Place::Outside {
            Vec::new()
        } else {
            self.hosts.clone()
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.place {
                Place::Outside => {
                    if !may_begin_request(rest) {
                        break;
                    }
                    self.reset();
                    self.place = Place::Line;
                }
                Place::Body(left) => {
                    let here = left.min(rest.len() as u64);
                    self.place = if here == left {
                        Place::Outside
                    } else {
                        Place::Body(left - here)
                    };
                    rest = &rest[here as usize..];
                    self.body_ended = here == left && rest.is_empty();
                }
                Place::Chunked => {
                    if rest.ends_with(b"0\r\n\r\n") {
                        self.reset();
                    }
                    break;
                }
                Place::Line | Place::Headers | Place::Skipping => match memchr::memchr(b'\n', rest)
                {
                    Some(end) => {
                        self.line_end(&rest[..end], &mut named);
                        rest = &rest[end + 1..];
                    }
                    None => {
                        self.keep(rest);
                        break;
                    }
                },
            }
        }
        named
    }

    /// Keeps the beginning of a line.
    fn keep(&mut self, part: &[u8]) {
        self.seen = self.seen.saturating_add(part.len());
        if self.seen > MAX_HEAD {
            return self.reset();
        }
        if self.place == Place::Skipping {
            return;
        }
        if self.line.len() + part.len() > MAX_LINE {
            self.line = Zeroizing::default();
            // A request line of that length is none.
            self.place = if self.place == Place::Line {
                Place::Outside
            } else {
                Place::Skipping
            };
            return;
        }
        if self.line.capacity() < self.line.len() + part.len() {
            // Doubling keeps many small writes linear; a fresh buffer, because the old one is to be wiped.
            let mut larger = super::encode::buffer((self.line.len() + part.len()).max(64) * 2);
            larger.extend_from_slice(&self.line);
            self.line = larger;
        }
        self.line.extend_from_slice(part);
    }

    fn line_end(&mut self, end: &[u8], named: &mut Vec<HostName>) {
        self.seen = self.seen.saturating_add(end.len() + 1);
        if self.seen > MAX_HEAD {
            return self.reset();
        }
        if self.line.is_empty() {
            return self.line_done(end, named);
        }
        let mut whole = super::encode::buffer(self.line.len() + end.len());
        whole.extend_from_slice(&self.line);
        whole.extend_from_slice(end);
        self.line = Zeroizing::default();
        self.line_done(&whole, named);
    }

    fn line_done(&mut self, line: &[u8], named: &mut Vec<HostName>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.place {
            Place::Skipping => self.place = Place::Headers,
            Place::Line => match request_line(line) {
                Some(host) => {
                    self.place = Place::Headers;
                    self.name(host, named);
                }
                None => self.reset(),
            },
            Place::Headers if line.is_empty() => self.head_done(),
            Place::Headers => self.header(line, named),
            Place::Outside | Place::Body(_) | Place::Chunked => {}
        }
    }

    fn header(&mut self, line: &[u8], named: &mut Vec<HostName>) {
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"host") {
            let host = host_name(value).map(|name| HostName {
                name,
                provenance: "host_header".to_owned(),
            });
            self.name(host, named);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.length = std::str::from_utf8(value)
                .ok()
                .and_then(|v| v.trim().parse().ok())
                .unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = value.to_ascii_lowercase().ends_with(b"chunked");
        }
    }

    fn head_done(&mut self) {
        match (self.chunked, self.length) {
            (true, _) => self.place = Place::Chunked,
            (false, 0) => self.reset(),
            (false, length) => self.place = Place::Body(length),
        }
    }

    fn name(&mut self, host: Option<HostName>, named: &mut Vec<HostName>) {
        let Some(host) = host else { return };
        for list in [&mut self.hosts, named] {
            if !list.contains(&host) && list.len() < MAX_HOSTS {
                list.push(host.clone());
            }
        }
    }
}

/// Is there a whole request line at the beginning?
pub(super) fn begins_request(bytes: &[u8]) -> bool {
    let line = memchr::memchr(b'\n', bytes).and_then(|end| bytes[..end].strip_suffix(b"\r"));
    line.is_some_and(|line| line.len() < MAX_LINE && request_line(line).is_some())
}

/// Could these be the first bytes of a request? Some letters of a method, then a space.
fn may_begin_request(bytes: &[u8]) -> bool {
    let letters = bytes
        .iter()
        .take(MAX_METHOD + 1)
        .take_while(|c| c.is_ascii_uppercase() || **c == b'-')
        .count();
    letters > 0
        && letters <= MAX_METHOD
        && bytes.get(letters).is_none_or(|&c| c == b' ')
        && !looks_like_http2(bytes)
}

/// `Some` for a request line of HTTP/1, with the host its target names, if it names one.
fn request_line(line: &[u8]) -> Option<Option<HostName>> {
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
        return Some(host(target, "connect_target"));
    }
    // Absolute form (RFC 9112 section 3.2.2): what a proxy is told; it overrides `Host`.
    let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    let Some(scheme) = scheme else {
        return Some(None);
    };
    let rest = &target[scheme.len()..];
    let end = rest
        .iter()
        .position(|c| matches!(c, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let authority = &rest[..end];
    // Userinfo is no part of the name, and may be a secret.
    let after_user = memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]);
    Some(host(after_user, "request_target"))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
