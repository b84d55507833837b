//! Stacks that are found by the names of their functions, exported or kept in a table of all symbols. The call is that
//! of the thread: a send on its stack meanwhile is nested in it.

use super::{Found, Hook, INT, SIZE, Stack, hook};
use crate::tls::{
    elf::{Elf, ElfError},
    symbols::Symbols,
};
use keytrail_model::TlsStack;

pub struct Exported {
    name: TlsStack,
    hooks: &'static [Hook],
}

/// OpenSSL from 1.0 on, LibreSSL and BoringSSL.
pub static OPENSSL: Exported = Exported {
    name: TlsStack::OpenSsl,
    hooks: &[
        hook("SSL_write", "uprobe:SSL_write", INT),
        hook("SSL_write_ex", "uprobe:SSL_write_ex", SIZE),
        hook("SSL_write_ex2", "uprobe:SSL_write_ex2", SIZE),
        hook("SSL_write_early_data", "uprobe:SSL_write_early_data", SIZE),
    ],
};

pub static GNUTLS: Exported = Exported {
    name: TlsStack::GnuTls,
    hooks: &[
        hook("gnutls_record_send", "uprobe:gnutls_record_send", SIZE),
        hook("gnutls_record_send2", "uprobe:gnutls_record_send2", SIZE),
    ],
};

// int mbedtls_ssl_write(mbedtls_ssl_context *ssl, const unsigned char *buf, size_t len)
pub static MBEDTLS: Exported = Exported {
    name: TlsStack::MbedTls,
    hooks: &[hook("mbedtls_ssl_write", "uprobe:mbedtls_ssl_write", SIZE)],
};

// int wolfSSL_write(WOLFSSL* ssl, const void* data, int sz)
pub static WOLFSSL: Exported = Exported {
    name: TlsStack::WolfSsl,
    hooks: &[hook("wolfSSL_write", "uprobe:wolfSSL_write", INT)],
};

// ssize_t s2n_send(struct s2n_connection *conn, const void *buf, ssize_t size, s2n_blocked_status *blocked)
pub static S2N: Exported = Exported {
    name: TlsStack::S2n,
    hooks: &[hook("s2n_send", "uprobe:s2n_send", SIZE)],
};

impl Stack for Exported {
    fn name(&self) -> TlsStack {
        self.name
    }

    fn hooks(&self) -> &'static [Hook] {
        self.hooks
    }

    fn inspect(&self, _: &Elf<'_>, _: &Symbols) -> Result<Found, ElfError> {
        Ok(Found::Nothing)
    }
}
