//! Where in a function a uprobe is cheap.
//!
//! A uprobe replaces an instruction by a trap. What was there is emulated by the kernel if it is a `nop`, a `push` of
//! a register, or a direct jump or call (arch/x86/kernel/uprobes.c: `branch_setup_xol_ops`, `push_setup_xol_ops`);
//! everything else is single-stepped out of line, which makes the call seven times dearer. So the first such
//! instruction is taken at which the arguments are still where they were at entry.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

/// Deepest place that is considered, bytes.
const DEPTH_MAX: u64 = 96;

/// Where to put the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes into the function.
    pub at: u64,
    /// Bytes the function has pushed by then: the return address is that far above the stack pointer.
    pub pushed: u64,
    /// The kernel emulates the instruction.
    pub emulated: bool,
}

/// The honest choice where nothing better can be proven.
pub const ENTRY: Place = Place {
    at: 0,
    pushed: 0,
    emulated: false,
};

/// Finds the place in the code of a function whose first three arguments are wanted.
pub fn choose(code: &[u8]) -> Place {
    let mut factory = InstructionInfoFactory::new();
    let mut pushed = 0;
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).iter() {
        let at = instruction.ip();
        if instruction.is_invalid() || at > DEPTH_MAX {
            break;
        }
        if emulated(&instruction, code) {
            let place = Place {
                at,
                pushed,
                emulated: true,
            };
            return if entered_only_at_the_top(code, at) {
                place
            } else {
                ENTRY
            };
        }
        // Behind this instruction: is everything still as at entry?
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        match stack_growth(&instruction) {
            Some(growth) => pushed += growth,
            None => break,
        }
        let touched = factory
            .info(&instruction)
            .used_registers()
            .iter()
            .any(|used| {
                let written = matches!(
                    used.access(),
                    OpAccess::Write
                        | OpAccess::ReadWrite
                        | OpAccess::CondWrite
                        | OpAccess::ReadCondWrite
                );
                written
                    && matches!(
                        used.register().full_register(),
                        Register::RDI | Register::RSI | Register::RDX
                    )
            });
        if touched {
            break;
        }
    }
    ENTRY
}

/// Does every kernel with uprobes emulate this instruction?
fn emulated(instruction: &Instruction, code: &[u8]) -> bool {
    let start = instruction.ip() as usize;
    let Some(bytes) = code.get(start..start + instruction.len()) else {
        return false;
    };
    match bytes {
        // nop, push of a low register; push of a high one with nothing but its prefix before it.
        [0x90 | 0x50..=0x57] | [0x41, 0x50..=0x57] => true,
        // jcc, jmp, call with a relative target, without any prefix.
        [0x70..=0x7f | 0xeb, _] | [0xe8 | 0xe9, _, _, _, _] | [0x0f, 0x80..=0x8f, _, _, _, _] => {
            true
        }
        _ => false,
    }
}

/// Bytes by which the stack grows; `None` when that is not plain.
fn stack_growth(instruction: &Instruction) -> Option<u64> {
    let to_stack = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == Register::RSP;
    if !to_stack {
        return u64::try_from(-i64::from(instruction.stack_pointer_increment())).ok();
    }
    let immediate = matches!(
        instruction.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    );
    match instruction.mnemonic() {
        Mnemonic::Sub if immediate => u64::try_from(instruction.immediate(1) as i64).ok(),
        Mnemonic::Cmp | Mnemonic::Test => Some(0),
        _ => None,
    }
}

/// No jump within the function leads behind its first instruction and up to `at`: else the probe would fire again,
/// or not at all, with other things in the registers.
fn entered_only_at_the_top(code: &[u8], at: u64) -> bool {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
        .iter()
        .filter(|instruction| {
            matches!(
                instruction.flow_control(),
                FlowControl::ConditionalBranch
                    | FlowControl::UnconditionalBranch
                    | FlowControl::Call
            ) && matches!(instruction.op0_kind(), OpKind::NearBranch64)
        })
        .all(|instruction| {
            let target = instruction.near_branch64();
            target == 0 || target > at
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_ssl_write_at_the_sign_test() {
        // sub $0x18,%rsp; mov %fs:0x28,%rax; mov %rax,8(%rsp); xor %eax,%eax; test %edx,%edx; js
        let code = b"\x48\x83\xec\x18\x64\x48\x8b\x04\x25\x28\0\0\0\x48\x89\x44\x24\x08\x31\xc0\x85\xd2\x78\x2f\xc3";
        assert_eq!(
            choose(code),
            Place {
                at: 0x16,
                pushed: 0x18,
                emulated: true
            }
        );
    }

    #[test]
    fn a_push_is_emulated_at_once() {
        assert_eq!(
            choose(b"\x55\x48\x89\xe5\xc3"),
            Place {
                at: 0,
                pushed: 0,
                emulated: true
            }
        );
        // endbr64; push %r12
        assert_eq!(
            choose(b"\xf3\x0f\x1e\xfa\x41\x54\xc3"),
            Place {
                at: 4,
                pushed: 0,
                emulated: true
            }
        );
    }

    #[test]
    fn overwritten_arguments_end_the_search() {
        // mov %rdi,%rax; xor %edx,%edx; jmp
        assert_eq!(choose(b"\x48\x89\xf8\x31\xd2\xeb\x00"), ENTRY);
        // mov %esi,%esi writes all of rsi
        assert_eq!(choose(b"\x89\xf6\x90"), ENTRY);
        // cmov writes on a condition
        assert_eq!(choose(b"\x48\x0f\x44\xd0\x90"), ENTRY);
        // Other argument registers are free: xor %r8d,%r8d; xor %ecx,%ecx; jmp
        assert_eq!(
            choose(b"\x45\x31\xc0\x31\xc9\xe9\x10\0\0\0"),
            Place {
                at: 5,
                pushed: 0,
                emulated: true
            }
        );
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        // and $-16,%rsp: how far away the return address is cannot be known.
        assert_eq!(choose(b"\x48\x83\xe4\xf0\x90"), ENTRY);
        // An indirect jump before anything emulated.
        assert_eq!(choose(b"\xff\xe0\x90"), ENTRY);
        // 16-bit operand prefix: jumps with it are not emulated.
        assert_eq!(choose(b"\x66\xe8\x00\x00\xc3"), ENTRY);
        assert_eq!(choose(b""), ENTRY);
        assert_eq!(choose(b"\x0f"), ENTRY);
    }

    #[test]
    fn a_loop_back_to_the_place_forbids_it() {
        // mov %rdi,%rax; nop; ...; jmp back to the nop
        assert_eq!(choose(b"\x48\x89\xf8\x90\x48\xff\xc0\xeb\xfa"), ENTRY);
        // A loop that begins after it does no harm: nop; inc %rax; jmp to the inc
        assert_eq!(
            choose(b"\x90\x48\xff\xc0\xeb\xfb"),
            Place {
                at: 0,
                pushed: 0,
                emulated: true
            }
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut state = 1u32;
        for _ in 0..20_000 {
            let code: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let place = choose(&code);
            assert!(place.at <= DEPTH_MAX);
        }
    }
}
