//! The two clocks events carry, and the one that budgets are counted by.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspended time included (CLOCK_BOOTTIME): the clock of the kernel's records.
#[must_use]
pub fn boot_ns() -> u64 {
    nanos(ClockId::Boottime)
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn wall_ns() -> u64 {
    nanos(ClockId::Realtime)
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
