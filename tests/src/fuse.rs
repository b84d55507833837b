//! A file system that this program answers for, with one file in it: what a network file system is to who walks it.
//!
//! The kernel's protocol of /dev/fuse (linux/fuse.h, version 7.31), as much of it as reading one directory needs.

use crate::command::act;
use std::{
    ffi::CString,
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Number of the only file; the root is 1.
const FILE: u64 = 2;
/// For how long the kernel may believe an answer, seconds.
const VALID: u64 = 3600;

/// A mounted file system; unmounted when dropped.
pub struct Fuse {
    point: PathBuf,
    server: Option<JoinHandle<()>>,
    released: Arc<AtomicBool>,
}

impl Fuse {
    /// Mounts it at `point`, with `content` in a file `name`, whose reads take so long. `None` where the kernel has no
    /// FUSE.
    pub fn mount(point: &Path, name: &str, content: &[u8], delay: Duration) -> Option<Self> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok()?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let strings = ["keytrail-test", "fuse", &options].map(|s| CString::new(s).unwrap());
        let target = CString::new(point.as_os_str().as_bytes()).unwrap();
        // SAFETY: four C strings that live through the call.
        let done = unsafe {
            libc::mount(
                strings[0].as_ptr(),
                target.as_ptr(),
                strings[1].as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                strings[2].as_ptr().cast(),
            )
        };
        assert_eq!(done, 0, "mount: {}", std::io::Error::last_os_error());
        let (name, content) = (name.as_bytes().to_vec(), content.to_vec());
        let released = Arc::new(AtomicBool::new(false));
        let wait = {
            let released = released.clone();
            move || {
                let began = Instant::now();
                while began.elapsed() < delay && !released.load(Ordering::Relaxed) {
                    std::thread::sleep(delay.min(Duration::from_millis(10)));
                }
            }
        };
        let server = std::thread::spawn(move || serve(device, &name, &content, &wait));
        Some(Self {
            point: point.to_owned(),
            server: Some(server),
            released,
        })
    }

    /// Whoever waits for an answer gets it now.
    pub fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.release();
        let done = act("umount").arg("-l").arg(&self.point).run();
        // Without the mount the device answers nobody any more.
        if done.status.success()
            && let Some(server) = self.server.take()
        {
            let _ = server.join();
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Answers until it is unmounted.
fn serve(mut device: File, name: &[u8], content: &[u8], wait: &dyn Fn()) {
    let mut buffer = vec![0; 1 << 17];
    while let Ok(length) = device.read(&mut buffer) {
        // struct fuse_in_header is 40 bytes: length, opcode, unique, nodeid, ...
        let (opcode, unique, node) = (half(&buffer, 4), number(&buffer, 8), number(&buffer, 16));
        let body = &buffer[40..length];
        // FORGET, BATCH_FORGET and INTERRUPT want no answer.
        if matches!(opcode, 2 | 42 | 36) {
            continue;
        }
        let answer = match opcode {
            // LOOKUP
            1 if body.strip_suffix(b"\0") == Some(name) => Ok(entry(content.len())),
            1 => Err(libc::ENOENT),
            // GETATTR
            3 => Ok([words(&[VALID, 0]), attributes(node, content.len())].concat()),
            // OPEN, OPENDIR
            14 | 27 => Ok(words(&[0, 0])),
            // READ
            15 => {
                wait();
                let from = usize::try_from(number(body, 8)).unwrap().min(content.len());
                let to = (from + half(body, 16) as usize).min(content.len());
                Ok(content[from..to].to_vec())
            }
            // READDIR, in one piece
            28 if number(body, 8) == 0 => Ok(directory(name)),
            28 => Ok(Vec::new()),
            // STATFS
            17 => Ok(vec![0; 80]),
            // RELEASE, RELEASEDIR, FLUSH, DESTROY
            18 | 29 | 25 | 38 => Ok(Vec::new()),
            // INIT
            26 => Ok(init()),
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut out = u32::try_from(16 + body.len())
            .unwrap()
            .to_le_bytes()
            .to_vec();
        out.extend(error.to_le_bytes());
        out.extend(unique.to_le_bytes());
        out.extend(body);
        // Who asked may be gone.
        let _ = device.write_all(&out);
    }
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// struct fuse_init_out.
fn init() -> Vec<u8> {
    let mut out = Vec::new();
    for number in [7u32, 31, 0, 0] {
        out.extend(number.to_le_bytes());
    }
    // Requests in the background and when that is too many; bytes of a write; grain of times, nanoseconds.
    out.extend(8u16.to_le_bytes());
    out.extend(6u16.to_le_bytes());
    for number in [4096u32, 1] {
        out.extend(number.to_le_bytes());
    }
    out.resize(64, 0);
    out
}

/// struct fuse_entry_out of the file.
fn entry(length: usize) -> Vec<u8> {
    // Node, generation, two times of validity and their nanoseconds.
    [words(&[FILE, 0, VALID, VALID, 0]), attributes(FILE, length)].concat()
}

/// struct fuse_attr.
fn attributes(node: u64, length: usize) -> Vec<u8> {
    let file = node == FILE;
    let size = if file { length as u64 } else { 0 };
    let mut out = words(&[node, size, size.div_ceil(512), 0, 0, 0]);
    let mode = if file { 0o100_600 } else { 0o040_755 };
    // Nanoseconds of three times, mode, links, user, group, device, block size, flags.
    for number in [0u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend(number.to_le_bytes());
    }
    out
}

/// struct fuse_dirent of the file.
fn directory(name: &[u8]) -> Vec<u8> {
    let mut out = words(&[FILE, 1]);
    out.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
    out.extend(u32::from(libc::DT_REG).to_le_bytes());
    out.extend(name);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}
