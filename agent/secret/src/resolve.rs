//! From raw finds to findings: pairs are joined, overlaps resolved, duplicates merged.

use super::api::{Finding, Part};
use super::checks::documented;
use super::derive::{Derived, aws};
use super::hide;
use super::ruleset::Classifier;
use super::scan::{Finds, Raw};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

const AWS_ID: &str = "aws-access-key-id";
const AWS_SECRET: &str = "aws-secret-access-key";
/// Its rule for names that anybody gives to a key.
const AWS_BESIDE: &str = "aws-secret-beside-id";
const AWS_SESSION: &str = "aws-session-token";

/// Farthest that the parts of one AWS credential stand apart in a text without sections.
const PAIR_DISTANCE: usize = 512;

/// Starts of the sections of an INI file (`[profile]` alone on a line). A credential never spans two of them, however
/// near they stand.
fn sections(text: &[u8]) -> Vec<usize> {
    let mut out = Vec::new();
    for at in memchr::memchr_iter(b'[', text) {
        let before = &text[at.saturating_sub(64)..at];
        let indent = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(if at < 64 { Some(before) } else { None }, |n| {
                Some(&before[n + 1..])
            });
        if indent.is_none_or(|i| !i.trim_ascii().is_empty()) {
            continue;
        }
        let line = &text[at..text.len().min(at + 256)];
        let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
        let name = line.trim_ascii();
        // A list of JSON has quotes, commas or nothing between its brackets.
        if name.len() > 2
            && name.ends_with(b"]")
            && name[1..name.len() - 1]
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b" _-./@:+".contains(b))
        {
            out.push(at);
        }
    }
    out
}

pub(super) fn resolve(classifier: &Classifier, text: &[u8], mut finds: Finds) -> Vec<Finding> {
    finds
        .list
        .retain(|raw| !raw.parts.iter().any(|part| is_fingerprint(text, part)));
    let is_beside = |raw: &Raw| classifier.rule(raw.rule).spec.name == AWS_BESIDE;
    if finds.list.iter().any(is_beside) {
        // What is AWS's by its own name needs no second find, which would take the key id of another.
        let named: HashSet<usize> = finds
            .list
            .iter()
            .filter(|raw| classifier.rule(raw.rule).spec.name == AWS_SECRET)
            .map(|raw| raw.span.start)
            .collect();
        finds
            .list
            .retain(|raw| !is_beside(raw) || !named.contains(&raw.span.start));
    }
    pair_aws(classifier, text, &mut finds.list);
    // Paired, it has a kind of its own.
    finds
        .list
        .retain(|raw| raw.kind.is_some() || !is_beside(raw));
    // What belongs to an id of a manual is of the manual, too, whichever rule finds it.
    let mut manual: Vec<Range<usize>> = Vec::new();
    finds.list.retain(|raw| {
        let beside = || {
            let from = raw.span.start.saturating_sub(PAIR_DISTANCE);
            let to = text.len().min(raw.span.end + PAIR_DISTANCE);
            text.get(from..to).unwrap_or_default()
        };
        let of_a_manual = documented(raw.identifier.as_bytes())
            || raw.public.iter().any(|id| documented(id.as_bytes()))
            || classifier.rule(raw.rule).spec.kind == AWS_SESSION && documented(beside());
        if of_a_manual {
            manual.push(raw.span.clone());
        }
        !of_a_manual
    });
    manual.sort_unstable_by_key(|span| span.start);
    finds.list.retain(|raw| {
        // The last one that begins before its end.
        let before = manual.partition_point(|span| span.start < raw.span.end);
        before
            .checked_sub(1)
            .and_then(|at| manual.get(at))
            .is_none_or(|span| span.end <= raw.span.start)
    });
    let kept = without_overlaps(finds.list);
    let mut findings = merge(classifier, text, kept);
    for finding in &mut findings {
        hide::hide(classifier, finding);
    }
    findings
}

/// keytrail's own events name each credential by kind and fingerprint, which looks like a service's name and its key.
fn is_fingerprint(text: &[u8], part: &Part) -> bool {
    let before = text.get(..part.span.start).unwrap_or_default();
    part.value.starts_with(b"kt1:")
        || before.ends_with(b"kt1:")
            && part.value.len() == 32
            && part.value.iter().all(u8::is_ascii_hexdigit)
}

