//! A connection to a receiver, plain or by TLS: bytes in and out until a deadline.

use super::reach::{LATE, left};
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// The same socket, by TLS from here on.
    ///
    /// # Errors
    /// The handshake fails, or is not done in time.
    pub fn encrypted(self, tls: ClientConnection, deadline: Instant) -> io::Result<Stream> {
        let Stream::Plain(socket) = self else {
            return Ok(self);
        };
        let mut stream = Box::new(StreamOwned::new(tls, socket));
        while stream.conn.is_handshaking() {
            stream.sock.set_read_timeout(Some(left(deadline)?))?;
            stream.sock.set_write_timeout(Some(left(deadline)?))?;
            stream.conn.complete_io(&mut stream.sock).map_err(timed)?;
        }
        Ok(Stream::Tls(stream))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection fails, or does not take it in time.
    pub fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.socket().set_write_timeout(Some(left(deadline)?))?;
            let written = match self {
                Stream::Plain(socket) => socket.write(bytes),
                Stream::Tls(stream) => stream.write(bytes),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(timed(e)),
            }
        }
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => stream.flush().map_err(timed),
        }
    }

    /// What comes next, one byte at least.
    ///
    /// # Errors
    /// The connection fails or is closed, or nothing comes in time.
    pub fn receive(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            self.socket().set_read_timeout(Some(left(deadline)?))?;
            let read = match self {
                Stream::Plain(socket) => socket.read(into),
                Stream::Tls(stream) => stream.read(into),
            };
            match read {
                Ok(0) => return Err(timed(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => return Ok(n),
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
