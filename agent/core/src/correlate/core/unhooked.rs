//! Why what a program encrypts is not seen, as the search of its files told.

use super::lineage::{Program, program};
use crate::process::{Proc, ProcessTable};
use keytrail_model::UnhookedSeen;
use std::collections::BTreeMap;

/// Files and programs that are remembered; of others it is said without the reason.
const MOST: usize = 4_096;

#[derive(Default)]
pub(super) struct Unhooked {
    /// By the path of the file that was searched.
    files: BTreeMap<String, String>,
    /// By who had it mapped: a library's users do not have its name.
    users: BTreeMap<Program, String>,
}

impl Unhooked {
    pub(super) fn note(&mut self, seen: &UnhookedSeen, table: &ProcessTable) {
        bounded(&mut self.files, seen.path.clone(), &seen.reason);
        for user in &seen.users {
            let proc = table.latest(*user).and_then(|pid| table.get(pid));
            // A program is known by its own path; what maps a library, by what it runs.
            if let Some(proc) = proc.filter(|proc| proc.exe.path != seen.path) {
                bounded(&mut self.users, program(proc), &seen.reason);
            }
        }
    }

    /// Why nothing is seen of what this process encrypts.
    pub(super) fn why(&self, proc: &Proc) -> Option<&str> {
        self.files
            .get(&proc.exe.path)
            .or_else(|| self.users.get(&program(proc)))
            .map(String::as_str)
    }
}

fn bounded<K: Ord>(map: &mut BTreeMap<K, String>, key: K, reason: &str) {
    if map.len() >= MOST && !map.contains_key(&key) {
        map.pop_first();
    }
    map.insert(key, reason.to_owned());
}
