//! fanotify marks on the watched inodes: opens, and reads on file systems whose reads no tracepoint shows (tmpfs,
//! direct I/O, FUSE, the upper side of an overlay). Nothing else on the host pays.
//!
//! Notification only: a permission mark would let the agent stall a workload.

use super::{proc::Identity, reach::Reached};
use keytrail_abi::{FileAccess, FileId, Header, Kind, access};
use keytrail_host::clock::boot_ns;
use keytrail_host::fanotify::{change_mark, group};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const EVENT: usize = size_of::<libc::fanotify_event_metadata>();
const MASK: u64 = libc::FAN_OPEN | libc::FAN_ACCESS;

/// One event: who touched which inode, and how.
pub struct Touch {
    pub pid: u32,
    pub opened: bool,
    pub read: bool,
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub ctime_ns: u64,
}

pub struct Fanotify {
    group: OwnedFd,
}

impl Fanotify {
    /// # Errors
    /// When the kernel has no fanotify, or does not let us (CAP_SYS_ADMIN).
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS;
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOATIME | libc::O_LARGEFILE;
        let group = group(flags, files)?;
        Ok(Self { group })
    }

    /// The same group once more.
    ///
    /// # Errors
    /// Without a descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            group: self.group.try_clone()?,
        })
    }

    /// # Errors
    /// ENOSPC when the number of marks is exhausted.
    pub fn mark(&self, file: &Reached) -> io::Result<()> {
        change_mark(&self.group, libc::FAN_MARK_ADD, MASK, &file.way())
    }

    /// # Errors
    /// ENOENT when its mark is gone; the mark goes with its inode.
    pub fn unmark(&self, file: &Reached) -> io::Result<()> {
        change_mark(&self.group, libc::FAN_MARK_REMOVE, MASK, &file.way())
    }

    /// Hands out what is queued, until nothing is. Returns how many events the kernel had to drop (0 or 1: it does
    /// not count).
    pub fn drain(&self, sink: &mut dyn FnMut(Touch)) -> usize {
        let mut overflows = 0;
        let mut buffer = [MaybeUninit::<libc::fanotify_event_metadata>::uninit(); 64];
        // A queue that fills faster than it is read must not keep the ring waiting for ever.
        for _ in 0..1024 {
            // SAFETY: the buffer has that many bytes; its element type gives it the alignment of the metadata.
            let read = unsafe {
                libc::read(
                    self.group.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    size_of_val(&buffer),
                )
            };
            let Ok(read) = usize::try_from(read) else {
                // Nothing left, or an event that could not be delivered (no descriptor, no memory) and is gone.
                match std::io::Error::last_os_error().kind() {
                    std::io::ErrorKind::WouldBlock => break,
                    std::io::ErrorKind::Interrupted => continue,
                    _ => {
                        overflows += 1;
                        break;
                    }
                }
            };
            // Without extra information records every event is exactly one metadata.
            for event in buffer.iter().take(read / EVENT) {
                // SAFETY: the kernel has filled this many elements; all bit patterns are valid.
                let event = unsafe { event.assume_init() };
                if event.event_len as usize != EVENT
                    || event.vers != libc::FANOTIFY_METADATA_VERSION
                {
                    // A kernel that sends something longer to a group that did not ask for it does not exist.
                    return overflows;
                }
                if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                    overflows += 1;
                }
                if event.fd < 0 {
                    continue;
                }
                // SAFETY: the kernel made this descriptor for us.
                let file = unsafe { OwnedFd::from_raw_fd(event.fd) };
                let Ok(stat) = rustix::fs::fstat(&file) else {
                    continue;
                };
                sink(Touch {
                    pid: u32::try_from(event.pid).unwrap_or(0),
                    opened: event.mask & libc::FAN_OPEN != 0,
                    read: event.mask & libc::FAN_ACCESS != 0,
                    device: stat.st_dev,
                    inode: stat.st_ino,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    ctime_ns: (stat.st_ctime as u64)
                        .wrapping_mul(1_000_000_000)
                        .wrapping_add(stat.st_ctime_nsec),
                });
            }
            if read == 0 {
                break;
            }
        }
        overflows
    }
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The record the kernel side would have made. What is not known of a process that is gone is zero.
pub fn record(touch: &Touch, file: FileId, how: u32, who: Option<Identity>) -> FileAccess {
    let who = who.unwrap_or_default();
    FileAccess {
        header: Header {
            kind: if how == access::OPEN {
                Kind::FILE_OPEN
            } else {
                Kind::FILE_READ
            },
            flags: 0,
            len: size_of::<FileAccess>() as u32,
            boot_ns: boot_ns(),
            cpu_seq: 0,
            start_ns: who.start_ticks.saturating_mul(keytrail_model::TICK_NS),
            cgroup_id: 0,
            tgid: touch.pid,
            tid: touch.pid,
            // Not made on a CPU: no part of any CPU's sequence.
            cpu: u32::MAX,
            uid: who.uid,
            euid: who.euid,
            gid: who.gid,
            comm: who.comm,
        },
        file,
        size: touch.size,
        ctime_ns: touch.ctime_ns,
        access: how,
        count: 1,
    }
}

/// A record as bytes.
pub fn bytes(record: &FileAccess) -> &[u8] {
    // SAFETY: repr(C) of integers whose size is asserted to have no padding.
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<FileAccess>())
    }
}
