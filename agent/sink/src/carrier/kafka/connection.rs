//! A connection to one broker: a request, and its answer.

use super::bytes::{Put as _, Take};
use super::fault::{Fault, LoginError};
use super::login::Login;
use super::protocol::{self, Api};
use crate::carrier::reach;
use crate::carrier::stream::Stream;
use crate::spec::KafkaSpec;
use rustls::ClientConnection;
use std::io;
use std::time::Instant;
use zeroize::Zeroizing;

/// Bytes of an answer. The largest is that of a topic's partitions.
const ANSWER_MAX: usize = 8 << 20;

pub(super) struct Connection {
    stream: Stream,
    client: String,
    /// Of the last request.
    number: i32,
}

impl Connection {
    /// Connects, asks whether the broker speaks what is needed, and logs in where the configuration says so.
    pub fn open(
        spec: &KafkaSpec,
        client: &str,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Connection, Fault> {
        let mut stream = Stream::Plain(reach::open(host, port, deadline)?);
        if spec.tls {
            let (config, name) = reach::tls(host, spec.ca_file.as_deref(), &[])?;
            let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
            stream = stream.encrypted(tls, deadline)?;
        }
        let mut this = Connection {
            stream,
            client: client.to_owned(),
            number: 0,
        };
        let mut wanted = vec![protocol::PRODUCE, protocol::METADATA];
        if spec.credentials_file.is_some() {
            wanted.extend([protocol::HANDSHAKE, protocol::AUTHENTICATE]);
        }
        let answer = this.call(protocol::VERSIONS, &[], deadline)?;
        if let Some(name) = protocol::lacking(&answer, &wanted).ok_or(Fault::Strange)? {
            return Err(Fault::Version(name));
        }
        if let Some(path) = &spec.credentials_file {
            let login = Login::read(path, spec.mechanism)?;
            this.log_in(&login, deadline)?;
        }
        Ok(this)
    }

    fn log_in(&mut self, login: &Login, deadline: Instant) -> Result<(), Fault> {
        let request = protocol::handshake(login.mechanism());
        let answer = self.call(protocol::HANDSHAKE, &request, deadline)?;
        let (code, offered) = protocol::shaken(&answer).ok_or(Fault::Strange)?;
        if !code.is_good() {
            return Err(LoginError::Mechanism(offered).into());
        }
        login.exchange(|token| {
            let request = protocol::authenticate(token);
            let answer = self.call(protocol::AUTHENTICATE, &request, deadline)?;
            match protocol::authenticated(&answer).ok_or(Fault::Strange)? {
                (code, _, token) if code.is_good() => Ok(token),
                (code, why, _) if why.is_empty() => Err(Fault::Said(code)),
                (_, why, _) => Err(LoginError::Refused(why).into()),
            }
        })
    }

    /// Sends a request and gives what is answered, without its head.
    pub fn call(&mut self, api: Api, body: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault> {
        self.number = self.number.wrapping_add(1);
        // It may have a password in it.
        let mut request = Zeroizing::new(Vec::with_capacity(body.len() + self.client.len() + 14));
        let length = body.len() + self.client.len() + 10;
        // A request is no larger than some megabytes.
        request.int32(length as i32);
        request.int16(api.key);
        request.int16(api.version);
        request.int32(self.number);
        request.string(&self.client);
        request.extend_from_slice(body);
        self.stream.send(&request, deadline)?;
        let mut head = [0; 8];
        self.fill(&mut head, deadline)?;
        let mut take = Take(&head);
        let length = take.int32().and_then(|n| usize::try_from(n).ok());
        let length = length.and_then(|n| n.checked_sub(4)).unwrap_or(usize::MAX);
        if length > ANSWER_MAX || take.int32() != Some(self.number) {
            return Err(Fault::Strange);
        }
        let mut answer = vec![0; length];
        self.fill(&mut answer, deadline)?;
        Ok(answer)
    }

    fn fill(&mut self, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !into.is_empty() {
            let n = self.stream.receive(into, deadline)?;
            into = into.split_at_mut(n).1;
        }
        Ok(())
    }
}
