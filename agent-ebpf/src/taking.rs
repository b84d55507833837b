//! What a process takes out of another one by a system call: its memory, its registers, its descriptors.
//!
//! A call is seen when it begins, and says nothing of its success. So what it would change in the caller is noted then,
//! and inspected when the same thread makes its next call. Requests of ptrace need none of that: who is traced by the
//! caller is on its list.

use crate::{
    arch::{is_compat, is_trace_read},
    maps::{ASKED, PROCS, TAKING, TAKINGS, field},
    record::{
        Counters, Wake, add, at_most, current_task, descriptor, follow, ignored, peek, pointer,
        program, read_or_zero, segments, stamp, wake,
    },
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, generated::bpf_probe_read_user,
};
use keytrail_abi::{
    Kind, ProcessAttach,
    budget::BUDGET_SHIFT,
    globals::{MISSING, field as f},
    records::method,
    state::counter,
};

/// Who takes out of the same process again within this time by the same method is not reported again.
const AGAIN_NS: u64 = 1_000_000_000;
/// Calls of one program that are reported in a window of [`BUDGET_SHIFT`]: those that nothing proves, until so many were
/// reported in all, and all.
const UNPROVEN_MAX: u64 = 32;
const REPORTED_MAX: u64 = 256;
/// No method: the entry in `ASKED` has the window, the program and how many calls of it were reported in that window.
const SHARE: u32 = u32::MAX;
/// Traced threads that are inspected: the newest come first.
const TRACED_MAX: usize = 32;
/// Bytes compared at the beginning, in the middle and at the end of a buffer.
const SAMPLE: usize = 16;
/// include/uapi/linux/magic.h.
const PIDFS: u64 = 0x5049_4446;

/// Value of the `TAKINGS` map: what a call would change, as it was when the call began.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Taking {
    who: Who,
    asked: u64,
    /// The first buffer of process_vm_readv, and what was in it.
    buffer: u64,
    length: u64,
    samples: [Sample; 3],
    /// The number a new descriptor would have.
    next_fd: u32,
    pad: u32,
}

/// Who is taken from, and how.
#[repr(C)]
#[derive(Clone, Copy)]
struct Who {
    number: u32,
    /// 0: not known here.
    victim: u32,
    method: u32,
    pad: u32,
}

/// What tells bytes of user memory from others, and not what they are; as far as they could be read.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sample {
    mixed: u64,
    there: u64,
}

impl Sample {
    /// 1: there is something else now. A page that was not there before was made for what came.
    #[inline(always)]
    pub fn is_other(&self, before: &Sample) -> u64 {
        let other = (self.mixed ^ before.mixed) | (self.there ^ before.there);
        self.there & ((other | other.wrapping_neg()) >> 63)
    }
}

/// Key of the `ASKED` map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AskedKey {
    tgid: u32,
    number: u32,
    method: u32,
    /// What was known of the victim, by [`held`].
    held: u32,
}

/// What was reported last: when, of which program, and whether it was proven.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Asked {
    boot_ns: u64,
    program: u64,
    proven: u64,
}

/// Is any thread of the host inside such a call, or one of `tmpfs`?
#[inline(always)]
pub fn pending() -> bool {
    TAKING.get_ptr(0).is_some_and(|count| {
        // SAFETY: a live map value, an aligned load.
        unsafe { core::ptr::read_volatile(count) != 0 }
    })
}

/// ptrace(request, pid, address, data)
#[inline(always)]
pub fn on_trace(regs: u64) {
    if is_trace_read(read_or_zero(regs, field(f::REGS_ARG0))) {
        take_by_trace(regs);
    }
}

/// Functions of their own, as in `payload`: results say nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_by_trace(regs: u64) -> u64 {
    traced(regs);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_by_vm_read(regs: u64) -> u64 {
    vm_read(regs);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_by_getfd(regs: u64) -> u64 {
    getfd(regs);
    0
}

/// The thread makes another call, or ends: what became of the one before?
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_completed_call(thread: u64) -> u64 {
    completed(thread);
    0
}

#[inline(always)]
fn traced(regs: u64) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if ignored(tgid) || is_compat() {
        return;
    }
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG1));
    let victim = tracee(number as u32);
    if victim == 0 || victim == tgid {
        return;
    }
    // By its process: a program of many threads is one.
    let who = Who {
        number: victim,
        victim,
        method: method::TRACE,
        pad: 0,
    };
    if is_news(tgid, &who, true) {
        report(&who, 0, true);
    }
}

