//! Boots Debian's kernels under QEMU's software emulation and runs a command in a small Debian.
//!
//! One NVMe disk holds the guest's root: NVMe and ext4 are built into every Debian cloud kernel from 5.10
//! on, so that neither initramfs nor modules are needed. Files go in, and results come out, through debugfs:
//! nothing is mounted. KVM is never used: under nested virtualisation it may hang.

mod disk;
mod image;
mod kernel;
mod qemu;

use crate::{arch::Arch, build, cmd, setup};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

pub use image::Flavour;
pub use kernel::Kernel;
pub use qemu::VmOutcome;

#[derive(clap::Args)]
pub struct Args {
    /// Debian cloud kernel: 5.10, 6.1, 6.12, 6.18, 7.2, 7.3
    #[arg(long, default_value = kernel::DEFAULT)]
    kernel: String,
    /// The machine that is booted
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Copy a file into the guest, to /job/NAME unless GUEST says otherwise
    #[arg(long, value_name = "HOST[:GUEST]")]
    copy: Vec<String>,
    /// Copy what the command leaves in /job/out to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Give up after that many seconds
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Boot with systemd as PID 1; the command runs as a service
    #[arg(long)]
    systemd: bool,
    /// A guest with bpftrace, libbpf-tools and auditd too
    #[arg(long)]
    bench: bool,
    /// Take target/release/keytrail rather than target/debug/keytrail
    #[arg(long)]
    release: bool,
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
    /// The command; a program that is a file under target/ here is copied into the guest
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A file of this machine and where it lies in the guest.
pub struct GuestFile {
    pub host: PathBuf,
    /// Absolute; the folder must exist in the guest's image (`/job` does).
    pub guest: PathBuf,
}

/// The guest's PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Init {
    /// A shell script that mounts what is needed and runs the command: the quickest.
    Script,
    /// Debian's systemd, as on a host that has keytrail installed as a service.
    Systemd,
}

/// One boot: a kernel, a command, what goes in and what comes out.
pub struct Job<'a> {
    pub kernel: &'a Kernel,
    pub flavour: Flavour,
    pub init: Init,
    pub command: &'a [String],
    pub files: Vec<GuestFile>,
    /// Where `/job/out` of the guest is copied to afterwards.
    pub collect: Option<PathBuf>,
    pub timeout: Duration,
    /// Only with processor time that nobody else wants.
    pub nice: bool,
}

/// Boots the kernel and runs the command; each line of its output is handed to `line`.
///
/// # Errors
/// When the guest cannot be prepared, panics, or does not end in time. A command that fails in the guest is
/// no error: its status is in the outcome.
pub fn run(job: &Job<'_>, line: impl FnMut(&str)) -> Result<VmOutcome> {
    let cache = cache_dir()?;
    // Two runs at once must not prepare the same files.
    let lock = fs::File::create(cache.join("lock"))?;
    lock.lock().context("cannot lock the VM cache")?;
    let vmlinuz = kernel::fetch(job.kernel, &cache)?;
    let image = image::ensure(job.flavour, job.kernel.arch, &cache)?;
    let run_dir = disk::RunDir::new(&match job.init {
        Init::Script => job.kernel.to_string(),
        Init::Systemd => format!("{}-systemd", job.kernel),
    })?;
    lock.unlock()?;

    let disk = disk::prepare(&run_dir, &image, job)?;
    let outcome = qemu::boot(&vmlinuz, &disk, job, &run_dir, line)?;
    if let Some(to) = &job.collect {
        disk::collect(&disk, to)?;
    }
    Ok(outcome)
}

/// The agent built last for `arch` under `profile`, for the guest's PATH.
pub fn keytrail(arch: Arch, profile: build::Profile) -> Option<GuestFile> {
    let host = build::agent_path(arch, profile);
    host.is_file().then(|| GuestFile {
        host,
        guest: "/usr/local/bin/keytrail".into(),
    })
}

/// Kernels and images, kept between runs. `KEYTRAIL_VM_CACHE` shares them between checkouts.
fn cache_dir() -> Result<PathBuf> {
    let dir = std::env::var_os("KEYTRAIL_VM_CACHE")
        .map_or_else(|| cmd::target().join("vm-cache"), PathBuf::from);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// `cargo xtask vm`
pub fn command(args: &Args) -> Result<ExitCode> {
    let groups: &[setup::Group] = match args.arch {
        Arch::X86_64 => &[setup::Group::Vm],
        Arch::Aarch64 => &[setup::Group::Vm, setup::Group::Aarch64],
    };
    setup::ensure(groups, args.no_install)?;
    let profile = build::Profile::from_flag(args.release);
    let mut files: Vec<GuestFile> = keytrail(args.arch, profile).into_iter().collect();
    for text in &args.copy {
        files.push(parse_copy(text)?);
    }
    let mut words = args.command.clone();
    // A program of this checkout, such as a test binary, follows the command into the guest.
    if let Ok(path) = fs::canonicalize(&words[0])
        && path.is_file()
        && path.starts_with(cmd::target())
    {
        let file = into_job(&path)?;
        words[0] = file.guest.display().to_string();
        files.push(file);
    }
    let kernel = Kernel::of(args.arch, &args.kernel);
    let job = Job {
        kernel: &kernel,
        flavour: if args.bench {
            Flavour::Bench
        } else {
            Flavour::Base
        },
        init: if args.systemd {
            Init::Systemd
        } else {
            Init::Script
        },
        command: &words,
        files,
        collect: args.out.clone(),
        timeout: Duration::from_secs(args.timeout),
        nice: false,
    };
    let outcome = run(&job, |line| println!("{line}"))?;
    cmd::step(format!(
        "kernel {}: exit status {}, boot {:.1} s, whole run {:.1} s, console {}",
        outcome.release,
        outcome.status,
        outcome.boot.as_secs_f32(),
        outcome.total.as_secs_f32(),
        outcome.console.display()
    ));
    Ok(ExitCode::from(u8::try_from(outcome.status).unwrap_or(1)))
}

fn parse_copy(text: &str) -> Result<GuestFile> {
    let (host, guest) = match text.split_once(':') {
        Some((host, guest)) => (PathBuf::from(host), Some(PathBuf::from(guest))),
        None => (PathBuf::from(text), None),
    };
    if !host.is_file() {
        bail!("{}: no such file", host.display());
    }
    match guest {
        Some(guest) if guest.is_absolute() => Ok(GuestFile { host, guest }),
        Some(guest) => bail!("{}: a path in the guest must be absolute", guest.display()),
        None => into_job(&host),
    }
}

/// A file that goes into the guest's `/job` under its own name.
pub fn into_job(host: &Path) -> Result<GuestFile> {
    let name = host
        .file_name()
        .with_context(|| format!("{}: no file name", host.display()))?;
    Ok(GuestFile {
        host: host.to_owned(),
        guest: Path::new("/job").join(name),
    })
}
