//! `cargo xtask test`: unit tests and checks, tests on this machine's kernel, tests in booted kernels.

mod deny;
mod guest;
mod matrix;
mod summary;

use crate::{arch::Arch, build, cmd, setup, vm};
use anyhow::Result;
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};
use summary::{Part, Tally};

#[derive(clap::Args)]
pub struct Args {
    /// Only these parts; all when none is named
    #[arg(value_enum)]
    parts: Vec<Name>,
    /// Kernels of the vm part (5.10, 6.1, 6.12, 6.18, 7.2, 7.3, 6.1-aarch64, 6.12-aarch64), or `all`
    #[arg(long = "kernel", value_name = "VERSION", default_value = "6.12")]
    kernels: Vec<String>,
    /// Instead: the vm part in all known kernels, see docs/COVERAGE.md; KEYTRAIL_BLESS=1 writes its table of kernels
    #[arg(long, value_enum, conflicts_with = "kernels")]
    matrix: Option<guest::Extent>,
    /// List what is missing rather than install it
    #[arg(long)]
    no_install: bool,
    /// Passed to the test programs: a filter, --nocapture, ...
    #[arg(last = true)]
    filter: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Name {
    /// fmt, clippy, licences, and all that needs no kernel
    Unit,
    /// With the real programs on this machine's kernel, as root
    Host,
    /// The same in booted kernels with other hooks
    Vm,
}

/// `cargo xtask test`
pub fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let all = [Name::Unit, Name::Host, Name::Vm];
    let parts: &[Name] = if args.parts.is_empty() {
        if args.matrix.is_some() {
            &[Name::Vm]
        } else {
            &all
        }
    } else {
        &args.parts
    };
    let kernels = match args.matrix {
        Some(_) => kernels(&["all".to_owned()]),
        None => kernels(&args.kernels),
    };
    setup::ensure(&groups(parts, &kernels), args.no_install)?;
    build::kernel_side(Arch::default())?;

    let others = others(args, &kernels);
    let mut done: Vec<Part> = Vec::new();
    if parts.contains(&Name::Unit) {
        done.push(unit(&args.filter));
    }
    let on_host = parts.contains(&Name::Host);
    if parts.contains(&Name::Vm) {
        match guest::Guests::prepare((&kernels, &others), &args.filter, args.matrix) {
            Ok(guests) => {
                done.extend(guests.run(on_host.then_some(|| host(&args.filter))));
                if args.matrix.is_some() {
                    guests.bless()?;
                }
            }
            Err(error) => {
                let mut part = Part::new("vm");
                part.fail(format!("{error:#}"));
                done.push(part);
                if on_host {
                    done.push(host(&args.filter));
                }
            }
        }
    } else if on_host {
        done.push(host(&args.filter));
    }
    Ok(summary::print(&done, started.elapsed()))
}

/// What the parts need. Unit tests too run programs: gcore, curl, openssl, git. A guest has them from the image.
fn groups(parts: &[Name], kernels: &[vm::Kernel]) -> Vec<setup::Group> {
    let mut groups = vec![setup::Group::Build];
    if parts.contains(&Name::Unit) || parts.contains(&Name::Host) {
        groups.push(setup::Group::Test);
    }
    if parts.contains(&Name::Vm) {
        groups.push(setup::Group::Vm);
        if kernels.iter().any(|kernel| kernel.arch == Arch::Aarch64) {
            groups.push(setup::Group::Aarch64);
        }
    }
    groups
}

/// Kernels in which no more is tried than which hook serves which signal: all others of this architecture, when everything is
/// tested. Those of another one take a build of their own, and are named (`--kernel 6.12-aarch64`) or part of `--matrix`.
fn others(args: &Args, kernels: &[vm::Kernel]) -> Vec<vm::Kernel> {
    if args.matrix.is_some() || !args.parts.is_empty() || !args.filter.is_empty() {
        return Vec::new();
    }
    let all = self::kernels(&["all".to_owned()]);
    all.into_iter()
        .filter(|known| known.arch == Arch::default() && !kernels.contains(known))
        .collect()
}

fn kernels(named: &[String]) -> Vec<vm::Kernel> {
    if named.iter().any(|name| name == "all") {
        return vm::Kernel::all();
    }
    let parsed = named.iter().map(|name| name.parse());
    parsed.map(|Ok(kernel)| kernel).collect()
}

/// The test of the agent's crates that reads their code.
const STRUCTURE: &str = "structure";

