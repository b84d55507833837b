//! What is known of one credential beside what is usual for it: where it lies, and who has it.

use crate::facts::{Facts, ProcessFacts};
use crate::recent::Remembered;
use crate::text::number;
use std::collections::BTreeSet;

/// Places and consumers of one credential that are remembered.
const MOST_PLACES: usize = 64;

/// How many different texts there were; which they were, nobody asks.
#[derive(Default)]
pub(crate) struct Different(Vec<u64>);

impl Different {
    fn add(&mut self, text: &str) {
        let number = number(text);
        if self.0.len() < MOST_PLACES && !self.0.contains(&number) {
            self.0.push(number);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is known of one credential beside its baseline.
#[derive(Default)]
pub(crate) struct About {
    pub places: Different,
    pub units: Different,
    pub senders: Different,
    pub environments: BTreeSet<String>,
}

impl Remembered for About {
    fn bytes(&self) -> usize {
        let numbers = [&self.places, &self.units, &self.senders];
        let numbers: usize = numbers.into_iter().map(|d| d.0.capacity()).sum();
        // What environments are called says the site.
        let names: usize = self.environments.iter().map(|name| 64 + name.len()).sum();
        size_of::<About>() + size_of::<u64>() * numbers + names
    }
}

impl About {
    /// A file beside one that is known, and named after it, is what an editor or a rotation made of that.
    pub fn add_place(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = name.trim_start_matches(['.', '#']);
        let stem = name.split(['.', '~', '#']).next().unwrap_or_default();
        self.places.add(&format!("{dir}/{stem}"));
    }

    pub fn add_use(&mut self, facts: &Facts, process: &ProcessFacts) {
        let sent = facts.kind == "credential_sent"
            && facts
                .destination
                .as_ref()
                .is_some_and(|d| d.path.is_empty());
        let workload = process.workload();
        if (sent || facts.kind == "credential_exposed")
            && let Some(unit) = workload.strip_prefix("unit:")
        {
            // Instances of one template do the same.
            self.units.add(unit.split('@').next().unwrap_or(unit));
        }
        if sent {
            self.senders.add(&process.program());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_editor_leaves_is_no_other_place() {
        let mut about = About::default();
        for path in [
            "/srv/.env",
            "/srv/.env~",
            "/srv/.env.swp",
            "/srv/#.env#",
            "/srv/b",
            "/etc/.env",
        ] {
            about.add_place(path);
        }
        assert_eq!(about.places.len(), 3, "/etc/.env, /srv/.env and /srv/b");
    }

    #[test]
    fn long_paths_take_little() {
        let mut about = About::default();
        for n in 0..1_000 {
            about.add_place(&format!("/srv/{}/{n}", "d".repeat(4_000)));
        }
        assert_eq!(about.places.len(), MOST_PLACES);
        assert!(about.bytes() < 1_024, "{}", about.bytes());
    }
}
