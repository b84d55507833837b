//! OpenSSL and BoringSSL linked into a program whose names were stripped. Their error messages name the file they come
//! from, OpenSSL's (from 3.0 on) the function too; so the code that refers to those strings is that of known functions,
//! and the unwinder's table says where these begin.

use super::{Found, Hook, INT, ProbeSite, SIZE, Stack, hook, number, strings};
use crate::tls::{
    elf::{Elf, ElfError},
    frames::{Body, Frames},
    prologue::{Given, x86_64 as prologue},
    symbols::Symbols,
};
use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use keytrail_model::TlsStack;

/// Functions whose code refers to the file's name: only so many are inspected.
const FUNCTIONS_MAX: usize = 512;

const X86_64_ONLY: &str =
    "its functions have no names, and are recognized by their code on x86-64 only";

/// OpenSSL 3.0 and later, in which every way to write passes through one function.
pub struct OpenSsl;

// static/int ssl_write_internal(SSL *s, const void *buf, size_t num, [uint64_t flags,] size_t *written)
const INTERNAL: &str = "ssl_write_internal";

impl Stack for OpenSsl {
    fn name(&self) -> TlsStack {
        TlsStack::OpenSsl
    }

    fn hooks(&self) -> &'static [Hook] {
        const HOOKS: &[Hook] = &[hook(INTERNAL, "uprobe:ssl_write_internal", SIZE)];
        HOOKS
    }

    /// Its name in a table of symbols is not enough: where that is, those that call it are as well.
    fn by_name(&self) -> bool {
        false
    }

    fn inspect(&self, elf: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError> {
        if !symbols.functions.is_empty() {
            return Ok(Found::Nothing);
        }
        let names = strings::addresses(elf, INTERNAL, true)?;
        if !elf.x86_64() && !names.is_empty() {
            return unproven(X86_64_ONLY);
        }
        let functions = referring(elf, &names)?;
        match &functions[..] {
            [] if names.is_empty() => Ok(Found::Nothing),
            [only] if takes_arguments(only) => Ok(Found::Sites(vec![site(INTERNAL, only)])),
            [] => unproven(
                "its functions have no names, and no code refers to that of the one that takes plaintext",
            ),
            [_] => unproven(
                "its functions have no names, and the one that takes plaintext is not where it should begin",
            ),
            _ => {
                unproven("its functions have no names, and more than one place may take plaintext")
            }
        }
    }
}

/// BoringSSL, whose `SSL_write` is recognized by the errors it may give.
pub struct BoringSsl;

// int SSL_write(SSL *ssl, const void *buf, int num)
const WRITE: &str = "SSL_write of BoringSSL";
const FILE: &str = "/ssl_lib.cc";
/// ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED, SSL_R_UNINITIALIZED, SSL_R_SSL_HANDSHAKE_FAILURE and SSL_R_BAD_LENGTH
/// (openssl/err.h and ssl.h of BoringSSL): no other function may give all of them. The second and the third are given by its
/// neighbours as well: where one comes twice, two functions were taken for one.
const REASONS: [Reason; 4] = [at_least_once(66), once(226), once(215), at_least_once(111)];

/// An error that a function gives.
#[derive(Clone, Copy)]
struct Reason {
    number: u32,
    once: bool,
}

const fn once(number: u32) -> Reason {
    Reason { number, once: true }
}

const fn at_least_once(number: u32) -> Reason {
    Reason {
        number,
        once: false,
    }
}

impl Stack for BoringSsl {
    fn name(&self) -> TlsStack {
        TlsStack::BoringSsl
    }

    fn hooks(&self) -> &'static [Hook] {
        const HOOKS: &[Hook] = &[hook(WRITE, "uprobe:SSL_write", INT)];
        HOOKS
    }

    fn by_name(&self) -> bool {
        false
    }

    fn inspect(&self, elf: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError> {
        if !symbols.functions.is_empty() {
            return Ok(Found::Nothing);
        }
        let mut files = Vec::new();
        for part in strings::addresses(elf, FILE, false)? {
            files.push(strings::begins(elf, part)?);
        }
        if files.is_empty() {
            return Ok(Found::Nothing);
        }
        if !elf.x86_64() {
            return unproven(X86_64_ONLY);
        }
        let functions: Vec<Body> = referring(elf, &files)?
            .into_iter()
            .filter(|body| gives(body, &REASONS))
            .collect();
        match &functions[..] {
            [only] if takes_arguments(only) => Ok(Found::Sites(vec![site(WRITE, only)])),
            [] => unproven("its functions have no names, and none gives the errors of SSL_write"),
            [_] => {
                unproven("its functions have no names, and SSL_write is not where it should begin")
            }
            _ => unproven(
                "its functions have no names, and more than one gives the errors of SSL_write",
            ),
        }
    }
}

