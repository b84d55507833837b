//! A host that is never quiet: whatever files and readers there are, the agent goes on, and ends.

use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask as _, Event, list},
    fuse::Fuse,
    machine::{Scratch, patience, turn, wait_for},
    plant, trace,
};
use std::{
    fs,
    time::{Duration, Instant},
};

/// A file system that takes minutes to answer keeps neither the start nor anybody else's records waiting, and is reported.
pub fn files_that_do_not_answer() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, near) = plant::aws_credentials(&scratch.make("home"));
    let point = scratch.make("far");
    let line = format!("GITHUB_TOKEN={}\n", plant::github().value);
    let Some(far) = Fuse::mount(
        &point,
        "settings.env",
        line.as_bytes(),
        Duration::from_secs(120),
    ) else {
        eprintln!("left out: this kernel has no FUSE");
        return;
    };
    let began = Instant::now();
    let agent = Setup::new(&scratch)
        .whole_config(&format!(
            "watch = [\"{}/settings.env\"]\ninspect_timeout_ms = 300\n",
            point.display()
        ))
        .start();
    let took = began.elapsed();
    let took = took.saturating_sub(agent.waited());
    assert!(took < patience(10), "the start took {took:?}");
    let mut watch = agent.stopwatch();
    let done = sh("cat \"$1\"; :").arg(&near).run().ok();
    agent.expect("the read of another file", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    watch.inspect(agent.pid());
    let took = watch.took();
    assert!(took < patience(3), "it came after {took:?}");
    agent.expect("that the file was not inspected", 0, |e| {
        let remedy = e.gap.as_ref().map_or("", |gap| &gap.remedy);
        e.reason() == "inspection_timeout" && remedy.contains("exclude")
    });
    // All its work ends in time. The thread that waits for the file is the kernel's until the file system answers.
    let took = agent.end_timed(Agent::has_ended);
    assert!(took < patience(3), "the end took {took:?}");
    far.release();
    agent.stop();
}

/// Holds the lock of its own memory while it waits for a file that nobody answers for.
const LOCKED: &str = "import ctypes, mmap, os, sys, threading, time
file = open(sys.argv[1], 'rb')
area = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
at = ctypes.addressof(ctypes.c_char.from_buffer(area))
memory = os.open('/proc/self/mem', os.O_RDONLY)
threading.Thread(target=os.pread, args=(memory, 1, at), daemon=True).start()
time.sleep(1)
print('reads', flush=True)
mmap.mmap(-1, 1 << 20)";

/// A process that lets nobody read its memory (`ps` waits for it for ever) keeps neither the start nor anybody else's
/// records waiting, and is reported.
pub fn a_process_that_does_not_let_itself_be_read() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, near) = plant::aws_credentials(&scratch.make("home"));
    let point = scratch.make("far");
    let Some(far) = Fuse::mount(&point, "file", &[b'x'; 4096], patience(60)) else {
        eprintln!("left out: this kernel has no FUSE");
        return;
    };
    let locked = act("python3")
        .args(["-c", LOCKED])
        .arg(point.join("file"))
        .spawn_reading(&scratch.join("locked.err"));
    wait_for("its read", patience(60), || {
        (locked.written() == b"reads\n").then_some(())
    });
    std::thread::sleep(patience(1));
    let mut reader = act("cat")
        .arg(format!("/proc/{}/environ", locked.pid()))
        .spawn();
    std::thread::sleep(patience(1));
    let stuck = reader.ended().is_none();
    reader.end();
    assert!(stuck, "it can be read: this test proves nothing");
    let began = Instant::now();
    let agent = Setup::new(&scratch).start();
    let took = began.elapsed();
    assert!(took < patience(10), "the start took {took:?}");
    agent.expect("that it was not read", 0, |e| {
        e.reason() == "environment_unreadable"
            && e.gap.as_ref().is_some_and(|gap| {
                gap.detail.contains(&format!("process {} ", locked.pid()))
                    && gap.remedy.contains("what it waits for")
            })
    });
    let done = sh("cat \"$1\"; :").arg(&near).run().ok();
    agent.expect("a read of a file", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    let began = Instant::now();
    agent.terminate();
    wait_for("the end", patience(3), || agent.has_ended().then_some(()));
    let took = began.elapsed();
    assert!(took < patience(3), "the end took {took:?}");
    far.release();
    agent.stop();
}

