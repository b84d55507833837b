use super::*;
use crate::tls::elf::tests::written;

#[test]
fn sources_have_a_version() {
    let of = |paths: &[&[u8]]| {
        let mut sources = Sources::default();
        paths.iter().for_each(|path| sources.add(path));
        sources
    };
    assert_eq!(of(&[b"23.5/src/conn.rs"]).version, "0.23.5");
    for other in [&b"crypto/tls"[..], b"23.5", b"/src/", b""] {
        assert_eq!(of(&[other]), Sources::default());
    }
    let both = of(&[
        b"23.5/src/crypto/ring/tls13.rs",
        b"23.5/src/crypto/aws_lc_rs/tls13.rs",
    ]);
    assert!(both.ring && both.aws_lc);
    for (path, early) in [
        (&b"21.12/src/conn.rs"[..], true),
        (b"22.4/src/conn.rs", true),
        (b"23.0/src/conn.rs", false),
        (b"24.1/src/conn.rs", false),
        (b"/src/", false),
    ] {
        assert_eq!(of(&[path]).is_early(), early, "{}", path.escape_ascii());
    }
    assert_eq!((both.of_13(), of(&[b"23.5/src/conn.rs"]).of_13()), (3, 0));
}

/// The beginning of `encrypt` as compilers write it, for a cipher that adds as much. Without a frame, everything on one way.
fn straight(adds: u8) -> Vec<u8> {
    [
        // push %rbp; push %r14; mov %rdx,%r15; mov 0x10(%rdx),%rax; mov 0x18(%rdx),%r12; sub %rax,%r12
        &b"\x55\x41\x56\x49\x89\xd7\x48\x8b\x42\x10\x4c\x8b\x62\x18\x49\x29\xc4"[..],
        // cmpq $0,(%rdx); cmove %rax,%r12; lea adds(%r12),%rsi
        b"\x48\x83\x3a\x00\x4c\x0f\x44\xe0\x49\x8d\x74\x24",
        &[adds],
        // call; movzbl 0x20(%r15),%eax; ret
        b"\xe8\x00\x00\x00\x00\x41\x0f\xb6\x47\x20\xc3",
    ]
    .concat()
}

/// The same with a frame, and two ways to the length.
fn in_two_ways(adds: u8) -> Vec<u8> {
    [
        // push %rbp; mov %rsp,%rbp; mov %rdx,%r13; cmpq $0,(%rdx); je 1f; mov 0x18(%r13),%r12; sub 0x10(%r13),%r12
        &b"\x55\x48\x89\xe5\x49\x89\xd5\x48\x83\x3a\x00\x74\x0a\x4d\x8b\x65\x18\x4d\x2b\x65\x10"[..],
        // jmp 2f; 1: mov 0x10(%r13),%r12; 2: add $adds,%r12
        b"\xeb\x04\x4d\x8b\x65\x10\x49\x83\xc4",
        &[adds],
        // call; mov 0x20(%r13),%edi; movzbl 0x21(%r13),%esi; ret
        b"\xe8\x00\x00\x00\x00\x41\x8b\x7d\x20\x41\x0f\xb6\x75\x21\xc3",
    ]
    .concat()
}

#[test]
fn a_method_that_encrypts_is_reported_by_what_it_reads() {
    for adds in [0x10, 0x11, 0x18] {
        for code in [straight(adds), in_two_ways(adds)] {
            assert!(prove::encrypts(&code, adds), "{code:x?}");
            assert!(!prove::encrypts(&code, adds + 1), "what it adds");
            for end in 0..code.len() - 2 {
                assert!(!prove::encrypts(&code[..end], adds), "cut at {end}");
            }
        }
    }
}

#[test]
fn each_of_its_reads_is_needed() {
    let code = straight(0x11);
    // Another displacement or another base: one byte each.
    for (at, byte) in [(9, 0x08), (13, 0x20), (19, 0x39), (38, 0x46), (39, 0x28)] {
        let mut other = code.clone();
        other[at] = byte;
        assert_ne!(other, code);
        assert!(!prove::encrypts(&other, 0x11), "byte {at}: {other:x?}");
    }
    // The register that is thought to hold the address holds something else: mov %rax,%r15 before the content type.
    let (head, kind) = code.split_at(code.len() - 6);
    let lost = [head, b"\x49\x89\xc7", kind].concat();
    assert!(!prove::encrypts(&lost, 0x11));
    assert!(!prove::encrypts(b"", 0x11) && !prove::encrypts(&[0xcc; 64], 0x11));
}

#[test]
fn code_without_an_end_is_left_soon() {
    // je to the next instruction, again and again; and a jump to itself.
    let branches = [0x74, 0x00].repeat(METHOD_MAX as usize / 2);
    assert!(!prove::encrypts(&branches, 0x11));
    assert!(!prove::encrypts(b"\xeb\xfe", 0x11));
    assert!(!prove::encrypts(b"\xe9\xff\xff\xff\x7f", 0x11));
}

const TEXT: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const RODATA: u64 = 0x3_0000;
const METHOD: usize = 0x100;

/// How a file's pointers are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Relocated,
    InPlace,
}

