//! Reads of files on tmpfs, which pass by the tracepoints of the page cache: where containers and services have their tokens.
//!
//! Reported by system calls where no better hook sees them. A call is seen when it begins, so as in `taking` what it would
//! change is noted then and inspected when the thread makes its next call: the position in the file, and its buffer. What
//! was read is in that buffer still, and is reported with the first read of a file: a mount namespace may be gone before user
//! space can inspect it.

use crate::{
    arch::{
        call::{
            COPY_FILE_RANGE, IO_SUBMIT, PREAD64, PREADV, PREADV2, READ, READV, SENDFILE, SPLICE,
        },
        is_compat,
    },
    discover::SIZE_MIN,
    file::{maybe_watched, on_inode},
    maps::{FIFO_FILES, LEARN, READ_SEEN, READINGS, SEEN, SEEN_LAST, TMPFS_FILES, field},
    opened::{follows_opened, is_fifo, reads_fifo},
    record::{
        Counters, Load as _, Probed, Typed, ctime_ns, current_task, descriptor, file_id, follow,
        ignored, peek, program, read_or_zero, segments, user_registers,
    },
    taking::{Sample, count, samples},
    touch::TMPFS,
    write::report_target,
};
use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_probe_read_user},
    },
    macros::raw_tracepoint,
    maps::Array,
    programs::RawTracePointContext,
};
use keytrail_abi::{
    Kind, ReadKey, SEEN_CLEAN, SeenInode,
    globals::field as f,
    records::{access, target},
    state::seen_slot,
};

/// Value of the `READINGS` map: what a call would change, as it was when the call began.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reading {
    /// `struct file` behind `number`, and its inode.
    file: u64,
    inode: u64,
    /// Where the call begins to read.
    position: u64,
    /// Where its position is kept in user memory; 0: in the file.
    place: u64,
    /// 1: no position moves (pread).
    fixed: u64,
    /// The buffer, as far as the file fills it; 0 and 0 when the bytes go elsewhere.
    buffer: u64,
    length: u64,
    samples: [Sample; 3],
    /// The buffer takes all of a file of this size; 0: not all.
    whole: u64,
    ctime_ns: u64,
    number: u32,
    pad: u32,
}

// For a moment only, while a thread of the agent reads a file on tmpfs by pread, or tries to read a FIFO so.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn learn_tmpfs(ctx: RawTracePointContext) -> i32 {
    let Some(learn) = LEARN.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a live map value.
    if unsafe { (*learn).thread } != bpf_get_current_pid_tgid() || ctx.arg::<u64>(1) != PREAD64 {
        return 0;
    }
    let number: u64 = read_or_zero(ctx.arg(0), field(f::REGS_ARG0));
    let file = descriptor(current_task(), number as u32);
    let inode = follow(file, field(f::FILE_INODE));
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    let files = if is_fifo(inode) {
        FIFO_FILES.get_ptr_mut(0)
    } else if magic == TMPFS {
        TMPFS_FILES.get_ptr_mut(0)
    } else {
        None
    };
    if let Some(files) = files {
        // SAFETY: live map values.
        unsafe {
            *files = follow(file, field(f::FILE_OP));
            (*learn).thread = 0;
        }
    }
    0
}

/// A call that reads from a descriptor; any of those in `arch::call`.
#[inline(always)]
pub fn on_read(regs: u64, call: u64) {
    let files = memory_files();
    if files == 0 {
        return;
    }
    let fifo = read_begins(regs, call, files);
    // Not from in there: together the stacks would be too large before 6.13.
    if fifo != 0 && follows_opened() {
        reads_fifo(fifo);
    }
}

/// What tells FIFOs from all others but pipes; 0 while that is not known.
#[inline(always)]
pub fn fifo_files() -> u64 {
    learnt(&FIFO_FILES)
}

/// What tells files on tmpfs from all others; 0 while that is not known.
#[inline(always)]
pub fn memory_files() -> u64 {
    learnt(&TMPFS_FILES)
}

#[inline(always)]
fn learnt(files: &Array<u64>) -> u64 {
    files.get_ptr(0).map_or(0, |files| {
        // SAFETY: a live map value, an aligned load.
        unsafe { core::ptr::read_volatile(files) }
    })
}

