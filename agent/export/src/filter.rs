//! Server-side filters of a stream.

use super::names::{MAX_ENTRIES, NameError, Names};
use keytrail_model::{Actor, ContextKind, EventKind, EvidenceGrade};
use keytrail_proto::v1::{Event, Filter};

/// Fingerprints begin with this (the version of the scheme), so people may leave it out.
const FINGERPRINT_PREFIX: &str = "kt1:";
/// Shortest prefix of a fingerprint's digits that is taken for one.
const FINGERPRINT_MIN: usize = 8;

/// Why a filter is refused, as a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("{0}")]
    Name(NameError),
    #[error("min_confidence must be between 0 and 1")]
    Confidence,
    #[error(
        "there is no kind of event {0}; kinds are {all}",
        all = list(EventKind::ALL, EventKind::word)
    )]
    Kind(i32),
    #[error(
        "there is no grade of evidence {0}; grades are {all}",
        all = list(EvidenceGrade::ALL, EvidenceGrade::word)
    )]
    Grade(i32),
    #[error("there is no actor {0}; actors are {all}", all = list(Actor::ALL, Actor::word))]
    Actor(i32),
}

impl From<NameError> for FilterError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// The words that there are.
fn list<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> String {
    let words: Vec<_> = all.iter().map(|one| word(*one)).collect();
    words.join(", ")
}

/// A filter checked once, to be asked of every event.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    filter: Filter,
    credentials: Names,
    hosts: Names,
    processes: Names,
    contexts: Names,
}

impl EventFilter {
    /// # Errors
    /// When the filter is too large, when its confidence is not a number from 0 to 1, or when
    /// an entry can never match: no such kind, an empty text, a pattern that is none.
    pub fn new(filter: Filter) -> Result<EventFilter, FilterError> {
        let numbers = [
            filter.kinds.len(),
            filter.pids.len(),
            filter.grades.len(),
            filter.except_kinds.len(),
            filter.except_pids.len(),
            filter.except_grades.len(),
            filter.actors.len(),
            filter.except_actors.len(),
        ];
        if numbers.into_iter().any(|n| n > MAX_ENTRIES) {
            return Err(NameError::TooMany.into());
        }
        if !(0.0..=1.0).contains(&filter.min_confidence) {
            return Err(FilterError::Confidence);
        }
        let unknown = |kind: &&i32| EventKind::of_number(**kind).is_none();
        let mut kinds = filter.kinds.iter().chain(&filter.except_kinds);
        if let Some(kind) = kinds.find(unknown) {
            return Err(FilterError::Kind(*kind));
        }
        let unknown = |grade: &&i32| EvidenceGrade::of_number(**grade).is_none();
        let mut grades = filter.grades.iter().chain(&filter.except_grades);
        if let Some(grade) = grades.find(unknown) {
            return Err(FilterError::Grade(*grade));
        }
        let unknown = |actor: &&i32| Actor::of_number(**actor).is_none();
        let mut actors = filter.actors.iter().chain(&filter.except_actors);
        if let Some(actor) = actors.find(unknown) {
            return Err(FilterError::Actor(*actor));
        }
        Ok(EventFilter {
            credentials: Names::new(
                &filter.credentials,
                "a credential is named by its kind, identifier or fingerprint",
            )?,
            hosts: Names::new(&filter.hosts, "a host is named by its name or address")?,
            processes: Names::new(&filter.processes, "a process is named by its program")?,
            contexts: Names::new(
                &filter.contexts,
                "a context is named by its kind (ci_job) or its name (github)",
            )?,
            filter,
        })
    }

    /// Whether events that are only the context of others can pass.
    pub(super) fn wants_context(&self) -> bool {
        let mut kinds = EventKind::ALL.iter().filter(|kind| kind.is_context());
        kinds.any(|kind| self.passes_kind(kind.number()))
    }

    /// Whether less is asked for than gaps concern: then the same gap again and again is not worth a message each.
    pub(super) fn narrows(&self) -> bool {
        let asks_for_gaps = self.filter.kinds.contains(&EventKind::CoverageGap.number());
        !asks_for_gaps
            && (self.filter.min_confidence > 0.0
                || !self.filter.pids.is_empty()
                || !self.filter.except_pids.is_empty()
                || !self.filter.grades.is_empty()
                || !self.filter.except_grades.is_empty()
                || !self.credentials.is_empty()
                || !self.hosts.is_empty()
                || !self.processes.is_empty()
                || !self.contexts.is_empty()
                || !self.filter.actors.is_empty()
                || !self.filter.except_actors.is_empty())
    }

