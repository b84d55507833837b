//! Values that stand for a secret without being one.

use super::strength::distinct;

/// How far a value is from being a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Nothing against it.
    None,
    /// Made by hand to look like one (`abcdef1234567890`): only a specific format keeps it, at lower confidence.
    Soft,
    /// A word that people do use as a password in a hurry (`secret`): counts where the place leaves no doubt that it is one.
    Word,
    /// A placeholder, template or documented example.
    Hard,
}

/// Words no generated value holds, compared without case. Short ones only count as a whole word.
const WORDS: &[&[u8]] = &[
    b"example",
    b"changeme",
    b"change_me",
    b"change-me",
    b"changeit",
    b"placeholder",
    b"your_",
    b"your-",
    b"yourapi",
    b"yourtoken",
    b"yourkey",
    b"yoursecret",
    b"yourpassword",
    b"my_secret",
    b"mysecret",
    b"my-secret",
    b"insert_",
    b"insert-",
    b"replace_",
    b"replace-",
    b"replaceme",
    b"redacted",
    b"removed",
    b"hidden",
    b"dummy",
    b"xxxx",
    b"****",
    b"....",
    b"<your",
    b"fill_me",
    b"fillme",
    b"to_be_",
    b"not_a_",
    b"not-a-",
    b"notreal",
    b"notasecret",
    b"mytoken",
    b"not_real",
    b"fake_",
    b"fake-",
    b"enter_",
    b"enter-",
    b"put_your",
    b"todo",
    b"tbd_",
    b"goes_here",
    b"&lt;",
    b"yourpass",
    b"your pass",
    b"goes-here",
    b"_here",
    b"-here",
    b"undefined",
    b"somesecret",
    b"some_secret",
    b"some-secret",
    b"secret_here",
    b"sample_",
    b"sample-",
    b"invalid",
];

/// Whole values that are words of the trade, not secrets.
const VALUES: &[&[u8]] = &[
    b"none",
    b"null",
    b"nil",
    b"true",
    b"false",
    b"yes",
    b"no",
    b"on",
    b"off",
    b"empty",
    b"unset",
    b"default",
    b"password",
    b"passwd",
    b"pass",
    b"secret",
    b"token",
    b"key",
    b"apikey",
    b"api_key",
    b"api-key",
    b"string",
    b"str",
    b"text",
    b"value",
    b"test",
    b"tests",
    b"testing",
    b"foo",
    b"bar",
    b"baz",
    b"foobar",
    b"required",
    b"optional",
    b"disabled",
    b"enabled",
    b"unknown",
    b"anonymous",
    b"user",
    b"username",
    b"n/a",
    b"na",
    b"credentials",
    b"credential",
    b"bearer",
    b"basic",
    b"int",
    b"integer",
    b"bool",
    b"boolean",
    b"object",
    b"file",
    b"env",
    b"prompt",
    b"auto",
    b"self",
    b"this",
    b"pwd",
    b"hash",
    b"number",
    b"bytes",
    b"any",
    b"never",
    b"always",
    b"stdin",
    b"ask",
    b"private",
    b"public",
    b"plain",
    b"auth",
    b"admin_password",
    b"db_password",
    b"accesstoken",
    b"access_token",
    b"secretkey",
    b"secret_key",
    b"client_secret",
    b"clientsecret",
    b"opensesame",
    b"open sesame",
    // The word in other languages: labels of forms.
    b"passwort",
    b"kennwort",
    b"wachtwoord",
    b"senha",
    b"contrasena",
    "contraseña".as_bytes(),
    b"mot de passe",
    b"motdepasse",
    b"parola",
    b"salasana",
    b"adgangskode",
    b"passord",
    b"losenord",
    "lösenord".as_bytes(),
    b"haslo",
    "hasło".as_bytes(),
    b"heslo",
    b"jelszo",
    b"not-set",
    b"notset",
    b"not_set",
];

