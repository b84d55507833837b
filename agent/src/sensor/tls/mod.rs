//! TLS libraries and executables with TLS inside: finds them, finds the place to probe, attaches once per inode.
//!
//! A probe on an inode fires in every process that maps it, also in those started later: attaching ahead of time is
//! what catches a short curl.

mod candidates;
mod elf;
mod prologue;

use self::{candidates::Candidate, elf::Function, prologue::Place};
use super::{
    hooks,
    status::{LibraryReport, Refused},
};
use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use std::{
    collections::HashSet,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// How a function is told the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// `int`
    Int,
    /// `size_t`
    Size,
}

impl Length {
    fn program(self) -> &'static str {
        match self {
            Self::Int => "tls_write_int",
            Self::Size => "tls_write_size",
        }
    }
}

/// Functions that are handed (session, buffer, length) as their first three arguments.
const FUNCTIONS: [(&str, Length); 6] = [
    ("SSL_write", Length::Int),
    ("SSL_write_ex", Length::Size),
    ("SSL_write_ex2", Length::Size),
    ("SSL_write_early_data", Length::Size),
    ("gnutls_record_send", Length::Size),
    ("gnutls_record_send2", Length::Size),
];

/// Most files whose nature is remembered; a host with more of them is looked through again and again.
const SEEN_MAX: usize = 1 << 17;
/// Most files that are reported on.
const REPORTS_MAX: usize = 4096;

/// What is attached where, and what is known of the files seen so far.
#[derive(Default)]
pub struct Libraries {
    /// Names of hooks by cookie. The first is for kernels without cookies, where it is always 0.
    hooks: Vec<String>,
    /// Files looked into: (st_dev, st_ino, ctime), so that an upgraded library is a new one.
    files: HashSet<(u64, u64, i64)>,
    /// Mappings looked into: (device as printed, inode).
    mappings: HashSet<(String, u64)>,
    reports: Vec<LibraryReport>,
    ready: bool,
}

impl Libraries {
    /// Loads the uprobe programs.
    ///
    /// # Errors
    /// When the kernel takes no uprobes.
    pub fn prepare(&mut self, ebpf: &mut Ebpf) -> Result<(), Refused> {
        for length in [Length::Int, Length::Size] {
            if let Err(reason) = hooks::load_uprobe(ebpf, length.program()) {
                return Err(Refused {
                    hook: "uprobe".to_owned(),
                    reason,
                    remedy: "a kernel with CONFIG_UPROBE_EVENTS, and CAP_SYS_ADMIN".to_owned(),
                });
            }
        }
        self.hooks = vec!["uprobe".to_owned()];
        self.ready = true;
        Ok(())
    }

    /// Looks through the host's libraries and all processes. Returns how many files were newly attached to.
    pub fn scan(&mut self, ebpf: &mut Ebpf) -> usize {
        let mut count = 0;
        for candidate in candidates::on_host() {
            count += usize::from(self.consider(ebpf, &candidate));
        }
        for pid in candidates::pids() {
            count += self.scan_process(ebpf, pid);
        }
        count
    }

    /// Looks through what one process has mapped.
    pub fn scan_process(&mut self, ebpf: &mut Ebpf, pid: u32) -> usize {
        if self.mappings.len() > SEEN_MAX || self.files.len() > SEEN_MAX {
            self.mappings.clear();
        }
        let mut count = 0;
        for mapping in candidates::mapped(pid) {
            if !self
                .mappings
                .insert((mapping.device.clone(), mapping.inode))
            {
                continue;
            }
            if let Some(candidate) = candidates::open_mapped(pid, &mapping) {
                count += usize::from(self.consider(ebpf, &candidate));
            }
        }
        count
    }

