//! What metadata services answer, as the one who asked takes it in. The hook comes after the bytes were copied; where they
//! are is said by the system call the thread is still in.

use crate::{
    budget::{Charge, granted_as},
    connection::{AF_INET6, endpoints},
    maps::{ASKS, field, message_state},
    message::{AF_INET, find_bytes},
    payload::capture_message,
    record::{
        Counters, Load, Probed, Typed, follow, interesting, plain_argument, read_or_zero, stamp,
        unclassified,
    },
    socket::{is_metadata, is_metadata6},
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};
use keytrail_abi::{Kind, globals::field as f};

/// Longest part of one answer that is captured: what gives credentials is shorter.
const ANSWER_MAX: u64 = 16 << 10;

// void sock_recv_length(struct sock *sk, int ret, int flags)      from 6.3
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn answered(ctx: RawTracePointContext) -> i32 {
    on_received::<Probed>(
        ctx.arg(0),
        ctx.arg(0),
        ctx.arg::<u64>(1) as i32,
        ctx.arg::<u64>(2) as u32,
    );
    0
}

// The same, where the kernel knows the types of the arguments.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn answered_typed(ctx: BtfTracePointContext) -> i32 {
    on_received::<Typed>(
        ctx.arg(0),
        plain_argument(ctx.as_ptr(), 0),
        ctx.arg::<u64>(1) as i32,
        ctx.arg::<u64>(2) as u32,
    );
    0
}

// int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)
#[fexit(function = "inet_recvmsg")]
pub fn inet_answered(ctx: FExitContext) -> i32 {
    let sk = follow(ctx.arg(0), field(f::SOCKET_SK));
    let (flags, received) = (ctx.arg::<u64>(3) as u32, ctx.arg::<u64>(4) as i32);
    on_received::<Probed>(sk, sk, received, flags);
    0
}

// int inet6_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)
#[fexit(function = "inet6_recvmsg")]
pub fn inet6_answered(ctx: FExitContext) -> i32 {
    let sk = follow(ctx.arg(0), field(f::SOCKET_SK));
    let (flags, received) = (ctx.arg::<u64>(3) as u32, ctx.arg::<u64>(4) as i32);
    on_received::<Probed>(sk, sk, received, flags);
    0
}

/// Whether anybody has asked a metadata service for a connection since the agent began: on most hosts nobody does, and all
/// that is received there passes by here.
#[inline(always)]
fn anybody_asks() -> bool {
    ASKS.get_ptr(0).is_some_and(|asks| {
        // SAFETY: a live map value, an aligned load.
        unsafe { core::ptr::read_volatile(asks) != 0 }
    })
}

/// Notes that somebody does.
#[inline(always)]
pub fn asks() {
    if let Some(asks) = ASKS.get_ptr_mut(0) {
        // SAFETY: as above, a store.
        unsafe { core::ptr::write_volatile(asks, 1) };
    }
}

/// Is a metadata service at the other end? `plain` is the same socket as a number.
#[inline(always)]
fn is_service<L: Load>(sk: u64, plain: u64) -> bool {
    match L::load::<u16>(sk, field(f::SOCK_FAMILY)) {
        AF_INET => is_metadata(L::load(sk, field(f::SOCK_DADDR))),
        AF_INET6 => {
            let [first, second, third, last]: [u32; 4] =
                read_or_zero(plain, field(f::SOCK_V6_DADDR));
            // An IPv6 socket that reached an IPv4 host has it behind ::ffff:0:0.
            is_metadata6(first, second | third, last)
                || first | second == 0 && u32::from_be(third) == 0xffff && is_metadata(last)
        }
        _ => false,
    }
}

/// `typed` may only be loaded from, `sk` is the same as a number.
#[inline(always)]
fn on_received<L: Load>(typed: u64, sk: u64, received: i32, receive_flags: u32) {
    // include/linux/socket.h: looked at, and left there.
    const MSG_PEEK: u32 = 2;
    if !anybody_asks()
        || received <= 0
        || receive_flags & MSG_PEEK != 0
        || !is_service::<L>(typed, sk)
    {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    let Some(state) = interesting(tgid) else {
        return;
    };
    take(thread, sk, received as u64, state as u64);
}

/// Why this is a function of its own: see `payload`. Its result says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take(thread: u64, sk: u64, received: u64, state: u64) -> u64 {
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let Some(entry) = message_state(thread) else {
        counters.lost(Kind::ANSWER);
        return 0;
    };
    if find_bytes(thread, sk, received) == 0 {
        counters.lost(Kind::ANSWER);
        return 0;
    }
    let mut limit = received;
    if limit > ANSWER_MAX {
        limit = ANSWER_MAX;
    }
    let charge = Charge {
        tgid: (thread >> 32) as u32,
        state: state as u32,
        kind: Kind::ANSWER,
        bytes: limit,
        // SAFETY: no arguments.
        now: unsafe { bpf_ktime_get_boot_ns() },
    };
    if !granted_as(charge, core::ptr::null_mut(), false) {
        return 0;
    }
    // SAFETY: a live map value that belongs to this thread.
    unsafe {
        let record = &raw mut (*entry).record;
        stamp(&raw mut (*record).header);
        (*record).header.kind = Kind::ANSWER;
        endpoints(&raw mut (*record).ends, sk);
        (*record).total = received;
        (*record).offset = 0;
        (*record).data_len = 0;
        (*record).tls_call = 0;
        (*record).tls_session = 0;
        (*record).peer_start_ns = 0;
        (*record).peer_tgid = 0;
        (*record).name_len = 0;
        (*entry).progress.limit = limit;
        (*entry).progress.total = received;
        (*entry).progress.bits = unclassified(state as u32) as u32;
    }
    capture_message(thread, Kind::ANSWER);
    0
}
