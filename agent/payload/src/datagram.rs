//! What a datagram is by its first bytes, and the names a DNS message asks for.

use zeroize::Zeroizing;

/// Names inspected in one message; resolvers ask for one.
const MAX_NAMES: usize = 4;
/// Longest name, with the lengths of its labels (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;
const HEADER: usize = 12;

/// Is it a packet of a protocol that encrypts: a QUIC long header (RFC 9000 section 17.2) of versions 1, 2 (RFC 9369) or
/// a draft, or a DTLS record (RFC 6347, RFC 9147)?
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    match bytes {
        [first, v @ ..] if first & 0xc0 == 0xc0 => {
            v.starts_with(&[0, 0, 0, 1])
                || v.starts_with(&[0x6b, 0x33, 0x43, 0xcf])
                || v.starts_with(&[0xff, 0, 0])
        }
        [0x14..=0x19, 0xfe, 0xfd | 0xff, ..] => true,
        _ => false,
    }
}

/// The names a DNS message asks for, each as its labels put together and with dots between them: a secret that is longer
/// than a label (63 bytes) lies in several. Nothing for what is no message.
#[must_use]
pub fn asked_names(message: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut texts = Vec::new();
    // QDCOUNT (RFC 1035, section 4.1.1).
    let Some(&[high, low]) = message.get(4..6) else {
        return texts;
    };
    let count = usize::from(u16::from_be_bytes([high, low])).min(MAX_NAMES);
    let mut at = HEADER;
    for _ in 0..count {
        let Some((joined, dotted, end)) = name(message, at) else {
            break;
        };
        // One label is in the message as it is.
        if joined.len() < dotted.len() {
            texts.push(joined);
            texts.push(dotted);
        }
        // Type and class.
        at = end + 4;
    }
    texts
}

type Text = Zeroizing<Vec<u8>>;

/// A name without compression, which a question has no use for, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(Text, Text, usize)> {
    let mut joined = Zeroizing::new(Vec::with_capacity(MAX_NAME));
    let mut dotted = Zeroizing::new(Vec::with_capacity(MAX_NAME));
    let first = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((joined, dotted, at));
        }
        if length > 63 || at + length - first > MAX_NAME {
            return None;
        }
        let label = message.get(at..at + length)?;
        if !dotted.is_empty() {
            dotted.push(b'.');
        }
        joined.extend_from_slice(label);
        dotted.extend_from_slice(label);
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(labels: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn labels_are_joined() {
        let names = asked_names(&question(&["abc", "def", "example"]));
        let names: Vec<&[u8]> = names.iter().map(|n| n.as_slice()).collect();
        assert_eq!(names, [&b"abcdefexample"[..], b"abc.def.example"]);
        assert!(asked_names(&question(&["localhost"])).is_empty());
    }

    #[test]
    fn what_is_cut_or_too_long_is_no_name() {
        let long = "x".repeat(63);
        let message = question(&[&long, &long, &long, &long, &long]);
        assert!(asked_names(&message).is_empty());
        let message = question(&["abc", "def"]);
        assert!(asked_names(&message[..message.len() - 6]).is_empty());
        // A pointer to itself.
        let mut looped = question(&["abc"]);
        looped.splice(16.., [0xc0, 12]);
        assert!(asked_names(&looped).is_empty());
    }

    #[test]
    fn packets_that_are_encrypted() {
        assert!(is_sealed(&[0xc3, 0, 0, 0, 1, 8]));
        assert!(is_sealed(&[22, 0xfe, 0xfd, 0, 0]));
        assert!(!is_sealed(b"<13>Nov 29 12:00:00 host: text"));
        assert!(!is_sealed(&question(&["a"])));
        assert!(!is_sealed(&[]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_inspected(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let names = asked_names(&bytes);
            prop_assert!(names.len() <= 2 * MAX_NAMES);
            prop_assert!(names.iter().all(|n| n.len() <= MAX_NAME));
        }
    }
}
