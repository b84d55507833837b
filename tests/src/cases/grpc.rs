//! The API itself.

use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask, Event, EventKind, GapReason, Signal, list, of_kind, parse_lines, tree},
    machine::{Scratch, is_slow, keytrail, patience, turn, wait_for},
    plant,
    stream::{Item, Reader, SlowReader, on_channel, status},
};
use keytrail_proto::v1::{Filter, StreamEventsRequest};
use std::os::unix::fs::PermissionsExt as _;

/// Health and reflection answer, and the socket is for root and its group only.
pub fn health_and_reflection() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let mode = std::fs::metadata(agent.socket())
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o660, "{mode:o}");
    let state = std::fs::metadata(scratch.join("agent/state"))
        .unwrap()
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(
        state & 0o077,
        0,
        "others may inspect the state directory: {state:o}"
    );

    let health = on_channel(&agent.socket(), |channel| async {
        let request = HealthCheckRequest {
            service: String::new(),
        };
        HealthClient::new(channel)
            .check(request)
            .await
            .unwrap()
            .into_inner()
            .status
    });
    assert_eq!(health, ServingStatus::Serving as i32);
    let services = on_channel(&agent.socket(), |channel| async {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::once(request))
            .await
            .unwrap()
            .into_inner();
        match answers.message().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    });
    assert!(
        services.iter().any(|s| s == "keytrail.v1.EventService"),
        "{services:?}"
    );

    let got = status(&agent.socket());
    let node = got.node.unwrap();
    let event = agent.sentinel();
    let id = event.id.as_ref().unwrap();
    assert_eq!(
        (&node.agent, &node.boot, node.epoch),
        (&id.agent, &id.boot, id.epoch)
    );
}

/// Filters are applied by the server.
pub fn filters_on_the_server() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let held = plant::github();
    // Under another name it is news; what a child only inherits is counted.
    let holder = sh("while read line; do COPIED_TOKEN=\"$GITHUB_TOKEN\" env true; done")
        .env("GITHUB_TOKEN", &held.value);
    let mut holder = holder.spawn_listening();
    let first = agent.expect("the exposure", holder.pid(), |e| {
        e.is("credential_exposed") && e.pid() == holder.pid()
    });
    let fingerprint = first.fingerprint().to_owned();
    let reader = |filter: Filter| Reader::start(&agent.socket(), Some(filter));
    let by_pid = reader(Filter {
        pids: vec![holder.pid()],
        ..Filter::default()
    });
    let by_credential = reader(Filter {
        credentials: vec![fingerprint[..12].to_owned()],
        ..Filter::default()
    });
    let by_kind = reader(Filter {
        kinds: vec![EventKind::ProcessExit.number()],
        ..Filter::default()
    });
    let all = Reader::start(&agent.socket(), None);
    assert_eq!(all.node.epoch, first.id.as_ref().unwrap().epoch);
    holder.say("go");
    agent.sentinel();
    type Passes<'a> = &'a dyn Fn(&Event) -> bool;
    let wants: [(&str, &Reader, Passes); 4] = [
        ("pid", &by_pid, &|e| e.in_tree(holder.pid())),
        ("credential", &by_credential, &|e| {
            e.fingerprint() == fingerprint
        }),
        ("kind", &by_kind, &|e| e.is("process_exit")),
        ("nothing", &all, &|e| !e.what().starts_with("process_")),
    ];
    for (what, reader, is) in wants {
        wait_for(&format!("an event by {what}"), patience(5), || {
            (!reader.events().is_empty()).then_some(())
        });
        let events = reader.events();
        assert!(events.iter().all(is), "by {what}:\n{}", list(&events));
    }
    agent.wait_idle();
    assert!(
        by_pid
            .events()
            .iter()
            .any(|e| e.fingerprint() == fingerprint)
    );
}

/// A stream may begin with the events of before: each once, with the id it had, and no hole where the live ones begin.
pub fn events_of_before() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let first = agent.sentinel().sequence();
    // Readers come while events do.
    let mut load =
        sh("i=0; while [ $i -lt 200 ]; do COPIED_TOKEN=$GITHUB_TOKEN /bin/true; i=$((i+1)); done")
            .env("GITHUB_TOKEN", plant::github().value)
            .spawn_listening();
    let readers: Vec<Reader> = (0..8)
        .map(|_| {
            let request = StreamEventsRequest {
                since: Some(Default::default()),
                ..StreamEventsRequest::default()
            };
            Reader::ask(&agent.socket(), request)
        })
        .collect();
    load.wait(patience(20), "the load");
    let last = agent.sentinel().sequence();
    let expected: Vec<u64> = agent
        .events()
        .iter()
        .filter(|e| !e.what().starts_with("process_"))
        .map(Ask::sequence)
        .filter(|s| (first..=last).contains(s))
        .collect();
    assert!(expected.len() > 200, "{} events", expected.len());
    for reader in &readers {
        wait_for("the last event", patience(10), || {
            let events = reader.events();
            events.iter().any(|e| e.sequence() == last).then_some(())
        });
        let got: Vec<u64> = reader
            .events()
            .iter()
            .map(Ask::sequence)
            .filter(|s| (first..=last).contains(s))
            .collect();
        assert_eq!(got, expected);
    }
}

