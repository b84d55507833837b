//! Values of the maps through which the user side steers the kernel side.

/// State of a process in the `PROCS` map. No entry means clean: the process costs one look-up.
///
/// A program just executed is *unknown*: its payloads are captured until user space, having classified its argv
/// and environment, removes the entry or makes it a holder. So even a process that lives 5 ms is seen whole.
pub const PROC_UNKNOWN: u32 = 1;
/// The process holds at least one credential.
pub const PROC_HOLDER: u32 = 2;
/// The agent itself: nothing it does is recorded.
pub const PROC_IGNORED: u32 = 3;
/// The process holds credentials, but none beside keys that never travel by themselves (the private key of a server):
/// what it answers on connections it accepted is inspected as a sample only. Whatever else it sends is captured.
pub const PROC_KEYS: u32 = 4;

/// Bit of an `exec_id` that names no exec of the process itself: it reads from the pipe of a process of which it is not
/// decided yet what it holds, and is unknown as long as that one.
pub const PASSED: u64 = 1 << 63;

/// Key of the `PIPE_OUT` map, whose value is a pipe that the process can write to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OutKey {
    pub tgid: u32,
    /// 0 is its standard output, the others are standard inputs of its children.
    pub slot: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcState {
    /// One of `PROC_*`.
    pub state: u32,
    /// Grows with each file a holder has read that holds something: what is taken out of it then is news.
    pub met: u32,
    /// `exec_id` of the exec that made this state: user space clears only what it has seen.
    pub exec_id: u64,
}

const _: () = assert!(size_of::<ProcState>() == 16);

/// Value of the `WATCHED` map (key [`crate::FileId`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// The file as user space knows it, put into records. Differs from the key where `st_dev` is made up: on btrfs,
    /// and in overlays, whose reads go to a file of another file system.
    pub file: crate::FileId,
    /// Bits of [`watch`].
    pub flags: u32,
    pub pad: u32,
    /// `inode->i_ctime` of the version user space has inspected, nanoseconds since the epoch; 0 when not known. Another
    /// version is reported like a file not seen before, where those are reported: inode numbers are used again.
    pub ctime_ns: u64,
}

const _: () = assert!(size_of::<Watch>() == 32);

/// Value of the `LEARN` map: which file a thread's next read goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Learn {
    /// pid_tgid of the thread; 0 once it has read.
    pub thread: u64,
    pub file: crate::FileId,
}

const _: () = assert!(size_of::<Learn>() == 24);

pub mod watch {
    /// A file known to hold credentials.
    pub const FILE: u32 = 1;
}

/// The TLS call a thread is in: key is pid_tgid, value of the `TLS_CALLS` map.
///
/// Only function entries are probed, so nothing says when the call is over. A send belongs to it while the stack
/// pointer is still below the slot of the call's return address and that slot still holds the same address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsCall {
    pub tls_call: u64,
    pub tls_session: u64,
    pub boot_ns: u64,
    pub total: u64,
    /// User address of the bytes handed over.
    pub buffer: u64,
    /// User address of the slot that holds the return address, 0 when not known.
    pub ret_slot: u64,
    /// What it held at entry.
    pub ret_addr: u64,
}

const _: () = assert!(size_of::<TlsCall>() == 56);

/// Value of the `GO_SITES` map, whose key is the lower half of an attachment's cookie: where `net.(*TCPConn).Write` and
/// `net.(*conn).Write` begin, relative to the probed instruction; 0 for one that the program does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoSite {
    pub tcp_write: u64,
    pub conn_write: u64,
}

const _: () = assert!(size_of::<GoSite>() == 16);

/// Most attachments whose sites are known.
pub const GO_SITES_MAX: u32 = 1024;

/// The last send of a socket, so that the same bytes are captured once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SendCall {
    /// User address of the first byte (or of the segment array).
    pub base: u64,
    /// Bytes of the call.
    pub total: u64,
    /// `tcp_sock.write_seq` when the call began.
    pub seq: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<SendCall>() == 24);

/// Key of the `READ_SEEN` map: one record per program and version of a file. The value is the process's start, cut to
/// whole [`READ_TICK_NS`], plus the number of its execs: a program executed by the same process reads anew.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReadKey {
    pub file: crate::FileId,
    pub ctime_ns: u64,
    pub tgid: u32,
    /// 0 for any kind of read, [`crate::records::access::OPEN`], or [`crate::records::access::CALL`] while a call is looked
    /// at that may be one.
    pub access: u32,
}

const _: () = assert!(size_of::<ReadKey>() == 32);

/// The unit in which /proc tells when a process began (USER_HZ is 100 on all Linux), nanoseconds.
pub const READ_TICK_NS: u64 = 10_000_000;

