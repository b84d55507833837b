//! Forms that a secret does not have: names of things, paths, code, public keys.

use crate::checks::placeholder::contains_ignore_case;
use crate::checks::strength::{looks_random, worded};
use crate::checks::{Doubt, doubt, refers};

/// Sources of names in nsswitch.conf(5): `passwd: files systemd` is no password.
pub(super) fn name_service(value: &[u8]) -> bool {
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
pub(super) fn same_word(name: &[u8], value: &[u8]) -> bool {
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
    if n == v || n.ends_with(&v) || (n.len() >= 8 && value.contains(&b'_') && v.ends_with(&n)) {
        return true;
    }
    // "encryptionKey": "encryptionKey1024"; a password may be its own name and a number.
    let plain = |v: &[u8]| {
        v.iter()
            .rposition(|b| !b.is_ascii_digit())
            .map_or(0, |at| at + 1)
    };
    let (stem, of) = (&v[..plain(&v)], &n[..plain(&n)]);
    let made = [&b"key"[..], b"token", b"secret"];
    if stem.len() >= 6
        && of.ends_with(stem)
        && made.iter().any(|word| stem.ends_with(word))
        && !with_year(value)
    {
        return true;
    }
    // user_password, api-token, PasswordField: separators or camel case around a word of the trade, no digits but those at the
    // end of a member (form.password1).
    let word_like = value.iter().all(|b| {
        b.is_ascii_alphabetic() || matches!(b, b'_' | b'-' | b'.' | b' ' | b':' | b'/' | b'#')
    }) || member(value);
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

/// The word and a year (`secret2024`): what people choose who have to choose a new one. Numbers of things are shorter, or
/// lengths (`secret1024`).
pub(super) fn with_year(value: &[u8]) -> bool {
    let Some((word, year)) = value.split_last_chunk::<4>() else {
        return false;
    };
    matches!(
        year,
        [b'2', b'0', b'0'..=b'3', b'0'..=b'9'] | [b'1', b'9', b'7'..=b'9', b'0'..=b'9']
    ) && word.eq_ignore_ascii_case(b"secret")
}

/// A member of something, as code names it: words with dots between them, and numbers at their ends.
fn member(value: &[u8]) -> bool {
    value.contains(&b'.')
        && value.split(|b| *b == b'.').all(|word| {
            let digits = word.iter().rev().take_while(|b| b.is_ascii_digit()).count();
            let stem = &word[..word.len() - digits];
            digits <= 2 && stem.len() >= 2 && stem.iter().all(u8::is_ascii_alphabetic)
        })
}

/// Length of the passwords that Google and Apple make for programs.
pub(in crate::scan) const APP_PASSWORD: usize = 19;

/// A password as Google and Apple make and show it for programs: four groups of four small letters, with blanks or dashes
/// between them.
pub(in crate::scan) fn app_password(value: &[u8]) -> bool {
    let mut letters = [0u8; 16];
    value.len() == APP_PASSWORD
        && value.iter().enumerate().all(|(i, b)| {
            if i % 5 == 4 {
                return *b == value[4] && matches!(b, b' ' | b'-');
            }
            letters[i - i / 5] = *b;
            b.is_ascii_lowercase()
        })
        && !worded(&letters)
        // As manuals write it: abcd efgh, xxxx xxxx.
        && doubt(&letters) == Doubt::None
}

/// The id or fingerprint of an OpenPGP key: git keeps it as `signingkey`.
pub(super) fn key_id(name: &[u8], value: &[u8]) -> bool {
    let of_a_key = name.eq_ignore_ascii_case(b"signingkey")
        || [&b"gpg"[..], b"pgp"]
            .iter()
            .any(|word| contains_ignore_case(name, word));
    of_a_key && matches!(value.len(), 8 | 16 | 40) && value.iter().all(u8::is_ascii_hexdigit)
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

/// An id made of numbers, with colons between them: a key of several columns, a MAC or IPv6 address, a digest as
/// fingerprints are written.
pub(super) fn numbers_with_colons(value: &[u8]) -> bool {
    let mut parts = 0;
    for part in value.split(|b| *b == b':') {
        if !part.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        parts += 1;
    }
    parts >= 3
}

/// Forms that are not secrets: paths, URLs without password, numbers, versions, e-mail addresses, types, colours.
pub(super) fn no_secret(value: &[u8], random: bool) -> bool {
    let holds = |piece: &[u8]| memchr::memmem::find(value, piece).is_some();
    holds(b"://")
        || path(value, random)
        || refers(value)
        || marked(value)
        || sealed(value)
        || address(value)
        || resource(value)
        || rate(value)
        || number_literal(value)
        || numeric(value)
        || spliced(value, random)
        || mailbox(value)
        // Markup, format strings, globs, function bodies.
        || [&b"</"[..], b"%s", b"{}", b"=>", b"<%", b"**/"].into_iter().any(holds)
        || reads(value)
        || bundle(value)
        || !random && file_name(value)
}

/// Code between two strings, as it puts them together: `'<password>' + escape(p) + '</password>'`, `'..p..'`. What opens it
/// is the quote that closes the string before.
fn spliced(value: &[u8], random: bool) -> bool {
    let value = match value.trim_ascii() {
        [a @ (b'"' | b'\''), inner @ .., b] if a == b => inner.trim_ascii(),
        value => value,
    };
    [&b"+"[..], b".", b"..", b"&", b"||", b"~"]
        .into_iter()
        .filter_map(|sign| value.strip_prefix(sign)?.strip_suffix(sign))
        .any(|inside| {
            let named = inside.trim_ascii();
            let begins = named
                .first()
                .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$' | b'@'));
            let code = named
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"_.$@()[]{}<>-'\":, ".contains(b));
            let called = named.iter().any(|b| matches!(b, b'(' | b'[' | b'$'))
                || named.len() < inside.len()
                || member(named);
            begins && code && (called || !random)
        })
}

/// Code that reads a value from elsewhere is none, though it stands in quotes (a text within a text).
fn reads(value: &[u8]) -> bool {
    const READERS: &[&[u8]] = &[
        b"os.environ",
        b"os.getenv(",
        b"process.env.",
        b"process.env[",
        b"import.meta.env.",
        b"Deno.env.get(",
        b"System.getenv(",
        b"System.getProperty(",
        b"Environment.GetEnvironmentVariable(",
        b"getenv(",
        b"ENV[",
        b"ENV.fetch(",
        b"$ENV{",
        b"$_ENV[",
        b"$_SERVER[",
        b"env!(",
        b"std::env::var(",
        b"env::var(",
    ];
    READERS.iter().any(|reader| starts(value, reader))
}

/// A file that a bundler named after its content: words, a digest and an ending (`vendors~token.3f9a.chunk.js`). A secret
/// ends so by chance once in ten millions.
fn bundle(value: &[u8]) -> bool {
    const ENDINGS: &[&[u8]] = &[
        b".js", b".mjs", b".cjs", b".css", b".map", b".json", b".html", b".svg", b".png",
        b".woff2", b".wasm",
    ];
    ENDINGS.iter().any(|ending| {
        value
            .len()
            .checked_sub(ending.len())
            .is_some_and(|at| at > 0 && value[at..].eq_ignore_ascii_case(ending))
    })
}

fn starts(value: &[u8], mark: &[u8]) -> bool {
    value
        .get(..mark.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(mark))
}

/// Begins as a path does, and is made of words: base64 may begin with a slash.
fn path(value: &[u8], random: bool) -> bool {
    let drive = value.len() > 3 && value[1] == b':' && value[2] == b'\\';
    if !drive
        && ![&b"/"[..], b"./", b"../", b"~/"]
            .iter()
            .any(|m| starts(value, m))
    {
        return false;
    }
    let segments = value
        .split(|b| *b == b'/' || *b == b'\\')
        .filter(|s| !s.is_empty());
    let count = segments.clone().count();
    count == 0
        || segments.filter(|s| looks_random(s)).count() * 2 < count
            && !(random && value.len() >= 30 && value.len().is_multiple_of(4))
}

/// Marks of digests, of what is encrypted, of public keys, of options and escapes.
fn marked(value: &[u8]) -> bool {
    const MARKS: &[&[u8]] = &[
        b"data:",
        b"enc[",
        b"sha256:",
        b"sha512-",
        b"sha1-",
        b"sha256-",
        b"pk_live_",
        b"pk_test_",
        // Mapbox: what its pages hand to every browser.
        b"pk.eyJ",
        b"ssh-rsa ",
        b"ssh-ed25519 ",
        b"ecdsa-",
        b"-----BEGIN",
        b"--",
        b"\\x",
        // Signs and fonts of a manual page.
        b"\\[",
        b"\\f",
    ];
    MARKS.iter().any(|mark| starts(value, mark))
        || PUBLIC_KEY.iter().any(|mark| value.starts_with(mark))
}

/// Names of resources (`projects/p/secrets/s`): most of their segments are words. Base64 with slashes is not.
fn resource(value: &[u8]) -> bool {
    if value.iter().filter(|b| **b == b'/').count() < 2 {
        return false;
    }
    let (mut words, mut count, mut all) = (0, 0, 0);
    for segment in value.split(|b| *b == b'/').filter(|s| !s.is_empty()) {
        all += segment.len();
        if (2..=40).contains(&segment.len()) && !looks_random(segment) && worded(segment) {
            words += segment.len();
            count += 1;
        }
    }
    // One segment of base64 may look like a word by chance.
    count >= 2 && words * 3 >= all * 2
}

/// How often something may be done: `5/m/user`, `20/min,100/hour/ip`.
fn rate(value: &[u8]) -> bool {
    const UNITS: &[&[u8]] = &[
        b"s", b"sec", b"second", b"m", b"min", b"minute", b"h", b"hour", b"d", b"day",
    ];
    value.split(|b| matches!(b, b',' | b';')).all(|limit| {
        let mut parts = limit.split(|b| *b == b'/');
        let many = parts.next().unwrap_or_default();
        let unit = parts.next().unwrap_or_default();
        !many.is_empty()
            && many.iter().all(u8::is_ascii_digit)
            && UNITS.contains(
                &unit
                    .strip_suffix(b"s")
                    .filter(|u| u.len() > 1)
                    .unwrap_or(unit),
            )
            && parts.all(|of| of.iter().all(u8::is_ascii_alphabetic))
    })
}

/// Numbers, versions and ranges of them (^1.2.3, >=2), addresses, numbers with separators.
fn numeric(value: &[u8]) -> bool {
    let number = value
        .iter()
        .position(|b| !matches!(b, b'^' | b'~' | b'>' | b'<' | b'=' | b'v'))
        .map_or(value, |n| &value[n..]);
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    if digits == value.len() {
        return !(6..=20).contains(&digits);
    }
    number.len() < value.len()
        && number
            .iter()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'x' | b'*'))
        || digits > 0
            && value
                .iter()
                .all(|b| b.is_ascii_digit() || b".,:-/+ ".contains(b))
}

