//! What metadata services answer, as the one who asked takes it in. The hook comes after the bytes were copied; where they
//! are is said by the system call the thread is still in.

use crate::{
    connection::{AF_INET6, IPPROTO_TCP, endpoints},
    maps::{ASKS, MESSAGE_HOLES, field, message_state},
    message::{AF_INET, after_hole, find_bytes, protocol_of},
    payload::capture_message,
    record::{
        Counters, Load, Probed, Typed, follow, plain_argument, read_or_zero, stamp, unclassified,
    },
    socket::{caller, is_metadata, is_metadata6},
};
use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};
use keytrail_abi::{
    Kind, PAYLOAD_MAX,
    budget::{BUDGET_RECORD, BUDGET_SHIFT},
    globals::field as f,
    state::asks,
};

/// Most bytes of answers that are captured a second, of the whole host, with what each record costs.
const ANSWERS_MAX: u64 = 4 << 20;
/// 127.0.0.1.
const LOOPBACK: u32 = 0x7f00_0001;

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

/// A number of the `ASKS` map.
#[inline(always)]
fn known(place: u32) -> u64 {
    ASKS.get_ptr(place).map_or(0, |number| {
        // SAFETY: a live map value, an aligned load.
        unsafe { core::ptr::read_volatile(number) }
    })
}

#[inline(always)]
fn note(place: u32, number: u64) {
    if let Some(known) = ASKS.get_ptr_mut(place) {
        // SAFETY: a live map value, an aligned store.
        unsafe { core::ptr::write_volatile(known, number) };
    }
}

/// Notes that somebody asks a metadata service for a connection.
#[inline(always)]
pub fn asks() {
    note(asks::SOMEBODY, 1);
}

/// Is a metadata service at the other end? `plain` is the same socket as a number.
#[inline(always)]
fn is_service<L: Load>(sk: u64, plain: u64, self_test: u64) -> bool {
    match L::load::<u16>(sk, field(f::SOCK_FAMILY)) {
        AF_INET => {
            let address: u32 = L::load(sk, field(f::SOCK_DADDR));
            let port = u16::from_be(L::load(sk, field(f::SOCK_DPORT)));
            is_metadata(address)
                || self_test == port as u64 && self_test != 0 && u32::from_be(address) == LOOPBACK
        }
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
    // include/linux/socket.h: inspected and left there, thrown away, no data at all.
    const MSG_PEEK: u32 = 2;
    const MSG_TRUNC: u32 = 0x20;
    const MSG_ERRQUEUE: u32 = 0x2000;
    // On most hosts nobody asks a metadata service: all that is received there passes by here.
    let self_test = known(asks::SELF_TEST);
    if known(asks::SOMEBODY) | self_test == 0
        || received <= 0
        || receive_flags & (MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE) != 0
        || !is_service::<L>(typed, sk, self_test)
        // Such an address answers questions of other kinds by UDP: names, the time.
        || protocol_of::<L>(typed) != IPPROTO_TCP
    {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    // Whoever takes it in, the one who asked or one who was given the socket.
    let Some(state) = caller(tgid, true) else {
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
    let mut limit = received;
    if limit > PAYLOAD_MAX as u64 {
        limit = PAYLOAD_MAX as u64;
    }
    if find_bytes(thread, sk, received) == 0 || !is_granted(limit) {
        counters.lost(Kind::ANSWER);
        let _ = MESSAGE_HOLES.insert(&sk, &1, 0);
        return 0;
    }
    let bits = unclassified(state as u32) | after_hole(sk);
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
        (*entry).progress.bits = bits as u32;
    }
    capture_message(thread, Kind::ANSWER);
    0
}

/// May so many bytes be captured in this second? Who has a network of its own can have a service of its own in it. Two
/// processors at once may forget a charge.
#[inline(always)]
fn is_granted(bytes: u64) -> bool {
    // SAFETY: no arguments.
    let window = unsafe { bpf_ktime_get_boot_ns() } >> BUDGET_SHIFT;
    let mut spent = known(asks::SPENT);
    if known(asks::WINDOW) != window {
        note(asks::WINDOW, window);
        spent = 0;
    }
    if spent >= ANSWERS_MAX {
        return false;
    }
    note(asks::SPENT, spent + bytes + BUDGET_RECORD);
    true
}
