//! What is passed on through pipes, and what is not.

use super::*;
use keytrail_model::event::PathStep;
use keytrail_model::{Answers, Capture, Effect, SensorChange};

fn pipe(inode: u64) -> PipeId {
    PipeId { device: 14, inode }
}

fn pipes(tgid: u32, boot_ns: u64, stdin: Option<u64>, stdout: Option<u64>) -> Observation {
    Observation::Pipes(PipesSeen {
        at: at(tgid, boot_ns),
        stdin: stdin.map(pipe),
        stdout: stdout.map(pipe),
        feeder: None,
        taker: None,
    })
}

fn taken_by(taker: u32, mut observation: Observation) -> Observation {
    if let Observation::Pipes(seen) = &mut observation {
        seen.taker = Some(pid(taker));
    }
    observation
}

fn fed_by(feeder: u32, mut observation: Observation) -> Observation {
    if let Observation::Pipes(seen) = &mut observation {
        seen.feeder = Some(pid(feeder));
    }
    observation
}

fn read(tgid: u32, boot_ns: u64, credential: &CredentialRef) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(tgid, boot_ns),
        access: Access::Read,
        file: FileFacts {
            path: "/k".to_owned(),
            inode: 5,
            ..FileFacts::default()
        },
        credentials: vec![credential.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }))
}

fn fork(tgid: u32, child: u32, boot_ns: u64) -> Observation {
    Observation::Fork {
        at: at(tgid, boot_ns),
        child: pid(child),
        child_ns_tgid: child,
    }
}

fn exit(tgid: u32, boot_ns: u64) -> Observation {
    Observation::Exit {
        at: at(tgid, boot_ns),
        status: 0,
        signal: 0,
        dumped: None,
    }
}

fn tick(boot_ns: u64) -> Observation {
    Observation::Tick {
        boot_ns,
        wall_ns: 1_000 * SEC + boot_ns,
    }
}

fn plain(tgid: u32, boot_ns: u64, hits: Vec<Hit>) -> Observation {
    send(tgid, boot_ns, ends(1, 80), None, None, payload(1_000, hits))
}

/// A program of a shell (10) with these pipes.
fn program(tgid: u32, boot_ns: u64, stdin: Option<u64>, stdout: Option<u64>) -> Vec<Observation> {
    vec![
        fork(10, tgid, boot_ns),
        exec(tgid, 10, boot_ns + 1, vec![]),
        pipes(tgid, boot_ns + 1, stdin, stdout),
    ]
}

fn story(parts: &[Vec<Observation>]) -> Vec<Event> {
    run(&[vec![start(), exec(10, 1, SEC / 2, vec![])], parts.concat()].concat())
}

fn sent(events: &[Event]) -> Vec<&Event> {
    of(events, "credential_sent")
}

/// How and which process, step by step.
fn way(e: &Event) -> Vec<(&str, u32)> {
    let step = |step: &PathStep| (step.how.clone(), step.pid);
    let path = &e.evidence.as_ref().unwrap().path;
    path.iter().map(|s| (s.how.as_str(), step(s).1)).collect()
}

fn basis(e: &Event) -> Option<LineageBasis> {
    e.evidence.as_ref().unwrap().lineage_basis
}

/// Its standard input, and what a child writes for it; not what it writes itself.
#[test]
fn what_a_process_can_read_from_is_known() {
    let mut core = Core::new();
    let parts = [
        vec![start(), exec(10, 1, SEC / 2, vec![])],
        program(20, SEC, Some(1), Some(2)),
        vec![
            fork(20, 30, 2 * SEC),
            taken_by(20, pipes(30, 3 * SEC, None, Some(3))),
        ],
    ];
    for observation in parts.concat() {
        let _ = core.step(&observation);
    }
    let reads = |tgid| core.read_by(pid(tgid)).collect::<Vec<_>>();
    assert_eq!(reads(20), [pipe(1), pipe(3)]);
    assert_eq!(reads(30), []);
}

