//! Syslog of RFC 5424: a datagram each by UDP (RFC 5426) or to a socket such as /dev/log, or octets counted on TCP (RFC 6587).
//!
//! Nothing of it is acknowledged by the receiver. By TCP a batch counts as delivered when the receiver's kernel has all of
//! it; where the receiver then goes away without having read everything, the kernel says so, and what was sent last is
//! sent again. What is lost by UDP is lost.

use super::{Carrier, Delivered, Failure, Item};
use crate::format::{rfc3339, severity};
use crate::resolve;
use crate::spec::{SyslogAddress, SyslogSpec};
use keytrail_model::EventKind;
use keytrail_proto::v1::Event;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// authpriv.
const FACILITY: u8 = 10;
/// Longest HOSTNAME and MSGID (RFC 5424, 6).
const HOSTNAME_MAX: usize = 255;
const MSGID_MAX: usize = 32;
/// How often it is looked whether everything arrived.
const LOOK: Duration = Duration::from_millis(2);

pub(super) struct Syslog {
    spec: SyslogSpec,
    host: String,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl Syslog {
    pub fn new(spec: SyslogSpec, host: &str) -> Syslog {
        Syslog {
            spec,
            host: printable(host, HOSTNAME_MAX),
            socket: None,
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        let timeout = self.spec.timeout;
        match &self.spec.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(timeout))?;
                Ok(Socket::Unix(socket))
            }
            SyslogAddress::Udp(address) => first(address, timeout, |to| {
                let any: IpAddr = match to {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(to)?;
                Ok(Socket::Udp(socket))
            }),
            SyslogAddress::Tcp(address) => first(address, timeout, |to| {
                let socket = TcpStream::connect_timeout(&to, timeout)?;
                socket.set_write_timeout(Some(timeout))?;
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }),
        }
    }
}

/// By the first address that works.
fn first<T>(
    address: &str,
    timeout: Duration,
    mut connect: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::other("the name has no address");
    for to in resolve::addresses(address, timeout)? {
        match connect(to) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Carrier for Syslog {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let mut delivered = Delivered::default();
        let said = |error: &io::Error| format!("{}: {error}", self.spec.address);
        if let Some(Socket::Tcp(stream)) = &self.socket {
            match peer(stream) {
                Peer::There => {}
                Peer::Closed => self.socket = None,
                Peer::Reset(error) => {
                    let why = said(&error);
                    self.socket = None;
                    return Err(Failure::Later {
                        why,
                        after: None,
                        rewind: true,
                    });
                }
            }
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                delivered.fresh = true;
                self.connect().map_err(|e| Failure::later(said(&e)))?
            }
        };
        let messages = items
            .iter()
            .map(|item| message(&item.event, &item.line, &self.host));
        match &mut socket {
            Socket::Tcp(stream) => {
                let mut bytes = Vec::new();
                for message in messages {
                    bytes.extend_from_slice(message.len().to_string().as_bytes());
                    bytes.push(b' ');
                    bytes.extend_from_slice(&message);
                }
                let sent = stream
                    .write_all(&bytes)
                    .and_then(|()| arrived(stream, self.spec.timeout));
                sent.map_err(|e| Failure::Later {
                    why: said(&e),
                    after: None,
                    // What was sent before on this connection may not have been read either.
                    rewind: !delivered.fresh,
                })?;
            }
            Socket::Udp(udp) => {
                for message in messages {
                    let sent = udp.send(&message);
                    datagram(sent, &mut delivered).map_err(|e| Failure::later(said(&e)))?;
                }
                // A receiver that is not there answers at once when it is near.
                if let Ok(Some(error)) = udp.take_error() {
                    return Err(Failure::later(said(&error)));
                }
            }
            Socket::Unix(unix) => {
                for message in messages {
                    let sent = unix.send(&message);
                    datagram(sent, &mut delivered).map_err(|e| Failure::later(said(&e)))?;
                }
            }
        }
        self.socket = Some(socket);
        Ok(delivered)
    }
}

/// A datagram that is too long for the way never arrives; other errors may pass.
fn datagram(sent: io::Result<usize>, delivered: &mut Delivered) -> io::Result<()> {
    match sent {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
            delivered.left_out += 1;
            "longer than a datagram may be; use tcp".clone_into(&mut delivered.why);
            Ok(())
        }
        other => other.map(drop),
    }
}

enum Peer {
    There,
    /// In good order: it has read everything.
    Closed,
    /// It went away and left something unread.
    Reset(io::Error),
}

fn peer(stream: &TcpStream) -> Peer {
    let mut buffer = [0; 512];
    loop {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(stream, &mut buffer, flags) {
            Ok((_, 0)) => return Peer::Closed,
            // What it says is of no interest.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Peer::There,
            Err(error) => return Peer::Reset(error.into()),
        }
    }
}

