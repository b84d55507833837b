//! Says whether a bundle is as it was made, and if not, what was changed.

use super::key::{MAX_KEY, PublicKey};
use super::manifest::{FORMAT, Hasher, MANIFEST, MAX_MANIFEST, Manifest};
use super::members::{self, Visitor};
use super::pack::beside;
use super::ustar::{Head, is_flat};
use super::{FileEntry, MAX_BUNDLE, sha256_of};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Damaged places that are reported; more say nothing new.
const MAX_DAMAGES: usize = 20;

/// What the signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureState {
    /// Every byte of the bundle is as it was when this key signed it.
    Good,
    /// There is no signature file, or it cannot be read.
    Missing(String),
    /// There is no public key to check it with.
    NoKey(String),
    /// Made with a key of this name (`signing_key` of the manifest), and checked with another.
    WrongKey { made_with: String },
    /// By that key, and not of these bytes.
    Bad,
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Content differs; the first difference is between these bytes of the file, where that can be determined.
    Content {
        name: String,
        within: Option<(u64, u64)>,
    },
    /// Shorter or longer than it was; as far as both go, they are the same unless `Content` says otherwise.
    Size {
        name: String,
        was: u64,
        is: u64,
    },
    /// Its end cannot be read, or nothing of it, because the archive is damaged. So many bytes of it came.
    Cut {
        name: String,
        was: u64,
        is: u64,
    },
    Missing {
        name: String,
    },
    Added {
        name: String,
    },
    /// It is there more than once.
    Twice {
        name: String,
    },
    /// The archive itself is damaged at this byte of the file.
    Archive {
        at: u64,
        why: String,
    },
    /// There is no manifest, or one that cannot be read: nothing can be compared.
    Manifest {
        why: String,
    },
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    pub signature: SignatureState,
    /// The key it was checked with.
    pub key: Option<PublicKey>,
    pub changes: Vec<Change>,
    /// As it is in the bundle: worth as much as the signature.
    pub manifest: Option<Manifest>,
    pub size: u64,
    pub sha256: String,
    /// Members that are as the manifest says.
    pub intact: usize,
}

impl Report {
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.signature == SignatureState::Good && self.changes.is_empty()
    }
}

/// Checks `bundle` with the signature beside it, and the public key beside it unless another is given.
///
/// # Errors
/// The bundle cannot be read, or is longer than any.
pub fn verify(bundle: &Path, public_key: Option<&Path>) -> io::Result<Report> {
    let bytes = whole(bundle)?;
    let mut check = Check::default();
    members::read(&bytes, &mut check);
    check.compare();
    let own = beside(bundle, ".pub");
    let key_file = public_key.unwrap_or(&own);
    let key = small(key_file)
        .and_then(|bytes| PublicKey::parse(&bytes).map_err(io::Error::other))
        .map_err(|e| format!("{}: {e}", key_file.display()));
    let signature_file = beside(bundle, ".sig");
    let signature =
        small(&signature_file).map_err(|e| format!("{}: {e}", signature_file.display()));
    let made_with = check.manifest.as_ref().map(|m| m.signing_key.clone());
    let state = match (&key, &signature) {
        (_, Err(why)) => SignatureState::Missing(why.clone()),
        (Err(why), _) => SignatureState::NoKey(why.clone()),
        (Ok(key), Ok(signature)) => match made_with {
            _ if key.has_signed(&bytes, signature) => SignatureState::Good,
            Some(made_with) if made_with != key.name() => SignatureState::WrongKey { made_with },
            _ => SignatureState::Bad,
        },
    };
    Ok(Report {
        signature: state,
        key: key.ok(),
        changes: check.changes,
        manifest: check.manifest,
        size: bytes.len() as u64,
        sha256: sha256_of(&bytes),
        intact: check.intact,
    })
}

/// The content of one member, at most `most` bytes of it; `None` when there is no such member. Nothing is checked.
///
/// # Errors
/// The bundle cannot be read.
pub fn read_member(bundle: &Path, name: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut one = One {
        name,
        most,
        found: None,
        inside: false,
        over: false,
    };
    members::read(&whole(bundle)?, &mut one);
    Ok(one.found)
}

fn whole(bundle: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(bundle)?
        .take(MAX_BUNDLE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BUNDLE {
        return Err(io::Error::other(
            "it is longer than 1 GiB, which no bundle is",
        ));
    }
    Ok(bytes)
}

fn small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_KEY as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Default)]
struct Check {
    manifest: Option<Manifest>,
    changes: Vec<Change>,
    met: BTreeSet<String>,
    at: Option<Member>,
    /// Bytes of the manifest so far.
    text: Vec<u8>,
    damages: usize,
    intact: usize,
}

struct Member {
    name: String,
    size: u64,
    hasher: Hasher,
}

impl Check {
    fn expected(&self, name: &str) -> Option<&FileEntry> {
        self.manifest
            .as_ref()?
            .files
            .iter()
            .find(|f| f.name == name)
    }

