use super::*;
use crate::tls::elf::tests::written;
use std::{fs::File, path::PathBuf};

fn body(code: &[u8]) -> Body {
    Body {
        address: 0x40_1000,
        offset: 0x1000,
        code: code.to_vec(),
    }
}

#[test]
fn arguments_are_read_before_they_are_lost() {
    // push %rbp; mov %edx,%ebx; mov %rsi,%r14; mov %rdi,%r15
    assert!(takes_arguments(&body(
        b"\x55\x89\xd3\x49\x89\xf6\x49\x89\xff\xc3"
    )));
    for other in [
        // The first one is overwritten.
        &b"\x55\x89\xd3\x49\x89\xf6\x31\xff\xc3"[..],
        b"\x55\x89\xd3\x49\x89\xf6\xbf\x10\x00\x00\x00\xc3",
        // The middle of a report of an error.
        b"\xbf\x10\x00\x00\x00\x31\xf6\xba\xe2\x00\x00\x00",
        b"",
    ] {
        assert!(!takes_arguments(&body(other)), "{other:x?}");
    }
}

#[test]
fn a_function_is_reported_by_all_its_errors() {
    let errors = |reasons: &[u32]| {
        let mut code = b"\x55".to_vec();
        for reason in reasons {
            code.push(0xba);
            code.extend(reason.to_le_bytes());
        }
        body(&code)
    };
    assert!(gives(&errors(&[66, 226, 215, 111]), &REASONS));
    assert!(!gives(&errors(&[66, 226, 215]), &REASONS));
    assert!(!gives(&errors(&[]), &REASONS));
    assert!(gives(&errors(&[66, 226, 215, 111, 66]), &REASONS));
    // SSL_peek, and behind it, without padding, SSL_write.
    assert!(!gives(
        &errors(&[66, 226, 215, 66, 226, 215, 111]),
        &REASONS
    ));
}

/// Linked as one (LTO), an unused argument is left out, and the reason is the second: so in Bun 1.3 and Claude Code.
#[test]
fn errors_are_reported_with_or_without_the_unused_argument() {
    let loads = |registers: [u8; 4]| {
        let mut code = b"\x55".to_vec();
        for (opcode, reason) in registers.into_iter().zip(REASONS) {
            code.push(opcode);
            code.extend(reason.number.to_le_bytes());
        }
        body(&code)
    };
    const EDX: u8 = 0xba;
    const ESI: u8 = 0xbe;
    assert!(gives(&loads([ESI; 4]), &REASONS));
    assert!(gives(&loads([EDX; 4]), &REASONS));
    assert!(
        !gives(&loads([EDX, ESI, EDX, ESI]), &REASONS),
        "two functions' errors, or none"
    );
    assert!(!gives(&loads([0xb9; 4]), &REASONS), "a line number");
}

/// A program that is not position-independent and has no unwinder's table: two functions give the errors.
fn program(writes: usize) -> Vec<u8> {
    const TEXT: u64 = 0x40_0000;
    const DATA: u64 = 0x50_0000;
    let mut code = vec![0xcc; 16];
    for _ in 0..writes {
        code.resize(code.len().next_multiple_of(16), 0xcc);
        code.extend(b"\x55\x89\xd3\x49\x89\xf6\x49\x89\xff");
        for reason in REASONS {
            // mov $name,%ecx; mov $reason,%edx
            code.push(0xb9);
            code.extend((DATA as u32 + 1).to_le_bytes());
            code.push(0xba);
            code.extend(reason.number.to_le_bytes());
        }
        code.push(0xc3);
        code.extend([0xcc; 4]);
    }
    let data = b"\0third_party/boringssl/ssl/ssl_lib.cc\0";
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let put =
        |file: &mut Vec<u8>, value: u64, size: usize| file.extend(&value.to_le_bytes()[..size]);
    for (value, size) in [(2, 2), (62, 2), (1, 4), (0, 8), (0x40, 8), (0, 8), (0, 4)] {
        put(&mut file, value, size);
    }
    for value in [64, 56, 2, 64, 0, 0] {
        put(&mut file, value, 2);
    }
    for (flags, at, address, size) in [
        (5, 0x1000, TEXT, code.len() as u64),
        (4, 0x1000 + code.len() as u64, DATA, data.len() as u64),
    ] {
        put(&mut file, 1, 4);
        put(&mut file, flags, 4);
        for value in [at, address, address, size, size, 0x1000] {
            put(&mut file, value, 8);
        }
    }
    file.resize(0x1000, 0);
    file.extend(code);
    file.extend(data);
    file
}

#[test]
fn ssl_write_of_boringssl_is_found_if_there_is_one() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let found = |writes| {
        let file = written(&program(writes));
        BoringSsl
            .inspect(&Elf::open(&file).unwrap(), &Symbols::default())
            .unwrap()
    };
    let Found::Sites(sites) = found(1) else {
        panic!("{:?}", found(1))
    };
    assert_eq!(sites.len(), 1);
    assert_eq!(
        (sites[0].offset, sites[0].point.emulated),
        (0x1010, Some("push"))
    );
    assert!(matches!(found(0), Found::Unproven(_)));
    assert!(matches!(found(2), Found::Unproven(_)), "which of the two?");
}

/// Programs as they are shipped, named by the environment (`KEYTRAIL_PROGRAMS`, directories or files).
#[test]
fn shipped_programs() {
    let Some(paths) = std::env::var_os("KEYTRAIL_PROGRAMS") else {
        eprintln!("not tried: KEYTRAIL_PROGRAMS names none");
        return;
    };
    for path in std::env::split_paths(&paths).collect::<Vec<PathBuf>>() {
        let started = std::time::Instant::now();
        let contents = super::super::contents(&File::open(&path).unwrap(), false);
        eprintln!(
            "{}: {contents:?} in {:?}",
            path.display(),
            started.elapsed()
        );
        assert!(contents.is_ok_and(|contents| !contents.sites.is_empty()));
    }
}
