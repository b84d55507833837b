//! From nothing to a running sensor.

use super::{
    Checks, DebugLog, HookNames, Sensor, SensorError, SensorOptions,
    attached::Attached,
    bpf::Misses,
    btf,
    fanotify::Fanotify,
    foreign::Foreign,
    hooks::{self, Candidate, Hook, SIGNALS, Signal, loaded},
    kernel_ids,
    limits::Passed,
    maps::Maps,
    process_reads::ProcessReads,
    proof,
    ring::Ring,
    rings::{self, Rings},
    self_test,
    tls::Libraries,
    trials::{TrialOptions, Trials},
    watch::Watches,
    watcher::Watcher,
    wipe::Step,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use keytrail_abi::{
    PROC_IGNORED, ProcState,
    globals::{self, field as f},
};
use keytrail_model::status::{FIRED, Refused, SensorStatus, SignalReport};
use keytrail_model::{Signal as Name, Tier};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/keytrail.o"));

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

pub fn open(options: &SensorOptions) -> Result<Sensor, SensorError> {
    if in_pid_namespace() {
        return Err(SensorError::PidNamespace);
    }
    let kernel =
        btf::Btf::load(Path::new(VMLINUX)).map_err(|error| SensorError::Btf(error.to_string()))?;
    let sizes = rings::sizes(options.ring_bytes);
    let mut fields = constants(&kernel, sizes, options);
    let absent = hooks::absent(&kernel);
    drop(kernel);

    let (mut ebpf, mut maps) = load(&fields, sizes)?;
    let mut status = SensorStatus {
        signals: hooks::reports(),
        ..SensorStatus::default()
    };
    if prove(&mut ebpf, &maps, &mut fields, &mut status) {
        (ebpf, maps) = load(&fields, sizes)?;
    }
    let debug_log = if options.debug_log {
        debug_log(&mut ebpf)
    } else {
        None
    };
    let (rings, ring_fds) = map_rings(&mut ebpf, sizes)?;
    load_wipers(&mut ebpf);
    // Before anything is attached: the agent's own doings are of no interest.
    maps.set_process(
        std::process::id(),
        ProcState {
            state: PROC_IGNORED,
            ..ProcState::default()
        },
    );

    attach_signals(&mut ebpf, &fields, &absent, options, &mut status);
    let calls = reports_tmpfs(&mut ebpf, &mut maps, &fields, &status);
    let fanotify = open_fanotify(&mut status, calls);
    let watcher = Watcher::new(fanotify.as_ref(), kernel_ids::Learner::new(&maps));
    let process_reads = listen_to_procfs(&mut status);
    let names = hook_names(&status);
    note_limits(&mut status, fields.get(f::FOLLOWS_OPENED) == Some(1));
    let libraries = search_tls(&mut ebpf, &mut status);
    let mut sensor = Sensor {
        ebpf,
        maps,
        rings,
        ring_fds,
        fanotify,
        fanotify_lost: 0,
        process_reads,
        misses: Misses::default(),
        watches: Watches::default(),
        watcher,
        unwatched: Vec::new(),
        libraries,
        names,
        status,
        debug_log,
        table_full: 0,
        passed: Passed::default(),
        waiting: HashMap::new(),
        attached: Attached::default(),
        looked_wall_ns: keytrail_host::clock::wall_ns(),
        trials: None,
        trial_file: None,
        canary_kept: false,
        foreign: None,
    };
    sensor.attached = Attached::find(&sensor.ebpf);
    if options.self_test {
        self_test::all(&mut sensor);
    }
    begin_checks(&mut sensor, &options.checks);
    Ok(sensor)
}

/// What serves each signal, for the records that do not say it themselves.
fn hook_names(status: &SensorStatus) -> HookNames {
    std::array::from_fn(|kind| {
        hooks::signal_of(kind as u16)
            .and_then(|signal| status.signals.iter().find(|report| report.signal == signal))
            .map(|report| report.hook.clone())
            .unwrap_or_default()
    })
}

/// Says of signals what their hooks do not see. `opened`: FIFOs and terminals are followed.
fn note_limits(status: &mut SensorStatus, opened: bool) {
    if let Some(report) = status.signal_mut(Name::UdpSend) {
        report.note = "QUIC and DTLS are encrypted: who sent how much where, not what".to_owned();
    }
    let writes =
        "seen when a write is asked for; not writes by mappings, sendfile, splice and io_uring";
    let unopened = "; what is passed on by a FIFO that a program opens by its name, or by a terminal, is not followed before \
                    Linux 6.4";
    for (signal, note, more) in [
        (Name::FdWrite, writes, (!opened).then_some(unopened)),
        (
            Name::ProcessAttach,
            "process_vm_readv, ptrace and pidfd_getfd; not core dumps and calls of 32 bits",
            None,
        ),
    ] {
        if let Some(report) = status.signal_mut(signal)
            && !report.hook.is_empty()
        {
            report.note = format!("{note}{}", more.unwrap_or_default());
        }
    }
}

/// From here on the sensor looks after itself.
fn begin_checks(sensor: &mut Sensor, checks: &Checks) {
    if checks.every.is_zero() || !checks.can_exercise {
        return;
    }
    // Files are another matter: the file of the trials may lie where a hook does not see.
    let fired: Vec<Name> = sensor
        .status
        .signals
        .iter()
        .filter(|report| report.self_test == FIRED)
        .map(|report| report.signal)
        .filter(|signal| !matches!(signal, Name::FileOpen | Name::FileRead))
        .collect();
    let trials = Trials::start(
        TrialOptions {
            interval_ns: u64::try_from(checks.every.as_nanos()).unwrap_or(u64::MAX),
            file: checks.file.clone(),
        },
        &fired,
    );
    match trials {
        Ok(trials) => sensor.trials = Some(trials),
        Err(error) => tracing::error!(%error, "hooks are not exercised while the agent runs"),
    }
    match Foreign::start(checks.every) {
        Ok(foreign) => sensor.foreign = Some(foreign),
        Err(error) => tracing::error!(%error, "BPF programs of others are not looked for"),
    }
}

/// Everything the kernel side is told before it is loaded: where fields are, and how much is captured.
fn constants(
    kernel: &btf::Btf,
    sizes: [u32; rings::COUNT],
    options: &SensorOptions,
) -> btf::Fields {
    let mut fields = btf::resolve(kernel);
    fields.set(f::WAKE_BYTES, sizes[rings::MAIN] / 4);
    for (place, limit) in [
        (f::LIMIT_ANSWERS, options.limits.answers),
        (f::LIMIT_KEYS, options.limits.keys),
        (f::LIMIT_PROCESS, options.limits.process),
        (f::LIMIT_CONNECTION, options.limits.connection),
        (f::LIMIT_WRITES, options.limits.writes),
    ] {
        fields.set(place, limit);
    }
    fields.set(f::DISCOVER, u32::from(options.discover));
    fields.set(f::HAS_COOKIE, u32::from(aya::features().bpf_cookie()));
    let task_regs = [
        BpfHelper::BPF_FUNC_task_pt_regs,
        BpfHelper::BPF_FUNC_get_current_task_btf,
    ]
    .into_iter()
    .all(|helper| is_helper_supported(ProgramType::RawTracePoint, helper).unwrap_or(false));
    fields.set(f::HAS_TASK_REGS, u32::from(task_regs));
    // Came with 6.4, as did the verifier's way with calls that is needed.
    let opened = kernel.has_function("bpf_dynptr_slice");
    fields.set(f::FOLLOWS_OPENED, u32::from(opened));
    fields
}

/// Proves the offsets of fields against the agent's own task. What reads wrong is taken away, and everything that needs it
/// with it; true when something was, so that all has to be loaded anew.
fn prove(
    ebpf: &mut Ebpf,
    maps: &Maps,
    fields: &mut btf::Fields,
    status: &mut SensorStatus,
) -> bool {
    match proof::run(ebpf, maps) {
        Ok(failures) => {
            let any = !failures.is_empty();
            for failure in failures {
                for &field in failure.fields {
                    fields.set(field, globals::MISSING);
                }
                status.offsets.push(failure.what);
            }
            any
        }
        Err(reason) => {
            status
                .offsets
                .push(format!("the field offsets could not be proven: {reason}"));
            false
        }
    }
}

/// Now, while there are descriptors: that the ring is overwritten must not depend on there being one later.
fn load_wipers(ebpf: &mut Ebpf) {
    for ring in [rings::MAIN, rings::PAYLOADS] {
        for step in [Step::Skip, Step::Zero] {
            if let Err(error) = loaded(ebpf, step.program(ring)) {
                tracing::error!(%error, "the rings will not be overwritten");
            }
        }
    }
}

/// TLS libraries and programs with TLS inside, from here on.
fn search_tls(ebpf: &mut Ebpf, status: &mut SensorStatus) -> Libraries {
    let mut libraries = Libraries::default();
    let tls = libraries.prepare(ebpf);
    if let Some(report) = status.signal_mut(Name::TlsWrite) {
        match tls {
            Ok(()) => {
                report.hook = "uprobe".to_owned();
                report.tier = Some(Tier::Base);
                if !aya::features().bpf_cookie() {
                    report.note = "kernels before 5.15 do not tell which function fired, nor when its call is over: \
                                   destinations are found by what was sent, not by the call it was sent in"
                        .to_owned();
                }
            }
            Err(refused) => report.refused.push(refused),
        }
    }
    libraries
}

fn load(fields: &btf::Fields, sizes: [u32; rings::COUNT]) -> Result<(Ebpf, Maps), SensorError> {
    let mut loader = EbpfLoader::new();
    loader.override_global(globals::FIELDS_GLOBAL, &fields.values, true);
    for (name, size) in rings::MAPS.into_iter().zip(sizes) {
        loader.map_max_entries(name, size);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| {
        let denied = chain(&error).any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        });
        if denied && !rustix::process::geteuid().is_root() {
            SensorError::Privilege
        } else {
            SensorError::Load(
                chain(&error)
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(": "),
            )
        }
    })?;
    let maps = Maps::take(&mut ebpf).map_err(|error| SensorError::Load(error.to_string()))?;
    Ok((ebpf, maps))
}

