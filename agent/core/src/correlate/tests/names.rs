//! Pods and their names: never waited for, never mixed.

use super::*;
use keytrail_model::event::WorkloadNames;

const UID: &str = "0f1e2d3c-1111-2222-3333-444455556666";
const OTHER: &str = "ffffffff-1111-2222-3333-444455556666";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn pod(uid: &str, namespace: &str, containers: &[(&str, char)]) -> PodNames {
    PodNames {
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        name: "api".to_owned(),
        containers: containers
            .iter()
            .map(|(name, digit)| ContainerNames {
                id: id(*digit),
                name: (*name).to_owned(),
                image: "registry/api:1".to_owned(),
                image_digest: String::new(),
            })
            .collect(),
        ..PodNames::default()
    }
}

fn reported(names: PodNames, boot_ns: u64) -> Observation {
    Observation::Pod {
        boot_ns,
        names: Box::new(names),
    }
}

/// A program in this cgroup that has a credential in its environment.
fn program(tgid: u32, boot_ns: u64, cgroup: &str) -> Observation {
    let found = Found {
        credential: credential("k"),
        place: FoundIn::Env("TOKEN".to_owned()),
    };
    let Observation::Exec(mut seen) = exec(tgid, 1, boot_ns, vec![found]) else {
        unreachable!()
    };
    seen.cgroup = cgroup.to_owned();
    // The same path and image in every pod.
    seen.exe.path = "/bin/api".to_owned();
    Observation::Exec(seen)
}

fn cgroup(uid: &str, container: char) -> String {
    format!(
        "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{}.scope",
        uid.replace('-', "_"),
        id(container)
    )
}

fn run(observations: &[Observation]) -> Vec<Event> {
    let mut core = Core::new();
    std::iter::once(&start())
        .chain(observations)
        .flat_map(|observation| core.step(observation).events)
        .filter(|e| e.kind != EventKind::ProcessStart)
        .collect()
}

/// Namespace and container of each event: those of its process, or of a name that came late.
fn names(events: &[Event]) -> Vec<String> {
    let shown = |w: &WorkloadNames| format!("{}/{}", w.namespace, w.container);
    events
        .iter()
        .map(|e| match (&e.workload, &e.process) {
            (Some(late), _) => format!("late {}", shown(late)),
            (None, Some(process)) => process.workload.as_deref().map(shown).unwrap_or_default(),
            (None, None) => "?".to_owned(),
        })
        .collect()
}

#[test]
fn what_is_known_stands_in_the_event() {
    let events = run(&[
        reported(pod(UID, "payments", &[("app", 'a'), ("proxy", 'b')]), 1),
        program(10, 2, &cgroup(UID, 'a')),
        program(11, 3, &cgroup(UID, 'b')),
        program(12, 4, "/system.slice/x.service"),
    ]);
    assert_eq!(names(&events), ["payments/app", "payments/proxy", ""]);
}

#[test]
fn a_name_that_comes_late_is_reported_once_and_by_the_same_ids() {
    let events = run(&[
        program(10, 1, &cgroup(UID, 'a')),
        // The pod is known before its container has begun, as far as the cluster says.
        reported(pod(UID, "payments", &[]), 2),
        program(11, 3, &cgroup(UID, 'a')),
        reported(pod(UID, "payments", &[("app", 'a')]), 4),
        reported(pod(UID, "payments", &[("app", 'a')]), 5),
        program(12, 6, &cgroup(UID, 'a')),
    ]);
    assert_eq!(
        names(&events),
        ["", "payments/", "late payments/app", "payments/app"]
    );
    let late = &events[2];
    assert_eq!(
        (late.kind, late.process.is_none()),
        (EventKind::WorkloadNamed, true)
    );
    let (workload, first) = (
        late.workload.as_ref().unwrap(),
        events[0].process.as_ref().unwrap(),
    );
    assert_eq!(
        (&workload.pod_uid, &workload.container_id),
        (&first.pod, &first.container)
    );
    // Numbered like every other event.
    assert!(events.is_sorted_by(|a, b| a.id.sequence < b.id.sequence));
}

