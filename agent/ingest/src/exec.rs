//! Puts an exec together from its chunks and finds the credentials in its argv and environment.

use super::names::{Named, Names};
use super::registry::Registry;
use super::{environment, stamp};
use crate::decode;
use keytrail_abi as abi;
use keytrail_model::{Bound, Dropped, ExecSeen, Found, Place};
use keytrail_secret::{Arguments, Classifier, Finding};
use std::collections::HashMap;
use zeroize::Zeroizing;

/// Execs whose chunks are still coming; beyond it the oldest are finished as they are.
const MAX_OPEN: usize = 1_024;
/// An exec whose last chunk did not come within this time is finished as it is.
const WAIT_NS: u64 = 200_000_000;
/// Environments whose findings are remembered: a shell starts many programs with the same one.
const MAX_CACHED: usize = 4_096;
/// Arguments shown, and bytes of each.
const MAX_ARGS_SHOWN: usize = 256;
const MAX_ARG_SHOWN: usize = 4_096;

struct Area {
    bytes: Zeroizing<Vec<u8>>,
    total: u64,
    holes: bool,
}

impl Area {
    fn new(total: u64) -> Self {
        let room = (total as usize).min(abi::EXEC_AREA_MAX);
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(room)),
            total,
            holes: false,
        }
    }

    fn add(&mut self, offset: usize, data: &[u8], unreadable: bool) {
        let end = offset.saturating_add(data.len());
        if end > self.bytes.capacity() {
            self.holes = true;
            return;
        }
        if offset > self.bytes.len() || unreadable {
            // A hole is filled with separators: what stands beside it is not joined to what it was not beside.
            self.holes = true;
        }
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(data);
    }

    fn truncated(&self) -> bool {
        self.holes || (self.bytes.len() as u64) < self.total
    }
}

struct Open {
    exec: abi::Exec,
    argv: Area,
    env: Area,
}

/// Execs in assembly, and what earlier ones taught.
#[derive(Default)]
pub struct Execs {
    open: HashMap<u64, Open>,
    pub dropped: Dropped,
    cache: HashMap<String, (u64, Vec<Found>)>,
    names: Names,
}

/// A whole exec: the observation, and which exec of which process may now be settled.
pub struct Finished {
    pub seen: ExecSeen,
    pub exec_id: u64,
    pub mnt_ns: u32,
    /// `HOME` of the new program: a place where credential files may lie.
    pub home: Option<String>,
}

impl Execs {
    pub fn begin(&mut self, exec: abi::Exec) {
        if self.open.len() >= MAX_OPEN {
            // Only hostile or lost input comes here: `overdue` normally clears the table.
            self.dropped.add(Bound::Execs, self.open.len() as u64);
            self.open.clear();
        }
        let (argv, env) = (Area::new(exec.arg_len), Area::new(exec.env_len));
        self.open.insert(exec.exec_id, Open { exec, argv, env });
    }

    /// Adds a chunk; returns the exec when it was the last one.
    pub fn chunk(
        &mut self,
        chunk: &abi::ExecChunk,
        data: &[u8],
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Option<Finished> {
        let open = self.open.get_mut(&chunk.exec_id)?;
        let area = if chunk.area == abi::AREA_ENV {
            &mut open.env
        } else {
            &mut open.argv
        };
        let unreadable = chunk.header.flags & abi::header::flags::UNREADABLE != 0;
        area.add(chunk.offset as usize, data, unreadable);
        if chunk.last == 0 {
            return None;
        }
        let open = self.open.remove(&chunk.exec_id)?;
        Some(self.finish(open, classifier, registry))
    }

    /// Finishes execs whose last chunk was lost.
    pub fn overdue(
        &mut self,
        boot_ns: u64,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Vec<Finished> {
        let mut late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, o)| o.exec.header.boot_ns + WAIT_NS < boot_ns)
            .map(|(id, _)| *id)
            .collect();
        late.sort_unstable();
        late.into_iter()
            .filter_map(|id| self.open.remove(&id))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|open| self.finish(open, classifier, registry))
            .collect()
    }

    fn finish(&mut self, open: Open, classifier: &Classifier, registry: &mut Registry) -> Finished {
        let Open { exec, argv, env } = open;
        let at = stamp::stamp(&exec.header);
        let filename =
            decode::name(&exec.filename[..(exec.filename_len as usize).min(exec.filename.len())]);
        let Named { exe, cwd, cgroup } = self.names.of(&exec, filename);
        let mut found = self.environment(&env, classifier, registry);
        let (shown, in_argv) = arguments(&argv.bytes, classifier, registry);
        found.extend(in_argv);
        let home = environment::pairs(&env.bytes)
            .find(|(name, _)| *name == b"HOME")
            .and_then(|(_, v)| std::str::from_utf8(v).ok())
            .map(ToOwned::to_owned);
        let seen = ExecSeen {
            parent: stamp::pid(exec.parent_tgid, exec.parent_start_ns),
            exe,
            ns_tgid: exec.ns_tgid,
            argv: shown,
            cwd,
            cgroup,
            loginuid: exec.loginuid,
            session: exec.sessionid,
            found,
            argv_truncated: argv.truncated(),
            env_truncated: env.truncated(),
            env_bytes: env.total,
            env_inspected: env.bytes.len() as u64,
            argv_bytes: argv.total,
            argv_inspected: argv.bytes.len() as u64,
            at,
        };
        Finished {
            seen,
            exec_id: exec.exec_id,
            mnt_ns: exec.mnt_ns,
            home,
        }
    }

    fn environment(
        &mut self,
        env: &Area,
        classifier: &Classifier,
        registry: &mut Registry,
    ) -> Vec<Found> {
        let key = registry.fingerprinter().fingerprint(&env.bytes);
        if let Some((generation, found)) = self.cache.get(&key)
            && *generation == registry.generation
        {
            return found.clone();
        }
        let found = in_environment(&env.bytes, classifier, registry);
        if self.cache.len() >= MAX_CACHED {
            self.cache.clear();
        }
        self.cache.insert(key, (registry.generation, found.clone()));
        found
    }
}

