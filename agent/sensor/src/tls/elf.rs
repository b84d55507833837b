//! Functions of an ELF file by name, with the place of their code in the file.
//!
//! The files are those of other people's processes: every size and offset may lie. Nothing is mapped, only what is
//! needed is read, and every read is bounded by the file's length and by a limit of its own.

use memchr::memmem;
use object::{
    LittleEndian as LE,
    elf::{
        self, EM_AARCH64, EM_X86_64, FileHeader64, Machine, PF_X, PT_LOAD, ProgramHeader64,
        SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, SectionHeader64, Sym64,
    },
    pod::{self, Pod},
};
use std::{fmt, fs::File, io, os::unix::fs::FileExt};

const PROGRAM_HEADERS_MAX: u64 = 512;
const SECTIONS_MAX: u64 = 4096;
const SECTION_NAMES_MAX: u64 = 1 << 20;
/// Largest symbol table read: a browser with all its symbols stays below it.
const SYMBOLS_MAX: u64 = 64 << 20;
const STRINGS_MAX: u64 = 128 << 20;
/// Places of a wanted name in the string table that are believed: a tail of a longer name counts as one.
const PLACES_MAX: usize = 256;
/// Longest function whose code is read in full, bytes.
pub const CODE_MAX: u64 = 16 << 10;
/// Read-only data searched for the name of a library that is linked in.
const RODATA_MAX: u64 = 24 << 20;

#[derive(Debug)]
pub enum ElfError {
    Io(io::Error),
    /// Not an ELF file this agent can read: what is wrong with it.
    Format(&'static str),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Format(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for ElfError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const LIES: ElfError = ElfError::Format("its headers contradict each other");

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Index of its name among those asked for.
    pub name: usize,
    /// Of its first instruction in the file, bytes.
    pub offset: u64,
    /// As far as it was read, at most [`CODE_MAX`] bytes.
    pub code: Vec<u8>,
    /// `code` is the whole function.
    pub whole: bool,
}

/// What a file tells about the TLS inside it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub x86_64: bool,
    pub functions: Vec<Function>,
    /// A Go program with Go's own TLS.
    pub go: bool,
    pub rustls: bool,
    pub boringssl: bool,
}

/// Bytes of a file, aligned for every ELF structure.
struct Block {
    words: Vec<u64>,
    len: usize,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        pod::bytes_of_slice(&self.words)
            .get(..self.len)
            .unwrap_or_default()
    }

    fn all<T: Pod>(&self) -> &[T] {
        let count = self.len / size_of::<T>();
        pod::slice_from_bytes(self.bytes(), count).map_or(&[], |(all, _)| all)
    }
}

struct Reader<'a> {
    file: &'a File,
    len: u64,
}

impl Reader<'_> {
    fn block(&self, offset: u64, len: u64, limit: u64) -> Result<Block, ElfError> {
        if len > limit {
            return Err(ElfError::Format(
                "a table in it is larger than any real one",
            ));
        }
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(LIES);
        }
        let len = usize::try_from(len).map_err(|_| LIES)?;
        let mut words = vec![0_u64; len.div_ceil(8)];
        let bytes = pod::bytes_of_slice_mut(&mut words)
            .get_mut(..len)
            .ok_or(LIES)?;
        self.file.read_exact_at(bytes, offset)?;
        Ok(Block { words, len })
    }
}