/// The process of the thread with this number (as the caller counts) among those that the current thread traces; 0 when
/// it is none of them.
#[inline(always)]
fn tracee(number: u32) -> u32 {
    let task = current_task();
    if field(f::TASK_PTRACED) == MISSING || field(f::TASK_PTRACE_ENTRY) == MISSING {
        return 0;
    }
    let missing = field(f::TASK_THREAD_PID) == MISSING
        || field(f::TASK_TGID) == MISSING
        || field(f::PID_NUMBERS) == MISSING
        || field(f::UPID_NR) == MISSING
        || field(f::UPID_SIZE) == MISSING;
    if missing {
        return 0;
    }
    // Where a `struct pid` has the number in the caller's namespace. They nest at most 32 deep (MAX_PID_NS_LEVEL).
    let place = field(f::PID_NUMBERS) as u64
        + (level(task) & 31) as u64 * field(f::UPID_SIZE) as u64
        + field(f::UPID_NR) as u64;
    let head = task + field(f::TASK_PTRACED) as u64;
    let mut entry: u64 = peek(head);
    for _ in 0..TRACED_MAX {
        if entry == 0 || entry == head {
            break;
        }
        let traced = entry - field(f::TASK_PTRACE_ENTRY) as u64;
        let pid: u64 = peek(traced + field(f::TASK_THREAD_PID) as u64);
        if peek::<u32>(pid + place) == number {
            return peek(traced + field(f::TASK_TGID) as u64);
        }
        entry = peek(entry);
    }
    0
}

/// process_vm_readv(pid, local, local_count, remote, remote_count, flags)
#[inline(always)]
fn vm_read(regs: u64) {
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    if ignored(tgid) || is_compat() {
        return;
    }
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    let vector: u64 = read_or_zero(regs, field(f::REGS_ARG1));
    let count: u64 = read_or_zero(regs, field(f::REGS_ARG2));
    let mut taking = Taking {
        who: Who {
            number: number as u32,
            victim: 0,
            method: method::VM_READ,
            pad: 0,
        },
        asked: 0,
        buffer: 0,
        length: 0,
        samples: [Sample::default(); 3],
        next_fd: 0,
        pad: 0,
    };
    let segments = segments(vector, count);
    [taking.buffer, taking.length] = segments[0];
    taking.asked = segments
        .iter()
        .fold(0u64, |sum, segment| sum.wrapping_add(segment[1]));
    if taking.asked == 0 || was_proven(tgid, &taking.who) {
        return;
    }
    taking.samples = samples(taking.buffer, taking.length);
    begin(thread, &taking);
}

/// pidfd_getfd(pidfd, descriptor, flags)
#[inline(always)]
fn getfd(regs: u64) {
    let thread = bpf_get_current_pid_tgid();
    let tgid = (thread >> 32) as u32;
    if ignored(tgid) || is_compat() {
        return;
    }
    let task = current_task();
    let number: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    let victim = named_by(task, descriptor(task, number as u32));
    if victim == 0 {
        return;
    }
    let taking = Taking {
        who: Who {
            number: victim,
            victim,
            method: method::DESCRIPTOR,
            pad: 0,
        },
        asked: 0,
        buffer: 0,
        length: 0,
        samples: [Sample::default(); 3],
        next_fd: next_fd(task),
        pad: 0,
    };
    if !was_proven(tgid, &taking.who) {
        begin(thread, &taking);
    }
}

/// The number (in the initial namespace) of the process that a pidfd names; 0 when the file is no pidfd.
#[inline(always)]
fn named_by(task: u64, file: u64) -> u32 {
    if file == 0 {
        return 0;
    }
    let inode = follow(file, field(f::FILE_INODE));
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    // In a file system of their own since 6.9, where the inode knows the process.
    let pid = if magic == PIDFS {
        follow(inode, field(f::INODE_PRIVATE))
    } else {
        follow(file, field(f::FILE_PRIVATE))
    };
    // The initial namespace proves that it is a `struct pid`.
    let own = follow(
        upid(follow(task, field(f::TASK_THREAD_PID)), 0),
        field(f::UPID_NS),
    );
    let named = upid(pid, 0);
    if own == 0 || follow(named, field(f::UPID_NS)) != own {
        return 0;
    }
    read_or_zero(named, field(f::UPID_NR))
}

