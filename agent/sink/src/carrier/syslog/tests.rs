//! Receivers of the test; real ones are asked in the end-to-end tests.

use super::*;
use crate::carrier::certificate::certificate;
use crate::format::samples;
use crate::spec::SyslogAddress;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

fn items(lines: &[&str]) -> Vec<Item> {
    let item = |line: &&str| Item {
        event: Arc::new(samples::sent()),
        line: line.as_bytes().to_vec(),
    };
    lines.iter().map(item).collect()
}

fn syslog(address: SyslogAddress) -> Syslog {
    by_tls(address, None)
}

fn by_tls(address: SyslogAddress, ca_file: Option<PathBuf>) -> Syslog {
    let spec = SyslogSpec {
        address,
        ca_file,
        timeout: TIMEOUT,
    };
    Syslog::new(spec, "a host.example")
}

/// What a server whose name is this says of itself, and a file that vouches for it.
fn server_of(name: &str, dir: &std::path::Path) -> (Arc<ServerConfig>, PathBuf) {
    let (pem, config) = certificate(name, &[]);
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, pem).unwrap();
    (Arc::new(config), file)
}

/// Takes a connection, reads so many bytes of what it says, and ends it when the test says so: with TLS's own word for it, or
/// without.
fn reads(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    rounds: Vec<(usize, bool)>,
) -> (Sender<()>, std::thread::JoinHandle<Vec<String>>) {
    let (end, ends) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut texts = Vec::new();
        for (length, in_order) in rounds {
            let (peer, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), peer);
            let mut text = vec![0; length];
            if stream.read_exact(&mut text).is_ok() {
                texts.push(String::from_utf8(text).unwrap());
                if ends.recv().is_err() {
                    // The test is over: its own end is in order.
                    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
                }
            }
            if in_order {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
        texts
    });
    (end, thread)
}

fn counted(line: &str) -> String {
    let message = message(&samples::sent(), line.as_bytes(), "ahost.example");
    format!("{} {}", message.len(), String::from_utf8(message).unwrap())
}

/// Until the receiver's end is known.
fn until_it_fails(syslog: &mut Syslog) -> Failure {
    for _ in 0..500 {
        match syslog.deliver(&items(&["more"])) {
            Err(failure) => return failure,
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("nothing failed");
}

#[test]
fn octets_are_counted_inside_tls_and_an_end_without_a_word_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (config, ca) = server_of("localhost", dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = counted("one") + &counted("two");
    let (end, thread) = reads(
        listener,
        config,
        vec![(text.len(), false), (text.len(), true), (text.len(), true)],
    );
    let address = SyslogAddress::Tls(format!("localhost:{port}"));
    let mut syslog = by_tls(address, Some(ca));
    assert!(syslog.deliver(&items(&["one", "two"])).unwrap().fresh);
    end.send(()).unwrap();
    let failed = until_it_fails(&mut syslog);
    assert!(
        matches!(failed, Failure::Later { rewind: true, .. }),
        "{failed:?}"
    );
    assert!(syslog.deliver(&items(&["one", "two"])).unwrap().fresh);
    end.send(()).unwrap();
    // It has read everything and says goodbye: another connection, and nothing comes twice.
    let Some(Socket::Connected(connection)) = &mut syslog.socket else {
        panic!("no connection");
    };
    let deadline = Instant::now() + TIMEOUT;
    while !matches!(connection.peer(), Peer::Closed) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    syslog.socket = None;
    assert!(syslog.deliver(&items(&["one", "two"])).unwrap().fresh);
    drop((syslog, end));
    assert_eq!(thread.join().unwrap(), [text.clone(), text.clone(), text]);
}

#[test]
fn who_cannot_prove_its_name_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (other, other_ca) = server_of("other.example", dir.path());
    let (_, ca) = server_of("localhost", dir.path());
    // Nobody vouches for it; somebody does, for another name.
    for ca in [ca, other_ca] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_end, thread) = reads(listener, other.clone(), vec![(1, false)]);
        let mut syslog = by_tls(SyslogAddress::Tls(format!("localhost:{port}")), Some(ca));
        let Err(Failure::Later { why, rewind, .. }) = syslog.deliver(&items(&["one"])) else {
            panic!("it was delivered");
        };
        assert!(
            why.starts_with(&format!("tls:localhost:{port}: invalid peer certificate")) && !rewind,
            "{why}"
        );
        assert!(thread.join().unwrap().is_empty());
    }
    // One that speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut peer, _): (TcpStream, _) = listener.accept().unwrap();
        peer.write_all(b"220 log.example\r\n").unwrap();
        let _ = peer.read(&mut [0; 1024]);
    });
    let address = SyslogAddress::Tls(format!("127.0.0.1:{port}"));
    let ca = dir.path().join("localhost.pem");
    assert!(by_tls(address, Some(ca)).deliver(&items(&["one"])).is_err());
    thread.join().unwrap();
}

