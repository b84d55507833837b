//! Events in, findings out.

use crate::about::About;
use crate::act::Acts;
use crate::baseline::{Baseline, News};
use crate::builtin::BUILTIN;
use crate::carry::packs_all;
use crate::facts::Facts;
use crate::finding::Finding;
use crate::harvest::{Harvest, is_shipped};
use crate::network::by_network;
use crate::recent::{Recent, Remembered};
use crate::rule::{Language, Once, Rule, RuleError, Subject, fill};
use crate::scope::{Beside, Scope};
use crate::site::Site;
use crate::text::{fits, kept};
use keytrail_model::{Bound, Dropped};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Credentials of which something is known, and bytes of what is usual for them, what is known beside that, and who else has
/// them. A usual one takes four thousand bytes of the first.
const MOST_CREDENTIALS: usize = 50_000;
const MOST_USUAL_BYTES: usize = 32 << 20;
const MOST_ABOUT_BYTES: usize = 16 << 20;
const MOST_LEAK_BYTES: usize = 8 << 20;
/// Findings that are known.
const MOST_FINDINGS: usize = 20_000;
const MOST_FINDING_BYTES: usize = 16 << 20;
/// Workloads of which it is known what they send.
const MOST_WORKLOADS: usize = 10_000;
const MOST_WORKLOAD_BYTES: usize = 8 << 20;
/// What is usual is handed out to be kept in pieces, so that nothing else waits for it: credentials, and bytes.
const MOST_CHANGED: usize = 256;
const MOST_CHANGED_BYTES: usize = 1 << 20;
/// So are findings that were made again.
const MOST_REPEATED: usize = 4_096;
/// Where processes sent something first, each with one credential in hand.
const MOST_FIRST: usize = 10_000;
const MOST_FIRST_BYTES: usize = 4 << 20;
/// Processes that are remembered for what they packed.
const MOST_PACKERS: usize = 4_096;
/// Findings by which somebody else has the credential.
const LEAKS: &[&str] = &[
    "agent-in-install",
    "bulk-send",
    "in-body",
    "in-dns",
    "in-url",
    "key-sent",
    "new-destination",
    "not-by-http",
    "package-install",
    "package-install-sent",
    "sent-by-shell",
    "sent-in-clear",
    "taken-from-process",
    "uploaded",
    "wrong-place",
    "wrong-protocol",
    "written-to-log-or-terminal",
];
/// A finding that was not made again for so long is reported again.
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
pub enum StageInput {
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

/// Rule and time of the first finding by which somebody else has a credential.
#[derive(Clone, Default)]
struct Leak(Option<(String, i64)>);

impl Remembered for Leak {
    fn bytes(&self) -> usize {
        size_of::<Leak>() + self.0.as_ref().map_or(0, |(rule, _)| rule.len())
    }
}

/// The last two credentials that a workload was seen to send, and when.
#[derive(Default)]
struct Sends([(String, i64); 2]);

impl Remembered for Sends {
    fn bytes(&self) -> usize {
        size_of::<Sends>() + self.0.iter().map(|(of, _)| of.len()).sum::<usize>()
    }
}

/// Where a process sent something first after it had obtained a credential.
#[derive(Default)]
struct FirstPlace(String);

impl Remembered for FirstPlace {
    fn bytes(&self) -> usize {
        size_of::<FirstPlace>() + self.0.len()
    }
}

impl Remembered for Repeat {
    fn bytes(&self) -> usize {
        size_of::<Repeat>() + self.rule.len() + self.fingerprint.len() + self.subject.len()
    }
}

/// What is usual for a credential, and whether it was handed out to be kept.
#[derive(Default)]
struct Usual {
    baseline: Baseline,
    handed_out: bool,
}

impl Remembered for Usual {
    fn bytes(&self) -> usize {
        self.baseline.bytes()
    }

    fn is_established(&self) -> bool {
        self.baseline.is_established()
    }
}

/// Credentials whose usual changed, in the order in which it did.
#[derive(Default)]
struct Changed {
    order: BTreeMap<u64, String>,
    numbers: BTreeMap<String, u64>,
    next: u64,
}

impl Changed {
    fn add(&mut self, fingerprint: &str) {
        if !self.numbers.contains_key(fingerprint) {
            self.numbers.insert(fingerprint.to_owned(), self.next);
            self.order.insert(self.next, fingerprint.to_owned());
            self.next += 1;
        }
    }

    /// What was never handed out, and is gone, need not be reported.
    fn forget(&mut self, fingerprint: &str) {
        if let Some(number) = self.numbers.remove(fingerprint) {
            self.order.remove(&number);
        }
    }

