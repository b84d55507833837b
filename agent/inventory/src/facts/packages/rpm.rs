//! rpm's records: the SQLite database of rpm 4.16 and later. Its older stores (Berkeley DB, ndb) are not read, and
//! named.

use super::super::open_file;
use super::header::Header;
use super::table::{Database, Value};
use super::{Digest, Names, Packages};
use std::collections::HashSet;
use std::os::fd::BorrowedFd;

/// Where distributions have it; one may be a link to the other.
const PLACES: [&[u8]; 2] = [
    b"usr/lib/sysimage/rpm/rpmdb.sqlite",
    b"var/lib/rpm/rpmdb.sqlite",
];

/// What SQLite has written beside it and not yet into it.
const JOURNALS: [&[u8]; 2] = [
    b"usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
    b"var/lib/rpm/rpmdb.sqlite-wal",
];

/// Stores of other formats (rpm's lib/backend), in the same places.
const OTHERS: [(&[u8], &str); 4] = [
    (b"usr/lib/sysimage/rpm/Packages.db", "in rpm's ndb format"),
    (b"var/lib/rpm/Packages.db", "in rpm's ndb format"),
    (b"usr/lib/sysimage/rpm/Packages", "a Berkeley DB"),
    (b"var/lib/rpm/Packages", "a Berkeley DB"),
];

/// Adds the packages that rpm installed.
pub fn owners(root: BorrowedFd<'_>, names: &Names, packages: &mut Packages) {
    let found = PLACES
        .iter()
        .zip(JOURNALS)
        .find_map(|(place, journal)| Some((open_file(root, place)?, *place, journal)));
    let Some((file, place, journal)) = found else {
        // The second of the two places may be a link to the first.
        let other = OTHERS.iter().find(|(path, _)| holds(root, path));
        packages.unread.extend(other.copied());
        return;
    };
    if holds(root, journal) {
        packages.unread.push((
            journal,
            "changes that are not in the database yet; rpm writes them when it is next run",
        ));
    }
    let Some(database) = Database::open(file) else {
        packages.unread.push((place, "no SQLite database"));
        return;
    };
    let last = |path: &[u8]| memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
    // Most files are ruled out by their last name, without making a path of it.
    let wanted: HashSet<&[u8]> = names.keys().filter_map(|p| p.get(last(p)..)).collect();
    let mut path = Vec::new();
    // hnum, blob
    let _ = database.rows(b"Packages", |[_, blob]: [Value<'_>; 2]| {
        let Some(header) = Header::parse(blob.bytes()) else {
            return;
        };
        header.files(|dir, name, digest| {
            if !wanted.contains(name) {
                return;
            }
            path.clear();
            path.extend_from_slice(dir);
            path.extend_from_slice(name);
            if let Some(asked) = names.get(path.as_slice()) {
                let package = String::from_utf8_lossy(header.name).into_owned();
                packages.owners.entry(asked.clone()).or_insert(package);
                if let Some(digest) = Digest::from_hex(digest) {
                    packages.digests.insert(asked.clone(), digest);
                }
            }
        });
    });
}

/// Is there such a file, and something in it?
fn holds(root: BorrowedFd<'_>, path: &[u8]) -> bool {
    open_file(root, path).is_some_and(|file| file.metadata().is_ok_and(|facts| facts.len() > 0))
}

#[cfg(test)]
mod tests {
    use crate::facts::packages;
    use std::fs;

    /// What is said to be unread of a root with these files.
    fn unread(files: &[(&str, &str)]) -> Vec<(&'static [u8], &'static str)> {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = fs::File::open(dir.path()).unwrap();
        packages(&root, [b"/etc/x".to_vec()]).unread
    }

    #[test]
    fn what_is_not_read_is_said() {
        assert_eq!(unread(&[]), []);
        assert_eq!(
            unread(&[("var/lib/rpm/Packages", "x")]),
            [(b"var/lib/rpm/Packages".as_slice(), "a Berkeley DB")]
        );
        assert_eq!(
            unread(&[("usr/lib/sysimage/rpm/Packages.db", "RpmP")]),
            [(
                b"usr/lib/sysimage/rpm/Packages.db".as_slice(),
                "in rpm's ndb format"
            )]
        );
        let both = [
            ("var/lib/rpm/rpmdb.sqlite", "not one"),
            ("var/lib/rpm/rpmdb.sqlite-wal", "x"),
        ];
        let said = unread(&both);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].0.ends_with(b"-wal") && said[1].0.ends_with(b".sqlite"));
        // Written into the database and left empty.
        let said = unread(&[both[0], (both[1].0, "")]);
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
