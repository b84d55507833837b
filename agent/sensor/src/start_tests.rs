//! Signals without the fields they need.

use super::*;

#[test]
fn without_the_start_of_a_process_nothing_is_attached() {
    let mut fields = btf::Fields {
        values: [0; f::COUNT],
    };
    fields.set(f::TASK_START_BOOTTIME, globals::MISSING);
    for signal in SIGNALS {
        for candidate in signal.candidates {
            assert_eq!(
                fields.missing(candidate.fields),
                ["TASK_START_BOOTTIME"],
                "{}",
                signal.name
            );
        }
    }
}

/// In a kernel without one field the signal that needs it has no hook, says which field it is, and the others go on.
#[test]
fn a_signal_whose_field_is_missing_has_no_hook() {
    if !rustix::process::geteuid().is_root() || !Path::new(VMLINUX).exists() {
        eprintln!("skipped: needs root and a kernel with BTF to load the kernel side");
        return;
    }
    let kernel = btf::Btf::load(Path::new(VMLINUX)).unwrap();
    let mut fields = btf::resolve(&kernel);
    fields.set(f::MM_ENV_START, globals::MISSING);
    let (mut ebpf, _maps) = load(&fields, rings::sizes(0)).unwrap();
    let mut attached = Vec::new();
    let mut attach = |name: Name| {
        let signal = SIGNALS.iter().find(|signal| signal.name == name).unwrap();
        let mut report = SignalReport::new(name);
        attach_signal(
            &mut ebpf,
            None,
            &fields,
            &hooks::absent(&kernel),
            &mut attached,
            &SensorOptions::default(),
            signal,
            &mut report,
        );
        report
    };
    let exec = attach(Name::Exec);
    assert_eq!((exec.hook.as_str(), exec.tier), ("", None));
    assert_eq!(
        exec.refused,
        [Refused {
            hook: "raw_tp:sched_process_exec".to_owned(),
            reason: "this kernel's fields are not known or read wrong: MM_ENV_START".to_owned(),
            remedy: "report the kernel version, with /sys/kernel/btf/vmlinux".to_owned(),
        }]
    );
    let fork = attach(Name::Fork);
    assert_eq!(
        (fork.hook.as_str(), fork.tier),
        ("raw_tp:sched_process_fork", Some(Tier::Base))
    );
    assert_eq!(fork.refused, []);
    // Nobody has said that the arguments of system calls can be had: without them nothing finds the bytes.
    let unix = attach(Name::UnixSend);
    assert_eq!((unix.hook.as_str(), unix.refused.len()), ("", 2));
    let why = |refused: &Refused| refused.reason.contains("bpf_task_pt_regs");
    assert!(unix.refused.iter().all(why), "{:?}", unix.refused);
    // Without trampolines one program for both: it is attached once.
    for name in [Name::FdWrite, Name::ProcessAttach] {
        let report = attach(name);
        assert_eq!(report.hook, "raw_tp:sys_enter");
        let [refused] = &report.refused[..] else {
            panic!("{:?}", report.refused);
        };
        assert!(refused.hook.starts_with("fentry:__"), "{refused:?}");
        assert!(refused.hook.contains("_sys_"), "{refused:?}");
        assert_eq!(refused.reason, "the kernel offers no BTF");
    }
    let once = attached.iter().filter(|program| **program == "sys_enter");
    assert_eq!(once.count(), 1);
}

/// What every system call of the host would pass is left out when the configuration says so, and nothing else is.
#[test]
fn only_the_hook_of_all_calls_is_left_out() {
    for signal in SIGNALS {
        let of_all: Vec<Tier> = signal
            .candidates
            .iter()
            .filter(|candidate| candidate.hooks_system_calls())
            .map(|candidate| candidate.tier)
            .collect();
        let expected: &[Tier] = match signal.name {
            Name::FdWrite | Name::ProcessAttach => &[Tier::Base],
            _ => &[],
        };
        assert_eq!(of_all, expected, "{}", signal.name);
    }
}

/// Where a way is not followed, the report of its signal says it, and elsewhere it does not.
#[test]
fn before_linux_6_4_the_report_says_what_is_not_followed() {
    let note = |opened| {
        let mut status = SensorStatus {
            signals: hooks::reports(),
            ..SensorStatus::default()
        };
        status.signal_mut(Name::FdWrite).unwrap().hook = "raw_tp:sys_enter".to_owned();
        note_limits(&mut status, opened);
        status.signal(Name::FdWrite).unwrap().note.clone()
    };
    assert!(
        note(false).contains("a FIFO that a program opens by its name"),
        "{}",
        note(false)
    );
    assert!(!note(true).contains("FIFO"), "{}", note(true));
    assert!(note(true).starts_with("seen when a write is asked for"));
}

/// The verifier admits the programs that follow pipes, with every field this kernel has. Nothing is attached.
#[test]
fn what_follows_pipes_is_admitted() {
    if !rustix::process::geteuid().is_root() || !Path::new(VMLINUX).exists() {
        eprintln!("skipped: needs root and a kernel with BTF to load the kernel side");
        return;
    }
    let kernel = btf::Btf::load(Path::new(VMLINUX)).unwrap();
    let mut fields = btf::resolve(&kernel);
    assert_eq!(
        fields.missing(&[
            f::FDTABLE_OPEN,
            f::TASK_FLAGS,
            f::FILE_MODE,
            f::TASK_CHILDREN_PREV,
            f::TASK_SIBLING_PREV
        ]),
        Vec::<&str>::new()
    );
    fields.set(f::DISCOVER, 1);
    let (mut ebpf, _maps) = load(&fields, rings::sizes(0)).unwrap();
    for program in ["exec", "exit", "filemap_get_pages"] {
        if let Err(error) = loaded(&mut ebpf, program) {
            panic!("{program}: {error}");
        }
    }
}
