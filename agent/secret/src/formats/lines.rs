//! Line formats: netrc, pgpass, shadow, htpasswd.

use super::Context;
use crate::api::Origin;
use crate::checks::user_is_secret;
use std::ops::Range;

const MAX_LINES: usize = 200_000;

pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = 0;
    text.split_inclusive(|b| *b == b'\n')
        .take(MAX_LINES)
        .map(move |line| {
            let start = offset;
            offset += line.len();
            (start, line.trim_ascii_end())
        })
}

pub(super) fn show(bytes: &[u8]) -> String {
    crate::scan::token::clean(bytes)
}

/// `machine H login U password P`, over any number of lines (ftp's netrc(5)).
pub fn netrc(context: &mut Context<'_, '_>) {
    let text = context.text;
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    for (i, b) in text.iter().enumerate().take(1 << 20) {
        let quote = matches!(b, b'"' | b'`');
        match (b.is_ascii_whitespace() || quote, start) {
            (false, None) => start = Some(i),
            (true, Some(from)) => {
                words.push(from..i);
                start = None;
            }
            _ => {}
        }
        if words.len() > MAX_LINES {
            break;
        }
    }
    if let Some(from) = start {
        words.push(from..text.len().min(1 << 20));
    }
    let (mut machine, mut login) = (String::new(), 0..0);
    let mut i = 0;
    let mut inside = false;
    while i + 1 < words.len() {
        let (word, next) = (&text[words[i].clone()], words[i + 1].clone());
        match word {
            b"machine" => {
                (machine, login) = (show(&text[next]), 0..0);
                inside = true;
                i += 2;
            }
            b"default" => {
                (machine, login) = ("default".to_string(), 0..0);
                inside = true;
                i += 1;
            }
            b"login" | b"account" if inside => {
                if word == b"login" {
                    login = next;
                }
                i += 2;
            }
            b"password" if inside => {
                let (user, next) = match &text[login.clone()] {
                    user if user_is_secret(user, &text[next.clone()]) => {
                        (String::new(), login.clone())
                    }
                    user => (show(user), next),
                };
                let value = &text[next.clone()];
                let known = context.classifier.classify_value(value, Origin::Text);
                let rule = known
                    .iter()
                    .find(|f| f.specific() && f.confidence >= 0.6 && !f.parts.is_empty())
                    .map_or("netrc".to_string(), |f| f.rule.clone());
                context.emit_at(
                    &rule,
                    value,
                    next,
                    format!("{machine} {user}").trim().to_string(),
                );
                i += 2;
            }
            b"macdef" => inside = false,
            _ => i += 1,
        }
        if word == b"macdef" {
            i += 2;
        }
    }
}

/// `host:port:database:user:password` with `\:` and `\\` (libpq's .pgpass).
pub fn pgpass(context: &mut Context<'_, '_>) {
    let found: Vec<(Range<usize>, Vec<u8>, String)> = lines(context.text)
        .filter(|(_, line)| !line.is_empty() && line[0] != b'#')
        .filter_map(|(start, line)| {
            let mut fields: Vec<Vec<u8>> = vec![Vec::new()];
            let mut last = 0;
            let mut i = 0;
            while i < line.len() {
                match line[i] {
                    b'\\' if i + 1 < line.len() => {
                        i += 1;
                        fields.last_mut()?.push(line[i]);
                    }
                    b':' if fields.len() < 5 => {
                        fields.push(Vec::new());
                        last = i + 1;
                    }
                    b => fields.last_mut()?.push(b),
                }
                i += 1;
            }
            if fields.len() != 5 || fields[4].is_empty() {
                return None;
            }
            let identifier = format!(
                "{}@{}:{}/{}",
                show(&fields[3]),
                show(&fields[0]),
                show(&fields[1]),
                show(&fields[2])
            );
            Some((start + last..start + line.len(), fields.pop()?, identifier))
        })
        .collect();
    for (span, value, identifier) in found {
        context.emit_at("pgpass", &value, span, identifier);
    }
}

/// Scheme of a crypt(5) hash.
fn scheme(hash: &[u8]) -> Option<&'static str> {
    const SCHEMES: &[(&[u8], &str)] = &[
        (b"$y$", "yescrypt"),
        (b"$gy$", "gost-yescrypt"),
        (b"$7$", "scrypt"),
        (b"$6$", "sha512crypt"),
        (b"$5$", "sha256crypt"),
        (b"$2a$", "bcrypt"),
        (b"$2b$", "bcrypt"),
        (b"$2y$", "bcrypt"),
        (b"$1$", "md5crypt"),
        (b"$apr1$", "apr1"),
        (b"$argon2", "argon2"),
        (b"{SHA}", "sha1"),
        (b"{SSHA}", "ssha"),
        (b"$sha1$", "sha1crypt"),
        (b"$8$", "pbkdf2"),
    ];
    SCHEMES
        .iter()
        .find(|(prefix, _)| hash.starts_with(prefix))
        .map(|(_, name)| *name)
}

/// `user:hash:...` of shadow(5) and gshadow(5). Locked entries (`!`, `*`) hold nothing.
pub fn shadow(context: &mut Context<'_, '_>) {
    hashes(context, "shadow-hash");
}

/// `user:hash` of htpasswd.
pub fn htpasswd(context: &mut Context<'_, '_>) {
    hashes(context, "htpasswd-hash");
}

fn hashes(context: &mut Context<'_, '_>, rule: &str) {
    let text = context.text;
    for (start, line) in lines(text) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let rest = &line[colon + 1..];
        let hash = &rest[..rest.iter().position(|b| *b == b':').unwrap_or(rest.len())];
        let from = start + colon + 1;
        // A leading `!` locks the account and keeps the hash.
        let locked = hash.iter().take_while(|b| **b == b'!').count();
        let (hash, from) = (&hash[locked..], from + locked);
        if let Some(scheme) = scheme(hash).filter(|_| hash.len() >= 13) {
            let identifier = format!(
                "{} {scheme}{}",
                show(&line[..colon]),
                if locked > 0 { " locked" } else { "" }
            );
            context.emit_at(rule, hash, from..from + hash.len(), identifier);
        }
    }
}
