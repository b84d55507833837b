//! Connections asked for, and bytes about to leave by TCP.

use crate::{
    answer::asks,
    budget::{Charge, count, granted},
    connection::{
        AF_INET6, Connection, IPPROTO_TCP, accepted, accepted_flag, asked, connection, endpoints,
        joined, lasts, over,
    },
    maps::{field, send_state},
    payload::{AT_ONCE, Progress, Source, capture_at_once, capture_send, without_data},
    record::{
        Counters, Load, Probed, Typed, Wake, copy, current_task, follow, ignored, interesting,
        plain_argument, pointer, read_or_zero, stamp, unclassified, wake,
    },
    tls::current_call,
    touch::takes_bytes,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_user},
    macros::{btf_tracepoint, cgroup_sock_addr, fentry, kprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext, SockAddrContext,
    },
};
use keytrail_abi::{
    Connect, Endpoints, Kind, PAYLOAD_MAX, PROC_HOLDER, PROC_KEYS, ProcState, SendCall, SockSend,
    TLS_HANDSHAKE_PEEK, TLS_RECORD_PEEK,
    globals::{MISSING, field as f},
    header::flags,
};

const AF_INET: u16 = 2;

// include/net/tcp_states.h.
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_SYN_RECV: u32 = 3;
const TCP_CLOSE: u32 = 7;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    trace!(&ctx, "connect4");
    on_connect_hook(&ctx, false);
    // 1: the connection is none of our business.
    1
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    trace!(&ctx, "connect6");
    on_connect_hook(&ctx, true);
    1
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state(ctx: RawTracePointContext) -> i32 {
    // A socket gets there in the thread that called connect.
    if ctx.arg::<u64>(2) as u32 == TCP_SYN_SENT {
        on_syn_sent(ctx.arg(0));
    }
    0
}

// The same, for what is remembered of connections: which ones this side accepted, and when they are over.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn track_state(ctx: RawTracePointContext) -> i32 {
    let (sk, before, now) = (
        ctx.arg::<u64>(0),
        ctx.arg::<u64>(1) as u32,
        ctx.arg::<u64>(2) as u32,
    );
    if before == TCP_SYN_RECV && now == TCP_ESTABLISHED {
        accepted(sk);
    } else if before == TCP_SYN_SENT && now == TCP_SYN_RECV {
        asked(sk);
    } else if now == TCP_CLOSE || now == TCP_SYN_SENT {
        over(sk);
    }
    0
}

// void tcp_sendmsg_locked(const struct sock *sk, const struct msghdr *msg, const struct sk_buff *skb, int size_goal)
// From 6.16. Fires once per segment that is filled, not once per call.
#[raw_tracepoint(tracepoint = "tcp_sendmsg_locked")]
pub fn tcp_send_locked(ctx: RawTracePointContext) -> i32 {
    trace!(&ctx, "send on socket {:x}", ctx.arg::<u64>(0));
    on_send::<Probed>(ctx.arg(0), ctx.arg(1), ctx.arg(0));
    0
}

// The same, where the kernel knows the types of the arguments.
#[btf_tracepoint(function = "tcp_sendmsg_locked")]
pub fn tcp_send_locked_typed(ctx: BtfTracePointContext) -> i32 {
    on_send::<Typed>(ctx.arg(0), ctx.arg(1), plain_argument(ctx.as_ptr(), 0));
    0
}

// int tcp_sendmsg_locked(struct sock *sk, struct msghdr *msg, size_t size)
#[fentry(function = "tcp_sendmsg_locked")]
pub fn tcp_send(ctx: FEntryContext) -> i32 {
    on_send::<Probed>(ctx.arg(0), ctx.arg(1), ctx.arg(0));
    0
}

// The same, where neither trampolines nor the tracepoint are to be had.
#[kprobe]
pub fn tcp_send_kprobe(ctx: ProbeContext) -> u32 {
    let sk: u64 = ctx.arg(0).unwrap_or(0);
    on_send::<Probed>(sk, ctx.arg(1).unwrap_or(0), sk);
    0
}

// ssize_t do_tcp_sendpages(struct sock *sk, struct page *page, int offset, size_t size, int flags)      up to 6.4
#[fentry(function = "do_tcp_sendpages")]
pub fn tcp_pages(ctx: FEntryContext) -> i32 {
    on_pages(ctx.arg(0), ctx.arg(3), ctx.arg::<u64>(4) as u32);
    0
}

// The same.
#[kprobe]
pub fn tcp_pages_kprobe(ctx: ProbeContext) -> u32 {
    on_pages(
        ctx.arg(0).unwrap_or(0),
        ctx.arg(3).unwrap_or(0),
        ctx.arg::<u64>(4).unwrap_or(0) as u32,
    );
    0
}

