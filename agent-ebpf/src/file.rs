//! Reads of watched files. Opens are reported by fanotify, whose marks no other file pays for; here every other file costs a few loads and a bit test.

use crate::{
    budget::renew,
    discover::{CLEAN, discover},
    maps::{LEARN, PROCS, READ_SEEN, SEEN_LAST, WATCHED, WATCHED_BITS, field},
    opened::{follows_opened, is_pipe, reads_fifo},
    pipes::pipes_of_reader,
    record::{
        Counters, Load, Probed, Typed, Wake, ctime_ns, ctime_ns_by, current_task, file_id, follow,
        is_seen, plain, pointer, program, read_or_zero, stamp, wake,
    },
    touch::{faults_unreported, gets_nothing},
};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};
use keytrail_abi::{
    FileAccess, Kind, PROC_HOLDER, PROC_IGNORED, ProcState, ReadKey, SeenInode,
    globals::field as f,
    records::access,
    state::{seen_slot, watch, watch_bit},
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

// The same three, where the kernel knows the types of a tracepoint's arguments: each load is a call less.
#[btf_tracepoint(function = "mm_filemap_get_pages")]
pub fn filemap_get_pages_typed(ctx: BtfTracePointContext) -> i32 {
    on_typed_mapping(ctx.arg(0), access::READ);
    0
}

#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn filemap_fault_typed(ctx: BtfTracePointContext) -> i32 {
    on_typed_mapping(ctx.arg(0), access::MMAP);
    0
}

#[btf_tracepoint(function = "mm_filemap_map_pages")]
pub fn filemap_map_pages_typed(ctx: BtfTracePointContext) -> i32 {
    on_typed_mapping(ctx.arg(0), access::MMAP);
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

// int security_file_permission(struct file *file, int mask)
#[fexit(function = "security_file_permission")]
pub fn file_permission(ctx: FExitContext) -> i32 {
    // include/linux/fs.h.
    const MAY_READ: u64 = 4;
    if ctx.arg::<u64>(1) & MAY_READ != 0 && ctx.arg::<u64>(2) as i32 == 0 {
        let file: u64 = ctx.arg(0);
        let inode = Typed::load(file, field(f::FILE_INODE));
        if follows_opened() && is_pipe(Typed::load(inode, field(f::INODE_MODE))) {
            // Never clean: what comes next is of whoever writes next.
            if field(f::DISCOVER) == 1 {
                reads_fifo(plain(inode));
            }
        } else if on_inode::<Typed>(file, inode, access::PERMISSION, 0) {
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
        if field(f::HAS_FAULTS) != 1 || faults_unreported(inode) {
            on_inode::<Probed>(file, inode, access::MAPPED, 0);
        }
    }
    0
}

/// Is the inode number, by its hash, possibly one of the watched?
#[inline(always)]
pub fn maybe_watched(ino: u64) -> bool {
    let (word, bit) = watch_bit(ino);
    match WATCHED_BITS.get(word) {
        Some(bits) => bits & bit != 0,
        None => false,
    }
}

/// An access reported by the page cache.
#[inline(always)]
fn on_mapping(mapping: u64, how: u32) -> bool {
    on_inode::<Probed>(0, follow(mapping, field(f::MAPPING_HOST)), how, 0)
}

#[inline(always)]
fn on_typed_mapping(mapping: u64, how: u32) {
    on_inode::<Typed>(0, Typed::load(mapping, field(f::MAPPING_HOST)), how, 0);
}

/// Reports the access when the inode is a watched file. True when it is. `file` is 0 where the hook does not have it;
/// `content` is where the process has all of the file in its memory, 0 where that is not known.
#[inline(always)]
pub fn on_inode<L: Load>(file: u64, inode: u64, how: u32, content: u64) -> bool {
    let ino: u64 = L::load(inode, field(f::INODE_INO));
    if maybe_watched(ino) && watched(file, inode, how) {
        return true;
    }
    if field(f::DISCOVER) == 1 {
        unwatched::<L>(file, inode, ino, how, content);
    }
    false
}

/// A file that is not watched: reported the first time it is read in this version, because it may hold a credential
/// that nobody has told us about. Nearly always this CPU has seen the file a moment ago and it ends here.
#[inline(always)]
fn unwatched<L: Load>(file: u64, inode: u64, ino: u64, how: u32, content: u64) {
    let ctime_ns = ctime_ns_by::<L>(inode);
    let Some(last) = SEEN_LAST.get_ptr_mut(seen_slot(ino)) else {
        return;
    };
    // SAFETY: a live map value of this CPU. Torn by a nested probe it agrees with no inode, which costs a look-up.
    unsafe {
        if (*last).inode == inode && (*last).ino == ino && (*last).ctime_ns == ctime_ns {
            return;
        }
        if discover(file, inode, ctime_ns, how, content) == CLEAN {
            *last = SeenInode {
                inode,
                ino,
                ctime_ns,
            };
        }
    }
}

/// The process holds the secret from here on, whatever user space is doing.
#[inline(always)]
fn becomes_holder(known: Option<*mut ProcState>, tgid: u32, counters: Counters) {
    match known {
        // SAFETY: a live map value; an aligned store.
        Some(known) => unsafe { (*known).state = PROC_HOLDER },
        None => counters.set_process(
            tgid,
            ProcState {
                state: PROC_HOLDER,
                met: 0,
                exec_id: 0,
            },
        ),
    }
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
    let ctime_ns = ctime_ns(inode);
    // Asked about like any that is new, by its names: inode numbers are used again, at once and under other names.
    if field(f::DISCOVER) == 1 && watched.ctime_ns != 0 && watched.ctime_ns != ctime_ns {
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
    if gets_nothing(opened, inode, how) {
        return true;
    }
    becomes_holder(known, tgid, counters);
    let program = program(current_task());
    let key = ReadKey {
        file,
        ctime_ns,
        tgid,
        access: 0,
    };
    if is_seen(&key, program) {
        return true;
    }
    let Some(mut slot) = counters.reserve::<FileAccess>(Kind::FILE_READ) else {
        return true;
    };
    // Only what was reported counts as seen: after a loss the next read is reported.
    let _ = READ_SEEN.insert(&key, &program, 0);
    if let Some(known) = known {
        // SAFETY: a live map value. Of two threads at once one may be forgotten.
        unsafe { (*known).met = (*known).met.wrapping_add(1) };
    }
    renew(tgid);
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
            Kind::FILE_READ,
            size_of::<FileAccess>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Now));
    pipes_of_reader(0);
    true
}
