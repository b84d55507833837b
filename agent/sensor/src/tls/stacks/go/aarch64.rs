//! How a function of Go begins on aarch64, and goes to the growth of its stack and back.

/// Instructions from where the stack is found too small to where the function begins anew.
const DETOUR_MAX: usize = 64;
/// `mov x3, x30`: where the function returns to, for the growth of the stack.
const KEEP_LINK: u32 = 0xaa1e_03e3;

/// Offset and target of the branch with which a function of Go begins, after it has compared its stack with the goroutine's
/// limit (`x28` is the goroutine); both from the function's beginning, bytes.
pub fn jump_of(code: &[u8]) -> Option<(u64, u64)> {
    // ldr x16, [x28, #16]
    const LIMIT: u32 = 0xf940_0b90;
    // cmp sp, x16
    const COMPARE: u32 = 0xeb30_63ff;
    // cmp x17, x16
    const COMPARE_LOWER: u32 = 0xeb10_023f;
    let at = |index: usize| word(code, index);
    if at(0)? != LIMIT {
        return None;
    }
    let jump = match at(1)? {
        COMPARE => 2,
        // sub x17, sp, #n
        lower if lower & 0xff80_03ff == 0xd100_03f1 && at(2)? == COMPARE_LOWER => 3,
        _ => return None,
    };
    // b.ls
    let branch = at(jump)?;
    if branch & 0xff00_001f != 0x5400_0009 {
        return None;
    }
    let by = i64::from((branch << 8).cast_signed() >> 13);
    let target = (jump as i64).checked_add(by)?.checked_mul(4)?;
    Some((jump as u64 * 4, u64::try_from(target).ok()?))
}

/// The branch's offset, if the whole is proven. `code` may go on behind the function.
pub fn function_of_go(code: &[u8], address: u64, morestack: u64) -> Option<u64> {
    let (jump, target) = jump_of(code)?;
    let first = usize::try_from(target / 4).ok()?;
    let mut grown = false;
    for index in (first..).take(DETOUR_MAX) {
        let word = word(code, index)?;
        let to = || {
            let by = i64::from((word << 6).cast_signed() >> 6) * 4;
            address
                .wrapping_add(index as u64 * 4)
                .wrapping_add_signed(by)
        };
        match word >> 26 {
            // bl
            0b10_0101 if !grown && to() == morestack => grown = true,
            // b
            0b00_0101 => return (grown && to() == address).then_some(jump),
            // Arguments go to the stack and come back.
            _ if word == KEEP_LINK || moves_argument(word) => {}
            _ => return None,
        }
    }
    None
}

/// A load or a store of one or two registers at an offset from the stack pointer, which stays.
fn moves_argument(word: u32) -> bool {
    const SP: u32 = 31;
    let on_stack = word >> 5 & 31 == SP;
    // str, ldr and their kinds; stp, ldp; stur, ldur.
    let kind = word & 0x3b00_0000 == 0x3900_0000
        || word & 0x3b80_0000 == 0x2900_0000
        || word & 0x3b20_0c00 == 0x3800_0000;
    on_stack && kind
}

fn word(code: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    let bytes = code.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: u64 = 0x40_1d10;
    const MORESTACK: u64 = 0x40_1c00;

    /// As Go 1.19 writes it: the arguments are saved, the stack grows, they are loaded, and the function begins anew.
    fn function(lower: bool, morestack: u64, back_to: u64) -> Vec<u8> {
        let mut words = vec![0xf940_0b90];
        if lower {
            words.extend([0xd102_03f1, 0xeb10_023f]);
        } else {
            words.push(0xeb30_63ff);
        }
        let detour = 14;
        words.push(0x5400_0009 | (detour - words.len() as u32) << 5);
        words.resize(detour as usize, 0xd503_201f);
        words.extend([0xf900_07e0, 0xa901_0be1, KEEP_LINK]);
        let to = |words: &Vec<u32>, target: u64| {
            let here = ADDRESS + words.len() as u64 * 4;
            (target.wrapping_sub(here) as u32 / 4) & 0x03ff_ffff
        };
        words.push(0x9400_0000 | to(&words, morestack));
        words.extend([0xf940_07e0, 0xa941_0be1]);
        words.push(0x1400_0000 | to(&words, back_to));
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_function_of_go() {
        for (lower, jump) in [(false, 8), (true, 12)] {
            let code = function(lower, MORESTACK, ADDRESS);
            assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), Some(jump));
            let moved = function_of_go(&code, ADDRESS + 0x100, MORESTACK + 0x100);
            assert_eq!(moved, Some(jump), "as a whole");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for (code, what) in [
            (function(true, MORESTACK + 16, ADDRESS), "grows elsewhere"),
            (function(true, MORESTACK, ADDRESS + 16), "begins elsewhere"),
            (function(true, MORESTACK, ADDRESS)[..64].to_vec(), "ends"),
            (0xa9bf_7bfd_u32.to_le_bytes().to_vec(), "C"),
            (Vec::new(), "nothing"),
        ] {
            assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None, "{what}");
        }
        // A detour that returns.
        let mut code = function(true, MORESTACK, ADDRESS);
        code[56..60].copy_from_slice(&0xd65f_03c0_u32.to_le_bytes());
        assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None);
    }

    proptest! {
        #[test]
        fn any_bytes(code in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(function_of_go(&code, ADDRESS, MORESTACK), None);
        }

        #[test]
        fn nearly_real(at in 0..84_usize, byte: u8) {
            let mut code = function(true, MORESTACK, ADDRESS);
            let at = at % code.len();
            code[at] = byte;
            let found = function_of_go(&code, ADDRESS, MORESTACK);
            prop_assert!(found.is_none() || found == Some(12));
        }
    }
}
