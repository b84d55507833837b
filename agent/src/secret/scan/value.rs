//! Is the value of a secret-sounding name a secret?

use super::name::NameClass;
use crate::secret::checks::strength::{distinct, entropy, looks_random, worded};
use crate::secret::checks::{Doubt, doubt};

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Between quotes or XML tags: a literal.
    Quoted,
    /// Bare, where a literal is expected (configuration file, environment, `NAME=value` at the start of a line).
    Bare,
    /// Bare and alone after a name at the start of a line: YAML or INI, or a declaration in source code.
    Line,
    /// The value of a flag on a command line; a word of its help text as likely.
    Flag,
    /// Quoted, on the other side of a comparison: names of things as likely.
    Compared,
    /// One of a list of quoted words.
    Listed,
    /// Bare, where code is as likely.
    Code,
}

/// What the bytes of a value are, counted once.
struct Shape {
    digits: usize,
    letters: usize,
    /// Neither letter nor digit.
    symbols: usize,
    /// Symbols that do not occur in names of things: all but `_`, `-`, `.`, `:` and `/`.
    marks: usize,
    random: bool,
}

impl Shape {
    fn of(value: &[u8]) -> Shape {
        let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
        let letters = value.iter().filter(|b| b.is_ascii_alphabetic()).count();
        let plain = value
            .iter()
            .filter(|b| matches!(b, b'_' | b'-' | b'.' | b':' | b'/'))
            .count();
        let symbols = value.len() - digits - letters;
        Shape {
            digits,
            letters,
            symbols,
            marks: symbols - plain,
            random: looks_random(value),
        }
    }
}

/// Confidence that the value is a secret; `None`: it is none. The numbers are the shares measured on the development set
/// (docs/EVALUATION.md, table of claimed and measured precision).
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
    match doubt(value) {
        Doubt::Hard | Doubt::Word => return None,
        Doubt::Soft if class != NameClass::Password => return None,
        _ => {}
    }
    let shape = Shape::of(value);
    // Words stand in lists; only what no word can be is a value there.
    if written == Written::Listed && !(shape.random && value.len() >= 20) {
        return None;
    }
    if same_word(name, value)
        || no_secret(value, shape.random)
        || (written != Written::Quoted && expression(value, shape.random))
        || (name == b"passwd" && name_service(value))
    {
        return None;
    }
    match class {
        NameClass::Password => password(value, &shape, written),
        NameClass::Secret => secret(value, &shape, written),
        NameClass::Key => key(name, value, &shape, written),
    }
}

