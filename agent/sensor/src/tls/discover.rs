//! Where TLS libraries are: the host's library directories and what running processes have mapped.
//!
//! Processes choose the names of their files. A mapped file is opened through the kernel's own link to it, which is
//! the very inode, deleted or in another mount namespace or not; a path is only the way back.

use keytrail_model::TlsStack;
use rustix::fs::{self as rfs, CWD, Mode, OFlags, ResolveFlags};
use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
        },
    },
    path::{Path, PathBuf},
};

const MAPS_MAX: u64 = 8 << 20;
/// Code of a module that has a TLS library linked in takes at least so much, bytes.
pub(super) const MODULE_MIN: u64 = 1 << 20;
/// Candidates taken from one process.
const MAPPED_MAX: usize = 64;
const DIRECTORIES_MAX: usize = 4096;
const ENTRIES_MAX: usize = 200_000;
const DEPTH_MAX: usize = 2;
/// Where executables lie that may have TLS linked in.
const EXECUTABLES: [&str; 6] = [
    "usr/local/bin",
    "usr/bin",
    "usr/sbin",
    "usr/local/sbin",
    "usr/libexec/docker/cli-plugins",
    "usr/lib/google-cloud-sdk/bin",
];
/// The same in a home, where installers that need no rights put them.
const OF_HOMES: [&str; 6] = [
    ".local/bin",
    "bin",
    "go/bin",
    ".cargo/bin",
    ".bun/bin",
    ".deno/bin",
];
/// Homes and directories of `/opt` that are inspected.
const HOMES_MAX: usize = 256;
/// Nothing with a TLS library inside is smaller, bytes.
pub(super) const EXECUTABLE_MIN: u64 = 4 << 20;
const CONFIG_MAX: u64 = 64 << 10;
/// f_type of overlayfs (linux/magic.h).
const OVERLAY: u64 = 0x794c_7630;

/// One content of one inode. Each mount of an overlay shows the same lower file under a device number of its own, so
/// there the change time stands in for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    device: u64,
    inode: u64,
    /// Nanoseconds since the epoch: a file written over is another one.
    modified: i128,
    /// On overlays only.
    changed: i128,
}

impl FileKey {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self::new(
            &meta,
            rfs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == OVERLAY),
        ))
    }

    /// Of whatever is at the path, through links.
    pub fn at(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self::new(
            &meta,
            rfs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == OVERLAY),
        ))
    }

    fn new(meta: &Metadata, overlay: bool) -> Self {
        let nanos =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: if overlay { 0 } else { meta.dev() },
            inode: meta.ino(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: if overlay {
                nanos(meta.ctime(), meta.ctime_nsec())
            } else {
                0
            },
        }
    }
}

/// What a file's name says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownLibrary {
    OpenSsl,
    GnuTls,
    Nss,
    BoringSsl,
    MbedTls,
    WolfSsl,
    S2n,
    Java,
}

impl KnownLibrary {
    pub fn stack(self) -> TlsStack {
        match self {
            Self::OpenSsl => TlsStack::OpenSsl,
            Self::GnuTls => TlsStack::GnuTls,
            Self::Nss => TlsStack::Nss,
            Self::BoringSsl => TlsStack::BoringSsl,
            Self::MbedTls => TlsStack::MbedTls,
            Self::WolfSsl => TlsStack::WolfSsl,
            Self::S2n => TlsStack::S2n,
            Self::Java => TlsStack::Java,
        }
    }

    pub fn by(name: &[u8]) -> Option<Self> {
        let library = |stem: &[u8]| {
            // libssl.so.3, and libssl-1a2b3c4d.so.3 as wheels bundle it.
            name.strip_prefix(stem).is_some_and(|rest| {
                // Those that lead plaintext on into libgnutls are seen there.
                let more = [&b"-openssl"[..], b"-dane"]
                    .into_iter()
                    .any(|part| rest.starts_with(part));
                matches!(rest.first(), Some(b'.' | b'-'))
                    && !more
                    && memchr::memmem::find(rest, b".so").is_some()
            })
        };
        let begins =
            |stem: &[u8]| name.starts_with(stem) && memchr::memmem::find(name, b".so").is_some();
        if library(b"libssl") {
            Some(Self::OpenSsl)
        } else if library(b"libgnutls") {
            Some(Self::GnuTls)
        } else if library(b"libssl3") || library(b"libnspr4") {
            Some(Self::Nss)
        } else if library(b"libmbedtls") {
            Some(Self::MbedTls)
        } else if library(b"libwolfssl") {
            Some(Self::WolfSsl)
        } else if library(b"libs2n") {
            Some(Self::S2n)
        } else if library(b"libjvm") {
            Some(Self::Java)
        } else if [
            &b"libboringssl"[..],
            b"libconscrypt",
            b"libnetty_tcnative",
            b"cygrpc.",
        ]
        .into_iter()
        .any(begins)
        {
            Some(Self::BoringSsl)
        } else {
            None
        }
    }
}

