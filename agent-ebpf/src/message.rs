//! Bytes that Unix and UDP sockets have taken. The hooks come after the send and tell what became of it; where the bytes
//! are is said by the system call the thread is still in.

use crate::{
    arch::{
        call::{
            PWRITEV2, READ, READV, RECVFROM, RECVMSG, SENDMMSG, SENDMSG, SENDTO, WRITE, WRITEV,
        },
        is_inside, number,
    },
    budget::{Charge, granted_as},
    connection::AF_INET6,
    maps::{MESSAGE_HOLES, MESSAGES, MessageState, field, message_state},
    message_peer::find_peer,
    payload::{Progress, capture_message, message_without_data},
    record::{
        Counters, Load, Probed, Typed, current_task, follow, interesting, plain_argument,
        read_or_zero, stamp, unclassified, user_registers,
    },
    tls::current_call,
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_user},
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};
use keytrail_abi::{
    Kind, PAYLOAD_MAX, SEGMENTS_MAX, TLS_RECORD_PEEK, globals::field as f, header::flags,
};

// include/linux/socket.h, include/uapi/linux/in.h.
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
const IPPROTO_UDP: u16 = 17;

/// The messages of one sendmmsg come by one at a time: which one is next.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Batch {
    /// `struct mmsghdr` array in user memory, and how many there are.
    pub vector: u64,
    pub count: u64,
    pub next: u64,
}

// void sock_send_length(struct sock *sk, int ret, int flags)      from 6.3
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn message_sent(ctx: RawTracePointContext) -> i32 {
    on_sent(ctx.arg(0), ctx.arg::<u64>(1) as i32, 0);
    0
}

// The same, where the kernel knows the types of the arguments: what was sent by TCP, which is nearly all, ends here.
#[btf_tracepoint(function = "sock_send_length")]
pub fn message_sent_typed(ctx: BtfTracePointContext) -> i32 {
    let kind = kind_of::<Typed>(ctx.arg(0));
    if kind != 0 {
        let taken = ctx.arg::<u64>(1) as i32;
        on_sent(plain_argument(ctx.as_ptr(), 0), taken, kind);
    }
    0
}

// int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)
#[fexit(function = "unix_stream_sendmsg")]
pub fn unix_stream_sent(ctx: FExitContext) -> i32 {
    let sk = follow(ctx.arg(0), field(f::SOCKET_SK));
    on_sent(sk, ctx.arg::<u64>(3) as i32, Kind::UNIX_SEND);
    0
}

// int unix_dgram_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)      SOCK_SEQPACKET gets here as well
#[fexit(function = "unix_dgram_sendmsg")]
pub fn unix_dgram_sent(ctx: FExitContext) -> i32 {
    let sk = follow(ctx.arg(0), field(f::SOCKET_SK));
    on_sent(sk, ctx.arg::<u64>(3) as i32, Kind::UNIX_SEND);
    0
}

// int udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
#[fexit(function = "udp_sendmsg")]
pub fn udp_sent(ctx: FExitContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    // An IPv6 socket gets here out of udpv6_sendmsg.
    if read_or_zero::<u16>(sk, field(f::SOCK_FAMILY)) == AF_INET {
        on_sent(sk, ctx.arg::<u64>(3) as i32, Kind::UDP_SEND);
    }
    0
}

// int udpv6_sendmsg(struct sock *sk, struct msghdr *msg, size_t len)
#[fexit(function = "udpv6_sendmsg")]
pub fn udpv6_sent(ctx: FExitContext) -> i32 {
    on_sent(ctx.arg(0), ctx.arg::<u64>(3) as i32, Kind::UDP_SEND);
    0
}

/// The kind of a send on this socket; 0 for those that others report.
#[inline(always)]
fn kind_of<L: Load>(sk: u64) -> u16 {
    match L::load::<u16>(sk, field(f::SOCK_FAMILY)) {
        AF_UNIX => Kind::UNIX_SEND,
        AF_INET | AF_INET6 if protocol_of::<L>(sk) == IPPROTO_UDP => Kind::UDP_SEND,
        _ => 0,
    }
}