    /// Attaches to a file if it has TLS functions and was not seen before.
    fn consider(&mut self, ebpf: &mut Ebpf, candidate: &Candidate) -> bool {
        let Ok(metadata) = candidate.file.metadata() else {
            return false;
        };
        if !self.ready
            || !self
                .files
                .insert((metadata.dev(), metadata.ino(), metadata.ctime()))
        {
            return false;
        }
        let names = FUNCTIONS.map(|(name, _)| name);
        let mut report = LibraryReport {
            path: candidate.path.display().to_string(),
            ..LibraryReport::default()
        };
        match elf::find(&candidate.file, &names) {
            Ok(found) if found.functions.is_empty() => {
                if found.go {
                    "go".clone_into(&mut report.stack);
                    "Go programs bring their own TLS, which has no function to probe by name"
                        .clone_into(&mut report.reason);
                    "its destinations are seen, the plaintext is not"
                        .clone_into(&mut report.remedy);
                    self.report(report);
                }
                return false;
            }
            Ok(found) => {
                let gnutls = found
                    .functions
                    .iter()
                    .any(|function| function.name.starts_with("gnutls"));
                if gnutls { "gnutls" } else { "openssl" }.clone_into(&mut report.stack);
                // The descriptor, not the path: exactly the file that was looked into.
                let path = PathBuf::from(format!("/proc/self/fd/{}", candidate.file.as_raw_fd()));
                for function in &found.functions {
                    let place = if found.x86 {
                        prologue::choose(&function.code)
                    } else {
                        prologue::ENTRY
                    };
                    match self.attach(ebpf, &path, function, place) {
                        Ok(name) => report.hooks.push(name),
                        Err(reason) => report.reason = format!("{}: {reason}", function.name),
                    }
                }
                report.covered = report.hooks.len() == found.functions.len();
                if !report.covered {
                    "see the reason; the connections of its users are seen, the plaintext is not"
                        .clone_into(&mut report.remedy);
                }
            }
            // Most files of a process are not ELF files or have nothing to do with TLS; only what calls itself a
            // TLS library is worth a word.
            Err(error) => {
                let name = candidate
                    .path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if error == elf::ElfError::NotElf || !(name.contains("ssl") || name.contains("tls"))
                {
                    return false;
                }
                report.reason = error.to_string();
                "reinstall the package it belongs to".clone_into(&mut report.remedy);
            }
        }
        let attached = !report.hooks.is_empty();
        self.report(report);
        attached
    }

    fn report(&mut self, report: LibraryReport) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(report);
        }
    }

    /// Returns the hook's name with the place, for example `uprobe:SSL_write+0x16`.
    fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        path: &Path,
        function: &Function,
        place: Place,
    ) -> Result<String, String> {
        let length = FUNCTIONS
            .iter()
            .find(|(name, _)| *name == function.name)
            .map(|(_, length)| *length)
            .ok_or("not a function of ours")?;
        self.attach_at(
            ebpf,
            path,
            function.offset + place.at,
            place.pushed,
            length,
            function.name,
        )
        .map_err(|error| hooks::describe(&error))?;
        let stepped = if place.emulated {
            ""
        } else {
            " (single-stepped)"
        };
        Ok(format!("uprobe:{}+{:#x}{stepped}", function.name, place.at))
    }

    fn attach_at(
        &mut self,
        ebpf: &mut Ebpf,
        path: &Path,
        offset: u64,
        pushed: u64,
        length: Length,
        name: &str,
    ) -> Result<UProbeLinkId, ProgramError> {
        // Lower half: which hook; upper half: bytes pushed, plus one.
        let cookie = self.hooks.len() as u64 | (pushed + 1) << 32;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: aya::features().bpf_cookie().then_some(cookie),
        };
        let program = ebpf
            .program_mut(length.program())
            .ok_or(ProgramError::NotLoaded)?;
        let program: &mut UProbe = program.try_into()?;
        let link = program.attach(point, path, UProbeScope::AllProcesses)?;
        self.hooks.push(format!("uprobe:{name}"));
        Ok(link)
    }

    /// Probes a function of the agent itself for a moment: do uprobes fire on this kernel?
    ///
    /// # Errors
    /// When it cannot be attached to.
    pub fn with_canary(&mut self, ebpf: &mut Ebpf, call: &mut dyn FnMut()) -> Result<(), String> {
        let address = canary as extern "C" fn(u64, *const u8, usize) -> u64 as usize as u64;
        let (path, offset) =
            own_offset(address).ok_or("its own code is not found in /proc/self/maps")?;
        let link = self
            .attach_at(ebpf, &path, offset, 0, Length::Size, "canary")
            .map_err(|error| hooks::describe(&error))?;
        call();
        let program = ebpf
            .program_mut(Length::Size.program())
            .ok_or("the program is gone")?;
        let program: &mut UProbe = program
            .try_into()
            .map_err(|error: ProgramError| error.to_string())?;
        program
            .detach(link)
            .map_err(|error| hooks::describe(&error))
    }

    pub fn reports(&self) -> Vec<LibraryReport> {
        self.reports.clone()
    }

    /// The name of the hook a record's cookie stands for.
    pub fn hook(&self, cookie: u64) -> &str {
        usize::try_from(cookie)
            .ok()
            .and_then(|at| self.hooks.get(at))
            .map_or("uprobe", String::as_str)
    }
}

/// Looks like a TLS library's write function, to be probed by the self-test.
#[inline(never)]
pub extern "C" fn canary(session: u64, buffer: *const u8, length: usize) -> u64 {
    std::hint::black_box((session, buffer, length)).0
}

/// The file and offset of an address of this process's code.
fn own_offset(address: u64) -> Option<(PathBuf, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        (start <= address && address < end)
            .then(|| (PathBuf::from("/proc/self/exe"), address - start + offset))
    })
}