/// A library some process has mapped for execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// As in /proc/PID/map_files.
    range: String,
    pub device: u64,
    pub inode: u64,
    pub path: PathBuf,
    /// `None`: a file large enough to have a library linked in.
    pub named: Option<KnownLibrary>,
}

/// Libraries a process has mapped.
///
/// # Errors
/// When the process is gone or hidden.
pub fn mapped(pid: u32) -> io::Result<Vec<Mapped>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))?
        .take(MAPS_MAX)
        .read_to_end(&mut text)?;
    Ok(parse_maps(&text))
}

fn parse_maps(text: &[u8]) -> Vec<Mapped> {
    let mut found: Vec<Mapped> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        // Almost every line ends here.
        let Some(slash) = memchr::memrchr(b'/', line) else {
            continue;
        };
        let named = KnownLibrary::by(line.get(slash + 1..).unwrap_or_default());
        if named.is_none() && memchr::memmem::find(line, b" r-xp ").is_none_or(|at| at >= slash) {
            continue;
        }
        let Some((mapped, size)) = parse_line(line, named) else {
            continue;
        };
        if named.is_none() && (size < MODULE_MIN || !is_library(&mapped.path)) {
            continue;
        }
        let known = found
            .iter()
            .any(|other| (other.device, other.inode) == (mapped.device, mapped.inode));
        if !known && found.len() < MAPPED_MAX {
            found.push(mapped);
        }
    }
    found
}

/// `7f5c75a34000-7f5c75a50000 r-xp 0001f000 fe:00 1234                       /usr/lib/libssl.so.3 (deleted)`
fn parse_line(line: &[u8], named: Option<KnownLibrary>) -> Option<(Mapped, u64)> {
    let slash = memchr::memchr(b'/', line)?;
    let mut fields = std::str::from_utf8(line.get(..slash)?)
        .ok()?
        .split_ascii_whitespace();
    let range = fields.next()?;
    if fields.next()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let device =
        u64::from_str_radix(major, 16).ok()? << 32 | u64::from_str_radix(minor, 16).ok()?;
    let inode = fields.next()?.parse().ok()?;
    let path = line.get(slash..)?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    // map_files names a range without leading zeroes, as maps does on 64-bit machines only beyond its padding.
    let (from, to) = range.split_once('-')?;
    let (from, to) = (
        u64::from_str_radix(from, 16).ok()?,
        u64::from_str_radix(to, 16).ok()?,
    );
    let mapped = Mapped {
        range: format!("{from:x}-{to:x}"),
        device,
        inode,
        path: PathBuf::from(OsString::from_vec(path.to_vec())),
        named,
    };
    Some((mapped, to.saturating_sub(from)))
}

/// Is it a module or a library, by its name? The program itself is inspected as such.
pub(super) fn is_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.as_bytes();
        name.ends_with(b".so")
            || memchr::memmem::find(name, b".so.").is_some()
            || name.ends_with(b".node")
    })
}

/// Does it begin as an ELF file?
pub(super) fn is_elf(file: &File) -> bool {
    let mut magic = [0; 4];
    rustix::io::pread(file, &mut magic, 0).is_ok_and(|n| n == 4) && magic == *b"\x7fELF"
}

fn is_large_executable(meta: &Metadata) -> bool {
    meta.len() >= EXECUTABLE_MIN && meta.mode() & 0o111 != 0
}