/// The protocol of an internet socket.
#[inline(always)]
pub fn protocol_of<L: Load>(sk: u64) -> u16 {
    match field(f::SOCK_PROTOCOL_SIZE) {
        1 => L::load::<u8>(sk, field(f::SOCK_PROTOCOL)) as u16,
        _ => L::load(sk, field(f::SOCK_PROTOCOL)),
    }
}

/// A send that the socket has answered with `taken`: bytes, or an error. `kind` is 0 where the hook does not know it.
#[inline(always)]
fn on_sent(sk: u64, taken: i32, kind: u16) {
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    let Some(state) = interesting(tgid) else {
        return;
    };
    let kind = if kind == 0 {
        kind_of::<Probed>(sk)
    } else {
        kind
    };
    if kind == 0 {
        return;
    }
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(entry) = message_state(thread) else {
        return counters.lost(kind);
    };
    // The functions below take numbers only, and the verifier knows the argument of some hooks for a pointer: it passes
    // through the map.
    // SAFETY: a live map value that belongs to this thread.
    let sk = unsafe {
        core::ptr::write_volatile(&raw mut (*entry).sock, sk);
        core::ptr::read_volatile(&raw const (*entry).sock)
    };
    let found = find_bytes(thread, sk, taken as i64 as u64);
    if taken <= 0 {
        return;
    }
    let taken = taken as u64;
    // SAFETY: a live map value that belongs to this thread.
    unsafe { (*entry).record.header.kind = kind };
    let accepted = find_peer(thread, sk) == 1;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let limit = if taken > PAYLOAD_MAX as u64 {
        PAYLOAD_MAX as u64
    } else {
        taken
    };
    let charge = Charge {
        tgid,
        state,
        kind,
        bytes: if found == 0 { 0 } else { limit },
        now,
    };
    if !granted_as(charge, core::ptr::null_mut(), accepted) {
        let _ = MESSAGE_HOLES.insert(&sk, &1, 0);
        return;
    }
    let mut bits = unclassified(state);
    if accepted {
        bits |= flags::ACCEPTED;
    }
    bits |= after_hole(sk);
    // SAFETY: as above.
    unsafe {
        let record = &raw mut (*entry).record;
        stamp(&raw mut (*record).header);
        (*record).header.kind = kind;
        (*record).total = taken;
        (*record).offset = 0;
        (*record).data_len = 0;
        (*record).tls_call = 0;
        (*record).tls_session = 0;
        if found == 0 {
            return message_without_data(record, kind, bits);
        }
        (*entry).progress.limit = limit;
        (*entry).progress.total = taken;
        (*entry).progress.bits = bits as u32;
        spare_ciphertext(entry, thread);
    }
    capture_message(thread, kind);
}

/// Ciphertext of a TLS write that is captured itself is reported with its write, and by its first bytes only. What merely looks
/// like TLS is not spared.
///
/// # Safety
/// `entry` is a live map value that belongs to this thread.
#[inline(always)]
unsafe fn spare_ciphertext(entry: *mut MessageState, thread: u64) {
    // SAFETY: the caller's; the helper checks the address.
    unsafe {
        let progress = &mut (*entry).progress;
        if progress.left < 3 {
            return;
        }
        let first = bpf_probe_read_user(progress.at as *const [u8; 3]);
        if let Ok([0x14..=0x17, 3, 0..=4]) = first {
            let (call, session) = current_call(thread);
            (*entry).record.tls_call = call;
            (*entry).record.tls_session = session;
            if call != 0 && progress.limit > TLS_RECORD_PEEK as u64 {
                progress.limit = TLS_RECORD_PEEK as u64;
            }
        }
    }
}

/// The flag of the first record of a socket behind what was passed over.
#[inline(always)]
pub fn after_hole(sk: u64) -> u16 {
    if MESSAGE_HOLES.get_ptr(&sk).is_none() {
        return 0;
    }
    let _ = MESSAGE_HOLES.remove(&sk);
    flags::AFTER_HOLE
}

