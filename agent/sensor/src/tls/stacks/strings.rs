//! Code that refers to a string: what is left of a function's name in a stripped program is the file and the function
//! that its error messages name.

use crate::tls::elf::{Elf, ElfError, Span, WINDOW};
use std::collections::BTreeSet;

/// Places of a string that are inspected, and references to it.
const PLACES_MAX: usize = 16;
const REFERENCES_MAX: usize = 4096;
/// Most code that is searched, bytes: a browser's is about twice a server's.
const CODE_SEARCH_MAX: u64 = 512 << 20;
/// Longest instruction that loads an address.
const LOAD: u64 = 7;

/// Addresses of a string, which ends with a NUL and, when `whole`, begins behind one.
///
/// # Errors
/// When the file cannot be read.
pub fn addresses(elf: &Elf<'_>, text: &str, whole: bool) -> Result<Vec<u64>, ElfError> {
    let mut needle = Vec::new();
    if whole {
        needle.push(0);
    }
    needle.extend(text.as_bytes());
    needle.push(0);
    let spans: Vec<Span> = match elf.section(".rodata") {
        Some(span) => vec![span],
        None => elf.loaded(false).collect(),
    };
    let mut found = Vec::new();
    for span in spans {
        elf.search(span, &needle, &mut |offset| {
            let into = offset - span.offset + u64::from(whole);
            found.push(span.address.wrapping_add(into));
            found.len() < PLACES_MAX
        })?;
    }
    Ok(found)
}

/// Where the string that ends at `end` (its last part is known) begins: behind the NUL before it.
///
/// # Errors
/// When the file cannot be read.
pub fn begins(elf: &Elf<'_>, part: u64) -> Result<u64, ElfError> {
    const PATH_MAX: u64 = 256;
    let Some(offset) = elf.data_at(part) else {
        return Ok(part);
    };
    let before = PATH_MAX.min(offset);
    let bytes = elf.block(offset - before, before, PATH_MAX)?;
    let len = bytes
        .bytes()
        .iter()
        .rev()
        .take_while(|byte| **byte != 0)
        .count() as u64;
    Ok(part - len)
}

/// Addresses of the instructions that load one of `wanted`: `lea` relative to the instruction, or `mov` of an absolute
/// address, as programs that are not position-independent do.
///
/// # Errors
/// When the file cannot be read.
pub fn references(elf: &Elf<'_>, wanted: &[u64]) -> Result<BTreeSet<u64>, ElfError> {
    let mut found = BTreeSet::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    for span in code(elf) {
        each_window(elf, span, LOAD - 1, &mut |bytes, address| {
            for at in memchr::memchr_iter(0x8d, bytes) {
                // lea r64,[rip+d32]: REX.W (and .R), 8d, mod 00 and r/m 101.
                let (Some(prefix), Some(&[mode, a, b, c, d])) = (
                    at.checked_sub(1).and_then(|before| bytes.get(before)),
                    bytes
                        .get(at + 1..at + 6)
                        .and_then(|rest| rest.first_chunk()),
                ) else {
                    continue;
                };
                if prefix & 0xfb != 0x48 || mode & 0xc7 != 0x05 {
                    continue;
                }
                let next = address + at as u64 + 6;
                let target = next.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])));
                if wanted.contains(&target) && found.len() < REFERENCES_MAX {
                    found.insert(address + at as u64 - 1);
                }
            }
            for target in wanted {
                // mov r32,imm32
                let Ok(absolute) = u32::try_from(*target) else {
                    continue;
                };
                for at in memchr::memmem::find_iter(bytes, &absolute.to_le_bytes()) {
                    let load = at.checked_sub(1).and_then(|before| bytes.get(before));
                    if load.is_some_and(|op| (0xb8..=0xbf).contains(op))
                        && found.len() < REFERENCES_MAX
                    {
                        found.insert(address + at as u64 - 1);
                    }
                }
            }
        })?;
    }
    Ok(found)
}

/// Where the code is.
pub fn code(elf: &Elf<'_>) -> Vec<Span> {
    let mut left = CODE_SEARCH_MAX;
    let spans: Vec<Span> = match elf.section(".text") {
        Some(span) => vec![span],
        None => elf.loaded(true).collect(),
    };
    spans
        .into_iter()
        .map(|span| {
            let len = span.len.min(left);
            left -= len;
            Span { len, ..span }
        })
        .collect()
}

/// Calls `visit` for each window of a span, with `overlap` bytes of the next one, and its address.
///
/// # Errors
/// When the file cannot be read.
pub fn each_window(
    elf: &Elf<'_>,
    span: Span,
    overlap: u64,
    visit: &mut dyn FnMut(&[u8], u64),
) -> Result<(), ElfError> {
    let mut at = 0;
    while at < span.len {
        let len = (span.len - at).min(WINDOW + overlap);
        let block = elf.block(span.offset.saturating_add(at), len, WINDOW + overlap)?;
        visit(block.bytes(), span.address.wrapping_add(at));
        at += WINDOW;
    }
    Ok(())
}
