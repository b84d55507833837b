//! What two writes have to do with each other: attempts at one, parts of one, one inside the other.

use super::records::{APPLICATION_DATA, cipher_of, whole};
use keytrail_model::{Hit, TlsSeen};

/// At most so long after a write its thread sends it, when it does so at once: it may have to wait for the processor.
pub const AT_ONCE_NS: u64 = 5_000_000;

/// Two calls with the same bytes in one session, as far as we know them: the second may be another attempt at the first.
pub fn same(a: &TlsSeen, b: &TlsSeen) -> bool {
    !(a.once || b.once)
        && a.session == b.session
        && a.payload.total == b.payload.total
        && !differ(a.digest, b.digest, || fingerprints(a) != fingerprints(b))
}

/// Whether `outer` is given the encryption of `inner`, which its thread was given just before: it begins with a record, as long
/// as the first of that in one of the ciphers, and of several at most the first is in it.
pub fn is_inside(inner: &TlsSeen, outer: &TlsSeen) -> bool {
    let Some((APPLICATION_DATA, length)) = outer.record else {
        return false;
    };
    let since = outer.at.boot_ns.checked_sub(inner.at.boot_ns);
    let first = inner.payload.total > 0 && cipher_of(inner.payload.total, length).is_known();
    inner.session != outer.session
        && inner.at.tid == outer.at.tid
        && since.is_some_and(|ns| ns <= AT_ONCE_NS)
        && first
        && outer.payload.total >= whole(length)
}

/// Whether two writes differ by what was captured of them; where that was not hashed (recordings of before), by what is in them.
pub fn differ(a: Option<u64>, b: Option<u64>, unlike: impl FnOnce() -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a != b,
        _ => unlike(),
    }
}

/// An identifier that ended the bytes before is a word only if the next do not go on with it.
pub fn resolve_open(hits: &mut Vec<Hit>, continues: bool) {
    if continues {
        hits.retain(|hit| !hit.open);
    }
    for hit in hits {
        hit.open = false;
    }
}

pub fn merge(into: &mut TlsSeen, more: TlsSeen) {
    let payload = &mut into.payload;
    payload.inspected += more.payload.inspected;
    payload.total = payload.total.max(more.payload.total);
    payload.truncated |= more.payload.truncated;
    resolve_open(&mut payload.hits, more.payload.continues);
    for hit in more.payload.hits {
        match payload.hits.iter_mut().find(|h| {
            h.credential.fingerprint == hit.credential.fingerprint
                && h.transform == hit.transform
                && h.part == hit.part
                && h.secret == hit.secret
                && h.open == hit.open
        }) {
            Some(known) => {
                known.occurrences += hit.occurrences;
                known.body |= hit.body;
            }
            None => payload.hits.push(hit),
        }
    }
    for host in more.payload.hosts {
        if !payload.hosts.contains(&host) {
            payload.hosts.push(host);
        }
    }
}

/// Whether a credential was seen in it.
pub fn carries(seen: &TlsSeen) -> bool {
    !seen.payload.hits.is_empty()
}

pub fn fingerprints(seen: &TlsSeen) -> Vec<&str> {
    let mut out: Vec<_> = seen
        .payload
        .hits
        .iter()
        .map(|h| h.credential.fingerprint.as_str())
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}
