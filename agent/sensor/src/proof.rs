//! Proof of the field offsets: a program reads the agent's own task by them, and /proc says what is true.
//!
//! A wrong offset reads garbage without any error, so nothing is believed before this.

use super::{bpf, hooks::HookError, maps::Maps, proc};
use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint},
};
use keytrail_abi::{SelfTest, globals::field as f};
use std::{
    fs, io,
    os::{fd::BorrowedFd, unix::fs::MetadataExt},
    path::Path,
};

/// A group of fields that did not read what /proc says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub what: String,
    /// The fields that must not be used.
    pub fields: &'static [usize],
}

/// Why the proof was not run.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("the object has no self-test program")]
    NoProgram,
    #[error("{0}")]
    Program(ProgramError),
    #[error("{0}")]
    Load(HookError),
    #[error("BPF_PROG_TEST_RUN: {0}")]
    Run(io::Error),
    #[error("the self-test left no result")]
    NoResult,
    #[error("/proc/self cannot be read")]
    NoTruth,
}

/// Runs the proof in the calling thread.
///
/// # Errors
/// When it cannot be run at all (before 5.10).
pub fn run(ebpf: &mut Ebpf, maps: &Maps) -> Result<Vec<Failure>, ProofError> {
    let program = ebpf.program_mut("self_test").ok_or(ProofError::NoProgram)?;
    let program: &mut RawTracePoint = program.try_into().map_err(ProofError::Program)?;
    program
        .load()
        .map_err(|error| ProofError::Load(error.into()))?;
    let fd = program.fd().map_err(ProofError::Program)?;
    bpf::run(std::os::fd::AsFd::as_fd(fd)).map_err(ProofError::Run)?;
    let seen = maps
        .self_test()
        .filter(|seen| seen.ran == 1)
        .ok_or(ProofError::NoResult)?;
    let truth = Truth::read().ok_or(ProofError::NoTruth)?;
    Ok(compare(&seen, &truth))
}

/// What /proc/self says.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub tid: u32,
    pub pid: u32,
    pub ppid: u32,
    pub start_ticks: u64,
    pub memory: [u64; 4],
    pub euid: u32,
    pub suid: u32,
    pub ns_tgid: u32,
    pub loginuid: Option<u32>,
    pub sessionid: Option<u32>,
    pub mnt_ns: Option<u32>,
    pub net_ns: Option<u32>,
    pub threads: u32,
    pub exe_ino: u64,
    pub exe_dev: u32,
    pub exe_size: u64,
    pub exe_ctime_ns: u64,
}

impl Truth {
    fn read() -> Option<Self> {
        let stat = fs::read("/proc/self/stat").ok()?;
        let (_, rest) = proc::split_stat(&stat)?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // proc(5) counts from 1, and `rest` begins with field 3.
        let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = |name: &str, n: usize| -> Option<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(n)?.parse().ok()
        };
        let last_pid = status
            .lines()
            .find_map(|line| line.strip_prefix("NStgid:"))
            .and_then(|line| line.split_whitespace().last()?.parse().ok());
        let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
        let namespace = |path: &str| {
            let link = fs::read_link(path).ok()?;
            let text = link.to_str()?;
            text.split_once('[')?
                .1
                .strip_suffix(']')?
                .parse::<u32>()
                .ok()
        };
        let exe = fs::metadata("/proc/self/exe").ok()?;
        let pid = std::process::id();
        Some(Self {
            tid: rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned(),
            pid,
            ppid: number(4)? as u32,
            start_ticks: number(22)?,
            memory: [number(48)?, number(49)?, number(50)?, number(51)?],
            euid: line("Uid:", 1)?,
            suid: line("Uid:", 2)?,
            ns_tgid: last_pid.unwrap_or(pid),
            loginuid: read("/proc/self/loginuid"),
            sessionid: read("/proc/self/sessionid"),
            mnt_ns: namespace("/proc/self/ns/mnt"),
            net_ns: namespace("/proc/self/ns/net"),
            threads: line("Threads:", 0)?,
            exe_ino: exe.ino(),
            exe_dev: keytrail_host::kernel_device(exe.dev()),
            exe_size: exe.size(),
            exe_ctime_ns: (exe.ctime() as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(exe.ctime_nsec() as u64),
        })
    }
}

/// Tells which fields cannot be trusted.
pub fn compare(seen: &SelfTest, truth: &Truth) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut check = |good: bool, what: &str, fields: &'static [usize]| {
        if !good {
            failures.push(Failure {
                what: format!("{what} of the agent's own task read wrong"),
                fields,
            });
        }
    };
    of_task(seen, truth, &mut check);
    of_namespaces(seen, truth, &mut check);
    of_executable(seen, truth, &mut check);
    failures
}

/// Takes whether something is right, what it is, and the fields it was read by.
type Check<'a> = dyn FnMut(bool, &str, &'static [usize]) + 'a;

