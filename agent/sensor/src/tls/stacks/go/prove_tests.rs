use super::*;
use proptest::prelude::*;

const ADDRESS: u64 = 0x40_1000;
const MORESTACK: u64 = 0x40_0800;

/// `lea r12,[rsp-104]; cmp r12,[r14+16]; jbe far`, as Go 1.19 begins `(*Conn).Write`; then at `detour` the arguments are
/// saved, the stack grows, they are loaded, and the function begins anew.
fn function(detour: usize, morestack: u64, back_to: u64) -> Vec<u8> {
    let mut code = b"\x4c\x8d\x64\x24\x98\x4d\x3b\x66\x10\x0f\x86".to_vec();
    code.extend((detour as i32 - 15).to_le_bytes());
    code.resize(detour, 0x90);
    code.extend(b"\x48\x89\x44\x24\x08\x48\x89\x5c\x24\x10\x48\x89\x4c\x24\x18");
    let relative = |code: &Vec<u8>, to: u64| {
        let next = ADDRESS + code.len() as u64 + 5;
        (to.wrapping_sub(next) as i32).to_le_bytes()
    };
    let call = relative(&code, morestack);
    code.push(0xe8);
    code.extend(call);
    code.extend(b"\x48\x8b\x44\x24\x08\x48\x8b\x5c\x24\x10\x48\x8b\x4c\x24\x18");
    let jump = relative(&code, back_to);
    code.push(0xe9);
    code.extend(jump);
    code
}

#[test]
fn a_function_of_go() {
    let code = function(1900, MORESTACK, ADDRESS);
    assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), Some(9));
    // The small frame: cmp rsp,[r14+16]; jbe near; what follows is the way back.
    let mut small = b"\x49\x3b\x66\x10\x76\x00".to_vec();
    small.extend(b"\xe8");
    small.extend((MORESTACK.wrapping_sub(ADDRESS + 11) as i32).to_le_bytes());
    small.extend(b"\xeb\xf3");
    assert_eq!(function_of_go(&small, ADDRESS, MORESTACK), Some(4));
}

#[test]
fn anything_else_is_none() {
    for (code, what) in [
        (function(1900, MORESTACK + 16, ADDRESS), "grows elsewhere"),
        (function(1900, MORESTACK, ADDRESS + 16), "begins elsewhere"),
        (function(1900, MORESTACK, ADDRESS)[..1920].to_vec(), "ends"),
        (b"\x48\x83\xec\x18".to_vec(), "C"),
        // Go 1.16: mov fs:-8,%rcx; cmp 16(%rcx),%rsp; jbe
        (
            b"\x64\x48\x8b\x0c\x25\xf8\xff\xff\xff\x48\x3b\x61\x10\x0f\x86\0\0\0\0".to_vec(),
            "arguments on the stack",
        ),
        (Vec::new(), "nothing"),
    ] {
        assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None, "{what}");
    }
    // Moved as a whole against its table.
    let code = function(1900, MORESTACK, ADDRESS);
    assert_eq!(
        function_of_go(&code, ADDRESS + 0x100, MORESTACK + 0x100),
        Some(9)
    );
    assert_eq!(function_of_go(&code, ADDRESS, MORESTACK + 0x100), None);
    // A detour that does anything but move.
    let mut code = function(1900, MORESTACK, ADDRESS);
    code[1900] = 0xc3;
    assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None);
}

proptest! {
    #[test]
    fn any_bytes(code in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None);
    }

    #[test]
    fn nearly_real(at in 0..1980_usize, byte: u8) {
        let mut code = function(1900, MORESTACK, ADDRESS);
        let at = at % code.len();
        code[at] = byte;
        let found = function_of_go(&code, ADDRESS, MORESTACK);
        prop_assert!(found.is_none() || found == Some(9));
    }
}
