//! TLS libraries and executables with TLS inside: finds them, finds the place to probe, attaches once per inode for
//! all processes, those to come included. A probe set when a process starts is too late for a short one.

mod discover;
mod elf;
mod frames;
mod packages;
mod prologue;
mod release;
mod stacks;
mod symbols;

use self::{
    discover::{Directories, FileKey, Mapped, Named, Program},
    elf::ElfError,
    stacks::{Contents, GO, PROGRAMS, SIZE, Site},
};
use super::hooks;
use aya::{
    Ebpf, Pod,
    maps::{MapData, MapError},
    programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
};
use keytrail_abi::GoSite;
use keytrail_model::TlsStack;
use keytrail_model::status::{LibraryReport, Refused};
use packages::{Finder, Found};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Bits of an attachment's number that name its function; the rest tells attachments of it apart.
const HOOK_BITS: u32 = 6;

const ATTACHMENTS_MAX: usize = 512;
/// Where the kernel side looks up what tells a Go program's connections.
const GO_SITES: &str = "GO_SITES";
const IMAGES_MAX: usize = 8192;
/// Time for files not seen before, of the first scan, of any later one, and of one process.
const FIRST_SCAN: Duration = Duration::from_millis(900);
const LATER_SCAN: Duration = Duration::from_millis(100);
const ONE_PROCESS: Duration = Duration::from_millis(100);
/// A process may be seen before its libraries are mapped: it is looked at this often before its maps are believed.
const LOOKS: u8 = 2;
/// Processes whose maps are read again in every scan, in turn: libraries may be opened late.
const AGAIN: usize = 3;
/// Scans after which a file that no process maps and no path leads to any more is let go.
const ABSENT_MAX: u8 = 2;
/// Files no process maps are looked for at their path in every n-th scan.
const PATHS_EVERY: u64 = 6;

const UNSEEN: &str = "its connections are seen, what is sent on them is not";

