//! Lines in a file, which is moved aside when it is large.

use super::{Carrier, Delivered, Failure, Item};
use crate::spec::FileSpec;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Readers of logs are often in a group of their own.
const MODE: u32 = 0o640;
/// How far back the end of the last whole line is looked for.
const LINE_MAX: u64 = 16 << 20;

pub(super) struct FileCarrier {
    spec: FileSpec,
    open: Option<Open>,
}

struct Open {
    file: File,
    length: u64,
    /// Device and inode: another file under this name is opened anew.
    id: (u64, u64),
}

impl FileCarrier {
    pub fn new(spec: FileSpec) -> FileCarrier {
        FileCarrier { spec, open: None }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let moved = self
            .open
            .as_ref()
            .is_some_and(|open| !is_there(&self.spec.path, open.id));
        if moved {
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open_file(&self.spec.path)?,
        };
        if open.length > 0 && open.length + text.len() as u64 > self.spec.rotate_bytes {
            open.file.sync_data()?;
            drop(open.file);
            self.rotate()?;
            open = open_file(&self.spec.path)?;
        }
        let written = open
            .file
            .write_all(text)
            .and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // What was written of it is taken back: it will be written again.
            let _ = open.file.set_len(open.length);
            return Err(error);
        }
        open.length += text.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// `path` becomes `path.1`, `path.1` becomes `path.2`, and the last one is overwritten.
    fn rotate(&self) -> io::Result<()> {
        let path = &self.spec.path;
        if self.spec.keep == 0 {
            fs::remove_file(path)?;
            return sync_directory(path);
        }
        for number in (1..self.spec.keep).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(path, numbered(path, 1))?;
        sync_directory(path)
    }
}

impl Carrier for FileCarrier {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let mut text = Vec::with_capacity(items.iter().map(|i| i.line.len() + 1).sum());
        for item in items {
            text.extend_from_slice(&item.line);
            text.push(b'\n');
        }
        match self.write(&text) {
            Ok(()) => Ok(Delivered::default()),
            Err(error) => {
                self.open = None;
                Err(Failure::later(format!(
                    "{}: {error}",
                    self.spec.path.display()
                )))
            }
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn is_there(path: &Path, id: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == id)
}

/// Opens or makes the file. Never by a link: who may make one in that directory could have another file written to.
fn open_file(path: &Path) -> io::Result<Open> {
    let existed = fs::symlink_metadata(path).is_ok();
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(MODE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    if !existed {
        // Whatever the mask of the service is, which is there for what is secret.
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        sync_directory(path)?;
    }
    let length = whole_lines(&mut file, meta.len())?;
    if length < meta.len() {
        // An agent was killed while it wrote: the event comes again, whole.
        file.set_len(length)?;
    }
    Ok(Open {
        length,
        id: (meta.dev(), meta.ino()),
        file,
    })
}

/// Length up to the end of the last whole line.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 && length - end < LINE_MAX {
        let from = end.saturating_sub(block.len() as u64);
        // No longer than the block.
        let part = &mut block[..(end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    // One long line and no other is none of ours.
    Ok(if end == 0 && length < LINE_MAX {
        0
    } else {
        length
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn items(lines: &[&str]) -> Vec<Item> {
        let item = |line: &&str| Item {
            event: Arc::default(),
            line: line.as_bytes().to_vec(),
        };
        lines.iter().map(item).collect()
    }

    fn carrier(path: &Path, rotate_bytes: u64, keep: u32) -> FileCarrier {
        FileCarrier::new(FileSpec {
            path: path.into(),
            rotate_bytes,
            keep,
        })
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn files_are_moved_aside_between_lines_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut file = carrier(&path, 10, 2);
        for n in 0..8 {
            let line = format!("line{n}");
            file.deliver(&items(&[&line])).unwrap();
        }
        assert_eq!(read(&path), "line7\n");
        assert_eq!(read(&numbered(&path, 1)), "line6\n");
        assert_eq!(read(&numbered(&path, 2)), "line5\n");
        assert!(!numbered(&path, 3).exists());
        // What is too long for one file is not cut.
        file.deliver(&items(&["a line of more than ten", "and another"]))
            .unwrap();
        assert_eq!(read(&path), "a line of more than ten\nand another\n");
        let mut none = carrier(&path, 10, 0);
        none.deliver(&items(&["x"])).unwrap();
        assert_eq!(read(&path), "x\n");
    }

    #[test]
    fn another_process_may_move_the_file_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut file = carrier(&path, 1 << 20, 2);
        file.deliver(&items(&["a"])).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        file.deliver(&items(&["b"])).unwrap();
        assert_eq!(read(&path), "b\n");
        assert_eq!(read(&dir.path().join("moved")), "a\n");
    }

    #[test]
    fn half_a_line_of_a_killed_agent_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        for (before, after) in [
            ("whole\nhal", "whole\n"),
            ("hal", ""),
            ("whole\n", "whole\n"),
            ("", ""),
        ] {
            fs::write(&path, before).unwrap();
            carrier(&path, 1 << 20, 2)
                .deliver(&items(&["next"]))
                .unwrap();
            assert_eq!(read(&path), format!("{after}next\n"));
        }
        let long = format!("first\n{}", "x".repeat(10_000));
        fs::write(&path, long).unwrap();
        carrier(&path, 1 << 20, 2)
            .deliver(&items(&["next"]))
            .unwrap();
        assert_eq!(read(&path), "first\nnext\n");
    }

    #[test]
    fn links_and_devices_are_refused_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("events"), dir.path().join("other"));
        fs::write(&other, "precious\n").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let failed = |path: &Path| carrier(path, 10, 1).deliver(&items(&["a"])).is_err();
        assert!(failed(&path));
        assert_eq!(read(&other), "precious\n");
        assert!(failed(Path::new("/dev/null")));
        assert!(failed(&dir.path().join("none/events")));
    }

    #[test]
    fn after_a_failure_it_goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut file = carrier(&path, u64::MAX, 1);
        file.deliver(&items(&["one"])).unwrap();
        let before = file.open.as_ref().unwrap().length;
        // A descriptor that may not be written to fails like a disk does.
        file.open.as_mut().unwrap().file = File::open(&path).unwrap();
        assert!(file.deliver(&items(&["two"])).is_err());
        assert_eq!(read(&path).len() as u64, before);
        file.deliver(&items(&["two"])).unwrap();
        assert_eq!(read(&path), "one\ntwo\n");
    }
}
