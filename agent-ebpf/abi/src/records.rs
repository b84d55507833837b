//! One struct a record kind. Each starts with [`Header`]; variable data follows the struct directly.

use crate::header::Header;

/// A device and inode as the kernel holds them (`inode->i_sb->s_dev`, `inode->i_ino`).
///
/// `dev` is the kernel's own encoding (`major << 20 | minor`), not user space's `st_dev`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    pub ino: u64,
    pub dev: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<FileId>() == 16);

/// What a cgroup's id (its inode number in the hierarchy's file system, never used again) adds to the sum that tells
/// sets of cgroups apart. The multiplier is that of Fibonacci hashing.
#[must_use]
pub const fn cgroup_mix(id: u64) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let x = id.wrapping_mul(SPREAD);
    (x ^ (x >> 29)).wrapping_mul(SPREAD)
}

/// A path, as far as the kernel tells one from another without spelling it out: two that agree have the same names
/// in the same mount and lead to the same inode. Only for comparison.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathId {
    /// Hash of the mount's address and the names up to its root; 0 when they could not be read.
    pub names: u64,
    pub file: FileId,
}

const _: () = assert!(size_of::<PathId>() == 24);

/// A successful execve, from `sched_process_exec`. Its argv and environment follow in [`ExecChunk`] records.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    pub header: Header,
    /// Names the [`ExecChunk`]s that belong to this record.
    pub exec_id: u64,
    /// Executable file (`mm->exe_file`).
    pub exe: PathId,
    /// When the inode of the executable last changed (wall clock, nanoseconds).
    pub exe_ctime_ns: u64,
    /// Working directory (`fs->pwd`).
    pub cwd: PathId,
    /// Sum of [`cgroup_mix`] over the ids of the process's cgroups, of all hierarchies; 0 when they could not be read.
    pub cgroups: u64,
    /// Start of the parent's thread group leader, nanoseconds since boot.
    pub parent_start_ns: u64,
    /// Bytes of the argv area and of the environment area, before any limit.
    pub arg_len: u64,
    pub env_len: u64,
    /// `mm->exe_file`'s mount namespace inode (`nsproxy->mnt_ns->ns.inum`).
    pub mnt_ns: u32,
    /// `nsproxy->net_ns->ns.inum`.
    pub net_ns: u32,
    pub parent_tgid: u32,
    /// Thread id that called execve: differs from the tgid when a non-leader thread did.
    pub old_tid: u32,
    /// Pid in the process's own pid namespace.
    pub ns_tgid: u32,
    /// `linux_binprm.argc` and `.envc`; `u32::MAX` when not available.
    pub argc: u32,
    pub envc: u32,
    pub suid: u32,
    /// `task->loginuid`, `task->sessionid`; `u32::MAX` without CONFIG_AUDIT.
    pub loginuid: u32,
    pub sessionid: u32,
    /// Bytes used in `filename`.
    pub filename_len: u32,
    /// 1 when real and effective ids differ (`bprm->secureexec`).
    pub secureexec: u32,
    /// 1 when the executable lies in the upper layer of an overlay.
    pub upper_layer: u32,
    pub pad: u32,
    /// `linux_binprm.filename`: the path as execve was given it.
    pub filename: [u8; 256],
}

const _: () = assert!(size_of::<Exec>() == 80 + 8 + 24 + 8 + 24 + 8 + 24 + 4 * 14 + 256);

/// In place of a device: the number is the address of the socket from which something is read, of a nameless pair of Unix
/// sockets. No device has this number.
pub const SOCKET_PAIR: u32 = u32::MAX;

/// The pipes that a process has as standard streams, where there is one: right before the record of its exec, behind
/// that of a file it reads, and before its end if it never executed anything. Pairs of sockets count as pipes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pipes {
    pub header: Header,
    /// That of the [`Exec`] that follows; 0 when none does.
    pub exec_id: u64,
    /// Under this number those who read what the process writes are unknown until it is decided what the process holds;
    /// 0: there are none.
    pub pass_id: u64,
    /// Pipes by their inode; zero where the stream is none.
    pub stdin: FileId,
    pub stdout: FileId,
    /// The parent (or the nearest ancestor that has executed something) that can write to `stdin`, and the one that can
    /// read `stdout`: thread group, 0 for nobody, and start of its leader, nanoseconds since boot.
    pub feeder_start_ns: u64,
    pub taker_start_ns: u64,
    pub feeder: u32,
    pub taker: u32,
    /// 1: these are no standard streams but a FIFO that it opened by its name, or a terminal that `taker` has the other end of.
    pub opened: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<Pipes>() == 80 + 16 + 32 + 32);

