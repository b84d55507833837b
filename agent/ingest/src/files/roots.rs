//! The watch set: which paths are watched, in which mount namespaces, kept true as directories change.

use super::globs::{Component, Pattern, expand};
use super::table::FileTable;
use super::{min_confidence, read};
use crate::{Kernel, Registry};
use globset::GlobSet;
use inotify::{Inotify, WatchDescriptor, WatchMask};
use keytrail_abi::{FileId, watch};
use keytrail_host::procfs;
use keytrail_model::{Bound, PlaceNews, Why};
use keytrail_secret::{Classifier, form};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mount namespaces watched beside the agent's own.
const MAX_ROOTS: usize = 512;
/// Directories watched for new files.
const MAX_DIRECTORIES: usize = 8_192;
/// Home directories a root may have.
const MAX_HOMES: usize = 1_024;

/// One mount namespace, reached through one of its processes (no handle is kept: it would pin the mounts).
struct Root {
    /// `/` for the agent's own namespace, `/proc/PID/root` for others.
    path: PathBuf,
    homes: BTreeSet<String>,
    /// The files watched in it, each with its path there.
    files: BTreeMap<FileId, String>,
    scanned: bool,
}

/// All watched files.
pub struct Files {
    absolute: Vec<Pattern>,
    /// Patterns below every home.
    in_homes: Vec<Pattern>,
    /// The same, as names of files wherever they lie.
    named: Arc<GlobSet>,
    roots: BTreeMap<u32, Root>,
    pub table: FileTable,
    inotify: Option<Inotify>,
    /// What is looked for in a directory, by mount namespace: several may show the same one.
    watched: HashMap<WatchDescriptor, BTreeMap<u32, Vec<Component>>>,
    directories: HashMap<(u32, String), WatchDescriptor>,
    dirty: BTreeSet<u32>,
}

impl Files {
    /// `patterns` are absolute or begin with `~/`; others are for inventories and left out here.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> Self {
        let patterns: Vec<String> = patterns
            .into_iter()
            .filter(|p| (p.starts_with('/') && !made_up(p)) || p.starts_with("~/"))
            .collect();
        let (in_homes, absolute) = patterns
            .iter()
            .partition::<Vec<&String>, _>(|p| p.starts_with('~'));
        Self {
            absolute: absolute.iter().filter_map(|p| Pattern::parse(p)).collect(),
            in_homes: in_homes
                .iter()
                .filter_map(|p| Pattern::parse(p.strip_prefix('~')?))
                .collect(),
            named: Arc::new(form::named(&patterns)),
            roots: BTreeMap::new(),
            table: FileTable::default(),
            inotify: Inotify::init().ok(),
            watched: HashMap::new(),
            directories: HashMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Whether a rule or the configuration names this path (of any home).
    #[must_use]
    pub fn is_named(&self, path: &str) -> bool {
        self.named.is_match(path)
    }

    /// The names themselves, for another thread.
    #[must_use]
    pub fn named(&self) -> Arc<GlobSet> {
        self.named.clone()
    }

    /// Mount namespaces reached so far, each through one root.
    pub fn roots(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.roots
            .iter()
            .map(|(ns, root)| (*ns, root.path.as_path()))
    }

    /// Readable when a watched directory changed.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|i| i.as_fd())
    }

    /// Adds the agent's own mount namespace.
    pub fn add_own(&mut self, extra_homes: impl IntoIterator<Item = String>) {
        let ns = procfs::own_mnt_ns();
        self.add_root(ns, PathBuf::from("/"));
        for home in extra_homes {
            self.add_home(ns, &home);
        }
    }

    /// Adds the mount namespace of a process, if it is new; true when it is to be scanned.
    pub fn add_process(&mut self, tgid: u32) -> bool {
        let Some(ns) = procfs::namespace(tgid, "mnt") else {
            return false;
        };
        let path = PathBuf::from(format!("/proc/{}/root", procfs::lasting(tgid)));
        if let Some(root) = self.roots.get_mut(&ns) {
            // The process we reached it through is gone: go on through this one.
            if root.path != Path::new("/") && !root.path.exists() {
                root.path = path;
                self.dirty.insert(ns);
            }
            return false;
        }
        self.add_root(ns, path)
    }

