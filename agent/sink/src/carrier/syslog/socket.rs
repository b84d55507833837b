//! The ways to a receiver of syslog, and what is known of whether it has read.

use crate::carrier::reach;
use crate::carrier::stream::Stream;
use crate::resolve;
use crate::spec::{SyslogAddress, SyslogSpec};
use rustls::ClientConnection;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// How often it is looked whether everything arrived.
const LOOK: Duration = Duration::from_millis(2);
/// How long the last word may take.
const GOODBYE: Duration = Duration::from_millis(100);

pub(super) enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Connected(Connection),
}

/// By TCP or by TLS.
pub(super) struct Connection(Stream);

pub(super) enum Peer {
    There,
    /// In good order: it has read everything.
    Closed,
    /// It went away and may have left something unread.
    Gone(io::Error),
}

impl Socket {
    pub fn open(spec: &SyslogSpec) -> io::Result<Socket> {
        let timeout = spec.timeout;
        let deadline = Instant::now() + timeout;
        match &spec.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(timeout))?;
                Ok(Socket::Unix(socket))
            }
            SyslogAddress::Udp(address) => udp(address, timeout).map(Socket::Udp),
            SyslogAddress::Tcp(address) => {
                let (host, port) = parts(address)?;
                let stream = Stream::Plain(reach::open(host, port, deadline)?);
                Ok(Socket::Connected(Connection(stream)))
            }
            SyslogAddress::Tls(address) => {
                let (host, port) = parts(address)?;
                let (config, name) = reach::tls(host, spec.ca_file.as_deref(), &[])?;
                let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
                let stream = Stream::Plain(reach::open(host, port, deadline)?);
                let stream = stream.encrypted(tls, deadline)?;
                Ok(Socket::Connected(Connection(stream)))
            }
        }
    }
}

/// To the first address that works.
fn udp(address: &str, timeout: Duration) -> io::Result<UdpSocket> {
    let connect = |to: SocketAddr| {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket)
    };
    let mut last = io::Error::other("the name has no address");
    for to in resolve::addresses(address, timeout)? {
        match connect(to) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `HOST:PORT`, as the configuration has it.
fn parts(address: &str) -> io::Result<(&str, u16)> {
    address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "is not HOST:PORT"))
}

impl Connection {
    /// Sends these bytes and waits until the receiver's kernel has acknowledged them all.
    pub fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        self.0.send(bytes, deadline)?;
        loop {
            let left = unacknowledged(self.0.socket())?;
            match self.peer() {
                Peer::Gone(error) => return Err(error),
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

    /// Whether the receiver is still there, without waiting.
    pub fn peer(&mut self) -> Peer {
        let mut buffer = [0; 4096];
        // By TLS's own word. Its kernel may still say that something was left unread.
        let mut closed = false;
        loop {
            let flags = rustix::net::RecvFlags::DONTWAIT;
            let n = match rustix::net::recv(self.0.socket(), &mut buffer, flags) {
                Ok((_, n)) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if closed => return Peer::Closed,
                Err(rustix::io::Errno::AGAIN) => return Peer::There,
                Err(error) => return Peer::Gone(error.into()),
            };
            match &mut self.0 {
                _ if closed && n == 0 => return Peer::Closed,
                Stream::Plain(_) if n == 0 => return Peer::Closed,
                // What it says is of no interest.
                Stream::Plain(_) => {}
                Stream::Tls(_) if closed => {}
                Stream::Tls(stream) => match said(&mut stream.conn, &buffer[..n]) {
                    Ok(is_closed) => closed = is_closed,
                    Err(error) => return Peer::Gone(error),
                },
            }
        }
    }
}

/// Whoever closes a connection by TLS says so (RFC 5425, 4.4).
impl Drop for Connection {
    fn drop(&mut self) {
        if let Stream::Tls(stream) = &mut self.0 {
            stream.conn.send_close_notify();
            // A receiver that is gone does not hear it.
            let _ = stream.sock.set_write_timeout(Some(GOODBYE));
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

/// Takes records of TLS (none: the end of the connection), and tells whether the receiver has closed it as TLS does. Alerts
/// are errors: by TLS 1.3 a receiver refuses a client only after the client's handshake is done.
fn said(tls: &mut ClientConnection, mut records: &[u8]) -> io::Result<bool> {
    if records.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it closed the connection without a word",
        ));
    }
    let mut closed = false;
    while !records.is_empty() && !closed {
        tls.read_tls(&mut records)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        closed = state.peer_has_closed();
        let mut text = vec![0; state.plaintext_bytes_to_read()];
        tls.reader().read_exact(&mut text)?;
    }
    Ok(closed)
}

fn unacknowledged(stream: &TcpStream) -> io::Result<i32> {
    /// Bytes in the send queue, in flight included (tcp(7)); on sockets TIOCOUTQ.
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: on a TCP socket this call writes one int, which is what the getter has room for.
    let bytes =
        unsafe { rustix::ioctl::ioctl(stream, rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) }?;
    Ok(bytes)
}
