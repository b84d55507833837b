//! A secret that one process asks a name service for in pieces: names under one domain, one question after the other.

use keytrail_model::Pid;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use zeroize::Zeroizing;

/// How long a piece waits for the next.
const KEEP_NS: u64 = 1_000_000_000;
/// Domains of processes at a time.
const MAX_DOMAINS: usize = 1_024;
/// Bytes before a piece that are put before it.
const MAX_BEFORE: usize = 512;
/// Labels that are shorter count the pieces, or name what they are of.
const MIN_LABEL: usize = 6;
/// Labels of which much is counted: those of hosts are shorter.
const LONG_LABEL: usize = 24;
/// Long labels that are remembered, of one process under one domain.
const MAX_SEEN: usize = 32;
/// Labels of what is asked under.
const DOMAIN: usize = 2;

/// Who asks whom, by the far end's address and port, and under which domain.
type Key = (Pid, ([u8; 16], u16), u64);

#[derive(Default)]
pub(super) struct DnsPieces {
    of: HashMap<Key, Joined>,
    key: RandomState,
}

/// The pieces so far.
struct Joined {
    text: Zeroizing<Vec<u8>>,
    /// Keyed hash of the last one: each name is asked for several times (A, AAAA, and again when nobody answers).
    last: u64,
    came_ns: u64,
    much: Much,
}

/// Long labels of all names in a row, each once: a host is asked for under one domain of a search list after the other.
#[derive(Default)]
struct Much {
    bytes: u64,
    /// Keyed hashes of the last ones.
    seen: Vec<u64>,
}

impl Much {
    fn with(mut self, labels: impl Iterator<Item = (u64, u64)>) -> Self {
        for (hash, bytes) in labels {
            if self.seen.contains(&hash) {
                continue;
            }
            if self.seen.len() >= MAX_SEEN {
                self.seen.remove(0);
            }
            self.seen.push(hash);
            self.bytes += bytes;
        }
        self
    }
}

impl DnsPieces {
    /// Bytes in long labels of different names that the process asked for under the domain of this one, each within a second
    /// of the one before.
    pub fn much(&self, (pid, peer): (Pid, ([u8; 16], u16)), name: &[u8]) -> u64 {
        let labels: Vec<&[u8]> = name.split(|c| *c == b'.').collect();
        let Some(at) = labels.len().checked_sub(DOMAIN) else {
            return 0;
        };
        let key = (pid, peer, self.key.hash_one(&labels[at..]));
        self.of.get(&key).map_or(0, |joined| joined.much.bytes)
    }

    /// Takes a name with its dots. The pieces before it and this one; nothing where it is the first, or the same again.
    pub fn join(
        &mut self,
        (pid, peer): (Pid, ([u8; 16], u16)),
        name: &[u8],
        now_ns: u64,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let labels: Vec<&[u8]> = name.split(|c| *c == b'.').collect();
        let (pieces, domain) = labels.split_at(labels.len().checked_sub(DOMAIN)?);
        let length = pieces.iter().map(|label| label.len()).sum();
        let mut piece = Zeroizing::new(Vec::with_capacity(length));
        for label in pieces.iter().filter(|label| label.len() >= MIN_LABEL) {
            piece.extend_from_slice(label);
        }
        if piece.is_empty() {
            return None;
        }
        let key = (pid, peer, self.key.hash_one(domain));
        let last = self.key.hash_one(&piece[..]);
        let before = self
            .of
            .remove(&key)
            .filter(|joined| joined.came_ns.saturating_add(KEEP_NS) > now_ns);
        let (before, much) = match before {
            Some(same) if same.last == last => {
                self.of.insert(key, same);
                return None;
            }
            Some(before) => (Some(before.text), before.much),
            None => (None, Much::default()),
        };
        let long = pieces.iter().filter(|label| label.len() >= LONG_LABEL);
        let much = much.with(long.map(|label| (self.key.hash_one(label), label.len() as u64)));
        let Some(before) = before else {
            self.keep(key, piece, last, (now_ns, much));
            return None;
        };
        let before = &before[before.len().saturating_sub(MAX_BEFORE)..];
        let mut joined = Zeroizing::new(Vec::with_capacity(before.len() + piece.len()));
        joined.extend_from_slice(before);
        joined.extend_from_slice(&piece);
        let copy = Zeroizing::new(joined.to_vec());
        self.keep(key, joined, last, (now_ns, much));
        Some(copy)
    }

