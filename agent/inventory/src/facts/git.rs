//! The git work tree a file is in: its remote, and whether the file is tracked or ignored. Read from git's own files;
//! git itself is never run on a tree that somebody else may have written.

use super::ignore::{Ignore, ignored};
use crate::model::GitFacts;
use crate::names;
use keytrail_host::git_index;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::Rc;

/// Largest other file of git's that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// Work trees whose index is kept in memory.
const MAX_TREES: usize = 64;

struct Tree {
    /// Below the root, without slashes around it.
    top: Vec<u8>,
    remote: String,
    /// The index; empty when there is none or it is of a version with shortened names.
    index: Vec<u8>,
    /// Patterns of .git/info/exclude.
    exclude: Ignore,
}

impl Tree {
    /// Whether the index has this name.
    fn tracks(&self, name: &[u8]) -> bool {
        git_index::tracks(&self.index, name)
    }
}

/// The work trees of one root, found as files ask for them.
pub struct GitTrees<F> {
    root: F,
    /// Directory -> its work tree.
    known: HashMap<Vec<u8>, Option<Rc<Tree>>>,
    ignores: HashMap<Vec<u8>, Rc<Ignore>>,
    trees: usize,
}

impl<F: AsFd> GitTrees<F> {
    #[must_use]
    pub fn new(root: F) -> Self {
        GitTrees {
            root,
            known: HashMap::new(),
            ignores: HashMap::new(),
            trees: 0,
        }
    }

    /// Facts for a file (path below the root, without a slash before it), `shown` being what is put before it.
    pub fn facts(&mut self, path: &[u8], shown: &[u8]) -> Option<GitFacts> {
        let tree = self.tree_of(parent(path))?;
        let inside = if tree.top.is_empty() {
            path
        } else {
            path.get(tree.top.len() + 1..)?
        };
        if inside.starts_with(b".git/") {
            // Git's own files are not in the tree.
            return None;
        }
        let lead = path.len() - inside.len();
        let bases = std::iter::once(0).chain(memchr::memchr_iter(b'/', inside).map(|i| i + 1));
        let files: Vec<(usize, Rc<Ignore>)> = bases
            .filter_map(|base| Some((base, self.ignore_file(path.get(..lead + base)?))))
            .collect();
        let mut list: Vec<(usize, &Ignore)> = vec![(0, &tree.exclude)];
        list.extend(files.iter().map(|(base, file)| (*base, &**file)));
        let tracked = tree.tracks(inside);
        let slash: &[u8] = if tree.top.is_empty() && !shown.is_empty() {
            b""
        } else {
            b"/"
        };
        Some(GitFacts {
            top: names::escape(&[shown, slash, &tree.top].concat()),
            remote: tree.remote.clone(),
            tracked,
            ignored: !tracked && ignored(&list, inside),
        })
    }

    /// The innermost work tree of a directory.
    fn tree_of(&mut self, dir: &[u8]) -> Option<Rc<Tree>> {
        let mut asked = Vec::new();
        let mut at = dir;
        let found = loop {
            if let Some(known) = self.known.get(at) {
                break known.clone();
            }
            asked.push(at.to_vec());
            if let Some(tree) = self.tree_at(at) {
                break Some(Rc::new(tree));
            }
            if at.is_empty() {
                break None;
            }
            at = parent(at);
        };
        for dir in asked {
            self.known.insert(dir, found.clone());
        }
        found
    }

    fn tree_at(&mut self, dir: &[u8]) -> Option<Tree> {
        let dot_git = join(dir, b".git");
        let git = match super::open(
            &self.root,
            &dot_git,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        ) {
            Ok(_) => dot_git,
            Err(_) => {
                // A linked work tree or a submodule: `gitdir: PATH`.
                let text = super::read(&self.root, &dot_git, 4096)?;
                join(dir, text.strip_prefix(b"gitdir:")?.trim_ascii())
            }
        };
        // Not a directory that just has the name.
        super::read(&self.root, &join(&git, b"HEAD"), 1)?;
        let common = super::read(&self.root, &join(&git, b"commondir"), 4096)
            .map_or_else(|| git.clone(), |text| join(&git, text.trim_ascii()));
        let config =
            super::read(&self.root, &join(&common, b"config"), MAX_FILE).unwrap_or_default();
        let exclude =
            super::read(&self.root, &join(&common, b"info/exclude"), MAX_FILE).unwrap_or_default();
        self.trees += 1;
        let room = self.trees <= MAX_TREES;
        let index = room
            .then(|| super::read(&self.root, &join(&git, b"index"), git_index::MAX_INDEX))
            .flatten();
        let index = index.filter(|index| git_index::is_searchable(index));
        Some(Tree {
            top: dir.to_vec(),
            remote: remote(&config),
            index: index.unwrap_or_default(),
            exclude: Ignore::parse(&exclude),
        })
    }

