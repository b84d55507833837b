//! Sockets of all network namespaces when the capture begins, with the processes that have them open.

use super::processes::Process;
use super::work::Work;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const CONNECTIONS: &str = "connections.jsonl";
/// Most bytes of one of the kernel's tables that are read, and most sockets that are written.
const MOST_BYTES: u64 = 64 << 20;
const MOST_SOCKETS: usize = 200_000;
/// States of include/net/tcp_states.h, from 1.
const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// One line a socket, of TCP and UDP.
pub fn write(work: &Work, processes: &[Process]) -> io::Result<()> {
    let owners = owners(processes);
    // One process of each namespace leads to its tables.
    let mut namespaces = BTreeMap::new();
    for process in processes.iter().filter(|p| p.net != 0) {
        namespaces.entry(process.net).or_insert(process.pid);
    }
    let mut file = work.create(CONNECTIONS)?;
    let mut left = MOST_SOCKETS;
    for (net, pid) in namespaces {
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let mut text = String::new();
            let table = fs::File::open(format!("/proc/{pid}/net/{protocol}"));
            // A namespace that is gone by now has no sockets.
            if table
                .and_then(|t| t.take(MOST_BYTES).read_to_string(&mut text))
                .is_err()
            {
                continue;
            }
            for socket in text.lines().skip(1).filter_map(parse) {
                if left == 0 {
                    let more =
                        json!({"omitted": format!("there were more than {MOST_SOCKETS} sockets")});
                    writeln!(file, "{more}")?;
                    return file.flush();
                }
                left -= 1;
                let line = json!({
                    "protocol": protocol.trim_end_matches('6'),
                    "local": end(socket.local),
                    "peer": if socket.peer.1 == 0 { None } else { Some(end(socket.peer)) },
                    "state": if protocol.starts_with("tcp") { socket.state } else { "" },
                    "uid": socket.uid,
                    "inode": socket.inode,
                    "namespace": net,
                    "pids": owners.get(&socket.inode).map_or(&[][..], Vec::as_slice),
                });
                writeln!(file, "{line}")?;
            }
        }
    }
    file.flush()
}

/// Which processes have which socket open.
fn owners(processes: &[Process]) -> HashMap<u64, Vec<u32>> {
    let mut owners: HashMap<u64, Vec<u32>> = HashMap::new();
    for process in processes {
        let fds = fs::read_dir(format!("/proc/{}/fd", process.pid));
        for fd in fds.into_iter().flatten().flatten() {
            let link = fs::read_link(fd.path()).unwrap_or_default();
            let inode = link
                .to_str()
                .and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                let pids = owners.entry(inode).or_default();
                if pids.last() != Some(&process.pid) {
                    pids.push(process.pid);
                }
            }
        }
    }
    owners
}

#[derive(Debug, PartialEq)]
struct Socket {
    local: (IpAddr, u16),
    peer: (IpAddr, u16),
    state: &'static str,
    uid: u32,
    inode: u64,
}

/// A line of /proc/net/tcp and its like (proc_net_tcp.rst of the kernel's documentation).
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let state = usize::from_str_radix(fields.next()?, 16).ok()?;
    let mut rest = fields.skip(3);
    let uid = rest.next()?.parse().ok()?;
    let inode = rest.nth(1)?.parse().ok()?;
    Some(Socket {
        local,
        peer,
        state: state
            .checked_sub(1)
            .and_then(|s| STATES.get(s))
            .copied()
            .unwrap_or(""),
        uid,
        inode,
    })
}

/// Words of 32 bits, each in the order of bytes of the host (little-endian on all that keytrail runs on).
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_le_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (n, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(n * 8)?.to_le_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

fn end((ip, port): (IpAddr, u16)) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let line = "   1: 0100007F:1F90 0200000A:01BB 01 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0 100 0 0 10 0";
        let socket = parse(line).unwrap();
        assert_eq!(end(socket.local), "127.0.0.1:8080");
        assert_eq!(end(socket.peer), "10.0.0.2:443");
        assert_eq!(
            (socket.state, socket.uid, socket.inode),
            ("established", 1000, 31337)
        );
        let six = "00000000000000000000000001000000:0016";
        assert_eq!(end(address(six).unwrap()), "[::1]:22");
        for bad in ["", "x", "1: 0100007F", "1: zz:1 zz:1 01"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_socket_of_ours_is_found_to_be_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let socket = text
            .lines()
            .skip(1)
            .filter_map(parse)
            .find(|s| s.local.1 == port)
            .unwrap();
        assert_eq!(socket.state, "listen");
        let mut all = super::super::processes::list();
        all.retain(|p| p.pid == std::process::id());
        assert_eq!(owners(&all)[&socket.inode], [std::process::id()]);
    }
}