fn distance(a: &Range<usize>, b: &Range<usize>) -> usize {
    if a.end <= b.start {
        b.start - a.end
    } else {
        a.start.saturating_sub(b.end)
    }
}

/// A key id, its secret and its session token are one credential, whose secret is the secret key.
fn pair_aws(classifier: &Classifier, text: &[u8], list: &mut Vec<Raw>) {
    let named = |raw: &Raw, name: &str| classifier.rule(raw.rule).spec.name == name;
    // Parsers report after the scan: in order of places again.
    let of = |name: &str, list: &[Raw]| -> Vec<usize> {
        let mut of: Vec<usize> = (0..list.len()).filter(|&i| named(&list[i], name)).collect();
        of.sort_by_key(|&i| list[i].span.start);
        of
    };
    // Those that are AWS's by their name choose first.
    let secrets = [of(AWS_SECRET, list), of(AWS_BESIDE, list)].concat();
    let (ids, sessions) = (of(AWS_ID, list), of(AWS_SESSION, list));
    if secrets.is_empty() || ids.is_empty() {
        return;
    }
    let sections = sections(text);
    let section = |span: &Range<usize>| sections.partition_point(|at| *at <= span.start);
    let mut gone = vec![false; list.len()];
    let nearest = |from: &Range<usize>,
                   of: &[usize],
                   list: &[Raw],
                   gone: &[bool],
                   limit: usize|
     -> Option<usize> {
        // Positions ascend, so only the neighbours of the insertion point can be nearest.
        let at = of.partition_point(|&i| list[i].span.start < from.start);
        let low = at.saturating_sub(3);
        of[low..of.len().min(at + 3)]
            .iter()
            .copied()
            .filter(|&i| {
                let there = section(&list[i].span);
                // Within one section any distance will do; before the first one it is text like any other.
                !gone[i]
                    && there == section(from)
                    && (there > 0 || distance(from, &list[i].span) <= limit)
            })
            // Files list the id first: one before wins over one after.
            .min_by_key(|&i| {
                let span = &list[i].span;
                (span.start > from.start, distance(from, span))
            })
    };
    for secret in secrets {
        let span = list[secret].span.clone();
        let Some(id) = nearest(&span, &ids, list, &gone, PAIR_DISTANCE) else {
            continue;
        };
        if named(&list[secret], AWS_BESIDE) && distance(&span, &list[id].span) > PAIR_DISTANCE {
            continue;
        }
        let session = nearest(&span, &sessions, list, &gone, PAIR_DISTANCE);
        gone[id] = true;
        let derived = aws::key_id(list[id].public.first().map_or("", String::as_str));
        let session = session.filter(|_| is_temporary(&derived));
        if let Some(session) = session {
            gone[session] = true;
        }
        let parts = session.map(|session| std::mem::take(&mut list[session].parts));
        become_aws(&mut list[secret], derived, parts.unwrap_or_default());
    }
    // What another rule made of the same words, by their names, is no secret of its own.
    let parts: BTreeMap<usize, usize> = (0..list.len())
        .filter(|&i| gone[i])
        .map(|i| (list[i].span.start, list[i].span.end))
        .collect();
    let is_part = |raw: &Raw| {
        let before = parts.range(..raw.span.end).next_back();
        before.is_some_and(|(_, &end)| end > raw.span.start)
    };
    list.retain(|raw| raw.rank == PAIRED || !is_part(raw));
}

/// The rank of what was put together from several places.
const PAIRED: u8 = 3;

/// Ids of AWS STS begin with it: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>.
fn is_temporary(id: &Derived) -> bool {
    id.identifier.starts_with("ASIA")
}

/// The secret with its id and its session token's parts.
fn become_aws(raw: &mut Raw, id: Derived, mut session: Vec<Part>) {
    raw.kind = Some(if is_temporary(&id) {
        "aws-session"
    } else {
        "aws-access-key"
    });
    for part in &mut session {
        part.name = "session_token".to_string();
    }
    raw.parts.append(&mut session);
    if let Some(first) = raw.parts.first_mut() {
        first.name = "secret_access_key".to_string();
    }
    raw.identifier = id.identifier;
    raw.public = id.public;
    raw.confidence = raw.confidence.max(0.98);
    raw.rank = PAIRED;
}

