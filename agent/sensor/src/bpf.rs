//! What aya has no wrapper for in bpf(2): running a program, and what the kernel says of programs, links and maps.

use aya::Ebpf;
use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

const BPF_PROG_TEST_RUN: c_int = 10;
const BPF_PROG_GET_NEXT_ID: c_int = 11;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
/// Where `struct bpf_prog_info` (include/uapi/linux/bpf.h) has its fields, and its end. The last one since 5.12.
mod prog_info {
    pub const TYPE: usize = 0;
    pub const ID: usize = 4;
    pub const TRANSLATED_LEN: usize = 20;
    pub const TRANSLATED: usize = 32;
    pub const LOAD_TIME: usize = 40;
    pub const CREATED_BY_UID: usize = 48;
    pub const MAP_COUNT: usize = 52;
    pub const MAP_IDS: usize = 56;
    pub const NAME: usize = 64;
    pub const RECURSION_MISSES: usize = 208;
    pub const LEN: usize = RECURSION_MISSES + 8;
}
/// Of `struct bpf_link_info`. A cgroup's number is in the part that differs by type.
mod link_info {
    pub const TYPE: usize = 0;
    pub const ID: usize = 4;
    pub const PROGRAM: usize = 8;
    pub const CGROUP: usize = 16;
    pub const LEN: usize = 64;
    pub const TYPE_CGROUP: u32 = 3;
}
/// Of `struct bpf_map_info`.
mod map_info {
    pub const ID: usize = 4;
    pub const NAME: usize = 24;
    pub const LEN: usize = 80;
}
/// Of a program, most bytes of instructions that are inspected: the verifier takes a million of them, ordinary ones
/// have some thousands.
const TRANSLATED_MAX: u32 = 8 << 20;
/// Maps of one program that are inspected: the verifier takes 64.
const MAPS_MAX: u32 = 64;

/// `struct { ... } test` of `union bpf_attr` (include/uapi/linux/bpf.h), up to what 5.10 knows.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
}

/// Runs a raw tracepoint program once in the calling thread and returns its result.
///
/// # Errors
/// EINVAL before 5.10, which cannot run programs of this type.
pub fn run(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        ..TestRun::default()
    };
    // SAFETY: `attr` is laid out as the kernel expects and its true size is given; no pointers in it are set.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<TestRun>() as libc::c_uint,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(attr.retval)
    }
}

