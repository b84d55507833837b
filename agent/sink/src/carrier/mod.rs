//! The ways by which events go. Each takes a batch and says what became of it; none keeps anything for later: the ledger
//! does.

#[cfg(test)]
mod certificate;
mod collector;
mod command;
mod file;
mod grpc;
mod http;
mod kafka;
mod nats;
mod otlp;
mod random;
mod reach;
mod s3;
mod stream;
mod syslog;
mod webhook;

pub(crate) use collector::Collector;

use crate::format::Reporter;
use crate::progress::Redact;
use crate::spec::CarrierSpec;
use keytrail_proto::v1::Event;
use std::sync::Arc;
use std::time::Duration;

/// An event and its line, or whatever its format makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub event: Arc<Event>,
    pub line: Vec<u8>,
}

/// A batch that arrived.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Events that this way cannot take, and why.
    pub left_out: u64,
    pub why: String,
    /// The first batch of a connection.
    pub fresh: bool,
}

/// A batch that did not arrive, or not wholly.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another try may succeed.
    Later {
        why: String,
        /// The receiver asks for this much time.
        after: Option<Duration>,
        /// The receiver went away without reading all that was sent to it on this connection.
        rewind: bool,
    },
    /// The receiver does not want these events.
    Refused(String),
}

impl Failure {
    pub fn later(why: impl ToString) -> Failure {
        Failure::Later {
            why: why.to_string(),
            after: None,
            rewind: false,
        }
    }
}

pub(crate) trait Carrier: Send {
    /// Delivers all of these or fails. Returns when the receiver has them, as far as this way lets that be known.
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure>;
}

/// The way that a specification asks for. Nothing is opened yet.
pub(crate) fn carrier(
    spec: &CarrierSpec,
    json: bool,
    reporter: &Reporter,
    redact: &Redact,
) -> Box<dyn Carrier> {
    match spec {
        CarrierSpec::File(spec) => Box::new(file::FileCarrier::new(spec.clone())),
        CarrierSpec::Syslog(spec) => Box::new(syslog::Syslog::new(spec.clone(), &reporter.host)),
        CarrierSpec::Webhook(spec) => {
            Box::new(webhook::Webhook::new(spec.clone(), json, &reporter.version))
        }
        CarrierSpec::Otlp(spec) => Box::new(otlp::Otlp::new(spec.clone(), reporter.clone())),
        CarrierSpec::Nats(spec) => Box::new(nats::Nats::new(spec.clone(), reporter)),
        CarrierSpec::Kafka(spec) => Box::new(kafka::Kafka::new(spec.clone(), reporter)),
        CarrierSpec::S3(spec) => Box::new(s3::S3::new(spec.clone(), reporter)),
        CarrierSpec::Command(spec) => Box::new(command::Command::new(spec.clone(), redact.clone())),
    }
}