#[test]
fn a_reader_of_a_holder_is_reported_with_the_way() {
    let c = credential("c");
    // In whatever order, and with pauses: the reader first, or the writer gone before the reader begins.
    let cat = |t| [program(20, t, None, Some(1)), vec![read(20, t + 2, &c)]].concat();
    let curl = |t| program(30, t, Some(1), None);
    let ends = vec![tick(30 * SEC)];
    for parts in [
        [
            cat(SEC),
            curl(SEC + 5),
            vec![plain(30, 9 * SEC, vec![])],
            ends.clone(),
        ],
        [
            curl(SEC),
            cat(8 * SEC),
            vec![plain(30, 9 * SEC, vec![])],
            ends.clone(),
        ],
        [
            [cat(SEC), vec![exit(20, SEC + 9)]].concat(),
            curl(8 * SEC),
            vec![plain(30, 9 * SEC, vec![])],
            ends,
        ],
    ] {
        let events = story(&parts);
        let sent = sent(&events);
        assert_eq!(sent.len(), 1, "{events:#?}");
        assert_eq!(
            (grade(sent[0]), basis(sent[0])),
            ("lineage", Some(LineageBasis::Passed))
        );
        assert_eq!(way(sent[0]), [("read", 20), ("pipe", 30)]);
        let source = sent[0].source.as_ref().unwrap();
        assert_eq!(source.path, "/k");
        assert!(source.inherited_from.contains(":20:"), "{source:?}");
    }
}

#[test]
fn what_is_seen_in_it_is_observed_with_its_source() {
    let c = credential("c");
    let events = story(&[
        program(20, SEC, None, Some(1)),
        program(30, SEC, Some(1), None),
        vec![
            read(20, 2 * SEC, &c),
            plain(30, 3 * SEC, vec![hit(&c, true)]),
            tick(9 * SEC),
        ],
    ]);
    let sent = sent(&events);
    assert_eq!(sent.len(), 1, "{events:#?}");
    assert_eq!((grade(sent[0]), basis(sent[0])), ("observed", None));
    assert_eq!(sent[0].source.as_ref().unwrap().path, "/k");
    assert_eq!(way(sent[0]), [("read", 20), ("pipe", 30)]);
}

#[test]
fn a_chain_is_followed_to_its_end() {
    let c = credential("c");
    let events = story(&[
        program(20, SEC, None, Some(1)),
        program(30, SEC, Some(1), Some(2)),
        program(40, SEC, Some(2), None),
        vec![
            read(20, 2 * SEC, &c),
            plain(40, 3 * SEC, vec![]),
            tick(9 * SEC),
        ],
    ]);
    let sent = sent(&events);
    assert_eq!(sent.len(), 1);
    assert_eq!(way(sent[0]), [("read", 20), ("pipe", 30), ("pipe", 40)]);
    // Not for ever: what it comes to is said.
    let mut long = vec![program(20, SEC, None, Some(1))];
    for n in 1..16u32 {
        long.push(program(20 + n, SEC, Some(n.into()), Some((n + 1).into())));
    }
    long.push(vec![
        read(20, 2 * SEC, &c),
        plain(35, 3 * SEC, vec![]),
        tick(30 * SEC),
    ]);
    let events = story(&long);
    assert!(of(&events, "credential_sent").is_empty());
    let gaps = of(&events, "coverage_gap");
    assert!(
        gaps[0]
            .gap
            .as_ref()
            .unwrap()
            .detail
            .contains("through a pipe"),
        "{gaps:#?}"
    );
}

#[test]
fn what_was_sent_before_the_read_is_none() {
    let c = credential("c");
    let events = story(&[
        program(20, SEC, None, Some(1)),
        program(30, SEC, Some(1), None),
        vec![
            plain(30, 2 * SEC, vec![]),
            read(20, 3 * SEC, &c),
            tick(9 * SEC),
        ],
    ]);
    assert!(sent(&events).is_empty(), "{events:#?}");
}

#[test]
fn what_a_shell_had_before_is_not_passed_on() {
    let (script, token) = (credential("a"), credential("b"));
    let env_of = |tgid, t| {
        vec![
            fork(10, tgid, t),
            exec(tgid, 10, t + 1, vec![env(&token, "T")]),
        ]
    };
    let events = run(&[
        vec![
            start(),
            exec(10, 1, SEC / 2, vec![env(&token, "T")]),
            read(10, SEC, &script),
        ],
        // `ls | env -i curl`: a command of the shell, with its environment and after its script.
        env_of(20, 2 * SEC),
        vec![pipes(20, 2 * SEC + 1, None, Some(1))],
        // By somebody who has nothing from the shell.
        vec![
            exec(30, 1, 2 * SEC, vec![]),
            pipes(30, 2 * SEC, Some(1), None),
        ],
        vec![plain(30, 3 * SEC, vec![]), tick(9 * SEC)],
    ]
    .concat());
    assert!(sent(&events).is_empty(), "{events:#?}");
    // An environment of its own is.
    let events = run(&[
        vec![start(), exec(10, 1, SEC / 2, vec![])],
        env_of(20, 2 * SEC),
        vec![pipes(20, 2 * SEC + 1, None, Some(1))],
        vec![
            exec(30, 1, 2 * SEC, vec![]),
            pipes(30, 2 * SEC, Some(1), None),
        ],
        vec![plain(30, 3 * SEC, vec![]), tick(9 * SEC)],
    ]
    .concat());
    let sent = sent(&events);
    assert_eq!(sent.len(), 1, "{events:#?}");
    assert_eq!(way(sent[0]), [("env", 20), ("pipe", 30)]);
}

