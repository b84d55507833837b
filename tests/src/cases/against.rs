//! What is done to the agent itself.

use crate::{
    agent::{Agent, Setup},
    bpf,
    command::{act, sh},
    events::{Ask as _, Event, list, wall_ns},
    machine::{Scratch, patience, turn, wait_for},
    stream,
};
use keytrail_model::Signal;
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

/// Traced by strace: reported when it begins, with its name, and when it ends, with the interval.
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

/// An agent that looks after its hooks all the time.
fn watchful(scratch: &Scratch) -> Agent {
    Setup::new(scratch).config("self_check_seconds = 1").start()
}

fn gaps(agent: &Agent, reason: &str) -> Vec<Event> {
    let mut events = agent.events();
    events.retain(|e| e.reason() == reason);
    events
}

fn detail(event: &Event) -> &str {
    &event.gap.as_ref().unwrap().detail
}

fn of_signal(event: &Event, signal: Signal) -> bool {
    event.gap.as_ref().unwrap().signal == signal.number()
}

/// What `doctor` shows as the self-test of a signal.
fn self_test(agent: &Agent, signal: Signal) -> String {
    let status = stream::status(&agent.socket());
    let found = status
        .signals
        .into_iter()
        .find(|s| s.signal == signal.number());
    found.unwrap().self_test
}

/// Its hooks on cgroups are taken off by their numbers: reported once each, with when, and put on again.
pub fn taken_off() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let links = || bpf::ids(agent.pid(), "link_id", "link_type:\tcgroup");
    let before = links();
    if before.is_empty() {
        eprintln!("not run: no hook is on a cgroup here");
        return;
    }
    std::thread::sleep(patience(3));
    assert!(gaps(&agent, "hook_lost").is_empty());
    for link in &before {
        bpf::detach(*link).unwrap();
    }
    let reported = wait_for("every hook to be reported", patience(10), || {
        let reported = gaps(&agent, "hook_lost");
        (reported.len() >= before.len()).then_some(reported)
    });
    for event in &reported {
        assert!(of_signal(event, Signal::Connect), "{}", event.brief());
        assert!(
            detail(event).contains("cgroup:connect"),
            "{}",
            detail(event)
        );
        assert!(
            detail(event).contains("BPF_LINK_DETACH"),
            "{}",
            detail(event)
        );
        assert!(
            detail(event).contains("attached again"),
            "{}",
            detail(event)
        );
        let gap = event.gap.as_ref().unwrap();
        assert!(gap.from.is_some() && gap.to.is_some() && !gap.remedy.is_empty());
    }
    let after = links();
    assert_eq!(after.len(), before.len());
    assert!(after.iter().all(|link| !before.contains(link)), "{after:?}");
    assert_eq!(self_test(&agent, Signal::Connect), "attached again");
    std::thread::sleep(patience(5));
    assert_eq!(gaps(&agent, "hook_lost").len(), before.len());
    // It is a finding as well.
    agent.expect("the finding", 0, |e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "coverage-lost" && f.seen.contains("hook_lost"))
    });
}

/// Its marks on files are taken off: the hook is there and tells nothing any more, which a trial shows; they are put on
/// again, which the next one shows.
pub fn silenced() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = watchful(&scratch);
    std::thread::sleep(patience(8));
    let before = gaps(&agent, "hook_lost");
    assert!(before.is_empty(), "{}", list(&before));
    match bpf::flush_marks(agent.pid()) {
        Ok(groups) => assert!(groups > 0),
        Err(error) => {
            eprintln!("not run: no descriptor can be taken out of a process here: {error}");
            return;
        }
    }
    let lost = |e: &Event| e.reason() == "hook_lost" && of_signal(e, Signal::FileOpen);
    let event = agent.expect("the loss", 0, lost);
    let gap = event.gap.as_ref().unwrap();
    assert!(
        gap.to.is_none() && !gap.remedy.is_empty(),
        "{}",
        event.brief()
    );
    assert!(detail(&event).contains("file_open is not reported any more"));
    let event = agent.expect("its end", 0, |e| {
        lost(e) && e.gap.as_ref().is_some_and(|g| g.to.is_some())
    });
    assert!(
        detail(&event).contains("reported again"),
        "{}",
        detail(&event)
    );
    assert_eq!(self_test(&agent, Signal::FileOpen), "fired");
    std::thread::sleep(patience(4));
    assert_eq!(agent.events().iter().filter(|e| lost(e)).count(), 2);
}

/// A busy host with a ring that is too small loses records, and no hook.
pub fn busy_is_not_silenced() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch)
        .config("self_check_seconds = 1")
        .config("ring_bytes = 65536")
        .start();
    let storm = "for n in 1 2 3 4; do (i=0; while [ $i -lt 1500 ]; do /bin/true; i=$((i+1)); done) & done; wait";
    sh(storm).run().ok();
    std::thread::sleep(patience(4));
    let lost = gaps(&agent, "hook_lost");
    assert!(lost.is_empty(), "{}", list(&lost));
}

/// Somebody loads a program that can write into users' memory: reported once, with who has it.
pub fn writes_into_memory() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = watchful(&scratch);
    let writer = match bpf::load_writer("kt_test_writer") {
        Ok(writer) => writer,
        Err(error) => {
            eprintln!("not run: the kernel refuses such a program: {error}");
            return;
        }
    };
    let writes = |e: &Event| e.reason() == "foreign_bpf" && detail(e).contains("kt_test_writer");
    let event = agent.expect("the program", 0, writes);
    let text = detail(&event);
    assert!(text.contains("can write into users' memory"), "{text}");
    assert!(text.contains("kprobe, loaded by uid 0 "), "{text}");
    assert!(
        text.contains(&format!("[{}]", std::process::id())),
        "{text}"
    );
    assert_eq!(event.pid(), std::process::id());
    std::thread::sleep(patience(4));
    assert_eq!(agent.events().iter().filter(|e| writes(e)).count(), 1);
    drop(writer);
}

/// Somebody opens a map of the agent: reported once, with who and which.
pub fn maps_opened() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = watchful(&scratch);
    std::thread::sleep(patience(4));
    let before = gaps(&agent, "agent_opened");
    assert!(before.is_empty(), "{}", list(&before));
    let maps = bpf::ids(agent.pid(), "map_id", "map_id");
    let map = bpf::open_map(*maps.first().unwrap()).unwrap();
    let event = agent.expect("the map", 0, |e| e.reason() == "agent_opened");
    let text = detail(&event);
    assert!(
        text.contains(&format!("[{}] has map ", std::process::id())),
        "{text}"
    );
    assert_eq!(event.pid(), std::process::id());
    std::thread::sleep(patience(4));
    assert_eq!(gaps(&agent, "agent_opened").len(), 1);
    drop(map);
}
