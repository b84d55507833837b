//! From nothing to a running sensor.

use super::{
    DebugLog, HookNames, Sensor, SensorError, SensorOptions,
    bpf::{self, PassedOver},
    btf,
    fanotify::Fanotify,
    hooks::{self, Candidate, SIGNALS, Signal},
    maps::Maps,
    proof, provoke,
    ring::Ring,
    status::{Refused, SensorStatus, SignalReport, Tier},
    tls::Libraries,
    watch::Watches,
    wipe::Step,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{ProgramType, RawTracePoint},
    sys::{BpfHelper, is_helper_supported},
};
use keytrail_abi::{
    PROC_IGNORED, ProcState,
    globals::{self, field as f},
};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/keytrail.o"));

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Smallest ring that holds the largest record a few times over.
const RING_MIN: u32 = 256 << 10;
const RING_MAX: u32 = 256 << 20;

pub fn open(options: &SensorOptions) -> Result<Sensor, SensorError> {
    let kernel =
        btf::Btf::load(Path::new(VMLINUX)).map_err(|error| SensorError::Btf(error.to_string()))?;
    let mut fields = btf::resolve(&kernel);
    let ring_bytes = options
        .ring_bytes
        .clamp(RING_MIN, RING_MAX)
        .next_power_of_two();
    fields.set(f::WAKE_BYTES, ring_bytes / 4);
    fields.set(f::DISCOVER, u32::from(options.discover));
    fields.set(f::HAS_COOKIE, u32::from(aya::features().bpf_cookie()));
    let task_regs = [
        BpfHelper::BPF_FUNC_task_pt_regs,
        BpfHelper::BPF_FUNC_get_current_task_btf,
    ]
    .into_iter()
    .all(|helper| is_helper_supported(ProgramType::RawTracePoint, helper).unwrap_or(false));
    fields.set(f::HAS_TASK_REGS, u32::from(task_regs));
    let absent = hooks::absent(&kernel);
    drop(kernel);

    let (mut ebpf, mut maps) = load(&fields, ring_bytes)?;
    let mut status = SensorStatus {
        signals: hooks::reports(),
        ..SensorStatus::default()
    };
    match proof::run(&mut ebpf, &maps) {
        Ok(failures) if failures.is_empty() => {}
        Ok(failures) => {
            // What read wrong is taken away, and everything that needs it with it.
            for failure in failures {
                for &field in failure.fields {
                    fields.set(field, globals::MISSING);
                }
                status.offsets.push(failure.what);
            }
            (ebpf, maps) = load(&fields, ring_bytes)?;
        }
        Err(reason) => status
            .offsets
            .push(format!("the field offsets could not be proven: {reason}")),
    }

    let debug_log = if options.debug_log {
        debug_log(&mut ebpf)
    } else {
        None
    };
    let (ring, ring_fd) = map_ring(&mut ebpf, ring_bytes)?;
    // Now, while there are descriptors: that the ring is overwritten must not depend on there being one later.
    for step in [Step::Leap, Step::Zero] {
        if let Err(error) = loaded(&mut ebpf, step.program()) {
            tracing::error!(%error, "the ring will not be overwritten");
        }
    }
    // Before anything is attached: the agent's own doings are of no interest.
    maps.set_process(
        std::process::id(),
        ProcState {
            state: PROC_IGNORED,
            ..ProcState::default()
        },
    );

    let trampolines = aya::Btf::from_sys_fs().ok();
    let mut names = HookNames::default();
    for signal in SIGNALS {
        let report = status.signal_mut(signal.name);
        if let Some(report) = report {
            attach_signal(
                &mut ebpf,
                trampolines.as_ref(),
                &fields,
                &absent,
                options.tier,
                signal,
                report,
            );
        }
    }
    let fanotify = open_fanotify(&mut status);
    for report in &status.signals {
        let hook = report.hook.clone();
        match report.signal {
            "exec" => names.exec = hook,
            "fork" => names.fork = hook,
            "exit" => names.exit = hook,
            "connect" => names.connect = hook,
            "tcp_send" => names.send = hook,
            _ => {}
        }
    }
    if let Some(report) = status.signal_mut("tcp_send")
        && report.note.is_empty()
    {
        report.note = "sends by UDP (QUIC) and over Unix sockets are not seen".to_owned();
    }
    let mut libraries = Libraries::default();
    let tls = libraries.prepare(&mut ebpf);
    if let Some(report) = status.signal_mut("tls_write") {
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
    let mut sensor = Sensor {
        ebpf,
        maps,
        ring,
        ring_fd,
        fanotify,
        fanotify_lost: 0,
        passed_over: PassedOver::default(),
        watches: Watches::default(),
        libraries,
        names,
        status,
        debug_log,
        table_full: 0,
        waiting: HashMap::new(),
        wiped: super::wipe::Wiped::default(),
    };
    if options.self_test {
        provoke::all(&mut sensor);
    }
    Ok(sensor)
}

fn load(fields: &btf::Fields, ring_bytes: u32) -> Result<(Ebpf, Maps), SensorError> {
    let mut ebpf = EbpfLoader::new()
        .override_global(globals::FIELDS_GLOBAL, &fields.values, true)
        .map_max_entries("RING", ring_bytes)
        .load(OBJECT)
        .map_err(|error| {
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
    let maps = Maps::take(&mut ebpf).map_err(SensorError::Load)?;
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

fn map_ring(ebpf: &mut Ebpf, size: u32) -> Result<(Ring, OwnedFd), SensorError> {
    let Some(Map::RingBuf(map)) = ebpf.map("RING") else {
        return Err(SensorError::Load("the object has no ring".to_owned()));
    };
    let fd = map.fd().as_fd();
    let ring = Ring::new(fd, size).map_err(|error| SensorError::Ring(error.to_string()))?;
    let fd = fd
        .try_clone_to_owned()
        .map_err(|error| SensorError::Ring(error.to_string()))?;
    Ok((ring, fd))
}

/// Tries a signal's hooks in order of preference.
fn attach_signal(
    ebpf: &mut Ebpf,
    trampolines: Option<&aya::Btf>,
    fields: &btf::Fields,
    absent: &[&str],
    tier: Option<Tier>,
    signal: &Signal,
    report: &mut SignalReport,
) {
    for candidate in signal.candidates {
        if tier == Some(Tier::Base) && candidate.tier == Tier::Fentry {
            continue;
        }
        match attach_candidate(ebpf, trampolines, fields, absent, candidate) {
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

/// Attaches all hooks of a candidate or none. Returns their names, and the optional ones that were refused.
fn attach_candidate(
    ebpf: &mut Ebpf,
    trampolines: Option<&aya::Btf>,
    fields: &btf::Fields,
    absent: &[&str],
    candidate: &Candidate,
) -> Result<(String, Vec<Refused>), Refused> {
    let missing = fields.missing(candidate.fields);
    if !missing.is_empty() {
        return Err(Refused {
            hook: candidate
                .hooks
                .iter()
                .map(|hook| hook.point.name())
                .collect::<Vec<_>>()
                .join(" + "),
            reason: format!(
                "this kernel's fields are not known or read wrong: {}",
                missing.join(", ")
            ),
            remedy: "report the kernel version, with /sys/kernel/btf/vmlinux".to_owned(),
        });
    }
    let mut names = Vec::new();
    for (n, hook) in candidate.hooks.iter().enumerate() {
        match hooks::attach(ebpf, trampolines, *hook) {
            Ok(()) => names.push(hook.point.name()),
            Err(refused) => {
                for attached in candidate.hooks.iter().take(n) {
                    hooks::detach(ebpf, *attached);
                }
                return Err(refused);
            }
        }
    }
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
    Ok((names.join(" + "), refused))
}

/// Opens fanotify and lets it serve opens, and reads where they have no better hook.
fn open_fanotify(status: &mut SensorStatus) -> Option<Fanotify> {
    match Fanotify::new() {
        Ok(group) => {
            if let Some(report) = status.signal_mut("file_open") {
                report.hook = "fanotify".to_owned();
                report.tier = Some(Tier::Base);
            }
            if let Some(report) = status.signal_mut("file_read") {
                if report.hook.is_empty() {
                    report.hook = "fanotify".to_owned();
                    report.tier = Some(Tier::Base);
                } else if report.tier == Some(Tier::Base) {
                    report.hook.push_str(" + fanotify");
                    report.note = "reads on tmpfs, by direct I/O and through overlays are told by fanotify: the reader is \
                                   known as a holder only when the agent has read the event"
                        .to_owned();
                }
            }
            Some(group)
        }
        Err(error) => {
            let refused = Refused {
                hook: "fanotify".to_owned(),
                reason: hooks::words(&error),
                remedy: "a kernel with CONFIG_FANOTIFY, and CAP_SYS_ADMIN".to_owned(),
            };
            for signal in ["file_open", "file_read"] {
                if let Some(report) = status.signal_mut(signal) {
                    report.refused.push(refused.clone());
                }
            }
            None
        }
    }
}

/// Runs one of the programs that are never attached.
///
/// # Errors
/// When it cannot be loaded or run, or says that it failed.
pub fn run(ebpf: &mut Ebpf, name: &str) -> io::Result<u32> {
    bpf::run(loaded(ebpf, name)?)
}

/// A program that is run by hand, loaded when it was not.
fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| io::Error::other("no such program"))?;
    let program: &mut RawTracePoint = program.try_into().map_err(io::Error::other)?;
    if program.fd().is_err() {
        program
            .load()
            .map_err(|error| io::Error::other(hooks::describe(&error)))?;
    }
    Ok(program.fd().map_err(io::Error::other)?.as_fd())
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
