use super::*;
use std::io::Write;

pub fn written(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A library of one segment that exports `name` with the code `code`.
pub fn library(name: &str, code: &[u8]) -> Vec<u8> {
    let strings = format!("\0x{name}\0");
    let (code_at, strings_at) = (0x40 + 0x38, 0x40 + 0x38 + code.len());
    let symbols_at = (strings_at + strings.len()).next_multiple_of(8);
    let sections_at = symbols_at + 2 * 24;
    let mut file = Vec::new();
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()))
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()))
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|v| file.extend(v.to_le_bytes()))
    };
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut file, &[3, HOST.unwrap().0]);
    word(&mut file, &[1]);
    long(&mut file, &[0, 0x40, sections_at as u64]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 64, 3, 0]);
    // Executable, mapped 0x1000 above its place in the file.
    word(&mut file, &[1, 5]);
    long(
        &mut file,
        &[
            0,
            0x1000,
            0x1000,
            strings_at as u64,
            strings_at as u64,
            0x1000,
        ],
    );
    file.extend(code);
    file.extend(strings.as_bytes());
    file.resize(symbols_at, 0);
    file.resize(symbols_at + 24, 0);
    // The name is the tail of a longer one.
    word(&mut file, &[2]);
    file.extend([0x12, 0]);
    half(&mut file, &[1]);
    long(&mut file, &[0x1000 + code_at as u64, code.len() as u64]);
    let section = |file: &mut Vec<u8>, kind: u32, at: usize, size: usize, link: u32| {
        word(file, &[0, kind]);
        long(file, &[0, 0, at as u64, size as u64]);
        word(file, &[link, 0]);
        long(file, &[8, 0]);
    };
    section(&mut file, 0, 0, 0, 0);
    section(&mut file, 11, symbols_at, 48, 2);
    section(&mut file, 3, strings_at, strings.len(), 0);
    file
}

#[test]
fn a_search_finds_what_lies_across_windows() {
    let mut bytes = library("SSL_write", b"\x55\xc3");
    let at = WINDOW as usize - 3;
    bytes.resize(WINDOW as usize * 2 + 100, 0);
    bytes[at..at + 6].copy_from_slice(b"needle");
    bytes.extend(b"needle");
    let file = written(&bytes);
    let elf = Elf::open(&file).unwrap();
    let all = Span {
        offset: 0,
        len: bytes.len() as u64,
        address: 0,
    };
    let mut found = Vec::new();
    elf.search(all, b"needle", &mut |offset| {
        found.push(offset);
        true
    })
    .unwrap();
    assert_eq!(found, [at as u64, bytes.len() as u64 - 6]);
}

#[test]
fn a_walk_does_not_go_back() {
    let mut bytes = library("SSL_write", b"\x55\xc3");
    bytes.resize(3 * WINDOW as usize, 7);
    let file = written(&bytes);
    let elf = Elf::open(&file).unwrap();
    let span = Span {
        offset: 0,
        len: bytes.len() as u64,
        address: 0,
    };
    let mut walk = Walk::new(&elf, span);
    assert_eq!(walk.get(0, 4).unwrap(), b"\x7fELF");
    assert_eq!(walk.get(2 * WINDOW, 2).unwrap(), [7, 7]);
    assert!(walk.get(WINDOW, 2).is_err());
    assert!(walk.get(span.len - 1, 2).is_err() && walk.get(u64::MAX, 2).is_err());
    assert!(walk.get(2 * WINDOW, ENTRY_MAX + 1).is_err());
}

#[test]
fn a_file_has_its_time_and_its_bytes() {
    let file = File::open("/proc/self/exe").unwrap();
    let open = |time, bytes| Elf::within(&file, time, bytes).err();
    assert!(open(FILE_TIME, FILE_BYTES).is_none());
    assert!(matches!(open(FILE_TIME, 100), Some(ElfError::TooMuch)));
    assert!(matches!(
        open(Duration::ZERO, FILE_BYTES),
        Some(ElfError::Late)
    ));
    // Every read counts, not the first alone.
    let elf = Elf::open(&file).unwrap();
    elf.left.set(1000);
    assert!(elf.block(0, 600, 1000).is_ok());
    assert!(matches!(elf.block(0, 600, 1000), Err(ElfError::TooMuch)));
}
