//! Files that nobody has named: read for the first time in their version.

use crate::{
    budget::renew,
    maps::{PAYLOADS, PROCS, READ_SEEN, SEEN, field},
    pipes::pipes_of_reader,
    record::{
        Counters, Slot, Wake, copy_user, current_task, file_id, follow, is_seen, pointer, program,
        read, read_or_zero, stamp, wake, zero,
    },
    touch::gets_nothing,
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ringbuf_query, generated::bpf_probe_read_kernel_str,
};
use keytrail_abi::{
    CONTENT_MAX, FileNew, Kind, NAME_DEPTH, NAME_MAX, PAYLOAD_TIERS, PROC_IGNORED, PROC_UNKNOWN,
    ProcState, ReadKey, SEEN_CLEAN,
    globals::{MISSING, field as f},
    state::counter,
};

/// Slots of records with content.
const SMALL: usize = PAYLOAD_TIERS[1];
const PAGE_FULL: usize = PAYLOAD_TIERS[2];
const LARGE: usize = CONTENT_MAX;

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

/// Nothing shorter is a secret.
pub const SIZE_MIN: u64 = 16;

#[inline(never)]
pub fn discover(opened: u64, inode: u64, ctime_ns: u64, how: u32, content: u64) -> u32 {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFREG: u16 = 0o100_000;
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
    if gets_nothing(opened, inode, how) {
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
    if seen == Some(ctime_ns) && is_seen(&key, program) {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let mut exec_id = 0;
    match known {
        // SAFETY: a live map value, an aligned load.
        Some(known) if unsafe { (*known).state } != PROC_UNKNOWN => {}
        // Of a process that waits for an answer as well, under a number of its own: the answer to the question before
        // must not pass for one to this.
        _ => exec_id = counters.unique(counter::EXECS),
    }
    let new = New {
        inode,
        ctime_ns,
        size,
        exec_id,
        key,
        program,
        known,
        how,
        mode: mode as u32,
    };
    let reported = if content == 0 || size > LARGE as u64 || !has_room() {
        new.report(counters)
    } else if size <= SMALL as u64 {
        new.report_with::<SMALL>(counters, content)
    } else if size <= PAGE_FULL as u64 {
        new.report_with::<PAGE_FULL>(counters, content)
    } else {
        new.report_with::<LARGE>(counters, content)
    };
    if reported {
        pipes_of_reader(exec_id);
    }
    0
}

/// Is there room for contents? They are many at a time when a tree is walked, and sends must not be lost by that.
#[inline(always)]
fn has_room() -> bool {
    // BPF_RB_AVAIL_DATA.
    const UNREAD: u64 = 0;
    // BPF_RB_RING_SIZE.
    const SIZE: u64 = 1;
    // SAFETY: the ring is a map of this object.
    let ask = |what| unsafe { bpf_ringbuf_query((&raw const PAYLOADS).cast_mut().cast(), what) };
    ask(UNREAD) < ask(SIZE) / 4
}

/// What is reported about a file, and noted.
struct New {
    inode: u64,
    ctime_ns: u64,
    size: u64,
    exec_id: u64,
    key: ReadKey,
    program: u64,
    known: Option<*mut ProcState>,
    how: u32,
    mode: u32,
}

impl New {
    /// False when there is no room.
    #[inline(always)]
    fn report(&self, counters: Counters) -> bool {
        let Some(mut slot) = counters.reserve::<FileNew>(Kind::FILE_NEW) else {
            return false;
        };
        self.note(counters);
        let record = pointer(&mut slot);
        // SAFETY: `record` is the reserved slot.
        unsafe { self.fill(record, 0, counters) };
        slot.submit(wake(Wake::Now));
        true
    }

    /// The same with the file's bytes, which the process has at `content`: where they cannot be read, without.
    #[inline(always)]
    fn report_with<const N: usize>(&self, counters: Counters, content: u64) -> bool {
        let Some(mut slot) = counters.reserve_in::<Slot<FileNew, N>>(&PAYLOADS, Kind::FILE_NEW)
        else {
            return false;
        };
        self.note(counters);
        let slot_of = pointer(&mut slot);
        // SAFETY: the reserved slot, with N bytes of data behind the record.
        unsafe {
            let data = (&raw mut (*slot_of).data).cast::<u8>();
            zero::<N>(data);
            let whole = copy_user::<N>(data, content, self.size);
            let kept = if whole { self.size as u32 } else { 0 };
            self.fill(&raw mut (*slot_of).record, kept, counters);
        }
        slot.submit(wake(Wake::Now));
        true
    }

    /// Only what is reported counts as seen: after a loss the next read is reported. User space must not answer before this.
    #[inline(always)]
    fn note(&self, counters: Counters) {
        let _ = SEEN.insert(&self.key.file, &self.ctime_ns, 0);
        let _ = READ_SEEN.insert(&self.key, &self.program, 0);
        match self.known {
            // What it sends until user space has inspected the file is captured: the secret may be on its way already.
            None => counters.set_process(
                self.key.tgid,
                ProcState {
                    state: PROC_UNKNOWN,
                    met: 0,
                    exec_id: self.exec_id,
                },
            ),
            // SAFETY: a live map value, an aligned store.
            Some(known) if self.exec_id != 0 => unsafe { (*known).exec_id = self.exec_id },
            // What it answers is inspected anew: the file may be what it serves.
            Some(_) => renew(self.key.tgid),
        }
    }

    /// # Safety
    /// `record` must be valid for writes.
    #[inline(always)]
    unsafe fn fill(&self, record: *mut FileNew, data_len: u32, counters: Counters) {
        // SAFETY: the caller's promise; every field is written.
        unsafe {
            stamp(&raw mut (*record).header);
            (*record).file = self.key.file;
            (*record).size = self.size;
            (*record).ctime_ns = self.ctime_ns;
            (*record).exec_id = self.exec_id;
            (*record).access = self.how;
            (*record).owner_uid = read_or_zero(self.inode, field(f::INODE_UID));
            (*record).owner_gid = read_or_zero(self.inode, field(f::INODE_GID));
            (*record).mode = self.mode;
            (*record).data_len = data_len;
            let names = (&raw mut (*record).names).cast::<u8>();
            zero::<{ NAME_MAX * NAME_DEPTH }>(names);
            (*record).depth = path_names(names, alias(self.inode));
            counters.seal(
                &raw mut (*record).header,
                Kind::FILE_NEW,
                size_of::<FileNew>() as u32 + data_len,
                0,
            );
        }
    }
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