/// Room for data in one [`ExecChunk`].
pub const EXEC_CHUNK_DATA: usize = 4096;
/// Most of an argv or environment area that is captured, each.
pub const EXEC_AREA_MAX: usize = 64 * 1024;

/// A page (or less) of the argv or environment of the exec named by `exec_id`. Data follows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExecChunk {
    pub header: Header,
    pub exec_id: u64,
    /// [`AREA_ARGV`] or [`AREA_ENV`].
    pub area: u32,
    /// Offset of this chunk in its area.
    pub offset: u32,
    /// Bytes of data in this chunk.
    pub data_len: u32,
    /// 1 on the last chunk of the exec.
    pub last: u32,
}

pub const AREA_ARGV: u32 = 0;
pub const AREA_ENV: u32 = 1;

const _: () = assert!(size_of::<ExecChunk>() == 80 + 24);

/// A new process (not a thread). The header is the parent's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    pub header: Header,
    pub child_start_ns: u64,
    pub child_tgid: u32,
    /// Child's pid in its own namespace.
    pub child_ns_tgid: u32,
}

const _: () = assert!(size_of::<Fork>() == 80 + 16);

/// The last thread of a process is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub header: Header,
    /// `task->exit_code`: status << 8 | signal.
    pub exit_code: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<Exit>() == 80 + 8);

/// How a watched file was touched.
pub mod access {
    /// Opened: not a read.
    pub const OPEN: u32 = 1;
    /// Bytes were read through the page cache.
    pub const READ: u32 = 2;
    /// A page of a mapping was accessed.
    pub const MMAP: u32 = 3;
    /// Permission to read was checked right before a read (`security_file_permission`).
    pub const PERMISSION: u32 = 4;
    /// The file was mapped readable, where the kernel does not report when the mapping is accessed.
    pub const MAPPED: u32 = 5;
    /// A system call read bytes of a file in memory: known from what it had changed when the thread made its next call.
    pub const CALL: u32 = 6;
    /// A FIFO was read: never in a record of a file.
    pub const FIFO: u32 = 7;
}

/// An open or an actual read of a watched file ([`crate::Kind::FILE_OPEN`], [`crate::Kind::FILE_READ`]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileAccess {
    pub header: Header,
    pub file: FileId,
    /// Size of the file, bytes (`inode->i_size`).
    pub size: u64,
    /// `inode->i_ctime`, nanoseconds since the epoch, 0 when not available: tells versions of a file apart.
    pub ctime_ns: u64,
    /// One of [`access`].
    pub access: u32,
    /// How many reads of this file version by this process this record stands for.
    pub count: u32,
}

const _: () = assert!(size_of::<FileAccess>() == 80 + 16 + 24);

/// Bytes of each path component kept in [`FileNew`].
pub const NAME_MAX: usize = 64;
/// Path components kept in [`FileNew`], innermost first.
pub const NAME_DEPTH: usize = 16;

/// Most bytes of a file that are reported with the record of its first read.
pub const CONTENT_MAX: usize = PAYLOAD_TIERS[3];

/// A regular file that no process was seen to read before. What was read of it follows where it was read whole and may
/// be gone before anybody can look: files in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileNew {
    pub header: Header,
    pub file: FileId,
    pub size: u64,
    pub ctime_ns: u64,
    /// The process is *unknown* from here on, under this `exec_id` and no other, until user space has inspected the
    /// file; 0 when it is a holder already.
    pub exec_id: u64,
    pub access: u32,
    /// Components in `names`.
    pub depth: u32,
    /// `inode->i_uid`, `inode->i_gid`, `inode->i_mode`.
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub mode: u32,
    /// Bytes of content that follow: all of the file, or none.
    pub data_len: u32,
    /// Dentry names from the file up to the root of its file system, NUL-padded.
    pub names: [[u8; NAME_MAX]; NAME_DEPTH],
}

