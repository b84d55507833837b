//! The hooks of each signal in order of preference, and how one is loaded and attached.

use super::bpf;
use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, KProbe, Program,
        ProgramError, RawTracePoint, UProbe,
    },
};
use keytrail_abi::{Kind, globals::field as f};
use keytrail_model::status::{Refused, SignalReport};
use keytrail_model::{Signal as Name, Tier};
use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
};

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    RawTracepoint(&'static str),
    Fentry(&'static str),
    Fexit(&'static str),
    Cgroup(&'static str),
    Kprobe(&'static str),
}

impl Point {
    /// The kernel's name for the place.
    pub fn place(self) -> &'static str {
        match self {
            Self::RawTracepoint(name)
            | Self::Fentry(name)
            | Self::Fexit(name)
            | Self::Cgroup(name)
            | Self::Kprobe(name) => name,
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::RawTracepoint(name) => format!("raw_tp:{name}"),
            Self::Fentry(name) => format!("fentry:{name}"),
            Self::Fexit(name) => format!("fexit:{name}"),
            Self::Cgroup(name) => format!("cgroup:{name}"),
            Self::Kprobe(name) => format!("kprobe:{name}"),
        }
    }
}

/// One program and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program in the object.
    pub program: &'static str,
    pub point: Point,
}

/// Hooks that serve a signal together: all or none, but for those that only widen what is seen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub tier: Tier,
    pub hooks: &'static [Hook],
    /// Hooks that may be missing.
    pub optional: &'static [Hook],
    /// Hooks that tell nothing by themselves: without them the others cost more.
    pub aids: &'static [Hook],
    /// Fields without which the hooks would tell nothing.
    pub fields: &'static [usize],
}

/// A kernel signal: all that user space has to be told of it but what its records mean (`ingest/decode`) and how it is
/// tried (`self_test`).
pub struct Signal {
    pub name: Name,
    /// Its records.
    pub kinds: &'static [u16],
    /// What may serve it, the best first.
    pub candidates: &'static [Candidate],
}

impl Candidate {
    /// Whether every system call of the host passes it.
    pub fn hooks_system_calls(&self) -> bool {
        self.hooks.contains(&SYSTEM_CALLS)
    }
}

const fn raw(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook {
        program,
        point: Point::RawTracepoint(tracepoint),
    }
}

const IDENTITY: [usize; 3] = [f::TASK_TGID, f::TASK_GROUP_LEADER, f::TASK_START_BOOTTIME];
const FILE: [usize; 6] = [
    f::INODE_INO,
    f::INODE_SB,
    f::SB_DEV,
    IDENTITY[0],
    IDENTITY[1],
    IDENTITY[2],
];
const SOCKET: [usize; 6] = [
    f::SOCK_FAMILY,
    f::SOCK_DADDR,
    f::SOCK_DPORT,
    IDENTITY[0],
    IDENTITY[1],
    IDENTITY[2],
];
const SEND: [usize; 9] = [
    f::SOCK_FAMILY,
    f::SOCK_DADDR,
    f::SOCK_DPORT,
    f::MSG_ITER,
    f::ITER_TYPE,
    f::ITER_COUNT,
    f::ITER_OFFSET,
    f::TCP_WRITE_SEQ,
    IDENTITY[2],
];

/// What finds the bytes of a send in the system call's arguments.
const MESSAGE: [usize; 14] = [
    f::HAS_TASK_REGS,
    f::REGS_SYSCALL,
    f::REGS_RESULT,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    f::TASK_FILES,
    f::FILES_FDT,
    f::FDTABLE_FD,
    f::FILE_PRIVATE,
    f::SOCKET_SK,
    f::SOCK_FAMILY,
    f::SOCK_TYPE,
    IDENTITY[2],
];
/// The same, and where a datagram went.
const DATAGRAM: [usize; 15] = [
    f::HAS_TASK_REGS,
    f::REGS_SYSCALL,
    f::REGS_RESULT,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    f::REGS_ARG4,
    f::TASK_FILES,
    f::FILE_PRIVATE,
    f::SOCKET_SK,
    f::SOCK_FAMILY,
    f::SOCK_PROTOCOL,
    f::SOCK_DADDR,
    f::SOCK_DPORT,
    IDENTITY[2],
];

const fn fexit(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        point: Point::Fexit(function),
    }
}

