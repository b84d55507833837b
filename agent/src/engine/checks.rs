//! What became of the agent's hooks, and what BPF programs of others can do to it, as gaps in the stream.

use keytrail_model::{GapReason, GapSeen, Pid};
use keytrail_sensor::{ForeignNews, Holder, HookChange, HookFate, Loaded, Untried};

/// Holders named in one gap.
const NAMED: usize = 3;
const WHO: &str = "find out who did it: root can, or who may change BPF objects (CAP_SYS_ADMIN)";

/// A hook was taken off, went silent, or is back.
pub fn hook(change: &HookChange, boot_ns: u64, wall_ns: u64) -> GapSeen {
    let (signal, name) = (change.signal, &change.hook);
    let (detail, remedy, over) = match &change.fate {
        HookFate::TakenOff { how, again: Ok(()) } => (
            format!(
                "the hook {name} of {signal} was off for a moment: {how}; it was attached again"
            ),
            WHO.to_owned(),
            true,
        ),
        HookFate::TakenOff {
            how,
            again: Err(refused),
        } => (
            format!(
                "the hook {name} of {signal} is off: {how}; it could not be attached again: {}",
                refused.reason
            ),
            format!("{}; {WHO}", refused.remedy),
            false,
        ),
        HookFate::Silent => (
            format!(
                "{signal} is not reported any more: what the agent did itself to see whether {name} fires did not show up, \
                 twice, and no records were lost"
            ),
            format!("restart the agent if it does not come back by itself; {WHO}"),
            false,
        ),
        HookFate::Fires => (
            format!("{signal} is reported again by {name}"),
            WHO.to_owned(),
            true,
        ),
    };
    GapSeen {
        detail,
        remedy,
        count: 1,
        signal: Some(signal),
        from_wall_ns: change.since_wall_ns,
        to_wall_ns: if over { wall_ns } else { 0 },
        ..GapSeen::new(GapReason::HookLost, boot_ns)
    }
}

/// Nobody knows whether hooks fire, for a while or until now.
pub fn untried(untried: Untried, boot_ns: u64, wall_ns: u64) -> GapSeen {
    let trials = untried.trials;
    let detail = if untried.is_over {
        format!("whether hooks fire is known again, after {trials} trials that came to nothing")
    } else {
        format!(
            "whether hooks still fire is not known: {trials} trials in a row came to nothing, since records were lost, or \
             the process that makes hooks fire did not start or did not end"
        )
    };
    GapSeen {
        detail,
        remedy: "see `keytrail doctor` for lost records; an agent that cannot start a process cannot try its hooks"
            .to_owned(),
        count: u64::from(trials),
        from_wall_ns: untried.since_wall_ns,
        to_wall_ns: if untried.is_over { wall_ns } else { 0 },
        ..GapSeen::new(GapReason::HookLost, boot_ns)
    }
}

/// A program of somebody else, or somebody who has something of the agent.
pub fn foreign(news: ForeignNews, boot_ns: u64) -> GapSeen {
    match news {
        ForeignNews::Power { program, can } => GapSeen {
            detail: format!("{} {can}", described(&program, boot_ns)),
            remedy: "find out what it is for; what it changes is seen as it is then, or not at all"
                .to_owned(),
            count: 1,
            pid: program.holders.first().and_then(pid_of),
            ..GapSeen::new(GapReason::ForeignBpf, boot_ns)
        },
        ForeignNews::UsesMap { program, map } => GapSeen {
            detail: format!("{} uses the agent's {map}", described(&program, boot_ns)),
            remedy: "find out who loaded it, unload it, and restart the agent".to_owned(),
            count: 1,
            pid: program.holders.first().and_then(pid_of),
            ..GapSeen::new(GapReason::AgentOpened, boot_ns)
        },
        ForeignNews::Opened { holder, what } => GapSeen {
            detail: format!(
                "{} has {what} of the agent open: it can change what the agent is told",
                named(&holder)
            ),
            remedy: "find out what it does with that; restart the agent if it is not a tool that only looks"
                .to_owned(),
            count: 1,
            pid: pid_of(&holder),
            ..GapSeen::new(GapReason::AgentOpened, boot_ns)
        },
        ForeignNews::Unknown(refused) => GapSeen {
            detail: refused.reason,
            remedy: refused.remedy,
            signal: Some(keytrail_model::Signal::ProcessAttach),
            ..GapSeen::new(GapReason::ForeignBpf, boot_ns)
        },
    }
}

/// The very process that had it open, whoever has its number by now; nobody where that is not known.
fn pid_of(holder: &Holder) -> Option<Pid> {
    (holder.start != 0).then_some(Pid {
        tgid: holder.tgid,
        start: holder.start,
    })
}

fn named(holder: &Holder) -> String {
    format!("{}[{}]", holder.program, holder.tgid)
}