fn unit(filter: &[String]) -> Part {
    let mut part = Part::new("unit");
    part.check(
        "fmt",
        cmd::run(cmd::cargo().args(["fmt", "--all", "--check"])),
    );
    let kernel_side = cmd::root().join("agent-ebpf/Cargo.toml");
    part.check(
        "fmt of the kernel side",
        cmd::run(
            cmd::cargo()
                .args(["fmt", "--check", "--manifest-path"])
                .arg(kernel_side),
        ),
    );
    part.check(
        "clippy",
        cmd::run(cmd::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--features=xtask/eval,xtask/dist",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])),
    );
    for arch in [Arch::X86_64, Arch::Aarch64] {
        part.check(
            &format!("clippy on the kernel side for {arch}"),
            build::lint_kernel_side(arch),
        );
    }
    deny::check(&mut part);
    part.tests(cargo_test(
        &[
            "--workspace",
            "--features=xtask/eval,xtask/dist",
            "--lib",
            "--bins",
        ],
        filter,
    ));
    // A circle between files is as much a fault of the code alone as a warning is.
    part.tests(cargo_test(
        &["--package", "keytrail", "--test", STRUCTURE],
        filter,
    ));
    part
}

fn host(filter: &[String]) -> Part {
    let mut part = Part::new("host");
    // The agent's crates through their public interfaces, kernel or not, then the whole with the real programs.
    let agent = cmd::root().join("agent");
    let packages = [
        ("keytrail", agent.join("tests")),
        ("keytrail-sensor", agent.join("sensor/tests")),
        ("keytrail-store", agent.join("store/tests")),
    ];
    let mut selections: Vec<Vec<String>> = Vec::new();
    for (package, dir) in packages {
        let names = test_names(&dir);
        let names = names.iter().filter(|name| *name != STRUCTURE);
        let words: Vec<String> = names
            .flat_map(|name| ["--test".to_owned(), name.clone()])
            .collect();
        if !words.is_empty() {
            let package = ["--package", package].map(str::to_owned);
            selections.push(package.into_iter().chain(words).collect());
        }
    }
    selections.push(selection("keytrail-tests", "host").to_vec());
    for selection in selections {
        let words: Vec<&str> = selection.iter().map(String::as_str).collect();
        part.tests(cargo_test(&words, filter));
    }
    part
}

/// Cargo's words for the integration tests of one package.
fn selection(package: &str, test: &str) -> [String; 4] {
    ["--package", package, "--test", test].map(str::to_owned)
}

/// Names of the integration tests of a package, by its folder of them.
fn test_names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let is_rust = path.extension().is_some_and(|end| end == "rs");
            is_rust.then(|| Some(path.file_stem()?.to_str()?.to_owned()))?
        })
        .collect();
    names.sort();
    names
}

fn cargo_test(selection: &[&str], filter: &[String]) -> Result<(Tally, bool)> {
    // The end-to-end tests start the agent that lies in the target folder.
    cmd::run(cmd::cargo().args(["build", "--quiet", "--package", "keytrail"]))?;
    let mut tally = Tally::default();
    let ok = tally_of(&mut test_command(selection, filter), &mut tally)?;
    if ok || tally.failing().is_empty() || tally.failing().len() > summary::AGAIN_MOST {
        return Ok((tally, ok));
    }
    // Hundreds of tests share this machine and its kernel: what fails because of its neighbours passes alone, and is
    // named in the summary. What is broken fails again.
    let failed = tally.failing().to_vec();
    let lead = format!("{} {}", summary::AGAIN, failed.join(" "));
    println!("{lead}");
    tally.read(&lead);
    let words: Vec<String> = std::iter::once("--exact".to_owned())
        .chain(failed)
        .collect();
    let ok = tally_of(&mut test_command(selection, &words), &mut tally)?;
    tally.read(summary::AGAIN_OVER);
    Ok((tally, ok))
}

fn test_command(selection: &[&str], words: &[String]) -> Command {
    let mut command = cmd::cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(selection)
        .arg("--")
        .args(words);
    command.env(
        "KEYTRAIL_BIN",
        build::agent_path(Arch::default(), build::Profile::Debug),
    );
    as_root(&mut command);
    command
}

/// Loading kernel programs needs root; cargo itself must not run as root in a user's checkout.
fn as_root(command: &mut Command) {
    if !cmd::is_root() {
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
    }
}

/// Runs a test command, shows its output and counts its results; whether it succeeded.
fn tally_of(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    cmd::step(cmd::show(command));
    cmd::lines(command, |line| {
        println!("{line}");
        tally.read(line);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use setup::Group;

    #[test]
    fn the_integration_tests_are_all_found() {
        let names = test_names(&cmd::root().join("agent/tests"));
        assert!(names.contains(&STRUCTURE.to_owned()), "{names:?}");
        assert!(names.contains(&"replay".to_owned()), "{names:?}");
        assert!(test_names(&cmd::root().join("agent/tests/none")).is_empty());
    }

    #[test]
    fn every_part_brings_what_its_tests_run() {
        let own = kernels(&["6.12".to_owned()]);
        let of = |parts: &[Name]| groups(parts, &own);
        assert_eq!(of(&[Name::Unit]), [Group::Build, Group::Test]);
        assert_eq!(of(&[Name::Host]), [Group::Build, Group::Test]);
        assert_eq!(of(&[Name::Vm]), [Group::Build, Group::Vm]);
        assert_eq!(
            of(&[Name::Unit, Name::Host, Name::Vm]),
            [Group::Build, Group::Test, Group::Vm]
        );
        assert_eq!(
            groups(&[Name::Vm], &kernels(&["6.1-aarch64".to_owned()])),
            [Group::Build, Group::Vm, Group::Aarch64]
        );
    }
}
