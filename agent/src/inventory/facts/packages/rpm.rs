//! rpm's records: the SQLite database of rpm 4.16 and later. Its older stores (Berkeley DB, ndb) are not read.

use super::super::open_file;
use super::header::Header;
use super::table::{Database, Value};
use super::{Names, Owners};
use std::collections::HashSet;
use std::os::fd::BorrowedFd;

/// Where distributions have it; one may be a link to the other.
const PLACES: [&[u8]; 2] = [
    b"usr/lib/sysimage/rpm/rpmdb.sqlite",
    b"var/lib/rpm/rpmdb.sqlite",
];

/// Adds the packages that rpm installed.
pub fn owners(root: BorrowedFd<'_>, names: &Names, owners: &mut Owners) {
    let Some(database) = PLACES
        .iter()
        .find_map(|place| open_file(root, place).and_then(Database::open))
    else {
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
        header.files(|dir, name| {
            if !wanted.contains(name) {
                return;
            }
            path.clear();
            path.extend_from_slice(dir);
            path.extend_from_slice(name);
            if let Some(asked) = names.get(path.as_slice()) {
                let package = String::from_utf8_lossy(header.name).into_owned();
                owners.entry(asked.clone()).or_insert(package);
            }
        });
    });
}
