//! Places in, one entry a credential out. Used by a whole walk and, place by place, by the running agent.

use super::model::{
    Class, Entry, FileLocation, Location, MAX_LOCATIONS, MAX_PIDS, ProcessLocation,
};
use super::rotation;
use keytrail_model::Credential;
use std::collections::{BTreeMap, HashMap};

/// Credentials kept; beyond it new ones are only counted.
const MAX_ENTRIES: usize = 500_000;
/// Credentials of one kind remembered in one place.
const MAX_SLOT: usize = 4_096;

/// What a place turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A credential never seen before.
    New,
    /// A known one in another place.
    NewPlace,
    /// A known one where it was.
    Known,
    /// It took the place of this one.
    Rotated { previous: String },
    /// There is no room for it; it was counted.
    Refused,
}

/// All credentials of one host (or one root).
#[derive(Debug, Default)]
pub struct Inventory {
    /// Also those that are in no place any more: they may come back, and are then not new.
    entries: HashMap<String, Entry>,
    /// Place key -> kind -> fingerprints there now.
    slots: HashMap<String, BTreeMap<String, Vec<String>>>,
    /// The same, for what was in a place until it was emptied.
    left: HashMap<String, BTreeMap<String, Vec<String>>>,
    /// Credentials that found no room.
    pub refused: u64,
}

impl Inventory {
    /// Takes over what an earlier run knew, so that first sight and rotation go on from there.
    pub fn load(&mut self, entry: Entry) {
        for place in &entry.places {
            self.occupy(place.key(), &entry.credential);
        }
        self.entries
            .insert(entry.credential.fingerprint.clone(), entry);
    }

    /// Notes that `credential` is in `place` at `now` (seconds since the epoch), beside what is known there.
    pub fn observe_location(
        &mut self,
        credential: &Credential,
        place: Location,
        now: i64,
    ) -> Observed {
        if !self.entries.contains_key(&credential.fingerprint) && self.entries.len() >= MAX_ENTRIES
        {
            self.refused += 1;
            return Observed::Refused;
        }
        self.occupy(place.key(), credential);
        let mut new = false;
        let entry = self
            .entries
            .entry(credential.fingerprint.clone())
            .or_insert_with(|| {
                new = true;
                Entry {
                    credential: credential.clone(),
                    class: Class::default(),
                    first_seen: now,
                    rotated: None,
                    previous: String::new(),
                    places: Vec::new(),
                    more_places: 0,
                    exposures: Vec::new(),
                }
            });
        if !new {
            better(&mut entry.credential, credential);
        }
        match (new, add_location(entry, place)) {
            (true, _) => Observed::New,
            (false, true) => Observed::NewPlace,
            (false, false) => Observed::Known,
        }
    }

    /// Notes everything that is in one place now: what is no longer among it has left, and what came in the stead of
    /// something that left is a rotation. One answer for each of `found`, in order.
    pub fn replace_place(
        &mut self,
        key: &str,
        found: Vec<(Credential, Location)>,
        now: i64,
    ) -> Vec<Observed> {
        let before = self.forget(key);
        let mut pairs: HashMap<String, String> = HashMap::new();
        for (kind, old) in &before {
            let old: Vec<_> = old
                .iter()
                .map(|f| (f.as_str(), self.identifier(f)))
                .collect();
            let new: Vec<_> = found
                .iter()
                .filter(|(c, _)| c.kind == *kind)
                .map(|(c, _)| (c.fingerprint.as_str(), c.identifier.as_str()))
                .collect();
            pairs.extend(
                rotation::pair(&old, &new)
                    .into_iter()
                    .map(|(n, o)| (n.to_owned(), o.to_owned())),
            );
        }
        let answers = found
            .into_iter()
            .map(|(credential, place)| {
                let was_here = before
                    .get(&credential.kind)
                    .is_some_and(|b| b.contains(&credential.fingerprint));
                let observed = self.observe_location(&credential, place, now);
                let Some(previous) = pairs.get(&credential.fingerprint) else {
                    return if was_here && observed == Observed::NewPlace {
                        Observed::Known
                    } else {
                        observed
                    };
                };
                if let Some(entry) = self.entries.get_mut(&credential.fingerprint) {
                    entry.rotated = Some(now);
                    entry.previous.clone_from(previous);
                }
                Observed::Rotated {
                    previous: previous.clone(),
                }
            })
            .collect();
        if self.slots.contains_key(key) {
            self.left.remove(key);
        } else if !before.is_empty() {
            // Editors write aside and rename: the place is empty for a moment.
            if self.left.len() >= MAX_ENTRIES {
                self.left.clear();
            }
            self.left.insert(key.to_owned(), before);
        }
        answers
    }

    /// The place is gone.
    pub fn forget_place(&mut self, key: &str) {
        self.replace_place(key, Vec::new(), 0);
    }

