//! TOML documents: the tree is walked as that of JSON is.

use super::{Context, json, tree};
use crate::api::Origin;

/// Largest document parsed.
const MAX_TOML: usize = 1 << 20;

pub fn parse(context: &mut Context<'_, '_>) {
    let Ok(text) = std::str::from_utf8(context.text) else {
        return;
    };
    if text.len() > MAX_TOML {
        return tree::incomplete(context);
    }
    let mut budget = tree::Budget::of(context.text);
    let document = toml::Deserializer::parse(text)
        .ok()
        .and_then(|document| budget.read(document));
    if budget.spent {
        tree::incomplete(context);
    }
    let Some(document) = document else {
        return;
    };
    if context.file_name().starts_with("credentials") {
        registries(context, &document);
    }
    let mut nodes = 0;
    json::walk(context, "", &document, 0, &mut nodes);
}

/// Cargo's `[registry] token` and `[registries.NAME] token`: tokens of registries that have no form of their own.
fn registries(context: &mut Context<'_, '_>, document: &serde_json::Value) {
    let main = document
        .get("registry")
        .map(|entry| ("crates.io".to_string(), entry));
    let others = document
        .get("registries")
        .and_then(serde_json::Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, entry)| (name.clone(), entry));
    for (name, entry) in main.into_iter().chain(others) {
        let token = entry
            .get("token")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let bare = token.strip_prefix("Bearer ").unwrap_or(token);
        if bare.is_empty() {
            continue;
        }
        let known = context
            .classifier
            .classify_value(bare.as_bytes(), Origin::Text);
        let rule = known
            .iter()
            .find(|f| f.specific() && f.confidence >= 0.6 && !f.parts.is_empty())
            .map_or("cargo-token".to_string(), |f| f.rule.clone());
        context.emit(&rule, bare.as_bytes(), name);
    }
}