const _: () = assert!(size_of::<FileNew>() == 80 + 16 + 48 + NAME_MAX * NAME_DEPTH);

/// Both ends of a socket, taken from `struct sock` in the kernel. Ports are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Address of `struct sock`: names the connection while it lives.
    pub sock: u64,
    /// IPv4 addresses in the first four bytes; IPv6 in all sixteen.
    pub local: [u8; 16],
    pub peer: [u8; 16],
    pub local_port: u16,
    pub peer_port: u16,
    /// AF_INET (2) or AF_INET6 (10); AF_UNIX (1), which has no more than `sock` and the namespace. 0: not known.
    pub family: u16,
    /// IPPROTO_TCP (6) or IPPROTO_UDP (17).
    pub protocol: u16,
    /// `sock_net(sk)->ns.inum`.
    pub net_ns: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<Endpoints>() == 56);

/// A process that is not known to be clean asked for a connection. An attempt, not a success.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    pub header: Header,
    pub ends: Endpoints,
}

const _: () = assert!(size_of::<Connect>() == 80 + 56);

/// Data sizes of [`SockSend`] and [`TlsWrite`] slots: the smallest that fits is reserved.
pub const PAYLOAD_TIERS: [usize; 4] = [256, 1024, 4096, 16384];
/// Most bytes captured of one call (as several records with [`crate::header::flags::CONTINUED`]).
pub const PAYLOAD_MAX: usize = 64 * 1024;
/// Bytes captured of a send that already looks like a TLS record, other than a handshake.
pub const TLS_RECORD_PEEK: usize = 16;
/// Bytes captured of a TLS handshake record: room for a ClientHello with post-quantum key shares.
pub const TLS_HANDSHAKE_PEEK: usize = 2048;
/// Most segments of one `writev` or `sendmsg` that are captured.
pub const SEGMENTS_MAX: usize = 16;

/// Bytes about to leave by a TCP socket (`tcp_sendmsg_locked`, or pages by `do_tcp_sendpages`). Data follows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SockSend {
    pub header: Header,
    pub ends: Endpoints,
    /// Bytes handed over in this call.
    pub total: u64,
    /// Of which before the captured ones.
    pub offset: u32,
    /// Bytes captured in this record.
    pub data_len: u32,
    /// The TLS call this send is nested in (same thread), 0 for none.
    pub tls_call: u64,
    /// Its SSL pointer.
    pub tls_session: u64,
}

const _: () = assert!(size_of::<SockSend>() == 80 + 56 + 32);

/// Most bytes of the name of a Unix socket (`sockaddr_un.sun_path`).
pub const UNIX_NAME_MAX: usize = 108;

/// Bytes that a Unix or UDP socket has taken, reported when it has: [`crate::Kind::UNIX_SEND`], [`crate::Kind::UDP_SEND`].
/// Data follows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MessageSend {
    pub header: Header,
    /// Of a UDP socket the peer is the one these bytes went to.
    pub ends: Endpoints,
    /// Bytes the socket took in this call.
    pub total: u64,
    /// Of which before the captured ones.
    pub offset: u32,
    /// Bytes captured in this record.
    pub data_len: u32,
    /// The TLS call this send is nested in (same thread), 0 for none.
    pub tls_call: u64,
    /// Its session pointer.
    pub tls_session: u64,
    /// Inode number of the socket's file, which tells it from a later socket at the same address; 0 when not known.
    pub socket_ino: u64,
    /// Of a connected Unix socket: start of the peer's thread group leader, nanoseconds since boot; 0 when it is gone.
    pub peer_start_ns: u64,
    /// Its thread group: who called listen, or connect, or made the pair (SO_PEERCRED in unix(7)); 0 when not known.
    pub peer_tgid: u32,
    /// SOCK_STREAM (1), SOCK_DGRAM (2), SOCK_SEQPACKET (5).
    pub sock_type: u16,
    /// Bytes used in `name`.
    pub name_len: u16,
    /// `sun_path` of the Unix address it went to, or that it was accepted at; a zero byte begins an abstract one.
    pub name: [u8; UNIX_NAME_MAX],
    pub pad: u32,
}

const _: () = assert!(size_of::<MessageSend>() == 80 + 56 + 32 + 24 + UNIX_NAME_MAX + 4);

