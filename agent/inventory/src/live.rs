//! The inventory as the running agent keeps it: news of files in; what is newly created, and what is to be stored, out.
//! Pure: time comes with the news.

use super::facts::third_party;
use super::merge::{Inventory, Observed};
use super::model::{Entry, FileLocation, Location, Reach};
use super::names;
use keytrail_model::{
    Credential, CredentialRef, FileFacts, FileInspection, InventoryUpdate, Unread, Why,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// Files remembered that were inspected and held nothing.
const MAX_CLEAN: usize = 16_384;
/// Places remembered whose credentials were seen without a word.
const MAX_QUIET: usize = 16_384;
/// Files remembered that went a moment ago, with what they held.
const MAX_GONE: usize = 1_024;
/// Files remembered that were read and not inspected, and for how long.
const MAX_UNREAD: usize = 256;
const UNREAD_NS: u64 = 10_000_000_000;
/// Bytes of a name from which on it may be the beginning of a longer one.
const UNREAD_NAME: usize = 63;

/// Everything that is in one place from a moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// [`Location::key`].
    pub place: String,
    /// Seconds since the epoch.
    pub changed: i64,
    /// Each with this place only; empty when the place holds nothing any more.
    pub entries: Vec<Entry>,
}

/// What is new in a file, and what is not in it any more.
#[derive(Debug)]
pub struct ContentDiff {
    /// [`Location::key`].
    pub key: String,
    pub facts: FileFacts,
    /// Credentials that were not in this file before.
    pub created: Vec<CredentialRef>,
    /// Those of them that took another one's place, each with the fingerprint of that one.
    pub rotated: Vec<(CredentialRef, String)>,
    /// What was in the file before.
    pub removed: Vec<CredentialRef>,
    /// Who wrote it last, as far as known; 0 when not.
    pub writer: u32,
    pub boot_ns: u64,
}

impl ContentDiff {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.rotated.is_empty() && self.removed.is_empty()
    }
}

/// What is known without having been seen by this agent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Baseline {
    /// Files made later than this were made under the eyes of this agent; nanoseconds since the epoch.
    pub agent_started_ns: u64,
    /// The last whole inventory of the host began then, seconds since the epoch; 0 without one. What it did not find in
    /// a file that was there is new in it.
    pub inventory_started: i64,
}

/// The running agent's inventory.
#[derive(Debug, Default)]
pub struct Live {
    inventory: Inventory,
    baseline: Baseline,
    /// Device and inode -> place key: a file that is renamed leaves its old place.
    by_file: HashMap<(u64, u64), String>,
    /// Place key -> credentials that may be old there, as far as was known when they were seen.
    quiet: HashMap<String, HashSet<String>>,
    clean: HashSet<(u64, u64)>,
    /// What lay in places that are gone: who says so first need not be who knows how it went.
    gone: HashMap<String, Vec<CredentialRef>>,
    /// Places this agent has inspected.
    own: HashSet<String>,
    /// Files that were read and not inspected, the latest last.
    unread: VecDeque<Unread>,
    changes: Vec<Change>,
}

/// Container and pod a root belongs to; both empty on the host.
pub type Workload = (String, String);

impl Live {
    #[must_use]
    pub fn new(baseline: Baseline, known: Vec<Entry>) -> Live {
        let mut live = Live {
            baseline,
            ..Live::default()
        };
        for entry in known {
            for place in &entry.places {
                if let Location::File(f) = place {
                    live.by_file.insert((f.device, f.inode), place.key());
                }
            }
            live.inventory.load(entry);
        }
        live
    }

