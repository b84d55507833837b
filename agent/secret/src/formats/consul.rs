//! The tokens that Consul's agents are configured with: `tokens { agent = "..." }` in HCL, the same in JSON.

use super::Context;
use super::lines::show;
use std::ops::Range;

/// Longest block that is read, and most blocks.
const MAX_BLOCK: usize = 4096;
const MAX_BLOCKS: usize = 64;

/// Length of a token, which is a UUID.
const UUID: usize = 36;

pub fn parse(context: &mut Context<'_, '_>) {
    const NAME: &[u8] = b"tokens";
    let text = context.text;
    let word = memchr::memmem::Finder::new(NAME);
    let (mut at, mut blocks) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| word.find(rest)) {
        at += found + NAME.len();
        let Some(block) = block(text, at) else {
            continue;
        };
        at = block.end;
        blocks += 1;
        if blocks > MAX_BLOCKS || context.finds.full() {
            return;
        }
        for (name, value) in pairs(text, block) {
            let identifier = show(&text[name]);
            context.emit_at("consul-acl-tokens", &text[value.clone()], value, identifier);
        }
    }
}

/// What stands between the braces after a name.
fn block(text: &[u8], name_end: usize) -> Option<Range<usize>> {
    let signs = text[name_end..]
        .iter()
        .take(16)
        .take_while(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b':' | b'='))
        .count();
    let open = name_end + signs;
    if text.get(open) != Some(&b'{') {
        return None;
    }
    let inner = &text[open + 1..text.len().min(open + 1 + MAX_BLOCK)];
    let length = memchr::memchr2(b'}', b'{', inner)?;
    Some(open + 1..open + 1 + length)
}

/// Names and the tokens that stand in quotes after them.
fn pairs(text: &[u8], block: Range<usize>) -> Vec<(Range<usize>, Range<usize>)> {
    let mut out = Vec::new();
    let mut name = 0..0;
    let mut at = block.start;
    while at < block.end {
        let length = text[at..block.end]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            .count();
        if length == 0 {
            at += 1;
            continue;
        }
        let word = at..at + length;
        at = word.end;
        let quoted = text[word.start - 1] == b'"' && text.get(word.end) == Some(&b'"');
        if quoted && is_uuid(&text[word.clone()]) && !name.is_empty() {
            out.push((std::mem::take(&mut name), word));
        } else {
            name = word;
        }
    }
    out
}

fn is_uuid(word: &[u8]) -> bool {
    word.len() == UUID
        && word.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}
