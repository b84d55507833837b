//! Syslog over TLS (RFC 5425), to the receiver that most distributions have.

use super::sinks::{Id, enough, free_port, held_upto, id, whole};
use super::sinks_far::load;
use super::tls_programs::installed;
use crate::{
    agent::Setup,
    command::{Background, act},
    events::{Ask as _, Event},
    machine::{Scratch, patience, turn, wait_for},
    server::certificates,
    stream,
};
use std::{fs, path::PathBuf};

/// Rsyslog as it is shipped, with files of its own.
pub(super) struct Rsyslog {
    pub dir: PathBuf,
    pub port: String,
}

impl Rsyslog {
    pub fn new(dir: PathBuf) -> Rsyslog {
        let port = free_port();
        certificates(&dir);
        let config = format!(
            r#"
global(workDirectory="{dir}" maxMessageSize="256k" net.enableDNS="off"
    defaultNetstreamDriverCAFile="{dir}/ca.crt" defaultNetstreamDriverCertFile="{dir}/server.crt"
    defaultNetstreamDriverKeyFile="{dir}/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="parts" type="string" string="%app-name% %msgid% %msg%\n")
action(type="omfile" file="{dir}/received" template="parts")
"#,
            dir = dir.display()
        );
        fs::write(dir.join("rsyslog.conf"), config).unwrap();
        Rsyslog { dir, port }
    }

    pub fn start(&self) -> Background {
        let program = installed("debian/usr/sbin/rsyslogd");
        let root = program.ancestors().nth(3).unwrap();
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        act(&program)
            .env("LD_LIBRARY_PATH", libraries.display().to_string())
            .arg("-n")
            .arg("-M")
            .arg(libraries.join("rsyslog"))
            .arg("-i")
            .arg(self.dir.join("pid"))
            .arg("-f")
            .arg(self.dir.join("rsyslog.conf"))
            .limit(600)
            .spawn()
    }

    /// What it wrote in whole lines, of what the agent sent: each as an event and as it came.
    fn received(&self) -> Vec<(Id, String)> {
        let text = fs::read_to_string(self.dir.join("received")).unwrap_or_default();
        let upto = text.rfind('\n').map_or("", |at| &text[..at]);
        let event = |line: &str| {
            // What it says of itself goes there too.
            let rest = line.strip_prefix("keytrail ")?;
            let (kind, message) = rest.split_once(' ').unwrap();
            let message = message.trim_start();
            let event: Event =
                serde_json::from_str(message).unwrap_or_else(|e| panic!("{e}: {message}"));
            assert!(event.is(kind), "{line}");
            Some((id(&event), message.to_owned()))
        };
        upto.lines().filter_map(event).collect()
    }
}

/// Rsyslog gets every event over TLS, in order, also those of a time in which it was away and the agent was killed.
pub fn rsyslog_has_all_by_tls() {
    let _turn = turn();
    let scratch = Scratch::new();
    let rsyslog = Rsyslog::new(scratch.make("rsyslog"));
    let mut running = rsyslog.start();
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            "[[sink]]\nname = \"rsyslog\"\ncarrier = \"syslog\"\naddress = \"tls:localhost:{}\"\n\
             ca_file = \"{}/ca.crt\"\nbatch = 20",
            rsyslog.port,
            rsyslog.dir.display()
        ))
        .start();
    let mut count = 0;
    for _ in 0..3 {
        let first = load();
        let before = agent.events().len();
        wait_for("some events", patience(60), || {
            (agent.events().len() > before + 30).then_some(())
        });
        count += agent.events().len();
        agent = agent.kill().start();
        drop(first);
        let last = id(&agent.sentinel());
        wait_for("rsyslog to have all so far", patience(60), || {
            rsyslog
                .received()
                .iter()
                .any(|(id, _)| *id >= last)
                .then_some(())
        });
        // What it has taken it has written by then.
        running.signal(libc::SIGTERM);
        running.wait(patience(30), "rsyslog");
        let second = load();
        agent.expect("the gap of a sink that fails", 0, |e| {
            e.reason() == "sink_behind"
                && e.gap.as_ref().unwrap().detail.starts_with(&format!(
                    "sink rsyslog fails: tls:localhost:{}",
                    rsyslog.port
                ))
        });
        drop(second);
        count += agent.events().len();
        agent = agent.kill().start();
        running = rsyslog.start();
    }
    let load = load();
    enough(&agent, count, 200);
    drop(load);
    let last = id(&agent.sentinel());
    wait_for("rsyslog to have all", patience(90), || {
        rsyslog
            .received()
            .iter()
            .any(|(id, _)| *id >= last)
            .then_some(())
    });
    let held = held_upto(&agent, last);
    assert!(held.len() > 200, "{}", held.len());
    let received = rsyslog.received();
    let lines: Vec<(Id, &str)> = received
        .iter()
        .map(|(id, line)| (*id, line.as_str()))
        .collect();
    whole("rsyslog", &held, &lines);
    let sink = stream::status(&agent.socket()).sinks.remove(0);
    assert_eq!((sink.error.as_str(), sink.left_out), ("", 0), "{sink:?}");
    assert_eq!(sink.target, format!("tls:localhost:{}", rsyslog.port));
    running.end();
    agent.stop();
}
