//! What is known of one credential beside what is usual for it: where it lies, and who has it.

use crate::facts::{Facts, ProcessFacts};
use std::collections::BTreeSet;

/// Places and consumers of one credential that are remembered.
const MOST_PLACES: usize = 64;

/// What is known of one credential beside its baseline.
#[derive(Default)]
pub(crate) struct About {
    pub places: BTreeSet<String>,
    pub units: BTreeSet<String>,
    pub senders: BTreeSet<String>,
    pub environments: BTreeSet<String>,
}

impl About {
    /// A file beside one that is known, and named after it, is what an editor or a rotation made of that.
    pub fn add_place(&mut self, path: &str) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = |name: &str| {
            let name = name.trim_start_matches(['.', '#']).to_owned();
            name.split(['.', '~', '#'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let variant = |known: &String| {
            known
                .rsplit_once('/')
                .is_some_and(|(d, n)| d == dir && stem(n) == stem(name))
        };
        if self.places.len() < MOST_PLACES && !self.places.iter().any(variant) {
            self.places.insert(path.to_owned());
        }
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
            && self.units.len() < MOST_PLACES
        {
            // Instances of one template do the same.
            let unit = unit.split('@').next().unwrap_or(unit);
            self.units.insert(unit.to_owned());
        }
        if sent && self.senders.len() < MOST_PLACES {
            self.senders.insert(process.program().to_owned());
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
        let places: Vec<&str> = about.places.iter().map(String::as_str).collect();
        assert_eq!(places, ["/etc/.env", "/srv/.env", "/srv/b"]);
    }
}
