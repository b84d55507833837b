//! The watch set: which paths are watched, in which mount namespaces, kept true as directories change.
//!
//! What lies there is found out by the inspection's threads ([`Survey`]), an area at a time: a home directory on a file
//! system that does not answer keeps only itself from being watched.

use super::globs::{Component, Pattern};
use super::homes::{MAX_HOMES, valid_home};
use super::read::is_reachable;
use super::table::FileTable;
use crate::digested::Digested;
use crate::inspection::{Area, PathSubject, Survey, Surveyed};
use globset::GlobSet;
use inotify::{EventMask, Inotify, WatchDescriptor};
use keytrail_abi::FileId;
use keytrail_host::procfs;
use keytrail_model::{Bound, InventoryUpdate, Why};
use keytrail_secret::form;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mount namespaces watched beside the agent's own.
const MAX_ROOTS: usize = 512;
/// Directories watched for new files.
const MAX_DIRECTORIES: usize = 8_192;
/// Reads of directory events in one go.
const MAX_READS: usize = 64;

/// One mount namespace, reached through one of its processes (no handle is kept: it would pin the mounts).
struct Root {
    /// `/` for the agent's own namespace, `/proc/PID/root` for others.
    path: PathBuf,
    /// By home directory; the absolute patterns under `None`.
    areas: BTreeMap<Option<String>, AreaFiles>,
}

/// The files watched in one area, each with its path there.
#[derive(Default)]
struct AreaFiles {
    files: BTreeMap<FileId, String>,
    surveyed: bool,
}

/// A file of the watch set that is not known in its version of now.
pub struct NewVersion {
    pub subject: PathSubject,
    /// Its owner.
    pub user: u32,
    pub why: Why,
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
    /// What is looked for in a directory, by area: several may show the same one.
    watched: HashMap<WatchDescriptor, BTreeMap<Area, Vec<Component>>>,
    /// Watches that reported something before the survey that made them was back.
    early: HashSet<WatchDescriptor>,
    dirty: BTreeSet<Area>,
    /// Areas that are being surveyed.
    asked: BTreeSet<Area>,
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
            early: HashSet::new(),
            dirty: BTreeSet::new(),
            asked: BTreeSet::new(),
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

    /// Adds the mount namespace of a process, if it is new; true when it is to be surveyed.
    pub fn add_process(&mut self, tgid: u32) -> bool {
        let Some(ns) = procfs::namespace(tgid, "mnt") else {
            return false;
        };
        let path = PathBuf::from(format!("/proc/{}/root", procfs::lasting(tgid)));
        if let Some(root) = self.roots.get_mut(&ns) {
            // The process we reached it through is gone: go on through this one.
            if !is_reachable(&root.path) {
                root.path = path;
                let areas = root.areas.keys().cloned();
                self.dirty
                    .extend(areas.map(|home| Area { mnt_ns: ns, home }));
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
        let areas = BTreeMap::new();
        self.roots.insert(ns, Root { path, areas });
        self.add_area(ns, None);
        self.add_area(ns, Some("/root".to_owned()));
        true
    }

    fn add_area(&mut self, ns: u32, home: Option<String>) {
        if let Some(root) = self.roots.get_mut(&ns)
            && root.areas.len() <= MAX_HOMES
            && !root.areas.contains_key(&home)
        {
            root.areas.insert(home.clone(), AreaFiles::default());
            self.dirty.insert(Area { mnt_ns: ns, home });
        }
    }

    /// Adds a home directory, for example one that a process has in `HOME`.
    pub fn add_home(&mut self, ns: u32, home: &str) {
        let ns = if ns == 0 { procfs::own_mnt_ns() } else { ns };
        if valid_home(home) {
            self.add_area(ns, Some(home.trim_end_matches('/').to_owned()));
        }
    }

    /// Takes the directory events; areas in which something of interest changed become dirty.
    pub fn read_events(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            return;
        };
        let mut buffer = [0u8; 16 * 1024];
        for _ in 0..MAX_READS {
            let Ok(events) = inotify.read_events(&mut buffer) else {
                return;
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    self.dirty.extend(all(&self.roots));
                    continue;
                }
                let Some(of) = self.watched.get(&event.wd) else {
                    if !self.asked.is_empty() && self.early.len() < MAX_DIRECTORIES {
                        self.early.insert(event.wd.clone());
                    }
                    continue;
                };
                if event.mask.contains(EventMask::IGNORED) {
                    self.dirty.extend(of.keys().cloned());
                    self.watched.remove(&event.wd);
                    continue;
                }
                let name = event.name.and_then(|n| n.to_str());
                for (area, components) in of {
                    if name.is_none_or(|name| components.iter().any(|c| c.matches(name))) {
                        self.dirty.insert(area.clone());
                    }
                }
            }
        }
    }

