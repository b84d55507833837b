use super::*;
use keytrail_proto::v1::{
    ActVerdict, Credential, GetGraphResponse, GraphEdge, GraphNode, Program, UseDestination,
};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn sent() -> Use {
    Use {
        fingerprint: "kt1:0123456789abcdef0123456789abcdef".into(),
        credential_kind: "github-token".into(),
        act: UseAct::Sent.into(),
        grade: "observed".into(),
        program: Some(Program {
            path: "/usr/bin/curl".into(),
            ..Program::default()
        }),
        destination: Some(UseDestination {
            host: "api.example.com".into(),
            ip: "2001:db8::1".into(),
            port: 443,
            protocol: "tcp".into(),
        }),
        last: at(1_700_000_000),
        count: 3,
        ..Use::default()
    }
}

#[test]
fn times_can_be_asked_for_again() {
    let text = time(at(1_700_000_000).as_ref());
    assert_eq!(
        crate::output::parse_time(&text),
        Ok(1_700_000_000),
        "{text}"
    );
    assert_eq!(time(None), "");
}

#[test]
fn a_yes_comes_with_the_uses_and_an_unknown_with_what_hides_one() {
    let mut answer = CheckUseResponse {
        verdict: Verdict::Yes.into(),
        to: at(1_700_000_100),
        uses: vec![sent()],
        credential: Some(Credential {
            kind: "github-token".into(),
            ..Credential::default()
        }),
        acts: vec![
            ActVerdict {
                act: UseAct::Read.into(),
                verdict: Verdict::No.into(),
            },
            ActVerdict {
                act: UseAct::Sent.into(),
                verdict: Verdict::Yes.into(),
            },
        ],
        ..CheckUseResponse::default()
    };
    let text = verdict(&answer, false, &Style::PLAIN);
    assert!(
        text.starts_with(&format!(
            "YES  the beginning to {}\n",
            time(at(1_700_000_100).as_ref())
        )),
        "{text}"
    );
    assert!(
        text.contains("read: no\n") && text.contains("sent: yes\n"),
        "{text}"
    );
    assert!(
        text.contains("api.example.com ([2001:db8::1]:443)"),
        "{text}"
    );
    answer.verdict = Verdict::Unknown.into();
    answer.uses.clear();
    answer.hidden = vec![HiddenInterval {
        from: at(0),
        to: at(60),
        reason: "no_agent".into(),
        detail: "no agent \u{1b}[31mran".into(),
        acts: vec![UseAct::Read.into()],
        ..HiddenInterval::default()
    }];
    let text = verdict(&answer, false, &Style::PLAIN);
    assert!(text.starts_with("UNKNOWN"), "{text}");
    assert!(
        text.contains("read   no_agent  no agent \\u{1b}[31mran"),
        "{text}"
    );
}

#[test]
fn csv_quotes_and_does_not_compute() {
    let mut rows = Rows::new(&["FIRST SEEN", "B"]);
    rows.push(vec!["a,\"b\"".into(), "=1+1".into()]);
    rows.push(vec!["-5".into(), "x\ny".into()]);
    assert_eq!(
        rows.csv(),
        "first_seen,b\n\"a,\"\"b\"\"\",\"'=1+1\"\n-5,x\\ny\n"
    );
}

#[test]
fn names_of_the_host_are_text_in_graphs() {
    let node = |id: &str, kind: &str, label: &str| GraphNode {
        id: id.into(),
        kind: kind.into(),
        label: label.into(),
    };
    let graph = GetGraphResponse {
        nodes: vec![
            node("c", "credential", "github-token\n01234567"),
            node("p", "program", "/tmp/\"<script>alert(1)</script>\\\nuser:0"),
        ],
        edges: vec![GraphEdge {
            from: "c".into(),
            to: "p".into(),
            act: UseAct::Held.into(),
            grade: "lineage".into(),
            count: 2,
        }],
        omitted: 0,
    };
    let page = html(&graph);
    assert!(
        !page.contains("<script") && page.contains("&lt;script&gt;"),
        "{page}"
    );
    assert!(page.contains("class=\"maybe\"") && page.contains("held lineage x2"));
    let text = dot(&graph);
    assert!(
        text.contains("\"/tmp/\\\"<script>alert(1)</script>\\\\\\nuser:0\""),
        "{text}"
    );
    assert!(
        text.contains("\"c\" -> \"p\" [label=\"held x2\" style=dashed]"),
        "{text}"
    );
}

