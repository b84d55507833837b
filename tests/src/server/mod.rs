//! Where things are sent to: loopback servers of the test.

mod certificates;
mod sink;
mod tls;

pub(crate) use certificates::certificates;
pub use sink::Sink;
pub use tls::TlsServer;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// So many ports are given out in turn.
const PORTS: u16 = 8_000;
/// Where some servers have a second one.
pub(crate) const ABOVE: u16 = 10_000;

/// A port nobody listens on. None that the kernel gives to connections: any of them could take it before the server does.
pub(crate) fn free_port() -> u16 {
    next_port(is_free)
}

/// The same, with the port [`ABOVE`] it.
pub(crate) fn free_ports() -> u16 {
    next_port(|port| is_free(port) && is_free(port + ABOVE))
}

fn next_port(is_free: impl Fn(u16) -> bool) -> u16 {
    static FIRST: OnceLock<u16> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = *FIRST.get_or_init(|| first_port(ephemeral()));
    // Tests of several programs at once begin at different ones.
    let own = u16::try_from(std::process::id() * 61 % u32::from(PORTS)).unwrap();
    (0..PORTS)
        .map(|_| first + (own + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS)
        .find(|port| is_free(*port))
        .expect("no port is free")
}

/// The lowest that the kernel gives to connections.
fn ephemeral() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = text.split_whitespace().next();
    lowest.and_then(|n| n.parse().ok()).unwrap_or(32_768)
}

/// Where ports and those above them lie below these.
fn first_port(ephemeral: u16) -> u16 {
    ephemeral.saturating_sub(ABOVE + PORTS + 2_000).max(1_024)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_not_to_connections() {
        assert_eq!(first_port(32_768), 12_768);
        assert_eq!(first_port(1_024), 1_024);
        let ports = [free_port(), free_port(), free_ports()];
        assert!(ports[0] != ports[1] && ports[1] != ports[2], "{ports:?}");
        if ephemeral() > ABOVE + PORTS + 2_000 + 1_024 {
            assert!(ports.iter().all(|port| port + ABOVE < ephemeral()));
        }
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
        assert!(!is_free(ports[0]));
    }
}
