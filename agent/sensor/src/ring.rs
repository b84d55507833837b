//! Consumer of the ring buffer.
//!
//! Its own and not aya's, because the sensor must stop at a position it has seen before (so that fanotify's events
//! come first) and must know positions in order to overwrite all that was consumed.
//!
//! Layout (kernel/bpf/ringbuf.c): one page with the consumer position, writable; one page with the producer position,
//! then the data twice in a row, read-only. Of the data only a window is mapped, around what is being read: a mapping of
//! all of it would count twice as memory of this process, whatever is in it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd},
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

/// Smallest window, bytes: on a quiet host it moves once in some hundred records.
const WINDOW: u64 = 256 << 10;

struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

/// The part of the data that is mapped.
struct Window {
    mapping: Mapping,
    /// Position of its first byte.
    from: u64,
}

impl Window {
    fn covers(&self, from: u64, to: u64) -> bool {
        self.from <= from && to <= self.from + self.mapping.len as u64
    }

    /// What lies at a position.
    ///
    /// # Panics
    /// When `len` bytes from there on are not in the window.
    fn at(&self, position: u64, len: u64) -> NonNull<u8> {
        assert!(self.covers(position, position + len), "outside the window");
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.mapping.at.add((position - self.from) as usize) }
    }
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
    fd: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    window: Option<Window>,
    page: u64,
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
        let page = rustix::param::page_size();
        let consumer = Mapping::new(fd, page, 0, true)?;
        let producer = Mapping::new(fd, page, page, false)?;
        let mut ring = Self {
            fd: fd.try_clone_to_owned()?,
            consumer,
            producer,
            window: None,
            page: page as u64,
            size: u64::from(size),
            position: 0,
        };
        ring.position = ring.consumer_position().load(Ordering::Acquire);
        // A map that cannot be mapped is an error at the start, not at the first record.
        ring.open_window(ring.position, ring.position)?;
        Ok(ring)
    }

    /// Has the data from position `from` up to `to` mapped, and what is mapped already stay if that suffices. They lie in one ring
    /// together: `to` is no more than its size behind `from`.
    fn open_window(&mut self, from: u64, to: u64) -> io::Result<&Window> {
        let open = self
            .window
            .as_ref()
            .is_some_and(|window| window.covers(from, to));
        if !open {
            // The one before is given back behind it: if there is no new one, what was shown is there still.
            let from = from & !(self.page - 1);
            // From the first copy of the data into the second at most: `from` is in a page of the first.
            let most = self.size + self.page;
            // Twice as much: while a scan goes on it moves a few times and not with each record.
            let len = (2 * (to - from))
                .max(WINDOW)
                .next_multiple_of(self.page)
                .min(most);
            let offset = 2 * self.page + (from & (self.size - 1));
            let mapping = Mapping::new(self.fd.as_fd(), len as usize, offset as usize, false)?;
            self.window = Some(Window { mapping, from });
        }
        self.window
            .as_ref()
            .ok_or_else(|| io::Error::other("no window"))
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

    /// Bytes of the data that are mapped now.
    pub fn mapped(&self) -> u64 {
        self.window
            .as_ref()
            .map_or(0, |window| window.mapping.len as u64)
    }

    /// Shows the records below `until`, but not much more than `most` bytes of them; stops early at one that is still being written.
    /// They are given back by [`Self::consume`] alone.
    pub fn scan(&mut self, until: u64, most: u64, show: &mut dyn FnMut(u64, &[u8])) -> Scan {
        let mut position = self.position;
        if until > position
            && let Err(error) =
                self.open_window(position, until.min(position + most.min(self.size)))
        {
            let end = Self::unmapped(&error);
            return Scan { position, end };
        }
        // Where the first record that was shown lies: from there on all is kept mapped.
        let mut first = None;
        let mut shown = 0;
        let end = loop {
            if position >= until {
                break End::Reached;
            }
            if shown >= most {
                break End::Full;
            }
            let head = match self.open_window(first.unwrap_or(position), position + HEADER) {
                Ok(window) => {
                    // SAFETY: eight mapped bytes, aligned to eight as all records are.
                    let head: &AtomicU32 = unsafe { window.at(position, HEADER).cast().as_ref() };
                    head.load(Ordering::Acquire)
                }
                Err(error) => break Self::unmapped(&error),
            };
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
                let from = *first.get_or_insert(position);
                if let Err(error) = self.open_window(from, position + HEADER + len) {
                    break Self::unmapped(&error);
                }
                show(position, self.record(position, len as usize));
                shown += HEADER + len;
            }
            position += (HEADER + len).next_multiple_of(8);
        };
        Scan { position, end }
    }

    /// Records that cannot be mapped wait; what then finds no room is counted by the kernel side.
    fn unmapped(error: &io::Error) -> End {
        tracing::error!(%error, "a part of the ring could not be mapped");
        End::Busy
    }

    /// A record that the last scan has shown and that was not given back.
    pub fn record(&self, position: u64, len: usize) -> &[u8] {
        let Some(window) = &self.window else {
            return &[];
        };
        let at = window.at(position + HEADER, len as u64);
        // SAFETY: `at` has checked that these bytes are mapped; the window stays while self is borrowed, and the kernel does not
        // touch a committed record before it is given back.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
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
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn data(&self) -> io::Result<Vec<u8>> {
        let offset = 2 * self.page as usize;
        let all = Mapping::new(self.fd.as_fd(), self.size as usize, offset, false)?;
        Ok((0..self.size as usize)
            // SAFETY: within the mapping that was just made.
            .map(|at| unsafe { all.at.add(at).as_ptr().read_volatile() })
            .collect())
    }
}