    fn ignore_file(&mut self, dir: &[u8]) -> Rc<Ignore> {
        if let Some(known) = self.ignores.get(dir) {
            return known.clone();
        }
        let path = join(dir.strip_suffix(b"/").unwrap_or(dir), b".gitignore");
        let text = super::read(&self.root, &path, MAX_FILE).unwrap_or_default();
        let ignore = Rc::new(Ignore::parse(&text));
        self.ignores.insert(dir.to_vec(), ignore.clone());
        ignore
    }
}

fn parent(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path)
        .and_then(|i| path.get(..i))
        .unwrap_or_default()
}

/// `name` seen from `dir`; an absolute one stands for itself.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(b"/") {
        Some(absolute) => absolute.to_vec(),
        None if dir.is_empty() => name.to_vec(),
        None => [dir, b"/", name].concat(),
    }
}

/// Host and path of `origin`, or of the first remote there is.
fn remote(config: &[u8]) -> String {
    let config = String::from_utf8_lossy(config);
    let mut section = String::new();
    let mut first = String::new();
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.to_ascii_lowercase();
        } else if section.starts_with("[remote")
            && let Some((key, value)) = line.split_once('=')
            && key.trim().eq_ignore_ascii_case("url")
        {
            let place = without_userinfo(value.trim().trim_matches('"'));
            if section.contains("\"origin\"") {
                return place;
            }
            if first.is_empty() {
                first = place;
            }
        }
    }
    first
}

/// Host and path of a URL or scp-like address. Whatever is before an `@`, and a query, may be a secret.
fn without_userinfo(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    // A path may have an `@` of its own: cutting too much is safe, too little is not.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    names::escape(rest.as_bytes()).chars().take(512).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_have_no_userinfo() {
        let of = |url: &str| {
            let config = format!(
                "[core]\n\turl = no\n[remote \"up\"]\n url = x\n[remote \"origin\"]\n\turl = {url}\n"
            );
            remote(config.as_bytes())
        };
        assert_eq!(
            of("https://user:ghp_secret@github.com/o/r.git"),
            "github.com/o/r.git"
        );
        assert_eq!(of("git@github.com:o/r.git"), "github.com:o/r.git");
        assert_eq!(of("https://h/o/r?token=secret"), "h/o/r");
        assert_eq!(of("https://user:p@ss@h/o"), "h/o");
        assert_eq!(of("/srv/git/r"), "/srv/git/r");
        assert_eq!(remote(b"[remote \"up\"]\nurl=ssh://u@h:22/x\n"), "h:22/x");
        assert_eq!(remote(b"\xff\xfe[remote"), "");
    }

    #[test]
    fn work_trees() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("srv/app");
        std::fs::create_dir_all(top.join("sub")).unwrap();
        for file in ["conf.env", "sub/other.env", "put-aside.env"] {
            std::fs::write(top.join(file), "x").unwrap();
        }
        std::fs::write(top.join(".gitignore"), "put-*.env\n").unwrap();
        let git = |args: &[&str]| {
            let done = std::process::Command::new("git")
                .args(args)
                .current_dir(&top)
                .env("HOME", dir.path())
                .output();
            assert!(done.is_ok_and(|o| o.status.success()), "git {args:?}");
        };
        git(&["init", "-q"]);
        git(&[
            "remote",
            "add",
            "origin",
            "https://me:secret@example.com/o/r.git",
        ]);
        git(&["add", "conf.env"]);
        let root = std::fs::File::open(dir.path()).unwrap();
        let mut trees = GitTrees::new(&root);
        let mut of = |path: &str| trees.facts(path.as_bytes(), b"");
        let conf = of("srv/app/conf.env").unwrap();
        assert_eq!(
            (conf.top.as_str(), conf.remote.as_str()),
            ("/srv/app", "example.com/o/r.git")
        );
        assert!(conf.tracked && !conf.ignored);
        let other = of("srv/app/sub/other.env").unwrap();
        assert!(!other.tracked && !other.ignored);
        let aside = of("srv/app/put-aside.env").unwrap();
        assert!(!aside.tracked && aside.ignored);
        // Part of a tracked name is not that name.
        assert!(!of("srv/app/onf.env").unwrap().tracked);
        assert!(of("srv/app/.git/config").is_none());
        assert!(of("srv/x").is_none());
    }
}
