//! What is captured of a holder, and that what is not is counted: nothing is silent, nothing is counted twice.

use crate::host::{self, Host, Seen, tls_server};
use keytrail_abi::{
    PROC_HOLDER, PROC_KEYS, PROC_UNKNOWN, ProcState, budget::BUDGET_SHIFT, header::flags,
};
use keytrail_sensor::{Limit, Limits, SensorOptions};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// A process that does what it is told, line by line.
struct Scripted {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Scripted {
    /// `script` defines `do(words)`.
    fn new(script: &str) -> Self {
        let script = format!(
            "import sys,socket\n{script}\nfor line in sys.stdin:\n  do(line.split())\n  print('ok',flush=True)"
        );
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output),
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n");
    }

    fn end(self) {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        child.wait().unwrap();
    }
}

fn limited(limits: Limits) -> Option<Host> {
    Host::with(&SensorOptions {
        limits,
        ..SensorOptions::default()
    })
}

/// A server that answers the test on one connection, and sends to it on another that it made itself.
struct Server {
    scripted: Scripted,
    port: u16,
    upstream: u16,
    ends: Vec<TcpStream>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap().port();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut scripted = Scripted::new(&format!(
            "l=socket.socket()\nl.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\nl.bind(('127.0.0.1',{port}))\n\
             l.listen(5)\nc={{}}\n\
             def do(w):\n  \
               if w[0]=='accept': c['answer']=l.accept()[0]\n  \
               elif w[0]=='connect': c['upstream']=socket.create_connection(('127.0.0.1',{upstream}))\n  \
               elif w[0]=='listening': pass\n  \
               elif w[0]=='read': open(w[1]).read()\n  \
               elif w[0]=='send':\n    \
                 for n in range(int(w[2])): c[w[1]].sendall(w[3].encode())\n  \
               elif w[0]=='number':\n    \
                 for n in range(int(w[2])): c[w[1]].sendall((str(n).zfill(3)+w[3]).encode())"
        ));
        scripted.say("listening");
        let answered = TcpStream::connect(("127.0.0.1", port)).unwrap();
        scripted.say("accept");
        scripted.say("connect");
        let (made, _) = listener.accept().unwrap();
        for end in [&answered, &made] {
            let mut end = end.try_clone().unwrap();
            std::thread::spawn(move || while end.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {});
        }
        Self {
            scripted,
            port,
            upstream,
            ends: vec![answered, made],
        }
    }

    fn pid(&self) -> u32 {
        self.scripted.child.id()
    }

    /// Sends captured on the accepted connection, and on the other.
    fn sends(&self, seen: &Seen) -> (usize, usize) {
        let sends = seen.sends(self.pid());
        let count = |of: &dyn Fn(&host::Sent) -> bool| sends.iter().filter(|s| of(s)).count();
        (
            count(&|s| s.record.ends.local_port == self.port),
            count(&|s| s.record.ends.peer_port == self.upstream),
        )
    }

    fn end(self) {
        drop(self.ends);
        self.scripted.end();
    }
}

fn state(state: u32) -> ProcState {
    ProcState {
        state,
        ..ProcState::default()
    }
}

/// Payloads of one process that were passed over, and their bytes, by limit. The totals are the whole host's, and other
/// tests' processes send too.
#[derive(Default)]
struct PassedBy(BTreeMap<Limit, (u64, u64)>);