/// `pid->numbers[level]`; 0 when there is none.
#[inline(always)]
fn upid(pid: u64, level: u32) -> u64 {
    if pid == 0 || field(f::PID_NUMBERS) == MISSING {
        return 0;
    }
    // Pid namespaces nest at most 32 deep (MAX_PID_NS_LEVEL).
    pid + field(f::PID_NUMBERS) as u64 + (level & 31) as u64 * field(f::UPID_SIZE) as u64
}

#[inline(always)]
fn level(task: u64) -> u32 {
    read_or_zero(follow(task, field(f::TASK_THREAD_PID)), field(f::PID_LEVEL))
}

#[inline(always)]
fn next_fd(task: u64) -> u32 {
    read_or_zero(follow(task, field(f::TASK_FILES)), field(f::FILES_NEXT_FD))
}

#[inline(always)]
pub fn samples(buffer: u64, length: u64) -> [Sample; 3] {
    let last = length.saturating_sub(SAMPLE as u64);
    [
        sample(buffer, length),
        sample(buffer + last / 2, length),
        sample(buffer + last, length),
    ]
}

/// The multiplier of Fibonacci hashing.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What lies there, as much as the buffer has. Without a branch, as [`peek`].
#[inline(always)]
fn sample(at: u64, length: u64) -> Sample {
    let mut bytes = [0u64; 2];
    let size = at_most::<SAMPLE>(length);
    // SAFETY: `size` is at most that of `bytes`; the helper checks the address, and zeroes when it fails.
    let result =
        unsafe { bpf_probe_read_user((&raw mut bytes).cast(), size as u32, at as *const _) };
    Sample {
        mixed: (bytes[0] ^ SPREAD)
            .wrapping_mul(SPREAD)
            .wrapping_add(bytes[1])
            .wrapping_mul(SPREAD),
        // Failures are negative.
        there: (result as u64 >> 63) ^ 1,
    }
}

/// Notes a call whose outcome is to be seen.
#[inline(always)]
fn begin(thread: u64, taking: &Taking) {
    // The entry of a call that nothing followed is this thread's own.
    let known = TAKINGS.get_ptr(&thread).is_some();
    if TAKINGS.insert(&thread, taking, 0).is_err() {
        // Without room nothing can be proven of it.
        let tgid = (thread >> 32) as u32;
        if is_news(tgid, &taking.who, false) {
            report(&taking.who, taking.asked, false);
        }
    } else if !known {
        count(1);
    }
}

/// Adds to the number of calls that are inspected.
#[inline(always)]
pub fn count(more: u64) {
    if let Some(count) = TAKING.get_ptr_mut(0) {
        // SAFETY: a live map value.
        unsafe { add(count, more) };
    }
}

#[inline(always)]
fn completed(thread: u64) {
    let Some(entry) = TAKINGS.get_ptr(&thread) else {
        return;
    };
    // SAFETY: a live map value of this thread, copied at once.
    let taking = unsafe { *entry };
    let _ = TAKINGS.remove(&thread);
    // One less.
    count(u64::MAX);
    let proven = if taking.who.method == method::DESCRIPTOR {
        next_fd(current_task()) > taking.next_fd
    } else {
        let [first, middle, last] = samples(taking.buffer, taking.length);
        first.is_other(&taking.samples[0])
            | middle.is_other(&taking.samples[1])
            | last.is_other(&taking.samples[2])
            != 0
    };
    let tgid = (thread >> 32) as u32;
    if is_news(tgid, &taking.who, proven) {
        report(&taking.who, taking.asked, proven);
    }
}

#[inline(always)]
fn key(tgid: u32, who: &Who) -> AskedKey {
    AskedKey {
        tgid,
        number: who.number,
        method: who.method,
        held: held(who.number),
    }
}

