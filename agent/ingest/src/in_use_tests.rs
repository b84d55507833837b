//! What nobody knew before it was used.

use super::Digested;
use super::stream_tests::{digest, header};
use crate::decode::Record;
use keytrail_abi as abi;
use keytrail_model::{Bound, Observation, Transform};

const TOKEN: &str = "mF9q3VtAcK8s1LwXy7BmZ4eR9uPdHj2";

fn tls(session: u64, text: &str) -> Record<'_> {
    tls_by(header(abi::Kind::TLS_WRITE), session, text)
}

fn tls_by(header: abi::Header, session: u64, text: &str) -> Record<'_> {
    let record = abi::TlsWrite {
        header,
        tls_call: 1,
        tls_session: session,
        total: text.len() as u64,
        offset: 0,
        data_len: text.len() as u32,
        cookie: 0,
        sock: 0,
        local_port: 0,
        peer_port: 0,
        once: 0,
    };
    Record::TlsWrite(record, text.as_bytes())
}

fn clear(flags: u16, text: &str) -> Record<'_> {
    let mut header = header(abi::Kind::SOCK_SEND);
    header.flags = flags;
    let record = abi::SockSend {
        header,
        ends: abi::Endpoints {
            sock: 5,
            local_port: 40_000,
            peer_port: 80,
            family: 2,
            protocol: 6,
            ..abi::Endpoints::default()
        },
        total: text.len() as u64,
        offset: 0,
        data_len: text.len() as u32,
        tls_call: 0,
        tls_session: 0,
    };
    Record::SockSend(record, text.as_bytes())
}

fn request(header: &str) -> String {
    format!("GET /v1/me HTTP/1.1\r\nHost: api.corp.example\r\n{header}\r\n\r\n")
}

/// Kinds of what was new, and transforms of what was found, of each record.
fn reported(digest: &mut super::Digest, record: &Record<'_>) -> (Vec<String>, Vec<Transform>) {
    let mut out = Digested::default();
    digest.record(record, "h", None, &mut out);
    let mut new = Vec::new();
    let mut found = Vec::new();
    for observation in &out.observations {
        let hits = match observation {
            Observation::InUse(seen) => {
                assert!(found.is_empty(), "it comes before the send");
                new.extend(seen.credentials.iter().map(|c| c.kind.clone()));
                continue;
            }
            Observation::TlsWrite(seen) => &seen.payload.hits,
            Observation::Send(seen) => &seen.payload.hits,
            other => panic!("{other:?}"),
        };
        assert!(hits.iter().all(|hit| hit.secret));
        found.extend(hits.iter().map(|hit| hit.transform));
    }
    (new, found)
}

#[test]
fn what_is_first_used_is_known_from_then_on() {
    for (line, kind, transform) in [
        (
            format!("Authorization: Bearer {TOKEN}"),
            "http-bearer-token",
            Transform::Raw,
        ),
        (
            format!("X-Vault-Token: {TOKEN}"),
            "vault-token",
            Transform::Raw,
        ),
        (
            format!("X-aws-ec2-metadata-token: {TOKEN}"),
            "aws-imds-token",
            Transform::Raw,
        ),
        (
            "Authorization: token ghs_w7Rk2ZpQ9xLm4TnV8cYb1HsJd6FgE32UBAxK".to_owned(),
            "github-installation",
            Transform::Raw,
        ),
    ] {
        let mut digest = digest();
        let text = request(&line);
        let first = reported(&mut digest, &tls(70, &text));
        assert_eq!(first, (vec![kind.to_owned()], vec![transform]), "{line}");
        // The same again, by another session.
        let again = reported(&mut digest, &tls(71, &text));
        assert_eq!(again, (vec![], vec![transform]), "{line}");
        // Elsewhere, in clear, and not in a header.
        let value = line.rsplit(' ').next().unwrap();
        let body =
            format!("POST /x HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{\"loot\":\"{value}\"}}");
        let loot = reported(&mut digest, &clear(0, &body));
        assert_eq!(loot, (vec![], vec![Transform::Raw]), "{line}");
        assert!(digest.dropped().is_empty());
    }
}

#[test]
fn what_is_known_or_no_credential_is_not_new() {
    let known = std::str::from_utf8(super::stream_tests::TOKEN).unwrap();
    for (line, found) in [
        (format!("Authorization: Bearer {known}"), 1),
        (format!("Cookie: session={TOKEN}"), 0),
        (format!("X-CSRF-Token: {TOKEN}"), 0),
        ("Authorization: Bearer undefined".to_owned(), 0),
        ("Authorization: Bearer your-token-goes-here".to_owned(), 0),
        ("X-Api-Key: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(), 0),
        ("X-Auth-Token: ${TOKEN_OF_THE_SERVICE}".to_owned(), 0),
    ] {
        let mut digest = digest();
        let (new, hits) = reported(&mut digest, &tls(70, &request(&line)));
        assert_eq!((new.len(), hits.len()), (0, found), "{line}");
    }
    // Who is asked by others sends no requests by that connection.
    let mut digest = digest();
    let text = request(&format!("Authorization: Bearer {TOKEN}"));
    let accepted = clear(abi::header::flags::ACCEPTED, &text);
    assert_eq!(reported(&mut digest, &accepted), (vec![], vec![]));
}

/// A token for each request, as a proxy passes on: the first ones are reported, the rest is counted.
#[test]
fn who_passes_on_many_is_counted() {
    for (serves, most) in [(false, 16), (true, 4)] {
        let mut digest = digest();
        if serves {
            reported(
                &mut digest,
                &clear(abi::header::flags::ACCEPTED, "HTTP/1.1 200 OK\r\n\r\n"),
            );
        }
        let one = |n: u32| request(&format!("Authorization: Bearer {TOKEN}{n:02}Zk8v"));
        let (mut new, mut found) = (0, 0);
        for n in 0..20 {
            let text = one(n);
            let (kinds, hits) = reported(&mut digest, &tls(70, &text));
            (new, found) = (new + kinds.len(), found + hits.len());
        }
        // What is passed on is not taken to be the server's own.
        assert_eq!((new, found), (if serves { 0 } else { most }, most));
        let dropped: Vec<_> = digest.dropped().take().collect();
        assert_eq!(dropped, [(Bound::InUse, 20 - most as u64)]);
        // One that is used again and again is one.
        reported(&mut digest, &tls(70, &one(19)));
        reported(&mut digest, &tls(70, &one(19)));
        assert_eq!(digest.dropped().take().count(), 0);
        // What was reported is found all the same, and somebody else has a budget of its own.
        assert_eq!(reported(&mut digest, &tls(70, &one(0))).1.len(), 1);
        let mut other = header(abi::Kind::TLS_WRITE);
        other.tgid += 1;
        let text = one(19);
        assert_eq!(reported(&mut digest, &tls_by(other, 9, &text)).0.len(), 1);
        // Later there is room again.
        let mut later = header(abi::Kind::TLS_WRITE);
        later.boot_ns += 700_000_000_000;
        let text = one(18);
        assert_eq!(reported(&mut digest, &tls_by(later, 70, &text)).1.len(), 1);
    }
}
