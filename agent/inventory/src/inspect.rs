//! Opens one regular file and decides, by its first bytes, how much of it is worth reading.

use keytrail_secret::form::{Form, LONG_RUN, form};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use zeroize::Zeroizing;

/// Bytes that decide what a file is.
const PEEK: usize = 4 * 1024;
/// Largest file that is read whole.
pub const MAX_WHOLE: usize = 8 * 1024 * 1024;
/// What is read of a larger one.
const HEAD: usize = 1024 * 1024;

/// What was read of a file; the bytes are in the buffer.
#[derive(Debug)]
pub struct Inspected {
    pub stat: Stat,
    /// Bytes of the buffer that count.
    pub len: usize,
    /// There is more than was read.
    pub sampled: bool,
    /// It was written to while it was read, twice.
    pub changed: bool,
}

/// Reused for every file of a thread: what was in it is wiped before the next one.
pub struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    used: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            bytes: Zeroizing::new(vec![0; 64 * 1024]),
            used: 0,
        }
    }
}

impl Buffer {
    #[must_use]
    pub fn used(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub fn wipe(&mut self) {
        let used = self.used.min(self.bytes.len());
        if let Some(bytes) = self.bytes.get_mut(..used) {
            // Not byte by byte, as `zeroize` does it: this runs for every file. The buffer lives on and is shown to
            // somebody the compiler does not know, so these stores stay.
            bytes.fill(0);
            std::hint::black_box(bytes);
        }
        self.used = 0;
    }

    /// Takes the long runs of zeroes out of a text, and those at its end; a line ends where one was.
    fn squeeze(&mut self) {
        let used = self.used.min(self.bytes.len());
        let Some(bytes) = self.bytes.get_mut(..used) else {
            return;
        };
        let Some(first) = memchr::memchr(0, bytes) else {
            return;
        };
        let (mut from, mut to) = (first, first);
        while from < used {
            let run = bytes
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|b| **b == 0)
                .count();
            let next = memchr::memchr(0, bytes.get(from + run..).unwrap_or_default())
                .map_or(used, |n| from + run + n);
            if run < LONG_RUN && from + run < used {
                bytes.copy_within(from..next, to);
                to += next - from;
            } else {
                if let Some(end) = bytes.get_mut(to) {
                    *end = b'\n';
                }
                bytes.copy_within(from + run..next, to + 1);
                to += 1 + next - (from + run);
            }
            from = next;
        }
        // What was moved stands twice; the later one is beyond what is wiped.
        if let Some(rest) = bytes.get_mut(to..) {
            rest.fill(0);
        }
        self.used = to;
    }

    /// Room for `len` bytes; what was read so far stays.
    fn room(&mut self, len: usize) {
        if self.bytes.len() < len {
            // Taken anew: growing in place would leave a copy behind.
            let mut larger = Zeroizing::new(vec![0; len]);
            if let (Some(to), Some(from)) =
                (larger.get_mut(..self.used), self.bytes.get(..self.used))
            {
                to.copy_from_slice(from);
            }
            self.bytes = larger;
        }
    }

