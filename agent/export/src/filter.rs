//! Server-side filters of a stream.

use globset::{GlobBuilder, GlobMatcher};
use keytrail_proto::v1::{Event, Filter};

/// Fingerprints begin with this (the version of the scheme), so people may leave it out.
const FINGERPRINT_PREFIX: &str = "kt1:";
/// Shortest prefix of a fingerprint's digits that is taken for one.
const FINGERPRINT_MIN: usize = 8;
/// Most entries in each list of a filter: they are compared with every event.
const MAX_ENTRIES: usize = 256;
/// Longest entry, bytes.
const MAX_PATTERN: usize = 1024;

/// Kinds of event there are: a filter on another one would be silent for ever.
pub const KINDS: &[&str] = &[
    "credential_read",
    "credential_opened",
    "credential_exposed",
    "credential_sent",
    "credential_created",
    "coverage_gap",
    "process_start",
    "process_exit",
];

/// A filter checked once, to be asked of every event.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    filter: Filter,
    /// The entries of `credentials` that are patterns.
    patterns: Vec<GlobMatcher>,
}

impl EventFilter {
    /// # Errors
    /// A sentence for the client when the filter is too large, when its confidence is not a number from 0 to 1, or when
    /// an entry can never match: no such kind, an empty text, a pattern that is none.
    pub fn new(filter: Filter) -> Result<EventFilter, String> {
        if filter
            .kinds
            .len()
            .max(filter.credentials.len())
            .max(filter.pids.len())
            > MAX_ENTRIES
        {
            return Err(format!(
                "a filter may have at most {MAX_ENTRIES} entries of a kind"
            ));
        }
        if !(0.0..=1.0).contains(&filter.min_confidence) {
            return Err("min_confidence must be between 0 and 1".into());
        }
        if let Some(kind) = filter.kinds.iter().find(|k| !KINDS.contains(&k.as_str())) {
            return Err(format!(
                "there is no kind of event {kind:?}; kinds are {}",
                KINDS.join(", ")
            ));
        }
        let patterns = patterns(&filter.credentials)?;
        Ok(EventFilter { filter, patterns })
    }

    /// Whether events that are only the context of others can pass.
    pub(super) fn wants_context(&self) -> bool {
        self.passes_kind("process_start") || self.passes_kind("process_exit")
    }

    /// Whether an event passes all filters that are set.
    pub fn passes(&self, event: &Event) -> bool {
        self.passes_kind(&event.kind) && self.passes_credential(event) && self.passes_pid(event)
    }

    fn passes_kind(&self, kind: &str) -> bool {
        if self.filter.kinds.is_empty() {
            return kind != "process_start" && kind != "process_exit";
        }
        self.filter.kinds.iter().any(|k| k == kind)
    }

    fn passes_credential(&self, event: &Event) -> bool {
        if self.filter.credentials.is_empty() && self.filter.min_confidence <= 0.0 {
            return true;
        }
        let Some(credential) = &event.credential else {
            // A gap concerns every credential: a filter must not make a blind spot silent. Nothing is claimed by it.
            return event.kind == "coverage_gap";
        };
        let wanted = |text: &String| {
            *text == credential.kind
                || (!credential.identifier.is_empty() && *text == credential.identifier)
                || is_fingerprint(text, &credential.fingerprint)
        };
        let by_pattern = |pattern: &GlobMatcher| {
            pattern.is_match(&credential.kind)
                || (!credential.identifier.is_empty() && pattern.is_match(&credential.identifier))
        };
        credential.confidence >= self.filter.min_confidence
            && (self.filter.credentials.is_empty()
                || self.filter.credentials.iter().any(wanted)
                || self.patterns.iter().any(by_pattern))
    }

    fn passes_pid(&self, event: &Event) -> bool {
        if self.filter.pids.is_empty() {
            return true;
        }
        let Some(process) = &event.process else {
            return event.kind == "coverage_gap";
        };
        let wanted = |pid: u32| self.filter.pids.contains(&pid);
        wanted(process.pid) || process.ancestors.iter().any(|a| wanted(a.pid))
    }
}

