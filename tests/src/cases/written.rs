//! What holders write to files, pipes and terminals.

use super::count;
use crate::{
    agent::Agent,
    command::{act, sh},
    events::{Ask as _, Event, list},
    machine::{Scratch, keytrail, patience, turn, wait_for},
    plant,
};

/// What was written by `root` and its descendants by this way.
fn written(agent: &Agent, root: u32, channel: &str) -> Vec<Event> {
    let mut events = super::written(agent, root);
    events.retain(|e| e.channel() == channel);
    events
}

fn to(event: &Event) -> &str {
    &event.destination.as_ref().unwrap().path
}

/// `echo $TOKEN` into a log, three times: one event, with the log's path.
pub fn echo_into_a_file() {
    let _turn = turn();
    let scratch = Scratch::new();
    let log = scratch.join("build.log");
    let agent = Agent::start(&scratch);
    let done = sh("for n in 1 2 3; do echo \"token: $GITHUB_TOKEN\"; done >>$1")
        .arg(&log)
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    let event = agent.expect("the write", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    assert_eq!(event.channel(), "file", "{}", event.brief());
    assert_eq!(event.grade(), "observed", "{}", event.brief());
    assert_eq!(event.found_by(), "descriptor", "{}", event.brief());
    assert_eq!(to(&event), log.to_str().unwrap(), "{}", event.brief());
    assert_eq!(event.env_name(), "GITHUB_TOKEN", "{}", event.brief());
    let finding = agent.expect("the finding", done.pid, |e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "written-to-log-or-terminal")
    });
    assert_eq!(finding.finding.as_ref().unwrap().severity, "medium");
    agent.wait_idle();
    count(&written(&agent, done.pid, "file"), 1, "reported once");
}

/// Events with the public identifiers of credentials, printed into a file: keytrail has sent nobody's key.
pub fn what_keytrail_prints() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (_, file) = plant::aws_credentials(&scratch.make("home"));
    let printed = scratch.join("events");
    let mut watch = sh("exec \"$1\" watch --address \"$2\" -o json >\"$3\"")
        .arg(keytrail())
        .arg(agent.address())
        .arg(&printed)
        .spawn();
    let mut reads = 0;
    // It begins with what comes after it has asked.
    wait_for("an event in the file", patience(20), || {
        sh("cat $1 >/dev/null").arg(&file).run().ok();
        reads += 1;
        std::fs::read_to_string(&printed)
            .is_ok_and(|text| text.contains("AKIA"))
            .then_some(())
    });
    agent.wait_idle();
    let reported = agent.tree(watch.pid());
    watch.end();
    assert!(reads > 0 && reported.is_empty(), "{}", list(&reported));
}

/// The same into a pipe, and by `cat` of a file that holds it.
pub fn into_a_pipe() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let echo = sh("echo $GITHUB_TOKEN | cat >/dev/null")
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    let event = agent.expect("the write", echo.pid, |e| {
        e.is("credential_sent") && e.in_tree(echo.pid)
    });
    assert_eq!(event.channel(), "pipe", "{}", event.brief());
    assert_eq!(event.grade(), "observed", "{}", event.brief());
    assert!(to(&event).starts_with("pipe:["), "{}", event.brief());
    let key = scratch.join("home/key.json");
    plant::service_account(&key);
    let cat = sh("cat $1 | cat >/dev/null").arg(&key).run().ok();
    let event = agent.expect("what cat wrote", cat.pid, |e| {
        e.is("credential_sent") && e.in_tree(cat.pid)
    });
    assert_eq!(event.channel(), "pipe", "{}", event.brief());
    assert_eq!(event.path(), key.to_str().unwrap(), "{}", event.brief());
}

/// And on a terminal.
pub fn on_a_terminal() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let done = act("script")
        .args(["-q", "-c", "echo $GITHUB_TOKEN", "/dev/null"])
        .env("GITHUB_TOKEN", plant::github().value)
        .run();
    let event = agent.expect("the write", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid) && e.channel() == "terminal"
    });
    assert_eq!(event.grade(), "observed", "{}", event.brief());
    assert!(to(&event).starts_with("/dev/pts/"), "{}", event.brief());
}

/// In pieces, by several calls and in several segments.
pub fn in_pieces() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let script = "import os, sys
token = os.environ['GITHUB_TOKEN'].encode()
first = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(first, b'x' * 100 + token[:15])
os.write(first, token[15:] + b'\\n')
second = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
os.writev(second, [b'y', token[:9], b'', token[9:], b'\\n'])
third = os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY)
os.pwrite(third, b'z' + token + b'\\n', 5000)";
    let done = act("python3")
        .args(["-c", script])
        .args([scratch.join("a"), scratch.join("b"), scratch.join("c")])
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    agent.wait_idle();
    let mut paths: Vec<String> = written(&agent, done.pid, "file")
        .iter()
        .map(|e| to(e).to_owned())
        .collect();
    paths.sort();
    let expected = ["a", "b", "c"].map(|name| scratch.join(name).display().to_string());
    assert_eq!(paths, expected, "{}", list(&agent.tree(done.pid)));
}

/// A holder that writes much and nothing of what it holds: not a word of it, but what was not inspected is counted.
pub fn much_of_something_else() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let script = "import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
for n in range(10 * 16):
    os.write(file, bytes(65536))";
    let done = act("python3")
        .args(["-c", script])
        .arg(scratch.join("big"))
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    agent.wait_idle();
    let sent = super::written(&agent, done.pid);
    assert!(sent.is_empty(), "{}", list(&sent));
    agent.expect("the gap", done.pid, |e| {
        e.reason() == "budget_used"
            && e.gap.as_ref().unwrap().signal == keytrail_model::Signal::FdWrite.number()
    });
}

/// Who saves the file it has the credential from gives it to nobody: in place, and by a new file that is renamed.
pub fn saving_is_no_send() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let key = scratch.join("home/key.json");
    plant::service_account(&key);
    let script = "import os, sys, time
path = sys.argv[1]
text = open(path).read()
time.sleep(1)
open(path, 'w').write(text)
open(path + '.new', 'w').write(text)
os.rename(path + '.new', path)
open(sys.argv[2], 'w').write(text)";
    let elsewhere = scratch.join("copy");
    let done = act("python3")
        .args(["-c", script])
        .arg(&key)
        .arg(&elsewhere)
        .limit(30)
        .run()
        .ok();
    agent.expect("the copy", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let files = written(&agent, done.pid, "file");
    assert!(
        files.iter().all(|e| to(e) == elsewhere.to_str().unwrap()),
        "{}",
        list(&files)
    );
}

/// What is not written is not reported: a descriptor that is not open for writing, a call that cannot be one.
pub fn what_cannot_be_written() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let script = "import os
token = os.environ['GITHUB_TOKEN'].encode()
reading, writing = os.pipe()
for number in [reading, 9999, os.open('/dev/null', os.O_WRONLY), os.eventfd(0)]:
    try:
        os.write(number, token[:8] if number > writing + 1 else token)
    except OSError:
        pass";
    let done = act("python3")
        .args(["-c", script])
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    std::thread::sleep(patience(1));
    agent.wait_idle();
    let sent = super::written(&agent, done.pid);
    assert!(sent.is_empty(), "{}", list(&sent));
}
