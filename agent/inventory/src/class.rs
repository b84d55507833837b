//! Secret, public or sample: what an entry is to the owner of the host, by where it is.

use super::facts::third_party;
use super::model::{Class, Entry, FilePlace, Place};
use keytrail_secret::is_specimen;

/// What is said of an entry, and, of a secret, the package that publishes it all the same.
pub struct Verdict {
    pub class: Class,
    pub published: Option<String>,
}

/// Judges an entry by its places. What is also anywhere where secrets are kept or used is a secret, whoever published it.
#[must_use]
pub fn of(entry: &Entry) -> Verdict {
    let shipped = entry.places.iter().find_map(|place| match place {
        Place::File(f) if f.shipped => Some(f),
        _ => None,
    });
    let by_name = entry.credential.rule.starts_with("generic-");
    let copies = entry
        .places
        .iter()
        .all(|place| matches!(place, Place::File(f) if is_copy(f, by_name || shipped.is_some())));
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

/// The file is not this host's own: fetched by a package manager, or, for what only a name or a published copy tells of,
/// documentation and test data.
fn is_copy(f: &FilePlace, specimens: bool) -> bool {
    f.shipped || third_party(&f.path) || specimens && is_specimen(&f.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::credential;
    use crate::model::ProcessPlace;
    use keytrail_model::Credential;

    fn file(path: &str, shipped: bool) -> Place {
        Place::File(FilePlace {
            path: path.into(),
            shipped,
            package: if shipped {
                "moto-5.0".into()
            } else {
                String::new()
            },
            ..FilePlace::default()
        })
    }

    fn class(rule: &str, places: Vec<Place>) -> (Class, Option<String>) {
        let entry = Entry {
            credential: Credential {
                rule: rule.into(),
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
        let process = Place::Process(ProcessPlace::default());
        let of =
            |places: &[&Place]| class("private-key", places.iter().map(|p| (*p).clone()).collect());
        assert_eq!(of(&[&shipped]), (Class::Public, None));
        assert_eq!(of(&[&shipped, &cargo, &test]), (Class::Public, None));
        assert_eq!(
            of(&[&shipped, &own]),
            (Class::Secret, Some("moto-5.0".into()))
        );
        assert_eq!(of(&[&shipped, &process]).0, Class::Secret);
        assert_eq!(of(&[&cargo]), (Class::Sample, None));
        assert_eq!(of(&[&cargo, &own]).0, Class::Secret);
        // A key in one's own tests is one's own; a name with a value there is an example.
        assert_eq!(of(&[&test]).0, Class::Secret);
        assert_eq!(class("generic-password", vec![test]).0, Class::Sample);
        assert_eq!(class("generic-password", vec![own]).0, Class::Secret);
    }
}
