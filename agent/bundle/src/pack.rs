//! Makes a bundle of files.

use super::frames::frame;
use super::key::SigningKey;
use super::manifest::{Hasher, MANIFEST, Manifest, piece_bytes, sha256_of};
use super::{FileEntry, MAX_BUNDLE, ustar};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A finished bundle.
#[derive(Clone, Debug)]
pub struct Packed {
    pub bundle: PathBuf,
    pub signature: PathBuf,
    pub public_key: PathBuf,
    pub size: u64,
    pub sha256: String,
}

/// What the manifest says of a file.
///
/// # Errors
/// Reading fails.
pub fn entry_of(dir: &Path, name: &str) -> io::Result<FileEntry> {
    let mut file = File::open(dir.join(name))?;
    let mut hasher = Hasher::new(piece_bytes(file.metadata()?.len()));
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish(name)),
            n => hasher.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Packs the files that `manifest` names, out of `dir`, and signs. The bundle appears under its name when it is whole,
/// and its signature before it; `dir` has to be on the file system where it goes.
///
/// # Errors
/// A file is not what the manifest says, a name is none for a bundle, the bundle is too long, or writing fails.
pub fn pack(
    dir: &Path,
    manifest: &Manifest,
    mtime: u64,
    key: &SigningKey,
    bundle: &Path,
) -> io::Result<Packed> {
    let part = dir.join("bundle.part");
    let mut out = create(&part)?;
    let text = serde_json::to_vec_pretty(manifest)?;
    member(
        &mut out,
        MANIFEST,
        text.len() as u64,
        mtime,
        text.as_slice(),
    )?;
    for entry in &manifest.files {
        let mut hasher = Hasher::new(entry.piece_bytes);
        let file = File::open(dir.join(&entry.name))?.take(entry.size);
        member(
            &mut out,
            &entry.name,
            entry.size,
            mtime,
            Tee(file, &mut hasher),
        )?;
        if hasher.finish(&entry.name) != *entry {
            let sentence = format!("{} was changed while it was packed", entry.name);
            return Err(io::Error::other(sentence));
        }
    }
    frame([0; 2 * ustar::BLOCK].as_slice(), &mut out)?;
    out.sync_all()?;
    drop(out);
    let bytes = read(&part)?;
    let packed = Packed {
        bundle: bundle.to_owned(),
        signature: beside(bundle, ".sig"),
        public_key: beside(bundle, ".pub"),
        size: bytes.len() as u64,
        sha256: sha256_of(&bytes),
    };
    // Moved into place: whatever somebody has put under these names is replaced, and never followed.
    let beside = [
        (
            "key.part",
            key.public().pem().into_bytes(),
            &packed.public_key,
        ),
        ("signature.part", key.sign(&bytes), &packed.signature),
    ];
    for (name, bytes, to) in beside {
        create(&dir.join(name))?.write_all(&bytes)?;
        std::fs::rename(dir.join(name), to)?;
    }
    std::fs::rename(&part, bundle)?;
    Ok(packed)
}

/// The same path with more at its end.
pub(crate) fn beside(bundle: &Path, end: &str) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn create(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn read(part: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(part)?
        .take(MAX_BUNDLE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BUNDLE {
        return Err(io::Error::other("the bundle is longer than 1 GiB"));
    }
    Ok(bytes)
}

fn member(out: &mut File, name: &str, size: u64, mtime: u64, content: impl Read) -> io::Result<()> {
    if !ustar::is_flat(name) || size > ustar::MAX_SIZE {
        return Err(io::Error::other(format!(
            "{name:?} is no member of a bundle"
        )));
    }
    let head = ustar::header(name, size, mtime);
    let zeroes = [0; ustar::BLOCK];
    let padding = zeroes.get(..ustar::padding(size)).unwrap_or_default();
    frame(head.as_slice().chain(content).chain(padding), out)
}

/// Hashes what passes.
struct Tee<'a, R>(R, &'a mut Hasher);

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(to)?;
        self.1.update(to.get(..n).unwrap_or_default());
        Ok(n)
    }
}
