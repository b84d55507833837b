//! What the programs are that use credentials: the content of each executable, hashed on a thread of its own. A use is
//! remembered under path and inode at once; the hash comes later.

use super::Pipeline;
use keytrail_host::{kernel_device, priority};
use keytrail_proto::v1;
use keytrail_store::ProgramSeen;
use ring::digest::{Context, SHA256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Executables that wait to be hashed; more are seen again.
const QUEUE: usize = 64;
/// Executables whose content is known. When there are more all are forgotten and hashed again.
const KNOWN: usize = 4096;
/// A larger file is no program.
const MOST_BYTES: u64 = 1 << 30;

/// An executable in one version, as the file system tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    ctime_ns: i128,
    size: u64,
}

struct Asked {
    pid: u32,
    path: String,
    device: u64,
    inode: u64,
}

/// Asks for hashes and takes them in.
#[derive(Default)]
pub(crate) struct Programs {
    ask: Option<SyncSender<Asked>>,
    answers: Option<Receiver<ProgramSeen>>,
    /// Process keys that were asked about: an executable may be written anew between two of them, but not in one.
    asked: HashSet<String>,
}

impl Programs {
    /// Starts the thread; without it programs have no hash.
    pub fn start() -> Programs {
        let (ask, questions) = sync_channel(QUEUE);
        let (answer, answers) = sync_channel(QUEUE);
        let started = thread::Builder::new()
            .name("programs".to_owned())
            .spawn(move || hash_all(&questions, &answer));
        if let Err(error) = started {
            tracing::warn!(%error, "the contents of programs are not hashed");
            return Programs::default();
        }
        Programs {
            ask: Some(ask),
            answers: Some(answers),
            asked: HashSet::new(),
        }
    }

    /// An event names a program.
    pub fn met(&mut self, event: &v1::Event) {
        let (Some(ask), Some(process)) = (&self.ask, &event.process) else {
            return;
        };
        let Some(exe) = process.executable.as_ref().filter(|e| e.inode != 0) else {
            return;
        };
        if event.credential.is_none() || self.asked.contains(&process.key) {
            return;
        }
        let asked = Asked {
            pid: process.pid,
            path: exe.path.clone(),
            device: exe.device,
            inode: exe.inode,
        };
        if ask.try_send(asked).is_ok() {
            if self.asked.len() >= KNOWN {
                self.asked.clear();
            }
            self.asked.insert(process.key.clone());
        }
    }
}

impl Pipeline {
    /// Takes in what was hashed.
    pub fn hashed(&mut self) {
        let (Some(answers), Some(ledger)) = (&self.programs.answers, &self.ledger) else {
            return;
        };
        for seen in answers.try_iter().take(QUEUE) {
            ledger.program(seen);
        }
    }
}

fn hash_all(questions: &Receiver<Asked>, answer: &SyncSender<ProgramSeen>) {
    priority::lower_this_thread();
    let mut known: HashMap<Version, String> = HashMap::new();
    for asked in questions {
        let Some((file, version)) = open(&asked) else {
            continue;
        };
        let sha256 = match known.get(&version) {
            Some(sha256) => sha256.clone(),
            None => {
                let Some(sha256) = hash(file, version) else {
                    continue;
                };
                if known.len() >= KNOWN {
                    known.clear();
                }
                known.insert(version, sha256.clone());
                sha256
            }
        };
        let seen = ProgramSeen {
            path: asked.path,
            device: asked.device,
            inode: asked.inode,
            sha256,
        };
        if answer.send(seen).is_err() {
            return;
        }
    }
}

/// The file that a process executes, if it is the one the event names. A process that is gone is looked for by path.
fn open(asked: &Asked) -> Option<(File, Version)> {
    [format!("/proc/{}/exe", asked.pid), asked.path.clone()]
        .iter()
        .find_map(|path| {
            // What stands under a path may be no file: nobody is waited for.
            let file = File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)
                .ok()?;
            let version = version(&file)?;
            (version.inode == asked.inode && version.device == asked.device)
                .then_some((file, version))
        })
}

fn version(file: &File) -> Option<Version> {
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return None;
    }
    Some(Version {
        device: u64::from(kernel_device(meta.dev())),
        inode: meta.ino(),
        ctime_ns: i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()),
        size: meta.len(),
    })
}

/// `None` when it cannot be read, or was changed meanwhile.
fn hash(mut file: File, before: Version) -> Option<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut left = MOST_BYTES;
    loop {
        let n = file.read(&mut buffer).ok()?;
        if n == 0 {
            break;
        }
        left = left.checked_sub(n as u64)?;
        context.update(&buffer[..n]);
    }
    if version(&file)? != before {
        return None;
    }
    let digest = context.finish();
    Some(digest.as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn asked(path: &std::path::Path) -> Asked {
        let version = version(&File::open(path).unwrap()).unwrap();
        Asked {
            pid: 0,
            path: path.display().to_string(),
            device: version.device,
            inode: version.inode,
        }
    }

    #[test]
    fn content_is_hashed_and_another_file_under_the_path_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, "abc").unwrap();
        let mut question = asked(&path);
        let (file, version) = open(&question).unwrap();
        assert_eq!(
            hash(file, version).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        question.inode += 1;
        assert!(open(&question).is_none());
    }

    #[test]
    fn what_changes_while_it_is_read_has_no_hash() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before = version(file.as_file()).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(hash(file.reopen().unwrap(), before), None);
    }
}
