//! Event kinds as people write them.

use keytrail_model::{EventKind, EvidenceGrade};

/// The shortest name of a kind.
fn short(kind: EventKind) -> &'static str {
    match kind {
        EventKind::CredentialRead => "read",
        EventKind::CredentialOpened => "opened",
        EventKind::CredentialExposed => "exposed",
        EventKind::CredentialSent => "sent",
        EventKind::CredentialCreated => "created",
        EventKind::CredentialTaken => "taken",
        EventKind::PersistenceWritten => "persistence",
        EventKind::WorkloadNamed => "named",
        EventKind::CredentialFileChanged => "changed",
        EventKind::CredentialRequested => "requested",
        EventKind::CredentialReceived => "received",
        EventKind::CoverageGap => "gap",
        EventKind::ProcessStart => "start",
        EventKind::ProcessExit => "exit",
        EventKind::Finding => "finding",
    }
}

/// A word that is no kind of event, or no grade of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownWord {
    #[error(
        "there is no such kind; kinds are {}",
        words(EventKind::ALL, EventKind::word)
    )]
    Kind,
    #[error(
        "there is no such grade; grades are {}",
        words(EvidenceGrade::ALL, EvidenceGrade::word)
    )]
    Grade,
}

/// All there are, as a filter takes them.
pub(super) fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> String {
    let words: Vec<_> = all.iter().map(|one| word(*one)).collect();
    words.join(", ")
}

/// Takes a kind, its short name, or its name in the schema; a filter on a kind that does not exist would be silent for
/// ever.
pub(super) fn parse_kind(text: &str) -> Result<EventKind, UnknownWord> {
    let word = text.strip_prefix("EVENT_KIND_").map(str::to_lowercase);
    let word = word.as_deref().unwrap_or(text);
    let mut all = EventKind::ALL.iter().copied();
    all.find(|kind| kind.word() == word || short(*kind) == word)
        .ok_or(UnknownWord::Kind)
}

/// Takes a grade, or its name in the schema.
pub(super) fn parse_grade(text: &str) -> Result<EvidenceGrade, UnknownWord> {
    let word = text.strip_prefix("EVIDENCE_GRADE_").map(str::to_lowercase);
    EvidenceGrade::of_word(word.as_deref().unwrap_or(text)).ok_or(UnknownWord::Grade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_three_names() {
        for text in ["sent", "credential_sent", "EVENT_KIND_CREDENTIAL_SENT"] {
            assert_eq!(parse_kind(text), Ok(EventKind::CredentialSent), "{text}");
        }
        for text in ["sen", "", "EVENT_KIND_UNSPECIFIED", "CREDENTIAL_SENT"] {
            assert!(parse_kind(text).is_err(), "{text}");
        }
    }
}
