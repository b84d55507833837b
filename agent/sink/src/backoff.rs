//! How long to wait after a failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
/// Nobody wants to wait longer for a receiver that is there again.
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles with each failure, up to a minute.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure. `asked`: what the receiver asked for; heeded up to the longest.
    pub fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let own = FIRST
            .saturating_mul(1 << self.failures.min(20))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        own.max(asked.unwrap_or_default()).min(LONGEST)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_minute_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.failed(None).as_millis()).collect();
        assert_eq!(
            waits,
            [
                250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000
            ]
        );
        for _ in 0..100 {
            assert_eq!(backoff.failed(None), LONGEST);
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(None), FIRST);
    }

    #[test]
    fn what_the_receiver_asks_for_is_heeded_within_bounds() {
        let mut backoff = Backoff::default();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(backoff.failed(seconds(7)), Duration::from_secs(7));
        assert_eq!(backoff.failed(seconds(86_400)), LONGEST);
        assert_eq!(backoff.failed(seconds(0)), Duration::from_secs(1));
    }
}