/// Keys printed in issuers' own documentation, as the part that makes them recognisable.
const DOCUMENTED: &[&[u8]] = &[
    // AWS, Stripe and Twilio quick starts; jwt.io's front page.
    b"AKIAIOSFODNN7",
    b"foobared",
    b"wJalrXUtnFEMI",
    b"AKIAI44QH8DHB",
    b"je7MtGbClwBF/2Zp9Utk",
    b"4eC39HqLyjWDarjtT1zdp7dc",
    b"BQokikJOvBiI2HlWgH4olfQ2",
    b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    b"TJVA95OrM7E2cBab30RMHrHDcEfxjoYZgeFONFh7HgQ",
    // RFC 7617 and RFC 6749: Basic, the client and the tokens of OAuth 2.0.
    b"QWxhZGRpbjpvcGVuIHNlc2FtZQ",
    b"QWxhZGRpbjpPcGVuU2VzYW1l",
    b"YWxhZGRpbjpvcGVuc2VzYW1l",
    b"czZCaGRSa3F0MzpnWDFmQmF0M2JW",
    b"czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3",
    b"7Fjfp0ZBr1KtDRbnfVdmIw",
    b"gX1fBat3bV",
    b"2YotnFZFEjr1zCsicMWpAA",
    b"tGzv3JOkF0XG5Qx2TlKWIA",
    // The UUID of manuals, and the wallets of test networks.
    b"123e4567-e89b-12d3-a456",
    b"test test test test",
    b"abandon abandon abandon",
    // The first registry of a manual of Cargo.
    b"854DvwSlUwEHtIo3kWy6x7UCPKHfzCmy",
    // OAuth 2.0 bearer and MAC tokens (RFC 6749, RFC 6750).
    b"SplxlOBeZQQYbYS6WxSbIA",
    b"mF_9.B5f-4.1JqM",
    b"h480djs93hd8",
    // OAuth 1.0 (RFC 5849) and OAuth Core 1.0.
    b"ad180jjd733klru7",
    b"0685bd9184jfhq22",
    b"nnch734d00sl2jdk",
    b"dpf43f3p2l4k3l03",
    b"kd94hf93k423kf44",
    b"hh5s93j4hdidpola",
    b"hdhd0244k9j7ao03",
    b"kkk9d7dh3k39sjv7",
    b"pfkkdhi9sl3r4s00",
];

/// Decides whether a value is a placeholder.
pub fn doubt(value: &[u8]) -> Doubt {
    // Quotes inside quotes belong to the notation: "'$TOKEN'".
    let value = value.trim_ascii();
    let value = match value {
        [a @ (b'"' | b'\''), inner @ .., b] if a == b => inner,
        _ => value,
    };
    if value.is_empty() {
        return Doubt::Hard;
    }
    if elided(value) {
        return Doubt::Hard;
    }
    uncut(value)
}

/// The same for what stands under a name that says password: a person may end one with dots.
pub fn doubt_of_password(value: &[u8]) -> Doubt {
    if ends_in_dots(value) {
        uncut(value)
    } else {
        doubt(value)
    }
}

fn uncut(value: &[u8]) -> Doubt {
    if template(value) || repeated(value) {
        return Doubt::Hard;
    }
    if documented(value) {
        return Doubt::Hard;
    }
    // Key material is long enough to hold any short word by chance.
    if value.len() <= 256 && WORDS.iter().any(|w| says(value, w)) {
        return Doubt::Hard;
    }
    if value.len() <= 24 && VALUES.iter().any(|v| v.eq_ignore_ascii_case(value)) {
        return Doubt::Word;
    }
    if sequential(value) {
        Doubt::Soft
    } else {
        Doubt::None
    }
}

/// Printed in an issuer's own documentation.
pub fn documented(value: &[u8]) -> bool {
    DOCUMENTED
        .iter()
        .any(|d| memchr::memmem::find(value, d).is_some())
}