/// Credentials of an environment block, by rule and by being known already.
pub fn in_environment(
    block: &[u8],
    classifier: &Classifier,
    registry: &mut Registry,
) -> Vec<Found> {
    let pairs: Vec<(&[u8], &[u8])> = environment::pairs(block).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut add = |credential, name: String| {
        let one = Found {
            credential,
            place: Place::Env(name),
        };
        let known = found.iter().any(|f: &Found| {
            f.credential.fingerprint == one.credential.fingerprint && f.place == one.place
        });
        if !known {
            found.push(one);
        }
    };
    for (name, finding) in classifier.classify_env(pairs.iter().copied()) {
        if let Some(credential) = learn(registry, &finding) {
            add(credential, name);
        }
    }
    for (name, value) in &pairs {
        for (_, credential) in registry.matcher.places(value) {
            add(credential, String::from_utf8_lossy(name).into_owned());
        }
    }
    found
}

/// Arguments with every credential replaced, and the credentials that were in them.
pub fn arguments(
    area: &[u8],
    classifier: &Classifier,
    registry: &mut Registry,
) -> (Vec<String>, Vec<Found>) {
    let ranges = environment::arguments(area);
    let argv: Vec<&[u8]> = ranges.iter().map(|range| &area[range.clone()]).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut add = |credential: keytrail_model::CredentialRef, index: usize| {
        let place = Place::Argv(u32::try_from(index).unwrap_or(u32::MAX));
        let known = found.iter().any(|f: &Found| {
            f.credential.fingerprint == credential.fingerprint && f.place == place
        });
        if !known {
            found.push(Found { credential, place });
        }
    };
    let mut spans: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    let Arguments {
        found: findings,
        hidden,
    } = classifier.classify_argv(&argv);
    for (index, finding) in findings {
        let Some(range) = ranges.get(index) else {
            continue;
        };
        let Some(credential) = learn(registry, &finding) else {
            continue;
        };
        let label = label(&credential.kind, &credential.fingerprint);
        for place in &finding.places {
            let start = range.start.saturating_add(place.start);
            spans.push((
                start..range.start.saturating_add(place.end).min(range.end),
                label.clone(),
            ));
        }
        add(credential, index);
    }
    for (index, range) in ranges.iter().enumerate() {
        for (place, credential) in registry.matcher.places(&area[range.clone()]) {
            spans.push((
                range.start + place.start..range.start + place.end,
                label(&credential.kind, &credential.fingerprint),
            ));
            add(credential, index);
        }
    }
    for (index, place) in hidden {
        let Some(range) = ranges.get(index) else {
            continue;
        };
        let place = range.start + place.start..range.start + place.end;
        let told = spans
            .iter()
            .any(|(told, _)| told.start < place.end && place.start < told.end);
        if !told && !place.is_empty() {
            spans.push((place, "[redacted]".to_owned()));
        }
    }
    spans.sort_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end)));
    let shown = ranges
        .iter()
        .take(MAX_ARGS_SHOWN)
        .map(|range| redact(area, range, &spans))
        .collect();
    (shown, found)
}

fn label(kind: &str, fingerprint: &str) -> String {
    format!("[redacted {kind} {fingerprint}]")
}

fn learn(registry: &mut Registry, finding: &Finding) -> Option<keytrail_model::CredentialRef> {
    // A public identifier alone is no holding of the credential.
    if finding.parts.is_empty() {
        None
    } else {
        registry.learn(finding)
    }
}

/// One argument as it may be shown. Spans are sorted; one that only touches the argument in part blanks that part.
fn redact(
    area: &[u8],
    range: &std::ops::Range<usize>,
    spans: &[(std::ops::Range<usize>, String)],
) -> String {
    let mut out = String::new();
    let mut at = range.start;
    for (place, label) in spans {
        if place.end <= at || place.start >= range.end {
            continue;
        }
        if place.start > at {
            out.push_str(&String::from_utf8_lossy(&area[at..place.start]));
        }
        if place.start >= at {
            out.push_str(label);
        }
        at = place.end.min(range.end);
    }
    if at < range.end {
        out.push_str(&String::from_utf8_lossy(&area[at..range.end]));
    }
    if out.len() > MAX_ARG_SHOWN {
        let mut end = MAX_ARG_SHOWN;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push('…');
    }
    out
}
