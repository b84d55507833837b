//! Facts of a request: what may be reported about its path and its types, and whom it addresses at services whose paths are
//! known. What looks like an id or a secret is not reported.

use super::matcher::Matcher;
use keytrail_model::{Request, Target};

/// Longest path that is reported, and most parts of it.
const MAX_PATH: usize = 256;
const MAX_PARTS: usize = 16;
/// Longest part of a path that is reported as it is.
const MAX_PART: usize = 64;
/// Longest content type.
const MAX_TYPE: usize = 80;
/// What stands for an id.
const ID: &str = "{id}";

/// The path of a request target without query and fragment, with `{id}` for what is one. `target` may be absolute.
pub fn path(target: &[u8], matcher: &Matcher) -> String {
    let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    let target = &target[..end];
    let path = match memchr::memmem::find(target, b"://") {
        Some(at) if !target.starts_with(b"/") => {
            let rest = &target[at + 3..];
            memchr::memchr(b'/', rest).map_or(&[][..], |slash| &rest[slash..])
        }
        _ => target,
    };
    if !path.starts_with(b"/") {
        return String::new();
    }
    // Known secrets in it, whatever they look like.
    let secrets = matcher.places(path);
    let mut out = String::new();
    let mut at = 1;
    for (i, part) in path[1..].split(|&c| c == b'/').enumerate() {
        let range = at..at + part.len();
        at = range.end + 1;
        if i >= MAX_PARTS || out.len() + part.len() > MAX_PATH {
            out.push_str("/...");
            break;
        }
        let secret = secrets
            .iter()
            .any(|(s, _)| s.start < range.end && range.start < s.end);
        out.push('/');
        match std::str::from_utf8(part) {
            Ok(text) if !secret && !is_id(part) => out.push_str(text),
            _ => out.push_str(ID),
        }
    }
    out
}

/// Does this part of a path name one thing out of very many, or may it be a secret?
fn is_id(part: &[u8]) -> bool {
    if part.is_empty() {
        return false;
    }
    let plain = |c: &u8| {
        c.is_ascii_alphanumeric()
            || matches!(c, b'-' | b'_' | b'.' | b'~' | b'@' | b'+' | b'$' | b',')
    };
    if part.len() > MAX_PART {
        return true;
    }
    // `:` joins a method to a resource (`instances:list`), `%` hides anything.
    if !part.iter().all(|c| plain(c) || *c == b':') {
        return true;
    }
    !is_version(part) && part.split(|c| matches!(c, b':' | b'.')).any(is_random)
}

/// `v2`, `v1.24` (Docker), `v1.2.3`: a number of an interface, not of a thing.
fn is_version(part: &[u8]) -> bool {
    part.strip_prefix(b"v").is_some_and(|numbers| {
        numbers
            .split(|c| *c == b'.')
            .all(|n| matches!(n.len(), 1..=3) && n.iter().all(u8::is_ascii_digit))
    })
}

/// Numbers, hashes, UUIDs, tokens.
fn is_random(word: &[u8]) -> bool {
    let digits = word.iter().filter(|c| c.is_ascii_digit()).count();
    let letters = word.iter().filter(|c| c.is_ascii_alphabetic()).count();
    if digits == 0 {
        // Mixed case beyond the first letters of words: base64 rather than names.
        let turns = word
            .windows(2)
            .filter(|w| w[0].is_ascii_uppercase() && w[1].is_ascii_lowercase())
            .count();
        return letters >= 20 && turns * 4 > letters;
    }
    if letters == 0 {
        return digits >= 2 || word.len() == 1;
    }
    let hex = word
        .iter()
        .all(|c| c.is_ascii_hexdigit() || matches!(c, b'-' | b'_'));
    if hex && word.len() >= 7 {
        return true;
    }
    // Names have a number at their end at most; tokens have digits all over.
    let turns = word
        .windows(2)
        .filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit())
        .count();
    word.len() >= 9 && (turns >= 3 || digits >= 6) || word.len() >= 20 && digits >= 3
}

/// The type without its parameters, or nothing when it is not one.
pub fn content_type(value: &[u8]) -> String {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let value = value[..end].trim_ascii();
    let fits = value.len() <= MAX_TYPE
        && value.contains(&b'/')
        && value
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"/+-._*".contains(c));
    match std::str::from_utf8(value) {
        Ok(text) if fits => text.to_ascii_lowercase(),
        _ => String::new(),
    }
}