/// One program for sends over Unix sockets and by UDP: it comes after every send of the host.
const SENT: [Hook; 1] = [raw("message_sent", "sock_send_length")];

const FAULTS: [Hook; 2] = [
    raw("filemap_fault", "mm_filemap_fault"),
    raw("filemap_map_pages", "mm_filemap_map_pages"),
];

/// Knows which connections were accepted: their answers have a budget of their own.
const CONNECTIONS: [Hook; 1] = [raw("track_state", "inet_sock_set_state")];

/// System calls: one program for two signals, because all of the host's calls pass it.
const SYSTEM_CALLS: Hook = raw("sys_enter", "sys_enter");

const fn fentry(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        point: Point::Fentry(function),
    }
}

/// The kernel's function for a system call of 64 bits (SYSCALL_DEFINE).
#[cfg(target_arch = "aarch64")]
macro_rules! system_call {
    ($name:literal) => {
        concat!("__arm64_sys_", $name)
    };
}
#[cfg(not(target_arch = "aarch64"))]
macro_rules! system_call {
    ($name:literal) => {
        concat!("__x64_sys_", $name)
    };
}

/// The same calls where the kernel has trampolines, each by its own function: nothing else of the host pays for them.
const WRITE_CALLS: [Hook; 3] = [
    fentry("call_write", system_call!("write")),
    fentry("call_pwrite", system_call!("pwrite64")),
    fentry("call_writev", system_call!("writev")),
];
const TAKE_CALLS: [Hook; 5] = [
    fentry("call_ptrace", system_call!("ptrace")),
    fentry("call_vm_read", system_call!("process_vm_readv")),
    fexit("called_vm_read", system_call!("process_vm_readv")),
    fentry("call_getfd", system_call!("pidfd_getfd")),
    fexit("called_getfd", system_call!("pidfd_getfd")),
];

/// What a write is captured by.
const WRITE: [usize; 15] = [
    f::TASK_STATUS,
    f::TASK_FILES,
    f::FILES_FDT,
    f::FDTABLE_FD,
    f::FDTABLE_MAX,
    f::FILE_MODE,
    f::FILE_INODE,
    f::INODE_MODE,
    f::INODE_INO,
    f::INODE_RDEV,
    f::SB_DEV,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    IDENTITY[2],
];
/// What tells who is taken from.
const TAKE: [usize; 12] = [
    f::TASK_STATUS,
    f::TASK_PTRACED,
    f::TASK_PTRACE_ENTRY,
    f::TASK_THREAD_PID,
    f::PID_LEVEL,
    f::PID_NUMBERS,
    f::UPID_NR,
    f::UPID_NS,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    IDENTITY[2],
];

/// Programs of which there is a second form, for kernels that know the types of a tracepoint's arguments (5.5, and for
/// system calls 5.11): the same at the same place, with fewer calls.
const TYPED: [(&str, &str); 7] = [
    ("answered", "answered_typed"),
    ("filemap_get_pages", "filemap_get_pages_typed"),
    ("filemap_fault", "filemap_fault_typed"),
    ("filemap_map_pages", "filemap_map_pages_typed"),
    ("message_sent", "message_sent_typed"),
    ("tcp_send_locked", "tcp_send_locked_typed"),
    ("sys_enter", "sys_enter_typed"),
];

fn typed_form(program: &str) -> Option<&'static str> {
    TYPED
        .iter()
        .find_map(|(plain, typed)| (*plain == program).then_some(*typed))
}

/// What finds the bytes that were received from a metadata service.
const ANSWER: [usize; 14] = [
    f::HAS_TASK_REGS,
    f::REGS_SYSCALL,
    f::REGS_RESULT,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    f::TASK_FILES,
    f::FILES_FDT,
    f::FDTABLE_FD,
    f::FILE_PRIVATE,
    f::SOCKET_SK,
    f::SOCK_FAMILY,
    f::SOCK_DADDR,
    IDENTITY[2],
];

