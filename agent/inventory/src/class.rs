//! Secret, public or sample: what an entry is to the owner of the host, by where it is.

use super::facts::third_party;
use super::model::{Class, Entry, FileLocation, Location};
use keytrail_model::Credential;
use keytrail_secret::{is_source, is_specimen};
use std::collections::HashSet;

/// What is said of an entry, and, of a secret, the package that publishes it all the same.
pub struct Verdict {
    pub class: Class,
    pub published: Option<String>,
}

/// Judges an entry by its places. What is also anywhere where secrets are kept or used is a secret, whoever published it.
#[must_use]
pub fn of(entry: &Entry) -> Verdict {
    let files = || entry.places.iter().filter_map(file);
    let shipped = files().find(|f| f.shipped);
    let specimens = shipped.is_some() || is_homemade(&entry.credential);
    let published: HashSet<&str> = files()
        .filter(|f| f.shipped || third_party(&f.path))
        .filter_map(|f| tail(&f.path))
        .collect();
    // The file is not this host's own.
    let is_copy = |f: &FileLocation| {
        f.shipped
            || third_party(&f.path)
            || specimens && (is_specimen(&f.path) || is_documentation(&f.path))
            // The same file of the same project, in a tree of its sources.
            || !is_kept(&f.path) && tail(&f.path).is_some_and(|tail| published.contains(tail))
    };
    let copies = entry
        .places
        .iter()
        .all(|place| file(place).is_some_and(is_copy));
    let class = match shipped {
        _ if !copies || entry.places.is_empty() => Class::Secret,
        Some(_) => Class::Public,
        None => Class::Sample,
    };
    Verdict {
        class,
        published: shipped
            .filter(|_| class == Class::Secret)
            .map(|f| f.package.clone()),
    }
}

fn file(place: &Location) -> Option<&FileLocation> {
    match place {
        Location::File(f) => Some(f),
        _ => None,
    }
}

/// Made by whoever needs one, without an issuer: whoever writes tests or a manual makes one for that. What an issuer has made
/// is worth something wherever it lies.
fn is_homemade(credential: &Credential) -> bool {
    const ENDINGS: &[&str] = &[
        "private-key",
        "-host-key",
        "-keystore",
        "-url",
        "-hash",
        "-password",
        "-secret-key",
        "-identified-by",
    ];
    const KINDS: &[&str] = &[
        "age-secret-key",
        "ansible-vault",
        "connection-string",
        "http-basic-auth",
        "http-bearer-token",
        "jwt",
        "jwt-secret",
        "laravel-app-key",
        "pgpass",
        "pkcs12",
        "session-cookie",
        "table-secret",
        "url-query-secret",
        "wireguard-key",
        "wordpress-salt",
    ];
    let kind = credential.kind.as_str();
    credential.rule.starts_with("generic-")
        || KINDS.contains(&kind)
        // Bitbucket calls what it issues a password.
        || !kind.starts_with("bitbucket-") && ENDINGS.iter().any(|ending| kind.ends_with(ending))
}

