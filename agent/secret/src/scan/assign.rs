//! `name = value` in any notation: shell, INI, YAML, JSON, TOML, XML, properties, source code, command lines.

pub mod list;
mod literal;
mod operator;

use super::name::{self, NameClass};
use super::value::{self, Written};
use crate::checks::looks_random;
use crate::checks::placeholder::contains_ignore_case;
use crate::checks::strength::phrased;
use literal::{in_string, literal};
use operator::{Operator, operator};
use std::ops::Range;

/// A secret-sounding name with a value that looks like a secret.
#[derive(Debug, PartialEq)]
pub struct Assignment {
    pub name: Range<usize>,
    pub value: Range<usize>,
    pub class: NameClass,
    pub confidence: f64,
}

const MAX_SPACE: usize = 48;

/// What reading an assignment costs, in bytes inspected: a value ends with a blank, a quote or its line.
pub fn cost(text: &[u8], name_end: usize) -> usize {
    let rest = &text[name_end..text.len().min(name_end + literal::MAX_VALUE)];
    // Without a sign nothing is read.
    let sign = rest.iter().take(3).any(|b| {
        matches!(
            b,
            b'=' | b':' | b'>' | b'(' | b'[' | b',' | b' ' | b'"' | b'\'' | b'`'
        )
    });
    if sign {
        16 + memchr::memchr3(b' ', b'\n', b'"', rest).unwrap_or(rest.len())
    } else {
        16
    }
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$')
}

/// The name around a word that was seen.
pub fn name_around(text: &[u8], word: &Range<usize>) -> Range<usize> {
    let before = text[..word.start]
        .iter()
        .rev()
        .take(64)
        .take_while(|b| name_byte(**b))
        .count();
    let after = text[word.end..]
        .iter()
        .take(48)
        .take_while(|b| name_byte(**b))
        .count();
    let mut start = word.start - before;
    // An escape (\n, \t) before the name belongs to the text around it.
    if start > 0
        && text[start - 1] == b'\\'
        && before > 0
        && matches!(text[start], b'n' | b't' | b'r')
    {
        start += 1;
    }
    // What tells a terminal to change colour stands before the name and ends with a letter.
    if before > 0 && text[..start].ends_with(b"\x1b[") {
        let digits = text[start..word.start]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if start + digits < word.start {
            start += digits + 1;
        }
    }
    start..word.end + after
}

/// What bare values are in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// A configuration file: literals.
    Config,
    /// Source code: names of things.
    Source,
    /// Unknown: what notation and place suggest.
    Other,
}

/// Reads the assignment to the name.
pub fn read(text: &[u8], name: Range<usize>, kind: TextKind) -> Option<Assignment> {
    // First: cheaper than judging the name, and absent after most words.
    let (at, operator) = operator(text, &name)?;
    let class = name::classify(
        text[name.clone()]
            .trim_ascii_start()
            .strip_prefix(b"--")
            .unwrap_or(&text[name.clone()]),
    )?;
    let (range, written) = literal(text, at, operator, &name, kind)?;
    let (range, written) = match literal::default(text, &range) {
        Some(inside) => (inside, Written::Quoted),
        None => (range, written),
    };
    // '"value"': quotes within quotes belong to the notation.
    let range = match &text[range.clone()] {
        [a @ (b'"' | b'\''), .., b] if a == b && range.len() > 2 => range.start + 1..range.end - 1,
        _ => range,
    };
    // What a call takes under a name that only says key is mostly a name itself.
    if class == NameClass::Key && operator == Operator::Argument {
        return None;
    }
    if verdict(text, &name)
        || name_of_source(&text[range.clone()], written, kind) && !in_string(text, &name)
    {
        return None;
    }
    // Of several arguments the first is another thing, unless it can be nothing else.
    if operator == Operator::Argument
        && more_arguments(text, range.end)
        && !looks_random(&text[range.clone()])
    {
        return None;
    }
    let confidence = value::judge(class, &text[name.clone()], &text[range.clone()], written)?;
    Some(Assignment {
        name,
        value: range,
        class,
        confidence,
    })
}

/// `--- PASS: TestName (0.07s)`, `PASS: tests/name.sh`: how a test ended.
fn verdict(text: &[u8], name: &Range<usize>) -> bool {
    &text[name.clone()] == b"PASS"
        && text[name.end..].starts_with(b": ")
        && (text[..name.start].ends_with(b"--- ") || {
            let value = &text[name.end + 2..text.len().min(name.end + 160)];
            let value = value
                .split(u8::is_ascii_whitespace)
                .next()
                .unwrap_or_default();
            value.contains(&b'/') && !looks_random(value)
        })
}

/// In source code what stands without quotes has a name; one of words and numbers is no secret in a comment either.
fn name_of_source(value: &[u8], written: Written, kind: TextKind) -> bool {
    kind == TextKind::Source
        && written == Written::Code
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
        && value.iter().any(u8::is_ascii_alphabetic)
        && (phrased(value) || names_member(value))
}

