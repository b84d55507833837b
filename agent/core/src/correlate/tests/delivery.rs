//! What a runtime brings into a container: reported at the container's process, once, and only where it is proven.

use super::*;

const BUNDLE: &str = "/run/task/default/c1";

/// A program of the host: its arguments, working directory and cgroup.
fn program(tgid: u32, parent: u32, boot_ns: u64, argv: &[&str]) -> Observation {
    let Observation::Exec(mut seen) = exec(tgid, parent, boot_ns, vec![]) else {
        unreachable!()
    };
    seen.argv = argv.iter().map(|a| (*a).to_owned()).collect();
    seen.cgroup = "/system.slice/containerd.service".to_owned();
    Observation::Exec(seen)
}

fn fork(parent: u32, child: u32, boot_ns: u64) -> Observation {
    Observation::Fork {
        at: at(parent, boot_ns),
        child: pid(child),
        child_ns_tgid: child,
    }
}

fn config() -> FileFacts {
    FileFacts {
        path: format!("{BUNDLE}/config.json"),
        device: 20,
        inode: 7,
        mode: 0o600,
        ..FileFacts::default()
    }
}

fn read(tgid: u32, boot_ns: u64, c: &CredentialRef) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(tgid, boot_ns),
        access: Access::Read,
        file: config(),
        credentials: vec![c.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:sys_enter".to_owned(),
    }))
}

fn created(tgid: u32, boot_ns: u64, c: &CredentialRef) -> Observation {
    Observation::Created {
        at: Some(at(tgid, boot_ns)),
        boot_ns,
        file: config(),
        credentials: vec![c.clone()],
    }
}

/// containerd writes it.
fn written(tgid: u32, boot_ns: u64, c: &CredentialRef) -> Observation {
    Observation::Write(Box::new(WriteSeen {
        at: at(tgid, boot_ns),
        target: WriteTarget::File,
        device: config().device,
        inode: config().inode,
        path: config().path,
        payload: payload(2_000, vec![hit(c, true)]),
        hook: "raw_tp:sys_enter".to_owned(),
    }))
}

/// runc says it to the process it forks, by a pair of sockets.
fn said(tgid: u32, boot_ns: u64, c: &CredentialRef) -> Observation {
    let mut to = ends(7, 0);
    to.protocol = "unix".to_owned();
    send(
        tgid,
        boot_ns,
        to,
        None,
        None,
        payload(900, vec![hit(c, true)]),
    )
}

/// The container's process, and its pid there.
fn inside(tgid: u32, parent: u32, boot_ns: u64, cgroup: &str, c: &CredentialRef) -> Observation {
    let Observation::Exec(mut seen) = exec(tgid, parent, boot_ns, vec![env(c, "TOKEN")]) else {
        unreachable!()
    };
    seen.cgroup = cgroup.to_owned();
    seen.ns_tgid = 1;
    Observation::Exec(seen)
}

/// containerd (10) starts a shim (20), that runc (30), and that the container's process (40).
fn up_to_runc(c: &CredentialRef) -> Vec<Observation> {
    vec![
        start(),
        program(10, 1, SEC, &["containerd"]),
        written(10, SEC + 1, c),
        fork(10, 20, SEC + 1),
        program(20, 10, SEC + 2, &["shim", "-id", "c1"]),
        read(20, SEC + 3, c),
        fork(20, 30, SEC + 4),
        program(
            30,
            20,
            SEC + 5,
            &["runc", "create", "--bundle", BUNDLE, "c1"],
        ),
        read(30, SEC + 6, c),
        said(30, SEC + 6, c),
        fork(30, 40, SEC + 7),
    ]
}

/// A byte over TCP by who may hold something.
fn byte(tgid: u32, boot_ns: u64, hits: Vec<Hit>) -> Observation {
    send(
        tgid,
        boot_ns,
        ends(tgid.into(), 443),
        None,
        None,
        payload(5_000, hits),
    )
}

fn words(events: &[Event]) -> Vec<(&str, u32)> {
    events
        .iter()
        .filter(|e| e.credential.is_some())
        .map(|e| (e.kind.word(), e.process.as_ref().map_or(0, |p| p.pid)))
        .collect()
}

#[test]
fn a_delivery_is_one_event() {
    let c = credential("c");
    let mut story = up_to_runc(&c);
    story.extend([
        inside(40, 30, SEC + 8, "/default/c1", &c),
        // What is reported late, and at the container's end.
        created(10, SEC + 9, &c),
        read(20, SEC + 10, &c),
        program(50, 20, SEC + 11, &["runc", "--root", "/r", "delete", "c1"]),
        read(50, SEC + 12, &c),
        Observation::FileChanged {
            at: Some(at(10, SEC + 13)),
            boot_ns: SEC + 13,
            file: config(),
            change: FileChange::new(FileAction::Deleted),
            credentials: vec![c.clone()],
        },
        // None of them has more to do with it than that.
        byte(10, SEC + 14, vec![]),
        byte(20, SEC + 15, vec![]),
        stop(),
    ]);
    let events = run(&story);
    assert_eq!(words(&events), [("credential_exposed", 40)]);
    let exposed = of(&events, "credential_exposed")[0];
    let delivery = exposed.delivery.as_ref().unwrap();
    assert_eq!(delivery.container, "c1");
    let path: Vec<_> = delivery
        .path
        .iter()
        .map(|s| (s.how.as_str(), s.pid))
        .collect();
    assert_eq!(path, [("wrote", 10), ("read", 20), ("read", 30)]);
}