/// The entries with wildcards, `*` and `**` alike for any characters.
fn patterns(credentials: &[String]) -> Result<Vec<GlobMatcher>, String> {
    let mut out = Vec::new();
    for text in credentials {
        if text.trim().is_empty() {
            return Err("a credential is named by its kind, identifier or fingerprint: an empty text names none".into());
        }
        if text.len() > MAX_PATTERN {
            return Err(format!(
                "a credential's name has at most {MAX_PATTERN} bytes"
            ));
        }
        if !text.contains(['*', '?', '[', '{']) {
            continue;
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(false)
            .build()
            .map_err(|e| format!("{text:?} is not a pattern: {}", e.kind()))?;
        out.push(glob.compile_matcher());
    }
    Ok(out)
}

fn is_fingerprint(text: &str, fingerprint: &str) -> bool {
    let digits = text.strip_prefix(FINGERPRINT_PREFIX).unwrap_or(text);
    let full = fingerprint
        .strip_prefix(FINGERPRINT_PREFIX)
        .unwrap_or(fingerprint);
    digits.len() >= FINGERPRINT_MIN && full.starts_with(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{Ancestor, Credential, Process};

    fn event(kind: &str) -> Event {
        Event {
            kind: kind.into(),
            process: Some(Process {
                pid: 42,
                ancestors: vec![Ancestor {
                    pid: 7,
                    ..Default::default()
                }],
                ..Default::default()
            }),
            credential: Some(Credential {
                kind: "github-token".into(),
                identifier: "octocat".into(),
                fingerprint: "kt1:0123456789abcdef0123456789abcdef".into(),
                confidence: 0.9,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn with(set: impl FnOnce(&mut Filter)) -> EventFilter {
        let mut filter = Filter::default();
        set(&mut filter);
        EventFilter::new(filter).unwrap()
    }

    #[test]
    fn kinds() {
        let all = with(|_| {});
        assert!(all.passes(&event("credential_read")));
        assert!(!all.passes(&event("process_start")));
        assert!(with(|f| f.kinds = vec!["process_start".into()]).passes(&event("process_start")));
        assert!(
            !with(|f| f.kinds = vec!["credential_sent".into()]).passes(&event("credential_read"))
        );
    }

    #[test]
    fn credentials_by_kind_identifier_and_fingerprint_prefix() {
        for text in [
            "github-token",
            "octocat",
            "kt1:01234567",
            "01234567",
            "kt1:0123456789abcdef0123456789abcdef",
        ] {
            assert!(
                with(|f| f.credentials = vec![text.into()]).passes(&event("credential_read")),
                "{text}"
            );
        }
        for text in ["github", "octo", "0123456", "kt1:0123456", "1234567890"] {
            assert!(
                !with(|f| f.credentials = vec![text.into()]).passes(&event("credential_read")),
                "{text}"
            );
        }
    }

    #[test]
    fn credentials_by_pattern() {
        for text in [
            "github-*",
            "*",
            "**",
            "oct?cat",
            "{aws,github}-token",
            "[a-o]ctocat",
        ] {
            assert!(
                with(|f| f.credentials = vec![text.into()]).passes(&event("credential_read")),
                "{text}"
            );
        }
        for text in ["gitlab-*", "oct?", "*:01234567*"] {
            assert!(
                !with(|f| f.credentials = vec![text.into()]).passes(&event("credential_read")),
                "{text}"
            );
        }
        let mut path = event("credential_read");
        path.credential.as_mut().unwrap().identifier = "https://git.example/group/project".into();
        assert!(with(|f| f.credentials = vec!["https://git.example/*".into()]).passes(&path));
        // Without an identifier there is none to match.
        let mut anonymous = event("credential_read");
        anonymous.credential.as_mut().unwrap().identifier.clear();
        assert!(!with(|f| f.credentials = vec!["[!g]*".into()]).passes(&anonymous));
    }

    #[test]
    fn what_can_never_match_is_refused() {
        let refused = |set: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            set(&mut filter);
            EventFilter::new(filter).unwrap_err()
        };
        for text in ["github-[", "{a", "[z-a]", "", "  "] {
            let sentence = refused(&|f| f.credentials = vec!["octocat".into(), text.into()]);
            assert!(
                sentence.contains("is not a pattern") || sentence.contains("names none"),
                "{text}: {sentence}"
            );
        }
        refused(&|f| f.credentials = vec!["*".repeat(2000)]);
        assert!(refused(&|f| f.kinds = vec!["sent".into()]).contains("credential_sent"));
    }

    #[test]
    fn pids_include_ancestors() {
        assert!(with(|f| f.pids = vec![42]).passes(&event("credential_read")));
        assert!(with(|f| f.pids = vec![7]).passes(&event("credential_read")));
        assert!(!with(|f| f.pids = vec![8]).passes(&event("credential_read")));
    }

    #[test]
    fn confidence() {
        assert!(with(|f| f.min_confidence = 0.9).passes(&event("credential_read")));
        assert!(!with(|f| f.min_confidence = 0.95).passes(&event("credential_read")));
        assert!(
            EventFilter::new(Filter {
                min_confidence: f64::NAN,
                ..Default::default()
            })
            .is_err()
        );
        assert!(
            EventFilter::new(Filter {
                pids: vec![1; 257],
                ..Default::default()
            })
            .is_err()
        );
    }

    #[test]
    fn a_gap_without_process_passes_filters_on_processes_and_credentials() {
        let gap = Event {
            kind: "coverage_gap".into(),
            ..Default::default()
        };
        assert!(with(|f| f.pids = vec![1]).passes(&gap));
        assert!(with(|f| f.credentials = vec!["octocat".into()]).passes(&gap));
        assert!(!with(|f| f.kinds = vec!["credential_sent".into()]).passes(&gap));
    }
}
