//! What is written to files, pipes and terminals.

use super::*;

fn write(
    tgid: u32,
    boot_ns: u64,
    target: WriteTarget,
    inode: u64,
    path: &str,
    hits: Vec<Hit>,
) -> Observation {
    Observation::Write(Box::new(WriteSeen {
        at: at(tgid, boot_ns),
        target,
        device: 5,
        inode,
        path: path.to_owned(),
        payload: payload(100, hits),
        hook: "raw_tp:sys_enter".to_owned(),
    }))
}

fn read(
    tgid: u32,
    boot_ns: u64,
    credential: &CredentialRef,
    path: &str,
    inode: u64,
) -> Observation {
    Observation::File(Box::new(FileSeen {
        at: at(tgid, boot_ns),
        access: Access::Read,
        file: FileFacts {
            path: path.to_owned(),
            device: 5,
            inode,
            ..FileFacts::default()
        },
        credentials: vec![credential.clone()],
        unreadable: None,
        truncated: false,
        hook: "raw_tp:mm_filemap_get_pages".to_owned(),
    }))
}

fn path(e: &Event) -> &str {
    &e.destination.as_ref().unwrap().path
}

fn channel(e: &Event) -> &str {
    e.evidence.as_ref().unwrap().channel.word()
}

#[test]
fn a_secret_in_a_write_is_observed_and_reported_once() {
    let a = credential("a");
    let secret = || vec![hit(&a, true), hit(&a, false)];
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&a, "A_TOKEN")]),
        write(
            10,
            2 * SEC,
            WriteTarget::Terminal,
            3,
            "/dev/pts/0",
            secret(),
        ),
        write(
            10,
            3 * SEC,
            WriteTarget::Terminal,
            3,
            "/dev/pts/0",
            secret(),
        ),
        write(10, 3 * SEC, WriteTarget::Pipe, 77, "", secret()),
        write(
            10,
            3 * SEC,
            WriteTarget::File,
            8,
            "/var/log/x.log",
            secret(),
        ),
        // Another program of the same process.
        exec(10, 1, 4 * SEC, vec![env(&a, "A_TOKEN")]),
        write(
            10,
            5 * SEC,
            WriteTarget::Terminal,
            3,
            "/dev/pts/0",
            secret(),
        ),
        Observation::Exit {
            at: at(10, 6 * SEC),
            status: 0,
            signal: 0,
            dumped: None,
        },
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    let reported: Vec<_> = sent
        .iter()
        .map(|e| (channel(e), path(e), grade(e), method(e)))
        .collect();
    assert_eq!(
        reported,
        [
            ("terminal", "/dev/pts/0", "observed", "descriptor"),
            ("pipe", "pipe:[77]", "observed", "descriptor"),
            ("file", "/var/log/x.log", "observed", "descriptor"),
            ("terminal", "/dev/pts/0", "observed", "descriptor"),
        ]
    );
    let exit = of(&events, "process_exit")[0].exit.unwrap();
    assert_eq!(exit.untold_sends, 1, "what was written again is counted");
}

#[test]
fn a_holder_that_writes_something_else_is_no_news() {
    let a = credential("a");
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&a, "A_TOKEN")]),
        write(10, 2 * SEC, WriteTarget::File, 8, "/var/log/x.log", vec![]),
        stop(),
    ]);
    assert!(of(&events, "credential_sent").is_empty());
}

#[test]
fn saving_a_configuration_is_no_send() {
    let a = credential("a");
    let secret = || vec![hit(&a, true)];
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![]),
        read(10, 2 * SEC, &a, "/root/.npmrc", 40),
        // In place, under another name of the same path, and beside it to be renamed.
        write(10, 3 * SEC, WriteTarget::File, 40, "/mnt/.npmrc", secret()),
        // The number of a file that is gone is given to the next one.
        write(10, 3 * SEC, WriteTarget::File, 40, "/elsewhere", secret()),
        write(10, 3 * SEC, WriteTarget::File, 41, "/root/.npmrc", secret()),
        write(
            10,
            3 * SEC,
            WriteTarget::File,
            42,
            "/root/.npmrc.lock",
            secret(),
        ),
        write(10, 3 * SEC, WriteTarget::File, 43, "/root/copy", secret()),
        // Where another process has it from is no excuse.
        exec(20, 1, 4 * SEC, vec![env(&a, "A_TOKEN")]),
        write(20, 5 * SEC, WriteTarget::File, 40, "/root/.npmrc", secret()),
        stop(),
    ]);
    let sent = of(&events, "credential_sent");
    let reported: Vec<_> = sent
        .iter()
        .map(|e| (e.process.as_ref().unwrap().pid, path(e)))
        .collect();
    assert_eq!(
        reported,
        [(10, "/elsewhere"), (10, "/root/copy"), (20, "/root/.npmrc")]
    );
}

