//! The payload side: known secrets in byte streams without keeping them, and host names off payloads.
//!
//! Pure: no clock, no IO; time comes with the payload. A learnt secret survives only as keyed hashes
//! ([`Matcher`]); bytes of payloads survive only as short, wiped-on-drop tails of live connections
//! ([`StreamTail`]), because writes split secrets anywhere. The engine calls [`scrub_stack`] after
//! each batch: `ring` and our own frames leave message bytes on the stack.

mod ages;
mod boundary;
mod coded;
mod confirm;
pub mod datagram;
mod encode;
mod filter;
mod forms;
mod h2;
mod hits;
mod host;
mod http;
mod keys;
mod learn;
mod logins;
mod matcher;
mod pem;
mod pieces;
mod presented;
mod quoted;
mod redact;
mod request;
mod scan;
mod sink;
mod stream;
mod strength;
mod tail;
mod talk;
mod text;
mod tls;
mod views;
mod websocket;
mod window;

#[cfg(test)]
mod tests;

pub use forms::{Form, Transform, forms};
pub use hits::Hits;
pub use host::host_name;
pub use keytrail_model::scrub_stack;
pub use learn::Learned;
pub use matcher::Matcher;
pub use pieces::Pieces;
pub use presented::Unknown;
pub use stream::{Chunk, Layer, Sent, StreamKey, Streams};
pub use strength::MIN_SECRET;
pub use tail::StreamTail;
pub use tls::{Hello, HelloAssembler, RecordHeader, looks_like_tls, record_header};
