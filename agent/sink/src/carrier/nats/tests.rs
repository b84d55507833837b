//! A server that says what a test wants; the real one is asked in the end-to-end tests.

use super::*;
use crate::spec::NatsServer;
use proptest::prelude::*;
use protocol::{Parsed, parse};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const INFO: &str = r#"INFO {"headers":true,"jetstream":true,"max_payload":200,"nonce":"n"}"#;
const STORED: &str = r#"{"stream":"S","seq":1}"#;

/// What the server does with each message it gets.
#[derive(Clone, Copy)]
enum Does {
    Acks(&'static str),
    /// `no responders`.
    Nobody,
    Closes,
    Silence,
}

/// Serves one connection after the other; gives what was published: head and body.
fn server(
    info: &'static str,
    rounds: Vec<Vec<Does>>,
) -> (NatsServer, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("nats://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut got = Vec::new();
        for round in rounds {
            let (peer, _) = listener.accept().unwrap();
            serve(peer, info, round, &mut got);
        }
        got
    });
    (server.parse().unwrap(), thread)
}

fn serve(mut peer: TcpStream, info: &str, round: Vec<Does>, got: &mut Vec<String>) {
    write!(peer, "{info}\r\n").unwrap();
    let mut lines = BufReader::new(peer.try_clone().unwrap());
    let mut does = round.into_iter();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "PING" => write!(peer, "PING\r\nPONG\r\n").unwrap(),
            "CONNECT" | "SUB" | "PONG" => {}
            "HPUB" => {
                let mut body = vec![0; words[4].parse::<usize>().unwrap() + 2];
                lines.read_exact(&mut body).unwrap();
                got.push(String::from_utf8(body).unwrap().trim_end().to_owned());
                let reply = words[2];
                match does.next().unwrap_or(Does::Acks(STORED)) {
                    Does::Acks(text) => {
                        write!(peer, "MSG {reply} 1 {}\r\n{text}\r\n", text.len()).unwrap();
                    }
                    Does::Nobody => {
                        let head = "NATS/1.0 503\r\n\r\n";
                        write!(peer, "HMSG {reply} 1 16 16\r\n{head}\r\n").unwrap();
                    }
                    Does::Closes => return,
                    Does::Silence => {}
                }
            }
            other => panic!("{other}"),
        }
    }
}

fn nats(server: &NatsServer, credentials: Option<&std::path::Path>) -> Nats {
    let spec = NatsSpec {
        server: server.clone(),
        subject: "keytrail.events".into(),
        credentials_file: credentials.map(Into::into),
        ca_file: None,
        timeout: Duration::from_millis(700),
    };
    Nats::new(spec, &Reporter::default())
}

fn items(lines: &[&str]) -> Vec<Item> {
    let item = |(n, line): (usize, &&str)| Item {
        event: Arc::new(keytrail_proto::v1::Event {
            id: Some(keytrail_proto::v1::EventId {
                agent: "a".into(),
                epoch: 3,
                sequence: n as u64 + 1,
                ..Default::default()
            }),
            ..Default::default()
        }),
        line: line.as_bytes().to_vec(),
    };
    lines.iter().enumerate().map(item).collect()
}

#[test]
fn each_event_has_its_id_and_waits_for_its_acknowledgement() {
    let (address, thread) = server(INFO, vec![Vec::new()]);
    let mut nats = nats(&address, None);
    let long = "x".repeat(300);
    let done = nats.deliver(&items(&["one", &long, "three"])).unwrap();
    assert_eq!(done.left_out, 1, "larger than the server takes");
    drop(nats);
    assert_eq!(
        thread.join().unwrap(),
        [
            "NATS/1.0\r\nNats-Msg-Id: a:3:1\r\n\r\none",
            "NATS/1.0\r\nNats-Msg-Id: a:3:3\r\n\r\nthree"
        ]
    );
}

