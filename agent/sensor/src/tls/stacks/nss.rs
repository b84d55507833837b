//! NSS, whose plaintext is taken by NSPR (libnspr4) beside it. The call is that of the thread.

use super::{Found, Hook, NSS, Stack, hook};
use crate::tls::{
    elf::{Elf, ElfError},
    symbols::Symbols,
};
use keytrail_model::TlsStack;

pub struct Nss;

impl Stack for Nss {
    fn name(&self) -> TlsStack {
        TlsStack::Nss
    }

    fn hooks(&self) -> &'static [Hook] {
        const HOOKS: &[Hook] = &[
            hook("PR_Write", "uprobe:PR_Write", NSS),
            hook("PR_Send", "uprobe:PR_Send", NSS),
        ];
        HOOKS
    }

    fn inspect(&self, _: &Elf<'_>, symbols: &Symbols) -> Result<Found, ElfError> {
        Ok(if symbols.nss {
            Found::Elsewhere
        } else {
            Found::Nothing
        })
    }
}