/// What it takes to see reads of files on tmpfs there.
pub const TMPFS_READ: [usize; 17] = [
    f::TASK_STATUS,
    f::TASK_FILES,
    f::FILES_FDT,
    f::FDTABLE_FD,
    f::FDTABLE_MAX,
    f::FILE_MODE,
    f::FILE_OP,
    f::FILE_POS,
    f::FILE_INODE,
    f::INODE_INO,
    f::INODE_SIZE,
    f::SB_MAGIC,
    f::SB_DEV,
    f::REGS_ARG0,
    f::REGS_ARG1,
    f::REGS_ARG2,
    f::REGS_ARG3,
];

/// Everything but TLS, whose places are found in files, and opens, which fanotify reports.
pub const SIGNALS: &[Signal] = &[
    // Before the program of the execs themselves, which goes on with the number that it gives.
    Signal {
        name: Name::Pipes,
        kinds: &[Kind::PIPES],
        candidates: &[Candidate {
            tier: Tier::Base,
            hooks: &[raw("exec_pipes", "sched_process_exec")],
            optional: &[],
            aids: &[],
            fields: &[
                f::TASK_FILES,
                f::FILES_FDT,
                f::FDTABLE_FD,
                f::FILE_INODE,
                f::INODE_MODE,
                IDENTITY[0],
                IDENTITY[2],
            ],
        }],
    },
    Signal {
        name: Name::Exec,
        kinds: &[Kind::EXEC, Kind::EXEC_CHUNK],
        candidates: &[Candidate {
            tier: Tier::Base,
            hooks: &[raw("exec", "sched_process_exec")],
            optional: &[],
            aids: &[],
            fields: &[
                f::TASK_MM,
                f::MM_ARG_START,
                f::MM_ARG_END,
                f::MM_ENV_START,
                f::MM_ENV_END,
                IDENTITY[2],
            ],
        }],
    },
    Signal {
        name: Name::Fork,
        kinds: &[Kind::FORK],
        candidates: &[Candidate {
            tier: Tier::Base,
            hooks: &[raw("fork", "sched_process_fork")],
            optional: &[],
            aids: &[],
            fields: &[f::TASK_PID, IDENTITY[0], IDENTITY[2]],
        }],
    },
    Signal {
        name: Name::Exit,
        kinds: &[Kind::EXIT],
        candidates: &[Candidate {
            tier: Tier::Base,
            hooks: &[raw("exit", "sched_process_exit")],
            optional: &[],
            aids: &[],
            fields: &IDENTITY,
        }],
    },
    Signal {
        name: Name::FileOpen,
        kinds: &[Kind::FILE_OPEN],
        // fanotify's marks cost the watched files only; a trampoline here would cost every open.
        candidates: &[],
    },
    Signal {
        name: Name::FileRead,
        kinds: &[Kind::FILE_READ, Kind::FILE_NEW],
        candidates: &[
            Candidate {
                tier: Tier::Fentry,
                hooks: &[
                    fexit("file_permission", "security_file_permission"),
                    fexit("mmap_file", "security_mmap_file"),
                ],
                // Where they are, `mmap_file` leaves to them what they can tell.
                optional: &FAULTS,
                aids: &[],
                fields: &FILE,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[raw("filemap_get_pages", "mm_filemap_get_pages")],
                optional: &FAULTS,
                aids: &[],
                fields: &FILE,
            },
        ],
    },
    Signal {
        name: Name::Connect,
        kinds: &[Kind::CONNECT],
        candidates: &[
            Candidate {
                tier: Tier::Base,
                hooks: &[
                    Hook {
                        program: "connect4",
                        point: Point::Cgroup("connect4"),
                    },
                    Hook {
                        program: "connect6",
                        point: Point::Cgroup("connect6"),
                    },
                ],
                optional: &[],
                aids: &[],
                fields: &IDENTITY,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[raw("set_state", "inet_sock_set_state")],
                optional: &[],
                aids: &[],
                fields: &SOCKET,
            },
        ],
    },
    Signal {
        name: Name::TcpSend,
        kinds: &[Kind::SOCK_SEND],
        candidates: &[
            Candidate {
                tier: Tier::Fentry,
                hooks: &[fentry("tcp_send", "tcp_sendmsg_locked")],
                optional: &[fentry("tcp_pages", "do_tcp_sendpages")],
                aids: &CONNECTIONS,
                fields: &SEND,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[raw("tcp_send_locked", "tcp_sendmsg_locked")],
                optional: &[],
                aids: &CONNECTIONS,
                fields: &SEND,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[Hook {
                    program: "tcp_send_kprobe",
                    point: Point::Kprobe("tcp_sendmsg_locked"),
                }],
                optional: &[Hook {
                    program: "tcp_pages_kprobe",
                    point: Point::Kprobe("do_tcp_sendpages"),
                }],
                aids: &CONNECTIONS,
                fields: &SEND,
            },
        ],
    },
    Signal {
        name: Name::UnixSend,
        kinds: &[Kind::UNIX_SEND],
        candidates: &[
            Candidate {
                tier: Tier::Base,
                hooks: &SENT,
                optional: &[],
                aids: &[],
                fields: &MESSAGE,
            },
            // Before 6.3.
            Candidate {
                tier: Tier::Fentry,
                hooks: &[
                    fexit("unix_stream_sent", "unix_stream_sendmsg"),
                    fexit("unix_dgram_sent", "unix_dgram_sendmsg"),
                ],
                optional: &[],
                aids: &[],
                fields: &MESSAGE,
            },
        ],
    },
    Signal {
        name: Name::UdpSend,
        kinds: &[Kind::UDP_SEND],
        candidates: &[
            Candidate {
                tier: Tier::Base,
                hooks: &SENT,
                optional: &[],
                aids: &[],
                fields: &DATAGRAM,
            },
            Candidate {
                tier: Tier::Fentry,
                hooks: &[fexit("udp_sent", "udp_sendmsg")],
                // IPv6 may be absent.
                optional: &[fexit("udpv6_sent", "udpv6_sendmsg")],
                aids: &[],
                fields: &DATAGRAM,
            },
        ],
    },
    Signal {
        name: Name::Answer,
        kinds: &[Kind::ANSWER],
        candidates: &[
            Candidate {
                tier: Tier::Base,
                hooks: &[raw("answered", "sock_recv_length")],
                optional: &[],
                aids: &[],
                fields: &ANSWER,
            },
            // Before 6.3.
            Candidate {
                tier: Tier::Fentry,
                hooks: &[fexit("inet_answered", "inet_recvmsg")],
                // IPv6 may be absent.
                optional: &[fexit("inet6_answered", "inet6_recvmsg")],
                aids: &[],
                fields: &ANSWER,
            },
        ],
    },
    Signal {
        name: Name::FdWrite,
        kinds: &[Kind::FD_WRITE, Kind::FD_TARGET],
        candidates: &[
            Candidate {
                tier: Tier::Fentry,
                hooks: &WRITE_CALLS,
                optional: &[],
                aids: &[],
                fields: &WRITE,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[SYSTEM_CALLS],
                optional: &[],
                aids: &[],
                fields: &WRITE,
            },
        ],
    },
    Signal {
        name: Name::ProcessAttach,
        kinds: &[Kind::PROCESS_ATTACH],
        candidates: &[
            Candidate {
                tier: Tier::Fentry,
                hooks: &TAKE_CALLS,
                optional: &[],
                aids: &[],
                fields: &TAKE,
            },
            Candidate {
                tier: Tier::Base,
                hooks: &[SYSTEM_CALLS],
                optional: &[],
                aids: &[],
                fields: &TAKE,
            },
        ],
    },
];

