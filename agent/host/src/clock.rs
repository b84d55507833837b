//! The two clocks events carry, and the one that budgets are counted by.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspended time included (CLOCK_BOOTTIME): the clock of the kernel's records.
#[must_use]
pub fn boot_ns() -> u64 {
    nanos(ClockId::Boottime)
}

/// Nanoseconds since boot without the time that the host was suspended (CLOCK_MONOTONIC).
#[must_use]
pub fn running_ns() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn wall_ns() -> u64 {
    nanos(ClockId::Realtime)
}

/// Both at one moment: (since boot, since the epoch). Between two readings a busy machine may do something else for a
/// tenth of a second, and all that is dated by their difference would be dated wrong.
#[must_use]
pub fn both() -> (u64, u64) {
    const CLOSE_NS: u64 = 2_000;
    let mut closest = (u64::MAX, 0, 0);
    for _ in 0..8 {
        let before = boot_ns();
        let wall = wall_ns();
        let apart = boot_ns().saturating_sub(before);
        if apart < closest.0 {
            closest = (apart, before + apart / 2, wall);
        }
        if apart < CLOSE_NS {
            break;
        }
    }
    (closest.1, closest.2)
}

/// Processor time of this thread, nanoseconds.
#[must_use]
pub fn thread_ns() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    u64::try_from(t.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_of_one_moment() {
        let early = boot_ns();
        let (boot, wall) = both();
        assert!(early <= boot && boot <= boot_ns() && wall <= wall_ns());
        // The difference is that of the clocks, beside whoever takes the processor meanwhile.
        let offsets: Vec<u64> = (0..100).map(|_| both()).map(|(b, w)| w - b).collect();
        let (least, most) = (offsets.iter().min().unwrap(), offsets.iter().max().unwrap());
        assert!(most - least < 50_000_000, "{least} to {most}");
    }
}
