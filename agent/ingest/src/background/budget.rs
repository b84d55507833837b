//! How much of the processor the background may take.

/// Processor time that may be taken at once after a rest.
const BURST_NS: i64 = 1_500_000_000;

/// Processor time saved up: it grows with the clock at a given share, and looks spend it.
#[derive(Debug)]
pub struct Budget {
    /// Parts in a thousand of one processor.
    share: u64,
    /// Below zero: a look took more than there was.
    saved_ns: i64,
    at_ns: u64,
}

impl Budget {
    pub fn new(share: u64, now_ns: u64) -> Self {
        Budget {
            share,
            saved_ns: BURST_NS,
            at_ns: now_ns,
        }
    }

    /// Whether there is something left to spend.
    pub fn has(&mut self, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.at_ns);
        // Kept until it makes a nanosecond: asking often must not lose what is too little each time.
        let earned = passed.saturating_mul(self.share) / 1_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.saved_ns = self.saved_ns.saturating_add(earned).min(BURST_NS);
            self.at_ns = now_ns;
        }
        self.saved_ns > 0
    }

    /// Whether nothing of it is spent.
    pub fn is_whole(&mut self, now_ns: u64) -> bool {
        self.has(now_ns);
        self.saved_ns >= BURST_NS
    }

    pub fn spend(&mut self, ns: u64) {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        self.saved_ns = self.saved_ns.saturating_sub(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_it_is_the_share() {
        let mut budget = Budget::new(40, 0);
        let (mut spent, mut now) = (0i64, 0u64);
        while now < 100_000_000_000 {
            if budget.has(now) {
                budget.spend(40_000_000);
                spent += 40_000_000;
                now += 40_000_000;
            } else {
                now += 5_000_000;
            }
        }
        let allowed = BURST_NS + 100_000_000_000 * 40 / 1_000;
        assert!(
            spent <= allowed + 40_000_000 && spent > allowed * 9 / 10,
            "{spent} of {allowed}"
        );
    }
}