/// Why a program is not loaded or attached, in one line.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The object was not built from these sources.
    #[error("the object has no program {0}")]
    NoProgram(String),
    #[error("the kernel offers no BTF")]
    NoBtf,
    #[error("no cgroup v2 hierarchy is mounted")]
    NoCgroup,
    #[error("{}: {}", .0.display(), .1)]
    Cgroup(PathBuf, io::Error),
    /// With its causes, and the last line of the verifier.
    #[error("{}", describe(.0))]
    Program(ProgramError),
}

impl From<ProgramError> for HookError {
    fn from(error: ProgramError) -> Self {
        Self::Program(error)
    }
}

/// Loads and attaches one program.
///
/// # Errors
/// Why not, and what to do about it.
pub fn attach(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: Hook) -> Result<(), Refused> {
    let refuse = |error: HookError| {
        let reason = error.to_string();
        let remedy = remedy(hook.point, &reason);
        Refused {
            hook: hook.point.name(),
            reason,
            remedy,
        }
    };
    try_attach(ebpf, btf, hook).map_err(refuse)
}

/// A tracepoint's program in its typed form. An error says only that it has to be the plain one.
fn try_typed(ebpf: &mut Ebpf, btf: Option<&Btf>, program: &str, place: &str) -> Option<()> {
    let program: &mut BtfTracePoint = ebpf.program_mut(typed_form(program)?)?.try_into().ok()?;
    load_once(program.load(place, btf?)).ok()?;
    program.attach().ok().map(drop)
}

