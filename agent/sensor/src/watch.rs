//! The files of interest, as the kernel side and fanotify know them.

use super::{
    fanotify::{self, Fanotify, Touch},
    maps::Maps,
    proc,
};
use keytrail_abi::{
    FileId, PROC_HOLDER, PROC_IGNORED, ProcState, READ_TICK_NS, ReadKey, Watch, access,
    state::watch, watch_bit,
};
use keytrail_host::kernel_device;
use std::{
    collections::HashMap,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

/// Both sides cut the start of a process to the same unit, so that what either has put down tells it to the other.
const _: () = assert!(READ_TICK_NS == keytrail_model::TICK_NS);

/// The kernel's name for the file at `path`.
///
/// On btrfs `st_dev` is made up per subvolume, and in an overlay reads go to a file of another file system: there the
/// kernel side knows the file by another name, which is learnt by reading it (`learn.rs`), and where that cannot be
/// learnt only fanotify recognises the file.
///
/// # Errors
/// When it cannot be asked for.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path)?;
    Ok(FileId {
        ino: metadata.ino(),
        dev: kernel_device(metadata.dev()),
        pad: 0,
    })
}

#[derive(Default)]
pub struct Watches {
    files: HashMap<FileId, (PathBuf, u32)>,
    /// (st_dev, st_ino) as fanotify's descriptors show them.
    inodes: HashMap<(u64, u64), FileId>,
    /// Other names the kernel has for a file: on btrfs and below an overlay.
    aliases: HashMap<FileId, FileId>,
    /// How many watched inodes share a bit.
    bits: HashMap<(u32, u64), u32>,
}

impl Watches {
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Adds or changes a watch.
    ///
    /// # Errors
    /// When the kernel's table is full, or the fanotify mark is refused; the rest is in effect nevertheless.
    pub fn add(
        &mut self,
        maps: &mut Maps,
        fanotify: Option<&Fanotify>,
        path: &Path,
        file: FileId,
        flags: u32,
        alias: Option<FileId>,
    ) -> io::Result<()> {
        let metadata = std::fs::metadata(path);
        let watch = Watch {
            file,
            flags,
            pad: 0,
            // Gone by now: no version is this file.
            ctime_ns: metadata.as_ref().map_or(u64::MAX, |metadata| {
                (metadata.ctime() as u64)
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(metadata.ctime_nsec() as u64)
            }),
        };
        maps.set_watched(file, watch)?;
        if self.files.insert(file, (path.to_owned(), flags)).is_none() {
            self.use_bit(maps, file)?;
        }
        if let Some(alias) = alias
            && alias != file
            && !self.files.contains_key(&alias)
        {
            maps.set_watched(alias, watch)?;
            match self.aliases.insert(file, alias) {
                Some(before) if before == alias => {}
                before => {
                    self.use_bit(maps, alias)?;
                    if let Some(before) = before {
                        maps.clear_watched(before);
                        self.free_bit(maps, before);
                    }
                }
            }
        }
        if flags & watch::FILE != 0
            && let Some(fanotify) = fanotify
        {
            if let Ok(metadata) = metadata {
                self.inodes.insert((metadata.dev(), metadata.ino()), file);
            }
            fanotify.mark(path)?;
        }
        Ok(())
    }

    fn use_bit(&mut self, maps: &mut Maps, file: FileId) -> io::Result<()> {
        let bit = watch_bit(file.ino);
        let users = self.bits.entry(bit).or_default();
        *users += 1;
        if *users == 1 {
            maps.set_bit(bit, true)
        } else {
            Ok(())
        }
    }

    fn free_bit(&mut self, maps: &mut Maps, file: FileId) {
        let bit = watch_bit(file.ino);
        if let Some(users) = self.bits.get_mut(&bit) {
            *users -= 1;
            if *users == 0 {
                self.bits.remove(&bit);
                // A bit too many costs a look-up, no more.
                let _ = maps.set_bit(bit, false);
            }
        }
    }

    pub fn remove(&mut self, maps: &mut Maps, fanotify: Option<&Fanotify>, file: FileId) {
        let Some((path, _)) = self.files.remove(&file) else {
            return;
        };
        maps.clear_watched(file);
        self.free_bit(maps, file);
        if let Some(alias) = self.aliases.remove(&file) {
            maps.clear_watched(alias);
            self.free_bit(maps, alias);
        }
        self.inodes.retain(|_, known| *known != file);
        // Only when the path still leads to that inode: another one may have taken its place.
        if let Some(fanotify) = fanotify
            && file_id(&path).is_ok_and(|now| now == file)
        {
            let _ = fanotify.unmark(&path);
        }
    }

    /// Marks all files once more, on a thread of its own: a path may lead where nobody answers. Whoever took the marks
    /// off may do so again.
    pub fn mark_again(&self, fanotify: &Fanotify) {
        let files = self.files.values();
        let paths: Vec<PathBuf> = files
            .filter(|(_, flags)| flags & watch::FILE != 0)
            .map(|(path, _)| path.clone())
            .collect();
        let Ok(fanotify) = fanotify.try_clone() else {
            return;
        };
        // Without a thread they stay off, which is told.
        let _ = thread::Builder::new()
            .name("mark-again".into())
            .spawn(move || {
                for path in paths {
                    // One that leads to another file by now is not asked for, and what it tells is of no interest.
                    let _ = fanotify.mark(&path);
                }
            });
    }

    /// Turns a fanotify event into records, leaving out what the kernel side has reported.
    pub fn touched(&self, maps: &mut Maps, touch: &Touch, sink: &mut dyn FnMut(&[u8])) {
        let Some(&file) = self.inodes.get(&(touch.device, touch.inode)) else {
            return;
        };
        if touch.pid == 0 || touch.pid == std::process::id() {
            return;
        }
        let state = maps.process(touch.pid);
        if state.is_some_and(|state| state.state == PROC_IGNORED) {
            return;
        }
        let who = proc::identity(touch.pid);
        let start_ticks = who.map_or(0, |who| who.start_ticks);
        for (wanted, how) in [(touch.opened, access::OPEN), (touch.read, access::READ)] {
            if !wanted {
                continue;
            }
            let key = |access| ReadKey {
                file,
                ctime_ns: touch.ctime_ns,
                tgid: touch.pid,
                access,
            };
            let is_told = |maps: &Maps, key| {
                maps.read_seen(key).is_some_and(|seen| {
                    start_ticks == 0 || seen == 0 || seen / keytrail_model::TICK_NS == start_ticks
                })
            };
            // The kernel side looks at the call, and tells of it when it has seen what came of it.
            if how == access::READ && is_told(maps, key(access::CALL)) {
                continue;
            }
            let key = key(if how == access::OPEN { access::OPEN } else { 0 });
            if is_told(maps, key) {
                continue;
            }
            maps.set_read_seen(key, start_ticks.saturating_mul(keytrail_model::TICK_NS));
            if how == access::READ {
                let before = state.unwrap_or_default();
                maps.set_process(
                    touch.pid,
                    ProcState {
                        state: PROC_HOLDER,
                        ..before
                    },
                );
            }
            sink(fanotify::bytes(&fanotify::record(touch, file, how, who)));
        }
    }
}
