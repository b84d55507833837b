//! Who runs when the capture begins. What /proc says is written at once; the arguments come from the engine, which has
//! looked for credentials in them: what it redacted is what is shown.

use super::facts::moment;
use super::work::Work;
use keytrail_host::procfs;
use keytrail_model::{Observation, TICK_NS};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// A larger file is no program.
const MOST_BYTES: u64 = 1 << 30;
/// Longest line of a recording that is read.
const MOST_LINE: u64 = 16 << 20;
/// As it is written while it is not known what the arguments are.
pub const RAW: &str = "processes.part";
pub const PROCESSES: &str = "processes.jsonl";

/// One process. Nothing of its environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks since boot: with the pid this names it.
    pub start_ticks: u64,
    /// RFC 3339.
    #[serde(default)]
    pub started: String,
    pub ppid: u32,
    pub comm: String,
    /// As the process sees it; empty for threads of the kernel.
    pub exe: String,
    /// Of the file it executes; empty when it could not be read.
    pub sha256: String,
    /// Redacted; empty when the engine has not inspected it.
    #[serde(default)]
    pub argv: Vec<String>,
    pub uid: u32,
    pub user: String,
    pub gid: u32,
    pub cgroup: String,
    pub cwd: String,
    /// Inode of its network namespace.
    pub net: u32,
}

/// All processes of now.
pub fn list() -> Vec<Process> {
    let users = users();
    procfs::list_pids()
        .into_iter()
        .filter_map(|pid| {
            let facts = procfs::facts(pid)?;
            Some(Process {
                pid,
                start_ticks: facts.start,
                ppid: facts.ppid,
                comm: facts.comm,
                exe: procfs::exe(pid).map(|e| e.path).unwrap_or_default(),
                uid: facts.uid,
                user: users.get(&facts.uid).cloned().unwrap_or_default(),
                gid: facts.gid,
                cgroup: procfs::cgroup(pid).unwrap_or_default(),
                cwd: procfs::cwd(pid).unwrap_or_default(),
                net: procfs::namespace(pid, "net").unwrap_or(0),
                ..Process::default()
            })
        })
        .collect()
}

fn users() -> HashMap<u32, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        })
        .collect()
}

/// Processes with the hashes of their executables.
pub struct Hashed {
    pub processes: Vec<Process>,
    /// Files that were read for that.
    pub executables: u64,
}

/// Reads each executable once. What is not reached when `stop` is set has no hash.
pub fn hash(mut processes: Vec<Process>, stop: &AtomicBool) -> Hashed {
    let mut known: HashMap<(u64, u64), String> = HashMap::new();
    for process in &mut processes {
        if process.exe.is_empty() || stop.load(Ordering::Relaxed) {
            continue;
        }
        // The process may have ended, and its pid may be another's.
        let Some(file) = open(process.pid) else {
            continue;
        };
        let is_it = procfs::pid_of(process.pid).is_some_and(|p| p.start == process.start_ticks);
        let Some(meta) = file
            .metadata()
            .ok()
            .filter(|m| is_it && m.len() <= MOST_BYTES)
        else {
            continue;
        };
        let id = (meta.dev(), meta.ino());
        process.sha256 = match known.entry(id) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => match sha256(file, stop) {
                Some(sha256) => new.insert(sha256).clone(),
                None => continue,
            },
        };
    }
    Hashed {
        executables: known.len() as u64,
        processes,
    }
}

/// The file that a process executes, its access time left alone.
fn open(pid: u32) -> Option<File> {
    let path = procfs::path(pid, "exe");
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let with = |flags| File::options().read(true).custom_flags(flags).open(&path);
    with(flags | libc::O_NOATIME)
        .or_else(|_| with(flags))
        .ok()
        .filter(|file| file.metadata().is_ok_and(|m| m.is_file()))
}

fn sha256(file: File, stop: &AtomicBool) -> Option<String> {
    let mut context = Context::new(&SHA256);
    let mut file = file.take(MOST_BYTES);
    let mut buffer = vec![0; 256 << 10];
    loop {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        match file.read(&mut buffer).ok()? {
            0 => return Some(keytrail_bundle::hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

/// Keeps them for [`finish`].
pub fn write(work: &Work, hashed: &Hashed) -> io::Result<()> {
    let mut file = work.create(RAW)?;
    for process in &hashed.processes {
        serde_json::to_writer(&mut file, process)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Joins what /proc said with the arguments that a recording has. Returns all processes in the order of their pids.
pub fn finish(work: &Work, recording: &str) -> io::Result<Vec<Process>> {
    let mut processes: Vec<Process> = Vec::new();
    for line in BufReader::new(File::open(work.path(RAW))?).lines() {
        // A capture that was killed may have written half of the last one.
        if let Ok(process) = serde_json::from_str(&line?) {
            processes.push(process);
        }
    }
    let mut argv = arguments(work, recording);
    let begin = &work.begin;
    let boot = begin.wall_ns.saturating_sub(begin.boot_ns);
    let mut file = work.create(PROCESSES)?;
    for process in &mut processes {
        process.argv = argv
            .remove(&(process.pid, process.start_ticks))
            .unwrap_or_default();
        process.started = moment(boot + process.start_ticks * TICK_NS);
        serde_json::to_writer(&mut file, process)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(processes)
}

/// What the engine showed of the arguments of processes that ran when it began.
fn arguments(work: &Work, recording: &str) -> HashMap<(u32, u64), Vec<String>> {
    let mut all = HashMap::new();
    let Ok(file) = File::open(work.path(recording)) else {
        return all;
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MOST_LINE).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => return all,
        }
        if !line.starts_with(br#"{"type":"snapshot""#) {
            continue;
        }
        if let Ok(Observation::Snapshot(snapshot)) = serde_json::from_slice(&line) {
            let pid = snapshot.at.pid;
            all.entry((pid.tgid, pid.start)).or_insert(snapshot.argv);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_listed_with_its_executable() {
        let me = std::process::id();
        let mut all = list();
        all.retain(|p| p.pid == me);
        let hashed = hash(all, &AtomicBool::new(false));
        let mine = &hashed.processes[0];
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(mine.sha256, keytrail_bundle::sha256_of(&bytes));
        assert!(mine.net > 0 && !mine.comm.is_empty() && mine.argv.is_empty());
        // Reported to stop, it reads nothing.
        let hashed = hash(list(), &AtomicBool::new(true));
        assert!(hashed.executables == 0 && hashed.processes.iter().all(|p| p.sha256.is_empty()));
    }
}