fn unproven(reason: &str) -> Result<Found, ElfError> {
    Ok(Found::Unproven(reason.to_owned()))
}

/// The functions whose code loads one of the addresses.
fn referring(elf: &Elf<'_>, wanted: &[u64]) -> Result<Vec<Body>, ElfError> {
    let references = strings::references(elf, wanted)?;
    if references.is_empty() {
        return Ok(Vec::new());
    }
    let frames = Frames::of(elf)?;
    let mut functions: Vec<Body> = Vec::new();
    for reference in references {
        // They come in order, so one function's references follow each other.
        let known = functions.last().is_some_and(|last| {
            (last.address..last.address + last.code.len() as u64).contains(&reference)
        });
        if known || functions.len() >= FUNCTIONS_MAX {
            continue;
        }
        if let Some(body) = frames.around(reference)? {
            functions.push(body);
        }
    }
    Ok(functions)
}

/// Does the function load each of these numbers as the same argument of a call, as the report of an error does? It is the
/// third (`ERR_put_error(library, unused, reason, file, line)`), or the second where the linker has left out the unused one.
fn gives(body: &Body, reasons: &[Reason]) -> bool {
    const ARGUMENTS: [Register; 2] = [Register::EDX, Register::ESI];
    let mut decoder = Decoder::with_ip(64, &body.code, body.address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut given = ARGUMENTS.map(|_| vec![0_u32; reasons.len()]);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.mnemonic() != Mnemonic::Mov
            || instruction.op0_kind() != OpKind::Register
            || instruction.op1_kind() != OpKind::Immediate32
        {
            continue;
        }
        let Some(argument) = ARGUMENTS
            .iter()
            .position(|register| *register == instruction.op0_register())
        else {
            continue;
        };
        for (reason, given) in reasons.iter().zip(&mut given[argument]) {
            *given += u32::from(reason.number == instruction.immediate32());
        }
    }
    given.iter().any(|given| {
        reasons
            .iter()
            .zip(given)
            .all(|(reason, times)| *times == 1 || *times > 1 && !reason.once)
    })
}

/// Is each of the first three arguments read before it is overwritten, on the straight way from the beginning? What
/// begins in the middle of a function hardly does that.
fn takes_arguments(body: &Body) -> bool {
    /// Instructions that are inspected.
    const FAR: usize = 40;
    let mut decoder = Decoder::with_ip(64, &body.code, body.address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut factory = InstructionInfoFactory::new();
    let mut arguments = [
        (Register::RDI, false),
        (Register::RSI, false),
        (Register::RDX, false),
    ];
    for _ in 0..FAR {
        if !decoder.can_decode() {
            return false;
        }
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return false;
        }
        let info = factory.info(&instruction);
        for (register, read) in &mut arguments {
            if *read {
                continue;
            }
            // xor of a register with itself reads nothing.
            let cleared = instruction.mnemonic() == Mnemonic::Xor
                && instruction.op0_register() == instruction.op1_register();
            let mut used = false;
            for access in info
                .used_registers()
                .iter()
                .filter(|used| used.register().full_register() == *register)
                .map(|used| used.access())
            {
                used = true;
                *read |= reads(access) && !cleared;
            }
            if used && !*read {
                return false;
            }
        }
        if arguments.iter().all(|(_, read)| *read) {
            return true;
        }
    }
    false
}

fn reads(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

fn site(function: &str, body: &Body) -> ProbeSite {
    ProbeSite {
        hook: number(function),
        offset: body.offset,
        point: prologue::probe_point(
            &body.code,
            Given {
                whole: true,
                // Their own prologue has something cheaper.
                calls: false,
            },
        ),
        go: None,
    }
}

#[cfg(test)]
#[path = "linked_tests.rs"]
mod tests;