/// The class of a status code; 0 when it is none.
pub fn status_class(code: &[u8]) -> u32 {
    match code {
        [class @ b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => u32::from(class - b'0'),
        _ => 0,
    }
}

/// A method, or nothing when it is not one.
pub fn method(value: &[u8]) -> String {
    let fits = (1..=20).contains(&value.len())
        && value.iter().all(|c| c.is_ascii_uppercase() || *c == b'-');
    match std::str::from_utf8(value) {
        Ok(text) if fits => text.to_owned(),
        _ => String::new(),
    }
}

/// Whom a request addresses, at services whose hosts and paths are known.
pub fn target(request: &Request) -> Option<Target> {
    let host = request.host.as_str();
    let mut parts = request.path.split('/').skip(1);
    let parts: [&str; 6] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let known = |text: &str| !text.is_empty() && text != ID && text != "...";
    let named = |service: &str, kind: &str, name: String| {
        Some(Target {
            service: service.to_owned(),
            kind: kind.to_owned(),
            name,
        })
    };
    let pair = |service: &str, kind: &str, a: &str, b: &str| {
        let b = b.strip_suffix(".git").unwrap_or(b);
        (known(a) && known(b)).then(|| named(service, kind, format!("{a}/{b}")))?
    };
    let single = |service: &str, kind: &str, name: &str| {
        known(name).then(|| named(service, kind, name.to_owned()))?
    };
    match host {
        "api.github.com" => match parts {
            ["repos", owner, name, ..] => pair("github", "repository", owner, name),
            ["users" | "orgs", name, ..] => single("github", "account", name),
            ["user", "repos", ..] => named("github", "account", "(the token's own)".to_owned()),
            ["gists", ..] => named("github", "gist", String::new()),
            _ => None,
        },
        "uploads.github.com" => match parts {
            ["repos", owner, name, ..] => pair("github", "repository", owner, name),
            _ => None,
        },
        "github.com" | "codeload.github.com" | "raw.githubusercontent.com" => {
            pair("github", "repository", parts[0], parts[1])
        }
        "gitlab.com" if parts[0] == "api" && parts[2] == "projects" => {
            single("gitlab", "project", parts[3])
        }
        "gitlab.com" => pair("gitlab", "project", parts[0], parts[1]),
        "bitbucket.org" => pair("bitbucket", "repository", parts[0], parts[1]),
        "api.bitbucket.org" if parts[1] == "repositories" => {
            pair("bitbucket", "repository", parts[2], parts[3])
        }
        "registry.npmjs.org" => package("npm", parts[0], parts[1]),
        "upload.pypi.org" | "pypi.org" | "test.pypi.org" if parts[0] != "legacy" => {
            single("pypi", "package", parts[1])
        }
        "crates.io" if parts[1] == "v1" => single("crates.io", "package", parts[3]),
        "hooks.slack.com" => named("slack", "webhook", String::new()),
        "api.telegram.org" => single("telegram", "method", parts[1]),
        "storage.googleapis.com" => match parts {
            ["storage" | "upload", "v1", "b", bucket, ..]
            | ["upload", "storage", "v1", "b", bucket, ..] => single("gcs", "bucket", bucket),
            [bucket, ..] => single("gcs", "bucket", bucket),
        },
        _ => by_suffix(host, &parts, &single, &named).or_else(|| {
            (parts[0] == "v2")
                .then(|| image(&request.path))
                .flatten()
                .and_then(|name| named("container_registry", "repository", name))
        }),
    }
}

fn by_suffix(
    host: &str,
    parts: &[&str; 6],
    single: &dyn Fn(&str, &str, &str) -> Option<Target>,
    named: &dyn Fn(&str, &str, String) -> Option<Target>,
) -> Option<Target> {
    if let Some(rest) = host
        .strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))
    {
        // `bucket.s3.region`, `bucket.s3-region`, `s3.region/bucket`; a bucket's name may have dots.
        let labels: Vec<&str> = rest.split('.').collect();
        let at = labels
            .iter()
            .rposition(|l| *l == "s3" || l.starts_with("s3-"))?;
        return match at {
            0 => single("aws_s3", "bucket", parts[0]),
            _ => named("aws_s3", "bucket", labels[..at].join(".")),
        };
    }
    let account = |suffix: &str| {
        host.strip_suffix(suffix)
            .filter(|name| !name.is_empty() && !name.contains('.'))
    };
    if let Some(name) = account(".blob.core.windows.net") {
        return match parts[0] {
            "" | ID => named("azure_blob", "account", name.to_owned()),
            container => named("azure_blob", "container", format!("{name}/{container}")),
        };
    }
    if let Some(bucket) = host.strip_suffix(".storage.googleapis.com") {
        return named("gcs", "bucket", bucket.to_owned());
    }
    if let Some(name) = account(".vault.azure.net") {
        return named("azure_key_vault", "vault", name.to_owned());
    }
    None
}

/// `@scope%2fname`, `@scope/name` or `name`.
fn package(service: &str, first: &str, second: &str) -> Option<Target> {
    let name = match first {
        "" | ID | "-" => return None,
        scope if scope.starts_with('@') && !second.is_empty() && second != ID => {
            format!("{scope}/{second}")
        }
        name => name.to_owned(),
    };
    Some(Target {
        service: service.to_owned(),
        kind: "package".to_owned(),
        name,
    })
}

/// The image of a path of the container registry API (`/v2/NAME/blobs/...`).
fn image(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v2/")?;
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"]
        .iter()
        .filter_map(|word| rest.find(word))
        .min()?;
    let name = &rest[..end];
    (!name.is_empty() && !name.contains(ID)).then(|| name.to_owned())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
