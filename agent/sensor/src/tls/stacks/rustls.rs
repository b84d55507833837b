//! rustls: recognised; it has no function of a stable name.

use super::{Found, Hook, Stack};
use crate::tls::{
    elf::{Elf, ElfError},
    symbols::Symbols,
};
use keytrail_model::TlsStack;

/// Places of the path of its sources that are looked at.
const PLACES_MAX: usize = 256;

pub struct Rustls;

impl Stack for Rustls {
    fn name(&self) -> TlsStack {
        TlsStack::Rustls
    }

    fn hooks(&self) -> &'static [Hook] {
        &[]
    }

    fn look(&self, elf: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError> {
        let mut inside = symbols.rustls;
        // Stripped, the path of its sources that a panic would name tells it.
        if !inside && let Some(data) = elf.section(".rodata") {
            let (needle, mut places) = (b"/rustls-0.", 0);
            let mut offsets = Vec::new();
            elf.search(data, needle, &mut |offset| {
                offsets.push(offset + needle.len() as u64);
                places += 1;
                places < PLACES_MAX
            })?;
            for offset in offsets {
                let rest = elf.block(offset, 24.min(data.offset + data.len - offset), 24)?;
                inside |= is_source(rest.bytes());
            }
        }
        Ok(if inside {
            Found::Unproven("rustls has no function of a stable name to hook".to_owned())
        } else {
            Found::Nothing
        })
    }
}

/// `23.5/src/`: a program that merely knows the needle, as this one does, has no version behind it.
fn is_source(rest: &[u8]) -> bool {
    let version = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .count();
    version > 0
        && rest
            .get(version..)
            .is_some_and(|rest| rest.starts_with(b"/src/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_a_version() {
        assert!(is_source(b"23.5/src/conn.rs"));
        assert!(!is_source(b"crypto/tls") && !is_source(b"23.5") && !is_source(b"/src/"));
    }
}