fn try_attach(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: Hook) -> Result<(), HookError> {
    if let Point::RawTracepoint(place) = hook.point
        && try_typed(ebpf, btf, hook.program, place).is_some()
    {
        return Ok(());
    }
    let program = ebpf
        .program_mut(hook.program)
        .ok_or_else(|| HookError::NoProgram(hook.program.to_owned()))?;
    let btf = || btf.ok_or(HookError::NoBtf);
    match hook.point {
        Point::RawTracepoint(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            load_once(program.load())?;
            program.attach(name)?;
        }
        Point::Fentry(name) => {
            let program: &mut FEntry = program.try_into()?;
            load_once(program.load(name, btf()?))?;
            program.attach()?;
        }
        Point::Fexit(name) => {
            let program: &mut FExit = program.try_into()?;
            load_once(program.load(name, btf()?))?;
            program.attach()?;
        }
        Point::Kprobe(name) => {
            let program: &mut KProbe = program.try_into()?;
            load_once(program.load())?;
            program.attach(name, 0)?;
        }
        Point::Cgroup(_) => {
            let mount = cgroup2().ok_or(HookError::NoCgroup)?;
            let root = File::open(&mount).map_err(|error| HookError::Cgroup(mount, error))?;
            let program: &mut CgroupSockAddr = program.try_into()?;
            load_once(program.load())?;
            // By a link, beside whose program those of others run as well; links take no mode.
            program.attach(root, CgroupAttachMode::Single)?;
        }
    }
    Ok(())
}

/// Functions of optional hooks that this kernel does not have: what they did is done elsewhere or not at all, so that
/// no hook is missing. Tracepoints are tried.
pub fn absent(kernel: &super::btf::Btf) -> Vec<&'static str> {
    SIGNALS
        .iter()
        .flat_map(|signal| signal.candidates)
        .flat_map(|candidate| candidate.optional)
        .filter_map(|hook| match hook.point {
            Point::Fentry(name) | Point::Fexit(name) | Point::Kprobe(name) => Some(name),
            Point::RawTracepoint(_) | Point::Cgroup(_) => None,
        })
        .filter(|name| !kernel.has_function(name))
        .collect()
}

/// The hook of a program, in either of its forms, and the signals that it may serve.
pub fn of_program(program: &str) -> Option<(Hook, Vec<Name>)> {
    let mut found: Option<(Hook, Vec<Name>)> = None;
    for signal in SIGNALS {
        let of_signal = signal
            .candidates
            .iter()
            .flat_map(|c| [c.hooks, c.optional, c.aids])
            .flatten()
            .find(|hook| hook.program == program || typed_form(hook.program) == Some(program));
        if let Some(hook) = of_signal {
            let (_, names) = found.get_or_insert_with(|| (*hook, Vec::new()));
            names.push(signal.name);
        }
    }
    found
}

/// Attaches a hook that was taken off from outside.
///
/// # Errors
/// Why not, and what to do about it.
pub fn again(ebpf: &mut Ebpf, hook: Hook) -> Result<(), Refused> {
    // What was made to run another program must not go on to.
    detach(ebpf, hook);
    match hook.point {
        Point::Fentry(_) | Point::Fexit(_) => Err(Refused {
            hook: hook.point.name(),
            reason: "trampolines are attached when the agent starts".to_owned(),
            remedy: "restart the agent".to_owned(),
        }),
        // A tracepoint in its plain form, which needs no types of the kernel.
        Point::RawTracepoint(_) | Point::Kprobe(_) | Point::Cgroup(_) => attach(ebpf, None, hook),
    }
}

/// Takes a program off its hook.
pub fn detach(ebpf: &mut Ebpf, hook: Hook) {
    // Unloading closes the links as well. A failure leaves a program attached that only costs time.
    if let Some(Program::BtfTracePoint(typed)) =
        typed_form(hook.program).and_then(|name| ebpf.program_mut(name))
    {
        let _ = typed.unload();
    }
    let _ = match ebpf.program_mut(hook.program) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::CgroupSockAddr(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        _ => Ok(()),
    };
}