    /// Something is in this place.
    #[must_use]
    pub fn occupied(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    /// This credential is in this place.
    #[must_use]
    pub fn holds(&self, key: &str, fingerprint: &str) -> bool {
        self.slots
            .get(key)
            .is_some_and(|s| s.values().flatten().any(|f| f == fingerprint))
    }

    /// Everything that is in this place.
    pub fn held<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Credential> {
        let here = self.slots.get(key).into_iter().flat_map(|s| s.values());
        here.flatten()
            .filter_map(|f| self.entries.get(f))
            .map(|entry| &entry.credential)
    }

    /// What is or was in this place is known.
    #[must_use]
    pub fn remembers(&self, key: &str) -> bool {
        self.slots.contains_key(key) || self.left.contains_key(key)
    }

    /// The file that is known under this key, once for every credential in it.
    pub fn at<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a FileLocation> {
        let here = self.slots.get(key).into_iter().flat_map(|s| s.values());
        here.flatten()
            .filter_map(|f| self.entries.get(f))
            .flat_map(|entry| &entry.places)
            .filter_map(move |place| match place {
                Location::File(f) if place.is_at(key) => Some(f),
                _ => None,
            })
    }

    fn forget(&mut self, key: &str) -> BTreeMap<String, Vec<String>> {
        let Some(slot) = self.slots.remove(key) else {
            return self.left.get(key).cloned().unwrap_or_default();
        };
        for fingerprint in slot.values().flatten() {
            if let Some(entry) = self.entries.get_mut(fingerprint) {
                entry.places.retain(|p| !p.is_at(key));
            }
        }
        slot
    }

    fn occupy(&mut self, key: String, credential: &Credential) {
        let here = self
            .slots
            .entry(key)
            .or_default()
            .entry(credential.kind.clone())
            .or_default();
        if here.len() < MAX_SLOT && !here.contains(&credential.fingerprint) {
            here.push(credential.fingerprint.clone());
        }
    }

    fn identifier(&self, fingerprint: &str) -> &str {
        self.entries
            .get(fingerprint)
            .map_or("", |e| &e.credential.identifier)
    }

    #[must_use]
    pub fn get(&self, fingerprint: &str) -> Option<&Entry> {
        self.entries.get(fingerprint)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    /// All that are somewhere, by fingerprint; their places by key.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        let sorted: BTreeMap<String, Entry> = self.entries.into_iter().collect();
        sorted
            .into_values()
            .filter(|entry| entry.place_count() > 0)
            .map(|mut entry| {
                entry.places.sort_by_cached_key(Location::key);
                entry
            })
            .collect()
    }
}

/// The same secret seen by two rules: one of them names it, whichever came first, so that it is of one kind everywhere.
/// Nothing that is known is lost, and no rule's privilege is claimed for another's kind.
fn better(known: &mut Credential, seen: &Credential) {
    let expires = known.expires.or(seen.expires);
    let (winner, other) = if seen.is_better(known) {
        (seen, &*known)
    } else {
        (&*known, seen)
    };
    let mut named = winner.clone();
    if named.identifier.is_empty() {
        named.identifier.clone_from(&other.identifier);
    }
    if named.privilege == 0 {
        named.privilege = other.privilege;
    }
    named.expires = expires;
    *known = named;
}

/// True when the place was not there yet.
fn add_location(entry: &mut Entry, place: Location) -> bool {
    for known in &mut entry.places {
        match (&mut *known, &place) {
            (Location::File(a), Location::File(b)) => {
                let same_name = a.path == b.path && a.container == b.container;
                if same_name || same_file(a, b) {
                    // Two names of one file are one place; the view from inside its container says more than a layer's path.
                    if same_name || (a.container.is_empty() && !b.container.is_empty()) {
                        *known = place;
                    }
                    return false;
                }
            }
            (Location::Process(a), Location::Process(b)) if same_program(a, b) => {
                for pid in &b.pids {
                    if !a.pids.contains(pid) {
                        a.count += 1;
                        if a.pids.len() < MAX_PIDS {
                            a.pids.push(*pid);
                        }
                    }
                }
                return false;
            }
            (Location::Socket(a), Location::Socket(b))
                if a.path == b.path && a.container == b.container =>
            {
                a.count += b.count;
                if a.name.is_empty() {
                    a.name.clone_from(&b.name);
                }
                return false;
            }
            _ => {}
        }
    }
    if entry.places.len() >= MAX_LOCATIONS {
        entry.more_places += 1;
        return true;
    }
    entry.places.push(place);
    true
}

fn same_program(a: &ProcessLocation, b: &ProcessLocation) -> bool {
    (a.area, a.uid) == (b.area, b.uid)
        && a.name == b.name
        && a.exe == b.exe
        && a.unit == b.unit
        && a.container == b.container
}

fn same_file(a: &FileLocation, b: &FileLocation) -> bool {
    a.inode != 0 && a.inode == b.inode && a.device == b.device
}

#[cfg(test)]
mod tests {
    use super::super::model::Area;
    use super::*;
    use crate::fixtures;

    fn credential(fingerprint: &str) -> Credential {
        Credential {
            privilege: 0,
            ..fixtures::credential(fingerprint)
        }
    }

    fn file(path: &str, inode: u64) -> Location {
        Location::File(FileLocation {
            path: path.into(),
            inode,
            device: 1,
            ..FileLocation::default()
        })
    }

