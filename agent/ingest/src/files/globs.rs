//! Expands path patterns below a root, component by component, within bounds.

use super::exclude::Excluded;
use super::read::open_in;
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{Dir, OFlags};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Entries of one directory that are inspected.
const MAX_ENTRIES: usize = 4_096;
/// Paths one pattern may expand to.
const MAX_PATHS: usize = 4_096;

/// One component of a pattern.
#[derive(Clone, Debug)]
pub enum Component {
    Literal(String),
    Wild(Arc<GlobMatcher>),
}

impl Component {
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            // A wildcard does not stand for a leading dot, as in a shell.
            Self::Wild(glob) => glob.is_match(name),
        }
    }

    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (Self::Wild(a), Self::Wild(b)) => a.glob().glob() == b.glob().glob(),
            _ => false,
        }
    }
}

/// An absolute path pattern (`/etc/kubernetes/*.conf`).
#[derive(Clone, Debug)]
pub struct Pattern {
    pub components: Vec<Component>,
}

impl Pattern {
    /// Parses a pattern; `None` for relative ones and those with `**`, which are for inventories, not for watching.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let mut components = Vec::new();
        for part in rest.split('/').filter(|p| !p.is_empty()) {
            if part == "**" || part == ".." {
                return None;
            }
            components.push(if part.contains(['*', '?', '[', '{']) {
                Component::Wild(Arc::new(
                    GlobBuilder::new(part)
                        .literal_separator(true)
                        .build()
                        .ok()?
                        .compile_matcher(),
                ))
            } else {
                Component::Literal(part.to_owned())
            });
        }
        (!components.is_empty()).then_some(Self { components })
    }

    /// The same pattern below a directory, which is taken by its letters.
    pub fn below(&self, directory: &str) -> Self {
        let above = directory
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| Component::Literal(part.to_owned()));
        Self {
            components: above.chain(self.components.iter().cloned()).collect(),
        }
    }
}

/// What a pattern led to.
#[derive(Default)]
pub struct Expansion {
    /// Paths of the last component, that exist or may exist.
    pub files: Vec<String>,
    /// Directories on the way that exist, and the component looked for in each.
    pub directories: Vec<(String, Component)>,
}

/// Expands one pattern below `root`. What is excluded is not even opened.
pub fn expand(root: BorrowedFd<'_>, pattern: &Pattern, excluded: &Excluded) -> Expansion {
    let mut out = Expansion::default();
    let mut at = vec![String::new()];
    for (depth, component) in pattern.components.iter().enumerate() {
        let last = depth + 1 == pattern.components.len();
        let mut next = Vec::new();
        for dir in &at {
            let shown = if dir.is_empty() { "/" } else { dir.as_str() };
            if excluded.has(shown) {
                continue;
            }
            let Ok(fd) = open_in(root, shown, OFlags::RDONLY | OFlags::DIRECTORY) else {
                continue;
            };
            out.directories.push((shown.to_owned(), component.clone()));
            match component {
                Component::Literal(name) => next.push(format!("{dir}/{name}")),
                Component::Wild(glob) => {
                    let Ok(entries) = Dir::new(fd) else { continue };
                    for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
                        let Ok(name) = entry.file_name().to_str() else {
                            continue;
                        };
                        if name != "."
                            && name != ".."
                            && glob.is_match(name)
                            && next.len() < MAX_PATHS
                        {
                            next.push(format!("{dir}/{name}"));
                        }
                    }
                }
            }
        }
        if last {
            out.files = next;
            break;
        }
        at = next;
        if at.is_empty() {
            break;
        }
    }
    out.files.retain(|path| !excluded.has(path));
    out.files.sort();
    out
}
