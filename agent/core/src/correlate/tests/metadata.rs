//! What metadata services are asked for and answer.

use super::*;
use keytrail_model::{AnswerSeen, Request, SourceType};

const ROLE: &str = "/latest/meta-data/iam/security-credentials/web";

fn service(sock: u64) -> Endpoints {
    Endpoints {
        peer_ip: "169.254.169.254".to_owned(),
        ..ends(sock, 80)
    }
}

fn request(tgid: u32, boot_ns: u64, sock: u64, path: &str) -> Observation {
    let asked = Request {
        method: "GET".to_owned(),
        path: path.to_owned(),
        ..Request::default()
    };
    let payload = Payload {
        requests: vec![asked],
        ..payload(200, vec![])
    };
    send(tgid, boot_ns, service(sock), None, None, payload)
}

fn answer(tgid: u32, boot_ns: u64, sock: u64, credential: &CredentialRef) -> Observation {
    Observation::Answer(Box::new(AnswerSeen {
        at: at(tgid, boot_ns),
        ends: service(sock),
        credentials: vec![credential.clone()],
        hook: "raw_tp:sock_recv_length".to_owned(),
    }))
}

fn asker() -> Vec<Observation> {
    vec![start(), exec(10, 1, SEC / 2, vec![])]
}

#[test]
fn who_is_given_a_credential_holds_it() {
    let c = credential("c");
    let steps = [
        asker(),
        vec![
            request(10, SEC, 1, ROLE),
            answer(10, SEC + 1, 1, &c),
            // The same again: no news, and no use of the first.
            request(10, 10 * SEC, 2, ROLE),
            answer(10, 10 * SEC + 1, 2, &c),
            send(
                10,
                20 * SEC,
                ends(3, 9_000),
                None,
                None,
                payload(900, vec![hit(&c, true)]),
            ),
        ],
    ];
    let events = run(&steps.concat());
    let given = of(&events, "credential_received");
    assert_eq!(given.len(), 1);
    let source = given[0].source.as_ref().unwrap();
    assert_eq!(source.r#type, SourceType::Service);
    assert_eq!(source.path, format!("http://169.254.169.254{ROLE}"));
    let request = given[0].request.as_ref().unwrap();
    assert_eq!(request.target.as_ref().unwrap().name, "web");
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].destination.as_ref().unwrap().port, 9_000);
    assert_eq!(sent[0].source.as_ref().unwrap().path, source.path);
}

/// An answer whose request was not seen is reported with the service alone; what its connection is used for by another
/// process is that one's.
#[test]
fn an_answer_is_joined_to_its_own_request() {
    let c = credential("c");
    let steps = [
        asker(),
        vec![
            exec(11, 1, SEC, vec![]),
            request(11, SEC + 1, 1, ROLE),
            answer(10, SEC + 2, 1, &c),
        ],
    ];
    let events = run(&steps.concat());
    let given = of(&events, "credential_received");
    assert_eq!(given.len(), 1);
    let source = given[0].source.as_ref().unwrap();
    assert_eq!(source.path, "http://169.254.169.254/");
    assert!(given[0].request.is_none());
}

/// What is asked on the same connection after that is another answer, and of what a service gave again and again the last ones
/// are held.
#[test]
fn the_last_request_is_the_one_that_is_answered() {
    let list: Vec<CredentialRef> = ["c", "d", "e", "f", "g", "h"].map(credential).to_vec();
    let mut steps = [
        asker(),
        vec![
            request(10, SEC, 1, ROLE),
            request(10, 2 * SEC, 1, "/latest/user-data"),
            answer(10, 2 * SEC + 1, 1, &credential("x")),
        ],
    ]
    .concat();
    for (n, c) in (3..).zip(&list) {
        steps.push(request(10, n * SEC, n, ROLE));
        steps.push(answer(10, n * SEC + 1, n, c));
    }
    let events = run(&steps);
    let given = of(&events, "credential_received");
    let paths: Vec<&str> = given
        .iter()
        .map(|e| e.source.as_ref().unwrap().path.as_str())
        .collect();
    assert_eq!(paths[0], "http://169.254.169.254/latest/user-data");
    assert!(given[0].request.as_ref().unwrap().target.is_none());
    assert_eq!(paths.len(), 7);
    let mut core = Core::new();
    for step in &steps {
        let _ = core.step(step);
    }
    let held = &core.processes().get(pid(10)).unwrap().holdings;
    let held: Vec<&str> = held
        .iter()
        .map(|h| h.credential.fingerprint.as_str())
        .collect();
    // The four of the role, and the one beside.
    assert_eq!(held.len(), 5, "{held:?}");
    assert!(!held.contains(&list[0].fingerprint.as_str()), "{held:?}");
}
