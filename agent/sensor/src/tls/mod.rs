//! TLS libraries and executables with TLS inside: finds them, finds the place to probe, attaches once per inode for
//! all processes, those to come included. A probe set when a process starts is too late for a short one.

mod ahead;
mod discover;
mod elf;
mod frames;
mod image;
mod packages;
mod prologue;
mod release;
mod search;
mod searcher;
mod stacks;
mod symbols;

use self::{
    discover::FileKey,
    image::{Image, Link},
    search::{Inspected, News},
    searcher::Searcher,
    stacks::{GO, PROGRAMS, ProbeSite, SIZE},
};
use super::hooks::{self, HookError};
use aya::{
    Ebpf, Pod,
    maps::{MapData, MapError},
    programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
};
use keytrail_abi::GoSite;
use keytrail_model::status::{LibraryReport, Refused};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Bits of an attachment's number that name its function; the rest tells attachments of it apart.
const HOOK_BITS: u32 = 6;

const ATTACHMENTS_MAX: usize = 512;
/// Of these, those that may be made before anybody runs the program.
const AHEAD_MAX: usize = ATTACHMENTS_MAX / 2;
/// Where the kernel side looks up what tells a Go program's connections.
const GO_SITES: &str = "GO_SITES";
/// What was found is taken in at most so many files at a time: attaching takes the kernel some 50 µs a function.
const AT_A_TIME: usize = 64;
/// Who waits for a search looks again after this time.
const GLANCE: Duration = Duration::from_millis(20);

/// Why a function of the agent itself is not probed.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    #[error("its own code is not found in /proc/self/maps")]
    NotFound,
    #[error("{}", hooks::words(.0))]
    Open(io::Error),
    #[error("{0}")]
    Hook(HookError),
}

impl From<HookError> for CanaryError {
    fn from(error: HookError) -> Self {
        Self::Hook(error)
    }
}

/// The TLS libraries of the host: what was found of them is attached to and reported.
#[derive(Default)]
pub struct Libraries {
    /// Programs the kernel took.
    programs: Vec<&'static str>,
    searcher: Option<Searcher>,
    images: HashMap<FileKey, Image>,
    /// What each process has mapped of them.
    processes: HashMap<u32, Vec<FileKey>>,
    attachments: usize,
    serial: u32,
}

