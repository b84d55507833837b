//! Which new credential took the place of which old one.

use std::collections::{HashMap, HashSet};

/// Pairs what came with what left, among credentials of one kind in one place, each as (fingerprint, identifier):
/// first those of the same identifier; of the rest, in order, only if as many came as left (anything else would be
/// a guess). Answers (new, old).
#[must_use]
pub fn pair<'a>(before: &[(&'a str, &str)], after: &[(&'a str, &str)]) -> Vec<(&'a str, &'a str)> {
    let had: HashSet<&str> = before.iter().map(|b| b.0).collect();
    let has: HashSet<&str> = after.iter().map(|a| a.0).collect();
    let mut came: Vec<_> = after.iter().filter(|a| !had.contains(a.0)).collect();
    let left: Vec<_> = before.iter().filter(|b| !has.contains(b.0)).collect();
    let mut by_name: HashMap<&str, Vec<&'a str>> = HashMap::new();
    for (fingerprint, identifier) in left.iter().rev().filter(|l| !l.1.is_empty()) {
        by_name.entry(identifier).or_default().push(fingerprint);
    }
    let mut pairs = Vec::new();
    let mut gone: HashSet<&str> = HashSet::new();
    came.retain(
        |(fingerprint, identifier)| match by_name.get_mut(identifier).and_then(Vec::pop) {
            Some(old) => {
                pairs.push((*fingerprint, old));
                gone.insert(old);
                false
            }
            None => true,
        },
    );
    let left: Vec<_> = left.into_iter().filter(|l| !gone.contains(l.0)).collect();
    if came.len() == left.len() {
        pairs.extend(came.iter().zip(&left).map(|(new, old)| (new.0, old.0)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_paired() {
        assert_eq!(
            pair(&[("a", ""), ("k", "")], &[("k", ""), ("b", "")]),
            [("b", "a")]
        );
        // By identifier, though the order is another.
        let pairs = pair(&[("a1", "A"), ("b1", "B")], &[("b2", "B"), ("a2", "A")]);
        assert_eq!(pairs, [("b2", "b1"), ("a2", "a1")]);
        // One left, two came.
        assert!(pair(&[("a", "")], &[("b", ""), ("c", "")]).is_empty());
        assert!(pair(&[("a", "")], &[]).is_empty());
        assert!(pair(&[], &[("a", "")]).is_empty());
        assert!(pair(&[("a", "x")], &[("a", "y")]).is_empty());
    }
}
