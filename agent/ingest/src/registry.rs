//! All credentials this agent has seen, and the matcher that recognises them again.

use keytrail_abi::FileId;
use keytrail_model::{Bound, Credential, CredentialRef, Dropped};
use keytrail_payload::{Learned, Matcher};
use keytrail_secret::{Finding, Fingerprinter};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Credentials kept at most. Beyond it new ones are reported wherever they are seen, but not looked for in what is sent, and
/// that is counted.
const MAX_KNOWN: usize = 50_000;
/// Files remembered that ended in a secret when they were inspected.
const MAX_ENDINGS: usize = 4_096;
/// Credentials known by their use alone: most are good for an hour, and the oldest go.
const MAX_IN_USE: usize = 4_096;

/// A secret that was new and at the very end of a file: it may be the beginning of one that is being written.
struct Ending {
    fingerprint: String,
    length: usize,
}

/// Known credentials by fingerprint.
pub struct Registry {
    fingerprinter: Fingerprinter,
    pub matcher: Matcher,
    known: HashMap<String, CredentialRef>,
    limit: usize,
    endings: HashMap<FileId, Vec<Ending>>,
    /// Fingerprints of those that are known by their use alone, and in which order they came; some may be known better by now.
    in_use: HashSet<String>,
    in_use_order: VecDeque<String>,
    /// Some of them were forgotten since somebody asked.
    pub forgot: bool,
    /// Fingerprints of what turned out to be the beginning of a secret, until somebody takes them.
    pub withdrawn: Vec<String>,
    /// Grows with every new secret: results of older scans may be incomplete.
    pub generation: u64,
    /// What found no room, or cannot be looked for.
    pub dropped: Dropped,
}