/// A value after a name that says password: people choose them, so a word may be one.
fn password(value: &[u8], shape: &Shape, written: Written) -> Option<f64> {
    // Other scripts: a translation of the label, unless digits make it a password.
    if shape.digits == 0 && value.iter().any(|b| !b.is_ascii()) {
        return None;
    }
    if value.contains(&b' ') && (written != Written::Bare || value.contains(&b':')) {
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
    if wordy_identifier(value) || numbered_identifier(value) || trial(value) {
        return None;
    }
    if shape.random {
        return Some(if written == Written::Code { 0.55 } else { 0.68 });
    }
    let mixed = shape.digits > 0 && shape.letters > 0;
    match written {
        // Names of things stand there far more often; a password has signs or digits that they have not.
        Written::Code => {
            (mixed && value.len() >= 6 && (shape.marks > 0 || shape.digits >= 2)).then_some(0.3)
        }
        Written::Compared | Written::Flag => {
            ((mixed || shape.marks > 0) && value.len() >= 6).then_some(0.5)
        }
        _ if mixed && value.len() >= 6 => Some(0.62),
        _ if value.len() >= 6 && shape.marks > 0 && shape.letters > 0 => Some(0.52),
        // A capital word is a type or a label.
        _ if shape.letters == value.len() && value[0].is_ascii_uppercase() => None,
        Written::Line => Some(0.2),
        _ => Some(0.3),
    }
}

/// A value after a name that says token or secret: machines make them.
fn secret(value: &[u8], shape: &Shape, written: Written) -> Option<f64> {
    if value.contains(&b' ') || !value.is_ascii() || by_hand(value) || pattern(value) {
        return None;
    }
    // Ids of spans and builds are that short.
    if value.len() < 20 && value.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    if wordy_identifier(value)
        || numbered_identifier(value)
        || (value[0] == b'$' && worded(&value[1..]))
        || (written != Written::Quoted && value.contains(&b'-') && worded(value))
    {
        return None;
    }
    if shape.random {
        return Some(match written {
            Written::Code => 0.55,
            _ if value.len() < 16 => 0.58,
            _ => 0.68,
        });
    }
    if written == Written::Code {
        return None;
    }
    // A secret made by a person: letters with digits or signs, not a word.
    (value.len() >= 10
        && (shape.digits >= 2 || shape.symbols >= 2)
        && shape.letters >= 3
        && (shape.digits >= 1 || shape.marks >= 1)
        && distinct(value) >= 7
        && entropy(value) >= 2.8)
        .then_some(0.3)
}

/// Brackets and backslashes as expressions have them: few, among words; a generated secret has many signs of all sorts.
fn pattern(value: &[u8]) -> bool {
    let brackets = value
        .iter()
        .filter(|b| b"\\()[]{}<>|;,`\"'".contains(b))
        .count();
    if brackets == 0 {
        return false;
    }
    const SYNTAX: &[&[u8]] = &[
        b"(?", b"[^", b"\\s", b"\\d", b"\\w", b"\\(", b"\\.", b"\\|", b"]*", b"]+", b")*", b")+",
        b".*", b".+", b"[a-", b"[A-", b"[0-",
    ];
    let signs = value.iter().filter(|b| b.is_ascii_punctuation()).count();
    value.len() < 20
        || signs * 4 < value.len()
        || distinct(value) * 3 < value.len() * 2
        || SYNTAX
            .iter()
            .any(|s| memchr::memmem::find(value, s).is_some())
}

/// Typed by a person to look like a secret: a run of six letters or digits in order, or pairs that count
/// (`d4c3b2a1`). In random text of 40 characters a run of six happens once in a million.
fn by_hand(value: &[u8]) -> bool {
    let next = |a: u8, b: u8| {
        a.is_ascii_alphanumeric() && (b == a.wrapping_add(1) || (a == b'9' && b == b'0'))
    };
    let mut run = 1;
    let mut pairs = 1;
    for (i, w) in value.windows(2).enumerate() {
        run = if next(w[0].to_ascii_lowercase(), w[1].to_ascii_lowercase()) {
            run + 1
        } else {
            1
        };
        if run >= 6 {
            return true;
        }
        // a1b2c3: every other character goes on.
        if i >= 1 {
            let (a, b) = (value[i - 1], value[i + 1]);
            pairs = if next(a, b) || next(b, a) {
                pairs + 1
            } else {
                1
            };
            if pairs >= 6 {
                return true;
            }
        }
    }
    false
}

/// Words that tests and manuals use for any password, with a number or sign at the end at most.
fn trial(value: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"test",
        b"tester",
        b"testing",
        b"demo",
        b"sample",
        b"dummy",
        b"foo",
        b"bar",
        b"foobar",
        b"abc",
        b"example",
        b"supersecret",
        b"mysecret",
        b"topsecret",
        b"token",
        b"user",
        b"guest",
        b"anonymous",
        b"qux",
        b"sesame",
        b"opensesame",
        b"open_sesame",
        b"letmein",
        b"logmein",
        b"fake",
        b"mock",
        b"string",
        b"value",
    ];
    let mut plain = [0u8; 24];
    let mut n = 0;
    for &b in value.iter().take(24) {
        let b = b.to_ascii_lowercase();
        if b.is_ascii_alphabetic() || b == b'_' {
            plain[n] = b;
            n += 1;
        }
    }
    value.len() <= n + 4
        && WORDS.contains(&&plain[..n])
        // An address without a host: what anonymous FTP asks for.
        || value.last() == Some(&b'@')
            && value[..value.len() - 1].iter().all(u8::is_ascii_alphabetic)
}

/// A value after a name that ends in `key` and says no more: database keys, cache keys, map keys. Only what can hardly
/// be anything but random counts.
fn key(name: &[u8], value: &[u8], shape: &Shape, written: Written) -> Option<f64> {
    if value
        .iter()
        .any(|b| !(b.is_ascii_alphanumeric() || b"+/=_-.~!@#$%^&*:".contains(b)))
    {
        return None;
    }
    // Hex of a digest's length is an id or a fingerprint, except after a variable of the environment.
    let hex = value.iter().all(u8::is_ascii_hexdigit);
    if hex
        && (name.iter().any(u8::is_ascii_lowercase)
            || value.iter().any(u8::is_ascii_uppercase) && value.len() == 40)
    {
        return None;
    }
    let strong = shape.random
        && !by_hand(value)
        && !(value.contains(&b'-')
            && value
                .split(|b| *b == b'-')
                .any(|w| w.len() >= 3 && w.iter().all(u8::is_ascii_alphabetic) && worded(w)))
        && shape.digits >= if value.len() >= 32 { 1 } else { 2 }
        && entropy(value) >= if value.len() >= 24 { 3.3 } else { 3.4 };
    (strong && written != Written::Code).then_some(if value.len() >= 24 { 0.5 } else { 0.35 })
}

