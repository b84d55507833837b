//! Arithmetic of TLS records: which plaintext a send of so many bytes can be the encryption of.

use keytrail_model::SendSeen;

/// Content types (RFC 8446, section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 0x14;
const HANDSHAKE: u8 = 0x16;
pub const APPLICATION_DATA: u8 = 0x17;
const HEADER: u64 = 5;
/// Most bytes of plaintext in one TLS record (RFC 8446, section 5.1).
const RECORD_MAX: u64 = 16_384;

/// Ciphers a connection may have, one bit each: they tell what a record costs beside its plaintext. A length proves
/// something only where one is left, which the connection's own handshake or an earlier proof has reported: 323 bytes in
/// one are as long as 330 in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers(u8);

impl Ciphers {
    pub const TLS13: Self = Self(1);
    pub const TLS12_GCM: Self = Self(2);
    pub const TLS12_CHACHA: Self = Self(4);
    pub const ANY: Self = Self(1 | 2 | 4);
    /// One whose records have other lengths (CBC, padding).
    pub const OTHER: Self = Self(0);

    /// The one whose records cost this much.
    fn of_overhead(overhead: u64) -> Self {
        Self::ANY
            .each()
            .find(|(_, o)| *o == overhead)
            .map_or(Self::OTHER, |(cipher, _)| cipher)
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn is_known(self) -> bool {
        self.0.count_ones() == 1
    }

    /// Each with what a record of it costs: header 5, then TLS 1.3 content type 1 and tag 16; TLS 1.2 AES-GCM nonce 8
    /// and tag 16; TLS 1.2 ChaCha20-Poly1305 tag 16. No padding.
    fn each(self) -> impl Iterator<Item = (Self, u64)> {
        [
            (Self::TLS13, 22),
            (Self::TLS12_GCM, 29),
            (Self::TLS12_CHACHA, LEAST),
        ]
        .into_iter()
        .filter(move |(cipher, _)| self.0 & cipher.0 != 0)
    }
}

/// The least a record costs.
const LEAST: u64 = 21;
/// At most, with any of TLS 1.0 to 1.3: CBC with SHA-384 has a vector of 16, a code of 48 and up to 16 of padding.
const TLS12_CBC: u64 = HEADER + 16 + 48 + 16;

/// Lengths of TLS 1.3 records that look like application data and are a client's Finished (SHA-256, SHA-384) or a
/// KeyUpdate: a handshake message of 4 bytes and 32, 48 or 1, content type and tag.
const TLS13_HANDSHAKE: [u16; 3] = [FINISHED[0], FINISHED[1], 4 + 1 + 17];
const FINISHED: [u16; 2] = [4 + 32 + 17, 4 + 48 + 17];
/// A whole record of TLS 1.3 with an alert (RFC 8446, section 6): two bytes, content type and tag. It looks like application
/// data, and two bytes of that are as long.
const ALERT: u64 = HEADER + 2 + 17;

/// What is known of a connection when it sends.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The ciphers it may have.
    pub ciphers: Ciphers,
    /// The record before was a ChangeCipherSpec.
    pub changed: bool,
    /// All it sent until now is a hello: application data next is TLS 1.3's, for TLS 1.2 needs more of a handshake.
    pub greeted: bool,
    /// It sent what is as long as an alert. A side sends one and then nothing more: what is as long again is data.
    pub alerted: bool,
}

impl Before {
    /// Nothing is known.
    pub const NOTHING: Self = Self {
        ciphers: Ciphers::ANY,
        changed: false,
        greeted: false,
        alerted: false,
    };
}

/// Where application data may begin in a send, and which record is there.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    at: u64,
    /// Length field of the first record, when its header was captured.
    length: Option<u16>,
    /// The ciphers the records before it leave.
    ciphers: Ciphers,
    /// A part of a handshake is here first, so that no length is exact.
    handshake: bool,
}

/// A send of TLS records, from its length and the headers that were captured.
#[derive(Clone, Debug)]
pub struct Flight {
    total: u64,
    beginnings: Vec<Beginning>,
    /// There is more to its application data than an alert is long.
    content: bool,
    /// What is known of the connection after it.
    after: Before,
}