/// What is excluded is not touched, and that is said at the start.
pub fn excluded_places() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, kept) = plant::aws_credentials(&scratch.make("home"));
    let left_out = scratch.make("left-out").join("settings.env");
    fs::write(
        &left_out,
        format!("GITHUB_TOKEN={}\n", plant::github().value),
    )
    .unwrap();
    let agent = Setup::new(&scratch)
        .config(&format!(
            "exclude = [\"{}\"]",
            scratch.join("left-out").display()
        ))
        .start();
    let done = sh("cat \"$1\" \"$2\"; :")
        .arg(&left_out)
        .arg(&kept)
        .run()
        .ok();
    agent.expect("the other read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    let reads = agent.tree(done.pid);
    let reported = |e: &crate::events::Event| {
        e.is("credential_read")
            && e.source
                .as_ref()
                .is_some_and(|s| s.path.ends_with("settings.env"))
    };
    assert!(
        !reads.iter().any(reported),
        "an excluded file was inspected"
    );
    agent.expect("that places are excluded", 0, |e| {
        let detail = e.gap.as_ref().map_or("", |gap| &gap.detail);
        e.reason() == "excluded" && detail.contains("left-out")
    });
}

/// A trace of a short command is short, beside somebody who reads whatever there is: not three times as long as alone, or
/// some seconds.
pub fn a_trace_ends_beside_a_busy_reader() {
    let _turn = turn();
    let scratch = Scratch::new();
    let trace = || {
        let traced = trace::command(&scratch, &[]).arg("true");
        let (traced, took) = trace::run_timed(&scratch, traced);
        assert!(traced.done.status.success());
        took
    };
    let alone = trace();
    let mut reader =
        sh("while :; do find /usr -xdev -type f | head -n 40000 | xargs cat >/dev/null 2>&1; done")
            .spawn();
    std::thread::sleep(Duration::from_secs(1));
    let took = trace();
    reader.end();
    println!("alone {alone:?}, beside the reader {took:?}");
    let limit = patience(3).max(3 * alone);
    assert!(took < limit, "it took {took:?}, alone {alone:?}");
}

/// One large file of somebody who may write it: the command that reads it, and the trace, end.
pub fn a_file_of_ninety_thousand_credentials() {
    let _turn = turn();
    let scratch = Scratch::new();
    let home = scratch.make("home");
    let mut text = String::from("[a]\n");
    for _ in 0..90_000 {
        text.push_str(&format!(
            "token = dapi{}\n",
            plant::text(b"0123456789abcdef", 32)
        ));
    }
    let file = home.join(".databrickscfg");
    fs::write(&file, text).unwrap();
    let (traced, took) = trace::run_timed(
        &scratch,
        trace::command(&scratch, &[])
            .args([
                "sh",
                "-c",
                "cat \"$0\" >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do /bin/true; done",
            ])
            .arg(&file),
    );
    assert!(traced.done.status.success());
    assert!(took < patience(3), "it took {took:?}");
    // What is not known of it is reported: by the event, or by a gap.
    let read = traced.events.iter().filter(|e| e.is("credential_read"));
    let cut = |e: &Event| e.truncation.as_ref().is_some_and(|t| t.file);
    let gap = |e: &Event| matches!(e.reason(), "file_truncated" | "inspection_timeout");
    assert!(
        read.clone().count() > 0 && read.clone().all(cut) || traced.events.iter().any(gap),
        "{}",
        list(&traced.events)
    );
}

/// A database that another process has locked does not keep the agent from ending.
pub fn it_ends_beside_a_locked_ledger() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch).start();
    let database = scratch.join("agent/state/keytrail.db");
    let mut holder = act("python3")
        .args([
            "-c",
            "import sqlite3, sys, time\n\
             db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
             db.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(600)",
        ])
        .arg(&database)
        .spawn_reading(&scratch.join("holder.stderr"));
    wait_for("the lock", patience(60), || {
        assert!(holder.ended().is_none(), "it could not be locked");
        holder.written().starts_with(b"locked").then_some(())
    });
    agent.sentinel();
    let took = agent.end_timed(|agent| agent.ended().is_some());
    assert!(holder.ended().is_none(), "the lock was gone by then");
    holder.end();
    let status = agent.ended().unwrap();
    assert!(status.success(), "{status}:\n{}", agent.log());
    assert!(took < patience(2), "it took {took:?}");
}
