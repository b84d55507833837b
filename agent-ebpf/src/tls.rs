//! Plaintext on its way into a TLS library, at function entry only: return probes upset Go stacks, unwinders and
//! seccomp filters, and on writes the buffer is valid at entry.

use crate::{
    arch::{RETURN_IN_REGISTER, plain_return, unsaved_return},
    budget::{Charge, granted},
    connection::{hush, of_session},
    maps::{TLS_CALLS, field, tls_state},
    payload::{AT_ONCE, Progress, Source, capture_at_once, capture_tls},
    record::{Counters, interesting, read_or_zero, stamp, unclassified, user_registers},
};
use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
        bpf_probe_read_user, generated::bpf_get_attach_cookie,
    },
    macros::uprobe,
    programs::ProbeContext,
};
use keytrail_abi::{
    Kind, PAYLOAD_MAX, TlsCall, TlsWrite,
    globals::{MISSING, field as f},
    header::flags,
    state::counter,
};

/// Without a way to see the stack a call is believed to last this long, nanoseconds.
const CALL_AGE_MAX: u64 = 100_000_000;
/// Stack between a TLS write and the send inside it, bytes: no library takes more.
const CALL_DEPTH_MAX: u64 = 256 << 10;

// int SSL_write(SSL *s, const void *buf, int num)
#[uprobe]
pub fn tls_write_int(ctx: ProbeContext) -> u32 {
    // A negative length is an error the library itself returns.
    let size = ctx.arg::<i32>(2).unwrap_or(0);
    if size > 0 {
        on_write(&ctx, size as u64)
    } else {
        0
    }
}

// int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)
// int SSL_write_ex2(SSL *s, const void *buf, size_t num, uint64_t flags, size_t *written)      OpenSSL 3.3
// int SSL_write_early_data(SSL *s, const void *buf, size_t num, size_t *written)
// ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)
// ssize_t gnutls_record_send2(session, const void *data, size_t data_size, size_t pad, unsigned flags)
#[uprobe]
pub fn tls_write_size(ctx: ProbeContext) -> u32 {
    on_write(&ctx, ctx.arg(2).unwrap_or(0))
}

/// What user space has given the place this probe sits at; 0 where the kernel keeps nothing for it.
#[inline(always)]
pub fn attach_cookie(ctx: &ProbeContext) -> u64 {
    if field(f::HAS_COOKIE) != 1 {
        return 0;
    }
    // SAFETY: user space sets the flag only where the helper exists.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// A call that takes plaintext: session, buffer and `total` bytes.
#[inline(always)]
pub fn on_write(ctx: &ProbeContext, total: u64) -> u32 {
    trace!(ctx, "TLS write of {} bytes", total);
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(state) = interesting((pid_tgid >> 32) as u32) else {
        return 0;
    };
    let session: u64 = ctx.arg(0).unwrap_or(0);
    let buffer: u64 = ctx.arg(1).unwrap_or(0);
    // GnuTLS is called again with nothing after EAGAIN.
    if buffer == 0 || total == 0 {
        return 0;
    }
    let cookie = attach_cookie(ctx);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(before) = TLS_CALLS.get_ptr(&pid_tgid) {
        // SAFETY: a live map value, copied at once.
        let (before, other) = unsafe {
            (
                (*before).call,
                (*before).record.cookie != cookie & 0xffff_ffff,
            )
        };
        // One function of a library going on in another (gnutls_record_send in _send2), or one file seen through two
        // mounts, is one call. The same function again is another call, even with the same buffer.
        if other
            && before.tls_session == session
            && before.buffer == buffer
            && before.total == total
            && before.ret_slot != 0
            && active(&before, now, user_sp(ctx))
        {
            return 0;
        }
    }
    let (ret_slot, ret_addr) = return_of(ctx, cookie);
    let call = TlsCall {
        tls_call: 0,
        tls_session: session,
        boot_ns: now,
        total,
        buffer,
        ret_slot,
        ret_addr,
    };
    if RETURN_IN_REGISTER && went_on(pid_tgid, cookie, &call) {
        return 0;
    }
    capture(pid_tgid, state, call, cookie, Socket::default())
}

/// Where the return address of the probed function is on the stack, and the address; without the place where it is not known.
#[inline(always)]
fn return_of(ctx: &ProbeContext, cookie: u64) -> (u64, u64) {
    // The cookie's upper half: bytes the prologue has pushed before the probed instruction, plus one; 0 unknown.
    let pushed = cookie >> 32;
    if field(f::RETURN_ON_STACK) != 1 {
        return (0, 0);
    }
    if pushed == 0 {
        return (0, unsaved_return(ctx.as_ptr() as u64));
    }
    let ret_slot = user_sp(ctx) + (pushed - 1);
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(ret_slot as *const u64) } {
        Ok(address) => (ret_slot, address),
        Err(_) => (0, 0),
    }
}

