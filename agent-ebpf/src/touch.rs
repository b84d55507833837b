//! Whether a hook that comes before the act reports an act.

use crate::{
    arch::{
        call::{PREAD64, PREADV, READ, READV},
        is_inside, number,
    },
    maps::field,
    record::{Load, current_task, follow, read, read_or_zero, user_registers},
};
use aya_ebpf::helpers::bpf_probe_read_user;
use keytrail_abi::{
    globals::{MISSING, field as f},
    records::access,
};

// include/uapi/linux/magic.h.
pub const TMPFS: u64 = 0x0102_1994;

/// Are accesses to mappings of this file handled where no tracepoint reports them?
#[inline(always)]
pub fn faults_unreported(inode: u64) -> bool {
    // include/linux/fs.h.
    const S_DAX: u32 = 1 << 13;
    const HUGETLBFS: u64 = 0x9584_58f6;
    let magic: u64 = read_or_zero(follow(inode, field(f::INODE_SB)), field(f::SB_MAGIC));
    magic == TMPFS
        || magic == HUGETLBFS
        || read_or_zero::<u32>(inode, field(f::INODE_FLAGS)) & S_DAX != 0
}

/// Is it certain that nothing of the file gets to who reads it, as this kind of hook tells?
#[inline(always)]
pub fn gets_nothing(file: u64, inode: u64, how: u32) -> bool {
    match how {
        access::PERMISSION => reads_nothing(file, inode) || lacks_buffer(),
        access::READ => lacks_buffer(),
        _ => false,
    }
}

/// Is it certain that the system call the thread is in gets nothing of the file: because it asks for no bytes, or
/// begins at the end? Permission is checked before anybody knows. False where one cannot say.
#[inline(never)]
fn reads_nothing(file: u64, inode: u64) -> bool {
    let regs = user_registers();
    if !is_inside(regs) {
        return false;
    }
    let call = number(regs);
    let pos: u64 = match call {
        READ | READV => read_or_zero(file, field(f::FILE_POS)),
        PREAD64 | PREADV => read_or_zero(regs, field(f::REGS_ARG3)),
        _ => return false,
    };
    // The call may be reading another file, from which this one's layer is filled; and io_uring may have lent the
    // thread for a read of its own.
    let files = follow(current_task(), field(f::TASK_FILES));
    let table = follow(follow(files, field(f::FILES_FDT)), field(f::FDTABLE_FD));
    let descriptor: u64 = read_or_zero(regs, field(f::REGS_ARG0));
    if table == 0 || follow(table + (descriptor & 0xffff_ffff) * 8, 0) != file {
        return false;
    }
    if (call == READ || call == PREAD64) && read::<u64>(regs, field(f::REGS_ARG2)) == Some(0) {
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

/// Is it certain that the system call the thread is in puts nothing into the memory of its process, because there is none where
/// it wants the bytes? Pages are looked up before they are copied. Only for the first page, which nobody may map
/// (`vm.mmap_min_addr`, 4,096 at least where it is set): that a page higher up is not there may mean that it was not touched
/// yet. And only by what stands in registers: the vector of readv is in memory that another thread may write.
#[inline(never)]
fn lacks_buffer() -> bool {
    const MMAP_MIN: u64 = 4_096;
    let regs = user_registers();
    if !is_inside(regs) || !matches!(number(regs), READ | PREAD64) {
        return false;
    }
    let Some(buffer) = read::<u64>(regs, field(f::REGS_ARG1)) else {
        return false;
    };
    // SAFETY: the helper checks the address.
    buffer < MMAP_MIN && unsafe { bpf_probe_read_user(buffer as *const u8) }.is_err()
}

/// Does the kernel take bytes now, or wait until it can? The hooks come before its own checks, with the socket locked,
/// so what is asked here holds until then (net/ipv4/tcp.c: `tcp_sendmsg_locked`). True where one cannot say. `known` is the
/// socket as the hook gives it, `sk` the same as a number.
#[inline(never)]
pub fn takes_bytes<L: Load>(known: u64, sk: u64, flags: u32) -> bool {
    // include/linux/socket.h, include/net/tcp_states.h, include/net/sock.h.
    const MSG_DONTWAIT: u32 = 0x40;
    const MSG_FASTOPEN: u32 = 0x2000_0000;
    const ESTABLISHED: u8 = 1;
    const SYN_SENT: u8 = 2;
    const SYN_RECV: u8 = 3;
    const CLOSE_WAIT: u8 = 8;
    const SEND_SHUTDOWN: u8 = 2;
    if field(f::SOCK_STATE) == MISSING {
        return true;
    }
    let state: u8 = L::load(known, field(f::SOCK_STATE));
    // Connects, with the bytes in its SYN.
    if flags & MSG_FASTOPEN != 0 {
        return true;
    }
    if L::load::<u8>(known, field(f::SOCK_SHUTDOWN)) & SEND_SHUTDOWN != 0
        || L::load::<u32>(known, field(f::SOCK_ERR)) != 0
    {
        return false;
    }
    let waits = flags & MSG_DONTWAIT == 0;
    match state {
        // Kernel TLS keeps what finds no room and sends it later, from a thread of its own.
        ESTABLISHED | CLOSE_WAIT | SYN_RECV => {
            waits || follow(sk, field(f::SOCK_ULP)) != 0 || has_room::<L>(known, sk)
        }
        SYN_SENT => {
            // Bytes go with a SYN that was put off for them (TCP_FASTOPEN_CONNECT); else its number is used up.
            let next: u32 = read_or_zero(sk, field(f::TCP_WRITE_SEQ));
            let una: u32 = read_or_zero(sk, field(f::TCP_SND_UNA));
            waits || field(f::TCP_SND_UNA) == MISSING || next != una.wrapping_add(1)
        }
        _ => false,
    }
}

/// May the socket's buffer take a byte? Beyond its limit there is room in the buffer that is filled at present only.
#[inline(always)]
fn has_room<L: Load>(known: u64, sk: u64) -> bool {
    if field(f::SOCK_WMEM_QUEUED) == MISSING || field(f::SOCK_SNDBUF) == MISSING {
        return true;
    }
    let queued: i32 = L::load(known, field(f::SOCK_WMEM_QUEUED));
    if queued < L::load(known, field(f::SOCK_SNDBUF)) {
        return true;
    }
    let tail = follow(sk, field(f::SOCK_WRITE_TAIL));
    if tail == 0 || field(f::SOCK_WRITE_QUEUE) == MISSING {
        return true;
    }
    if tail == sk + field(f::SOCK_WRITE_QUEUE) as u64 {
        return false;
    }
    let (Some(filled), Some(segments), Some(mss), Some(most)) = (
        read::<u32>(tail, field(f::SKB_LEN)),
        read::<u16>(sk, field(f::TCP_GSO_SEGS)),
        read::<u32>(sk, field(f::TCP_MSS_CACHE)),
        read::<u32>(sk, field(f::SOCK_GSO_MAX_SIZE)),
    ) else {
        return true;
    };
    // As large as a buffer may grow, unless the peer's window allows more by now.
    let goal = if segments > 1 { segments as u64 } else { 1 } * mss as u64;
    (filled as u64) < goal || most as u64 >= goal + mss as u64
}
