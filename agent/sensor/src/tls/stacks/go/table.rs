//! The table of functions of a Go program (`runtime.pclntab`; its layout: src/internal/abi/symtab.go and
//! src/runtime/symtab.go of Go), as Go 1.16 to 1.27 write it.

use crate::tls::elf::{Elf, ElfError, Span, Walk};
use memchr::memmem;

/// First bytes, the lowest one aside: the rest of the magic number, two zeros, the size of the smallest instruction and
/// that of a pointer.
const fn magic(smallest: u8) -> [u8; 7] {
    [0xff, 0xff, 0xff, 0, 0, smallest, 8]
}

/// Of the machine that a file is for.
fn magic_of(elf: &Elf<'_>) -> [u8; 7] {
    magic(if elf.x86_64() { 1 } else { 4 })
}

/// The lowest byte of the magic number.
const GO12: u8 = 0xfb;
const GO116: u8 = 0xfa;
const GO118: u8 = 0xf0;
const GO120: u8 = 0xf1;

const HEADER: u64 = 72;
const NAMES_MAX: u64 = 64 << 20;
const FUNCTIONS_MAX: u64 = 4 << 20;
/// What looks like the beginning of a table where no section reports one: so many places are inspected.
const PLACES_MAX: usize = 64;
/// Bytes searched for it.
const SEARCH_MAX: u64 = 256 << 20;

/// A table of functions.
#[derive(Debug)]
pub struct Table {
    version: u8,
    count: u64,
    /// Where the code begins that entries are relative to, if the table says.
    pub text: Option<u64>,
    names: Span,
    functions: Span,
}

/// The table of a file, if it is a Go program.
///
/// # Errors
/// When the file cannot be read.
pub fn find(elf: &Elf<'_>) -> Result<Option<Table>, ElfError> {
    for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
        if let Some(span) = elf.section(name) {
            return Table::at(elf, span);
        }
    }
    // A linker may have put it among other relocated data.
    let places: Vec<Span> = if elf.section(".go.buildinfo").is_some() {
        [".data.rel.ro", ".rodata"]
            .into_iter()
            .filter_map(|name| elf.section(name))
            .collect()
    } else if elf.sections().is_empty() {
        elf.loaded(false).collect()
    } else {
        return Ok(None);
    };
    let mut left = SEARCH_MAX;
    for span in places {
        let part = Span {
            len: span.len.min(left),
            ..span
        };
        left -= part.len;
        let mut hits = Vec::new();
        elf.search(part, &magic_of(elf), &mut |offset| {
            hits.push(offset);
            hits.len() < PLACES_MAX
        })?;
        for hit in hits {
            let Some(offset) = hit.checked_sub(1).filter(|offset| *offset >= span.offset) else {
                continue;
            };
            let rest = Span {
                offset,
                len: span.len - (offset - span.offset),
                address: span.address.wrapping_add(offset - span.offset),
            };
            if let Some(table) = Table::at(elf, rest)? {
                return Ok(Some(table));
            }
        }
    }
    Ok(None)
}

impl Table {
    /// Reads the header of what may be a table.
    fn at(elf: &Elf<'_>, span: Span) -> Result<Option<Self>, ElfError> {
        if span.len < HEADER {
            return Ok(None);
        }
        let head = elf.block(span.offset, HEADER, HEADER)?;
        let (Some(&version), Some(magic)) = (head.bytes().first(), head.bytes().get(1..8)) else {
            return Ok(None);
        };
        if magic != magic_of(elf) || ![GO12, GO116, GO118, GO120].contains(&version) {
            return Ok(None);
        }
        let words = head.all::<u64>();
        let word = |index: usize| words.get(1 + index).copied().map_or(0, u64::from_le);
        let count = word(0);
        let (text, [names, after_names, functions]) = match version {
            // Names are found by another way there; only that it is one is of interest.
            GO12 => (None, [8, span.len, 8]),
            GO116 => (None, [word(2), word(3), word(6)]),
            _ => (
                Some(word(2)).filter(|text| *text != 0),
                [word(3), word(4), word(7)],
            ),
        };
        let fits = count != 0
            && count <= FUNCTIONS_MAX
            && names < after_names
            && after_names <= span.len
            && functions < span.len;
        let part = |from: u64, to: u64| Span {
            offset: span.offset + from,
            len: to - from,
            address: span.address.wrapping_add(from),
        };
        Ok(fits.then(|| Self {
            version,
            count,
            text,
            names: part(names, after_names),
            functions: part(functions, span.len),
        }))
    }

    /// Of a Go that passes arguments by the stack.
    pub fn is_old(&self) -> bool {
        self.version == GO12
    }

    /// Are entries addresses of their own?
    pub fn is_absolute(&self) -> bool {
        self.version == GO116
    }

    /// Where the functions of these names begin, relative to the code's beginning; `None` for one that is not there,
    /// or more than once.
    ///
    /// # Errors
    /// When the table contradicts itself, or the file cannot be read.
    pub fn entries(&self, elf: &Elf<'_>, wanted: &[&str]) -> Result<Vec<Option<u64>>, ElfError> {
        let names = elf.block(self.names.offset, self.names.len, NAMES_MAX)?;
        let places: Vec<Option<u64>> = wanted
            .iter()
            .map(|name| {
                let name = [b"\0", name.as_bytes(), b"\0"].concat();
                memmem::find(names.bytes(), &name).map(|place| place as u64 + 1)
            })
            .collect();
        drop(names);
        let mut found: Vec<Vec<u64>> = vec![Vec::new(); wanted.len()];
        if self.is_old() {
            // Its presence is all that is asked for.
            return Ok(places);
        }
        if places.first().is_none_or(Option::is_none) {
            return Ok(vec![None; wanted.len()]);
        }
        // Places of functions' descriptions ascend as their entries do, so both are walked through once.
        let mut index = Walk::new(elf, self.functions);
        let mut functions = Walk::new(elf, self.functions);
        let entry_size = if self.is_absolute() { 16 } else { 8 };
        for at in 0..self.count {
            let entry = index.get(at * entry_size, entry_size)?;
            let (begins, description) = if self.is_absolute() {
                (number::<8>(entry, 0), number::<8>(entry, 8))
            } else {
                (number::<4>(entry, 0), number::<4>(entry, 4))
            };
            let name_at = if self.is_absolute() { 8 } else { 4 };
            let name = number::<4>(functions.get(description, 12)?, name_at);
            for (place, found) in places.iter().zip(&mut found) {
                if *place == Some(name) && found.len() < 2 {
                    found.push(begins);
                }
            }
        }
        Ok(found
            .into_iter()
            .map(|entries| match entries[..] {
                [only] => Some(only),
                _ => None,
            })
            .collect())
    }
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    if let (Some(from), Some(to)) = (bytes.get(at..at + N), number.get_mut(..N)) {
        to.copy_from_slice(from);
    }
    u64::from_le_bytes(number)
}
