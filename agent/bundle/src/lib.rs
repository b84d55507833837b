//! The bundle of a capture: a tar archive (POSIX ustar, flat names) in zstd frames, one frame a member, `manifest.json`
//! first; beside it a detached Ed25519 signature over all its bytes (`.sig`, 64 bytes) and the public key (`.pub`, PEM).
//! `tar --zstd -xf`, `zstd -d` and `openssl pkeyutl -verify -rawin` read all three.
//!
//! What is checked is hostile: it is never extracted, names are compared and never used as paths, every size is bounded.

mod frames;
mod key;
mod manifest;
mod members;
mod pack;
mod ustar;
mod verify;

pub use key::{KeyError, PublicKey, SigningKey};
pub use manifest::{FORMAT, FileEntry, MANIFEST, Manifest, Tool, hex, sha256_of};
pub use pack::{Packed, entry_of, pack};
pub use verify::{Change, Report, SignatureState, read_member, verify};

/// Longest bundle that is made or checked, bytes.
pub const MAX_BUNDLE: u64 = 1 << 30;
/// Most bytes that a bundle may become when it is decompressed.
pub const MAX_CONTENT: u64 = if cfg!(test) { 64 << 20 } else { 8 << 30 };
/// Most members of a bundle.
pub const MAX_MEMBERS: usize = 1_000;
