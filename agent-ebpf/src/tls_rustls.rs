//! Plaintext on its way into rustls: `MessageEncrypter::encrypt`, which every record passes, from rustls 0.23 on.
//!
//! One call is one record, and nothing is sent in it: what it makes is kept in memory, and sent when the caller asks for
//! it. The encrypter is the session: a connection has its own for what it writes.

use crate::{
    payload::Progress,
    record::{Counters, interesting},
    tls::{Bytes, Socket, attach_cookie, capture_bytes},
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};
use keytrail_abi::{Kind, SEGMENTS_MAX, TlsCall};

/// Most bytes of plaintext in one TLS record (RFC 8446, section 5.1).
const RECORD_MAX: u64 = 16_384;
/// The fourth of rustls's `ContentType`s: application data. Handshakes and alerts are encrypted as well.
const APPLICATION_DATA: u64 = 3;

// fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error>
#[uprobe]
pub fn tls_write_rustls(ctx: ProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(state) = interesting((thread >> 32) as u32) else {
        return 0;
    };
    // The first argument is where the result goes.
    let (session, message): (u64, u64) = (ctx.arg(1).unwrap_or(0), ctx.arg(2).unwrap_or(0));
    let Some([pieces, first, second, end, kind]) = user::<[u64; 5]>(message) else {
        return unseen();
    };
    if kind & 0xff != APPLICATION_DATA {
        return 0;
    }
    // Either one piece, at `first` and `second` long, or what lies between `second` and `end` of `first` pieces.
    let (total, progress) = if pieces == 0 {
        (second, Progress::new(first, second, second))
    } else {
        let total = end.wrapping_sub(second);
        (total, part(pieces, first, second, total))
    };
    if total == 0 || total > RECORD_MAX {
        return 0;
    }
    if progress.left == 0 {
        return unseen();
    }
    let cookie = attach_cookie(&ctx);
    let call = TlsCall {
        tls_call: 0,
        tls_session: session,
        // SAFETY: no arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        total,
        buffer: progress.at,
        // What this thread sends is no part of the call.
        ret_slot: 0,
        ret_addr: 0,
    };
    let bytes = Bytes {
        pieces: progress,
        once: true,
    };
    capture_bytes(thread, state, call, cookie, Socket::default(), &bytes)
}

/// `total` bytes, from `start` on, of so many pieces (`&[&[u8]]`: address and length each, like `struct iovec`).
#[inline(always)]
fn part(pieces: u64, count: u64, start: u64, total: u64) -> Progress {
    let mut progress = Progress {
        vector: pieces,
        count,
        user_vector: 1,
        ..Progress::new(0, 0, total)
    };
    let mut before = 0_u64;
    for index in 0..SEGMENTS_MAX as u64 {
        if index >= count {
            break;
        }
        let Some([at, len]) = user::<[u64; 2]>(pieces + index * 16) else {
            break;
        };
        let into = start.wrapping_sub(before);
        if into < len {
            progress.at = at.wrapping_add(into);
            progress.left = len - into;
            progress.next = index + 1;
            break;
        }
        before = before.wrapping_add(len);
    }
    progress
}

/// A record whose bytes could not be inspected: counted.
#[inline(always)]
fn unseen() -> u32 {
    if let Some(counters) = Counters::get() {
        counters.lost(Kind::TLS_WRITE);
    }
    0
}

#[inline(always)]
fn user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
