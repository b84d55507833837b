//! Functions of an ELF file: where they lie and what they begin with.
//!
//! The file belongs to somebody else and may lie about everything: each read is bounded by the file's true length and
//! by a limit of its own, each number is checked before it is used, and nothing is mapped (a file that shrinks would
//! kill the agent).

use object::{
    LittleEndian as LE,
    elf::{
        ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_AARCH64, EM_X86_64, FileHeader64, PF_X, PT_LOAD,
        ProgramHeader64, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC,
        SectionHeader64, Sym64,
    },
    pod::{from_bytes, slice_from_bytes},
};
use std::{fs::File, os::unix::fs::FileExt};

/// Largest table of sections, bytes.
const SECTIONS_MAX: u64 = 4 << 20;
/// Largest symbol table and string table, bytes: Chrome's have some tens of megabytes.
const SYMBOLS_MAX: u64 = 96 << 20;
/// Most program headers.
const SEGMENTS_MAX: u64 = 1024;
/// Most code of one function that is looked at, bytes.
const CODE_MAX: u64 = 64 << 10;

/// Why a file tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElfError {
    /// Not an ELF file of this machine's kind.
    NotElf,
    /// A table lies outside the file, or is larger than any honest one.
    Lies(&'static str),
    /// It cannot be read.
    Io(String),
}

impl std::fmt::Display for ElfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file for this machine"),
            Self::Lies(what) => write!(f, "its {what} cannot be where it says"),
            Self::Io(error) => write!(f, "it cannot be read ({error})"),
        }
    }
}

/// A function found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: &'static str,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Address it is linked at.
    pub address: u64,
    /// Its code, as long as its symbol says, cut at 64 KiB; empty when the symbol has no size.
    pub code: Vec<u8>,
}

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub functions: Vec<Function>,
    /// x86-64, whose prologues can be decoded.
    pub x86: bool,
    /// Written in Go: its TLS is its own.
    pub go: bool,
}

struct Input<'a> {
    file: &'a File,
    len: u64,
}

impl Input<'_> {
    fn read(
        &self,
        offset: u64,
        size: u64,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, ElfError> {
        let end = offset.checked_add(size).ok_or(ElfError::Lies(what))?;
        if size > limit || end > self.len {
            return Err(ElfError::Lies(what));
        }
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| ElfError::Io(error.to_string()))?;
        Ok(bytes)
    }
}

