//! Is the value of a secret-sounding name a secret?

use super::name::NameClass;
use crate::secret::checks::strength::{distinct, entropy, looks_random};
use crate::secret::checks::{Doubt, doubt};

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Between quotes or XML tags: a literal.
    Quoted,
    /// Bare, where a literal is expected (configuration file, environment, `NAME=value` at the start of a line).
    Bare,
    /// Bare, where code is as likely.
    Code,
}

/// Confidence that the value is a secret; `None`: it is none.
pub fn judge(class: NameClass, name: &[u8], value: &[u8], written: Written) -> Option<f64> {
    let value = value.trim_ascii();
    let least = match class {
        NameClass::Password => 4,
        NameClass::Secret => 8,
        NameClass::Key => 16,
    };
    if value.len() < least || value.len() > 4096 || !value.iter().all(|b| *b >= 0x20 && *b != 0x7f)
    {
        return None;
    }
    let random = looks_random(value);
    match doubt(value) {
        Doubt::Hard | Doubt::Word => return None,
        Doubt::Soft if class != NameClass::Password => return None,
        _ => {}
    }
    if same_word(name, value)
        || no_secret(value, random)
        || (written != Written::Quoted && expression(value, random))
    {
        return None;
    }
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = value.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let symbols = value.len() - digits - letters;
    match class {
        NameClass::Password => {
            if value.iter().filter(|b| **b == b' ').count() > 0
                && (written != Written::Bare || value.contains(&b':'))
            {
                // Prose: "Enter your password".
                let words = value
                    .split(|b| *b == b' ')
                    .filter(|w| {
                        w.len() > 1
                            && w.iter()
                                .all(|b| b.is_ascii_alphabetic() || b",.!?'".contains(b))
                    })
                    .count();
                if words >= 2 {
                    return None;
                }
            }
            if written == Written::Code && digits == 0 && symbols == 0 {
                return None;
            }
            if wordy_identifier(value) {
                return None;
            }
            Some(if random {
                0.49
            } else if digits > 0 && (letters > 0 || symbols > 0) {
                0.42
            } else if written == Written::Code {
                0.15
            } else if value.len() >= 6 && symbols > 0 {
                0.35
            } else {
                0.25
            })
        }
        NameClass::Secret => {
            if value.contains(&b' ') {
                return None;
            }
            if random {
                return Some(0.48);
            }
            if wordy_identifier(value) || written == Written::Code {
                return None;
            }
            // A secret made by a person: letters with digits or symbols, not a word.
            if value.len() >= 10
                && (digits >= 2 || symbols >= 2)
                && letters >= 3
                && distinct(value) >= 7
                && entropy(value) >= 2.8
            {
                return Some(0.3);
            }
            (written == Written::Quoted
                && symbols >= 1
                && value.len() >= 10
                && distinct(value) >= 7
                && entropy(value) >= 2.7)
                .then_some(0.2)
        }
        NameClass::Key => {
            let strong = random
                && !value.contains(&b' ')
                && digits >= if value.len() >= 32 { 1 } else { 2 }
                && entropy(value) >= if value.len() >= 24 { 3.3 } else { 3.4 };
            // Hex of a digest's length after a name that only says "key" may be an id; it stays the weakest.
            (strong && written != Written::Code).then_some(0.35)
        }
    }
}

/// The value only repeats the name (`password: "password"`, `token = accessToken`), or names the field.
fn same_word(name: &[u8], value: &[u8]) -> bool {
    let squeeze = |v: &[u8]| {
        v.iter()
            .filter(|b| b.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase)
            .collect::<Vec<u8>>()
    };
    if value.len() > 64 {
        return false;
    }
    let (n, v) = (squeeze(name), squeeze(value));
    if v.is_empty() {
        return true;
    }
    if n == v || n.ends_with(&v) {
        return true;
    }
    // user_password, api-token, PasswordField: separators or camel case around a word of the trade, no digits.
    let word_like = value.iter().all(|b| {
        b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b'.' | b' ' | b':' | b'/' | b'#')
    });
    let parted = value
        .iter()
        .any(|b| matches!(b, b'_' | b'-' | b'.' | b':' | b'/'))
        || value
            .windows(2)
            .any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase());
    const TRADE: &[&[u8]] = &[
        b"password",
        b"passwd",
        b"secret",
        b"token",
        b"apikey",
        b"key",
        b"credential",
        b"pwd",
        b"auth",
        b"pass",
    ];
    word_like && parted && TRADE.iter().any(|t| v.windows(t.len()).any(|w| w == *t))
}

