//! The files of interest, as the kernel side and fanotify know them.

use super::{
    fanotify::{self, Fanotify, Touch},
    maps::Maps,
    proc, reach,
    watcher::{Answer, Watcher},
};
use keytrail_abi::{
    FileId, PROC_HOLDER, PROC_IGNORED, ProcState, READ_TICK_NS, ReadKey, Watch, access,
    state::watch, watch_bit,
};
use keytrail_host::kernel_device;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    thread,
};

/// Both sides cut the start of a process to the same unit, so that what either has put down tells it to the other.
const _: () = assert!(READ_TICK_NS == keytrail_model::TICK_NS);

/// The kernel's name for the file at `path`.
///
/// On btrfs `st_dev` is made up per subvolume, and in an overlay reads go to a file of another file system: there the
/// kernel side knows the file by another name, which is learnt by reading it (`kernel_ids.rs`), and where that cannot be
/// learnt only fanotify recognises the file.
///
/// # Errors
/// When it cannot be asked for.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    Ok(reach::open(path)?.id)
}

/// A change time that no version has.
const NO_VERSION: u64 = u64::MAX;

struct Watched {
    path: PathBuf,
    flags: u32,
    /// The last question about it to the [`Watcher`]: what is answered to an earlier one is of no interest.
    ask: u64,
    /// That of the version that lay there when it was asked.
    ctime_ns: u64,
}

impl Watched {
    fn as_watch(&self, file: FileId) -> Watch {
        Watch {
            file,
            flags: self.flags,
            pad: 0,
            ctime_ns: self.ctime_ns,
        }
    }
}

#[derive(Default)]
pub struct Watches {
    /// By what stat(2) says of each, which is what fanotify's descriptors show.
    files: HashMap<FileId, Watched>,
    /// Other names the kernel has for a file: on btrfs and below an overlay.
    aliases: HashMap<FileId, FileId>,
    /// How many watched inodes share a bit.
    bits: HashMap<(u32, u64), u32>,
    asked: u64,
}

impl Watches {
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Adds or changes a watch: at once for who reads the very inode that was inspected, whatever lies at `path`. What has
    /// to be asked there comes with an answer of the watcher's; until then every version is reported like a file not seen before.
    ///
    /// # Errors
    /// When the kernel's table is full.
    pub fn add(
        &mut self,
        maps: &mut Maps,
        watcher: &mut Watcher,
        path: &Path,
        file: FileId,
        flags: u32,
    ) -> io::Result<()> {
        self.asked += 1;
        let watched = Watched {
            path: path.to_owned(),
            flags,
            ask: self.asked,
            ctime_ns: self.files.get(&file).map_or(NO_VERSION, |w| w.ctime_ns),
        };
        maps.set_watched(file, watched.as_watch(file))?;
        if self.files.insert(file, watched).is_none() {
            self.use_bit(maps, file)?;
        }
        if flags & watch::FILE != 0 {
            watcher.watch(self.asked, path, file);
        }
        Ok(())
    }

    /// Takes an answer of the watcher's in. Returns what could not be watched; the rest is in effect nevertheless.
    pub fn finish(&mut self, maps: &mut Maps, answer: Answer) -> Option<(PathBuf, io::Error)> {
        let file = answer.file;
        let watched = self.files.get_mut(&file)?;
        if watched.ask != answer.ask {
            return None;
        }
        // Gone by now: no version is this file.
        watched.ctime_ns = answer
            .found
            .as_ref()
            .map_or(NO_VERSION, |found| found.ctime_ns);
        let (path, watch) = (watched.path.clone(), watched.as_watch(file));
        let mut result = maps.set_watched(file, watch);
        if let Some(real) = answer.found.and_then(|found| found.real)
            && result.is_ok()
        {
            result = self.alias(maps, watch, real);
        }
        let error = result.err().or(answer.error)?;
        Some((path, error))
    }

    /// The kernel knows the file by this name.
    fn alias(&mut self, maps: &mut Maps, watch: Watch, alias: FileId) -> io::Result<()> {
        let file = watch.file;
        if alias == file || self.files.contains_key(&alias) {
            return Ok(());
        }
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

    pub fn remove(&mut self, maps: &mut Maps, watcher: &mut Watcher, file: FileId) {
        let Some(watched) = self.files.remove(&file) else {
            return;
        };
        maps.clear_watched(file);
        self.free_bit(maps, file);
        if let Some(alias) = self.aliases.remove(&file) {
            maps.clear_watched(alias);
            self.free_bit(maps, alias);
        }
        if watched.flags & watch::FILE != 0 {
            watcher.unmark(watched.path, file);
        }
    }

    /// Marks all files once more, on a thread of its own: a path may lead where nobody answers. Whoever took the marks
    /// off may do so again.
    pub fn mark_again(&self, fanotify: &Fanotify) {
        let files = self.files.iter();
        let places: Vec<(PathBuf, FileId)> = files
            .filter(|(_, watched)| watched.flags & watch::FILE != 0)
            .map(|(file, watched)| (watched.path.clone(), *file))
            .collect();
        let Ok(fanotify) = fanotify.try_clone() else {
            return;
        };
        // Without a thread they stay off, which is reported.
        let _ = thread::Builder::new()
            .name("mark-again".into())
            .spawn(move || {
                for (path, file) in places {
                    // Where another file lies by now there is nothing to be marked.
                    if let Ok(reached) = reach::file(&path, file) {
                        let _ = fanotify.mark(&reached);
                    }
                }
            });
    }

    /// Turns a fanotify event into records, leaving out what the kernel side has reported.
    pub fn touched(&self, maps: &mut Maps, touch: &Touch, sink: &mut dyn FnMut(&[u8])) {
        let file = FileId {
            ino: touch.inode,
            dev: kernel_device(touch.device),
            pad: 0,
        };
        let is_file = |watched: &Watched| watched.flags & watch::FILE != 0;
        if !self.files.get(&file).is_some_and(is_file) {
            return;
        }
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
            let is_reported = |maps: &Maps, key| {
                maps.read_seen(key).is_some_and(|seen| {
                    start_ticks == 0 || seen == 0 || seen / keytrail_model::TICK_NS == start_ticks
                })
            };
            // The kernel side inspects the call, and reports it when it has seen what came of it.
            if how == access::READ && is_reported(maps, key(access::CALL)) {
                continue;
            }
            let key = key(if how == access::OPEN { access::OPEN } else { 0 });
            if is_reported(maps, key) {
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
