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
        opened: false,
    })
}

fn opened(mut observation: Observation) -> Observation {
    if let Observation::Pipes(seen) = &mut observation {
        seen.opened = true;
    }
    observation
}

/// Writes this much, in which these are seen, to a pipe or a terminal.
fn put(
    (tgid, boot_ns): (u32, u64),
    target: WriteTarget,
    (inode, path): (u64, &str),
    hits: Vec<Hit>,
) -> Observation {
    Observation::Write(Box::new(WriteSeen {
        at: at(tgid, boot_ns),
        target,
        device: 14,
        inode,
        path: path.to_owned(),
        payload: payload(100, hits),
        hook: "raw_tp:sys_enter".to_owned(),
    }))
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

/// A service (20) with so many credentials.
fn service(credentials: u32) -> Vec<Observation> {
    let mut parts = vec![fork(10, 20, SEC), exec(20, 10, SEC + 1, vec![])];
    for n in 0..credentials {
        let c = credential(&format!("credential-{n}"));
        parts.push(read(20, 2 * SEC + u64::from(n), &c));
    }
    parts
}

/// Its children, each fed by a pipe of its own.
fn children(count: u32) -> Vec<Observation> {
    (0..count)
        .flat_map(|n| {
            let (child, inode) = (1_000 + n, u64::from(1_000 + n));
            let told = pipes(child, 3 * SEC + 1, Some(inode), None);
            let seen = [
                fork(20, child, 3 * SEC),
                exec(child, 20, 3 * SEC + 1, vec![]),
            ];
            seen.into_iter().chain([fed_by(20, told)])
        })
        .collect()
}

/// With every child all pipes of the service are looked at again: of each what it carries, not all that the service has.
#[test]
fn many_children_of_who_holds_much_are_bounded_work() {
    let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let before = cpu();
    story(&[service(1_000), children(400)]);
    let took = cpu() - before;
    assert!(took < 10, "{took} s of a processor");
}

/// 64 of 70 find room, and the others are counted once, however often the service is looked at.
#[test]
fn what_a_pipe_has_no_room_for_is_counted_once() {
    let again = (0..10).map(|n| pipes(20, 4 * SEC + n, None, Some(7)));
    let again = again.collect::<Vec<_>>();
    let events = story(&[service(70), again, vec![tick(30 * SEC)]]);
    let gaps = of(&events, "coverage_gap");
    let count = |e: &&Event| e.gap.as_ref().unwrap().count;
    assert_eq!(gaps.iter().map(count).sum::<u64>(), 6, "{gaps:#?}");
}

/// A shell that takes what its commands write (`x=$(date)`) for days has all those pipes, and others find room.
#[test]
fn a_shell_that_takes_for_days_leaves_room_for_others() {
    let c = credential("c");
    let taken = (0..20_000u32).flat_map(|n| {
        let (pid, inode) = (1_000 + n, 1_000 + u64::from(n));
        let at = SEC + u64::from(n);
        [
            fork(10, pid, at),
            exec(pid, 10, at, vec![]),
            taken_by(10, pipes(pid, at, None, Some(inode))),
            exit(pid, at),
        ]
    });
    let events = story(&[
        taken.collect(),
        program(20, 2 * SEC, None, Some(1)),
        vec![read(20, 3 * SEC, &c)],
        program(30, 4 * SEC, Some(1), None),
        vec![plain(30, 5 * SEC, vec![]), tick(30 * SEC)],
    ]);
    let ways: Vec<_> = sent(&events).into_iter().map(way).collect();
    assert_eq!(ways, [[("read", 20), ("pipe", 30)]]);
    assert_eq!(of(&events, "coverage_gap").len(), 0);
}

/// A FIFO that was opened by its name: what was put into it goes to who reads it, whichever of the two comes first, with the
/// FIFO's path. What the writer met long before it wrote does not, and neither does anything to who opens it when all others
/// have closed it.
#[test]
fn a_fifo_joins_who_opened_it_by_name() {
    let c = credential("c");
    let writer = || opened(pipes(20, 2 * SEC, None, Some(7)));
    let writes = |t| put((20, t), WriteTarget::Pipe, (7, "/tmp/p"), vec![]);
    let reads = |t| opened(pipes(30, t, Some(7), None));
    let began = |parts: Vec<Observation>| {
        let first = [program(20, SEC, None, None), program(30, SEC, None, None)].concat();
        [first, vec![read(20, SEC + 9, &c)], parts].concat()
    };
    let sends = |t| vec![plain(30, t, vec![]), tick(300 * SEC)];
    for parts in [
        vec![writer(), writes(3 * SEC), reads(3 * SEC + 1)],
        vec![reads(2 * SEC), writer(), writes(3 * SEC)],
        vec![
            writer(),
            writes(3 * SEC),
            exit(20, 3 * SEC + 1),
            reads(3 * SEC + 100_000_000),
        ],
    ] {
        let events = story(&[began(parts), sends(5 * SEC)]);
        let told = sent(&events);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(way(told[0]), [("read", 20), ("pipe", 30)]);
        let path = &told[0].evidence.as_ref().unwrap().path;
        assert_eq!(path[1].name, "/tmp/p");
        assert_eq!(basis(told[0]), Some(LineageBasis::Passed));
    }
    for parts in [
        vec![reads(2 * SEC), writer(), writes(90 * SEC)],
        vec![reads(2 * SEC), writer()],
        vec![
            writer(),
            writes(3 * SEC),
            exit(20, 3 * SEC + 1),
            reads(40 * SEC),
        ],
    ] {
        let events = story(&[began(parts), sends(95 * SEC)]);
        assert!(sent(&events).is_empty());
    }
}

/// Those who take in what comes out of a FIFO are decided with who puts it in.
#[test]
fn readers_of_a_fifo_are_decided_with_its_writer() {
    let mut core = Core::new();
    let parts = [
        vec![start(), exec(10, 1, SEC / 2, vec![])],
        program(20, SEC, None, None),
        program(30, SEC, None, Some(1)),
        program(40, SEC, Some(1), None),
        vec![
            opened(pipes(30, 2 * SEC, Some(7), None)),
            opened(pipes(20, 2 * SEC, None, Some(7))),
        ],
    ];
    for observation in parts.concat() {
        let _ = core.step(&observation);
    }
    assert_eq!(core.downstream(pid(20)), [pid(30), pid(40)]);
    assert_eq!(core.readers(pipe(7)), [pid(30)]);
}

/// Who has the other end of a terminal gets what was seen in what is shown there, and nothing else; it passes it on.
#[test]
fn a_terminal_gives_what_was_seen_on_it() {
    let c = credential("c");
    let shown = |hits| {
        let begun = [
            program(20, SEC, None, Some(1)),
            program(30, SEC, Some(1), None),
            vec![fork(20, 40, SEC + 5), exec(40, 20, SEC + 6, vec![])],
        ];
        let rest = vec![
            read(40, SEC + 9, &c),
            taken_by(20, opened(pipes(40, 2 * SEC, None, Some(3)))),
            put(
                (40, 2 * SEC),
                WriteTarget::Terminal,
                (3, "/dev/pts/0"),
                hits,
            ),
            plain(30, 3 * SEC, vec![]),
            tick(30 * SEC),
        ];
        let events = story(&[begun.concat(), rest]);
        let of = |e: &&Event| e.process.as_ref().unwrap().pid == 30;
        sent(&events)
            .into_iter()
            .filter(of)
            .cloned()
            .collect::<Vec<_>>()
    };
    let told = shown(vec![hit(&c, true)]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        way(&told[0]),
        [("read", 40), ("terminal", 20), ("pipe", 30)]
    );
    assert_eq!(
        told[0].evidence.as_ref().unwrap().path[1].name,
        "/dev/pts/0"
    );
    assert!(shown(vec![]).is_empty());
}

/// `x=$(date; cat KEY)`: who takes is told with the first command only.
#[test]
fn who_takes_is_known_between_two_commands() {
    let c = credential("c");
    let command = |tgid, t, taken: bool| {
        let told = pipes(tgid, t + 1, None, Some(1));
        vec![
            fork(10, tgid, t),
            exec(tgid, 10, t + 1, vec![]),
            if taken { taken_by(10, told) } else { told },
        ]
    };
    let events = story(&[
        command(20, SEC, true),
        vec![exit(20, SEC + 9)],
        command(30, 2 * SEC, false),
        vec![read(30, 2 * SEC + 5, &c), exit(30, 2 * SEC + 9)],
        vec![plain(10, 3 * SEC, vec![]), tick(30 * SEC)],
    ]);
    let ways: Vec<_> = sent(&events).into_iter().map(way).collect();
    assert_eq!(ways, [[("read", 30), ("pipe", 10)]]);
}
