//! Copies what a process is about to send into the ring, in the smallest slots that fit.

use crate::record::{Slot, Wake, copy_user, pointer, reserve, seal, wake, zero};
use keytrail_abi::{Header, PAYLOAD_TIERS, SockSend, TLS_RECORD_PEEK, TlsWrite, header::flags};

const PAGE: u64 = 4096;
/// Slots of records that carry next to nothing: the first bytes of a TLS record.
const PEEK: usize = if TLS_RECORD_PEEK <= 32 { 32 } else { TLS_RECORD_PEEK };
const SMALL: usize = PAYLOAD_TIERS[0];
const MIDDLE: usize = PAYLOAD_TIERS[1];
const LARGE: usize = PAYLOAD_TIERS[2];

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
    const KIND: u16 = keytrail_abi::Kind::SOCK_SEND;
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
    const KIND: u16 = keytrail_abi::Kind::TLS_WRITE;
    #[inline(always)]
    unsafe fn describe(this: *mut Self, offset: u32, data_len: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            (*this).offset = offset;
            (*this).data_len = data_len;
        }
    }
}

/// Where a capture stands.
pub struct Capture {
    /// Flags every record of this call carries.
    pub bits: u16,
    /// Bytes of the call captured or passed over so far.
    pub offset: u64,
    /// Bytes of the call that are wanted.
    pub limit: u64,
    /// Bytes of the call in all.
    pub total: u64,
    /// A read failed: go on page by page, so that a missing page costs that page only.
    pub by_page: bool,
}

impl Capture {
    /// Captures the next piece of what lies at `source`, at most `size` bytes; returns how far it came.
    #[inline(always)]
    pub fn step<R: Carrier>(&mut self, template: &R, source: u64, size: u64) -> u64 {
        let mut size = if size > LARGE as u64 { LARGE as u64 } else { size };
        if self.by_page {
            let to_page_end = PAGE - (source & (PAGE - 1));
            if size > to_page_end {
                size = to_page_end;
            }
        }
        let left = self.limit - self.offset;
        if size > left {
            size = left;
        }
        let done = if size <= PEEK as u64 {
            self.emit::<R, PEEK>(template, source, size)
        } else if size <= SMALL as u64 {
            self.emit::<R, SMALL>(template, source, size)
        } else if size <= MIDDLE as u64 {
            self.emit::<R, MIDDLE>(template, source, size)
        } else {
            self.emit::<R, LARGE>(template, source, size)
        };
        if !done {
            self.by_page = true;
            return 0;
        }
        self.offset += size;
        size
    }

    /// One record. False when it should be tried again page by page.
    #[inline(always)]
    pub fn emit<R: Carrier, const N: usize>(&self, template: &R, source: u64, size: u64) -> bool {
        let Some(mut slot) = reserve::<Slot<R, N>>(R::KIND) else {
            // Counted; what follows may find room again.
            return true;
        };
        let record = pointer(&mut slot);
        let mut bits = self.bits;
        if self.offset != 0 {
            bits |= flags::CONTINUED;
        }
        if self.offset + size == self.limit && self.limit < self.total {
            bits |= flags::TRUNCATED;
        }
        // SAFETY: `record` is the reserved slot with N bytes of data; a Carrier begins with a Header.
        unsafe {
            let data = (&raw mut (*record).data).cast::<u8>();
            zero::<N>(data);
            let mut kept = size as u32;
            if size != 0 && !copy_user::<N>(data, source, size as u32) {
                if size > PAGE - (source & (PAGE - 1)) {
                    slot.discard(wake(Wake::Later));
                    return false;
                }
                bits |= flags::UNREADABLE;
                kept = 0;
            }
            (*record).record = *template;
            R::describe(&raw mut (*record).record, self.offset as u32, kept);
            let head = (&raw mut (*record).record).cast::<Header>();
            seal(head, R::KIND, size_of::<R>() as u32 + kept, bits);
        }
        slot.submit(wake(Wake::Now));
        true
    }
}
