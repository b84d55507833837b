//! Reads and opens of watched files. Every other file costs a few loads and a bit test.

use crate::{
    maps::{LEARN, PROCS, READ_SEEN, SEEN, SEEN_LAST, WATCHED, WATCHED_BITS, field},
    record::{
        Counters, Load, Probed, Typed, Wake, ctime_ns, ctime_ns_by, current_task, file_id, follow,
        pointer, program, read, read_or_zero, stamp, user_registers, wake, zero,
    },
};
use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use keytrail_abi::{
    FileAccess, FileNew, Kind, NAME_DEPTH, NAME_MAX, PROC_HOLDER, PROC_IGNORED, PROC_UNKNOWN,
    ProcState, ReadKey, SEEN_CLEAN, SeenInode,
    globals::{MISSING, field as f},
    records::access,
    state::{counter, seen_slot, watch, watch_bit},
};

// void mm_filemap_get_pages(struct address_space *mapping, pgoff_t index, pgoff_t last_index)    from 6.12
#[raw_tracepoint(tracepoint = "mm_filemap_get_pages")]
pub fn filemap_get_pages(ctx: RawTracePointContext) -> i32 {
    if on_mapping(ctx.arg(0), access::READ) {
        trace!(
            &ctx,
            "pages of a watched file, mapping {:x}",
            ctx.arg::<u64>(0)
        );
    }
    0
}

// void mm_filemap_fault(struct address_space *mapping, pgoff_t index)                            from 6.12
#[raw_tracepoint(tracepoint = "mm_filemap_fault")]
pub fn filemap_fault(ctx: RawTracePointContext) -> i32 {
    on_mapping(ctx.arg(0), access::MMAP);
    0
}

// void mm_filemap_map_pages(struct address_space *mapping, pgoff_t start, pgoff_t end)           from 6.12
#[raw_tracepoint(tracepoint = "mm_filemap_map_pages")]
pub fn filemap_map_pages(ctx: RawTracePointContext) -> i32 {
    on_mapping(ctx.arg(0), access::MMAP);
    0
}

// The same place, only while user space asks which file it is that it reads.
#[raw_tracepoint(tracepoint = "mm_filemap_get_pages")]
pub fn filemap_learn(ctx: RawTracePointContext) -> i32 {
    let Some(learn) = LEARN.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe {
        if (*learn).thread == bpf_get_current_pid_tgid() {
            (*learn).file = file_id(follow(ctx.arg(0), field(f::MAPPING_HOST)));
            (*learn).thread = 0;
        }
    }
    0
}

// int security_file_open(struct file *file)
#[fexit(function = "security_file_open")]
pub fn file_open(ctx: FExitContext) -> i32 {
    if ctx.arg::<u64>(1) as i32 == 0 {
        let file: u64 = ctx.arg(0);
        let inode = Typed::load(file, field(f::FILE_INODE));
        if !on_inode::<Typed>(file, inode, access::OPEN) {
            on_create(file, inode);
        }
    }
    0
}

// int security_file_permission(struct file *file, int mask)
#[fexit(function = "security_file_permission")]
pub fn file_permission(ctx: FExitContext) -> i32 {
    // include/linux/fs.h.
    const MAY_READ: u64 = 4;
    if ctx.arg::<u64>(1) & MAY_READ != 0 && ctx.arg::<u64>(2) as i32 == 0 {
        let file: u64 = ctx.arg(0);
        let inode = Typed::load(file, field(f::FILE_INODE));
        if on_inode::<Typed>(file, inode, access::PERMISSION) {
            trace!(&ctx, "read of a watched file {:x}", file);
        }
    }
    0
}

// int security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)
#[fexit(function = "security_mmap_file")]
pub fn mmap_file(ctx: FExitContext) -> i32 {
    const PROT_READ: u64 = 1;
    // An anonymous mapping has no file.
    let file: u64 = ctx.arg(0);
    if file != 0 && ctx.arg::<u64>(1) & PROT_READ != 0 && ctx.arg::<u64>(3) as i32 == 0 {
        let inode = follow(file, field(f::FILE_INODE));
        if field(f::HAS_FAULTS) != 1 || faults_untold(inode) {
            on_inode::<Probed>(file, inode, access::MAPPED);
        }
    }
    0
}

/// Are accesses to mappings of this file handled where no tracepoint tells of them?
#[inline(always)]
fn faults_untold(inode: u64) -> bool {
    // include/linux/fs.h.
    const S_DAX: u32 = 1 << 13;
    const HUGETLBFS: u64 = 0x9584_58f6;
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    magic == TMPFS
        || magic == HUGETLBFS
        || read_or_zero::<u32>(inode, field(f::INODE_FLAGS)) & S_DAX != 0
}

