use super::*;
use proptest::prelude::*;
use std::time::Duration;

const MS: u64 = 1_000_000;

fn at(boot_ns: u64, tgid: u32) -> TaskInfo {
    TaskInfo {
        boot_ns,
        pid: Pid { tgid, start: 1 },
        tid: tgid,
        uid: 0,
        euid: 0,
        gid: 0,
        cgroup_id: 0,
        comm: String::new(),
    }
}

fn ends(sock: u64, peer_port: u16) -> Endpoints {
    Endpoints {
        sock,
        peer_ip: "10.0.0.1".to_owned(),
        peer_port,
        local_port: 7,
        ..Endpoints::default()
    }
}

/// What is due, and what is forgotten, by an inspection of every single flow.
fn by_looking(flows: &Flows, boot_ns: u64) -> (Vec<Key>, Vec<Key>) {
    let due = flows
        .map
        .iter()
        .filter(|(_, flow)| flow.due_ns.is_some_and(|due| due <= boot_ns))
        .map(|(key, _)| *key)
        .collect();
    let mut later: Option<(Pid, u64)> = None;
    let mut left = Vec::new();
    for (key, flow) in flows.map.iter().rev() {
        let replaced = later == Some((key.0, key.1));
        later = Some((key.0, key.1));
        if flow.due_ns.is_some() || !(replaced || flow.last_ns + IDLE_NS <= boot_ns) {
            left.push(*key);
        }
    }
    left.reverse();
    (due, left)
}

proptest! {
    #[test]
    fn the_schedule_says_what_a_look_at_every_flow_says(
        steps in prop::collection::vec((0_u8..8, 1_u64..6, 0_u16..3, 0_u64..400), 1..200)
    ) {
        let mut flows = Flows::default();
        let mut now = 0;
        for (what, sock, port, wait) in steps {
            // Now and then so long that something is idle.
            now += if wait > 390 { IDLE_NS } else { wait * MS };
            let (at, ends) = (at(now, sock as u32 % 2), ends(sock, port));
            match what {
                0..=2 => {
                    flows.sent(&at, &ends, 10, now);
                }
                3 => {
                    flows.entry(&at, &ends);
                }
                4 => flows.forget(at.pid),
                5 => flows.due(now, Some(at.pid)).into_iter().for_each(|key| flows.postpone(key)),
                _ => {
                    let (due, _) = by_looking(&flows, now);
                    prop_assert_eq!(&flows.due(now, None), &due);
                    due.into_iter().for_each(|key| flows.decided(key, []));
                    let (_, left) = by_looking(&flows, now);
                    flows.expire(now);
                    prop_assert_eq!(flows.map.keys().copied().collect::<Vec<_>>(), left);
                }
            }
            let due = flows.map.values().filter(|flow| flow.due_ns.is_some()).count();
            prop_assert_eq!((flows.schedule.due.len(), flows.schedule.idle.len()), (due, flows.map.len()));
        }
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_tick_does_not_look_at_flows_that_are_not_due() {
    let ticks = |count: u64| {
        let mut flows = Flows::default();
        for sock in 1..=count {
            flows.sent(&at(MS, 1), &ends(sock, 1), 10, 1);
        }
        let best = (0..5).map(|_| {
            let began = cpu();
            for _ in 0..200 {
                assert!(flows.due(2 * MS, None).is_empty());
                flows.expire(2 * MS);
            }
            cpu() - began
        });
        best.min().unwrap_or(Duration::MAX)
    };
    let (few, many) = (ticks(10), ticks(30_000));
    // 200 inspections of 30,000 flows take a hundred times as long.
    let most = few * 50 + Duration::from_millis(1);
    assert!(many < most, "{few:?} for 10, {many:?} for 30,000");
}
