//! Python's records: RECORD in the `.dist-info` of each distribution (packaging.python.org, "Recording installed projects"),
//! with the SHA-256 of every file that was installed.

use super::super::{open, open_file};
use super::{Digest, Names, Packages};
use keytrail_secret::derive::base64_any;
use rustix::fs::{Dir, OFlags};
use std::collections::HashSet;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

/// Directories of libraries that are read, and records of one.
const MAX_DIRECTORIES: usize = 256;
const MAX_RECORDS: usize = 4096;
/// Longest record.
const MAX_RECORD: u64 = 8 << 20;

/// Adds what pip and its like installed.
pub fn owners(root: BorrowedFd<'_>, names: &Names, packages: &mut Packages) {
    let directories: HashSet<&[u8]> = names.keys().filter_map(|path| library(path)).collect();
    for directory in directories.into_iter().take(MAX_DIRECTORIES) {
        let Ok(dir) = open(root, directory, OFlags::RDONLY | OFlags::DIRECTORY) else {
            continue;
        };
        let Ok(entries) = Dir::read_from(&dir) else {
            continue;
        };
        let records = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_bytes().to_vec())
            .filter(|name| name.ends_with(b".dist-info"))
            .take(MAX_RECORDS);
        for record in records {
            one(root, names, packages, directory, &record);
        }
    }
}

/// The directory of libraries a path is below.
fn library(path: &[u8]) -> Option<&[u8]> {
    [&b"/site-packages/"[..], b"/dist-packages/"]
        .iter()
        .filter_map(|name| Some(memchr::memmem::find(path, name)? + name.len() - 1))
        .min()
        .and_then(|end| path.get(..end))
}

/// Adds the files of one distribution.
fn one(
    root: BorrowedFd<'_>,
    names: &Names,
    packages: &mut Packages,
    directory: &[u8],
    info: &[u8],
) {
    let path = [directory, b"/", info, b"/RECORD"].concat();
    let mut text = Vec::new();
    let read = open_file(root, &path).map(|file| file.take(MAX_RECORD).read_to_end(&mut text));
    if !matches!(read, Some(Ok(_))) {
        return;
    }
    let package = info.strip_suffix(b".dist-info").unwrap_or(info);
    for line in text.split(|b| *b == b'\n') {
        let Some((name, digest)) = entry(line.trim_ascii_end()) else {
            continue;
        };
        if let Some(asked) = names.get([directory, b"/", name].concat().as_slice()) {
            packages
                .owners
                .entry(asked.clone())
                .or_insert_with(|| format!("python:{}", String::from_utf8_lossy(package)));
            packages.digests.insert(asked.clone(), digest);
        }
    }
}

/// `path,sha256=DIGEST,size`; the path in quotes when it has a comma.
fn entry(line: &[u8]) -> Option<(&[u8], Digest)> {
    let mut fields = line.rsplitn(3, |b| *b == b',');
    let (_size, digest, path) = (fields.next()?, fields.next()?, fields.next()?);
    let digest = base64_any(digest.strip_prefix(b"sha256=")?)?;
    let path = path
        .strip_prefix(b"\"")
        .and_then(|path| path.strip_suffix(b"\""))
        .unwrap_or(path);
    Some((path, Digest::Sha256(digest.as_slice().try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_record() {
        let line = b"moto/ca.key,sha256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0,3";
        let (path, digest) = entry(line).unwrap();
        assert_eq!(path, b"moto/ca.key");
        assert!(digest.is_of(&b"abc"[..]));
        let quoted = b"\"a,b.py\",sha256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0,3";
        assert_eq!(entry(quoted).unwrap().0, b"a,b.py");
        for line in [&b""[..], b"x,,", b"x,md5=abc,3", b"x,sha256=short,3"] {
            assert!(entry(line).is_none());
        }
        assert_eq!(
            library(b"/usr/lib/python3/dist-packages/a/site-packages/b.py"),
            Some(&b"/usr/lib/python3/dist-packages"[..])
        );
        assert_eq!(library(b"/etc/x"), None);
    }
}
