//! Server-side filters of a stream.

use keytrail_proto::v1::{Event, Filter};

/// Fingerprints begin with this (the version of the scheme), so people may leave it out.
const FINGERPRINT_PREFIX: &str = "kt1:";
/// Shortest prefix of a fingerprint's digits that is taken for one.
const FINGERPRINT_MIN: usize = 8;
/// Most entries in each list of a filter: they are compared with every event.
const MAX_ENTRIES: usize = 256;

/// A filter checked once, to be asked of every event.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    filter: Filter,
}

impl EventFilter {
    /// # Errors
    /// A sentence for the client when the filter is too large or its confidence is not a number from 0 to 1.
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
        Ok(EventFilter { filter })
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
        credential.confidence >= self.filter.min_confidence
            && (self.filter.credentials.is_empty() || self.filter.credentials.iter().any(wanted))
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
        for text in ["github", "octo", "0123456", "kt1:0123456", "1234567890", ""] {
            assert!(
                !with(|f| f.credentials = vec![text.into()]).passes(&event("credential_read")),
                "{text}"
            );
        }
        // An event without identifier is not found by the empty text.
        let mut anonymous = event("credential_read");
        anonymous.credential.as_mut().unwrap().identifier.clear();
        assert!(!with(|f| f.credentials = vec![String::new()]).passes(&anonymous));
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
