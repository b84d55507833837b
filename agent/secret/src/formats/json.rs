//! JSON documents: walks the tree and hands every object to those who know it.

use super::{Context, MAX_TREE, json_clients};
use serde_json::Value;

/// Deepest nesting and most nodes walked. serde_json itself refuses more than 128 levels.
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 1_000_000;

pub fn parse(context: &mut Context<'_, '_>) {
    if context.text.len() > MAX_TREE {
        return;
    }
    let text = context.text.trim_ascii();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // One document, or the first of a stream.
    let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let mut nodes = 0;
    while let Some(Ok(document)) = stream.next() {
        walk(context, "", &document, 0, &mut nodes);
        if nodes > MAX_NODES {
            break;
        }
    }
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
