//! Which findings report one act: a script that gathers keys, packs and sends them makes several, and whoever reads them wants
//! to know that it was one.

use crate::facts::ProcessFacts;
use crate::harvest::{parent_of, runs_script};
use std::collections::BTreeMap;

/// Findings that follow each other within this are of one act, and how long one lasts at most: a server that is busy all day does
/// one thing after another.
const WINDOW_NS: i64 = 60_000_000_000;
const LONGEST_NS: i64 = 5 * WINDOW_NS;
/// Processes that are remembered.
const MOST: usize = 4_096;

/// An act that made findings lately.
#[derive(Clone, Copy)]
struct Act {
    /// The number of the event that the first of them rests on, and its time.
    sequence: u64,
    since_ns: i64,
    last_ns: i64,
}

impl Act {
    fn goes_on(&self, time_ns: i64) -> bool {
        time_ns.saturating_sub(self.last_ns) < WINDOW_NS
            && time_ns.saturating_sub(self.since_ns) < LONGEST_NS
    }
}

/// By the processes that took part.
#[derive(Default)]
pub(crate) struct Acts(BTreeMap<String, Act>);

impl Acts {
    /// The act that a finding of a process belongs to: its own, or that of the script that started it. `sequence`: of the
    /// event that the finding rests on, by which the act is named if it begins with it.
    pub fn of(&mut self, process: &ProcessFacts, sequence: u64, time_ns: i64) -> u64 {
        let parent = parent_of(process).filter(|parent| runs_script(parent));
        let keys = || std::iter::once(&process.key).chain(parent.map(|parent| &parent.key));
        let mut known = keys().filter_map(|key| self.0.get(key));
        let mut act = known
            .find(|act| act.goes_on(time_ns))
            .copied()
            .unwrap_or(Act {
                sequence,
                since_ns: time_ns,
                last_ns: time_ns,
            });
        act.last_ns = time_ns;
        if self.0.len() + 2 > MOST {
            self.0.retain(|_, act| act.goes_on(time_ns));
        }
        // So many acts at once: the rest begin one each.
        if self.0.len() + 2 <= MOST {
            for key in keys() {
                self.0.insert(key.clone(), act);
            }
        }
        act.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::AncestorFacts;

    const SECOND: i64 = 1_000_000_000;

    fn process(key: &str, above: &[(&str, &str, &str)]) -> ProcessFacts {
        let ancestor = |(key, executable, script): &(&str, &str, &str)| AncestorFacts {
            key: (*key).to_owned(),
            executable: (*executable).to_owned(),
            script: (*script).to_owned(),
            ..AncestorFacts::default()
        };
        ProcessFacts {
            key: key.to_owned(),
            ancestors: above.iter().map(ancestor).collect(),
            ..ProcessFacts::default()
        }
    }

    #[test]
    fn what_one_script_starts_is_one_act() {
        let mut acts = Acts::default();
        let script = ("s:0", "/usr/bin/bash", "/w/x.sh");
        let runner = ("r", "/usr/bin/python3", "/w/runner.py");
        let shell = ("l", "/usr/bin/bash", "");
        let cat = process("cat", &[script, runner]);
        // Behind a copy of the script's shell: `$(curl ...)`.
        let copy = ("c:0", "/usr/bin/bash", "/w/x.sh");
        let curl = process("curl", &[copy, script, runner]);
        let next = process("next", &[("s2", "/usr/bin/bash", "/w/y.sh"), runner]);
        let other = process("other", &[shell]);
        let later = process("later", &[shell]);
        assert_eq!(acts.of(&cat, 7, SECOND), 7);
        assert_eq!(acts.of(&curl, 9, 2 * SECOND), 7);
        assert_eq!(acts.of(&cat, 11, 3 * SECOND), 7);
        // Another script of the same runner.
        assert_eq!(acts.of(&next, 12, 3 * SECOND), 12);
        // Typed one after the other at a shell.
        assert_eq!(acts.of(&other, 13, 3 * SECOND), 13);
        assert_eq!(acts.of(&later, 14, 3 * SECOND), 14);
        // The next minute.
        assert_eq!(acts.of(&curl, 20, 63 * SECOND), 20);
        assert_eq!(acts.of(&cat, 21, 64 * SECOND), 20);
    }

    #[test]
    fn an_act_does_not_last_for_ever() {
        let mut acts = Acts::default();
        let server = process("server", &[]);
        let reported: Vec<u64> = (0..10)
            .map(|n| acts.of(&server, n, n as i64 * 40 * SECOND))
            .collect();
        assert_eq!(reported, [0, 0, 0, 0, 0, 0, 0, 0, 8, 8]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut acts = Acts::default();
        for n in 0..2 * MOST as u64 {
            let own = process(&format!("k{n}"), &[]);
            assert_eq!(acts.of(&own, n, 1), n);
        }
        assert!(acts.0.len() <= MOST);
        // What is over makes room.
        let own = process("k", &[]);
        assert_eq!(acts.of(&own, 1, 100 * SECOND), 1);
        assert_eq!(acts.of(&own, 2, 101 * SECOND), 1);
    }
}