/// `struct { ... } info` of `union bpf_attr`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Has the kernel fill in what it knows about a program, a link or a map. What this kernel does not know stays 0.
fn describe<const WORDS: usize>(fd: RawFd, info: &mut [u64; WORDS]) -> io::Result<()> {
    let mut attr = GetInfo {
        bpf_fd: fd as u32,
        info_len: (WORDS * 8) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attr` is laid out as the kernel expects, with its true size; it names a buffer of `info_len` bytes that
    // outlives the call, and the callers leave pointers inside it 0 or have them lead to memory of the length they say.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<GetInfo>() as libc::c_uint,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn word(info: &[u64], at: usize) -> u32 {
    let half = at % 8 * 8;
    if cfg!(target_endian = "little") {
        (info[at / 8] >> half) as u32
    } else {
        (info[at / 8] >> (32 - half)) as u32
    }
}

/// A name of 16 bytes, ended by a zero or by its length.
fn name(info: &[u64], at: usize) -> String {
    let bytes: Vec<u8> = info[at / 8..at / 8 + 2]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How often the kernel passed the program over because the CPU was inside it already. 0 before 5.12.
///
/// # Errors
/// Those of bpf(2).
fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // All zeros: the kernel is asked for no instructions, maps or functions.
    let mut info = [0u64; prog_info::LEN / 8];
    describe(program.as_raw_fd(), &mut info)?;
    Ok(info[prog_info::RECURSION_MISSES / 8])
}

/// The number of a program.
///
/// # Errors
/// Those of bpf(2).
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0u64; prog_info::LEN / 8];
    describe(program.as_raw_fd(), &mut info)?;
    Ok(word(&info, prog_info::ID))
}

/// What a link holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub id: u32,
    pub program: u32,
    /// The cgroup it is at; 0 when it was taken off. `None`: it is at something else.
    pub cgroup: Option<u64>,
}

/// The link behind a descriptor of this process.
///
/// # Errors
/// When it is none, or is closed.
pub fn link(fd: RawFd) -> io::Result<Link> {
    let mut info = [0u64; link_info::LEN / 8];
    describe(fd, &mut info)?;
    Ok(Link {
        id: word(&info, link_info::ID),
        program: word(&info, link_info::PROGRAM),
        cgroup: (word(&info, link_info::TYPE) == link_info::TYPE_CGROUP)
            .then_some(info[link_info::CGROUP / 8]),
    })
}

/// Number and name of the map behind a descriptor of this process.
///
/// # Errors
/// When it is none, or is closed.
pub fn map(fd: RawFd) -> io::Result<(u32, String)> {
    let mut info = [0u64; map_info::LEN / 8];
    describe(fd, &mut info)?;
    Ok((word(&info, map_info::ID), name(&info, map_info::NAME)))
}

/// `struct { ... }` of `union bpf_attr` for numbers.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn by_id(command: c_int, id: u32) -> io::Result<(libc::c_long, u32)> {
    let mut attr = ById {
        id,
        ..ById::default()
    };
    // SAFETY: `attr` is laid out as the kernel expects and its true size is given; there are no pointers in it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut attr,
            size_of::<ById>() as libc::c_uint,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok((result, attr.next))
    }
}

/// Numbers of all programs of the host, at most `most`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn programs(most: usize) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut id = 0;
    while ids.len() < most {
        match by_id(BPF_PROG_GET_NEXT_ID, id) {
            Ok((_, next)) => id = next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        ids.push(id);
    }
    Ok(ids)
}

/// What the kernel says of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub id: u32,
    pub kind: u32,
    pub name: String,
    pub uid: u32,
    /// Nanoseconds since boot.
    pub loaded_ns: u64,
    pub maps: Vec<u32>,
    /// Its instructions as the kernel runs or compiles them, eight bytes each.
    pub code: Vec<u8>,
}

/// The same of the program of this number; `None` when it is gone. Its instructions only if `with_code`.
///
/// # Errors
/// Those of bpf(2).
pub fn program(id: u32, with_code: impl Fn(u32) -> bool) -> io::Result<Option<Program>> {
    let fd = match by_id(BPF_PROG_GET_FD_BY_ID, id) {
        // SAFETY: the kernel has just made this descriptor for this call; nobody else has it.
        Ok((fd, _)) => unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut first = [0u64; prog_info::LEN / 8];
    describe(fd.as_raw_fd(), &mut first)?;
    let kind = word(&first, prog_info::TYPE);
    let mut code = match word(&first, prog_info::TRANSLATED_LEN) {
        len if len <= TRANSLATED_MAX && with_code(kind) => vec![0u8; len as usize],
        _ => Vec::new(),
    };
    let count = word(&first, prog_info::MAP_COUNT).min(MAPS_MAX);
    let mut maps = vec![0u32; count as usize];
    // Asked again, with places for both. Empty ones are not asked for.
    let mut info = [0u64; prog_info::LEN / 8];
    if !code.is_empty() {
        set_word(&mut info, prog_info::TRANSLATED_LEN, code.len() as u32);
        info[prog_info::TRANSLATED / 8] = code.as_mut_ptr() as u64;
    }
    if !maps.is_empty() {
        set_word(&mut info, prog_info::MAP_COUNT, count);
        info[prog_info::MAP_IDS / 8] = maps.as_mut_ptr() as u64;
    }
    describe(fd.as_raw_fd(), &mut info)?;
    Ok(Some(Program {
        id: word(&info, prog_info::ID),
        kind,
        name: name(&info, prog_info::NAME),
        uid: word(&info, prog_info::CREATED_BY_UID),
        loaded_ns: info[prog_info::LOAD_TIME / 8],
        maps,
        code,
    }))
}

fn set_word(info: &mut [u64], at: usize, value: u32) {
    let half = at % 8 * 8;
    let shift = if cfg!(target_endian = "little") {
        half
    } else {
        32 - half
    };
    info[at / 8] = info[at / 8] & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
}

/// Calls of hooks that the kernel passed over.
#[derive(Debug, Default)]
pub struct Misses {
    asked: Option<Instant>,
    before: u64,
}

impl Misses {
    /// One system call a program: not to be asked at every look for losses.
    const INTERVAL: Duration = Duration::from_secs(10);

    /// How many there were since the last answer.
    pub fn news(&mut self, ebpf: &Ebpf) -> u64 {
        if self
            .asked
            .is_some_and(|asked| asked.elapsed() < Self::INTERVAL)
        {
            return 0;
        }
        self.asked = Some(Instant::now());
        let now: u64 = ebpf
            .programs()
            .filter_map(|(_, program)| recursion_misses(program.fd().ok()?.as_fd()).ok())
            .sum();
        // A program that was taken off its hook takes its count with it.
        let count = now.saturating_sub(self.before);
        self.before = now;
        count
    }
}
