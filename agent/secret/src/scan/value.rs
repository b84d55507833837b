//! Is the value of a secret-sounding name a secret?

mod forms;
mod typed;

use super::name::NameClass;
use crate::checks::strength::{distinct, entropy, looks_random, phrased, worded};
use crate::checks::{Doubt, doubt, doubt_of_password};
pub(super) use forms::{APP_PASSWORD, app_password};
use forms::{
    cache_key, expression, key_id, name_service, no_secret, numbered_identifier,
    numbers_with_colons, same_word, with_year, wordy_identifier,
};
use typed::{by_hand, pattern, trial};

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

/// Most that is claimed of a password that counts up or repeats itself.
const BY_HAND: f64 = 0.4;

/// Longest value that is judged.
const MAX_VALUE: usize = 8192;

/// Confidence that the value is a secret; `None`: it is none. The numbers are the shares measured on the development set
/// (docs/EVALUATION.md, table of claimed and measured precision).
pub fn judge(class: NameClass, name: &[u8], value: &[u8], written: Written) -> Option<f64> {
    let value = value.trim_ascii();
    let least = match class {
        NameClass::Password => 4,
        NameClass::Secret => 8,
        NameClass::Key => 16,
    };
    if value.len() < least
        || value.len() > MAX_VALUE
        || !value.iter().all(|b| *b >= 0x20 && *b != 0x7f)
    {
        return None;
    }
    let doubts = match class {
        NameClass::Password => doubt_of_password(value),
        NameClass::Secret | NameClass::Key => doubt(value),
    };
    let most = match doubts {
        Doubt::Hard | Doubt::Word => return None,
        Doubt::Soft if class != NameClass::Password => return None,
        // The alphabet and its kin: people do choose it, and manuals write it.
        Doubt::Soft => BY_HAND,
        Doubt::None => 1.0,
    };
    let shape = Shape::of(value);
    // Words stand in lists; only what no word can be is a value there.
    if written == Written::Listed && !(shape.random && value.len() >= 20) {
        return None;
    }
    if app_password(value) {
        return (class == NameClass::Password).then_some(0.6);
    }
    if same_word(name, value)
        || key_id(name, value)
        || no_secret(value, shape.random)
        || (written != Written::Quoted && expression(value, shape.random))
        || (name == b"passwd" && name_service(value))
        // The shell's working directory.
        || (name == b"PWD" && value.iter().any(|b| matches!(b, b'/' | b'\\' | b'~')))
    {
        return None;
    }
    let confidence = match class {
        NameClass::Password => password(value, &shape, written),
        NameClass::Secret => secret(value, &shape, written),
        NameClass::Key => key(name, value, &shape, written),
    };
    confidence.map(|confidence| confidence.min(most))
}

/// Confidence that what a file holds alone is a secret, where the file is called so (`/run/secrets/token`): letters of both
/// cases and digits are nothing else there unless they are words. In a text of many lines a value must look more like
/// chance than this.
pub fn judge_alone(class: NameClass, name: &[u8], value: &[u8]) -> Option<f64> {
    let shape = Shape::of(value);
    let both = value.iter().any(u8::is_ascii_lowercase) && value.iter().any(u8::is_ascii_uppercase);
    let made = value.len() >= ALONE
        && value.len() <= MAX_VALUE
        && value.iter().all(u8::is_ascii_graphic)
        && doubt(value) == Doubt::None
        && both
        && shape.digits >= 2
        && distinct(value) >= 9
        && !same_word(name, value)
        && !no_secret(value, shape.random)
        && !by_hand(value)
        && !trial(value)
        && !phrased(value);
    let reported = judge(class, name, value, Written::Bare);
    if made {
        Some(reported.unwrap_or_default().max(0.58))
    } else {
        reported
    }
}

/// Shortest value that is more than a name with a number.
const ALONE: usize = 12;

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
        // ... or what a test is about: "find_user() works".
        if words >= 2 || memchr::memmem::find(value, b"()").is_some() {
            return None;
        }
    }
    let drawn = drawn(value, shape);
    if !drawn && wordy_identifier(value) || numbered_identifier(value) || trial(value) {
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
        _ if drawn => Some(0.52),
        // A capital word is a type or a label.
        _ if shape.letters == value.len() && value[0].is_ascii_uppercase() => None,
        Written::Line => Some(0.2),
        _ => Some(0.3),
    }
}

/// Letters alone or base32, drawn at random: too long and too various for a word, and with pairs that words do not have.
fn drawn(value: &[u8], shape: &Shape) -> bool {
    let base32 = || value.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
    (shape.letters == value.len() || base32())
        && value.len() >= 16
        && !worded(value)
        && entropy(value) >= 3.0
}

