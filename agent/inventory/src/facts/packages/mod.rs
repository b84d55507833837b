//! Which package a file came with, and what it shipped: the records of dpkg, rpm and Python, read once, for the paths in
//! question only.

mod digest;
mod dpkg;
mod header;
mod md5;
mod python;
mod rpm;
mod table;

pub use digest::Digest;

use std::collections::HashMap;
use std::os::fd::AsFd;

/// What is asked: path in a package's records -> path it was asked under.
type Names = HashMap<Vec<u8>, Vec<u8>>;
/// What was found: path it was asked under -> package.
type Owners = HashMap<Vec<u8>, String>;

/// What packages' records say.
#[derive(Debug, Default)]
pub struct Packages {
    /// Path (absolute, as bytes) -> package.
    pub owners: Owners,
    /// Path -> what the records say of its content.
    pub digests: HashMap<Vec<u8>, Digest>,
    /// Records that were not read, below the root, and why.
    pub unread: Vec<(&'static [u8], &'static str)>,
}

/// Which of `wanted` (absolute paths) a package installed.
#[must_use]
pub fn packages(root: impl AsFd, wanted: impl IntoIterator<Item = Vec<u8>>) -> Packages {
    // Since the merge of /usr, files are where their packages' lists do not say: /usr/lib/x is listed as /lib/x.
    let mut names = Names::new();
    for path in wanted {
        if let Some(unmerged) = path.strip_prefix(b"/usr") {
            names.insert(unmerged.to_vec(), path.clone());
        }
        names.insert(path.clone(), path);
    }
    let mut packages = Packages::default();
    if !names.is_empty() {
        dpkg::owners(root.as_fd(), &names, &mut packages);
        rpm::owners(root.as_fd(), &names, &mut packages);
        python::owners(root.as_fd(), &names, &mut packages);
    }
    packages
}