/// Where two finds overlap, the more specific one stays.
fn without_overlaps(mut list: Vec<Raw>) -> Vec<Raw> {
    list.sort_by(|a, b| {
        (
            Reverse(a.rank),
            Reverse(bits(a.confidence)),
            Reverse(a.span.len()),
            a.span.start,
            a.rule,
        )
            .cmp(&(
                Reverse(b.rank),
                Reverse(bits(b.confidence)),
                Reverse(b.span.len()),
                b.span.start,
                b.rule,
            ))
    });
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    list.retain(|raw| {
        let span = &raw.span;
        if span.is_empty() {
            // A value that is nowhere verbatim (decoded from a structure).
            return true;
        }
        let before = taken.range(..span.end).next_back();
        if before.is_some_and(|(_, &end)| end > span.start) {
            return false;
        }
        taken.insert(span.start, span.end);
        true
    });
    list
}

/// Confidence as an ordered integer.
fn bits(confidence: f64) -> u32 {
    (confidence.clamp(0.0, 1.0) * 1_000_000.0) as u32
}

/// What a credential gives, where it says so itself: its kind alone tells only what every one of that kind gives.
fn known_privilege(kind: &str, identifier: &str) -> Option<u8> {
    match kind {
        // The group that the API server lets do anything.
        "kubeconfig" if identifier.contains("system:masters") => Some(1),
        "shadow-hash" if identifier.starts_with("root ") => Some(1),
        _ => None,
    }
}

/// One credential in several places is one finding. `list` is sorted by strength.
fn merge(classifier: &Classifier, _text: &[u8], list: Vec<Raw>) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    // Keys are digests: no second copy of a secret is made.
    let mut seen: HashMap<[u8; 32], usize> = HashMap::new();
    for raw in list {
        let spec = &classifier.rule(raw.rule).spec;
        let mut digest = [0u8; 32];
        let bytes: &[u8] = raw
            .parts
            .first()
            .map_or(raw.identifier.as_bytes(), |p| &p.value);
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        if raw.parts.is_empty() {
            digest[0] ^= 1;
        }
        if let Some(&at) = seen.get(&digest) {
            let earlier = &mut out[at];
            earlier.places.push(raw.span);
            if earlier.identifier.is_empty() {
                earlier.identifier = raw.identifier;
            }
            earlier.expires = earlier.expires.or(raw.expires);
            earlier.key = earlier.key.take().or(raw.key);
            if earlier.login.is_empty() {
                earlier.login = raw.login;
            }
            continue;
        }
        seen.insert(digest, out.len());
        let kind = raw.kind.unwrap_or(&spec.kind);
        let (privilege, attack) = match raw.kind.and_then(|k| classifier.rule_named(k)) {
            Some(rule) => (
                classifier.rule(rule).spec.privilege,
                classifier.rule(rule).spec.attack.clone(),
            ),
            None => (spec.privilege, spec.attack.clone()),
        };
        let privilege = known_privilege(kind, &raw.identifier).unwrap_or(privilege);
        out.push(Finding {
            kind: kind.to_string(),
            rule: spec.name.clone(),
            identifier: raw.identifier,
            confidence: (raw.confidence * 1000.0).round() / 1000.0,
            expires: raw.expires,
            privilege,
            attack,
            parts: raw.parts,
            public: raw.public,
            key: raw.key,
            login: raw.login,
            places: vec![raw.span],
        });
    }
    // A public identifier that belongs to a credential of the same text is no finding of its own.
    let owned: std::collections::HashSet<String> = out
        .iter()
        .filter(|f| !f.parts.is_empty())
        .flat_map(|f| f.public.iter().cloned())
        .collect();
    out.retain(|f| !f.parts.is_empty() || !f.public.iter().any(|p| owned.contains(p)));
    for finding in &mut out {
        finding.places.sort_by_key(|p| (p.start, p.end));
        finding.places.dedup();
    }
    out.sort_by_key(|f| (f.span().start, f.span().end));
    out
}