/// A type or a field of something, which says what it is: `ed25519.Ed25519PrivateKey`.
fn names_member(value: &[u8]) -> bool {
    const TRADE: &[&[u8]] = &[
        b"key",
        b"token",
        b"secret",
        b"password",
        b"credential",
        b"pass",
    ];
    let mut words = value.split(|b| *b == b'.');
    let named = |word: &[u8]| {
        word.first()
            .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
    };
    value.contains(&b'.')
        && value.len() < 64
        && words.all(named)
        && TRADE.iter().any(|word| contains_ignore_case(value, word))
}

/// Behind the quote at `end` another text follows, or something is put behind this one: it need not be the password. What
/// makes another type of it does not count.
fn more_arguments(text: &[u8], end: usize) -> bool {
    const CONVERSIONS: [&[u8]; 8] = [
        b"tochararray",
        b"to_string",
        b"tostring",
        b"to_owned",
        b"into",
        b"getbytes",
        b"encode",
        b"as_",
    ];
    let rest = &text[end..text.len().min(end + 32)];
    let rest = rest
        .strip_prefix(b"\"")
        .or_else(|| rest.strip_prefix(b"'"))
        .unwrap_or_default()
        .trim_ascii_start();
    match rest.split_first() {
        Some((b',', next)) => matches!(next.trim_ascii_start().first(), Some(b'"' | b'\'')),
        Some((b'.', next)) => {
            let next = next.to_ascii_lowercase();
            !CONVERSIONS.iter().any(|name| next.starts_with(name))
        }
        Some((first, _)) => *first == b'+',
        None => false,
    }
}

/// Skips blanks, and what tells a terminal to change colour.
fn skip_space(text: &[u8], from: usize, limit: usize) -> usize {
    let blanks = |from: usize| {
        from + text[from.min(limit)..limit]
            .iter()
            .take(MAX_SPACE)
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count()
    };
    let at = blanks(from);
    match super::controls(text.get(at..limit).unwrap_or_default()) {
        0 => at,
        length => blanks(at + length),
    }
}

/// A name with a sign behind it that begins its line.
pub fn begins_line(text: &[u8], name: &Range<usize>) -> bool {
    let sign = skip_space(text, name.end, text.len());
    matches!(text.get(sign), Some(b'=' | b':')) && at_line_start(text, name.start)
}