#[test]
fn an_identifier_at_the_end_waits_for_what_comes_next() {
    let a = credential("a");
    let mut open = hit(&a, false);
    open.open = true;
    let story = |continues: bool| {
        let next = Observation::Write(Box::new(WriteSeen {
            payload: Payload {
                continues,
                ..payload(5, vec![])
            },
            ..match write(10, 3 * SEC, WriteTarget::Pipe, 7, "", vec![]) {
                Observation::Write(seen) => *seen,
                _ => unreachable!(),
            }
        }));
        let events = run(&[
            start(),
            exec(10, 1, SEC, vec![env(&a, "A_TOKEN")]),
            write(
                10,
                3 * SEC - 1,
                WriteTarget::Pipe,
                7,
                "",
                vec![open.clone()],
            ),
            next,
            stop(),
        ]);
        of(&events, "credential_sent")
            .iter()
            .map(|e| grade(e).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(story(false), ["identified"]);
    assert!(story(true).is_empty(), "a part of a longer word");
}

#[test]
fn a_write_that_was_not_seen_whole_is_counted() {
    let a = credential("a");
    let mut seen = payload(1 << 20, vec![]);
    (seen.truncated, seen.inspected) = (true, 16_384);
    let events = run(&[
        start(),
        exec(10, 1, SEC, vec![env(&a, "A_TOKEN")]),
        Observation::Write(Box::new(WriteSeen {
            payload: seen,
            ..match write(10, 2 * SEC, WriteTarget::File, 8, "/big", vec![]) {
                Observation::Write(seen) => *seen,
                _ => unreachable!(),
            }
        })),
        stop(),
    ]);
    let gaps = of(&events, "coverage_gap");
    let gap = gaps
        .iter()
        .filter_map(|e| e.gap.as_ref())
        .find(|g| g.reason == GapReason::PayloadTruncated);
    assert_eq!(gap.unwrap().signal, Some(Signal::FdWrite));
}

/// The outermost process that has the pipe a job's program writes to as its standard output.
#[test]
fn a_pipe_of_a_job_is_reported_from_one_within_it() {
    let c = credential("c");
    let pipes = |tgid: u32, inode: u64| {
        Observation::Pipes(PipesSeen {
            at: at(tgid, 2 * SEC),
            stdin: None,
            stdout: Some(PipeId { device: 5, inode }),
            feeder: None,
            taker: None,
            opened: false,
        })
    };
    let events = run(&[
        start(),
        // A step (20) of a runner (10) has its output in pipe 7, and so has a program (30) of it; another (40) feeds 8.
        exec(10, 1, SEC, vec![]),
        exec(20, 10, SEC, vec![env(&c, "T")]),
        pipes(20, 7),
        exec(30, 20, SEC, vec![env(&c, "T")]),
        pipes(30, 7),
        exec(40, 20, SEC, vec![env(&c, "T")]),
        pipes(40, 8),
        write(30, 3 * SEC, WriteTarget::Pipe, 7, "", vec![hit(&c, true)]),
        write(40, 3 * SEC, WriteTarget::Pipe, 8, "", vec![hit(&c, true)]),
        // The shell itself, into a pipe that is not its output.
        write(20, 3 * SEC, WriteTarget::Pipe, 9, "", vec![hit(&c, true)]),
        stop(),
    ]);
    let of = |event: &Event| event.destination.as_ref().unwrap().stdout_of.clone();
    let reported: Vec<String> = sent(&events).into_iter().map(of).collect();
    assert_eq!(reported, ["01234567:20:200:1", "01234567:40:400:1", ""]);
}

fn sent(events: &[Event]) -> Vec<&Event> {
    of(events, "credential_sent")
}
