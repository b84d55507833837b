//! Names, groups and home directories of a root's users.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

/// Bytes read of each file.
const MAX: u64 = 16 * 1024 * 1024;
/// Home directories that are everybody's or nobody's.
const NO_HOMES: &[&str] = &[
    "",
    "/bin",
    "/sbin",
    "/dev",
    "/usr/sbin",
    "/usr/bin",
    "/nonexistent",
    "/var",
    "/run",
    "/tmp",
    "/etc",
    "/usr",
];

/// /etc/passwd and /etc/group of one root.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    /// Who is in a group, by its entry or as primary group.
    members: HashMap<u32, HashSet<String>>,
    /// Home directory without slashes around it -> user and uid.
    homes: HashMap<Vec<u8>, (String, u32)>,
}

impl Users {
    #[must_use]
    pub fn read(root: impl AsFd) -> Users {
        let text = |path: &[u8]| super::read(root.as_fd(), path, MAX).unwrap_or_default();
        Users::parse(&text(b"etc/passwd"), &text(b"etc/group"))
    }

    /// As passwd(5) and group(5) say; lines that are not understood are left out. Of several names of one uid the first
    /// counts, as getpwuid(3) does it.
    #[must_use]
    pub fn parse(passwd: &[u8], group: &[u8]) -> Users {
        let mut users = Users::default();
        for line in String::from_utf8_lossy(passwd).lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
                continue;
            };
            let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else {
                continue;
            };
            users.names.entry(uid).or_insert_with(|| (*name).to_owned());
            users
                .members
                .entry(gid)
                .or_default()
                .insert((*name).to_owned());
            if !NO_HOMES.contains(&home.trim_end_matches('/')) {
                let home = home.trim_matches('/').as_bytes().to_vec();
                users
                    .homes
                    .entry(home)
                    .or_insert_with(|| ((*name).to_owned(), uid));
            }
        }
        for line in String::from_utf8_lossy(group).lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(_), Some(gid)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Ok(gid) = gid.parse::<u32>() else {
                continue;
            };
            users.groups.entry(gid).or_insert_with(|| name.to_owned());
            let listed = fields
                .next()
                .unwrap_or_default()
                .split(',')
                .filter(|m| !m.is_empty());
            users
                .members
                .entry(gid)
                .or_default()
                .extend(listed.map(str::to_owned));
        }
        users
    }

    /// Empty when the uid has no name.
    #[must_use]
    pub fn name(&self, uid: u32) -> String {
        self.names.get(&uid).cloned().unwrap_or_default()
    }

    #[must_use]
    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_default()
    }

    /// Whether anybody but root and this user is in the group.
    #[must_use]
    pub fn shared(&self, gid: u32, uid: u32) -> bool {
        let owner = self.names.get(&uid).map_or("", String::as_str);
        self.members
            .get(&gid)
            .is_some_and(|m| m.iter().any(|member| member != owner && member != "root"))
    }

    /// The user in whose home directory a path (below the root, without a slash before it) is.
    #[must_use]
    pub fn home_of(&self, path: &[u8]) -> Option<(&str, u32)> {
        let ends = memchr::memchr_iter(b'/', path);
        // The innermost home counts: a service may live inside another's.
        ends.filter_map(|end| self.homes.get(path.get(..end)?))
            .next_back()
            .map(|(name, uid)| (name.as_str(), *uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_groups_homes() {
        let users = Users::parse(
            b"root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:50::/home/bob/:/bin/sh\n\
nobody:x:65534:65534::/nonexistent:/x\n:::\nbad\xff:x:y\n",
            b"root:x:0:\nann:x:1000:\nstaff:x:50:ann\nadm:x:4:syslog,ann\nempty:x:7:\n",
        );
        assert_eq!(
            (users.name(1000), users.name(9), users.group(50)),
            ("ann".into(), String::new(), "staff".into())
        );
        assert!(
            !users.shared(1000, 1000)
                && users.shared(50, 1001)
                && !users.shared(7, 0)
                && !users.shared(0, 0)
        );
        // Nobody knows this group: nobody is in it.
        assert!(!users.shared(999, 0));
        assert_eq!(users.home_of(b"home/ann/.netrc"), Some(("ann", 1000)));
        assert_eq!(users.home_of(b"home/bob/x/y"), Some(("bob", 1001)));
        assert_eq!(users.home_of(b"home/annie/.netrc"), None);
        assert_eq!(users.home_of(b"nonexistent/x"), None);
    }
}
