use super::*;
use keytrail_model::EventKind;
use keytrail_proto::v1::Request;
use serde_json::Value;

fn reporter() -> Reporter {
    Reporter {
        host: "web|1".into(),
        version: "0.1.0".into(),
        agent: "00112233445566778899aabbccddeeff".into(),
    }
}

fn value(format: Format, event: &Event) -> Value {
    serde_json::from_slice(&encode(format, event, &reporter()).unwrap()).unwrap()
}

fn text(event: &Event) -> String {
    String::from_utf8(encode(Format::Cef, event, &reporter()).unwrap()).unwrap()
}

#[test]
fn every_event_is_one_line_in_every_format() {
    let dump = std::env::var_os("KEYTRAIL_DUMP");
    for format in Format::ALL {
        let mut lines = Vec::new();
        for event in samples::all() {
            let line = encode(format, &event, &reporter()).unwrap();
            assert!(
                !line
                    .iter()
                    .any(|b| *b < b' ' || *b == 0x7f && !format.is_json()),
                "{format:?}"
            );
            if format.is_json() {
                assert!(serde_json::from_slice::<Value>(&line).unwrap().is_object());
            }
            lines.extend_from_slice(&line);
            lines.push(b'\n');
        }
        // For a validator of the format, such as tests/src/server/ocsf.py: `KEYTRAIL_DUMP=DIR`.
        if let Some(dir) = &dump {
            std::fs::write(std::path::Path::new(dir).join(format.word()), lines).unwrap();
        }
    }
}

#[test]
fn json_is_the_canonical_form() {
    for event in samples::all()
        .iter()
        .filter(|e| EventKind::of_number(e.kind).is_some())
    {
        let line = encode(Format::Json, event, &reporter()).unwrap();
        assert_eq!(&serde_json::from_slice::<Event>(&line).unwrap(), event);
    }
}

#[test]
fn ocsf_has_the_class_of_what_happened_and_claims_no_more_than_the_grade() {
    let class = |event: &Event| value(Format::Ocsf, event)["class_uid"].as_u64().unwrap();
    let of = |kind: EventKind| {
        let found = samples::all().into_iter().find(|e| e.kind == kind.number());
        class(&found.unwrap())
    };
    assert_eq!(of(EventKind::Finding), 2004);
    for kind in [
        EventKind::CredentialRead,
        EventKind::CredentialSent,
        EventKind::CredentialExposed,
        EventKind::CredentialTaken,
        EventKind::CredentialCreated,
    ] {
        assert_eq!(of(kind), 2006);
    }
    assert_eq!(of(EventKind::CredentialOpened), 1001);
    assert_eq!(
        (of(EventKind::ProcessStart), of(EventKind::CoverageGap)),
        (1007, 0)
    );
    let sent = value(Format::Ocsf, &samples::sent());
    assert_eq!(sent["type_uid"], 200_601);
    assert_eq!(sent["data_security"]["data_lifecycle_state_id"], 2);
    assert_eq!(
        (&sent["confidence_id"], &sent["severity_id"]),
        (&3.into(), &1.into())
    );
    assert_eq!(
        sent["metadata"]["uid"],
        "00112233445566778899aabbccddeeff:3:42"
    );
    assert_eq!(sent["dst_endpoint"]["ip"], "10.1.2.3");
    assert_eq!(sent["time"], 1_700_000_000_123_i64);
    // A holder that sent something sent no credential, as far as anybody saw.
    for event in samples::all().iter().filter(|e| {
        e.kind == EventKind::CredentialSent.number()
            && parts::grade(e) != Some(keytrail_model::EvidenceGrade::Observed)
    }) {
        let value = value(Format::Ocsf, event);
        assert_eq!(value["data_security"]["data_lifecycle_state_id"], 0);
        assert_ne!(value["confidence_id"], 3);
        assert_ne!(value["finding_info"]["title"], "Credential sent");
    }
    let finding = value(Format::Ocsf, &samples::finding());
    assert_eq!(
        (&finding["severity_id"], &finding["is_alert"]),
        (&4.into(), &true.into())
    );
    assert_eq!(
        finding["finding_info"]["related_events"][0]["uid"],
        "00112233445566778899aabbccddeeff:3:41"
    );
    assert_eq!(
        finding["finding_info"]["attacks"][0]["sub_technique"]["uid"],
        "T1552.001"
    );
    assert_eq!(finding["unmapped"]["techniques"][0], "NHI2:2025");
}

