//! Overwriting what a consumed ring still holds.
//!
//! User space cannot write the data pages. The kernel side writes them when it makes records, so a lap of slots that
//! are made only to be thrown away leads round the ring. Slots over what was written since the last lap are filled with
//! zeros; over the rest, which holds nothing any more, the lap leaps, and so costs what was written and not the whole
//! ring.

use super::ring;
use keytrail_abi::state::{LEAP_SLOT, WIPE_SLOT};

/// A slot and its header in the ring.
const HEADER: u64 = 8;
const WIPED: u64 = WIPE_SLOT as u64 + HEADER;
const LEAP: u64 = LEAP_SLOT as u64 + HEADER;
/// Records that other processors may make between the decision to leap and the leap, in bytes.
const MARGIN: u64 = LEAP;

/// How the next piece of a lap is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is there.
    Leap,
    Zero,
}

impl Step {
    /// The program that does it in this ring.
    pub fn program(self, ring: usize) -> &'static str {
        match (self, ring) {
            (Self::Leap, ring::PAYLOADS) => "leap_payloads",
            (Self::Zero, ring::PAYLOADS) => "wipe_payloads",
            (Self::Leap, _) => "leap_ring",
            (Self::Zero, _) => "wipe_ring",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Leap => LEAP,
            Self::Zero => WIPED,
        }
    }
}

/// What is known about the bytes of a ring. Positions are those of its producer, which only grow.
#[derive(Debug, Default)]
pub struct Wiped {
    /// Whatever was written below this position has been overwritten.
    below: u64,
}

/// A lap on its way.
#[derive(Debug)]
pub struct Lap {
    size: u64,
    from: u64,
    /// Bytes of slots that were made only for the lap.
    own: u64,
    below: u64,
}

impl Wiped {
    /// Begins a lap at the producer's position `from` of a ring of `size` bytes.
    pub fn lap(&self, size: u64, from: u64) -> Lap {
        Lap {
            size,
            from,
            own: 0,
            below: self.below,
        }
    }

    /// Ends a lap with the producer at `at`.
    pub fn end(&mut self, lap: &Lap, at: u64) {
        // Where nobody else has written, the lap itself left nothing either.
        self.below = if at - lap.from == lap.own {
            at
        } else {
            lap.from
        };
    }
}

impl Lap {
    pub fn done(&self, at: u64) -> bool {
        at - self.from >= self.size
    }

    /// How to go on with the producer at `at`.
    pub fn step(&self, at: u64) -> Step {
        // What is at this place now was written a lap earlier.
        if at + LEAP + MARGIN <= self.below + self.size {
            Step::Leap
        } else {
            Step::Zero
        }
    }

    /// Takes note of a step that led from `before` to `after`.
    pub fn took(&mut self, step: Step, before: u64, after: u64) {
        self.own += step.bytes();
        if step == Step::Leap && after - before > LEAP + MARGIN {
            // Others wrote so much in between that the leap may have gone over what is to be overwritten: once more
            // round, without leaps.
            self.below = 0;
            self.from = after;
            self.own = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 8 << 20;

    /// Drives a lap over a model of the ring, in which `others` write beside it; returns the steps.
    fn drive(
        wiped: &mut Wiped,
        ring: &mut [u8],
        at: &mut u64,
        others: &mut dyn FnMut(&mut [u8], &mut u64),
    ) -> usize {
        let mut lap = wiped.lap(SIZE, *at);
        let mut steps = 0;
        while !lap.done(*at) {
            let before = *at;
            let step = lap.step(before);
            others(ring, at);
            if step == Step::Zero {
                fill(ring, *at, WIPED, 0);
            }
            *at += step.bytes();
            lap.took(step, before, *at);
            steps += 1;
            assert!(steps < 2_000, "a lap without end");
        }
        wiped.end(&lap, *at);
        steps
    }

    fn fill(ring: &mut [u8], at: u64, len: u64, with: u8) {
        for x in at..at + len {
            ring[(x % SIZE) as usize] = with;
        }
    }

    fn dirty(ring: &[u8], value: u8) -> usize {
        ring.iter().filter(|b| **b == value).count()
    }

    #[test]
    fn what_was_written_is_overwritten_wherever_it_lies() {
        let mut ring = vec![0u8; SIZE as usize];
        let (mut wiped, mut at) = (Wiped::default(), 0u64);
        for n in [
            1u64,
            100,
            5_000,
            40_000,
            300_000,
            SIZE / 2,
            SIZE - 4096,
            SIZE + 70_000,
            8,
        ] {
            fill(&mut ring, at, n, 7);
            at += n;
            drive(&mut wiped, &mut ring, &mut at, &mut |_, _| {});
            assert_eq!(dirty(&ring, 7), 0, "after {n} bytes");
        }
    }

    #[test]
    fn little_written_is_little_work() {
        let mut ring = vec![0u8; SIZE as usize];
        let (mut wiped, mut at) = (Wiped::default(), 0u64);
        fill(&mut ring, at, SIZE, 7);
        at += SIZE;
        let whole = drive(&mut wiped, &mut ring, &mut at, &mut |_, _| {});
        fill(&mut ring, at, 5_000, 7);
        at += 5_000;
        let mut zeroed = 0;
        let lap = wiped.lap(SIZE, at);
        let mut x = at;
        while !lap.done(x) {
            let step = lap.step(x);
            zeroed += if step == Step::Zero { WIPED } else { 0 };
            x += step.bytes();
        }
        let little = drive(&mut wiped, &mut ring, &mut at, &mut |_, _| {});
        assert_eq!(dirty(&ring, 7), 0);
        assert!(zeroed < SIZE / 16, "{zeroed} bytes were zeroed for 5000");
        assert!(little < whole / 2, "{little} steps, {whole} for all");
    }

    #[test]
    fn records_made_meanwhile_are_left_for_the_next_lap() {
        let mut ring = vec![0u8; SIZE as usize];
        let (mut wiped, mut at) = (Wiped::default(), 0u64);
        // Some, and more than the margin at once.
        for burst in [3_000u64, MARGIN + LEAP + 8] {
            fill(&mut ring, at, 9_000, 7);
            at += 9_000;
            let mut n = 0;
            drive(&mut wiped, &mut ring, &mut at, &mut |ring, at| {
                n += 1;
                if n % 10 == 0 && n < 40 {
                    fill(ring, *at, burst, 9);
                    *at += burst;
                }
            });
            assert_eq!(dirty(&ring, 7), 0);
            assert_ne!(dirty(&ring, 9), 0);
            drive(&mut wiped, &mut ring, &mut at, &mut |_, _| {});
            assert_eq!(dirty(&ring, 9), 0, "bursts of {burst}");
        }
    }
}
