//! Messages in a topic of Kafka.

use super::sinks::{Id, enough, held_upto, id, whole};
use super::sinks_far::load;
use super::tls_programs::installed;
use crate::{
    agent::Setup,
    command::act,
    events::{Ask as _, Event},
    machine::{Scratch, patience, turn, wait_for},
    stream,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Brokers, and a reader of what they have.
const KAFKA: &str = include_str!("../server/kafka.py");

/// How often the agent is killed.
const ROUNDS: u32 = 5;

/// The brokers of librdkafka get each event, in the order of the events in each partition, from an agent that is killed time and
/// again.
pub fn a_topic_has_all() {
    let _turn = turn();
    let scratch = Scratch::new();
    let file = scratch.join("brokers");
    let python = || act(installed("python/bin/python3")).args(["-c", KAFKA]);
    let mut cluster = python().arg("serve").arg(&file).limit(600).spawn();
    let brokers = wait_for("the brokers", patience(30), || {
        fs::read_to_string(&file).ok()
    });
    let listed: Vec<String> = brokers.split(',').map(|b| format!("{b:?}")).collect();
    let mut agent = Setup::new(&scratch)
        .config(&format!(
            "[[sink]]\nname = \"topic\"\ncarrier = \"kafka\"\nbrokers = [{}]\ntopic = \"keytrail.events\"\ntls = false\nbatch = 30",
            listed.join(", ")
        ))
        .start();
    let load = load();
    // The brokers are there, and the topic is not: it is not made by asking for it.
    agent.expect("the gap of a topic that is not there", 0, |e| {
        e.reason() == "sink_behind"
            && e.gap
                .as_ref()
                .unwrap()
                .detail
                .contains("UNKNOWN_TOPIC_OR_PARTITION")
    });
    fs::write(scratch.join("brokers.make"), "").unwrap();
    let mut count = 0;
    for _ in 0..ROUNDS {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        count += agent.events().len();
        agent = agent.kill().start();
    }
    enough(&agent, count, 200);
    drop(load);
    let last = id(&agent.sentinel());
    wait_for("the topic to have all", patience(90), || {
        let sink = stream::status(&agent.socket()).sinks.remove(0);
        (sink.error.is_empty() && sink.behind == 0).then_some(())
    });
    let text = python().args(["read", &brokers]).run().ok().stdout_text();
    let held = held_upto(&agent, last);
    assert!(held.len() > 200, "{}", held.len());
    // By partition, in the order in which they lie there.
    let mut partitions: BTreeMap<&str, Vec<(Id, &str)>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (partition, header, key, value) = (word(), word(), word(), word());
        let event: Event = serde_json::from_str(value).unwrap_or_else(|e| panic!("{e}: {value}"));
        let (epoch, sequence) = id(&event);
        assert!(header.ends_with(&format!(":{epoch}:{sequence}")), "{line}");
        assert_eq!(header, key);
        let of = partitions.entry(partition).or_default();
        of.push(((epoch, sequence), value));
    }
    assert!(partitions.len() > 1, "all in one partition");
    for (partition, messages) in &partitions {
        let mut seen = BTreeSet::new();
        let first: Vec<Id> = messages
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| seen.insert(*id))
            .collect();
        assert!(first.is_sorted(), "{partition}: {first:?}");
    }
    let mut all: Vec<(Id, &str)> = partitions.into_values().flatten().collect();
    all.sort_by_key(|(id, _)| *id);
    whole("kafka", &held, &all);
    let sink = stream::status(&agent.socket()).sinks.remove(0);
    assert_eq!(sink.left_out, 0, "{sink:?}");
    assert_eq!(sink.target, format!("{brokers} keytrail.events"));
    cluster.end();
    agent.stop();
}
