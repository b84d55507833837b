//! Connections to receivers: to the addresses that `resolve` finds, and by TLS with the authorities of the configuration.

use super::http::authorities;
use crate::resolve;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const LATE: &str = "it did not answer in time";

/// A connection to the first address of the host that takes one.
pub(super) fn open(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for to in resolve::addresses(&format!("{host}:{port}"), left(deadline)?)? {
        let Ok(time) = left(deadline) else {
            break;
        };
        match TcpStream::connect_timeout(&to, time) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What TLS with a host needs. `protocols`: those of ALPN, none when empty.
pub(super) fn tls(
    host: &str,
    ca_file: Option<&Path>,
    protocols: &[&[u8]],
) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for root in authorities(ca_file).map_err(io::Error::other)? {
        // One that cannot be used makes others no worse.
        let _ = roots.add(CertificateDer::from(root.der().to_vec()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| io::Error::other(format!("{bare:?} is no name of a host")))?;
    Ok((Arc::new(config), name))
}

/// How long is left; never nothing, which would mean for ever.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, LATE));
    }
    Ok(left)
}
