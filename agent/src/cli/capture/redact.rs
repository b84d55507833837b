//! Texts that people typed: what looks like a credential in them goes.

use keytrail_secret::{Classifier, Origin};

/// The text without the credentials in it.
pub fn redact(text: &str, classifier: &Classifier) -> String {
    let found = classifier.classify_bounded(text.as_bytes(), Origin::Text);
    let mut places: Vec<_> = found
        .findings
        .iter()
        .filter(|f| !f.parts.is_empty())
        .flat_map(|f| {
            f.places
                .iter()
                .map(move |place| (place.clone(), f.kind.as_str()))
        })
        .collect();
    places.sort_by_key(|(place, _)| (place.start, std::cmp::Reverse(place.end)));
    let mut out = Vec::new();
    let mut at = 0;
    for (place, kind) in places {
        if place.end <= at {
            continue;
        }
        let before = text
            .as_bytes()
            .get(at..place.start.max(at))
            .unwrap_or_default();
        out.extend_from_slice(before);
        if place.start >= at {
            out.extend_from_slice(format!("[redacted {kind}]").as_bytes());
        }
        at = place.end;
    }
    out.extend_from_slice(text.as_bytes().get(at..).unwrap_or_default());
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_token_does_not_stay() {
        let classifier = Classifier::builtin();
        // Two halves: no scanner of sources takes this for a token of somebody's.
        let token = format!("{}{}", "npm_", "JnsZhUq0AWSHpPkwZfrIhZ5zDMlyTQ0uRfsb");
        let note = format!("leaked {token}, seen at 10:00");
        let shown = redact(&note, &classifier);
        assert!(
            shown.starts_with("leaked ") && shown.ends_with(", seen at 10:00"),
            "{shown}"
        );
        assert!(
            !shown.contains("JnsZhUq0AWSH") && shown.contains("[redacted "),
            "{shown}"
        );
        assert_eq!(redact("nothing in it", &classifier), "nothing in it");
    }
}
