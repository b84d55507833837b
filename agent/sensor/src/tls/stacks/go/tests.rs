use super::*;
use crate::tls::elf::tests::written;
use proptest::prelude::*;
use std::{fs::File, path::Path};

const TEXT: u64 = 0x40_1000;
/// Bytes of C before Go's code.
const BEFORE: u64 = 0x100;

/// How a program is built.
#[derive(Clone, Copy)]
struct Built {
    magic: u8,
    /// What its table says of the beginning of the code.
    text: u64,
    sections: bool,
}

const GO119: Built = Built {
    magic: 0xf0,
    text: TEXT + BEFORE,
    sections: true,
};

/// A program of two segments: code, with Go's own behind a little of C's, and the table of its functions.
fn program(built: Built) -> Vec<u8> {
    // Go's code: the growth of the stack, then TCPConn.Write, conn.Write and tls.Conn.Write.
    let base = TEXT + BEFORE;
    let mut code = vec![0xcc; BEFORE as usize + 0x60];
    let write = 0x60;
    code.extend(b"\x49\x3b\x66\x10\x76\x00");
    code.extend(b"\xe8");
    code.extend((0_i32 - (write + 11)).to_le_bytes());
    code.extend(b"\xeb\xf3");
    code.resize(0x1000, 0xcc);
    let names = "\0go:buildid\0runtime.morestack_noctxt\0net.(*TCPConn).Write\0net.(*conn).Write\0x/crypto/tls.(*Conn).Write\0crypto/tls.(*Conn).Write\0";
    let name = |wanted: &str| names.find(&format!("\0{wanted}\0")).unwrap() as u32 + 1;
    let functions: Vec<(u32, u32)> = [
        (0, "runtime.morestack_noctxt"),
        (0x20, "net.(*TCPConn).Write"),
        (0x40, "net.(*conn).Write"),
        (0x50, "x/crypto/tls.(*Conn).Write"),
        (write as u32, "crypto/tls.(*Conn).Write"),
    ]
    .map(|(entry, n)| (entry, name(n)))
    .to_vec();
    let names_at = 72_u64;
    let functions_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut table = vec![built.magic];
    table.extend([0xff, 0xff, 0xff, 0, 0, 1, 8]);
    for word in [
        functions.len() as u64,
        1,
        built.text,
        names_at,
        functions_at,
        functions_at,
        functions_at,
        functions_at,
    ] {
        table.extend(word.to_le_bytes());
    }
    table.extend(names.as_bytes());
    table.resize(functions_at as usize, 0);
    let mut description = functions.len() as u32 * 8 + 8;
    for (entry, _) in &functions {
        table.extend(entry.to_le_bytes());
        table.extend(description.to_le_bytes());
        description += 40;
    }
    table.extend([0; 8]);
    for (entry, name) in &functions {
        table.extend(entry.to_le_bytes());
        table.extend(name.to_le_bytes());
        table.extend([0; 32]);
    }
    assert_eq!(base, TEXT + BEFORE);
    elf(&code, &table, built.sections)
}

