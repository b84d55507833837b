//! What a benchmark load spent: time on the wall, and time of processors.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

/// Whose processor time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The calling thread's.
    Thread,
    /// All threads of this process.
    Process,
    /// This process and the children it has waited for.
    Family,
}

/// A moment, to count from.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    wall: Instant,
    processor: Duration,
    whose: Whose,
}

/// Nanoseconds per round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// On the wall.
    pub wall: f64,
    /// On processors, hooks of the kernel that ran on behalf of the load included.
    pub processor: f64,
}

impl Spent {
    /// Begins to count.
    ///
    /// # Errors
    /// When the kernel does not report the time.
    pub fn now(whose: Whose) -> io::Result<Start> {
        Ok(Start {
            wall: Instant::now(),
            processor: processor(whose)?,
            whose,
        })
    }
}

impl Start {
    /// What was spent since, for each of `rounds`.
    ///
    /// # Errors
    /// When the kernel does not report the time.
    pub fn until_now(self, rounds: u32) -> io::Result<Spent> {
        let wall = self.wall.elapsed();
        let processor = processor(self.whose)?.saturating_sub(self.processor);
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(rounds.max(1));
        Ok(Spent {
            wall: each(wall),
            processor: each(processor),
        })
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} {:.1}", self.wall, self.processor)
    }
}

fn processor(whose: Whose) -> io::Result<Duration> {
    match whose {
        Whose::Thread => clock(libc::CLOCK_THREAD_CPUTIME_ID),
        Whose::Process => clock(libc::CLOCK_PROCESS_CPUTIME_ID),
        // Only getrusage(2) reports children; its sum is the scheduler's, not one of ticks.
        Whose::Family => Ok(clock(libc::CLOCK_PROCESS_CPUTIME_ID)? + children()?),
    }
}

fn clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is ours and writable.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

fn children() -> io::Result<Duration> {
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours and writable.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}
