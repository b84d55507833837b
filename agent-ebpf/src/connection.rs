//! What is known of each connection. Its ends are read once and not at every send, and whether this side accepted it
//! is known only when it comes to be.

use crate::{
    maps::{CONNECTIONS, SESSIONS, field, new_connection},
    record::{follow, read, read_or_zero},
};
use keytrail_abi::{
    Endpoints, SendCall, SessionKey,
    budget::BUDGET_SHIFT,
    globals::{MISSING, field as f},
    header::flags,
};

pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;

/// This side accepted the connection. The lowest bit tells it.
const ACCEPTED: u32 = 1;
/// Both sides asked for it.
const ASKED: u32 = 2;

/// Value of the `CONNECTIONS` map (key: the address of `struct sock`). Whoever sends holds the socket's lock, so
/// nobody else writes an entry meanwhile.
#[repr(C)]
pub struct Connection {
    pub ends: Endpoints,
    /// What tells this connection from another one on the same piece of memory; zero: not known.
    tuple: Tuple,
    /// The last send, so that the same bytes are captured once.
    pub call: SendCall,
    /// The TLS session that was seen to write to it.
    pub session: u64,
    /// Bytes captured of it in `window`.
    pub window: u64,
    pub spent: u64,
    /// [`ACCEPTED`] or [`ASKED`]; 0 also where that is not known.
    pub accepted: u32,
    /// When the last TLS write to it was passed over, and so what it becomes: see [`hush`]. 0: it was not.
    pub hushed: u32,
    /// The limit that was reached last, one of `passed`.
    pub limit: u32,
    /// 1: sends on it, and writes of its session, were passed over since the last record of either.
    pub hole: u32,
    pub session_hole: u32,
    pub pad: u32,
}

/// `skc_daddr`, `skc_rcv_saddr`, `skc_hash`, `skc_dport` and `skc_num`, which lie side by side (include/net/sock.h).
/// The hash is of both addresses and ports, those of IPv6 as well.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tuple([u64; 2]);

#[inline(always)]
fn tuple(sk: u64) -> Tuple {
    let start = field(f::SOCK_DADDR);
    let side_by_side = start != MISSING
        && field(f::SOCK_RCV_SADDR) == start + 4
        && field(f::SOCK_DPORT) == start + 12
        && field(f::SOCK_NUM) == start + 14;
    if side_by_side {
        read_or_zero(sk, start)
    } else {
        Tuple::default()
    }
}

/// The connection of a socket with its ends; made if there is none.
#[inline(always)]
pub fn connection(sk: u64) -> Option<*mut Connection> {
    let now = tuple(sk);
    if let Some(known) = CONNECTIONS.get_ptr_mut(&sk) {
        // SAFETY: a live map value.
        unsafe {
            if now != Tuple::default() && (*known).tuple == now {
                if (*known).ends.sock != sk {
                    endpoints(&raw mut (*known).ends, sk);
                }
                return Some(known);
            }
        }
    }
    begin(sk, now, 0)
}

/// A new connection on this piece of memory.
#[inline(always)]
fn begin(sk: u64, tuple: Tuple, accepted: u32) -> Option<*mut Connection> {
    let entry = new_connection(sk)?;
    // SAFETY: a live map value.
    unsafe {
        (*entry).tuple = tuple;
        (*entry).accepted = accepted;
        if accepted == 0 {
            endpoints(&raw mut (*entry).ends, sk);
        }
    }
    Some(entry)
}

/// Bit that a time of [`Connection::hushed`] has beside the number of its window.
const HUSHED: u32 = 1 << 31;

/// The value of [`Connection::hushed`] for a TLS write at this time. It lasts for this window and the next: what is sent
/// later is not what became of the write.
#[inline(always)]
pub fn hush(now: u64) -> u32 {
    (now >> BUDGET_SHIFT) as u32 | HUSHED
}

/// Does it last still?
#[inline(always)]
pub fn lasts(hushed: u32, now: u64) -> bool {
    hushed != 0 && hush(now).wrapping_sub(hushed) <= 1
}

/// The flag of sends on connections that this side accepted. Without a branch, which the verifier would follow twice.
#[inline(always)]
pub fn accepted_flag(connection: *mut Connection) -> u16 {
    // SAFETY: the caller has a live map value.
    let accepted = unsafe { (*connection).accepted };
    ((accepted & 1) as u16) << flags::ACCEPTED_BIT
}

/// This side has accepted a connection. It happens where packets come in, long before anybody knows whose it will be.
#[inline(always)]
pub fn accepted(sk: u64) {
    if let Some(known) = CONNECTIONS.get_ptr(&sk) {
        // SAFETY: a live map value.
        let asked = unsafe { (*known).accepted == ASKED && (*known).tuple == tuple(sk) };
        if asked {
            return;
        }
    }
    begin(sk, tuple(sk), ACCEPTED);
}

/// This side has asked for a connection that the other side asked for as well: its next states are those of one that
/// was accepted.
#[inline(always)]
pub fn asked(sk: u64) {
    begin(sk, tuple(sk), ASKED);
}

/// The connection is over: its memory may become that of another.
#[inline(always)]
pub fn over(sk: u64) {
    let _ = CONNECTIONS.remove(&sk);
}

/// The connection a TLS session writes to, as far as it was seen; null where it was not. No `Option`: what is left unset
/// beside `None` is a register that the verifier does not let anybody read.
#[inline(always)]
pub fn of_session(tgid: u32, session: u64) -> *mut Connection {
    let key = SessionKey {
        session,
        tgid,
        pad: 0,
    };
    let Some(sk) = SESSIONS.get_ptr(&key) else {
        return core::ptr::null_mut();
    };
    // SAFETY: a live map value, copied at once.
    let sk = unsafe { *sk };
    let Some(connection) = CONNECTIONS.get_ptr_mut(&sk) else {
        return core::ptr::null_mut();
    };
    // SAFETY: a live map value.
    if unsafe { (*connection).session } == session {
        connection
    } else {
        core::ptr::null_mut()
    }
}

/// A send was seen inside a write of this session.
#[inline(always)]
pub fn joined(tgid: u32, session: u64, sk: u64, connection: *mut Connection) {
    // SAFETY: a live map value.
    unsafe {
        if (*connection).session == session {
            return;
        }
        (*connection).session = session;
    }
    let key = SessionKey {
        session,
        tgid,
        pad: 0,
    };
    let _ = SESSIONS.insert(&key, &sk, 0);
}

/// Addresses, ports and network namespace of a socket.
///
/// # Safety
/// `ends` must be valid for writes.
#[inline(always)]
pub unsafe fn endpoints(ends: *mut Endpoints, sk: u64) {
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
