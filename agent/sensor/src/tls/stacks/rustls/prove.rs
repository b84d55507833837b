//! Is a method the one that encrypts a record, and is the record where the kernel side looks for it?
//!
//! `OutboundPlainMessage` (rustls/src/msgs/message/outbound.rs, from 0.23 on) is passed by its address, the third argument behind
//! the place of the result and `self`. How the compiler has laid it out is not promised, but the method has to read it.
//! Its first act is to work out how long the record becomes: the plaintext is either one piece (a null, address, length) or a
//! part of several (their address and number, where it begins and ends), and the cipher adds its own. Then it takes
//! the content type. All of this has to be there, at the places that are known, read by the address it was given.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};
use std::collections::BTreeSet;

/// Words of the message: null or the pieces; the length of the one piece or where the part begins; where it ends.
const PIECES: u64 = 0;
const LENGTH: u64 = 0x10;
const END: u64 = 0x18;
/// One byte each: which content type, and its number if it is none of the known.
const KIND: [u64; 2] = [0x20, 0x21];
/// A buffer of the record may be made in the method itself: then with the header.
const HEADER: u64 = 5;
/// Instructions that are inspected.
const STEPS: usize = 768;

/// A way through the code.
struct Way {
    /// Offset of its next instruction.
    at: u64,
    /// The registers that hold the message's address, a bit each.
    message: u16,
    /// Nothing was called on it.
    first: bool,
}

#[derive(Default)]
struct Seen {
    pieces: bool,
    length: bool,
    end: bool,
    kind: bool,
    adds: bool,
}

/// Whether the method at the beginning of `code` encrypts records that cost `adds` bytes more than their plaintext.
pub fn encrypts(code: &[u8], adds: u8) -> bool {
    let mut seen = Seen::default();
    let mut factory = InstructionInfoFactory::new();
    let mut been = BTreeSet::new();
    let mut ways = vec![Way {
        at: 0,
        message: bit(Register::RDX),
        first: true,
    }];
    while let Some(mut way) = ways.pop() {
        while been.len() < STEPS && been.insert(way.at) {
            let Some(bytes) = usize::try_from(way.at).ok().and_then(|at| code.get(at..)) else {
                break;
            };
            let mut decoder = Decoder::with_ip(64, bytes, way.at, DecoderOptions::NONE);
            if !decoder.can_decode() {
                break;
            }
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break;
            }
            seen.step(&instruction, &mut way, u64::from(adds), &mut factory);
            let target = (instruction.op0_kind() == OpKind::NearBranch64)
                .then(|| instruction.near_branch_target());
            way.at = decoder.ip();
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                FlowControl::ConditionalBranch => ways.extend(target.map(|at| Way { at, ..way })),
                FlowControl::UnconditionalBranch => match target {
                    Some(at) => way.at = at,
                    None => break,
                },
                _ => break,
            }
        }
    }
    seen.pieces && seen.length && seen.end && seen.kind && seen.adds
}

impl Seen {
    fn step(
        &mut self,
        instruction: &Instruction,
        way: &mut Way,
        adds: u64,
        factory: &mut InstructionInfoFactory,
    ) {
        let costs = [adds, adds + HEADER];
        let info = factory.info(instruction);
        for memory in info.used_memory() {
            let by_message = way.message & bit(memory.base()) != 0;
            if !by_message || memory.index() != Register::None || !reads(memory.access()) {
                continue;
            }
            match (memory.memory_size().size(), memory.displacement()) {
                (8, PIECES) => self.pieces = true,
                (8, LENGTH) => self.length = true,
                (8, END) => self.end = true,
                (1, at) if KIND.contains(&at) => self.kind = true,
                _ => {}
            }
        }
        self.adds |= way.first
            && match instruction.mnemonic() {
                Mnemonic::Add => {
                    matches!(
                        instruction.op1_kind(),
                        OpKind::Immediate8to64 | OpKind::Immediate32to64
                    ) && costs.contains(&instruction.immediate(1))
                }
                Mnemonic::Lea => {
                    instruction.memory_base() != Register::RSP
                        && instruction.memory_index() == Register::None
                        && costs.contains(&instruction.memory_displacement64())
                }
                _ => false,
            };
        // A copy of the address is one as well; what is written to is none any more.
        let copy = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && way.message & bit(instruction.op1_register()) != 0;
        for used in info.used_registers() {
            if writes(used.access()) {
                way.message &= !bit(used.register().full_register());
            }
        }
        if copy {
            way.message |= bit(instruction.op0_register());
        }
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            way.first = false;
            way.message &= CALL_KEEPS
                .into_iter()
                .map(bit)
                .fold(0, |all, bit| all | bit);
        }
    }
}

/// Registers that are what they were when a call comes back (System V ABI, AMD64, section 3.2.1).
const CALL_KEEPS: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// The bit of a 64-bit register; none for all others.
fn bit(register: Register) -> u16 {
    if register.is_gpr64() {
        1 << register.number()
    } else {
        0
    }
}

fn reads(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}
