//! Sends over Unix sockets and by UDP.

use crate::host::{Seen, contains, read};
use keytrail_abi::{Kind, MessageSend, PAYLOAD_MAX, header::flags};
use keytrail_model::Signal;
use keytrail_sensor::Tier;
use std::process::Command;

/// Has this kernel a hook for the signal? Of these three the base tier's is from 6.3, and 5.10 does not tell where the bytes
/// are.
pub fn are_reported(signal: Signal, tier: Option<Tier>) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let least = if tier == Some(Tier::Base) {
        (6, 3)
    } else {
        (5, 15)
    };
    !matches!(signal, Signal::UnixSend | Signal::UdpSend | Signal::Answer) || version >= least
}

#[derive(Debug)]
struct Message {
    record: MessageSend,
    data: Vec<u8>,
}

impl Message {
    fn name(&self) -> &[u8] {
        &self.record.name[..usize::from(self.record.name_len)]
    }

    fn is(&self, flag: u16) -> bool {
        self.record.header.flags & flag != 0
    }
}

fn messages(seen: &Seen, tgid: u32, kind: u16) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    for bytes in seen.of(tgid, kind) {
        let record: MessageSend = read(bytes);
        let data = bytes[size_of::<MessageSend>()..][..record.data_len as usize].to_vec();
        assert_eq!(
            record.header.len as usize,
            size_of::<MessageSend>() + data.len()
        );
        // A send of several pieces comes in as many records.
        match all.last_mut() {
            Some(first) if record.header.flags & flags::CONTINUED != 0 => {
                assert_eq!(record.offset as usize, first.data.len());
                first.data.extend(data);
                first.record.header.flags |= record.header.flags;
            }
            _ => all.push(Message { record, data }),
        }
    }
    all
}

/// What a Python script sent of a kind; `None` where nothing reports it.
fn sent(kind: u16, script: &str) -> Option<Vec<Message>> {
    let mut host = crate::host::Host::new()?;
    let signal = Signal::of_word(Kind::name(kind)).unwrap();
    if !are_reported(signal, None) {
        eprintln!("skipped: this kernel does not report {signal}");
        return None;
    }
    let script = format!("import array,ctypes,os,socket,struct,sys\n{script}");
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
    let seen = host.drain_all();
    assert!(seen.finished(pid), "{script}");
    Some(messages(&seen, pid, kind))
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|m| String::from_utf8_lossy(&m.data).into_owned())
        .collect()
}

#[test]
fn every_way_of_writing_to_a_unix_socket() {
    let script = "a,b=socket.socketpair()\n\
         a.send(b'send')\nos.write(a.fileno(),b'write')\nos.writev(a.fileno(),[b'wr',b'',b'itev'])\n\
         a.sendmsg([b'send',b'msg'])\na.sendall(b'x'*100000)";
    // The buffer of the pair is large enough for all of it.
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    let totals: Vec<u64> = sent.iter().map(|m| m.record.total).collect();
    assert_eq!(totals, [4, 5, 6, 7, 100_000]);
    assert_eq!(texts(&sent)[..4], ["send", "write", "writev", "sendmsg"]);
    assert_eq!(sent[4].data.len(), PAYLOAD_MAX);
    assert!(sent[4].is(flags::TRUNCATED) && !sent[3].is(flags::TRUNCATED));
    for message in &sent {
        assert_eq!((message.record.ends.family, message.name()), (1, &b""[..]));
        assert_ne!(message.record.socket_ino, 0);
        // Who made the pair.
        assert_eq!(message.record.peer_tgid, message.record.header.tgid);
        assert_eq!(message.record.peer_start_ns, message.record.header.start_ns);
    }
}

#[test]
fn both_sides_of_a_unix_connection_have_its_name() {
    let script = "l=socket.socket(socket.AF_UNIX)\nl.bind('\\0keytrail-both-%d'%os.getpid())\nl.listen()\n\
         child=os.fork()\n\
         if not child:\n  c=socket.socket(socket.AF_UNIX)\n  c.connect(l.getsockname())\n  c.recv(1)\n  os._exit(0)\n\
         s,_=l.accept()\ns.send(b'answer')\nos.waitpid(child,0)\n\
         c=socket.socket(socket.AF_UNIX)\nc.connect(l.getsockname())\nc.send(b'ask')";
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    assert_eq!(texts(&sent), ["answer", "ask"]);
    let me = sent[0].record.header.tgid;
    let name = format!("\0keytrail-both-{me}");
    assert!(sent.iter().all(|m| m.name() == name.as_bytes()), "{sent:?}");
    assert_eq!(
        sent.iter()
            .map(|m| m.is(flags::ACCEPTED))
            .collect::<Vec<_>>(),
        [true, false]
    );
    let peers: Vec<u32> = sent.iter().map(|m| m.record.peer_tgid).collect();
    assert!(peers[0] != me && peers[0] != 0, "{peers:?}");
    assert_eq!(peers[1], me);
}

#[test]
fn unix_datagrams_with_and_without_a_name() {
    let script = "n='\\0keytrail-dgram-%d'%os.getpid()\n\
         r=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\nr.bind(n)\n\
         s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.sendto(b'to',n)\ns.connect(n)\ns.send(b'connected')\n\
         s.sendmsg([b'm',b'sg'],[],0,n)\n\
         try: s.sendto(b'nobody','\\0keytrail-nobody')\n\
         except OSError: pass";
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    // What was refused did not leave.
    assert_eq!(texts(&sent), ["to", "connected", "msg"]);
    let name = format!("\0keytrail-dgram-{}", sent[0].record.header.tgid);
    for message in &sent {
        assert_eq!(message.name(), name.as_bytes(), "{message:?}");
        assert_eq!((message.record.sock_type, message.record.peer_tgid), (2, 0));
    }
}