/// Bytes handed to a TLS library for encryption. Data follows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TlsWrite {
    pub header: Header,
    /// Number of this call, unique in this boot of the agent: per-CPU counter << 16 | CPU, never 0.
    pub tls_call: u64,
    /// The library's session pointer (`SSL *`, `gnutls_session_t`).
    pub tls_session: u64,
    /// Bytes handed over in this call.
    pub total: u64,
    /// Of which before the captured ones.
    pub offset: u32,
    /// Bytes captured in this record.
    pub data_len: u32,
    /// The uprobe cookie: which attachment (library and function) fired.
    pub cookie: u64,
    /// Address of the `struct sock` that the session itself names, 0 when it was not looked for or not proven.
    pub sock: u64,
    /// Its ports in host byte order: the address alone may be that of another socket later.
    pub local_port: u16,
    pub peer_port: u16,
    /// 1: these bytes are one TLS record, encrypted in this call and not handed over again.
    pub once: u32,
}

const _: () = assert!(size_of::<TlsWrite>() == 80 + 56);

/// What a descriptor leads to.
pub mod target {
    /// A regular file.
    pub const FILE: u32 = 1;
    /// A pipe, with a name (a FIFO) or without.
    pub const PIPE: u32 = 2;
    pub const TERMINAL: u32 = 3;
}

/// Most bytes captured of one write to a file, a pipe or a terminal.
pub const WRITE_MAX: usize = PAYLOAD_TIERS[3];
/// Most segments of one `writev` that are captured.
pub const WRITE_SEGMENTS: usize = 8;

/// Bytes that a process asks to write to a file, a pipe or a terminal (write, writev, pwrite64): seen when the call
/// begins. Data follows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdWrite {
    pub header: Header,
    /// What it is written to.
    pub file: FileId,
    /// Bytes handed over in this call.
    pub total: u64,
    /// [`crate::Budget::holes`] of the process at this time.
    pub holes: u64,
    /// Of the bytes of the call, those before the captured ones.
    pub offset: u32,
    /// Bytes captured in this record.
    pub data_len: u32,
    /// One of [`target`].
    pub target: u32,
    /// 1: at a position of its own (pwrite64), so that it goes on with nothing.
    pub positioned: u32,
}

const _: () = assert!(size_of::<FdWrite>() == 80 + 16 + 32);

/// Bytes of each path component kept in [`FdTarget`].
pub const TARGET_NAME: usize = 128;
/// Path components kept in [`FdTarget`], innermost first.
pub const TARGET_DEPTH: usize = 16;

/// The path of what a program writes to, reported once, before its first [`FdWrite`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdTarget {
    pub header: Header,
    pub file: FileId,
    /// One of [`target`].
    pub target: u32,
    /// Components in `names`.
    pub depth: u32,
    /// Names from the file up to the root of its mount namespace, NUL-padded.
    pub names: [[u8; TARGET_NAME]; TARGET_DEPTH],
}

const _: () = assert!(size_of::<FdTarget>() == 80 + 16 + 8 + TARGET_NAME * TARGET_DEPTH);

/// How something is taken out of another process.
pub mod method {
    /// process_vm_readv(2).
    pub const VM_READ: u32 = 1;
    /// A request of ptrace(2) that reads memory or registers.
    pub const TRACE: u32 = 2;
    /// pidfd_getfd(2).
    pub const DESCRIPTOR: u32 = 3;
}

/// A process asked for memory, registers or a descriptor of another one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessAttach {
    pub header: Header,
    /// Bytes asked for, 0 where that is not said.
    pub asked: u64,
    /// The other process or thread as the caller named it, in the pid namespace `pid_ns`.
    pub number: u32,
    /// Its number in the initial pid namespace; 0 where the kernel side cannot tell.
    pub victim: u32,
    /// Inode of the caller's pid namespace, and how deep it is below the initial one.
    pub pid_ns: u32,
    pub level: u32,
    /// One of [`method`].
    pub method: u32,
    /// 1: it was seen that the call brought something.
    pub proven: u32,
    /// 1: the caller has CAP_SYS_PTRACE (in its own user namespace).
    pub capable: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<ProcessAttach>() == 80 + 40);
