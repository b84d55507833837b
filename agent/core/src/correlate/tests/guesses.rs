//! Connections that are older than what was seen of them: their ciphers are not known.

use super::*;
use proptest::prelude::*;

const T: u64 = 10 * SEC;
const MS: u64 = 1_000_000;

fn write(t: u64, call: u64, session: u64, total: u64, c: &CredentialRef) -> Observation {
    let mut write = tls(10, t, call, session, total, vec![hit(c, true)]);
    if let Observation::TlsWrite(seen) = &mut write {
        seen.digest = Some(call);
    }
    write
}

/// One record of `length` bytes.
fn data(t: u64, sock: u64, length: u64) -> Observation {
    let record = Some((0x17, length as u16 - 5));
    send(
        10,
        t,
        ends(sock, 440 + sock as u16),
        record,
        None,
        payload(length, vec![]),
    )
}

/// Port and method of every observed send.
fn told(story: Vec<Observation>, c: &CredentialRef) -> Vec<(u32, String)> {
    let mut all = vec![start(), exec(10, 1, SEC, vec![env(c, "T")])];
    all.extend(story);
    all.push(stop());
    let events = run(&all);
    of(&events, "credential_sent")
        .into_iter()
        .filter(|e| grade(e) == "observed")
        .map(|e| (e.destination.as_ref().unwrap().port, method(e).to_owned()))
        .collect()
}

fn two_connections() -> Vec<Observation> {
    vec![data(2 * SEC, 1, 905), data(2 * SEC, 2, 905)]
}

#[test]
fn two_sends_that_agree_prove_both() {
    let c = credential("c");
    let story = |sends: &[(u64, u64)]| {
        let mut all = two_connections();
        for (n, (sock, length)) in (0..).zip(sends) {
            let t = T + n * 50 * MS;
            all.extend([
                write(t, n + 1, 70, 100, &c),
                data(t + 1_000, *sock, *length),
            ]);
        }
        told(all, &c)
    };
    let next = |port: u32| (port, "next_send".to_owned());
    let unknown = || (0, "unknown".to_owned());
    assert_eq!(story(&[(1, 122)]), [unknown()]);
    assert_eq!(
        story(&[(1, 122), (1, 122), (1, 122)]),
        [next(441), next(441), next(441)]
    );
    // By another socket, in another cipher.
    assert_eq!(story(&[(1, 122), (2, 122)]), [unknown(), unknown()]);
    assert_eq!(story(&[(1, 122), (1, 129)]), [unknown(), unknown()]);
}

/// What a program that keeps ciphertext in memory does next.
#[derive(Clone, Debug)]
enum Act {
    /// Writes to this session; its socket takes it at once, if it has room.
    Write(usize, u64),
    /// The socket has room from now on, or none.
    Room(usize, bool),
    /// Something else takes its time, milliseconds.
    Rest(u64),
}

/// As long in one cipher as others are in another.
fn lengths() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![100_u64, 101, 107, 108, 150])
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3_usize, lengths()).prop_map(|(session, total)| Act::Write(session, total)),
        3 => (0..3_usize, any::<bool>()).prop_map(|(session, room)| Act::Room(session, room)),
        2 => (1..400_u64).prop_map(Act::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// However writes, full sockets and pauses lie between each other: a destination that is told is the right one.
    #[test]
    fn no_destination_is_wrong(
        overheads in prop::array::uniform3(prop::sample::select(vec![21_u64, 22, 29])),
        // Given to the library before the process was looked into, while the socket had no room.
        before in prop::array::uniform3(prop::option::of(lengths())),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let credentials: Vec<_> = (0..3).map(|n| credential(&n.to_string())).collect();
        let mut story = vec![start(), exec(10, 1, SEC, vec![])];
        for sock in 1..=3 {
            story.push(data(2 * SEC, sock, 905));
        }
        let mut room = before.map(|kept| kept.is_none());
        let mut kept: [Vec<u64>; 3] = Default::default();
        for (n, plain) in before.into_iter().enumerate() {
            kept[n].extend(plain.map(|plain| plain + overheads[n]));
        }
        let (mut t, mut call) = (T, 0);
        for act in acts.into_iter().chain((0..3).map(|n| Act::Room(n, true))) {
            t += 1_000;
            let ready = match act {
                Act::Write(n, total) => {
                    call += 1;
                    story.push(write(t, call, 70 + n as u64, total, &credentials[n]));
                    kept[n].push(total + overheads[n]);
                    n
                }
                Act::Room(n, has) => {
                    room[n] = has;
                    n
                }
                Act::Rest(ms) => {
                    t += ms * MS;
                    let tick = Observation::Tick { boot_ns: t, wall_ns: 1_000 * SEC + t };
                    story.push(tick);
                    continue;
                }
            };
            if room[ready] && !kept[ready].is_empty() {
                t += 1_000;
                let records = std::mem::take(&mut kept[ready]);
                let mut sent = data(t, ready as u64 + 1, records.iter().sum());
                if let Observation::Send(send) = &mut sent {
                    send.tls_record = Some((0x17, records[0] as u16 - 5));
                }
                story.push(sent);
            }
        }
        story.push(stop());
        for e in of(&run(&story), "credential_sent") {
            let (to, credential) = (e.destination.as_ref().unwrap(), e.credential.as_ref().unwrap());
            let n = credentials.iter().position(|c| c.fingerprint == credential.fingerprint).unwrap();
            prop_assert!(
                grade(e) != "observed" || to.port == 0 || to.port == 441 + n as u32,
                "{e:#?}"
            );
        }
    }
}
