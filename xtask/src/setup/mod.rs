//! `cargo xtask setup`: what a fresh Debian 12 machine lacks, by what it is needed for.

pub mod apt;
pub mod linker;
pub mod programs;
pub mod sysroot;
pub mod toolchain;

use crate::{arch::Arch, cmd};
use anyhow::{Result, bail};
use toolchain::Route;

#[derive(clap::Args)]
pub struct Args {
    /// Only list what is missing, with the commands that would install it, and fail when anything is
    #[arg(long)]
    no_install: bool,
    /// What to prepare for; everything that tests need when none is named
    #[arg(value_enum)]
    groups: Vec<Group>,
}

/// What a package is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Group {
    /// Building both sides: all that `cargo xtask run` needs
    Build,
    /// The programs that the tests on this machine observe
    Test,
    /// Booting kernels
    Vm,
    /// Building for aarch64, and booting its kernels; where it is asked for
    Aarch64,
    /// The peers that benchmarks measure against
    Bench,
}

/// One Debian package and why it is there.
#[derive(Clone, Copy)]
pub struct Package {
    pub name: &'static str,
    /// The oldest version that will do.
    pub at_least: Option<&'static str>,
    pub why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package {
        name,
        at_least: None,
        why,
    }
}

const fn newer(name: &'static str, at_least: &'static str, why: &'static str) -> Package {
    Package {
        name,
        at_least: Some(at_least),
        why,
    }
}

const BUILD: &[Package] = &[
    package(
        "gcc",
        "links the host programs and compiles SQLite and ring",
    ),
    package("libc6-dev", "C headers for the same"),
    package("pkg-config", "build scripts look libraries up with it"),
    package("ca-certificates", "cargo fetches crates over TLS"),
];

/// rustc 1.96 is in bookworm-security; bookworm itself has 1.85, which is too old for aya.
const BPF: &[Package] = &[
    newer(
        "rustc-web",
        "1.95",
        "a rustc whose LLVM matches the linker's",
    ),
    newer(
        "libstd-rust-web-dev-bpf",
        "1.95",
        "`core` for the BPF target, without nightly",
    ),
    newer(
        "llvm-22-dev",
        "1:22",
        "the LLVM that bpf-linker links against",
    ),
    newer("libpolly-22-dev", "1:22", "part of that LLVM"),
    package("libzstd-dev", "that LLVM wants it when linking"),
    package("g++", "bpf-linker links the C++ library"),
];

const TEST: &[Package] = &[
    newer(
        "rust-web-clippy",
        "1.95",
        "clippy on the kernel side, by the compiler it is built with",
    ),
    package("curl", "sends credentials in the tests"),
    package("wget", "sends credentials in the tests"),
    package("nginx-light", "receives them over TLS"),
    package("openssl", "certificates, and a second TLS server"),
    package("python3", "a client that uses SSL_write_ex"),
    package("python3-pip", "fetches the stock gRPC client of Python"),
    package("git", "a client with credential helpers"),
    package(
        "gdb",
        "takes a core image of the agent, in which no secret may be",
    ),
    package("procps", "ps and kill for the tests"),
    package("nodejs", "a client with OpenSSL inside, which sends later"),
    package("hey", "a client of Go, with TLS of its own"),
    package("gh", "Go 1.19 with HTTP/2"),
    package("rclone", "Go 1.19, linked with C"),
    package("restic", "Go 1.19, linked with C"),
    package(
        "python3-venv",
        "installs programs from PyPI for one checkout",
    ),
    package("libnss3-tools", "a client with NSS"),
    package(
        "rpm",
        "a package database as other distributions have it, and a reader of the released package",
    ),
    package("lintian", "looks for mistakes in the released package"),
    package(
        "containerd",
        "a container runtime, with its shim and client",
    ),
    package("runc", "starts its containers"),
    package("busybox-static", "all that is in the image they run"),
];

const VM: &[Package] = &[
    // Debian 12's own QEMU 7.2 makes 6.12 guests panic in two of five boots.
    newer("qemu-system-x86", "1:10", "boots other kernels"),
    package(
        "e2fsprogs",
        "builds the guest's disk and reads it, without mounting",
    ),
    package("binutils", "strips what goes into the guest"),
];

const AARCH64: &[Package] = &[
    package("gcc-aarch64-linux-gnu", "links for aarch64"),
    package("libc6-dev-arm64-cross", "the C library for the same"),
    newer(
        "libstd-rust-web-dev",
        "1.95",
        "the compiler that Debian's library for aarch64 fits",
    ),
    newer("qemu-system-arm", "1:10", "boots kernels of aarch64"),
];

const BENCH: &[Package] = &[
    package("libbpf-tools", "opensnoop and execsnoop as peers"),
    package("bpftrace", "uprobe on SSL_write as a peer"),
    package("libssl3", "the library that the TLS benchmark drives"),
    package("openssl", "the certificate of that benchmark's server"),
    package("nginx-light", "a server that holds its key"),
    package("wrk", "puts it under load"),
    package("hey", "the same at a rate that it can easily answer"),
    package("postgresql", "a server over TLS, and pgbench"),
    package("redis-server", "a server with a password"),
    package("redis-tools", "redis-benchmark"),
    package("git", "the clone that is measured"),
];

/// `cargo xtask setup`
pub fn run(args: &Args) -> Result<()> {
    let groups: &[Group] = if args.groups.is_empty() {
        &[Group::Build, Group::Test, Group::Vm]
    } else {
        &args.groups
    };
    ensure(groups, args.no_install)?;
    cmd::step("everything is there");
    Ok(())
}

