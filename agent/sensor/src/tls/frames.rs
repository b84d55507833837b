//! Where functions begin and end, in a file whose names were stripped: by the table that unwinding goes by
//! (`.eh_frame_hdr`, LSB core specification), or, where that has none for an address, by the padding between functions.

use super::elf::{CODE_MAX, Elf, ElfError, Span};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

const FRAMES_MAX: u64 = 1 << 22;
/// Entries: relative to the table, signed, four bytes (DW_EH_PE_datarel | DW_EH_PE_sdata4); their number: four bytes.
const ENCODING: [u8; 2] = [0x03, 0x3b];
const HEAD: u64 = 12;
/// What fills the space between functions.
const PADDING: u8 = 0xcc;
/// Functions begin at multiples of this, bytes.
const ALIGNED: u64 = 16;
/// At least so much of it must stand before the beginning of a function.
const PADDING_MIN: usize = 2;

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// In memory, before any shift of the whole, and in the file.
    pub address: u64,
    pub offset: u64,
    /// All of it.
    pub code: Vec<u8>,
}

/// The functions of a file.
pub struct Frames<'e, 'f> {
    elf: &'e Elf<'f>,
    /// The table of beginnings, sorted.
    header: Option<Span>,
    count: u64,
}

impl<'e, 'f> Frames<'e, 'f> {
    /// # Errors
    /// When the file cannot be read.
    pub fn of(elf: &'e Elf<'f>) -> Result<Self, ElfError> {
        let mut frames = Self {
            elf,
            header: None,
            count: 0,
        };
        if let Some(header) = elf.section(".eh_frame_hdr")
            && header.len >= HEAD
        {
            let head = elf.block(header.offset, HEAD, HEAD)?;
            let head = head.bytes();
            let count = u64::from(word(head, 8));
            if head.first() == Some(&1)
                && head.get(2..4) == Some(&ENCODING)
                && count <= FRAMES_MAX
                && HEAD + count * 8 <= header.len
            {
                frames.header = Some(header);
                frames.count = count;
            }
        }
        Ok(frames)
    }

    /// The function that an address is in, at most [`CODE_MAX`] long.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn around(&self, address: u64) -> Result<Option<Body>, ElfError> {
        // A table may have the functions of some languages only: Chromium's and Bun's leave out most of what they link in.
        if let Some(header) = self.header
            && let Some(body) = self.by_table(header, address)?
        {
            return Ok(Some(body));
        }
        self.by_padding(address)
    }

    fn entry(&self, header: Span, index: u64) -> Result<(u64, u64), ElfError> {
        let entry = self.elf.block(header.offset + HEAD + index * 8, 8, 8)?;
        let at = |place: usize| {
            header
                .address
                .wrapping_add_signed(i64::from(word(entry.bytes(), place).cast_signed()))
        };
        Ok((at(0), at(4)))
    }

    fn by_table(&self, header: Span, address: u64) -> Result<Option<Body>, ElfError> {
        // The last beginning that is not behind the address.
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.entry(header, middle)?.0 <= address {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        let Some(index) = from.checked_sub(1) else {
            return Ok(None);
        };
        let (begin, description) = self.entry(header, index)?;
        // Length and the place of what descriptions have in common, then the beginning, relative to its own place, and
        // the size.
        let Some(at) = self.elf.data_at(description) else {
            return Ok(None);
        };
        let bytes = self.elf.block(at, 16, 16)?;
        let own = description
            .wrapping_add(8)
            .wrapping_add_signed(i64::from(word(bytes.bytes(), 8).cast_signed()));
        let size = u64::from(word(bytes.bytes(), 12));
        if own != begin || size == 0 || size > CODE_MAX || address - begin >= size {
            return Ok(None);
        }
        self.body(begin, size)
    }

    fn body(&self, begin: u64, size: u64) -> Result<Option<Body>, ElfError> {
        let Some((offset, room)) = self.elf.code_at(begin) else {
            return Ok(None);
        };
        if size > room {
            return Ok(None);
        }
        let code = self.elf.code(begin, size)?;
        Ok(Some(Body {
            address: begin,
            offset,
            code,
        }))
    }

    /// Between the padding before and behind, provided that what lies between is whole: decoded from its beginning, it
    /// ends where the padding begins, and every branch in it that does not leave by its beginning's side stays inside.
    fn by_padding(&self, address: u64) -> Result<Option<Body>, ElfError> {
        const AROUND: u64 = 4096;
        let Some(segment) = self.elf.segment_of(address) else {
            return Ok(None);
        };
        let start = address.saturating_sub(AROUND).max(segment.address);
        let before = self.elf.code(start, address - start)?;
        if before.len() as u64 != address - start {
            return Ok(None);
        }
        let mut at = before.len();
        let begin = loop {
            let Some(next) = at.checked_sub(1) else {
                return Ok(None);
            };
            at = next;
            let padded = at >= PADDING_MIN
                && before
                    .get(at - PADDING_MIN..at)
                    .is_some_and(|bytes| bytes.iter().all(|byte| *byte == PADDING));
            if (start + at as u64).is_multiple_of(ALIGNED) && padded {
                break start + at as u64;
            }
        };
        let code = self.elf.code(begin, 2 * AROUND)?;
        let Some(size) = whole(&code, begin) else {
            return Ok(None);
        };
        if address - begin >= size {
            return Ok(None);
        }
        self.body(begin, size)
    }
}

/// Length of the function at the beginning of `code`: up to the first padding behind an instruction that does not go on,
/// or behind a call that does not return (`__stack_chk_fail`), when no branch leads behind that. Behind a call it has to
/// fill what is left up to the next function: a trap for debuggers is the same byte.
fn whole(code: &[u8], address: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut furthest = address;
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        let branches = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        if branches && instruction.op0_kind() == OpKind::NearBranch64 {
            let target = instruction.near_branch_target();
            // A jump backwards out of the function is a call at its end.
            if target > address {
                furthest = furthest.max(target);
            }
        }
        let ends = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::Return
                | FlowControl::IndirectBranch
                | FlowControl::Exception
        );
        let next = decoder.ip();
        let into = usize::try_from(next - address).ok()?;
        if ends && code.get(into) == Some(&PADDING) {
            return (furthest < next).then_some(next - address);
        }
        let calls = instruction.flow_control() == FlowControl::Call;
        let gap = usize::try_from(next.next_multiple_of(ALIGNED) - next).ok()?;
        let filled = gap >= PADDING_MIN
            && code
                .get(into..into + gap)
                .is_some_and(|bytes| bytes.iter().all(|byte| *byte == PADDING));
        if calls && filled && furthest < next {
            return Some(next - address);
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
