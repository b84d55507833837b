//! What the targets share: a matcher that knows one secret, and writes of one connection.

use keytrail_model::{Credential, Pid};
use keytrail_payload::{Chunk, Layer, Matcher, StreamKey, Streams};
use std::sync::Arc;

pub const TOKEN: &[u8] = b"ghp_w7Rk2ZpQ9xLm4TnV8cYb1HsJd6FgE3aUoXiP";

/// Most bytes a connection may keep.
const MOST: usize = 16 * 1024 * 1024;

pub fn matcher() -> Matcher {
    let mut matcher = Matcher::new(&[42; 32]);
    let credential = Credential {
        kind: "fuzz".to_owned(),
        identifier: String::new(),
        fingerprint: "kt1:fuzz".to_owned(),
        confidence: 1.0,
        expires: None,
        rule: String::new(),
        privilege: 0,
        attack: String::new(),
    };
    matcher.learn(Arc::new(credential), "", TOKEN);
    matcher
}

/// Sends `prefix`, then `bytes` in writes whose sizes the first bytes say; after them the secret in clear has to be
/// found unless the connection is in the middle of something.
pub fn speak(layer: Layer, prefix: &[u8], bytes: &[u8]) {
    let matcher = matcher();
    let mut streams = Streams::new();
    let key = StreamKey {
        pid: Pid { tgid: 1, start: 1 },
        layer,
        id: 1,
        ends: Default::default(),
    };
    let (sizes, mut rest) = bytes.split_at(bytes.len().min(4));
    let mut at = 0;
    let mut send = |part: &[u8], missing: u64| {
        at += 1;
        let chunk = Chunk {
            boot_ns: at,
            bytes: part,
            total: part.len() as u64 + missing,
            offset: 0,
            truncated: missing > 0,
        };
        match layer {
            Layer::Tls => {
                streams.on_payload(&matcher, key, chunk);
            }
            Layer::Socket => {
                streams.on_send(&matcher, key, chunk);
            }
        }
        assert!(streams.kept_bytes() < MOST);
    };
    send(prefix, 0);
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((usize::from(size) + 1).min(rest.len()));
        rest = later;
        // Now and then a write is not captured whole.
        send(now, if size % 16 == 15 { u64::from(size) } else { 0 });
    }
}