/// Documentation by its name or format: what stands there is shown to readers.
fn is_documentation(path: &str) -> bool {
    const NAMES: &[&str] = &[
        "README",
        "CHANGELOG",
        "CHANGES",
        "HISTORY",
        "NEWS",
        "CONTRIBUTING",
        "UPGRADING",
        "INSTALL",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
    let ending = ending.rsplit('.').next().unwrap_or_default();
    NAMES.iter().any(|known| stem.eq_ignore_ascii_case(known))
        || matches!(ending, "html" | "htm" | "xhtml" | "rst" | "adoc" | "pod")
}

/// Where a host and its users keep what they use: what lies there is no source, whatever else it looks like.
fn is_kept(path: &str) -> bool {
    ["/etc/", "/run/", "/var/", "/boot/"]
        .iter()
        .any(|place| path.starts_with(place))
        || path
            .split('/')
            .any(|part| part.len() > 1 && part.starts_with('.') && part != ".." && part != ".git")
}

/// The name of a file and of its directory: `moto_proxy/ca.key`.
fn tail(path: &str) -> Option<&str> {
    let (directory, _) = path.rsplit_once('/')?;
    let from = directory.rfind('/')?;
    path.get(from + 1..)
}

/// Whether it lies where secrets are kept, or is in use: elsewhere there is program code, documentation and what others
/// published, and what is found there is an example more often.
#[must_use]
pub fn is_in_use(entry: &Entry) -> bool {
    entry.places.iter().any(|place| match place {
        Location::File(f) => {
            !(f.shipped
                || third_party(&f.path)
                || is_specimen(&f.path)
                || is_documentation(&f.path)
                || is_source(&f.path) && !is_kept(&f.path))
        }
        Location::Process(_) | Location::Socket(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::credential;
    use crate::model::ProcessLocation;

    fn file(path: &str, shipped: bool) -> Location {
        Location::File(FileLocation {
            path: path.into(),
            shipped,
            package: if shipped {
                "moto-5.0".into()
            } else {
                String::new()
            },
            ..FileLocation::default()
        })
    }

    fn class(rule: &str, places: Vec<Location>) -> (Class, Option<String>) {
        let entry = Entry {
            credential: Credential {
                rule: rule.into(),
                kind: rule.into(),
                ..credential("a")
            },
            class: Class::Secret,
            first_seen: 1,
            rotated: None,
            previous: String::new(),
            places,
            more_places: 0,
            exposures: Vec::new(),
        };
        let verdict = of(&entry);
        (verdict.class, verdict.published)
    }

    #[test]
    fn what_is_shipped_is_public_and_what_is_used_is_secret() {
        let (shipped, own) = (
            file("/usr/lib/x/ca.key", true),
            file("/etc/ssl/ca.key", false),
        );
        let test = file("/srv/app/tests/ca.key", false);
        let cargo = file("/root/.cargo/registry/src/i/x/ca.key", false);
        let process = Location::Process(ProcessLocation::default());
        let of = |places: &[&Location]| {
            class("private-key", places.iter().map(|p| (*p).clone()).collect())
        };
        assert_eq!(of(&[&shipped]), (Class::Public, None));
        assert_eq!(of(&[&shipped, &cargo, &test]), (Class::Public, None));
        assert_eq!(
            of(&[&shipped, &own]),
            (Class::Secret, Some("moto-5.0".into()))
        );
        assert_eq!(of(&[&shipped, &process]).0, Class::Secret);
        assert_eq!(of(&[&cargo]), (Class::Sample, None));
        assert_eq!(of(&[&cargo, &own]).0, Class::Secret);
        // A key in tests was made for them; a token was not.
        assert_eq!(of(&[&test]).0, Class::Sample);
        assert_eq!(of(&[&test, &own]).0, Class::Secret);
        assert_eq!(of(&[&test, &process]).0, Class::Secret);
        assert_eq!(class("github-token", vec![test.clone()]).0, Class::Secret);
        assert_eq!(class("generic-password", vec![test]).0, Class::Sample);
        assert_eq!(class("generic-password", vec![own]).0, Class::Secret);
    }

    #[test]
    fn the_sources_of_what_is_published_are_published_too() {
        let shipped = file(
            "/usr/lib/python3/dist-packages/moto/moto_proxy/ca.key",
            true,
        );
        let fetched = file("/home/a/app/node_modules/ssh2/lib/constants.js", false);
        let of = |published: &Location, path: &str| {
            class("private-key", vec![published.clone(), file(path, false)])
        };
        assert_eq!(
            of(&shipped, "/home/a/src/moto/moto_proxy/ca.key"),
            (Class::Public, None)
        );
        assert_eq!(
            of(&fetched, "/home/a/src/ssh2/lib/constants.js").0,
            Class::Sample
        );
        // Where it is used, or under another name, it is not the source.
        for path in [
            "/etc/moto_proxy/ca.key",
            "/home/a/.config/moto_proxy/ca.key",
            "/srv/app/tls/ca.key",
            "/home/a/src/moto_proxy/server.key",
        ] {
            assert_eq!(of(&shipped, path).0, Class::Secret, "{path}");
        }
    }

    #[test]
    fn what_stands_in_documentation_is_an_example() {
        for path in [
            "/home/a/app/README.md",
            "/home/a/app/readme",
            "/home/a/site/cargo/print.html",
            "/home/a/app/guide/intro.rst",
            "/usr/share/perl5/WWW/Examples.pod",
        ] {
            for kind in ["generic-password", "postgresql-url", "http-bearer-token"] {
                assert_eq!(
                    class(kind, vec![file(path, false)]).0,
                    Class::Sample,
                    "{path}"
                );
            }
            assert_eq!(
                class("stripe-key", vec![file(path, false)]).0,
                Class::Secret,
                "{path}"
            );
        }
        for path in ["/home/a/notes.md", "/srv/app/.env", "/etc/app/reader.conf"] {
            assert_eq!(
                class("postgresql-url", vec![file(path, false)]).0,
                Class::Secret,
                "{path}"
            );
        }
    }
}
