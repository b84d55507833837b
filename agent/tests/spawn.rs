//! Held commands: nothing runs before its release, and its end is told as a shell would.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail::cli::spawn::{Ended, Held, SpawnError};
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

fn command(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn end_of(words: &[&str]) -> Result<Ended, SpawnError> {
    Ok(Held::spawn(&command(words))?.release()?.wait().unwrap())
}

#[test]
fn nothing_runs_before_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script = format!("echo $$ > {}", mark.display());
    let held = Held::spawn(&command(&["sh", "-c", &script])).unwrap();
    let pid = held.pid();
    std::thread::sleep(Duration::from_millis(100));
    assert!(!mark.exists());
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(held.release().unwrap().wait().unwrap(), Ended::Status(0));
    // The pid that sensors were told of is the command's.
    assert_eq!(
        std::fs::read_to_string(&mark).unwrap().trim(),
        pid.to_string()
    );
}

#[test]
fn a_dropped_command_never_runs_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let held = Held::spawn(&command(&["touch", mark.to_str().unwrap()])).unwrap();
    let pid = held.pid();
    drop(held);
    assert!(!mark.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn ends_are_told_as_a_shell_tells_them() {
    assert_eq!(end_of(&["sh", "-c", "exit 37"]).unwrap().status(), 37);
    let killed = end_of(&["sh", "-c", "kill -9 $$"]).unwrap();
    assert_eq!((killed, killed.status()), (Ended::Signal(9), 137));
    assert_eq!(killed.to_string(), "killed by signal 9");
    assert_eq!(
        end_of(&["sh", "-c", "kill -TERM $$"]).unwrap().status(),
        143
    );
}

#[test]
fn what_cannot_run_says_why() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(end_of(&["no-such-command-here"]).unwrap_err().status(), 127);
    assert_eq!(end_of(&[""]).unwrap_err().status(), 127);
    let script = dir.path().join("script");
    let write = |text: &str, mode| {
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(mode)).unwrap();
    };
    let path = script.to_str().unwrap();
    write("exit 3", 0o644);
    assert_eq!(end_of(&[path]).unwrap_err().status(), 126);
    // Found, executable, and then exec itself fails: the interpreter is missing.
    write("#!/no/such/interpreter\n", 0o755);
    let e = end_of(&[path]).unwrap_err();
    assert_eq!(
        (e.status(), e.to_string().contains("interpreter")),
        (126, true)
    );
    // A script without an interpreter line is the shell's, as execvp(3) has it; its arguments arrive.
    write("exit $(($1 + 1))", 0o755);
    assert_eq!(end_of(&[path, "4"]).unwrap(), Ended::Status(5));
}

#[test]
fn the_command_has_default_sigpipe_and_our_environment() {
    // `yes` ends by SIGPIPE only if it is not ignored, as Rust programs have it.
    assert_eq!(
        end_of(&[
            "bash",
            "-c",
            "yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}"
        ])
        .unwrap()
        .status(),
        141
    );
    let path = std::env::var("PATH").unwrap();
    assert_eq!(
        end_of(&["sh", "-c", &format!("test \"$PATH\" = '{path}'")]).unwrap(),
        Ended::Status(0)
    );
}