/// `${VAR}`, `$VAR`, `{{ x }}`, `<token>`, `%(name)s`, `%ENV%`, `$(cmd)`, `@Value@`, `#{x}`, `__TOKEN__`.
fn template(v: &[u8]) -> bool {
    let starts = |p: &[u8]| v.starts_with(p);
    let ends = |p: &[u8]| v.ends_with(p);
    if starts(b"${")
        || starts(b"$(")
        || starts(b"{{")
        || starts(b"<%")
        || starts(b"#{")
        || starts(b"%(")
        || starts(b"$[[")
        || starts(b"@{")
    {
        return true;
    }
    if (starts(b"<") && ends(b">"))
        || (starts(b"[") && ends(b"]"))
        || (starts(b"{") && ends(b"}"))
        || (v.len() > 2 && starts(b"%") && ends(b"%"))
        || (v.len() > 4 && starts(b"__") && ends(b"__"))
        || (v.len() > 2 && starts(b"@") && ends(b"@"))
    {
        return true;
    }
    if memchr::memmem::find(v, b"${").is_some()
        || memchr::memmem::find(v, b"{{").is_some()
        || memchr::memmem::find(v, b"$(").is_some()
    {
        return true;
    }
    // $VARIABLE in capitals, whatever follows.
    let capitals = v
        .iter()
        .skip(1)
        .take_while(|b| b.is_ascii_uppercase() || **b == b'_')
        .count();
    if starts(b"$") && capitals >= 4 && {
        // A number of one or two digits counts variables.
        let rest = &v[capitals + 1..];
        let digits = rest.iter().take(2).take_while(|b| b.is_ascii_digit());
        rest[digits.count()..]
            .first()
            .is_none_or(|b| !b.is_ascii_alphanumeric())
    } {
        return true;
    }
    // A bare shell variable.
    v.len() > 1
        && v[0] == b'$'
        && v[1..].iter().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'_' | b':' | b'.' | b'-' | b'>' | b'[' | b']' | b'\'')
        })
        && (v[1].is_ascii_alphabetic() || v[1] == b'_')
        && (!v[1..].iter().any(u8::is_ascii_digit) || v[1..].contains(&b'_'))
}

/// Cut for print: `eyJ2IjoiMSIs...`, `sk-...`.
fn elided(v: &[u8]) -> bool {
    v.ends_with(b"...") || v.ends_with("\u{2026}".as_bytes())
}

/// Fewest bytes before the dots of a password that ends in them.
const BEFORE_DOTS: usize = 8;

/// A password that a person ended with dots (`Tr0ub4dor&3...`): letters, digits and a sign that no issuer's token has. What
/// is cut for print is the head of a token, and the mark of its issuer most of all.
fn ends_in_dots(value: &[u8]) -> bool {
    let Some(stem) = value.strip_suffix(b"...") else {
        return false;
    };
    let holds = |class: fn(&u8) -> bool| stem.iter().any(class);
    stem.len() >= BEFORE_DOTS
        && stem.last() != Some(&b'.')
        && !stem.contains(&b' ')
        && holds(u8::is_ascii_digit)
        && holds(u8::is_ascii_alphabetic)
        && holds(|b| b"!@#$%^&*?;,+".contains(b))
        // The dots of a program: `printf "%s..."`, `fmt(x)...`.
        && !holds(|b| b"()[]{}<>\"'`\\".contains(b))
}

/// One or two different characters only, or a long run of one character.
fn repeated(v: &[u8]) -> bool {
    if v.len() >= 4 && distinct(v) <= if v.len() >= 10 { 2 } else { 1 } {
        return true;
    }
    if v.len() >= 24 && distinct(v) <= 3 {
        return true;
    }
    // A run of one character that chance does not make. Base64 of key material has runs of A.
    let (mut longest, mut run) = (1usize, 1usize);
    for w in v.windows(2) {
        run = if w[0] == w[1] { run + 1 } else { 1 };
        longest = longest.max(run);
    }
    // Zero bytes in base64 are a run of A; what else there is decides.
    if v.windows(8).any(|w| w == b"AAAAAAAA") && distinct(v) >= 10 {
        return false;
    }
    longest >= 8 && longest * if v.len() <= 128 { 3 } else { 2 } >= v.len()
}