#[test]
fn ecs_has_its_fields() {
    let sent = value(Format::Ecs, &samples::sent());
    assert_eq!(sent["@timestamp"], "2023-11-14T22:13:20.123456789Z");
    assert_eq!(sent["event"]["action"], "credential_sent");
    assert_eq!(sent["event"]["category"], serde_json::json!(["network"]));
    assert_eq!(sent["destination"]["domain"], "api.example");
    assert_eq!(sent["process"]["parent"]["pid"], 1);
    assert_eq!(sent["keytrail"]["grade"], "observed");
    assert_eq!(
        sent["threat"]["technique"]["id"],
        serde_json::json!(["T1552"])
    );
    assert_eq!(
        sent["threat"]["technique"]["subtechnique"]["id"],
        serde_json::json!(["T1552.001"])
    );
    assert_eq!(
        value(Format::Ecs, &samples::finding())["event"]["kind"],
        "alert"
    );
    assert_eq!(
        value(Format::Ecs, &samples::gap())["event"]["kind"],
        "pipeline_error"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "every attribute of one event")]
fn otlp_has_its_attributes_and_claims_no_more_than_the_grade() {
    use otlp::wire::{AnyValue, LogRecord, Request as Records, Value as Any};
    use prost::Message as _;
    fn json(value: Option<AnyValue>) -> Value {
        match value.and_then(|v| v.value) {
            None => Value::Null,
            Some(Any::Text(text)) => text.into(),
            Some(Any::Bool(bool)) => bool.into(),
            Some(Any::Int(int)) => int.into(),
            Some(Any::Double(double)) => double.into(),
            Some(Any::Array(array)) => array.values.into_iter().map(|v| json(Some(v))).collect(),
            Some(Any::Map(map)) => map
                .values
                .into_iter()
                .map(|p| (p.key, json(p.value)))
                .collect(),
        }
    }
    let record = |event: &Event| {
        let bytes = encode(Format::Otlp, event, &reporter()).unwrap();
        let record = LogRecord::decode(bytes.as_slice()).unwrap();
        let named: serde_json::Map<String, Value> = record
            .attributes
            .iter()
            .map(|p| (p.key.clone(), json(p.value.clone())))
            .collect();
        assert_eq!(named.len(), record.attributes.len(), "a name twice");
        (record, named)
    };
    let (sent, named) = record(&samples::sent());
    assert_eq!(sent.event_name, "keytrail.credential_sent");
    assert_eq!(sent.time_unix_nano, 1_700_000_000_123_456_789);
    assert_eq!(
        (sent.severity_number, sent.severity_text.as_str()),
        (9, "INFO")
    );
    assert!(
        json(sent.body)
            .as_str()
            .unwrap()
            .starts_with("Credential sent: github-token")
    );
    for (name, value) in [
        ("log.record.uid", "00112233445566778899aabbccddeeff:3:42"),
        ("server.address", "api.example"),
        ("network.peer.address", "10.1.2.3"),
        ("tls.client.server_name", "api.example"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "1.1"),
        ("url.template", "/v1/{id}"),
        ("process.executable.name", "cu|rl=x"),
        ("container.id", "c0ffee"),
        ("keytrail.grade", "observed"),
    ] {
        assert_eq!(named[name], value, "{name}");
    }
    assert_eq!(
        (&named["process.pid"], &named["server.port"]),
        (&4121.into(), &443.into())
    );
    assert_eq!(named["keytrail.credential"]["kind"], "github-token");
    let (finding, named) = record(&samples::finding());
    assert_eq!(finding.severity_text, "ERROR");
    assert_eq!(named["security_rule.name"], "decoy-touched");
    assert_eq!(named["file.inode"], "77");
    assert_eq!(record(&samples::gap()).0.severity_text, "WARN");
    for event in samples::all() {
        let (record, named) = record(&event);
        let body = json(record.body);
        if parts::grade(&event) == Some(keytrail_model::EvidenceGrade::Lineage) {
            assert!(
                !body.as_str().unwrap().starts_with("Credential sent"),
                "{body}"
            );
            assert_eq!(named["keytrail.grade"], "lineage");
        }
    }
    let records = vec![encode(Format::Otlp, &samples::gap(), &reporter()).unwrap()];
    let request = Records::decode(otlp::request(records.clone(), &reporter()).as_slice()).unwrap();
    let logs = &request.resources[0];
    assert_eq!(logs.scopes[0].records, records);
    assert!(logs.schema_url.ends_with("/1.44.0") && logs.scopes[0].schema_url == logs.schema_url);
}

