//! Messages into a stream of NATS JetStream (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
//!
//! Each event is a message with its id as `Nats-Msg-Id`, by which the stream leaves out what it has already, within its
//! window of duplicates. A batch is delivered when the stream has acknowledged each of its messages. The published client
//! brings a runtime of its own, reconnects when it likes and asks the C library for addresses (see `resolve`): of all
//! that a sink does, it needs to connect, to publish and to read acknowledgements.

mod fault;
mod login;
mod protocol;
mod wire;

use super::random::random;
use super::{Carrier, Delivered, Failure, Item, reach};
use crate::format::{Reporter, uid};
use crate::spec::NatsSpec;
use fault::{ConnectionError, Fault, LoginError};
use login::Login;
use protocol::{Ack, Info, Message, Operation};
use rustls::ClientConnection;
use std::fmt::Write as _;
use std::io;
use std::time::Instant;
use wire::Wire;

/// What a server takes when it does not say otherwise, bytes.
const PAYLOAD_MAX: usize = 1 << 20;

pub(super) struct Nats {
    spec: NatsSpec,
    version: String,
    name: String,
    connection: Option<Connection>,
}

struct Connection {
    wire: Wire,
    /// Acknowledgements come to `INBOX.N`, N counting messages.
    inbox: String,
    sent: u64,
    payload_max: usize,
}

impl Nats {
    pub fn new(spec: NatsSpec, reporter: &Reporter) -> Nats {
        Nats {
            spec,
            version: reporter.version.clone(),
            name: format!("keytrail {}", reporter.host),
            connection: None,
        }
    }

    fn connect(&self) -> Result<Connection, ConnectionError> {
        let deadline = Instant::now() + self.spec.timeout;
        let mut wire = self.open(deadline)?;
        let Operation::Info(info) = wire.next(deadline)? else {
            return Err(ConnectionError::Strange);
        };
        if !info.headers || !info.jetstream {
            return Err(ConnectionError::NoStreams);
        }
        if self.spec.server.tls {
            wire = wire.encrypted(self.tls()?, deadline)?;
        } else if info.tls_required {
            return Err(ConnectionError::WantsTls);
        }
        let login = match &self.spec.credentials_file {
            Some(path) => Login::read(path)?,
            None => Login::Nobody,
        };
        let hello = self.hello(&login, &info)?;
        let inbox = format!(
            "_INBOX.{}",
            // Who knows it could acknowledge.
            random::<16>().ok_or(ConnectionError::Random)?
        );
        let mut text = zeroize::Zeroizing::new(b"CONNECT ".to_vec());
        serde_json::to_writer(&mut *text, &hello).map_err(io::Error::from)?;
        text.extend_from_slice(format!("\r\nSUB {inbox}.* 1\r\nPING\r\n").as_bytes());
        wire.send(&text, deadline)?;
        loop {
            match wire.next(deadline)? {
                Operation::Pong => break,
                Operation::Ping => wire.send(b"PONG\r\n", deadline)?,
                Operation::Err(why) => return Err(ConnectionError::Said(why)),
                Operation::Info(_) | Operation::Ok | Operation::Message(_) => {}
            }
        }
        Ok(Connection {
            wire,
            inbox,
            sent: 0,
            payload_max: info.max_payload.unwrap_or(PAYLOAD_MAX),
        })
    }

    fn open(&self, deadline: Instant) -> io::Result<Wire> {
        let server = &self.spec.server;
        reach::open(&server.host, server.port, deadline).map(Wire::of)
    }

    fn tls(&self) -> Result<ClientConnection, ConnectionError> {
        let ca_file = self.spec.ca_file.as_deref();
        let (config, name) = reach::tls(&self.spec.server.host, ca_file, &[])?;
        Ok(ClientConnection::new(config, name)?)
    }