/// The reader of the kernel side's debug log. `None` when the object has none: it is there to be asked for, and its
/// absence harms nothing.
fn debug_log(ebpf: &mut Ebpf) -> Option<DebugLog> {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => Some(Box::new(move || logger.flush())),
        Err(error) => {
            tracing::warn!(%error, "no kernel debug log: the kernel side was built without its feature `log`");
            None
        }
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn map_rings(
    ebpf: &mut Ebpf,
    sizes: [u32; rings::COUNT],
) -> Result<(Rings, Vec<OwnedFd>), SensorError> {
    let failed = |error: io::Error| SensorError::Ring(error.to_string());
    let mut mapped = Vec::new();
    let mut fds = Vec::new();
    for (name, size) in rings::MAPS.into_iter().zip(sizes) {
        let Some(Map::RingBuf(map)) = ebpf.map(name) else {
            return Err(SensorError::Load(format!("the object has no ring {name}")));
        };
        let fd = map.fd().as_fd();
        mapped.push(Ring::new(fd, size).map_err(failed)?);
        fds.push(fd.try_clone_to_owned().map_err(failed)?);
    }
    let mapped = mapped
        .try_into()
        .map_err(|_| SensorError::Load("there are not as many rings as names".to_owned()))?;
    Ok((Rings::new(mapped), fds))
}

/// Whether this process is in another pid namespace than the first one, whose inode is the same on every Linux
/// (`PROC_PID_INIT_INO` in include/linux/proc_ns.h). Unknown counts as the first: the proof of the offsets comes after.
fn in_pid_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() != "pid:[4026531836]")
}