/// A function of its own, as in `payload`. The inode of what may be a FIFO; 0 for all else.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_begins(regs: u64, call: u64, files: u64) -> u64 {
    // sendfile(out, in, offset, length); the others have the descriptor first.
    let number = match call {
        SENDFILE => own_register(field(f::REGS_ARG1)),
        IO_SUBMIT => request(own_register(field(f::REGS_ARG2)))[2] >> 32,
        _ => own_register(field(f::REGS_ARG0)),
    } as u32;
    let file = own_descriptor(number);
    if file == 0 {
        return 0;
    }
    let ops = follow(file, field(f::FILE_OP));
    let inode = follow(file, field(f::FILE_INODE));
    // Here ends what reads anything else: all reads of the host come so far.
    if ops != files {
        if ops != 0 && follows_opened() && ops == fifo_files() && field(f::DISCOVER) == 1 {
            return inode;
        }
        return 0;
    }
    let ino: u64 = read_or_zero(inode, field(f::INODE_INO));
    let ctime_ns = ctime_ns(inode);
    // And here what reads a file that was decided about.
    if !maybe_watched(ino) && was_met(inode, ino, ctime_ns) {
        return 0;
    }
    begins(regs, call, file, number);
    0
}

/// The first request of `io_submit(context, number, requests)`, by words: `struct iocb` (include/uapi/linux/aio_abi.h) has the
/// operation in the lower 16 bits of word 2 and the descriptor in its upper half, then buffer, length and offset. Zeros when
/// it cannot be read. Further requests of the same call are not inspected.
#[inline(always)]
fn request(requests: u64) -> [u64; 6] {
    let mut first = 0u64;
    let mut words = [0u64; 6];
    // SAFETY: the helper checks the addresses, and zeroes when it fails.
    unsafe {
        bpf_probe_read_user((&raw mut first).cast(), 8, requests as *const _);
        bpf_probe_read_user((&raw mut words).cast(), 48, first as *const _);
    }
    words
}

/// A register of the call the thread is in. By a plain load, as in [`Typed`], like what follows: a helper costs more than
/// all of it.
#[inline(always)]
fn own_register(offset: u32) -> u64 {
    let regs = user_registers();
    if regs == 0 {
        return 0;
    }
    Typed::load(regs, offset)
}

/// The file behind a descriptor of this process; 0 when there is none.
#[inline(always)]
pub fn own_descriptor(number: u32) -> u64 {
    if field(f::HAS_TASK_REGS) != 1 {
        return 0;
    }
    // SAFETY: the flag says that the helper exists.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let files: u64 = Typed::load(task, field(f::TASK_FILES));
    if files == 0 {
        return 0;
    }
    let table: u64 = Typed::load(files, field(f::FILES_FDT));
    if table == 0 || number >= Typed::load::<u32>(table, field(f::FDTABLE_MAX)) {
        return 0;
    }
    let open: u64 = Typed::load(table, field(f::FDTABLE_FD));
    if open == 0 {
        return 0;
    }
    follow(open + number as u64 * 8, 0)
}

/// Was this version met on this CPU a moment ago, and decided about?
#[inline(always)]
fn was_met(inode: u64, ino: u64, ctime_ns: u64) -> bool {
    SEEN_LAST.get_ptr(seen_slot(ino)).is_some_and(|last| {
        // SAFETY: a live map value of this CPU.
        let last = unsafe { *last };
        last.inode == inode && last.ino == ino && last.ctime_ns == ctime_ns
    })
}

/// The thread makes another call, or ends: did the one before read? 1: it did, and its entry is there still.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_took_effect(thread: u64) -> u64 {
    took_effect(thread) as u64
}

/// Reports the read that [`read_took_effect`] has found. By itself: before 6.13 the stacks of all that call each other share
/// 512 bytes, and what follows here needs most of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_reported(thread: u64) -> u64 {
    let Some(entry) = READINGS.get_ptr(&thread) else {
        return 0;
    };
    // SAFETY: a live map value of this thread.
    let (file, inode, content) = unsafe { ((*entry).file, (*entry).inode, (*entry).buffer) };
    let _ = READINGS.remove(&thread);
    on_inode::<Probed>(file, inode, access::CALL, content);
    0
}

