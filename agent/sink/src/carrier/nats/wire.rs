//! The connection: bytes in and out until a deadline, plain or by TLS.

use super::protocol::{self, LINE_MAX, Operation, Parsed};
use crate::carrier::reach::{LATE, left};
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

pub(super) struct Wire {
    stream: Stream,
    /// Read, and not yet understood.
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(into),
            Stream::Tls(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }
}

impl Wire {
    pub fn of(stream: TcpStream) -> Wire {
        Wire {
            stream: Stream::Plain(stream),
            buffer: Vec::new(),
        }
    }

    /// The same, by TLS from here on.
    pub fn encrypted(self, tls: ClientConnection, deadline: Instant) -> io::Result<Wire> {
        if !self.buffer.is_empty() {
            // Somebody put words in before there was anything to prove them.
            return Err(io::Error::other("the server went on before the handshake"));
        }
        let Stream::Plain(socket) = self.stream else {
            return Ok(self);
        };
        let mut stream = Box::new(StreamOwned::new(tls, socket));
        while stream.conn.is_handshaking() {
            stream.sock.set_read_timeout(Some(left(deadline)?))?;
            stream.sock.set_write_timeout(Some(left(deadline)?))?;
            stream.conn.complete_io(&mut stream.sock).map_err(timed)?;
        }
        Ok(Wire {
            stream: Stream::Tls(stream),
            buffer: Vec::new(),
        })
    }

    pub fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let time = Some(left(deadline)?);
            self.stream.socket().set_write_timeout(time)?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(timed(e)),
            }
        }
        match &mut self.stream {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush().map_err(timed),
        }
    }

    /// The next operation of the server.
    pub fn next(&mut self, deadline: Instant) -> io::Result<Operation> {
        let mut chunk = [0; 16 << 10];
        loop {
            match protocol::parse(&self.buffer) {
                Parsed::Whole(operation, length) => {
                    self.buffer.drain(..length);
                    return Ok(operation);
                }
                Parsed::Part => {}
                Parsed::Wrong => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "what it answers is not NATS",
                    ));
                }
            }
            // The parser refuses what would not fit.
            debug_assert!(self.buffer.len() <= 2 * LINE_MAX + chunk.len());
            self.stream
                .socket()
                .set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(timed(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(timed(e)),
            }
        }
    }
}

/// A socket whose time is up says that it would block.
fn timed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, LATE),
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it closed the connection"),
        _ => error,
    }
}