    fn next(&mut self) -> Option<String> {
        let (_, fingerprint) = self.order.pop_first()?;
        self.numbers.remove(&fingerprint);
        Some(fingerprint)
    }
}

/// The stage. Feed it every event in order.
pub struct Stage {
    language: Language,
    rules: Vec<Rule>,
    site: Site,
    baselines: Recent<Usual>,
    about: Recent<About>,
    decoys: BTreeSet<String>,
    harvest: Harvest,
    /// Keys of processes that pack whole directories.
    packers: BTreeSet<String>,
    acts: Acts,
    first: Recent<FirstPlace>,
    leaks: Recent<Leak>,
    sends: Recent<Sends>,
    known: Recent<Repeat>,
    /// Changed since they were last taken.
    changed: Changed,
    repeated: BTreeMap<String, Repeat>,
    dropped: Dropped,
    /// Of the last event.
    environment: String,
}

impl Default for Stage {
    fn default() -> Self {
        Stage {
            language: Language::default(),
            rules: Vec::new(),
            site: Site::default(),
            baselines: Recent::new(MOST_CREDENTIALS, MOST_USUAL_BYTES),
            about: Recent::new(MOST_CREDENTIALS, MOST_ABOUT_BYTES),
            decoys: BTreeSet::new(),
            harvest: Harvest::default(),
            packers: BTreeSet::new(),
            acts: Acts::default(),
            first: Recent::new(MOST_FIRST, MOST_FIRST_BYTES),
            leaks: Recent::new(MOST_CREDENTIALS, MOST_LEAK_BYTES),
            sends: Recent::new(MOST_WORKLOADS, MOST_WORKLOAD_BYTES),
            known: Recent::new(MOST_FINDINGS, MOST_FINDING_BYTES),
            changed: Changed::default(),
            repeated: BTreeMap::new(),
            dropped: Dropped::default(),
            environment: String::new(),
        }
    }
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
        if self.is_covered_by(&rule.name, &rule.covers) {
            // None of them would ever be reported.
            return Err(RuleError {
                file: file.into(),
                reason: format!("{:?} covers what covers it", rule.name),
            });
        }
        self.rules.retain(|known| known.name != rule.name);
        self.rules.push(rule);
        self.rules.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Whether rules cover one of this name, themselves or by those that they cover.
    fn is_covered_by(&self, name: &str, rules: &[String]) -> bool {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = rules.iter().map(String::as_str).collect();
        while let Some(covered) = next.pop() {
            if covered == name {
                return true;
            }
            if seen.insert(covered) {
                let known = self.rules.iter().filter(|rule| rule.name == covered);
                next.extend(known.flat_map(|rule| rule.covers.iter().map(String::as_str)));
            }
        }
        false
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
    pub fn apply(&mut self, input: StageInput) -> Vec<RuleError> {
        match input {
            StageInput::Start {
                rules,
                baselines,
                repeats,
                decoys,
            } => {
                self.baselines = Recent::new(MOST_CREDENTIALS, MOST_USUAL_BYTES);
                for (fingerprint, baseline) in baselines {
                    self.know(fingerprint, baseline);
                }
                self.decoys = decoys;
                for repeat in &repeats {
                    self.leaked(&repeat.rule, &repeat.fingerprint, repeat.last_ns);
                }
                let refused = rules
                    .iter()
                    .filter_map(|(file, text)| self.add(file, text).err())
                    .collect();
                for repeat in repeats {
                    self.found(&self.key_of(&repeat), repeat);
                }
                return refused;
            }
            StageInput::Accept { fingerprint } => {
                if let Some(used_ns) = self.baselines.get(&fingerprint).map(|u| u.baseline.last_ns)
                {
                    self.change_usual(&fingerprint, used_ns, |usual| usual.accepted = true);
                }
            }
            StageInput::Reset { fingerprint } => {
                if self.baselines.remove(&fingerprint).is_some() {
                    self.changed.add(&fingerprint);
                }
            }
            StageInput::Decoys { decoys } => self.decoys = decoys,
        }
        Vec::new()
    }

    /// What an agent before this one learned. What is not within the bounds goes from the disk as well.
    fn know(&mut self, fingerprint: String, mut baseline: Baseline) {
        baseline.within_bounds();
        let used_ns = baseline.last_ns;
        let gone = self.baselines.change(&fingerprint, used_ns, |usual| {
            *usual = Usual {
                baseline,
                handed_out: true,
            };
        });
        self.forgotten(gone);
    }

    fn change_usual(&mut self, fingerprint: &str, now_ns: i64, change: impl FnOnce(&mut Baseline)) {
        self.changed.add(fingerprint);
        let gone = self
            .baselines
            .change(fingerprint, now_ns, |usual| change(&mut usual.baseline));
        self.forgotten(gone);
    }

    /// What is usual for these was forgotten. Whoever keeps it has to hear of those that he was given.
    fn forgotten(&mut self, gone: Vec<(String, Usual)>) {
        self.dropped.add(Bound::Usual, gone.len() as u64);
        for (fingerprint, usual) in gone {
            if usual.handed_out {
                self.changed.add(&fingerprint);
            } else {
                self.changed.forget(&fingerprint);
            }
        }
    }

    /// A finding is known under this key.
    fn found(&mut self, key: &str, repeat: Repeat) {
        let now_ns = repeat.last_ns;
        let gone = self.known.change(key, now_ns, |known| *known = repeat);
        self.dropped.add(Bound::Runs, gone.len() as u64);
    }

    /// Under which a finding of an agent before this one is known. Its runs are not.
    fn key_of(&self, repeat: &Repeat) -> String {
        let rule = self.rules.iter().find(|rule| rule.name == repeat.rule);
        let of = match rule.map(|rule| rule.once) {
            Some(Once::Subject) => "",
            _ => &repeat.fingerprint,
        };
        // One that is kept as it was found, before there was a bound.
        let subject = if fits(&repeat.subject) {
            Cow::Borrowed(repeat.subject.as_str())
        } else {
            kept(&repeat.subject)
        };
        let rule = rule.map(|rule| rule.subject).unwrap_or_default();
        key(&repeat.rule, of, &same(rule, &subject))
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
            .map_or_else(first, |usual| usual.baseline.news(facts));
        let beside = self.beside(facts, &fingerprint);
        // A sample in what a package brought along is nobody's secret.
        let sample = matches!(
            facts.kind.as_str(),
            "credential_read" | "credential_opened" | "credential_created"
        ) && facts.source.kind == "file"
            && is_shipped(&facts.source.path);
        let mut findings = if sample && !beside.decoy {
            Vec::new()
        } else {
            self.judge(facts, &fingerprint, &news, &beside)
        };
        if let Some(process) = facts.process.as_ref().filter(|_| !findings.is_empty()) {
            let act = self.acts.of(process, facts.sequence, facts.time_ns);
            findings.iter_mut().for_each(|finding| finding.act = act);
        }
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
        let asked = self.rules.iter().filter(|rule| rule.asks(&facts.kind));
        let holding: Vec<&Rule> = asked
            .filter(|rule| rule.holds(&context) && !self.site.hides(&rule.name, &context))
            .collect();
        for rule in &holding {
            // What says more of the same event speaks for it; who else has the credential by it is noted all the same.
            if holding.iter().any(|other| other.speaks_for(rule)) {
                leaks.push(rule.name.clone());
                continue;
            }
            let subject = kept(&rule.subject_of(facts)).into_owned();
            let of = match rule.once {
                Once::Credential => fingerprint,
                Once::Subject => "",
                Once::Run => &beside.harvested.run,
            };
            let as_of = |of: &str, subject_key: &str| Again {
                key: key(&rule.name, of, subject_key),
                rule: &rule.name,
                fingerprint,
                subject: &subject,
                time_ns: facts.time_ns,
            };
            let subject_key = same(rule.subject, &subject);
            let again = as_of(of, &subject_key);
            // A run is known by the process and by its siblings, whichever did most of it this time.
            let all = beside.harvested.siblings.as_deref();
            let all = all.filter(|_| rule.once == Once::Run).map(|all| {
                // Which of them it was makes no difference.
                let program = rule.subject == Subject::Program;
                as_of(all, if program { "" } else { &subject_key })
            });
            let by_all = all.as_ref().filter(|_| beside.harvested.by_siblings);
            if again.count(&mut self.known, &mut self.repeated)
                || by_all.is_some_and(|all| all.count(&mut self.known, &mut self.repeated))
            {
                if rule.once != Once::Credential {
                    leaks.push(rule.name.clone());
                }
                continue;
            }
            leaks.push(rule.name.clone());
            for as_known in all.into_iter().chain([again]) {
                let gone = as_known.note(&mut self.known);
                self.dropped.add(Bound::Runs, gone);
            }
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
                act: facts.sequence,
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
        let environment = environment.to_owned();
        if (is_use(facts) || facts.kind == "credential_created")
            && self
                .about
                .get(fingerprint)
                .is_some_and(|about| !about.environments.contains(&environment))
        {
            let gone = self.about.change(fingerprint, facts.time_ns, |about| {
                about.environments.insert(environment.clone());
            });
            self.dropped.add(Bound::Usual, gone.len() as u64);
        }
        environment
    }

    /// Somebody else has a credential since then: the first time counts.
    fn leaked(&mut self, rule: &str, fingerprint: &str, time_ns: i64) {
        if fingerprint.is_empty() || !LEAKS.contains(&rule) {
            return;
        }
        let gone = self.leaks.change(fingerprint, time_ns, |leak| {
            if leak.0.as_ref().is_none_or(|(_, at)| time_ns < *at) {
                leak.0 = Some((rule.to_owned(), time_ns));
            }
        });
        self.dropped.add(Bound::Usual, gone.len() as u64);
    }

    /// What is known beside the event, the event included.
    fn beside(&mut self, facts: &Facts, fingerprint: &str) -> Beside {
        let mut beside = Beside {
            decoy: self.decoys.contains(fingerprint),
            ..Beside::default()
        };
        beside.harvested = self.harvest.take(facts);
        self.dropped.add(Bound::Runs, self.harvest.take_refused());
        self.note_packer(facts);
        beside.first_place = self.is_first_place(facts, fingerprint);
        beside.packed = facts
            .steps
            .iter()
            .any(|step| self.packers.contains(&step.process));
        if fingerprint.is_empty() {
            return beside;
        }
        if let Some(Usual { baseline, .. }) = self.baselines.get(fingerprint) {
            let some = |known: &BTreeMap<String, u64>| known.keys().take(8).cloned().collect();
            beside.usual_programs = some(&baseline.programs.values);
            beside.usual_destinations = some(&baseline.destinations.values);
            if let Some(destination) = &facts.destination {
                beside.usual_networks = baseline.networks_of(destination);
                beside.usual_networks.truncate(8);
            }
            beside.first_ns = (baseline.uses > 0).then_some(baseline.first_ns);
            beside.sent_ns = (baseline.sent_ns > 0).then_some(baseline.sent_ns);
        }
        if let Some(process) = &facts.process {
            let sends = self.sends.get(kept(&process.workload()).as_ref());
            let sent = sends.into_iter().flat_map(|sends| &sends.0);
            beside.others_sent_ns = sent
                .filter(|(other, at)| *at > 0 && other != fingerprint)
                .map(|(_, at)| *at)
                .max();
        }
        beside.leak = self.leaks.get(fingerprint).and_then(|leak| leak.0.clone());
        beside.known = beside.first_ns.is_some() || self.about.get(fingerprint).is_some();
        let gone = self.about.change(fingerprint, facts.time_ns, |about| {
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
        });
        self.dropped.add(Bound::Usual, gone.len() as u64);
        beside
    }

    fn learn(&mut self, facts: &Facts, fingerprint: &str) {
        if fingerprint.is_empty() || !is_use(facts) || self.decoys.contains(fingerprint) {
            return;
        }
        self.note_send(facts, fingerprint);
        let mut full = 0;
        self.change_usual(fingerprint, facts.time_ns, |usual| {
            full = usual.learn(facts)
        });
        self.dropped.add(Bound::Values, full as u64);
    }

    /// Whether nothing was sent to another place before by this process, with this credential in hand.
    fn is_first_place(&mut self, facts: &Facts, fingerprint: &str) -> bool {
        let (Some(process), Some(destination)) = (&facts.process, &facts.destination) else {
            return false;
        };
        if facts.kind != "credential_sent" || !destination.path.is_empty() {
            return false;
        }
        let place = kept(&destination.place()).into_owned();
        let key = format!("{} {fingerprint}", process.key);
        if let Some(first) = self.first.get(&key) {
            return first.0 == place;
        }
        // Who is forgotten here has only more excuses the next time: it is counted as all that finds no room.
        let gone = self
            .first
            .change(&key, facts.time_ns, |first| first.0 = place);
        self.dropped.add(Bound::Runs, gone.len() as u64);
        true
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
        let gone = self.sends.change(&kept(&workload), facts.time_ns, |sends| {
            let [last, before] = &mut sends.0;
            if last.0 != fingerprint {
                *before = std::mem::take(last);
                fingerprint.clone_into(&mut last.0);
            }
            last.1 = last.1.max(facts.time_ns);
        });
        self.dropped.add(Bound::Usual, gone.len() as u64);
    }

    /// The environment of the last event by what the site says; empty for none.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// What is usual, by credential.
    pub fn baselines(&self) -> impl Iterator<Item = (&String, &Baseline)> {
        self.baselines
            .iter()
            .map(|(of, usual)| (of, &usual.baseline))
    }

    /// What changed since the last time, as much of it as may be handed out at once; the rest comes the next time. `None` for
    /// what was forgotten.
    pub fn take_changed(&mut self) -> Vec<(String, Option<Baseline>)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < MOST_CHANGED
            && bytes < MOST_CHANGED_BYTES
            && let Some(changed) = self.next_changed()
        {
            bytes += changed.1.as_ref().map_or(0, Remembered::bytes);
            taken.push(changed);
        }
        taken
    }

    fn next_changed(&mut self) -> Option<(String, Option<Baseline>)> {
        let fingerprint = self.changed.next()?;
        let baseline = self.baselines.get_mut(&fingerprint).map(|usual| {
            usual.handed_out = true;
            usual.baseline.clone()
        });
        Some((fingerprint, baseline))
    }

    /// Whether something changed that was not handed out yet.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed() > 0
    }