    /// One read of up to `want` bytes from the file's beginning; a short one is the whole of most files.
    fn peek(&mut self, fd: &OwnedFd, want: usize) -> rustix::io::Result<()> {
        self.room(want);
        let Some(free) = self.bytes.get_mut(..want) else {
            return Ok(());
        };
        self.used = loop {
            match rustix::io::pread(fd, &mut *free, 0) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        Ok(())
    }

    /// Reads from the file's offset `self.used` until `want` bytes are there, or `size` (what the file is said to have),
    /// or the file ends.
    fn fill(&mut self, fd: &OwnedFd, want: usize, size: usize) -> rustix::io::Result<()> {
        self.room(want);
        while self.used < want && self.used != size {
            let Some(free) = self.bytes.get_mut(self.used..want) else {
                break;
            };
            match rustix::io::pread(fd, free, self.used as u64) {
                Ok(0) => break,
                Ok(n) => self.used += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Opens without following, blocking, becoming a terminal or touching the access time.
///
/// # Errors
/// What open(2) gives.
pub fn open(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // O_NOATIME is for the owner and root only.
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Reads what is worth it into `buffer`; `None` when nothing is. `wanted` is asked about binary files of no known
/// format (does a rule expect a credential under this name?).
///
/// # Errors
/// What open(2), fstat(2) and read(2) give.
pub fn inspect(
    dir: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut Buffer,
    wanted: impl FnOnce() -> bool,
) -> rustix::io::Result<Option<Inspected>> {
    buffer.wipe();
    let fd = open(dir, name)?;
    match buffer.peek(&fd, PEEK) {
        // It was exchanged for a directory, or for a FIFO nobody writes to, since its entry was read.
        Err(Errno::ISDIR | Errno::AGAIN | Errno::SPIPE) => return Ok(None),
        other => other?,
    }
    let mut what = form(buffer.used());
    match what {
        Form::Empty | Form::Harmless => return Ok(None),
        Form::Opaque if !wanted() => return Ok(None),
        _ => {}
    }
    let mut stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if buffer.used < PEEK && buffer.used != size {
        // A file system that gives less than it has, or does not say how much it has.
        buffer.fill(&fd, PEEK, size)?;
        what = form(buffer.used());
        if what == Form::Harmless {
            return Ok(None);
        }
    }
    let mut inspected = Inspected {
        stat,
        len: buffer.used,
        sampled: false,
        changed: false,
    };
    if buffer.used < PEEK {
        if what == Form::Text {
            buffer.squeeze();
            inspected.len = buffer.used;
        }
        return Ok(Some(inspected));
    }
    for attempt in 0..2 {
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        inspected.sampled = size > MAX_WHOLE;
        let want = if inspected.sampled {
            HEAD
        } else {
            size.max(PEEK)
        };
        buffer.fill(&fd, want, size)?;
        let after = rustix::fs::fstat(&fd)?;
        let same = (after.st_size, after.st_mtime, after.st_mtime_nsec)
            == (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        stat = after;
        inspected.changed = !same;
        // A growing log is as good as read; only what was read whole can have changed under us.
        if same || inspected.sampled || attempt == 1 {
            break;
        }
        buffer.wipe();
        buffer.peek(&fd, PEEK)?;
    }
    buffer.used = buffer.used.min(MAX_WHOLE);
    if what == Form::Text {
        buffer.squeeze();
    }
    inspected.stat = stat;
    inspected.len = buffer.used;
    Ok(Some(inspected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    fn inspected(
        dir: &std::path::Path,
        name: &str,
        buffer: &mut Buffer,
        wanted: bool,
    ) -> Option<Inspected> {
        let fd = std::fs::File::open(dir).unwrap();
        inspect(fd.as_fd(), &CString::new(name).unwrap(), buffer, || wanted).unwrap()
    }

    #[test]
    fn a_binary_is_dropped_after_its_head_and_text_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("bin"),
            [b"ab\0".as_slice(), &[1; 100_000]].concat(),
        )
        .unwrap();
        std::fs::write(dir.path().join("text"), "x".repeat(100_000)).unwrap();
        let mut buffer = Buffer::default();
        assert!(inspected(dir.path(), "bin", &mut buffer, false).is_none());
        assert!(buffer.used <= PEEK);
        let whole = inspected(dir.path(), "bin", &mut buffer, true).unwrap();
        assert_eq!((whole.len, whole.sampled), (100_003, false));
        let text = inspected(dir.path(), "text", &mut buffer, false).unwrap();
        assert_eq!((text.len, text.sampled), (100_000, false));
        assert!(buffer.used().iter().all(|b| *b == b'x'));
        buffer.wipe();
        assert!(buffer.bytes.iter().all(|b| *b == 0));
    }

    #[test]
    fn a_large_file_is_sampled() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(dir.path().join("large")).unwrap();
        file.write_all(b"text\n".repeat(1000).as_slice()).unwrap();
        file.set_len(1 << 30).unwrap();
        let mut buffer = Buffer::default();
        let large = inspected(dir.path(), "large", &mut buffer, false).unwrap();
        // The hole after the text is not handed on.
        assert!(large.sampled && large.len == 5001 && buffer.bytes.len() < 2 * HEAD);
        assert!(buffer.bytes[large.len..].iter().all(|b| *b == 0));
    }

    #[test]
    fn text_with_holes_is_text_and_the_holes_are_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut buffer = Buffer::default();
        for (zeroes, tail, want) in [
            (1, "", "a text of some length\n\n"),
            (5000, "", "a text of some length\n\n"),
            (5000, "more\0text", "a text of some length\n\nmore\0text"),
            (4 << 20, "more", "a text of some length\n\nmore"),
        ] {
            let text = [
                b"a text of some length\n".as_slice(),
                &vec![0; zeroes],
                tail.as_bytes(),
            ];
            std::fs::write(dir.path().join("holes"), text.concat()).unwrap();
            let found = inspected(dir.path(), "holes", &mut buffer, false).unwrap();
            assert!(!found.sampled);
            assert_eq!(buffer.used(), want.as_bytes());
            assert_eq!(found.len, want.len());
            buffer.wipe();
            assert!(buffer.bytes.iter().all(|b| *b == 0));
        }
        // Not even zeroes: a binary that begins with words.
        let binary = [b"a text of some length\n".as_slice(), &[0; 9], b"\x01"].concat();
        std::fs::write(dir.path().join("binary"), binary).unwrap();
        assert!(inspected(dir.path(), "binary", &mut buffer, false).is_none());
    }

    #[test]
    fn links_and_pipes_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let fifo = CString::new(dir.path().join("fifo").to_str().unwrap()).unwrap();
        // SAFETY: a NUL-terminated path that lives across the call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let fd = std::fs::File::open(dir.path()).unwrap();
        let mut buffer = Buffer::default();
        assert_eq!(
            inspect(fd.as_fd(), c"link", &mut buffer, || true).unwrap_err(),
            Errno::LOOP
        );
        // Even when one is opened after an exchange, it does not block.
        assert!(inspected(dir.path(), "fifo", &mut buffer, true).is_none_or(|l| l.len == 0));
    }
}
