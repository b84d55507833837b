use super::*;
use keytrail_model::{SourceType, Transform};
use keytrail_proto::v1::{Credential, Destination, Evidence, HostName, Process, Source};

fn event(kind: &str, fingerprint: &str) -> Event {
    Event {
        kind: EventKind::of_word(kind).unwrap().number(),
        process: Some(Process {
            pid: 9,
            comm: "curl".into(),
            ..Default::default()
        }),
        credential: Some(Credential {
            kind: "github-token".into(),
            fingerprint: fingerprint.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn read(fingerprint: &str) -> Event {
    let source = Source {
        r#type: SourceType::File.number(),
        path: "/root/\x1b[2Jx".into(),
        ..Default::default()
    };
    Event {
        source: Some(source),
        ..event("credential_read", fingerprint)
    }
}

fn sent(fingerprint: &str, grade: &str) -> Event {
    Event {
        evidence: Some(Evidence {
            grade: EvidenceGrade::of_word(grade).unwrap().number(),
            channel: Channel::Tls.number(),
            transform: Transform::Base64.number(),
            ..Default::default()
        }),
        destination: Some(Destination {
            ip: "10.0.0.9".into(),
            port: 443,
            hosts: vec![HostName {
                name: "api.example.com".into(),
                provenance: "sni".into(),
            }],
            ..Default::default()
        }),
        ..event("credential_sent", fingerprint)
    }
}

fn library(stack: &str, covered: bool, reason: &str) -> LibraryStatus {
    LibraryStatus {
        stack: TlsStack::of_word(stack).unwrap().number(),
        covered,
        reason: reason.into(),
        ..Default::default()
    }
}

#[test]
fn footer_counts_credentials_once_and_losses_all() {
    let mut summary = Summary::default();
    summary.add(&read("kt1:aa"));
    summary.add(&read("kt1:aa"));
    summary.add(&sent("kt1:bb", "observed"));
    summary.missed(&Gap {
        reason: GapReason::ClientTooSlow.number(),
        count: 4,
        ..Default::default()
    });
    let counters = Counters {
        lost: [("exec".to_owned(), 2), ("file_read".to_owned(), 1)].into(),
        ..Default::default()
    };
    let libraries = [
        library("openssl", true, ""),
        library("go", true, ""),
        library("go", false, "stripped"),
        library("boringssl", false, "no symbols"),
    ];
    assert_eq!(
        summary.footer(Some(&libraries), Some(&counters), &Style::PLAIN),
        "-- 3 events, 2 credentials, 7 lost; coverage: boringssl no (no symbols), go 1 of 2 (stripped), openssl yes"
    );
    let narrow = Style {
        colour: false,
        width: Some(80),
    };
    assert_eq!(
        summary.footer(Some(&libraries), Some(&counters), &narrow),
        "-- 3 events, 2 credentials, 7 lost; coverage: boringssl no (no symbols), go 1 of\n   2 (stripped), openssl yes"
    );
    assert_eq!(
        summary.footer(None, None, &Style::PLAIN),
        "-- 3 events, 2 credentials, 4 lost"
    );
}

#[test]
fn trace_summary_names_sources_and_destinations_with_their_grade() {
    let mut summary = Summary::default();
    summary.add(&read("kt1:aa"));
    summary.add(&sent("kt1:aa", "observed"));
    summary.add(&sent("kt1:aa", "observed"));
    summary.add(&sent("kt1:aa", "lineage"));
    let end = TraceEnd {
        command: "npm \x1b install".into(),
        elapsed: Duration::from_millis(1500),
        outcome: "exit status 0".into(),
        survivors: 2,
    };
    let text = summary.trace(&end, &GetStatusResponse::default(), &Style::PLAIN);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.contains("-- npm \\u{1b} install (exit status 0, 1.5 s)"),
        "{text}"
    );
    assert!(
        text.contains("from            /root/\\u{1b}[2Jx by curl[9]"),
        "{text}"
    );
    assert!(
        text.contains(
            "sent to         10.0.0.9:443 (api.example.com) by curl[9] (observed, tls, base64) x2"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "holder sent to  10.0.0.9:443 (api.example.com) by curl[9] (lineage, tls, base64)\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("not followed any more: 2 processes"),
        "{text}"
    );
    assert!(summary.any_observed());
}

#[test]
fn memory_is_bounded() {
    let mut summary = Summary::default();
    for n in 0..MAX_CREDENTIALS + 5 {
        summary.add(&event("credential_read", &format!("kt1:{n:032x}")));
    }
    assert_eq!(summary.credentials(), MAX_CREDENTIALS);
    for n in 0..1000 {
        let mut e = read("kt1:00000000000000000000000000000000");
        e.process.as_mut().unwrap().pid = n;
        summary.add(&e);
    }
    assert!(
        summary
            .credentials
            .iter()
            .all(|m| m.sources.len() <= MAX_LOCATIONS)
    );
    assert_eq!(summary.beyond, 5);
    assert_eq!(summary.events(), MAX_CREDENTIALS as u64 + 1005);
}

#[test]
fn an_empty_trace_with_gaps_does_not_claim_that_there_was_nothing() {
    let mut summary = Summary::default();
    let end = TraceEnd {
        command: "true".into(),
        elapsed: Duration::ZERO,
        outcome: "exit status 0".into(),
        survivors: 0,
    };
    let text = summary.trace(&end, &GetStatusResponse::default(), &Style::PLAIN);
    assert!(text.contains("No credential was seen.\n"), "{text}");
    let gap = Gap {
        reason: GapReason::RecordsLost.number(),
        detail: "ring full".into(),
        count: 3,
        ..Default::default()
    };
    summary.add(&Event {
        kind: EventKind::CoverageGap.number(),
        gap: Some(gap),
        ..Default::default()
    });
    let text = summary.trace(&end, &GetStatusResponse::default(), &Style::PLAIN);
    assert!(
        text.contains("No credential was seen where keytrail could see."),
        "{text}"
    );
    assert!(text.contains("not seen: records_lost: ring full"), "{text}");
    assert!(text.contains("3 lost"), "{text}");
}