#[inline(always)]
fn on_connect_hook(ctx: &SockAddrContext, v6: bool) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: `addr` is the program's context.
    let metadata = unsafe {
        if v6 {
            let word = |n: usize| {
                core::ptr::read_volatile((&raw const (*addr).user_ip6).cast::<u32>().add(n))
            };
            is_metadata6(word(0), word(1) | word(2), word(3))
        } else {
            is_metadata(core::ptr::read_volatile(&raw const (*addr).user_ip4))
        }
    };
    // Such an address may give the time and names by UDP.
    // SAFETY: as above.
    let metadata = metadata
        && unsafe { core::ptr::read_volatile(&raw const (*addr).protocol) } == IPPROTO_TCP as u32;
    if metadata {
        asks();
    }
    let Some(state) = caller(tgid, metadata) else {
        return;
    };
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<Connect>(Kind::CONNECT) else {
        return;
    };
    let record = pointer(&mut slot);
    // The verifier allows these fields to be read one word at a time only.
    // SAFETY: `addr` is the program's context, `record` the reserved slot.
    unsafe {
        let ends = &raw mut (*record).ends;
        *ends = Endpoints::default();
        (*ends).family = if v6 { AF_INET6 } else { AF_INET };
        (*ends).protocol = core::ptr::read_volatile(&raw const (*addr).protocol) as u16;
        (*ends).peer_port =
            u16::from_be(core::ptr::read_volatile(&raw const (*addr).user_port) as u16);
        let peer = (&raw mut (*ends).peer).cast::<u32>();
        if v6 {
            for word in 0..4 {
                *peer.add(word) =
                    core::ptr::read_volatile((&raw const (*addr).user_ip6).cast::<u32>().add(word));
            }
        } else {
            *peer = core::ptr::read_volatile(&raw const (*addr).user_ip4);
        }
        let nsproxy = follow(current_task(), field(f::TASK_NSPROXY));
        (*ends).net_ns = read_or_zero(
            follow(nsproxy, field(f::NSPROXY_NET_NS)),
            field(f::NET_INUM),
        );
        stamp(&raw mut (*record).header);
        let bits = unclassified(state);
        counters.seal(
            &raw mut (*record).header,
            Kind::CONNECT,
            size_of::<Connect>() as u32,
            bits,
        );
    }
    slot.submit(wake(Wake::Later));
}

/// Is it where the machine, or what runs the container, gives credentials to whoever asks (in network order)? 169.254.169.254
/// (EC2, GCE, Azure and others), 169.254.170.2 (ECS), 169.254.170.23 (EKS), 100.100.100.200 (Alibaba Cloud).
#[inline(always)]
pub fn is_metadata(address: u32) -> bool {
    matches!(
        u32::from_be(address),
        0xa9fe_a9fe | 0xa9fe_aa02 | 0xa9fe_aa17 | 0x6464_64c8
    )
}

/// The same of IPv6: fd00:ec2::254 (EC2), fd00:ec2::23 (EKS).
#[inline(always)]
pub fn is_metadata6(first: u32, middle: u32, last: u32) -> bool {
    u32::from_be(first) == 0xfd00_0ec2 && middle == 0 && matches!(u32::from_be(last), 0x254 | 0x23)
}

/// The state of a process that asks for a connection, where that is to be reported. Who asks for credentials is inspected from
/// then on: what it asks for is in what it sends, and then it holds some.
#[inline(always)]
pub fn caller(tgid: u32, metadata: bool) -> Option<u32> {
    let state = interesting(tgid);
    if !metadata || matches!(state, Some(PROC_HOLDER | PROC_KEYS)) {
        return state;
    }
    if ignored(tgid) {
        return None;
    }
    if let Some(counters) = Counters::get() {
        counters.set_process(
            tgid,
            ProcState {
                state: PROC_HOLDER,
                met: 0,
                exec_id: 0,
            },
        );
    }
    // What was sent before is not classified yet.
    state.or(Some(PROC_HOLDER))
}