/// What the configuration leaves out.
fn left_out() -> Refused {
    Refused {
        hook: "raw_tp:sys_enter".to_owned(),
        reason: "left out by the configuration".to_owned(),
        remedy:
            "set `system_calls = true`; it costs every system call of the host about 0.1 \u{b5}s"
                .to_owned(),
    }
}

/// Attaches the hooks of all signals, as far as the kernel lets them be attached.
fn attach_signals(
    ebpf: &mut Ebpf,
    fields: &btf::Fields,
    absent: &[&str],
    options: &SensorOptions,
    status: &mut SensorStatus,
) {
    let trampolines = aya::Btf::from_sys_fs().ok();
    let mut attached = Vec::new();
    for signal in SIGNALS {
        if let Some(report) = status.signal_mut(signal.name) {
            attach_signal(
                ebpf,
                trampolines.as_ref(),
                fields,
                absent,
                &mut attached,
                options,
                signal,
                report,
            );
        }
    }
}

/// Tries a signal's hooks in order of preference.
#[expect(
    clippy::too_many_arguments,
    reason = "what the kernel has, what was done, and what is to be done"
)]
fn attach_signal(
    ebpf: &mut Ebpf,
    trampolines: Option<&aya::Btf>,
    fields: &btf::Fields,
    absent: &[&str],
    attached: &mut Vec<&'static str>,
    options: &SensorOptions,
    signal: &Signal,
    report: &mut SignalReport,
) {
    for candidate in signal.candidates {
        if options.tier == Some(Tier::Base) && candidate.tier == Tier::Fentry {
            continue;
        }
        if !options.system_calls && candidate.hooks_system_calls() {
            report.refused.push(left_out());
            continue;
        }
        match attach_candidate(ebpf, trampolines, fields, absent, attached, candidate) {
            Ok((hook, refused)) => {
                report.hook = hook;
                report.tier = Some(candidate.tier);
                report.refused.extend(refused);
                return;
            }
            Err(refused) => report.refused.push(refused),
        }
    }
}