#[test]
fn what_is_not_acknowledged_is_not_delivered() {
    let failed = |does: Does| {
        let (address, thread) = server(INFO, vec![vec![Does::Acks(STORED), does]]);
        let mut nats = nats(&address, None);
        let done = nats.deliver(&items(&["one", "two"]));
        drop(nats);
        thread.join().unwrap();
        match done {
            Err(Failure::Later { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(failed(Does::Nobody).contains("keytrail.events"));
    assert!(failed(Does::Silence).contains("in time"));
    assert!(failed(Does::Closes).contains("closed"));
    let error =
        r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes\u001b exceeded"}}"#;
    assert_eq!(
        failed(Does::Acks(error)),
        "the stream says: maximum bytes exceeded"
    );
    for strange in ["", "+OK", "{}", r#"{"stream":"S"}"#] {
        assert!(
            failed(Does::Acks(strange)).contains("JetStream"),
            "{strange}"
        );
    }
}

#[test]
fn one_that_the_stream_never_takes_is_counted() {
    let error = r#"{"error":{"code":400,"err_code":10054,"description":"too large"}}"#;
    let (address, thread) = server(INFO, vec![vec![Does::Acks(error)]]);
    let mut nats = nats(&address, None);
    let done = nats.deliver(&items(&["one", "two"])).unwrap();
    assert_eq!(done.left_out, 1);
    drop(nats);
    assert_eq!(thread.join().unwrap().len(), 2);
}

/// A connection that a server gave up is no failure; the batch goes by the next one, whole.
#[test]
fn a_stale_connection_is_made_anew() {
    let (address, thread) = server(
        INFO,
        vec![vec![Does::Acks(STORED), Does::Closes], Vec::new()],
    );
    let mut nats = nats(&address, None);
    nats.deliver(&items(&["one"])).unwrap();
    nats.deliver(&items(&["one", "two"])).unwrap();
    drop(nats);
    assert_eq!(thread.join().unwrap().len(), 4);
}

#[test]
fn servers_that_are_none() {
    for (info, why) in [
        ("HTTP/1.1 400 Bad Request", "not NATS"),
        ("PONG", "no NATS server"),
        ("INFO {}", "no JetStream"),
        (
            r#"INFO {"headers":true,"jetstream":true,"tls_required":true}"#,
            "tls://",
        ),
    ] {
        let (address, thread) = server(info, vec![Vec::new()]);
        let failed = nats(&address, None).deliver(&items(&["one"]));
        let text = format!("{:?}", failed.unwrap_err());
        assert!(text.contains(why), "{info}: {text}");
        assert!(thread.join().unwrap().is_empty());
    }
}

#[test]
fn errors_name_no_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("creds");
    std::fs::write(&file, "SECRET\nlines\n").unwrap();
    let (address, thread) = server(INFO, vec![Vec::new()]);
    let failed = nats(&address, Some(&file)).deliver(&items(&["one"]));
    let text = format!("{:?}", failed.unwrap_err());
    assert!(text.contains("creds") && !text.contains("SECRET"), "{text}");
    thread.join().unwrap();
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, no claim of more bytes than there are, and no change of mind.
    #[test]
    fn anything_can_come(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
        let whole = parse(&bytes);
        if let Parsed::Whole(_, length) = &whole {
            prop_assert!(*length <= bytes.len() && *length > 0);
            prop_assert_eq!(&parse(&bytes[..*length]), &whole);
        }
        let part = parse(&bytes[..at.min(bytes.len())]);
        prop_assert!(part == Parsed::Part || part == whole);
    }

    #[test]
    fn messages_are_cut_where_they_say(subject in "[a-z.]{1,9}", body in "[ -~\r\n]{0,40}", head in "[ -~]{0,9}", more in "[ -~]{0,9}") {
        let total = head.len() + body.len();
        let text = format!("HMSG {subject} 1 {} {total}\r\n{head}{body}\r\n{more}", head.len());
        let expected = Message { subject, head: head.into_bytes(), body: body.into_bytes() };
        let length = text.len() - more.len();
        prop_assert_eq!(parse(text.as_bytes()), Parsed::Whole(Operation::Message(expected), length));
        for cut in 0..length {
            prop_assert_eq!(parse(&text.as_bytes()[..cut]), Parsed::Part);
        }
    }
}

#[test]
fn what_never_ends_or_lies_is_refused() {
    assert_eq!(parse(&vec![b'x'; 64 << 10]), Parsed::Wrong);
    for bad in [
        "MSG a 1 -1\r\n",
        "MSG a 1 99999999999999999999\r\n",
        "MSG a 1 65537\r\n",
        "HMSG a 1 5 3\r\nabc\r\n",
        "MSG a 1 3\r\nabcd\r\n",
        "MSG 3\r\n",
        "MSG a b c d e 3\r\n",
        "INFO nothing\r\n",
        "\r\n",
    ] {
        assert_eq!(parse(bad.as_bytes()), Parsed::Wrong, "{bad}");
    }
}
