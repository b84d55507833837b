//! TLS stacks: how each is recognised in a file, where it takes plaintext, in which registers, and what tells one call
//! from another. A site that cannot be proven is not probed; the reason is reported.

mod exported;
mod go;
mod linked;
mod nss;
mod rustls;
mod strings;

use super::{
    elf::{Elf, ElfError},
    prologue::{self, Given, ProbePoint},
    symbols::Symbols,
};
use keytrail_abi::GoSite;
use keytrail_model::TlsStack;

/// A function that takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The function, as its makers call it.
    pub function: &'static str,
    /// How evidence names it.
    pub name: &'static str,
    /// The program in the object: it knows in which registers session, buffer and length are.
    pub program: &'static str,
}

const fn hook(function: &'static str, name: &'static str, program: &'static str) -> Hook {
    Hook {
        function,
        name,
        program,
    }
}

/// Session, buffer, `int` length: the first three arguments.
pub const INT: &str = "tls_write_int";
/// Session, buffer, `size_t` length.
pub const SIZE: &str = "tls_write_size";
/// Go's registers.
pub const GO: &str = "tls_write_go";

/// Session, buffer, `int` length, of which not every call is one of TLS.
pub const NSS: &str = "tls_write_nss";
/// `self` second, the address of a record third, which tells where its bytes are.
pub const RUSTLS: &str = "tls_write_rustls";

/// Programs of the object that stacks use.
pub const PROGRAMS: [&str; 5] = [INT, SIZE, GO, NSS, RUSTLS];

/// A proven place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSite {
    /// Number of its hook: see [`number`].
    pub hook: usize,
    /// Of the function in the file, bytes.
    pub offset: u64,
    pub point: ProbePoint,
    /// How a Go program's connections are reported.
    pub go: Option<GoSite>,
}

/// What a file holds of one stack.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Sites(Vec<ProbeSite>),
    /// These, and something of it is left that cannot be probed: why.
    Partly(Vec<ProbeSite>, String),
    /// The stack, whose plaintext another file takes.
    Elsewhere,
    /// The stack is there, and nothing of it can be probed: why.
    Unproven(String),
}

/// A TLS stack.
pub trait Stack: Sync {
    fn name(&self) -> TlsStack;
    /// Its functions that take plaintext.
    fn hooks(&self) -> &'static [Hook];
    /// Do names of functions in a file's tables tell them?
    fn by_name(&self) -> bool {
        true
    }
    /// Looks for what names of functions do not tell.
    ///
    /// # Errors
    /// When the file contradicts itself or cannot be read.
    fn inspect(&self, elf: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError>;
}

/// In the order in which a file is reported as one of them.
pub static STACKS: [&dyn Stack; 10] = [
    &exported::OPENSSL,
    &exported::GNUTLS,
    &exported::MBEDTLS,
    &exported::WOLFSSL,
    &exported::S2N,
    &nss::Nss,
    &linked::OpenSsl,
    &linked::BoringSsl,
    &go::Go,
    &rustls::Rustls,
];

/// All hooks; a hook's number is its place here.
pub fn hooks() -> impl Iterator<Item = &'static Hook> {
    STACKS.iter().flat_map(|stack| stack.hooks())
}

/// The number of a function's hook.
fn number(function: &str) -> usize {
    hooks()
        .position(|hook| hook.function == function)
        .unwrap_or(usize::MAX)
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The stacks that are in it, the first one first.
    pub stacks: Vec<TlsStack>,
    pub sites: Vec<ProbeSite>,
    /// Stacks of which nothing can be probed, or not everything, each with the reason.
    pub unproven: Vec<(TlsStack, String)>,
}

/// Looks for every stack in a file.
///
/// # Errors
/// When the file is no ELF file of this machine, contradicts itself or cannot be read.
pub fn contents(file: &std::fs::File, calls: bool) -> Result<Contents, ElfError> {
    let elf = Elf::open(file)?;
    // A hook's number is the index of its name.
    let names: Vec<&str> = STACKS
        .iter()
        .flat_map(|stack| {
            let by_name = stack.by_name();
            stack
                .hooks()
                .iter()
                .map(move |hook| if by_name { hook.function } else { "" })
        })
        .collect();
    let symbols = Symbols::of(&elf, &names)?;
    let mut contents = Contents::default();
    for stack in STACKS {
        let mut sites: Vec<ProbeSite> = symbols
            .functions
            .iter()
            .filter(|function| {
                let name = names.get(function.name).copied().unwrap_or_default();
                stack.by_name() && stack.hooks().iter().any(|hook| hook.function == name)
            })
            .map(|function| ProbeSite {
                hook: function.name,
                offset: function.offset,
                point: prologue::probe_point(
                    &elf,
                    &function.code,
                    Given {
                        whole: function.whole,
                        calls,
                    },
                ),
                go: None,
            })
            .collect();
        if sites.is_empty() {
            match stack.inspect(&elf, &symbols)? {
                Found::Nothing => continue,
                Found::Elsewhere => {}
                Found::Sites(found) => sites = found,
                Found::Partly(found, reason) => {
                    contents.unproven.push((stack.name(), reason));
                    sites = found;
                }
                Found::Unproven(reason) => {
                    contents.unproven.push((stack.name(), reason));
                    continue;
                }
            }
        }
        let name = if stack.name() == TlsStack::OpenSsl && symbols.boringssl {
            TlsStack::BoringSsl
        } else {
            stack.name()
        };
        contents.stacks.push(name);
        contents.sites.append(&mut sites);
    }
    Ok(contents)
}