    /// What a client says of itself.
    fn hello(&self, login: &Login, info: &Info) -> Result<serde_json::Value, LoginError> {
        let mut hello = serde_json::json!({
            "verbose": false,
            "pedantic": false,
            "tls_required": self.spec.server.tls,
            "lang": "keytrail",
            "version": self.version,
            "name": self.name,
            "protocol": 1,
            "echo": false,
            "headers": true,
            "no_responders": true,
        });
        login.say(&mut hello, info.nonce.as_deref())?;
        Ok(hello)
    }

    /// Publishes a batch and waits for its acknowledgements.
    fn publish(&self, connection: &mut Connection, items: &[Item]) -> Result<Delivered, Fault> {
        let deadline = Instant::now() + self.spec.timeout;
        let mut delivered = Delivered::default();
        let mut out = Vec::new();
        let first = connection.sent;
        for item in items {
            if !self.message(connection, item, &mut out) {
                delivered.left_out += 1;
                delivered.why = "they are larger than the server takes".into();
            }
        }
        connection.wire.send(&out, deadline)?;
        let mut waiting: Vec<bool> = vec![true; (connection.sent - first) as usize];
        let mut left = waiting.len();
        while left > 0 {
            let answer = match connection.wire.next(deadline)? {
                Operation::Ping => {
                    connection.wire.send(b"PONG\r\n", deadline)?;
                    continue;
                }
                Operation::Err(why) => {
                    return Err(ConnectionError::Said(why).into());
                }
                Operation::Info(_) | Operation::Ok | Operation::Pong => continue,
                Operation::Message(message) => message,
            };
            let Some(slot) = number(&connection.inbox, &answer)
                .and_then(|n| n.checked_sub(first + 1))
                .and_then(|at| waiting.get_mut(usize::try_from(at).ok()?))
            else {
                // Of a batch that was given up.
                continue;
            };
            if std::mem::take(slot) {
                left -= 1;
            }
            match Ack::of(&answer) {
                Ack::Stored => {}
                Ack::Large => {
                    delivered.left_out += 1;
                    delivered.why = "they are larger than the stream takes".into();
                }
                Ack::Nobody => return Err(Fault::NoStream(self.spec.subject.clone())),
                Ack::Failed(why) => return Err(Fault::Stream(why)),
                Ack::Strange => return Err(Fault::Stranger),
            }
        }
        Ok(delivered)
    }

    /// One message; not when the server would not take it.
    fn message(&self, connection: &mut Connection, item: &Item, out: &mut Vec<u8>) -> bool {
        let id = uid(&item.event);
        let mut head = String::from("NATS/1.0\r\n");
        if !id.is_empty() {
            // Ids are made by the agent: digits and colons. Writing to a string does not fail.
            let _ = write!(head, "Nats-Msg-Id: {id}\r\n");
        }
        head.push_str("\r\n");
        let total = head.len() + item.line.len();
        if total > connection.payload_max {
            return false;
        }
        connection.sent += 1;
        let (subject, inbox, n) = (&self.spec.subject, &connection.inbox, connection.sent);
        let line = format!("HPUB {subject} {inbox}.{n} {} {total}\r\n", head.len());
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&item.line);
        out.extend_from_slice(b"\r\n");
        true
    }
}

impl Carrier for Nats {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let (mut connection, fresh) = match self.connection.take() {
            Some(connection) => (connection, false),
            None => (self.connect().map_err(Failure::later)?, true),
        };
        let mut done = self.publish(&mut connection, items);
        if matches!(done, Err(Fault::Connection(_))) && !fresh {
            // It was left alone for long, or the server was started anew: that is no failure yet.
            connection = self.connect().map_err(Failure::later)?;
            done = self.publish(&mut connection, items);
        }
        match done {
            Ok(delivered) => {
                self.connection = Some(connection);
                Ok(delivered)
            }
            Err(fault) => {
                if !matches!(fault, Fault::Connection(_)) {
                    self.connection = Some(connection);
                }
                Err(Failure::later(fault))
            }
        }
    }
}

/// Which message this acknowledges.
fn number(inbox: &str, answer: &Message) -> Option<u64> {
    let rest = answer.subject.strip_prefix(inbox)?;
    rest.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests;
