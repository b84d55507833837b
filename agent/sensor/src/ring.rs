//! Consumer of the ring buffer.
//!
//! Its own and not aya's, because the sensor must stop at a position it has seen before (so that fanotify's events
//! come first) and must know positions in order to overwrite all that was consumed.
//!
//! Layout (kernel/bpf/ringbuf.c): one page with the consumer position, writable; one page with the producer position,
//! then the data twice in a row, read-only.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Ring of programs, their ends, reads of watched files, and connections.
pub const MAIN: usize = 0;

/// Ring of what is sent.
pub const PAYLOADS: usize = 1;

pub const COUNT: usize = 3;

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: u64 = 8;

struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, offset: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: a new mapping at a place of the kernel's choosing; the result is checked.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { at, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` with this length and nothing borrows from it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Where a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it was to end.
    Reached,
    /// After as many bytes as were wanted.
    Full,
    /// At a record that is being written.
    Busy,
}

#[derive(Clone, Copy, Debug)]
pub struct Scan {
    pub position: u64,
    pub end: End,
}

pub struct Ring {
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    /// Bytes of the data area, a power of two.
    size: u64,
    position: u64,
}

// SAFETY: the mappings belong to this value alone; positions shared with the kernel are accessed atomically.
unsafe impl Send for Ring {}

impl Ring {
    /// # Errors
    /// When the map cannot be mapped.
    pub fn new(fd: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        // SAFETY: no pointers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let consumer = Mapping::new(fd, page, 0, true)?;
        let producer = Mapping::new(fd, page + 2 * size as usize, page, false)?;
        let mut ring = Self {
            consumer,
            producer,
            page,
            size: u64::from(size),
            position: 0,
        };
        ring.position = ring.consumer_position().load(Ordering::Acquire);
        Ok(ring)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page begins with the 8-byte consumer position and lives as long as self.
        unsafe { self.consumer.at.cast().as_ref() }
    }

    /// Up to where the kernel has reserved.
    pub fn produced(&self) -> u64 {
        // SAFETY: the page begins with the 8-byte producer position and lives as long as self.
        let position: &AtomicU64 = unsafe { self.producer.at.cast().as_ref() };
        position.load(Ordering::Acquire)
    }

    /// Up to where room was given back.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that were reserved and not handed out yet.
    pub fn unread(&self) -> u64 {
        self.produced() - self.position
    }

    /// Bytes of the data area.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Shows the records below `until`, but not much more than `most` bytes of them; stops early at one that is still being written.
    /// They are given back by [`Self::consume`] alone.
    pub fn scan(&self, until: u64, most: u64, show: &mut dyn FnMut(u64, &[u8])) -> Scan {
        let mut position = self.position;
        let mut shown = 0;
        let end = loop {
            if position >= until {
                break End::Reached;
            }
            if shown >= most {
                break End::Full;
            }
            let start = self.start(position);
            // SAFETY: `start` is below page + size and 8-byte aligned; the data area is mapped twice, so a header and
            // any record of up to `size` bytes behind it lie within the mapping.
            let head: &AtomicU32 = unsafe { self.producer.at.add(start).cast().as_ref() };
            let head = head.load(Ordering::Acquire);
            if head & BUSY != 0 {
                break End::Busy;
            }
            let len = u64::from(head & !(BUSY | DISCARD));
            if len + HEADER > self.size {
                // Cannot be: the kernel writes these pages. Give up the rest rather than read beyond them.
                position = until;
                break End::Reached;
            }
            if head & DISCARD == 0 {
                show(position, self.record(position, len as usize));
                shown += HEADER + len;
            }
            position += (HEADER + len).next_multiple_of(8);
        };
        Scan { position, end }
    }

    /// A record that a scan has shown and that was not given back.
    pub fn record(&self, position: u64, len: usize) -> &[u8] {
        let start = self.start(position) + HEADER as usize;
        let len = len.min((self.size - HEADER) as usize);
        // SAFETY: `start` is at most page + size + 8, and behind it lie at least `size` - 8 bytes of the second mapping;
        // a record is at most `size` - 8 long, as its header is in the ring as well. The kernel does not touch a
        // committed record before it is given back.
        unsafe { std::slice::from_raw_parts(self.producer.at.add(start).as_ptr(), len) }
    }

    /// Where the record's header lies in the mapping.
    fn start(&self, position: u64) -> usize {
        self.page + (position & (self.size - 1)) as usize
    }

    /// Gives back the room below a position.
    pub fn consume(&mut self, position: u64) {
        if position != self.position {
            self.position = position;
            self.publish();
        }
    }

    fn publish(&self) {
        self.consumer_position()
            .store(self.position, Ordering::Release);
    }

    /// The data area as it is now, for tests that look for what must not be there.
    pub fn data(&self) -> Vec<u8> {
        (0..self.size as usize)
            // SAFETY: within the first copy of the data area.
            .map(|at| unsafe {
                self.producer
                    .at
                    .add(self.page + at)
                    .as_ptr()
                    .read_volatile()
            })
            .collect()
    }
}
