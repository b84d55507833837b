use super::*;
use proptest::prelude::*;

fn placed(code: &[u8], whole: bool) -> ProbePoint {
    probe_point(code, Given { whole, calls: true })
}

fn emulated_at(offset: u64, pushed: u32, kind: &'static str) -> ProbePoint {
    ProbePoint {
        offset,
        pushed: Some(pushed),
        emulated: Some(kind),
    }
}

/// SSL_write of Debian 12's libssl3, 131 bytes.
const SSL_WRITE: &[u8] = b"\x48\x83\xec\x18\x64\x48\x8b\x04\x25\x28\x00\x00\x00\x48\x89\x44\x24\x08\x31\xc0\x85\xd2\
\x78\x2f\x48\x89\xe1\x48\x63\xd2\xe8\xfd\xfb\xff\xff\x85\xc0\x7e\x03\x8b\x04\x24\x48\x8b\x54\x24\x08\x64\x48\x2b\x14\
\x25\x28\x00\x00\x00\x75\x44\x48\x83\xc4\x18\x31\xd2\x31\xc9\x31\xf6\x31\xff\xc3\xe8\xb4\x99\xfe\xff\x48\x8d\x15\x05\
\xcf\x04\x00\xbe\x46\x08\x00\x00\x48\x8d\x3d\xf2\xc6\x04\x00\xe8\x8c\xa0\xfe\xff\x31\xc0\x31\xd2\xbe\x0f\x01\x00\x00\
\xbf\x14\x00\x00\x00\xe8\xa9\x9e\xfe\xff\xb8\xff\xff\xff\xff\xeb\xac\xe8\x9d\xab\xfe\xff";

#[test]
fn ssl_write_is_probed_at_the_test_of_its_length() {
    assert_eq!(placed(SSL_WRITE, true), emulated_at(0x16, 0x18, "jcc"));
}

#[test]
fn of_a_part_of_a_function_only_the_first_instruction_is_sure() {
    assert_eq!(placed(SSL_WRITE, false), ENTRY);
    // A push there is emulated whatever follows.
    assert_eq!(
        placed(b"\x41\x57\x41\x56", false),
        emulated_at(0, 0, "push")
    );
}

#[test]
fn ssl_write_ex_is_probed_at_its_call() {
    // sub $8,%rsp; call; xor %edx,%edx; test; cmovs; add $8,%rsp; xor...; ret
    let code = b"\x48\x83\xec\x08\xe8\x87\xfb\xff\xff\x31\xd2\x85\xc0\x0f\x48\xc2\x48\x83\xc4\x08\x31\xd2\x31\xc9\
\x31\xf6\x31\xff\xc3";
    assert_eq!(placed(code, true), emulated_at(4, 8, "call"));
    // A shadow stack would not learn of it: then the dear place is the harmless one.
    let given = Given {
        whole: true,
        calls: false,
    };
    assert_eq!(probe_point(code, given), ENTRY);
    assert_eq!(probe_point(SSL_WRITE, given), placed(SSL_WRITE, true));
}

#[test]
fn gnutls_record_send_is_probed_at_its_tail_call() {
    // xor %r8d,%r8d; xor %ecx,%ecx; jmp gnutls_record_send2@plt
    assert_eq!(
        placed(b"\x45\x31\xc0\x31\xc9\xe9\x66\x9c\xff\xff", true),
        emulated_at(5, 0, "jmp")
    );
}

#[test]
fn landing_pads_are_passed() {
    // endbr64; push %rbp
    assert_eq!(
        placed(b"\xf3\x0f\x1e\xfa\x55\xc3", true),
        emulated_at(4, 0, "push")
    );
}

#[test]
fn the_stack_is_accounted_for_or_given_up() {
    // sub $0x1000,%rsp; orq $0,(%rsp); sub $0x18,%rsp; jmp
    let probed = b"\x48\x81\xec\x00\x10\x00\x00\x48\x83\x0c\x24\x00\x48\x83\xec\x18\xeb\x10";
    assert_eq!(placed(probed, true), emulated_at(16, 0x1018, "jmp"));
    for unknown in [
        &b"\x48\x83\xe4\xf0\x90"[..],        // and $-16,%rsp; nop
        b"\x48\x8d\x64\x24\xf8\x90",         // lea -8(%rsp),%rsp; nop
        b"\x48\x83\xec\x80\x90",             // sub $-128,%rsp; nop
        b"\x48\x29\xc4\x90",                 // sub %rax,%rsp; nop
        b"\xc8\x10\x00\x00\x90",             // enter $16,$0; nop
        b"\x6a\x05\x90",                     // push $5; nop
        b"\x48\x81\xec\x00\x00\x00\x40\x90", // sub $1 GiB,%rsp; nop
    ] {
        assert_eq!(placed(unknown, true), ENTRY, "{unknown:x?}");
    }
}

