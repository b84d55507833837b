//! What a site says about itself: what it does not want to be reported, and which environments it has.

use crate::rule::{Language, RuleError, holds};
use cel::{Context, Program};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExclusionText {
    name: String,
    /// Of these rules only; of all when empty.
    #[serde(default)]
    rules: Vec<String>,
    when: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentText {
    name: String,
    when: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    exclusion: Vec<ExclusionText>,
    #[serde(default)]
    environment: Vec<EnvironmentText>,
}

/// A part of the site that must share no secret with another: production, test.
struct Environment {
    name: String,
    condition: Program,
}

struct Exclusion {
    name: String,
    rules: Vec<String>,
    condition: Program,
    hidden: u64,
}

/// All that its files say.
#[derive(Default)]
pub(crate) struct Site {
    exclusions: Vec<Exclusion>,
    environments: Vec<Environment>,
}

impl Site {
    /// Whether a file is one of these and no rule.
    pub fn is_file(text: &str) -> bool {
        toml::from_str::<toml::Table>(text)
            .is_ok_and(|file| file.contains_key("exclusion") || file.contains_key("environment"))
    }

    /// Takes a file in; what has the name of another takes its place.
    ///
    /// # Errors
    /// See [`RuleError`].
    pub fn add(&mut self, language: &Language, file: &str, text: &str) -> Result<(), RuleError> {
        let refuse = |reason: String| RuleError {
            file: file.into(),
            reason,
        };
        let file: File = toml::from_str(text).map_err(|e| refuse(e.message().to_owned()))?;
        for environment in file.environment {
            let plain = |b: u8| b.is_ascii_graphic() && b != b',' && b != b':' && b != b'!';
            if environment.name.is_empty() || !environment.name.bytes().all(plain) {
                return Err(refuse(format!(
                    "the name of an environment has no blanks, commas, colons and exclamation marks: {:?}",
                    environment.name
                )));
            }
            let condition = language
                .compile(&environment.when)
                .map_err(|e| refuse(e.to_string()))?;
            self.environments.retain(|e| e.name != environment.name);
            self.environments.push(Environment {
                name: environment.name,
                condition,
            });
        }
        for exclusion in file.exclusion {
            let condition = language
                .compile(&exclusion.when)
                .map_err(|e| refuse(e.to_string()))?;
            self.exclusions.retain(|known| known.name != exclusion.name);
            self.exclusions.push(Exclusion {
                name: exclusion.name,
                rules: exclusion.rules,
                condition,
                hidden: 0,
            });
        }
        Ok(())
    }

    /// Whether a finding is not wanted; it is counted then.
    pub fn hides(&mut self, rule: &str, context: &Context<'_, '_>) -> bool {
        let exclusion = self.exclusions.iter_mut().find(|e| {
            (e.rules.is_empty() || e.rules.iter().any(|r| r == rule))
                && holds(&e.condition, context)
        });
        if let Some(exclusion) = exclusion {
            exclusion.hidden += 1;
            return true;
        }
        false
    }

    /// How many findings each exclusion hid.
    pub fn hidden(&self) -> impl Iterator<Item = (&str, u64)> {
        self.exclusions.iter().map(|e| (e.name.as_str(), e.hidden))
    }

    pub fn has_environments(&self) -> bool {
        !self.environments.is_empty()
    }

    /// The first environment that holds.
    pub fn environment(&self, context: &Context<'_, '_>) -> Option<&str> {
        let mut all = self.environments.iter();
        let environment = all.find(|e| holds(&e.condition, context))?;
        Some(&environment.name)
    }
}