/// Looks for the functions `names` and for what tells a TLS library that has none of them.
///
/// Exported names first; the table of all symbols only when no name is exported.
///
/// # Errors
/// When the file is not a 64-bit ELF of this machine, contradicts itself or cannot be read.
pub fn inspect(file: &File, names: &[&str], linked_in: bool) -> Result<Image, ElfError> {
    let reader = Reader {
        file,
        len: file.metadata()?.len(),
    };
    let head = reader.block(0, size_of::<FileHeader64<LE>>() as u64, u64::MAX)?;
    let head = head.all::<FileHeader64<LE>>().first().ok_or(LIES)?;
    if head.e_ident.magic != elf::ELFMAG {
        return Err(ElfError::Format("not an ELF file"));
    }
    if head.e_ident.class != elf::ELFCLASS64 {
        return Err(ElfError::Format(
            "32-bit: its functions take their arguments from the stack",
        ));
    }
    let machine = head.e_machine.get(LE);
    if head.e_ident.data != elf::ELFDATA2LSB || Some(machine) != HOST {
        return Err(ElfError::Format("for another machine"));
    }
    let segments = table::<ProgramHeader64<LE>>(
        &reader,
        head.e_phoff.get(LE),
        head.e_phentsize.get(LE),
        head.e_phnum.get(LE),
        PROGRAM_HEADERS_MAX,
    )?;
    let sections = table::<SectionHeader64<LE>>(
        &reader,
        head.e_shoff.get(LE),
        head.e_shentsize.get(LE),
        head.e_shnum.get(LE),
        SECTIONS_MAX,
    )?;
    let (segments, sections) = (
        segments.all::<ProgramHeader64<LE>>(),
        sections.all::<SectionHeader64<LE>>(),
    );

    let mut image = Image {
        x86_64: machine == EM_X86_64,
        ..Image::default()
    };
    for kind in [SHT_DYNSYM, SHT_SYMTAB] {
        if image.functions.is_empty() {
            for section in sections
                .iter()
                .filter(|section| section.sh_type.get(LE) == kind)
            {
                symbols(&reader, segments, sections, section, names, &mut image)?;
            }
        }
    }
    if linked_in && image.functions.is_empty() {
        let index = usize::from(head.e_shstrndx.get(LE).0);
        linked(&reader, sections, index, &mut image)?;
    }
    Ok(image)
}

