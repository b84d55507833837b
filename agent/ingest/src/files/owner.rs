//! Whether the user a file belongs to has an account on this host.

use super::read::{beginning, open_in};
use rustix::fs::OFlags;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// People's uids, as login.defs(5) of the distributions has them (`UID_MIN`, `UID_MAX`). Those above are given out as they are
/// needed, by systemd (`DynamicUser=`) and to user namespaces, and belong to nobody for long.
const PEOPLE: RangeInclusive<u32> = 1_000..=60_000;
/// Bytes read of each file of accounts.
const MOST: u64 = 4 * 1024 * 1024;
/// Where nss-systemd finds users that are in no passwd: userdbctl(1), "Drop-in user records".
const RECORDS: [&str; 3] = ["/etc/userdb", "/run/userdb", "/usr/lib/userdb"];

/// Whether the user is none of this host's. In other roots nobody can say: a container's processes run under whatever uid it was
/// started with.
pub fn is_orphaned(root: &Path, fd: BorrowedFd<'_>, uid: u32) -> bool {
    root == Path::new("/") && lacks_account(fd, uid)
}

/// False wherever an account may be kept elsewhere than in files.
fn lacks_account(root: BorrowedFd<'_>, uid: u32) -> bool {
    if !PEOPLE.contains(&uid) {
        return false;
    }
    let Some(passwd) = read(root, "/etc/passwd") else {
        return false;
    };
    let switch = read(root, "/etc/nsswitch.conf").unwrap_or_default();
    if !is_local(&switch) {
        return false;
    }
    let has_record = || {
        RECORDS
            .iter()
            .any(|dir| open_in(root, format!("{dir}/{uid}.user"), OFlags::PATH).is_ok())
    };
    // A line that begins with a sign takes in accounts of NIS.
    let is_listed = |line: &str| {
        line.starts_with(['+', '-'])
            || line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(uid)
    };
    !passwd.lines().any(is_listed) && !has_record()
}

/// Whether all accounts are in files: what nsswitch.conf(5) says after `passwd:`.
fn is_local(switch: &str) -> bool {
    let services = switch
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("passwd:"))
        .flat_map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
        });
    services
        .filter(|word| !word.starts_with('[') && !word.ends_with(']'))
        .all(|service| matches!(service, "files" | "systemd"))
}

/// `None` where a file is not there, is none, or is longer than what is read: who is missing in a part may be in the rest.
fn read(root: BorrowedFd<'_>, path: &str) -> Option<String> {
    let bytes = beginning(root, path, MOST)?;
    ((bytes.len() as u64) < MOST).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::read::open_root;
    use super::*;
    use std::os::fd::AsFd as _;

    /// Whether 1007 lacks an account where these are the files.
    fn lacks(uid: u32, files: &[(&str, &str)]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = open_root(dir.path()).unwrap();
        lacks_account(root.as_fd(), uid)
    }

    const PASSWD: (&str, &str) = (
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbad\nx:1007:1007:1007::/:/x\n",
    );

    #[test]
    fn only_who_could_have_an_account_and_has_none() {
        assert!(lacks(1_008, &[PASSWD]));
        // By its uid, whatever other fields say.
        assert!(!lacks(1_000, &[PASSWD]) && !lacks(1_007, &[PASSWD]));
        for uid in [0, 33, 999, 60_001, 61_184, 65_534, 100_000, u32::MAX] {
            assert!(!lacks(uid, &[PASSWD]), "{uid}");
        }
        assert!(!lacks(1_008, &[]), "no accounts are to be read");
    }

    #[test]
    fn accounts_that_are_kept_elsewhere() {
        let with = |switch| lacks(1_008, &[PASSWD, ("etc/nsswitch.conf", switch)]);
        assert!(with("# x\npasswd:  files systemd # sss\ngroup: ldap\n"));
        assert!(with("passwd: files [NOTFOUND=return] systemd\n"));
        for switch in [
            "passwd: files sss\n",
            "passwd:\tcompat",
            " passwd: ldap files",
        ] {
            assert!(!with(switch), "{switch}");
        }
        let nis = ("etc/passwd", "root:x:0:0::/root:/bin/sh\n+::::::\n");
        assert!(!lacks(1_008, &[nis]));
        assert!(!lacks(1_008, &[PASSWD, ("etc/userdb/1008.user", "{}")]));
        assert!(lacks(1_008, &[PASSWD, ("etc/userdb/1009.user", "{}")]));
    }

    #[test]
    fn nobody_says_it_of_another_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), PASSWD.1).unwrap();
        let root = open_root(dir.path()).unwrap();
        assert!(!is_orphaned(dir.path(), root.as_fd(), 1_008));
        assert!(is_orphaned(Path::new("/"), root.as_fd(), 1_008));
    }
}
