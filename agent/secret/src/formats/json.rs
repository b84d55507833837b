//! JSON documents: walks the tree and hands every object to those who know it.

use super::{Context, MAX_TREE, json_clients, tree};
use serde_json::Value;

/// Deepest nesting and most nodes walked. The parsers themselves refuse more than 128 levels.
const MAX_DEPTH: usize = 128;
const MAX_NODES: usize = 1_000_000;

pub fn parse(context: &mut Context<'_, '_>) {
    documents(context, |context, document, nodes| {
        walk(context, "", document, 0, nodes);
    });
}

/// Hands on one document after the other; false when the text does not begin with one.
pub fn documents(
    context: &mut Context<'_, '_>,
    mut f: impl FnMut(&mut Context<'_, '_>, &Value, &mut usize),
) -> bool {
    if context.text.len() > MAX_TREE {
        tree::incomplete(context);
        return false;
    }
    let text = context.text.trim_ascii();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut from = serde_json::Deserializer::from_slice(text);
    let mut budget = tree::Budget::of(text);
    let mut nodes = 0;
    let mut any = false;
    // One document, or a stream of them.
    while let Some(document) = budget.read(&mut from) {
        any = true;
        f(context, &document, &mut nodes);
        if nodes > MAX_NODES {
            break;
        }
    }
    if budget.spent || nodes > MAX_NODES {
        tree::incomplete(context);
    }
    any
}

/// Visits an object and what it holds. `key` is the name it stands under.
pub fn walk(
    context: &mut Context<'_, '_>,
    key: &str,
    value: &Value,
    depth: usize,
    nodes: &mut usize,
) {
    *nodes += 1;
    if depth > MAX_DEPTH || *nodes > MAX_NODES || context.finds.full() {
        return;
    }
    match value {
        Value::Object(object) => {
            json_clients::inspect(context, key, object);
            for (key, value) in object {
                walk(context, key, value, depth + 1, nodes);
            }
        }
        Value::Array(list) => {
            for value in list {
                walk(context, key, value, depth + 1, nodes);
            }
        }
        _ => {}
    }
}