/// Most of the value counts up or down (`12345678`, `abcdefgh`), or repeats a short group.
fn sequential(v: &[u8]) -> bool {
    if v.len() < 6 {
        return v.len() >= 3 && v.windows(2).all(|w| w[1] == w[0].wrapping_add(1));
    }
    let steps = v
        .windows(2)
        .filter(|w| {
            let (a, b) = (w[0].to_ascii_lowercase(), w[1].to_ascii_lowercase());
            b == a.wrapping_add(1) || a == b.wrapping_add(1) || (a == b'9' && b == b'0')
        })
        .count();
    if steps * 10 >= (v.len() - 1) * 6 {
        return true;
    }
    // Interleaved counting: a1b2c3d4.
    let strides = v
        .windows(3)
        .filter(|w| {
            w[2].to_ascii_lowercase() == w[0].to_ascii_lowercase().wrapping_add(1)
                || (w[0] == b'9' && w[2] == b'0')
        })
        .count();
    if v.len() >= 8 && strides * 10 >= (v.len() - 2) * 7 {
        return true;
    }
    // A short group repeated: abcabcabc.
    (2..=16).any(|n| v.len() >= n * 3 && v.iter().zip(&v[n..]).all(|(a, b)| a == b))
}

/// The value holds the word. In a long value four letters happen by chance; there they must stand apart.
fn says(value: &[u8], word: &[u8]) -> bool {
    if word.len() > 4 || value.len() < 20 || !word[0].is_ascii_alphabetic() {
        return contains_ignore_case(value, word);
    }
    value.windows(word.len()).enumerate().any(|(i, w)| {
        let apart = |b: Option<&u8>| {
            b.is_none_or(|b| !b.is_ascii_alphanumeric() || b.eq_ignore_ascii_case(&word[0]))
        };
        w.eq_ignore_ascii_case(word)
            && apart(i.checked_sub(1).and_then(|i| value.get(i)))
            && apart(value.get(i + word.len()))
    })
}

pub(crate) fn contains_ignore_case(haystack: &[u8], lower_needle: &[u8]) -> bool {
    haystack
        .windows(lower_needle.len())
        .any(|w| w.eq_ignore_ascii_case(lower_needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_every_sort() {
        for v in [
            "changeme",
            "xxxxxxxxxxxx",
            "${GITHUB_TOKEN}",
            "{{ token }}",
            "<token>",
            "your-api-key",
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aaaaaaaaaaaaaaaa",
            "$TOKEN",
            "$PASSWORD1",
            "$(cat token)",
            "%API_KEY%",
            "@token@",
            "'$TOKEN'",
            "$BASE_URL/forgot",
            "00000000000000000000",
            "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "eyJ2IjoiMSIsInMiOjEsImMiOi...",
            "q3VtZcK8s1Lw\u{2026}",
            "sk-...",
            "ghp_abc...",
            "AKIA...",
        ] {
            assert_eq!(doubt(v.as_bytes()), Doubt::Hard, "{v}");
        }
        for v in ["null", "secret", "Password", "Wachtwoord", "opensesame"] {
            assert_eq!(doubt(v.as_bytes()), Doubt::Word, "{v}");
        }
        for v in ["1234567890abcdefghij", "a1b2c3d4e5f6a7b8", "abcabcabcabc"] {
            assert_eq!(doubt(v.as_bytes()), Doubt::Soft, "{v}");
        }
        for v in [
            "q3VtZcK8s1LwXy7BnR0uTd4P",
            "correct horse",
            // Four letters by chance.
            "q3VtZcK8s1LwToDo7BnR0uTd4P",
            "pa$$w0rd!",
            "hunter2",
        ] {
            assert_eq!(doubt(v.as_bytes()), Doubt::None, "{v}");
        }
    }
}
