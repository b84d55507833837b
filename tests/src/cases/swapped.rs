//! Sockets that change places under a program: another connection with the same number, ciphertext that is handed out in
//! another order, one socket with several far ends, a descriptor in the place of another. A secret is said to have gone where it
//! went, or nowhere in particular.

use super::{sends_tls::LOOPBACK, sent};
use crate::{
    agent::Agent,
    command::act,
    events::{Ask as _, list, of_kind},
    machine::{Scratch, turn},
    plant,
    server::{Sink, TlsServer},
};
use std::net::UdpSocket;

const PORTS: usize = 4;

/// What every story begins with.
const HEAD: &str = "import os, socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
ports = [int(p) for p in sys.argv[1:]]
def request(i):
    token = os.environ[f'T{i}_GITHUB_TOKEN']
    return f'GET / HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n'.encode()
def clear(i):
    return socket.create_connection(('127.0.0.1', ports[i]))
def tls(i):
    return context.wrap_socket(clear(i))
def in_memory(i):
    read, write, raw = ssl.MemoryBIO(), ssl.MemoryBIO(), clear(i)
    session = context.wrap_bio(read, write)
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            raw.sendall(write.read())
            read.write(raw.recv(65536))
    raw.sendall(write.read())
    return session, write, raw
def crossed(pad):
    all = [in_memory(i) for i in range(4)]
    for i in range(4):
        all[i][0].write(request(i) + b'.' * (pad * i))
    time.sleep(0.05)
    for i in (2, 0, 3, 1):
        all[i][2].sendall(all[i][1].read())
    time.sleep(0.2)
";

/// Which far ends a story talks to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Tls,
    Clear,
    Datagrams,
}

struct Story {
    name: &'static str,
    to: To,
    code: &'static str,
    /// Of the secret of each number, the port of this number.
    ports: &'static [usize],
    /// It is known where each went.
    known: bool,
}

const STORIES: &[Story] = &[
    Story {
        name: "a number again, in clear",
        to: To::Clear,
        code: "for i in range(8):\n    s = clear(i % 4)\n    s.sendall(request(i))\n    s.close()\n",
        ports: &[0, 1, 2, 3, 0, 1, 2, 3],
        known: true,
    },
    Story {
        name: "a number again, over TLS",
        to: To::Tls,
        code: "for i in range(8):\n    s = tls(i % 4)\n    s.sendall(request(i))\n    s.close()\n",
        ports: &[0, 1, 2, 3, 0, 1, 2, 3],
        known: true,
    },
    Story {
        name: "descriptors in each other's place, in clear",
        to: To::Clear,
        code: "a, b = clear(0), clear(1)
os.write(a.fileno(), request(0))
kept = os.dup(a.fileno())
os.dup2(b.fileno(), a.fileno())
os.write(a.fileno(), request(1))
os.write(kept, request(2))
time.sleep(0.1)\n",
        ports: &[0, 1, 0],
        known: true,
    },
    Story {
        name: "descriptors in each other's place, under TLS",
        to: To::Tls,
        code: "a, b = tls(0), tls(1)
kept = os.dup(a.fileno())
os.dup2(b.fileno(), a.fileno())
os.dup2(kept, b.fileno())
a.sendall(request(0))
b.sendall(request(1))
time.sleep(0.1)\n",
        ports: &[1, 0],
        known: true,
    },
    Story {
        name: "in another order, of different lengths",
        to: To::Tls,
        code: "crossed(1)\n",
        ports: &[0, 1, 2, 3],
        known: true,
    },
    Story {
        name: "in another order, of one length",
        to: To::Tls,
        code: "crossed(0)\n",
        ports: &[0, 1, 2, 3],
        known: false,
    },
    Story {
        name: "one socket, several far ends",
        to: To::Datagrams,
        code: "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(6):
    s.sendto(request(i), ('127.0.0.1', ports[i % 4]))\n",
        ports: &[0, 1, 2, 3, 0, 1],
        known: true,
    },
    Story {
        name: "children with a socket each",
        to: To::Clear,
        code: "all = [clear(i) for i in range(3)]
for i in range(3):
    if os.fork() == 0:
        all[2 - i].sendall(request(i))
        os._exit(0)
for i in range(3):
    os.wait()\n",
        ports: &[2, 1, 0],
        known: true,
    },
];

pub fn no_secret_goes_to_anothers_place() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::of_ports(&scratch.join("server"), PORTS);
    let sinks: Vec<Sink> = (0..PORTS).map(|_| Sink::silent()).collect();
    let datagrams: Vec<UdpSocket> = (0..PORTS)
        .map(|_| UdpSocket::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    let agent = Agent::start(&scratch);
    for story in STORIES {
        let ports: Vec<u16> = match story.to {
            To::Tls => server.ports().collect(),
            To::Clear => sinks.iter().map(|sink| sink.port).collect(),
            To::Datagrams => {
                let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
                datagrams.iter().map(port).collect()
            }
        };
        let mut python = act("python3").args(["-c", &format!("{HEAD}{}", story.code)]);
        for port in &ports {
            python = python.arg(port.to_string());
        }
        for n in 0..story.ports.len() {
            let name = format!("T{n}_GITHUB_TOKEN");
            python = python.env(name, plant::github().value);
        }
        let done = python.run().ok();
        told_right(&agent, done.pid, story, &ports);
    }
}

fn told_right(agent: &Agent, root: u32, story: &Story, ports: &[u16]) {
    agent.wait_idle();
    let exposed = of_kind(&agent.tree(root), "credential_exposed");
    for (n, to) in story.ports.iter().enumerate() {
        let variable = format!("T{n}_GITHUB_TOKEN");
        let of = exposed.iter().find(|e| e.env_name() == variable).unwrap();
        let fingerprint = of.fingerprint().to_owned();
        let own = agent.expect(&format!("{}: {variable}", story.name), root, |e| {
            e.is("credential_sent")
                && e.in_tree(root)
                && e.grade() == "observed"
                && e.fingerprint() == fingerprint
        });
        let mut all = sent(agent, root);
        all.retain(|e| e.fingerprint() == fingerprint && e.grade() == "observed");
        assert_eq!(all.len(), 1, "{}:\n{}", story.name, list(&all));
        let (ip, port) = own.peer();
        if own.found_by() == "unknown" {
            let text = own.brief();
            assert!(
                !story.known && (ip, port) == ("", 0),
                "{}: {text}",
                story.name
            );
        } else {
            let right = LOOPBACK.contains(&ip) && port == u32::from(ports[*to]);
            let (name, want) = (story.name, ports[*to]);
            assert!(right, "{name}: not {want}:\n  {}", own.brief());
        }
    }
}
