//! Started where it cannot work as it should: a clear message, the right status, and nothing broken.

use crate::{
    agent::Setup,
    command::{Done, act},
    events::Ask as _,
    machine::{Scratch, keytrail, patience, turn, wait_for},
};
use std::fs;

/// A configuration with an unknown key is refused by name and line.
pub fn unknown_key_in_the_configuration() {
    crate::machine::require_root();
    let scratch = Scratch::new();
    let config = scratch.join("agent.toml");
    fs::write(&config, "process_events = true\n\nwatsh = [\"/etc/x\"]\n").unwrap();
    let done = act(keytrail())
        .arg("agent")
        .arg("--config")
        .arg(&config)
        .arg("--listen")
        .arg(format!("unix:{}", scratch.join("sock").display()))
        .arg("--state-dir")
        .arg(scratch.join("state"))
        .run();
    assert_eq!(done.code(), 2, "{}", done.stderr_text());
    let words = done.plain_words();
    assert!(
        words.contains(&format!("{}:3", config.display())),
        "{words}"
    );
    assert!(words.contains("watsh"), "{words}");
    assert!(
        !scratch.join("state").exists(),
        "nothing may be started with it"
    );
}

/// A file where the socket should be is somebody's file: it stays, and the agent says so.
pub fn file_in_place_of_the_socket() {
    let _turn = turn();
    let scratch = Scratch::new();
    let setup = Setup::new(&scratch);
    let place = scratch.join("agent/sock");
    fs::write(&place, "mine").unwrap();
    let agent = setup.launch(&[]);
    let status = wait_for("the agent to give up", patience(20), || agent.ended());
    assert!(!status.success());
    let log = agent.log();
    assert!(log.contains(place.to_str().unwrap()), "{log}");
    assert!(log.contains("socket"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
}

/// Without root: one sentence that says what is missing, status 5.
pub fn without_root() {
    let _turn = turn();
    let scratch = Scratch::new();
    // Where anybody may execute it.
    let binary = scratch.join("keytrail");
    fs::copy(keytrail(), &binary).unwrap();
    let dir = scratch.make("nobody");
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    let nobody = |args: &[&str]| -> Done {
        act("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&binary)
            .args(args)
            .env("HOME", &dir)
            .run()
    };
    let listen = format!("unix:{}", dir.join("sock").display());
    let state = dir.join("state");
    let state = state.to_str().unwrap();
    for args in [
        &["agent", "--listen", &listen, "--state-dir", state][..],
        &["trace", "--", "true"],
        &["demo"],
    ] {
        let done = nobody(args);
        assert_eq!(done.code(), 5, "{args:?}: {}", done.stderr_text());
        let words = done.plain_words();
        assert!(
            words.contains("root") && words.contains("CAP_BPF"),
            "{words}"
        );
        assert!(words.trim().lines().count() <= 2, "one sentence: {words}");
    }
    let doctor = nobody(&["doctor"]);
    assert!(!doctor.status.success());
    let all = doctor.stdout_text() + &doctor.stderr_text();
    assert!(all.contains("root") && !all.contains("panicked"), "{all}");
}

/// A kernel without BTF (here: hidden by a mount): it is named, by the agent and by the doctor.
pub fn without_btf() {
    let _turn = turn();
    let scratch = Scratch::new();
    let hide = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"",
        "sh",
    ];
    let agent = Setup::new(&scratch).launch(&hide);
    // Either it cannot work and ends, or it works with less and says so.
    let ended = wait_for("the agent to end or to serve", patience(30), || {
        agent
            .ended()
            .map(Some)
            // Its socket is there before it knows whether it can work.
            .or_else(|| (!agent.events().is_empty()).then_some(None))
    });
    if let Some(status) = ended {
        assert!(!status.success());
        assert!(agent.log().contains("BTF"), "{}", agent.log());
    } else {
        agent.expect("a gap that names BTF", 0, |e| {
            e.is("coverage_gap") && e.gap.as_ref().unwrap().detail.contains("BTF")
        });
    }
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    drop(agent);
    let doctor = act("unshare")
        .args(&hide[1..])
        .arg(keytrail())
        .args(["doctor", "--address", "unix:/nonexistent/keytrail.sock"])
        .env("HOME", scratch.path())
        .run();
    assert!(!doctor.status.success(), "{}", doctor.stdout_text());
    let all = doctor.stdout_text() + &doctor.stderr_text();
    assert!(all.contains("BTF") && !all.contains("panicked"), "{all}");
}

/// In a pid namespace of its own (a container): the reason is that, not the kernel, and what to do about it is said.
pub fn in_a_pid_namespace() {
    let scratch = Scratch::new();
    let state = scratch.join("state");
    let socket = format!("unix:{}", scratch.join("k.sock").display());
    let agent = [
        "agent",
        "--listen",
        &socket,
        "--state-dir",
        state.to_str().unwrap(),
    ];
    for args in [
        &["doctor", "--address", &socket][..],
        &["trace", "--", "true"],
        &agent,
    ] {
        let done = act("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(keytrail())
            .args(args)
            .env("HOME", scratch.path())
            .run();
        assert_eq!(done.code(), 1, "{args:?}: {}", done.stderr_text());
        let said = done.stderr_text();
        assert!(
            said.contains("pid namespace") && said.contains("hostPID"),
            "{said}"
        );
        assert!(
            !said.contains("kernel version") && !said.contains("panicked"),
            "{said}"
        );
    }
}
