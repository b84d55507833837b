//! Lines of quoted-printable (RFC 2045 section 6.7) put together: a mail breaks its lines anywhere, inside of a secret too.
//!
//! What of them stands in one line as it is, the matcher finds there; here only that counts which a line break or an escape
//! goes through.

use super::ages::WIPE_NS;
use super::encode;
use super::hits::MAX_CHAIN;
use super::sink::Sink;
use keytrail_model::Transform;
use std::ops::Range;
use zeroize::Zeroizing;

/// Longest line (the standard's 76, a little more for who does not count so), and the shortest that is broken because it
/// is full: base64 ends shorter ones with its `=`, and so do settings without a value.
const LONGEST: usize = 80;
const FULL: usize = 60;
/// Most text that is put together; of more the last half stays. With a line more it is counted in 16 bits.
const MOST: usize = 8 * 1024;
/// Behind a write it is looked at when this share of it is new: else at the end of its last line.
const OFTEN: usize = 16;

/// The end of a text, as far as it may be quoted-printable.
#[derive(Default)]
pub struct Quoted {
    /// The line that has not ended; empty when it is too long to be one.
    line: Zeroizing<Vec<u8>>,
    too_long: bool,
    /// The lines before it that it goes on with, decoded, and where in them something was joined or decoded.
    text: Zeroizing<Vec<u8>>,
    seams: Vec<u16>,
    /// How much of the text was looked at with all that is in it.
    seen: usize,
    /// When the first byte came that is kept, nanoseconds since boot.
    since: u64,
}

