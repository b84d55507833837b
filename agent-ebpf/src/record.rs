//! What every probe needs: reading kernel memory by field, and filling records in the ring.

use crate::maps::{COUNTERS, NEWS, PAYLOADS, PROCS, READ_SEEN, RING, WAITING, field};
use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_get_current_uid_gid, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns,
        bpf_probe_read_kernel, bpf_ringbuf_query,
        generated::{
            self, bpf_get_current_comm, bpf_get_current_task_btf, bpf_probe_read_user,
            bpf_task_pt_regs,
        },
    },
    maps::{RingBuf, ring_buf::RingBufEntry},
};
use core::{ffi::c_void, mem::MaybeUninit};
use keytrail_abi::{
    FileId, Header, Kind, PROC_HOLDER, PROC_IGNORED, PROC_KEYS, PROC_UNKNOWN, ProcState,
    READ_TICK_NS, ReadKey, WRITE_SEGMENTS,
    globals::{MISSING, field as f},
    header::flags,
    state::counter,
};

/// A record and the room for its data, as one slot of the ring.
#[repr(C)]
pub struct Slot<R, const N: usize> {
    pub record: R,
    pub data: [u8; N],
}

/// Reads the field at `offset` of the struct at `base`; `None` when there is no such field, no struct, or a fault.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if offset == MISSING || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T) }.ok()
}

/// The same, with zero for what cannot be read.
#[inline(always)]
pub fn read_or_zero<T: Copy + Default>(base: u64, offset: u32) -> T {
    read(base, offset).unwrap_or_default()
}

/// What lies at a kernel address; zero for what cannot be read. Without a branch: in a loop each would be followed both
/// ways by the verifier.
#[inline(always)]
pub fn peek<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the address, and zeroes the value when it fails.
    unsafe {
        generated::bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        );
    }
    value
}

/// The first segments of a vector in user memory, `struct iovec { void *iov_base; size_t iov_len; }` (UAPI); zeros for
/// what is not there. Without a branch as well.
#[inline(always)]
pub fn segments(vector: u64, count: u64) -> [[u64; 2]; WRITE_SEGMENTS] {
    let mut segments = [[0; 2]; WRITE_SEGMENTS];
    let size = at_most::<{ WRITE_SEGMENTS }>(count) * 16;
    // SAFETY: `size` is at most that of the array; the helper checks the address, and zeroes when it fails.
    unsafe {
        bpf_probe_read_user((&raw mut segments).cast(), size as u32, vector as *const _);
    }
    segments
}

/// How a field of a kernel object is read on the way that nearly every call takes. Zero for what cannot be read.
pub trait Load {
    fn load<T: Copy + Default>(base: u64, offset: u32) -> T;
}

/// By the helper: from any address.
pub struct Probed;

impl Load for Probed {
    #[inline(always)]
    fn load<T: Copy + Default>(base: u64, offset: u32) -> T {
        read_or_zero(base, offset)
    }
}

/// By a plain load, which costs no call. For objects the verifier knows by their BTF type: the arguments of fentry, fexit
/// and typed tracepoint programs and what their pointer fields lead to. The verifier checks that a field of this size
/// lies there, and the kernel makes a fault read zero. It refuses shifts and masks of such a pointer.
pub struct Typed;

impl Load for Typed {
    #[inline(always)]
    fn load<T: Copy + Default>(base: u64, offset: u32) -> T {
        if offset == MISSING {
            return T::default();
        }
        // SAFETY: the verifier admits this load only where `base` is an object that has the field; volatile, so that
        // it stays one load of this size.
        unsafe { core::ptr::read_volatile((base + offset as u64) as *const T) }
    }
}

/// An argument of a program that knows its type, as a plain number, which functions of their own can be given.
#[inline(always)]
pub fn plain_argument(ctx: *mut c_void, number: u64) -> u64 {
    peek(ctx as u64 + number * 8)
}

/// Was this read, or this use of something opened, reported for this program?
#[inline(always)]
pub fn is_seen(key: &ReadKey, program: u64) -> bool {
    READ_SEEN.get_ptr(key).is_some_and(|seen| {
        // SAFETY: a live map value.
        unsafe { *seen == program }
    })
}

/// A pointer that the verifier knows the type of, as a number: functions of their own take nothing else.
#[inline(always)]
pub fn plain(pointer: u64) -> u64 {
    let mut slot = 0_u64;
    // SAFETY: a variable of this function; volatile, so that it lies on the stack, which the helper reads from.
    unsafe { core::ptr::write_volatile(&raw mut slot, pointer) };
    peek((&raw const slot) as u64)
}