    fn add_root(&mut self, ns: u32, path: PathBuf) -> bool {
        if self.roots.contains_key(&ns) {
            return false;
        }
        if self.roots.len() >= MAX_ROOTS {
            self.table.dropped.add(Bound::Roots, 1);
            return false;
        }
        let homes = homes(&path);
        self.roots.insert(
            ns,
            Root {
                path,
                homes,
                files: BTreeMap::new(),
                scanned: false,
            },
        );
        self.dirty.insert(ns);
        true
    }

    /// Adds a home directory, for example one that a process has in `HOME`.
    pub fn add_home(&mut self, ns: u32, home: &str) {
        let own = procfs::own_mnt_ns();
        let ns = if ns == 0 { own } else { ns };
        let Some(root) = self.roots.get_mut(&ns) else {
            return;
        };
        if valid_home(home)
            && root.homes.len() < MAX_HOMES
            && root.homes.insert(home.trim_end_matches('/').to_owned())
        {
            self.dirty.insert(ns);
        }
    }

    /// Takes the directory events; roots in which something of interest changed become dirty.
    pub fn read_events(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        let mut buffer = [0u8; 16 * 1024];
        while let Ok(events) = inotify.read_events(&mut buffer) {
            for event in events {
                let Some(of) = self.watched.get(&event.wd) else {
                    continue;
                };
                if event.mask.contains(inotify::EventMask::IGNORED) {
                    let gone = event.wd.clone();
                    self.dirty.extend(of.keys());
                    self.watched.remove(&gone);
                    self.directories.retain(|_, wd| *wd != gone);
                    continue;
                }
                let name = event.name.and_then(|n| n.to_str());
                for (ns, components) in of {
                    if name.is_none_or(|name| components.iter().any(|c| c.matches(name))) {
                        self.dirty.insert(*ns);
                    }
                }
            }
        }
    }

    /// Marks every root for a new look (done now and then: not every change raises an event).
    pub fn mark_all(&mut self) {
        self.dirty.extend(self.roots.keys().copied());
    }

    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Looks at all dirty roots; what is new in them, and what is gone, goes to `news`.
    pub fn rescan(
        &mut self,
        classifier: &Classifier,
        registry: &mut Registry,
        kernel: &mut dyn Kernel,
        boot_ns: u64,
        news: &mut Vec<PlaceNews>,
    ) {
        for ns in std::mem::take(&mut self.dirty) {
            self.scan(ns, classifier, registry, kernel, boot_ns, news);
        }
    }

    fn scan(
        &mut self,
        ns: u32,
        classifier: &Classifier,
        registry: &mut Registry,
        kernel: &mut dyn Kernel,
        boot_ns: u64,
        news: &mut Vec<PlaceNews>,
    ) {
        let Some(root) = self.roots.get(&ns) else {
            return;
        };
        let path = root.path.clone();
        let first = !root.scanned;
        let Ok(fd) = read::open_root(&path) else {
            if path != Path::new("/") {
                self.drop_root(ns, kernel);
            }
            return;
        };
        let mut wanted = self.absolute.clone();
        for pattern in &self.in_homes {
            wanted.extend(root.homes.iter().map(|home| pattern.below(home)));
        }
        let mut files = BTreeSet::new();
        for pattern in wanted {
            let expansion = expand(fd.as_fd(), &pattern);
            for (directory, component) in expansion.directories {
                self.watch_directory(ns, &path, fd.as_fd(), &directory, component);
            }
            files.extend(expansion.files);
        }
        let mut seen = BTreeMap::new();
        let mut paths = BTreeSet::new();
        for file in files {
            let Some(learnt) = self.table.learn(&path, &file, classifier, registry) else {
                continue;
            };
            seen.insert(learnt.id, file.clone());
            let Some(known) = self.table.get(learnt.id) else {
                continue;
            };
            if learnt.new_file {
                kernel.watch(&known.access_path(), learnt.id, watch::FILE);
            }
            paths.insert(known.version.facts.path.clone());
            if let Some(held) = learnt.held {
                let why = if first { Why::Start } else { Why::Place };
                let look = known.look(held, min_confidence(true), why, boot_ns);
                news.push(PlaceNews::Looked(Box::new(look)));
            }
        }
        let Some(root) = self.roots.get_mut(&ns) else {
            return;
        };
        root.scanned = true;
        let before = std::mem::replace(&mut root.files, seen);
        let now: BTreeSet<FileId> = root.files.keys().copied().collect();
        for id in before.into_keys().filter(|id| !now.contains(id)) {
            if let Some(known) = self.table.get(id)
                && known.root == path
                && !paths.contains(&known.version.facts.path)
            {
                news.push(PlaceNews::Gone {
                    root: known.root.clone(),
                    raw: known.version.facts.path.clone().into_bytes(),
                });
            }
            self.release(id, &path, kernel);
        }
    }