    /// Whether an event passes all filters that are set.
    pub fn passes(&self, event: &Event) -> bool {
        self.passes_kind(event.kind)
            && self.passes_process(event)
            // A gap concerns every credential: a filter must not make a blind spot silent. Nothing is claimed by it.
            && (is_gap(event)
                || self.passes_credential(event)
                    && self.passes_grade(event)
                    && self.passes_host(event))
    }

    fn passes_kind(&self, kind: i32) -> bool {
        if self.filter.except_kinds.contains(&kind) {
            return false;
        }
        if self.filter.kinds.is_empty() {
            return !EventKind::of_number(kind).is_some_and(EventKind::is_context);
        }
        self.filter.kinds.contains(&kind)
    }

    fn passes_credential(&self, event: &Event) -> bool {
        let (kind, identifier, fingerprint, confidence) = match &event.credential {
            Some(c) => (&*c.kind, &*c.identifier, &*c.fingerprint, c.confidence),
            None => ("", "", "", 0.0),
        };
        confidence >= self.filter.min_confidence
            && self.credentials.pass(|name| {
                name.is(kind)
                    || name.is(identifier)
                    || name
                        .literal()
                        .is_some_and(|text| is_fingerprint(text, fingerprint))
            })
    }

    fn passes_grade(&self, event: &Event) -> bool {
        let grade = event.evidence.as_ref().map_or(0, |e| e.grade);
        (self.filter.grades.is_empty() || self.filter.grades.contains(&grade))
            && !self.filter.except_grades.contains(&grade)
    }

    fn passes_host(&self, event: &Event) -> bool {
        let Some(to) = &event.destination else {
            return self.hosts.pass(|_| false);
        };
        self.hosts.pass(|name| {
            name.is_address(&to.ip)
                || name.is(&to.socket_path)
                || name.is(&to.path)
                || to
                    .hosts
                    .iter()
                    .any(|host| name.is(without_port(&host.name)))
        })
    }

    /// By pid, of the process or one above it; by the name or path of its program; by what it runs in, and for whom.
    fn passes_process(&self, event: &Event) -> bool {
        let Some(process) = &event.process else {
            let nobody = self.filter.pids.is_empty()
                && self.filter.actors.is_empty()
                && self.processes.pass(|_| false)
                && self.contexts.pass(|_| false);
            return nobody || is_gap(event);
        };
        let line = |pids: &[u32]| {
            pids.contains(&process.pid) || process.ancestors.iter().any(|a| pids.contains(&a.pid))
        };
        let path = process.executable.as_ref().map_or("", |e| e.path.as_str());
        let program = path.rsplit('/').next().unwrap_or_default();
        (self.filter.pids.is_empty() || line(&self.filter.pids))
            && !line(&self.filter.except_pids)
            && (self.filter.actors.is_empty() || self.filter.actors.contains(&process.actor))
            && !self.filter.except_actors.contains(&process.actor)
            && self.contexts.pass(|name| {
                process
                    .contexts
                    .iter()
                    .any(|c| name.is(ContextKind::word_of(c.kind)) || name.is(&c.name))
            })
            && self
                .processes
                .pass(|name| name.is(program) || name.is(&process.comm) || name.is(path))
    }
}

/// `host:443` is `host`; an address in brackets or without is left whole.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            host
        }
        _ => name,
    }
}

fn is_gap(event: &Event) -> bool {
    event.kind == EventKind::CoverageGap.number()
}

