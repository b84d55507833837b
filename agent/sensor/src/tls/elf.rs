//! ELF files: headers, and bytes by offset or address.
//!
//! The files are those of other people's processes: every size and offset may lie. Nothing is mapped, only what is
//! needed is read, and every read is bounded by the file's length and by a limit of its own.

use object::{
    LittleEndian as LE,
    elf::{
        self, EM_AARCH64, EM_X86_64, FileHeader64, Machine, PF_X, PT_LOAD, ProgramHeader64,
        SHT_NOBITS, SectionHeader64,
    },
    pod::{self, Pod},
};
use std::{
    cell::Cell,
    fs::File,
    io,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

const PROGRAM_HEADERS_MAX: u64 = 512;
const SECTIONS_MAX: u64 = 4096;
const SECTION_NAMES_MAX: u64 = 1 << 20;
/// Longest function whose code is read in full, bytes.
pub const CODE_MAX: u64 = 16 << 10;
/// Bytes that one step of a search or of a walk through a table reads.
pub const WINDOW: u64 = 1 << 20;
/// Longest entry of a table that is walked through: much less than a window, so that each window is read once.
pub const ENTRY_MAX: u64 = 4096;

/// Time one file may be searched for, and bytes that may be read of it: the largest programs there are take a tenth.
pub const FILE_TIME: Duration = Duration::from_secs(5);
const FILE_BYTES: u64 = 4 << 30;

#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Not an ELF file this agent can read: what is wrong with it.
    #[error("{0}")]
    Format(&'static str),
    #[error("searching it takes more than {} s", FILE_TIME.as_secs())]
    Late,
    #[error("searching it takes more than {} GiB of reading", FILE_BYTES >> 30)]
    TooMuch,
}

pub const LIES: ElfError = ElfError::Format("its headers contradict each other");

/// Bytes of a file, aligned for every ELF structure.
pub struct Block {
    words: Vec<u64>,
    len: usize,
}

impl Block {
    const EMPTY: Self = Self {
        words: Vec::new(),
        len: 0,
    };

    pub fn bytes(&self) -> &[u8] {
        pod::bytes_of_slice(&self.words)
            .get(..self.len)
            .unwrap_or_default()
    }

    pub fn all<T: Pod>(&self) -> &[T] {
        let count = self.len / size_of::<T>();
        pod::slice_from_bytes(self.bytes(), count).map_or(&[], |(all, _)| all)
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub len: u64,
    /// Where it is mapped, before any shift of the whole.
    pub address: u64,
}

/// A 64-bit ELF file of this machine.
pub struct Elf<'a> {
    file: &'a File,
    /// Until when, and how many bytes of it may be read.
    until: Instant,
    left: Cell<u64>,
    len: u64,
    machine: Machine,
    segments: Block,
    sections: Block,
    names: Block,
}

impl<'a> Elf<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// When the file is not a 64-bit ELF of this machine, contradicts itself or cannot be read.
    pub fn open(file: &'a File) -> Result<Self, ElfError> {
        Self::within(file, FILE_TIME, FILE_BYTES)
    }

    /// The same with limits of its own for everything that is read of it.
    ///
    /// # Errors
    /// Those of [`Elf::open`].
    pub fn within(file: &'a File, time: Duration, bytes: u64) -> Result<Self, ElfError> {
        let mut elf = Self {
            file,
            until: Instant::now() + time,
            left: Cell::new(bytes),
            len: file.metadata()?.len(),
            machine: Machine(0),
            segments: Block::EMPTY,
            sections: Block::EMPTY,
            names: Block::EMPTY,
        };
        let head = elf.block(0, size_of::<FileHeader64<LE>>() as u64, u64::MAX)?;
        let head = head.all::<FileHeader64<LE>>().first().ok_or(LIES)?;
        if head.e_ident.magic != elf::ELFMAG {
            return Err(ElfError::Format("not an ELF file"));
        }
        if head.e_ident.class != elf::ELFCLASS64 {
            return Err(ElfError::Format(
                "32-bit: its functions take their arguments from the stack",
            ));
        }
        elf.machine = head.e_machine.get(LE);
        if head.e_ident.data != elf::ELFDATA2LSB || Some(elf.machine) != HOST {
            return Err(ElfError::Format("for another machine"));
        }
        elf.segments = elf.table::<ProgramHeader64<LE>>(
            head.e_phoff.get(LE),
            head.e_phentsize.get(LE),
            head.e_phnum.get(LE),
            PROGRAM_HEADERS_MAX,
        )?;
        elf.sections = elf.table::<SectionHeader64<LE>>(
            head.e_shoff.get(LE),
            head.e_shentsize.get(LE),
            head.e_shnum.get(LE),
            SECTIONS_MAX,
        )?;
        let names = usize::from(head.e_shstrndx.get(LE).0);
        if let Some(names) = elf.sections().get(names) {
            // Without names sections are found by their kind all the same.
            elf.names = elf
                .block(
                    names.sh_offset.get(LE),
                    names.sh_size.get(LE),
                    SECTION_NAMES_MAX,
                )
                .unwrap_or(Block::EMPTY);
        }
        Ok(elf)
    }

    pub fn x86_64(&self) -> bool {
        self.machine == EM_X86_64
    }

    pub fn sections(&self) -> &[SectionHeader64<LE>] {
        self.sections.all()
    }

    /// Bytes of the file, all of them or an error.
    ///
    /// # Errors
    /// When there are more than `limit` or fewer in the file.
    pub fn block(&self, offset: u64, len: u64, limit: u64) -> Result<Block, ElfError> {
        if len > limit {
            return Err(ElfError::Format(
                "a table in it is larger than any real one",
            ));
        }
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(LIES);
        }
        if Instant::now() > self.until {
            return Err(ElfError::Late);
        }
        self.left
            .set(self.left.get().checked_sub(len).ok_or(ElfError::TooMuch)?);
        let len = usize::try_from(len).map_err(|_| LIES)?;
        let mut words = vec![0_u64; len.div_ceil(8)];
        let bytes = pod::bytes_of_slice_mut(&mut words)
            .get_mut(..len)
            .ok_or(LIES)?;
        self.file.read_exact_at(bytes, offset)?;
        Ok(Block { words, len })
    }

    fn table<T: Pod>(
        &self,
        offset: u64,
        entry: u16,
        count: u16,
        limit: u64,
    ) -> Result<Block, ElfError> {
        if count == 0 {
            return Ok(Block::EMPTY);
        }
        if usize::from(entry) != size_of::<T>() || u64::from(count) > limit {
            return Err(LIES);
        }
        self.block(offset, u64::from(count) * size_of::<T>() as u64, u64::MAX)
    }

    /// The section of this name, if it has bytes in the file.
    pub fn section(&self, wanted: &str) -> Option<Span> {
        let names = self.names.bytes();
        let section = self.sections().iter().find(|section| {
            let name = names
                .get(section.sh_name.get(LE) as usize..)
                .unwrap_or_default();
            name.strip_prefix(wanted.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        })?;
        if section.sh_type.get(LE) == SHT_NOBITS {
            return None;
        }
        self.inside(Span {
            offset: section.sh_offset.get(LE),
            len: section.sh_size.get(LE),
            address: section.sh_addr.get(LE),
        })
    }

    /// What is loaded of the file, executable parts or the others.
    pub fn loaded(&self, executable: bool) -> impl Iterator<Item = Span> + '_ {
        self.segments
            .all::<ProgramHeader64<LE>>()
            .iter()
            .filter(move |segment| {
                segment.p_type.get(LE) == PT_LOAD
                    && (segment.p_flags.get(LE).0 & PF_X.0 != 0) == executable
            })
            .filter_map(move |segment| {
                self.inside(Span {
                    offset: segment.p_offset.get(LE),
                    len: segment.p_filesz.get(LE),
                    address: segment.p_vaddr.get(LE),
                })
            })
    }

    /// A span cut at the end of the file; `None` when nothing is left of it.
    fn inside(&self, span: Span) -> Option<Span> {
        let room = self
            .len
            .checked_sub(span.offset)
            .filter(|room| *room != 0)?;
        (span.len != 0).then_some(Span {
            len: span.len.min(room),
            ..span
        })
    }

    /// The executable segment that an address is in.
    pub fn segment_of(&self, address: u64) -> Option<Span> {
        self.loaded(true).find(|span| {
            address
                .checked_sub(span.address)
                .is_some_and(|into| into < span.len)
        })
    }

    /// Offset in the file of an address in executable memory, and the bytes from there to the segment's end.
    pub fn code_at(&self, address: u64) -> Option<(u64, u64)> {
        let span = self.segment_of(address)?;
        let into = address - span.address;
        Some((span.offset.checked_add(into)?, span.len - into))
    }

    /// Offset in the file of an address in whatever is loaded.
    pub fn data_at(&self, address: u64) -> Option<u64> {
        self.loaded(false)
            .chain(self.loaded(true))
            .find_map(|span| {
                let into = address.checked_sub(span.address)?;
                (into < span.len).then(|| span.offset.checked_add(into))?
            })
    }

    /// The code at an address: `len` bytes, fewer where the segment ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn code(&self, address: u64, len: u64) -> Result<Vec<u8>, ElfError> {
        let Some((offset, room)) = self.code_at(address) else {
            return Ok(Vec::new());
        };
        let len = len.min(room).min(CODE_MAX);
        Ok(self.block(offset, len, CODE_MAX)?.bytes().to_vec())
    }

    /// Calls `found` for every place of `needle` in a span, in order, with its offset in the file, until it returns
    /// false. Reads the span once.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn search(
        &self,
        span: Span,
        needle: &[u8],
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ElfError> {
        let overlap = needle.len().saturating_sub(1) as u64;
        let finder = memchr::memmem::Finder::new(needle);
        let mut at = 0;
        while at + overlap < span.len {
            let len = (span.len - at).min(WINDOW + overlap);
            let block = self.block(span.offset.saturating_add(at), len, WINDOW + overlap)?;
            for place in finder.find_iter(block.bytes()) {
                if !found(span.offset + at + place as u64) {
                    return Ok(());
                }
            }
            at += WINDOW;
        }
        Ok(())
    }
}