impl PassedBy {
    /// Once there are `most`, or as many as come: they are compared now and then.
    fn count_soon(&mut self, host: &mut Host, tgid: u32, limit: Limit, most: u64) -> u64 {
        let mut count = 0;
        for _ in 0..120 {
            count = self.count(host, tgid, limit);
            if count >= most {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        count
    }

    fn count(&mut self, host: &mut Host, tgid: u32, limit: Limit) -> u64 {
        for passed in host.sensor.passed_over() {
            if passed.tgid == tgid {
                let (payloads, bytes) = self.0.entry(passed.limit).or_default();
                *payloads += passed.payloads;
                *bytes += passed.bytes;
            }
        }
        self.0.get(&limit).map_or(0, |(payloads, _)| *payloads)
    }
}

#[test]
fn answers_have_a_budget_and_everything_else_is_captured() {
    let limits = Limits {
        answers: 20_000,
        keys: 5_000,
        ..Limits::default()
    };
    let Some(mut host) = Some(host!()).and_then(|_| limited(limits)) else {
        return;
    };
    let mut server = Server::new();
    host.drain_all();
    // With its number 500 bytes.
    let text = "x".repeat(497);
    let mut captured = Vec::new();
    let mut passed_by = PassedBy::default();
    for class in [PROC_HOLDER, PROC_KEYS] {
        let limit = if class == PROC_KEYS {
            Limit::Keys
        } else {
            Limit::Answers
        };
        host.sensor.set_process(server.pid(), state(class));
        let mut most = 0;
        let mut ended_in_hole = false;
        for _ in 0..20 {
            // A window of its own, unless it takes longer than that.
            std::thread::sleep(Duration::from_millis(1_100));
            let before = passed_by.count(&mut host, server.pid(), limit);
            server.scripted.say(&format!("number answer 400 {text}"));
            server.scripted.say(&format!("number upstream 400 {text}"));
            let seen = host.drain_all();
            let (answers, upstream) = server.sends(&seen);
            assert_eq!(upstream, 400, "what it sends by itself is captured whole");
            let sends = seen.sends(server.pid());
            let accepted: Vec<_> = sends
                .iter()
                .filter(|s| s.record.header.flags & flags::ACCEPTED != 0)
                .collect();
            assert_eq!(accepted.len(), answers, "answers, and nothing else");
            assert!(answers > 0 && answers < 400, "{answers}");
            let mut windows = BTreeMap::<u64, usize>::new();
            for answer in &accepted {
                *windows
                    .entry(answer.record.header.boot_ns >> BUDGET_SHIFT)
                    .or_default() += 1;
            }
            most = most.max(windows.into_values().max().unwrap_or(0));
            let missing = before + 400 - answers as u64;
            let passed = passed_by.count_soon(&mut host, server.pid(), limit, missing) - before;
            assert_eq!(answers as u64 + passed, 400, "seen or counted, and once");
            // The first captured after a hole says so, and only that one.
            ended_in_hole = !accepted.iter().any(|s| s.data.starts_with(b"399"));
            std::thread::sleep(Duration::from_millis(1_100));
            server.scripted.say(&format!("number answer 2 {text}"));
            let seen = host.drain_all();
            let holes: Vec<bool> = seen
                .sends(server.pid())
                .iter()
                .map(|s| s.record.header.flags & flags::AFTER_HOLE != 0)
                .collect();
            assert_eq!(holes, [ended_in_hole, false]);
            if ended_in_hole {
                break;
            }
        }
        assert!(ended_in_hole, "each batch ended in a window of its own");
        captured.push(most);
    }
    assert!(
        captured[1] < captured[0],
        "a sample is less: {captured:?} of one window at most"
    );
    // Which process it was.
    let limits: Vec<_> = passed_by.0.keys().copied().collect();
    assert_eq!(limits, [Limit::Answers, Limit::Keys]);
    for (payloads, bytes) in passed_by.0.values() {
        assert_eq!(*bytes, payloads * 500);
    }
    server.end();
}

#[test]
fn who_reads_a_secret_is_inspected_anew() {
    let limits = Limits {
        answers: 3_000,
        keys: 3_000,
        ..Limits::default()
    };
    let Some(mut host) = Some(host!()).and_then(|_| limited(limits)) else {
        return;
    };
    let mut server = Server::new();
    host.drain_all();
    let text = "x".repeat(500);
    // A window may begin anew by itself, but not each time in these few milliseconds.
    for _ in 0..4 {
        let secret = host.secret_on_disk(b"secret-of-17-byte");
        host.sensor.set_process(server.pid(), state(PROC_KEYS));
        server.scripted.say(&format!("send answer 100 {text}"));
        server
            .scripted
            .say(&format!("read {}", secret.path().display()));
        let now = host.sensor.process(server.pid()).unwrap();
        assert_eq!(
            now.state, PROC_HOLDER,
            "its class was decided before it read"
        );
        server.scripted.say("send answer 1 what-it-read");
        let seen = host.drain_all();
        let last = seen.sends(server.pid()).pop().unwrap();
        assert_eq!(last.data, b"what-it-read");
    }
    server.end();
}

#[test]
fn one_connection_does_not_use_up_the_others() {
    let limits = Limits {
        process: 1 << 20,
        connection: 30_000,
        ..Limits::default()
    };
    let Some(mut host) = Some(host!()).and_then(|_| limited(limits)) else {
        return;
    };
    let mut server = Server::new();
    host.drain_all();
    host.sensor.set_process(server.pid(), state(PROC_HOLDER));
    std::thread::sleep(Duration::from_millis(1_100));
    let text = "x".repeat(500);
    server.scripted.say(&format!("send upstream 400 {text}"));
    server.scripted.say(&format!("send answer 100 {text}"));
    let (answers, upstream) = server.sends(&host.drain_all());
    assert_eq!(answers, 100);
    assert!(upstream < 400, "{upstream}");
    let most = 400 - upstream as u64;
    let passed = PassedBy::default().count_soon(&mut host, server.pid(), Limit::Connection, most);
    assert_eq!(upstream as u64 + passed, 400);
    server.end();
}

#[test]
fn a_tls_server_s_answers_are_passed_over_with_what_they_become() {
    let limits = Limits {
        answers: 4_000,
        ..Limits::default()
    };
    let Some(mut host) = Some(host!()).and_then(|_| limited(limits)) else {
        return;
    };
    if !host.knows_calls() {
        return;
    }
    host.sensor.scan_libraries();
    let Some((mut server, port)) = tls_server() else {
        return;
    };
    host.drain_all();
    host.sensor.set_process(server.id(), state(PROC_HOLDER));
    // One connection, many answers: `openssl s_server -www` closes after each, so a client of many.
    let script =
        format!("for n in $(seq 40); do curl -sk -o /dev/null https://127.0.0.1:{port}/; done");
    host.run(Command::new("sh").args(["-c", &script]));
    let seen = host.drain_all();
    let (writes, sends) = (seen.tls(server.id()), seen.sends(server.id()));
    // Every captured write has its send, whatever was passed over.
    let own: Vec<_> = sends
        .iter()
        .filter(|send| send.record.ends.local_port == port && send.data.first() == Some(&0x17))
        .collect();
    for write in &writes {
        assert!(
            own.iter()
                .any(|send| send.record.tls_call == write.record.tls_call),
            "{write:?}"
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// A verdict about the exec must not pass for one about a file that was read after it.
#[test]
fn a_clean_verdict_does_not_undo_a_newer_question() {
    let mut host = host!();
    let directory = tempfile::tempdir_in(host::on_disk()).unwrap();
    let path = directory.path().join("fresh");
    fs::write(&path, "nobody has inspected this file yet").unwrap();
    let mut scripted = Scripted::new("def do(w): open(w[1]).read()");
    let pid = scripted.child.id();
    scripted.say(&format!("read {}", path.display()));
    let seen = host.drain_all();
    let exec = seen.exec(pid).unwrap().record.exec_id;
    let question = seen.questions(pid, path.to_str().unwrap());
    assert_eq!(question.len(), 1);
    assert!(question[0] != 0 && question[0] != exec);
    host.sensor.clear_process(pid, exec);
    let now = host.sensor.process(pid).map(|state| state.state);
    assert_eq!(now, Some(PROC_UNKNOWN), "the file was not inspected");
    host.sensor.clear_process(pid, question[0]);
    let now = host.sensor.process(pid);
    assert!(now.is_none_or(|now| now.exec_id != question[0]));
    scripted.end();
}
