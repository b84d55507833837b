//! One inspect an open file: as little of it as decides, then the rules.

use super::read;
use keytrail_secret::form::{Form, form};
use keytrail_secret::{Classified, Classifier, Finding, Origin};
use std::io;
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// How much of a file decides whether it is worth reading.
const HEAD: usize = 4_096;

/// Credentials of one file that are followed: as many as one process may hold.
const MAX_FINDINGS: usize = 1_024;

/// Findings (with their secret bytes), and what was left out.
#[derive(Default)]
pub struct Inspected {
    pub findings: Vec<Finding>,
    /// Only a part was inspected.
    pub truncated: bool,
    /// Findings that found no room; at least so many, for the search ends there too.
    pub left_out: u64,
    /// The search reached a bound of its own.
    pub bounded: bool,
    /// Where the content ends, in the terms of the findings; 0 when that is not known.
    pub end: usize,
}

/// The bytes of a file that is worth a look.
pub struct Content {
    pub bytes: Zeroizing<Vec<u8>>,
    pub truncated: bool,
    pub path: String,
}

impl Inspected {
    /// Whether there may be more in the file than is known.
    pub fn partial(&self) -> bool {
        self.truncated || self.bounded || self.left_out > 0
    }
}

impl Content {
    /// What the rules find in it.
    pub fn classify(&self, classifier: &Classifier) -> Inspected {
        let Classified {
            mut findings,
            limits,
        } = classifier.classify_bounded(&self.bytes, Origin::File { path: &self.path });
        let left_out = findings.len().saturating_sub(MAX_FINDINGS) as u64;
        findings.truncate(MAX_FINDINGS);
        Inspected {
            findings,
            truncated: self.truncated,
            left_out,
            bounded: limits.any(),
            end: if self.truncated { 0 } else { self.bytes.len() },
        }
    }
}

/// Reads a regular file of `size` bytes, `most` of them at most, if it is worth it. `place` is asked for its path, and
/// whether a rule expects a credential under that name (then binary content is no reason to leave it), only when the
/// first bytes do not decide; `None` from it means that the file has no place worth a look.
///
/// # Errors
/// The file cannot be read.
pub fn read_worthy(
    fd: OwnedFd,
    size: u64,
    most: u64,
    place: impl FnOnce() -> Option<(String, bool)>,
) -> io::Result<Option<Content>> {
    // Most files are programs and their data: the first page tells.
    let mut first = Zeroizing::new([0u8; HEAD]);
    let n = rustix::io::pread(&fd, &mut first[..], 0)?;
    let form = form(first.get(..n).unwrap_or_default());
    if matches!(form, Form::Empty | Form::Harmless) {
        return Ok(None);
    }
    let Some((path, named)) = place() else {
        return Ok(None);
    };
    if form == Form::Opaque && !named {
        return Ok(None);
    }
    let (bytes, truncated) = read::content(fd, size, most)?;
    Ok(Some(Content {
        bytes,
        truncated,
        path,
    }))
}

/// The same for a file whose content is at hand.
pub fn worthy(bytes: &[u8], path: &str, named: bool) -> Option<Content> {
    match form(bytes.get(..HEAD).unwrap_or(bytes)) {
        Form::Empty | Form::Harmless => return None,
        Form::Opaque if !named => return None,
        _ => {}
    }
    Some(Content {
        bytes: Zeroizing::new(bytes.to_vec()),
        truncated: false,
        path: path.to_owned(),
    })
}