/// A value after a name that says token or secret: machines make them.
fn secret(value: &[u8], shape: &Shape, written: Written) -> Option<f64> {
    if value.contains(&b' ')
        || !value.is_ascii()
        || by_hand(value)
        || pattern(value)
        || numbers_with_colons(value)
    {
        return None;
    }
    // Ids of spans and builds are that short.
    if value.len() < 20 && value.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let drawn = drawn(value, shape);
    if !drawn && wordy_identifier(value)
        || numbered_identifier(value)
        || (value[0] == b'$' && worded(&value[1..]))
        || (written != Written::Quoted && value.contains(&b'-') && worded(after_mark(value)))
    {
        return None;
    }
    if shape.random || looks_random(after_mark(value)) {
        return Some(match written {
            Written::Code => 0.55,
            _ if value.len() < 16 => 0.58,
            _ => 0.68,
        });
    }
    if written == Written::Code {
        return None;
    }
    if drawn || with_year(value) && written != Written::Compared {
        return Some(0.5);
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

/// Shortest value that an issuer's mark stands before.
const MARKED: usize = 20;

/// What follows the words that an issuer begins its tokens with (`secret-live-`), when that is long enough to be judged.
fn after_mark(value: &[u8]) -> &[u8] {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'-' | b'_'))
        && rest[..at].iter().all(u8::is_ascii_lowercase)
        && rest.len() - at > MARKED
    {
        rest = &rest[at + 1..];
    }
    rest
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
    let joined_words = || {
        value.contains(&b'-')
            && value
                .split(|b| *b == b'-')
                .any(|w| w.len() >= 3 && w.iter().all(u8::is_ascii_alphabetic) && worded(w))
    };
    // 0006_require_contenttypes: a step that is numbered, and named.
    let step = value
        .iter()
        .position(|b| !b.is_ascii_digit())
        .is_some_and(|at| at >= 3 && value[at] == b'_' && worded(&value[at..]));
    let strong = (shape.random || drawn(value, shape))
        && !step
        && !by_hand(value)
        && !numbers_with_colons(value)
        && !cache_key(value)
        && !joined_words()
        && shape.digits >= if value.len() >= 32 { 1 } else { 2 }
        && entropy(value) >= if value.len() >= 24 { 3.3 } else { 3.4 };
    // Letters of both cases and digits, under the name of a variable: no id that a person reads.
    let mixed = shape.digits >= 2
        && value.len() >= 20
        && !name.iter().any(u8::is_ascii_lowercase)
        && value.iter().any(u8::is_ascii_lowercase)
        && value.iter().any(u8::is_ascii_uppercase);
    (strong && written != Written::Code).then_some(if value.len() >= 24 || mixed {
        0.5
    } else {
        0.35
    })
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
        for v in [
            "background-color",
            "7fa6e139:16758:2412531:0",
            "b7:c1:09:e4:52:3a:8f:d6:71:0c",
            "2001:db8:9f3a:71c::e04b:52d8:17",
        ] {
            assert!(!yes(Key, v, Quoted), "{v}");
            assert!(!yes(Secret, v, Quoted), "{v}");
        }
        let key = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert!(!yes(Key, &format!("v1-{key}"), Line));
    }

    #[test]
    fn what_code_and_settings_have_in_its_place() {
        use NameClass::*;
        use Written::*;
        // A member that is not null.
        assert!(!yes(Secret, "appConfig.apiKey!", Code));
        // How often something may be done.
        for v in ["5/m/user", "20/m/ip,5/m/key", "100/hour", "10/minutes/ip"] {
            assert!(!yes(Password, v, Quoted), "{v}");
            assert!(!yes(Secret, v, Quoted), "{v}");
        }
        for v in [
            "0006_require_contenttypes_0002",
            "0012_alter_user_max_length",
        ] {
            assert!(!yes(Key, v, Quoted), "{v}");
        }
        // A path that begins with a variable.
        for v in [
            "$PWD/secret",
            "$HOME/key7.pem",
            "$OLDPWD/x1",
            "$PROJECT_DIR/a2/b",
        ] {
            assert!(!yes(Password, v, Quoted), "{v}");
        }
        for v in ["5/m7Userx!", "hunter2!", "$Pw/9fQx2!", "a1.b2!"] {
            assert!(yes(Password, v, Quoted), "{v}");
        }
    }

    #[test]
    fn public_forms_and_references() {
        use NameClass::*;
        use Written::*;
        // Base64 of 0x0200, the length of the block that follows.
        let sealed = format!("AgB{}", "yQ7wgiRqm3vXig8c".repeat(40));
        for v in [
            "pk_live_q3VtZcK8s1LwXy7BnR0uTd4P",
            "bws:5d0f6a1e-4b52-4c9d-8f37-2a9be1c07d64",
            "0x9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            &sealed,
        ] {
            for class in [Password, Secret, Key] {
                assert!(!yes(class, v, Bare), "{v}");
            }
        }
        // A private key has 32 bytes, and what is no base64 was not sealed.
        let key = "0x9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert!(yes(Secret, key, Bare));
        assert!(yes(Secret, "AgBq3VtZcK8s1LwXy7BnR0uTd4P", Bare));
    }
}