#[test]
fn datagrams_and_where_they_went() {
    let script = "r=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nr.bind(('127.0.0.1',0))\nq=r.getsockname()[1]\n\
         s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.sendto(b'to %d'%q,('127.0.0.1',q))\n\
         s.connect(('127.0.0.1',q))\ns.send(b'on %d'%q)\ns.sendmsg([b'ms',b'g %d'%q],[],0,('127.0.0.2',q))\n\
         v=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\nv.sendto(b'v6 %d'%q,('::ffff:127.0.0.1',q))\n\
         try:\n  s.send(b'x'*70000)\n  sys.exit(1)\n\
         except OSError: pass";
    let Some(sent) = sent(Kind::UDP_SEND, script) else {
        return;
    };
    assert_eq!(sent.len(), 4, "{sent:?}");
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    for (message, (word, ip)) in sent.iter().zip([
        ("to", &[127, 0, 0, 1][..]),
        ("on", &[127, 0, 0, 1]),
        ("msg", &[127, 0, 0, 2]),
        ("v6", &mapped),
    ]) {
        let ends = &message.record.ends;
        let text = String::from_utf8_lossy(&message.data).into_owned();
        assert_eq!(text, format!("{word} {}", ends.peer_port));
        assert_eq!(&ends.peer[..ip.len()], ip, "{text}");
        assert_eq!(ends.protocol, 17);
        assert_eq!(message.record.total, text.len() as u64);
    }
}

/// glibc's resolver asks for both kinds of addresses with one sendmmsg.
#[test]
fn the_messages_of_a_batch_are_distinguished() {
    let script = "a,b=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
         class V(ctypes.Structure): _fields_=[('base',ctypes.c_char_p),('len',ctypes.c_size_t)]\n\
         class M(ctypes.Structure): _fields_=[('name',ctypes.c_void_p),('namelen',ctypes.c_uint),\
         ('iov',ctypes.POINTER(V)),('iovlen',ctypes.c_size_t),('control',ctypes.c_void_p),\
         ('controllen',ctypes.c_size_t),('flags',ctypes.c_int),('pad',ctypes.c_uint),\
         ('len',ctypes.c_uint),('end',ctypes.c_uint)]\n\
         words=[b'one',b'',b'three',b'fourth']\n\
         vs=[V(w,len(w)) for w in words]\n\
         ms=(M*4)(*[M(iov=ctypes.pointer(v),iovlen=1) for v in vs])\n\
         libc=ctypes.CDLL(None)\n\
         for n in range(2): assert libc.sendmmsg(a.fileno(),ms,4,0)==4\n\
         assert b.recv(9)==b'one'";
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    // Nothing was in the second.
    let once = ["one", "three", "fourth"];
    assert_eq!(texts(&sent), [once, once].concat());
}

#[test]
fn what_does_not_leave_by_other_sockets_was_not_sent() {
    let script = "a,b=socket.socketpair()\nb.close()\n\
         try: a.send(b'dead')\n\
         except OSError: pass\n\
         a,b=socket.socketpair()\na.setblocking(False)\nn=0\n\
         try:\n  while True: n+=a.send(b'f'*4096)\n\
         except BlockingIOError: pass\n\
         print(n)\nos.write(2,b'')\na.close()\nc=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
         d=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\nd.bind('\\0keytrail-n-%d'%os.getpid())\n\
         c.sendto(b'%d'%n,d.getsockname())";
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    let (count, filled) = sent.split_last().unwrap();
    assert!(
        filled.iter().all(|m| m.data.starts_with(b"f")),
        "{filled:?}"
    );
    let bytes: u64 = filled.iter().map(|m| m.record.total).sum();
    assert_eq!(String::from_utf8_lossy(&count.data), bytes.to_string());
}

/// Pages of a file are not in the arguments of the call.
#[test]
fn what_the_call_does_not_show_is_a_send_without_data() {
    let script = "a,b=socket.socketpair()\nf=os.open('/etc/passwd',0)\nn=os.sendfile(a.fileno(),f,0,64)\n\
         assert b.recv(64)==os.pread(f,64,0)";
    let Some(sent) = sent(Kind::UNIX_SEND, script) else {
        return;
    };
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].is(flags::UNREADABLE), "{sent:?}");
    assert_eq!((sent[0].record.total, sent[0].data.len()), (64, 0));
}

/// Connections have hooks of their own.
#[test]
fn a_connection_is_reported_once() {
    let Some(mut host) = crate::host::Host::new() else {
        return;
    };
    let script = "import socket,sys\nl=socket.socket()\nl.bind(('127.0.0.1',0))\nl.listen()\n\
         c=socket.create_connection(l.getsockname())\nc.send(b'over tcp')\n";
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", script]));
    let seen = host.drain_all();
    assert_eq!(seen.sends(pid).len(), 1);
    for kind in [Kind::UNIX_SEND, Kind::UDP_SEND] {
        let sent = messages(&seen, pid, kind);
        assert!(
            !sent.iter().any(|m| contains(&m.data, b"over tcp")),
            "{sent:?}"
        );
    }
}
