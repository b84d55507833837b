//! Functions of Debian 12 (arm64), as they were compiled.

use super::*;
use proptest::prelude::*;

const WHOLE: Given = Given {
    whole: true,
    calls: true,
};

fn code(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn at(words: &[u32]) -> ProbePoint {
    probe_point(&code(words), WHOLE)
}

fn found(offset: u64, pushed: u32, emulated: Option<&'static str>) -> ProbePoint {
    ProbePoint {
        offset,
        pushed: Some(pushed),
        emulated,
    }
}

/// OpenSSL 3.0: `SSL_write` and `SSL_write_ex`.
const SSL_WRITE: [u32; 9] = [
    0xd100_83ff, // sub sp, sp, #0x20
    0xb000_03c3, // adrp x3, ...
    0xf947_3863, // ldr x3, [x3, #3696]
    0xa901_7bfd, // stp x29, x30, [sp, #16]
    0x9100_43fd, // add x29, sp, #0x10
    0xf940_0064, // ldr x4, [x3]
    0xf900_07e4, // str x4, [sp, #8]
    0xd280_0004, // mov x4, #0
    0x37f8_02e2, // tbnz w2, #31, ...
];
const SSL_WRITE_EX: [u32; 3] = [
    0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
    0x9100_03fd, // mov x29, sp
    0x97ff_fe9a, // bl ...
];

#[test]
fn the_first_branch_behind_the_saved_return_address() {
    assert_eq!(at(&SSL_WRITE), found(0x20, 24, Some("tbz")));
    assert_eq!(at(&SSL_WRITE_EX), found(8, 8, Some("bl")));
    // Signed first, and without a frame.
    assert_eq!(
        at(&[
            0xd503_233f, // paciasp
            0xf81f_0ffe, // str x30, [sp, #-16]!
            0xb400_0040, // cbz x0, ...
            0xd65f_03c0,
            0xd65f_03c0,
        ]),
        found(8, 0, Some("cbz"))
    );
    // More stack is taken afterwards.
    assert_eq!(
        at(&[
            0xa9bd_7bfd, // stp x29, x30, [sp, #-48]!
            0xd100_43ff, // sub sp, sp, #16
            0x5400_0040, // b.eq ...
            0xd65f_03c0,
        ]),
        found(8, 24, Some("b.cond"))
    );
}

#[test]
fn where_no_branch_is_in_reach_the_next_instruction() {
    // gnutls_record_send2 as it might go on: an argument is overwritten before the first branch.
    assert_eq!(
        at(&[
            0xa9bc_7bfd, // stp x29, x30, [sp, #-64]!
            0x9100_03fd, // mov x29, sp
            0xaa13_03e0, // mov x0, x19
            0x3400_0040, // cbz w0, ...
            0xd65f_03c0,
        ]),
        found(4, 8, None)
    );
    let no_calls = Given {
        calls: false,
        ..WHOLE
    };
    assert_eq!(
        probe_point(&code(&SSL_WRITE_EX), no_calls),
        found(4, 8, None)
    );
}

#[test]
fn what_saves_nothing_is_probed_where_it_goes_on() {
    // gnutls_record_send: mov w4, #0; mov x3, #0; b ...
    assert_eq!(
        at(&[0x5280_0004, 0xd280_0003, 0x17ff_fefd]),
        ProbePoint {
            offset: 8,
            pushed: None,
            emulated: Some("b"),
        }
    );
    // A call would overwrite the return address.
    assert_eq!(at(&[0x5280_0004, 0x97ff_fefd, 0xd65f_03c0]), ENTRY);
}

#[test]
fn what_is_like_no_prologue_is_probed_at_its_beginning() {
    // PR_Write: ldr x3, [x0]; ldr x3, [x3, #24]; mov x16, x3; br x16
    assert_eq!(
        at(&[0xf940_0003, 0xf940_0c63, 0xaa03_03f0, 0xd61f_0200]),
        ENTRY
    );
    // The return address is overwritten, or the stack pointer is loaded.
    assert_eq!(at(&[0xaa03_03fe, 0xa9bf_7bfd, 0x9100_03fd]), ENTRY);
    assert_eq!(at(&[0x9100_007f, 0xa9bf_7bfd, 0x9100_03fd]), ENTRY);
    assert_eq!(at(&[]), ENTRY);
    // Nothing behind it.
    assert_eq!(at(&SSL_WRITE_EX[..1]), ENTRY);
}

#[test]
fn a_place_that_is_jumped_into_is_none() {
    let mut words = SSL_WRITE.to_vec();
    // b .-4*8 at 9: to the second instruction.
    words.push(0x17ff_fff8);
    assert_eq!(at(&words), ENTRY);
    *words.last_mut().unwrap() = 0x17ff_fff7;
    assert_eq!(at(&words), found(0x20, 24, Some("tbz")), "to its beginning");
    let part = Given {
        whole: false,
        ..WHOLE
    };
    assert_eq!(probe_point(&code(&SSL_WRITE), part), ENTRY);
}

#[test]
fn branches_reach_where_the_processor_goes() {
    assert_eq!(reach(0x17ff_ffff), Some(-1));
    assert_eq!(reach(0x9400_0010), Some(16));
    assert_eq!(reach(0x54ff_ffe1), Some(-1));
    assert_eq!(reach(0x37f8_02e2), Some(23));
    assert_eq!(reach(0xb4ff_ffa0), Some(-3));
    assert_eq!(reach(0xd65f_03c0), None);
}

proptest! {
    #[test]
    fn any_bytes_have_a_place_inside(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let found = probe_point(&bytes, WHOLE);
        prop_assert!(found.offset == 0 || found.offset < bytes.len() as u64);
        prop_assert!(found.pushed.is_none_or(|pushed| pushed <= 2 * STACK_MAX));
    }
}
