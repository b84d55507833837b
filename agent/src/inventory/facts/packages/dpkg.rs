//! Which Debian package a file came with: /var/lib/dpkg/info/*.list, read once, for the paths in question only.

use rustix::fs::{Dir, OFlags};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd;

/// Lists read at most.
const MAX_LISTS: usize = 50_000;
/// Longest path in a list.
const MAX_LINE: usize = 8 * 1024;

/// Path (absolute, as bytes) -> package, for those of `wanted` that a package installed.
#[must_use]
pub fn packages(
    root: impl AsFd,
    wanted: impl IntoIterator<Item = Vec<u8>>,
) -> HashMap<Vec<u8>, String> {
    let mut owners = HashMap::new();
    // Since the merge of /usr, files are where their packages' lists do not say: /usr/lib/x is listed as /lib/x.
    let mut names: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for path in wanted {
        if let Some(unmerged) = path.strip_prefix(b"/usr") {
            names.insert(unmerged.to_vec(), path.clone());
        }
        names.insert(path.clone(), path);
    }
    if names.is_empty() {
        return owners;
    }
    let info = b"var/lib/dpkg/info".as_slice();
    let Ok(dir) = super::open(root.as_fd(), info, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return owners;
    };
    let Ok(entries) = Dir::read_from(&dir) else {
        return owners;
    };
    for entry in entries.filter_map(Result::ok).take(4 * MAX_LISTS) {
        let name = entry.file_name().to_bytes();
        let Some(package) = name.strip_suffix(b".list") else {
            continue;
        };
        // `name:arch.list` for packages that may be installed twice.
        let package = package.split(|b| *b == b':').next().unwrap_or(package);
        let Some(file) = super::open_file(root.as_fd(), &[info, b"/", name].concat()) else {
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
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let found = packages(&root, wanted);
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