/// Places in the value of the per-CPU `COUNTERS` map.
pub mod counter {
    /// Next [`crate::Header::cpu_seq`].
    pub const SEQ: usize = 0;
    /// TLS calls begun.
    pub const CALLS: usize = 1;
    /// Execs seen.
    pub const EXECS: usize = 2;
    /// Times the `PROCS` map was full: a process that should have been followed was not.
    pub const PROCS_FULL: usize = 3;
    /// First of the per-kind counters of records that found no room in the ring.
    pub const LOST: usize = 4;
    /// First of the counters of payloads that were passed over, by limit: sends, and then TLS writes.
    pub const PASSED_SENDS: usize = LOST + crate::Kind::COUNT;
    pub const PASSED_TLS: usize = PASSED_SENDS + crate::passed::COUNT;
    /// The same for sends over Unix sockets, and by UDP.
    pub const PASSED_UNIX: usize = PASSED_TLS + crate::passed::COUNT;
    pub const PASSED_UDP: usize = PASSED_UNIX + crate::passed::COUNT;
    /// The same of writes to files, pipes and terminals, which have one limit.
    pub const PASSED_WRITES: usize = PASSED_UDP + crate::passed::COUNT;
    /// No counter: under which number `exec_pipes` began what `exec` goes on with.
    pub const BEGUN: usize = PASSED_WRITES + 1;
    /// Calls that take something out of a process, beyond those of one program that are reported.
    pub const ATTACH_PASSED: usize = BEGUN + 1;
    pub const COUNT: usize = ATTACH_PASSED + 1;
}

/// Places in the `ASKS` map.
pub mod asks {
    /// Not 0: somebody has asked for a connection to a metadata service.
    pub const SOMEBODY: u32 = 0;
    /// Port of 127.0.0.1 that stands for such a service in the self-test; 0: none does.
    pub const SELF_TEST: u32 = 1;
    /// The second in which bytes of answers were captured last, and how many.
    pub const WINDOW: u32 = 2;
    pub const SPENT: u32 = 3;
    pub const COUNT: u32 = 4;
}

/// Words of the `WATCHED_BITS` map: a bit per hash of a watched inode number, asked before anything dear.
pub const WATCH_WORDS: u32 = 1024;

/// Fibonacci hashing: neighbouring inode numbers, which files of one directory have, spread over the words.
#[inline(always)]
const fn spread(ino: u64) -> u64 {
    ino.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48
}

/// The slot of an inode number in `SEEN_LAST`.
#[inline(always)]
pub const fn seen_slot(ino: u64) -> u32 {
    spread(ino) as u32 & (SEEN_SLOTS - 1)
}

/// The bit of an inode number in `WATCHED_BITS`: word and mask.
#[inline(always)]
pub const fn watch_bit(ino: u64) -> (u32, u64) {
    let hash = spread(ino);
    ((hash >> 6) as u32 & (WATCH_WORDS - 1), 1 << (hash & 63))
}

/// What the self-test program saw of the task that ran it, to be compared with /proc.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfTest {
    /// 1 once the program has run.
    pub ran: u64,
    pub start_ns: u64,
    pub cgroup_id: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub exe: crate::FileId,
    pub exe_size: u64,
    pub exe_ctime_ns: u64,
    pub pid: u32,
    pub tgid: u32,
    pub leader_pid: u32,
    pub ns_tgid: u32,
    pub parent_tgid: u32,
    pub euid: u32,
    pub suid: u32,
    pub loginuid: u32,
    pub sessionid: u32,
    pub mnt_ns: u32,
    pub net_ns: u32,
    pub live: u32,
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<SelfTest>() == 8 * 7 + 16 + 16 + 4 * 12 + 16);

/// Bytes that one run of the wipe program overwrites: a slot and its ring header make 32 KiB.
pub const WIPE_SLOT: usize = 32 * 1024 - 8;
/// Bytes that one run of the skip program passes by: with the ring header 128 KiB.
pub const SKIP_SLOT: usize = 128 * 1024 - 8;

/// Bit of a `SEEN` value (a change time): user space has inspected this version and found nothing. The bit is free until
/// the year 2262.
pub const SEEN_CLEAN: u64 = 1 << 63;

/// Slots of the `SEEN_LAST` map; a power of two.
pub const SEEN_SLOTS: u32 = 2048;

/// An inode in one version, as the `SEEN_LAST` map knows it. The address alone would not do: memory is used again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SeenInode {
    pub inode: u64,
    pub ino: u64,
    pub ctime_ns: u64,
}

const _: () = assert!(size_of::<SeenInode>() == 24);
