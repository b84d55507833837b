//! Where things are sent to: loopback servers of the test.

mod sink;
mod tls;

pub use sink::Sink;
pub use tls::TlsServer;

use std::net::{Ipv4Addr, TcpListener};

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port()
}
