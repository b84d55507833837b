//! All credentials this agent has met, and the matcher that recognises them again.

use keytrail_model::{Bound, Credential, CredentialRef, Dropped};
use keytrail_payload::{Learned, Matcher};
use keytrail_secret::{Finding, Fingerprinter};
use std::collections::HashMap;
use std::sync::Arc;

/// Credentials kept at most. Beyond it new ones are told wherever they are met, but not looked for in what is sent, and
/// that is counted.
const MAX_KNOWN: usize = 50_000;

/// Known credentials by fingerprint.
pub struct Registry {
    fingerprinter: Fingerprinter,
    pub matcher: Matcher,
    known: HashMap<String, CredentialRef>,
    limit: usize,
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

    /// Makes the findings of one file known; what it holds, each credential once. A finding without a secret part (a
    /// lone key id) names a credential, it does not hold one; below `min_confidence` nothing counts.
    pub fn learn_held(&mut self, findings: &[Finding], min_confidence: f64) -> Vec<CredentialRef> {
        let mut held: Vec<CredentialRef> = Vec::new();
        for finding in findings {
            if finding.parts.is_empty() || finding.confidence < min_confidence {
                continue;
            }
            if let Some(credential) = self.learn(finding)
                && !held.iter().any(|c| c.fingerprint == credential.fingerprint)
            {
                held.push(credential);
            }
        }
        held
    }

    /// What is in a file, whatever its confidence, in its order: what an inventory wants. Nothing is learnt.
    pub fn describe_held(&self, findings: &[Finding]) -> Vec<Credential> {
        findings
            .iter()
            .filter(|f| !f.parts.is_empty())
            .map(|f| f.credential(&self.fingerprinter))
            .collect()
    }

    /// Makes a finding known: its forms go to the matcher; the caller drops (and so wipes) the secret.
    pub fn learn(&mut self, finding: &Finding) -> Option<CredentialRef> {
        let fresh = finding.credential(&self.fingerprinter);
        let credential = match self.known.get(&fresh.fingerprint) {
            Some(known) if !better(&fresh, known) => return Some(known.clone()),
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
        self.generation += 1;
        Some(credential)
    }
}

/// A specific rule knows a secret better than a generic one, and one that found the identifier better than one that did not.
fn better(fresh: &Credential, known: &Credential) -> bool {
    fresh.confidence > known.confidence
        || (fresh.confidence >= known.confidence
            && known.identifier.is_empty()
            && !fresh.identifier.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_secret::{Classifier, Origin};

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
        // Reads and exposures of it are told all the same; that it is not looked for is counted.
        let (second, found, mut dropped) = held('B');
        assert_eq!((second, found), (1, 0));
        assert_eq!(dropped.take().collect::<Vec<_>>(), [(Bound::Secrets, 1)]);
        assert_eq!(held('A').1, 1);
        assert_eq!(registry.len(), 1);
    }
}