#[test]
fn a_message_has_the_head_of_the_rfc() {
    let text = message(&samples::sent(), b"{}", "h");
    let text = String::from_utf8(text).unwrap();
    let pid = std::process::id();
    assert_eq!(
        text,
        format!("<86>1 2023-11-14T22:13:20.123456Z h keytrail {pid} credential_sent - {{}}")
    );
    let urgent = message(&samples::finding(), b"", "h");
    assert!(urgent.starts_with(b"<83>1 "), "{urgent:?}");
    assert_eq!(printable("", 9), "-");
    assert_eq!(printable("a b\u{e9}\n\x1b[c", 3), "ab[");
}

#[test]
fn octets_are_counted_on_tcp_and_a_receiver_that_left_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut syslog = syslog(SyslogAddress::Tcp(address));
    assert!(syslog.deliver(&items(&["one", "two"])).unwrap().fresh);
    let (mut peer, _) = listener.accept().unwrap();
    let mut read = vec![0; 4096];
    let n = peer.read(&mut read).unwrap();
    let text = String::from_utf8(read[..n].to_vec()).unwrap();
    let (length, rest) = text.split_once(' ').unwrap();
    let first = &rest[..length.parse().unwrap()];
    assert!(
        first.starts_with("<86>1 ") && first.ends_with(" - one"),
        "{first}"
    );
    assert!(!syslog.deliver(&items(&["three"])).unwrap().fresh);
    // It leaves with something unread.
    drop(peer);
    let failed = loop {
        match syslog.deliver(&items(&["four"])) {
            Err(failure) => break failure,
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert!(
        matches!(failed, Failure::Later { rewind: true, .. }),
        "{failed:?}"
    );
    assert!(syslog.deliver(&items(&["five"])).unwrap().fresh);
    drop(listener);
}

#[test]
fn one_datagram_each_and_what_is_too_long_is_counted() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
    let address = receiver.local_addr().unwrap().to_string();
    let mut udp = syslog(SyslogAddress::Udp(address));
    let long = "x".repeat(70_000);
    let done = udp.deliver(&items(&["one", &long, "two"])).unwrap();
    assert_eq!(done.left_out, 1);
    let mut buffer = [0; 4096];
    for line in ["one", "two"] {
        let n = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..n].ends_with(format!(" - {line}").as_bytes()));
    }
    drop(receiver);
    // Nobody is there: the second try knows at the latest.
    assert!((0..2).any(|_| udp.deliver(&items(&["three"])).is_err()));
}

#[test]
fn to_a_socket_of_datagrams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut unix = syslog(SyslogAddress::Unix(path.clone()));
    assert!(unix.deliver(&items(&["none"])).is_err());
    let receiver = UnixDatagram::bind(&path).unwrap();
    unix.deliver(&items(&["one"])).unwrap();
    let mut buffer = [0; 4096];
    let n = receiver.recv(&mut buffer).unwrap();
    assert!(buffer[..n].ends_with(b" - one"));
}