    #[test]
    fn one_credential_in_two_files_is_one_entry() {
        let mut inventory = Inventory::default();
        assert_eq!(
            inventory.observe_location(&credential("a"), file("/x", 1), 5),
            Observed::New
        );
        assert_eq!(
            inventory.observe_location(&credential("a"), file("/y", 2), 6),
            Observed::NewPlace
        );
        assert_eq!(
            inventory.observe_location(&credential("a"), file("/y", 2), 7),
            Observed::Known
        );
        // A hard link is the same file.
        assert_eq!(
            inventory.observe_location(&credential("a"), file("/z", 2), 8),
            Observed::Known
        );
        assert_eq!(
            inventory.get("a").map(|e| (e.first_seen, e.places.len())),
            Some((5, 2))
        );
    }

    #[test]
    fn another_secret_of_the_kind_in_the_same_place_is_a_rotation() {
        let mut inventory = Inventory::default();
        let key = file("/x", 1).key();
        let seen = inventory.replace_place(
            &key,
            vec![
                (credential("a"), file("/x", 1)),
                (credential("k"), file("/x", 1)),
            ],
            5,
        );
        assert_eq!(seen, [Observed::New, Observed::New]);
        let seen = inventory.replace_place(
            &key,
            vec![
                (credential("b"), file("/x", 9)),
                (credential("k"), file("/x", 9)),
            ],
            6,
        );
        assert_eq!(
            seen,
            [
                Observed::Rotated {
                    previous: "a".into()
                },
                Observed::Known
            ]
        );
        assert_eq!(inventory.get("b").and_then(|e| e.rotated), Some(6));
        assert_eq!(
            inventory.get("k").map(|e| (e.rotated, e.first_seen)),
            Some((None, 5))
        );
        // Written aside and renamed: empty for a moment.
        inventory.forget_place(&key);
        let seen = inventory.replace_place(
            &key,
            vec![
                (credential("c"), file("/x", 9)),
                (credential("k"), file("/x", 9)),
            ],
            7,
        );
        assert_eq!(
            seen,
            [
                Observed::Rotated {
                    previous: "b".into()
                },
                Observed::Known
            ]
        );
        let names: Vec<_> = inventory
            .into_entries()
            .into_iter()
            .map(|e| e.credential.fingerprint)
            .collect();
        assert_eq!(names, ["c", "k"]);
    }

    #[test]
    fn the_better_rule_names_it_and_nothing_known_is_lost() {
        let mut inventory = Inventory::default();
        let generic = Credential {
            kind: "generic".into(),
            confidence: 0.3,
            privilege: 3,
            expires: Some(9),
            identifier: "NAME".into(),
            ..credential("a")
        };
        inventory.observe_location(&generic, file("/x", 1), 5);
        inventory.observe_location(&credential("a"), file("/y", 2), 5);
        let entry = inventory.get("a").unwrap();
        assert_eq!(
            (entry.credential.kind.as_str(), entry.credential.privilege),
            ("github-pat", 3)
        );
        assert_eq!(
            (
                entry.credential.expires,
                entry.credential.identifier.as_str()
            ),
            (Some(9), "NAME")
        );
    }

    #[test]
    fn the_order_of_sight_does_not_decide_the_kind() {
        let as_kind = |kind: &str, rule: &str, confidence: f64| Credential {
            kind: kind.into(),
            rule: rule.into(),
            confidence,
            ..credential("a")
        };
        let seen = [
            as_kind("generic-secret", "generic-secret", 0.99),
            as_kind("github-token", "github-token", 0.85),
            as_kind("netrc", "netrc", 0.85),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut inventory = Inventory::default();
            for (i, which) in order.into_iter().enumerate() {
                inventory.observe_location(&seen[which], file(&format!("/{i}"), i as u64 + 1), 5);
            }
            let kind = &inventory.get("a").unwrap().credential.kind;
            assert_eq!(kind, "github-token", "{order:?}");
        }
    }

    #[test]
    fn processes_of_one_program_are_one_place_with_a_count() {
        let mut inventory = Inventory::default();
        for pid in 0..40 {
            let place = ProcessLocation {
                area: Area::Env,
                name: "T".into(),
                exe: "/bin/x".into(),
                pids: vec![pid],
                count: 1,
                ..ProcessLocation::default()
            };
            inventory.observe_location(&credential("a"), Location::Process(place), 5);
        }
        let Some(Location::Process(p)) = inventory.get("a").and_then(|e| e.places.first()) else {
            panic!()
        };
        assert_eq!((p.count, p.pids.len()), (40, MAX_PIDS));
    }

    #[test]
    fn places_are_bounded() {
        let mut inventory = Inventory::default();
        for i in 0..(MAX_LOCATIONS as u64 + 10) {
            inventory.observe_location(&credential("a"), file(&format!("/{i}"), i + 1), 5);
        }
        let entry = inventory.get("a").unwrap();
        assert_eq!(
            (entry.places.len(), entry.more_places, entry.place_count()),
            (MAX_LOCATIONS, 10, MAX_LOCATIONS as u64 + 10)
        );
    }
}
