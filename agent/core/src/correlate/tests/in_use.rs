//! Credentials that are first seen where they are used.

use super::*;
use keytrail_model::{InUseSeen, Request, SourceType};

fn in_use(tgid: u32, boot_ns: u64, credential: &CredentialRef) -> Observation {
    Observation::InUse(Box::new(InUseSeen {
        at: at(tgid, boot_ns),
        credentials: vec![credential.clone()],
    }))
}

/// A send in clear of these, in a request.
fn asks(boot_ns: u64, sock: u64, (method, path): (&str, &str), with: Vec<Hit>) -> Observation {
    let request = Request {
        method: method.to_owned(),
        host: "login.corp.example".to_owned(),
        path: path.to_owned(),
        ..Request::default()
    };
    let hits = with.into_iter().map(|hit| Hit {
        request: Some(0),
        ..hit
    });
    let payload = Payload {
        requests: vec![request],
        ..payload(300, hits.collect())
    };
    send(10, boot_ns, ends(sock, 9_000), None, None, payload)
}

/// Fingerprints of the likely parents of what is used, and where they were sent to.
fn parents(steps: Vec<Observation>) -> Vec<String> {
    let token = credential("t");
    let begin = vec![
        start(),
        exec(10, 1, SEC / 2, vec![env(&credential("p"), "P")]),
    ];
    let used = vec![
        in_use(10, 50 * SEC, &token),
        asks(50 * SEC, 7, ("GET", "/v1/me"), vec![hit(&token, true)]),
    ];
    let events = run(&[begin, steps, used].concat());
    let sent: Vec<_> = of(&events, "credential_sent")
        .into_iter()
        .filter(|e| e.credential.as_ref().unwrap().fingerprint == token.fingerprint)
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(grade(sent[0]), "observed");
    let source = sent[0].source.as_ref().unwrap();
    assert_eq!(source.r#type, SourceType::Payload);
    assert!(source.first_seen_ns.is_some());
    let named =
        |p: &keytrail_model::event::Parent| format!("{} {}{}", p.fingerprint, p.host, p.path);
    source.parents.iter().map(named).collect()
}

#[test]
fn where_a_token_is_likely_to_come_from_is_said_where_it_is_one_place() {
    let (p, q) = (credential("p"), credential("q"));
    let token = ("POST", "/oauth2/token");
    let ask = |boot_ns, with: &CredentialRef| asks(boot_ns, 1, token, vec![hit(with, true)]);
    let expected = [format!("{} login.corp.example/oauth2/token", p.fingerprint)];
    assert_eq!(parents(vec![ask(SEC, &p)]), expected);
    // Asked again in the same way.
    assert_eq!(parents(vec![ask(SEC, &p), ask(2 * SEC, &p)]), expected);
    // In two ways: nobody knows which.
    assert_eq!(parents(vec![ask(SEC, &p), ask(2 * SEC, &q)]), [""; 0]);
    // Another request, a name of it alone, another program, or none.
    let other = asks(SEC, 1, ("POST", "/v1/issues"), vec![hit(&p, true)]);
    assert_eq!(parents(vec![other]), [""; 0]);
    let named = asks(SEC, 1, token, vec![hit(&p, false)]);
    assert_eq!(parents(vec![named]), [""; 0]);
    assert_eq!(
        parents(vec![ask(SEC, &p), exec(10, 1, 2 * SEC, vec![])]),
        [""; 0]
    );
    assert_eq!(parents(vec![]), [""; 0]);
}

#[test]
fn who_uses_it_holds_it_and_nobody_gets_it_by_a_file() {
    let token = credential("t");
    let used = asks(2 * SEC, 1, ("GET", "/v1/me"), vec![hit(&token, true)]);
    let steps = vec![
        start(),
        exec(10, 1, SEC, vec![]),
        exec(11, 1, SEC, vec![]),
        in_use(10, 2 * SEC, &token),
        used,
        // Something else, elsewhere: a holder sent it.
        send(
            10,
            3 * SEC,
            ends(2, 9_100),
            None,
            None,
            payload(900, vec![]),
        ),
        // Another process that sends it has it from nobody knows where.
        send(
            11,
            4 * SEC,
            ends(3, 9_200),
            None,
            None,
            payload(900, vec![hit(&token, true)]),
        ),
        stop(),
    ];
    let events = run(&steps);
    let sent: Vec<(u32, &str, SourceType)> = of(&events, "credential_sent")
        .iter()
        .map(|e| {
            let port = e.destination.as_ref().unwrap().port;
            (port, grade(e), e.source.as_ref().unwrap().r#type)
        })
        .collect();
    assert!(
        sent.contains(&(9_000, "observed", SourceType::Payload)),
        "{sent:?}"
    );
    assert!(
        sent.contains(&(9_100, "lineage", SourceType::Payload)),
        "{sent:?}"
    );
    assert!(
        sent.contains(&(9_200, "observed", SourceType::Unknown)),
        "{sent:?}"
    );
    assert_eq!(sent.len(), 3, "{sent:?}");
}

#[test]
fn the_last_ones_are_held() {
    let mut core = Core::new();
    core.step(&start());
    core.step(&exec(10, 1, SEC, vec![]));
    for n in 0..60 {
        core.step(&in_use(10, (2 + n) * SEC, &credential(&format!("t{n}"))));
    }
    let held = core.processes().get(pid(10)).unwrap().holdings.len();
    assert_eq!(held, 17);
}

fn of_kind(c: &CredentialRef, kind: &str) -> CredentialRef {
    std::sync::Arc::new(Credential {
        kind: kind.to_owned(),
        ..(**c).clone()
    })
}

/// A key of an account is had from somewhere else than where tokens are given out.
#[test]
fn a_key_is_not_what_a_token_endpoint_gave() {
    let (p, key) = (
        credential("p"),
        of_kind(&credential("k"), "datadog-api-key"),
    );
    let events = run(&[
        start(),
        exec(10, 1, SEC / 2, vec![env(&p, "P")]),
        asks(SEC, 1, ("POST", "/oauth2/token"), vec![hit(&p, true)]),
        in_use(10, 2 * SEC, &key),
        asks(2 * SEC, 7, ("POST", "/v1/series"), vec![hit(&key, true)]),
    ]);
    let sent = of(&events, "credential_sent");
    let used = sent
        .iter()
        .find(|e| e.credential.as_ref().unwrap().fingerprint == key.fingerprint)
        .unwrap();
    assert!(used.source.as_ref().unwrap().parents.is_empty());
}

/// Tokens that come and go do not take the places of what was read, of which sixteen are reported.
#[test]
fn what_was_read_is_reported_before_what_was_first_seen_in_use() {
    let key = credential("key");
    let mut steps = vec![start(), exec(10, 1, SEC / 2, vec![])];
    for n in 0..17 {
        steps.push(in_use(10, (1 + n) * SEC, &credential(&format!("t{n}"))));
    }
    steps.push(Observation::File(Box::new(FileSeen {
        at: at(10, 30 * SEC),
        access: Access::Read,
        file: FileFacts {
            path: "/root/.ssh/id_ed25519".to_owned(),
            device: 5,
            inode: 6,
            ..FileFacts::default()
        },
        credentials: vec![key.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:sys_enter".to_owned(),
    })));
    steps.push(send(
        10,
        31 * SEC,
        ends(9, 9_000),
        None,
        None,
        payload(4_000, vec![]),
    ));
    steps.push(Observation::Tick {
        boot_ns: 60 * SEC,
        wall_ns: 1_060 * SEC,
    });
    let events = run(&steps);
    let reported: Vec<_> = of(&events, "credential_sent")
        .into_iter()
        .map(|e| e.credential.as_ref().unwrap().fingerprint.clone())
        .collect();
    assert!(reported.contains(&key.fingerprint), "{reported:?}");
}
