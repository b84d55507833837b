//! The rule files of this repository, compiled in.

use super::load;
use super::schema::Rule;
use crate::api::RuleError;

const FILES: &[(&str, &str)] = &[
    ("ai.toml", include_str!("../../rules/ai.toml")),
    ("cloud.toml", include_str!("../../rules/cloud.toml")),
    ("code.toml", include_str!("../../rules/code.toml")),
    ("command.toml", include_str!("../../rules/command.toml")),
    ("database.toml", include_str!("../../rules/database.toml")),
    ("generic.toml", include_str!("../../rules/generic.toml")),
    ("host.toml", include_str!("../../rules/host.toml")),
    ("infra.toml", include_str!("../../rules/infra.toml")),
    ("keys.toml", include_str!("../../rules/keys.toml")),
    ("messaging.toml", include_str!("../../rules/messaging.toml")),
    (
        "monitoring.toml",
        include_str!("../../rules/monitoring.toml"),
    ),
    ("payment.toml", include_str!("../../rules/payment.toml")),
    ("registry.toml", include_str!("../../rules/registry.toml")),
    ("saas.toml", include_str!("../../rules/saas.toml")),
    ("service.toml", include_str!("../../rules/service.toml")),
    ("vcs.toml", include_str!("../../rules/vcs.toml")),
    ("vendor.toml", include_str!("../../rules/vendor.toml")),
];

/// All rules compiled in. The errors are empty in any build that passed its tests.
pub fn rules() -> (Vec<Rule>, Vec<RuleError>) {
    let mut rules = Vec::new();
    let mut errors = Vec::new();
    for (file, text) in FILES {
        let (mut more, mut bad) = load::parse(file, text);
        rules.append(&mut more);
        errors.append(&mut bad);
    }
    (rules, errors)
}
