//! One file with TLS inside: what of it is probed, what is not, and the report that says so.

use super::{discover::KnownLibrary, elf::ElfError, stacks::Contents};
use aya::programs::uprobe::UProbeLinkId;
use keytrail_model::TlsStack;
use keytrail_model::status::LibraryReport;
use std::path::PathBuf;

const UNSEEN: &str = "its connections are seen, what is sent on them is not";

/// One file with TLS inside, or known to have none.
pub(super) struct Image {
    pub path: PathBuf,
    pub stack: Option<TlsStack>,
    /// Why nothing is attached; `None` with no links: there is no TLS in it.
    pub uncovered: Option<(String, &'static str)>,
    pub hooks: Vec<String>,
    pub stepped: Vec<&'static str>,
    pub links: Vec<Link>,
}

/// An attachment.
pub(super) struct Link {
    pub program: &'static str,
    pub id: UProbeLinkId,
    /// Lower half of its cookie.
    pub number: u32,
}

impl Image {
    pub fn new(path: PathBuf, named: Option<KnownLibrary>) -> Self {
        Self {
            path,
            stack: named.map(KnownLibrary::stack),
            uncovered: None,
            hooks: Vec::new(),
            stepped: Vec::new(),
            links: Vec::new(),
        }
    }

    pub fn is_attached(&self) -> bool {
        !self.links.is_empty()
    }

    /// Notes what is in the file, and what of it is not covered.
    pub fn holds(&mut self, contents: &Contents, named: Option<KnownLibrary>) {
        let unproven = contents.unproven.first();
        if let Some(stack) = contents.stacks.first() {
            self.stack = Some(*stack);
        } else if let Some((stack, _)) = unproven {
            self.stack = Some(*stack);
        }
        if let Some((stack, reason)) = unproven {
            // Another stack in it may well be covered.
            let reason = if self.stack == Some(*stack) {
                reason.clone()
            } else {
                format!("{}: {reason}", stack.word())
            };
            self.uncovered = Some((reason, UNSEEN));
        } else if contents.stacks.is_empty()
            && let Some(named) = named
        {
            let reason = match named {
                KnownLibrary::Java => "Java's own TLS (JSSE) has no native code to hook",
                _ => "it exports none of the functions that take plaintext",
            };
            self.uncovered = Some((reason.to_owned(), UNSEEN));
        }
    }

    pub fn unreadable(&mut self, error: &ElfError, named: Option<KnownLibrary>) {
        // Of a program nothing says that it has TLS inside; but nothing says either that one has none that was not
        // searched to its end.
        if named.is_some() || matches!(error, ElfError::Late | ElfError::TooMuch) {
            self.uncovered = Some((error.to_string(), UNSEEN));
        }
    }

    pub fn report(&self, users: Vec<u32>) -> Option<LibraryReport> {
        let covered = !self.links.is_empty();
        if !covered && (self.uncovered.is_none() || users.is_empty()) {
            return None;
        }
        let (mut reason, mut remedy) = self
            .uncovered
            .as_ref()
            .map_or((String::new(), ""), |(reason, remedy)| {
                (reason.clone(), *remedy)
            });
        if covered && reason.is_empty() && !self.stepped.is_empty() {
            reason = format!(
                "{}: single-stepped, each call costs about 8 times as much",
                self.stepped.join(", ")
            );
            remedy = "";
        }
        Some(LibraryReport {
            path: self.path.to_string_lossy().into_owned(),
            stack: self.stack,
            covered,
            reason,
            remedy: remedy.to_owned(),
            hooks: self.hooks.clone(),
            users,
        })
    }
}
