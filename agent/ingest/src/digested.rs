//! What comes out of a stage: observations, and what is to be done.

use keytrail_abi as abi;
use keytrail_model::{Decision, Effect, FileKey, InventoryUpdate, Observation, Pid, SensorChange};
use std::path::PathBuf;

/// What one record became. The effects come after the observations: what is decided rests on them.
#[derive(Default)]
pub struct Digested {
    pub observations: Vec<Observation>,
    pub effects: Vec<Effect>,
}

impl Digested {
    /// All that a process began or read with under this number is known.
    pub(crate) fn decide(&mut self, pid: Pid, exec_id: u64) {
        self.effects.push(Effect::Decide(Decision { pid, exec_id }));
    }

    /// A file holds credentials: it is watched from now on.
    pub(crate) fn watch(&mut self, path: PathBuf, file: abi::FileId) {
        let file = file_key(file);
        self.effects.push(SensorChange::Watch { path, file }.into());
    }

    /// A watched inode is another file by now.
    pub(crate) fn unwatch(&mut self, file: abi::FileId) {
        let file = file_key(file);
        self.effects.push(SensorChange::Unwatch { file }.into());
    }

    /// A file needs no further look in this version.
    pub(crate) fn mark_clean(&mut self, file: abi::FileId, ctime_ns: u64) {
        let file = file_key(file);
        self.effects
            .push(SensorChange::MarkClean { file, ctime_ns }.into());
    }

    /// What was found in a file, for the inventory.
    pub(crate) fn news(&mut self, news: InventoryUpdate) {
        self.effects.push(Effect::Inventory(news));
    }
}

/// A file of a record.
#[must_use]
pub fn file_key(file: abi::FileId) -> FileKey {
    FileKey {
        device: file.dev,
        inode: file.ino,
    }
}

#[cfg(test)]
impl Digested {
    pub(crate) fn decided(&self) -> Vec<Decision> {
        let decided = |effect: &Effect| match effect {
            Effect::Decide(decision) => Some(*decision),
            _ => None,
        };
        self.effects.iter().filter_map(decided).collect()
    }

    pub(crate) fn watched(&self) -> Vec<(PathBuf, FileKey)> {
        let watched = |effect: &Effect| match effect {
            Effect::Sensor(SensorChange::Watch { path, file }) => Some((path.clone(), *file)),
            _ => None,
        };
        self.effects.iter().filter_map(watched).collect()
    }

    pub(crate) fn unwatched(&self) -> Vec<FileKey> {
        let unwatched = |effect: &Effect| match effect {
            Effect::Sensor(SensorChange::Unwatch { file }) => Some(*file),
            _ => None,
        };
        self.effects.iter().filter_map(unwatched).collect()
    }

    pub(crate) fn clean(&self) -> Vec<(FileKey, u64)> {
        let clean = |effect: &Effect| match effect {
            Effect::Sensor(SensorChange::MarkClean { file, ctime_ns }) => Some((*file, *ctime_ns)),
            _ => None,
        };
        self.effects.iter().filter_map(clean).collect()
    }

    pub(crate) fn places(&self) -> Vec<&InventoryUpdate> {
        let effects = self.effects.iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Inventory(news) => Some(news),
                _ => None,
            })
            .collect()
    }
}
