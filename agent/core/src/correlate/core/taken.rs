//! What a process reads out of another one: its environment block, its memory.

use super::once::Once;
use super::{Core, attack};
use crate::process::{Holding, HoldingPlace, Proc};
use keytrail_model::event::{Evidence, Process, Source};
use keytrail_model::{
    Channel, EventKind, EvidenceGrade, Pid, SourceType, Taken, TakenSeen, TaskInfo,
};
use std::collections::BTreeSet;

/// Reader and its program, victim and its program, what was read, credential.
type Act = (Pid, u32, Pid, u32, Taken, String);

#[derive(Default)]
pub(super) struct ReportedTakes {
    /// Reader and its program, victim and what it held, what was read: the last act.
    last: Option<(Pid, u32, Pid, u64, Taken)>,
    acts: Once<Act>,
}

impl Core {
    /// The reader holds from here on what it read. Of an environment block it is known what lies there; of memory any
    /// credential of the process may have been in what was read, and the grade says so.
    pub(super) fn on_taken(&mut self, seen: &TakenSeen) {
        self.table.touch(&seen.at);
        let Some(victim) = self.table.get(seen.victim) else {
            return;
        };
        // Memory is read in pieces: what was done with all that the process held is not done again for each.
        let exec = self.table.get(seen.at.pid).map_or(0, |p| p.exec);
        let again = (seen.at.pid, exec, seen.victim, victim.version, seen.what);
        if self.taken.last == Some(again) {
            return;
        }
        // What came after this read is for the next.
        let had_all = |victim: &Proc| {
            let mut holdings = victim.holdings.iter();
            holdings.all(|holding| holding.from_ns <= seen.at.boot_ns)
        };
        self.taken.last = had_all(victim).then_some(again);
        let earliest = self.earliest(&seen.at, &seen.hook);
        let in_reach = |holding: &&Holding| {
            let there = match seen.what {
                Taken::Environment => matches!(holding.place, HoldingPlace::Env(_)),
                // A descriptor may lead to any of them, too.
                Taken::Memory | Taken::VmRead | Taken::Traced | Taken::Descriptor => true,
            };
            there && holding.from_ns <= seen.at.boot_ns
        };
        let victim_exec = victim.exec;
        let taken: Vec<Holding> = victim.holdings.iter().filter(in_reach).cloned().collect();
        let victim = self.table.describe(seen.victim);
        for holding in taken {
            if seen.at.pid != seen.victim {
                let place = HoldingPlace::Process(victim.key.clone());
                let from_ns = self.earliest(&seen.at, &seen.hook);
                self.hold(&seen.at, &holding.credential, place, from_ns);
            }
            let fingerprint = holding.credential.fingerprint.clone();
            let act = (
                seen.at.pid,
                exec,
                seen.victim,
                victim_exec,
                seen.what,
                fingerprint,
            );
            if !self.taken.acts.first(act) {
                continue;
            }
            self.report_taken(seen, &victim, &holding, earliest);
        }
    }

    fn report_taken(
        &mut self,
        seen: &TakenSeen,
        victim: &Process,
        holding: &Holding,
        earliest: u64,
    ) {
        let (grade, channel) = match seen.what {
            Taken::Environment => (EvidenceGrade::Observed, Channel::ProcessEnvironment),
            Taken::Memory => (EvidenceGrade::Lineage, Channel::ProcessMemory),
            Taken::VmRead => (EvidenceGrade::Lineage, Channel::ProcessVmRead),
            Taken::Traced => (EvidenceGrade::Lineage, Channel::Ptrace),
            Taken::Descriptor => (EvidenceGrade::Lineage, Channel::Descriptor),
        };
        // What the victim may not have had yet when it was read was not seen to be read.
        let grade = if holding.from_ns <= earliest {
            grade
        } else {
            EvidenceGrade::Lineage
        };
        let mut e = self.event(EventKind::CredentialTaken, seen.at.boot_ns);
        e.process = Some(self.table.describe(seen.at.pid));
        e.credential = Some(self.best(&holding.credential));
        e.source = Some(Source {
            env_name: match &holding.place {
                HoldingPlace::Env(name) => name.clone(),
                _ => String::new(),
            },
            inherited_from: victim.key.clone(),
            ..Source::new(SourceType::Process)
        });
        e.victim = Some(victim.clone());
        e.evidence = Some(Evidence::new(Some(grade), channel, &seen.hook));
        e.coverage = coverage(seen);
        // Proc Filesystem; OS Credential Dumping by whatever way.
        let technique = match seen.what {
            Taken::Environment | Taken::Memory => "T1003.007",
            Taken::VmRead | Taken::Traced | Taken::Descriptor => "T1003",
        };
        e.attack = attack(&[technique, &holding.credential.attack]);
        self.emit(e);
    }
}

impl Core {
    /// The kernel wrote the memory of a process that died: to a file, or to a program.
    pub(super) fn on_dumped(&mut self, at: &TaskInfo, pattern: &str) {
        let held: Vec<Holding> = self
            .table
            .get(at.pid)
            .filter(|proc| proc.exited_ns.is_none())
            .map_or_else(Vec::new, |proc| proc.holdings.clone());
        let process = self.table.describe(at.pid);
        let mut named = BTreeSet::new();
        for holding in held {
            if !named.insert(holding.credential.fingerprint.clone()) {
                continue;
            }
            let mut e = self.event(EventKind::CredentialTaken, at.boot_ns);
            e.credential = Some(self.best(&holding.credential));
            e.source = Some(Source {
                env_name: match &holding.place {
                    HoldingPlace::Env(name) => name.clone(),
                    _ => String::new(),
                },
                inherited_from: process.key.clone(),
                ..Source::new(SourceType::Process)
            });
            e.process = Some(process.clone());
            e.victim = Some(process.clone());
            let grade = Some(EvidenceGrade::Lineage);
            e.evidence = Some(Evidence::new(grade, Channel::CoreDump, "exit"));
            e.coverage = vec![dump(pattern)];
            e.attack = attack(&["T1003", &holding.credential.attack]);
            self.emit(e);
        }
    }
}

/// Where a core dump went, as far as that can be said.
fn dump(pattern: &str) -> String {
    match pattern.strip_prefix('|') {
        _ if pattern.is_empty() => "the kernel wrote a core dump; where to is not known".to_owned(),
        Some(program) => format!("the kernel handed a core dump to: {}", program.trim()),
        None => format!("the kernel wrote a core dump; kernel.core_pattern is {pattern}"),
    }
}

/// What is not known of it.
fn coverage(seen: &TakenSeen) -> Vec<String> {
    let mut coverage = vec![match seen.what {
        Taken::Descriptor => "what the descriptor that was taken leads to is not known".to_owned(),
        _ if seen.asked > 0 => format!(
            "{} bytes were asked for; what of it was read is not known",
            seen.asked
        ),
        _ => "how much of it was read is not known".to_owned(),
    }];
    if seen.unproven {
        coverage.push("it was not seen whether the call brought anything".to_owned());
    }
    coverage
}
