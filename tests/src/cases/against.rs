//! What is done to the agent itself.

use crate::{
    agent::Agent,
    command::act,
    events::{Ask as _, Event, wall_ns},
    machine::{Scratch, patience, turn},
};
use std::{fs, io::Write as _, time::Duration};

/// Stopped for a while: a gap with the interval, once it goes on.
pub fn stopped() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    agent.pause();
    std::thread::sleep(Duration::from_secs(5));
    agent.resume();
    let event = agent.expect("the stop", 0, |e| e.reason() == "agent_stopped");
    let gap = event.gap.as_ref().unwrap();
    let ns = |t: &Option<_>| wall_ns(t.as_ref().unwrap());
    let still = ns(&gap.to) - ns(&gap.from);
    assert!(
        (4_000_000_000..30_000_000_000).contains(&still),
        "{still} {}",
        event.brief()
    );
    assert!(!gap.remedy.is_empty());
}

/// Traced by strace: told when it begins, with its name, and when it ends, with the interval.
pub fn traced() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let mut strace = act("strace")
        .args(["-qq", "-e", "trace=none", "-o", "/dev/null", "-p"])
        .arg(agent.pid().to_string())
        .spawn();
    let traced = |e: &Event| e.reason() == "agent_traced";
    let event = agent.expect("the tracer", 0, traced);
    let detail = &event.gap.as_ref().unwrap().detail;
    assert!(
        detail.contains(&format!("/strace[{}]", strace.pid())),
        "{detail}"
    );
    strace.end();
    let event = agent.expect("its end", 0, |e| {
        traced(e) && e.gap.as_ref().is_some_and(|g| g.to.is_some())
    });
    assert!(
        event.gap.as_ref().unwrap().from.is_some(),
        "{}",
        event.brief()
    );
}

/// Its configuration is changed under it.
pub fn configured_anew() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let file = agent.dir().join("agent.toml");
    std::thread::sleep(patience(1));
    let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(b"# a line more\n").unwrap();
    let event = agent.expect("the change", 0, |e| e.reason() == "agent_replaced");
    let detail = &event.gap.as_ref().unwrap().detail;
    assert!(detail.contains("configuration was changed"), "{detail}");
    assert!(detail.contains("agent.toml"), "{detail}");
}
