//! Opens one regular file and decides, by its first bytes, how much of it is worth reading.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::CStr;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes that decide what a file is.
const PEEK: usize = 4 * 1024;
/// Largest file that is read whole.
pub const MAX_WHOLE: usize = 8 * 1024 * 1024;
/// What is read of a larger one.
const HEAD: usize = 1024 * 1024;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Empty,
    Text,
    /// UTF-16 with a byte order mark; true: little-endian.
    Utf16(bool),
    /// A binary format that holds credentials.
    Store,
    /// A format that never does, or only inside an archive.
    Harmless,
    /// Binary, of no format known here.
    Opaque,
}

/// Decides by magic bytes, then by the presence of NUL.
#[must_use]
pub fn form(head: &[u8]) -> Form {
    if head.is_empty() {
        return Form::Empty;
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Form::Utf16(head.starts_with(&[0xff, 0xfe]));
    }
    if HARMLESS.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
    {
        return Form::Harmless;
    }
    if STORES.iter().any(|magic| head.starts_with(magic)) || der_key(head) {
        return Form::Store;
    }
    if memchr::memchr(0, head).is_some() {
        Form::Opaque
    } else {
        Form::Text
    }
}

/// Keytab 1 and 2, credential caches 1 to 4, JKS, JCEKS, SQLite 3, GnuPG private key, MySQL login path (4 zero bytes and a key are no
/// magic: found by name).
const STORES: &[&[u8]] = &[
    b"\x05\x01",
    b"\x05\x02",
    b"\x05\x03",
    b"\x05\x04",
    b"\xfe\xed\xfe\xed",
    b"\xce\xce\xce\xce",
    b"SQLite format 3\0",
    b"(11:private-key",
    b"(21:protected-private-key",
    b"(20:shadowed-private-key",
];

/// Programs, pictures, sound, fonts, compiled code, archives and compressed data, packs.
const HARMLESS: &[&[u8]] = &[
    b"\x7fELF",
    b"MZ",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"\x00\x01\x00\x00\x00",
    b"OTTO",
    b"wOFF",
    b"wOF2",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"7z\xbc\xaf",
    b"\x04\x22\x4d\x18",
    b"!<arch>\n",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"\0asm",
    b"PACK",
    b"\xfftOc",
    b"DIRC",
    b"%PDF",
    b"\xed\xab\xee\xdb",
    b"070701",
    b"\xde\x12\x04\x95",
    b"\x95\x04\x12\xde",
    b"BC\xc0\xde",
    b"hsqs",
    b"LUKS\xba\xbe",
    b"rust\0\0\0",
];

/// DER of a PKCS#1, SEC1, PKCS#8 or PKCS#12 private key: SEQUENCE { INTEGER 0, 1 or 3, ...}.
fn der_key(head: &[u8]) -> bool {
    let body = match head {
        [0x30, 0x82, _, _, body @ ..] | [0x30, 0x81, _, body @ ..] | [0x30, 0x80, body @ ..] => {
            body
        }
        [0x30, 0x20..=0x7f, body @ ..] => body,
        _ => return false,
    };
    matches!(body, [0x02, 0x01, 0x00 | 0x01 | 0x03, ..])
}