/// Follows a pointer field; 0 when it cannot be followed.
#[inline(always)]
pub fn follow(base: u64, offset: u32) -> u64 {
    read_or_zero(base, offset)
}

#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: no arguments, always succeeds.
    unsafe { bpf_get_current_task() }
}

/// `task->group_leader->start_boottime`.
#[inline(always)]
pub fn start_ns(task: u64) -> u64 {
    read_or_zero(
        follow(task, field(f::TASK_GROUP_LEADER)),
        field(f::TASK_START_BOOTTIME),
    )
}

/// Tells the programs of one process apart, for [`keytrail_abi::ReadKey`]'s map: the tick in which the process began,
/// and within it the number of its execs. /proc knows the tick, so user space can tell the process from it.
#[inline(always)]
pub fn program(task: u64) -> u64 {
    let start = start_ns(task);
    // The lower half of the 64 bits it has had since 5.7.
    let execs: u32 = read_or_zero(task, field(f::TASK_SELF_EXEC_ID));
    start - start % READ_TICK_NS + execs as u64 % READ_TICK_NS
}

/// The registers with which the current thread entered the kernel; 0 where they cannot be had.
#[inline(always)]
pub fn user_registers() -> u64 {
    if field(f::HAS_TASK_REGS) != 1 {
        return 0;
    }
    // SAFETY: user space sets the flag only where both helpers exist.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
}

/// The file behind an inode.
#[inline(always)]
pub fn file_id(inode: u64) -> FileId {
    FileId {
        ino: read_or_zero(inode, field(f::INODE_INO)),
        dev: read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_DEV)),
        pad: 0,
    }
}

/// `inode->i_ctime` in nanoseconds since the epoch.
#[inline(always)]
pub fn ctime_ns(inode: u64) -> u64 {
    ctime_ns_by::<Probed>(inode)
}

/// The same, read in the given way.
#[inline(always)]
pub fn ctime_ns_by<L: Load>(inode: u64) -> u64 {
    let seconds: u64 = L::load(inode, field(f::INODE_CTIME_SEC));
    // From 6.13 the highest bit of the nanoseconds says whether somebody has asked for the time stamp.
    let nanos: u32 = L::load(inode, field(f::INODE_CTIME_NSEC));
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add((nanos & 0x3fff_ffff) as u64)
}

/// The pid of a task's group in the process's own pid namespace.
#[inline(always)]
pub fn ns_tgid(task: u64) -> u32 {
    let pid = follow(
        follow(task, field(f::TASK_GROUP_LEADER)),
        field(f::TASK_THREAD_PID),
    );
    let level: u32 = read_or_zero(pid, field(f::PID_LEVEL));
    let numbers = field(f::PID_NUMBERS);
    if numbers == MISSING {
        return 0;
    }
    // Pid namespaces nest at most 32 deep (MAX_PID_NS_LEVEL).
    let at = numbers as u64 + (level & 31) as u64 * field(f::UPID_SIZE) as u64;
    read_or_zero(pid + at, field(f::UPID_NR))
}

/// Fills everything but length, flags, sequence and kind, for the current task.
#[inline(always)]
pub fn stamp(header: *mut Header) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let ids = bpf_get_current_uid_gid();
    let task = current_task();
    // SAFETY: `header` points to a Header in the ring or on the stack, which the callers reserved; the helpers take
    // no pointers but the one to `comm`, whose size is given.
    unsafe {
        (*header).boot_ns = bpf_ktime_get_boot_ns();
        (*header).start_ns = start_ns(task);
        (*header).cgroup_id = bpf_get_current_cgroup_id();
        (*header).tgid = (pid_tgid >> 32) as u32;
        (*header).tid = pid_tgid as u32;
        (*header).cpu = bpf_get_smp_processor_id();
        (*header).uid = ids as u32;
        (*header).gid = (ids >> 32) as u32;
        (*header).euid = read_or_zero(follow(task, field(f::TASK_CRED)), field(f::CRED_EUID));
        bpf_get_current_comm((&raw mut (*header).comm).cast(), 16);
    }
}

/// Adds to a number that other processors, or what interrupts this one, may be adding to. `core` has no atomics for
/// this target; the instruction without a result is known to every kernel.
///
/// # Safety
/// `place` must be a live, aligned map value.
#[inline(always)]
pub unsafe fn add(place: *mut u64, count: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({place} + 0) += {count}",
            place = in(reg) place,
            count = in(reg) count,
        );
    }
}