/// Only white space, comment signs, a dash of a list or `export` stand before the name on its line.
fn at_line_start(text: &[u8], name: usize) -> bool {
    let line = text[..name]
        .iter()
        .rev()
        .take(40)
        .take_while(|b| !matches!(b, b'\n'))
        .count();
    let before = text[name - line..name].trim_ascii();
    if line == 40 && !before.is_empty() {
        return false;
    }
    before.is_empty()
        || matches!(
            before,
            b"#" | b"//"
                | b"-"
                | b"export"
                | b"set"
                | b"SET"
                | b"ENV"
                | b"-e"
                | b"declare -x"
                | b"local"
                | b"env:"
                | b"$"
                | b"# export"
                | b"\""
                | b"'"
                | b"- \""
                | b"REM SET"
                | b";"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<&str> {
        let lower = text.to_ascii_lowercase();
        let word = ["password", "passwd", "pass", "token", "secret", "key"]
            .iter()
            .find_map(|w| lower.find(w).map(|i| i..i + w.len()))?;
        read(
            text.as_bytes(),
            name_around(text.as_bytes(), &word),
            TextKind::Other,
        )
        .map(|a| &text[a.value])
    }

    #[test]
    fn names_in_source_and_passwords_in_its_strings() {
        let read = |text: &str| {
            let at = text.find("assword").unwrap();
            let name = name_around(text.as_bytes(), &(at..at + 7));
            read(text.as_bytes(), name, TextKind::Source).map(|a| text[a.value].to_owned())
        };
        for text in [
            "Password: password16,",
            "userPassword: Account2.Password1,",
            "DefaultPassword = InitialPassword22",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        for (text, value) in [
            (
                "dsn := \"user=app password=Summer2024 host=db\"",
                "Summer2024",
            ),
            ("Password: \"Summer2024\",", "Summer2024"),
            ("// password: q3VtZcK8s1LwXy7B", "q3VtZcK8s1LwXy7B"),
        ] {
            assert_eq!(read(text).as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn every_notation() {
        for (text, want) in [
            ("DB_PASSWORD=hunter2x", "hunter2x"),
            ("export DB_PASSWORD='hunter2x'", "hunter2x"),
            ("db.password = hunter2x", "hunter2x"),
            ("  password: hunter2x", "hunter2x"),
            ("\"password\": \"hunter2x\",", "hunter2x"),
            ("{\\\"password\\\": \\\"hunter2x\\\"}", "hunter2x"),
            (":password => 'hunter2x'", "hunter2x"),
            ("password := \"hunter2x\"", "hunter2x"),
            ("String password = \"hunter2x\";", "hunter2x"),
            ("password: str = \"hunter2x\"", "hunter2x"),
            ("var password string = \"hunter2x\"", "hunter2x"),
            ("config[\"password\"] = \"hunter2x\"", "hunter2x"),
            ("define('DB_PASSWORD', 'hunter2x');", "hunter2x"),
            ("setPassword(\"hunter2x\")", "hunter2x"),
            ("<password>hunter2x</password>", "hunter2x"),
            (
                "<add key=\"FromEmailPassword\" value=\"hunter2x\"/>",
                "hunter2x",
            ),
            ("if password == \"hunter2x\":", "hunter2x"),
            (
                "Server=a;User Id=b;Password=hunter2x;Database=c",
                "hunter2x",
            ),
            ("mysql --password=hunter2x", "hunter2x"),
            ("mysql --password hunter2x", "hunter2x"),
            ("the password is \"hunter2x\" and", "hunter2x"),
            ("char password[32] = \"hunter2x\";", "hunter2x"),
            ("password = b\"hunter2x\"", "hunter2x"),
            ("FROM a\nENV DB_PASSWORD hunter2x\nRUN x", "hunter2x"),
            ("set -gx DB_PASSWORD hunter2x", "hunter2x"),
            ("- cmd: set -x DB_PASSWORD hunter2x\n  when: 1", "hunter2x"),
            ("setenv DB_PASSWORD hunter2x", "hunter2x"),
            ("setx DB_PASSWORD \"hunter2x\"", "hunter2x"),
            ("setx DB_PASSWORD hunter2x", "hunter2x"),
            ("  fastcgi_param DB_PASSWORD hunter2x;\n", "hunter2x"),
            ("uwsgi_param DB_PASSWORD \"hunter2x\";", "hunter2x"),
            ("\tproxy_set_header X-Password hunter2x;", "hunter2x"),
            ("Const Password As String = \"hunter2x\"", "hunter2x"),
            (
                "Private Const DbPassword As String = \"hunter2x\"",
                "hunter2x",
            ),
            ("#define DB_PASSWORD \"hunter2x\"", "hunter2x"),
            (
                "variable \"db_password\" {\n  type = string\n  default = \"hunter2x\"\n}",
                "hunter2x",
            ),
            ("- name: DB_PASSWORD\n  value: hunter22x", "hunter22x"),
            ("- key: DB_PASSWORD\n  val: hunter22x", "hunter22x"),
            (
                "[Environment]::SetEnvironmentVariable('DB_PASSWORD', 'hunter2x', 'User')",
                "hunter2x",
            ),
            ("ENV['DB_PASSWORD'] ||= 'hunter2x'", "hunter2x"),
            ("DB_PASSWORD = (\n    \"hunter2x\"\n)", "hunter2x"),
            (
                "<key>DB_PASSWORD</key>\n  <string>hunter2x</string>",
                "hunter2x",
            ),
            ("  password: |-\n    hunter2x\n  other: x", "hunter2x"),
            ("password: >-\n  hunter2x\n", "hunter2x"),
            ("[\"--db-password\",\n  \"hunter2x\"]", "hunter2x"),
            ("x \"${DB_PASSWORD:-hunter2x}\"", "hunter2x"),
        ] {
            assert_eq!(value(text), Some(want), "{text}");
        }
        for text in [
            "password = getpass()",
            "password: $PASSWORD",
            "if password == other:",
            "def login(self, password=None):",
            "token = self.token",
            "Password:",
            "password = request.form['password']",
            "<password></password>",
            "password_file = /etc/x",
            "#define DB_PASSWORD hunter2x",
            "#define FIPS_KEY_STRING \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"",
            "#define DB_PASSWORD (hunter2x)",
            "ENV DB_PASSWORD $hunter2x",
            "fastcgi_param DB_PASSWORD $hunter2x;",
            "x \"${DB_PASSWORD:?hunter2x}\"",
            "x \"${DB_PASSWORD:+hunter2x}\"",
            "Dim Password As String",
            "the ENV password hunter2x",
            "variable \"db_password\" {\n  type = string\n}\nvariable \"x\" {\n  default = \"hunter2x\"\n}",
            "module \"db_password\" {\n  default = \"hunter2x\"\n}",
            "- key: DB_PASSWORD\n  valid: hunter2x",
            "password: |-\n  hunter2x\n  hunter3x\n",
            "password: >-\nhunter2x\n",
            "[\"--db-password\", \"--hunter2x\"]",
            "x {DB_PASSWORD:-hunter2x}",
            "tokens.push(key)",
            "std::pass::x",
            "sb.append(\"Password: \" + get() + \",\");",
            "echo 'password = '.$p['x']",
            "label: \"Password:\",next:\"Remember me\"",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