    /// For how many credentials it has.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changed.order.len()
    }

    /// What was handed out for these could not be kept: it is handed out again.
    pub fn change_again(&mut self, fingerprints: &[String]) {
        for fingerprint in fingerprints {
            self.changed.add(fingerprint);
        }
    }

    /// What found no room, and was not reported yet.
    pub fn dropped(&mut self) -> &mut Dropped {
        &mut self.dropped
    }

    /// What was found again since the last time, as much of it as may be handed out at once; the rest comes the next time.
    pub fn take_repeated(&mut self) -> Vec<Repeat> {
        let next = || self.repeated.pop_first();
        let taken = std::iter::from_fn(next).take(MOST_REPEATED);
        taken.map(|(_, repeat)| repeat).collect()
    }

    /// How many findings were made again that were not handed out yet.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated.len()
    }

    /// These were handed out and could not be kept: they are handed out again.
    pub fn repeat_again(&mut self, repeats: Vec<Repeat>) {
        for repeat in repeats {
            let key = self.key_of(&repeat);
            let known = self.repeated.entry(key).or_insert_with(|| Repeat {
                count: 0,
                ..repeat.clone()
            });
            known.count += repeat.count;
            known.last_ns = known.last_ns.max(repeat.last_ns);
        }
    }
}