/// Inspects what became of the call before, and reports it.
#[inline(always)]
pub fn report_completed_read(thread: u64) {
    if read_took_effect(thread) == 1 {
        read_reported(thread);
    }
}

#[inline(always)]
fn begins(regs: u64, call: u64, file: u64, number: u32) {
    // include/linux/fs.h.
    const FMODE_READ: u32 = 1;
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    if ignored(tgid)
        || is_compat()
        || read_or_zero::<u32>(file, field(f::FILE_MODE)) & FMODE_READ == 0
    {
        return;
    }
    let inode = follow(file, field(f::FILE_INODE));
    let size: u64 = read_or_zero(inode, field(f::INODE_SIZE));
    let ctime_ns = ctime_ns(inode);
    if !is_news(inode, ctime_ns, size, tgid) {
        return;
    }
    let mut reading = Reading {
        file,
        inode,
        position: 0,
        place: 0,
        fixed: 0,
        buffer: 0,
        length: 0,
        samples: [Sample::default(); 3],
        whole: 0,
        ctime_ns,
        number,
        pad: 0,
    };
    let vector = find_room(regs, call, file, &mut reading);
    // At the end there is nothing to read.
    if reading.position >= size {
        return;
    }
    let left = size - reading.position;
    if reading.length > left {
        reading.length = left;
    }
    if reading.length != 0 {
        reading.samples = samples(reading.buffer, reading.length);
        if !vector && reading.position == 0 && reading.length == size {
            reading.whole = size;
        }
    } else if call != SENDFILE && call != SPLICE && call != COPY_FILE_RANGE {
        // No room for a byte.
        return;
    }
    begin(thread, tgid, &reading);
}

/// From where in the file a call reads, and to where in memory, by its arguments. True: to a list of places, of which the
/// first is reported.
#[inline(always)]
fn find_room(regs: u64, call: u64, file: u64, reading: &mut Reading) -> bool {
    let argument1: u64 = read_or_zero(regs, field(f::REGS_ARG1));
    let argument2: u64 = read_or_zero(regs, field(f::REGS_ARG2));
    let mut argument3: u64 = read_or_zero(regs, field(f::REGS_ARG3));
    let mut vector = false;
    match call {
        READ | PREAD64 => {
            reading.buffer = argument1;
            reading.length = argument2;
        }
        READV | PREADV | PREADV2 => {
            [reading.buffer, reading.length] = first_of(argument1, argument2);
            vector = true;
        }
        IO_SUBMIT => {
            // include/uapi/linux/aio_abi.h.
            const PREAD: u64 = 0;
            const PREADV: u64 = 7;
            let request = request(argument2);
            argument3 = request[5];
            match request[2] & 0xffff {
                PREAD => [reading.buffer, reading.length] = [request[3], request[4]],
                PREADV => {
                    [reading.buffer, reading.length] = first_of(request[3], request[4]);
                    vector = true;
                }
                // Another operation.
                _ => {}
            }
        }
        SENDFILE => reading.place = argument2,
        _ => reading.place = argument1,
    }
    reading.fixed = (call == PREAD64
        || call == PREADV
        || call == IO_SUBMIT
        || (call == PREADV2 && argument3 != u64::MAX)) as u64;
    reading.position = if reading.fixed == 1 {
        argument3
    } else {
        position(file, reading.place)
    };
    vector
}

/// Is a read of this version by this program to be reported?
#[inline(always)]
fn is_news(inode: u64, ctime_ns: u64, size: u64, tgid: u32) -> bool {
    let ino: u64 = read_or_zero(inode, field(f::INODE_INO));
    let watched = maybe_watched(ino);
    if !watched && (field(f::DISCOVER) != 1 || size < SIZE_MIN) {
        return false;
    }
    let key = ReadKey {
        file: file_id(inode),
        ctime_ns,
        tgid,
        access: 0,
    };
    let is_reported = READ_SEEN.get_ptr(&key).is_some_and(|seen| {
        // SAFETY: a live map value.
        unsafe { *seen == program(current_task()) }
    });
    if is_reported {
        return false;
    }
    let clean = SEEN
        .get_ptr(&key.file)
        // SAFETY: as above.
        .is_some_and(|seen| unsafe { *seen } == ctime_ns | SEEN_CLEAN);
    if !watched
        && clean
        && let Some(last) = SEEN_LAST.get_ptr_mut(seen_slot(ino))
    {
        // SAFETY: as above.
        unsafe {
            *last = SeenInode {
                inode,
                ino,
                ctime_ns,
            };
        }
    }
    watched || !clean
}

