//! x86-64: the kernel emulates near jumps and calls, conditional jumps, nop and push of a register
//! (arch/x86/kernel/uprobes.c: branch_setup_xol_ops, push_setup_xol_ops).

use super::{Given, ProbePoint};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

/// How far into a function a place is looked for, bytes.
const SPAN: u64 = 64;
/// A prologue that takes more stack than this is not believed, bytes.
const STACK_MAX: u32 = 1 << 20;

/// The first instruction, whatever it is.
pub const ENTRY: ProbePoint = ProbePoint {
    offset: 0,
    pushed: Some(0),
    emulated: None,
};

/// Finds the place for a function of x86-64.
pub fn probe_point(code: &[u8], given: Given) -> ProbePoint {
    let Given { whole, calls } = given;
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut factory = InstructionInfoFactory::new();
    let mut instruction = Instruction::default();
    let mut pushed = 0_u32;
    while decoder.can_decode() && decoder.ip() < SPAN {
        let offset = decoder.ip();
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            break;
        }
        let start = offset as usize;
        if let Some(kind) = emulated(
            code.get(start..start + instruction.len())
                .unwrap_or_default(),
        ) && (calls || kind != "call")
        {
            if offset != 0 && (!whole || jumped_into(code, offset)) {
                break;
            }
            return ProbePoint {
                offset,
                pushed: Some(pushed),
                emulated: Some(kind),
            };
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        let mut moves_stack = false;
        let mut loses_argument = false;
        for used in factory.info(&instruction).used_registers() {
            if writes(used.access()) {
                match used.register().full_register() {
                    Register::RDI | Register::RSI | Register::RDX => loses_argument = true,
                    Register::RSP => moves_stack = true,
                    _ => {}
                }
            }
        }
        if loses_argument {
            break;
        }
        if moves_stack {
            match taken(&instruction).and_then(|taken| pushed.checked_add(taken)) {
                Some(sum) if sum <= STACK_MAX => pushed = sum,
                _ => break,
            }
        }
    }
    ENTRY
}

/// What the instruction is, when every kernel that this agent runs on emulates it. Prefixes other than the one that
/// push of r8 to r15 needs are left alone: the kernel refuses or steps some of them.
fn emulated(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x50..=0x57] | [0x41, 0x50..=0x57] => Some("push"),
        [0x90] => Some("nop"),
        [0xe8, _, _, _, _] => Some("call"),
        [0xe9, _, _, _, _] | [0xeb, _] => Some("jmp"),
        [0x70..=0x7f, _] | [0x0f, 0x80..=0x8f, _, _, _, _] => Some("jcc"),
        _ => None,
    }
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// Bytes of stack an instruction takes, for the one form of which the kernel does not emulate and compilers emit
/// in prologues: sub $imm,%rsp.
fn taken(instruction: &Instruction) -> Option<u32> {
    let immediate = matches!(
        instruction.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    );
    if instruction.mnemonic() != Mnemonic::Sub
        || instruction.op0_register() != Register::RSP
        || !immediate
    {
        return None;
    }
    u32::try_from(instruction.immediate(1)).ok()
}

/// Does any branch of the function go behind its first instruction, up to `until`? A function that cannot be decoded
/// to its end may hold one.
fn jumped_into(code: &[u8], until: u64) -> bool {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return true;
        }
        let near = matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
        if near && (1..=until).contains(&instruction.near_branch_target()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[path = "x86_64_tests.rs"]
mod tests;