#[test]
fn tenants_with_the_same_names_are_not_mixed() {
    let both = [
        reported(pod(UID, "one", &[("app", 'a')]), 1),
        reported(pod(OTHER, "two", &[("app", 'b')]), 1),
    ];
    let events = run(&[
        &both[..],
        &[
            program(10, 2, &cgroup(UID, 'a')),
            program(11, 2, &cgroup(OTHER, 'b')),
            // A container of the other pod, inside this one: it is not this one's.
            program(12, 2, &cgroup(UID, 'b')),
            // Cgroups that a container or a user of the host made.
            program(
                13,
                2,
                &format!("{}{}", cgroup(UID, 'a'), cgroup(OTHER, 'b')),
            ),
            program(
                14,
                2,
                &format!("/user.slice/user-7.slice{}", cgroup(OTHER, 'b')),
            ),
            program(15, 2, &format!("/../../user.slice{}", cgroup(OTHER, 'b'))),
        ],
    ]
    .concat());
    assert_eq!(
        names(&events),
        ["one/app", "two/app", "one/", "one/app", "", ""]
    );
}

/// A pod from a file has another uid on the node. Every pod may say that it is the mirror of one; the kubelet alone says
/// which containers it has.
#[test]
fn a_mirror_counts_for_its_own_containers_only() {
    let hash = "0123456789abcdef0123456789abcdef";
    let mut forged = pod(UID, "tenant", &[("evil", 'e')]);
    forged.mirror = Some(hash.to_owned());
    let mut honest = pod(OTHER, "kube-system", &[("etcd", 'a')]);
    honest.mirror = Some(hash.to_owned());
    let events = run(&[
        reported(forged.clone(), 1),
        program(10, 2, &cgroup(hash, 'a')),
        reported(honest, 3),
        program(11, 4, &cgroup(hash, 'a')),
        program(12, 5, &cgroup(hash, 'd')),
    ]);
    assert_eq!(
        names(&events),
        ["", "late kube-system/etcd", "kube-system/etcd", ""]
    );
}

#[test]
fn a_pod_that_has_gone_is_named_for_a_while() {
    let gone = Observation::PodGone {
        boot_ns: 10 * SEC,
        uid: UID.to_owned(),
    };
    let tick = |boot_ns| Observation::Tick {
        boot_ns,
        wall_ns: 1_000 * SEC + boot_ns,
    };
    let events = run(&[
        reported(pod(UID, "payments", &[("app", 'a')]), 1),
        gone,
        tick(200 * SEC),
        program(10, 201 * SEC, &cgroup(UID, 'a')),
        tick(400 * SEC),
        program(11, 401 * SEC, &cgroup(UID, 'a')),
    ]);
    assert_eq!(names(&events), ["payments/app", ""]);
}

/// Whatever a cluster tells, and however many containers come and go, what is kept is bounded; and what found no room is reported.
#[test]
fn names_are_bounded() {
    let uid = |n: u32| format!("{n:08x}-1111-2222-3333-444455556666");
    let mut core = Core::new();
    core.step(&start());
    for n in 0..5_000 {
        core.step(&reported(pod(&uid(n), "n", &[("app", 'a')]), 1));
        core.step(&program(10_000 + n, 2, &cgroup(&uid(100_000 + n), 'a')));
    }
    let reported = core.step(&Observation::Stop { boot_ns: 3 }).events;
    let lost: u64 = reported
        .iter()
        .filter_map(|e| e.gap.as_ref())
        .filter(|gap| gap.reason == GapReason::NamesUnavailable)
        .map(|gap| gap.count)
        .sum();
    // Two events of each program: its start, and what it has.
    assert_eq!(lost, (5_000 - 2_048) + 2 * (5_000 - 1_024));
}

/// A recording has the names: the same observations give the same events.
#[test]
fn names_are_recorded() {
    let observations = [
        program(10, 1, &cgroup(UID, 'a')),
        reported(pod(UID, "payments", &[("app", 'a')]), 2),
        Observation::PodGone {
            boot_ns: 3,
            uid: UID.to_owned(),
        },
    ];
    let read: Vec<Observation> = observations
        .iter()
        .map(|o| serde_json::from_str(&serde_json::to_string(o).unwrap()).unwrap())
        .collect();
    assert_eq!(read, observations);
    assert_eq!(run(&read), run(&observations));
}