/// Loads a uprobe program.
///
/// # Errors
/// Why the kernel refused it.
pub fn load_uprobe<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, HookError> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| HookError::NoProgram(name.to_owned()))?;
    let program: &mut UProbe = program.try_into()?;
    load_once(program.load())?;
    Ok(program)
}

fn load_once(result: Result<(), ProgramError>) -> Result<(), HookError> {
    match result {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One line: the error, its cause, and the last lines of the verifier.
fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|line| {
                // The statistics at the end say nothing about the reason.
                !line.trim().is_empty()
                    && ["processed ", "verification time", "stack depth"]
                        .iter()
                        .all(|word| !line.starts_with(word))
            });
            match last {
                Some(line) => format!("the kernel refused to load it: {io_error}; {line}"),
                None => format!("the kernel refused to load it: {io_error}"),
            }
        }
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// Whether the kernel does not let this process, as far as the text of an error tells.
pub fn is_denied(reason: &str) -> bool {
    // EPERM and EACCES, as the standard library writes their numbers.
    reason.contains("(os error 1)") || reason.contains("(os error 13)")
}

fn remedy(point: Point, reason: &str) -> String {
    match point {
        Point::Fentry(_) | Point::Fexit(_) => {
            // ENOTSUPP: it loads such programs and has no place for them (arm64 before 6.4).
            if reason.contains("(os error 524)") {
                "the base tier serves this signal; trampolines need a newer kernel, on aarch64 one from 6.4 on".to_owned()
            } else {
                "the base tier serves this signal; trampolines need a kernel that allows BPF_PROG_TYPE_TRACING".to_owned()
            }
        }
        Point::Kprobe(_) => {
            "a kernel with CONFIG_KPROBES, not locked down for confidentiality".to_owned()
        }
        Point::Cgroup(_) if reason.contains("no cgroup") || reason.contains("(os error 2)") => {
            "mount a cgroup v2 hierarchy where the agent sees it, for example at /sys/fs/cgroup/unified"
                .to_owned()
        }
        Point::Cgroup(_) if is_denied(reason) => "run the agent with CAP_NET_ADMIN".to_owned(),
        Point::Cgroup(_) => "a kernel with CONFIG_CGROUP_BPF".to_owned(),
        Point::RawTracepoint(_) if reason.contains("No such file") || reason.contains("os error 2)") => {
            "this kernel has no such tracepoint; a newer one does".to_owned()
        }
        // E2BIG: the verifier gave up.
        Point::RawTracepoint(_) if reason.contains("(os error 7)") => {
            "none on this kernel: its verifier does not go over programs of this size; a newer one does".to_owned()
        }
        Point::RawTracepoint(_) => "run as root, or with CAP_BPF and CAP_PERFMON".to_owned(),
    }
}

/// Mount point of the cgroup v2 hierarchy.
pub fn cgroup2() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2")
            .then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Reports for every signal, empty.
pub fn reports() -> Vec<SignalReport> {
    SIGNALS
        .iter()
        .map(|signal| signal.name)
        .chain([Name::TlsWrite, Name::ProcessRead])
        .map(SignalReport::new)
        .collect()
}

/// An error of the operating system in words, without its number.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The signal whose record is of this kind; `None` for TLS, which has hooks of its own, and for what is none.
pub fn signal_of(kind: u16) -> Option<Name> {
    SIGNALS
        .iter()
        .find(|signal| signal.kinds.contains(&kind))
        .map(|signal| signal.name)
}

/// Runs one of the programs that are never attached.
///
/// # Errors
/// When it cannot be loaded or run, or says that it failed.
pub fn run(ebpf: &mut Ebpf, name: &str) -> io::Result<u32> {
    bpf::run(loaded(ebpf, name)?)
}

/// A program that is run by hand, loaded when it was not.
pub fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| io::Error::other("no such program"))?;
    let program: &mut RawTracePoint = program.try_into().map_err(io::Error::other)?;
    if program.fd().is_err() {
        program
            .load()
            .map_err(|error| io::Error::other(describe(&error)))?;
    }
    Ok(program.fd().map_err(io::Error::other)?.as_fd())
}
