//! The maps both sides know by name. Only types that kernels have had since 5.8.

use crate::{
    connection::Connection,
    message::Batch,
    payload::Progress,
    taking::{Asked, AskedKey, Taking},
    tmpfs::Reading,
    write::{PathState, TargetKey, WriteState},
};
use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use keytrail_abi::{
    Budget, ExecChunk, FileId, GO_SITES_MAX, GoSite, Learn, MessageSend, OutKey, ProcState,
    ReadKey, SEEN_SLOTS, SeenInode, SelfTest, SessionKey, SockSend, TlsCall, TlsWrite, WATCH_WORDS,
    Watch,
    globals::{MISSING, field},
    state::{asks, counter},
};

/// Records for user space: of programs, their ends, reads of watched files, connections. User space sets the sizes.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// What is sent: so much that it would push out the rest.
#[map]
pub static PAYLOADS: RingBuf = RingBuf::with_byte_size(4 * 1024 * 1024, 0);

/// Files that were not seen before: a walk of a tree reads tens of thousands.
#[map]
pub static NEWS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// 1 while user space waits for a record and nobody has woken it yet.
#[map]
pub static WAITING: Array<u32> = Array::with_max_entries(1, 0);

/// tgid -> what is known of the process; no entry: clean.
#[map]
pub static PROCS: HashMap<u32, ProcState> = HashMap::with_max_entries(32768, 0);

/// Files of interest.
#[map]
pub static WATCHED: HashMap<FileId, Watch> = HashMap::with_max_entries(32768, 0);

/// A bit per hash of a watched inode number: spares every other file the look-up in `WATCHED`.
#[map]
pub static WATCHED_BITS: Array<u64> = Array::with_max_entries(WATCH_WORDS, 0);

/// Reads that were reported already.
#[map]
pub static READ_SEEN: LruHashMap<ReadKey, u64> = LruHashMap::with_max_entries(16384, 0);

/// A TLS call, how far it is captured, and what its records have in common.
#[repr(C)]
pub struct TlsState {
    pub call: TlsCall,
    pub progress: Progress,
    pub record: TlsWrite,
}

/// A send of many pieces, how far it is captured, and what its records have in common.
#[repr(C)]
pub struct SendState {
    pub progress: Progress,
    pub record: SockSend,
}

/// A send over a Unix socket or by UDP, how far it is captured, and what its records have in common.
#[repr(C)]
pub struct MessageState {
    pub progress: Progress,
    pub batch: Batch,
    /// `struct sock`.
    pub sock: u64,
    /// The address the system call was given, in user memory, and its length; 0 for none.
    pub address: u64,
    pub address_len: u64,
    pub record: MessageSend,
}

/// An exec whose argv and environment are being sent, and what its records have in common.
#[repr(C)]
pub struct ExecState {
    /// User memory still to be sent of the current area.
    pub at: u64,
    pub left: u64,
    /// What was not sent of it for want of room.
    pub cut: u64,
    pub record: ExecChunk,
}

/// Entries are made from these and then filled in place: they are too large for the stack.
static NO_TLS: Blank<{ size_of::<TlsState>() }> = Blank([0; _]);
static NO_SEND: Blank<{ size_of::<SendState>() }> = Blank([0; _]);
static NO_MESSAGE: Blank<{ size_of::<MessageState>() }> = Blank([0; _]);
static NO_EXEC: Blank<{ size_of::<ExecState>() }> = Blank([0; _]);
static NO_CONNECTION: Blank<{ size_of::<Connection>() }> = Blank([0; _]);

#[repr(C, align(8))]
struct Blank<const N: usize>([u8; N]);

/// The entry of a map whose values are too large for the stack; made if there is none.
macro_rules! entry {
    ($name:ident, $map:ident, $state:ty, $blank:ident) => {
        #[inline(always)]
        pub fn $name(key: u64) -> Option<*mut $state> {
            if $map.get_ptr(&key).is_none() {
                // SAFETY: the blank has the size of a state, and all zeros are one.
                let blank = unsafe { &*(&raw const $blank).cast::<$state>() };
                let _ = $map.insert(&key, blank, 0);
            }
            $map.get_ptr_mut(&key)
        }
    };
}

entry!(tls_state, TLS_CALLS, TlsState, NO_TLS);
entry!(send_state, SENDS, SendState, NO_SEND);
entry!(message_state, MESSAGES, MessageState, NO_MESSAGE);
entry!(exec_state, EXECS, ExecState, NO_EXEC);

/// A blank entry for a new connection on this socket.
#[inline(always)]
pub fn new_connection(sk: u64) -> Option<*mut Connection> {
    // SAFETY: the blank has the size of a connection, and all zeros are one.
    let blank = unsafe { &*(&raw const NO_CONNECTION).cast::<Connection>() };
    let _ = CONNECTIONS.insert(&sk, blank, 0);
    CONNECTIONS.get_ptr_mut(&sk)
}

/// `struct sock` -> the connection on it.
#[map]
pub static CONNECTIONS: LruHashMap<u64, Connection> = LruHashMap::with_max_entries(32768, 0);

