//! Where a send over a Unix socket or by UDP went: names, addresses, and who is at the other end.

use crate::{
    connection::{AF_INET6, endpoints},
    maps::{MESSAGES, MessageState, field},
    message::{AF_INET, AF_UNIX},
    record::{at_most, follow, read_or_zero},
};
use aya_ebpf::helpers::{
    bpf_probe_read_user,
    generated::{bpf_probe_read_kernel, bpf_probe_read_user as read_user},
};
use keytrail_abi::{
    Endpoints, Kind, MessageSend, UNIX_NAME_MAX,
    globals::{MISSING, field as f},
};

/// include/linux/net.h.
const SOCK_DGRAM: u16 = 2;

/// Fills in where the send that `MESSAGES` has for the thread went: 1 when this side accepted the connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_peer(thread: u64, sk: u64) -> u64 {
    let Some(entry) = MESSAGES.get_ptr_mut(&thread) else {
        return 0;
    };
    // SAFETY: a live map value that belongs to this thread.
    let entry = unsafe { &mut *entry };
    entry.record.peer_start_ns = 0;
    entry.record.peer_tgid = 0;
    entry.record.name_len = 0;
    entry.record.pad = 0;
    entry.record.sock_type = read_or_zero(sk, field(f::SOCK_TYPE));
    if entry.record.header.kind == Kind::UDP_SEND {
        // SAFETY: a live map value.
        unsafe { endpoints(&raw mut entry.record.ends, sk) };
        udp_peer(entry);
        return 0;
    }
    entry.record.ends = Endpoints {
        sock: sk,
        family: AF_UNIX,
        net_ns: read_or_zero(follow(sk, field(f::SOCK_NET)), field(f::NET_INUM)),
        ..Endpoints::default()
    };
    unix_peer(entry, sk)
}

/// A datagram that was given an address went there, whatever the socket is connected to.
#[inline(always)]
fn udp_peer(entry: &mut MessageState) {
    if entry.address == 0 {
        return;
    }
    let ends = &mut entry.record.ends;
    let own = ends.family;
    ends.family = 0;
    ends.peer = [0; 16];
    ends.peer_port = 0;
    // struct sockaddr_in and sockaddr_in6 (UAPI): family, port, and the address at 4 or at 8.
    // SAFETY: the helper checks the addresses.
    let Ok([family, port]) = (unsafe { bpf_probe_read_user(entry.address as *const [u16; 2]) })
    else {
        return;
    };
    // net/ipv4/udp.c takes AF_UNSPEC for AF_INET.
    if family == AF_INET || family == 0 && own == AF_INET {
        // SAFETY: as above.
        if let Ok(ip) = unsafe { bpf_probe_read_user((entry.address + 4) as *const u32) } {
            // SAFETY: the address has sixteen bytes and is aligned to eight.
            unsafe { *(&raw mut ends.peer).cast::<u32>() = ip };
            // What it is sent from need not be of this family.
            if own != AF_INET {
                ends.local = [0; 16];
            }
            ends.family = AF_INET;
            ends.peer_port = u16::from_be(port);
        }
    } else if family == AF_INET6 && own == AF_INET6 {
        // SAFETY: as above.
        if let Ok(ip) = unsafe { bpf_probe_read_user((entry.address + 8) as *const [u8; 16]) } {
            ends.peer = ip;
            ends.family = AF_INET6;
            ends.peer_port = u16::from_be(port);
        }
    }
}

/// Name and peer of a Unix socket: 1 when this side accepted the connection.
#[inline(always)]
fn unix_peer(entry: &mut MessageState, sk: u64) -> u64 {
    let record = &mut entry.record;
    let peer = follow(sk, field(f::UNIX_PEER));
    let theirs = follow(peer, field(f::UNIX_ADDR));
    let datagram = record.sock_type == SOCK_DGRAM;
    if datagram && entry.address != 0 {
        // What follows the two bytes of the family.
        let length = entry.address_len.saturating_sub(2);
        let at = entry.address + 2;
        record.name_len = copy_name(&mut record.name, at, length, true);
        return 0;
    }
    // An accepted socket has the name of the one that listens; who connects has none, as a rule.
    let ours = follow(sk, field(f::UNIX_ADDR));
    let accepted = !datagram && theirs == 0 && ours != 0;
    let address = if accepted { ours } else { theirs };
    if address != 0 && field(f::UNIX_ADDR_NAME) != MISSING {
        let length: u32 = read_or_zero(address, field(f::UNIX_ADDR_LEN));
        let at = address + field(f::UNIX_ADDR_NAME) as u64 + 2;
        record.name_len = copy_name(&mut record.name, at, length.saturating_sub(2) as u64, false);
    }
    // Of datagrams nobody notes it.
    if !datagram {
        let pid = follow(sk, field(f::SOCK_PEER_PID));
        process_of(record, pid);
    }
    accepted as u64
}

/// Copies a name of this length. Returns how much of it there is.
#[inline(always)]
fn copy_name(name: &mut [u8; UNIX_NAME_MAX], at: u64, length: u64, user: bool) -> u16 {
    let length = at_most::<UNIX_NAME_MAX>(length);
    let to = (&raw mut *name).cast();
    // SAFETY: `length` is at most what `name` has; the helpers check the source.
    let failed = unsafe {
        if user {
            read_user(to, length as u32, at as *const _)
        } else {
            bpf_probe_read_kernel(to, length as u32, at as *const _)
        }
    };
    if failed == 0 { length as u16 } else { 0 }
}

/// The thread group that a `struct pid` names.
#[inline(always)]
fn process_of(record: &mut MessageSend, pid: u64) {
    // include/linux/pid.h: PIDTYPE_TGID; a list head is one pointer, a node two.
    const TGID: u64 = 1;
    let numbers = field(f::PID_NUMBERS);
    if pid == 0 || numbers == MISSING || field(f::UPID_NR) == MISSING {
        return;
    }
    // The first number is that of the outermost namespace.
    record.peer_tgid = read_or_zero(pid + numbers as u64, field(f::UPID_NR));
    let (tasks, links) = (field(f::PID_TASKS), field(f::TASK_PID_LINKS));
    if tasks == MISSING || links == MISSING {
        return;
    }
    let node = follow(pid + TGID * 8, tasks);
    if node != 0 {
        let task = node - (links as u64 + TGID * 16);
        record.peer_start_ns = read_or_zero(task, field(f::TASK_START_BOOTTIME));
    }
}
