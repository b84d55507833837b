//! Credentials that are first seen where they are used: what a token endpoint, a vault or a metadata service has answered over
//! TLS is not seen, but who got it sends it, in a header that holds nothing else. From then on it is known like any other.

use super::files::min_confidence;
use super::registry::Registry;
use keytrail_model::{Bound, CredentialRef, Dropped, InUseSeen, Pid, TaskInfo, Transform};
use keytrail_payload::Unknown;
use keytrail_secret::{Classifier, Finding, Origin};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Credentials that one process may bring up in a time; who serves others passes on theirs, as a proxy does.
const MOST: u32 = 16;
const MOST_OF_SERVERS: u32 = 4;
const TIME_NS: u64 = 600_000_000_000;
/// Processes remembered that brought one up, or serve.
const MAX_PROCESSES: usize = 16_384;
/// Values remembered that were decided about.
const MAX_DECIDED: usize = 16_384;

/// What is remembered of a process.
#[derive(Default)]
struct Of {
    since_ns: u64,
    count: u32,
    /// It answers on connections that it accepted.
    serves: bool,
}

/// What was decided about values of headers.
#[derive(Default)]
pub(super) struct InUse {
    /// Keyed hashes of values that were inspected: what is in them is known, or nothing is. With the key that is in memory
    /// alone nobody can test a guess.
    decided: HashSet<u64>,
    /// The same of values of a process that found no room, until their time is over: each is counted once.
    refused: HashSet<u64>,
    refused_until_ns: u64,
    key: RandomState,
    of: HashMap<Pid, Of>,
}

/// What is seen in one payload.
pub(super) struct Meeting<'a> {
    state: &'a mut InUse,
    classifier: &'a Classifier,
    registry: &'a Registry,
    at: &'a TaskInfo,
    used: UsedCredentials,
}

/// Credentials nobody knew, still with their bytes.
#[derive(Default)]
pub(super) struct UsedCredentials {
    findings: Vec<Finding>,
    refused: u64,
}

impl InUse {
    pub fn meeting<'a>(
        &'a mut self,
        at: &'a TaskInfo,
        classifier: &'a Classifier,
        registry: &'a Registry,
    ) -> Meeting<'a> {
        Meeting {
            state: self,
            classifier,
            registry,
            at,
            used: UsedCredentials::default(),
        }
    }

    /// It answers others.
    pub fn serves(&mut self, pid: Pid) {
        self.of(pid).serves = true;
    }

    pub fn forget(&mut self, pid: Pid) {
        self.of.remove(&pid);
    }

    pub fn forget_dead(&mut self, lives: impl Fn(u32) -> bool) {
        self.of.retain(|pid, _| lives(pid.tgid));
    }

    /// Makes known what was seen, and forgets the bytes. Who holds it from here on.
    pub fn learn(
        &mut self,
        at: &TaskInfo,
        used: UsedCredentials,
        registry: &mut Registry,
        dropped: &mut Dropped,
    ) -> Option<InUseSeen> {
        dropped.add(Bound::InUse, used.refused);
        let mut credentials: Vec<CredentialRef> = Vec::new();
        for finding in &used.findings {
            if let Some(credential) = registry.learn_in_use(finding) {
                credentials.push(credential);
            }
        }
        if std::mem::take(&mut registry.forgot) {
            // What was forgotten may come again.
            self.decided.clear();
        }
        // What passes through who serves others is told where it goes, and is not taken to be its own.
        let serves = self.of.get(&at.pid).is_some_and(|of| of.serves);
        (!credentials.is_empty() && !serves).then(|| InUseSeen {
            at: at.clone(),
            credentials,
        })
    }

    fn of(&mut self, pid: Pid) -> &mut Of {
        if self.of.len() >= MAX_PROCESSES && !self.of.contains_key(&pid) {
            self.of.clear();
        }
        self.of.entry(pid).or_default()
    }

    /// Whether a process may bring up one more; then that is counted.
    fn may(&mut self, pid: Pid, now_ns: u64) -> bool {
        let of = self.of(pid);
        if of.since_ns.saturating_add(TIME_NS) <= now_ns {
            (of.since_ns, of.count) = (now_ns, 0);
        }
        let most = if of.serves { MOST_OF_SERVERS } else { MOST };
        let may = of.count < most;
        of.count += u32::from(may);
        may
    }

    fn is_refused(&self, hash: u64, at: &TaskInfo) -> bool {
        at.boot_ns < self.refused_until_ns
            && self.refused.contains(&self.key.hash_one((hash, at.pid)))
    }

    fn refuse(&mut self, hash: u64, at: &TaskInfo) {
        if at.boot_ns >= self.refused_until_ns || self.refused.len() >= MAX_DECIDED {
            self.refused.clear();
            self.refused_until_ns = at.boot_ns.saturating_add(TIME_NS);
        }
        self.refused.insert(self.key.hash_one((hash, at.pid)));
    }

    fn decide(&mut self, hash: u64) {
        if self.decided.len() >= MAX_DECIDED {
            self.decided.clear();
        }
        self.decided.insert(hash);
    }
}

