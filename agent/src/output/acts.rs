//! Findings that report one act, as one: the strongest, with the names of the others.

use std::cmp::Ordering;

/// What is reported about an act.
pub trait OfAct {
    /// Epoch and number of the act; a number of 0 is none that others could belong to.
    fn act(&self) -> (u64, u64);
    fn severity(&self) -> &str;
    fn rule(&self) -> &str;
    /// By time.
    fn order(&self, other: &Self) -> Ordering;
}

/// The worst first.
pub fn rank(severity: &str) -> u8 {
    match severity {
        "critical" => 0,
        "high" => 1,
        "medium" => 2,
        "low" => 3,
        _ => 4,
    }
}

/// Each act's strongest finding, of several as strong the last, which knows most; and the others. Acts stand where the first of
/// them stood.
pub fn fold<T: OfAct>(all: Vec<T>) -> Vec<(T, Vec<T>)> {
    let mut acts: Vec<(T, Vec<T>)> = Vec::new();
    for mut one in all {
        let same = |(head, _): &&mut (T, Vec<T>)| head.act() == one.act() && one.act().1 != 0;
        let Some((head, others)) = acts.iter_mut().find(same) else {
            acts.push((one, Vec::new()));
            continue;
        };
        let weaker = rank(head.severity()).cmp(&rank(one.severity()));
        if weaker.reverse().then(one.order(head).reverse()) == Ordering::Less {
            std::mem::swap(head, &mut one);
        }
        others.push(one);
    }
    acts
}

/// The others by their rules, the worst first, each once: `uploaded, in-arguments x2`.
pub fn also<T: OfAct>(others: &[T]) -> String {
    let mut rules: Vec<(u8, &str, usize)> = Vec::new();
    for other in others {
        match rules.iter_mut().find(|(_, rule, _)| *rule == other.rule()) {
            Some((_, _, count)) => *count += 1,
            None => rules.push((rank(other.severity()), other.rule(), 1)),
        }
    }
    rules.sort_unstable();
    let text = |(_, rule, count): &(u8, &str, usize)| match count {
        1 => (*rule).to_owned(),
        n => format!("{rule} x{n}"),
    };
    rules.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One((u64, u64), &'static str, &'static str, i64);

    impl OfAct for One {
        fn act(&self) -> (u64, u64) {
            self.0
        }
        fn severity(&self) -> &str {
            self.1
        }
        fn rule(&self) -> &str {
            self.2
        }
        fn order(&self, other: &Self) -> Ordering {
            self.3.cmp(&other.3)
        }
    }

    #[test]
    fn the_strongest_with_the_names_of_the_others() {
        let all = |reversed: bool| {
            let mut all = vec![
                One((1, 7), "medium", "in-arguments", 5),
                One((1, 7), "high", "uploaded", 4),
                One((1, 7), "high", "key-sent", 6),
                // As high, of another run of the agent.
                One((2, 7), "low", "reused", 7),
                One((1, 7), "medium", "in-arguments", 3),
                // Kept by an agent that did not say which act it was.
                One((1, 0), "high", "in-dns", 1),
                One((1, 0), "high", "in-url", 2),
            ];
            if reversed {
                all.reverse();
            }
            all
        };
        for reversed in [false, true] {
            let mut reported: Vec<(&str, String)> = fold(all(reversed))
                .iter()
                .map(|(head, others)| (head.2, also(others)))
                .collect();
            reported.sort_unstable();
            let expected = [
                ("in-dns", String::new()),
                ("in-url", String::new()),
                ("key-sent", "uploaded, in-arguments x2".to_owned()),
                ("reused", String::new()),
            ];
            assert_eq!(reported, expected, "{reversed}");
        }
    }
}
