//! One look into an open file: as little of it as decides, then the rules.

use super::read;
use keytrail_secret::form::{Form, form, from_utf16};
use keytrail_secret::{Classifier, Finding, Origin};
use std::io;
use std::os::fd::OwnedFd;

/// How much of a file decides whether it is worth reading.
const HEAD: usize = 4_096;

/// Findings (with their secret bytes), and whether only a part was looked at.
pub struct Inspected {
    pub findings: Vec<Finding>,
    pub truncated: bool,
}

/// Looks into a regular file of `size` bytes. `place` is asked for its path, and whether a rule expects a credential
/// under that name (then binary content is no reason to leave it), only when the first bytes do not decide; `None` from
/// it means that the file has no place worth a look.
///
/// # Errors
/// The file cannot be read.
pub fn inspect(
    fd: OwnedFd,
    size: u64,
    place: impl FnOnce() -> Option<(String, bool)>,
    classifier: &Classifier,
) -> io::Result<Inspected> {
    let nothing = Inspected {
        findings: Vec::new(),
        truncated: false,
    };
    // Most files are programs and their data: the first page tells.
    let mut first = zeroize::Zeroizing::new([0u8; HEAD]);
    let n = rustix::io::pread(&fd, &mut first[..], 0)?;
    let form = form(first.get(..n).unwrap_or_default());
    if matches!(form, Form::Empty | Form::Harmless) {
        return Ok(nothing);
    }
    let Some((path, named)) = place() else {
        return Ok(nothing);
    };
    if form == Form::Opaque && !named {
        return Ok(nothing);
    }
    let (bytes, truncated) = read::content(fd, size)?;
    Ok(Inspected {
        findings: classify(&bytes, &path, classifier),
        truncated,
    })
}

/// What the rules find in the content of a file.
pub fn classify(bytes: &[u8], path: &str, classifier: &Classifier) -> Vec<Finding> {
    let origin = Origin::File { path };
    match form(bytes) {
        Form::Utf16(little) => classifier.classify(&from_utf16(bytes, little), origin),
        _ => classifier.classify(bytes, origin),
    }
}
