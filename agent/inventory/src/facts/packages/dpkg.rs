//! Debian's records: /var/lib/dpkg/info/*.list.

use super::super::{open, open_file};
use super::{Names, Owners};
use rustix::fs::{Dir, OFlags};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::BorrowedFd;

/// Lists read at most.
const MAX_LISTS: usize = 50_000;
/// Longest path in a list.
const MAX_LINE: usize = 8 * 1024;

/// Adds the packages that dpkg installed.
pub fn owners(root: BorrowedFd<'_>, names: &Names, owners: &mut Owners) {
    let info = b"var/lib/dpkg/info".as_slice();
    let Ok(dir) = open(root, info, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return;
    };
    let Ok(entries) = Dir::read_from(&dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok).take(4 * MAX_LISTS) {
        let name = entry.file_name().to_bytes();
        let Some(package) = name.strip_suffix(b".list") else {
            continue;
        };
        // `name:arch.list` for packages that may be installed twice.
        let package = package.split(|b| *b == b':').next().unwrap_or(package);
        let Some(file) = open_file(root, &[info, b"/", name].concat()) else {
            continue;
        };
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let Ok(n) = reader
                .by_ref()
                .take(MAX_LINE as u64)
                .read_until(b'\n', &mut line)
            else {
                break;
            };
            if n == 0 {
                break;
            }
            if let Some(path) = names.get(line.strip_suffix(b"\n").unwrap_or(&line)) {
                owners.insert(path.clone(), String::from_utf8_lossy(package).into_owned());
            }
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
}