    fn keep(
        &mut self,
        key: Key,
        text: Zeroizing<Vec<u8>>,
        last: u64,
        (came_ns, much): (u64, Much),
    ) {
        if self.of.len() >= MAX_DOMAINS
            && let Some(oldest) = self.of.iter().min_by_key(|(_, of)| of.came_ns)
        {
            let oldest = *oldest.0;
            self.of.remove(&oldest);
        }
        let joined = Joined {
            text,
            last,
            came_ns,
            much,
        };
        self.of.insert(key, joined);
    }

    /// What was put together is reported: it is not to be found once more.
    pub fn reported(&mut self, pid: Pid) {
        self.of.retain(|(of, ..), _| *of != pid);
    }

    pub fn expire(&mut self, now_ns: u64) {
        self.of
            .retain(|_, joined| joined.came_ns.saturating_add(KEEP_NS) > now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: (Pid, ([u8; 16], u16)) = (Pid { tgid: 1, start: 1 }, ([0; 16], 53));

    fn joined(pieces: &mut DnsPieces, name: &str, now_ns: u64) -> Option<String> {
        let text = pieces.join(WHO, name.as_bytes(), now_ns)?;
        Some(String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn pieces_of_one_domain_follow_each_other() {
        let mut pieces = DnsPieces::default();
        assert_eq!(joined(&mut pieces, "1.abcdefgh.evil.example", 1), None);
        // The same for the other family of addresses, and a name that has nothing to do with it.
        assert_eq!(joined(&mut pieces, "1.abcdefgh.evil.example", 2), None);
        assert_eq!(joined(&mut pieces, "registry.corp.example", 3), None);
        let second = joined(&mut pieces, "2.ijklmnop.qrstuvwx.evil.example", 4);
        assert_eq!(second.as_deref(), Some("abcdefghijklmnopqrstuvwx"));
        pieces.expire(KEEP_NS + 4);
        assert_eq!(pieces.of.len(), 0);
        assert_eq!(joined(&mut pieces, "yzyzyzyz.evil.example", 5), None);
        assert_eq!(
            joined(&mut pieces, "late-one.evil.example", KEEP_NS + 5),
            None
        );
        for name in ["localhost", "evil.example", "www.evil.example", ""] {
            assert_eq!(joined(&mut pieces, name, 6), None, "{name}");
        }
    }

    #[test]
    fn long_labels_in_a_row_are_counted() {
        let mut pieces = DnsPieces::default();
        let name = |n: u8| {
            format!(
                "{}.{}.evil.example",
                char::from(n).to_string().repeat(60),
                "x".repeat(9)
            )
        };
        for n in b'a'..b'f' {
            // Asked for twice, as resolvers do.
            joined(&mut pieces, &name(n), u64::from(n));
            joined(&mut pieces, &name(n), u64::from(n));
        }
        assert_eq!(pieces.much(WHO, name(b'z').as_bytes()), 5 * 60);
        // And again by turns, as under a search list.
        for n in [b'a', b'b', b'a', b'b'] {
            joined(&mut pieces, &name(n), 200);
        }
        assert_eq!(pieces.much(WHO, name(b'z').as_bytes()), 5 * 60);
        assert_eq!(pieces.much(WHO, b"a.other.example"), 0);
        joined(&mut pieces, &name(b'g'), 2 * KEEP_NS);
        assert_eq!(pieces.much(WHO, name(b'z').as_bytes()), 60);
        joined(&mut pieces, "registry.eu-west-1.evil.example", 2 * KEEP_NS);
        assert_eq!(pieces.much(WHO, name(b'z').as_bytes()), 60);
        assert_eq!(pieces.much(WHO, b"localhost"), 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut pieces = DnsPieces::default();
        for n in 0..2 * MAX_DOMAINS {
            joined(&mut pieces, &format!("abcdefgh.evil{n}.example"), 1);
            assert!(pieces.of.len() <= MAX_DOMAINS);
        }
        for n in 0..100 {
            let name = format!("{}{n:03}.evil.example", "x".repeat(60));
            let text = joined(&mut pieces, &name, 1).unwrap_or_default();
            assert!(text.len() <= MAX_BEFORE + 63);
        }
        pieces.reported(WHO.0);
        assert_eq!(pieces.of.len(), 0);
    }
}
