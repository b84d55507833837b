//! YAML documents: kubeconfig, Secret manifests, the hosts file of GitHub's client.

use super::{Context, MAX_TREE, json};
use crate::derive::{base64_any, jwt, x509};
use serde::Deserialize;
use serde_json::Value;

/// YAML is parsed slowly and its anchors multiply: a tighter bound than JSON's.
const MAX_YAML: usize = 1 << 20;
const MAX_DOCUMENTS: usize = 256;

pub fn parse(context: &mut Context<'_, '_>) {
    // A manifest may be written in JSON, which the parser of YAML reads slowly and not with tabs.
    if context.text.trim_ascii_start().first() == Some(&b'{') && in_json(context) {
        return;
    }
    if context.text.len() > MAX_YAML || std::str::from_utf8(context.text).is_err() {
        return;
    }
    let mut nodes = 0;
    for document in serde_yaml_ng::Deserializer::from_slice(context.text).take(MAX_DOCUMENTS) {
        let Ok(document) = Value::deserialize(document) else {
            return;
        };
        inspect(context, &document, &mut nodes);
    }
}

/// Reads the text as JSON; false when it does not begin with a document of it.
fn in_json(context: &mut Context<'_, '_>) -> bool {
    if context.text.len() > MAX_TREE {
        return true;
    }
    let text = context.text;
    let stream = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let mut nodes = 0;
    let mut any = false;
    for document in stream.take(MAX_DOCUMENTS).map_while(Result::ok) {
        any = true;
        inspect(context, &document, &mut nodes);
    }
    any
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
    for entry in users.iter().take(1024) {
        let name = text(entry, "name").to_string();
        let Some(user) = entry.get("user") else {
            continue;
        };
        let cluster = contexts
            .into_iter()
            .flatten()
            .filter_map(|c| c.get("context"))
            .find(|c| text(c, "user") == name)
            .map(|c| text(c, "cluster").to_string())
            .unwrap_or_default();
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
    for (host, entry) in object.iter().take(64).filter(|(h, _)| h.contains('.')) {
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