/// Installs what `groups` lack; does nothing, quickly, when nothing is missing.
///
/// # Errors
/// When something is missing and may not be, or cannot be, installed.
pub fn ensure(groups: &[Group], no_install: bool) -> Result<()> {
    let mut wanted: Vec<Package> = Vec::new();
    for group in groups {
        wanted.extend(match group {
            Group::Build => BUILD,
            Group::Test => TEST,
            Group::Vm => VM,
            Group::Aarch64 => AARCH64,
            Group::Bench => BENCH,
        });
    }
    let building = groups.contains(&Group::Build);
    // A developer with nightly and rust-src builds the kernel side with that; everybody else with Debian's.
    let needs_debian = building && !matches!(Route::find(), Some(Route::Nightly));
    if needs_debian {
        wanted.extend(BPF);
    }
    if apt::available() {
        let missing = apt::missing(&wanted)?;
        let plan = apt::plan(&missing)?;
        let linker_missing = building && linker::find().is_none();
        if no_install && (!missing.is_empty() || linker_missing) {
            bail!("{}", refusal(&plan, linker_missing));
        }
        apt::install(plan)?;
        if linker_missing {
            linker::install()?;
        }
    } else {
        without_apt(&wanted, building)?;
    }
    if building && Route::find().is_none() {
        bail!("{}", toolchain::ADVICE);
    }
    if groups.contains(&Group::Aarch64) {
        sysroot::compiler(Arch::Aarch64, no_install)?;
    }
    if groups.contains(&Group::Test) {
        programs::ensure(no_install)?;
    }
    Ok(())
}

/// What is missing and the exact commands for it.
fn refusal(plan: &apt::Plan, linker_missing: bool) -> String {
    let mut text = String::from("something is missing and --no-install was given:\n");
    for (package, _) in plan.packages() {
        text.push_str(&format!("  {:24} {}\n", package.name, package.why));
    }
    if linker_missing {
        text.push_str(&format!("  {:24} links the kernel side\n", "bpf-linker"));
    }
    text.push_str("these commands install it:\n");
    for command in plan.commands() {
        text.push_str(&format!("  {}\n", cmd::show(&command)));
    }
    if linker_missing {
        text.push_str(&format!("  {}\n", linker::shown()));
    }
    text
}

/// Elsewhere than on Debian nothing is installed: what must be there is named.
fn without_apt(wanted: &[Package], building: bool) -> Result<()> {
    let program = |package: &Package| match package.name {
        "qemu-system-x86" => Some("qemu-system-x86_64"),
        "qemu-system-arm" => Some("qemu-system-aarch64"),
        "gcc-aarch64-linux-gnu" => Some("aarch64-linux-gnu-gcc"),
        "nginx-light" => Some("nginx"),
        "e2fsprogs" => Some("mke2fs"),
        "binutils" => Some("strip"),
        "procps" => Some("ps"),
        "nodejs" => Some("node"),
        "python3-pip" => Some("pip3"),
        name @ ("gcc" | "curl" | "wget" | "openssl" | "python3" | "git" | "gdb" | "bpftrace"
        | "hey") => Some(name),
        _ => None,
    };
    let lacking: Vec<String> = wanted
        .iter()
        .filter(|package| program(package).is_some_and(|name| cmd::find(name).is_none()))
        .map(|package| format!("  {:20} {}", package.name, package.why))
        .collect();
    if !lacking.is_empty() {
        bail!(
            "this is not Debian, so nothing is installed for you; missing are:\n{}",
            lacking.join("\n")
        );
    }
    if building && linker::find().is_none() {
        bail!(
            "bpf-linker {} is missing: cargo install bpf-linker --version {0}",
            linker::VERSION
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the machine the tests run on, and installed wherever they are.
    const THERE: Package = package("dpkg", "it answers");

    fn refuses(missing: &[Package], linker_missing: bool) -> String {
        let plan = apt::Plan::from_own(missing);
        refusal(&plan, linker_missing)
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_the_commands() {
        let missing = [
            package("keytrail-one", "the first reason"),
            package("keytrail-two", "the second reason"),
        ];
        let text = refuses(&missing, true);
        for package in missing {
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(&format!("{} ", package.name)));
            assert!(
                line.is_some_and(|line| line.ends_with(package.why)),
                "{text}"
            );
        }
        let commands: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != "these commands install it:")
            .skip(1)
            .map(str::trim)
            .collect();
        assert_eq!(commands.len(), 2, "{text}");
        assert!(
            commands[0].contains("apt-get") && commands[0].ends_with("keytrail-one keytrail-two"),
            "{text}"
        );
        assert!(
            commands[1].contains("bpf-linker") && commands[1].contains(linker::VERSION),
            "{text}"
        );
        assert!(!refuses(&missing, false).contains("bpf-linker"));
    }

    /// Nothing is asked of apt, let alone installed, when nothing is missing: setting up twice does nothing the
    /// second time.
    #[test]
    fn what_is_there_is_not_installed_again() {
        if !apt::available() {
            eprintln!("left out: this is not Debian");
            return;
        }
        let mut never = package("keytrail-no-such-package", "it is not there");
        let missing = apt::missing(&[THERE, never, THERE]).unwrap();
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        assert_eq!(names, [never.name]);
        never.name = "dpkg";
        never.at_least = Some("1000:1");
        assert_eq!(apt::missing(&[never]).unwrap().len(), 1, "an older version");
        let plan = apt::plan(&apt::missing(&[THERE]).unwrap()).unwrap();
        assert_eq!(plan.packages().count(), 0);
        assert!(plan.commands().is_empty());
        apt::install(plan).unwrap();
    }

    #[test]
    fn nothing_is_installed_twice_by_two_groups() {
        let missing = apt::missing(&[
            package("keytrail-no-such-package", "one"),
            package("keytrail-no-such-package", "two"),
        ]);
        if apt::available() {
            assert_eq!(missing.unwrap().len(), 1);
        }
    }
}
