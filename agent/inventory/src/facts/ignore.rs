//! Whether git's ignore files name a path (gitignore(5)): enough of it to tell a secret that waits to be committed from
//! one that was put aside.

use globset::{GlobBuilder, GlobMatcher};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Patterns taken of one file.
const MAX_PATTERNS: usize = 4_096;

struct Pattern {
    glob: GlobMatcher,
    negated: bool,
    directory: bool,
}

/// The patterns of one ignore file, relative to the directory it is in.
#[derive(Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

impl Ignore {
    #[must_use]
    pub fn parse(text: &[u8]) -> Ignore {
        let patterns = String::from_utf8_lossy(text)
            .lines()
            .take(MAX_PATTERNS)
            .filter_map(parse)
            .collect();
        Ignore { patterns }
    }

    /// The last pattern that speaks of the path decides; `None` when none does.
    fn verdict(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let last = self
            .patterns
            .iter()
            .rev()
            .find(|p| (is_directory || !p.directory) && p.glob.is_match(path))?;
        Some(!last.negated)
    }
}

fn parse(line: &str) -> Option<Pattern> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let line = if line.ends_with("\\ ") {
        line
    } else {
        line.trim_end_matches(' ')
    };
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (negated, line) = line
        .strip_prefix('!')
        .map_or((false, line), |rest| (true, rest));
    let (directory, line) = line
        .strip_suffix('/')
        .map_or((false, line), |rest| (true, rest));
    // A slash anywhere but at the end ties the pattern to its directory.
    let glob = match line.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if line.contains('/') => line.to_owned(),
        None => format!("**/{line}"),
    };
    let glob = GlobBuilder::new(&glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .ok()?
        .compile_matcher();
    Some(Pattern {
        glob,
        negated,
        directory,
    })
}

/// Whether a file is ignored. `files` are the ignore files from the least to the most important, each with the length
/// of its directory's path (the slash included) at the beginning of `path`, which is relative to the work tree.
#[must_use]
pub fn ignored(files: &[(usize, &Ignore)], path: &[u8]) -> bool {
    // A directory that is ignored takes everything below with it.
    let ends = memchr::memchr_iter(b'/', path)
        .map(|end| (end, true))
        .chain([(path.len(), false)]);
    for (end, is_directory) in ends {
        let speaking = files.iter().rev().filter(|(base, _)| *base < end);
        let verdict = speaking
            .filter_map(|(base, file)| file.verdict(path.get(*base..end)?, is_directory))
            .next();
        if verdict == Some(true) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let top = Ignore::parse(
            b"# comment\n.env\n/build/\nsecret*.txt\n!secret.public.txt\ndocs/*.key\n**/deep/x\n",
        );
        let sub = Ignore::parse(b"!.env\nlocal.conf\n");
        let is = |path: &str| {
            let mut files = vec![(0, &top)];
            if path.starts_with("sub/") {
                files.push((4, &sub));
            }
            ignored(&files, path.as_bytes())
        };
        assert!(is(".env") && is("a/b/.env") && is("build/x/y") && is("secret1.txt"));
        assert!(!is("sub/.env") && is("sub/local.conf") && !is("local.conf"));
        assert!(
            !is("secret.public.txt") && !is("a/build/x") && is("docs/a.key") && !is("x/docs/a.key")
        );
        assert!(is("a/deep/x") && !is("env") && !is("build"));
    }
}
