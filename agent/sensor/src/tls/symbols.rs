//! Functions of an ELF file by name.

use super::elf::{CODE_MAX, Elf, ElfError, LIES};
use memchr::memmem;
use object::{
    LittleEndian as LE,
    elf::{SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, SectionHeader64, Sym64},
};

/// Largest symbol table read: a browser with all its symbols stays below it.
const SYMBOLS_MAX: u64 = 64 << 20;
const STRINGS_MAX: u64 = 128 << 20;
/// Places of a wanted name in the string table that are believed: a tail of a longer name counts as one.
const PLACES_MAX: usize = 256;

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

/// What the tables of symbols tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    pub functions: Vec<Function>,
    /// Some name is one that only BoringSSL has.
    pub boringssl: bool,
    /// Some name is one that only NSS has.
    pub nss: bool,
    /// Some name is that of the method by which rustls takes plaintext.
    pub rustls: bool,
}

impl Symbols {
    /// Looks for functions. Exported names first; the table of all symbols only when no name is exported.
    ///
    /// # Errors
    /// When a table contradicts the file or cannot be read.
    pub fn of(elf: &Elf<'_>, names: &[&str]) -> Result<Self, ElfError> {
        let mut symbols = Self::default();
        for kind in [SHT_DYNSYM, SHT_SYMTAB] {
            if symbols.functions.is_empty() {
                for section in elf
                    .sections()
                    .iter()
                    .filter(|section| section.sh_type.get(LE) == kind)
                {
                    symbols.read(elf, section, names)?;
                }
            }
        }
        Ok(symbols)
    }

    fn read(
        &mut self,
        elf: &Elf<'_>,
        section: &SectionHeader64<LE>,
        names: &[&str],
    ) -> Result<(), ElfError> {
        let strings = elf
            .sections()
            .get(section.sh_link.get(LE) as usize)
            .ok_or(LIES)?;
        let strings = elf.block(
            strings.sh_offset.get(LE),
            strings.sh_size.get(LE),
            STRINGS_MAX,
        )?;
        let strings = strings.bytes();
        self.boringssl |= memmem::find(strings, b"BORINGSSL_").is_some();
        self.nss |= memmem::find(strings, b"\0SSL_ImportFD\0").is_some();
        self.rustls |= rustls_writer(strings);
        // The string table tells at memory speed whether the symbols are worth reading. A name may be the tail of a
        // longer one, so each of its places is a name.
        let mut places = Vec::new();
        let names = names.iter().enumerate();
        for (index, name) in names.filter(|(_, name)| !name.is_empty()) {
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
        places.sort_unstable();
        let symbols = elf.block(
            section.sh_offset.get(LE),
            section.sh_size.get(LE),
            SYMBOLS_MAX,
        )?;
        for symbol in symbols.all::<Sym64<LE>>() {
            let at = symbol.st_name.get(LE) as usize;
            let Ok(place) = places.binary_search_by_key(&at, |(place, _)| *place) else {
                continue;
            };
            let name = places[place].1;
            if symbol.st_type() != STT_FUNC
                || symbol.st_shndx.get(LE) == SHN_UNDEF
                || self.functions.iter().any(|function| function.name == name)
            {
                continue;
            }
            let (address, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
            let Some((offset, room)) = elf.code_at(address) else {
                continue;
            };
            let whole = size != 0 && size <= CODE_MAX && size <= room;
            let want = if size == 0 { CODE_MAX } else { size };
            let code = elf.code(address, want)?;
            if !code.is_empty() {
                self.functions.push(Function {
                    name,
                    offset,
                    code,
                    whole,
                });
            }
        }
        Ok(())
    }
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

#[cfg(test)]
#[path = "symbols_tests.rs"]
mod tests;