/// Looks for functions by name in a file's dynamic and static symbols.
///
/// # Errors
/// See [`ElfError`].
pub fn find(file: &File, names: &[&'static str]) -> Result<Found, ElfError> {
    let len = file
        .metadata()
        .map_err(|error| ElfError::Io(error.to_string()))?
        .len();
    let input = Input { file, len };
    let head = input
        .read(0, 64, 64, "header")
        .map_err(|_| ElfError::NotElf)?;
    let header: &FileHeader64<LE> = from_bytes(&head).map_err(|()| ElfError::NotElf)?.0;
    let native = if cfg!(target_arch = "x86_64") {
        EM_X86_64
    } else {
        EM_AARCH64
    };
    let ident = &header.e_ident;
    if ident.magic != ELFMAG
        || ident.class != ELFCLASS64
        || ident.data != ELFDATA2LSB
        || header.e_machine.get(LE) != native
    {
        return Err(ElfError::NotElf);
    }
    let mut found = Found {
        x86: native == EM_X86_64,
        ..Found::default()
    };

    let count = u64::from(header.e_phnum.get(LE));
    if count > SEGMENTS_MAX {
        return Err(ElfError::Lies("program header table"));
    }
    let bytes = input.read(
        header.e_phoff.get(LE),
        count * 56,
        SEGMENTS_MAX * 56,
        "program header table",
    )?;
    let segments: &[ProgramHeader64<LE>] = slice_from_bytes(&bytes, count as usize)
        .map_err(|()| ElfError::Lies("program header table"))?
        .0;

    let count = u64::from(header.e_shnum.get(LE));
    if count == 0 {
        return Ok(found);
    }
    let table = input.read(
        header.e_shoff.get(LE),
        count * 64,
        SECTIONS_MAX,
        "section table",
    )?;
    let sections: &[SectionHeader64<LE>] = slice_from_bytes(&table, count as usize)
        .map_err(|()| ElfError::Lies("section table"))?
        .0;
    let section_names = sections
        .get(usize::from(header.e_shstrndx.get(LE).0))
        .map(|section| {
            input.read(
                section.sh_offset.get(LE),
                section.sh_size.get(LE),
                SECTIONS_MAX,
                "section name table",
            )
        })
        .transpose()?
        .unwrap_or_default();
    found.go = sections
        .iter()
        .any(|section| string(&section_names, section.sh_name.get(LE)) == Some(b".go.buildinfo"));

    for section in sections {
        let kind = section.sh_type.get(LE);
        if kind != SHT_DYNSYM && kind != SHT_SYMTAB {
            continue;
        }
        let strings = sections
            .get(section.sh_link.get(LE) as usize)
            .ok_or(ElfError::Lies("string table"))?;
        let strings = input.read(
            strings.sh_offset.get(LE),
            strings.sh_size.get(LE),
            SYMBOLS_MAX,
            "string table",
        )?;
        // Most files have none of the names: one search spares the walk.
        if !names
            .iter()
            .any(|name| memchr::memmem::find(&strings, name.as_bytes()).is_some())
        {
            continue;
        }
        let size = section.sh_size.get(LE);
        let bytes = input.read(section.sh_offset.get(LE), size, SYMBOLS_MAX, "symbol table")?;
        let symbols: &[Sym64<LE>] = slice_from_bytes(&bytes, (size / 24) as usize)
            .map_err(|()| ElfError::Lies("symbol table"))?
            .0;
        for symbol in symbols {
            let kind = symbol.st_info.st_type();
            if symbol.st_shndx.get(LE) == SHN_UNDEF || (kind != STT_FUNC && kind != STT_GNU_IFUNC) {
                continue;
            }
            let Some(name) = string(&strings, symbol.st_name.get(LE)) else {
                continue;
            };
            let Some(&name) = names.iter().find(|known| known.as_bytes() == name) else {
                continue;
            };
            let address = symbol.st_value.get(LE);
            if found.functions.iter().any(|known| known.address == address) {
                continue;
            }
            let (offset, room) = place(segments, address).ok_or(ElfError::Lies("function"))?;
            let size = symbol.st_size.get(LE).min(room).min(CODE_MAX);
            let code = input.read(offset, size, CODE_MAX, "function")?;
            found.functions.push(Function {
                name,
                offset,
                address,
                code,
            });
        }
    }
    Ok(found)
}

/// Offset in the file of an address in executable memory, and how many bytes of its segment follow.
fn place(segments: &[ProgramHeader64<LE>], address: u64) -> Option<(u64, u64)> {
    segments.iter().find_map(|segment| {
        let start = segment.p_vaddr.get(LE);
        let size = segment.p_filesz.get(LE);
        let within = address.checked_sub(start)?;
        if segment.p_type.get(LE) != PT_LOAD
            || segment.p_flags.get(LE).0 & PF_X.0 == 0
            || within >= size
        {
            return None;
        }
        Some((segment.p_offset.get(LE).checked_add(within)?, size - within))
    })
}

fn string(table: &[u8], offset: u32) -> Option<&[u8]> {
    let from = table.get(offset as usize..)?;
    from.get(..memchr::memchr(0, from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LIBSSL: &str = "/usr/lib/x86_64-linux-gnu/libssl.so.3";

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn not_elf_is_said_so() {
        assert_eq!(find(&file(b""), &["SSL_write"]), Err(ElfError::NotElf));
        assert_eq!(
            find(&file(b"#!/bin/sh\n"), &["SSL_write"]),
            Err(ElfError::NotElf)
        );
        assert_eq!(
            find(&file(&[0; 4096]), &["SSL_write"]),
            Err(ElfError::NotElf)
        );
    }

    #[test]
    fn the_own_executable_has_its_functions() {
        let me = File::open("/proc/self/exe").unwrap();
        let found = find(&me, &["main"]).unwrap();
        assert_eq!(found.functions.len(), 1);
        assert!(!found.go);
        assert!(!found.functions[0].code.is_empty());
    }

    /// Overwrites each number of the header and of every section header with nonsense: an error or nothing found,
    /// never a panic, never a huge allocation.
    #[test]
    fn lies_cost_an_error_and_nothing_else() {
        let Ok(honest) = std::fs::read(LIBSSL) else {
            return;
        };
        let sections = u64::from_le_bytes(honest[40..48].try_into().unwrap()) as usize;
        let places = (16..64)
            .step_by(2)
            .chain((sections..honest.len() - 8).step_by(8));
        let mut errors = 0;
        for at in places {
            for nonsense in [u64::MAX, 1 << 63, honest.len() as u64 - 1, 0x7fff_ffff] {
                let mut bytes = honest.clone();
                bytes[at..at + 8].copy_from_slice(&nonsense.to_le_bytes());
                errors += usize::from(find(&file(&bytes), &["SSL_write"]).is_err());
            }
        }
        assert!(errors > 10, "lies went unnoticed");
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let Ok(honest) = std::fs::read(LIBSSL) else {
            return;
        };
        for len in [64, 100, 1000, honest.len() / 2, honest.len() - 1] {
            assert!(
                find(&file(&honest[..len]), &["SSL_write"]).is_err(),
                "{len}"
            );
        }
        let found = find(&file(&honest), &["SSL_write", "SSL_write_ex"]).unwrap();
        assert_eq!(found.functions.len(), 2);
    }
}
