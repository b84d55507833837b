//! What a payload asked for: facts of a request's head, never its headers or its body.

use serde::{Deserialize, Serialize};

/// One request, or one answer of a process that serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `http/1.1`, `h2`, `grpc` or `websocket`.
    pub protocol: String,
    /// Empty when the head was not seen, or not whole.
    pub method: String,
    /// From `Host`, `:authority` or the target.
    pub host: String,
    /// The path without its query, parts that look like ids or secrets as `{id}`.
    pub path: String,
    /// Without parameters.
    pub content_type: String,
    /// Length of the body as its head states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_length: Option<u64>,
    /// Bytes of it in this payload, head and framing included.
    pub bytes: u64,
    /// Whose account or which repository it addresses, at services whose paths we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Of an answer: 2 for 2xx and so on. Of a request 0: what it was answered is not seen.
    #[serde(default, skip_serializing_if = "is_none")]
    pub status_class: u32,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde wants"
)]
fn is_none(class: &u32) -> bool {
    *class == 0
}

/// What is addressed at a known service: the host alone tells little where all the world has an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// For example `github`, `aws_s3`, `container_registry`.
    pub service: String,
    /// `repository`, `bucket`, `project`, `account`, `package`, `channel` ...
    pub kind: String,
    pub name: String,
}

/// What could not be decoded, and so was inspected in its encoded form only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecoded {
    /// Header fields that refer to something sent before we looked.
    pub headers: u32,
    /// Messages whose decoded form is larger than what is inspected, or nested too deeply, or of an encoding that
    /// is not decoded.
    pub cut: u32,
    /// Times the framing of a connection was lost, and messages that were cut by it.
    pub lost: u32,
}

impl Undecoded {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
