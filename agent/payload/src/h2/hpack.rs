//! Header blocks (RFC 7541). Decoded to be inspected, not to be kept: of a value, the table remembers what was found
//! in it and what may be reported about it, never the value. So a later reference to it is counted without its bytes.
//!
//! References to what was sent before we looked are left out and counted. An index counts from the newest entry, so
//! all that is newer than a hole is still right. That the table is no larger than the encoder's needs care only where
//! entries are too large for it: they empty it, here as there.

use super::fixed::FIXED;
use super::huffman;
use crate::coded::Encoding;
use crate::encode;
use crate::hits::{Hits, Kept};
use crate::host::host_name;
use crate::http::content_encoding;
use crate::presented;
use crate::request;
use crate::sink::Sink;
use crate::text::Text;
use keytrail_model::{HostName, Transform};
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// Largest table that is followed: what browsers use.
const MAX_TABLE: usize = 64 * 1024;
/// The size a table has unless it is said otherwise (section 6.5.2 of RFC 9113).
const USUAL_TABLE: usize = 4096;
/// What an entry counts beside its name and value (section 4.1).
const ENTRY: usize = 32;
/// Longest header block.
pub const MAX_BLOCK: usize = 64 * 1024;
/// References to values with something in them that are counted in one block: no honest block has as many.
const MAX_AGAIN: usize = 256;

/// What may be reported about a header field.
#[derive(Clone, Debug, Default)]
pub enum Fact {
    #[default]
    None,
    Method(String),
    Path(String),
    Host(HostName),
    Type(String),
    Length(u64),
    /// The class of a status code.
    Status(u32),
    Encoding(Encoding),
}

#[derive(Debug)]
struct Entry {
    /// There are many of them: most have neither.
    fact: Option<Box<Fact>>,
    found: Option<Box<[Kept]>>,
    size: u32,
    /// Of the name, in the static table, or behind it among those that hold credentials; 0 when it is in neither.
    name: u8,
}

/// The state of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
}

/// Why a block could not be read on, and from where on.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub usize);

impl Decoder {
    /// From the beginning of a connection.
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: USUAL_TABLE,
        }
    }

    /// From somewhere in its middle: nothing is known of the table, not even its size.
    pub fn unknown() -> Self {
        Self {
            max: MAX_TABLE,
            ..Self::new()
        }
    }

    /// Blocks were missed.
    pub fn forget(&mut self) {
        *self = Self::unknown();
    }

    /// Decodes a block: what is in its values goes to `sink`, what may be told to `fact`.
    pub fn block(
        &mut self,
        block: &[u8],
        sink: &mut Sink<'_>,
        mut fact: impl FnMut(&Fact),
    ) -> Result<(), Broken> {
        let mut at = 0;
        let mut again = 0;
        // What names a method asks: the fields that say so come first (RFC 9113 section 8.3).
        let mut asks = false;
        let mut fact = |of: &Fact| {
            asks |= matches!(of, Fact::Method(_));
            fact(of);
            asks
        };
        let mut is_request = false;
        while let Some(&first) = block.get(at) {
            let begin = at;
            let broken = || Broken(begin);
            if first & 0x80 != 0 {
                let index = integer(block, &mut at, 7).ok_or_else(broken)?;
                match index.checked_sub(1).ok_or_else(broken)? {
                    i if i < FIXED.len() => {
                        let (name, value) = FIXED[i];
                        is_request = fact(&fact_of(name.as_bytes(), value.as_bytes(), sink));
                    }
                    i => match self.entries.get(i - FIXED.len()) {
                        Some(entry) => {
                            if let Some(known) = &entry.fact {
                                is_request = fact(known);
                            }
                            if let Some(found) = &entry.found {
                                again += 1;
                                if again <= MAX_AGAIN {
                                    let name = FIXED.get(usize::from(entry.name).wrapping_sub(1));
                                    sink.hits.target = name.is_some_and(|(n, _)| *n == PATH);
                                    sink.within(Transform::Hpack, |sink| sink.hits.again(found));
                                    sink.hits.target = false;
                                } else {
                                    sink.hits.limit();
                                }
                            }
                        }
                        None => sink.undecoded.headers += 1,
                    },
                }
                continue;
            }
            if first & 0xe0 == 0x20 {
                let size = integer(block, &mut at, 5).ok_or_else(broken)?;
                self.max = size.min(MAX_TABLE);
                self.shrink(self.max);
                continue;
            }
            let insert = first & 0xc0 == 0x40;
            let index = integer(block, &mut at, if insert { 6 } else { 4 }).ok_or_else(broken)?;
            let (name, known) = self.name(index, block, &mut at).ok_or_else(broken)?;
            let (value, huffman) = string(block, &mut at).ok_or_else(broken)?;
            let presented = is_request.then(|| presented_at(known)).flatten();
            let (this, found) = field((&name, presented), &value, huffman, sink);
            is_request = fact(&this);
            if insert {
                self.insert(Entry {
                    name: known as u8,
                    fact: (!matches!(this, Fact::None)).then(|| Box::new(this)),
                    found: (!found.is_empty()).then(|| found.into_boxed_slice()),
                    size: (name.len() + value.len() + ENTRY) as u32,
                });
            }
        }
        Ok(())
    }

    /// The name of a literal, and its place in the static table.
    fn name(
        &self,
        index: usize,
        block: &[u8],
        at: &mut usize,
    ) -> Option<(Zeroizing<Vec<u8>>, usize)> {
        let fixed = |place: usize| match FIXED.get(place - 1) {
            Some((name, _)) => *name,
            None => presented::name(place - 1 - FIXED.len()).unwrap_or("header"),
        };
        match index {
            0 => {
                let (name, _) = string(block, at)?;
                let place = FIXED.iter().position(|(n, _)| n.as_bytes() == &name[..]);
                let place = place.or_else(|| Some(FIXED.len() + presented::place(&name)?));
                Some((name, place.map_or(0, |p| p + 1)))
            }
            i if i <= FIXED.len() => Some((encode::copy(fixed(i).as_bytes()), i)),
            i => {
                let entry = self.entries.get(i - FIXED.len() - 1);
                let place = entry.map_or(0, |e| usize::from(e.name));
                let name = if place == 0 { "header" } else { fixed(place) };
                Some((encode::copy(name.as_bytes()), place))
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size as usize;
        if size > self.max {
            self.entries.clear();
            self.size = 0;
            return;
        }
        self.shrink(self.max - size);
        self.size += size;
        self.entries.push_front(entry);
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size as usize;
        }
    }

    /// About how many bytes the table takes.
    pub fn held(&self) -> usize {
        let of = |e: &Entry| {
            e.fact.as_ref().map_or(0, |_| 2 * size_of::<Fact>())
                + e.found.as_ref().map_or(0, |f| 2 * size_of_val(&f[..]))
        };
        self.entries.capacity() * size_of::<Entry>() + self.entries.iter().map(of).sum::<usize>()
    }
}

