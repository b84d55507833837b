//! aarch64: where the kernel simulates branches (arch/arm64/kernel/probes/decode-insn.c: `arm_probe_decode_insn`), and where
//! a function saves its return address, which its caller has left in `x30`.
//!
//! A place before that does not tell where it will lie. So the probe goes behind it: to the first branch, or where there is
//! none in reach, to the next instruction. A function that branches before is probed there, for that costs less.

use super::{Given, ProbePoint};

/// How far into a function a place is looked for, instructions.
const SPAN: usize = 32;
/// A prologue that takes more stack than this is not believed, bytes.
const STACK_MAX: u32 = 1 << 20;
const LINK: u32 = 30;
/// The stack pointer, where an instruction addresses memory or adds numbers.
const SP: u32 = 31;

/// The first instruction, whatever it is: where the function returns to is in a register.
pub const ENTRY: ProbePoint = ProbePoint {
    offset: 0,
    pushed: None,
    emulated: None,
};

/// What an instruction of a prologue does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Nothing to the arguments, the stack and the return address.
    Nothing,
    /// Takes so much stack.
    Takes(u32),
    /// Takes so much stack, then saves the return address so far above the stack pointer.
    Saves { takes: u32, at: u32 },
    /// Goes elsewhere, or may; the kernel simulates it.
    Branches(&'static str),
    /// Something else.
    Else,
}

/// Finds the place for a function of aarch64.
pub fn probe_point(code: &[u8], given: Given) -> ProbePoint {
    let Given { whole, calls } = given;
    if !whole {
        return ENTRY;
    }
    // From the stack pointer, once it is saved.
    let mut saved: Option<u32> = None;
    let mut behind = ENTRY;
    for (index, word) in words(code).enumerate().take(SPAN) {
        let offset = index as u64 * 4;
        match does(word) {
            Does::Nothing => {}
            Does::Takes(size) => match saved.map(|at| at.checked_add(size)) {
                None => {}
                Some(Some(at)) if at <= STACK_MAX => saved = Some(at),
                Some(_) => break,
            },
            Does::Saves { takes, at } => {
                if saved.is_some() || takes.max(at) > STACK_MAX {
                    break;
                }
                saved = Some(at);
                behind = ProbePoint {
                    offset: offset + 4,
                    pushed: saved,
                    emulated: None,
                };
                continue;
            }
            Does::Branches(kind) => {
                // Before it is saved, a call would lose it.
                if kind != "bl" || (calls && saved.is_some()) {
                    behind = ProbePoint {
                        offset,
                        pushed: saved,
                        emulated: Some(kind),
                    };
                }
                break;
            }
            Does::Else => break,
        }
    }
    if behind.offset >= code.len() as u64 || jumped_into(code, behind.offset) {
        return ENTRY;
    }
    behind
}

fn words(code: &[u8]) -> impl Iterator<Item = u32> + '_ {
    code.chunks_exact(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
}

/// Arm Architecture Reference Manual for A-profile, C4.1 (encodings by class).
fn does(word: u32) -> Does {
    let (target, base) = (word & 31, word >> 5 & 31);
    if let Some(kind) = branch(word) {
        return Does::Branches(kind);
    }
    // Hints: nop, bti, paciasp, which signs the return address.
    if word & 0xffff_f01f == 0xd503_201f {
        return Does::Nothing;
    }
    // sub sp, sp, #n
    if word & 0xff80_03ff == 0xd100_03ff {
        let shift = if word & 1 << 22 != 0 { 12 } else { 0 };
        return Does::Takes((word >> 10 & 0xfff) << shift);
    }
    // stp of two registers at an offset from the stack pointer, which moves before (`!`) or not.
    if word & 0x7e40_0000 == 0x2800_0000 && base == SP && word >> 30 == 2 {
        let by = (word << 10).cast_signed() >> 25;
        let pair = [target, word >> 10 & 31];
        return match (
            word >> 23 & 3,
            pair.iter().position(|register| *register == LINK),
        ) {
            (2, Some(place)) if by >= 0 => saves(0, by.cast_unsigned() * 8, place),
            (2, None) => Does::Nothing,
            (3, Some(place)) if by < 0 => saves(by.unsigned_abs() * 8, 0, place),
            (3, None) if by < 0 => Does::Takes(by.unsigned_abs() * 8),
            _ => Does::Else,
        };
    }
    // str at an offset from the stack pointer, and with the stack pointer moved before.
    if word & 0xffc0_0000 == 0xf900_0000 && base == SP {
        let at = (word >> 10 & 0xfff) * 8;
        return if target == LINK {
            saves(0, at, 0)
        } else {
            Does::Nothing
        };
    }
    if word & 0xffe0_0c00 == 0xf800_0c00 && base == SP {
        let by = (word << 11).cast_signed() >> 23;
        return match (by < 0, target == LINK) {
            (true, true) => saves(by.unsigned_abs(), 0, 0),
            (true, false) => Does::Takes(by.unsigned_abs()),
            _ => Does::Else,
        };
    }
    if writes_one(word) && spares(target) {
        return Does::Nothing;
    }
    Does::Else
}

fn saves(takes: u32, at: u32, place: usize) -> Does {
    Does::Saves {
        takes,
        at: at + 8 * place as u32,
    }
}

/// Is this none of the registers that matter? In what follows, the last one is the stack pointer or nothing.
fn spares(register: u32) -> bool {
    !matches!(register, 0..=2 | LINK | SP)
}

/// Does it write the register in its lowest bits, and nothing else?
fn writes_one(word: u32) -> bool {
    // adr, adrp; add and sub of an immediate, without flags; movn, movz and movk.
    word & 0x1f00_0000 == 0x1000_0000
        || word & 0x3f80_0000 == 0x1100_0000
        || word & 0x1f80_0000 == 0x1280_0000
        // and, orr and eor of registers, without flags: mov is one.
        || (word & 0x1f00_0000 == 0x0a00_0000 && word >> 29 & 3 != 3)
        // ldr and ldrb of a general register at an offset.
        || word & 0xbfc0_0000 == 0xb940_0000
        || word & 0xffc0_0000 == 0x3940_0000
}

/// What the instruction is, when it is a branch that every kernel this agent runs on simulates.
fn branch(word: u32) -> Option<&'static str> {
    match word {
        _ if word & 0xfc00_0000 == 0x1400_0000 => Some("b"),
        _ if word & 0xfc00_0000 == 0x9400_0000 => Some("bl"),
        _ if word & 0xff00_0010 == 0x5400_0000 => Some("b.cond"),
        _ if word & 0x7e00_0000 == 0x3400_0000 => Some("cbz"),
        _ if word & 0x7e00_0000 == 0x3600_0000 => Some("tbz"),
        _ => None,
    }
}

/// How far a branch goes, instructions.
fn reach(word: u32) -> Option<i64> {
    let signed =
        |from: u32, bits: u32| i64::from((word << (32 - from - bits)).cast_signed() >> (32 - bits));
    Some(match branch(word)? {
        "b" | "bl" => signed(0, 26),
        "tbz" => signed(5, 14),
        _ => signed(5, 19),
    })
}

/// Does any branch of the function go behind its first instruction, up to `until`?
fn jumped_into(code: &[u8], until: u64) -> bool {
    let until = i64::try_from(until / 4).unwrap_or(i64::MAX);
    words(code)
        .zip(0_i64..)
        .any(|(word, index)| reach(word).is_some_and(|by| (1..=until).contains(&(index + by))))
}

#[cfg(test)]
#[path = "aarch64_tests.rs"]
mod tests;
