//! Why what a program encrypts is not seen, as the search of its files told.

use super::lineage::{Program, program};
use crate::process::{Proc, ProcessTable};
use keytrail_model::UnhookedSeen;
use std::collections::BTreeMap;

/// How long the search of a program's file may take.
const SEARCH_NS: u64 = 5_000_000_000;
const JUST_ASKED: &str =
    "the program was met less than 5 s before: not all of its code may have been searched yet";

/// Files and programs that are remembered; of others it is said without the reason.
const MOST: usize = 4_096;

#[derive(Default)]
pub(super) struct Unhooked {
    /// By the path of the file that was searched.
    files: BTreeMap<String, String>,
    /// By who had it mapped: a library's users do not have its name.
    users: BTreeMap<Program, String>,
    /// When a program's file, by path and inode, was to be searched first: nanoseconds since boot.
    asked: BTreeMap<(String, u64), u64>,
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

    /// A holder begins a program: its file is searched, unless it was before.
    pub(super) fn asked(&mut self, proc: &Proc, boot_ns: u64) {
        let key = (proc.exe.path.clone(), proc.exe.inode);
        // Of one that finds no room nothing is said: who takes its place would be dated anew.
        if self.asked.len() < MOST || self.asked.contains_key(&key) {
            self.asked.entry(key).or_insert(boot_ns);
        }
    }

    /// Why nothing was seen of what this process encrypted from then on, nanoseconds since boot.
    pub(super) fn why(&self, proc: &Proc, since_ns: u64) -> Option<&str> {
        let known = self.files.get(&proc.exe.path);
        let known = known.or_else(|| self.users.get(&program(proc)));
        known.map(String::as_str).or_else(|| {
            let asked = *self.asked.get(&(proc.exe.path.clone(), proc.exe.inode))?;
            // Before it was asked for, another start of the program may have been inspected long ago.
            let since = since_ns.checked_sub(asked)?;
            (since < SEARCH_NS).then_some(JUST_ASKED)
        })
    }
}

fn bounded<K: Ord>(map: &mut BTreeMap<K, String>, key: K, reason: &str) {
    if map.len() >= MOST && !map.contains_key(&key) {
        map.pop_first();
    }
    map.insert(key, reason.to_owned());
}