/// Has a function that saves no return address gone on in this one (gnutls_record_send in _send2, by a branch)? Then they are
/// one call, and where it returns is known from here on.
#[inline(always)]
fn went_on(pid_tgid: u64, cookie: u64, call: &TlsCall) -> bool {
    let Some(before) = TLS_CALLS.get_ptr_mut(&pid_tgid) else {
        return false;
    };
    // SAFETY: a live map value of this thread.
    unsafe {
        let first = (*before).call;
        if (*before).record.cookie == cookie & 0xffff_ffff
            || first.ret_slot != 0
            || first.ret_addr == 0
            || first.ret_addr != plain_return(call.ret_addr)
            || first.tls_session != call.tls_session
            || first.buffer != call.buffer
            || first.total != call.total
            || call.boot_ns - first.boot_ns > CALL_AGE_MAX
        {
            return false;
        }
        (*before).call.ret_slot = call.ret_slot;
        (*before).call.ret_addr = call.ret_addr;
    }
    true
}

/// The socket of a session that names it; all zeros where none does.
#[derive(Clone, Copy, Default)]
pub struct Socket {
    pub sock: u64,
    pub local_port: u16,
    pub peer_port: u16,
}

/// Captures a call whose bytes are in one piece.
#[inline(always)]
pub fn capture(pid_tgid: u64, state: u32, call: TlsCall, cookie: u64, socket: Socket) -> u32 {
    let bytes = Bytes {
        pieces: Progress::new(call.buffer, call.total, call.total),
        once: false,
    };
    capture_bytes(pid_tgid, state, call, cookie, socket, &bytes)
}

/// What a call takes.
pub struct Bytes {
    pub pieces: Progress,
    /// They are one record, and not handed over again.
    pub once: bool,
}