    /// Marks every area for a new survey (done now and then: not every change raises an event).
    pub fn mark_all(&mut self) {
        self.dirty.extend(all(&self.roots));
    }

    /// Whether a survey is to be made.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty.iter().any(|area| !self.asked.contains(area))
    }

    /// The surveys that are to be made now.
    pub fn surveys(&mut self) -> Vec<Survey> {
        let due: Vec<Area> = self.dirty.difference(&self.asked).cloned().collect();
        let mut surveys = Vec::new();
        for area in due {
            self.dirty.remove(&area);
            let Some(root) = self.roots.get(&area.mnt_ns) else {
                continue;
            };
            let patterns = match &area.home {
                None => self.absolute.clone(),
                Some(home) => self.in_homes.iter().map(|p| p.below(home)).collect(),
            };
            self.asked.insert(area.clone());
            surveys.push(Survey {
                area,
                root: root.path.clone(),
                patterns,
                watches: self.inotify.as_ref().map(Inotify::watches),
            });
        }
        surveys
    }

    /// A survey did not come back in time: the next one may.
    pub fn not_surveyed(&mut self, area: &Area) {
        self.asked.remove(area);
    }

    /// Takes in a survey; what is gone goes to `out`, and what has to be inspected comes back.
    pub fn surveyed(&mut self, found: Surveyed, out: &mut Digested) -> Vec<NewVersion> {
        let Surveyed {
            area,
            root: path,
            root_gone,
            homes,
            directories,
            unwatched,
            files,
        } = found;
        self.asked.remove(&area);
        let Some(root) = self.roots.get(&area.mnt_ns) else {
            return Vec::new();
        };
        if root_gone {
            if path != Path::new("/") && root.path == path {
                self.drop_root(area.mnt_ns, out);
            }
            return Vec::new();
        }
        for home in homes {
            self.add_area(area.mnt_ns, Some(home));
        }
        self.table.dropped.add(Bound::Directories, unwatched);
        self.take_watches(&area, directories);
        let Some(files_before) = self
            .roots
            .get_mut(&area.mnt_ns)
            .and_then(|root| root.areas.get_mut(&area.home))
        else {
            return Vec::new();
        };
        let why = if files_before.surveyed {
            Why::Changed
        } else {
            Why::Start
        };
        files_before.surveyed = true;
        let now: BTreeMap<FileId, String> = files
            .iter()
            .map(|(path, version)| (version.id, path.clone()))
            .collect();
        let before = std::mem::replace(&mut files_before.files, now);
        let there: BTreeSet<FileId> = files.values().map(|version| version.id).collect();
        for (id, name) in before {
            if there.contains(&id) {
                continue;
            }
            if !files.contains_key(&name) {
                out.news(InventoryUpdate::Gone {
                    root: path.clone(),
                    raw: name.into_bytes(),
                });
            }
            self.release(id, &path, out);
        }
        let mut new = Vec::new();
        for (name, version) in files {
            let Some(known) = self.table.check(&path, &name, &version) else {
                continue;
            };
            new.push(NewVersion {
                subject: PathSubject {
                    root: path.clone(),
                    path: name,
                    expected: None,
                    known,
                },
                user: version.facts.owner_uid,
                why,
            });
        }
        new
    }

    fn take_watches(&mut self, area: &Area, directories: Vec<(WatchDescriptor, Vec<Component>)>) {
        for of in self.watched.values_mut() {
            of.remove(area);
        }
        for (watch, components) in directories {
            if self.early.remove(&watch) {
                self.dirty.insert(area.clone());
            }
            if self.watched.len() >= MAX_DIRECTORIES && !self.watched.contains_key(&watch) {
                self.table.dropped.add(Bound::Directories, 1);
                self.unwatch(watch);
                continue;
            }
            let of = self.watched.entry(watch).or_default();
            let all: &mut Vec<Component> = of.entry(area.clone()).or_default();
            all.extend(components);
        }
        let unused: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, of)| of.is_empty())
            .map(|(watch, _)| watch.clone())
            .collect();
        for watch in unused {
            self.watched.remove(&watch);
            self.unwatch(watch);
        }
        if self.asked.is_empty() {
            self.early.clear();
        }
    }

    fn unwatch(&self, watch: WatchDescriptor) {
        if let Some(inotify) = &self.inotify {
            // It may be gone with its directory.
            let _ = inotify.watches().remove(watch);
        }
    }

    /// A file is not in an area of the root of this path any more; another may still show it.
    fn release(&mut self, id: FileId, from: &Path, out: &mut Digested) {
        let other = self.roots.values().find_map(|root| {
            root.areas
                .values()
                .find_map(|area| Some((&root.path, area.files.get(&id)?)))
        });
        match other {
            Some((root, path)) => self.table.found_again(id, from, root, path),
            None => {
                out.unwatch(id);
                self.table.remove(id);
            }
        }
    }

    fn drop_root(&mut self, ns: u32, out: &mut Digested) {
        let Some(root) = self.roots.remove(&ns) else {
            return;
        };
        for id in root
            .areas
            .into_values()
            .flat_map(|area| area.files)
            .map(|(id, _)| id)
        {
            self.release(id, &root.path, out);
        }
        for home in self
            .dirty
            .iter()
            .filter(|a| a.mnt_ns == ns)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.dirty.remove(&home);
        }
        let mut unused = Vec::new();
        for (watch, of) in &mut self.watched {
            of.retain(|area, _| area.mnt_ns != ns);
            if of.is_empty() {
                unused.push(watch.clone());
            }
        }
        for watch in unused {
            self.watched.remove(&watch);
            self.unwatch(watch);
        }
    }
}

