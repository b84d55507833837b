//! Builds the kernel side for the BPF target, in its own workspace and with its own compiler.

use crate::{
    arch::Arch,
    cmd,
    setup::{
        linker,
        toolchain::{self, DEBIAN_CLIPPY, DEBIAN_RUSTC, Route, TARGET},
    },
};
use anyhow::{Context as _, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Whether the kernel side says what it does, through aya-log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    Silent,
    Spoken,
}

impl Log {
    pub fn from_flag(spoken: bool) -> Self {
        if spoken { Self::Spoken } else { Self::Silent }
    }
}

/// Where the object for kernels of `arch` lies. Fixed, whatever CARGO_TARGET_DIR says: the agent's build script looks there.
pub fn object(arch: Arch) -> PathBuf {
    cmd::root().join(format!("target/bpf/keytrail{}.o", arch.suffix()))
}

/// Builds `agent-ebpf` into its [`object`], which is touched only when it changes, so that the agent is not rebuilt for
/// nothing.
pub fn build(arch: Arch, log: Log) -> Result<()> {
    let object = build_crate(
        &cmd::root().join("agent-ebpf"),
        &cmd::root().join(format!("target/bpf-build{}", arch.suffix())),
        arch,
        log,
    )?;
    let to = self::object(arch);
    let bytes = without_debug(&object)?;
    if fs::read(&to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::create_dir_all(cmd::root().join("target/bpf"))?;
    // Renamed into place: a build of the agent at the same time sees the old or the new one.
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, &to)?;
    Ok(())
}

/// The object without what only debuggers read: four fifths of it, which every agent would carry along. What the kernel reads
/// of types and lines (`.BTF`, `.BTF.ext`) stays.
fn without_debug(object: &Path) -> Result<Vec<u8>> {
    let sysroot = cmd::output(cmd::clean("rustc").args(["--print", "sysroot"]))?;
    let lib = Path::new(sysroot.trim()).join("lib");
    // It comes with rustup's compiler from 1.84 on.
    let tool = lib.join(format!(
        "rustlib/{}-unknown-linux-gnu/bin/rust-objcopy",
        env::consts::ARCH
    ));
    if !tool.exists() {
        eprintln!(
            "xtask: {} is not there: the kernel side keeps its debug information",
            tool.display()
        );
        return Ok(fs::read(object)?);
    }
    let stripped = object.with_extension("stripped");
    let mut command = cmd::clean(&tool);
    command
        .arg("--strip-debug")
        .args([object, &stripped])
        .env("LD_LIBRARY_PATH", &lib);
    cmd::run(&mut command)?;
    Ok(fs::read(&stripped)?)
}

/// Builds the one BPF program of the crate in `dir`; returns its path.
fn build_crate(dir: &Path, target_dir: &Path, arch: Arch, log: Log) -> Result<PathBuf> {
    let route = Route::find().context(toolchain::ADVICE)?;
    let linker = linker::find().context("bpf-linker is missing: run `cargo xtask setup`")?;
    let mut command = cargo(route);
    command
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .arg("--target-dir")
        .arg(target_dir)
        .args((log == Log::Spoken).then_some("--features=log"))
        .current_dir(dir)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        // This variable replaces the flags of agent-ebpf/.cargo/config.toml, which are for a developer who
        // calls cargo there; merged with them, `--btf` would be given twice.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags()?);
    for_kernels_of(arch, &mut command);
    let mut built = Vec::new();
    let ok = cmd::lines(&mut command, |line| {
        built.extend(executable(line).map(PathBuf::from))
    })?;
    if !ok {
        bail!("the kernel side does not build");
    }
    match built.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("{} has no program to build", dir.display()),
        many => bail!(
            "{} builds {} programs where one is expected",
            dir.display(),
            many.len()
        ),
    }
}

/// Clippy on the kernel side: Debian's own driver for Debian's compiler, which rustup's does not fit.
pub fn lint(arch: Arch) -> Result<()> {
    let route = Route::find().context(toolchain::ADVICE)?;
    let mut command = cargo(route);
    match route {
        Route::Debian => command
            .arg("check")
            .env("RUSTC_WORKSPACE_WRAPPER", DEBIAN_CLIPPY)
            // What cargo-clippy hands over behind `--`, in its own form.
            .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__"),
        // Flags in front of a subcommand that is a program of its own are not handed on to it.
        Route::Nightly => command
            .arg("clippy")
            .env("CARGO_UNSTABLE_BUILD_STD", "core"),
    };
    for_kernels_of(arch, &mut command);
    command
        .args(["--quiet", "--target", TARGET, "--target-dir"])
        .arg(cmd::root().join(format!("target/bpf-lint{}", arch.suffix())))
        .args(match route {
            Route::Debian => &[][..],
            Route::Nightly => &["--", "-D", "warnings"],
        })
        .current_dir(cmd::root().join("agent-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", "");
    cmd::run(&mut command)
}

/// Debug information for every crate: without it in a callee the kernel refuses the caller's func_info.
/// Paths are cut so that the same source gives the same object in every checkout and for every user.
fn rustflags() -> Result<String> {
    let remap = format!("--remap-path-prefix={}=.", cmd::root().display());
    let crates = format!(
        "--remap-path-prefix={}=/cargo/registry",
        cmd::registry()?.display()
    );
    Ok(["-Cdebuginfo=2", "-Clink-arg=--btf", &remap, &crates].join("\x1f"))
}

/// Which kernels it is for, where these are not x86-64's: the object is no machine's own, but what it reads of registers is.
fn for_kernels_of(arch: Arch, command: &mut Command) {
    if arch != Arch::X86_64 {
        command
            .args(["--features", arch.name()])
            // aya-ebpf's own.
            .env("AYA_BPF_TARGET_ARCH", arch.name());
    }
}

/// Cargo with the compiler of `route` and nothing of the outer cargo's choices.
fn cargo(route: Route) -> Command {
    let mut command = cmd::clean("cargo");
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let choice = text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_TARGET_")
            || text.starts_with("RUSTC")
            || matches!(
                &*text,
                "CARGO_ENCODED_RUSTFLAGS" | "RUSTFLAGS" | "RUSTDOCFLAGS" | "RUSTUP_TOOLCHAIN"
            );
        if choice {
            command.env_remove(&name);
        }
    }
    match route {
        // Its `core` has no unstable door but aya-ebpf uses inline assembly for BPF, which is unstable.
        Route::Debian => command
            .env("RUSTC", DEBIAN_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1"),
        Route::Nightly => command.args(["+nightly", "-Zbuild-std=core"]),
    };
    command
}

/// Path of the program in one of cargo's JSON messages.
pub fn executable(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(r#""executable":""#)?;
    rest.split_once('"').map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn only_programs_count() {
        let message = r#"{"reason":"compiler-artifact","filenames":["/t/x"],"executable":"/t/x","fresh":true}"#;
        assert_eq!(executable(message), Some("/t/x"));
        assert_eq!(
            executable(r#"{"reason":"compiler-artifact","executable":null,"fresh":true}"#),
            None
        );
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
