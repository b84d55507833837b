//! `manifest.json`: what is in the bundle, by whom it was made, and everything else the capture says of itself.

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The first member of a bundle.
pub const MANIFEST: &str = "manifest.json";
/// Version of the layout.
pub const FORMAT: &str = "keytrail-bundle/1";
/// Longest manifest that is read, bytes.
pub(crate) const MAX_MANIFEST: usize = 16 << 20;
/// Pieces a file is hashed in beside its whole, so that a change can be found in it; at most.
const PIECES: u64 = 1_024;
/// Shortest piece, bytes.
const PIECE_MIN: u64 = 1_024;
/// Bytes of a piece's hash that are kept: it finds a change, the hash of the whole proves it.
const PIECE_HASH: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub tool: Tool,
    /// SHA-256 of the public key that checks the signature (its DER form), hex.
    pub signing_key: String,
    pub files: Vec<FileEntry>,
    /// What the capture says of itself: times, host, losses. Read by people, not needed to check the bundle.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

/// The program that made a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    pub version: String,
    /// Of its executable; empty when that could not be read.
    pub sha256: String,
}

/// One member beside the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub name: String,
    pub size: u64,
    pub sha256: String,
    /// Length of the pieces whose hashes `pieces` has, bytes.
    pub piece_bytes: u64,
    /// The first 8 bytes of the SHA-256 of each piece, hex, one after the other.
    pub pieces: String,
}

impl FileEntry {
    /// The hash of the piece with this number.
    pub(crate) fn piece(&self, number: usize) -> Option<&str> {
        let at = number.checked_mul(PIECE_HASH * 2)?;
        self.pieces.get(at..at + PIECE_HASH * 2)
    }
}

/// Hashes a file as it comes, whole and in pieces.
pub(crate) struct Hasher {
    whole: Context,
    piece: Context,
    in_piece: u64,
    piece_bytes: u64,
    pieces: String,
    pub size: u64,
}

/// Length of the pieces of a file of this size: a power of two.
pub(crate) fn piece_bytes(size: u64) -> u64 {
    (size / PIECES).next_power_of_two().max(PIECE_MIN)
}

impl Hasher {
    /// `piece_bytes` of 0, as a hostile manifest may have it, is taken for the shortest.
    pub fn new(piece_bytes: u64) -> Hasher {
        Hasher {
            whole: Context::new(&SHA256),
            piece: Context::new(&SHA256),
            in_piece: 0,
            piece_bytes: piece_bytes.max(PIECE_MIN),
            pieces: String::new(),
            size: 0,
        }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = usize::try_from(self.piece_bytes - self.in_piece).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.update(now);
            self.in_piece += now.len() as u64;
            if self.in_piece == self.piece_bytes {
                self.end_piece();
            }
            bytes = later;
        }
    }

    fn end_piece(&mut self) {
        let piece = std::mem::replace(&mut self.piece, Context::new(&SHA256));
        self.in_piece = 0;
        self.pieces.push_str(&hex(piece
            .finish()
            .as_ref()
            .get(..PIECE_HASH)
            .unwrap_or_default()));
    }

    pub fn finish(mut self, name: &str) -> FileEntry {
        if self.in_piece > 0 {
            self.end_piece();
        }
        FileEntry {
            name: name.to_owned(),
            size: self.size,
            sha256: hex(self.whole.finish().as_ref()),
            piece_bytes: self.piece_bytes,
            pieces: self.pieces,
        }
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex.
#[must_use]
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_and_cover_the_file() {
        for size in [0u64, 1, 1_024, 1_025, 1 << 20, (1 << 20) + 1, 50 << 20] {
            let pieces = size.div_ceil(piece_bytes(size));
            assert!(pieces <= PIECES + 1, "{size}: {pieces}");
        }
        let mut hasher = Hasher::new(1_024);
        for piece in vec![7u8; 2_500].chunks(700) {
            hasher.update(piece);
        }
        let entry = hasher.finish("x");
        assert_eq!(
            (entry.size, entry.pieces.len()),
            (2_500, 3 * PIECE_HASH * 2)
        );
        assert_eq!(entry.sha256, sha256_of(&[7; 2_500]));
        assert_eq!(entry.piece(0), entry.piece(1));
        assert_eq!(entry.piece(2).unwrap(), &sha256_of(&[7; 452])[..16]);
        assert_eq!(entry.piece(3), None);
    }

    #[test]
    fn what_it_does_not_know_is_kept() {
        let text = r#"{"format":"f","tool":{"name":"n","version":"1","sha256":""},"signing_key":"k","files":[],"host":{"name":"h"}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.facts["host"]["name"], "h");
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }
}
