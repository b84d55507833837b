//! Syslog of RFC 5424: a datagram each by UDP (RFC 5426) or to a socket such as /dev/log, or octets counted on TCP (RFC 6587,
//! 3.4.1) and on TLS (RFC 5425).
//!
//! Nothing of it is acknowledged by the receiver. By TCP and TLS a batch counts as delivered when the receiver's kernel has
//! all of it; where the receiver then goes away without having read everything, its kernel says so, and what was sent last
//! is sent again. By TLS the same is done for a receiver that goes without the word that TLS has for it (RFC 5425, 4.4): it
//! may have had something in hand. What is lost by UDP is lost.

mod socket;

use super::{Carrier, Delivered, Failure, Item};
use crate::format::{rfc3339, severity};
use crate::spec::SyslogSpec;
use keytrail_model::EventKind;
use keytrail_proto::v1::Event;
use socket::{Peer, Socket};
use std::io;
use std::time::Instant;

/// authpriv.
const FACILITY: u8 = 10;
/// Longest HOSTNAME and MSGID (RFC 5424, 6).
const HOSTNAME_MAX: usize = 255;
const MSGID_MAX: usize = 32;

pub(super) struct Syslog {
    spec: SyslogSpec,
    host: String,
    socket: Option<Socket>,
}

impl Syslog {
    pub fn new(spec: SyslogSpec, host: &str) -> Syslog {
        Syslog {
            spec,
            host: printable(host, HOSTNAME_MAX),
            socket: None,
        }
    }

    fn later(&self, error: &io::Error, rewind: bool) -> Failure {
        Failure::Later {
            why: format!("{}: {error}", self.spec.address),
            after: None,
            rewind,
        }
    }

    fn send(
        &self,
        socket: &mut Socket,
        items: &[Item],
        delivered: &mut Delivered,
    ) -> io::Result<()> {
        let messages = items
            .iter()
            .map(|item| message(&item.event, &item.line, &self.host));
        match socket {
            Socket::Connected(connection) => {
                let mut bytes = Vec::new();
                for message in messages {
                    bytes.extend_from_slice(message.len().to_string().as_bytes());
                    bytes.push(b' ');
                    bytes.extend_from_slice(&message);
                }
                connection.send(&bytes, Instant::now() + self.spec.timeout)
            }
            Socket::Udp(udp) => {
                for message in messages {
                    datagram(udp.send(&message), delivered)?;
                }
                // A receiver that is not there answers at once when it is near.
                match udp.take_error() {
                    Ok(Some(error)) => Err(error),
                    _ => Ok(()),
                }
            }
            Socket::Unix(unix) => {
                for message in messages {
                    datagram(unix.send(&message), delivered)?;
                }
                Ok(())
            }
        }
    }
}

impl Carrier for Syslog {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let mut delivered = Delivered::default();
        if let Some(Socket::Connected(connection)) = &mut self.socket {
            match connection.peer() {
                Peer::There => {}
                Peer::Closed => self.socket = None,
                Peer::Gone(error) => {
                    self.socket = None;
                    return Err(self.later(&error, true));
                }
            }
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                delivered.fresh = true;
                Socket::open(&self.spec).map_err(|e| self.later(&e, false))?
            }
        };
        // What was sent before on this connection may not have been read either.
        let rewind = matches!(socket, Socket::Connected(_)) && !delivered.fresh;
        self.send(&mut socket, items, &mut delivered)
            .map_err(|e| self.later(&e, rewind))?;
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
mod tests;
