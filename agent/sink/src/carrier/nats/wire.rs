//! The connection: operations in and bytes out until a deadline.

use super::protocol::{self, LINE_MAX, Operation, Parsed};
use crate::carrier::stream::Stream;
use rustls::ClientConnection;
use std::io;
use std::net::TcpStream;
use std::time::Instant;

pub(super) struct Wire {
    stream: Stream,
    /// Read, and not yet understood.
    buffer: Vec<u8>,
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
        Ok(Wire {
            stream: self.stream.encrypted(tls, deadline)?,
            buffer: Vec::new(),
        })
    }

    pub fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        self.stream.send(bytes, deadline)
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
            let n = self.stream.receive(&mut chunk, deadline)?;
            self.buffer.extend_from_slice(&chunk[..n]);
        }
    }
}
