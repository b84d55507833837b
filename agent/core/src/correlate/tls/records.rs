//! Arithmetic of TLS records: which plaintext a send of so many bytes can be the encryption of.

use keytrail_model::SendSeen;

/// Content types (RFC 8446, section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const HANDSHAKE: u8 = 0x16;
const APPLICATION_DATA: u8 = 0x17;
const HEADER: u64 = 5;
/// Most bytes of plaintext in one TLS record (RFC 8446, section 5.1).
const RECORD_MAX: u64 = 16_384;

/// What a record costs beside its plaintext: header 5, then TLS 1.3 content type 1 and tag 16; TLS 1.2 AES-GCM nonce 8
/// and tag 16; TLS 1.2 ChaCha20-Poly1305 tag 16. No padding.
const TLS13: u64 = 22;
const TLS12_GCM: u64 = 29;
const TLS12_CHACHA: u64 = 21;

/// Lengths of TLS 1.3 records that look like application data and are a client's Finished (SHA-256, SHA-384) or a
/// KeyUpdate: a handshake message of 4 bytes and 32, 48 or 1, content type and tag.
const TLS13_HANDSHAKE: [u16; 3] = [4 + 32 + 17, 4 + 48 + 17, 4 + 1 + 17];

/// Where application data may begin in a send, and which record is there.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    at: u64,
    /// Length field of the first record, when its header was captured.
    length: Option<u16>,
    /// The version the records before it are of, when they tell.
    tls13: Option<bool>,
}

/// A send of TLS records, from its length and the headers that were captured.
#[derive(Clone, Debug)]
pub struct Flight {
    total: u64,
    beginnings: Vec<Beginning>,
}

impl Flight {
    /// `None` when the send is no beginning of TLS records.
    pub fn of(send: &SendSeen) -> Option<Self> {
        let first = send.tls_record.filter(|(_, length)| *length > 0)?;
        let total = send.payload.total;
        let mut beginnings = Vec::new();
        let mut at = 0;
        let mut tls13 = None;
        let mut changed = false;
        let mut follows = true;
        for (kind, length) in std::iter::once(&first).chain(&send.tls_more) {
            if *kind == APPLICATION_DATA {
                beginnings.push(Beginning {
                    at,
                    length: Some(*length),
                    tls13,
                });
                if !TLS13_HANDSHAKE.contains(length) {
                    follows = false;
                    break;
                }
                tls13 = Some(true);
            } else if changed && *kind == HANDSHAKE {
                tls13 = Some(false);
            }
            changed |= *kind == CHANGE_CIPHER_SPEC;
            at += HEADER + u64::from(*length);
        }
        if follows && at > 0 && at < total {
            beginnings.push(Beginning {
                at,
                length: None,
                tls13,
            });
        }
        // After a ChangeCipherSpec in the same send the Finished comes first: alone, it is no application data.
        if changed && tls13 == Some(true) {
            beginnings.retain(|b| b.tls13.is_some());
        }
        Some(Self { total, beginnings })
    }

    /// Most bytes of it that may be records of application data.
    pub fn application(&self) -> u64 {
        let first = self.beginnings.iter().map(|b| b.at).min();
        first.map_or(0, |at| self.total.saturating_sub(at))
    }

    /// Whether `plain` bytes may be somewhere in it.
    pub fn may_carry(&self, plain: u64) -> bool {
        self.application() >= plain.saturating_add(TLS12_CHACHA)
    }

    /// Whether its application data may begin with the encryption of `plain` bytes, whatever follows.
    pub fn may_begin_with(&self, plain: u64) -> bool {
        let first = plain.min(RECORD_MAX);
        self.beginnings.iter().any(|b| {
            let head = |o: &u64| first + o - HEADER;
            let any = [TLS13, TLS12_GCM, TLS12_CHACHA];
            b.length
                .is_none_or(|l| any.iter().any(|o| head(o) == u64::from(l)))
                && self.total.saturating_sub(b.at) >= plain
        })
    }