/// Forms that are not secrets: paths, URLs without password, numbers, versions, e-mail addresses, types, colours.
fn no_secret(value: &[u8], random: bool) -> bool {
    let starts = |p: &[u8]| value.len() >= p.len() && value[..p.len()].eq_ignore_ascii_case(p);
    if memchr::memmem::find(value, b"://").is_some() {
        return true;
    }
    if starts(b"/")
        || starts(b"./")
        || starts(b"../")
        || starts(b"~/")
        || (value.len() > 3 && value[1] == b':' && value[2] == b'\\')
    {
        // Base64 may begin with a slash; a path is made of words.
        let segments = value
            .split(|b| *b == b'/' || *b == b'\\')
            .filter(|s| !s.is_empty());
        if segments.clone().count() == 0
            || segments.clone().filter(|s| looks_random(s)).count() * 2 < segments.count().max(1)
                && !(random && value.len() >= 30 && value.len().is_multiple_of(4))
        {
            return true;
        }
    }
    if starts(b"arn:")
        || starts(b"urn:")
        || starts(b"data:")
        || starts(b"vault:")
        || starts(b"secretsmanager:")
        || starts(b"ssm:")
        || starts(b"op://")
        || starts(b"file:")
        || starts(b"enc[")
        || starts(b"sha256:")
        || starts(b"sha512-")
        || starts(b"sha1-")
        || starts(b"sha256-")
    {
        return true;
    }
    if starts(b"ssh-rsa ")
        || starts(b"ssh-ed25519 ")
        || starts(b"ecdsa-")
        || starts(b"-----BEGIN")
        || starts(b"MIIBIj")
    {
        return true;
    }
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    if digits == value.len() && !(6..=20).contains(&digits) {
        return true;
    }
    // Versions, addresses, numbers with separators.
    if digits > 0
        && value.iter().all(|b| {
            b.is_ascii_digit() || matches!(b, b'.' | b',' | b':' | b'-' | b'/' | b'+' | b' ')
        })
        && digits < value.len()
    {
        return true;
    }
    // E-mail address.
    if let Some(at) = value.iter().position(|b| *b == b'@')
        && at > 0
        && value[at + 1..]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && value[at + 1..]
            .iter()
            .rposition(|b| *b == b'.')
            .is_some_and(|d| {
                value[at + 1..].len() - d <= 7
                    && value[at + 1 + d + 1..].iter().all(u8::is_ascii_alphabetic)
            })
        && value[..at]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(b))
        && digits * 3 < value.len()
    {
        return true;
    }
    // Markup, format strings, globs, function bodies.
    if memchr::memmem::find(value, b"</").is_some()
        || memchr::memmem::find(value, b"%s").is_some()
        || memchr::memmem::find(value, b"{}").is_some()
        || memchr::memmem::find(value, b"=>").is_some()
        || memchr::memmem::find(value, b"<%").is_some()
    {
        return true;
    }
    // File names.
    const ENDINGS: &[&[u8]] = &[
        b".txt", b".json", b".pem", b".key", b".crt", b".yml", b".yaml", b".js", b".ts", b".py",
        b".html", b".xml", b".php", b".java", b".conf", b".com", b".org", b".net", b".md", b".go",
        b".rb", b".h", b".c",
    ];
    !random
        && ENDINGS.iter().any(|e| {
            value.len() > e.len() && value[value.len() - e.len()..].eq_ignore_ascii_case(e)
        })
}

/// Bare text that is code: calls, member access, indexing, operators.
fn expression(value: &[u8], random: bool) -> bool {
    if value
        .iter()
        .any(|b| matches!(b, b'(' | b'[' | b'{' | b'<' | b'|' | b'*' | b'&'))
        && !random
    {
        return true;
    }
    if value.iter().any(|b| matches!(b, b'(' | b'[' | b'{')) {
        return true;
    }
    let dotted = value.contains(&b'.')
        && value.split(|b| *b == b'.').all(|s| {
            s.first()
                .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
                && s.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        })
        && !random;
    dotted
        || memchr::memmem::find(value, b"::").is_some()
        || memchr::memmem::find(value, b"->").is_some()
        || value.starts_with(b"@")
        || value.starts_with(b"&")
        || value.starts_with(b"!") && value.len() < 8
}

/// CONSTANT_NAMES, snake_case, kebab-case and camelCase without digits: names of things.
fn wordy_identifier(value: &[u8]) -> bool {
    let alphabetic = value
        .iter()
        .all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b'.'));
    if !alphabetic {
        return false;
    }
    let separators = value
        .iter()
        .filter(|b| matches!(b, b'_' | b'-' | b'.'))
        .count();
    let humps = value
        .windows(2)
        .filter(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
        .count();
    let upper = value.iter().filter(|b| b.is_ascii_uppercase()).count();
    let lower = value.iter().filter(|b| b.is_ascii_lowercase()).count();
    // Two or more parts, or upper case throughout.
    (separators >= 2)
        || (separators >= 1 && (upper == 0 || lower == 0) && value.len() >= 14)
        || ((1..=4).contains(&humps) && upper <= humps + 1 && separators == 0 && value.len() >= 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes(class: NameClass, value: &str, written: Written) -> bool {
        judge(class, b"x_password", value.as_bytes(), written).is_some()
    }

    #[test]
    fn what_counts_and_what_does_not() {
        use NameClass::*;
        use Written::*;
        for v in [
            "hunter2",
            "super$ecret",
            "4ian1234",
            "Tr0ub4dor&3",
            "correct-horse9",
            "qwerty",
            "VMware1!",
        ] {
            assert!(yes(Password, v, Quoted), "{v}");
        }
        for v in [
            "",
            "abc",
            "password",
            "${DB_PASS}",
            "changeme",
            "Enter your password",
            "user_password",
            "/run/secrets/db",
            "true",
            "https://x.y/z",
            "DB_PASSWORD_FIELD",
            "a@b.com",
        ] {
            assert!(!yes(Password, v, Quoted), "{v}");
        }
        for v in [
            "get_password()",
            "self.password",
            "config.db.password",
            "os.environ['X']",
            "somevariable",
        ] {
            assert!(!yes(Password, v, Code), "{v}");
        }
        assert!(yes(Secret, "9f86d081884c7d659a2feaa0c55ad015", Quoted));
        for v in [
            "application",
            "user-token-name",
            "com.example.Token",
            "1.2.3",
            "2024-01-01",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        ] {
            assert!(!yes(Secret, v, Quoted), "{v}");
        }
        assert!(yes(Key, "q3VtZcK8s1LwXy7BnR0uTd4P", Bare));
        assert!(!yes(Key, "background-color", Quoted));
    }
}
