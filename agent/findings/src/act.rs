//! Which findings tell of one act: a script that gathers keys, packs and sends them makes several, and whoever reads them wants
//! to know that it was one.

use crate::facts::{AncestorFacts, ProcessFacts};
use crate::harvest::runs_script;
use std::collections::BTreeMap;

/// Findings that follow each other within this are of one act.
const WINDOW_NS: i64 = 60_000_000_000;
/// Processes that are remembered, and how far up one is looked for.
const MOST: usize = 4_096;
const MOST_UP: usize = 8;

/// What lately made findings: the number of the event that the first of them rests on, and the time of the last.
#[derive(Default)]
pub(crate) struct Acts(BTreeMap<String, (u64, i64)>);

impl Acts {
    /// The act that a finding of a process belongs to: its own, or that of the scripts that it runs below. `sequence`: of the
    /// event that the finding rests on, by which the act is named if it begins with it.
    pub fn of(&mut self, process: &ProcessFacts, sequence: u64, time_ns: i64) -> u64 {
        let line = line(process);
        let lately = |at: i64| time_ns.saturating_sub(at) < WINDOW_NS;
        let mut known = line.iter().filter_map(|key| self.0.get(*key));
        let act = known
            .find(|(_, at)| lately(*at))
            .map_or(sequence, |(act, _)| *act);
        if self.0.len() + line.len() > MOST {
            self.0.retain(|_, (_, at)| lately(*at));
        }
        // So many acts at once: the rest begin one each.
        if self.0.len() + line.len() <= MOST {
            for key in line {
                self.0.insert(key.to_owned(), (act, time_ns));
            }
        }
        act
    }
}

/// The process, and the scripts above it without a gap, from the innermost on. What runs no script (a manager of services, a
/// login shell) starts what has nothing to do with each other.
fn line(process: &ProcessFacts) -> Vec<&str> {
    let session = |above: &AncestorFacts| {
        let contexts = &mut process.contexts.iter();
        contexts.any(|c| c.kind == "login_shell" && c.ancestor == above.key)
    };
    let above = process
        .ancestors
        .iter()
        .take(MOST_UP)
        .take_while(|above| runs_script(above) && !session(above) && !above.key.is_empty());
    std::iter::once(&process.key)
        .chain(above.map(|above| &above.key))
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_one_script_does_is_one_act() {
        let mut acts = Acts::default();
        let script = ("s", "/usr/bin/bash", "/w/x.sh");
        let shell = ("l", "/usr/bin/bash", "");
        let cat = process("cat", &[script, shell]);
        let curl = process("curl", &[("sub", "/usr/bin/dash", "-c"), script, shell]);
        let other = process("other", &[shell]);
        let later = process("later", &[shell]);
        assert_eq!(acts.of(&cat, 7, SECOND), 7);
        assert_eq!(acts.of(&curl, 9, 2 * SECOND), 7);
        assert_eq!(acts.of(&cat, 11, 3 * SECOND), 7);
        // Typed one after the other at a shell.
        assert_eq!(acts.of(&other, 12, 3 * SECOND), 12);
        assert_eq!(acts.of(&later, 13, 3 * SECOND), 13);
        // The next minute.
        assert_eq!(acts.of(&curl, 20, 63 * SECOND), 20);
        assert_eq!(acts.of(&cat, 21, 64 * SECOND), 20);
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
