//! Whether git knows a file: read from the index of its work tree; git itself is never run on a tree that somebody else may
//! have written.

use super::read::beginning;
use keytrail_host::git_index::{MAX_INDEX, is_searchable, tracks};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Directories above a file that are inspected.
const MAX_DEPTH: usize = 64;
/// Longest file that links a work tree to its repository.
const MAX_LINK: u64 = 4096;

/// Whether the index of the innermost work tree that `path` (below `root`, with a slash before it) lies in has the file.
pub fn is_tracked(root: BorrowedFd<'_>, path: &str) -> bool {
    tracked(root, path).unwrap_or(false)
}

fn tracked(root: BorrowedFd<'_>, path: &str) -> Option<bool> {
    for top in Path::new(path).ancestors().skip(1).take(MAX_DEPTH) {
        if top.ends_with(".git") {
            // Git's own files are in no tree.
            return None;
        }
        let git = top.join(".git");
        let at = match beginning(root, git.to_str()?, MAX_LINK) {
            // A linked work tree or a submodule: `gitdir: PATH`.
            Some(link) => {
                let link = String::from_utf8(link).ok()?;
                top.join(link.strip_prefix("gitdir:")?.trim())
            }
            None => git,
        };
        let Some(index) = beginning(root, at.join("index").to_str()?, MAX_INDEX) else {
            continue;
        };
        let name = Path::new(path).strip_prefix(top).ok()?.to_str()?;
        return Some(is_searchable(&index) && tracks(&index, name.as_bytes()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::read::open_root;
    use super::*;
    use std::os::fd::AsFd as _;
    use std::process::Command;

    #[test]
    fn what_git_knows_and_what_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("app/conf")).unwrap();
        for file in ["app/conf/prod.env", "app/.env", "outside"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        let git = |args: &[&str]| {
            let done = Command::new("git")
                .current_dir(dir.path().join("app"))
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(args)
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        git(&["init", "-q"]);
        let root = open_root(dir.path()).unwrap();
        let of = |path: &str| is_tracked(root.as_fd(), path);
        assert!(!of("/app/conf/prod.env"), "nothing was added yet");
        git(&["add", "conf/prod.env"]);
        assert!(of("/app/conf/prod.env"));
        for path in [
            "/app/.env",
            "/outside",
            "/app/prod.env",
            "/app/.git/index",
            "/app/conf/prod.en",
        ] {
            assert!(!of(path), "{path}");
        }
        // In another work tree of the same repository, which has a file that says where that is.
        git(&["commit", "-qm", "x"]);
        git(&["worktree", "add", "-q", "../other"]);
        std::fs::write(dir.path().join("other/.env"), "x").unwrap();
        let host = open_root(Path::new("/")).unwrap();
        let other = dir.path().join("other").canonicalize().unwrap();
        let of = |name: &str| is_tracked(host.as_fd(), other.join(name).to_str().unwrap());
        assert!(of("conf/prod.env"));
        assert!(!of(".env"));
    }
}