/// The first segment with room for a byte: address and length.
#[inline(always)]
fn first_of(vector: u64, segments_there: u64) -> [u64; 2] {
    let mut first = [0, 0];
    for segment in segments(vector, segments_there) {
        if first[1] == 0 {
            first = segment;
        }
    }
    first
}

/// Where the next byte is read: as the file knows it, or user memory at `place`.
#[inline(always)]
fn position(file: u64, place: u64) -> u64 {
    if place == 0 {
        return peek(file + field(f::FILE_POS) as u64);
    }
    let mut position = 0u64;
    // SAFETY: the helper checks the address, and zeroes when it fails.
    unsafe {
        bpf_probe_read_user((&raw mut position).cast(), 8, place as *const _);
    }
    position
}

/// While a call is inspected, fanotify's word on it is not needed: see the user side.
#[inline(always)]
fn key_of_call(inode: u64, ctime_ns: u64, tgid: u32) -> ReadKey {
    ReadKey {
        file: file_id(inode),
        ctime_ns,
        tgid,
        access: access::CALL,
    }
}

#[inline(always)]
fn begin(thread: u64, tgid: u32, reading: &Reading) {
    // The entry of a call that nothing followed is this thread's own.
    let known = READINGS.get_ptr(&thread).is_some();
    if READINGS.insert(&thread, reading, 0).is_err() {
        if let Some(counters) = Counters::get() {
            counters.lost(Kind::FILE_READ);
        }
        return;
    }
    if !known {
        count(1);
    }
    let key = key_of_call(reading.inode, reading.ctime_ns, tgid);
    let _ = READ_SEEN.insert(&key, &program(current_task()), 0);
}

#[inline(always)]
fn took_effect(thread: u64) -> bool {
    let Some(entry) = READINGS.get_ptr_mut(&thread) else {
        return false;
    };
    let tgid = (thread >> 32) as u32;
    // SAFETY: a live map value of this thread, here and below; not copied, for the stack is small.
    let reading = unsafe { &mut *entry };
    let (file, inode, ctime) = (reading.file, reading.inode, reading.ctime_ns);
    let same = descriptor(current_task(), reading.number) == file
        && follow(file, field(f::FILE_INODE)) == inode;
    let now = position(file, reading.place);
    let filled = samples(reading.buffer, reading.length);
    let last = filled[2].is_other(&reading.samples[2]);
    let by_buffer =
        filled[0].is_other(&reading.samples[0]) | filled[1].is_other(&reading.samples[1]) | last;
    let moved = reading.fixed == 0 && now > reading.position;
    let all = if reading.fixed == 0 {
        now == reading.whole
    } else {
        last != 0
    };
    let mut content = if reading.whole != 0 && all {
        reading.buffer
    } else {
        0
    };
    // One less.
    count(u64::MAX);
    if !same {
        // Closed by another thread: the inode may be gone.
        let _ = READINGS.remove(&thread);
        if let Some(counters) = Counters::get() {
            counters.lost(Kind::FILE_READ);
        }
        return false;
    }
    if !moved && by_buffer == 0 {
        // What was not seen to be read is left to fanotify from here on.
        let _ = READINGS.remove(&thread);
        let _ = READ_SEEN.remove(&key_of_call(inode, ctime, tgid));
        return false;
    }
    if ctime_ns(inode) != ctime {
        content = 0;
    }
    if content != 0 {
        // Its path as well: nobody may find it again.
        report_target(file, tgid as u64, target::FILE as u64);
    }
    reading.buffer = content;
    true
}