impl Libraries {
    /// Loads the programs, and starts to search.
    ///
    /// # Errors
    /// When the kernel takes none of them, or nothing can be searched.
    pub fn prepare(&mut self, ebpf: &mut Ebpf) -> Result<(), Refused> {
        let calls = std::fs::read_to_string("/proc/cpuinfo")
            .is_ok_and(|text| prologue::calls_are_safe(&text));
        let mut refused = None;
        for program in PROGRAMS {
            match hooks::load_uprobe(ebpf, program) {
                Ok(_) => self.programs.push(program),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused
            && self.programs.is_empty()
        {
            return Err(Refused {
                hook: "uprobe".to_owned(),
                reason: error.to_string(),
                remedy: "a kernel with CONFIG_UPROBE_EVENTS, and root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)".to_owned(),
            });
        }
        let searcher = Searcher::start(calls).map_err(|error| Refused {
            hook: "uprobe".to_owned(),
            reason: format!("TLS libraries are not searched for: {error}"),
            remedy: "room for another thread and descriptor (`ulimit -u`, `ulimit -n`)".to_owned(),
        })?;
        self.searcher = Some(searcher);
        Ok(())
    }

    /// Asks for an inspection of the host's libraries and of what every process has mapped.
    pub fn scan(&self) {
        if let Some(searcher) = &self.searcher {
            searcher.scan();
        }
    }

    /// Asks for the same of what one process has mapped at present.
    pub fn scan_process(&self, tgid: u32) {
        if let Some(searcher) = &self.searcher {
            searcher.libraries(tgid);
        }
    }

    /// Asks for the same of the program that a process runs: two look-ups when it is known.
    pub fn scan_program(&self, tgid: u32) {
        if let Some(searcher) = &self.searcher {
            searcher.program(tgid);
        }
    }

    /// Begins to look for programs wherever they are installed, before anybody runs them.
    pub fn search_ahead(&self) {
        if let Some(searcher) = &self.searcher {
            searcher.search_ahead();
        }
    }

    /// A file that was written; if it is a program, it may have TLS inside. `path` is its way from the host's root.
    pub fn offer(&self, file: impl AsRawFd, path: PathBuf) {
        // Open for nothing (`O_PATH`) until now.
        let Ok(file) = discover::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
        else {
            return;
        };
        if let Some(searcher) = &self.searcher
            && let Some(found) = packages::Found::program(file, path)
        {
            searcher.offer(found);
        }
    }

    /// Whether something is asked that is not answered.
    pub fn is_searching(&self) -> bool {
        self.searcher.as_ref().is_some_and(Searcher::is_busy)
    }

    /// Attaches to what was found. Returns how many files were attached to that were not before; `None` when nothing is
    /// new, not even of what cannot be attached to.
    pub fn take(&mut self, ebpf: &mut Ebpf) -> Option<usize> {
        let searcher = self.searcher.as_mut()?;
        let known = self.images.iter();
        let mut changed = searcher.replace(known.map(|(key, image)| (*key, image.path.clone())));
        let mut attached = 0;
        for news in searcher.take(AT_A_TIME) {
            changed = true;
            match news {
                News::File(found) => attached += self.found(ebpf, *found),
                News::Gone(key) => self.release(ebpf, &key),
                News::Process { pid, images } => {
                    self.processes.insert(pid, images);
                }
                News::Ended(pid) => {
                    self.processes.remove(&pid);
                }
            }
        }
        if self.attachments >= AHEAD_MAX
            && let Some(searcher) = &self.searcher
        {
            searcher.end_ahead();
        }
        changed.then_some(attached)
    }

    /// The same until all that was asked is answered, at most `most`.
    pub fn take_all(&mut self, ebpf: &mut Ebpf, most: Duration) -> usize {
        let end = Instant::now() + most;
        let mut attached = 0;
        loop {
            // Before the inspection of what was found: nothing comes after it.
            let busy = self.is_searching();
            let taken = self.take(ebpf);
            attached += taken.unwrap_or(0);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || (!busy && taken.is_none()) {
                return attached;
            }
            if let Some(searcher) = self.searcher.as_ref().filter(|_| taken.is_none()) {
                // It may have come to rest between the two looks.
                searcher.wait(left.min(GLANCE));
            }
        }
    }

    /// Readable when something was found.
    pub fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.searcher.as_ref().map(Searcher::ready)
    }

    /// One report for each file that is covered, and for each that some process uses and that is not.
    pub fn reports(&self) -> Vec<LibraryReport> {
        let mut users: HashMap<FileKey, Vec<u32>> = HashMap::new();
        for (pid, images) in &self.processes {
            for image in images {
                users.entry(*image).or_default().push(*pid);
            }
        }
        let mut reports: Vec<_> = self
            .images
            .iter()
            .filter_map(|(key, image)| image.report(users.remove(key).unwrap_or_default()))
            .collect();
        if let Some(searcher) = &self.searcher {
            reports.extend_from_slice(searcher.stuck());
        }
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
    pub fn with_canary(
        &mut self,
        ebpf: &mut Ebpf,
        call: &mut dyn FnMut(),
    ) -> Result<(), CanaryError> {
        let link = self.attach_canary(ebpf)?;
        call();
        let link = hooks::load_uprobe(ebpf, SIZE)?
            .take_link(link)
            .map_err(HookError::from)?;
        release::behind(vec![link]);
        Ok(())
    }

    /// The same for as long as the programs are there: it costs who calls it, which only [`super::activity`] does.
    ///
    /// # Errors
    /// Why it cannot be attached to.
    pub fn keep_canary(&mut self, ebpf: &mut Ebpf) -> Result<(), CanaryError> {
        self.attach_canary(ebpf).map(drop)
    }

    fn attach_canary(&mut self, ebpf: &mut Ebpf) -> Result<UProbeLinkId, CanaryError> {
        let address = canary as extern "C" fn(u64, *const u8, usize) -> u64 as usize as u64;
        let offset = discover::own_offset(address).ok_or(CanaryError::NotFound)?;
        let file = discover::open(Path::new("/proc/self/exe")).map_err(CanaryError::Open)?;
        self.serial = self.serial.wrapping_add(1);
        let number = self.serial << HOOK_BITS;
        Ok(attach_at(
            ebpf,
            &file,
            offset,
            number,
            SIZE,
            prologue::ENTRY.pushed,
        )?)
    }

    /// A file that was inspected: attaches to what it has. Returns whether anything was.
    fn found(&mut self, ebpf: &mut Ebpf, found: Inspected) -> usize {
        let Inspected {
            key,
            path,
            named,
            contents,
            file,
        } = found;
        if self.images.get(&key).is_some_and(Image::is_attached) {
            return 0;
        }
        let mut image = Image::new(path, named);
        match contents {
            Ok(contents) => {
                image.holds(&contents, named);
                for site in contents.sites.iter() {
                    if let Some(file) = &file {
                        self.attach(ebpf, file, site, &mut image);
                    }
                }
            }
            Err(error) => image.unreadable(&error, named),
        }
        let attached = usize::from(image.is_attached());
        self.images.insert(key, image);
        attached
    }

    fn attach(&mut self, ebpf: &mut Ebpf, file: &File, site: &ProbeSite, image: &mut Image) {
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
        let point = site.point;
        let index = u32::try_from(site.hook + 1).unwrap_or(0);
        let offset = site.offset.saturating_add(point.offset);
        self.serial = self.serial.wrapping_add(1);
        let number = self.serial << HOOK_BITS | index;
        // Before the first call can come.
        if let Some(connections) = site.go
            && let Err(error) =
                go_sites(ebpf).and_then(|mut sites| sites.insert(number, Value(connections), 0))
        {
            // Its destinations are then reported by the other proofs, or unknown.
            tracing::warn!("{GO_SITES}: {error}");
        }
        match attach_at(ebpf, file, offset, number, hook.program, point.pushed) {
            Ok(link) => {
                self.attachments += 1;
                image.links.push(Link {
                    program: hook.program,
                    id: link,
                    number,
                });
                let mut name = hook.name.to_owned();
                if point.offset != 0 {
                    name = format!("{name}+{:#x}", point.offset);
                }
                match point.emulated {
                    Some(kind) => name = format!("{name} (emulated {kind})"),
                    None => {
                        name.push_str(" (single-stepped)");
                        image.stepped.push(hook.function);
                    }
                }
                // Several functions may have one name.
                if !image.hooks.contains(&name) {
                    image.hooks.push(name);
                }
            }
            Err(error) => {
                forget_site(ebpf, hook.program, number);
                image.uncovered = Some((
                    format!("{}: {error}", hook.function),
                    "root (or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN), and a file system whose files the kernel can probe",
                ));
            }
        }
    }

    /// Takes the probes off a file that is gone.
    fn release(&mut self, ebpf: &mut Ebpf, key: &FileKey) {
        let Some(image) = self.images.remove(key) else {
            return;
        };
        let mut links = Vec::new();
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
        release::behind(links);
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
) -> Result<UProbeLinkId, HookError> {
    // Upper half: bytes between the stack pointer and the return address, plus one; zero is unknown.
    let cookie = u64::from(number) | pushed.map_or(0, |pushed| u64::from(pushed) + 1) << 32;
    let link = hooks::load_uprobe(ebpf, program)?.attach(
        UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            // Kernels before 5.15 have no cookies, and aya refuses to drop one.
            cookie: aya::features().bpf_cookie().then_some(cookie),
        },
        // The very file that was inspected, whatever its path leads to by now.
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        UProbeScope::AllProcesses,
    )?;
    Ok(link)
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
