//! Events in, findings out.

use crate::about::About;
use crate::baseline::{Baseline, News};
use crate::builtin::BUILTIN;
use crate::carry::packs_all;
use crate::facts::Facts;
use crate::finding::Finding;
use crate::harvest::{Harvest, is_shipped};
use crate::rule::{Language, Once, Rule, RuleError, fill};
use crate::scope::{Beside, Scope};
use crate::site::Site;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Credentials whose usual is known, and findings that are known.
const MOST_CREDENTIALS: usize = 50_000;
const MOST_FINDINGS: usize = 20_000;
/// Workloads of which it is known what they send.
const MOST_WORKLOADS: usize = 10_000;
/// Processes that are remembered for what they packed.
const MOST_PACKERS: usize = 4_096;
/// Findings by which somebody else has the credential.
const LEAKS: &[&str] = &[
    "agent-in-install",
    "bulk-send",
    "in-body",
    "in-dns",
    "key-sent",
    "new-destination",
    "package-install",
    "sent-by-shell",
    "sent-in-clear",
    "taken-from-process",
    "uploaded",
    "wrong-place",
    "written-to-log-or-terminal",
];
/// A finding that was not made again for so long is told again.
const AGAIN_NS: i64 = 24 * 3_600 * 1_000_000_000;

/// A finding that was made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    pub rule: String,
    pub fingerprint: String,
    pub subject: String,
    pub count: u64,
    pub last_ns: i64,
}

/// What a stage is told from outside. It is an observation: recorded, and replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Told {
    /// At the start: rules of this site, what is usual, which findings are known, decoys.
    Start {
        /// File names and texts.
        #[serde(default)]
        rules: Vec<(String, String)>,
        #[serde(default)]
        baselines: BTreeMap<String, Baseline>,
        #[serde(default)]
        repeats: Vec<Repeat>,
        #[serde(default)]
        decoys: BTreeSet<String>,
    },
    /// What is known of a credential is what is usual.
    Accept { fingerprint: String },
    /// What is known of a credential is forgotten.
    Reset { fingerprint: String },
    /// Fingerprints of all decoys.
    Decoys { decoys: BTreeSet<String> },
}

/// The stage. Feed it every event in order.
#[derive(Default)]
pub struct Stage {
    language: Language,
    rules: Vec<Rule>,
    site: Site,
    baselines: BTreeMap<String, Baseline>,
    about: BTreeMap<String, About>,
    decoys: BTreeSet<String>,
    harvest: Harvest,
    /// Keys of processes that pack whole directories.
    packers: BTreeSet<String>,
    /// Rule and time of the first finding by which somebody else has a credential.
    leaks: BTreeMap<String, (String, i64)>,
    /// The last two credentials that each workload was seen to send, and when.
    sends: BTreeMap<String, [(String, i64); 2]>,
    known: BTreeMap<(String, String, String), Repeat>,
    /// Changed since they were last taken.
    changed: BTreeSet<String>,
    repeated: BTreeMap<(String, String, String), Repeat>,
    /// Of the last event.
    environment: String,
}

impl Stage {
    /// With the built-in rules.
    ///
    /// # Panics
    /// Never: the built-in rules are compiled by a test.
    #[must_use]
    pub fn builtin() -> (Stage, Vec<RuleError>) {
        let mut stage = Stage::default();
        let errors = BUILTIN
            .iter()
            .filter_map(|(file, text)| stage.add(file, text).err())
            .collect();
        (stage, errors)
    }

