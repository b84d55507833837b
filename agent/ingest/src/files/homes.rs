//! Home directories, in which most credentials of people lie.

use super::globs::{Pattern, expand};
use super::{Excluded, read};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

/// Home directories a root may have.
pub const MAX_HOMES: usize = 1_024;

/// Whether a path may be a home: it comes from others.
pub fn valid_home(home: &str) -> bool {
    home.starts_with('/')
        && home.len() > 1
        && home.len() < 4096
        && !home.contains("/../")
        && !home.contains('\0')
}

/// Home directories of a root: /etc/passwd's, and what lies in /home.
pub fn homes(root: BorrowedFd<'_>) -> BTreeSet<String> {
    let mut homes = BTreeSet::new();
    if let Ok(file) = read::open_in(root, "/etc/passwd", rustix::fs::OFlags::RDONLY) {
        let mut text = String::new();
        // An unreadable or huge passwd leaves the usual places.
        let _ = std::fs::File::from(file)
            .take(1024 * 1024)
            .read_to_string(&mut text);
        for line in text.lines() {
            if let Some(home) = line.split(':').nth(5)
                && valid_home(home)
                && homes.len() < MAX_HOMES
                && !["/nonexistent", "/dev", "/bin", "/usr/sbin", "/sbin"].contains(&home)
            {
                homes.insert(home.trim_end_matches('/').to_owned());
            }
        }
    }
    if let Some(pattern) = Pattern::parse("/home/*") {
        homes.extend(
            expand(root, &pattern, &Excluded::none())
                .files
                .into_iter()
                .take(MAX_HOMES),
        );
    }
    homes
}