    fn read_manifest(&mut self) {
        let why = match serde_json::from_slice::<Manifest>(&self.text) {
            Ok(manifest) if manifest.format == FORMAT => {
                if manifest.files.iter().all(|f| is_flat(&f.name)) {
                    self.manifest = Some(manifest);
                    return;
                }
                "it names a file that no bundle has".to_owned()
            }
            Ok(manifest) => format!(
                "it is of format {:?}, and this version knows {FORMAT}",
                manifest.format.chars().take(40).collect::<String>()
            ),
            Err(e) => format!("it is not as keytrail writes it ({e})"),
        };
        self.changes.push(Change::Manifest { why });
    }

    /// What is to be said once everything was read.
    fn compare(&mut self) {
        let Some(manifest) = &self.manifest else {
            if !self.met.contains(MANIFEST) {
                let why = "there is none".to_owned();
                self.changes.push(Change::Manifest { why });
            }
            return;
        };
        for file in &manifest.files {
            if self.met.contains(&file.name) {
                continue;
            }
            let name = file.name.clone();
            // Where the archive is damaged, it may be there.
            self.changes.push(match self.damages {
                0 => Change::Missing { name },
                _ => Change::Cut {
                    name,
                    was: file.size,
                    is: 0,
                },
            });
        }
    }

    fn judge(&mut self, member: Member, whole: bool) {
        let Member { name, hasher, .. } = member;
        let Some(was) = self.expected(&name).cloned() else {
            // Without a manifest nothing is known to be added.
            if self.manifest.is_some() {
                self.changes.push(Change::Added { name });
            }
            return;
        };
        let is = hasher.finish(&name);
        let before = self.changes.len();
        let shared = is.size.min(was.size);
        let differs = (0..usize::try_from(shared.div_ceil(was.piece_bytes.max(1)))
            .unwrap_or(usize::MAX))
            .find(|n| {
                let full = (*n as u64 + 1).saturating_mul(was.piece_bytes.max(1)) <= shared;
                // The last piece of the shorter one is another piece in the longer one.
                (full || is.size == was.size) && was.piece(*n) != is.piece(*n)
            })
            .map(|n| {
                let from = n as u64 * was.piece_bytes;
                (from, (from + was.piece_bytes).min(shared))
            });
        if differs.is_some() || (is.size == was.size && is.sha256 != was.sha256) {
            self.changes.push(Change::Content {
                name: name.clone(),
                within: differs,
            });
        }
        if !whole {
            self.changes.push(Change::Cut {
                name,
                was: was.size,
                is: is.size,
            });
        } else if is.size != was.size {
            self.changes.push(Change::Size {
                name,
                was: was.size,
                is: is.size,
            });
        }
        if self.changes.len() == before {
            self.intact += 1;
        }
    }
}

impl Visitor for Check {
    fn begin(&mut self, head: &Head) {
        if !self.met.insert(head.name.clone()) {
            self.changes.push(Change::Twice {
                name: head.name.clone(),
            });
        }
        let piece_bytes = self.expected(&head.name).map_or(0, |f| f.piece_bytes);
        self.at = Some(Member {
            name: head.name.clone(),
            size: head.size,
            hasher: Hasher::new(piece_bytes),
        });
    }

    fn content(&mut self, bytes: &[u8]) {
        let Some(member) = &mut self.at else { return };
        if member.name == MANIFEST {
            if self.text.len() + bytes.len() <= MAX_MANIFEST {
                self.text.extend_from_slice(bytes);
            }
        } else {
            member.hasher.update(bytes);
        }
    }

    fn end(&mut self, whole: bool) {
        let Some(member) = self.at.take() else { return };
        if member.name != MANIFEST {
            self.judge(member, whole);
        } else if whole && self.text.len() as u64 == member.size {
            self.read_manifest();
        } else {
            let why = "it cannot be read to its end".to_owned();
            self.changes.push(Change::Manifest { why });
        }
    }

    fn damaged(&mut self, at: u64, why: String) {
        self.damages += 1;
        if self.damages <= MAX_DAMAGES {
            self.changes.push(Change::Archive { at, why });
        }
    }
}

struct One<'a> {
    name: &'a str,
    most: usize,
    found: Option<Vec<u8>>,
    inside: bool,
    over: bool,
}

impl Visitor for One<'_> {
    fn begin(&mut self, head: &Head) {
        self.inside = head.name == self.name && self.found.is_none();
        if self.inside {
            self.found = Some(Vec::new());
        }
    }

    fn content(&mut self, bytes: &[u8]) {
        if let (true, Some(found)) = (self.inside, &mut self.found) {
            let room = self.most.saturating_sub(found.len());
            found.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
    }

    fn end(&mut self, _: bool) {
        self.over |= self.inside;
        self.inside = false;
    }

    fn damaged(&mut self, _: u64, _: String) {}

    fn is_done(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests;