/// This CPU's counters.
#[derive(Clone, Copy)]
pub struct Counters(*mut [u64; counter::COUNT]);

impl Counters {
    #[inline(always)]
    pub fn get() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Takes a sequence number.
    #[inline(always)]
    fn next_seq(self) -> u64 {
        // SAFETY: a live map value; the place is below COUNT.
        unsafe {
            let seq = (*self.0)[counter::SEQ];
            (*self.0)[counter::SEQ] = seq + 1;
            seq
        }
    }

    /// Reserves room for a record. A record that finds none is counted and takes a sequence number as well, so that
    /// a hole reports the loss.
    #[inline(always)]
    pub fn reserve<T: 'static>(self, kind: u16) -> Option<RingBufEntry<T>> {
        let ring = match kind {
            kind if Kind::is_payload(kind) => &PAYLOADS,
            Kind::FILE_NEW => &NEWS,
            _ => &RING,
        };
        self.reserve_in(ring, kind)
    }

    /// The same in a ring of the caller's choice.
    #[inline(always)]
    pub fn reserve_in<T: 'static>(
        self,
        ring: &'static RingBuf,
        kind: u16,
    ) -> Option<RingBufEntry<T>> {
        let entry = ring.reserve::<T>(0);
        if entry.is_none() {
            self.lost(kind);
        }
        entry
    }

    /// Counts a record that cannot be made; its sequence number leaves a hole.
    #[inline(always)]
    pub fn lost(self, kind: u16) {
        self.next_seq();
        self.add(counter::LOST + kind as usize);
    }

    /// Adds one to the counter at this place. A program may be interrupted by another one that counts.
    #[inline(always)]
    pub fn add(self, place: usize) {
        // SAFETY: a live map value; `place` is below COUNT.
        unsafe { add(self.0.cast::<u64>().add(place), 1) };
    }

    /// Writes kind, length, flags and the sequence number of a record.
    #[inline(always)]
    pub fn seal(self, header: *mut Header, kind: u16, len: u32, flags: u16) {
        let seq = self.next_seq();
        // SAFETY: as in `stamp`.
        unsafe {
            (*header).kind = kind;
            (*header).flags = flags;
            (*header).len = len;
            (*header).cpu_seq = seq;
        }
    }

    /// Adds one to a counter and returns a number unique on this boot of the agent: count << 16 | CPU.
    #[inline(always)]
    pub fn unique(self, place: usize) -> u64 {
        // SAFETY: no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() } as u64;
        // SAFETY: a live map value; `place` is one of counter's constants.
        unsafe {
            (*self.0)[place] += 1;
            (*self.0)[place] << 16 | (cpu & 0xffff)
        }
    }

    /// Leaves the number of an exec for the next program at the same place.
    #[inline(always)]
    pub fn begin(self, exec_id: u64) {
        // SAFETY: a live map value.
        unsafe { (*self.0)[counter::BEGUN] = exec_id };
    }

    /// The number that was left, once; a new one where none was.
    #[inline(always)]
    pub fn begun(self) -> u64 {
        // SAFETY: a live map value.
        let exec_id = unsafe { (*self.0)[counter::BEGUN] };
        self.begin(0);
        if exec_id == 0 {
            self.unique(counter::EXECS)
        } else {
            exec_id
        }
    }

    /// Stores a process's state; a full table is counted.
    #[inline(always)]
    pub fn set_process(self, tgid: u32, state: ProcState) {
        if PROCS.insert(&tgid, &state, 0).is_err() {
            self.add(counter::PROCS_FULL);
        }
    }
}

/// Whether user space, when it waits, should be woken for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Now: something decisive happened.
    Now,
    /// When the ring fills; user space looks by itself before long.
    Later,
}

/// The flags of a submit. Waking somebody is an interrupt to another processor, dearer than all the rest of a record:
/// so it is done once for each time user space has said that it waits, and never while it is at work.
#[inline(always)]
pub fn wake(wake: Wake) -> u64 {
    wake_flags((wake == Wake::Now) as u64)
}

