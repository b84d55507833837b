//! Copies what a process is about to send into the ring, in the smallest slots that fit.
//!
//! A call may have many segments, and each may need several slots: a loop with a choice of slots in it, for which the
//! verifier would have to follow every combination. So each step of the loop is a function of global linkage, which
//! it checks once and by itself. Such a function takes numbers only: the state of the loop lies in a map under the
//! thread's id, where nobody else touches it.

use crate::{
    maps::{MESSAGES, SENDS, TLS_CALLS},
    record::{Counters, Slot, Wake, copy, copy_user, pointer, read_or_zero, wake, zero},
};
use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_probe_read_user};
use keytrail_abi::{
    Header, Kind, MessageSend, PAYLOAD_MAX, PAYLOAD_TIERS, SEGMENTS_MAX, SockSend, TLS_RECORD_PEEK,
    TlsWrite, header::flags,
};

const PAGE: u64 = 4096;
/// Slots of records that carry next to nothing: the first bytes of a TLS record.
const PEEK: usize = if TLS_RECORD_PEEK <= 32 {
    32
} else {
    TLS_RECORD_PEEK
};
const SMALL: usize = PAYLOAD_TIERS[0];
const MIDDLE: usize = PAYLOAD_TIERS[1];
const PAGE_FULL: usize = PAYLOAD_TIERS[2];
const LARGE: usize = PAYLOAD_TIERS[3];

/// Most bytes of a payload in one piece that is captured at once, without the loop.
pub const AT_ONCE: u64 = PAGE_FULL as u64;

/// Steps of a call that is captured whole: its segments, its slots, after a failed read its pages, and the failure.
const STEPS: usize = SEGMENTS_MAX + PAYLOAD_MAX / LARGE + PAYLOAD_MAX / 4096 + 2;

/// The bytes of a call that are still to be captured.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Progress {
    /// Current piece of user memory.
    pub at: u64,
    pub left: u64,
    /// `struct iovec` array, the next one to take and how many there are; 0 for a single buffer.
    pub vector: u64,
    pub next: u64,
    pub count: u64,
    /// Bytes of the call captured or passed over so far.
    pub offset: u64,
    /// Bytes of the call that are wanted, and bytes there are.
    pub limit: u64,
    pub total: u64,
    /// Flags every record of this call carries.
    pub bits: u32,
    /// 1 after a read has failed: go on page by page, so that a missing page costs that page only.
    pub by_page: u32,
    /// 1: `vector` is in user memory, otherwise in the kernel's.
    pub user_vector: u64,
}

impl Progress {
    /// `left` bytes at `at`, of a call of `total`; nothing captured yet.
    #[inline(always)]
    pub fn new(at: u64, left: u64, total: u64) -> Self {
        Self {
            at,
            left,
            vector: 0,
            next: 0,
            count: 0,
            offset: 0,
            limit: 0,
            total,
            bits: 0,
            by_page: 0,
            user_vector: 0,
        }
    }

    /// Takes the next segment. False when there is none.
    #[inline(always)]
    pub fn advance(&mut self) -> bool {
        if self.vector == 0 || self.next >= self.count {
            return false;
        }
        // struct iovec { void *iov_base; size_t iov_len; } (UAPI).
        let entry = self.vector + self.next * 16;
        [self.at, self.left] = if self.user_vector == 1 {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_user(entry as *const [u64; 2]) }.unwrap_or_default()
        } else {
            [read_or_zero(entry, 0), read_or_zero(entry, 8)]
        };
        self.next += 1;
        true
    }
}

/// A record that carries payload.
pub trait Carrier: Copy + 'static {
    const KIND: u16;
    /// Sets offset and length of the data that follows.
    ///
    /// # Safety
    /// `this` must be valid for writes.
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32);
    /// The kind of the records made from this template.
    ///
    /// # Safety
    /// `this` must be valid for reads.
    #[inline(always)]
    unsafe fn kind(this: *const Self) -> u16 {
        let _ = this;
        Self::KIND
    }
}

impl Carrier for SockSend {
    const KIND: u16 = Kind::SOCK_SEND;
    #[inline(always)]
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*this).offset = offset;
            (*this).data_len = data_len;
        }
    }
}