/// Captures a call, which gets its number here.
#[inline(always)]
pub fn capture_bytes(
    pid_tgid: u64,
    state: u32,
    call: TlsCall,
    cookie: u64,
    socket: Socket,
    bytes: &Bytes,
) -> u32 {
    let mut bits = unclassified(state);
    let connection = of_session((pid_tgid >> 32) as u32, call.tls_session);
    let charge = Charge {
        tgid: (pid_tgid >> 32) as u32,
        state,
        kind: Kind::TLS_WRITE,
        bytes: call.total,
        now: call.boot_ns,
    };
    let granted = granted(charge, connection);
    if !connection.is_null() {
        // SAFETY: a live map value.
        unsafe {
            (*connection).hushed = if granted { 0 } else { hush(call.boot_ns) };
            if granted && (*connection).session_hole == 1 {
                (*connection).session_hole = 0;
                bits |= flags::AFTER_HOLE;
            }
        }
    }
    if !granted {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let Some(entry) = tls_state(pid_tgid) else {
        counters.lost(Kind::TLS_WRITE);
        return 0;
    };
    let tls_call = counters.unique(counter::CALLS);
    let total = call.total;
    let limit = if total > PAYLOAD_MAX as u64 {
        PAYLOAD_MAX as u64
    } else {
        total
    };
    let source = Write {
        tls_call,
        session: call.tls_session,
        total,
        cookie: cookie & 0xffff_ffff,
        socket,
        once: bytes.once as u32,
    };
    // SAFETY: a live map value that belongs to this thread.
    unsafe {
        (*entry).call.tls_call = tls_call;
        (*entry).call.tls_session = call.tls_session;
        (*entry).call.boot_ns = call.boot_ns;
        (*entry).call.total = total;
        (*entry).call.buffer = call.buffer;
        (*entry).call.ret_slot = call.ret_slot;
        (*entry).call.ret_addr = call.ret_addr;
        (*entry).record.cookie = source.cookie;
    }
    let whole = bytes.pieces.left >= total;
    if whole && total <= AT_ONCE && capture_at_once(&source, call.buffer, total, bits) {
        return 0;
    }
    // SAFETY: as above; every field is written.
    unsafe {
        (*entry).progress = Progress {
            limit,
            bits: bits as u32,
            ..bytes.pieces
        };
        source.fill(&raw mut (*entry).record);
    }
    capture_tls(pid_tgid);
    0
}

/// A TLS write, for its record.
struct Write {
    tls_call: u64,
    session: u64,
    total: u64,
    cookie: u64,
    socket: Socket,
    once: u32,
}

impl Source<TlsWrite> for Write {
    #[inline(always)]
    unsafe fn fill(&self, record: *mut TlsWrite) {
        // SAFETY: the caller's promise.
        unsafe {
            stamp(&raw mut (*record).header);
            (*record).tls_call = self.tls_call;
            (*record).tls_session = self.session;
            (*record).total = self.total;
            (*record).cookie = self.cookie;
            (*record).sock = self.socket.sock;
            (*record).local_port = self.socket.local_port;
            (*record).peer_port = self.socket.peer_port;
            (*record).once = self.once;
        }
    }
}

/// The probed thread's stack pointer.
#[inline(always)]
fn user_sp(ctx: &ProbeContext) -> u64 {
    let offset = field(f::REGS_SP);
    if offset == MISSING {
        return 0;
    }
    // SAFETY: the helper checks the address; the context of a uprobe is the thread's pt_regs.
    unsafe { bpf_probe_read_kernel((ctx.as_ptr() as u64 + offset as u64) as *const u64) }
        .unwrap_or(0)
}

/// Is the thread, whose user stack pointer is `sp`, still inside the call?
#[inline(always)]
pub fn active(call: &TlsCall, now: u64, sp: u64) -> bool {
    if call.ret_slot == 0 || sp == 0 {
        return now - call.boot_ns < CALL_AGE_MAX;
    }
    // SAFETY: the helper checks the address.
    sp <= call.ret_slot
        && unsafe { bpf_probe_read_user(call.ret_slot as *const u64) } == Ok(call.ret_addr)
}

/// The TLS call the current thread is in, if any: (call, session).
#[inline(always)]
pub fn current_call(pid_tgid: u64) -> (u64, u64) {
    let Some(call) = TLS_CALLS.get_ptr(&pid_tgid) else {
        return (0, 0);
    };
    // SAFETY: a live map value, copied at once.
    let call = unsafe { (*call).call };
    // Without the place of the return address, nested is a guess by time; a wrong destination is worse than none.
    if call.ret_slot == 0 {
        return (0, 0);
    }
    let sp: u64 = read_or_zero(user_registers(), field(f::REGS_SP));
    // A stack far below belongs to another coroutine of the thread.
    if sp == 0 || call.ret_slot.wrapping_sub(sp) > CALL_DEPTH_MAX {
        return (0, 0);
    }
    // SAFETY: no arguments.
    if active(&call, unsafe { bpf_ktime_get_boot_ns() }, sp) {
        (call.tls_call, call.tls_session)
    } else {
        (0, 0)
    }
}