/// Could a file of this name have TLS inside, by its size and mode?
pub(super) fn may_have_tls(name: &[u8], meta: &Metadata) -> bool {
    if KnownLibrary::by(name).is_some() {
        return true;
    }
    if is_library(Path::new(std::ffi::OsStr::from_bytes(name))) {
        return meta.len() >= MODULE_MIN;
    }
    is_large_executable(meta)
}

/// Opens what a process has mapped: by the kernel's link, or else by its path as the process sees it.
///
/// # Errors
/// When neither leads to the mapped inode.
pub fn open_mapped(pid: u32, mapped: &Mapped) -> io::Result<File> {
    if let Ok(file) = open(Path::new(&format!(
        "/proc/{pid}/map_files/{}",
        mapped.range
    ))) {
        return Ok(file);
    }
    let root = rfs::openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let inside = mapped.path.strip_prefix("/").map_err(io::Error::other)?;
    let fd: OwnedFd = rfs::openat2(
        &root,
        inside,
        QUIETLY,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    let file = regular(File::from(fd))?;
    if file.metadata()?.ino() != mapped.inode {
        return Err(io::Error::other("another file has taken its path"));
    }
    Ok(file)
}

/// A fifo must not hold the agent up, a terminal not become its own.
const QUIETLY: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens a regular file.
///
/// # Errors
/// Those of open(2), and when it is anything else.
pub fn open(path: &Path) -> io::Result<File> {
    regular(File::from(rfs::openat(CWD, path, QUIETLY, Mode::empty())?))
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// A process as far as the scan remembers it: another number, another program or another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Inode of /proc/PID, which the kernel numbers anew for every process.
    directory: u64,
    device: u64,
    inode: u64,
}

impl Program {
    /// Do both run one executable?
    pub fn same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The program a process runs; `None` for kernel threads and the dead.
pub fn program(pid: u32) -> Option<Program> {
    let directory = rfs::stat(format!("/proc/{pid}")).ok()?;
    let exe = rfs::stat(format!("/proc/{pid}/exe")).ok()?;
    Some(Program {
        directory: directory.st_ino,
        device: exe.st_dev,
        inode: exe.st_ino,
    })
}

/// Offset in its file of an address of this process's code.
pub fn own_offset(address: u64) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        (start..end)
            .contains(&address)
            .then(|| address - start + offset)
    })
}

/// The numbers of all processes.
pub fn processes() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The host's directories of libraries and executables.
#[derive(Debug, Default)]
pub struct Directories {
    known: Vec<Directory>,
    /// Directories of packages that were inspected, by device and inode, with the time of their last change.
    opened: HashMap<(u64, u64), Option<i128>>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    executables: bool,
    /// Of its last change: a file added, replaced or removed. Nanoseconds since the epoch.
    time: Option<i128>,
}

/// How a directory is read.
#[derive(Clone, Copy)]
struct Reading {
    /// Remembered even if nothing is in it.
    keep: bool,
    /// Large executables count as well.
    executables: bool,
}

impl Directories {
    /// Libraries in a directory of packages, and in the bundles below it, if it has changed since it was last inspected.
    pub fn open(&mut self, directory: &Path) -> Vec<(PathBuf, Option<KnownLibrary>)> {
        let mut found = Vec::new();
        let Ok(meta) = std::fs::metadata(directory) else {
            return found;
        };
        // By its inode: each process has another way there.
        let id = (meta.dev(), meta.ino());
        let time = modified(directory);
        if self.opened.get(&id) == Some(&time) {
            return found;
        }
        if self.opened.len() >= DIRECTORIES_MAX {
            self.opened.clear();
        }
        self.opened.insert(id, time);
        Walk {
            found: &mut found,
            known: &mut Vec::new(),
            entries: 0,
        }
        .down(
            directory,
            0,
            Reading {
                keep: false,
                executables: false,
            },
        );
        found
    }