/// Sources of names in nsswitch.conf(5): `passwd: files systemd` is no password.
fn name_service(value: &[u8]) -> bool {
    const SERVICES: &[&[u8]] = &[
        b"files",
        b"compat",
        b"systemd",
        b"ldap",
        b"nis",
        b"nisplus",
        b"sss",
        b"winbind",
        b"db",
        b"dns",
        b"extrausers",
        b"cache",
        b"mymachines",
        b"hesiod",
    ];
    value
        .split(|b| *b == b' ')
        .next()
        .is_some_and(|first| SERVICES.contains(&first))
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

/// How public keys and certificates begin, in base64: SubjectPublicKeyInfo of the usual algorithms, OpenSSH wire form,
/// a Certificate whose first field is a TBSCertificate.
const PUBLIC_KEY: &[&[u8]] = &[
    b"MIIBIjANBgkqhkiG9w0BAQEF",
    b"MIICIjANBgkqhkiG9w0BAQEF",
    b"MIIBojANBgkqhkiG9w0BAQEF",
    b"MIGfMA0GCSqGSIb3DQEBAQUA",
    b"MFwwDQYJKoZIhvcNAQEB",
    b"MFkwEwYHKoZIzj0CAQYI",
    b"MHYwEAYHKoZIzj0CAQYF",
    b"MIGbMBAGByqGSM49AgEG",
    b"MCowBQYDK2Vw",
    b"AAAAB3NzaC1",
    b"AAAAC3NzaC1",
    b"AAAAE2VjZHNh",
    b"MIIDdzCCAl",
    b"MIICljCC",
];

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
        || PUBLIC_KEY.iter().any(|p| value.starts_with(p))
    {
        return true;
    }
    // Names of resources (`projects/p/secrets/s`): most of their segments are words. Base64 with slashes is not.
    if value.iter().filter(|b| **b == b'/').count() >= 2 {
        let (mut words, mut all) = (0, 0);
        for segment in value.split(|b| *b == b'/').filter(|s| !s.is_empty()) {
            all += segment.len();
            if segment.len() >= 2
                && segment.len() <= 40
                && !looks_random(segment)
                && worded(segment)
            {
                words += segment.len();
            }
        }
        if words * 3 >= all * 2 {
            return true;
        }
    }
    // Options and escapes.
    if starts(b"--") || starts(b"\\x") {
        return true;
    }
    // Versions and ranges of them: ^1.2.3, ~1.2, >=2.
    let number = value
        .iter()
        .position(|b| !matches!(b, b'^' | b'~' | b'>' | b'<' | b'=' | b'v'))
        .map_or(value, |n| &value[n..]);
    if number.len() < value.len()
        && number
            .iter()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'x' | b'*'))
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
                && (s.len() < 12 || !looks_random(s))
        });
    // Members of what code calls its own.
    const OWN: &[&[u8]] = &[
        b"self.",
        b"this.",
        b"cls.",
        b"args.",
        b"config.",
        b"settings.",
        b"props.",
        b"options.",
        b"opts.",
        b"params.",
        b"request.",
        b"req.",
        b"process.env",
        b"os.environ",
        b"env.",
        b"ENV.",
        b"secrets.",
        b"vars.",
        b"var.",
        b"local.",
        b"data.",
        b"module.",
        b"inputs.",
        b"github.",
    ];
    dotted
        || OWN.iter().any(|o| value.starts_with(o))
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

/// Names of things with numbers at the ends of their words: `ssh2_auth_file`, `param_1`, `sha256-hash`.
fn numbered_identifier(value: &[u8]) -> bool {
    let mut words = 0;
    let mut letters = 0;
    for word in value.split(|b| matches!(b, b'_' | b'-' | b'.' | b':' | b'/')) {
        if word.is_empty() {
            continue;
        }
        words += 1;
        let digits = word.iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let stem = &word[..word.len() - digits];
        if digits > 3 || !stem.iter().all(u8::is_ascii_alphabetic) {
            return false;
        }
        // One case, or a capital at the head.
        let upper = stem.iter().filter(|b| b.is_ascii_uppercase()).count();
        if upper != 0 && upper != stem.len() && !(upper == 1 && stem[0].is_ascii_uppercase()) {
            return false;
        }
        letters += stem.len();
    }
    words >= 3 && letters >= words * 2 || words == 2 && letters >= 8 && value.contains(&b'_')
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
            "tr$easure7",
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