/// Finds the bytes of the send, or where bytes were received, in the arguments of the system call the thread is in: 1 when
/// they were found. `taken` is what the socket answered.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_bytes(thread: u64, sk: u64, taken: u64) -> u64 {
    let Some(entry) = MESSAGES.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that belongs to this thread.
    let entry = unsafe { &mut *entry };
    entry.address = 0;
    entry.address_len = 0;
    entry.record.socket_ino = 0;
    let regs = user_registers();
    if !is_inside(regs) {
        return 0;
    }
    let call = number(regs);
    let first: u64 = read_or_zero(regs, field(f::REGS_ARG1));
    let second: u64 = read_or_zero(regs, field(f::REGS_ARG2));
    if (taken as i64) < 0 {
        // A batch ends with the message that fails.
        entry.batch.next = 0;
        return 0;
    }
    // The call may be about another file: a send of the kernel's own, or one that io_uring makes in this thread.
    let descriptor: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    let files = follow(current_task(), field(f::TASK_FILES));
    let table = follow(follow(files, field(f::FILES_FDT)), field(f::FDTABLE_FD));
    if table == 0 {
        return 0;
    }
    let file = follow(table + (descriptor & 0xffff_ffff) * 8, 0);
    if sk == 0 || follow(follow(file, field(f::FILE_PRIVATE)), field(f::SOCKET_SK)) != sk {
        return 0;
    }
    entry.record.socket_ino = read_or_zero(follow(file, field(f::FILE_INODE)), field(f::INODE_INO));
    let mut progress = Progress::new(0, 0, taken);
    match call {
        WRITE | SENDTO | READ | RECVFROM => {
            progress.at = first;
            progress.left = taken;
            if call == SENDTO {
                entry.address = read_or_zero(regs, field(f::REGS_ARG4));
                let length: u64 = read_or_zero(regs, field(f::REGS_ARG5));
                entry.address_len = length & 0xffff_ffff;
            }
        }
        WRITEV | PWRITEV2 | READV => {
            progress.vector = first;
            progress.count = second;
        }
        SENDMSG | SENDMMSG | RECVMSG => {
            let message = if call != SENDMMSG {
                first
            } else {
                next_message(&mut entry.batch, first, second & 0xffff_ffff, taken)
            };
            if message == 0 {
                return 0;
            }
            let Some([name, name_len, vector, count]) = message_header(message) else {
                return 0;
            };
            entry.address = name;
            entry.address_len = name_len & 0xffff_ffff;
            progress.vector = vector;
            progress.count = count;
        }
        _ => return 0,
    }
    if entry.address == 0 || entry.address_len == 0 {
        entry.address = 0;
        entry.address_len = 0;
    }
    if progress.vector != 0 {
        progress.user_vector = 1;
        progress.advance();
    }
    entry.progress = progress;
    1
}

/// `msg_name`, `msg_namelen` (and four bytes behind it), `msg_iov` and `msg_iovlen` of a `struct user_msghdr`, which a
/// `struct mmsghdr` begins with (UAPI, 64 bits).
#[inline(always)]
fn message_header(at: u64) -> Option<[u64; 4]> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(at as *const [u64; 4]) }.ok()
}

/// The message of a sendmmsg that was taken just now; 0 where its length shows that it is not known which.
#[inline(always)]
fn next_message(batch: &mut Batch, vector: u64, count: u64, taken: u64) -> u64 {
    // sizeof(struct mmsghdr).
    const SIZE: u64 = 64;
    let known = batch.vector == vector && batch.count == count && batch.next < count;
    let mut index = if known { batch.next } else { 0 };
    if index != 0 && !is_as_long(vector + index * SIZE, taken) {
        // The batch before ended early, without a word.
        index = 0;
    }
    *batch = Batch {
        vector,
        count,
        next: 0,
    };
    let message = vector + index * SIZE;
    if !is_as_long(message, taken) {
        return 0;
    }
    batch.next = if index + 1 < count { index + 1 } else { 0 };
    message
}

/// May a message be the one of which so much was taken? Datagrams are taken whole.
#[inline(always)]
fn is_as_long(message: u64, taken: u64) -> bool {
    let Some([_, _, vector, count]) = message_header(message) else {
        return false;
    };
    let mut length = 0u64;
    for n in 0..SEGMENTS_MAX as u64 {
        if n >= count {
            break;
        }
        // SAFETY: the helper checks the address. Of a struct iovec the length.
        length += unsafe { bpf_probe_read_user((vector + n * 16 + 8) as *const u64) }.unwrap_or(0);
    }
    length == taken || count > SEGMENTS_MAX as u64 && length < taken
}