/// Of subjects, what does not change while they stay the same.
fn same(kind: Subject, subject: &str) -> Cow<'_, str> {
    match kind {
        Subject::Destination => by_network(subject),
        _ => Cow::Borrowed(subject),
    }
}

/// What makes a finding the same one again. None of its parts has control characters.
fn key(rule: &str, of: &str, subject: &str) -> String {
    format!("{rule}\n{of}\n{subject}")
}

/// A finding as it would be known.
struct Again<'a> {
    key: String,
    rule: &'a str,
    fingerprint: &'a str,
    subject: &'a str,
    time_ns: i64,
}

impl Again<'_> {
    /// Whether it was made within a day; then it is counted.
    fn count(&self, known: &mut Recent<Repeat>, repeated: &mut BTreeMap<String, Repeat>) -> bool {
        let Some(before) = known.get(&self.key) else {
            return false;
        };
        if self.time_ns.saturating_sub(before.last_ns) >= AGAIN_NS {
            return false;
        }
        // It is there already, so nothing has to go for it.
        known.change(&self.key, self.time_ns, |before| {
            before.count += 1;
            before.last_ns = before.last_ns.max(self.time_ns);
        });
        if let Some(known) = known.get(&self.key)
            && (repeated.len() < MOST_FINDINGS || repeated.contains_key(&self.key))
        {
            let repeat = repeated.entry(self.key.clone()).or_insert_with(|| Repeat {
                count: 0,
                ..known.clone()
            });
            repeat.count += 1;
            repeat.last_ns = known.last_ns;
        }
        true
    }

    /// Notes it as new; how many others had to go for it.
    fn note(self, known: &mut Recent<Repeat>) -> u64 {
        let gone = known.change(&self.key, self.time_ns, |repeat| {
            *repeat = Repeat {
                rule: self.rule.to_owned(),
                fingerprint: self.fingerprint.to_owned(),
                subject: self.subject.to_owned(),
                count: 1,
                last_ns: self.time_ns,
            };
        });
        gone.len() as u64
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
            "credential_read"
                | "credential_exposed"
                | "credential_taken"
                | "credential_received"
                | "credential_sent"
        )
}

#[cfg(test)]
mod tests;