impl Quoted {
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if self.kept() == 0 {
            self.since = sink.now;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.kept() == 0 && !self.too_long {
                // Of what nothing is to be put together only the last line may still become something.
                let sign = next_sign(rest);
                let end = memchr::memrchr(b'\n', &rest[..sign.unwrap_or(rest.len())]);
                rest = &rest[end.map_or(0, |end| end + 1)..];
                self.since = sink.now;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.more_of_line(rest);
                break;
            };
            self.more_of_line(&rest[..end]);
            self.end_line(sink);
            rest = &rest[end + 1..];
        }
        let new = (self.text.len() + self.line.len()).saturating_sub(self.seen);
        if new * OFTEN >= self.text.len() {
            self.look(sink);
        }
    }

    fn more_of_line(&mut self, bytes: &[u8]) {
        if self.too_long || self.line.len() + bytes.len() > LONGEST {
            self.line = Zeroizing::default();
            self.too_long = true;
            return;
        }
        if bytes.is_empty() {
            return;
        }
        let mut line = encode::buffer(self.line.len() + bytes.len());
        line.extend_from_slice(&self.line);
        line.extend_from_slice(bytes);
        self.line = line;
    }

    /// The line has ended: what comes next goes on with it, or not.
    fn end_line(&mut self, sink: &mut Sink<'_>) {
        let line = std::mem::take(&mut self.line);
        let too_long = std::mem::take(&mut self.too_long);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let soft = line.strip_suffix(b"=");
        let full = soft.is_some() && line.len() >= FULL;
        let goes_on = !self.text.is_empty();
        let inside = soft.unwrap_or(line);
        let known = (self.text.len(), self.seams.len());
        let whole = !too_long && (goes_on || full || has_escape(inside)) && self.decode(inside);
        if whole {
            if soft.is_some() && (full || goes_on) {
                self.seam(self.text.len());
                self.bound(sink);
                return;
            }
        } else {
            self.text.truncate(known.0);
            self.seams.truncate(known.1);
        }
        self.look(sink);
        self.clear();
    }

    /// Adds a line without what breaks it. False when it is no quoted-printable.
    fn decode(&mut self, line: &[u8]) -> bool {
        let mut text = self.with_room_for(line.len());
        let mut rest = line;
        let mut right = true;
        while let Some((&c, more)) = rest.split_first() {
            match (c, more) {
                (b'=', [high, low, more @ ..]) => {
                    let digit = |c: u8| char::from(c).to_digit(16);
                    let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                        right = false;
                        break;
                    };
                    self.seam(text.len());
                    text.push((high << 4 | low) as u8);
                    self.seam(text.len());
                    rest = more;
                }
                (b'=', _) => {
                    right = false;
                    break;
                }
                _ => {
                    text.push(c);
                    rest = more;
                }
            }
        }
        self.text = text;
        right
    }

    /// Something was joined or decoded there. The end of an escape is the beginning of the next.
    fn seam(&mut self, at: usize) {
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        if self.seams.last() != Some(&at) {
            self.seams.push(at);
        }
    }

    /// The text, with room for that much more.
    fn with_room_for(&mut self, more: usize) -> Zeroizing<Vec<u8>> {
        let text = std::mem::take(&mut self.text);
        if text.capacity() - text.len() >= more {
            return text;
        }
        let mut larger = encode::buffer(2 * (text.len() + more));
        larger.extend_from_slice(&text);
        larger
    }

    /// Looks at what has been put together, with what there is of the next line.
    fn look(&mut self, sink: &mut Sink<'_>) {
        if self.seams.is_empty() {
            return;
        }
        let known = (self.text.len(), self.seams.len());
        let line = std::mem::take(&mut self.line);
        // An escape, or the sign of a break, may be cut.
        let cut = line
            .iter()
            .rev()
            .take(2)
            .position(|&c| c == b'=')
            .map_or(line.len(), |back| line.len() - 1 - back);
        if self.decode(&line[..cut]) && self.text.len() > self.seen {
            self.match_seams(sink);
            self.seen = self.text.len();
        }
        self.text.truncate(known.0);
        self.seams.truncate(known.1);
        self.line = line;
    }

    fn match_seams(&mut self, sink: &mut Sink<'_>) {
        if sink.hits.depth() >= MAX_CHAIN || !sink.credit.spend(self.text.len()) {
            sink.undecoded.cut += 1;
            return;
        }
        let (seen, seams, text) = (self.seen, &self.seams, &self.text[..]);
        let joined = |span: &Range<usize>| {
            let next = seams.partition_point(|at| usize::from(*at) <= span.start);
            span.end > seen
                && seams
                    .get(next)
                    .is_some_and(|at| usize::from(*at) < span.end)
        };
        let matcher = sink.matcher;
        sink.hits.enter(Transform::QuotedPrintable);
        matcher.scan_some(text, joined, &mut sink.hits);
        sink.hits.leave();
    }

    /// Keeps the last half of too much text.
    fn bound(&mut self, sink: &mut Sink<'_>) {
        if self.text.len() < MOST {
            return;
        }
        self.look(sink);
        let old = self.text.len() - MOST / 2;
        self.text = encode::copy(&self.text[old..]);
        let seams = self
            .seams
            .iter()
            .filter_map(|at| at.checked_sub(old as u16));
        self.seams = seams.filter(|at| *at > 0).collect();
        self.seen = self.seen.saturating_sub(old);
    }

    fn clear(&mut self) {
        self.text = Zeroizing::default();
        self.seams = Vec::new();
        self.seen = 0;
    }

    /// The text ends here.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        if !self.line.is_empty() || !self.text.is_empty() {
            self.end_line(sink);
        }
        self.wipe();
    }

    /// Forgets everything when the first of it came a second ago (`ages`). `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        if self.kept() > 0 && self.since.saturating_add(WIPE_NS) <= now {
            self.wipe();
            // What goes on with a line that was forgotten is no whole line.
            self.too_long = true;
        }
    }

    /// Forgets all bytes.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }

    /// Bytes kept.
    pub fn kept(&self) -> usize {
        self.text.len() + self.line.len() + size_of_val(self.seams.as_slice())
    }
}

/// Something that this encoding has and other texts seldom: an escaped sign of equality.
fn has_escape(line: &[u8]) -> bool {
    memchr::memchr_iter(b'=', line).any(|at| line[at..].starts_with(b"=3D"))
}

/// The first sign that a line is broken behind, or that is escaped.
fn next_sign(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'=', text).find(|&at| {
        matches!(
            text[at + 1..],
            [] | [b'\n' | b'\r', ..] | [b'3'] | [b'3', b'D', ..]
        )
    })
}
