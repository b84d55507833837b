use super::*;
use proptest::prelude::*;

fn settings(server: SocketAddr) -> Settings {
    Settings {
        servers: vec![server],
        suffixes: vec!["example".into()],
    }
}

#[test]
fn files_are_read_as_their_manuals_say() {
    let hosts = "# x log.example\n127.0.0.1 localhost\n10.0.0.9\tLog.Example log # 10.0.0.8 other\nfe80::1 log\nbad log\n";
    assert_eq!(
        in_hosts(hosts, "log.example"),
        ["10.0.0.9".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(in_hosts(hosts, "log").len(), 2);
    assert!(in_hosts(hosts, "other").is_empty());
    let settings = Settings::of(
        "nameserver 10.0.0.1\nnameserver fe80::1\nnameserver x\noptions ndots:1\nsearch a.example b.example.\n",
    );
    assert_eq!(settings.servers.len(), 2);
    assert_eq!(
        settings.names("log"),
        ["log.a.example", "log.b.example", "log"]
    );
    assert_eq!(settings.names("log.x")[0], "log.x");
    assert_eq!(settings.names("log."), ["log"]);
    assert_eq!(Settings::of("").servers, [(Ipv4Addr::LOCALHOST, 53).into()]);
}

#[test]
fn literals_and_localhost_ask_nobody() {
    let now = Duration::ZERO;
    assert_eq!(
        addresses("127.0.0.1:5", now).unwrap(),
        ["127.0.0.1:5".parse().unwrap()]
    );
    assert_eq!(
        addresses("[::1]:5", now).unwrap(),
        ["[::1]:5".parse().unwrap()]
    );
    assert!(!addresses("localhost:5", now).unwrap().is_empty());
    assert!(addresses("localhost", now).is_err());
}

/// A server by the RFC: `log.example` is an alias of a name with two addresses, nothing else is.
fn serve(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let query = &buffer[..n];
        let kind = query[n - 3];
        let known = query[12..].starts_with(b"\x03log\x07example\0");
        let mut out = query.to_vec();
        out[2] = 0x81;
        out[3] = if known { 0 } else { 3 };
        if known {
            out[7] = if kind == 1 { 3 } else { 1 };
            // An alias, its name a reference to the question, its target one label and a reference.
            out.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 4, 1, b'x', 0xc0, 16]);
            if kind == 1 {
                for last in [1, 2] {
                    out.extend_from_slice(&[
                        1, b'x', 0xc0, 16, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, last,
                    ]);
                }
            }
        }
        // One that is of no question goes first.
        let mut alien = out.clone();
        alien[0] ^= 1;
        let _ = socket.send_to(&alien, from);
        let _ = socket.send_to(&out, from);
    }
}

#[test]
fn a_server_is_asked_and_aliases_are_followed() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap();
    std::thread::spawn(move || serve(&socket));
    let deadline = || Instant::now() + Duration::from_secs(20);
    let found = ask(&settings(server), "log", deadline()).unwrap();
    let expected: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2"]
        .map(|t| t.parse().unwrap())
        .to_vec();
    assert_eq!(found, expected);
    let none = ask(&settings(server), "other.example", deadline()).unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::NotFound);
    assert!(ask(&settings(server), &"x".repeat(64), deadline()).is_err());
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap();
    let started = Instant::now();
    let end = started + Duration::from_millis(200);
    let silent = ask(&settings(server), "log.example", end).unwrap_err();
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(5));
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..40) {
        let question = question([1, 2], "log.example", A).unwrap();
        let _ = answer(&bytes, &question, A);
        let mut close = question.clone();
        close[2] = 0x80;
        close[7] = 9;
        close.extend_from_slice(&bytes);
        close.truncate(close.len() - cut.min(close.len()));
        let _ = answer(&close, &question, A);
    }
}
