//! Where users look: what the ledger keeps goes on to files, syslog, webhooks and the like, and findings to commands.
//!
//! The ledger is the queue. Each sink and each response has a place in it of its own (`cursor`), which moves when the
//! receiver has what came before: at least once, in order. Each has a thread of its own (`worker`), which reads the
//! ledger by connections of its own: a receiver that is slow or gone costs the agent a thread that sleeps.
//! `format` makes bytes of an event, `carrier` brings them there. `meters` tell what the agent counts, for which no ledger is
//! needed.

mod backoff;
mod bell;
mod carrier;
mod cursor;
pub mod format;
mod meters;
mod progress;
mod resolve;
mod sinks;
mod spec;
mod worker;

pub use bell::Bell;
pub use meters::{Measures, Meters};
pub use progress::{Redact, ReportGap};
pub use sinks::{Setup, SinkError, Sinks};
pub use spec::{
    Body, Broker, CarrierSpec, CommandSpec, FileSpec, Filter, Format, KafkaSpec, LakeSpec,
    MeterSpec, NatsServer, NatsSpec, OcsfClass, OtlpProtocol, OtlpSpec, ResponseSpec, S3Spec,
    SaslMechanism, Severity, SinkSpec, SyslogAddress, SyslogSpec, Temporality, Url, WebhookSpec,
    is_subject, is_topic,
};
