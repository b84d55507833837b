//! Names of pods from a real container runtime, by its CRI socket.

use super::containers::{IMAGE, Runtime};
use super::tls_programs::installed;
use crate::{
    agent::Setup,
    command::act,
    events::{Ask as _, list},
    machine::{Scratch, patience, turn, wait_for},
    plant, stream,
};
use std::fs;

/// Makes a pod, by a client that is not ours.
const CRI: &str = include_str!("../server/cri.py");

/// On a node whose kubelet has no such API, and outside of a pod, the runtime says what pods are called: a holder in a container has
/// its names, and when the pod has gone nobody is taken for it.
pub fn pods_have_names_by_the_runtime() {
    let _turn = turn();
    let scratch = Scratch::new();
    let runtime = Runtime::with_cri(&scratch);
    // A kubelet is at home here, and has no socket.
    let socket = scratch.make("kubelet").join("pods-api/pods-api.sock");
    let agent = Setup::new(&scratch)
        .config(&format!(
            "[kubernetes]\npods_socket = {socket:?}\nruntime_socket = {:?}",
            runtime.socket()
        ))
        .start();
    let serves = || {
        let sources = stream::status(&agent.socket()).name_sources;
        let one = sources.iter().find(|source| source.serves)?;
        Some((one.source.clone(), one.at.clone()))
    };
    let serving = wait_for("a source of names", patience(30), serves);
    let at = runtime.socket().display().to_string();
    assert_eq!(serving, ("container_runtime".to_owned(), at));
    let uid = "0f1e2d3c-1111-2222-3333-444455556666";
    let token = plant::github();
    let file = scratch.join("container");
    let mut pod = act(installed("python/bin/python3"))
        .args(["-c", CRI])
        .args([&file, &runtime.socket()])
        .args([uid, IMAGE, &format!("POD_GITHUB_TOKEN={}", token.value)])
        .args(["/bin/sleep", "600"])
        .limit(600)
        .spawn();
    let container = wait_for("the container", patience(60), || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.strip_suffix('\n').map(str::to_owned)
    });
    let named = wait_for("names of the container", patience(30), || {
        let mut events = agent.events();
        events.retain(|e| {
            let of = e.process.as_ref().and_then(|p| p.workload.as_ref());
            let of = of.or(e.workload.as_ref());
            of.is_some_and(|names| names.container_id == container && !names.pod.is_empty())
        });
        events.pop()
    });
    let names = named.process.as_ref().and_then(|p| p.workload.clone());
    let names = names.or(named.workload.clone()).unwrap();
    println!("{}", list(std::slice::from_ref(&named)));
    assert_eq!(
        [
            &names.namespace,
            &names.pod,
            &names.container,
            &names.pod_uid
        ],
        ["payments", "api-0", "app", uid]
    );
    assert_eq!(names.image, IMAGE);
    assert_eq!(names.labels.len(), 1, "{:?}", names.labels);
    assert_eq!(names.labels["app"], "api");
    // What is not known is not made up.
    assert_eq!(
        (names.owner.as_str(), names.service_account.as_str()),
        ("", "")
    );
    let exposed =
        |e: &crate::events::Event| e.is("credential_exposed") && e.env_name() == "POD_GITHUB_TOKEN";
    assert!(agent.events().iter().any(exposed));
    pod.signal(libc::SIGTERM);
    pod.wait(patience(60), "the pod");
    agent.wait_idle();
    let printed = String::from_utf8(agent.printed()).unwrap();
    assert!(!printed.contains(&token.value), "the annotation is printed");
    agent.stop();
}