impl Flight {
    /// `None` when the send is no beginning of TLS records.
    pub fn of(send: &SendSeen, before: Before) -> Option<Self> {
        let first = send.tls_record.filter(|(_, length)| *length > 0)?;
        let total = send.payload.total;
        let mut beginnings = Vec::new();
        let mut at = send.goes_on.unwrap_or(0);
        let Before {
            mut ciphers,
            mut changed,
            mut greeted,
            alerted,
        } = before;
        let mut finished = false;
        let mut follows = true;
        for (kind, length) in std::iter::once(&first).chain(&send.tls_more) {
            match *kind {
                APPLICATION_DATA => {
                    // TLS 1.3 ends its handshake in records that look like data; TLS 1.2 never has data here.
                    let handshake = changed || greeted;
                    if handshake || finished {
                        ciphers = ciphers.and(Ciphers::TLS13);
                    }
                    greeted = false;
                    let short = TLS13_HANDSHAKE.contains(length);
                    if !(handshake && short) {
                        beginnings.push(Beginning {
                            at,
                            length: Some(*length),
                            ciphers,
                            handshake,
                        });
                    }
                    if !short {
                        follows = false;
                        changed = false;
                        break;
                    }
                    // What follows it here is behind a Finished.
                    finished = true;
                }
                // The first encrypted record of TLS 1.2: its length tells the cipher.
                HANDSHAKE if changed => {
                    ciphers = ciphers.and(finished_of(*length));
                    greeted = false;
                }
                HANDSHAKE => greeted = send.hello.is_some() && at == 0,
                _ => {}
            }
            changed = *kind == CHANGE_CIPHER_SPEC;
            at += HEADER + u64::from(*length);
        }
        // Behind a ChangeCipherSpec in a piece of its own (writev) the header comes apart, if at all. What is as long as a
        // Finished of TLS 1.3 is one: with it or with TLS 1.2 nothing else there is, alone or together.
        let rest = total.saturating_sub(at);
        if changed && FINISHED.iter().any(|l| rest == HEADER + u64::from(*l)) {
            ciphers = ciphers.and(Ciphers::TLS13);
        } else if follows && at > 0 && at < total {
            beginnings.push(Beginning {
                at,
                length: None,
                ciphers: if finished {
                    ciphers.and(Ciphers::TLS13)
                } else {
                    ciphers
                },
                handshake: false,
            });
        }
        let after = Before {
            ciphers,
            changed,
            greeted,
            alerted,
        };
        Some(Self::with(total, beginnings, after))
    }

    /// An alert is as long as one, and there is none before it.
    fn with(total: u64, beginnings: Vec<Beginning>, mut after: Before) -> Self {
        let data = beginnings.iter().map(|b| total.saturating_sub(b.at)).max();
        let alert = !after.alerted && data.is_some_and(|data| is_farewell(data, after.changed));
        after.alerted |= alert;
        Self {
            total,
            beginnings,
            content: data.is_some() && !alert,
            after,
        }
    }

    /// Whether it says that application data left: a handshake, and the alert that ends a connection, do not.
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// What is known of the connection after it.
    pub fn after(&self) -> Before {
        self.after
    }

    /// Most bytes of it that may be records of application data.
    pub fn application(&self) -> u64 {
        let first = self.beginnings.iter().map(|b| b.at).min();
        first.map_or(0, |at| self.total.saturating_sub(at))
    }

    /// Whether `plain` bytes may be somewhere in it.
    pub fn may_carry(&self, plain: u64) -> bool {
        self.application() >= plain.saturating_add(LEAST)
    }

    /// Whether its first record of application data may be the first of those that `plain` bytes are cut into, at
    /// whatever length: Go begins a connection with short ones.
    pub fn may_begin(&self, plain: u64) -> bool {
        let most = plain.min(RECORD_MAX) + TLS12_CBC - HEADER;
        self.beginnings
            .iter()
            .any(|b| b.length.is_none_or(|l| u64::from(l) <= most))
    }

    /// Whether its application data may begin with the encryption of `plain` bytes, whatever follows.
    pub fn may_begin_with(&self, plain: u64) -> bool {
        let first = plain.min(RECORD_MAX);
        self.beginnings.iter().any(|b| {
            let head = |(_, o): (Ciphers, u64)| first + o - HEADER;
            b.length
                .is_none_or(|l| b.ciphers.each().any(|c| head(c) == u64::from(l)))
                && self.total.saturating_sub(b.at) >= plain
        })
    }