    /// A file is not in the root of this path any more; another root may still show it.
    fn release(&mut self, id: FileId, from: &Path, kernel: &mut dyn Kernel) {
        let other = self
            .roots
            .values()
            .find_map(|root| Some((&root.path, root.files.get(&id)?)));
        match other {
            Some((root, path)) => self.table.found_again(id, from, root, path),
            None => {
                kernel.unwatch(id);
                self.table.remove(id);
            }
        }
    }

    fn drop_root(&mut self, ns: u32, kernel: &mut dyn Kernel) {
        let Some(root) = self.roots.remove(&ns) else {
            return;
        };
        for id in root.files.into_keys() {
            self.release(id, &root.path, kernel);
        }
        self.directories.retain(|(of, _), _| *of != ns);
        self.watched.retain(|_, of| {
            of.remove(&ns);
            !of.is_empty()
        });
    }

    fn watch_directory(
        &mut self,
        ns: u32,
        _root: &Path,
        fd: BorrowedFd<'_>,
        directory: &str,
        component: Component,
    ) {
        // The top of the tree changes seldom and its children are found by the periodic look.
        if directory == "/" {
            return;
        }
        let key = (ns, directory.to_owned());
        if let Some(wd) = self.directories.get(&key) {
            if let Some(components) = self.watched.get_mut(wd).and_then(|of| of.get_mut(&ns)) {
                let known = components.iter().any(|c| match (c, &component) {
                    (Component::Literal(a), Component::Literal(b)) => a == b,
                    (Component::Wild(a), Component::Wild(b)) => a.glob().glob() == b.glob().glob(),
                    _ => false,
                });
                if !known {
                    components.push(component);
                }
            }
            return;
        }
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        if self.directories.len() >= MAX_DIRECTORIES {
            self.table.dropped.add(Bound::Directories, 1);
            return;
        }
        let Ok(dir) = read::open_in(
            fd,
            directory,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
        ) else {
            return;
        };
        let mask =
            WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR;
        if let Ok(wd) = inotify
            .watches()
            .add(format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)
        {
            self.directories.insert(key, wd.clone());
            self.watched
                .entry(wd)
                .or_default()
                .insert(ns, vec![component]);
        }
    }
}