/// Why this is a function of its own: see `payload`. Kernels before 6.4 would go over what follows once for each of its
/// results.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wake_flags(now: u64) -> u64 {
    // BPF_RB_AVAIL_DATA.
    const UNREAD: u64 = 0;
    let Some(waiting) = WAITING.get_ptr_mut(0) else {
        return BPF_RB_FORCE_WAKEUP as u64;
    };
    // SAFETY: a live map value; an aligned load. Two processors at once wake twice, which harms nothing.
    if unsafe { core::ptr::read_volatile(waiting) } == 0 {
        return BPF_RB_NO_WAKEUP as u64;
    }
    // SAFETY: the ring is a map of this object.
    let unread = || unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), UNREAD) };
    if now != 0 || unread() > field(f::WAKE_BYTES) as u64 {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(waiting, 0) };
        BPF_RB_FORCE_WAKEUP as u64
    } else {
        BPF_RB_NO_WAKEUP as u64
    }
}

/// Makes `len` bytes of user memory a part of a record. On a fault the whole of `dst` is zero and false
/// is returned.
///
/// # Safety
/// `dst` must have `N` bytes.
#[inline(always)]
pub unsafe fn copy_user<const N: usize>(dst: *mut u8, src: u64, len: u64) -> bool {
    let len = at_most::<N>(len);
    // SAFETY: `len` is at most N, which `dst` has; the helper checks the source.
    unsafe { bpf_probe_read_user(dst.cast(), len as u32, src as *const _) == 0 }
}

/// Overwrites `N` bytes: a slot must not carry what the pass before left there.
///
/// # Safety
/// `dst` must have `N` bytes.
#[inline(always)]
pub unsafe fn zero<const N: usize>(dst: *mut u8) {
    // The helper zeroes its destination when the source cannot be read, and the highest page never can be: one call
    // instead of a loop of stores.
    const UNREADABLE: u64 = !0xfff;
    // SAFETY: `dst` has N bytes.
    unsafe {
        bpf_probe_read_user(dst.cast(), N as u32, UNREADABLE as *const _);
    }
}

/// Copies a struct word by word. A plain assignment of this size becomes a call of memcpy, which goes byte by byte:
/// slow to run, and each byte is a step for the verifier.
///
/// # Safety
/// Both must be valid and aligned to 8; the size of `T` is a multiple of 8.
#[inline(always)]
pub unsafe fn copy<T>(dst: *mut T, src: *const T) {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: the caller's promise.
        unsafe {
            let value = core::ptr::read_volatile(src.cast::<u64>().add(word));
            core::ptr::write_volatile(dst.cast::<u64>().add(word), value);
        }
    }
}

/// `value`, or N when it is larger, in a way the verifier sees and the compiler does not optimise away.
#[inline(always)]
pub fn at_most<const N: usize>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: compares and assigns one register.
    unsafe {
        core::arch::asm!(
            "if {v} <= {n} goto +1",
            "{v} = {n}",
            v = inout(reg) value,
            n = const N,
        );
    }
    value
}

/// The state of the current process, unless it is clean or ignored.
#[inline(always)]
pub fn interesting(tgid: u32) -> Option<u32> {
    let state = PROCS.get_ptr(&tgid)?;
    // SAFETY: a live map value; a torn read is not possible for an aligned u32.
    let state = unsafe { (*state).state };
    (state == PROC_UNKNOWN || state == PROC_HOLDER || state == PROC_KEYS).then_some(state)
}

/// Is the process one of the agent's own?
#[inline(always)]
pub fn ignored(tgid: u32) -> bool {
    PROCS.get_ptr(&tgid).is_some_and(|state| {
        // SAFETY: a live map value.
        unsafe { (*state).state == PROC_IGNORED }
    })
}

/// The file behind a descriptor of the task; 0 when there is none.
#[inline(always)]
pub fn descriptor(task: u64, number: u32) -> u64 {
    let table = follow(follow(task, field(f::TASK_FILES)), field(f::FILES_FDT));
    if number >= read_or_zero::<u32>(table, field(f::FDTABLE_MAX)) {
        return 0;
    }
    let files = follow(table, field(f::FDTABLE_FD));
    if files == 0 {
        return 0;
    }
    follow(files + number as u64 * 8, 0)
}

/// The flag that says a payload was captured before user space knew the process.
#[inline(always)]
pub fn unclassified(state: u32) -> u16 {
    if state == PROC_UNKNOWN {
        flags::UNCLASSIFIED
    } else {
        0
    }
}

/// A reserved slot as a plain pointer.
#[inline(always)]
pub fn pointer<T>(entry: &mut RingBufEntry<T>) -> *mut T {
    let slot: &mut MaybeUninit<T> = entry;
    slot.as_mut_ptr()
}