#[test]
fn cef_escapes_what_would_end_a_field() {
    let finding = text(&samples::finding());
    let head = "CEF:0|keytrail|keytrail|0.1.0|decoy-touched|A decoy \\| was = read here|8|rt=1700000000123 ";
    assert!(finding.starts_with(head), "{finding}");
    assert!(
        finding.contains(" filePath=/home/a b/.aws/cred\\=en|tials\\nx "),
        "{finding}"
    );
    let sent = text(&samples::sent());
    assert!(sent.contains(" sproc=/usr/bin/cu|rl\\=x "), "{sent}");
    assert!(
        sent.contains(" cs2=ghp_a|b\\=c\\\\d cs2Label=CredentialIdentifier"),
        "{sent}"
    );
    assert!(
        sent.contains(" dst=10.1.2.3 dpt=443 dhost=api.example "),
        "{sent}"
    );
    assert!(
        sent.contains("cs4=observed tls cs4Label=Evidence"),
        "{sent}"
    );
    // Each unescaped = follows a key; each value is what it was.
    let pairs = &sent[sent
        .match_indices('|')
        .filter(|(at, _)| !sent[..*at].ends_with('\\'))
        .nth(6)
        .unwrap()
        .0
        + 1..];
    let mut keys = 0;
    for (at, _) in pairs.match_indices('=') {
        if pairs[..at].ends_with('\\') {
            continue;
        }
        let key = pairs[..at].rsplit(' ').next().unwrap();
        assert!(
            key.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{key:?} in {pairs}"
        );
        keys += 1;
    }
    assert!(keys > 15, "{pairs}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    let at = |seconds| rfc3339(Some(&pbjson_types::Timestamp { seconds, nanos: 5 }), 3);
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
    assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
    assert_eq!(at(-1), "1969-12-31T23:59:59.000Z");
    assert_eq!(
        rfc3339(
            Some(&pbjson_types::Timestamp {
                seconds: 1,
                nanos: 123_456_789
            }),
            9
        ),
        "1970-01-01T00:00:01.123456789Z"
    );
}

/// What was asked for, and by what an identified credential is known, is in every format that sinks speak.
#[test]
fn the_request_and_the_proof_are_in_every_format() {
    let mut event = samples::sent();
    let evidence = event.evidence.as_mut().unwrap();
    evidence.grade = keytrail_model::EvidenceGrade::Identified.number();
    evidence.identified_by = keytrail_model::IdentifiedBy::JwtSignature.number();
    for format in Format::ALL {
        let line = encode(format, &event, &reporter()).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        for said in [
            "POST",
            "/v1/{id}",
            "api.example",
            "application/json",
            "octo/hello",
        ] {
            assert!(line.contains(said), "{format:?}: {said}: {line}");
        }
        let by = ["jwt_signature", "IDENTIFIED_BY_JWT_SIGNATURE"];
        assert!(by.iter().any(|by| line.contains(by)), "{format:?}: {line}");
    }
    let ecs = value(Format::Ecs, &event);
    assert_eq!(ecs["http"]["request"]["bytes"], 512);
    assert_eq!(ecs["url"]["path"], "/v1/{id}");
    let cef = text(&event);
    let context = "requestContext=host:api.example content_type:application/json github:repository octo/hello";
    assert!(cef.contains(context), "{cef}");
    // An answer asks nobody for anything.
    let request = event.request.as_mut().unwrap();
    *request = Request {
        protocol: "http/1.1".into(),
        content_type: "application/json".into(),
        status_class: 2,
        ..Request::default()
    };
    assert!(text(&event).contains("status_class:2"));
    assert_eq!(
        value(Format::Ecs, &event)["http"]["response"]["mime_type"],
        "application/json"
    );
}

/// What an event says beside its class is in every JSON format; where its file lies on the host is in CEF as well.
#[test]
fn nothing_that_is_said_beside_is_left_out() {
    let mut event = samples::sent();
    let source = event.source.get_or_insert_default();
    source.path = "/run/secrets/aws".into();
    source.host_path = "/var/lib/layers/3/fs/aws".into();
    event.destination.get_or_insert_default().socket_path = "/run/peer.sock".into();
    let process = event.process.as_mut().unwrap();
    process.executable.as_mut().unwrap().upper_layer = true;
    event.delivery = Some(keytrail_proto::v1::Delivery {
        container: "web-7".into(),
        path: Vec::new(),
    });
    event.change = Some(keytrail_proto::v1::FileChange {
        new_path: "/srv/moved".into(),
        ..Default::default()
    });
    event.environment = "staging-3".into();
    event.group = 4711;
    for format in Format::ALL {
        let line = encode(format, &event, &reporter()).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        let in_all = ["/run/secrets/aws", "/var/lib/layers/3/fs/aws"];
        let beside = [
            "web-7",
            "/srv/moved",
            "staging-3",
            "4711",
            "upperLayer",
            "/run/peer.sock",
        ];
        let beside = beside.iter().filter(|_| format != Format::Cef);
        for said in in_all.iter().chain(beside) {
            assert!(line.contains(said), "{format:?}: {said}: {line}");
        }
    }
}