/// Attaches all hooks of a candidate or none. Returns their names, and the optional ones that were refused. A program
/// that serves another signal already (`attached`) is not attached again.
fn attach_candidate(
    ebpf: &mut Ebpf,
    trampolines: Option<&aya::Btf>,
    fields: &btf::Fields,
    absent: &[&str],
    attached: &mut Vec<&'static str>,
    candidate: &Candidate,
) -> Result<(String, Vec<Refused>), Refused> {
    let hook_names = || {
        let names = candidate.hooks.iter().map(|hook| hook.point.name());
        names.collect::<Vec<_>>().join(" + ")
    };
    if candidate.fields.contains(&f::HAS_TASK_REGS) && fields.get(f::HAS_TASK_REGS) != Some(1) {
        return Err(Refused {
            hook: hook_names(),
            reason: "this kernel does not show programs the arguments of a system call (bpf_task_pt_regs)"
                .to_owned(),
            remedy: "a kernel from 5.15 on".to_owned(),
        });
    }
    let missing = fields.missing(candidate.fields);
    if !missing.is_empty() {
        return Err(Refused {
            hook: hook_names(),
            reason: format!(
                "this kernel's fields are not known or read wrong: {}",
                missing.join(", ")
            ),
            remedy: "report the kernel version, with /sys/kernel/btf/vmlinux".to_owned(),
        });
    }
    let mut names = Vec::new();
    let mut own: Vec<Hook> = Vec::new();
    for hook in candidate.hooks {
        if !attached.contains(&hook.program) {
            if let Err(refused) = hooks::attach(ebpf, trampolines, *hook) {
                for hook in own {
                    hooks::detach(ebpf, hook);
                }
                return Err(refused);
            }
            own.push(*hook);
        }
        names.push(hook.point.name());
    }
    attached.extend(own.iter().map(|hook| hook.program));
    let mut refused = Vec::new();
    for hook in candidate.optional {
        if absent.contains(&hook.point.place()) {
            continue;
        }
        match hooks::attach(ebpf, trampolines, *hook) {
            Ok(()) => names.push(hook.point.name()),
            Err(refusal) => refused.push(refusal),
        }
    }
    for hook in candidate.aids {
        if let Err(refusal) = hooks::attach(ebpf, trampolines, *hook) {
            refused.push(refusal);
        }
    }
    Ok((names.join(" + "), refused))
}