impl Carrier for TlsWrite {
    const KIND: u16 = Kind::TLS_WRITE;
    #[inline(always)]
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*this).offset = offset;
            (*this).data_len = data_len;
        }
    }
}

impl Carrier for MessageSend {
    const KIND: u16 = Kind::UNIX_SEND;
    #[inline(always)]
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*this).offset = offset;
            (*this).data_len = data_len;
        }
    }
    #[inline(always)]
    unsafe fn kind(this: *const Self) -> u16 {
        // SAFETY: the caller's promise.
        match unsafe { (*this).header.kind } {
            Kind::UDP_SEND => Kind::UDP_SEND,
            Kind::ANSWER => Kind::ANSWER,
            _ => Kind::UNIX_SEND,
        }
    }
}

/// Captures the send that `SENDS` has for the thread.
#[inline(always)]
pub fn capture_send(thread: u64) {
    for _ in 0..STEPS {
        if send_step(thread) == 0 {
            return;
        }
    }
    unfinished(Kind::SOCK_SEND);
}

/// Captures the TLS call that `TLS_CALLS` has for the thread.
#[inline(always)]
pub fn capture_tls(thread: u64) {
    for _ in 0..STEPS {
        if tls_step(thread) == 0 {
            return;
        }
    }
    unfinished(Kind::TLS_WRITE);
}

/// Captures the send of this kind that `MESSAGES` has for the thread.
#[inline(always)]
pub fn capture_message(thread: u64, kind: u16) {
    for _ in 0..STEPS {
        if message_step(thread) == 0 {
            return;
        }
    }
    unfinished(kind);
}

/// More segments than are followed: what they hold was not seen, which must not pass for nothing.
#[inline(always)]
fn unfinished(kind: u16) {
    if let Some(counters) = Counters::get() {
        counters.lost(kind);
    }
}

/// One step of a send; 0 when nothing is left to do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_step(thread: u64) -> u64 {
    let Some(state) = SENDS.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that belongs to this thread.
    unsafe { step(&mut (*state).progress, &raw const (*state).record) }
}

/// One step of a TLS call; 0 when nothing is left to do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_step(thread: u64) -> u64 {
    let Some(state) = TLS_CALLS.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that belongs to this thread.
    unsafe { step(&mut (*state).progress, &raw const (*state).record) }
}

/// One step of a send over a Unix socket or by UDP; 0 when nothing is left to do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn message_step(thread: u64) -> u64 {
    let Some(state) = MESSAGES.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that belongs to this thread.
    unsafe { step(&mut (*state).progress, &raw const (*state).record) }
}

#[inline(always)]
pub fn step<R: Carrier>(progress: &mut Progress, template: *const R) -> u64 {
    if progress.left == 0 && !progress.advance() {
        return 0;
    }
    // A segment may be empty.
    if progress.left == 0 {
        return 1;
    }
    let mut most = LARGE as u64;
    if progress.by_page != 0 {
        most = PAGE - (progress.at & (PAGE - 1));
    }
    let mut size = progress.left;
    if size > progress.limit - progress.offset {
        size = progress.limit - progress.offset;
    }
    if size > most {
        size = most;
    }
    let done = if size <= PEEK as u64 {
        emit::<R, PEEK>(progress, template, size)
    } else if size <= SMALL as u64 {
        emit::<R, SMALL>(progress, template, size)
    } else if size <= MIDDLE as u64 {
        emit::<R, MIDDLE>(progress, template, size)
    } else if size <= PAGE_FULL as u64 {
        emit::<R, PAGE_FULL>(progress, template, size)
    } else {
        emit::<R, LARGE>(progress, template, size)
    };
    if !done {
        progress.by_page = 1;
        return 1;
    }
    progress.at += size;
    progress.left -= size;
    progress.offset += size;
    if progress.offset < progress.limit {
        1
    } else {
        0
    }
}

