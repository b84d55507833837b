//! Digests of files, as lists of them are written: they stand behind names of anything, and are no secrets.

use std::ops::Range;

/// Names of algorithms, in lower case and without a dash.
const ALGORITHMS: &[&[u8]] = &[
    b"md5", b"sha1", b"sha224", b"sha256", b"sha384", b"sha512", b"blake2b", b"blake3", b"sha3",
    b"rmd160", b"xxh64", b"xxh128", b"h1",
];
/// Lengths of digests in hexadecimal digits: MD5 to SHA-512.
const LENGTHS: &[usize] = &[32, 40, 48, 56, 64, 96, 128];
/// Longest beginning of a line that is inspected.
const LINE: usize = 512;

/// Whether the value is a digest by what stands beside it: `sha256=...` (RECORD of Python packages), `sha512-...`
/// (integrity of lock files), `DIGEST  FILE` and `ALGORITHM (FILE) = DIGEST` (coreutils, BSD), `DIGEST *FILE`.
pub fn is(text: &[u8], value: Range<usize>) -> bool {
    let Some(found) = text.get(value.clone()) else {
        return false;
    };
    let before = &text[value.start.saturating_sub(LINE)..value.start];
    if named(before) {
        return true;
    }
    if !found.iter().all(u8::is_ascii_hexdigit) || !LENGTHS.contains(&found.len()) {
        return false;
    }
    let line = match memchr::memrchr(b'\n', before) {
        Some(at) => &before[at + 1..],
        None if before.len() < LINE => before,
        None => return false,
    };
    let after = text.get(value.end..).unwrap_or_default();
    let listed = line.is_empty()
        && (after.starts_with(b"  ") || after.starts_with(b" *"))
        && after.get(2).is_some_and(|b| b.is_ascii_graphic());
    let tagged = line.ends_with(b") = ")
        && memchr::memmem::find(line, b" (").is_some_and(|at| is_algorithm(&line[..at]));
    listed || tagged
}

/// The name of an algorithm and a sign stand before it.
fn named(before: &[u8]) -> bool {
    let Some((sign, name)) = before.split_last() else {
        return false;
    };
    if !matches!(sign, b'=' | b':' | b'-') {
        return false;
    }
    let length = name
        .iter()
        .rev()
        .take(10)
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'-')
        .count();
    is_algorithm(&name[name.len() - length..])
}

fn is_algorithm(name: &[u8]) -> bool {
    let plain: Vec<u8> = name
        .iter()
        .filter(|b| **b != b'-')
        .map(u8::to_ascii_lowercase)
        .collect();
    ALGORITHMS.contains(&plain.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "7df9f837394ccf557e71698125daa7e2";

    fn of(text: &str, value: &str) -> bool {
        let at = text.find(value).unwrap();
        is(text.as_bytes(), at..at + value.len())
    }

    #[test]
    fn lists_of_digests_and_what_is_none() {
        let base64 = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        for (text, value) in [
            (
                format!("bitbucket_oauth2/__init__.py,sha256={base64},0"),
                base64,
            ),
            (format!("\"integrity\": \"sha512-{base64}\""), base64),
            (format!("adobe.tag\n{MD5}  usr/share/x\n"), MD5),
            (format!("{MD5} *adobe.bin\n"), MD5),
            (format!("MD5 (adobe-key.bin) = {MD5}\n"), MD5),
            (format!("SHA-256:{base64}"), base64),
        ] {
            assert!(of(&text, value), "{text}");
        }
        for text in [
            format!("ADOBE_KEY={MD5}"),
            format!("adobe:\n{MD5}\n"),
            format!("adobe key {MD5}  for x"),
            format!("adobe (key) = {MD5}"),
            format!("{MD5}  "),
        ] {
            assert!(!of(&text, MD5), "{text}");
        }
    }
}