#[test]
fn a_number_that_is_used_again_is_another_pipe() {
    let c = credential("c");
    let later = 700 * SEC;
    let events = story(&[
        [
            program(20, SEC, None, Some(1)),
            vec![read(20, 2 * SEC, &c), exit(20, 3 * SEC)],
        ]
        .concat(),
        vec![tick(later)],
        program(30, later, Some(1), None),
        vec![plain(30, later + SEC, vec![]), tick(later + 9 * SEC)],
    ]);
    assert!(sent(&events).is_empty(), "{events:#?}");
    // A program that has other streams by now reads no more from it.
    let events = story(&[
        program(20, SEC, None, Some(1)),
        program(30, SEC, Some(1), None),
        vec![exec(30, 10, 2 * SEC, vec![]), read(20, 3 * SEC, &c)],
        vec![plain(30, 4 * SEC, vec![]), tick(9 * SEC)],
    ]);
    assert!(sent(&events).is_empty(), "{events:#?}");
}

#[test]
fn so_many_readers_and_no_more() {
    let c = credential("c");
    let mut parts = vec![program(20, SEC, None, Some(1))];
    for n in 0..20u32 {
        parts.push(program(30 + n, SEC, Some(1), None));
    }
    parts.push(vec![read(20, 2 * SEC, &c)]);
    for n in 0..20u32 {
        let to = ends(u64::from(n) + 1, 80 + n as u16);
        parts.push(vec![send(
            30 + n,
            3 * SEC,
            to,
            None,
            None,
            payload(900, vec![]),
        )]);
    }
    parts.push(vec![tick(30 * SEC)]);
    let events = story(&parts);
    assert_eq!(sent(&events).len(), 16);
    let gaps = of(&events, "coverage_gap");
    assert_eq!(gaps[0].gap.as_ref().unwrap().count, 4, "{gaps:#?}");
}

#[test]
fn who_takes_what_a_child_writes_is_a_reader() {
    let c = credential("c");
    let helper = |t| {
        vec![
            fork(10, 20, t),
            exec(20, 10, t + 1, vec![]),
            taken_by(10, pipes(20, t + 1, None, Some(1))),
        ]
    };
    let events = story(&[
        helper(SEC),
        vec![
            read(20, 2 * SEC, &c),
            plain(10, 3 * SEC, vec![hit(&c, true)]),
            tick(9 * SEC),
        ],
    ]);
    let observed = sent(&events);
    assert_eq!(way(observed[0]), [("read", 20), ("pipe", 10)]);
    // A shell has that end for a moment in a pipeline, until the next command is there.
    let events = story(&[
        helper(SEC),
        vec![read(20, 2 * SEC, &c)],
        program(30, 2 * SEC + 5, Some(1), None),
        vec![
            plain(10, 3 * SEC, vec![]),
            plain(30, 3 * SEC, vec![]),
            tick(9 * SEC),
        ],
    ]);
    let reported = sent(&events);
    assert_eq!(reported.len(), 1, "{events:#?}");
    assert_eq!(reported[0].process.as_ref().unwrap().pid, 30);
}

#[test]
fn who_feeds_a_child_may_read_later() {
    let c = credential("c");
    let events = story(&[
        vec![
            fork(10, 30, SEC),
            exec(30, 10, SEC + 1, vec![]),
            fed_by(10, pipes(30, SEC + 1, Some(1), None)),
        ],
        vec![
            read(10, 2 * SEC, &c),
            plain(30, 3 * SEC, vec![]),
            tick(9 * SEC),
        ],
    ]);
    assert_eq!(way(sent(&events)[0]), [("read", 10), ("pipe", 30)]);
}