/// Waits until the receiver's kernel has acknowledged everything.
fn arrived(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = unacknowledged(stream)?;
        match peer(stream) {
            Peer::Reset(error) => return Err(error),
            _ if left == 0 => return Ok(()),
            Peer::Closed => return Err(io::ErrorKind::ConnectionAborted.into()),
            Peer::There => {}
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{left} bytes were not acknowledged in time"),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

fn unacknowledged(stream: &TcpStream) -> io::Result<i32> {
    /// Bytes in the send queue, in flight included (tcp(7)); on sockets TIOCOUTQ.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: on a TCP socket this call writes one int, which is what the getter has room for.
    let bytes =
        unsafe { rustix::ioctl::ioctl(stream, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) }?;
    Ok(bytes)
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG`.
fn message(event: &Event, line: &[u8], host: &str) -> Vec<u8> {
    let level = match severity(event) {
        _ if event.gap.is_some() => 4,
        5 => 2,
        4 => 3,
        3 => 4,
        2 => 5,
        _ => 6,
    };
    let priority = FACILITY * 8 + level;
    // No more than six digits of a second.
    let time = match event.time {
        Some(time) => rfc3339(Some(&time), 6),
        None => "-".to_owned(),
    };
    let kind = printable(EventKind::word_of(event.kind), MSGID_MAX);
    let pid = std::process::id();
    let mut out = format!("<{priority}>1 {time} {host} keytrail {pid} {kind} - ").into_bytes();
    out.extend_from_slice(line);
    out
}

/// PRINTUSASCII of at most so many characters, or the nil value.
fn printable(text: &str, most: usize) -> String {
    let text: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::sync::Arc;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn items(lines: &[&str]) -> Vec<Item> {
        let item = |line: &&str| Item {
            event: Arc::new(samples::sent()),
            line: line.as_bytes().to_vec(),
        };
        lines.iter().map(item).collect()
    }

    fn syslog(address: SyslogAddress) -> Syslog {
        let timeout = TIMEOUT;
        Syslog::new(SyslogSpec { address, timeout }, "a host.example")
    }

    #[test]
    fn a_message_has_the_head_of_the_rfc() {
        let text = message(&samples::sent(), b"{}", "h");
        let text = String::from_utf8(text).unwrap();
        let pid = std::process::id();
        assert_eq!(
            text,
            format!("<86>1 2023-11-14T22:13:20.123456Z h keytrail {pid} credential_sent - {{}}")
        );
        let urgent = message(&samples::finding(), b"", "h");
        assert!(urgent.starts_with(b"<83>1 "), "{urgent:?}");
        assert_eq!(printable("", 9), "-");
        assert_eq!(printable("a b\u{e9}\n\x1b[c", 3), "ab[");
    }

    #[test]
    fn octets_are_counted_on_tcp_and_a_receiver_that_left_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut syslog = syslog(SyslogAddress::Tcp(address));
        assert!(syslog.deliver(&items(&["one", "two"])).unwrap().fresh);
        let (mut peer, _) = listener.accept().unwrap();
        let mut read = vec![0; 4096];
        let n = peer.read(&mut read).unwrap();
        let text = String::from_utf8(read[..n].to_vec()).unwrap();
        let (length, rest) = text.split_once(' ').unwrap();
        let first = &rest[..length.parse().unwrap()];
        assert!(
            first.starts_with("<86>1 ") && first.ends_with(" - one"),
            "{first}"
        );
        assert!(!syslog.deliver(&items(&["three"])).unwrap().fresh);
        // It leaves with something unread.
        drop(peer);
        let failed = loop {
            match syslog.deliver(&items(&["four"])) {
                Err(failure) => break failure,
                Ok(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(
            matches!(failed, Failure::Later { rewind: true, .. }),
            "{failed:?}"
        );
        assert!(syslog.deliver(&items(&["five"])).unwrap().fresh);
        drop(listener);
    }

    #[test]
    fn one_datagram_each_and_what_is_too_long_is_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
        let address = receiver.local_addr().unwrap().to_string();
        let mut udp = syslog(SyslogAddress::Udp(address));
        let long = "x".repeat(70_000);
        let done = udp.deliver(&items(&["one", &long, "two"])).unwrap();
        assert_eq!(done.left_out, 1);
        let mut buffer = [0; 4096];
        for line in ["one", "two"] {
            let n = receiver.recv(&mut buffer).unwrap();
            assert!(buffer[..n].ends_with(format!(" - {line}").as_bytes()));
        }
        drop(receiver);
        // Nobody is there: the second try knows at the latest.
        assert!((0..2).any(|_| udp.deliver(&items(&["three"])).is_err()));
    }

    #[test]
    fn to_a_socket_of_datagrams() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut unix = syslog(SyslogAddress::Unix(path.clone()));
        assert!(unix.deliver(&items(&["none"])).is_err());
        let receiver = UnixDatagram::bind(&path).unwrap();
        unix.deliver(&items(&["one"])).unwrap();
        let mut buffer = [0; 4096];
        let n = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..n].ends_with(b" - one"));
    }
}
