//! Is the code at the place that the table tells that of a function of Go?
//!
//! Where the code begins that entries are relative to is not always reported: from 1.26 on never, and not in programs that
//! are relocated; then it is where the section of code begins, or a little behind, where a C linker put its own
//! beginning first. So a place is believed only if its code begins as Go's does since 1.17, goes to the growth of the
//! stack, which must lie where the same table says, and from there back to its own beginning.

use super::{aarch64, table::Table};
use crate::tls::elf::{CODE_MAX, Elf, ElfError};
use iced_x86::{Code as Op, Decoder, DecoderOptions, Instruction, Mnemonic};

/// Bytes of code of C that may lie before Go's.
const BEFORE_MAX: u64 = 64 << 10;
/// Go's code begins at multiples of this.
const STEP: u64 = 16;
/// Instructions from where the stack is found too small to where the function begins anew: arguments saved, the call,
/// arguments loaded.
const DETOUR_MAX: usize = 64;

/// A function that is where the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Where the code begins that entries are relative to.
    pub base: u64,
    /// Of the function's first instruction: in memory, and in the file.
    pub address: u64,
    pub offset: u64,
    /// From there to the jump to the growth of the stack.
    pub jump: u64,
}

pub struct Code<'e, 'f> {
    pub elf: &'e Elf<'f>,
    pub table: &'e Table,
}

impl Code<'_, '_> {
    /// Where a function lies, given its entry and that of the growth of the stack.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn prove(&self, entry: u64, morestack: u64) -> Result<Option<Proof>, ElfError> {
        if self.table.is_absolute() {
            return self.at(0, entry, morestack);
        }
        if let Some(text) = self.table.text
            && let Some(proof) = self.at(text, entry, morestack)?
        {
            return Ok(Some(proof));
        }
        let begin = match self.elf.section(".text") {
            Some(text) => text.address,
            None => match self.elf.loaded(true).next() {
                Some(span) => span.address,
                None => return Ok(None),
            },
        };
        let mut found = None;
        for step in 0..=BEFORE_MAX / STEP {
            let Some(base) = begin.checked_add(step * STEP) else {
                break;
            };
            // Most places fail by their first bytes.
            let Some((offset, room)) = base
                .checked_add(entry)
                .and_then(|address| self.elf.code_at(address))
            else {
                continue;
            };
            let head = self.elf.block(offset, room.min(16), 16)?;
            let jump = if self.elf.x86_64() {
                jump_of(head.bytes())
            } else {
                aarch64::jump_of(head.bytes())
            };
            if jump.is_none() {
                continue;
            }
            if let Some(proof) = self.at(base, entry, morestack)? {
                if found.is_some() {
                    return Ok(None);
                }
                found = Some(proof);
            }
        }
        Ok(found)
    }

    fn at(&self, base: u64, entry: u64, morestack: u64) -> Result<Option<Proof>, ElfError> {
        let (Some(address), Some(morestack)) =
            (base.checked_add(entry), base.checked_add(morestack))
        else {
            return Ok(None);
        };
        let Some((offset, _)) = self.elf.code_at(address) else {
            return Ok(None);
        };
        let code = self.elf.code(address, CODE_MAX)?;
        let jump = if self.elf.x86_64() {
            function_of_go(&code, address, morestack)
        } else {
            aarch64::function_of_go(&code, address, morestack)
        };
        Ok(jump.map(|jump| Proof {
            base,
            address,
            offset,
            jump,
        }))
    }
}

/// Offset and target of the jump with which a function of Go begins, after it has compared its stack with the
/// goroutine's limit (`r14` is the goroutine since 1.17); both from the function's beginning.
fn jump_of(code: &[u8]) -> Option<(u64, u64)> {
    let compare: usize = match code {
        // cmp rsp,[r14+16]
        [0x49, 0x3b, 0x66, 0x10, ..] => 4,
        // lea r12,[rsp-n]; cmp r12,[r14+16]
        [0x4c, 0x8d, 0x64, 0x24, _, 0x4d, 0x3b, 0x66, 0x10, ..] => 9,
        [
            0x4c,
            0x8d,
            0xa4,
            0x24,
            _,
            _,
            _,
            _,
            0x4d,
            0x3b,
            0x66,
            0x10,
            ..,
        ] => 12,
        _ => return None,
    };
    let (size, by) = match code.get(compare..)? {
        [0x76, by, ..] => (2, i64::from(by.cast_signed())),
        [0x0f, 0x86, a, b, c, d, ..] => (6, i64::from(i32::from_le_bytes([*a, *b, *c, *d]))),
        _ => return None,
    };
    let target = (compare as i64).checked_add(size)?.checked_add(by)?;
    Some((compare as u64, u64::try_from(target).ok()?))
}

/// The jump's offset, if the whole is proven. `code` may go on behind the function.
fn function_of_go(code: &[u8], address: u64, morestack: u64) -> Option<u64> {
    let (jump, target) = jump_of(code)?;
    let detour = code.get(usize::try_from(target).ok()?..)?;
    let mut decoder = Decoder::with_ip(
        64,
        detour,
        address.wrapping_add(target),
        DecoderOptions::NONE,
    );
    let mut instruction = Instruction::default();
    let mut grown = false;
    for _ in 0..DETOUR_MAX {
        if !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut instruction);
        match instruction.code() {
            Op::Call_rel32_64 if !grown && instruction.near_branch_target() == morestack => {
                grown = true;
            }
            Op::Jmp_rel8_64 | Op::Jmp_rel32_64 => {
                return (grown && instruction.near_branch_target() == address).then_some(jump);
            }
            // Arguments go to the stack and come back.
            _ if instruction.mnemonic() == Mnemonic::Mov
                || instruction.mnemonic() == Mnemonic::Nop
                || is_vector_move(instruction.mnemonic()) => {}
            _ => return None,
        }
    }
    None
}

fn is_vector_move(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Movsd | Mnemonic::Movss | Mnemonic::Movups | Mnemonic::Movzx
    )
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