/// An e-mail address.
fn mailbox(value: &[u8]) -> bool {
    let Some(at) = value.iter().position(|b| *b == b'@').filter(|at| *at > 0) else {
        return false;
    };
    let (name, host) = (&value[..at], &value[at + 1..]);
    let digits = value.iter().filter(|b| b.is_ascii_digit()).count();
    host.iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && host.iter().rposition(|b| *b == b'.').is_some_and(|dot| {
            host.len() - dot <= 7 && host[dot + 1..].iter().all(u8::is_ascii_alphabetic)
        })
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(b))
        && digits * 3 < value.len()
}

fn file_name(value: &[u8]) -> bool {
    const ENDINGS: &[&[u8]] = &[
        b".txt", b".json", b".pem", b".key", b".crt", b".yml", b".yaml", b".js", b".ts", b".py",
        b".html", b".xml", b".php", b".java", b".conf", b".com", b".org", b".net", b".md", b".go",
        b".rb", b".h", b".c",
    ];
    ENDINGS.iter().any(|ending| {
        value.len() > ending.len()
            && value[value.len() - ending.len()..].eq_ignore_ascii_case(ending)
    })
}

/// Bare text that is code: calls, member access, indexing, operators.
pub(super) fn expression(value: &[u8], random: bool) -> bool {
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
    // `a.b!` of TypeScript says that it is not null.
    let value = value.strip_suffix(b"!").unwrap_or(value);
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
pub(super) fn wordy_identifier(value: &[u8]) -> bool {
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
pub(super) fn numbered_identifier(value: &[u8]) -> bool {
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

/// A value that Bitnami's controller sealed for the cluster: base64 of the length of an RSA-4096 block (2 bytes), the
/// block (512 bytes) and what it protects.
fn sealed(value: &[u8]) -> bool {
    value.len() >= 256
        && matches!(value, [b'A', b'g', b'A'..=b'D', ..])
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
}

/// An address of Ethereum and of what was made after it: `0x` and 20 bytes in hex. Its private keys have 32.
fn address(value: &[u8]) -> bool {
    value.len() == 42 && value.starts_with(b"0x") && value[2..].iter().all(u8::is_ascii_hexdigit)
}

/// The key of a cache: a version and a digest (`v1-9f86d0...`).
pub(super) fn cache_key(value: &[u8]) -> bool {
    let Some(dash) = value.iter().position(|b| *b == b'-') else {
        return false;
    };
    let (version, digest) = (&value[..dash], &value[dash + 1..]);
    matches!(version, [b'v', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
        && matches!(digest.len(), 32 | 40 | 64)
        && digest.iter().all(u8::is_ascii_hexdigit)
}

/// A number in hexadecimal, with an exponent, or with the suffix of its type.
fn number_literal(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"-").unwrap_or(value);
    // Of 64 bits at most: a key has more.
    if let Some(hex) = value
        .strip_prefix(b"0x")
        .or_else(|| value.strip_prefix(b"0X"))
    {
        let digits = hex.iter().filter(|b| b.is_ascii_hexdigit()).count();
        if (1..=16).contains(&digits) && hex.iter().all(|b| b.is_ascii_hexdigit() || *b == b'_') {
            return true;
        }
    }
    // 7.038531e-26
    if value.len() < 24
        && value.first().is_some_and(u8::is_ascii_digit)
        && value.contains(&b'.')
        && std::str::from_utf8(value).is_ok_and(|text| text.parse::<f64>().is_ok())
    {
        return true;
    }
    let Some(at) = value.iter().rposition(|b| matches!(b, b'u' | b'i' | b'f')) else {
        return false;
    };
    let digits = value[..at].strip_suffix(b"_").unwrap_or(&value[..at]);
    matches!(
        &value[at + 1..],
        b"8" | b"16" | b"32" | b"64" | b"128" | b"size"
    ) && match digits.strip_prefix(b"0x") {
        Some(hex) => hex.iter().all(|b| b.is_ascii_hexdigit() || *b == b'_'),
        None => digits
            .iter()
            .all(|b| b.is_ascii_digit() || matches!(b, b'_' | b'.')),
    }
}
