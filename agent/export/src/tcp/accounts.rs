//! How much each client may have at a time, whatever it does with it.

use super::identity::{Identity, Names, Role};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Connections of one client.
pub(super) const CONNECTIONS: u32 = 8;
/// Calls of one client at a time, streams among them: a quarter of what the agent serves.
pub(super) const CALLS: u32 = 16;
/// Calls a client may begin at once, and how many a second after that.
pub(super) const BURST: f64 = 100.0;
pub(super) const PER_SECOND: f64 = 20.0;
/// Handshakes at a time, of everybody and of one address: a handshake costs a signature.
pub(super) const HANDSHAKES: u32 = 32;
pub(super) const HANDSHAKES_OF_ONE: u32 = 8;

/// No code panics while it holds one of these locks, and the data stays whole if it did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client of the configuration, or all that are in none of its lists.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    pub role: Role,
    connections: AtomicU32,
    calls: AtomicU32,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// A share of something bounded, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    account: Arc<Account>,
    of: fn(&Account) -> &AtomicU32,
}

impl Drop for Share {
    fn drop(&mut self) {
        (self.of)(&self.account).fetch_sub(1, Ordering::AcqRel);
    }
}

impl Account {
    fn new(name: String, role: Role) -> Arc<Account> {
        Arc::new(Account {
            name,
            role,
            connections: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            bucket: Mutex::new(Bucket {
                tokens: BURST,
                filled: Instant::now(),
            }),
        })
    }

    fn share(self: &Arc<Self>, of: fn(&Account) -> &AtomicU32, limit: u32) -> Option<Share> {
        of(self)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            })
            .ok()?;
        Some(Share {
            account: self.clone(),
            of,
        })
    }

    /// A connection; `None` when it has as many as it may.
    pub fn connection(self: &Arc<Self>) -> Option<Share> {
        self.share(|a| &a.connections, CONNECTIONS)
    }

    /// A call that runs; `None` when as many run as may.
    pub fn call(self: &Arc<Self>) -> Option<Share> {
        self.share(|a| &a.calls, CALLS)
    }

    /// Whether a call may begin now, by the rate.
    pub fn is_in_rate(&self, now: Instant) -> bool {
        let mut bucket = lock(&self.bucket);
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * PER_SECOND).min(BURST);
        bucket.filled = now;
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }
}

/// The clients of the configuration.
#[derive(Debug)]
pub(super) struct Accounts {
    known: HashMap<Identity, Arc<Account>>,
    nobody: Arc<Account>,
}

impl Accounts {
    pub fn new(read: &[Identity], administer: &[Identity]) -> Accounts {
        let with = |list: &[Identity], role| -> Vec<_> {
            list.iter()
                .map(|identity| (identity.clone(), Account::new(identity.to_string(), role)))
                .collect()
        };
        // Who is in both lists may administer: that comes last.
        let known = with(read, Role::Read)
            .into_iter()
            .chain(with(administer, Role::Administer))
            .collect();
        Accounts {
            known,
            nobody: Account::new("unknown".to_owned(), Role::None),
        }
    }

    /// Whose certificate has these names: of several that are known, the one that may most.
    pub fn of(&self, names: &Names) -> Arc<Account> {
        names
            .names
            .iter()
            .filter_map(|name| self.known.get(name))
            .max_by_key(|account| account.role)
            .unwrap_or(&self.nobody)
            .clone()
    }
}

/// Who is about to say who it is.
#[derive(Debug, Default)]
pub(super) struct PendingHandshakes {
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

/// A place in it.
#[derive(Debug)]
pub(super) struct HandshakePermit {
    pending: Arc<PendingHandshakes>,
    address: IpAddr,
}

impl PendingHandshakes {
    /// `None` when there are too many, of this address or at all.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<HandshakePermit> {
        let mut waiting = lock(&self.by_address);
        let total: u32 = waiting.values().sum();
        let own = waiting.get(&address).copied().unwrap_or(0);
        if total >= HANDSHAKES || own >= HANDSHAKES_OF_ONE {
            return None;
        }
        waiting.insert(address, own + 1);
        Some(HandshakePermit {
            pending: self.clone(),
            address,
        })
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let mut waiting = lock(&self.pending.by_address);
        if let Some(n) = waiting.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn the_name_that_may_most_counts() {
        let accounts = Accounts::new(
            &[identity("reader"), identity("both")],
            &[identity("both"), identity("spiffe://a/admin")],
        );
        let role = |names: &[&str]| {
            let names = Names {
                names: names.iter().map(|n| identity(n)).collect(),
                not_after: 0,
            };
            accounts.of(&names).role
        };
        assert_eq!(role(&["reader"]), Role::Read);
        assert_eq!(role(&["both"]), Role::Administer);
        assert_eq!(role(&["reader", "spiffe://a/admin"]), Role::Administer);
        assert_eq!(role(&["stranger"]), Role::None);
        assert_eq!(role(&[]), Role::None);
    }

    #[test]
    fn shares_are_bounded_and_given_back() {
        let account = Account::new("x".into(), Role::Read);
        let mut all: Vec<_> = (0..CALLS).map(|_| account.call().unwrap()).collect();
        assert!(account.call().is_none());
        assert!(account.connection().is_some());
        all.pop();
        assert!(account.call().is_some());
        let now = Instant::now();
        let begun = (0..1000).filter(|_| account.is_in_rate(now)).count();
        assert!((100..=101).contains(&begun), "{begun}");
        let later = now + Duration::from_secs(1);
        let begun = (0..1000).filter(|_| account.is_in_rate(later)).count();
        assert!((19..=21).contains(&begun), "{begun}");
    }

    #[test]
    fn one_address_does_not_fill_the_pending_handshakes() {
        let pending = Arc::new(PendingHandshakes::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held: Vec<_> = (0..100).filter_map(|_| pending.admit(address(1))).collect();
        assert_eq!(held.len() as u32, HANDSHAKES_OF_ONE);
        held.extend((2..100).filter_map(|n| pending.admit(address(n))));
        assert_eq!(held.len() as u32, HANDSHAKES);
        drop(held);
        assert!(pending.admit(address(1)).is_some());
        assert!(lock(&pending.by_address).is_empty());
    }
}
