use super::*;
use keytrail_model::{EventKind, EvidenceGrade, SourceType};
use keytrail_proto::v1::{
    Credential, Destination, Event, Evidence, Executable, Finding, Gap, HostName, Process, Source,
};

const HOSTILE: &str = "</td><script>alert(1)</script>\"'&\u{202e}\x1b[31m";

fn hostile(kind: EventKind, grade: EvidenceGrade) -> Event {
    let text = || HOSTILE.to_owned();
    Event {
        kind: kind.number(),
        time: Some(pbjson_types::Timestamp {
            seconds: 1_795_938_312,
            nanos: 0,
        }),
        process: Some(Process {
            pid: 7,
            comm: text(),
            unit: text(),
            argv: vec![text()],
            executable: Some(Executable {
                path: format!("/tmp/{HOSTILE}"),
                ..Default::default()
            }),
            ..Default::default()
        }),
        credential: Some(Credential {
            kind: text(),
            identifier: text(),
            fingerprint: text(),
            ..Default::default()
        }),
        source: Some(Source {
            r#type: SourceType::File.number(),
            path: text(),
            ..Default::default()
        }),
        destination: Some(Destination {
            ip: text(),
            port: 443,
            hosts: vec![HostName {
                name: text(),
                provenance: "sni".to_owned(),
            }],
            ..Default::default()
        }),
        evidence: Some(Evidence {
            grade: grade.number(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn nothing_of_the_host_is_markup() {
    let text = || HOSTILE.to_owned();
    let mut collector = Collector::default();
    for kind in [
        EventKind::CredentialRead,
        EventKind::CredentialSent,
        EventKind::CredentialExposed,
    ] {
        collector.add(&hostile(kind, EvidenceGrade::Observed));
    }
    let mut finding = hostile(EventKind::Finding, EvidenceGrade::Observed);
    finding.finding = Some(Finding {
        rule: text(),
        severity: text(),
        title: text(),
        subject: text(),
        seen: text(),
        expected: text(),
        remedy: text(),
        techniques: vec![text()],
        events: Vec::new(),
        act: 0,
    });
    collector.add(&finding);
    collector.add(&Event {
        kind: EventKind::CoverageGap.number(),
        gap: Some(Gap {
            detail: text(),
            remedy: text(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let mut report = collector.finish();
    report.title = text();
    report.facts = vec![(text(), text())];
    report.partial = vec![text()];
    report.notes = vec![text()];
    report.inventory = Some(vec![Lies {
        kind: text(),
        identifier: text(),
        fingerprint: text(),
        places: text(),
        exposures: text(),
        known_since: text(),
    }]);
    let page = html(&report);
    // More than twenty places where it stands, and in none of them as it is.
    assert!(page.matches("&lt;script&gt;").count() > 20, "{page}");
    for bad in [
        "<script", "</td><s", "\u{202e}", "\x1b", "http://", "https://", "url(", "@import",
    ] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(bad);
        assert!(!found, "{bad:?} in {page}");
    }
    assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'"));
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("@media print"));
}

#[test]
fn words_claim_no_more_than_the_grade() {
    let sentences = |grade| {
        let mut collector = Collector::default();
        collector.add(&hostile(EventKind::CredentialSent, grade));
        collector.finish().summary.join("\n")
    };
    let observed = sentences(EvidenceGrade::Observed);
    assert!(
        observed.contains("1 credential was seen to leave, to 1 destination"),
        "{observed}"
    );
    for grade in [EvidenceGrade::Identified, EvidenceGrade::Lineage] {
        let text = sentences(grade);
        assert!(text.contains("No credential was seen to leave"), "{text}");
    }
    assert!(sentences(EvidenceGrade::Identified).contains("not the secret"));
    assert!(sentences(EvidenceGrade::Lineage).contains("nothing proves it"));
}

#[test]
fn a_flow_is_drawn_from_the_credential_to_the_destination() {
    let mut collector = Collector::default();
    collector.add(&hostile(EventKind::CredentialSent, EvidenceGrade::Lineage));
    collector.add(&hostile(EventKind::CredentialSent, EvidenceGrade::Lineage));
    let report = collector.finish();
    let kinds: Vec<&str> = report.graph.nodes.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(kinds, ["credential", "destination", "program"]);
    let counts: Vec<u64> = report.graph.edges.iter().map(|e| e.count).collect();
    assert_eq!(counts, [2, 2]);
    assert!(html(&report).contains("class=\"maybe\""));
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut collector = Collector::default();
    let mut event = hostile(EventKind::CredentialRead, EvidenceGrade::Observed);
    for n in 0..MOST as u32 + 300 {
        event.credential.as_mut().unwrap().fingerprint = format!("kt1:{n:032x}");
        collector.add(&event);
    }
    let report = collector.finish();
    assert_eq!(
        (report.timeline.len(), report.timeline_omitted),
        (MOST, 300)
    );
    assert!(report.graph.nodes.len() <= 400 && report.graph.omitted > 0);
    let page = html(&report);
    assert!(page.contains("300 more are not shown here; in a capture timeline.csv has them."));
}