    /// Files in directories that have changed since the last call; `None` is an executable. The first call looks
    /// into subdirectories as well; those that hold a library are watched from then on. Executables come last.
    pub fn changed(&mut self) -> Vec<(PathBuf, Option<KnownLibrary>)> {
        let mut found = Vec::new();
        if self.known.is_empty() {
            let mut walk = Walk {
                found: &mut found,
                known: &mut self.known,
                entries: 0,
            };
            for root in roots() {
                walk.down(
                    &root,
                    DEPTH_MAX,
                    Reading {
                        keep: true,
                        executables: false,
                    },
                );
            }
            for path in programs(Path::new("/")) {
                if let Ok(real) = path.canonicalize() {
                    walk.down(
                        &real,
                        0,
                        Reading {
                            keep: true,
                            executables: true,
                        },
                    );
                }
            }
            return found;
        }
        for Directory {
            path,
            executables,
            time,
        } in &mut self.known
        {
            let now = modified(path);
            if now != *time {
                *time = now;
                let mode = Reading {
                    keep: false,
                    executables: *executables,
                };
                Walk {
                    found: &mut found,
                    known: &mut Vec::new(),
                    entries: 0,
                }
                .down(path, 0, mode);
            }
        }
        found
    }
}

fn modified(path: &Path) -> Option<i128> {
    let meta = std::fs::metadata(path).ok()?;
    Some(i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()))
}

struct Walk<'a> {
    found: &'a mut Vec<(PathBuf, Option<KnownLibrary>)>,
    known: &'a mut Vec<Directory>,
    entries: usize,
}

impl Walk<'_> {
    fn down(&mut self, directory: &Path, depth: usize, mode: Reading) {
        // The time before the listing: a change in between is seen again.
        let time = modified(directory);
        if self.known.iter().any(|known| known.path == directory) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        let before = self.found.len();
        let mut below = Vec::new();
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                break;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                // Wheels of Python bring their libraries in a directory beside the package.
                let bundle = entry.file_name().as_bytes().ends_with(b".libs");
                if (depth > 0 || bundle) && below.len() < DIRECTORIES_MAX {
                    below.push(entry.path());
                }
            } else if let Some(named) = KnownLibrary::by(entry.file_name().as_bytes()) {
                self.found.push((entry.path(), Some(named)));
            } else if mode.executables
                && kind.is_file()
                && entry
                    .metadata()
                    .is_ok_and(|meta| is_large_executable(&meta))
            {
                self.found.push((entry.path(), None));
            }
        }
        // Where a wheel may be installed: what it brings then is seen before it is used.
        let packages = directory
            .file_name()
            .is_some_and(|name| name.as_bytes().ends_with(b"-packages"));
        let keep = mode.keep || packages || self.found.len() != before;
        if keep && self.known.len() < DIRECTORIES_MAX {
            self.known.push(Directory {
                path: directory.to_owned(),
                executables: mode.executables,
                time,
            });
        }
        for path in below {
            self.down(
                &path,
                depth.saturating_sub(1),
                Reading {
                    keep: false,
                    executables: false,
                },
            );
        }
    }
}

/// Directories in which programs are installed, under `root`.
fn programs(root: &Path) -> Vec<PathBuf> {
    let below = |path: &str| -> Vec<PathBuf> {
        std::fs::read_dir(root.join(path))
            .map(|entries| {
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .take(HOMES_MAX)
                    .collect()
            })
            .unwrap_or_default()
    };
    let mut found: Vec<PathBuf> = EXECUTABLES.iter().map(|path| root.join(path)).collect();
    for home in below("home").into_iter().chain([root.join("root")]) {
        found.extend(OF_HOMES.iter().map(|path| home.join(path)));
    }
    for product in below("opt") {
        found.push(product.join("bin"));
        found.push(product);
    }
    found
}

/// Directories the dynamic linker inspects, by real path.
fn roots() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    let usual = [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/local/lib64",
    ];
    let mut wanted: Vec<PathBuf> = usual.into_iter().map(PathBuf::from).collect();
    let mut configs = vec![PathBuf::from("/etc/ld.so.conf")];
    if let Ok(entries) = std::fs::read_dir("/etc/ld.so.conf.d") {
        configs.extend(entries.flatten().map(|entry| entry.path()).take(256));
    }
    for config in configs {
        let mut text = String::new();
        let read = open(&config).and_then(|file| file.take(CONFIG_MAX).read_to_string(&mut text));
        if read.is_ok() {
            wanted.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| line.starts_with('/'))
                    .map(PathBuf::from),
            );
        }
    }
    for path in wanted.into_iter().take(DIRECTORIES_MAX) {
        if let Ok(real) = path.canonicalize()
            && !roots.contains(&real)
        {
            roots.push(real);
        }
    }
    roots
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
