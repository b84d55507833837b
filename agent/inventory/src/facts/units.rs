//! systemd units that name a file: as `EnvironmentFile=`, as a credential, on a command line (systemd.exec(5)).

use super::{open, read};
use rustix::fs::{Dir, OFlags};
use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;

/// Where units lie, what counts more first (systemd.unit(5)).
const DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// Files read at most.
const MAX_UNITS: usize = 20_000;
/// Longest unit that is read, bytes.
const MAX_UNIT: u64 = 64 * 1024;
const KINDS: [&[u8]; 5] = [b".service", b".socket", b".mount", b".swap", b".timer"];

/// The unit of each wanted path (absolute, as bytes) that some unit names, or that is a unit itself.
pub fn units(root: BorrowedFd<'_>, wanted: &[Vec<u8>]) -> HashMap<Vec<u8>, String> {
    let wanted: HashSet<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
    let mut found = HashMap::new();
    let mut left = MAX_UNITS;
    if wanted.is_empty() {
        return found;
    }
    for directory in DIRECTORIES {
        for name in names(root, directory.as_bytes()) {
            let path = [directory.as_bytes(), b"/", &name].concat();
            if let Some(unit) = name.strip_suffix(b".d").filter(|unit| is_unit(unit)) {
                for part in names(root, &path) {
                    if part.ends_with(b".conf") {
                        let path = [&path[..], b"/", &part].concat();
                        inspect(root, &path, unit, &wanted, &mut left, &mut found);
                    }
                }
            } else if is_unit(&name) {
                inspect(root, &path, &name, &wanted, &mut left, &mut found);
            }
        }
    }
    found
}

fn is_unit(name: &[u8]) -> bool {
    KINDS.iter().any(|kind| name.ends_with(kind))
}

fn names(root: BorrowedFd<'_>, directory: &[u8]) -> Vec<Vec<u8>> {
    let Ok(dir) = open(root, directory, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(Result::ok)
        .take(MAX_UNITS)
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .collect();
    // The order of a directory is chance.
    names.sort_unstable();
    names
}

fn inspect(
    root: BorrowedFd<'_>,
    path: &[u8],
    unit: &[u8],
    wanted: &HashSet<&[u8]>,
    left: &mut usize,
    found: &mut HashMap<Vec<u8>, String>,
) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let unit = || String::from_utf8_lossy(unit).into_owned();
    let own = [b"/", path].concat();
    if wanted.contains(own.as_slice()) {
        found.entry(own).or_insert_with(unit);
    }
    let Some(text) = read(root, path, MAX_UNIT) else {
        return;
    };
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        let Some(sign) = line.iter().position(|b| *b == b'=') else {
            continue;
        };
        let key = &line[..sign];
        if !(key.starts_with(b"Exec")
            || matches!(
                key,
                b"EnvironmentFile" | b"LoadCredential" | b"LoadCredentialEncrypted"
            ))
        {
            continue;
        }
        // `-/path`, `ID:/path`, `--config=/path`, "/path"
        let words = line[sign + 1..].split(|b| b.is_ascii_whitespace() || b"=:\"',".contains(b));
        for word in words {
            let path = word
                .iter()
                .position(|b| !b"-@+!".contains(b))
                .map_or(&[][..], |n| &word[n..]);
            if wanted.contains(path) {
                found.entry(path.to_vec()).or_insert_with(unit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_unit_owns_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "etc/systemd/system/app.service",
            "[Service]\n# EnvironmentFile=/etc/other\nEnvironmentFile=-/etc/default/app\nExecStart=/usr/bin/app --config=/etc/app/secret.toml\n",
        );
        write(
            "usr/lib/systemd/system/db.service.d/creds.conf",
            "[Service]\nLoadCredential=password:/etc/db/password\nEnvironment=X=/etc/unnamed\n",
        );
        let root = std::fs::File::open(dir.path()).unwrap();
        let wanted: Vec<Vec<u8>> = [
            "/etc/default/app",
            "/etc/app/secret.toml",
            "/etc/db/password",
            "/etc/systemd/system/app.service",
            "/etc/other",
            "/etc/unnamed",
        ]
        .iter()
        .map(|p| p.as_bytes().to_vec())
        .collect();
        let found = units(root.as_fd(), &wanted);
        let of: Vec<&str> = wanted
            .iter()
            .map(|path| found.get(path).map_or("", String::as_str))
            .collect();
        let app = "app.service";
        assert_eq!(of, [app, app, "db.service", app, "", ""]);
        assert!(units(root.as_fd(), &[]).is_empty());
    }
}