/// A position-independent program of three sections and a table for each of the methods, which all add 17.
fn program(methods: &[Vec<u8>], pointers: Pointers, source: &str) -> Vec<u8> {
    let mut text = b"\x48\x8d\x46\x11\xc3".to_vec();
    let mut table: Vec<u64> = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        let at = METHOD * (index + 1);
        text.resize(at, 0xcc);
        text.extend(method);
        table.extend([0, 0x230, 16, TEXT + at as u64, TEXT]);
    }
    text.resize(text.len() + METHOD, 0xcc);
    let mut relocations = Vec::new();
    if pointers == Pointers::Relocated {
        for (index, word) in table
            .iter_mut()
            .enumerate()
            .filter(|(_, word)| **word >= TEXT)
        {
            relocations.extend([DATA + index as u64 * 8, 8, *word]);
            *word = 0;
        }
    }
    let bytes = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let names = b"\0.text\0.data.rel.ro\0.rodata\0.rela.dyn\0";
    let name = |name: &str| {
        let at = memchr::memmem::find(names, name.as_bytes()).unwrap();
        u32::try_from(at).unwrap()
    };
    let rodata = format!("\0/x/rustls-0.{source}\0").into_bytes();
    let parts: [(u32, u64, u64, Vec<u8>); 5] = [
        (name(".text"), 6, TEXT, text),
        (name(".data.rel.ro"), 3, DATA, bytes(&table)),
        (name(".rodata"), 2, RODATA, rodata),
        (name(".rela.dyn"), 2, 0, bytes(&relocations)),
        (0, 0, 0, names.to_vec()),
    ];
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut offsets = Vec::new();
    let mut end = 64 + 3 * 56;
    for (_, _, _, part) in &parts {
        offsets.push(end as u64);
        end = (end + part.len()).next_multiple_of(8);
    }
    let put =
        |file: &mut Vec<u8>, value: u64, size: usize| file.extend(&value.to_le_bytes()[..size]);
    for (value, size) in [
        (3, 2),
        (62, 2),
        (1, 4),
        (0, 8),
        (64, 8),
        (end as u64, 8),
        (0, 4),
    ] {
        put(&mut file, value, size);
    }
    for value in [64, 56, 3, 64, 6, 5] {
        put(&mut file, value, 2);
    }
    for (flags, part) in [(5, 0), (6, 1), (4, 2)] {
        let (_, _, address, ref bytes) = parts[part];
        put(&mut file, 1, 4);
        put(&mut file, flags, 4);
        let len = bytes.len() as u64;
        for value in [offsets[part], address, address, len, len, 0x1000] {
            put(&mut file, value, 8);
        }
    }
    for ((_, _, _, part), offset) in parts.iter().zip(&offsets) {
        file.resize(*offset as usize, 0);
        file.extend(part);
    }
    file.resize(end + 64, 0);
    for ((name, flags, address, part), offset) in parts.iter().zip(&offsets) {
        put(&mut file, u64::from(*name), 4);
        put(&mut file, 1, 4);
        for value in [*flags, *address, *offset, part.len() as u64, 0, 8, 0] {
            put(&mut file, value, 8);
        }
    }
    file
}

fn inspect(file: &[u8]) -> Result<Found, ElfError> {
    let file = written(file);
    Rustls.inspect(&Elf::open(&file)?, &Symbols::default())
}

const RING: &str = "23.5/src/crypto/ring/tls13.rs";

#[test]
fn methods_are_found_by_their_tables() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let methods = [straight(0x11), in_two_ways(0x11)];
    for pointers in [Pointers::Relocated, Pointers::InPlace] {
        let found = inspect(&program(&methods, pointers, RING)).unwrap();
        let Found::Sites(sites) = found else {
            panic!("{found:?}")
        };
        let places: Vec<_> = sites
            .iter()
            .map(|site| (site.offset, site.point.offset, site.point.emulated))
            .collect();
        let text = 64 + 3 * 56;
        assert_eq!(
            places,
            [
                (text + 0x100, 0, Some("push")),
                (text + 0x200, 0, Some("push"))
            ]
        );
        // Of aws-lc two would be there, and one of these is another function.
        for (methods, source) in [
            (&methods[..1], "23.5/src/crypto/aws_lc_rs/tls13.rs"),
            (&[straight(0x11), straight(0x18)][..], RING),
        ] {
            let found = inspect(&program(methods, pointers, source)).unwrap();
            assert!(
                matches!(&found, Found::Partly(sites, why) if sites.len() == 1 && why.contains("rustls 0.23.5:")),
                "{found:?}"
            );
        }
    }
}

#[test]
fn without_a_method_it_is_said() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    for methods in [&[][..], &[vec![0xc3]], &[straight(0x10)]] {
        let found = inspect(&program(methods, Pointers::Relocated, RING)).unwrap();
        assert!(
            matches!(&found, Found::Unproven(why) if why.contains("rustls 0.23.5:")),
            "{found:?}"
        );
    }
    let other = program(&[straight(0x11)], Pointers::InPlace, "words/README");
    assert_eq!(inspect(&other).unwrap(), Found::Nothing);
}

/// Files that lie: no panic, and an answer soon.
#[test]
fn hostile_files() {
    let file = program(
        &[straight(0x11), in_two_ways(0x11)],
        Pointers::Relocated,
        RING,
    );
    for end in (64..file.len()).step_by(7) {
        let _ = inspect(&file[..end]);
    }
    for at in 0..file.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut other = file.clone();
            other[at] = byte;
            let _ = inspect(&other);
        }
    }
    // A hundred thousand tables.
    let many = vec![vec![0xc3]; 300];
    let before = keytrail_host::clock::thread_ns();
    let _ = inspect(&program(&many, Pointers::InPlace, RING));
    assert!(keytrail_host::clock::thread_ns() - before < 5_000_000_000);
}