impl Meeting<'_> {
    pub fn end(self) -> UsedCredentials {
        self.used
    }
}

impl Unknown for Meeting<'_> {
    fn presented(&mut self, header: &'static str, value: &[u8]) -> Vec<(CredentialRef, Transform)> {
        let hash = self.state.key.hash_one((header, value));
        if self.state.decided.contains(&hash) || self.state.is_refused(hash, self.at) {
            return Vec::new();
        }
        let known = !self.registry.matcher.places(value).is_empty();
        let findings = if known {
            Vec::new()
        } else {
            found(header, value, self.classifier)
        };
        let mut out = Vec::new();
        for finding in findings {
            if !self.state.may(self.at.pid, self.at.boot_ns) {
                // Not decided: it may be inspected in the next time.
                self.state.refuse(hash, self.at);
                self.used.refused += 1;
                return out;
            }
            let raw = finding
                .parts
                .first()
                .is_some_and(|part| memchr::memmem::find(value, &part.value).is_some());
            let transform = if raw {
                Transform::Raw
            } else {
                Transform::Base64
            };
            let credential = finding.credential(self.registry.fingerprinter());
            out.push((Arc::new(credential), transform));
            self.used.findings.push(finding);
        }
        self.state.decide(hash);
        out
    }
}

/// What a header holds, by its form where that tells, and otherwise by the header: one credential.
fn found(header: &str, value: &[u8], classifier: &Classifier) -> Vec<Finding> {
    let text = |name: &str, scheme: &[u8]| {
        let parts = [name.as_bytes(), b": ", scheme, value, b"\r\n"];
        let mut line = Zeroizing::new(Vec::with_capacity(parts.iter().map(|p| p.len()).sum()));
        parts.iter().for_each(|part| line.extend_from_slice(part));
        let mut found = classifier.classify(&line, Origin::Text);
        found.retain(|f| !f.parts.is_empty() && f.confidence >= min_confidence(false));
        best(found)
    };
    let plain = !value.contains(&b' ') && !header.ends_with("authorization");
    let mut finding = text(header, b"");
    if plain && finding.is_none() {
        // To the rules the name of the header says nothing.
        finding = text("authorization", b"Bearer ");
    }
    let mut found: Vec<Finding> = finding.into_iter().collect();
    for finding in found.iter_mut().filter(|_| plain) {
        if !finding.specific() || finding.kind == "http-bearer-token" {
            finding.kind = kind(header).to_owned();
        }
    }
    found
}

/// The one that is known best: a form before a name.
fn best(found: Vec<Finding>) -> Option<Finding> {
    let rank = |f: &Finding| (f.specific(), f.confidence);
    found
        .into_iter()
        .reduce(|a, b| if rank(&b) > rank(&a) { b } else { a })
}

/// What a header holds whose value has no form of its own.
fn kind(header: &str) -> &'static str {
    match header {
        "x-vault-token" => "vault-token",
        "x-aws-ec2-metadata-token" => "aws-imds-token",
        "x-amz-security-token" => "aws-session-token",
        "x-consul-token" => "consul-token",
        "private-token" | "job-token" | "deploy-token" => "gitlab-token",
        _ => "http-token-header",
    }
}