#[test]
fn a_passport_says_what_became_of_the_files() {
    use keytrail_model::{EventKind, FileAction};
    use keytrail_proto::v1::{FileChange, Process, Source};
    let changed = |seconds: i64, action: Option<FileAction>, by: Option<u32>| Event {
        time: at(seconds),
        kind: match action {
            Some(_) => EventKind::CredentialFileChanged,
            None => EventKind::CredentialCreated,
        }
        .number(),
        process: by.map(|pid| Process {
            pid,
            comm: "sed".into(),
            uid: 1000,
            ..Process::default()
        }),
        source: Some(Source {
            path: "/srv/.env".into(),
            mode: "0644".into(),
            ..Source::default()
        }),
        change: action.map(|action| FileChange {
            action: action.number(),
            previous_mode: "0600".into(),
            ..FileChange::default()
        }),
        ..Event::default()
    };
    let mut answer = GetCredentialResponse {
        changes: vec![
            changed(1_700_000_009, Some(FileAction::Deleted), None),
            changed(1_700_000_005, Some(FileAction::Permissions), Some(7)),
            changed(1_700_000_000, None, Some(8)),
        ],
        more_changes: true,
        ..GetCredentialResponse::default()
    };
    let text = passport(&answer, false, &Style::PLAIN);
    for part in [
        "WHAT BECAME OF ITS FILES",
        "deleted file  /srv/.env",
        "not known",
        "changed mode  /srv/.env 0600 > 0644  sed[7] uid 1000",
        "created       /srv/.env",
        "sed[8] uid 1000",
        "and older ones",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    answer.changes.clear();
    assert!(!passport(&answer, false, &Style::PLAIN).contains("BECAME"));
}

#[test]
fn what_is_no_address_has_no_port() {
    let to = |ip: &str, port: u32| {
        destination(&Use {
            destination: Some(UseDestination {
                ip: ip.into(),
                port,
                ..UseDestination::default()
            }),
            ..sent()
        })
    };
    assert_eq!(to("pipe", 0), "pipe");
    assert_eq!(to("2001:db8::1", 443), "[2001:db8::1]:443");
    assert_eq!(to("192.0.2.1", 80), "192.0.2.1:80");
}

/// For people one row an act, with everything else by its name; all of it where all is asked for.
#[test]
fn findings_of_one_act_are_one_row() {
    let found = |rule: &str, severity: &str, fingerprint: &str, act: u64| FindingRecord {
        rule: rule.into(),
        severity: severity.into(),
        fingerprint: fingerprint.into(),
        act,
        last: at(1_700_000_000),
        ..FindingRecord::default()
    };
    let all = [
        found("duplicated", "low", "kt1:aa", 7),
        found("key-sent", "high", "kt1:aa", 7),
        found("uploaded", "medium", "kt1:bb", 7),
        found("in-dns", "critical", "kt1:cc", 9),
    ];
    let lines = |wide: bool| -> Vec<String> {
        let csv = findings(&all, wide).csv();
        csv.lines().skip(1).map(str::to_owned).collect()
    };
    let reported = lines(false);
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported[0].contains("high,key-sent,"), "{reported:?}");
    assert!(reported[0].contains("kt1:aa +1"), "{reported:?}");
    assert!(
        reported[0].ends_with("\"uploaded, duplicated\""),
        "{reported:?}"
    );
    assert_eq!(lines(true).len(), all.len());
}