    /// Credentials known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inventory.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inventory.is_empty()
    }

    /// Takes over what a whole inventory found that was taken while the agent ran; what the agent saw itself stays.
    pub fn adopt(&mut self, started: i64, entries: Vec<Entry>) {
        for entry in entries {
            for place in entry.places {
                let key = place.key();
                if let Location::File(f) = &place
                    && !self.seen_here(&key, &entry.credential.fingerprint)
                {
                    self.by_file.insert((f.device, f.inode), key);
                    self.inventory
                        .observe_location(&entry.credential, place, entry.first_seen);
                }
            }
        }
        self.baseline.inventory_started = started;
    }

    /// The agent itself knows what is in this place, or that this credential was.
    fn seen_here(&self, key: &str, fingerprint: &str) -> bool {
        self.own.contains(key) || self.inventory.holds(key, fingerprint)
    }

    /// Takes what is to be stored.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn clean(&mut self, device: u64, inode: u64) {
        if self.clean.len() >= MAX_CLEAN {
            self.clean.clear();
        }
        self.clean.insert((device_of(device), inode));
    }

    /// Takes news in at `now` (seconds since the epoch). `workload` says to what a root belongs.
    pub fn take(
        &mut self,
        news: InventoryUpdate,
        now: i64,
        workload: impl Fn(&Path) -> Workload,
    ) -> Option<ContentDiff> {
        match news {
            InventoryUpdate::Inspected(inspection) => {
                let workload = workload(&inspection.root);
                self.inspected(*inspection, now, workload)
            }
            InventoryUpdate::Clean { device, inode } => {
                self.clean(device, inode);
                None
            }
            InventoryUpdate::Unread(unread) => {
                if self.unread.len() >= MAX_UNREAD {
                    self.unread.pop_front();
                }
                self.unread.push_back(unread);
                None
            }
            InventoryUpdate::Gone { root, raw } => {
                let key = key_of(&raw, workload(&root));
                self.went(&key, now);
                None
            }
        }
    }

    /// What is in a file; of one that went a moment ago, what was. Nothing of what others publish.
    pub fn held_in(&mut self, raw: &[u8], workload: Workload, gone: bool) -> Vec<CredentialRef> {
        if workload.0.is_empty() && third_party(&names::escape(raw)) {
            return Vec::new();
        }
        let key = key_of(raw, workload);
        let was = self.gone.remove(&key).filter(|_| gone);
        let held = self.held(&key);
        if held.is_empty() {
            was.unwrap_or(held)
        } else {
            held
        }
    }

    /// Whether a credential is in a place.
    #[must_use]
    pub fn holds(&self, key: &str, fingerprint: &str) -> bool {
        self.inventory.holds(key, fingerprint)
    }

    fn held(&self, key: &str) -> Vec<CredentialRef> {
        self.inventory.held(key).cloned().map(Arc::new).collect()
    }

    /// The file of a place is not there any more.
    fn went(&mut self, key: &str, now: i64) {
        let held = self.held(key);
        if !held.is_empty() {
            if self.gone.len() >= MAX_GONE {
                self.gone.clear();
            }
            self.gone.insert(key.to_owned(), held);
        }
        self.empty(key, now);
    }

    fn empty(&mut self, key: &str, now: i64) {
        if !self.inventory.occupied(key) {
            return;
        }
        self.inventory.forget_place(key);
        self.changes.push(Change {
            place: key.to_owned(),
            changed: now,
            entries: Vec::new(),
        });
    }

    fn inspected(
        &mut self,
        inspection: FileInspection,
        now: i64,
        workload: Workload,
    ) -> Option<ContentDiff> {
        let place = file_place(&inspection, workload);
        let key = Location::File(place.clone()).key();
        let file = (place.device, place.inode);
        if place.links == 1
            && let Some(old) = self.by_file.get(&file).filter(|old| **old != key).cloned()
            && self
                .inventory
                .at(&old)
                .any(|p| p.container == place.container)
        {
            // It has one name only: the one known before is not it any more.
            self.went(&old, now);
        }
        self.gone.remove(&key);
        let here_before = self.inventory.remembers(&key);
        let new_here = match inspection.why {
            Why::Start => false,
            Why::Changed => true,
            Why::Accessed => {
                here_before
                    || self.is_newly_filled(file, inspection.born_ns)
                        && !self.was_unread(&inspection)
            }
        };
        // What a package manager fetches was published; it is noted, and nobody is woken by it.
        let fetched = place.container.is_empty() && third_party(&place.path);
        let mut diff = ContentDiff {
            key: key.clone(),
            facts: inspection.facts.clone(),
            created: Vec::new(),
            rotated: Vec::new(),
            removed: Vec::new(),
            writer: inspection.writer,
            boot_ns: inspection.boot_ns,
        };
        // Of a file that was inspected in part, the rest may be in what was not seen.
        if !(fetched || inspection.truncated || inspection.why == Why::Start) {
            diff.removed = self.left(&key, &inspection);
        }
        if inspection.held.is_empty() {
            self.empty(&key, now);
            return (!diff.is_empty()).then_some(diff);
        }
        self.clean.remove(&file);
        self.own.insert(key.clone());
        self.by_file.insert(file, key.clone());
        let found = numbered(&inspection.held, &place);
        let answers = self.inventory.replace_place(&key, found, now);
        let mut met: HashSet<&str> = HashSet::new();
        for (credential, answer) in inspection.held.iter().zip(&answers) {
            if credential.confidence < inspection.min_confidence || fetched {
                continue;
            }
            if self.is_fresh(&key, credential, answer, inspection.why, new_here)
                && met.insert(&credential.fingerprint)
            {
                diff.created.push(Arc::new(credential.clone()));
            }
            // What changed while no agent looked on is in the inventory.
            if let Observed::Rotated { previous } = answer
                && inspection.why != Why::Start
            {
                diff.removed.retain(|c| c.fingerprint != *previous);
                let rotated = (Arc::new(credential.clone()), previous.clone());
                if !diff.rotated.contains(&rotated) {
                    diff.rotated.push(rotated);
                }
            }
        }
        self.note(&key, &inspection.held, now);
        (!diff.is_empty()).then_some(diff)
    }

    /// Whether a file that is seen for the first time was made, or got what it holds, while somebody looked on.
    fn is_newly_filled(&self, file: (u64, u64), born_ns: u64) -> bool {
        let born = i64::try_from(born_ns / 1_000_000_000).unwrap_or(0);
        born_ns >= self.baseline.agent_started_ns
            || self.clean.contains(&file)
            || (born_ns != 0 && born < self.baseline.inventory_started)
    }

    /// Whether a file of this name was read a moment ago, and replaced or rewritten before anybody could inspect it: what is
    /// found now may have been in it (`sed -i`, an editor).
    fn was_unread(&self, inspection: &FileInspection) -> bool {
        let mut names = inspection.raw.rsplit(|b| *b == b'/');
        let (name, parent) = (names.next(), names.next());
        // A name in a record may be cut.
        let is = |reported: &[u8], name: Option<&[u8]>| {
            name.is_some_and(|name| match reported.len() {
                UNREAD_NAME.. => name.starts_with(reported),
                _ => name == reported,
            })
        };
        self.unread.iter().any(|unread| {
            inspection.boot_ns.abs_diff(unread.boot_ns) < UNREAD_NS
                && is(&unread.name, name)
                && (unread.parent.is_empty() || is(&unread.parent, parent))
        })
    }

    /// What was in a place and is not found in it any more.
    fn left(&self, key: &str, inspection: &FileInspection) -> Vec<CredentialRef> {
        let now: HashSet<&str> = inspection
            .held
            .iter()
            .map(|c| c.fingerprint.as_str())
            .collect();
        self.inventory
            .held(key)
            .filter(|c| !now.contains(c.fingerprint.as_str()))
            .filter(|c| c.confidence >= inspection.min_confidence)
            .cloned()
            .map(Arc::new)
            .collect()
    }

    /// Whether this credential came into this place while the agent looked on.
    fn is_fresh(
        &mut self,
        key: &str,
        credential: &Credential,
        answer: &Observed,
        why: Why,
        new_here: bool,
    ) -> bool {
        match answer {
            Observed::Refused => false,
            Observed::Known => {
                // A watched place says now that it is new; before, it was seen there and could have been old.
                why == Why::Changed
                    && self
                        .quiet
                        .get_mut(key)
                        .is_some_and(|q| q.remove(&credential.fingerprint))
            }
            Observed::New | Observed::NewPlace | Observed::Rotated { .. } if new_here => true,
            Observed::New | Observed::NewPlace | Observed::Rotated { .. } => {
                if why == Why::Accessed {
                    if self.quiet.len() >= MAX_QUIET {
                        self.quiet.clear();
                    }
                    let quiet = self.quiet.entry(key.to_owned()).or_default();
                    quiet.insert(credential.fingerprint.clone());
                }
                false
            }
        }
    }

    /// What is to be stored of a place: its credentials as they are known now.
    fn note(&mut self, key: &str, held: &[Credential], now: i64) {
        let entries = held
            .iter()
            .filter_map(|c| self.inventory.get(&c.fingerprint))
            .map(|entry| Entry {
                places: entry
                    .places
                    .iter()
                    .filter(|p| p.is_at(key))
                    .cloned()
                    .collect(),
                more_places: 0,
                exposures: Vec::new(),
                ..entry.clone()
            })
            .filter(|entry| !entry.places.is_empty())
            .collect();
        self.changes.push(Change {
            place: key.to_owned(),
            changed: now,
            entries,
        });
    }
}

