//! Runs a rule's example in the place it names. Used when a user's rules are loaded and by the tests of ours.

use super::api::{Finding, Origin};
use super::rules::Example;
use super::ruleset::Classifier;

pub fn classify_example(classifier: &Classifier, example: &Example, text: &str) -> Vec<Finding> {
    let decoded: Vec<u8>;
    let bytes = match example.hex() {
        Some(hex) => {
            let digits: Vec<u8> = hex
                .bytes()
                .filter_map(|b| (b as char).to_digit(16))
                .map(|d| d as u8)
                .collect();
            decoded = digits.chunks_exact(2).map(|p| p[0] * 16 + p[1]).collect();
            &decoded
        }
        None => text.as_bytes(),
    };
    match example {
        Example::Placed { path, .. } if !path.is_empty() => {
            classifier.classify(bytes, Origin::File { path })
        }
        Example::Placed { env, .. } if !env.is_empty() => {
            classifier.classify(bytes, Origin::Env { name: env })
        }
        _ => classifier.classify(bytes, Origin::Text),
    }
}