    /// Whether its application data is exactly the encryption of these writes, one after the other.
    pub fn is_exactly(&self, writes: &[u64]) -> bool {
        let Some(first) = writes.first() else {
            return false;
        };
        self.beginnings.iter().any(|b| {
            let overheads: &[u64] = match b.tls13 {
                Some(true) => &[TLS13],
                Some(false) => &[TLS12_GCM, TLS12_CHACHA],
                None => &[TLS13, TLS12_GCM, TLS12_CHACHA],
            };
            overheads.iter().any(|overhead| {
                let head = (*first).min(RECORD_MAX) + overhead - HEADER;
                b.length.is_none_or(|l| u64::from(l) == head)
                    && writes
                        .iter()
                        .try_fold(b.at, |sum, n| {
                            sum.checked_add(*n)?
                                .checked_add(n.div_ceil(RECORD_MAX).checked_mul(*overhead)?)
                        })
                        .is_some_and(|sum| sum == self.total)
            })
        })
    }
}

/// Whether a record of `len` bytes can begin the encryption of `total` bytes: TLS 1.3 adds 17, TLS 1.2 16 to about 80.
pub fn fits(total: u64, len: u16) -> bool {
    let first = total.min(RECORD_MAX);
    (first + 16..=first + 96).contains(&u64::from(len))
}

/// Whether application data begins the send or one before it goes on.
pub fn is_application(send: &SendSeen) -> bool {
    match (send.tls_record, Flight::of(send)) {
        (_, Some(flight)) => flight.application() > 0,
        (Some((kind, _)), None) => kind == APPLICATION_DATA,
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::{Ends, Payload, Pid, Stamp};

    fn flight(total: u64, records: &[(u8, u16)]) -> Flight {
        let send = SendSeen {
            at: Stamp {
                boot_ns: 0,
                pid: Pid { tgid: 1, start: 1 },
                tid: 1,
                uid: 0,
                euid: 0,
                gid: 0,
                cgroup_id: 0,
                comm: String::new(),
            },
            ends: Ends::default(),
            payload: Payload {
                total,
                ..Payload::default()
            },
            tls_record: Some(records[0]),
            tls_more: records[1..].to_vec(),
            tls_call: None,
            hook: String::new(),
        };
        Flight::of(&send).unwrap()
    }

    #[test]
    fn lengths_of_one_write() {
        for (overhead, length) in [(22, 117), (29, 124), (21, 116)] {
            let f = flight(100 + overhead, &[(0x17, length)]);
            assert!(f.is_exactly(&[100]), "{overhead}");
            assert!(!f.is_exactly(&[98]) && !f.is_exactly(&[102]) && !f.is_exactly(&[]));
        }
        // Several records.
        assert!(flight(40_000 + 3 * 22, &[(0x17, 16_401)]).is_exactly(&[40_000]));
        assert!(!flight(40_000 + 2 * 22, &[(0x17, 16_401)]).is_exactly(&[40_000]));
        // Several writes in one send.
        assert!(flight(24 + 22 + 63 + 22, &[(0x17, 41)]).is_exactly(&[24, 63]));
        assert!(!flight(24 + 22 + 63 + 22, &[(0x17, 80)]).is_exactly(&[24, 63]));
        // The overhead of the header does not agree with that of the whole.
        assert!(!flight(100 + 29, &[(0x17, 117)]).is_exactly(&[100]));
    }

    #[test]
    fn the_end_of_a_handshake_may_come_first() {
        for finished in [53, 69] {
            let handshake = 6 + 5 + u64::from(finished);
            let records = [(0x14, 1), (0x17, finished)];
            assert!(flight(handshake + 100 + 22, &records).is_exactly(&[100]));
            assert!(!flight(handshake + 100 + 29, &records).is_exactly(&[100]));
            assert_eq!(flight(handshake, &records).application(), 0);
        }
        // TLS 1.2, resumed: ChangeCipherSpec and Finished, then data.
        let records = [(0x14, 1), (0x16, 40)];
        assert!(flight(6 + 45 + 100 + 29, &records).is_exactly(&[100]));
        assert!(!flight(6 + 45 + 100 + 22, &records).is_exactly(&[100]));
        assert_eq!(flight(6 + 45, &records).application(), 0);
        assert_eq!(flight(5 + 512, &[(0x16, 512)]).application(), 0);
        // A record of a Finished's length may be data all the same.
        assert!(flight(58, &[(0x17, 53)]).is_exactly(&[36]));
        assert!(flight(58 + 122, &[(0x17, 53)]).is_exactly(&[100]));
    }
}