/// Has reads on tmpfs reported by the system calls, where they are hooked and no better hook sees those reads.
fn reports_tmpfs(
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    fields: &btf::Fields,
    status: &SensorStatus,
) -> bool {
    let hooks_calls = status
        .signal(Name::FdWrite)
        .is_some_and(|report| !report.hook.is_empty() && report.tier == Some(Tier::Base));
    let is_reported = status
        .signal(Name::FileRead)
        .is_some_and(|report| report.tier == Some(Tier::Fentry));
    hooks_calls
        && !is_reported
        && fields.missing(&hooks::TMPFS_READ).is_empty()
        && fields.get(f::HAS_TASK_REGS) == Some(1)
        && kernel_ids::tmpfs(ebpf, maps)
}

fn listen_to_procfs(status: &mut SensorStatus) -> Option<ProcessReads> {
    let report = status.signal_mut(Name::ProcessRead)?;
    match ProcessReads::start() {
        Ok(reads) => {
            report.hook = "fanotify".to_owned();
            report.tier = Some(Tier::Base);
            report.self_test = if reads.fires() {
                "fired"
            } else {
                "did not fire"
            }
            .to_owned();
            report.note =
                "a reader is known as a holder only when the agent has read the event".to_owned();
            Some(reads)
        }
        Err(error) => {
            report.refused.push(Refused {
                hook: "fanotify".to_owned(),
                reason: hooks::words(&error),
                remedy: of_fanotify(&error),
            });
            None
        }
    }
}

/// What helps where the kernel gave this error instead of a group.
fn of_fanotify(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "run the agent with CAP_SYS_ADMIN".to_owned(),
        _ => "a kernel with CONFIG_FANOTIFY".to_owned(),
    }
}

/// Opens fanotify and lets it serve opens, and reads where they have no better hook. `calls`: reads on tmpfs have one.
fn open_fanotify(status: &mut SensorStatus, calls: bool) -> Option<Fanotify> {
    match Fanotify::new() {
        Ok(group) => {
            if let Some(report) = status.signal_mut(Name::FileOpen) {
                report.hook = "fanotify".to_owned();
                report.tier = Some(Tier::Base);
            }
            if let Some(report) = status.signal_mut(Name::FileRead) {
                if report.hook.is_empty() {
                    report.hook = "fanotify".to_owned();
                    report.tier = Some(Tier::Base);
                } else if report.tier == Some(Tier::Base) {
                    let (hooks, of_tmpfs) = if calls {
                        (" + raw_tp:sys_enter + fanotify", "of tmpfs by io_uring")
                    } else {
                        (" + fanotify", "on tmpfs")
                    };
                    report.hook.push_str(hooks);
                    report.note = format!(
                        "reads {of_tmpfs}, by direct I/O and through overlays are reported by fanotify: the reader is \
                         known as a holder only when the agent has read the event"
                    );
                }
            }
            Some(group)
        }
        Err(error) => {
            let refused = Refused {
                hook: "fanotify".to_owned(),
                reason: hooks::words(&error),
                remedy: of_fanotify(&error),
            };
            for signal in [Name::FileOpen, Name::FileRead] {
                if let Some(report) = status.signal_mut(signal) {
                    report.refused.push(refused.clone());
                }
            }
            None
        }
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