/// A neighbour that names the owner of a secret without identifier of its own.
const OWNERS: &[(&str, &[&str])] = &[
    (
        "AZURE_CLIENT_SECRET",
        &["AZURE_CLIENT_ID", "AZURE_TENANT_ID"],
    ),
    ("ARM_CLIENT_SECRET", &["ARM_CLIENT_ID", "ARM_TENANT_ID"]),
    ("AZURE_STORAGE_KEY", &["AZURE_STORAGE_ACCOUNT"]),
    ("PGPASSWORD", &["PGUSER", "PGHOST", "PGDATABASE"]),
    ("MYSQL_PWD", &["MYSQL_USER", "MYSQL_HOST"]),
    (
        "MYSQL_PASSWORD",
        &["MYSQL_USER", "MYSQL_HOST", "MYSQL_DATABASE"],
    ),
    (
        "POSTGRES_PASSWORD",
        &["POSTGRES_USER", "POSTGRES_HOST", "POSTGRES_DB"],
    ),
    ("TWILIO_AUTH_TOKEN", &["TWILIO_ACCOUNT_SID"]),
    ("TWILIO_API_KEY_SECRET", &["TWILIO_API_KEY"]),
    ("VAULT_TOKEN", &["VAULT_ADDR"]),
    (
        "TWINE_PASSWORD",
        &["TWINE_USERNAME", "TWINE_REPOSITORY_URL"],
    ),
    ("DOCKER_PASSWORD", &["DOCKER_USERNAME"]),
    (
        "SNOWFLAKE_PASSWORD",
        &["SNOWFLAKE_USER", "SNOWFLAKE_ACCOUNT"],
    ),
    ("DATABRICKS_TOKEN", &["DATABRICKS_HOST"]),
    ("DD_API_KEY", &["DD_SITE"]),
];

/// Joins what several variables of one environment say about one credential.
pub(super) fn pair_env(
    classifier: &Classifier,
    block: &[(&[u8], &[u8])],
    found: &mut Vec<(String, Finding)>,
) {
    if found.is_empty() {
        return;
    }
    pair_aws_env(found);
    // The first variable of a name counts, as getenv(3) does it.
    let mut values: HashMap<&[u8], &[u8]> = HashMap::new();
    for (name, value) in block {
        values.entry(name).or_insert(value);
    }
    let value = |name: &str| -> Option<String> {
        values
            .get(name.as_bytes())
            .map(|v| super::scan::text::clean(v.trim_ascii()))
            .filter(|v| !v.is_empty() && v.len() <= 200)
    };
    for (name, finding) in found.iter_mut() {
        if let Some((_, owners)) = OWNERS.iter().find(|(n, _)| n == name) {
            let known: Vec<String> = owners.iter().filter_map(|o| value(o)).collect();
            if !known.is_empty()
                && (finding.identifier.is_empty()
                    || finding.identifier == *name
                    || finding.identifier.ends_with(['-', '_', '.']))
            {
                finding.identifier = known.join(" ");
            }
            if matches!(name.as_str(), "PGPASSWORD" | "POSTGRES_PASSWORD") {
                finding.login = value(owners[0]).unwrap_or_default();
            }
            // Another variable may hold the same secret.
            hide::hide(classifier, finding);
        }
    }
}

/// Joins the key id, the secret and the session token of AWS.
fn pair_aws_env(found: &mut Vec<(String, Finding)>) {
    let of = |found: &[(String, Finding)], names: [&str; 2]| {
        found.iter().position(|(n, _)| names.contains(&n.as_str()))
    };
    let Some(secret) = of(found, ["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]) else {
        return;
    };
    let Some(id) = found.iter().position(|(_, f)| f.rule == AWS_ID) else {
        return;
    };
    let session = of(found, ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]);
    let derived = aws::key_id(
        found[id]
            .1
            .public
            .first()
            .map(String::as_str)
            .unwrap_or_default(),
    );
    let temporary = session.is_some() || derived.identifier.starts_with("ASIA");
    let mut more: Vec<Part> = Vec::new();
    if let Some(session) = session {
        for mut part in std::mem::take(&mut found[session].1.parts) {
            part.name = "session_token".to_string();
            more.push(part);
        }
    }
    let credential = &mut found[secret].1;
    if let Some(first) = credential.parts.first_mut() {
        first.name = "secret_access_key".to_string();
    }
    credential.parts.append(&mut more);
    credential.kind = if temporary {
        "aws-session"
    } else {
        "aws-access-key"
    }
    .to_string();
    credential.identifier = derived.identifier;
    credential.public = derived.public;
    credential.confidence = credential.confidence.max(0.98);
    let mut gone = vec![id];
    gone.extend(session);
    gone.sort_unstable();
    for at in gone.into_iter().rev() {
        found.remove(at);
    }
}
