use super::*;
use proptest::prelude::*;

const ADDRESS: u64 = 0x40_1000;

#[test]
fn a_function_ends_where_padding_begins() {
    // test; js to the jump backwards; ret; int3 in the middle of nothing; jmp back; padding
    let code = b"\x85\xd2\x78\x01\xc3\xeb\xf9\xcc\xcc\xcc";
    assert_eq!(whole(code, ADDRESS), Some(7));
    // The padding is of a function that a branch leads beyond.
    let code = b"\x85\xd2\x78\x10\xc3\xcc\xcc\xcc";
    assert_eq!(whole(code, ADDRESS), None);
    // A call that does not return ends it when padding fills what is left of sixteen bytes, and not a trap in its middle.
    let code = b"\x85\xd2\x90\x90\x90\xe8\0\0\0\0\xcc\xcc\xcc\xcc\xcc\xcc\x55\xc3\xcc";
    assert_eq!(whole(code, ADDRESS), Some(10));
    let code = b"\x85\xd2\x90\x90\x90\xe8\0\0\0\0\xcc\x0f\x0b\x90\x90\xc3\xcc";
    assert_eq!(whole(code, ADDRESS), Some(16));
    let code = b"\x78\x10\x90\x90\x90\xe8\0\0\0\0\xcc\xcc\xcc\xcc\xcc\xcc\x55\x90\xc3\xcc";
    assert_eq!(whole(code, ADDRESS), Some(19), "a branch leads beyond");
    // No padding, no code.
    assert_eq!(whole(b"\x55\xc3", ADDRESS), None);
    assert_eq!(whole(b"\x06", ADDRESS), None);
    assert_eq!(whole(b"", ADDRESS), None);
}

proptest! {
    #[test]
    fn any_bytes(code in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(size) = whole(&code, ADDRESS) {
            prop_assert_eq!(code[size as usize], PADDING);
        }
    }
}
