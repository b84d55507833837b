//! Several rings, read as one.

use crate::host::{self, Host};
use keytrail_abi::{Header, Kind};
use keytrail_sensor::{Limits, SensorOptions};
use std::{
    fs,
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

#[test]
fn a_process_is_reported_in_order_whatever_the_ring() {
    let mut host = host!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut bytes = Vec::new();
            let _ = stream.and_then(|mut stream| stream.read_to_end(&mut bytes));
        }
    });
    let script = format!("echo hello > /dev/tcp/127.0.0.1/{port}");
    let pids: Vec<u32> = (0..40)
        .map(|_| host.run(Command::new("bash").args(["-c", &script])))
        .collect();
    let seen = host.drain_all();
    for pid in pids {
        let place = |kind| {
            let places = seen.places(pid, kind);
            assert_eq!(places.len(), 1, "{}", Kind::name(kind));
            places[0]
        };
        let chunk = *seen.places(pid, Kind::EXEC_CHUNK).last().unwrap();
        let order = [
            place(Kind::EXEC),
            chunk,
            place(Kind::SOCK_SEND),
            place(Kind::EXIT),
        ];
        assert!(order.is_sorted(), "exec, its end, send, exit: {order:?}");
    }
    assert_eq!(host.sensor.losses(), []);
}

#[test]
fn files_nobody_has_seen_push_out_nothing_else() {
    let _ = host!();
    let options = SensorOptions {
        ring_bytes: 1,
        self_test: false,
        ..SensorOptions::default()
    };
    let mut host = Host::with(&options).unwrap();
    let directory = tempfile::tempdir_in(host::on_disk()).unwrap();
    for n in 0..1_000 {
        fs::write(
            directory.path().join(n.to_string()),
            "nobody has inspected this file yet",
        )
        .unwrap();
    }
    host.drain_all();
    host.sensor.losses();
    // Nobody drains meanwhile: the smallest ring holds some two hundred of them.
    let all = format!("cat {}/* > /dev/null", directory.path().display());
    host.run_unread(Command::new("sh").args(["-c", &all]));
    let pids: Vec<u32> = (0..10)
        .map(|_| host.run_unread(Command::new("/bin/true").env_clear()))
        .collect();
    let seen = host.drain_all();
    for pid in pids {
        assert!(seen.exec(pid).unwrap().complete);
        assert_eq!(seen.of(pid, Kind::EXIT).len(), 1);
    }
    let losses = host.sensor.losses();
    let lost: u64 = losses.iter().map(|loss| loss.count).sum();
    assert!(lost >= 700, "nothing was pushed out: {losses:?}");
    assert!(
        losses.iter().all(|loss| loss.kind == "file_new"),
        "{losses:?}"
    );
}

#[test]
fn every_send_is_received_or_lost() {
    let _ = host!();
    let options = SensorOptions {
        ring_bytes: 1,
        self_test: false,
        limits: Limits {
            answers: u32::MAX,
            keys: u32::MAX,
            process: u32::MAX,
            connection: u32::MAX,
            writes: u32::MAX,
        },
        ..SensorOptions::default()
    };
    let mut host = Host::with(&options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {}
    });
    host.drain_all();
    host.sensor.losses();
    let produced = 25_070;
    let script = format!(
        "import socket\ns=socket.create_connection(('127.0.0.1',{port}))\nb=b'x'*200\n\
         for n in range({produced}): s.sendall(b)"
    );
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let (mut received, mut lost) = (0, 0);
    let mut ended = false;
    loop {
        // Too slow on purpose: until something is lost nothing is fetched, and then seldom.
        std::thread::sleep(Duration::from_millis(15));
        let before = ended;
        ended = child.try_wait().unwrap().is_some();
        if lost > 0 || ended {
            host.sensor.drain(&mut |record| {
                let header: Header = host::read(record.bytes);
                received += u64::from(header.tgid == child.id() && header.kind == Kind::SOCK_SEND);
            });
        }
        let losses = host.sensor.losses();
        lost += losses
            .iter()
            .filter(|loss| loss.kind == Kind::name(Kind::SOCK_SEND))
            .map(|loss| loss.count)
            .sum::<u64>();
        if before && host.sensor.unread() == 0 {
            break;
        }
    }
    assert!(lost > 0, "nothing was lost: {received}");
    // Others on the machine may lose some as well.
    assert!(
        received + lost >= produced && received <= produced,
        "{received} received and {lost} lost of {produced}"
    );
    eprintln!("{received} received and {lost} lost of {produced}");
}
