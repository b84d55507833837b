//! YAML documents: kubeconfig, Secret manifests, the hosts file of GitHub's client.

use super::{Context, MAX_TREE, json, short, tree};
use crate::derive::{base64_any, jwt, x509};
use serde_json::Value;
use std::collections::HashMap;

/// YAML is parsed slowly and its anchors multiply: a tighter bound than JSON's.
const MAX_YAML: usize = 1 << 20;
const MAX_DOCUMENTS: usize = 4096;
/// Most brackets open at a time.
const MAX_OPEN: usize = 512;

pub fn parse(context: &mut Context<'_, '_>) {
    // A manifest may be written in JSON, which the parser of YAML reads slowly and not with tabs.
    if context.text.trim_ascii_start().first() == Some(&b'{')
        && (context.text.len() > MAX_TREE || json::documents(context, inspect))
    {
        return;
    }
    if std::str::from_utf8(context.text).is_err() {
        return;
    }
    if context.text.len() > MAX_YAML || deep(context.text) {
        return tree::incomplete(context);
    }
    let mut budget = tree::Budget::of(context.text);
    let mut nodes = 0;
    for document in serde_yaml_ng::Deserializer::from_slice(context.text).take(MAX_DOCUMENTS) {
        let Some(document) = budget.read(document) else {
            break;
        };
        inspect(context, &document, &mut nodes);
    }
    if budget.spent {
        tree::incomplete(context);
    }
}

/// More brackets are open somewhere than documents nest: the parser goes over all of them at each word. Brackets in
/// quotes and comments count, too; nobody writes so many.
fn deep(text: &[u8]) -> bool {
    let mut open = 0usize;
    text.iter().any(|b| {
        match b {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })
}

fn inspect(context: &mut Context<'_, '_>, document: &Value, nodes: &mut usize) {
    kubeconfig(context, document);
    hosts(context, document);
    json::walk(context, "", document, 0, nodes);
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Users of a kubeconfig with the clusters their contexts name.
fn kubeconfig(context: &mut Context<'_, '_>, document: &Value) {
    let Some(users) = document.get("users").and_then(Value::as_array) else {
        return;
    };
    let contexts = document.get("contexts").and_then(Value::as_array);
    let mut clusters: HashMap<&str, &str> = HashMap::new();
    for entry in contexts
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("context"))
    {
        clusters
            .entry(short(text(entry, "user")))
            .or_insert_with(|| short(text(entry, "cluster")));
    }
    for entry in users {
        if context.finds.full() {
            return;
        }
        let name = short(text(entry, "name")).to_string();
        let Some(user) = entry.get("user") else {
            continue;
        };
        let cluster = clusters.get(name.as_str()).copied().unwrap_or_default();
        let mut identifier = if cluster.is_empty() {
            name.clone()
        } else {
            format!("{name}@{cluster}")
        };
        let certificate = base64_any(text(user, "client-certificate-data").as_bytes())
            .and_then(|pem| x509::first_pem(&pem));
        let expires = certificate.as_ref().map(|c| c.not_after);
        if let Some(certificate) = &certificate {
            identifier.push(' ');
            identifier.push_str(&certificate.subject);
        }
        let key = text(user, "client-key-data");
        if let Some(pem) = base64_any(key.as_bytes()).filter(|_| !key.is_empty()) {
            let span = context.locate(key.as_bytes());
            if let Some(raw) = context.emit_pem("kubeconfig", &pem, identifier.clone()) {
                raw.span = span.clone();
                raw.parts[0].span = span;
                raw.expires = expires;
            }
        }
        let token = text(user, "token");
        let claims = jwt::Jwt::parse(token.as_bytes());
        if let Some(raw) = context.emit("kubeconfig", token.as_bytes(), identifier.clone()) {
            raw.expires = claims.and_then(|c| c.expires());
        }
        context.emit("kubeconfig", text(user, "password").as_bytes(), identifier);
    }
}

/// `github.com: {user, oauth_token}` of gh and hub.
fn hosts(context: &mut Context<'_, '_>, document: &Value) {
    let Some(object) = document.as_object() else {
        return;
    };
    for (host, entry) in object.iter().filter(|(h, _)| h.contains('.')) {
        let entry = entry.as_array().and_then(|l| l.first()).unwrap_or(entry);
        let token = text(entry, "oauth_token");
        if token.is_empty() {
            continue;
        }
        let found = context
            .classifier
            .classify_value(token.as_bytes(), crate::api::Origin::Text);
        let rule = found
            .first()
            .map_or("github-host-token".to_string(), |f| f.rule.clone());
        context.emit(
            &rule,
            token.as_bytes(),
            format!("{host} {}", text(entry, "user")).trim().to_string(),
        );
    }
}