/// The field with what a request of HTTP/1 has in its first line.
const PATH: &str = ":path";

/// Inspects one field: what may be reported about it, and what was found in it.
fn field(
    (name, presented): (&[u8], Option<&'static str>),
    value: &[u8],
    huffman: bool,
    sink: &mut Sink<'_>,
) -> (Fact, Vec<Kept>) {
    let mut line = encode::buffer(name.len() + value.len() + 4);
    line.extend_from_slice(name);
    line.extend_from_slice(b": ");
    line.extend_from_slice(value);
    line.extend_from_slice(b"\r\n");
    let outer = std::mem::take(&mut sink.hits);
    let mut text = Text::message(0);
    text.push(&line, sink);
    text.end(sink);
    if let Some(header) = presented {
        sink.meet(header, value);
    }
    let own = std::mem::replace(&mut sink.hits, outer);
    if own.limited() {
        sink.hits.limit();
    }
    let found = own.keep();
    if !found.is_empty() {
        let count = |sink: &mut Sink<'_>| sink.hits.again(&found);
        sink.hits.target = name == PATH.as_bytes();
        if huffman {
            sink.within(Transform::Huffman, count);
        } else {
            count(sink);
        }
        sink.hits.target = false;
    }
    (fact_of(name, value, sink), found)
}

/// The name at this place, where it is one of a header that holds a credential.
fn presented_at(place: usize) -> Option<&'static str> {
    let place = match place.checked_sub(FIXED.len() + 1) {
        Some(behind) => behind,
        None => presented::place(FIXED.get(place.checked_sub(1)?)?.0.as_bytes())?,
    };
    presented::name(place)
}

fn fact_of(name: &[u8], value: &[u8], sink: &Sink<'_>) -> Fact {
    match name {
        b":method" => Fact::Method(request::method(value)),
        name if name == PATH.as_bytes() => Fact::Path(request::path(value, sink.matcher)),
        b":authority" | b"host" => {
            let provenance = if name == b"host" {
                "host_header"
            } else {
                "authority"
            };
            host_name(value).map_or(Fact::None, |name| {
                Fact::Host(HostName {
                    name,
                    provenance: provenance.to_owned(),
                })
            })
        }
        b":status" => match request::status_class(value) {
            0 => Fact::None,
            class => Fact::Status(class),
        },
        b"content-type" => Fact::Type(request::content_type(value)),
        b"content-length" => std::str::from_utf8(value)
            .ok()
            .and_then(|v| v.parse().ok())
            .map_or(Fact::None, Fact::Length),
        b"content-encoding" | b"grpc-encoding" => {
            content_encoding(value).map_or(Fact::None, Fact::Encoding)
        }
        _ => Fact::None,
    }
}

/// An integer with a prefix of so many bits (section 5.1).
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string (section 5.2), and whether it was Huffman coded.
fn string(block: &[u8], at: &mut usize) -> Option<(Zeroizing<Vec<u8>>, bool)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let coded = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    let text = if huffman {
        huffman::decode(coded, MAX_BLOCK)?
    } else {
        encode::copy(coded)
    };
    Some((text, huffman))
}

/// Is this a whole header block of which at least one field can be read?
pub fn is_block(block: &[u8]) -> bool {
    let mut at = 0;
    let mut fields = 0;
    let mut one = || -> Option<bool> {
        let Some(&first) = block.get(at) else {
            return Some(false);
        };
        if first & 0x80 != 0 {
            integer(block, &mut at, 7).filter(|i| *i > 0)?;
        } else if first & 0xe0 == 0x20 {
            integer(block, &mut at, 5)?;
        } else {
            let prefix = if first & 0xc0 == 0x40 { 6 } else { 4 };
            if integer(block, &mut at, prefix)? == 0 {
                let (name, _) = string(block, &mut at)?;
                let fits = |c: &u8| (b'!'..=b'~').contains(c) && !c.is_ascii_uppercase();
                if name.is_empty() || !name.iter().all(fits) {
                    return None;
                }
            }
            string(block, &mut at)?;
        }
        fields += 1;
        Some(true)
    };
    loop {
        match one() {
            Some(true) => {}
            Some(false) => return fields > 0,
            None => return false,
        }
    }
}

/// What was found while a block was read, apart from what was found before.
pub fn apart<'m, R>(sink: &mut Sink<'m>, act: impl FnOnce(&mut Sink<'m>) -> R) -> (R, Hits) {
    let outer = std::mem::take(&mut sink.hits);
    let result = act(sink);
    (result, std::mem::replace(&mut sink.hits, outer))
}