    /// The ciphers, among these, under which its application data is exactly the encryption of these writes, one after
    /// the other; and whether it is proven: no other cipher is possible.
    pub fn is_exactly(&self, writes: &[u64], possible: Ciphers) -> Option<bool> {
        let first = writes.first()?;
        let mut fits = None;
        for b in self.beginnings.iter().filter(|b| !b.handshake) {
            let ciphers = b.ciphers.and(possible);
            for (_, overhead) in ciphers.each() {
                let head = (*first).min(RECORD_MAX) + overhead - HEADER;
                let exact = b.length.is_none_or(|l| u64::from(l) == head)
                    && writes
                        .iter()
                        .try_fold(b.at, |sum, n| {
                            sum.checked_add(*n)?
                                .checked_add(n.div_ceil(RECORD_MAX).checked_mul(overhead)?)
                        })
                        .is_some_and(|sum| sum == self.total);
                if exact {
                    fits = Some(fits == Some(true) || ciphers.is_known());
                }
            }
        }
        fits
    }
}

/// The ciphers of TLS 1.2 whose Finished (16 bytes) makes a record of this length.
fn finished_of(length: u16) -> Ciphers {
    match length {
        40 => Ciphers::TLS12_GCM,
        32 => Ciphers::TLS12_CHACHA,
        _ => Ciphers::OTHER,
    }
}

/// Bytes of a record with this length field.
pub fn whole(length: u16) -> u64 {
    HEADER + u64::from(length)
}

/// Whether a record of `len` bytes can begin the encryption of `total` bytes: TLS 1.3 adds 17, TLS 1.2 16 to about 80.
pub fn fits(total: u64, len: u16) -> bool {
    let first = total.min(RECORD_MAX);
    (first + 16..=first + 96).contains(&u64::from(len))
}

/// The cipher by which a write of `total` bytes begins with a record of length `len`.
pub fn cipher_of(total: u64, len: u16) -> Ciphers {
    let overhead = (HEADER + u64::from(len)).saturating_sub(total.min(RECORD_MAX));
    Ciphers::of_overhead(overhead)
}

/// Whether so many bytes are an alert, and where a ChangeCipherSpec came before them, a Finished and one: a certificate was
/// refused.
fn is_farewell(bytes: u64, changed: bool) -> bool {
    let finished = |l: &u16| bytes == HEADER + u64::from(*l) + ALERT;
    bytes == ALERT || changed && FINISHED.iter().any(finished)
}