const HOST: Option<Machine> = if cfg!(target_arch = "x86_64") {
    Some(EM_X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(EM_AARCH64)
} else {
    None
};

fn table<T: Pod>(
    reader: &Reader<'_>,
    offset: u64,
    entry: u16,
    count: u16,
    limit: u64,
) -> Result<Block, ElfError> {
    if count == 0 {
        return Ok(Block {
            words: Vec::new(),
            len: 0,
        });
    }
    if usize::from(entry) != size_of::<T>() || u64::from(count) > limit {
        return Err(LIES);
    }
    reader.block(offset, u64::from(count) * size_of::<T>() as u64, u64::MAX)
}

fn symbols(
    reader: &Reader<'_>,
    segments: &[ProgramHeader64<LE>],
    sections: &[SectionHeader64<LE>],
    section: &SectionHeader64<LE>,
    names: &[&str],
    image: &mut Image,
) -> Result<(), ElfError> {
    let strings = sections.get(section.sh_link.get(LE) as usize).ok_or(LIES)?;
    let strings = reader.block(
        strings.sh_offset.get(LE),
        strings.sh_size.get(LE),
        STRINGS_MAX,
    )?;
    let strings = strings.bytes();
    image.boringssl |= memmem::find(strings, b"BORINGSSL_").is_some();
    image.rustls |= rustls_writer(strings);
    // The string table tells at memory speed whether the symbols are worth reading. A name may be the tail of a
    // longer one, so each of its places is a name.
    let mut places = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let name = [name.as_bytes(), b"\0"].concat();
        places.extend(
            memmem::find_iter(strings, &name)
                .take(PLACES_MAX)
                .map(|place| (place, index)),
        );
    }
    if places.is_empty() {
        return Ok(());
    }
    let symbols = reader.block(
        section.sh_offset.get(LE),
        section.sh_size.get(LE),
        SYMBOLS_MAX,
    )?;
    for symbol in symbols.all::<Sym64<LE>>() {
        let at = symbol.st_name.get(LE) as usize;
        let Some(&(_, name)) = places.iter().find(|(place, _)| *place == at) else {
            continue;
        };
        if symbol.st_type() != STT_FUNC
            || symbol.st_shndx.get(LE) == SHN_UNDEF
            || image.functions.iter().any(|function| function.name == name)
        {
            continue;
        }
        let (address, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
        let Some((offset, room)) = segments
            .iter()
            .find_map(|segment| place_of(segment, address))
        else {
            continue;
        };
        let room = room.min(reader.len.saturating_sub(offset));
        let whole = size != 0 && size <= CODE_MAX && size <= room;
        let want = if size == 0 { CODE_MAX } else { size }
            .min(CODE_MAX)
            .min(room);
        let code = reader.block(offset, want, CODE_MAX)?.bytes().to_vec();
        if !code.is_empty() {
            image.functions.push(Function {
                name,
                offset,
                code,
                whole,
            });
        }
    }
    Ok(())
}

/// Offset in the file of an address in executable memory, and the bytes from there to the segment's end.
fn place_of(segment: &ProgramHeader64<LE>, address: u64) -> Option<(u64, u64)> {
    if segment.p_type.get(LE) != PT_LOAD || segment.p_flags.get(LE).0 & PF_X.0 == 0 {
        return None;
    }
    let into = address.checked_sub(segment.p_vaddr.get(LE))?;
    let room = segment
        .p_filesz
        .get(LE)
        .checked_sub(into)
        .filter(|&room| room != 0)?;
    Some((segment.p_offset.get(LE).checked_add(into)?, room))
}

/// Either mangling of `<rustls::conn::...::Writer as std::io::Write>::write` holds these parts in this order.
fn rustls_writer(strings: &[u8]) -> bool {
    memmem::find_iter(strings, b"rustls")
        .take(PLACES_MAX * 64)
        .any(|place| {
            let name = strings.get(place..).unwrap_or_default();
            let end = memchr::memchr(0, name.get(..512).unwrap_or(name)).unwrap_or(0);
            let name = name.get(..end).unwrap_or_default();
            memmem::find(name, b"Writer")
                .is_some_and(|at| memmem::find(&name[at..], b"5write").is_some())
        })
}

/// `23.5/src/`: a program that merely knows the needle, as this one does, has no version behind it.
fn rustls_source(rest: &[u8]) -> bool {
    let version = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .count();
    version > 0
        && rest
            .get(version..)
            .is_some_and(|rest| rest.starts_with(b"/src/"))
}

/// Go by its build information, rustls by the path of its sources that a panic would name.
fn linked(
    reader: &Reader<'_>,
    sections: &[SectionHeader64<LE>],
    names: usize,
    image: &mut Image,
) -> Result<(), ElfError> {
    let Some(names) = sections.get(names) else {
        return Ok(());
    };
    let names = reader.block(
        names.sh_offset.get(LE),
        names.sh_size.get(LE),
        SECTION_NAMES_MAX,
    )?;
    let named = |wanted: &[u8]| {
        sections.iter().find(|section| {
            let name = names
                .bytes()
                .get(section.sh_name.get(LE) as usize..)
                .unwrap_or_default();
            name.strip_prefix(wanted)
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    };
    let holds = |section: Option<&SectionHeader64<LE>>,
                 text: &[u8],
                 goes_on: fn(&[u8]) -> bool|
     -> Result<bool, ElfError> {
        let Some(section) = section else {
            return Ok(false);
        };
        let size = section.sh_size.get(LE).min(RODATA_MAX);
        let data = reader.block(section.sh_offset.get(LE), size, RODATA_MAX)?;
        let data = data.bytes();
        Ok(memmem::find_iter(data, text)
            .take(PLACES_MAX)
            .any(|place| goes_on(data.get(place + text.len()..).unwrap_or_default())))
    };
    if named(b".go.buildinfo").is_some() {
        // The table of functions survives strip; a position-independent executable has it among the relocated data.
        let functions = named(b".gopclntab").or_else(|| named(b".data.rel.ro.gopclntab"));
        image.go = holds(functions, b"crypto/tls.(*Conn).Write\0", |_| true)?;
    } else if !image.rustls {
        image.rustls = holds(named(b".rodata"), b"/rustls-0.", rustls_source)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
