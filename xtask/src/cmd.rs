//! Starting other programs: where they run, with which environment, as whom.

use anyhow::{Context as _, Result, bail};
use std::{
    env,
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The top folder of the checkout.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's target directory of the host workspace.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where cargo keeps the sources of crates.
pub fn registry() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join("registry"))
}

/// A command without what `cargo run` put into our own environment. A nested cargo that saw it would use
/// the outer toolchain for the kernel side, and rebuild crates whose build scripts watch those variables.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let leaked = text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
            || matches!(
                &*text,
                "CARGO" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
            );
        if leaked {
            command.env_remove(&name);
        }
    }
    // `cargo run` puts its own libraries in front, which is meant for the program it runs and no other.
    if let Some(path) = env::var_os("LD_LIBRARY_PATH") {
        let toolchains = env::var_os("RUSTUP_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
        let kept: Vec<PathBuf> = env::split_paths(&path)
            .filter(|dir| !dir.starts_with(target()))
            .filter(|dir| {
                toolchains
                    .as_ref()
                    .is_none_or(|homes| !dir.starts_with(homes))
            })
            .collect();
        match env::join_paths(&kept) {
            Ok(joined) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", joined),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command
}

/// Cargo for the host workspace, in the top folder.
pub fn cargo() -> Command {
    let mut command = clean(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Whether we are root. /proc/self belongs to the effective user of whoever inspects it.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command that runs as root: itself when we are, through sudo otherwise.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return clean(program);
    }
    let mut command = clean("sudo");
    command.arg("--").arg(program);
    command
}

/// The command as a person would type it.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word for a POSIX shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs to the end; a status other than zero is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{status} of: {}", show(command));
    }
    Ok(())
}

/// Standard output of a command that succeeded.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !out.status.success() {
        let reason = String::from_utf8_lossy(&out.stderr);
        bail!(
            "{} of: {}\n{}",
            out.status,
            show(command),
            reason.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs to the end, hands each line of standard output to `line`, and says whether the status was zero.
pub fn lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // By bytes: a test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
            bytes.clear();
        }
    }
    Ok(child.wait()?.success())
}

/// First program of that name on PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        // Debian keeps nginx, mke2fs and debugfs where an ordinary user's PATH does not look.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Says what is being done, on standard error so that output stays usable in a pipe.
pub fn step(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "", "two words", "it's", "$(id)", "a\nb", "*"] {
            let out = output(
                Command::new("sh")
                    .arg("-c")
                    .arg(format!("printf %s {}", quote(word))),
            )
            .unwrap();
            assert_eq!(out, word);
        }
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("sh").args(["-c", "exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("sh -c 'exit 3'"),
            "{error}"
        );
    }

    #[test]
    fn lines_that_are_not_utf8_are_passed_on() {
        let mut seen = Vec::new();
        let ok = lines(Command::new("printf").arg(r"a\n\377b\nc"), |line| {
            seen.push(line.to_owned())
        })
        .unwrap();
        assert!(ok);
        assert_eq!(seen, ["a", "\u{fffd}b", "c"]);
    }
}
