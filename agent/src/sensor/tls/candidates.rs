//! Files that may hold TLS: libraries in the host's library directories, large executables on the path, and what
//! running processes have mapped, in any mount namespace.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// An opened file and the name to show for it.
pub struct Candidate {
    pub path: PathBuf,
    pub file: File,
}

/// Most lines of one process's maps that are read.
const MAPS_MAX: usize = 65_536;
/// Executables on the path below this size have no TLS of their own, bytes.
const LARGE: u64 = 8 << 20;
const LIBRARY_PREFIXES: [&str; 3] = ["libssl.so", "libssl-", "libgnutls.so"];
const LIBRARY_DIRS: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];
const PROGRAM_DIRS: [&str; 6] = [
    "/bin",
    "/usr/bin",
    "/usr/local/bin",
    "/sbin",
    "/usr/sbin",
    "/usr/local/sbin",
];

/// Libraries and executables of the host itself.
pub fn on_host() -> Vec<Candidate> {
    let mut found = Vec::new();
    for directory in library_dirs() {
        for entry in entries(&directory) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if LIBRARY_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                push(&mut found, entry.path());
            }
        }
    }
    for directory in PROGRAM_DIRS {
        for entry in entries(Path::new(directory)) {
            let path = entry.path();
            // Follows links: node is often one.
            let large = fs::metadata(&path).is_ok_and(|metadata| {
                metadata.is_file() && metadata.len() >= LARGE && metadata.mode() & 0o111 != 0
            });
            if large {
                push(&mut found, path);
            }
        }
    }
    found
}

fn push(found: &mut Vec<Candidate>, path: PathBuf) {
    if let Ok(file) = open_plain(&path) {
        let path = fs::canonicalize(&path).unwrap_or(path);
        found.push(Candidate { path, file });
    }
}

/// Opens regular files only, and never waits for a FIFO.
fn open_plain(path: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::ErrorKind::InvalidInput.into())
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
}

fn library_dirs() -> HashSet<PathBuf> {
    let configured = entries(Path::new("/etc/ld.so.conf.d"))
        .map(|entry| entry.path())
        .chain([PathBuf::from("/etc/ld.so.conf")])
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| {
            text.lines()
                .map(str::trim)
                .filter(|line| line.starts_with('/'))
                .map(PathBuf::from)
                .collect::<Vec<_>>()
        });
    configured
        .chain(LIBRARY_DIRS.into_iter().map(PathBuf::from))
        // Merged /usr: two names for one directory.
        .filter_map(|directory| fs::canonicalize(directory).ok())
        .collect()
}

/// Pids of all processes.
pub fn pids() -> impl Iterator<Item = u32> {
    entries(Path::new("/proc")).filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A file mapping of executable memory, one line of /proc/PID/maps.
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
pub struct Mapping {
    pub range: String,
    /// "major:minor" as the kernel prints it.
    pub device: String,
    pub inode: u64,
    pub path: String,
}

/// Executable file mappings of a process, each file once.
pub fn mapped(pid: u32) -> Vec<Mapping> {
    let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else {
        return Vec::new();
    };
    let maps = String::from_utf8_lossy(&maps);
    let mut seen = HashSet::new();
    maps.lines()
        .take(MAPS_MAX)
        .filter_map(parse)
        .filter(|mapping| seen.insert((mapping.device.clone(), mapping.inode)))
        .collect()
}

fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let range = words.next()?;
    let permissions = words.next()?;
    let _offset = words.next()?;
    let device = words.next()?;
    let inode = words.next()?.parse().ok()?;
    if permissions.as_bytes().get(2) != Some(&b'x') || inode == 0 {
        return None;
    }
    let path = words.next().unwrap_or_default().trim_start();
    Some(Mapping {
        range: range.to_owned(),
        device: device.to_owned(),
        inode,
        path: path.to_owned(),
    })
}

/// Opens exactly the mapped file, also when it is unlinked or in another mount namespace.
pub fn open_mapped(pid: u32, mapping: &Mapping) -> Option<Candidate> {
    let exact = format!("/proc/{pid}/map_files/{}", mapping.range);
    let by_path = format!("/proc/{pid}/root{}", mapping.path);
    let file = open_plain(Path::new(&exact))
        .or_else(|_| open_plain(Path::new(&by_path)))
        .ok()
        // By path it may be another file by now.
        .filter(|file| {
            file.metadata()
                .is_ok_and(|metadata| metadata.ino() == mapping.inode)
        })?;
    Some(Candidate {
        path: PathBuf::from(&mapping.path),
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lines() {
        let line =
            "7f00-7f10 r-xp 00001000 fe:00 1234                       /usr/lib/a b (deleted)";
        assert_eq!(
            parse(line),
            Some(Mapping {
                range: "7f00-7f10".into(),
                device: "fe:00".into(),
                inode: 1234,
                path: "/usr/lib/a b (deleted)".into()
            })
        );
        assert_eq!(parse("7f00-7f10 rw-p 00001000 fe:00 1234 /x"), None);
        assert_eq!(parse("7f00-7f10 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn the_own_executable_is_mapped() {
        let me = std::process::id();
        let exe = fs::read_link("/proc/self/exe").unwrap();
        let mapping = mapped(me)
            .into_iter()
            .find(|mapping| Path::new(&mapping.path) == exe)
            .unwrap();
        assert!(open_mapped(me, &mapping).is_some());
    }
}