// include/uapi/linux/magic.h.
const TMPFS: u64 = 0x0102_1994;

/// Is the inode number, by its hash, possibly one of the watched?
#[inline(always)]
fn maybe_watched(ino: u64) -> bool {
    let (word, bit) = watch_bit(ino);
    match WATCHED_BITS.get(word) {
        Some(bits) => bits & bit != 0,
        None => false,
    }
}

/// An access told by the page cache.
#[inline(always)]
fn on_mapping(mapping: u64, how: u32) -> bool {
    on_inode::<Probed>(0, follow(mapping, field(f::MAPPING_HOST)), how)
}

/// Reports the access when the inode is a watched file. True when it is. `file` is 0 where the hook does not have it.
#[inline(always)]
fn on_inode<L: Load>(file: u64, inode: u64, how: u32) -> bool {
    let ino: u64 = L::load(inode, field(f::INODE_INO));
    if maybe_watched(ino) && watched(file, inode, how) {
        return true;
    }
    if field(f::DISCOVER) == 1 && how != access::OPEN {
        unwatched::<L>(file, inode, ino, how);
    }
    false
}

/// Is it certain that the system call the thread is in gets nothing of the file: because it asks for no bytes, or
/// begins at the end? Permission is checked before anybody knows. False where one cannot say.
#[inline(never)]
fn reads_nothing(file: u64, inode: u64) -> bool {
    // arch/x86/entry/syscalls/syscall_64.tbl.
    const READ: u64 = 0;
    const PREAD: u64 = 17;
    const READV: u64 = 19;
    const PREADV: u64 = 295;
    let regs = user_registers();
    let Some(call) = read::<u64>(regs, field(f::REGS_SYSCALL)) else {
        return false;
    };
    let pos: u64 = match call {
        READ | READV => read_or_zero(file, field(f::FILE_POS)),
        PREAD | PREADV => read_or_zero(regs, field(f::REGS_ARG3)),
        _ => return false,
    };
    // The call may be reading another file, from which this one's layer is filled; and io_uring may have lent the
    // thread for a read of its own.
    let files = follow(current_task(), field(f::TASK_FILES));
    let table = follow(follow(files, field(f::FILES_FDT)), field(f::FDTABLE_FD));
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    if table == 0 || follow(table + (number & 0xffff_ffff) * 8, 0) != file {
        return false;
    }
    if (call == READ || call == PREAD) && read::<u64>(regs, field(f::REGS_ARG2)) == Some(0) {
        return true;
    }
    // Only where the size is this kernel's to say: a network or FUSE server may know of more.
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    let local = matches!(
        magic,
        0xef53 // ext2, ext3, ext4
            | 0x5846_5342 // xfs
            | 0x9123_683e // btrfs
            | 0xf2f5_2010 // f2fs
            | TMPFS
    );
    local && read::<u64>(inode, field(f::INODE_SIZE)).is_some_and(|size| pos >= size)
}

/// A file that is not watched: reported the first time it is read in this version, because it may hold a credential
/// that nobody has told us about. Nearly always this CPU has met the file a moment ago and it ends here.
#[inline(always)]
fn unwatched<L: Load>(file: u64, inode: u64, ino: u64, how: u32) {
    let ctime_ns = ctime_ns_by::<L>(inode);
    let Some(last) = SEEN_LAST.get_ptr_mut(seen_slot(ino)) else {
        return;
    };
    // SAFETY: a live map value of this CPU. Torn by a nested probe it agrees with no inode, which costs a look-up.
    unsafe {
        if (*last).inode == inode && (*last).ino == ino && (*last).ctime_ns == ctime_ns {
            return;
        }
        if discover(file, inode, ctime_ns, how) == CLEAN {
            *last = SeenInode {
                inode,
                ino,
                ctime_ns,
            };
        }
    }
}

/// What [`discover`] says of a file that needs no further look in this version.
const CLEAN: u32 = 1;

