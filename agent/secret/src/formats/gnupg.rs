//! GnuPG's private-keys-v1.d: one S-expression for each key, named by its keygrip.

use super::Context;

/// Longest key file.
const MAX_KEY: usize = 64 << 10;

pub fn parse(context: &mut Context<'_, '_>) {
    let text = context.text;
    if text.len() > MAX_KEY {
        return;
    }
    // `Key: (protected-private-key ...` since 2.3, before that the canonical form `(21:protected-private-key...`.
    let body = match memchr::memmem::find(text, b"Key: (") {
        Some(at) if at == 0 || text[at - 1] == b'\n' => &text[at + 5..],
        _ => text,
    };
    let Some(rest) = body.strip_prefix(b"(") else {
        return;
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = match rest.get(digits) {
        Some(b':') if digits > 0 => &rest[digits + 1..],
        _ => rest,
    };
    // The stub of a key on a card (`shadowed-private-key`) holds no secret.
    let encrypted = rest.starts_with(b"protected-private-key");
    if !encrypted && !rest.starts_with(b"private-key") {
        return;
    }
    let grip = context.file_name().trim_end_matches(".key").to_string();
    let identifier = if encrypted {
        format!("keygrip {grip} (encrypted)")
    } else {
        format!("keygrip {grip}")
    };
    let body = body.trim_ascii_end();
    let start = memchr::memmem::find(text, body).unwrap_or(0);
    context.emit_at(
        "gpg-private-key",
        body,
        start..start + body.len(),
        identifier,
    );
}
