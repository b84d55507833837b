//! Paths of services that are known, as they stand in tables.

/// Whether a path fits a pattern: part by part, where `*` is any one part, `+` some of them, `**` any number, none
/// included, and `*x` one that ends in `x`. What the first `*` stands for; empty where there is none.
pub(super) fn fits<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    parts_fit(&pattern, &parts)
}

fn parts_fit<'p>(pattern: &[&str], parts: &[&'p str]) -> Option<&'p str> {
    let Some((first, more)) = pattern.split_first() else {
        return parts.is_empty().then_some("");
    };
    if let Some(least) = ["**", "+"].iter().position(|some| some == first) {
        // No pattern has more than two of them, and paths are short (`payload/request`).
        return (least..=parts.len()).find_map(|skipped| parts_fit(more, &parts[skipped..]));
    }
    let (part, rest) = parts.split_first()?;
    let found = match first.strip_prefix('*') {
        Some("") => (!part.is_empty()).then_some(*part),
        Some(end) => part.ends_with(end).then_some(""),
        None => (part == first).then_some(""),
    }?;
    let behind = parts_fit(more, rest)?;
    Some(if found.is_empty() { behind } else { found })
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn parts_are_compared_one_by_one() {
        for (pattern, path, expected) in [
            ("/a/b", "/a/b", Some("")),
            ("/a/b", "/a/b/c", None),
            ("/a/b", "/a", None),
            ("/a/*", "/a/x", Some("x")),
            ("/a/*", "/a/", None),
            ("/a/*", "/a/x/y", None),
            ("/a/*/b", "/a/x/b", Some("x")),
            ("/a/**", "/a/x/y", Some("")),
            ("/a/**", "/a", Some("")),
            ("/a/+", "/a", None),
            ("/a/+", "/a/x/y", Some("")),
            ("/a/**/b", "/a/b", Some("")),
            ("/a/**/b", "/a/x/y/b", Some("")),
            ("**/token", "/token", Some("")),
            ("**/token", "token", Some("")),
            ("**/token", "/a/tokens", None),
            ("**/*:make", "/v1/x:make", Some("")),
            ("**/*:make", "/v1/x:made", None),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
    }
}
