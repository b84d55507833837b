//! Archives that depend on their content alone: names in order, one time, one owner.

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, path::Path};

/// What a file is to a package manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Plain,
    /// The administrator's once it is installed: an upgrade keeps changes.
    Config,
    Doc,
    Licence,
}

/// A file as it is installed, root's own.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root of the file system, without the slash that begins it.
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
    pub role: Role,
}

impl File {
    pub fn new(path: impl Into<String>, mode: u32, bytes: impl Into<Vec<u8>>, role: Role) -> Self {
        Self {
            path: path.into(),
            mode,
            bytes: bytes.into(),
            role,
        }
    }
}

/// A tar of the files with all folders above them. `folders` are those that are empty or have a mode of their own.
pub fn tar(files: &[File], folders: &[(&str, u32)], epoch: u64) -> Result<Vec<u8>> {
    let mut entries: BTreeMap<String, (u32, Option<&[u8]>)> = BTreeMap::new();
    let names = files.iter().map(|file| file.path.as_str());
    for name in names.chain(folders.iter().map(|(name, _)| *name)) {
        for folder in Path::new(name).ancestors().skip(1) {
            if !folder.as_os_str().is_empty() {
                entries.insert(format!("{}/", folder.display()), (0o755, None));
            }
        }
    }
    for (name, mode) in folders {
        entries.insert(format!("{name}/"), (*mode, None));
    }
    for file in files {
        entries.insert(file.path.clone(), (file.mode, Some(&file.bytes)));
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (name, (mode, bytes)) in &entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(match bytes {
            Some(_) => tar::EntryType::Regular,
            None => tar::EntryType::Directory,
        });
        let bytes = bytes.unwrap_or_default();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(epoch);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        tar.append_data(&mut header, name, bytes)
            .with_context(|| name.clone())?;
    }
    Ok(tar.into_inner()?)
}

/// gzip without a name and a time in its header; RFC 1952.
pub fn gzip(bytes: &[u8], level: Compression) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), level);
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// ar(5) as dpkg reads it: members in the order given.
pub fn ar(members: &[(&str, &[u8])], epoch: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let header = format!(
            "{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            "100644",
            bytes.len()
        );
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        // Members begin at even places.
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn md5(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