/// What was read of a file; the bytes are in the buffer.
#[derive(Debug)]
pub struct Looked {
    pub stat: Stat,
    /// Bytes of the buffer that count.
    pub len: usize,
    /// There is more than was read.
    pub sampled: bool,
    /// It was written to while it was read, twice.
    pub changed: bool,
    pub form: Form,
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
            bytes.zeroize();
        }
        self.used = 0;
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

    /// Reads from the file's offset `self.used` until `want` bytes are there or the file ends; true when it ended.
    fn fill(&mut self, fd: &OwnedFd, want: usize) -> rustix::io::Result<bool> {
        self.room(want);
        while self.used < want {
            let Some(free) = self.bytes.get_mut(self.used..want) else {
                break;
            };
            match rustix::io::pread(fd, free, self.used as u64) {
                Ok(0) => return Ok(true),
                Ok(n) => self.used += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
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
pub fn look(
    dir: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut Buffer,
    wanted: impl FnOnce() -> bool,
) -> rustix::io::Result<Option<Looked>> {
    buffer.wipe();
    let fd = open(dir, name)?;
    let ended = match buffer.fill(&fd, PEEK) {
        // It was exchanged for a directory, or for a FIFO nobody writes to, since its entry was read.
        Err(Errno::ISDIR | Errno::AGAIN | Errno::SPIPE) => return Ok(None),
        other => other?,
    };
    let form = form(buffer.used());
    match form {
        Form::Empty | Form::Harmless => return Ok(None),
        Form::Opaque if !wanted() => return Ok(None),
        _ => {}
    }
    let mut stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut looked = Looked {
        stat,
        len: buffer.used,
        sampled: false,
        changed: false,
        form,
    };
    if ended {
        return Ok(Some(looked));
    }
    for attempt in 0..2 {
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        looked.sampled = size > MAX_WHOLE;
        // One byte more than it had tells a file that grew.
        let want = if looked.sampled {
            HEAD
        } else {
            size.max(PEEK) + 1
        };
        buffer.fill(&fd, want)?;
        let after = rustix::fs::fstat(&fd)?;
        let same = (after.st_size, after.st_mtime, after.st_mtime_nsec)
            == (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        stat = after;
        looked.changed = !same;
        // A growing log is as good as read; only what was read whole can have changed under us.
        if same || looked.sampled || attempt == 1 {
            break;
        }
        buffer.wipe();
        buffer.fill(&fd, PEEK)?;
    }
    buffer.used = buffer.used.min(MAX_WHOLE);
    looked.stat = stat;
    looked.len = buffer.used;
    Ok(Some(looked))
}

/// UTF-16 to UTF-8; what is not a character becomes U+FFFD.
#[must_use]
pub fn from_utf16(bytes: &[u8], little: bool) -> Zeroizing<Vec<u8>> {
    let units = bytes.chunks_exact(2).skip(1).filter_map(|pair| {
        let pair = <[u8; 2]>::try_from(pair).ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    });
    // Two bytes become three at most: taken once, growing would leave copies.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() / 2 * 3 + 4));
    for c in char::decode_utf16(units) {
        out.extend_from_slice(
            c.unwrap_or(char::REPLACEMENT_CHARACTER)
                .encode_utf8(&mut [0; 4])
                .as_bytes(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::CString;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    fn looked(
        dir: &std::path::Path,
        name: &str,
        buffer: &mut Buffer,
        wanted: bool,
    ) -> Option<Looked> {
        let fd = std::fs::File::open(dir).unwrap();
        look(fd.as_fd(), &CString::new(name).unwrap(), buffer, || wanted).unwrap()
    }

    #[test]
    fn forms() {
        assert_eq!(form(b""), Form::Empty);
        assert_eq!(form(b"key = value\n"), Form::Text);
        assert_eq!(form(b"\x7fELF\x02"), Form::Harmless);
        assert_eq!(form(b"\x05\x02\0\0\0"), Form::Store);
        assert_eq!(form(b"SQLite format 3\0\x10"), Form::Store);
        assert_eq!(form(&[0x30, 0x82, 4, 0xa3, 2, 1, 0, 2]), Form::Store);
        // A certificate: neither a key nor known by name.
        assert_eq!(form(&[0x30, 0x82, 4, 0xa3, 0x30, 0x82, 3, 0]), Form::Opaque);
        assert_eq!(form(b"ab\0"), Form::Opaque);
        assert_eq!(form(b"\xff\xfea\0"), Form::Utf16(true));
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
        assert!(looked(dir.path(), "bin", &mut buffer, false).is_none());
        assert!(buffer.used <= PEEK);
        let whole = looked(dir.path(), "bin", &mut buffer, true).unwrap();
        assert_eq!((whole.len, whole.sampled), (100_003, false));
        let text = looked(dir.path(), "text", &mut buffer, false).unwrap();
        assert_eq!(
            (text.len, text.sampled, text.form),
            (100_000, false, Form::Text)
        );
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
        let large = looked(dir.path(), "large", &mut buffer, false).unwrap();
        assert!(large.sampled && large.len == HEAD && buffer.bytes.len() < 2 * HEAD);
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
            look(fd.as_fd(), c"link", &mut buffer, || true).unwrap_err(),
            Errno::LOOP
        );
        // Even when one is opened after an exchange, it does not block.
        assert!(looked(dir.path(), "fifo", &mut buffer, true).is_none_or(|l| l.len == 0));
    }

    proptest! {
        #[test]
        fn utf16_round_trip(text in "\\PC{0,40}") {
            let little: Vec<u8> = [0xfeffu16].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            prop_assert_eq!(&**from_utf16(&little, true), text.as_bytes());
        }

        #[test]
        fn any_head(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = form(&head);
            let out = from_utf16(&head, head.len() % 2 == 0);
            prop_assert!(out.len() <= head.len() / 2 * 3 + 4);
        }
    }
}
