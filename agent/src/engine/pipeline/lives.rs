//! The life of files that hold credentials, as observations: what came into them, took another's place, or left; and what
//! happened to the files themselves.

use super::Pipeline;
use keytrail_ingest::background::Life;
use keytrail_ingest::min_confidence;
use keytrail_inventory::live::ContentDiff;
use keytrail_model::{
    CredentialRef, FileAccess, FileAction, FileChange, FileFacts, Observation, TaskInfo,
};

impl Pipeline {
    /// What is new in a file, and what left it.
    pub(super) fn report_diff(&mut self, mut diff: ContentDiff) {
        let at = self.writer(diff.writer, diff.boot_ns);
        self.as_written(diff.writer, &mut diff.facts);
        let live = &self.inventory.live;
        diff.removed
            .retain(|c| !live.holds(&diff.key, &c.fingerprint));
        if !diff.created.is_empty() {
            self.step(&Observation::Created {
                at: at.clone(),
                boot_ns: diff.boot_ns,
                file: diff.facts.clone(),
                credentials: diff.created,
            });
        }
        for (credential, previous) in diff.rotated {
            let change = FileChange {
                previous,
                ..FileChange::new(FileAction::Rotated)
            };
            self.changed(
                (at.clone(), diff.boot_ns),
                &diff.facts,
                change,
                vec![credential],
            );
        }
        let change = FileChange::new(FileAction::Removed);
        self.changed((at, diff.boot_ns), &diff.facts, change, diff.removed);
    }

    /// What happened to a file that holds these, or held them when it went; some of them were told to have taken another's
    /// place.
    pub(super) fn lived(
        &mut self,
        life: &Life,
        now: &FileFacts,
        mut held: Vec<CredentialRef>,
        reported: &[CredentialRef],
    ) {
        let min = min_confidence(self.digest.files.is_named(&now.path));
        held.retain(|c| c.confidence >= min);
        let at = self.writer(life.writer, life.boot_ns);
        for act in &life.acts {
            let mut about = held.clone();
            let before = FileAccess::of(&life.before);
            if act.action == FileAction::Replaced && before == FileAccess::of(now) {
                let waits = |c: &CredentialRef| {
                    self.inventory.unattributed.iter().any(|(_, diff)| {
                        diff.facts.path == now.path && diff.rotated.iter().any(|(r, _)| r == c)
                    })
                };
                about.retain(|c| !reported.contains(c) && !waits(c));
            }
            let inside = self.digest.path_inside(life.writer, &act.new_path);
            let change = FileChange {
                before: Some(before),
                new_path: inside.unwrap_or_else(|| act.new_path.clone()),
                link: act.link.clone(),
                ..FileChange::new(act.action)
            };
            let mut file = if act.action == FileAction::Covered {
                life.before.clone()
            } else {
                now.clone()
            };
            self.as_written(life.writer, &mut file);
            self.changed((at.clone(), life.boot_ns), &file, change, about);
        }
    }

    /// The file under the path its writer has it at, with the host's beside it.
    fn as_written(&mut self, writer: u32, file: &mut FileFacts) {
        if let Some(inside) = self.digest.path_inside(writer, &file.path) {
            file.host_path = std::mem::replace(&mut file.path, inside);
        }
    }

    fn changed(
        &mut self,
        (at, boot_ns): (Option<TaskInfo>, u64),
        file: &FileFacts,
        change: FileChange,
        credentials: Vec<CredentialRef>,
    ) {
        if credentials.is_empty() {
            return;
        }
        self.step(&Observation::FileChanged {
            at,
            boot_ns,
            file: file.clone(),
            change,
            credentials,
        });
    }
}
