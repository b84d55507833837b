//! Wakes the sinks: events came, or the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Cheap to clone. Ringing it takes a lock that is held for no longer than it takes to inspect a number.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: Mutex<u64>,
    heard: Condvar,
    /// Who rests is woken by the end alone.
    over: Condvar,
    ending: AtomicBool,
}

impl Bell {
    #[must_use]
    pub fn new() -> Bell {
        Bell::default()
    }

    fn rung(&self) -> MutexGuard<'_, u64> {
        self.0.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something new in the ledger.
    pub fn ring(&self) {
        *self.rung() += 1;
        self.0.heard.notify_all();
    }

    /// There will be nothing more.
    pub(crate) fn end(&self) {
        self.0.ending.store(true, Ordering::Release);
        self.ring();
        self.0.over.notify_all();
    }

    /// Ends those that listen, and waits for their threads; who does not come to an end within this time is left alone.
    pub(crate) fn end_all(
        &self,
        threads: impl IntoIterator<Item = JoinHandle<()>>,
        within: Duration,
    ) {
        self.end();
        let deadline = Instant::now() + within;
        for thread in threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                // A panic was printed when it happened.
                let _ = thread.join();
            }
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Acquire)
    }

    /// How often it was rung so far.
    pub(crate) fn count(&self) -> u64 {
        *self.rung()
    }

    /// Waits until it has been rung more than `seen` times, but no longer than this.
    pub(crate) fn wait(&self, seen: u64, most: Duration) {
        let deadline = Instant::now() + most;
        let mut rung = self.rung();
        while *rung <= seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.heard.wait_timeout(rung, left);
            rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Rests, whatever comes but the end.
    pub(crate) fn rest(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut rung = self.rung();
        while !self.is_ending() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.over.wait_timeout(rung, left);
            rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_who_waits_and_lets_nobody_wait_for_what_was() {
        let bell = Bell::new();
        let seen = bell.count();
        bell.ring();
        let started = Instant::now();
        bell.wait(seen, Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
        let other = bell.clone();
        let thread = std::thread::spawn(move || other.rest(Duration::from_secs(60)));
        // Events do not end a rest.
        bell.ring();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!thread.is_finished());
        bell.end();
        thread.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
