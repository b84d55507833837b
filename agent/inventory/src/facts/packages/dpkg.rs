//! Debian's records: /var/lib/dpkg/info/*.list, the digests in *.md5sums, and those of configuration files in
//! /var/lib/dpkg/status.

use super::super::{open, open_file};
use super::{Digest, Names, Packages};
use rustix::fs::{Dir, OFlags};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::BorrowedFd;

/// Lists read at most.
const MAX_LISTS: usize = 50_000;
/// Longest path in a list.
const MAX_LINE: usize = 8 * 1024;

const INFO: &[u8] = b"var/lib/dpkg/info";

/// Adds the packages that dpkg installed.
pub fn owners(root: BorrowedFd<'_>, names: &Names, packages: &mut Packages) {
    let Ok(dir) = open(root, INFO, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return;
    };
    let Ok(entries) = Dir::read_from(&dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok).take(4 * MAX_LISTS) {
        let name = entry.file_name().to_bytes();
        let Some(stem) = name.strip_suffix(b".list") else {
            continue;
        };
        // `name:arch.list` for packages that may be installed twice.
        let package = stem.split(|b| *b == b':').next().unwrap_or(stem);
        let mut any = false;
        lines(root, &[INFO, b"/", name].concat(), |line| {
            if let Some(path) = names.get(line) {
                any = true;
                let package = String::from_utf8_lossy(package).into_owned();
                packages.owners.insert(path.clone(), package);
            }
        });
        if any {
            let sums = [INFO, b"/", stem, b".md5sums"].concat();
            lines(root, &sums, |line| digest(names, packages, line, 0));
        }
    }
    configuration(root, names, packages);
}

/// `DIGEST  path`, without the slash at the head of a path in *.md5sums.
fn digest(names: &Names, packages: &mut Packages, line: &[u8], slash: usize) {
    let Some((digest, path)) = line.split_at_checked(32) else {
        return;
    };
    let path = [&b"/"[slash..], path.trim_ascii_start()].concat();
    if let (Some(digest), Some(path)) = (Digest::from_hex(digest), names.get(path.as_slice())) {
        packages.digests.insert(path.clone(), digest);
    }
}

/// ` path DIGEST` below `Conffiles:`; `obsolete` and `remove-on-upgrade` may follow.
fn configuration(root: BorrowedFd<'_>, names: &Names, packages: &mut Packages) {
    let mut inside = false;
    lines(root, b"var/lib/dpkg/status", |line| {
        let Some(entry) = line.strip_prefix(b" ") else {
            inside = line == b"Conffiles:";
            return;
        };
        if !inside {
            return;
        }
        let mut words = entry.split(|b| *b == b' ');
        if let (Some(path), Some(sum)) = (words.next(), words.next()) {
            digest(names, packages, &[sum, b" ", path].concat(), 1);
        }
    });
}

/// Calls `f` with every line of a file below the root.
fn lines(root: BorrowedFd<'_>, path: &[u8], mut f: impl FnMut(&[u8])) {
    let Some(file) = open_file(root, path) else {
        return;
    };
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader
            .by_ref()
            .take(MAX_LINE as u64)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => f(line.strip_suffix(b"\n").unwrap_or(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::facts::packages;

    #[test]
    fn lists() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(info.join("ssl-cert.list"), "/.\n/etc\n/etc/ssl/x.key\n").unwrap();
        std::fs::write(info.join("libx:amd64.list"), "/lib/x.pem").unwrap();
        std::fs::write(info.join("libx:amd64.md5sums"), "/etc/other\n").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let wanted =
            ["/etc/ssl/x.key", "/usr/lib/x.pem", "/etc/other"].map(|p| p.as_bytes().to_vec());
        let found = packages(&root, wanted).owners;
        assert_eq!(
            found.get(b"/etc/ssl/x.key".as_slice()).map(String::as_str),
            Some("ssl-cert")
        );
        assert_eq!(
            found.get(b"/usr/lib/x.pem".as_slice()).map(String::as_str),
            Some("libx")
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn digests_of_files_and_of_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        std::fs::write(info.join("a.list"), "/usr/share/a/key.pem\n/etc/a.conf\n").unwrap();
        let abc = "900150983cd24fb0d6963f7d28e17f72";
        std::fs::write(
            info.join("a.md5sums"),
            format!("{abc}  usr/share/a/key.pem\n"),
        )
        .unwrap();
        let status = format!(
            "Package: a\nConffiles:\n /etc/a.conf {abc} obsolete\nDescription: x\n /etc/b.conf {abc}\n"
        );
        std::fs::write(dir.path().join("var/lib/dpkg/status"), status).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let paths = ["/usr/share/a/key.pem", "/etc/a.conf", "/etc/b.conf"];
        let found = packages(&root, paths.map(|p| p.as_bytes().to_vec()));
        let of = |path: &str| {
            let digest = found.digests.get(path.as_bytes());
            digest.map(|d| (d.is_of(&b"abc"[..]), d.is_of(&b"abcd"[..])))
        };
        assert_eq!(
            paths.map(of),
            [Some((true, false)), Some((true, false)), None]
        );
    }
}
