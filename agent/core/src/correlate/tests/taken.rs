//! Credentials read out of another process.

use super::*;

fn taken(reader: u32, victim: u32, boot_ns: u64, what: Taken) -> Observation {
    Observation::Taken(TakenSeen {
        at: at(reader, boot_ns),
        victim: pid(victim),
        what,
        asked: 0,
        unproven: false,
        hook: "fanotify".to_owned(),
    })
}

fn in_env(name: &str) -> Found {
    Found {
        credential: credential(name),
        place: FoundIn::Env(format!("{}_TOKEN", name.to_uppercase())),
    }
}

fn in_argv(name: &str) -> Found {
    Found {
        credential: credential(name),
        place: FoundIn::Argv(1),
    }
}

fn takes(events: &[Event]) -> Vec<&Event> {
    events
        .iter()
        .filter(|e| e.kind == EventKind::CredentialTaken)
        .collect()
}

fn story(steps: &[Observation]) -> (Core, Vec<Event>) {
    let mut core = Core::new();
    let events = steps
        .iter()
        .flat_map(|step| core.step(step).events)
        .collect();
    (core, events)
}

#[test]
fn an_environment_gives_what_lies_in_it_and_no_more() {
    let (core, events) = story(&[
        start(),
        exec(10, 1, SEC, vec![in_env("a"), in_argv("b")]),
        exec(20, 1, 2 * SEC, vec![]),
        tick_at(2 * SEC),
        taken(20, 10, 3 * SEC, Taken::Environment),
        taken(20, 10, 4 * SEC, Taken::Environment),
    ]);
    let found = takes(&events);
    assert_eq!(found.len(), 1, "reported once, of the environment alone");
    let event = found[0];
    assert_eq!(event.process.as_ref().unwrap().pid, 20);
    assert_eq!(event.victim.as_ref().unwrap().pid, 10);
    assert_eq!(event.source.as_ref().unwrap().env_name, "A_TOKEN");
    let evidence = event.evidence.as_ref().unwrap();
    assert_eq!(evidence.grade, Some(EvidenceGrade::Observed));
    assert_eq!(evidence.channel, Channel::ProcessEnvironment);
    assert!(
        core.holds(pid(20)),
        "what it sends is inspected from here on"
    );
}

fn tick_at(boot_ns: u64) -> Observation {
    Observation::Tick {
        boot_ns,
        wall_ns: 0,
    }
}

#[test]
fn what_came_with_an_exec_may_have_come_after_the_read() {
    // The read is reported without its time: it was some time after the tick.
    let (_, events) = story(&[
        start(),
        tick_at(SEC),
        exec(10, 1, 2 * SEC, vec![in_env("a")]),
        exec(20, 1, 2 * SEC, vec![]),
        taken(20, 10, 3 * SEC, Taken::Environment),
    ]);
    let grades: Vec<_> = takes(&events)
        .iter()
        .map(|e| e.evidence.as_ref().unwrap().grade)
        .collect();
    assert_eq!(grades, [Some(EvidenceGrade::Lineage)]);
}

#[test]
fn memory_may_have_held_anything_the_process_holds() {
    let (_, events) = story(&[
        start(),
        exec(10, 1, SEC, vec![in_env("a"), in_argv("b")]),
        exec(20, 1, 2 * SEC, vec![]),
        taken(20, 10, 3 * SEC, Taken::Memory),
    ]);
    let found = takes(&events);
    assert_eq!(found.len(), 2);
    for event in found {
        let evidence = event.evidence.as_ref().unwrap();
        assert_eq!(evidence.grade, Some(EvidenceGrade::Lineage));
        assert_eq!(evidence.channel, Channel::ProcessMemory);
    }
}

/// A read from before the victim held anything is reported late, and the next one of the same process right behind it.
#[test]
fn a_read_that_came_too_early_does_not_speak_for_the_next() {
    let (_, events) = story(&[
        start(),
        exec(10, 1, 3 * SEC, vec![in_env("a")]),
        exec(20, 1, 2 * SEC, vec![]),
        taken(20, 10, 2 * SEC, Taken::VmRead),
        taken(20, 10, 4 * SEC, Taken::VmRead),
    ]);
    assert_eq!(takes(&events).len(), 1);
}

#[test]
fn who_holds_nothing_loses_nothing() {
    let (core, events) = story(&[
        start(),
        exec(10, 1, SEC, vec![]),
        exec(20, 1, 2 * SEC, vec![]),
        taken(20, 10, 3 * SEC, Taken::Memory),
    ]);
    assert!(takes(&events).is_empty());
    assert!(!core.holds(pid(20)));
}

#[test]
fn ones_own_environment_is_an_act_but_no_new_holding() {
    let (core, events) = story(&[
        start(),
        exec(10, 1, SEC, vec![in_env("a")]),
        taken(10, 10, 3 * SEC, Taken::Environment),
    ]);
    let found = takes(&events);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].victim.as_ref().unwrap().pid, 10);
    assert_eq!(core.processes().get(pid(10)).unwrap().holdings.len(), 1);
}

#[test]
fn what_a_call_takes_may_be_anything_the_process_holds() {
    for (what, channel) in [
        (Taken::VmRead, Channel::ProcessVmRead),
        (Taken::Traced, Channel::Ptrace),
        (Taken::Descriptor, Channel::Descriptor),
    ] {
        let by = |unproven, boot_ns| {
            Observation::Taken(TakenSeen {
                asked: 4096,
                unproven,
                hook: "raw_tp:sys_enter".to_owned(),
                ..match taken(20, 10, boot_ns, what) {
                    Observation::Taken(seen) => seen,
                    _ => unreachable!(),
                }
            })
        };
        let (core, events) = story(&[
            start(),
            exec(10, 1, SEC, vec![in_env("a"), in_argv("b")]),
            exec(20, 1, 2 * SEC, vec![]),
            by(true, 3 * SEC),
            by(false, 4 * SEC),
        ]);
        let found = takes(&events);
        assert_eq!(found.len(), 2, "each credential once");
        for event in found {
            let evidence = event.evidence.as_ref().unwrap();
            assert_eq!(evidence.grade, Some(EvidenceGrade::Lineage));
            assert_eq!(evidence.channel, channel);
            assert!(
                event
                    .coverage
                    .iter()
                    .any(|c| c.contains("not seen whether")),
                "{:?}",
                event.coverage
            );
        }
        assert!(
            core.holds(pid(20)),
            "what it sends is inspected from here on"
        );
    }
}