fn elf(code: &[u8], table: &[u8], sections: bool) -> Vec<u8> {
    let names = b"\0.text\0.gopclntab\0.shstrtab\0";
    let (code_at, table_at) = (0x1000, 0x1000 + code.len());
    let names_at = (table_at + table.len()).next_multiple_of(8);
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let mut file = Vec::new();
    let put =
        |file: &mut Vec<u8>, value: u64, size: usize| file.extend(&value.to_le_bytes()[..size]);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for (value, size) in [
        (2, 2),
        (62, 2),
        (1, 4),
        (0, 8),
        (0x40, 8),
        (if sections { sections_at as u64 } else { 0 }, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (2, 2),
        (64, 2),
        (if sections { 4 } else { 0 }, 2),
        (if sections { 3 } else { 0 }, 2),
    ] {
        put(&mut file, value, size);
    }
    for (flags, at, address, size) in [
        (5, code_at, TEXT, code.len()),
        (4, table_at, 0x50_0000, table.len()),
    ] {
        put(&mut file, 1, 4);
        put(&mut file, flags, 4);
        for value in [
            at as u64,
            address,
            address,
            size as u64,
            size as u64,
            0x1000,
        ] {
            put(&mut file, value, 8);
        }
    }
    file.resize(code_at, 0);
    file.extend(code);
    file.extend(table);
    file.resize(names_at, 0);
    file.extend(names);
    file.resize(sections_at, 0);
    for (name, kind, address, at, size) in [
        (0, 0, 0, 0, 0),
        (1, 1, TEXT, code_at, code.len()),
        (7, 1, 0x50_0000, table_at, table.len()),
        (18, 3, 0, names_at, names.len()),
    ] {
        put(&mut file, name, 4);
        put(&mut file, kind, 4);
        put(&mut file, 0, 8);
        put(&mut file, address, 8);
        put(&mut file, at as u64, 8);
        put(&mut file, size as u64, 8);
        for _ in 0..3 {
            put(&mut file, 0, 8);
        }
    }
    file
}

fn found(bytes: &[u8]) -> Result<Found, ElfError> {
    let file = written(bytes);
    Go.inspect(&Elf::open(&file)?, &Symbols::default())
}

fn site() -> ProbeSite {
    let from_site = |entry: u64| entry.wrapping_sub(0x60 + 4);
    ProbeSite {
        hook: number(WRITE),
        offset: 0x1000 + BEFORE + 0x60,
        point: ProbePoint {
            offset: 4,
            pushed: None,
            emulated: Some("jcc"),
        },
        go: Some(GoSite {
            tcp_write: from_site(0x20),
            conn_write: from_site(0x40),
        }),
    }
}

#[test]
fn the_function_is_found_by_the_table() {
    let expected = Found::Sites(vec![site()]);
    for (built, what) in [
        (GO119, "as Go 1.19 links with C"),
        (
            Built {
                magic: 0xf1,
                text: 0,
                ..GO119
            },
            "as Go 1.26",
        ),
        // Relocated when it is loaded: what the file has is not where it will be.
        (
            Built {
                text: 0x1234,
                ..GO119
            },
            "another place of the code",
        ),
        (
            Built {
                sections: false,
                ..GO119
            },
            "no sections",
        ),
        (
            Built {
                magic: 0xf1,
                text: 0,
                sections: false,
            },
            "neither",
        ),
    ] {
        assert_eq!(found(&program(built)).unwrap(), expected, "{what}");
    }
}

#[test]
fn what_cannot_be_proven_is_said() {
    let reason = |bytes: &[u8]| match found(bytes).unwrap() {
        Found::Unproven(reason) => reason,
        other => panic!("{other:?}"),
    };
    // Its way back leads elsewhere.
    let mut bytes = program(GO119);
    let jump = 0x1000 + BEFORE as usize + 0x60 + 12;
    bytes[jump] = 0xf0;
    assert!(reason(&bytes).contains("is not that of Go 1.17"));
    assert!(
        reason(&program(Built {
            magic: 0xfb,
            ..GO119
        }))
        .contains("before 1.17")
    );
    // A description outside of the table.
    let mut bytes = program(GO119);
    let entry = bytes.len() - 4 * 64 - 40 - 5 * 40 - 6 * 8;
    let at = (entry..bytes.len())
        .find(|at| bytes[*at..*at + 4] == 48_u32.to_le_bytes())
        .unwrap_or(entry);
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(reason(&bytes).contains("contradicts itself"));
}

#[test]
fn a_program_without_tls_is_of_no_interest() {
    let mut bytes = program(GO119);
    let at = memchr::memmem::find(&bytes, b"\0crypto/tls.(*Conn).Write").unwrap();
    bytes[at + 1] = b'C';
    assert_eq!(found(&bytes).unwrap(), Found::Nothing);
    assert_eq!(
        found(&elf(b"\x55\xc3", &[0; 100], true)).unwrap(),
        Found::Nothing
    );
}

/// Programs as they are shipped; those that are on the machine.
#[test]
fn installed_programs() {
    let mut tried = 0;
    for path in [
        "/usr/bin/hey",
        "/usr/bin/gh",
        "/usr/bin/rclone",
        "/usr/bin/restic",
    ] {
        let Ok(file) = File::open(path) else {
            eprintln!("not tried: there is no {path}");
            continue;
        };
        tried += 1;
        let elf = Elf::open(&file).unwrap();
        let started = std::time::Instant::now();
        let Found::Sites(sites) = Go.inspect(&elf, &Symbols::default()).unwrap() else {
            panic!("{path}")
        };
        eprintln!("{path}: {sites:?} in {:?}", started.elapsed());
        let go = sites[0].go.unwrap();
        assert!(go.tcp_write != 0 && go.conn_write != 0, "{path}");
    }
    assert!(tried > 0 || !Path::new("/usr/bin/hey").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), sections: bool) {
        let mut file = program(Built { sections, ..GO119 });
        let table = 0x2000..file.len();
        for (at, byte) in changes {
            let at = table.start + at.index(table.len());
            file[at] = byte;
        }
        let _ = found(&file);
    }
}