/// File systems whose files are made up when they are read (include/uapi/linux/magic.h): no credential lies there, and
/// reading them back would disturb.
#[inline(always)]
fn made_up(magic: u64) -> bool {
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
fn discover(opened: u64, inode: u64, ctime_ns: u64, how: u32) -> u32 {
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
    let known = PROCS.get_ptr(&tgid);
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
    // SAFETY: a live map value.
    if seen == Some(ctime_ns)
        && READ_SEEN
            .get_ptr(&key)
            .is_some_and(|seen| unsafe { *seen } == program)
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
    if known.is_none() {
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

#[inline(never)]
fn watched(opened: u64, inode: u64, how: u32) -> bool {
    // SAFETY: a live map value, copied at once.
    let Some(watched) = WATCHED
        .get_ptr(&file_id(inode))
        .map(|watch| unsafe { *watch })
    else {
        return false;
    };
    if watched.flags & watch::FILE == 0 {
        return false;
    }
    let file = watched.file;
    let Some(counters) = Counters::get() else {
        return true;
    };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let known = PROCS.get_ptr_mut(&tgid);
    // SAFETY: a live map value.
    if known.is_some_and(|known| unsafe { (*known).state } == PROC_IGNORED) {
        return true;
    }
    if how == access::PERMISSION && reads_nothing(opened, inode) {
        return true;
    }
    if how != access::OPEN {
        // The process holds the secret from here on, whatever user space is doing.
        match known {
            // SAFETY: a live map value; an aligned store.
            Some(known) => unsafe { (*known).state = PROC_HOLDER },
            None => counters.set_process(
                tgid,
                ProcState {
                    state: PROC_HOLDER,
                    pad: 0,
                    exec_id: 0,
                },
            ),
        }
    }
    let program = program(current_task());
    let ctime_ns = ctime_ns(inode);
    let key = ReadKey {
        file,
        ctime_ns,
        tgid,
        access: if how == access::OPEN { access::OPEN } else { 0 },
    };
    // SAFETY: a live map value.
    if READ_SEEN
        .get_ptr(&key)
        .is_some_and(|seen| unsafe { *seen } == program)
    {
        return true;
    }
    let kind = if how == access::OPEN {
        Kind::FILE_OPEN
    } else {
        Kind::FILE_READ
    };
    let Some(mut slot) = counters.reserve::<FileAccess>(kind) else {
        return true;
    };
    // Only what was reported counts as seen: after a loss the next read is reported.
    let _ = READ_SEEN.insert(&key, &program, 0);
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot; every field is written.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).file = file;
        (*record).size = read_or_zero(inode, field(f::INODE_SIZE));
        (*record).ctime_ns = ctime_ns;
        (*record).access = how;
        (*record).count = 1;
        counters.seal(
            &raw mut (*record).header,
            kind,
            size_of::<FileAccess>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Now));
    true
}

/// Reports a file that this very open created in a watched directory.
#[inline(always)]
fn on_create(file: u64, inode: u64) {
    // include/linux/fs.h, since 4.19.
    const FMODE_CREATED: u32 = 0x10_0000;
    let mode: u32 = Typed::load(file, field(f::FILE_MODE));
    if mode & FMODE_CREATED != 0 {
        created(file, inode);
    }
}

#[inline(never)]
fn created(file: u64, inode: u64) -> u32 {
    let dentry = follow(file, field(f::FILE_DENTRY));
    let parent = follow(
        follow(dentry, field(f::DENTRY_PARENT)),
        field(f::DENTRY_INODE),
    );
    let ino: u64 = read_or_zero(parent, field(f::INODE_INO));
    if !maybe_watched(ino) {
        return 0;
    }
    let directory = file_id(parent);
    // SAFETY: a live map value, copied at once.
    let Some(flags) = WATCHED
        .get_ptr(&directory)
        .map(|watch| unsafe { (*watch).flags })
    else {
        return 0;
    };
    if flags & watch::DIRECTORY == 0 {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: a live map value.
    if PROCS
        .get_ptr(&tgid)
        .is_some_and(|known| unsafe { (*known).state } == PROC_IGNORED)
    {
        return 0;
    }
    let Some(counters) = Counters::get() else {
        return 0;
    };
    let Some(mut slot) = counters.reserve::<FileNew>(Kind::FILE_NEW) else {
        return 0;
    };
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot; every field is written.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).file = file_id(inode);
        (*record).size = read_or_zero(inode, field(f::INODE_SIZE));
        (*record).ctime_ns = ctime_ns(inode);
        (*record).access = access::OPEN;
        let names = (&raw mut (*record).names).cast::<u8>();
        zero::<{ NAME_MAX * NAME_DEPTH }>(names);
        (*record).exec_id = 0;
        (*record).depth = path_names(names, dentry);
        counters.seal(
            &raw mut (*record).header,
            Kind::FILE_NEW,
            size_of::<FileNew>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Later));
    1
}
