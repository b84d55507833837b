//! A data lake: objects of Parquet in a real store, read as its users read them.

use super::sinks::{Id, id};
use super::sinks_far::{KEY, Store};
use super::tls_programs::installed;
use crate::{
    agent::Setup,
    command::{act, sh},
    events::{Ask as _, Event},
    machine::{Scratch, patience, turn, wait_for},
    plant, stream,
};
use std::{collections::BTreeMap, fs, time::Duration};

/// Reads it by DuckDB.
const LAKE: &str = include_str!("../server/lake.py");

/// Every exposure is in the lake, once, in its partition, with what its columns should hold; nothing of another class is.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn a_lake_has_all() {
    let _turn = turn();
    let scratch = Scratch::new();
    let store = Store::new(scratch.make("store"));
    let credentials = Store::credentials(&scratch);
    let mut running = store.up();
    let agent = Setup::new(&scratch)
        .config(&format!(
            r#"
[[sink]]
name = "lake"
carrier = "s3"
format = "ocsf-parquet"
class = "data_security_finding"
source = "keytrail-uses/1.0"
account = "123456789012"
region = "us-east-1"
url = "{}"
credentials_file = "{}"
every_ms = 300
batch = 20
"#,
            store.url(),
            credentials.display()
        ))
        .start();
    let done = |n: u32| {
        sh("exit 0")
            .env("GITHUB_TOKEN", plant::github().value)
            .env("N", n.to_string())
            .run()
            .ok()
    };
    for n in 0..60 {
        done(n);
    }
    // The reader of the store, which comes later, is seen too.
    let last = id(&agent.sentinel());
    let exposed = |e: &&Event| e.is("credential_exposed") && id(e) <= last;
    // What was reported just now may not be in the ledger yet.
    std::thread::sleep(Duration::from_millis(1500));
    wait_for("the lake to have all", patience(60), || {
        let sink = stream::status(&agent.socket()).sinks.remove(0);
        assert_eq!((sink.error.as_str(), sink.left_out), ("", 0), "{sink:?}");
        (sink.delivered >= 60 && sink.behind == 0).then_some(())
    });
    let lake = scratch.make("lake");
    let names = store.names();
    assert!(names.len() > 2, "{names:?}");
    for name in &names {
        let file = lake.join(name);
        assert!(
            name.starts_with(
                "ext/keytrail-uses/1.0/region=us-east-1/accountId=123456789012/eventDay=20"
            ) && name.ends_with(".parquet"),
            "{name}"
        );
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let path = file.display().to_string();
        let url = format!("/{}", name.replace('=', "%3D"));
        store.curl(&["-o", &path], &url).unwrap();
    }
    let text = act(installed("python/bin/python3"))
        .args(["-c", LAKE])
        .arg(&lake)
        .run()
        .ok()
        .stdout_text();
    let mut rows: BTreeMap<Id, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let mut numbers = words[1].split(':').skip(1).map(|n| n.parse().unwrap());
        let id = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(
            words[0].starts_with("us-east-1/123456789012/20") && words[3] == "2006",
            "{line}"
        );
        assert!(rows.insert(id, words).is_none(), "twice: {line}");
    }
    let events = agent.events();
    let wanted: Vec<&Event> = events.iter().filter(exposed).collect();
    assert!(wanted.len() >= 60, "{}", wanted.len());
    for event in &wanted {
        let row = rows
            .get(&id(event))
            .unwrap_or_else(|| panic!("lost {}", event.brief()));
        assert_eq!(
            (row[2], row[5], row[6]),
            (
                "credential_exposed",
                "observed",
                "Credential in environment or arguments"
            )
        );
        assert!(!row[4].is_empty());
    }
    println!("lake: {} rows in {} objects", rows.len(), names.len());
    assert!(!agent.log().contains(KEY));
    running.end();
    agent.stop();
}
