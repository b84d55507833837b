//! Asking events what they claim.

pub use keytrail_model::{
    Channel, DestinationMethod, EventKind, EvidenceGrade, GapReason, Signal, SourceType, Tier,
    Transform,
};
pub use keytrail_proto::v1::{Event, Gap};

/// Short questions to an event.
pub trait Ask {
    fn is(&self, kind: &str) -> bool;
    /// Its kind, as people are shown it.
    fn what(&self) -> &'static str;
    fn pid(&self) -> u32;
    /// Whether it is about `root` or one of its descendants.
    fn in_tree(&self, root: u32) -> bool;
    fn executable(&self) -> &str;
    fn identifier(&self) -> &str;
    /// Whether its identifier begins with the planted one (more may follow: an account, a key's number).
    fn shows(&self, planted: &crate::plant::Planted) -> bool;
    fn fingerprint(&self) -> &str;
    fn credential_kind(&self) -> &str;
    fn source_type(&self) -> &str;
    fn path(&self) -> &str;
    fn env_name(&self) -> &str;
    fn grade(&self) -> &str;
    fn channel(&self) -> &str;
    fn transform(&self) -> &str;
    /// How the destination was found.
    fn found_by(&self) -> &str;
    /// Address and port of the destination.
    fn peer(&self) -> (&str, u32);
    /// Reason of a gap.
    fn reason(&self) -> &str;
    fn sequence(&self) -> u64;
    /// One line about it, for failed assertions.
    fn brief(&self) -> String;
}

impl Ask for Event {
    fn is(&self, kind: &str) -> bool {
        self.what() == kind
    }

    fn what(&self) -> &'static str {
        EventKind::word_of(self.kind)
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, |p| p.pid)
    }

    fn in_tree(&self, root: u32) -> bool {
        self.process
            .as_ref()
            .is_some_and(|p| p.pid == root || p.ancestors.iter().any(|a| a.pid == root))
    }

    fn executable(&self) -> &str {
        self.process
            .as_ref()
            .and_then(|p| p.executable.as_ref())
            .map_or("", |e| &e.path)
    }

    fn identifier(&self) -> &str {
        self.credential.as_ref().map_or("", |c| &c.identifier)
    }

    fn shows(&self, planted: &crate::plant::Planted) -> bool {
        let mine = planted.identifier.as_deref().expect("one that has one");
        self.identifier()
            .strip_prefix(mine)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    fn fingerprint(&self) -> &str {
        self.credential.as_ref().map_or("", |c| &c.fingerprint)
    }

    fn credential_kind(&self) -> &str {
        self.credential.as_ref().map_or("", |c| &c.kind)
    }

    fn source_type(&self) -> &str {
        SourceType::word_of(self.source.as_ref().map_or(0, |s| s.r#type))
    }

    fn path(&self) -> &str {
        self.source.as_ref().map_or("", |s| &s.path)
    }

    fn env_name(&self) -> &str {
        self.source.as_ref().map_or("", |s| &s.env_name)
    }

    fn grade(&self) -> &str {
        EvidenceGrade::word_of(self.evidence.as_ref().map_or(0, |e| e.grade))
    }

    fn channel(&self) -> &str {
        Channel::word_of(self.evidence.as_ref().map_or(0, |e| e.channel))
    }

    fn transform(&self) -> &str {
        Transform::word_of(self.evidence.as_ref().map_or(0, |e| e.transform))
    }

    fn found_by(&self) -> &str {
        DestinationMethod::word_of(self.evidence.as_ref().map_or(0, |e| e.destination_method))
    }

    fn peer(&self) -> (&str, u32) {
        self.destination
            .as_ref()
            .map_or(("", 0), |d| (&d.ip, d.port))
    }

    fn reason(&self) -> &str {
        GapReason::word_of(self.gap.as_ref().map_or(0, |g| g.reason))
    }

    fn sequence(&self) -> u64 {
        self.id.as_ref().map_or(0, |id| id.sequence)
    }

    fn brief(&self) -> String {
        let mut text = format!("#{} {}", self.sequence(), self.what());
        if let Some(p) = &self.process {
            text += &format!(
                " {}[{}] argv {:?} parents {:?}",
                self.executable(),
                p.pid,
                p.argv,
                p.ancestors.iter().map(|a| a.pid).collect::<Vec<_>>()
            );
        }
        if let Some(c) = &self.credential {
            text += &format!(" {} {:?} {}", c.kind, c.identifier, c.fingerprint);
        }
        if let Some(s) = &self.source {
            text += &format!(" from {} {}{}", self.source_type(), s.path, s.env_name);
        }
        if let Some(d) = &self.destination {
            let hosts: Vec<_> = d
                .hosts
                .iter()
                .map(|h| format!("{}({})", h.name, h.provenance))
                .collect();
            text += &format!(" to {}{}:{} {}", d.path, d.ip, d.port, hosts.join(","));
        }
        if let Some(e) = &self.evidence {
            text += &format!(
                " {} {} {} {} {}",
                self.grade(),
                self.transform(),
                self.channel(),
                DestinationMethod::word_of(e.destination_method),
                e.hook
            );
        }
        if let Some(g) = &self.gap {
            text += &format!(" gap {} {} count {}", self.reason(), g.detail, g.count);
        }
        if !self.coverage.is_empty() {
            text += &format!(" coverage {:?}", self.coverage);
        }
        text
    }
}

/// Events listed in a failed assertion.
const LISTED: usize = 40;

/// Events as lines, for failed assertions: the last ones.
#[must_use]
pub fn list(events: &[Event]) -> String {
    let from = events.len().saturating_sub(LISTED);
    let lines: Vec<String> = events[from..]
        .iter()
        .map(|e| format!("  {}", e.brief()))
        .collect();
    if lines.is_empty() {
        "  (no events)".to_owned()
    } else {
        lines.join("\n")
    }
}

/// Events about `root` and its descendants.
#[must_use]
pub fn tree(events: &[Event], root: u32) -> Vec<Event> {
    events.iter().filter(|e| e.in_tree(root)).cloned().collect()
}

/// Those of one kind.
#[must_use]
pub fn of_kind(events: &[Event], kind: &str) -> Vec<Event> {
    events.iter().filter(|e| e.is(kind)).cloned().collect()
}

/// Parses JSON lines strictly: an unknown field or a wrong type fails the test.
///
/// # Panics
/// On a line that is not an event.
#[must_use]
pub fn parse_lines(text: &str) -> Vec<Event> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(parse)
        .collect()
}

/// One event from its JSON.
///
/// # Panics
/// When it is not one.
#[must_use]
pub fn parse(line: &str) -> Event {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("not an event: {e}: {line}"))
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn wall_ns(at: &pbjson_types::Timestamp) -> u64 {
    u64::try_from(at.seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(at.nanos).unwrap_or(0)
}

/// Now, in the same unit.
#[must_use]
pub fn now_ns() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}