fn all(roots: &BTreeMap<u32, Root>) -> impl Iterator<Item = Area> {
    roots.iter().flat_map(|(ns, root)| {
        root.areas.keys().map(|home| Area {
            mnt_ns: *ns,
            home: home.clone(),
        })
    })
}

/// Below these lies nothing that could be watched: such files are made when they are read.
fn made_up(path: &str) -> bool {
    // Shared memory is a tmpfs: files lie there like anywhere else.
    !path.starts_with("/dev/shm/")
        && ["/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|top| path.starts_with(top))
}

#[cfg(test)]
mod tests {
    use super::super::{Excluded, read};
    use super::*;
    use crate::digested::file_key;
    use crate::files::{KnownFile, version};
    use keytrail_model::FileKey;

    /// A service's sandbox and the host, or two containers with one volume, show the same file.
    struct Shared {
        dir: tempfile::TempDir,
        files: Files,
        watched: Vec<FileId>,
        unwatched: Vec<FileKey>,
    }

    impl Shared {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pattern = dir.path().join("credentials").display().to_string();
            let mut files = Files::new(vec![pattern]);
            files.add_root(1, PathBuf::from("/proc/self/root"));
            files.add_root(2, PathBuf::from("/"));
            let mut shared = Self {
                dir,
                files,
                watched: Vec::new(),
                unwatched: Vec::new(),
            };
            shared.survey();
            shared
        }

        /// Surveys, and knows every file that is new as an empty one.
        fn survey(&mut self) {
            while self.files.is_dirty() {
                for survey in self.files.surveys() {
                    let mut out = Digested::default();
                    let found = survey.run(&Excluded::none());
                    for new in self.files.surveyed(found, &mut out) {
                        let PathSubject { root, path, .. } = new.subject;
                        let root_fd = read::open_root(&root).unwrap();
                        let flags = rustix::fs::OFlags::PATH;
                        let fd = read::open_in(root_fd.as_fd(), &path, flags).unwrap();
                        let version = version(&fd, &path).unwrap().unwrap();
                        let id = version.id;
                        self.watched.push(id);
                        let known = KnownFile::unreadable(version, root, None);
                        self.files.table.insert(id, known);
                    }
                    self.unwatched.extend(out.unwatched());
                }
            }
        }
    }

    #[test]
    fn a_file_stays_watched_while_any_root_shows_it() {
        let mut shared = Shared::new();
        let file = shared.dir.path().join("credentials");
        std::fs::write(&file, "[default]\n").unwrap();
        shared.files.mark_all();
        shared.survey();
        let id = shared.watched[0];
        let reached = |shared: &Shared| shared.files.table.get(id).map(|k| k.access_path());
        assert!(reached(&shared).unwrap().starts_with("/proc/self/root"));
        // The process through which the first was reached is gone.
        shared.files.roots.get_mut(&1).unwrap().path = PathBuf::from("/proc/99999999/root");
        let known = shared.files.table.get(id).unwrap().clone();
        let known = KnownFile {
            root: PathBuf::from("/proc/99999999/root"),
            ..known
        };
        shared.files.table.insert(id, known);
        shared.files.mark_all();
        shared.survey();
        assert_eq!(shared.unwatched, []);
        assert_eq!(reached(&shared), Some(file.clone()));
        // And when the last one is gone, so is the watch.
        std::fs::remove_file(&file).unwrap();
        shared.files.mark_all();
        shared.survey();
        assert_eq!(shared.unwatched, [file_key(id)]);
        assert_eq!(reached(&shared), None);
    }

    #[test]
    fn news_of_a_shared_directory_are_news_for_every_root() {
        let mut shared = Shared::new();
        std::fs::write(shared.dir.path().join("credentials"), "[default]\n").unwrap();
        shared.files.read_events();
        let dirty: Vec<_> = shared
            .files
            .dirty
            .iter()
            .map(|a| (a.mnt_ns, &a.home))
            .collect();
        assert_eq!(dirty, [(1, &None), (2, &None)]);
    }

    #[test]
    fn news_before_the_survey_is_back_are_not_lost() {
        let mut shared = Shared::new();
        shared.files.mark_all();
        let surveys = shared.files.surveys();
        // A directory that the watch set did not have yet.
        shared.files.watched.clear();
        let found: Vec<_> = surveys
            .into_iter()
            .map(|survey| survey.run(&Excluded::none()))
            .collect();
        std::fs::write(shared.dir.path().join("credentials"), "[default]\n").unwrap();
        shared.files.read_events();
        assert!(!shared.files.is_dirty());
        for found in found {
            shared.files.surveyed(found, &mut Digested::default());
        }
        assert!(shared.files.is_dirty());
    }

    /// One that does not answer is not asked again until it has, and keeps nobody else waiting.
    #[test]
    fn an_area_is_surveyed_once_at_a_time() {
        let mut shared = Shared::new();
        shared.files.add_home(2, "/srv/alice");
        let first: Vec<Area> = shared.files.surveys().into_iter().map(|s| s.area).collect();
        assert_eq!(first.len(), 1);
        shared.files.mark_all();
        let others = shared.files.surveys();
        assert!(others.len() >= 2 && others.iter().all(|s| s.area != first[0]));
        shared.files.not_surveyed(&first[0]);
        assert_eq!(shared.files.surveys().len(), 1);
    }
}
