//! URLs that carry a user and a password.

use super::Derived;
use std::ops::Range;

/// The parts of `scheme://user:password@host:port/path` as ranges of the text it was found in.
#[derive(Debug, PartialEq)]
pub struct UrlCredential {
    pub scheme: Range<usize>,
    pub user: Range<usize>,
    pub password: Range<usize>,
    /// Host with port.
    pub host: Range<usize>,
    /// First path segment (a database name, an organisation).
    pub path: Range<usize>,
}

/// Longest URL inspected.
const MAX_URL: usize = 2048;

/// What reading the URL costs, in bytes inspected.
pub fn cost(text: &[u8], at: usize) -> usize {
    let rest = &text[at..text.len().min(at + MAX_URL)];
    memchr::memchr3(b' ', b'\n', b'"', rest).unwrap_or(rest.len()) / 2
}

/// Reads the URL whose `://` is at `at`. `None` without a user-info part.
pub fn at(text: &[u8], at: usize) -> Option<UrlCredential> {
    let scheme_start = text[..at]
        .iter()
        .rev()
        .take(24)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        .count();
    if scheme_start == 0 {
        return None;
    }
    let scheme = at - scheme_start..at;
    let authority = at + 3;
    let limit = text.len().min(authority + MAX_URL);
    let body = &text[authority..limit];
    let end = body
        .iter()
        .position(|b| {
            matches!(
                b,
                b' ' | b'\t'
                    | b'\r'
                    | b'\n'
                    | b'"'
                    | b'\''
                    | b'`'
                    | b'<'
                    | b'>'
                    | b'|'
                    | b')'
                    | b'\\'
            ) || *b < 0x20
        })
        .unwrap_or(body.len());
    let body = &body[..end];
    let at_sign = end_of_user(body)?;
    let info = &body[..at_sign];
    let colon = info.iter().position(|&b| b == b':').unwrap_or(info.len());
    let user = authority..authority + colon;
    let password = (authority + colon + 1).min(authority + at_sign)..authority + at_sign;
    let rest = &body[at_sign + 1..];
    let host_len = rest
        .iter()
        .position(|b| {
            !(b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'.' | b'-'
                        | b'_'
                        | b':'
                        | b'['
                        | b']'
                        | b'%'
                        | b','
                        | b'*'
                        | b'$'
                        | b'{'
                        | b'}'
                ))
        })
        .unwrap_or(rest.len());
    let host = authority + at_sign + 1..authority + at_sign + 1 + host_len;
    let after = &rest[host_len..];
    let path = match after.first() {
        Some(b'/') => {
            let n = after[1..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
                .count();
            host.end + 1..host.end + 1 + n
        }
        _ => host.end..host.end,
    };
    Some(UrlCredential {
        scheme,
        user,
        password,
        host,
        path,
    })
}

/// The `@` that ends user and password. A password may hold any of these, so the last one before the path counts; a path
/// only begins after it.
fn end_of_user(body: &[u8]) -> Option<usize> {
    let slash = body.iter().position(|&b| b == b'/').unwrap_or(body.len());
    if let Some(at) = body[..slash].iter().rposition(|&b| b == b'@') {
        return Some(at);
    }
    // A password with an unescaped slash: accept when what follows the @ looks like a host.
    let at = body.iter().position(|&b| b == b'@')?;
    let before = &body[..at];
    if before.iter().any(|b| matches!(b, b'?' | b'&' | b'='))
        || before.iter().filter(|&&b| b == b'/').count() > 2
    {
        return None;
    }
    // host/path:thing@x is a path, not a password: the user comes before the first colon and has no slash.
    let colon = before.iter().position(|&b| b == b':')?;
    if before[..colon].contains(&b'/') || before[..colon].contains(&b'.') {
        return None;
    }
    // host:8080/path@2 is a port and a path.
    let port = before[colon + 1..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    (before.get(colon + 1 + port) != Some(&b'/')).then_some(at)
}

/// `user@host/path` of a URL, without the password.
pub fn identifier(text: &[u8], url: &UrlCredential) -> String {
    let part = |r: &Range<usize>| {
        String::from_utf8_lossy(&text[r.clone()])
            .chars()
            .filter(|c| !c.is_control())
            .take(120)
            .collect::<String>()
    };
    let (user, host, path) = (part(&url.user), part(&url.host), part(&url.path));
    let mut out = String::new();
    if !user.is_empty() {
        out.push_str(&user);
        out.push('@');
    }
    out.push_str(&host);
    if !path.is_empty() {
        out.push('/');
        out.push_str(&path);
    }
    out
}

/// For a value that is a whole URL.
pub fn derived(value: &[u8]) -> Derived {
    let Some(sep) = memchr::memmem::find(value, b"://") else {
        return Derived::default();
    };
    match at(value, sep) {
        Some(url) => Derived {
            identifier: identifier(value, &url),
            ..Derived::default()
        },
        None => {
            // A webhook: host and the public path segments, never the last one.
            let text = String::from_utf8_lossy(&value[sep + 3..]);
            let mut segments: Vec<&str> = text.split('/').collect();
            segments.pop();
            Derived {
                identifier: segments.join("/").chars().take(160).collect(),
                ..Derived::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, String)> {
        let b = text.as_bytes();
        let u = at(b, memchr::memmem::find(b, b"://")?)?;
        Some((text[u.password.clone()].to_string(), identifier(b, &u)))
    }

    #[test]
    fn passwords_and_who_they_are_for() {
        let yes = [
            (
                "postgres://app:s3cr3t@db.internal:5432/orders?sslmode=require",
                "s3cr3t",
                "app@db.internal:5432/orders",
            ),
            ("redis://:p4ss@cache:6379", "p4ss", "cache:6379"),
            (
                "mysql://u:m42p!o@2wd@host:3306/x",
                "m42p!o@2wd",
                "u@host:3306/x",
            ),
            ("amqp://u:a/b@mq.example.com/v", "a/b", "u@mq.example.com/v"),
        ];
        for (text, password, identifier) in yes {
            assert_eq!(
                parts(text),
                Some((password.to_string(), identifier.to_string())),
                "{text}"
            );
        }
        for text in [
            "https://example.com/a:b@c",
            "http://host:8080/x@2",
            "https://cdn.net/npm/pkg@1.2.3",
            "no url",
            "://x@y",
        ] {
            assert_eq!(parts(text).filter(|p| !p.0.is_empty()), None, "{text}");
        }
    }
}