impl Registry {
    #[must_use]
    pub fn new(fingerprinter: Fingerprinter, matcher: Matcher) -> Self {
        Self {
            fingerprinter,
            matcher,
            known: HashMap::new(),
            limit: MAX_KNOWN,
            endings: HashMap::new(),
            in_use: HashSet::new(),
            in_use_order: VecDeque::new(),
            forgot: false,
            withdrawn: Vec::new(),
            generation: 0,
            dropped: Dropped::default(),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    #[must_use]
    pub fn fingerprinter(&self) -> &Fingerprinter {
        &self.fingerprinter
    }

    /// Makes known what one version of a file holds, as [`Registry::learn_held`]. `end` is where its content ends, 0 when
    /// that is not known. What was learnt from its end before and is the beginning of what is there now is withdrawn.
    pub fn learn_file(
        &mut self,
        file: FileId,
        end: usize,
        findings: &[Finding],
        min_confidence: f64,
    ) -> Vec<CredentialRef> {
        for ending in self.endings.remove(&file).unwrap_or_default() {
            let goes_on = |finding: &Finding| {
                let value = finding.parts.first().map(|part| &part.value);
                let beginning = value.filter(|v| v.len() > ending.length);
                beginning.is_some_and(|v| {
                    self.fingerprinter.fingerprint(&v[..ending.length]) == ending.fingerprint
                })
            };
            if findings.iter().any(goes_on) {
                self.withdraw(ending.fingerprint);
            }
        }
        let endings: Vec<Ending> = findings
            .iter()
            .filter_map(|finding| {
                let part = finding
                    .parts
                    .first()
                    .filter(|p| end != 0 && p.span.end >= end)?;
                let fingerprint = self.fingerprinter.fingerprint(&part.value);
                (!self.known.contains_key(&fingerprint)).then_some(Ending {
                    fingerprint,
                    length: part.value.len(),
                })
            })
            .collect();
        if !endings.is_empty() {
            if self.endings.len() >= MAX_ENDINGS {
                // Who is still writing such a file now keeps what it began with.
                self.endings.clear();
            }
            self.endings.insert(file, endings);
        }
        self.learn_held(findings, min_confidence)
    }

    fn withdraw(&mut self, fingerprint: String) {
        if self.known.remove(&fingerprint).is_some() {
            self.matcher.forget(&fingerprint);
            self.generation += 1;
            self.withdrawn.push(fingerprint);
        }
    }

    /// Makes the findings of one file known; what it holds, each credential once. A finding without a secret part (a
    /// lone key id) names a credential, it does not hold one; below `min_confidence` nothing counts.
    pub fn learn_held(&mut self, findings: &[Finding], min_confidence: f64) -> Vec<CredentialRef> {
        let mut held: Vec<CredentialRef> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        for finding in findings {
            if finding.parts.is_empty() || finding.confidence < min_confidence {
                continue;
            }
            if let Some(credential) = self.learn(finding)
                && seen.insert(credential.fingerprint.clone())
            {
                held.push(credential);
            }
        }
        held
    }

    /// What is in a file, whatever its confidence, in its order: what an inventory wants. Nothing is learnt. What two
    /// rules found is one credential, described by the one that knows it better.
    pub fn describe_held(&self, findings: &[Finding]) -> Vec<Credential> {
        let mut held: Vec<Credential> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for finding in findings.iter().filter(|f| !f.parts.is_empty()) {
            let credential = finding.credential(&self.fingerprinter);
            match places.get(&credential.fingerprint) {
                Some(&at) if credential.is_better(&held[at]) => held[at] = credential,
                Some(_) => {}
                None => {
                    places.insert(credential.fingerprint.clone(), held.len());
                    held.push(credential);
                }
            }
        }
        held
    }

    /// Makes known what was first seen where it was used; `None` when it is known already.
    pub fn learn_in_use(&mut self, finding: &Finding) -> Option<CredentialRef> {
        let fingerprint = finding.credential(&self.fingerprinter).fingerprint;
        if self.known.contains_key(&fingerprint) {
            return None;
        }
        while self.in_use_order.len() >= MAX_IN_USE
            && let Some(oldest) = self.in_use_order.pop_front()
        {
            if self.in_use.remove(&oldest) {
                self.known.remove(&oldest);
                self.matcher.forget(&oldest);
                self.forgot = true;
            }
        }
        let credential = self.learn(finding)?;
        self.in_use.insert(fingerprint.clone());
        self.in_use_order.push_back(fingerprint);
        Some(credential)
    }

    /// Makes a finding known: its forms go to the matcher; the caller drops (and so wipes) the secret.
    pub fn learn(&mut self, finding: &Finding) -> Option<CredentialRef> {
        let fresh = finding.credential(&self.fingerprinter);
        // It is somewhere else as well.
        self.in_use.remove(&fresh.fingerprint);
        let credential = match self.known.get(&fresh.fingerprint) {
            Some(known) if !fresh.is_better(known) => return Some(known.clone()),
            None if self.known.len() >= self.limit => {
                self.dropped.add(Bound::Secrets, 1);
                return Some(Arc::new(fresh));
            }
            _ => Arc::new(fresh),
        };
        self.known
            .insert(credential.fingerprint.clone(), credential.clone());
        self.matcher.forget(&credential.fingerprint);
        for part in &finding.parts {
            let bound = match self
                .matcher
                .learn(credential.clone(), &part.name, &part.value)
            {
                Learned::New { .. } | Learned::Known => continue,
                Learned::TooWeak | Learned::TooLong => Bound::Weak,
                Learned::Full => Bound::Secrets,
            };
            self.dropped.add(bound, 1);
        }
        for public in &finding.public {
            self.matcher.learn_identifier(credential.clone(), public);
        }
        if let Some(key) = &finding.key
            && self.matcher.learn_key(credential.clone(), key) == Learned::Full
        {
            self.dropped.add(Bound::Secrets, 1);
        }
        if !finding.login.is_empty() {
            self.matcher.learn_login(credential.clone(), &finding.login);
        }
        self.generation += 1;
        Some(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_secret::{Classifier, Origin};

    #[test]
    fn what_was_cut_by_the_end_of_a_file_is_withdrawn_when_it_goes_on() {
        let mut registry = Registry::new(Fingerprinter::new(&[7; 32]), Matcher::new(&[9; 32]));
        let classifier = Classifier::builtin();
        let file = FileId {
            dev: 1,
            ino: 2,
            ..FileId::default()
        };
        let version = |registry: &mut Registry, text: &str| {
            let findings = classifier.classify(text.as_bytes(), Origin::File { path: "/srv/.env" });
            let held = registry.learn_file(file, text.len(), &findings, 0.0);
            let names: Vec<_> = held.iter().map(|c| c.fingerprint.clone()).collect();
            (names, std::mem::take(&mut registry.withdrawn))
        };
        let whole = "DB_PASSWORD=q3VtAcK8s1LwXy7BmZ4e";
        let (part, withdrawn) = version(&mut registry, &whole[..whole.len() - 6]);
        assert_eq!((part.len(), withdrawn.len()), (1, 0));
        let (all, withdrawn) = version(&mut registry, whole);
        assert_eq!(withdrawn, part);
        assert_eq!((all.len(), registry.len()), (1, 1));
        assert!(
            registry
                .matcher
                .places(&whole.as_bytes()[..whole.len() - 6])
                .is_empty()
        );
        assert_eq!(registry.matcher.places(whole.as_bytes()).len(), 1);
        // Another secret in its place is no continuation: the one before was one.
        let (_, withdrawn) = version(&mut registry, "DB_PASSWORD=Zk83vBqLw02mXcYt5rEa");
        assert_eq!((withdrawn.len(), registry.len()), (0, 2));
        // Nor is what ends before the file does.
        version(&mut registry, "DB_PASSWORD=hT6yPw9sQd2fGj4k\n");
        let (_, withdrawn) = version(&mut registry, "DB_PASSWORD=hT6yPw9sQd2fGj4kLm\n");
        assert_eq!(withdrawn.len(), 0);
    }

    #[test]
    fn a_full_registry_still_knows_who_holds_what() {
        let mut registry = Registry::new(Fingerprinter::new(&[7; 32]), Matcher::new(&[9; 32]));
        registry.limit = 1;
        let classifier = Classifier::builtin();
        let text = |letter: char| format!("DB_PASSWORD=q3Vt{letter}cK8s1LwXy7B");
        let mut held = |letter: char| {
            let text = text(letter);
            let findings = classifier.classify(text.as_bytes(), Origin::Text);
            let held = registry.learn_held(&findings, 0.0);
            (
                held.len(),
                registry.matcher.places(text.as_bytes()).len(),
                registry.dropped.clone(),
            )
        };
        let (first, found, dropped) = held('A');
        assert!((first, found) == (1, 1) && dropped.is_empty());
        // Reads and exposures of it are reported all the same; that it is not looked for is counted.
        let (second, found, mut dropped) = held('B');
        assert_eq!((second, found), (1, 0));
        assert_eq!(dropped.take().collect::<Vec<_>>(), [(Bound::Secrets, 1)]);
        assert_eq!(held('A').1, 1);
        assert_eq!(registry.len(), 1);
    }
}
