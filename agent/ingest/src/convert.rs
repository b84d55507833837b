//! From the records of the kernel side to the types of the model.

use crate::decode;
use keytrail_abi as abi;
use keytrail_model::{Endpoints, Pid, PipeId, PipesSeen, TICK_NS, TaskInfo};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const IPPROTO_UDP: u16 = 17;

pub fn task_info(h: &abi::Header) -> TaskInfo {
    TaskInfo {
        boot_ns: h.boot_ns,
        pid: pid(h.tgid, h.start_ns),
        tid: h.tid,
        uid: h.uid,
        euid: h.euid,
        gid: h.gid,
        cgroup_id: h.cgroup_id,
        comm: decode::name(&h.comm),
    }
}

pub fn pid(tgid: u32, start_ns: u64) -> Pid {
    Pid {
        tgid,
        start: start_ns / TICK_NS,
    }
}

pub fn pipes(r: &abi::Pipes) -> PipesSeen {
    let who = |tgid, start_ns| (tgid != 0).then(|| pid(tgid, start_ns));
    PipesSeen {
        at: task_info(&r.header),
        stdin: pipe(r.stdin),
        stdout: pipe(r.stdout),
        feeder: who(r.feeder, r.feeder_start_ns),
        taker: who(r.taker, r.taker_start_ns),
        opened: r.opened != 0,
    }
}

/// A pipe by its inode; that of a stream that is none is 0.
pub fn pipe(id: abi::FileId) -> Option<PipeId> {
    (id.ino != 0).then(|| PipeId {
        device: u64::from(id.dev),
        inode: id.ino,
    })
}

pub fn endpoints(e: &abi::Endpoints) -> Endpoints {
    Endpoints {
        sock: e.sock,
        local_ip: ip(e.family, &e.local),
        local_port: e.local_port,
        peer_ip: ip(e.family, &e.peer),
        peer_port: e.peer_port,
        protocol: match (e.family, e.protocol) {
            (AF_UNIX, _) => "unix",
            (_, IPPROTO_UDP) => "udp",
            _ => "tcp",
        }
        .to_owned(),
        net_ns: e.net_ns,
        ..Endpoints::default()
    }
}

/// IPv4 addresses mapped into IPv6 are shown as what they are.
fn ip(family: u16, bytes: &[u8; 16]) -> String {
    if family == 0 || family == AF_UNIX {
        return String::new();
    }
    if family == AF_INET {
        return Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_string();
    }
    IpAddr::V6(Ipv6Addr::from(*bytes))
        .to_canonical()
        .to_string()
}
