//! The cases, each a function: `tests/host.rs` runs all of them on this machine's kernel, `tests/vm.rs` those that
//! make sense in a booted one.

pub mod against;
pub mod bad_input;
pub mod bad_places;
pub mod busy;
pub mod capture;
pub mod cli;
pub mod containers;
pub mod containers_cri;
pub mod elsewhere;
pub mod exchange;
pub mod file_life;
pub mod grpc;
pub mod history;
pub mod identified;
pub mod incidents;
pub mod inventory;
pub mod inventory_live;
pub mod leaks;
pub mod matrix;
pub mod metadata;
pub mod opened;
pub mod ordinary;
pub mod package;
pub mod pipes;
pub mod reads;
pub mod reads_tmpfs;
pub mod received;
pub mod restart;
pub mod rights;
pub mod schema;
pub mod sends_local;
pub mod sends_tcp;
pub mod sends_tls;
pub mod sinks;
pub mod sinks_far;
pub mod sinks_kafka;
pub mod sinks_lake;
pub mod sinks_metrics;
pub mod sinks_rate;
pub mod sinks_syslog;
pub mod swapped;
pub mod systemd;
pub mod taken;
pub mod tls_load;
pub mod tls_programs;
pub mod tls_rustls;
pub mod tls_stacks;
pub mod ways_out;
pub mod written;

use crate::{
    agent::Agent,
    events::{Ask as _, Event, list, of_kind},
};

/// What `root` and its descendants are said to have sent by sockets.
fn sent(agent: &Agent, root: u32) -> Vec<Event> {
    let mut events = of_kind(&agent.tree(root), "credential_sent");
    events.retain(|e| !WRITTEN.contains(&e.channel()));
    events
}

/// What they are said to have written it to.
fn written(agent: &Agent, root: u32) -> Vec<Event> {
    let mut events = of_kind(&agent.tree(root), "credential_sent");
    events.retain(|e| WRITTEN.contains(&e.channel()));
    events
}

/// Channels of what is written to files, pipes and terminals.
const WRITTEN: [&str; 3] = ["file", "pipe", "terminal"];

/// Fails unless the event names this destination.
fn goes_to(event: &Event, ips: &[&str], port: u16) {
    let (ip, to) = event.peer();
    assert!(
        ips.contains(&ip) && to == u32::from(port),
        "wrong destination, not {ips:?}:{port}:\n  {}",
        event.brief()
    );
    let protocol = &event.destination.as_ref().unwrap().protocol;
    assert_eq!(protocol, "tcp", "{}", event.brief());
}

/// Fails unless there are so many.
fn count(events: &[Event], number: usize, what: &str) {
    assert_eq!(
        events.len(),
        number,
        "{what}: {number} expected, there are\n{}",
        list(events)
    );
}