/// Below these lies nothing that could be watched: such files are made when they are read.
fn made_up(path: &str) -> bool {
    // Shared memory is a tmpfs: files lie there like anywhere else.
    !path.starts_with("/dev/shm/")
        && ["/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|top| path.starts_with(top))
}

fn valid_home(home: &str) -> bool {
    home.starts_with('/')
        && home.len() > 1
        && home.len() < 4096
        && !home.contains("/../")
        && !home.contains('\0')
}

/// Home directories of a root: /etc/passwd's, and what lies in /home.
fn homes(root: &Path) -> BTreeSet<String> {
    let mut homes = BTreeSet::from(["/root".to_owned()]);
    let Ok(fd) = read::open_root(root) else {
        return homes;
    };
    if let Ok(file) = read::open_in(fd.as_fd(), "/etc/passwd", rustix::fs::OFlags::RDONLY) {
        let mut text = String::new();
        // An unreadable or huge passwd leaves the usual places.
        let _ = std::fs::File::from(file)
            .take(1024 * 1024)
            .read_to_string(&mut text);
        for line in text.lines() {
            if let Some(home) = line.split(':').nth(5)
                && valid_home(home)
                && homes.len() < MAX_HOMES
                && !["/nonexistent", "/dev", "/bin", "/usr/sbin", "/sbin"].contains(&home)
            {
                homes.insert(home.trim_end_matches('/').to_owned());
            }
        }
    }
    if let Some(pattern) = Pattern::parse("/home/*") {
        homes.extend(
            expand(fd.as_fd(), &pattern)
                .files
                .into_iter()
                .take(MAX_HOMES),
        );
    }
    homes
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_payload::Matcher;
    use keytrail_secret::Fingerprinter;

    #[derive(Default)]
    struct Asked {
        watched: Vec<FileId>,
        unwatched: Vec<FileId>,
    }

    impl Kernel for Asked {
        fn set_process(&mut self, _tgid: u32, _state: keytrail_abi::ProcState) {}
        fn clear_process(&mut self, _tgid: u32, _exec_id: u64) {}
        fn watch(&mut self, _path: &Path, file: FileId, _flags: u32) {
            self.watched.push(file);
        }
        fn unwatch(&mut self, file: FileId) {
            self.unwatched.push(file);
        }
    }

    /// A service's sandbox and the host, or two containers with one volume, show the same file.
    struct Shared {
        dir: tempfile::TempDir,
        files: Files,
        registry: Registry,
        asked: Asked,
    }

    impl Shared {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pattern = dir.path().join("credentials").display().to_string();
            let mut files = Files::new(vec![pattern]);
            files.add_root(1, PathBuf::from("/proc/self/root"));
            files.add_root(2, PathBuf::from("/"));
            let registry = Registry::new(Fingerprinter::new(&[7; 32]), Matcher::new(&[9; 32]));
            let mut shared = Self {
                dir,
                files,
                registry,
                asked: Asked::default(),
            };
            shared.look();
            shared
        }

        fn look(&mut self) {
            let classifier = Classifier::builtin();
            let (registry, asked) = (&mut self.registry, &mut self.asked);
            self.files
                .rescan(&classifier, registry, asked, 1, &mut Vec::new());
        }
    }

    #[test]
    fn a_file_stays_watched_while_any_root_shows_it() {
        let mut shared = Shared::new();
        let file = shared.dir.path().join("credentials");
        std::fs::write(&file, "[default]\n").unwrap();
        shared.files.mark_all();
        shared.look();
        let id = shared.asked.watched[0];
        let reached = |shared: &Shared| shared.files.table.get(id).map(|k| k.access_path());
        assert!(reached(&shared).unwrap().starts_with("/proc/self/root"));
        // The process through which the first was reached is gone.
        shared.files.roots.get_mut(&1).unwrap().path = PathBuf::from("/proc/99999999/root");
        let known = shared.files.table.get(id).unwrap().clone();
        let known = super::super::KnownFile {
            root: PathBuf::from("/proc/99999999/root"),
            ..known
        };
        shared.files.table.insert(id, known);
        shared.files.mark_all();
        shared.look();
        assert_eq!(shared.asked.unwatched, []);
        assert_eq!(reached(&shared), Some(file.clone()));
        // And when the last one is gone, so is the watch.
        std::fs::remove_file(&file).unwrap();
        shared.files.mark_all();
        shared.look();
        assert_eq!(shared.asked.unwatched, [id]);
        assert_eq!(reached(&shared), None);
    }

    #[test]
    fn news_of_a_shared_directory_are_news_for_every_root() {
        let mut shared = Shared::new();
        std::fs::write(shared.dir.path().join("credentials"), "[default]\n").unwrap();
        shared.files.read_events();
        assert_eq!(shared.files.dirty, BTreeSet::from([1, 2]));
    }
}