#[inline(always)]
fn on_syn_sent(sk: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // IPv6 sockets that reach IPv4 hosts have both.
    let metadata = is_metadata(read_or_zero(sk, field(f::SOCK_DADDR)));
    if metadata {
        asks();
    }
    let Some(state) = caller(tgid, metadata) else {
        return;
    };
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<Connect>(Kind::CONNECT) else {
        return;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot.
    unsafe {
        stamp(&raw mut (*record).header);
        endpoints(&raw mut (*record).ends, sk);
        let bits = unclassified(state);
        counters.seal(
            &raw mut (*record).header,
            Kind::CONNECT,
            size_of::<Connect>() as u32,
            bits,
        );
    }
    slot.submit(wake(Wake::Later));
}

/// Where the bytes of `msg` are: at, left and the segments that follow. `None` when they are not user memory.
#[inline(always)]
fn segments<L: Load>(iter: u64, total: u64) -> Option<Progress> {
    if field(f::ITER_TYPE) == MISSING {
        return None;
    }
    let kind = match field(f::ITER_TYPE_SIZE) {
        1 => L::load::<u8>(iter, field(f::ITER_TYPE)) as u32,
        // Up to 5.13 the lowest bit is the direction.
        _ => L::load::<u32>(iter, field(f::ITER_TYPE)) & !1,
    };
    let skip: u64 = L::load(iter, field(f::ITER_OFFSET));
    let mut progress = Progress::new(0, 0, total);
    if field(f::ENUM_ITER_UBUF) != MISSING && kind == field(f::ENUM_ITER_UBUF) {
        progress.at = L::load::<u64>(iter, field(f::ITER_UBUF)) + skip;
        progress.left = total;
        return Some(progress);
    }
    if field(f::ENUM_ITER_IOVEC) == MISSING || kind != field(f::ENUM_ITER_IOVEC) {
        return None;
    }
    progress.vector = L::load(iter, field(f::ITER_IOV));
    if progress.vector == 0 {
        return None;
    }
    progress.count = L::load(iter, field(f::ITER_SEGS));
    progress.advance();
    progress.at += skip;
    progress.left = progress.left.saturating_sub(skip);
    Some(progress)
}

/// The call, unless its bytes were captured already. Either the same call comes by again, further on, or somebody
/// repeats a send that had found no room. `write_seq` counts what the socket has taken, so it tells both from a new
/// send.
#[inline(always)]
fn new_call(before: SendCall, sk: u64, total: u64, progress: &Progress) -> Option<SendCall> {
    let seq: u32 = read_or_zero(sk, field(f::TCP_WRITE_SEQ));
    let taken = seq.wrapping_sub(before.seq) as u64;
    if before.total != 0 && taken <= before.total && before.total - taken == total {
        let same = if progress.vector == 0 {
            before.base.wrapping_add(taken) == progress.at
        } else {
            taken != 0 || before.base == progress.at
        };
        if same {
            return None;
        }
    }
    Some(SendCall {
        base: progress.at,
        total,
        seq,
        pad: 0,
    })
}

/// A send, for its record.
struct Send {
    connection: *mut Connection,
    total: u64,
    tls_call: u64,
    tls_session: u64,
}

impl Source<SockSend> for Send {
    #[inline(always)]
    unsafe fn fill(&self, record: *mut SockSend) {
        // SAFETY: the caller's promise; `connection` is a live map value.
        unsafe {
            stamp(&raw mut (*record).header);
            copy(&raw mut (*record).ends, &raw const (*self.connection).ends);
            (*record).total = self.total;
            (*record).tls_call = self.tls_call;
            (*record).tls_session = self.tls_session;
        }
    }
}

/// May this send be captured? `Some` are the flags of its record. What becomes of a TLS write was decided with the
/// write; all else is charged for itself.
#[inline(always)]
fn admitted(charge: Charge, connection: *mut Connection, nested: bool) -> Option<u16> {
    if !nested && !granted(charge, connection) {
        return None;
    }
    // SAFETY: a live map value.
    unsafe {
        if (*connection).hole == 1 {
            (*connection).hole = 0;
            return Some(flags::AFTER_HOLE);
        }
    }
    Some(0)
}

/// Was the TLS write passed over that this send is the ciphertext of? Then it is passed over as well.
#[inline(always)]
fn hushed(connection: *mut Connection) -> bool {
    // SAFETY: a live map value.
    unsafe {
        let hushed = (*connection).hushed;
        if hushed == 0 || !lasts(hushed, bpf_ktime_get_boot_ns()) {
            return false;
        }
        (*connection).hole = 1;
        count(Kind::SOCK_SEND, (*connection).limit as usize);
    }
    true
}

#[inline(always)]
fn no_room(kind: u16) {
    if let Some(counters) = Counters::get() {
        counters.lost(kind);
    }
}

/// Pages of a file or of the kernel (sendfile, splice, kTLS): that something is sent is all there is to say. It comes
/// page by page, so a run of them is reported at its beginning and then once in a while.
#[inline(always)]
fn on_pages(sk: u64, size: u64, flags: u32) {
    /// In place of the address of the bytes, which no program can have.
    const PAGES: u64 = u64::MAX;
    const RUN_MAX: u64 = 1 << 20;
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    let Some(state) = interesting(tgid) else {
        return;
    };
    let Some(connection) = connection(sk) else {
        return no_room(Kind::SOCK_SEND);
    };
    if size == 0 || hushed(connection) || !takes_bytes::<Probed>(sk, sk, flags) {
        return;
    }
    let seq: u32 = read_or_zero(sk, field(f::TCP_WRITE_SEQ));
    // SAFETY: a live map value; the socket is locked.
    let before = unsafe { (*connection).call };
    let taken = seq.wrapping_sub(before.seq) as u64;
    if before.base == PAGES && taken <= before.total && taken < RUN_MAX {
        // SAFETY: as above. A page that found no room comes again.
        unsafe { (*connection).call.total = taken + size };
        return;
    }
    // SAFETY: as above.
    unsafe {
        (*connection).call = SendCall {
            base: PAGES,
            total: size,
            seq,
            pad: 0,
        };
    }
    let (tls_call, tls_session) = current_call(thread);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let charge = Charge {
        tgid,
        state,
        kind: Kind::SOCK_SEND,
        bytes: 0,
        now,
    };
    let Some(hole) = admitted(charge, connection, tls_call != 0) else {
        return;
    };
    let source = Send {
        connection,
        total: size,
        tls_call,
        tls_session,
    };
    let bits = unclassified(state) | hole | accepted_flag(connection);
    without_data(&source, bits);
}

/// `known` is the socket as the hook gives it, `sk` the same as a number, which keys and functions of their own can have.
#[inline(always)]
fn on_send<L: Load>(known: u64, msg: u64, sk: u64) {
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    let Some(state) = interesting(tgid) else {
        return;
    };
    if field(f::MSG_ITER) == MISSING {
        return;
    }
    let Some(connection) = connection(sk) else {
        return no_room(Kind::SOCK_SEND);
    };
    if hushed(connection) {
        return;
    }
    let iter = msg + field(f::MSG_ITER) as u64;
    let total: u64 = L::load(iter, field(f::ITER_COUNT));
    if total == 0 || !takes_bytes::<L>(known, sk, L::load(msg, field(f::MSG_FLAGS))) {
        return;
    }
    let found = segments::<L>(iter, total);
    let readable = found.is_some();
    let mut progress = found.unwrap_or(Progress::new(0, 0, total));
    // SAFETY: a live map value; the socket is locked.
    let Some(call) = new_call(unsafe { (*connection).call }, sk, total, &progress) else {
        return;
    };
    // SAFETY: as above.
    unsafe { (*connection).call = call };
    let (is_tls, most) = of_use(&progress);
    let encrypted = is_tls || !readable;
    progress.limit = if total > most { most } else { total };
    let (mut tls_call, mut tls_session) = (0, 0);
    if encrypted {
        (tls_call, tls_session) = current_call(thread);
        if tls_call != 0 {
            joined(tgid, tls_session, sk, connection);
        }
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let charge = Charge {
        tgid,
        state,
        kind: Kind::SOCK_SEND,
        bytes: progress.limit,
        now,
    };
    let Some(hole) = admitted(charge, connection, tls_call != 0) else {
        return;
    };
    let mut bits = unclassified(state) | hole | accepted_flag(connection);
    let source = Send {
        connection,
        total,
        tls_call,
        tls_session,
    };
    if !readable {
        // Pages of files or of the kernel (sendfile, splice, kTLS): that something was sent is all there is to say.
        return without_data(&source, bits);
    }
    if progress.limit < total {
        bits |= flags::TRUNCATED;
    }
    capture(thread, &source, progress, bits);
}

/// Whether a send begins with a TLS record, and how many of its bytes are of use: of such records the first ones only, the
/// type, the length, the SNI of a ClientHello.
#[inline(always)]
fn of_use(progress: &Progress) -> (bool, u64) {
    if progress.left >= 3 {
        // SAFETY: the helper checks the address.
        let first = unsafe { bpf_probe_read_user(progress.at as *const [u8; 3]) };
        if let Ok([kind @ 0x14..=0x17, 3, 0..=4]) = first {
            let most = if kind == 0x16 {
                TLS_HANDSHAKE_PEEK
            } else {
                TLS_RECORD_PEEK
            };
            return (true, most as u64);
        }
    }
    (false, PAYLOAD_MAX as u64)
}

/// Captures a send: at once where it is one piece and small, else in steps.
#[inline(always)]
fn capture(thread: u64, source: &Send, mut progress: Progress, bits: u16) {
    let one_piece = progress.left >= progress.limit && progress.limit <= AT_ONCE;
    if one_piece && capture_at_once(source, progress.at, progress.limit, bits) {
        return;
    }
    let Some(entry) = send_state(thread) else {
        return no_room(Kind::SOCK_SEND);
    };
    progress.bits = (bits & !flags::TRUNCATED) as u32;
    // SAFETY: a live map value that belongs to this thread; every field is written.
    unsafe {
        (*entry).progress = progress;
        source.fill(&raw mut (*entry).record);
        (*entry).record.offset = 0;
        (*entry).record.data_len = 0;
    }
    capture_send(thread);
}
