//! Event kinds as people write them.

/// Kind and short name.
const KINDS: &[(&str, &str)] = &[
    ("credential_read", "read"),
    ("credential_opened", "opened"),
    ("credential_exposed", "exposed"),
    ("credential_sent", "sent"),
    ("credential_created", "created"),
    ("coverage_gap", "gap"),
    ("process_start", "start"),
    ("process_exit", "exit"),
];

/// Takes a kind or its short name; a filter on a kind that does not exist would be silent for ever.
pub(super) fn parse_kind(text: &str) -> Result<String, String> {
    KINDS
        .iter()
        .find(|k| k.0 == text || k.1 == text)
        .map(|k| k.0.to_owned())
        .ok_or_else(|| {
            let all: Vec<_> = KINDS.iter().map(|k| k.0).collect();
            format!("there is no such kind; kinds are {}", all.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::KINDS;

    #[test]
    fn the_agent_knows_the_same_kinds() {
        let mut ours: Vec<_> = KINDS.iter().map(|k| k.0).collect();
        let mut theirs = keytrail_export::KINDS.to_vec();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }
}
