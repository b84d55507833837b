//! The container runtime asked by its CRI socket, where it says more than is good for the agent. That a real one is understood is
//! tested end to end, with containerd.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "fake/cri.rs"]
mod fake;

use fake::{Cri, Lists, container, pod};
use keytrail_cluster::{PodUpdate, RuntimeAt, Source, Sources, Watch};
use keytrail_model::PodNames;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn uid(n: u32) -> String {
    format!("{n:08x}-1111-2222-3333-444455556666")
}

fn id(n: u32) -> String {
    format!("{n:064x}")
}

fn watch(socket: &Path) -> (Watch, Receiver<PodUpdate>) {
    let sources = Sources {
        runtime: Some(RuntimeAt::Socket(socket.to_owned())),
        ..Sources::default()
    };
    let (sender, received) = channel();
    let watch = Watch::start(sources, move |update| {
        let _ = sender.send(update);
    });
    (watch.unwrap(), received)
}

fn next(received: &Receiver<PodUpdate>) -> PodUpdate {
    received
        .recv_timeout(PATIENCE)
        .expect("nothing was reported")
}

fn named(received: &Receiver<PodUpdate>) -> PodNames {
    match next(received) {
        PodUpdate::Pod(names) => *names,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_too_much_is_reported_and_the_rest_has_names() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let huge: Vec<_> = (0..4_000)
        .map(|n| (format!("label-{n:04}"), "v".repeat(300)))
        .collect();
    let mut pods = vec![
        pod("of-1", &uid(1), "api-0", &huge[..500]),
        // More than one pod may have.
        pod("of-2", &uid(2), "api-1", &huge),
    ];
    pods.extend(vec![Vec::new(); 1_000_000]);
    let containers = vec![container(&id(1), "of-1", "app")];
    let _cri = Cri::start(&socket, Lists { pods, containers });
    let (watch, received) = watch(&socket);
    let names = named(&received);
    assert_eq!(
        (names.name.as_str(), names.uid, names.labels.len()),
        ("api-0", uid(1), 6)
    );
    assert_eq!(names.containers[0].name, "app");
    // 16,384 are taken in, the second among them, which is too large.
    assert_eq!(next(&received), PodUpdate::NoRoom(1_000_002 - 16_384));
    let status = &watch.sources()[0];
    assert!(status.serves && status.source == Source::Runtime);
    // Once, and not in every round.
    assert!(received.recv_timeout(Duration::from_secs(5)).is_err());
}

#[test]
fn an_answer_that_is_too_long_is_trouble_until_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cri.sock");
    let name = "n".repeat(17 << 20);
    let pods = vec![pod("of-1", &uid(1), &name, &[])];
    let cri = Cri::start(
        &socket,
        Lists {
            pods,
            ..Lists::default()
        },
    );
    let (watch, received) = watch(&socket);
    match next(&received) {
        PodUpdate::Trouble(why) => assert!(why.contains("16 MiB"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(!watch.sources()[0].serves);
    cri.lists.lock().unwrap().pods = vec![pod("of-1", &uid(1), "api-0", &[])];
    assert_eq!(named(&received).name, "api-0");
    assert!(watch.sources()[0].serves);
}