#[test]
fn a_shells_own_command_is_known_when_it_ends() {
    let c = credential("c");
    let events = run(&[
        vec![start(), exec(10, 1, SEC / 2, vec![env(&c, "T")])],
        // `printf "$T" | env -i curl`
        vec![
            fork(10, 20, SEC),
            fork(10, 30, SEC),
            exec(30, 10, SEC, vec![]),
        ],
        vec![pipes(30, SEC, Some(1), None)],
        vec![pipes(20, SEC + 5, None, Some(1)), exit(20, SEC + 6)],
        vec![plain(30, 2 * SEC, vec![hit(&c, true)]), tick(9 * SEC)],
    ]
    .concat());
    let reported = sent(&events);
    assert_eq!(reported.len(), 1, "{events:#?}");
    assert_eq!(way(reported[0]), [("env", 10), ("fork", 20), ("pipe", 30)]);
    assert_eq!(reported[0].source.as_ref().unwrap().env_name, "T");
}

#[test]
fn the_engine_learns_who_is_of_interest() {
    let c = credential("c");
    let mut core = Core::new();
    // Those who are to be captured, whatever was decided of them.
    let step = |core: &mut Core, observations: Vec<Observation>| -> Vec<u32> {
        let steps = observations
            .iter()
            .map(|observation| core.step(observation));
        let captured = |effect| match effect {
            Effect::Sensor(SensorChange::SetProcess {
                tgid,
                capture: Capture::All,
                answers: Answers::Any,
            }) => Some(tgid),
            _ => None,
        };
        steps
            .flat_map(|step| step.effects)
            .filter_map(captured)
            .collect()
    };
    let mut given = step(
        &mut core,
        vec![start(), exec(10, 1, SEC / 2, vec![env(&c, "T")])],
    );
    given.extend(step(&mut core, program(20, SEC, None, Some(1))));
    given.extend(step(&mut core, program(30, SEC, Some(1), Some(2))));
    given.extend(step(&mut core, program(40, SEC, Some(2), None)));
    given.extend(step(&mut core, program(50, SEC, Some(3), None)));
    assert_eq!(core.downstream(pid(20)), [pid(30), pid(40)]);
    assert!(core.downstream(pid(40)).is_empty());
    assert!(given.is_empty());
    // Nobody is known to write what the last one reads, and the shell has something.
    assert!(core.may_be_fed(pid(50)) && !core.may_be_fed(pid(30)));
    // Who reads it, and those it is passed on to.
    assert_eq!(step(&mut core, vec![read(20, 2 * SEC, &c)]), [30, 40, 20]);
    assert!(step(&mut core, vec![tick(3 * SEC)]).is_empty());
}

#[test]
fn everybody_at_all_ends_is_bounded_work() {
    let c = credential("c");
    let mut parts = Vec::new();
    for n in 0..64u64 {
        parts.push(program(
            20 + n as u32,
            SEC,
            Some(n % 4),
            Some((n + n / 4) % 4),
        ));
    }
    parts.push((20..84).map(|tgid| read(tgid, 2 * SEC, &c)).collect());
    parts.push((20..84).map(|tgid| exit(tgid, 3 * SEC)).collect());
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let before = cpu();
    story(&parts);
    let took = cpu() - before;
    assert!(took < 5, "{took} s of a processor");
}

#[test]
fn what_was_seen_to_be_written_goes_on_before_the_writer_ends() {
    let c = credential("c");
    let write = |hits| {
        Observation::Write(Box::new(WriteSeen {
            at: at(20, 3 * SEC),
            target: WriteTarget::Pipe,
            device: 14,
            inode: 1,
            path: String::new(),
            payload: payload(100, hits),
            hook: "raw_tp:sys_enter".to_owned(),
        }))
    };
    let events = |hits| {
        story(&[
            vec![fork(10, 20, SEC), read(20, SEC + 1, &c)],
            program(30, 2 * SEC, Some(1), None),
            vec![write(hits), plain(30, 3 * SEC + 1, vec![hit(&c, true)])],
        ])
    };
    let path = |events: &[Event]| {
        let by_curl = sent(events).into_iter().next_back().unwrap();
        assert_eq!(by_curl.process.as_ref().unwrap().pid, 30);
        by_curl.source.as_ref().unwrap().path.clone()
    };
    assert_eq!(path(&events(vec![hit(&c, true)])), "/k");
    // Something else was written: nobody knows where the reader has it from.
    assert_eq!(path(&events(vec![])), "");
}
