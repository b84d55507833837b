//! Tables of methods of `dyn MessageEncrypter`: drop, size, alignment, `encrypt`, `encrypted_payload_len`. The last
//! method is the same few instructions in every build, and what it adds tells the cipher.

use super::super::strings;
use crate::tls::elf::{Elf, ElfError, Span, WINDOW};
use std::collections::BTreeMap;

/// What a record costs beside its plaintext, without the header: a tag of 16; with TLS 1.3 the content type as well;
/// with AES-GCM of TLS 1.2 a nonce of 8.
const ADDS: [u8; 3] = [0x10, TLS13, 0x18];
pub const TLS13: u8 = 0x11;

/// Functions that add as much, places that refer to them, and relocations that are inspected, bytes.
const LENGTHS_MAX: usize = 1024;
const PLACES_MAX: usize = 64;
const RELOCATIONS_MAX: u64 = 64 << 20;
/// Elf64_Rela: place, kind (and symbol), addend.
const RELOCATION: u64 = 24;
const R_X86_64_RELATIVE: u32 = 8;
/// Where the words of such a table are before the place of `encrypted_payload_len`.
const DROP: u64 = 32;
const SIZE: u64 = 24;
const ALIGN: u64 = 16;
const ENCRYPT: u64 = 8;

/// A table's `encrypt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// In memory, before any shift of the whole.
    pub encrypt: u64,
    /// What a record costs.
    pub adds: u8,
}

/// The methods of all that look like such a table, by the place of the table.
///
/// # Errors
/// When the file contradicts itself or cannot be read.
pub fn methods(elf: &Elf<'_>) -> Result<Vec<Method>, ElfError> {
    let lengths = lengths(elf)?;
    let mut places = BTreeMap::new();
    if !lengths.is_empty() {
        pointers(elf, &mut |at, value| {
            if let Some(adds) = lengths.get(&value)
                && at > DROP
                && places.len() < PLACES_MAX
            {
                places.insert(at, *adds);
            }
        })?;
    }
    let mut words: BTreeMap<u64, Option<u64>> = places
        .keys()
        .flat_map(|at| [at - DROP, at - ENCRYPT])
        .map(|at| (at, None))
        .collect();
    if !words.is_empty() {
        relocated(elf, &mut |at, value| {
            if let Some(word) = words.get_mut(&at) {
                *word = Some(value);
            }
        })?;
    }
    let pointer = |at: u64| match words.get(&at) {
        Some(Some(value)) => Ok(*value),
        _ => word(elf, at),
    };
    let mut found = Vec::new();
    for (at, adds) in places {
        let (drop, encrypt) = (pointer(at - DROP)?, pointer(at - ENCRYPT)?);
        let (size, align) = (word(elf, at - SIZE)?, word(elf, at - ALIGN)?);
        if (8..=4096).contains(&size)
            && align.is_power_of_two()
            && align <= 64
            && (drop == 0 || elf.code_at(drop).is_some())
            && elf.code_at(encrypt).is_some()
        {
            found.push(Method { encrypt, adds });
        }
    }
    Ok(found)
}

/// Functions that are nothing but their second argument and one of [`ADDS`], with a frame or without.
fn lengths(elf: &Elf<'_>) -> Result<BTreeMap<u64, u8>, ElfError> {
    // lea n(%rsi),%rax
    const LEA: &[u8] = b"\x48\x8d\x46";
    const FRAME: &[u8] = b"\x55\x48\x89\xe5";
    const LONGEST: u64 = 10;
    let mut found = BTreeMap::new();
    for span in strings::code(elf) {
        strings::each_window(elf, span, LONGEST - 1, &mut |bytes, address| {
            for at in memchr::memmem::find_iter(bytes, LEA) {
                let behind = bytes.get(at + LEA.len()..).unwrap_or_default();
                let Some((adds, end)) = behind.split_first() else {
                    continue;
                };
                let begins = if end.starts_with(b"\xc3") {
                    Some(at)
                } else if end.starts_with(b"\x5d\xc3") {
                    at.checked_sub(FRAME.len())
                        .filter(|from| bytes.get(*from..at) == Some(FRAME))
                } else {
                    None
                };
                if let Some(begins) = begins
                    && ADDS.contains(adds)
                    && found.len() < LENGTHS_MAX
                {
                    found.insert(address.wrapping_add(begins as u64), *adds);
                }
            }
        })?;
    }
    Ok(found)
}

/// Every pointer that may be one of a table's: those that are relocated, and those that stand where they are used.
fn pointers(elf: &Elf<'_>, visit: &mut dyn FnMut(u64, u64)) -> Result<(), ElfError> {
    relocated(elf, visit)?;
    let Some(span) = elf.section(".data.rel.ro") else {
        return Ok(());
    };
    let skip = span.address.wrapping_neg() % 8;
    let aligned = Span {
        offset: span.offset.saturating_add(skip),
        len: span.len.saturating_sub(skip).min(RELOCATIONS_MAX),
        address: span.address.wrapping_add(skip),
    };
    strings::each_window(elf, aligned, 0, &mut |bytes, address| {
        for (index, word) in (0..).zip(bytes.as_chunks::<8>().0) {
            let value = u64::from_le_bytes(*word);
            if value != 0 {
                visit(address.wrapping_add(index * 8), value);
            }
        }
    })
}

/// Pointers of a position-independent file that are set when it is loaded: place and value.
fn relocated(elf: &Elf<'_>, visit: &mut dyn FnMut(u64, u64)) -> Result<(), ElfError> {
    const STEP: u64 = WINDOW / RELOCATION * RELOCATION;
    let Some(span) = elf.section(".rela.dyn") else {
        return Ok(());
    };
    let len = span.len.min(RELOCATIONS_MAX) / RELOCATION * RELOCATION;
    let mut at = 0;
    while at < len {
        let block = elf.block(span.offset.saturating_add(at), STEP.min(len - at), STEP)?;
        for [place, info, addend] in block.bytes().as_chunks::<24>().0.iter().map(words) {
            if info as u32 == R_X86_64_RELATIVE {
                visit(place, addend);
            }
        }
        at += STEP;
    }
    Ok(())
}

fn words(bytes: &[u8; RELOCATION as usize]) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// The word at an address, as the file has it.
fn word(elf: &Elf<'_>, at: u64) -> Result<u64, ElfError> {
    let Some(offset) = elf.data_at(at) else {
        return Ok(0);
    };
    // A segment may end in the middle of it.
    let Ok(block) = elf.block(offset, 8, 8) else {
        return Ok(0);
    };
    Ok(block
        .bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes)))
}
