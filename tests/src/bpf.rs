//! bpf(2) as somebody would use it against the agent.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

const PROG_LOAD: libc::c_int = 5;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_DETACH: libc::c_int = 34;

/// `union bpf_attr`, as far as it is needed here.
fn call(command: libc::c_int, attr: &mut [u8; 128]) -> io::Result<RawFd> {
    // SAFETY: the attributes have the size that is given; pointers in them lead to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), attr.len()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as RawFd)
    }
}

fn opened(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let mut attr = [0; 128];
    attr[..4].copy_from_slice(&id.to_ne_bytes());
    let fd = call(command, &mut attr)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Descriptors of a process, with what they lead to.
fn descriptors(pid: u32) -> Vec<(RawFd, String)> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, target.to_str()?.to_owned()))
        })
        .collect()
}

/// What a process has open of BPF: the values of this key in the fdinfo of descriptors that have `with` in theirs.
#[must_use]
pub fn ids(pid: u32, key: &str, with: &str) -> Vec<u32> {
    let mut ids: Vec<u32> = descriptors(pid)
        .into_iter()
        .filter(|(_, target)| target.starts_with("anon_inode:bpf"))
        .filter_map(|(fd, _)| fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok())
        .filter(|info| info.contains(with))
        .filter_map(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':').trim().parse().ok()
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// Takes a link off its place.
///
/// # Errors
/// Those of bpf(2).
pub fn detach(link: u32) -> io::Result<()> {
    let fd = opened(LINK_GET_FD_BY_ID, link)?;
    let mut attr = [0; 128];
    attr[..4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    call(LINK_DETACH, &mut attr).map(drop)
}

/// Opens somebody's map.
///
/// # Errors
/// Those of bpf(2).
pub fn open_map(id: u32) -> io::Result<OwnedFd> {
    opened(MAP_GET_FD_BY_ID, id)
}

/// Loads a program that can write into users' memory, and attaches it to nothing.
///
/// # Errors
/// Those of bpf(2): a kernel that is locked down refuses.
pub fn load_writer(name: &str) -> io::Result<OwnedFd> {
    const KPROBE: u32 = 2;
    const PROBE_WRITE_USER: i32 = 36;
    let insn = |code: u8, registers: u8, offset: i16, imm: i32| {
        let (offset, imm) = (offset.to_ne_bytes(), imm.to_ne_bytes());
        [
            code, registers, offset[0], offset[1], imm[0], imm[1], imm[2], imm[3],
        ]
    };
    let code = [
        // *(u64 *)(r10 - 8) = 0
        insn(0x7a, 0x0a, -8, 0),
        // r1 = 0x1000
        insn(0xb7, 0x01, 0, 0x1000),
        // r2 = r10 - 8
        insn(0xbf, 0xa2, 0, 0),
        insn(0x07, 0x02, 0, -8),
        // r3 = 8
        insn(0xb7, 0x03, 0, 8),
        insn(0x85, 0x00, 0, PROBE_WRITE_USER),
        // return 0
        insn(0xb7, 0x00, 0, 0),
        insn(0x95, 0x00, 0, 0),
    ]
    .concat();
    let license = c"GPL";
    let mut attr = [0u8; 128];
    attr[0..4].copy_from_slice(&KPROBE.to_ne_bytes());
    attr[4..8].copy_from_slice(&((code.len() / 8) as u32).to_ne_bytes());
    attr[8..16].copy_from_slice(&(code.as_ptr() as u64).to_ne_bytes());
    attr[16..24].copy_from_slice(&(license.as_ptr() as u64).to_ne_bytes());
    // Behind the log's level, size and buffer, the kernel's version and flags.
    attr[48..48 + name.len()].copy_from_slice(name.as_bytes());
    let fd = call(PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes every mark on files off the fanotify groups of a process, by descriptors that are taken out of it. Returns of how
/// many groups.
///
/// # Errors
/// Those of pidfd_open(2) and pidfd_getfd(2).
pub fn flush_marks(pid: u32) -> io::Result<usize> {
    let checked = |result: libc::c_long| {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as RawFd)
        }
    };
    // SAFETY: pidfd_open takes two integers; what it returns is this function's.
    let process =
        unsafe { OwnedFd::from_raw_fd(checked(libc::syscall(libc::SYS_pidfd_open, pid, 0))?) };
    let mut groups = 0;
    for (fd, target) in descriptors(pid) {
        if target != "anon_inode:[fanotify]" {
            continue;
        }
        // SAFETY: pidfd_getfd takes three integers; what it returns is this function's.
        let group = unsafe {
            let group = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0);
            OwnedFd::from_raw_fd(checked(group)?)
        };
        // SAFETY: a flush inspects no path.
        let flushed = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                libc::FAN_MARK_FLUSH,
                0,
                libc::AT_FDCWD,
                std::ptr::null(),
            )
        };
        groups += usize::from(flushed == 0);
    }
    Ok(groups)
}