const HOST: Option<Machine> = if cfg!(target_arch = "x86_64") {
    Some(EM_X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(EM_AARCH64)
} else {
    None
};

/// A table that is walked through from its beginning to its end, a window at a time: what lies before the place last
/// asked for is not to be had any more, so that no order of entries reads anything twice.
pub struct Walk<'e, 'f> {
    elf: &'e Elf<'f>,
    span: Span,
    block: Block,
    /// Offset in the span of what `block` holds.
    start: u64,
}

impl<'e, 'f> Walk<'e, 'f> {
    pub fn new(elf: &'e Elf<'f>, span: Span) -> Self {
        Self {
            elf,
            span,
            block: Block::EMPTY,
            start: 0,
        }
    }

    /// `len` bytes (at most [`ENTRY_MAX`]) at `at`.
    ///
    /// # Errors
    /// When they lie before those asked for earlier, or behind the span's end.
    pub fn get(&mut self, at: u64, len: u64) -> Result<&[u8], ElfError> {
        let end = at.checked_add(len).ok_or(LIES)?;
        if at < self.start || end > self.span.len || len > ENTRY_MAX {
            return Err(LIES);
        }
        if end > self.start + self.block.len as u64 {
            let size = (self.span.len - at).min(WINDOW);
            self.block = self
                .elf
                .block(self.span.offset.saturating_add(at), size, WINDOW)?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        self.block
            .bytes()
            .get(from..from + len as usize)
            .ok_or(LIES)
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
pub mod tests;
