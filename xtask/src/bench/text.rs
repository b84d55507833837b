//! What is classified: text as a machine has it, made-up text, and credentials that were never issued.

use crate::cmd;
use anyhow::Result;
use std::fs;

/// Text of the machine's packages that is taken at most, bytes.
const PACKAGED: usize = 32 << 20;

/// The same every time (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A classic token of GitHub with the right check digits, never issued.
    pub fn github(&mut self) -> String {
        const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut token: String = (0..30)
            .map(|_| char::from(BASE62[self.below(62) as usize]))
            .collect();
        let mut sum = crc32(token.as_bytes());
        let mut digits = ['0'; 6];
        for digit in digits.iter_mut().rev() {
            *digit = char::from(BASE62[(sum % 62) as usize]);
            sum /= 62;
        }
        token.extend(digits);
        format!("ghp_{token}")
    }
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// Text as packages bring it: headers, programs, documentation, in equal parts as far as they are there.
pub fn packaged() -> Result<Vec<u8>> {
    const TREES: [&str; 5] = [
        "/usr/include",
        "/usr/lib/python3",
        "/usr/share/perl",
        "/usr/share/doc",
        "/usr/lib/python3.11",
    ];
    let mut text = Vec::new();
    for (done, tree) in TREES.iter().enumerate() {
        let list = cmd::output(cmd::clean("sh").args([
            "-c",
            "test ! -d \"$1\" || find \"$1\" -type f -size -256k | LC_ALL=C sort",
            "sh",
            tree,
        ]))?;
        for path in list.lines() {
            if text.len() >= PACKAGED / TREES.len() * (done + 1) {
                break;
            }
            // Compressed manuals and compiled code are among them.
            if let Ok(content) = fs::read_to_string(path)
                && !content.contains('\0')
            {
                text.extend_from_slice(content.as_bytes());
            }
        }
    }
    // A machine without packaged text (a booted guest): made-up text then.
    if text.len() < 1 << 20 {
        text = prose(&mut Random(0x9e37_79b9_7f4a_7c15)).into_bytes();
    }
    Ok(text)
}

/// A megabyte of what reads like a program with comments.
pub fn prose(random: &mut Random) -> String {
    const WORDS: [&str; 24] = [
        "return", "value", "index", "if", "the", "error", "buffer", "key", "self", "length",
        "token", "for", "map", "of", "to", "user", "path", "insert", "name", "let", "config",
        "match", "file", "secret",
    ];
    let mut text = String::new();
    while text.len() < 1 << 20 {
        for _ in 0..4 + random.below(8) {
            text += WORDS[random.below(WORDS.len() as u64) as usize];
            text.push(match random.below(8) {
                0 => '(',
                1 => '.',
                2 => '=',
                _ => ' ',
            });
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_digits_are_those_of_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(Random(1).github().len(), 40);
    }
}