/// What a runtime sends is told where the credential is in it.
#[test]
fn a_runtime_that_sends_it_is_reported() {
    let c = credential("c");
    let mut story = up_to_runc(&c);
    story.extend([
        inside(40, 30, SEC + 8, "/default/c1", &c),
        byte(20, 2 * SEC, vec![hit(&c, true)]),
        stop(),
    ]);
    let events = run(&story);
    assert_eq!(
        words(&events),
        [("credential_exposed", 40), ("credential_sent", 20)]
    );
    assert_eq!(grade(of(&events, "credential_sent")[0]), "observed");
    assert_eq!(
        of(&events, "credential_sent")[0]
            .source
            .as_ref()
            .unwrap()
            .path,
        config().path
    );
}

/// The container's own holding is its environment: it goes on being reported.
#[test]
fn the_container_is_a_holder() {
    let c = credential("c");
    let mut story = up_to_runc(&c);
    story.extend([
        inside(40, 30, SEC + 8, "/default/c1", &c),
        byte(40, 2 * SEC, vec![]),
        stop(),
    ]);
    let events = run(&story);
    let sent = of(&events, "credential_sent");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].source.as_ref().unwrap().env_name, "TOKEN");
}

/// Nothing is left out that is not proven to be a step: another cgroup, another credential, no child of the reader, or a
/// reader that starts nothing.
#[test]
fn what_is_not_proven_is_reported() {
    let (c, other) = (credential("c"), credential("d"));
    let reads = [("credential_read", 20), ("credential_read", 30)];
    for (what, act) in [
        (
            "no container",
            inside(40, 30, SEC + 8, "/system.slice/x.service", &c),
        ),
        (
            "another container",
            inside(40, 30, SEC + 8, "/default/c11", &c),
        ),
        (
            "another credential",
            inside(40, 30, SEC + 8, "/default/c1", &other),
        ),
        ("no child", inside(41, 1, SEC + 8, "/default/c1", &c)),
    ] {
        let mut story = up_to_runc(&c);
        story.extend([act, stop()]);
        let events = run(&story);
        assert!(events.iter().all(|e| e.delivery.is_none()), "{what}");
        let reported = words(&events);
        assert!(
            reads.iter().all(|read| reported.contains(read)),
            "{what}: {reported:?}"
        );
    }
}

/// Who reads the configuration and has nothing to do with the container is reported, before and after.
#[test]
fn a_thief_is_reported() {
    let c = credential("c");
    let mut story = up_to_runc(&c);
    story.extend([
        program(60, 1, SEC + 8, &["cat", &config().path]),
        read(60, SEC + 8, &c),
        inside(40, 30, SEC + 8, "/default/c1", &c),
        program(61, 1, SEC + 9, &["thief", BUNDLE, "c1"]),
        read(61, SEC + 9, &c),
        // From inside of the container.
        fork(40, 62, SEC + 10),
        inside(62, 40, SEC + 10, "/default/c1", &c),
        read(62, SEC + 11, &c),
        stop(),
    ]);
    let events = run(&story);
    let reported = words(&events);
    for reader in [60, 61, 62] {
        assert!(
            reported.contains(&("credential_read", reader)),
            "{reader}: {reported:?}"
        );
    }
    assert_eq!(
        reported.iter().filter(|t| t.0 == "credential_read").count(),
        3
    );
}

/// A container of which only its pid namespace is known: it was gone before its cgroup could be read.
#[test]
fn a_short_container() {
    let c = credential("c");
    let mut story = up_to_runc(&c);
    story.extend([inside(40, 30, SEC + 8, "", &c), stop()]);
    let events = run(&story);
    assert_eq!(words(&events), [("credential_exposed", 40)]);
    assert_eq!(events.iter().filter(|e| e.delivery.is_some()).count(), 1);
}

/// A program that is started in a container later: `exec` is given a file with the process.
#[test]
fn an_exec_into_a_container() {
    let c = credential("c");
    let process = "/tmp/runc-process123";
    let Observation::File(mut seen) = read(30, SEC + 2, &c) else {
        unreachable!()
    };
    seen.file.path = process.to_owned();
    let events = run(&[
        start(),
        program(30, 20, SEC, &["runc", "exec", "--process", process, "c1"]),
        Observation::File(seen),
        fork(30, 40, SEC + 3),
        inside(
            40,
            30,
            SEC + 4,
            "/kubepods/pod1/cri-containerd-c1.scope",
            &c,
        ),
        stop(),
    ]);
    assert_eq!(words(&events), [("credential_exposed", 40)]);
    let delivery = of(&events, "credential_exposed")[0].delivery.clone();
    assert_eq!(delivery.unwrap().container, "c1");
}

/// What finds no room to wait is reported at once.
#[test]
fn what_waits_is_bounded() {
    let c = credential("c");
    let mut story = vec![start()];
    for n in 0..40 {
        story.push(program(100 + n, 1, SEC, &["shim", "-id", "c1"]));
        story.push(read(100 + n, SEC + 1, &c));
    }
    let events = run(&story);
    assert_eq!(of(&events, "credential_read").len(), 8);
    story.push(stop());
    assert_eq!(of(&run(&story), "credential_read").len(), 40);
}