fn of_task(seen: &SelfTest, truth: &Truth, check: &mut Check<'_>) {
    check(
        seen.pid == truth.tid && seen.tgid == truth.pid && seen.leader_pid == truth.pid,
        "pid and thread group",
        &[f::TASK_PID, f::TASK_TGID, f::TASK_GROUP_LEADER],
    );
    check(
        seen.start_ns / keytrail_model::TICK_NS == truth.start_ticks,
        "start time",
        &[f::TASK_START_BOOTTIME],
    );
    check(
        seen.parent_tgid == truth.ppid,
        "parent",
        &[f::TASK_REAL_PARENT],
    );
    check(
        seen.euid == truth.euid,
        "effective uid",
        &[f::TASK_CRED, f::CRED_EUID],
    );
    check(seen.suid == truth.suid, "saved uid", &[f::CRED_SUID]);
    check(
        [seen.arg_start, seen.arg_end, seen.env_start, seen.env_end] == truth.memory,
        "argument and environment areas",
        &[
            f::MM_ARG_START,
            f::MM_ARG_END,
            f::MM_ENV_START,
            f::MM_ENV_END,
        ],
    );
    check(
        seen.ns_tgid == truth.ns_tgid,
        "pid in its namespace",
        &[f::PID_NUMBERS],
    );
}

/// What of a task some kernels do not have, and how many threads it has.
fn of_namespaces(seen: &SelfTest, truth: &Truth, check: &mut Check<'_>) {
    let same = |seen: u32, truth: Option<u32>| truth.is_none_or(|truth| truth == seen);
    check(
        same(seen.loginuid, truth.loginuid),
        "login uid",
        &[f::TASK_LOGINUID],
    );
    check(
        same(seen.sessionid, truth.sessionid),
        "audit session",
        &[f::TASK_SESSIONID],
    );
    check(
        same(seen.mnt_ns, truth.mnt_ns),
        "mount namespace",
        &[f::NSPROXY_MNT_NS, f::MNT_NS_INUM],
    );
    check(
        same(seen.net_ns, truth.net_ns),
        "network namespace",
        &[f::NSPROXY_NET_NS],
    );
    // Other threads may come and go between the two looks.
    check(
        seen.live >= 1 && seen.live.abs_diff(truth.threads) <= 16,
        "number of live threads",
        &[f::SIGNAL_LIVE],
    );
}

fn of_executable(seen: &SelfTest, truth: &Truth, check: &mut Check<'_>) {
    check(
        seen.exe.ino == truth.exe_ino,
        "executable's inode",
        &[f::INODE_INO, f::FILE_INODE],
    );
    check(
        seen.exe_size == truth.exe_size,
        "executable's size",
        &[f::INODE_SIZE],
    );
    check(
        seen.exe_ctime_ns == truth.exe_ctime_ns,
        "executable's change time",
        &[f::INODE_CTIME_SEC, f::INODE_CTIME_NSEC],
    );
    // st_dev is not s_dev on btrfs and in overlays: only nonsense is refused.
    check(
        seen.exe.dev == truth.exe_dev || made_up_device(Path::new("/proc/self/exe")),
        "executable's device",
        &[f::INODE_SB, f::SB_DEV],
    );
}

/// Is the file on a file system whose `st_dev` is not the kernel's `s_dev`?
pub fn made_up_device(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| is_made_up(&fs))
}

/// The same of an open file.
pub fn made_up(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|fs| is_made_up(&fs))
}

fn is_made_up(fs: &rustix::fs::StatFs) -> bool {
    // include/uapi/linux/magic.h.
    const BTRFS: i64 = 0x9123_683e;
    const OVERLAY: i64 = 0x794c_7630;
    fs.f_type == BTRFS || fs.f_type == OVERLAY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreeing() -> (SelfTest, Truth) {
        let truth = Truth::read().unwrap();
        let seen = SelfTest {
            ran: 1,
            start_ns: truth.start_ticks * keytrail_model::TICK_NS + 5,
            arg_start: truth.memory[0],
            arg_end: truth.memory[1],
            env_start: truth.memory[2],
            env_end: truth.memory[3],
            exe: keytrail_abi::FileId {
                ino: truth.exe_ino,
                dev: truth.exe_dev,
                pad: 0,
            },
            exe_size: truth.exe_size,
            exe_ctime_ns: truth.exe_ctime_ns,
            pid: truth.tid,
            tgid: truth.pid,
            leader_pid: truth.pid,
            ns_tgid: truth.ns_tgid,
            parent_tgid: truth.ppid,
            euid: truth.euid,
            suid: truth.suid,
            loginuid: truth.loginuid.unwrap_or(u32::MAX),
            sessionid: truth.sessionid.unwrap_or(u32::MAX),
            mnt_ns: truth.mnt_ns.unwrap_or(0),
            net_ns: truth.net_ns.unwrap_or(0),
            live: truth.threads,
            ..SelfTest::default()
        };
        (seen, truth)
    }

    #[test]
    fn agreement_is_no_failure() {
        let (seen, truth) = agreeing();
        assert_eq!(compare(&seen, &truth), []);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let (seen, truth) = agreeing();
        let failed = |change: fn(&mut SelfTest)| {
            let mut wrong = seen;
            change(&mut wrong);
            compare(&wrong, &truth)
                .iter()
                .flat_map(|failure| failure.fields.to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            failed(|s| s.env_start = 0),
            [
                f::MM_ARG_START,
                f::MM_ARG_END,
                f::MM_ENV_START,
                f::MM_ENV_END
            ]
        );
        assert_eq!(failed(|s| s.start_ns = 0), [f::TASK_START_BOOTTIME]);
        assert_eq!(failed(|s| s.exe.ino += 1), [f::INODE_INO, f::FILE_INODE]);
        assert_eq!(failed(|s| s.euid = 12345), [f::TASK_CRED, f::CRED_EUID]);
    }
}
