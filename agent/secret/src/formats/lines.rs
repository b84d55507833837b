//! Line formats: netrc, pgpass, shadow, htpasswd.

use super::Context;
use crate::api::Origin;
use crate::checks::user_is_secret;
use std::ops::Range;
use zeroize::Zeroizing;

pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = 0;
    text.split_inclusive(|b| *b == b'\n').map(move |line| {
        let start = offset;
        offset += line.len();
        (start, line.trim_ascii_end())
    })
}

pub(super) fn show(bytes: &[u8]) -> String {
    crate::scan::text::clean(bytes)
}

/// Words of a netrc and where they stand, without the quotes that hold a value together.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
    /// The file is one, so that a quote within a word belongs to it. In other texts (`"machine h login u ..."`) it ends it.
    own: bool,
}

/// A word, as it stands in the text and as it is meant.
struct Word {
    span: Range<usize>,
    value: Zeroizing<Vec<u8>>,
}

impl Words<'_> {
    /// The next word; `value`: it stands where a value does, and may be quoted.
    fn next(&mut self, value: bool) -> Option<Word> {
        let own = self.own;
        let separates = |b: u8| b.is_ascii_whitespace() || !own && matches!(b, b'"' | b'`');
        while let Some(&b) = self.text.get(self.at) {
            if value && b == b'"' {
                if let Some(word) = self.quoted() {
                    return Some(word);
                }
            } else if !separates(b) {
                break;
            }
            self.at += 1;
        }
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().take_while(|b| !separates(**b)).count();
        let span = self.at..self.at + length;
        self.at = span.end;
        Some(Word {
            value: Zeroizing::new(rest[..length].to_vec()),
            span,
        })
    }

    /// A value between quotes on one line, with backslashes before what they protect; `None` when it does not end.
    fn quoted(&mut self) -> Option<Word> {
        let start = self.at + 1;
        let line = self.text.get(start..)?;
        let line = &line[..line.len().min(MAX_QUOTED)];
        let mut end = 0;
        loop {
            end += memchr::memchr3(b'"', b'\\', b'\n', line.get(end..)?)?;
            match line[end] {
                b'\\' => end += 2,
                b'"' if end > 0 => break,
                _ => return None,
            }
        }
        let mut value = Zeroizing::new(Vec::with_capacity(end));
        let mut bytes = line[..end].iter();
        while let Some(&byte) = bytes.next() {
            value.push(match byte {
                b'\\' => match bytes.next()? {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => *other,
                },
                other => other,
            });
        }
        self.at = start + end + 1;
        Some(Word {
            span: start..start + end,
            value,
        })
    }
}

/// Longest quoted value.
const MAX_QUOTED: usize = 4096;

/// `machine H login U password P`, over any number of lines (ftp's netrc(5)).
pub fn netrc(context: &mut Context<'_, '_>) {
    let text = context.text;
    let mut words = Words {
        text,
        at: 0,
        own: context.file_name().contains("netrc"),
    };
    let mut machine = String::new();
    let mut login: Option<Word> = None;
    let mut inside = false;
    while let Some(word) = words.next(false) {
        match &text[word.span] {
            b"machine" => {
                machine = words.next(true).map_or(String::new(), |w| show(&w.value));
                (login, inside) = (None, true);
            }
            b"default" => {
                machine = "default".to_string();
                (login, inside) = (None, true);
            }
            b"login" if inside => login = words.next(true),
            b"account" if inside => drop(words.next(true)),
            b"password" if inside => {
                if context.finds.full() {
                    return;
                }
                if let Some(password) = words.next(true) {
                    netrc_password(context, &machine, login.as_ref(), password);
                }
            }
            b"macdef" => inside = false,
            _ => {}
        }
    }
}

fn netrc_password(
    context: &mut Context<'_, '_>,
    machine: &str,
    login: Option<&Word>,
    password: Word,
) {
    let user = login.map(|word| &word.value[..]).unwrap_or_default();
    let (user, secret) = match login {
        Some(word) if user_is_secret(user, &password.value) => (String::new(), word),
        _ => (show(user), &password),
    };
    let known = context
        .classifier
        .classify_value(&secret.value, Origin::Text);
    let rule = known
        .iter()
        .find(|f| f.specific() && f.confidence >= 0.6 && !f.parts.is_empty())
        .map_or("netrc".to_string(), |f| f.rule.clone());
    context.emit_at(
        &rule,
        &secret.value,
        secret.span.clone(),
        format!("{machine} {user}").trim().to_string(),
    );
}

/// `host:port:database:user:password` with `\:` and `\\` (libpq's .pgpass).
pub fn pgpass(context: &mut Context<'_, '_>) {
    let found: Vec<(Range<usize>, Vec<u8>, String, String)> = lines(context.text)
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
            let user = String::from_utf8_lossy(&fields[3]).into_owned();
            let place = start + last..start + line.len();
            Some((place, fields.pop()?, identifier, user))
        })
        .collect();
    for (span, value, identifier, user) in found {
        if let Some(raw) = context.emit_at("pgpass", &value, span, identifier) {
            raw.login = user;
        }
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
        if context.finds.full() {
            return;
        }
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
