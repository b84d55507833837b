//! Overwriting what a consumed ring still holds.
//!
//! User space cannot write the data pages. The kernel side writes them when it makes records, so a pass of slots that
//! are made only to be thrown away leads round the ring. Slots over what was written since the last pass are filled with
//! zeros; over the rest, which holds nothing any more, the pass skips, and so costs what was written and not the whole
//! ring.

use super::ring;
use keytrail_abi::state::{SKIP_SLOT, WIPE_SLOT};

/// A slot and its header in the ring.
const HEADER: u64 = 8;
const WIPED: u64 = WIPE_SLOT as u64 + HEADER;
const SKIP: u64 = SKIP_SLOT as u64 + HEADER;
/// Records that other processors may make between the decision to skip and the skip, in bytes.
const MARGIN: u64 = SKIP;

/// How the next piece of a pass is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is there.
    Skip,
    Zero,
}

impl Step {
    /// The program that does it in this ring.
    pub fn program(self, ring: usize) -> &'static str {
        match (self, ring) {
            (Self::Skip, ring::PAYLOADS) => "skip_payloads",
            (Self::Zero, ring::PAYLOADS) => "wipe_payloads",
            (Self::Skip, _) => "skip_ring",
            (Self::Zero, _) => "wipe_ring",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Skip => SKIP,
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

/// A pass on its way.
#[derive(Debug)]
pub struct Pass {
    size: u64,
    from: u64,
    /// Bytes of slots that were made only for the pass.
    own: u64,
    below: u64,
}

impl Wiped {
    /// Begins a pass at the producer's position `from` of a ring of `size` bytes.
    pub fn pass(&self, size: u64, from: u64) -> Pass {
        Pass {
            size,
            from,
            own: 0,
            below: self.below,
        }
    }

    /// Ends a pass with the producer at `at`.
    pub fn end(&mut self, pass: &Pass, at: u64) {
        // Where nobody else has written, the pass itself left nothing either.
        self.below = if at - pass.from == pass.own {
            at
        } else {
            pass.from
        };
    }
}

impl Pass {
    pub fn done(&self, at: u64) -> bool {
        at - self.from >= self.size
    }

    /// How to go on with the producer at `at`.
    pub fn step(&self, at: u64) -> Step {
        // What is at this place now was written a pass earlier.
        if at + SKIP + MARGIN <= self.below + self.size {
            Step::Skip
        } else {
            Step::Zero
        }
    }

    /// Takes note of a step that led from `before` to `after`.
    pub fn took(&mut self, step: Step, before: u64, after: u64) {
        self.own += step.bytes();
        if step == Step::Skip && after - before > SKIP + MARGIN {
            // Others wrote so much in between that the skip may have gone over what is to be overwritten: once more
            // round, without skips.
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

    /// Drives a pass over a model of the ring, in which `others` write beside it; returns the steps.
    fn drive(
        wiped: &mut Wiped,
        ring: &mut [u8],
        at: &mut u64,
        others: &mut dyn FnMut(&mut [u8], &mut u64),
    ) -> usize {
        let mut pass = wiped.pass(SIZE, *at);
        let mut steps = 0;
        while !pass.done(*at) {
            let before = *at;
            let step = pass.step(before);
            others(ring, at);
            if step == Step::Zero {
                fill(ring, *at, WIPED, 0);
            }
            *at += step.bytes();
            pass.took(step, before, *at);
            steps += 1;
            assert!(steps < 2_000, "a pass without end");
        }
        wiped.end(&pass, *at);
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
        let pass = wiped.pass(SIZE, at);
        let mut x = at;
        while !pass.done(x) {
            let step = pass.step(x);
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
        for burst in [3_000u64, MARGIN + SKIP + 8] {
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