/// User space's number of a device the kernel numbers so.
fn device_of(kernel: u64) -> u64 {
    let number = u32::try_from(kernel).unwrap_or(0);
    rustix::fs::makedev(number >> 20, number & 0xf_ffff)
}

/// The key of a file's place.
fn key_of(raw: &[u8], (container, _): Workload) -> String {
    let place = FileLocation {
        path: names::escape(raw),
        container,
        ..FileLocation::default()
    };
    Location::File(place).key()
}

fn file_place(inspection: &FileInspection, (container, pod): Workload) -> FileLocation {
    let facts = &inspection.facts;
    let path = names::escape(&inspection.raw);
    FileLocation {
        container,
        pod,
        device: device_of(facts.device),
        inode: facts.inode,
        links: u64::from(inspection.links),
        uid: facts.owner_uid,
        gid: facts.owner_gid,
        mode: facts.mode,
        size: facts.size,
        modified: inspection.modified,
        // Who reaches it is asked when the inventory is shown.
        reach: Reach::Owner,
        sampled: inspection.truncated,
        path,
        ..FileLocation::default()
    }
}

/// What was found in a file, each with its number among those of its kind.
fn numbered(held: &[Credential], file: &FileLocation) -> Vec<(Credential, Location)> {
    let mut ordinals: HashMap<&str, u32> = HashMap::new();
    held.iter()
        .map(|credential| {
            let next = ordinals.entry(&credential.kind).or_default();
            let ordinal = *next;
            *next += 1;
            let place = FileLocation {
                ordinal,
                ..file.clone()
            };
            (credential.clone(), Location::File(place))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::credential;

    const START: u64 = 1_000_000_000_000;

    fn inspection(path: &str, inode: u64, born_ns: u64, held: &[&str]) -> FileInspection {
        FileInspection {
            root: "/".into(),
            raw: path.into(),
            facts: FileFacts {
                path: path.into(),
                inode,
                device: 8 << 20 | 1,
                ..FileFacts::default()
            },
            born_ns,
            modified: 0,
            links: 1,
            truncated: false,
            held: held.iter().map(|f| credential(f)).collect(),
            min_confidence: 0.5,
            why: Why::Accessed,
            writer: 7,
            boot_ns: 3,
        }
    }

    fn live() -> Live {
        let baseline = Baseline {
            agent_started_ns: START,
            inventory_started: 0,
        };
        Live::new(baseline, Vec::new())
    }

    fn host(_: &Path) -> Workload {
        Workload::default()
    }

    /// Fingerprints of what is said to be created.
    fn met(live: &mut Live, inspection: FileInspection, now: i64) -> Vec<String> {
        let diff = live.take(InventoryUpdate::Inspected(Box::new(inspection)), now, host);
        let credentials = diff.map(|t| t.created).unwrap_or_default();
        credentials.iter().map(|c| c.fingerprint.clone()).collect()
    }

    /// What is said to be rotated, each with what it replaced, and what is said to have left.
    fn turned(
        live: &mut Live,
        inspection: FileInspection,
        now: i64,
    ) -> (Vec<(String, String)>, Vec<String>) {
        let diff = live.take(InventoryUpdate::Inspected(Box::new(inspection)), now, host);
        diff.map_or_else(Default::default, |diff| {
            let rotated = diff.rotated.into_iter();
            (
                rotated
                    .map(|(c, old)| (c.fingerprint.clone(), old))
                    .collect(),
                diff.removed.iter().map(|c| c.fingerprint.clone()).collect(),
            )
        })
    }

    #[test]
    fn what_takes_anothers_place_and_what_leaves() {
        let pair = |new: &str, old: &str| (new.to_owned(), old.to_owned());
        let mut live = live();
        let f = |held: &[&str]| inspection("/f", 1, START + 1, held);
        assert_eq!(turned(&mut live, f(&["a"]), 5), (vec![], vec![]));
        assert_eq!(
            turned(&mut live, f(&["b"]), 6),
            (vec![pair("b", "a")], vec![])
        );
        assert_eq!(turned(&mut live, f(&["b", "c"]), 7), (vec![], vec![]));
        assert_eq!(
            turned(&mut live, f(&["c"]), 8),
            (vec![], vec!["b".to_owned()])
        );
        // A part of a file says nothing of the rest.
        let part = FileInspection {
            truncated: true,
            ..f(&["d", "c"])
        };
        turned(&mut live, part, 9);
        let part = FileInspection {
            truncated: true,
            ..f(&["c"])
        };
        assert_eq!(turned(&mut live, part, 10), (vec![], vec![]));
        assert_eq!(
            turned(&mut live, f(&[]), 11),
            (vec![], vec!["c".to_owned()])
        );
        // What an agent finds at its start was turned before it.
        live.take_changes();
        assert_eq!(turned(&mut live, f(&["e"]), 12).1, Vec::<String>::new());
        let start = FileInspection {
            why: Why::Start,
            ..f(&["g"])
        };
        assert_eq!(turned(&mut live, start, 13), (vec![], vec![]));
    }

    #[test]
    fn what_lay_in_a_file_that_is_gone_is_known_once() {
        let names = |held: Vec<CredentialRef>| -> Vec<String> {
            held.iter().map(|c| c.fingerprint.clone()).collect()
        };
        let mut live = live();
        met(&mut live, inspection("/f", 1, START + 1, &["a"]), 5);
        assert_eq!(names(live.held_in(b"/f", Workload::default(), true)), ["a"]);
        let gone = InventoryUpdate::Gone {
            root: "/".into(),
            raw: b"/f".to_vec(),
        };
        live.take(gone, 6, host);
        assert_eq!(names(live.held_in(b"/f", Workload::default(), true)), ["a"]);
        assert!(live.held_in(b"/f", Workload::default(), true).is_empty());
        // Who obtained it under its new name says so first.
        met(&mut live, inspection("/m", 5, START + 1, &["m"]), 7);
        met(&mut live, inspection("/n", 5, START + 1, &["m"]), 7);
        assert_eq!(names(live.held_in(b"/m", Workload::default(), true)), ["m"]);
        // Emptied is not gone.
        met(&mut live, inspection("/g", 2, START + 1, &["a"]), 7);
        met(&mut live, inspection("/g", 2, START + 1, &[]), 8);
        assert!(live.held_in(b"/g", Workload::default(), true).is_empty());
    }

    #[test]
    fn what_was_read_and_replaced_unseen_may_have_been_there_before() {
        let unread = |name: &[u8]| {
            InventoryUpdate::Unread(Unread {
                parent: b"srv".to_vec(),
                name: name.to_vec(),
                boot_ns: 3,
            })
        };
        let mut live = live();
        live.take(unread(b".env"), 5, host);
        assert!(met(&mut live, inspection("/srv/.env", 2, START + 1, &["a"]), 5).is_empty());
        // Another file, another directory, and long after.
        assert_eq!(
            met(&mut live, inspection("/srv/b.env", 3, START + 1, &["b"]), 5),
            ["b"]
        );
        assert_eq!(
            met(&mut live, inspection("/opt/.env", 4, START + 1, &["c"]), 5),
            ["c"]
        );
        live.take(unread(b"late"), 5, host);
        let late = FileInspection {
            boot_ns: 4 + UNREAD_NS,
            ..inspection("/srv/late", 5, START + 1, &["d"])
        };
        assert_eq!(met(&mut live, late, 20), ["d"]);
        // A name that was cut.
        let long = "x".repeat(100);
        live.take(unread(&long.as_bytes()[..63]), 5, host);
        let path = format!("/srv/{long}");
        assert!(met(&mut live, inspection(&path, 6, START + 1, &["e"]), 5).is_empty());
        // What comes to where something is known to be is new all the same.
        live.take(unread(b".env"), 5, host);
        assert_eq!(
            met(&mut live, inspection("/srv/.env", 7, START + 1, &["f"]), 6),
            ["f"]
        );
    }

    #[test]
    fn made_changed_deleted_and_made_again() {
        let mut live = live();
        assert_eq!(
            met(&mut live, inspection("/f", 1, START + 1, &["a"]), 5),
            ["a"]
        );
        assert!(met(&mut live, inspection("/f", 1, START + 1, &["a"]), 6).is_empty());
        assert_eq!(
            met(&mut live, inspection("/f", 1, START + 1, &["b"]), 7),
            ["b"]
        );
        let changes = live.take_changes();
        let last = changes.last().unwrap();
        assert_eq!(last.place, "file::/f");
        assert_eq!(
            (last.entries[0].rotated, last.entries[0].previous.as_str()),
            (Some(7), "a")
        );
        let gone = InventoryUpdate::Gone {
            root: "/".into(),
            raw: b"/f".to_vec(),
        };
        assert!(live.take(gone, 8, host).is_none());
        let changes = live.take_changes();
        assert_eq!((changes.len(), changes[0].entries.len()), (1, 0));
        // The same content again is nothing new.
        assert!(met(&mut live, inspection("/f", 2, START + 9, &["b"]), 9).is_empty());
    }

    #[test]
    fn what_may_be_old_is_noted_without_a_word() {
        let mut live = live();
        assert!(met(&mut live, inspection("/old", 1, START - 1, &["a"]), 5).is_empty());
        assert_eq!(live.take_changes()[0].entries.len(), 1);
        // Known to have held nothing: what is in it now is new.
        live.clean(8 << 20 | 1, 2);
        assert_eq!(
            met(&mut live, inspection("/was", 2, START - 1, &["b"]), 5),
            ["b"]
        );
        // Another one in a place that is known.
        assert_eq!(
            met(&mut live, inspection("/old", 1, START - 1, &["a", "c"]), 6),
            ["c"]
        );
        // A watched place had the last word: what is there is new after all.
        let place = FileInspection {
            why: Why::Changed,
            ..inspection("/old", 1, START - 1, &["a", "c"])
        };
        assert_eq!(met(&mut live, place, 7), ["a"]);
        // An inventory of the whole host would have found it.
        live.baseline.inventory_started = 2_000;
        assert_eq!(
            met(&mut live, inspection("/late", 3, START, &["d"]), 8),
            ["d"]
        );
    }

    #[test]
    fn an_inventory_taken_meanwhile_is_taken_over() {
        let mut live = live();
        assert_eq!(
            met(&mut live, inspection("/own", 1, START, &["a"]), 1_500),
            ["a"]
        );
        let mut walked = Vec::new();
        for (path, inode, fingerprint) in [("/own", 1, "stale"), ("/old", 2, "b")] {
            let place = file_place(&inspection(path, inode, 1, &[]), Workload::default());
            walked.push(Entry {
                credential: credential(fingerprint),
                class: crate::model::Class::default(),
                first_seen: 1_600,
                rotated: None,
                previous: String::new(),
                places: vec![Location::File(place)],
                more_places: 0,
                exposures: Vec::new(),
            });
        }
        live.adopt(1_600, walked);
        assert!(live.inventory.get("stale").is_none());
        // What the walk found is not new, what came after it is.
        assert!(met(&mut live, inspection("/old", 2, 1, &["b"]), 1_700).is_empty());
        assert_eq!(
            met(&mut live, inspection("/old", 2, 1, &["c"]), 1_800),
            ["c"]
        );
        assert_eq!(
            met(&mut live, inspection("/other", 3, 1, &["d"]), 1_900),
            ["d"]
        );
    }

    #[test]
    fn what_a_package_manager_fetches_is_noted_without_a_word() {
        let mut live = live();
        let fetched = "/root/app/node_modules/x/test/key.pem";
        assert!(met(&mut live, inspection(fetched, 1, START + 1, &["a"]), 5).is_empty());
        assert!(live.inventory.get("a").is_some());
        assert_eq!(
            met(
                &mut live,
                inspection("/root/app/.env", 2, START + 1, &["a"]),
                6
            ),
            ["a"]
        );
    }

    #[test]
    fn a_renamed_file_is_in_one_place() {
        let mut live = live();
        assert_eq!(
            met(&mut live, inspection("/.f.tmp", 1, START + 1, &["a"]), 5),
            ["a"]
        );
        assert!(met(&mut live, inspection("/f", 1, START + 1, &["a"]), 6).len() <= 1);
        let places: Vec<String> = live
            .inventory
            .get("a")
            .unwrap()
            .places
            .iter()
            .map(Location::key)
            .collect();
        assert_eq!(places, ["file::/f"]);
        // A copy is another place, and its secret is new there.
        assert_eq!(
            met(&mut live, inspection("/g", 2, START + 2, &["a"]), 7),
            ["a"]
        );
        let doubtful = FileInspection {
            held: vec![Credential {
                confidence: 0.3,
                ..credential("low")
            }],
            ..inspection("/h", 3, START + 2, &[])
        };
        assert!(met(&mut live, doubtful, 8).is_empty());
    }
}
