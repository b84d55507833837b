//! What every record begins with.

/// First bytes of every record: who did it, when, and the record's place in its CPU's sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`Kind`]'s constants.
    pub kind: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// Bytes of this record that are meaningful, header included. The slot in the ring may be longer.
    pub len: u32,
    /// `bpf_ktime_get_boot_ns` (CLOCK_BOOTTIME), nanoseconds.
    pub boot_ns: u64,
    /// Position among this CPU's records, from 0, failed ones included: a hole is a loss.
    pub cpu_seq: u64,
    /// Start of the thread group's leader (`task->group_leader->start_boottime`), nanoseconds since boot.
    pub start_ns: u64,
    /// `task->cgroups->dfl_cgrp->kn->id` (cgroup v2), 0 when not available.
    pub cgroup_id: u64,
    /// Thread group id in the initial pid namespace: what user space calls the pid.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// CPU the record was made on.
    pub cpu: u32,
    /// Real uid.
    pub uid: u32,
    /// Effective uid (`task->cred->euid`).
    pub euid: u32,
    /// Real gid.
    pub gid: u32,
    /// `task->comm` of the thread.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Header>() == 80);
const _: () = assert!(core::mem::offset_of!(Header, comm) == 64);

/// Values of [`Header::kind`].
pub struct Kind;

impl Kind {
    pub const EXEC: u16 = 1;
    pub const EXEC_CHUNK: u16 = 2;
    pub const FORK: u16 = 3;
    pub const EXIT: u16 = 4;
    pub const FILE_OPEN: u16 = 5;
    pub const FILE_READ: u16 = 6;
    pub const CONNECT: u16 = 7;
    pub const SOCK_SEND: u16 = 8;
    pub const TLS_WRITE: u16 = 9;
    pub const FILE_NEW: u16 = 10;
    pub const CANARY: u16 = 11;
    pub const UNIX_SEND: u16 = 12;
    pub const UDP_SEND: u16 = 13;
    pub const PIPES: u16 = 16;
    pub const FD_WRITE: u16 = 19;
    pub const PROCESS_ATTACH: u16 = 20;
    pub const FD_TARGET: u16 = 21;
    pub const ANSWER: u16 = 22;
    /// One more than the highest kind: the size of per-kind counters.
    pub const COUNT: usize = 23;

    /// Goes through the ring of payloads.
    #[inline(always)]
    pub const fn is_payload(kind: u16) -> bool {
        matches!(
            kind,
            Self::SOCK_SEND
                | Self::TLS_WRITE
                | Self::UNIX_SEND
                | Self::UDP_SEND
                | Self::FD_WRITE
                | Self::FD_TARGET
                | Self::ANSWER
        )
    }

    /// Is made when a process gives bytes away.
    pub const fn is_send(kind: u16) -> bool {
        Self::is_payload(kind) && !matches!(kind, Self::FD_TARGET | Self::ANSWER)
    }

    /// Has bytes of a program's memory behind it, always: of [`Kind::FILE_NEW`] only some have.
    pub const fn has_bytes(kind: u16) -> bool {
        Self::is_send(kind) || matches!(kind, Self::ANSWER | Self::EXEC | Self::EXEC_CHUNK)
    }

    /// The name used in gaps and counters.
    pub const fn name(kind: u16) -> &'static str {
        match kind {
            Self::EXEC => "exec",
            Self::EXEC_CHUNK => "exec_chunk",
            Self::FORK => "fork",
            Self::EXIT => "exit",
            Self::FILE_OPEN => "file_open",
            Self::FILE_READ => "file_read",
            Self::CONNECT => "connect",
            Self::SOCK_SEND => "tcp_send",
            Self::TLS_WRITE => "tls_write",
            Self::FILE_NEW => "file_new",
            Self::CANARY => "canary",
            Self::UNIX_SEND => "unix_send",
            Self::UDP_SEND => "udp_send",
            Self::FD_WRITE | Self::FD_TARGET => "fd_write",
            Self::PROCESS_ATTACH => "process_attach",
            Self::PIPES => "pipes",
            Self::ANSWER => "answer",
            _ => "unknown",
        }
    }
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// The data of this record was cut to fit.
    pub const TRUNCATED: u16 = 1;
    /// A page of the data was not resident and is missing (`bpf_probe_read_user` failed).
    pub const UNREADABLE: u16 = 2;
    /// The process was [`super::super::state::PROC_UNKNOWN`] when the record was made.
    pub const UNCLASSIFIED: u16 = 4;
    /// This is a continuation of the record before of the same call.
    pub const CONTINUED: u16 = 8;
    /// Payloads of this connection or session right before this one were passed over: it continues nothing.
    pub const AFTER_HOLE: u16 = 16;
    /// Of a send: this side accepted the connection. Not set also where that is not known. The bit's place is
    /// [`ACCEPTED_BIT`].
    pub const ACCEPTED: u16 = 1 << ACCEPTED_BIT;
    pub const ACCEPTED_BIT: u16 = 5;
}
