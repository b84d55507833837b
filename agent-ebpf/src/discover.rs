//! Files that nobody has named: read for the first time in their version.

use crate::{
    budget::renew,
    maps::{PROCS, READ_SEEN, SEEN, field},
    pipes::pipes_of_reader,
    record::{
        Counters, Wake, current_task, file_id, follow, pointer, program, read, read_or_zero, stamp,
        wake, zero,
    },
    touch::reads_nothing,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str};
use keytrail_abi::{
    FileNew, Kind, NAME_DEPTH, NAME_MAX, PROC_IGNORED, PROC_UNKNOWN, ProcState, ReadKey,
    SEEN_CLEAN,
    globals::{MISSING, field as f},
    records::access,
    state::counter,
};

/// What [`discover`] says of a file that needs no further look in this version.
pub const CLEAN: u32 = 1;

/// File systems whose files are made up when they are read (include/uapi/linux/magic.h): no credential lies there, and
/// reading them back would disturb.
#[inline(always)]
pub fn made_up(magic: u64) -> bool {
    matches!(
        magic,
        0x9fa0 // proc
            | 0x6265_6572 // sysfs
            | 0x7472_6163 // tracefs
            | 0x6462_6720 // debugfs
            | 0x6367_7270 | 0x27_e0eb // cgroup2, cgroup
            | 0x7363_6673 // securityfs
            | 0xcafe_4a11 // bpf
    )
}

#[inline(never)]
pub fn discover(opened: u64, inode: u64, ctime_ns: u64, how: u32) -> u32 {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFREG: u16 = 0o100_000;
    /// Nothing shorter is a secret.
    const SIZE_MIN: u64 = 16;
    let mode: u16 = read_or_zero(inode, field(f::INODE_MODE));
    let size: u64 = read_or_zero(inode, field(f::INODE_SIZE));
    let sb = follow(inode, field(f::INODE_SB));
    let magic: u64 = read_or_zero(sb, field(f::SB_MAGIC));
    if mode & S_IFMT != S_IFREG || size < SIZE_MIN || made_up(magic) {
        return CLEAN;
    }
    let file = file_id(inode);
    // SAFETY: a live map value, copied at once.
    let seen = SEEN.get_ptr(&file).map(|seen| unsafe { *seen });
    if seen == Some(ctime_ns | SEEN_CLEAN) {
        return CLEAN;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let known = PROCS.get_ptr_mut(&tgid);
    // SAFETY: a live map value.
    if known.is_some_and(|known| unsafe { (*known).state } == PROC_IGNORED) {
        return 0;
    }
    if how == access::PERMISSION && reads_nothing(opened, inode) {
        return 0;
    }
    // Until user space has decided, every program that reads the file is reported, once.
    let program = program(current_task());
    let key = ReadKey {
        file,
        ctime_ns,
        tgid,
        access: 0,
    };
    if seen == Some(ctime_ns)
        && READ_SEEN.get_ptr(&key).is_some_and(|seen| {
            // SAFETY: a live map value.
            unsafe { *seen == program }
        })
    {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let Some(mut slot) = counters.reserve::<FileNew>(Kind::FILE_NEW) else {
        return 0;
    };
    // Only what was reported counts as seen: after a loss the next read is reported.
    let _ = SEEN.insert(&file, &ctime_ns, 0);
    let _ = READ_SEEN.insert(&key, &program, 0);
    let mut exec_id = 0;
    match known {
        None => {
            // What it sends until user space has looked at the file is captured: the secret may be on its way already.
            exec_id = counters.unique(counter::EXECS);
            counters.set_process(
                tgid,
                ProcState {
                    state: PROC_UNKNOWN,
                    pad: 0,
                    exec_id,
                },
            );
        }
        // SAFETY: a live map value, aligned loads and stores.
        Some(known) if unsafe { (*known).state } == PROC_UNKNOWN => {
            // A newer question: the answer to the one before must not pass for one to this.
            exec_id = counters.unique(counter::EXECS);
            // SAFETY: as above.
            unsafe { (*known).exec_id = exec_id };
        }
        // What it answers is looked at anew: the file may be what it serves.
        Some(_) => renew(tgid),
    }
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot; every field is written.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).file = file;
        (*record).size = size;
        (*record).ctime_ns = ctime_ns;
        (*record).exec_id = exec_id;
        (*record).access = how;
        let names = (&raw mut (*record).names).cast::<u8>();
        zero::<{ NAME_MAX * NAME_DEPTH }>(names);
        (*record).depth = path_names(names, alias(inode));
        counters.seal(
            &raw mut (*record).header,
            Kind::FILE_NEW,
            size_of::<FileNew>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Now));
    pipes_of_reader(exec_id);
    0
}

/// A dentry of the inode: any of its names will do to find it again. 0 when it has none.
#[inline(always)]
fn alias(inode: u64) -> u64 {
    let first = follow(inode, field(f::INODE_ALIASES));
    if first == 0 || field(f::DENTRY_ALIAS) == MISSING {
        return 0;
    }
    first - field(f::DENTRY_ALIAS) as u64
}

/// Writes the names from `dentry` up to the root of its file system; returns how many.
///
/// # Safety
/// `names` must have NAME_DEPTH times NAME_MAX bytes.
#[inline(always)]
unsafe fn path_names(names: *mut u8, dentry: u64) -> u32 {
    let mut at = dentry;
    let mut depth = 0;
    for level in 0..NAME_DEPTH {
        let up = follow(at, field(f::DENTRY_PARENT));
        // The root of a file system is its own parent.
        if at == 0 || up == at {
            break;
        }
        let name = read::<u64>(at, field(f::DENTRY_NAME)).unwrap_or(0);
        // SAFETY: the caller's promise; the helper checks the source.
        unsafe {
            bpf_probe_read_kernel_str(
                names.add(level * NAME_MAX).cast(),
                NAME_MAX as u32,
                name as *const _,
            );
        }
        depth += 1;
        at = up;
    }
    depth
}
