//! Randomness for planted values.

use std::io::Read as _;

pub const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `count` random bytes.
#[must_use]
pub fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .unwrap();
    bytes
}

/// `count` characters of `alphabet`.
#[must_use]
pub fn text(alphabet: &[u8], count: usize) -> String {
    bytes(count * 2)
        .chunks_exact(2)
        // Two bytes a character: the bias towards the first letters is below one percent.
        .map(|pair| {
            let number = usize::from(u16::from_le_bytes([pair[0], pair[1]]));
            char::from(alphabet[number % alphabet.len()])
        })
        .collect()
}