/// Changes whenever the process may hold more than before: then taking out of it is news again. 0 where its number is not the
/// host's, or it holds nothing.
#[inline(always)]
fn held(number: u32) -> u32 {
    let Some(state) = PROCS.get_ptr(&number) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe { ((*state).exec_id as u32).wrapping_add((*state).met) << 3 | (*state).state & 7 }
}

/// Was it reported for this program a moment ago, with proof? Then the call need not be inspected.
#[inline(always)]
fn was_proven(tgid: u32, who: &Who) -> bool {
    let Some(asked) = ASKED.get_ptr(&key(tgid, who)) else {
        return false;
    };
    // SAFETY: a live map value; no arguments.
    unsafe {
        (*asked).proven == 1
            && (*asked).program == program(current_task())
            && (*asked).boot_ns + AGAIN_NS > bpf_ktime_get_boot_ns()
    }
}

/// Is it to be reported? Notes it.
#[inline(always)]
fn is_news(tgid: u32, who: &Who, proven: bool) -> bool {
    let key = key(tgid, who);
    let now = Asked {
        // SAFETY: no arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        program: program(current_task()),
        proven: proven as u64,
    };
    if let Some(asked) = ASKED.get_ptr(&key) {
        // SAFETY: a live map value.
        let asked = unsafe { *asked };
        if asked.program == now.program
            && asked.boot_ns + AGAIN_NS > now.boot_ns
            && asked.proven >= now.proven
        {
            return false;
        }
    }
    if !has_share(tgid, &now) {
        if let Some(counters) = Counters::get() {
            counters.add(counter::ATTACH_PASSED);
        }
        return false;
    }
    let _ = ASKED.insert(&key, &now, 0);
    true
}

/// May this program be reported once more in this second? Whose number a call names is up to the caller, and so is what
/// looks like a proof: without a bound one program could fill the ring that matters most, and wash everybody else out of
/// what is remembered.
#[inline(always)]
fn has_share(tgid: u32, now: &Asked) -> bool {
    let key = AskedKey {
        tgid,
        number: 0,
        method: SHARE,
        held: 0,
    };
    let window = now.boot_ns >> BUDGET_SHIFT;
    if let Some(share) = ASKED.get_ptr_mut(&key) {
        // SAFETY: a live map value. Two threads at once may each begin the window: one call is forgotten.
        unsafe {
            if (*share).program == now.program && (*share).boot_ns == window {
                let most = if now.proven == 1 {
                    REPORTED_MAX
                } else {
                    UNPROVEN_MAX
                };
                if (*share).proven >= most {
                    return false;
                }
                add(&raw mut (*share).proven, 1);
                return true;
            }
        }
    }
    let first = Asked {
        boot_ns: window,
        program: now.program,
        proven: 1,
    };
    let _ = ASKED.insert(&key, &first, 0);
    true
}

#[inline(always)]
fn report(who: &Who, asked: u64, proven: bool) {
    // include/uapi/linux/capability.h.
    const CAP_SYS_PTRACE: u32 = 19;
    let Some(counters) = Counters::get() else {
        return;
    };
    let Some(mut slot) = counters.reserve::<ProcessAttach>(Kind::PROCESS_ATTACH) else {
        return;
    };
    let task = current_task();
    let level = level(task);
    let own = upid(follow(task, field(f::TASK_THREAD_PID)), level);
    let caps: u32 = read_or_zero(follow(task, field(f::TASK_CRED)), field(f::CRED_CAPS));
    let record = pointer(&mut slot);
    // SAFETY: `record` is the reserved slot; every field is written.
    unsafe {
        stamp(&raw mut (*record).header);
        (*record).asked = asked;
        (*record).number = who.number;
        (*record).victim = who.victim;
        (*record).pid_ns = read_or_zero(follow(own, field(f::UPID_NS)), field(f::PID_NS_INUM));
        (*record).level = level;
        (*record).method = who.method;
        (*record).proven = proven as u32;
        (*record).capable = caps >> CAP_SYS_PTRACE & 1;
        (*record).pad = 0;
        counters.seal(
            &raw mut (*record).header,
            Kind::PROCESS_ATTACH,
            size_of::<ProcessAttach>() as u32,
            0,
        );
    }
    slot.submit(wake(Wake::Now));
}
