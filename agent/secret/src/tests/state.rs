//! What a Terraform state holds is what it is elsewhere.

use crate::rules::template::expand;
use crate::{Classifier, Finding, Fingerprinter, Origin};
use serde_json::json;
use std::sync::LazyLock;

static CLASSIFIER: LazyLock<Classifier> = LazyLock::new(Classifier::builtin);

fn found(path: &str, text: &str) -> Finding {
    let mut found = CLASSIFIER.classify(text.as_bytes(), Origin::File { path });
    found.retain(|f| !f.parts.is_empty() && f.confidence >= 0.5);
    assert_eq!(found.len(), 1, "{path} {text} {found:?}");
    found.remove(0)
}

/// The value as a sensitive output and as an attribute of a resource.
fn states(name: &str, value: &str) -> [String; 2] {
    [
        json!({"version": 4, "terraform_version": "1.9.0", "resources": [],
            "outputs": {name: {"value": value, "type": "string", "sensitive": true}}}),
        json!({"version": 4, "terraform_version": "1.9.0", "outputs": {}, "resources": [
            {"mode": "managed", "type": "x", "name": "y", "instances": [{"attributes": {name: value}}]}]}),
    ]
    .map(|state| state.to_string())
}

#[test]
fn a_value_of_a_form_of_its_own_keeps_its_kind_and_fingerprint() {
    let print = Fingerprinter::new(&[7; 32]);
    for (name, template) in [
        ("github_token", "ghp_{base62:36}"),
        ("gitlab_token", "glpat-{base62:20}"),
        ("vault_token", "hvs.{base62:95}"),
        ("google_client_secret", "GOCSPX-{b64url:28}"),
        ("npm_token", "npm_{base62:36}"),
        ("stripe_secret_key", "sk_live_{base62:99}"),
        ("slack_bot_token", "xoxb-{digit:12}-{digit:13}-{base62:24}"),
        ("sendgrid_api_key", "SG.{base62:22}.{base62:43}"),
        ("datadog_api_key", "{hex:32}"),
        ("heroku_api_key", "{uuid}"),
        ("new_relic_api_key", "NRAK-{BASE36:27}"),
        (
            "database_password",
            "postgresql://svc:{base62:16}%2F@db.corp.net/app?a=1",
        ),
    ] {
        let value = expand(template, 11).unwrap();
        let variable = name.to_ascii_uppercase();
        let env = found("/srv/.env", &format!("{variable}={value}\n"));
        for (state, address) in states(name, &value).iter().zip(["output.", "x.y."]) {
            let there = found("/srv/terraform.tfstate", state);
            assert_eq!(there.kind, env.kind, "{state}");
            assert_eq!(
                there.credential(&print).fingerprint,
                env.credential(&print).fingerprint,
                "{state}"
            );
            let address = format!("{address}{name}");
            assert!(there.identifier.contains(&address), "{there:?}");
            assert!(there.identifier.starts_with(&env.identifier) || env.kind == "heroku-key");
            let span = &state[there.span()];
            assert_eq!(span, &value[value.find(span).unwrap()..][..span.len()]);
        }
    }
}

#[test]
fn any_other_value_is_a_secret_of_the_state() {
    let value = expand("{base62:24}", 5).unwrap();
    for (state, address) in states("admin_password", &value)
        .iter()
        .zip(["output.admin_password", "x.y.admin_password"])
    {
        let there = found("/srv/terraform.tfstate", state);
        assert_eq!(
            (there.kind.as_str(), there.identifier.as_str()),
            ("terraform-state-secret", address)
        );
    }
}