/// TLS sessions of processes -> the `struct sock` they write to.
#[map]
pub static SESSIONS: LruHashMap<SessionKey, u64> = LruHashMap::with_max_entries(32768, 0);

/// tgid -> what was captured of it lately, and passed over.
#[map]
pub static BUDGETS: LruHashMap<u32, Budget> = LruHashMap::with_max_entries(8192, 0);

/// tgid -> the exec that is being sent.
#[map]
pub static EXECS: LruHashMap<u64, ExecState> = LruHashMap::with_max_entries(1024, 0);

/// Files that were reported as new, in the version of their change time.
#[map]
pub static SEEN: LruHashMap<FileId, u64> = LruHashMap::with_max_entries(131_072, 0);

/// The files each CPU met last: spares nearly every read the look-up in `SEEN`.
#[map]
pub static SEEN_LAST: PerCpuArray<SeenInode> = PerCpuArray::with_max_entries(SEEN_SLOTS, 0);

/// pid_tgid -> the TLS call the thread was last in.
#[map]
pub static TLS_CALLS: LruHashMap<u64, TlsState> = LruHashMap::with_max_entries(8192, 0);

/// Attachment -> what tells the connections of a Go program.
#[map]
pub static GO_SITES: HashMap<u32, GoSite> = HashMap::with_max_entries(GO_SITES_MAX, 0);

/// pid_tgid -> the send of many pieces the thread was last in.
#[map]
pub static SENDS: LruHashMap<u64, SendState> = LruHashMap::with_max_entries(8192, 0);

/// pid_tgid -> the send over a Unix socket or by UDP the thread was last in.
#[map]
pub static MESSAGES: LruHashMap<u64, MessageState> = LruHashMap::with_max_entries(8192, 0);

/// `struct sock` of those -> sends on it were passed over since the last record of one.
#[map]
pub static MESSAGE_HOLES: LruHashMap<u64, u32> = LruHashMap::with_max_entries(8192, 0);

/// What is known of metadata services: see `state::asks`.
#[map]
pub static ASKS: Array<u64> = Array::with_max_entries(asks::COUNT, 0);

/// The write to a file, a pipe or a terminal that this CPU is capturing. The kernel lets nothing in between.
#[map]
pub static WRITES: PerCpuArray<WriteState> = PerCpuArray::with_max_entries(1, 0);

/// The path that this CPU is spelling out.
#[map]
pub static PATHS: PerCpuArray<PathState> = PerCpuArray::with_max_entries(1, 0);

/// What a program writes to and was reported -> the program.
#[map]
pub static TARGETS: LruHashMap<TargetKey, u64> = LruHashMap::with_max_entries(16384, 0);

/// The `f_op` of files on tmpfs, as far as their reads are reported by system calls; else 0.
#[map]
pub static TMPFS_FILES: Array<u64> = Array::with_max_entries(1, 0);

/// The `f_op` of FIFOs, as far as their reads are told by system calls; else 0. Before 6.14 nameless pipes have the same.
#[map]
pub static FIFO_FILES: Array<u64> = Array::with_max_entries(1, 0);

/// pid_tgid -> the call by which the thread may be reading a file on tmpfs, until its next one.
#[map]
pub static READINGS: HashMap<u64, Reading> = HashMap::with_max_entries(4096, 0);

/// How many entries `TAKINGS` and `READINGS` have.
#[map]
pub static TAKING: Array<u64> = Array::with_max_entries(1, 0);

/// pid_tgid -> the call by which the thread takes something out of another process, until its next one.
#[map]
pub static TAKINGS: HashMap<u64, Taking> = HashMap::with_max_entries(1024, 0);

/// What was reported about who takes out of whom.
#[map]
pub static ASKED: LruHashMap<AskedKey, Asked> = LruHashMap::with_max_entries(4096, 0);

/// A pipe -> who was last seen to have it as standard input, or to take what a child of his writes.
#[map]
pub static PIPE_READERS: LruHashMap<FileId, u32> = LruHashMap::with_max_entries(8192, 0);

/// Processes -> pipes they can write to.
#[map]
pub static PIPE_OUT: LruHashMap<OutKey, FileId> = LruHashMap::with_max_entries(8192, 0);

/// Sequence numbers and losses.
#[map]
pub static COUNTERS: PerCpuArray<[u64; counter::COUNT]> = PerCpuArray::with_max_entries(1, 0);

/// The file a thread of the agent reads, as the kernel knows it.
#[map]
pub static LEARN: Array<Learn> = Array::with_max_entries(1, 0);

/// What the self-test saw.
#[map]
pub static SELF_TEST: Array<SelfTest> = Array::with_max_entries(1, 0);

/// Field offsets of this kernel, set by user space before loading.
#[unsafe(no_mangle)]
pub static FIELDS: Global<[u32; field::COUNT]> = Global::new([MISSING; field::COUNT]);

/// One of [`field`]'s values. Read one at a time: the verifier knows each as a constant.
#[inline(always)]
pub fn field(index: usize) -> u32 {
    // SAFETY: `index` is one of `field`'s constants, below COUNT; `Global` is transparent over the array. The read
    // is volatile because user space replaces the value after compilation.
    unsafe { core::ptr::read_volatile((&raw const FIELDS).cast::<u32>().add(index)) }
}