    /// Adds a rule, or a file of exclusions and environments. A rule replaces one of the same name.
    ///
    /// # Errors
    /// See [`RuleError`].
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), RuleError> {
        if Site::is_file(text) {
            return self.site.add(&self.language, file, text);
        }
        let rule = Rule::parse(&self.language, file, text)?;
        self.rules.retain(|known| known.name != rule.name);
        self.rules.push(rule);
        self.rules.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How many findings each exclusion hid.
    pub fn excluded(&self) -> impl Iterator<Item = (&str, u64)> {
        self.site.hidden()
    }

    /// What comes from outside. Rules that are refused come back.
    pub fn tell(&mut self, told: Told) -> Vec<RuleError> {
        match told {
            Told::Start {
                rules,
                baselines,
                repeats,
                decoys,
            } => {
                self.baselines = baselines;
                self.decoys = decoys;
                for repeat in &repeats {
                    self.leaked(&repeat.rule, &repeat.fingerprint, repeat.last_ns);
                }
                let refused = rules
                    .iter()
                    .filter_map(|(file, text)| self.add(file, text).err())
                    .collect();
                self.known = repeats.into_iter().map(|r| (self.key_of(&r), r)).collect();
                return refused;
            }
            Told::Accept { fingerprint } => {
                if let Some(baseline) = self.baselines.get_mut(&fingerprint) {
                    baseline.accepted = true;
                    self.changed.insert(fingerprint);
                }
            }
            Told::Reset { fingerprint } => {
                if self.baselines.remove(&fingerprint).is_some() {
                    self.changed.insert(fingerprint);
                }
            }
            Told::Decoys { decoys } => self.decoys = decoys,
        }
        Vec::new()
    }

    /// Under which a finding of an agent before this one is known. Its runs are not.
    fn key_of(&self, repeat: &Repeat) -> (String, String, String) {
        let rule = self.rules.iter().find(|rule| rule.name == repeat.rule);
        let of = match rule.map(|rule| rule.once) {
            Some(Once::Subject) => String::new(),
            _ => repeat.fingerprint.clone(),
        };
        (repeat.rule.clone(), of, repeat.subject.clone())
    }

    /// One event; the findings it makes.
    pub fn step(&mut self, facts: &Facts) -> Vec<Finding> {
        self.environment.clear();
        let fingerprint = facts
            .credential
            .as_ref()
            .map_or_else(String::new, |c| c.fingerprint.clone());
        let news = self
            .baselines
            .get(&fingerprint)
            .map_or_else(first, |baseline| baseline.news(facts));
        let beside = self.beside(facts, &fingerprint);
        // A sample in what a package brought along is nobody's secret.
        let sample = matches!(
            facts.kind.as_str(),
            "credential_read" | "credential_opened" | "credential_created"
        ) && facts.source.kind == "file"
            && is_shipped(&facts.source.path);
        let findings = if sample && !beside.decoy {
            Vec::new()
        } else {
            self.judge(facts, &fingerprint, &news, &beside)
        };
        self.learn(facts, &fingerprint);
        findings
    }

    fn judge(
        &mut self,
        facts: &Facts,
        fingerprint: &str,
        news: &News,
        beside: &Beside,
    ) -> Vec<Finding> {
        if !self.rules.iter().any(|rule| rule.asks(&facts.kind)) {
            return Vec::new();
        }
        let mut scope = Scope::new(facts, news, beside);
        if self.site.has_environments() {
            let environment = self.environment_of(facts, fingerprint, &scope);
            let all = self.about.get(fingerprint).map(|a| &a.environments);
            scope.environments(&environment, all.into_iter().flatten());
            self.environment = environment;
        }
        let context = self.language.context(&scope);
        let mut findings = Vec::new();
        let mut leaks = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.asks(&facts.kind)) {
            if !rule.holds(&context) {
                continue;
            }
            if self.site.hides(&rule.name, &context) {
                continue;
            }
            let subject = rule.subject_of(facts);
            let of = match rule.once {
                Once::Credential => fingerprint,
                Once::Subject => "",
                Once::Run => &beside.harvested.run,
            };
            let key = (rule.name.clone(), of.to_owned(), subject.clone());
            if let Some(known) = self.known.get_mut(&key)
                && facts.time_ns.saturating_sub(known.last_ns) < AGAIN_NS
            {
                known.count += 1;
                known.last_ns = known.last_ns.max(facts.time_ns);
                let repeat = self.repeated.entry(key).or_insert_with(|| Repeat {
                    count: 0,
                    ..known.clone()
                });
                repeat.count += 1;
                repeat.last_ns = known.last_ns;
                if rule.once != Once::Credential {
                    leaks.push(rule.name.clone());
                }
                continue;
            }
            leaks.push(rule.name.clone());
            if self.known.len() >= MOST_FINDINGS {
                self.known.pop_first();
            }
            self.known.insert(
                key,
                Repeat {
                    rule: rule.name.clone(),
                    fingerprint: fingerprint.to_owned(),
                    subject: subject.clone(),
                    count: 1,
                    last_ns: facts.time_ns,
                },
            );
            let text = |of: &str| fill(of, &scope).unwrap_or_default();
            findings.push(Finding {
                rule: rule.name.clone(),
                severity: rule.severity.word().to_owned(),
                title: rule.title.clone(),
                subject,
                seen: text(&rule.seen),
                expected: text(&rule.expected),
                remedy: text(&rule.remedy),
                techniques: rule.techniques.clone(),
                event: (facts.epoch, facts.sequence),
            });
        }
        for rule in leaks {
            self.leaked(&rule, fingerprint, facts.time_ns);
        }
        findings
    }

    /// The environment that a use, or a new file, belongs to by what the site says; the first that holds. It is noted with
    /// the credential.
    fn environment_of(&mut self, facts: &Facts, fingerprint: &str, scope: &Scope) -> String {
        let context = self.language.context(scope);
        let Some(environment) = self.site.environment(&context) else {
            return String::new();
        };
        if (is_use(facts) || facts.kind == "credential_created")
            && let Some(about) = self.about.get_mut(fingerprint)
        {
            about.environments.insert(environment.to_owned());
        }
        environment.to_owned()
    }

    /// Somebody else has a credential since then: the first time counts.
    fn leaked(&mut self, rule: &str, fingerprint: &str, time_ns: i64) {
        if fingerprint.is_empty() || !LEAKS.contains(&rule) {
            return;
        }
        if let Some((known, at)) = self.leaks.get_mut(fingerprint) {
            if time_ns < *at {
                (*known, *at) = (rule.to_owned(), time_ns);
            }
        } else if self.leaks.len() < MOST_CREDENTIALS {
            let leak = (rule.to_owned(), time_ns);
            self.leaks.insert(fingerprint.to_owned(), leak);
        }
    }

    /// What is known beside the event, the event included.
    fn beside(&mut self, facts: &Facts, fingerprint: &str) -> Beside {
        let mut beside = Beside {
            decoy: self.decoys.contains(fingerprint),
            ..Beside::default()
        };
        beside.harvested = self.harvest.take(facts);
        self.note_packer(facts);
        beside.packed = facts
            .steps
            .iter()
            .any(|step| self.packers.contains(&step.process));
        if fingerprint.is_empty() {
            return beside;
        }
        if let Some(baseline) = self.baselines.get(fingerprint) {
            let some = |known: &BTreeMap<String, u64>| known.keys().take(8).cloned().collect();
            beside.usual_programs = some(&baseline.programs.values);
            beside.usual_destinations = some(&baseline.destinations.values);
            beside.first_ns = (baseline.uses > 0).then_some(baseline.first_ns);
            beside.sent_ns = (baseline.sent_ns > 0).then_some(baseline.sent_ns);
        }
        if let Some(process) = &facts.process {
            let sent = self.sends.get(&process.workload()).into_iter().flatten();
            beside.others_sent_ns = sent
                .filter(|(other, at)| *at > 0 && other != fingerprint)
                .map(|(_, at)| *at)
                .max();
        }
        beside.leak = self.leaks.get(fingerprint).cloned();
        if self.about.len() >= MOST_CREDENTIALS && !self.about.contains_key(fingerprint) {
            return beside;
        }
        beside.known = beside.first_ns.is_some() || self.about.contains_key(fingerprint);
        let about = self.about.entry(fingerprint.to_owned()).or_default();
        if facts.source.kind == "file" {
            about.add_place(&facts.source.path);
        }
        if let Some(process) = &facts.process
            && is_use(facts)
        {
            about.add_use(facts, process);
        }
        beside.places = about.places.len();
        beside.units = about.units.len();
        beside.senders = about.senders.len();
        beside
    }

    fn learn(&mut self, facts: &Facts, fingerprint: &str) {
        if fingerprint.is_empty() || !is_use(facts) || self.decoys.contains(fingerprint) {
            return;
        }
        self.note_send(facts, fingerprint);
        if self.baselines.len() >= MOST_CREDENTIALS && !self.baselines.contains_key(fingerprint) {
            return;
        }
        self.baselines
            .entry(fingerprint.to_owned())
            .or_default()
            .learn(facts);
        self.changed.insert(fingerprint.to_owned());
    }

    fn note_packer(&mut self, facts: &Facts) {
        let Some(process) = facts.process.as_ref().filter(|p| packs_all(p)) else {
            return;
        };
        if facts.kind == "credential_read" && !self.packers.contains(&process.key) {
            // Who packed long ago packs no more.
            if self.packers.len() >= MOST_PACKERS {
                self.packers.clear();
            }
            self.packers.insert(process.key.clone());
        }
    }

    fn note_send(&mut self, facts: &Facts, fingerprint: &str) {
        let Some(process) = facts
            .process
            .as_ref()
            .filter(|_| facts.kind == "credential_sent")
        else {
            return;
        };
        let workload = process.workload();
        if self.sends.len() >= MOST_WORKLOADS && !self.sends.contains_key(&workload) {
            return;
        }
        let [last, before] = self.sends.entry(workload).or_default();
        if last.0 != fingerprint {
            *before = std::mem::take(last);
            fingerprint.clone_into(&mut last.0);
        }
        last.1 = last.1.max(facts.time_ns);
    }

    /// The environment of the last event by what the site says; empty for none.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    #[must_use]
    pub fn baselines(&self) -> &BTreeMap<String, Baseline> {
        &self.baselines
    }

    /// What changed since the last time: `None` for what was forgotten.
    pub fn take_changed(&mut self) -> Vec<(String, Option<Baseline>)> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|fingerprint| {
                let baseline = self.baselines.get(&fingerprint).cloned();
                (fingerprint, baseline)
            })
            .collect()
    }

    /// What was found again since the last time.
    pub fn take_repeated(&mut self) -> Vec<Repeat> {
        std::mem::take(&mut self.repeated).into_values().collect()
    }
}

/// A credential that was never used before: everything is new, and nothing unusual.
fn first() -> News {
    News {
        learning: true,
        ..News::default()
    }
}

/// What counts as a use: not that a holder sent something in which it was not seen.
fn is_use(facts: &Facts) -> bool {
    facts.grade != "lineage"
        && matches!(
            facts.kind.as_str(),
            "credential_read" | "credential_exposed" | "credential_taken" | "credential_sent"
        )
}

#[cfg(test)]
mod tests;
