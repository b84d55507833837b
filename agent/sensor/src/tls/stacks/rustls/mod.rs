//! rustls, reported by what each of its ciphers has: a method that encrypts one record.
//!
//! Plaintext comes to rustls by functions that are inlined into their callers, under names that each build makes anew.
//! But records are encrypted through a `dyn MessageEncrypter` (rustls/src/crypto/cipher.rs), so that the tables of its
//! methods are in every program, stripped or not, with any provider of ciphers. What `encrypt` takes is the plaintext of one
//! record, in the layout that its own code is shown to read.

mod prove;
mod tables;

use super::{Found, Hook, ProbeSite, RUSTLS, Stack, hook, number};
use crate::tls::{
    elf::{Elf, ElfError},
    prologue::{Given, x86_64 as prologue},
    symbols::Symbols,
};
use keytrail_model::TlsStack;

// fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error>
const ENCRYPT: &str = "MessageEncrypter::encrypt";
/// What a panic would name: the path of its sources, with the version.
const SOURCES: &[u8] = b"/rustls-0.";
/// Places of that path that are inspected.
const PLACES_MAX: usize = 256;
/// Bytes of it that are inspected.
const PATH_MAX: u64 = 64;
/// Code of a method that is inspected, bytes.
const METHOD_MAX: u64 = 4096;

pub struct Rustls;

impl Stack for Rustls {
    fn name(&self) -> TlsStack {
        TlsStack::Rustls
    }

    fn hooks(&self) -> &'static [Hook] {
        const HOOKS: &[Hook] = &[hook(ENCRYPT, "uprobe:MessageEncrypter::encrypt", RUSTLS)];
        HOOKS
    }

    /// Each cipher has its own.
    fn by_name(&self) -> bool {
        false
    }

    fn inspect(&self, elf: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError> {
        let sources = Sources::of(elf)?;
        if !symbols.rustls && sources.version.is_empty() {
            return Ok(Found::Nothing);
        }
        let unproven = |what: &str| {
            let version = &sources.version;
            let space = if version.is_empty() { "" } else { " " };
            format!("rustls{space}{version}: {what}")
        };
        if !elf.x86_64() {
            return Ok(Found::Unproven(unproven(
                "the methods that encrypt records are found on x86-64 only",
            )));
        }
        let (mut sites, mut of_13, mut unlike) = (Vec::<ProbeSite>::new(), 0, 0);
        for method in tables::methods(elf)? {
            let code = elf.code(method.encrypt, METHOD_MAX)?;
            let Some((offset, _)) = elf.code_at(method.encrypt) else {
                continue;
            };
            if !prove::encrypts(&code, method.adds) {
                unlike += 1;
                continue;
            }
            of_13 += usize::from(method.adds == tables::TLS13);
            if sites.iter().all(|site| site.offset != offset) {
                let given = Given {
                    // Where it ends is not known.
                    whole: false,
                    calls: false,
                };
                sites.push(ProbeSite {
                    hook: number(ENCRYPT),
                    offset,
                    point: prologue::probe_point(&code, given),
                    go: None,
                });
            }
        }
        Ok(if sites.is_empty() {
            Found::Unproven(unproven(if sources.is_early() {
                "what it encrypts is seen from 0.23 on; its methods are others"
            } else {
                "the methods that encrypt records were not found, or are not like any known"
            }))
        } else if unlike > 0 || of_13 < sources.of_13() {
            Found::Partly(
                sites,
                unproven("some of its ciphers have no method that is known to encrypt records"),
            )
        } else {
            Found::Sites(sites)
        })
    }
}

/// What the paths of its sources tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sources {
    /// Empty: there are none.
    version: String,
    ring: bool,
    aws_lc: bool,
}

impl Sources {
    fn of(elf: &Elf<'_>) -> Result<Self, ElfError> {
        let mut sources = Self::default();
        let Some(data) = elf.section(".rodata") else {
            return Ok(sources);
        };
        let mut offsets = Vec::new();
        elf.search(data, SOURCES, &mut |offset| {
            offsets.push(offset + SOURCES.len() as u64);
            offsets.len() < PLACES_MAX
        })?;
        for offset in offsets {
            let room = (data.offset + data.len).saturating_sub(offset);
            let rest = elf.block(offset, PATH_MAX.min(room), PATH_MAX)?;
            sources.add(rest.bytes());
        }
        Ok(sources)
    }

    /// `23.5/src/crypto/ring/tls13.rs`: a program that merely knows the needle, as this one does, has no version behind it.
    fn add(&mut self, rest: &[u8]) {
        let digits = rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .count();
        let (version, path) = rest.split_at(digits);
        // tokio-rustls and others of such a name have no sources of these names.
        let Some(path) = path.strip_prefix(b"/src/").filter(|_| digits > 0) else {
            return;
        };
        if self.version.is_empty() {
            self.version = format!("0.{}", String::from_utf8_lossy(version));
        }
        self.ring |= path.starts_with(b"crypto/ring/");
        self.aws_lc |= path.starts_with(b"crypto/aws_lc_rs/");
    }

    /// Before 0.23, whose methods take other arguments.
    fn is_early(&self) -> bool {
        let minor = self.version.split('.').nth(1);
        minor
            .and_then(|minor| minor.parse::<u32>().ok())
            .is_some_and(|minor| minor < 23)
    }

    /// How many ciphers of TLS 1.3 its providers have of their own: in aws-lc AES-GCM is another one than ChaCha20.
    fn of_13(&self) -> usize {
        usize::from(self.ring) + 2 * usize::from(self.aws_lc)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
