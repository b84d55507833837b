//! Boots the machine, passes its output on, and finds out how it ended.

use super::{Flavour, Job, disk};
use crate::{arch::Arch, cmd};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How a guest ended that ran its command to the end.
#[derive(Debug)]
pub struct VmOutcome {
    /// The command's exit status (128 + signal when it was killed).
    pub status: i32,
    /// `uname -r` of the guest.
    pub release: String,
    /// From power-on to the command, by the guest's clock.
    pub boot: Duration,
    /// From QEMU's start to its end.
    pub total: Duration,
    /// The serial console: the kernel's messages.
    pub console: PathBuf,
}

/// The machine, to be started: its first serial line goes to the console log, the second one here.
fn machine(vmlinuz: &Path, disk: &Path, job: &Job<'_>, run: &disk::RunDir, limit: u64) -> Command {
    let arch = job.kernel.arch;
    // no_timer_check: at boot the kernel waits a moment for its timer to tick, and panics when an emulated processor that
    // shares a busy machine did not get to it (kernel-parameters.txt).
    let kernel_line = format!(
        "root=/dev/nvme0n1 rootfstype=ext4 rw {} lsm=lockdown,capability,bpf console={} panic=-1 no_timer_check quiet",
        disk::boot_words(job.init),
        match arch {
            Arch::X86_64 => "ttyS0",
            Arch::Aarch64 => "ttyAMA0",
        }
    );
    // `timeout` rather than a clock of ours: the machine ends even when this process is killed.
    let mut command = cmd::clean("nice");
    command
        .args(["-n", if job.nice { "19" } else { "0" }, "timeout"])
        .args([
            "--foreground",
            "--kill-after=5",
            &limit.to_string(),
            &format!("qemu-system-{arch}"),
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args([
            "-accel",
            if job.flavour == Flavour::Bench {
                "tcg,thread=single"
            } else {
                "tcg,thread=multi"
            },
            "-cpu",
            match (arch, job.flavour) {
                // Emulation runs `rep movsb` an instruction a byte; without these flags copies are made in words.
                (Arch::X86_64, Flavour::Bench) => "max,-erms,-fsrm",
                (Arch::X86_64, Flavour::Base) => "max",
                // Signed pointers by a cipher that is cheap to emulate.
                (Arch::Aarch64, _) => "max,pauth-impdef=on",
            },
            "-smp",
            // An idle second processor spins under emulation (mwait is a pause there), on the same clock.
            if job.flavour == Flavour::Bench {
                "1"
            } else {
                "2"
            },
            "-m",
            "2G",
        ])
        .arg("-kernel")
        .arg(vmlinuz)
        .args(["-append", &kernel_line])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=none,id=root,cache=unsafe",
            comma(disk)
        ))
        .args(["-device", "nvme,serial=root,drive=root"])
        .arg("-serial")
        .arg(format!("file:{}", comma(&run.console)))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null());
    if arch == Arch::Aarch64 {
        command.args(["-machine", "virt"]);
    }
    if job.flavour == Flavour::Bench {
        // One instruction is one nanosecond of the guest's clock: a measurement then counts work, and does not depend
        // on what else this machine does.
        command.args(["-icount", "shift=0,sleep=off,align=off"]);
    }
    command
}

/// Boots `vmlinuz` with `disk` as its root.
///
/// # Errors
/// A kernel panic, a timeout, or a guest that went off without a result; each names the console log.
pub fn boot(
    vmlinuz: &Path,
    disk: &Path,
    job: &Job<'_>,
    run: &disk::RunDir,
    line: impl FnMut(&str),
) -> Result<VmOutcome> {
    let limit = job.timeout.as_secs().max(1);
    let mut command = machine(vmlinuz, disk, job, run, limit);
    let started = Instant::now();
    let ended_well = cmd::lines(&mut command, line)?;
    let total = started.elapsed();
    let console = fs::read(&run.console)
        .with_context(|| format!("the guest left no console log at {}", run.console.display()))?;
    let console = String::from_utf8_lossy(&console);
    let log = run.console.display();

    let report = Report::parse(&console);
    if let Some(panic) = report.panic {
        bail!("kernel {} panicked: {panic}\nsee {log}", job.kernel);
    }
    match report.status {
        Some(status) => Ok(VmOutcome {
            status,
            release: report
                .release
                .map_or_else(|| job.kernel.to_string(), str::to_owned),
            boot: report.start.unwrap_or_default(),
            total,
            console: run.console.clone(),
        }),
        None if total.as_secs() >= limit => {
            let stage = if report.start.is_some() {
                "the command did not end"
            } else {
                "it did not boot"
            };
            bail!(
                "kernel {}: {stage} within {limit} s\nlast output: {}\nsee {log}",
                job.kernel,
                report.last
            )
        }
        None if !ended_well => bail!("QEMU failed for kernel {}; see {log}", job.kernel),
        None => bail!(
            "kernel {}: the guest went off without a result\nlast output: {}\nsee {log}",
            job.kernel,
            report.last
        ),
    }
}

/// QEMU reads a comma as the end of a value.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// What the console log tells.
#[derive(Default, Debug, PartialEq)]
struct Report<'a> {
    status: Option<i32>,
    start: Option<Duration>,
    release: Option<&'a str>,
    panic: Option<&'a str>,
    last: &'a str,
}

impl<'a> Report<'a> {
    fn parse(console: &'a str) -> Self {
        let mut report = Self::default();
        for line in console
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            report.last = line;
            // A kernel message may stand before ours on the same line.
            let ours = line.split_once("keytrail-vm: ").map(|(_, rest)| rest);
            if let Some(status) = ours.and_then(|rest| rest.strip_prefix("exit status ")) {
                report.status = status.trim().parse().ok();
            } else if let Some(start) = ours.and_then(|rest| rest.strip_prefix("job starts at ")) {
                let mut words = start.split_whitespace();
                report.start = words
                    .next()
                    .and_then(|text| text.parse().ok())
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                report.release = words.next();
            } else if report.panic.is_none() && line.contains("Kernel panic - not syncing") {
                report.panic = Some(line);
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_end() {
        let report = Report::parse(
            "[    0.1] x\r\nkeytrail-vm: job starts at 2.56 6.12.95+deb12-cloud-amd64\r\n\
             [    4.5] noise keytrail-vm: exit status 7\r\n[    4.6] reboot: Power down",
        );
        assert_eq!(report.status, Some(7));
        assert_eq!(report.start, Some(Duration::from_millis(2560)));
        assert_eq!(report.release, Some("6.12.95+deb12-cloud-amd64"));
        assert_eq!(report.panic, None);
    }

    #[test]
    fn a_panic_is_no_result() {
        let report =
            Report::parse("[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n[ 1.1] end");
        assert_eq!(
            report.panic,
            Some("[ 1.0] Kernel panic - not syncing: Attempted to kill init!")
        );
        assert_eq!((report.status, report.last), (None, "[ 1.1] end"));
    }

    #[test]
    fn a_status_that_is_no_number_is_none() {
        assert_eq!(Report::parse("keytrail-vm: exit status x").status, None);
        assert_eq!(Report::parse("keytrail-vm: job starts at NaN").start, None);
    }
}