/// Whether a send only goes on with a record of application data that one before it began.
pub fn goes_on_with_data(send: &SendSeen) -> bool {
    send.tls_record == Some((APPLICATION_DATA, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::{Direction, Endpoints, Payload, Pid, TaskInfo};

    fn of(total: u64, records: &[(u8, u16)], before: Before) -> Flight {
        Flight::of(&seen(total, records), before).unwrap()
    }

    fn seen(total: u64, records: &[(u8, u16)]) -> SendSeen {
        SendSeen {
            at: TaskInfo {
                boot_ns: 0,
                pid: Pid { tgid: 1, start: 1 },
                tid: 1,
                uid: 0,
                euid: 0,
                gid: 0,
                cgroup_id: 0,
                comm: String::new(),
            },
            ends: Endpoints::default(),
            payload: Payload {
                total,
                ..Payload::default()
            },
            tls_record: Some(records[0]),
            tls_more: records[1..].to_vec(),
            goes_on: None,
            tls_call: None,
            hello: (records[0] == (0x16, 512)).then_some(Direction::Outgoing),
            direction: None,
            sealed: false,
            asked: 0,
            hook: String::new(),
        }
    }

    /// What a send goes on with.
    fn more(total: u64, from: u64, records: &[(u8, u16)], before: Before) -> Flight {
        let mut send = seen(total, records);
        send.goes_on = Some(from);
        Flight::of(&send, before).unwrap()
    }

    fn flight(total: u64, records: &[(u8, u16)]) -> Flight {
        of(total, records, Before::NOTHING)
    }

    /// Whether these writes fit, and whether that is proven.
    fn exactly(flight: &Flight, writes: &[u64]) -> Option<bool> {
        flight.is_exactly(writes, Ciphers::ANY)
    }

    #[test]
    fn lengths_of_one_write() {
        for (overhead, length) in [(22, 117), (29, 124), (21, 116)] {
            let f = flight(100 + overhead, &[(0x17, length)]);
            assert_eq!(exactly(&f, &[100]), Some(false), "{overhead}");
            assert!(
                [&[98][..], &[102], &[]]
                    .iter()
                    .all(|w| exactly(&f, w).is_none())
            );
        }
        let fits = |f: Flight, writes: &[u64]| exactly(&f, writes).is_some();
        // Several records.
        assert!(fits(flight(40_000 + 3 * 22, &[(0x17, 16_401)]), &[40_000]));
        assert!(!fits(flight(40_000 + 2 * 22, &[(0x17, 16_401)]), &[40_000]));
        // Several writes in one send.
        assert!(fits(flight(24 + 22 + 63 + 22, &[(0x17, 41)]), &[24, 63]));
        assert!(!fits(flight(24 + 22 + 63 + 22, &[(0x17, 80)]), &[24, 63]));
        // The overhead of the header does not agree with that of the whole.
        assert!(!fits(flight(100 + 29, &[(0x17, 117)]), &[100]));
    }

    #[test]
    fn a_length_proves_something_where_the_cipher_is_known() {
        // 323 bytes in one cipher are as long as 330 in another.
        let f = flight(352, &[(0x17, 347)]);
        assert_eq!(exactly(&f, &[323]), Some(false));
        assert_eq!(exactly(&f, &[330]), Some(false));
        let hello = flight(517, &[(0x16, 512)]).after();
        assert!(!hello.ciphers.is_known());
        let tls13 = of(6 + 58, &[(0x14, 1), (0x17, 53)], hello).after();
        let gcm = of(6 + 45, &[(0x14, 1), (0x16, 40)], hello).after();
        let chacha = of(6 + 37, &[(0x14, 1), (0x16, 32)], hello).after();
        let cbc = of(6 + 69, &[(0x14, 1), (0x16, 64)], hello).after();
        for (after, proven) in [
            (tls13, [None, Some(true), None]),
            (gcm, [Some(true), None, None]),
            (chacha, [None, None, Some(true)]),
            (cbc, [None; 3]),
        ] {
            let f = of(352, &[(0x17, 347)], after);
            assert_eq!(
                [323, 330, 331].map(|n| exactly(&f, &[n])),
                proven,
                "{after:?}"
            );
        }
        // Without a ChangeCipherSpec: TLS 1.2 has no data right after a hello.
        let after = of(58, &[(0x17, 53)], hello);
        assert_eq!(after.application(), 0);
        assert_eq!(after.after().ciphers, Ciphers::TLS13);
        // One whose handshake began before we looked.
        let unseen = flight(6 + 58, &[(0x14, 1), (0x17, 53)]).after();
        assert_eq!(unseen.ciphers, Ciphers::TLS13);
        // The ChangeCipherSpec ended the send before.
        let change = of(42 + 6, &[(0x16, 37), (0x14, 1)], hello).after();
        let apart = of(45, &[(0x16, 40)], change).after();
        assert_eq!(apart.ciphers, Ciphers::TLS12_GCM);
    }

    #[test]
    fn a_finished_is_recognized_by_its_length_alone() {
        let hello = flight(517, &[(0x16, 512)]).after();
        for finished in FINISHED {
            let total = 6 + 5 + u64::from(finished);
            let f = of(total, &[(0x14, 1)], hello);
            assert_eq!(f.application(), 0);
            assert_eq!(f.after().ciphers, Ciphers::TLS13);
            // What comes next is data, of this cipher alone, if the rest was seen to be a Finished.
            let next = |after| of(352, &[(0x17, 347)], after);
            assert_eq!(exactly(&next(f.after()), &[330]), None);
            let more = more(total, 6, &[(0x17, finished)], f.after());
            assert_eq!(more.application(), 0);
            assert_eq!(exactly(&next(more.after()), &[330]), Some(true));
            assert_eq!(exactly(&next(more.after()), &[323]), None);
        }
        // TLS 1.2, a certificate, or data behind it.
        for rest in [37, 45, 60, 58 + 122, 74 + 122] {
            let f = of(6 + rest, &[(0x14, 1)], hello);
            assert_eq!(f.application(), rest);
            assert!(!f.after().ciphers.is_known() && f.after().changed);
        }
        // Three pieces, and data behind it at once.
        let exchange = of(93, &[(0x16, 37)], hello).after();
        let change = more(93, 42, &[(0x14, 1)], exchange).after();
        let finished = more(93, 48, &[(0x16, 40)], change);
        assert_eq!(finished.application(), 0);
        assert_eq!(finished.after().ciphers, Ciphers::TLS12_GCM);
        let change = of(6 + 74 + 122, &[(0x14, 1)], hello).after();
        let data = more(6 + 74 + 122, 6, &[(0x17, 69)], change);
        assert_eq!(exactly(&data, &[100]), Some(true));
    }

    #[test]
    fn neither_a_finished_nor_an_alert_is_content() {
        let hello = flight(517, &[(0x16, 512)]).after();
        let changed = of(6, &[(0x14, 1)], hello).after();
        for finished in FINISHED {
            let bytes = HEADER + u64::from(finished);
            // In a send of its own, with an alert behind it, and both behind the ChangeCipherSpec in the same.
            assert!(!of(bytes, &[(0x17, finished)], changed).has_content());
            assert!(!of(bytes + ALERT, &[(0x17, finished)], changed).has_content());
            let all = of(6 + bytes + ALERT, &[(0x14, 1), (0x17, finished)], hello);
            assert!(!all.has_content());
            assert!(!of(6 + bytes + ALERT, &[(0x14, 1)], hello).has_content());
            // Without a handshake before it that may be data.
            assert!(flight(bytes, &[(0x17, finished)]).has_content());
            assert!(of(bytes + 122, &[(0x17, finished)], changed).has_content());
        }
        // A certificate refused before the Finished, and a connection that is closed.
        assert!(!of(6 + ALERT, &[(0x14, 1), (0x17, 19)], hello).has_content());
        assert!(!of(6 + ALERT, &[(0x14, 1)], hello).has_content());
        let alert = flight(ALERT, &[(0x17, 19)]);
        assert!(!alert.has_content());
        // It is joined with a write of two bytes all the same.
        assert!(exactly(&alert, &[2]).is_some());
        // Who sends two bytes after two bytes sends data.
        assert!(of(ALERT, &[(0x17, 19)], alert.after()).has_content());
        assert!(flight(ALERT + 1, &[(0x17, 20)]).has_content());
    }

    #[test]
    fn the_end_of_a_handshake_may_come_first() {
        for finished in [53, 69] {
            let handshake = 6 + 5 + u64::from(finished);
            let records = [(0x14, 1), (0x17, finished)];
            assert_eq!(
                exactly(&flight(handshake + 100 + 22, &records), &[100]),
                Some(true)
            );
            assert_eq!(
                exactly(&flight(handshake + 100 + 29, &records), &[100]),
                None
            );
            assert_eq!(flight(handshake, &records).application(), 0);
        }
        // TLS 1.2, resumed: ChangeCipherSpec and Finished, then data.
        let records = [(0x14, 1), (0x16, 40)];
        assert_eq!(
            exactly(&flight(6 + 45 + 100 + 29, &records), &[100]),
            Some(true)
        );
        assert_eq!(exactly(&flight(6 + 45 + 100 + 22, &records), &[100]), None);
        assert_eq!(flight(6 + 45, &records).application(), 0);
        assert_eq!(flight(5 + 512, &[(0x16, 512)]).application(), 0);
        // A record of a Finished's length may be data all the same.
        assert!(exactly(&flight(58, &[(0x17, 53)]), &[36]).is_some());
        assert_eq!(
            exactly(&flight(58 + 122, &[(0x17, 53)]), &[100]),
            Some(true)
        );
        // A certificate comes before the data, and may be as long as a write: it proves nothing, and may carry one.
        let hello = flight(517, &[(0x16, 512)]).after();
        let f = of(1_222, &[(0x14, 1), (0x17, 1_217)], hello);
        assert_eq!(exactly(&f, &[1_194]), None);
        assert!(f.may_carry(500));
    }
}