fn is_fingerprint(text: &str, fingerprint: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let digits = text.strip_prefix(FINGERPRINT_PREFIX).unwrap_or(&text);
    let full = fingerprint
        .strip_prefix(FINGERPRINT_PREFIX)
        .unwrap_or(fingerprint);
    digits.len() >= FINGERPRINT_MIN && full.starts_with(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_proto::v1::{Ancestor, Credential, Process};

    fn kind(word: &str) -> i32 {
        EventKind::of_word(word).map_or(99, EventKind::number)
    }

    fn event(word: &str) -> Event {
        Event {
            kind: kind(word),
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
        assert!(with(|f| f.kinds = vec![kind("process_start")]).passes(&event("process_start")));
        assert!(
            !with(|f| f.kinds = vec![kind("credential_sent")]).passes(&event("credential_read"))
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
            EventFilter::new(filter).unwrap_err().to_string()
        };
        for text in ["github-[", "{a", "[z-a]", "", "  "] {
            let sentence = refused(&|f| f.credentials = vec!["octocat".into(), text.into()]);
            assert!(
                sentence.contains("is not a pattern") || sentence.contains("names none"),
                "{text}: {sentence}"
            );
        }
        refused(&|f| f.credentials = vec!["*".repeat(2000)]);
        for number in [0, 99] {
            assert!(refused(&|f| f.kinds = vec![number]).contains("credential_sent"));
        }
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
            kind: kind("coverage_gap"),
            ..Default::default()
        };
        assert!(with(|f| f.pids = vec![1]).passes(&gap));
        assert!(with(|f| f.credentials = vec!["octocat".into()]).passes(&gap));
        assert!(!with(|f| f.kinds = vec![kind("credential_sent")]).passes(&gap));
    }

    #[test]
    fn grades_hosts_and_processes_and_what_is_left_out() {
        use keytrail_proto::v1::{Destination, Evidence, Executable, HostName};
        let mut sent = event("credential_sent");
        sent.evidence = Some(Evidence {
            grade: EvidenceGrade::Observed.number(),
            ..Default::default()
        });
        sent.destination = Some(Destination {
            ip: "10.1.2.3".into(),
            hosts: vec![HostName {
                name: "api.example.com:443".into(),
                ..Default::default()
            }],
            ..Default::default()
        });
        let process = sent.process.as_mut().unwrap();
        process.comm = "worker".into();
        process.executable = Some(Executable {
            path: "/usr/bin/python3.11".into(),
            ..Default::default()
        });
        let gap = Event {
            kind: kind("coverage_gap"),
            ..Default::default()
        };
        let read = event("credential_read");
        type Set = fn(&mut Filter, &str);
        let hosts: Set = |f, text| f.hosts = vec![text.into()];
        let processes: Set = |f, text| f.processes = vec![text.into()];
        let grades: Set = |f, text| {
            f.grades = vec![EvidenceGrade::of_word(text).unwrap().number()];
        };
        let except: Set = |f, text| {
            f.except_grades = vec![EvidenceGrade::of_word(text).unwrap().number()];
        };
        for (set, text, of_sent, of_read) in [
            (hosts, "*.example.com", true, false),
            (hosts, "10.0.0.0/8", true, false),
            (hosts, "10.1.2.3", true, false),
            (hosts, "example.com", false, false),
            (hosts, "!*.example.com", false, true),
            (hosts, "!10.0.0.0/8", false, true),
            (processes, "python*", true, false),
            (processes, "worker", true, false),
            (processes, "/usr/*/python3.11", true, false),
            (processes, "!python3.11", false, true),
            (grades, "observed", true, false),
            (grades, "lineage", false, false),
            (except, "observed", false, true),
        ] {
            let filter = with(|f| set(f, text));
            assert_eq!(filter.passes(&sent), of_sent, "{text}");
            assert_eq!(filter.passes(&read), of_read, "{text}");
            assert!(filter.passes(&gap) && filter.narrows(), "{text}");
        }
        let left_out = with(|f| {
            f.except_kinds = vec![kind("credential_read"), kind("coverage_gap")];
            f.credentials = vec!["!gitlab-*".into()];
        });
        assert!(left_out.passes(&sent) && !left_out.passes(&read) && !left_out.passes(&gap));
        assert!(!with(|f| f.credentials = vec!["!github-*".into()]).passes(&sent));
        assert!(!with(|f| f.credentials = vec!["!01234567".into()]).passes(&sent));
        for pid in [42, 7] {
            assert!(!with(|f| f.except_pids = vec![pid]).passes(&sent), "{pid}");
        }
        assert!(with(|f| f.except_pids = vec![43]).passes(&sent));
        let process = sent.process.as_mut().unwrap();
        process.actor = Actor::Ci.number();
        process.contexts = vec![keytrail_proto::v1::Context {
            kind: ContextKind::CiJob.number(),
            name: "github".into(),
            ..Default::default()
        }];
        for (text, of_sent, of_read) in [
            ("ci_job", true, false),
            ("git*", true, false),
            ("gitlab", false, false),
            ("!ci_job", false, true),
            ("!cron", true, true),
        ] {
            let filter = with(|f| f.contexts = vec![text.into()]);
            assert_eq!(filter.passes(&sent), of_sent, "{text}");
            assert_eq!(filter.passes(&read), of_read, "{text}");
            assert!(filter.passes(&gap) && filter.narrows(), "{text}");
        }
        let actor = with(|f| f.actors = vec![Actor::Ci.number()]);
        assert!(actor.passes(&sent) && !actor.passes(&read) && actor.passes(&gap));
        let others = with(|f| f.except_actors = vec![Actor::Ci.number()]);
        assert!(!others.passes(&sent) && others.passes(&read) && others.narrows());
        assert!(
            EventFilter::new(Filter {
                actors: vec![99],
                ..Default::default()
            })
            .is_err()
        );
        assert!(!with(|_| {}).narrows());
        assert!(
            !with(|f| {
                f.kinds = vec![kind("coverage_gap")];
                f.hosts = vec!["x".into()];
            })
            .narrows()
        );
    }
}
