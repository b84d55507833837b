//! Go's own TLS: `crypto/tls.(*Conn).Write`, found by the table of functions that every Go program keeps for its own
//! stack traces, stripped or not. Arguments are in registers since Go 1.17, and the probe sits on the jump to the growth
//! of the stack at the function's beginning, an instruction that the kernel emulates.
//!
//! A goroutine changes threads, so a call cannot be identified by its thread: the socket is that of the connection itself.

mod aarch64;
mod prove;
mod table;

use super::{Found, GO, Hook, ProbeSite, Stack, hook, number};
use crate::tls::{
    elf::{Elf, ElfError},
    prologue::ProbePoint,
    symbols::Symbols,
};
use keytrail_abi::GoSite;
use keytrail_model::TlsStack;
use prove::Code;

const WRITE: &str = "crypto/tls.(*Conn).Write";
const MORESTACK: &str = "runtime.morestack_noctxt";
/// How `net.(*TCPConn)` writes: by a method of its own, which goes on in that of what it embeds.
const TCP_WRITE: &str = "net.(*TCPConn).Write";
const CONN_WRITE: &str = "net.(*conn).Write";

pub struct Go;

impl Stack for Go {
    fn name(&self) -> TlsStack {
        TlsStack::Go
    }

    fn hooks(&self) -> &'static [Hook] {
        const HOOKS: &[Hook] = &[hook(WRITE, "uprobe:crypto/tls.(*Conn).Write", GO)];
        HOOKS
    }

    fn by_name(&self) -> bool {
        false
    }

    fn inspect(&self, elf: &Elf<'_>, _: &Symbols) -> Result<Found, ElfError> {
        let Some(table) = table::find(elf)? else {
            return Ok(Found::Nothing);
        };
        let entries = match table.entries(elf, &[WRITE, MORESTACK, TCP_WRITE, CONN_WRITE]) {
            Ok(entries) => entries,
            Err(ElfError::Format(_)) => {
                return unproven("its table of functions contradicts itself");
            }
            Err(error) => return Err(error),
        };
        let [write, morestack, tcp, conn] = entries[..] else {
            return Ok(Found::Nothing);
        };
        // Without it there is no TLS in the program.
        let Some(write) = write else {
            return Ok(Found::Nothing);
        };
        if table.is_old() {
            return unproven("built by a Go before 1.17, which passes arguments by the stack");
        }
        let Some(morestack) = morestack else {
            return unproven("its table of functions does not name the growth of the stack");
        };
        let Some(proof) = Code { elf, table: &table }.prove(write, morestack)? else {
            return unproven(
                "the code that its table of functions leads to is not that of Go 1.17 or later",
            );
        };
        let from_site = |entry: Option<u64>| {
            entry.map_or(0, |entry| {
                proof
                    .base
                    .wrapping_add(entry)
                    .wrapping_sub(proof.address.wrapping_add(proof.jump))
            })
        };
        Ok(Found::Sites(vec![ProbeSite {
            hook: number(WRITE),
            offset: proof.offset,
            point: ProbePoint {
                offset: proof.jump,
                pushed: None,
                emulated: Some(if elf.x86_64() { "jcc" } else { "b.cond" }),
            },
            go: Some(GoSite {
                tcp_write: from_site(tcp),
                conn_write: from_site(conn),
            }),
        }]))
    }
}

fn unproven(reason: &str) -> Result<Found, ElfError> {
    Ok(Found::Unproven(reason.to_owned()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