/// One file with TLS inside, or known to have none.
struct Image {
    path: PathBuf,
    stack: Option<TlsStack>,
    /// Why nothing is attached; `None` with no links: there is no TLS in it.
    uncovered: Option<(String, &'static str)>,
    hooks: Vec<String>,
    stepped: Vec<&'static str>,
    links: Vec<Link>,
    mapped: bool,
    absent: u8,
}

/// An attachment.
struct Link {
    program: &'static str,
    id: UProbeLinkId,
    /// Lower half of its cookie.
    number: u32,
}

/// What is remembered of a process.
struct Seen {
    program: Program,
    images: Vec<FileKey>,
    looks: u8,
    scan: u64,
}

/// The TLS libraries of the host.
#[derive(Default)]
pub struct Libraries {
    /// Programs the kernel took.
    programs: Vec<&'static str>,
    /// Calls may be probed.
    calls: bool,
    directories: Directories,
    images: HashMap<FileKey, Image>,
    /// By device and inode as /proc/PID/maps writes them, so that a library mapped by many is opened once.
    mapped: HashMap<(u64, u64), FileKey>,
    processes: HashMap<u32, Seen>,
    attachments: usize,
    serial: u32,
    /// The agent's own program; `Some(None)` when it cannot be told.
    own: Option<Option<Program>>,
    scans: u64,
    again: usize,
    /// From the first program of a holder on.
    packages: Option<Finder>,
}

impl Libraries {
    /// Loads the programs.
    ///
    /// # Errors
    /// When the kernel takes none of them.
    pub fn prepare(&mut self, ebpf: &mut Ebpf) -> Result<(), Refused> {
        self.calls = std::fs::read_to_string("/proc/cpuinfo")
            .is_ok_and(|text| prologue::calls_are_safe(&text));
        let mut refused = None;
        for program in PROGRAMS {
            match hooks::load_uprobe(ebpf, program) {
                Ok(_) => self.programs.push(program),
                Err(reason) => refused = Some(reason),
            }
        }
        match refused {
            Some(reason) if self.programs.is_empty() => Err(Refused {
                hook: "uprobe".to_owned(),
                reason,
                remedy: "a kernel with CONFIG_UPROBE_EVENTS, and root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Looks at the host's libraries and at what every process has mapped. Returns how many files were attached to
    /// that were not before. Cheap when nothing has changed.
    pub fn scan(&mut self, ebpf: &mut Ebpf) -> usize {
        if self.programs.is_empty() {
            return 0;
        }
        let until = Instant::now()
            + if self.scans == 0 {
                FIRST_SCAN
            } else {
                LATER_SCAN
            };
        self.scans += 1;
        let mut found = 0;
        for (path, named) in self.directories.changed() {
            if let Ok(file) = discover::open(&path) {
                found += self.host_file(ebpf, &file, &path, named, until);
            }
        }
        let pids = discover::processes();
        let turn = self.turn(&pids);
        for pid in pids {
            found += self.process(ebpf, pid, turn.contains(&pid), until);
        }
        self.forget(ebpf);
        found
    }

    /// The same for what one process has mapped at present.
    pub fn scan_process(&mut self, ebpf: &mut Ebpf, tgid: u32) -> usize {
        if self.programs.is_empty() {
            return 0;
        }
        let found = self.process(ebpf, tgid, true, Instant::now() + ONE_PROCESS);
        self.mark();
        found
    }

    /// The same for the program that a process runs: two look-ups when it is known.
    pub fn scan_program(&mut self, ebpf: &mut Ebpf, tgid: u32) -> usize {
        if self.programs.is_empty() {
            return 0;
        }
        if let Some(packages) = self.packages() {
            packages.ask(tgid);
        }
        self.executable(ebpf, tgid, Instant::now() + ONE_PROCESS)
            .map_or(0, |(_, attached)| attached)
    }

    /// Attaches to what was found among the packages of programs.
    pub fn attach_packages(&mut self, ebpf: &mut Ebpf) -> usize {
        let found = self.packages.as_ref().map_or_else(Vec::new, Finder::take);
        let mut attached = 0;
        for Found { file, path, named } in found {
            if let Ok(key) = FileKey::of(&file)
                && !self.images.contains_key(&key)
            {
                attached += self.inspect(ebpf, key, &file, path, named);
            }
        }
        attached
    }

    fn packages(&mut self) -> Option<&Finder> {
        if self.packages.is_none() {
            match Finder::start() {
                Ok(finder) => self.packages = Some(finder),
                Err(error) => {
                    tracing::warn!(%error, "libraries of Python's packages are found when they are used")
                }
            }
        }
        self.packages.as_ref()
    }

    /// Readable when something was found among packages.
    pub fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.packages.as_ref().map(Finder::ready)
    }

    /// One report for each file that is covered, and for each that some process uses and that is not.
    pub fn reports(&self) -> Vec<LibraryReport> {
        let mut users: HashMap<FileKey, Vec<u32>> = HashMap::new();
        for (pid, seen) in &self.processes {
            for image in &seen.images {
                users.entry(*image).or_default().push(*pid);
            }
        }
        let mut reports: Vec<_> = self
            .images
            .iter()
            .filter_map(|(key, image)| image.report(users.remove(key).unwrap_or_default()))
            .collect();
        reports.sort_by(|a, b| a.path.cmp(&b.path));
        reports
    }

    /// Name of the hook whose number a record carries.
    pub fn hook(&self, cookie: u64) -> &str {
        // The number tells it by itself: the attachment may be gone when its last record is read.
        let index = (cookie & ((1 << HOOK_BITS) - 1)) as usize;
        index
            .checked_sub(1)
            .and_then(|index| stacks::hooks().nth(index))
            .map_or("uprobe", |hook| hook.name)
    }

    /// Probes a function of the agent itself for a moment, in which `call` calls [`canary`]: do uprobes fire on this
    /// kernel?
    ///
    /// # Errors
    /// Why it cannot be attached to.
    pub fn with_canary(&mut self, ebpf: &mut Ebpf, call: &mut dyn FnMut()) -> Result<(), String> {
        let address = canary as extern "C" fn(u64, *const u8, usize) -> u64 as usize as u64;
        let offset =
            discover::own_offset(address).ok_or("its own code is not found in /proc/self/maps")?;
        let file =
            discover::open(Path::new("/proc/self/exe")).map_err(|error| hooks::words(&error))?;
        let pushed = if cfg!(target_arch = "x86_64") {
            Some(0)
        } else {
            None
        };
        self.serial = self.serial.wrapping_add(1);
        let number = self.serial << HOOK_BITS;
        let link = attach_at(ebpf, &file, offset, number, SIZE, pushed)?;
        call();
        let link = hooks::load_uprobe(ebpf, SIZE)?
            .take_link(link)
            .map_err(|error| hooks::describe(&error))?;
        release::behind(vec![link]);
        Ok(())
    }

    /// The processes whose turn it is to be looked at again.
    fn turn(&mut self, pids: &[u32]) -> HashSet<u32> {
        let start = self.again;
        self.again = self.again.wrapping_add(AGAIN);
        (0..AGAIN.min(pids.len()))
            .filter_map(|n| pids.get(start.wrapping_add(n) % pids.len()).copied())
            .collect()
    }

    /// A library in one of the host's directories, or an executable large enough to have one linked in.
    fn host_file(
        &mut self,
        ebpf: &mut Ebpf,
        file: &File,
        path: &Path,
        named: Option<Named>,
        until: Instant,
    ) -> usize {
        let Ok(key) = FileKey::of(file) else { return 0 };
        // An executable there is no time for is looked into when it runs.
        if self.images.contains_key(&key) || (named.is_none() && Instant::now() > until) {
            return 0;
        }
        // The real path: several links lead to one library.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.inspect(ebpf, key, file, path, named)
    }

    fn process(&mut self, ebpf: &mut Ebpf, pid: u32, again: bool, until: Instant) -> usize {
        let Some(program) = discover::program(pid) else {
            self.processes.remove(&pid);
            return 0;
        };
        // The agent's own sends are of no interest, nor its children before they execute something.
        let own = *self
            .own
            .get_or_insert_with(|| discover::program(std::process::id()));
        if own.is_some_and(|own| own.same_file(program)) {
            return 0;
        }
        let scan = self.scans;
        let looks = match self.processes.get_mut(&pid) {
            Some(seen) if seen.program == program => {
                seen.scan = scan;
                if seen.looks >= LOOKS && !again {
                    return 0;
                }
                seen.looks
            }
            _ => 0,
        };
        let mut images = Vec::new();
        let mut found = 0;
        let mut all = true;
        match self.executable(ebpf, pid, until) {
            Some((key, attached)) => {
                images.push(key);
                found += attached;
            }
            None => all = false,
        }
        for mapped in discover::mapped(pid).unwrap_or_default() {
            match self.library(ebpf, pid, &mapped, until) {
                Some((key, attached)) => {
                    images.push(key);
                    found += attached;
                }
                None => all = false,
            }
        }
        let looks = if all { looks.saturating_add(1) } else { looks };
        self.processes.insert(
            pid,
            Seen {
                program,
                images,
                looks,
                scan,
            },
        );
        found
    }

    /// The program itself: TLS may be linked in. `None`: it could not be looked at, or not in time.
    fn executable(
        &mut self,
        ebpf: &mut Ebpf,
        pid: u32,
        until: Instant,
    ) -> Option<(FileKey, usize)> {
        let link = PathBuf::from(format!("/proc/{pid}/exe"));
        let key = FileKey::at(&link).ok()?;
        if self.images.contains_key(&key) {
            return Some((key, 0));
        }
        if Instant::now() > until {
            return None;
        }
        let file = discover::open(&link).ok()?;
        let key = FileKey::of(&file).ok()?;
        let path = std::fs::read_link(&link).ok()?;
        Some((key, self.inspect(ebpf, key, &file, path, None)))
    }

    fn library(
        &mut self,
        ebpf: &mut Ebpf,
        pid: u32,
        mapped: &Mapped,
        until: Instant,
    ) -> Option<(FileKey, usize)> {
        let id = (mapped.device, mapped.inode);
        if let Some(key) = self.mapped.get(&id)
            && self.images.contains_key(key)
        {
            return Some((*key, 0));
        }
        if Instant::now() > until {
            return None;
        }
        let file = discover::open_mapped(pid, mapped).ok()?;
        let key = FileKey::of(&file).ok()?;
        self.mapped.insert(id, key);
        if self.images.contains_key(&key) {
            return Some((key, 0));
        }
        Some((
            key,
            self.inspect(ebpf, key, &file, mapped.path.clone(), mapped.named),
        ))
    }

    /// Looks into a file for the first time and attaches to what is found. Returns whether anything was.
    fn inspect(
        &mut self,
        ebpf: &mut Ebpf,
        key: FileKey,
        file: &File,
        path: PathBuf,
        named: Option<Named>,
    ) -> usize {
        if self.images.len() >= IMAGES_MAX {
            return 0;
        }
        let mut image = Image {
            path,
            stack: named.map(Named::stack),
            uncovered: None,
            hooks: Vec::new(),
            stepped: Vec::new(),
            links: Vec::new(),
            mapped: false,
            absent: 0,
        };
        match stacks::contents(file, self.calls) {
            Ok(contents) => {
                image.holds(&contents, named);
                for site in &contents.sites {
                    self.attach(ebpf, file, site, contents.x86_64, &mut image);
                }
            }
            Err(error) => image.unreadable(&error, named),
        }
        let attached = usize::from(!image.links.is_empty());
        self.images.insert(key, image);
        attached
    }

    fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        file: &File,
        site: &Site,
        x86_64: bool,
        image: &mut Image,
    ) {
        let Some(hook) = stacks::hooks().nth(site.hook) else {
            return;
        };
        if self.attachments >= ATTACHMENTS_MAX {
            image.uncovered = Some((
                format!("the limit of {ATTACHMENTS_MAX} probed functions is reached"),
                "fewer versions of TLS libraries in use on one host",
            ));
            return;
        }
        let place = site.place;
        let index = u32::try_from(site.hook + 1).unwrap_or(0);
        let offset = site.offset.saturating_add(place.offset);
        self.serial = self.serial.wrapping_add(1);
        let number = self.serial << HOOK_BITS | index;
        // Before the first call can come.
        if let Some(connections) = site.go
            && let Err(error) =
                go_sites(ebpf).and_then(|mut sites| sites.insert(number, Value(connections), 0))
        {
            // Its destinations are then told by the other proofs, or unknown.
            tracing::warn!("{GO_SITES}: {error}");
        }
        match attach_at(ebpf, file, offset, number, hook.program, place.pushed) {
            Ok(link) => {
                self.attachments += 1;
                image.links.push(Link {
                    program: hook.program,
                    id: link,
                    number,
                });
                let mut name = hook.name.to_owned();
                if place.offset != 0 {
                    name = format!("{name}+{:#x}", place.offset);
                }
                match place.emulated {
                    Some(kind) => name = format!("{name} (emulated {kind})"),
                    None if x86_64 => {
                        name.push_str(" (single-stepped)");
                        image.stepped.push(hook.function);
                    }
                    None => {}
                }
                // Several functions may have one name.
                if !image.hooks.contains(&name) {
                    image.hooks.push(name);
                }
            }
            Err(reason) => {
                forget_site(ebpf, hook.program, number);
                image.uncovered = Some((
                    format!("{}: {reason}", hook.function),
                    "root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN), and a file system whose files the kernel can probe",
                ));
            }
        }
    }

    /// Notes which files some process maps.
    fn mark(&mut self) {
        let mapped: HashSet<FileKey> = self
            .processes
            .values()
            .flat_map(|seen| seen.images.iter().copied())
            .collect();
        for (key, image) in &mut self.images {
            image.mapped = mapped.contains(key);
        }
    }

    /// Lets go of processes that are gone, and of files that no process maps and no path leads to.
    fn forget(&mut self, ebpf: &mut Ebpf) {
        let scan = self.scans;
        self.processes.retain(|_, seen| seen.scan == scan);
        self.mark();
        let look = scan.is_multiple_of(PATHS_EVERY);
        let mut gone = Vec::new();
        for (key, image) in &mut self.images {
            if image.mapped {
                image.absent = 0;
            } else if (look || image.absent > 0) && FileKey::at(&image.path).ok() != Some(*key) {
                image.absent += 1;
                if image.absent >= ABSENT_MAX {
                    gone.push(*key);
                }
            } else if look {
                image.absent = 0;
            }
        }
        let mut links = Vec::new();
        for key in gone {
            let Some(image) = self.images.remove(&key) else {
                continue;
            };
            for link in image.links {
                forget_site(ebpf, link.program, link.number);
                // A link that cannot be taken off costs nothing: nothing maps the file.
                if let Ok(program) = hooks::load_uprobe(ebpf, link.program)
                    && let Ok(link) = program.take_link(link.id)
                {
                    self.attachments -= 1;
                    links.push(link);
                }
            }
        }
        release::behind(links);
        let images = &self.images;
        self.mapped
            .retain(|_, key| images.get(key).is_some_and(|image| image.mapped));
    }
}

impl Image {
    /// Notes what is in the file, and what of it is not covered.
    fn holds(&mut self, contents: &Contents, named: Option<Named>) {
        let unproven = contents.unproven.first();
        if let Some(stack) = contents.stacks.first() {
            self.stack = Some(*stack);
        } else if let Some((stack, _)) = unproven {
            self.stack = Some(*stack);
        }
        if let Some((stack, reason)) = unproven {
            // Another stack in it may well be covered.
            let reason = if self.stack == Some(*stack) {
                reason.clone()
            } else {
                format!("{}: {reason}", stack.word())
            };
            self.uncovered = Some((reason, UNSEEN));
        } else if contents.stacks.is_empty()
            && let Some(named) = named
        {
            let reason = match named {
                Named::Java => "Java's own TLS (JSSE) has no native code to hook",
                _ => "it exports none of the functions that take plaintext",
            };
            self.uncovered = Some((reason.to_owned(), UNSEEN));
        }
    }

    fn unreadable(&mut self, error: &ElfError, named: Option<Named>) {
        // Of a program nothing says that it has TLS inside.
        if named.is_some() {
            self.uncovered = Some((error.to_string(), UNSEEN));
        }
    }

    fn report(&self, users: Vec<u32>) -> Option<LibraryReport> {
        let covered = !self.links.is_empty();
        if !covered && (self.uncovered.is_none() || !self.mapped) {
            return None;
        }
        let (mut reason, mut remedy) = self
            .uncovered
            .as_ref()
            .map_or((String::new(), ""), |(reason, remedy)| {
                (reason.clone(), *remedy)
            });
        if covered && reason.is_empty() && !self.stepped.is_empty() {
            reason = format!(
                "{}: single-stepped, each call costs about 8 times as much",
                self.stepped.join(", ")
            );
            remedy = "";
        }
        Some(LibraryReport {
            path: self.path.to_string_lossy().into_owned(),
            stack: self.stack,
            covered,
            reason,
            remedy: remedy.to_owned(),
            hooks: self.hooks.clone(),
            users,
        })
    }
}

/// Attaches a program to a place in a file. `number`: the lower half of its cookie.
fn attach_at(
    ebpf: &mut Ebpf,
    file: &File,
    offset: u64,
    number: u32,
    program: &str,
    pushed: Option<u32>,
) -> Result<UProbeLinkId, String> {
    // Upper half: bytes between the stack pointer and the return address, plus one; zero is unknown.
    let cookie = u64::from(number) | pushed.map_or(0, |pushed| u64::from(pushed) + 1) << 32;
    hooks::load_uprobe(ebpf, program)?
        .attach(
            UProbeAttachPoint {
                location: UProbeAttachLocation::AbsoluteOffset(offset),
                // Kernels before 5.15 have no cookies, and aya refuses to drop one.
                cookie: aya::features().bpf_cookie().then_some(cookie),
            },
            // The very file that was inspected, whatever its path leads to by now.
            format!("/proc/self/fd/{}", file.as_raw_fd()),
            UProbeScope::AllProcesses,
        )
        .map_err(|error| hooks::describe(&error))
}

/// A [`GoSite`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(GoSite);

// SAFETY: two integers, no padding.
unsafe impl Pod for Value {}

fn go_sites(ebpf: &mut Ebpf) -> Result<aya::maps::HashMap<&mut MapData, u32, Value>, MapError> {
    let map = ebpf
        .map_mut(GO_SITES)
        .ok_or_else(|| MapError::InvalidName {
            name: GO_SITES.to_owned(),
        })?;
    aya::maps::HashMap::try_from(map)
}

fn forget_site(ebpf: &mut Ebpf, program: &str, number: u32) {
    if program == GO
        && let Ok(mut sites) = go_sites(ebpf)
    {
        // What was never there need not go.
        let _ = sites.remove(&number);
    }
}

/// Takes what a TLS library's write function takes, to be probed by the self-test.
#[inline(never)]
pub extern "C" fn canary(session: u64, buffer: *const u8, length: usize) -> u64 {
    std::hint::black_box((session, buffer, length)).0
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
