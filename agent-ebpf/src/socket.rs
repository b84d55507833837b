//! Connections asked for, and bytes about to leave by TCP.

use crate::{
    maps::{SENDS, SendState, field},
    payload::{Capture, FINAL, send_piece},
    record::{
        Counters, Wake, blank, current_task, follow, forget, interesting, pointer, read,
        read_or_zero, settle, stamp, unclassified, wake,
    },
    tls::current_call,
};
use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{cgroup_sock_addr, fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext, SockAddrContext},
};
use core::mem::MaybeUninit;
use keytrail_abi::{
    Connect, Endpoints, Kind, PAYLOAD_MAX, PAYLOAD_TIERS, SEGMENTS_MAX, SendCall,
    TLS_HANDSHAKE_PEEK, TLS_RECORD_PEEK,
    globals::{MISSING, field as f},
    header::flags,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    on_connect_hook(&ctx, false);
    // 1: the connection is none of our business.
    1
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    on_connect_hook(&ctx, true);
    1
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn set_state(ctx: RawTracePointContext) -> i32 {
    // include/net/tcp_states.h. A socket gets there in the thread that called connect.
    const TCP_SYN_SENT: u32 = 2;
    if ctx.arg::<u64>(2) as u32 == TCP_SYN_SENT {
        on_syn_sent(ctx.arg(0));
    }
    0
}

// void tcp_sendmsg_locked(const struct sock *sk, const struct msghdr *msg, const struct sk_buff *skb, int size_goal)
// From 6.16. Fires once per segment that is filled, not once per call.
#[raw_tracepoint(tracepoint = "tcp_sendmsg_locked")]
pub fn tcp_send_locked(ctx: RawTracePointContext) -> i32 {
    on_send(ctx.arg(0), ctx.arg(1));
    0
}

// int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
#[fentry(function = "tcp_sendmsg")]
pub fn tcp_send(ctx: FEntryContext) -> i32 {
    on_send(ctx.arg(0), ctx.arg(1));
    0
}

// The same, where neither trampolines nor the tracepoint are to be had.
#[kprobe]
pub fn tcp_send_kprobe(ctx: ProbeContext) -> u32 {
    on_send(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

/// Addresses, ports and network namespace of a socket.
///
/// # Safety
/// `ends` must be valid for writes.
#[inline(always)]
unsafe fn endpoints(ends: *mut Endpoints, sk: u64) {
    let family: u16 = read_or_zero(sk, field(f::SOCK_FAMILY));
    let port: u16 = read_or_zero(sk, field(f::SOCK_DPORT));
    // SAFETY: the caller's promise.
    unsafe {
        *ends = Endpoints::default();
        (*ends).sock = sk;
        (*ends).family = family;
        (*ends).peer_port = u16::from_be(port);
        (*ends).local_port = read_or_zero(sk, field(f::SOCK_NUM));
        (*ends).protocol = match field(f::SOCK_PROTOCOL_SIZE) {
            1 => read::<u8>(sk, field(f::SOCK_PROTOCOL)).unwrap_or(0) as u16,
            2 => read_or_zero(sk, field(f::SOCK_PROTOCOL)),
            // The hooks that get here without it are TCP's own.
            _ => IPPROTO_TCP,
        };
        (*ends).net_ns = read_or_zero(follow(sk, field(f::SOCK_NET)), field(f::NET_INUM));
        if family == AF_INET6 {
            (*ends).peer = read_or_zero(sk, field(f::SOCK_V6_DADDR));
            (*ends).local = read_or_zero(sk, field(f::SOCK_V6_RCV_SADDR));
        } else {
            *(&raw mut (*ends).peer).cast::<u32>() = read_or_zero(sk, field(f::SOCK_DADDR));
            *(&raw mut (*ends).local).cast::<u32>() = read_or_zero(sk, field(f::SOCK_RCV_SADDR));
        }
    }
}

#[inline(always)]
fn on_connect_hook(ctx: &SockAddrContext, v6: bool) {
    let Some(state) = interesting((bpf_get_current_pid_tgid() >> 32) as u32) else {
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
    let addr: *const bpf_sock_addr = ctx.sock_addr;
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

#[inline(always)]
fn on_syn_sent(sk: u64) {
    let Some(state) = interesting((bpf_get_current_pid_tgid() >> 32) as u32) else {
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

/// The bytes of a send that are still to go, as segments of user memory.
#[derive(Clone, Copy)]
struct Segments {
    /// Current piece.
    at: u64,
    left: u64,
    /// `struct iovec` array in kernel memory, the next one to take and how many there are; 0 for a single buffer.
    vector: u64,
    next: u64,
    count: u64,
}

impl Segments {
    /// Takes the next iovec. False when there is none.
    #[inline(always)]
    fn advance(&mut self) -> bool {
        if self.vector == 0 || self.next >= self.count {
            return false;
        }
        // struct iovec { void *iov_base; size_t iov_len; } (UAPI).
        let entry = self.vector + self.next * 16;
        self.at = read_or_zero(entry, 0);
        self.left = read_or_zero(entry, 8);
        self.next += 1;
        true
    }
}

/// What `msg` holds, if it is memory of the calling process.
#[inline(always)]
fn segments(iter: u64) -> Option<Segments> {
    let kind = match field(f::ITER_TYPE_SIZE) {
        1 => read::<u8>(iter, field(f::ITER_TYPE))? as u32,
        // Up to 5.13 the lowest bit is the direction.
        _ => read::<u32>(iter, field(f::ITER_TYPE))? & !1,
    };
    let skip: u64 = read_or_zero(iter, field(f::ITER_OFFSET));
    if field(f::ENUM_ITER_UBUF) != MISSING && kind == field(f::ENUM_ITER_UBUF) {
        let buffer: u64 = read(iter, field(f::ITER_UBUF))?;
        let left = read_or_zero(iter, field(f::ITER_COUNT));
        return Some(Segments {
            at: buffer + skip,
            left,
            vector: 0,
            next: 0,
            count: 0,
        });
    }
    if field(f::ENUM_ITER_IOVEC) == MISSING || kind != field(f::ENUM_ITER_IOVEC) {
        return None;
    }
    let mut segments = Segments {
        at: 0,
        left: 0,
        vector: follow(iter, field(f::ITER_IOV)),
        next: 0,
        count: read_or_zero(iter, field(f::ITER_SEGS)),
    };
    segments.advance();
    segments.at += skip;
    segments.left = segments.left.saturating_sub(skip);
    Some(segments)
}

/// The call, unless its bytes were captured already. Either the same call comes by again, further on, or the thread repeats a send
/// that had found no room. `write_seq` counts what the socket has taken, so it tells both from a new send.
#[inline(always)]
fn new_call(pid_tgid: u64, sk: u64, total: u64, segments: &Segments) -> Option<SendCall> {
    let seq: u32 = read_or_zero(sk, field(f::TCP_WRITE_SEQ));
    if let Some(before) = SENDS.get_ptr(&pid_tgid) {
        // SAFETY: a live map value, copied at once.
        let before = unsafe { (*before).call };
        let taken = seq.wrapping_sub(before.seq) as u64;
        if before.sock == sk && taken <= before.total && before.total - taken == total {
            let same = if segments.vector == 0 {
                before.base.wrapping_add(taken) == segments.at
            } else {
                taken != 0 || before.base == segments.at
            };
            if same {
                return None;
            }
        }
    }
    Some(SendCall {
        sock: sk,
        base: segments.at,
        total,
        seq,
        pad: 0,
    })
}

#[inline(always)]
fn on_send(sk: u64, msg: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(state) = interesting((pid_tgid >> 32) as u32) else {
        return;
    };
    if field(f::MSG_ITER) == MISSING {
        return;
    }
    let iter = msg + field(f::MSG_ITER) as u64;
    let total: u64 = read_or_zero(iter, field(f::ITER_COUNT));
    if total == 0 {
        return;
    }
    let found = segments(iter);
    let readable = found.is_some();
    let mut segments = found.unwrap_or(Segments {
        at: 0,
        left: 0,
        vector: 0,
        next: 0,
        count: 0,
    });
    let Some(call) = new_call(pid_tgid, sk, total, &segments) else {
        return;
    };
    // TLS records are of use for their first bytes only: the type, the length, the SNI of a ClientHello.
    let mut limit = if total > PAYLOAD_MAX as u64 {
        PAYLOAD_MAX as u64
    } else {
        total
    };
    let mut encrypted = !readable;
    if segments.left >= 3 {
        // SAFETY: the helper checks the address.
        let first = unsafe { bpf_probe_read_user(segments.at as *const [u8; 3]) };
        if let Ok([kind @ 0x14..=0x17, 3, 0..=4]) = first {
            encrypted = true;
            let peek = if kind == 0x16 {
                TLS_HANDSHAKE_PEEK
            } else {
                TLS_RECORD_PEEK
            } as u64;
            limit = if total > peek { peek } else { total };
        }
    }
    let (mut tls_call, mut tls_session) = (0, 0);
    if encrypted {
        (tls_call, tls_session) = current_call(pid_tgid);
    }
    let mut state_here = MaybeUninit::<SendState>::uninit();
    let place = state_here.as_mut_ptr();
    // SAFETY: every field is written.
    unsafe {
        (*place).call = call;
        let record = &raw mut (*place).record;
        stamp(&raw mut (*record).header);
        blank(&raw mut (*record).header);
        endpoints(&raw mut (*record).ends, sk);
        (*record).total = total;
        (*record).offset = 0;
        (*record).data_len = 0;
        (*record).tls_call = tls_call;
        (*record).tls_session = tls_session;
        let _ = SENDS.insert(&pid_tgid, &*settle(place), 0);
    }
    if !readable {
        // Pages of files or of the kernel (sendfile, splice, kTLS): that something was sent is all there is to say.
        send_piece(
            pid_tgid,
            0,
            0,
            0,
            (unclassified(state) | flags::UNREADABLE) as u64 | FINAL,
        );
        return;
    }
    let mut capture = Capture::new(pid_tgid, unclassified(state), limit, total);
    // A failed read takes one step, and pages instead of slots from there on.
    const STEPS: usize = SEGMENTS_MAX + PAYLOAD_MAX / PAYLOAD_TIERS[2] + PAYLOAD_MAX / 4096 + 2;
    for _ in 0..STEPS {
        if capture.offset >= capture.limit || (segments.left == 0 && !segments.advance()) {
            break;
        }
        // A segment may be empty.
        if segments.left != 0 {
            let taken = capture.step(send_piece, segments.at, segments.left);
            segments.left -= taken;
            segments.at += taken;
        }
        capture.forget(total);
        segments.left = forget(segments.left, total);
        segments.at = forget(segments.at, total);
        segments.next = forget(segments.next, total);
        segments.count = forget(segments.count, total);
    }
}
