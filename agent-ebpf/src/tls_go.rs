//! Plaintext on its way into Go's own TLS: `crypto/tls.(*Conn).Write`, Go 1.17 and later.
//!
//! Arguments are in registers: the connection, the bytes, their number (`arch::go_write`). A goroutine changes
//! threads while it waits, so a send on the same thread proves nothing. But the connection holds the socket's own
//! number, and that number leads to the socket here and now.

use crate::{
    arch::go_write,
    connection::joined,
    maps::{CONNECTIONS, GO_SITES, field},
    record::{current_task, follow, interesting, read, read_or_zero},
    tls::{Socket, attach_cookie, capture},
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_probe_read_user},
    macros::uprobe,
    programs::ProbeContext,
};
use keytrail_abi::{
    GoSite, TlsCall,
    globals::{MISSING, field as f},
};

/// Words of what wraps a connection that are looked through for the connection itself.
const WRAPPER_WORDS: u64 = 8;

// func (c *Conn) Write(b []byte) (int, error)
#[uprobe]
pub fn tls_write_go(ctx: ProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(state) = interesting((thread >> 32) as u32) else {
        return 0;
    };
    let regs = ctx.as_ptr() as u64;
    let Some([session, buffer, total]) = go_write(regs) else {
        return 0;
    };
    if buffer == 0 || total == 0 || total > i64::MAX as u64 {
        return 0;
    }
    let cookie = attach_cookie(&ctx);
    let ip = read_or_zero(regs, field(f::REGS_IP));
    let socket = socket_of(session, ip, cookie as u32);
    if let Some(connection) = CONNECTIONS.get_ptr_mut(&socket.sock) {
        joined((thread >> 32) as u32, session, socket.sock, connection);
    }
    let call = TlsCall {
        tls_call: 0,
        tls_session: session,
        // SAFETY: no arguments.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        total,
        buffer,
        // No send of this thread is nested in the call for being of this thread.
        ret_slot: 0,
        ret_addr: 0,
    };
    capture(thread, state, call, cookie, socket)
}

/// The socket below a `*tls.Conn`, whose first field is a `net.Conn`: a `*net.TCPConn`, or one structure around such.
#[inline(always)]
fn socket_of(session: u64, ip: u64, site: u32) -> Socket {
    // SAFETY: a number of this attachment, and a value that is copied at once.
    let Some(site) = (unsafe { GO_SITES.get(&site) }).copied() else {
        return Socket::default();
    };
    let (table, data) = (user(session), user(session + 8));
    if is_tcp(table, ip, &site) {
        return by_connection(data);
    }
    // Something that wraps a connection begins with it, or nearly. Two would leave open which one it writes to.
    let mut found = 0;
    for word in 0..WRAPPER_WORDS {
        if is_tcp(user(data + word * 8), ip, &site) {
            let inner = user(data + word * 8 + 8);
            if found != 0 && found != inner {
                return Socket::default();
            }
            found = inner;
        }
    }
    by_connection(found)
}

/// Is this the method table of a `*net.TCPConn` as a `net.Conn`?
#[inline(always)]
fn is_tcp(table: u64, ip: u64, site: &GoSite) -> bool {
    // The table's header (24 bytes), then the methods by name: Close, LocalAddr, Read, RemoteAddr, SetDeadline,
    // SetReadDeadline, SetWriteDeadline, Write.
    const WRITE: u64 = 24 + 7 * 8;
    if table == 0 {
        return false;
    }
    let method = user(table + WRITE);
    if method == 0 {
        return false;
    }
    let method = method.wrapping_sub(ip);
    (site.tcp_write != 0 && method == site.tcp_write)
        || (site.conn_write != 0 && method == site.conn_write)
}

/// The socket of a `*net.TCPConn`: `fd *netFD`, in which `pfd poll.FD` has a lock of 16 bytes and then the number.
#[inline(always)]
fn by_connection(conn: u64) -> Socket {
    const NUMBER: u64 = 16;
    if conn == 0 {
        return Socket::default();
    }
    let descriptor = user(conn);
    if descriptor == 0 {
        return Socket::default();
    }
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user((descriptor + NUMBER) as *const u64) } {
        Ok(number) => by_number(number),
        Err(_) => Socket::default(),
    }
}

/// The TCP socket that an open file of the current process is.
#[inline(always)]
fn by_number(number: u64) -> Socket {
    // include/uapi/linux/stat.h.
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let none = Socket::default();
    let files = follow(current_task(), field(f::TASK_FILES));
    let table = follow(files, field(f::FILES_FDT));
    let (Some(most), open) = (
        read::<u32>(table, field(f::FDTABLE_MAX)),
        follow(table, field(f::FDTABLE_FD)),
    ) else {
        return none;
    };
    if open == 0 || number >= most as u64 {
        return none;
    }
    let file = follow(open + number * 8, 0);
    let mode: u16 = read_or_zero(follow(file, field(f::FILE_INODE)), field(f::INODE_MODE));
    if mode & S_IFMT != S_IFSOCK {
        return none;
    }
    let sk = follow(follow(file, field(f::FILE_PRIVATE)), field(f::SOCKET_SK));
    let family: u16 = read_or_zero(sk, field(f::SOCK_FAMILY));
    if sk == 0 || (family != AF_INET && family != AF_INET6) {
        return none;
    }
    let peer: u16 = read_or_zero(sk, field(f::SOCK_DPORT));
    // Not connected, or not of a kind that has ports: nothing of TLS goes there.
    if peer == 0 || field(f::SOCK_DPORT) == MISSING {
        return none;
    }
    Socket {
        sock: sk,
        local_port: read_or_zero(sk, field(f::SOCK_NUM)),
        peer_port: u16::from_be(peer),
    }
}

/// A word of the program's memory, zero where there is none.
#[inline(always)]
fn user(address: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}