/// A client that does not read costs nobody anything: it gets a gap with the right count, the engine loses nothing,
/// and a client that reads gets its events meanwhile.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn slow_client() {
    let _turn = turn();
    let scratch = Scratch::new();
    let recording = scratch.join("recording.jsonl");
    let agent = Setup::new(&scratch).arg("--record").arg(&recording).start();
    let mut slow = SlowReader::start(&agent.socket());
    let quick = Reader::start(&agent.socket(), None);
    // Ten credentials an exec, more events than any queue for a client holds.
    let execs = if is_slow() { 1200 } else { 1500 };
    // The shell does not have them in its environment: each of its children is given them anew.
    let [mut read, mut give, mut tokens] = [const { String::new() }; 3];
    for number in 0..10 {
        read.push_str(&format!(" v{number}"));
        give.push_str(&format!("T{number}_GITHUB_TOKEN=$v{number} "));
        tokens.push_str(&format!("{} ", plant::github().value));
    }
    let script =
        format!("read{read}; i=0; while [ $i -lt $1 ]; do {give} /bin/true; i=$((i+1)); done");
    let done = sh(&script)
        .arg(execs.to_string())
        .stdin(format!("{tokens}\n"))
        .limit(60)
        .run()
        .ok();
    let after_load = agent.sentinel().sequence();

    // It reads at last: what was kept for it, and then, with room again, what comes.
    let mut items = slow.read(
        patience(1),
        |item| matches!(item, Item::Event(e) if e.sequence() > after_load),
    );
    let last = agent.sentinel().sequence();
    items.extend(slow.read(
        patience(5),
        |item| matches!(item, Item::Event(e) if e.sequence() == last),
    ));
    wait_for("the last event at the quick client", patience(10), || {
        quick
            .events()
            .iter()
            .any(|e| e.sequence() == last)
            .then_some(())
    });
    let at_quick: Vec<u64> = quick.events().iter().map(Ask::sequence).collect();
    let quick_missed = quick.missed();

    let mut got = Vec::new();
    let mut missed = 0;
    for item in &items {
        match item {
            Item::Event(event) => got.push(event.sequence()),
            Item::Gap(gap) => {
                assert_eq!(gap.reason, GapReason::ClientTooSlow.number(), "{gap:?}");
                assert!(
                    gap.count > 0 && gap.from.is_some() && gap.to.is_some(),
                    "{gap:?}"
                );
                missed += gap.count;
            }
        }
    }
    assert!(
        missed > 0,
        "{} events fitted into buffers: no gap to see",
        items.len()
    );
    assert_eq!(got.last(), Some(&last), "the slow client never caught up");

    // The recording knows what there was.
    agent.stop();
    let replayed = act(keytrail())
        .arg("replay")
        .arg(&recording)
        .args(["-o", "json"])
        .run()
        .ok();
    let all = parse_lines(&replayed.stdout_text());
    let exposed = of_kind(&tree(&all, done.pid), "credential_exposed");
    // On a machine too busy to drain the ring some are lost there: then the stream says how many, at least.
    let lost: u64 = of_kind(&all, "coverage_gap")
        .iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| {
            gap.reason == GapReason::RecordsLost.number()
                && Signal::word_of(gap.signal).starts_with("exec")
        })
        .map(|gap| gap.count)
        .sum();
    let expected = 10 * execs as usize;
    assert!(exposed.len() <= expected, "{} events", exposed.len());
    assert!(
        (expected - exposed.len()) as u64 <= 10 * lost,
        "{} of {expected} events, {lost} exec records reported as lost:\n{}",
        exposed.len(),
        list(&of_kind(&all, "coverage_gap"))
    );
    let accounts = |who: &str, got: &[u64], missed: u64| {
        assert!(got.is_sorted_by(|a, b| a < b), "{who}: out of order");
        let span = got[0]..=last;
        let there = all
            .iter()
            .filter(|e| !e.what().starts_with("process_") && span.contains(&e.sequence()))
            .count() as u64;
        let came = got.iter().filter(|s| span.contains(s)).count() as u64;
        assert_eq!(came + missed, there, "{who}: what came, what was missed");
    };
    accounts("the slow client", &got, missed);
    accounts("the quick client", &at_quick, quick_missed);
    // A busy machine may cost the quick one something, but not what the slow one loses.
    println!("missed: {missed} by the slow client, {quick_missed} by the quick one");
    assert!(
        quick_missed * 4 < missed,
        "the quick client missed {quick_missed}, the slow one {missed}"
    );
}

/// The stock client of Python (PyPI's grpcio), without any option: it names the socket's path where HTTP wants a host.
pub fn the_stock_python_client_connects() {
    const VERSION: &str = "grpcio==1.85.3";
    const CLIENT: &str = r#"
import sys
import grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    status = channel.unary_unary("/keytrail.v1.EventService/GetStatus")
    print("status", len(status(b"", timeout=10)) > 0)
    stream = channel.unary_stream("/keytrail.v1.EventService/StreamEvents")
    print("stream", len(next(iter(stream(b"", timeout=10)))) > 0)
    # Once more on the same connection: the header compression of both sides still agrees.
    print("again", len(status(b"", timeout=10)) > 0)
"#;
    let _turn = turn();
    let scratch = Scratch::new();
    // Beside the other things the tests made: fetched once.
    let packages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/grpcio");
    if !packages.join("grpc").exists() {
        let done = std::process::Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&packages)
            .arg(VERSION)
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "pip cannot install {VERSION}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let agent = Agent::start(&scratch);
    let done = std::process::Command::new("python3")
        .args(["-c", CLIENT])
        .arg(agent.address())
        .env("PYTHONPATH", &packages)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    assert_eq!(out, "status True\nstream True\nagain True\n", "{err}");
}