#[test]
fn arguments_must_still_be_there() {
    for lost in [
        &b"\x31\xd2\xeb\x00"[..], // xor %edx,%edx; jmp
        b"\x89\xf6\x90",          // mov %esi,%esi; nop
        b"\x40\xb7\x01\x90",      // mov $1,%dil; nop
        b"\xb6\x01\x90",          // mov $1,%dh; nop
        b"\x48\x0f\x44\xd0\x90",  // cmove %rax,%rdx; nop
        b"\x48\x99\x90",          // cqo; nop
        b"\x48\x87\xf8\x90",      // xchg %rdi,%rax; nop
        b"\xa4\x90",              // movsb; nop
        b"\x48\xf7\xe1\x90",      // mul %rcx; nop
    ] {
        assert_eq!(placed(lost, true), ENTRY, "{lost:x?}");
    }
}

#[test]
fn control_must_come_straight_from_the_entry() {
    for bytes in [
        &b"\xff\xe0\x90"[..],            // jmp *%rax; nop
        b"\xff\x15\x00\x00\x00\x00\x90", // call *0(%rip); nop
        b"\xe3\x00\x90",                 // jrcxz; nop
        b"\x0f\x05\x90",                 // syscall; nop
        b"\xc3\x90",                     // ret; nop
        b"\x0f\x0b\x90",                 // ud2; nop
        b"\x66\xe9\x00\x00\x90", // jmp with a 16-bit operand, which the kernel refuses to probe; nop
    ] {
        assert_eq!(placed(bytes, true), ENTRY, "{bytes:x?}");
    }
}

#[test]
fn a_place_that_is_jumped_to_is_not_taken() {
    // mov %rdi,%rax; 3: test %edx,%edx; je +5; dec %rcx; jmp 3
    let into = b"\x48\x89\xf8\x85\xd2\x74\x05\x48\xff\xc9\xeb\xf7\xc3";
    assert_eq!(placed(into, true), ENTRY);
    // The same, but the loop begins after the place.
    let behind = b"\x48\x89\xf8\x85\xd2\x74\x05\x48\xff\xc9\xeb\xfb\xc3";
    assert_eq!(placed(behind, true), emulated_at(5, 0, "jcc"));
    // From far behind, with a 32-bit displacement to the jump itself.
    let mut far = b"\x48\x89\xf8\x74\x00".to_vec();
    far.resize(100, 0x90);
    far.extend(b"\xe9");
    far.extend((3_i32 - 105).to_le_bytes());
    assert_eq!(placed(&far, true), ENTRY);
}

#[test]
fn what_cannot_be_decoded_may_jump_anywhere() {
    // 06 is no instruction in 64-bit mode.
    assert_eq!(placed(b"\x48\x89\xf8\x74\x01\x06\xc3", true), ENTRY);
    // Cut off in the middle of an instruction.
    assert_eq!(placed(&SSL_WRITE[..SSL_WRITE.len() - 1], true), ENTRY);
    assert_eq!(placed(b"", true), ENTRY);
    assert_eq!(placed(b"\x0f", true), ENTRY);
}

#[test]
fn nothing_is_looked_for_beyond_the_prologue() {
    let mut code = b"\x48\x89\xf8".repeat(22);
    code.extend(b"\x90\xc3");
    assert_eq!(placed(&code, true), ENTRY);
}

proptest! {
    #[test]
    fn any_bytes(code in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
        let found = placed(&code, whole);
        prop_assert!(found.offset < SPAN);
        prop_assert!(found.pushed.is_some_and(|pushed| pushed <= STACK_MAX));
        prop_assert_eq!(found.emulated.is_none(), found == ENTRY);
        if found.offset != 0 {
            prop_assert!(whole);
        }
    }

    /// Real prologues with one byte changed.
    #[test]
    fn nearly_real(at in 0..SSL_WRITE.len(), byte: u8) {
        let mut code = SSL_WRITE.to_vec();
        code[at] = byte;
        prop_assert!((placed(&code, true).offset as usize) < code.len());
    }
}