/// One record. False when its bytes cannot be read at once: then page by page.
#[inline(always)]
fn emit<R: Carrier, const N: usize>(progress: &Progress, template: *const R, size: u64) -> bool {
    let Some(counters) = Counters::get() else {
        return true;
    };
    // SAFETY: the template is a live map value.
    let kind = unsafe { R::kind(template) };
    let Some(mut slot) = counters.reserve::<Slot<R, N>>(kind) else {
        // Counted; what follows may find room again.
        return true;
    };
    let record = pointer(&mut slot);
    let mut bits = progress.bits as u16;
    if progress.offset != 0 {
        bits |= flags::CONTINUED;
    }
    if progress.offset + size >= progress.limit && progress.limit < progress.total {
        bits |= flags::TRUNCATED;
    }
    // SAFETY: `record` is the reserved slot with N bytes of data, `template` a live map value; a Carrier begins with
    // a Header.
    unsafe {
        let data = (&raw mut (*record).data).cast::<u8>();
        zero::<N>(data);
        let mut kept = size as u32;
        if !copy_user::<N>(data, progress.at, size) {
            if progress.by_page == 0 {
                slot.discard(BPF_RB_NO_WAKEUP as u64);
                return false;
            }
            bits |= flags::UNREADABLE;
            kept = 0;
        }
        copy(&raw mut (*record).record, template);
        R::describe(&raw mut (*record).record, progress.offset as u32, kept);
        let head = (&raw mut (*record).record).cast::<Header>();
        counters.seal(head, kind, size_of::<R>() as u32 + kept, bits);
    }
    slot.submit(wake(Wake::Now));
    true
}

/// Something that fills in all of a record but its data.
pub trait Source<R: Carrier> {
    /// # Safety
    /// `record` must be valid for writes.
    unsafe fn fill(&self, record: *mut R);
}

/// Captures `size` bytes at `at`, all that is wanted of a call, in one record. False when they are more than
/// [`AT_ONCE`] or cannot be read at once: then step by step.
#[inline(always)]
pub fn capture_at_once<R: Carrier, S: Source<R>>(
    source: &S,
    at: u64,
    size: u64,
    bits: u16,
) -> bool {
    if size <= PEEK as u64 {
        whole::<R, S, PEEK>(source, at, size, bits)
    } else if size <= SMALL as u64 {
        whole::<R, S, SMALL>(source, at, size, bits)
    } else if size <= MIDDLE as u64 {
        whole::<R, S, MIDDLE>(source, at, size, bits)
    } else if size <= PAGE_FULL as u64 {
        whole::<R, S, PAGE_FULL>(source, at, size, bits)
    } else {
        false
    }
}

#[inline(always)]
fn whole<R: Carrier, S: Source<R>, const N: usize>(
    source: &S,
    at: u64,
    size: u64,
    bits: u16,
) -> bool {
    let Some(counters) = Counters::get() else {
        return true;
    };
    let Some(mut slot) = counters.reserve::<Slot<R, N>>(R::KIND) else {
        return true;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot with N bytes of data; a Carrier begins with a Header.
    unsafe {
        let data = (&raw mut (*record).data).cast::<u8>();
        zero::<N>(data);
        if !copy_user::<N>(data, at, size) {
            slot.discard(BPF_RB_NO_WAKEUP as u64);
            return false;
        }
        source.fill(&raw mut (*record).record);
        R::describe(&raw mut (*record).record, 0, size as u32);
        let head = (&raw mut (*record).record).cast::<Header>();
        counters.seal(head, R::KIND, size_of::<R>() as u32 + size as u32, bits);
    }
    slot.submit(wake(Wake::Now));
    true
}

/// A record of a send whose bytes are no user memory.
#[inline(always)]
pub fn without_data<S: Source<SockSend>>(source: &S, bits: u16) {
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<SockSend>(Kind::SOCK_SEND) else {
        return;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot.
    unsafe {
        source.fill(record);
        SockSend::describe(record, 0, 0);
        let head = &raw mut (*record).header;
        counters.seal(
            head,
            Kind::SOCK_SEND,
            size_of::<SockSend>() as u32,
            bits | flags::UNREADABLE,
        );
    }
    slot.submit(wake(Wake::Now));
}

/// A record of the send that `MESSAGES` has for a thread, whose bytes nobody can inspect.
#[inline(always)]
pub fn message_without_data(template: *const MessageSend, kind: u16, bits: u16) {
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<MessageSend>(kind) else {
        return;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot, `template` a live map value.
    unsafe {
        copy(record, template);
        MessageSend::describe(record, 0, 0);
        let head = &raw mut (*record).header;
        let len = size_of::<MessageSend>() as u32;
        counters.seal(head, kind, len, bits | flags::UNREADABLE);
    }
    slot.submit(wake(Wake::Now));
}
