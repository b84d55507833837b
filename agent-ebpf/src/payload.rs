//! Copies what a process is about to send into the ring, in the smallest slots that fit.
//!
//! A piece is emitted by a function of global linkage, which the verifier checks once and by itself. Checked in
//! place, in a loop over segments with a choice of four slots, it took more steps than the kernel allows. Such a
//! function takes numbers only, so what all records of a call share lies in a map under the thread's id.

use crate::{
    maps::{SENDS, TLS_CALLS},
    record::{Counters, Slot, Wake, copy, copy_user, forget, nonzero, pointer, wake, zero},
};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use keytrail_abi::{
    Header, Kind, PAYLOAD_TIERS, SockSend, TLS_RECORD_PEEK, TlsWrite, header::flags,
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
const LARGE: usize = PAYLOAD_TIERS[2];

/// Bit above the record flags in a piece's options: do not ask for another try when the read fails.
pub const FINAL: u64 = 1 << 16;

/// A record that carries payload.
pub trait Carrier: Copy + 'static {
    const KIND: u16;
    /// Sets offset and length of the data that follows.
    ///
    /// # Safety
    /// `this` must be valid for writes.
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32);
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

/// Emits a piece of the send that `SENDS` has for the thread. 0: the read failed, try page by page.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_piece(
    thread: u64,
    source: u64,
    size: u64,
    offset: u64,
    options: u64,
) -> u64 {
    let Some(state) = SENDS.get_ptr(&thread) else {
        return 1;
    };
    // SAFETY: a live map value.
    piece(
        unsafe { &raw const (*state).record },
        source,
        size,
        offset,
        options,
    )
}

/// Emits a piece of the TLS call that `TLS_CALLS` has for the thread. 0: the read failed, try page by page.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_piece(thread: u64, source: u64, size: u64, offset: u64, options: u64) -> u64 {
    let Some(state) = TLS_CALLS.get_ptr(&thread) else {
        return 1;
    };
    // SAFETY: a live map value.
    piece(
        unsafe { &raw const (*state).record },
        source,
        size,
        offset,
        options,
    )
}

#[inline(always)]
fn piece<R: Carrier>(template: *const R, source: u64, size: u64, offset: u64, options: u64) -> u64 {
    if size <= PEEK as u64 {
        emit::<R, PEEK>(template, source, size, offset, options)
    } else if size <= SMALL as u64 {
        emit::<R, SMALL>(template, source, size, offset, options)
    } else if size <= MIDDLE as u64 {
        emit::<R, MIDDLE>(template, source, size, offset, options)
    } else {
        emit::<R, LARGE>(template, source, size, offset, options)
    }
}

#[inline(always)]
fn emit<R: Carrier, const N: usize>(
    template: *const R,
    source: u64,
    size: u64,
    offset: u64,
    options: u64,
) -> u64 {
    let Some(counters) = Counters::get() else {
        return 1;
    };
    let Some(mut slot) = counters.reserve::<Slot<R, N>>(R::KIND) else {
        // Counted; what follows may find room again.
        return 1;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot with N bytes of data, `template` a live map value; a Carrier begins with
    // a Header.
    unsafe {
        let data = (&raw mut (*record).data).cast::<u8>();
        zero::<N>(data);
        let failed = copy_user::<N>(data, source, size);
        if failed != 0 && options & FINAL == 0 {
            slot.discard(BPF_RB_NO_WAKEUP as u64);
            return 0;
        }
        let kept = (size & failed.wrapping_sub(1)) as u32;
        let bits = options as u16 | (failed as u16 * flags::UNREADABLE);
        copy(&raw mut (*record).record, template);
        R::describe(&raw mut (*record).record, offset as u32, kept);
        let head = (&raw mut (*record).record).cast::<Header>();
        counters.seal(head, R::KIND, size_of::<R>() as u32 + kept, bits);
    }
    slot.submit(wake(Wake::Now));
    1
}

/// Where a capture stands.
pub struct Capture {
    /// The thread's id.
    pub thread: u64,
    /// Flags every record of this call carries.
    pub bits: u64,
    /// TRUNCATED when less is wanted than there is, else 0.
    pub cut: u64,
    /// FINAL after a read has failed: go on page by page, so that a missing page costs that page only.
    pub by_page: u64,
    /// Bytes of the call captured or passed over so far.
    pub offset: u64,
    /// Bytes of the call that are wanted.
    pub limit: u64,
}

impl Capture {
    #[inline(always)]
    pub fn new(thread: u64, bits: u16, limit: u64, total: u64) -> Self {
        let cut = nonzero(total - limit) * flags::TRUNCATED as u64;
        Self {
            thread,
            bits: bits as u64,
            cut,
            by_page: 0,
            offset: 0,
            limit,
        }
    }

    /// Captures the next piece of the `size` bytes at `source` with one of the two functions above; returns how far
    /// it came.
    #[inline(always)]
    pub fn step(
        &mut self,
        emit: extern "C" fn(u64, u64, u64, u64, u64) -> u64,
        source: u64,
        size: u64,
    ) -> u64 {
        let mut most = LARGE as u64;
        if self.by_page != 0 {
            most = PAGE - (source & (PAGE - 1));
        }
        let left = self.limit - self.offset;
        let mut size = size;
        if size > left {
            size = left;
        }
        if size > most {
            size = most;
        }
        // Flags without branches: see `nonzero`.
        let continued = nonzero(self.offset) * flags::CONTINUED as u64;
        let ends = 1 - nonzero(left - size);
        let options = self.bits | continued | (ends * self.cut) | self.by_page;
        let done = emit(self.thread, source, size, self.offset, options);
        self.by_page |= (1 - nonzero(done)) * FINAL;
        size *= nonzero(done);
        self.offset += size;
        size
    }

    /// To be called at the end of every step of a loop: see `record::forget`.
    #[inline(always)]
    pub fn forget(&mut self, noise: u64) {
        self.offset = forget(self.offset, noise);
        self.limit = forget(self.limit, noise);
        self.by_page = forget(self.by_page, noise);
    }
}
