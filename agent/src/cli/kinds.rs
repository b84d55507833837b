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
        EventKind::CoverageGap => "gap",
        EventKind::ProcessStart => "start",
        EventKind::ProcessExit => "exit",
        EventKind::Finding => "finding",
    }
}

/// Takes a kind, its short name, or its name in the schema; a filter on a kind that does not exist would be silent for
/// ever.
pub(super) fn parse_kind(text: &str) -> Result<EventKind, String> {
    let word = text.strip_prefix("EVENT_KIND_").map(str::to_lowercase);
    let word = word.as_deref().unwrap_or(text);
    let mut all = EventKind::ALL.iter().copied();
    all.find(|kind| kind.word() == word || short(*kind) == word)
        .ok_or_else(|| {
            let all: Vec<_> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
            format!("there is no such kind; kinds are {}", all.join(", "))
        })
}

/// Takes a grade, or its name in the schema.
pub(super) fn parse_grade(text: &str) -> Result<EvidenceGrade, String> {
    let word = text.strip_prefix("EVIDENCE_GRADE_").map(str::to_lowercase);
    EvidenceGrade::of_word(word.as_deref().unwrap_or(text)).ok_or_else(|| {
        let all: Vec<_> = EvidenceGrade::ALL
            .iter()
            .map(|grade| grade.word())
            .collect();
        format!("there is no such grade; grades are {}", all.join(", "))
    })
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
