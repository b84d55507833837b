//! What people see: exact columns, graded verbs, nothing of the host unescaped.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail::output::{Format, Local, Style, Summary, TraceEnd, Writer, gap_event};
use keytrail_model::{Channel, EventKind, EvidenceGrade, GapReason, SourceType, Transform};
use keytrail_proto::v1::*;
use pbjson_types::Timestamp;
use std::time::Duration;

const AT_80: Style = Style {
    colour: false,
    width: Some(80),
};
const AT_120: Style = Style {
    colour: false,
    width: Some(120),
};

fn written(events: &[Event], format: Format, style: Style) -> String {
    let mut writer = Writer::new(Vec::new(), format, style);
    for event in events {
        writer.event(event).unwrap();
    }
    let text = String::from_utf8(writer.into_inner()).unwrap();
    // The days that stand above a terminal's lines depend on today.
    let lines = text.split_inclusive('\n');
    lines.filter(|l| !l.starts_with("-- ")).collect()
}

fn clock() -> String {
    Local::of(&base("credential_read").time.unwrap()).millis()
}

fn base(kind: &str) -> Event {
    Event {
        time: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 482_000_000,
        }),
        kind: EventKind::of_word(kind).unwrap().number(),
        process: Some(Process {
            pid: 4121,
            comm: "python3".into(),
            executable: Some(Executable {
                path: "/usr/bin/python3.11".into(),
                ..Default::default()
            }),
            argv: vec!["python3".into(), "job.py".into()],
            ancestors: vec![Ancestor {
                pid: 7,
                comm: "sshd".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        credential: Some(Credential {
            kind: "aws-access-key".into(),
            identifier: "AKIAXXXXXXXXXXXXXXXX".into(),
            fingerprint: "kt1:9c1e00112233445566778899aabbcca2".into(),
            confidence: 0.99,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn read() -> Event {
    Event {
        source: Some(Source {
            r#type: SourceType::File.number(),
            path: "/root/.aws/credentials".into(),
            mode: "0600".into(),
            ..Default::default()
        }),
        attack: vec!["T1552.001".into()],
        ..base("credential_read")
    }
}

fn sent(grade: &str, channel: &str, transform: &str) -> Event {
    Event {
        destination: Some(Destination {
            ip: "10.0.0.9".into(),
            port: 443,
            protocol: "tcp".into(),
            hosts: vec![
                HostName {
                    name: "s3.amazonaws.com".into(),
                    provenance: "sni".into(),
                },
                HostName {
                    name: "s3.amazonaws.com:8443".into(),
                    provenance: "host_header".into(),
                },
            ],
            ..Default::default()
        }),
        evidence: Some(Evidence {
            grade: EvidenceGrade::of_word(grade).map_or(0, EvidenceGrade::number),
            channel: Channel::of_word(channel).unwrap().number(),
            transform: Transform::of_word(transform).map_or(0, Transform::number),
            payload_bytes: 100,
            inspected_bytes: 90,
            ..Default::default()
        }),
        ..base("credential_sent")
    }
}

#[test]
fn compact_is_aligned_and_fits_the_terminal() {
    let events = [read(), sent("observed", "tls", "base64")];
    let at = |width| Style {
        colour: false,
        width: Some(width),
    };
    let time = clock();
    assert_eq!(
        written(&events, Format::Compact, at(130)),
        format!(
            "\
TIME          PROCESS                 ACTION        CREDENTIAL                     WHERE
{time}  python3.11[4121]        read file     aws-access-key 9c1e..a2        /root/.aws/credentials  T1552.001
{time}  python3.11[4121]        sent TLS      aws-access-key 9c1e..a2        10.0.0.9:443 (s3.amazonaws.com) as base64
"
        )
    );
    // At 80 columns process and credential are whole, and so is the place, on a line of its own.
    let time = &time[..8];
    assert_eq!(
        written(&events, Format::Compact, at(80)),
        format!(
            "\
TIME      PROCESS              ACTION        CREDENTIAL               WHERE
{time}  python3.11[4121]     read file     aws-access-key 9c1e..a2
          /root/.aws/credentials
{time}  python3.11[4121]     sent TLS      aws-access-key 9c1e..a2
          10.0.0.9:443 (s3.amazonaws.com) as base64
"
        )
    );
    // A wide terminal is used: who it was, the identifier, the command.
    let roomy = written(&events, Format::Compact, at(220));
    for part in ["host root", "AKIAXXXXXXXXXXXXXXXX", "python3 job.py"] {
        assert!(roomy.contains(part), "{part}: {roomy}");
    }
    // Who is not the usual one is reported everywhere.
    let mut pod = read();
    pod.process.as_mut().unwrap().pod = "web-1".into();
    for width in [80, 120, 220] {
        let text = written(&[pod.clone()], Format::Compact, at(width));
        assert!(text.contains("pod web-1"), "{width}: {text}");
    }
    for width in [20, 40, 80, 100, 120, 200, 400] {
        let style = Style {
            colour: false,
            width: Some(width),
        };
        // Every column has its least width; narrower terminals wrap.
        let least = 73;
        for line in written(&events, Format::Compact, style).lines() {
            assert!(line.chars().count() <= width.max(least), "{width}: {line}");
        }
    }
    // In a pipe nothing is cut.
    let piped = written(&events, Format::Compact, Style::PLAIN);
    assert!(
        piped.contains("aws-access-key 9c1e..a2") && piped.contains("/root/.aws/credentials"),
        "{piped}"
    );
}

#[test]
fn verbs_carry_the_grade() {
    let action = |event: Event| {
        let text = written(&[event], Format::Compact, AT_120);
        text.lines().nth(1).unwrap()[37..]
            .split("  ")
            .next()
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(action(sent("observed", "tls", "raw")), "sent TLS");
    assert_eq!(action(sent("observed", "tcp", "raw")), "sent clear");
    assert_eq!(action(sent("identified", "tls", "")), "named in TLS");
    assert_eq!(action(sent("lineage", "tls", "")), "holder sent");
    // A grade that is not known is not taken for the best.
    assert_eq!(action(sent("", "tls", "raw")), "holder sent");
}

#[test]
fn an_unseen_destination_is_unknown_and_a_name_alone_is_no_address() {
    let mut event = sent("observed", "tls", "raw");
    event.destination = None;
    assert!(
        written(&[event.clone()], Format::Compact, Style::PLAIN).contains("unknown destination")
    );
    event.destination = Some(Destination::default());
    assert!(
        written(&[event.clone()], Format::Compact, Style::PLAIN).contains("unknown destination")
    );
    event.destination = Some(Destination {
        hosts: vec![HostName {
            name: "evil.example".into(),
            provenance: "host_header".into(),
        }],
        ..Default::default()
    });
    assert!(
        written(&[event.clone()], Format::Compact, Style::PLAIN)
            .contains("evil.example (address unknown)")
    );
    event.destination = Some(Destination {
        ip: "2001:db8::1".into(),
        port: 443,
        ..Default::default()
    });
    assert!(written(&[event], Format::Compact, Style::PLAIN).contains("[2001:db8::1]:443"));
}

/// A wrong destination is worse than an unknown one: what a request says of itself is no address.
#[test]
fn names_are_shown_for_what_they_are() {
    let shown = |hosts: &[(&str, &str)]| {
        let mut event = sent("observed", "tcp", "raw");
        let hosts = hosts.iter().map(|(name, provenance)| HostName {
            name: (*name).into(),
            provenance: (*provenance).into(),
        });
        event.destination = Some(Destination {
            ip: "10.0.0.9".into(),
            port: 3128,
            hosts: hosts.collect(),
            ..Default::default()
        });
        let text = written(&[event], Format::Compact, Style::PLAIN);
        text.lines().nth(1).unwrap_or_default().to_owned()
    };
    for (hosts, expected) in [
        (&[("a.example", "sni")][..], "10.0.0.9:3128 (a.example)"),
        (
            &[("a.example", "sni"), ("a.example:9", "host_header")],
            "10.0.0.9:3128 (a.example)",
        ),
        (
            &[("b.example", "host_header"), ("a.example", "sni")],
            "10.0.0.9:3128 (a.example, Host: b.example)",
        ),
        (&[("b.example", "host_header")], "10.0.0.9:3128 (b.example)"),
        (
            &[
                ("c.example", "host_header"),
                ("c.example:443", "connect_target"),
            ],
            "10.0.0.9:3128 (proxy to c.example)",
        ),
        (
            &[("c.example", "request_target")],
            "10.0.0.9:3128 (proxy to c.example)",
        ),
    ] {
        let line = shown(hosts);
        assert!(
            line.trim_end().ends_with(expected) || line.contains(&format!("{expected}  ")),
            "{expected}: {line}"
        );
    }
}

#[test]
fn wide_says_everything_on_one_line() {
    let text = written(&[sent("observed", "tls", "base64")], Format::Wide, AT_80);
    assert_eq!(text.lines().count(), 2);
    for part in [
        "aws-access-key 9c1e..a2",
        "id=AKIAXXXXXXXXXXXXXXXX",
        "fingerprint=kt1:9c1e00112233445566778899aabbcca2",
        "confidence=0.99",
        "grade=observed",
        "transform=base64",
        "inspected=90/100",
        "ip=10.0.0.9 port 443 tcp",
        "sni=s3.amazonaws.com",
        "host_header=s3.amazonaws.com:8443",
        "exe=/usr/bin/python3.11",
        "argv=python3 job.py",
        "parents=sshd[7]",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn colour_only_where_it_is_wanted() {
    assert!(!written(&[read()], Format::Compact, AT_120).contains('\x1b'));
    let coloured = written(
        &[read()],
        Format::Compact,
        Style {
            colour: true,
            width: Some(120),
        },
    );
    assert!(coloured.contains("\x1b[36mread file"));
    // Without its colours it is the same.
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    let lines = plain.split_inclusive('\n');
    let plain: String = lines.filter(|l| !l.starts_with("-- ")).collect();
    assert_eq!(plain, written(&[read()], Format::Compact, AT_120));
    // Files and pipes never get any.
    assert_eq!(
        Style::of(std::fs::File::open("/dev/null").unwrap()),
        Style::PLAIN
    );
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "every field that may hold something hostile"
)]
fn nothing_of_the_host_reaches_the_terminal_unescaped() {
    let evil = "a\x1b]0;owned\x07\r\n\u{9b}31m\u{202e}b\u{2028}".to_owned();
    let e = || evil.clone();
    let mut events = Vec::new();
    for kind in [
        "credential_read",
        "credential_exposed",
        "credential_sent",
        "credential_created",
        "coverage_gap",
        "process_start",
        "process_exit",
        "of a newer agent",
    ] {
        for source in ["file", "env", "argv", "of a newer agent"] {
            for (ip, socket, pod) in [
                (e(), String::new(), e()),
                (String::new(), e(), String::new()),
            ] {
                events.push(Event {
                    kind: EventKind::of_word(kind).map_or(99, EventKind::number),
                    process: Some(Process {
                        key: e(),
                        executable: Some(Executable {
                            path: format!("/{evil}"),
                            ..Default::default()
                        }),
                        comm: e(),
                        argv: vec![e(), e()],
                        cwd: e(),
                        cgroup: e(),
                        container: pod.clone(),
                        unit: e(),
                        pod,
                        ancestors: vec![Ancestor {
                            key: e(),
                            comm: e(),
                            executable: e(),
                            script: e(),
                            pid: 1,
                        }],
                        contexts: vec![Context {
                            kind: 1,
                            name: e(),
                            ancestor: e(),
                        }],
                        ..Default::default()
                    }),
                    credential: Some(Credential {
                        kind: e(),
                        identifier: e(),
                        fingerprint: e(),
                        rule: e(),
                        ..Default::default()
                    }),
                    source: Some(Source {
                        r#type: SourceType::of_word(source).map_or(99, SourceType::number),
                        path: e(),
                        mode: e(),
                        env_name: e(),
                        inherited_from: e(),
                        ..Default::default()
                    }),
                    destination: Some(Destination {
                        ip,
                        protocol: e(),
                        hosts: vec![
                            HostName {
                                name: e(),
                                provenance: e(),
                            },
                            HostName::default(),
                        ],
                        socket_path: socket,
                        local_ip: e(),
                        ..Default::default()
                    }),
                    evidence: Some(Evidence {
                        grade: 99,
                        transform: 99,
                        channel: 99,
                        destination_method: 99,
                        part: e(),
                        hook: e(),
                        ..Default::default()
                    }),
                    coverage: vec![e()],
                    attack: vec![e()],
                    gap: Some(Gap {
                        reason: 99,
                        detail: e(),
                        remedy: e(),
                        signal: 99,
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            }
        }
    }
    let mut summary = Summary::default();
    events.iter().for_each(|event| summary.add(event));
    let status = GetStatusResponse {
        libraries: vec![LibraryStatus {
            stack: 99,
            reason: e(),
            ..Default::default()
        }],
        signals: vec![SignalStatus {
            signal: 99,
            refused: vec![RefusedHook {
                reason: e(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let end = TraceEnd {
        command: e(),
        elapsed: Duration::ZERO,
        outcome: String::new(),
        survivors: 0,
    };
    let texts = [
        written(&events, Format::Compact, AT_80),
        written(&events, Format::Compact, Style::PLAIN),
        written(&events, Format::Wide, AT_120),
        written(&events, Format::Csv, AT_120),
        summary.trace(&end, &status, &Style::PLAIN),
    ];
    for text in &texts {
        let bad = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202e}' | '\u{2028}'));
        assert_eq!(bad, None, "{text:?}");
    }
    // And no event makes two lines, but for the place on a narrow terminal, which is set in.
    let first = |t: &String| t.lines().filter(|l| !l.starts_with("      ")).count();
    assert_eq!(first(&texts[0]), events.len() + 1);
    assert!(
        texts[1..3]
            .iter()
            .all(|t| t.lines().count() == events.len() + 1)
    );
    assert_eq!(
        written(&events, Format::Csv, Style::PLAIN).lines().count(),
        events.len() + 1
    );
}

#[test]
fn json_lines_have_no_header_and_gaps_are_events() {
    let gap = Gap {
        reason: GapReason::ClientTooSlow.number(),
        count: 5,
        ..Default::default()
    };
    let text = written(&[read(), gap_event(gap.clone())], Format::Json, AT_80);
    let events: Vec<Event> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(events[0], read());
    assert_eq!(
        (EventKind::word_of(events[1].kind), events[1].gap.as_ref()),
        ("coverage_gap", Some(&gap))
    );
}

#[test]
fn a_gap_again_and_again_is_one_line_and_a_count() {
    let gap = |n: i64| {
        gap_event(Gap {
            reason: GapReason::PayloadTruncated.number(),
            detail: "long".into(),
            count: 2,
            to: Some(Timestamp {
                seconds: n,
                nanos: 0,
            }),
            ..Default::default()
        })
    };
    let reported = |format| {
        let style = Style {
            colour: false,
            width: Some(300),
        };
        let mut writer = Writer::new(Vec::new(), format, style).condensed();
        for n in 0..500 {
            writer.event(&gap(n)).unwrap();
        }
        writer.event(&read()).unwrap();
        for n in 0..3 {
            writer.event(&gap(n)).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(writer.into_inner()).unwrap()
    };
    let text = reported(Format::Compact);
    let gaps: Vec<_> = text.lines().filter(|l| l.contains("NOT SEEN")).collect();
    assert_eq!(gaps.len(), 3, "{text}");
    assert!(
        gaps[0].contains("payload_truncated, 2 sends: long"),
        "{text}"
    );
    assert!(gaps[1].contains("998 sends: 499 more"), "{text}");
    assert!(gaps[2].contains("6 sends: 3 more"), "{text}");
    assert!(text.find("998").unwrap() < text.find("read file").unwrap());
    // Programs get them all.
    assert_eq!(reported(Format::Json).lines().count(), 504);
}

/// What was asked for is in every shape of output, where there is room for it, and so is by what a credential is known.
#[test]
fn requests_and_proofs_are_shown() {
    let mut event = sent("identified", "tls", "");
    event.evidence.as_mut().unwrap().identified_by =
        keytrail_model::IdentifiedBy::AwsSignature.number();
    event.request = Some(keytrail_proto::v1::Request {
        protocol: "h2".into(),
        method: "PUT".into(),
        host: "backups.s3.amazonaws.com".into(),
        path: "/{id}/dump.tar".into(),
        content_type: "application/x-tar".into(),
        content_length: Some(48_151),
        bytes: 623,
        target: Some(keytrail_proto::v1::Target {
            service: "aws_s3".into(),
            kind: "bucket".into(),
            name: "backups".into(),
        }),
        status_class: 0,
    });
    let events = [event.clone()];
    let line = "by an AWS signature, PUT /{id}/dump.tar (aws_s3 bucket backups)";
    let at = |width| Style {
        colour: false,
        width: Some(width),
    };
    for style in [Style::PLAIN, at(320)] {
        let text = written(&events, Format::Compact, style);
        assert!(text.contains(line), "{text}");
    }
    // No room: where it went comes first.
    for width in [80, 100, 120] {
        let text = written(&events, Format::Compact, at(width));
        assert!(
            text.contains("amazonaws.com") && !text.contains("PUT"),
            "{text}"
        );
    }
    let wide = written(&events, Format::Wide, Style::PLAIN);
    for said in [
        line,
        "identified_by=aws_signature",
        "protocol=h2",
        "host=backups.s3.amazonaws.com",
        "content_type=application/x-tar",
        "content_length=48151",
        "request_bytes=623",
    ] {
        assert!(wide.contains(said), "{said}: {wide}");
    }
    let csv = written(&events, Format::Csv, Style::PLAIN);
    let row = "aws_signature,h2,PUT,backups.s3.amazonaws.com,/{id}/dump.tar,application/x-tar,623,,aws_s3 bucket backups";
    assert!(csv.contains(row), "{csv}");
    for format in [Format::Json, Format::Yaml] {
        let text = written(&events, format, Style::PLAIN);
        for said in ["IDENTIFIED_BY_AWS_SIGNATURE", "/{id}/dump.tar", "48151"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
    event.request = Some(keytrail_proto::v1::Request {
        status_class: 4,
        ..Default::default()
    });
    let text = written(&[event], Format::Compact, Style::PLAIN);
    assert!(text.contains(", answer 4xx"), "{text}");
}

#[test]
fn what_one_send_carried_is_one_block_on_a_terminal() {
    let named = |n: u32, grade: &str| {
        let mut event = sent(grade, "tls", "raw");
        event.group = 40;
        event.credential.as_mut().unwrap().fingerprint = format!("kt1:{n:032x}");
        event.credential.as_mut().unwrap().identifier.clear();
        event
    };
    let mut other = named(9, "observed");
    other.group = 44;
    let mut elsewhere = named(5, "observed");
    elsewhere.destination = None;
    let events = [
        named(1, "observed"),
        named(2, "observed"),
        named(3, "identified"),
        elsewhere,
        other,
        read(),
    ];
    let text = written(&events, Format::Compact, AT_120);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[0].contains("sent TLS") && lines[0].contains("s3.amazonaws.com"),
        "{text}"
    );
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["and", "aws-access-key", "0000..02"],
        "{text}"
    );
    assert_eq!(
        lines[1].find("aws-access-key"),
        lines[0].find("aws-access-key")
    );
    assert!(lines[2].trim_start().starts_with("named in TLS"), "{text}");
    assert!(lines[3].ends_with("unknown destination"), "{text}");
    // Another act, and one that is reported alone, begin anew.
    assert!(lines[4].contains("python3.11[4121]") && lines[5].contains("python3.11[4121]"));
    // Who searches lines finds all of it in each.
    let text = written(&events, Format::Compact, Style::PLAIN);
    let whole = |line: &&str| line.contains("python3.11[4121]");
    assert_eq!(text.lines().filter(whole).count(), 6, "{text}");
    assert!(written(&events, Format::Wide, AT_120).contains(" group=40"));
}
