//! Whose a connection string's password is: the fields beside it.

use crate::scan::text::clean;
use std::ops::Range;

/// How far from the password its fields are looked for, in bytes.
const REACH: usize = 700;
/// Most fields that are read.
const FIELDS: usize = 40;

const HOST: &[&str] = &[
    "server",
    "host",
    "hostname",
    "hostaddr",
    "datasource",
    "addr",
    "address",
    "networkaddress",
];
const USER: &[&str] = &["userid", "username", "user", "uid"];
const DATABASE: &[&str] = &["database", "dbname", "initialcatalog"];

/// `user@host/database` from the fields around the password of ADO, ODBC and libpq. Driver and provider name software and
/// nobody's account. Empty when none of the three stands there.
pub fn owner(text: &[u8], password: &Range<usize>) -> String {
    let whole = around(text, password);
    let fields = fields(whole);
    let of = |names: &[&str]| {
        fields
            .iter()
            .find(|(name, value)| names.iter().any(|n| name.ends_with(n)) && !value.is_empty())
            .map(|(_, value)| clean(value))
            .unwrap_or_default()
    };
    let (user, host, database) = (of(USER), of(HOST), of(DATABASE));
    let mut out = user;
    if !host.is_empty() {
        if !out.is_empty() {
            out.push('@');
        }
        out.push_str(&host);
    }
    if !database.is_empty() {
        out.push('/');
        out.push_str(&database);
    }
    out
}

/// The string that the password stands in: to the quotes, tags or line breaks around it.
fn around<'t>(text: &'t [u8], password: &Range<usize>) -> &'t [u8] {
    let ends = |b: &u8| matches!(b, b'"' | b'\'' | b'`' | b'\n' | b'\r' | b'<' | b'>');
    let low = password.start.saturating_sub(REACH);
    let high = text.len().min(password.end + REACH);
    let from = text[low..password.start]
        .iter()
        .rposition(ends)
        .map_or(low, |at| low + at + 1);
    let to = text[password.end..high]
        .iter()
        .position(ends)
        .map_or(high, |at| password.end + at);
    &text[from..to]
}

/// Names, in small letters without signs and blanks, and values.
fn fields(text: &[u8]) -> Vec<(String, &[u8])> {
    let semicolons = text.contains(&b';');
    let ends = |b: u8| match semicolons {
        true => b == b';',
        false => b.is_ascii_whitespace(),
    };
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && out.len() < FIELDS {
        let Some(sign) = rest.iter().position(|b| *b == b'=' || ends(*b)) else {
            break;
        };
        let (name, after) = (&rest[..sign], &rest[sign + 1..]);
        if rest[sign] != b'=' {
            rest = after;
            continue;
        }
        let value = after.trim_ascii_start();
        let start = after.len() - value.len();
        // {a value with any sign in it} of ODBC
        let braced = value
            .strip_prefix(b"{")
            .and_then(|inner| inner.iter().position(|b| *b == b'}'));
        let length = match braced {
            Some(inner) => inner + 2,
            // `ConnectionString=Server=...`: the name before it is the variable's.
            None => value
                .iter()
                .position(|b| ends(*b) || *b == b'=')
                .unwrap_or(value.len()),
        };
        if braced.is_none() && value.get(length) == Some(&b'=') && !is_field(name) {
            rest = after;
            continue;
        }
        let length = match braced {
            Some(_) => length,
            None => value.iter().position(|b| ends(*b)).unwrap_or(value.len()),
        };
        let shown = value[..length].trim_ascii();
        let shown = shown.strip_prefix(b"tcp:").unwrap_or(shown);
        out.push((squeezed(name), shown));
        rest = &after[start + length..];
        rest = rest.get(1..).unwrap_or_default();
    }
    out
}

fn is_field(name: &[u8]) -> bool {
    let name = squeezed(name);
    [HOST, USER, DATABASE, &["password", "pwd"]]
        .into_iter()
        .flatten()
        .any(|known| name.ends_with(known))
}

fn squeezed(name: &[u8]) -> String {
    let letters = name.iter().filter(|b| b.is_ascii_alphanumeric());
    letters.map(|b| b.to_ascii_lowercase() as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_and_never_the_driver() {
        for (text, want) in [
            (
                "Driver={ODBC Driver 18 for SQL; Server=x};Server=s1.corp;UID=svc;PWD=§;",
                "svc@s1.corp",
            ),
            (
                "Provider=SQLOLEDB;Data Source=db1,1433;Initial Catalog=shop;User Id=app;Password=§",
                "app@db1,1433/shop",
            ),
            (
                "PWD=§;UID=svc;Server=tcp:s.windows.net",
                "svc@s.windows.net",
            ),
            ("A=Server=s;User=u;Password=§", "u@s"),
            ("\"Default\": \"Host=h;Username=u;Password=§\"", "u@h"),
            ("psql host=db user=svc password=§ dbname=app", "svc@db/app"),
            ("x password=§", ""),
        ] {
            let at = text.find('§').unwrap();
            let text = text.replace('§', "n8Kq2LmV7xPz");
            assert_eq!(owner(text.as_bytes(), &(at..at + 12)), want, "{text}");
        }
    }
}
