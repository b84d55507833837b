//! Runs a rule's example in the place it names. Used when a user's rules are loaded and by the tests of ours.

use super::api::{Finding, Origin};
use super::classifier::Classifier;
use super::rules::Example;

pub fn classify_example(classifier: &Classifier, example: &Example, text: &str) -> Vec<Finding> {
    match example {
        Example::Placed { path, .. } if !path.is_empty() => classifier.classify(text.as_bytes(), Origin::File { path }),
        Example::Placed { env, .. } if !env.is_empty() => classifier.classify(text.as_bytes(), Origin::Env { name: env }),
        _ => classifier.classify(text.as_bytes(), Origin::Text),
    }
}