/// Which program, of what kind, by whom, since when, and who has it.
fn described(program: &Loaded, boot_ns: u64) -> String {
    let holders = match program.holders.as_slice() {
        [] => "no process has it open: it is pinned, or attached and left".to_owned(),
        holders => {
            let names: Vec<String> = holders.iter().take(NAMED).map(named).collect();
            let more = if holders.len() > NAMED { ", ..." } else { "" };
            format!("held by {}{more}", names.join(", "))
        }
    };
    let age = boot_ns.saturating_sub(program.loaded_ns) / 1_000_000_000;
    let name = match program.name.as_str() {
        "" => "without a name",
        name => name,
    };
    format!(
        "BPF program {} ({name}, {}, loaded by uid {} {age} s ago, {holders})",
        program.id, program.kind, program.uid
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytrail_model::Signal;
    use keytrail_model::status::Refused;

    fn change(fate: HookFate) -> HookChange {
        HookChange {
            signal: Signal::Connect,
            hook: "cgroup:connect4".to_owned(),
            fate,
            since_wall_ns: 5,
        }
    }

    #[test]
    fn a_hook_that_is_off_is_open_and_one_that_is_back_has_an_end() {
        let off = HookFate::TakenOff {
            how: "h",
            again: Ok(()),
        };
        let gap = hook(&change(off), 1, 9);
        assert_eq!((gap.from_wall_ns, gap.to_wall_ns), (5, 9));
        assert_eq!(
            (gap.reason, gap.signal),
            (GapReason::HookLost, Some(Signal::Connect))
        );
        assert!(gap.detail.contains("cgroup:connect4 of connect") && gap.detail.contains("again"));
        let refused = Refused {
            hook: "x".to_owned(),
            reason: "no room".to_owned(),
            remedy: "make room".to_owned(),
        };
        let off = HookFate::TakenOff {
            how: "h",
            again: Err(refused),
        };
        let gap = hook(&change(off), 1, 9);
        assert_eq!((gap.from_wall_ns, gap.to_wall_ns), (5, 0));
        assert!(gap.detail.contains("no room") && gap.remedy.starts_with("make room"));
        let silent = hook(&change(HookFate::Silent), 1, 9);
        assert_eq!(silent.to_wall_ns, 0);
        assert!(silent.remedy.starts_with("restart"));
        assert_eq!(hook(&change(HookFate::Fires), 1, 9).to_wall_ns, 9);
    }

    #[test]
    fn trials_that_come_to_nothing_are_a_gap_with_an_end() {
        let blind = |is_over| Untried {
            trials: 5,
            since_wall_ns: 3,
            is_over,
        };
        let gap = untried(blind(false), 1, 9);
        assert_eq!((gap.from_wall_ns, gap.to_wall_ns, gap.count), (3, 0, 5));
        assert_eq!((gap.reason, gap.signal), (GapReason::HookLost, None));
        assert_eq!(untried(blind(true), 1, 9).to_wall_ns, 9);
    }

    #[test]
    fn a_foreign_program_is_reported_with_who_has_it() {
        let holder = |tgid| Holder {
            tgid,
            start: 1,
            program: "/usr/bin/x".to_owned(),
        };
        let program = Loaded {
            id: 7,
            name: String::new(),
            kind: "kprobe",
            uid: 3,
            loaded_ns: 1_000_000_000,
            holders: (10..14).map(holder).collect(),
        };
        let power = |program| ForeignNews::Power {
            program,
            can: "can write into users' memory",
        };
        let gap = foreign(power(program.clone()), 31_000_000_000);
        assert_eq!(
            gap.detail,
            "BPF program 7 (without a name, kprobe, loaded by uid 3 30 s ago, held by /usr/bin/x[10], /usr/bin/x[11], \
             /usr/bin/x[12], ...) can write into users' memory"
        );
        assert_eq!((gap.reason, gap.signal), (GapReason::ForeignBpf, None));
        assert_eq!(gap.pid.unwrap().tgid, 10);
        let nobody = Loaded {
            holders: Vec::new(),
            ..program.clone()
        };
        let gap = foreign(power(nobody), 31_000_000_000);
        assert!(gap.pid.is_none() && gap.detail.contains("pinned"));
        let map = "map PROCS".to_owned();
        let gap = foreign(ForeignNews::UsesMap { program, map }, 1);
        assert_eq!(gap.reason, GapReason::AgentOpened);
        assert!(gap.detail.ends_with("uses the agent's map PROCS"));
        let what = "map PROCS".to_owned();
        let opened = ForeignNews::Opened {
            holder: holder(10),
            what,
        };
        let gap = foreign(opened, 1);
        assert!(gap.detail.starts_with("/usr/bin/x[10] has map PROCS"));
        assert_eq!(gap.pid, Some(Pid { tgid: 10, start: 1 }));
        let nobody = Holder {
            start: 0,
            ..holder(10)
        };
        assert_eq!(pid_of(&nobody), None);
        assert!(!gap.remedy.is_empty());
    }
}
