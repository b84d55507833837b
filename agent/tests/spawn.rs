//! Held commands: nothing runs before its release, and its end is reported as a shell would.

#![allow(clippy::unwrap_used, reason = "tests")]

use keytrail::cli::spawn::{Ended, Held, SpawnError, stand_in_for};
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::fd::FromRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    // The pid that sensors were told is the command's.
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
fn ends_are_reported_as_a_shell_does() {
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

/// Not a test: what the tests below run as a process of its own, because it changes dispositions and is sent signals.
/// It stands in for the command in WRAPPED, as `trace` does, and exits as the command does.
#[test]
#[ignore = "run by other tests"]
fn wrapper() {
    let Some(script) = std::env::var_os("WRAPPED") else {
        return;
    };
    let held = Held::spawn(&["bash".into(), "-c".into(), script]).unwrap();
    stand_in_for(&held);
    let ended = held.release().unwrap().wait().unwrap();
    std::process::exit(ended.status().into());
}

/// This program as `shell` would start it: `"$0" "$@"` is [`wrapper`].
fn wrapped(shell: &str, script: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", shell])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "wrapper", "--ignored", "--nocapture"])
        .env("WRAPPED", script)
        .stdout(Stdio::null());
    // Tests that run in the background of a script have these ignored, and a shell cannot trap what was ignored before it.
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            for signal in [libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A command that writes the names of the signals it gets, and its own pid first.
fn reported(log: &Path) -> String {
    let log = log.display();
    format!(
        "for s in HUP INT QUIT TERM USR1 USR2 WINCH ALRM TSTP CONT RTMIN+3; do trap \"echo $s >>{log}\" $s; done\n\
         trap 'exit 9' PWR\necho $$ >{log}\nwhile :; do read -t 0.02 <>/dev/fd/3; done 3<> <(:)"
    )
}

fn lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn send(pid: u32, signal: i32) {
    // SAFETY: plain system call.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

#[test]
fn signals_sent_to_the_wrapper_alone_reach_the_command_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut child = wrapped("exec \"$0\" \"$@\"", &reported(&log))
        .spawn()
        .unwrap();
    wait_until("the command runs", || lines(&log).len() == 1);
    let mut expected = lines(&log);
    for (signal, name) in [
        (libc::SIGINT, "INT"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGHUP, "HUP"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
        (libc::SIGWINCH, "WINCH"),
        (libc::SIGALRM, "ALRM"),
        (libc::SIGCONT, "CONT"),
        (libc::SIGRTMIN() + 3, "RTMIN+3"),
    ] {
        send(child.id(), signal);
        expected.push(name.to_owned());
        wait_until(name, || lines(&log).len() >= expected.len());
        assert_eq!(lines(&log), expected);
        assert!(
            child.try_wait().unwrap().is_none(),
            "{name} ended the wrapper"
        );
    }
    send(child.id(), libc::SIGPWR);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_command_that_signals_its_own_group_gets_that_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "trap 'echo INT >>{0}' INT; kill -INT 0; sleep 0.3; echo end >>{0}",
        log.display()
    );
    let mut command = wrapped("exec \"$0\" \"$@\"", &script);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    assert!(command.status().unwrap().success());
    assert_eq!(lines(&log), ["INT", "end"]);
}

#[test]
fn a_stop_sent_to_the_wrapper_stops_both_and_so_does_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!("echo $$ >{}; sleep 60", log.display());
    // In a group of its own below a process of the same session: an orphaned group is not stopped by SIGTSTP.
    let mut child = wrapped("exec \"$0\" \"$@\"", &script);
    std::os::unix::process::CommandExt::process_group(&mut child, 0);
    let mut child = child.spawn().unwrap();
    let wrapper = child.id();
    wait_until("the command runs", || lines(&log).len() == 1);
    let command: u32 = lines(&log)[0].parse().unwrap();
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, r)| r.chars().next())
    };
    // Right after each other: a stop that comes while the one before is being undone counts as well.
    for _ in 0..200 {
        send(wrapper, libc::SIGTSTP);
        wait_until("both stop", || {
            (state(wrapper), state(command)) == (Some('T'), Some('T'))
        });
        send(wrapper, libc::SIGCONT);
        wait_until("both go on", || {
            state(wrapper) != Some('T') && state(command) != Some('T')
        });
    }
    send(wrapper, libc::SIGKILL);
    send(command, libc::SIGKILL);
    child.wait().unwrap();
}

#[test]
fn what_the_terminal_sends_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (mut master, mut slave) = (0, 0);
    // SAFETY: both numbers are ours to write to; the rest may be null.
    let opened = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(opened, 0);
    // SAFETY: two fresh descriptors that nobody else owns.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    let mut command = wrapped("exec \"$0\" \"$@\"", &reported(&log));
    command.stdin(slave);
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::setsid();
            match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    wait_until("the command runs", || lines(&log).len() == 1);
    let mut expected = lines(&log);
    for (key, name) in [(b"\x03", "INT"), (b"\x1c", "QUIT")] {
        master.write_all(key).unwrap();
        expected.push(name.to_owned());
        wait_until(name, || lines(&log).len() >= expected.len());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(lines(&log), expected);
    }
    send(child.id(), libc::SIGPWR);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn the_command_gets_what_the_wrapper_was_started_with() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "{{ grep SigIgn /proc/self/status; for fd in 0 1 2; do test -e /proc/$$/fd/$fd && echo $fd; done; }} >{} 3>&-; true",
        log.display()
    );
    let met = |shell: &str| {
        let status = wrapped(shell, &script).status().unwrap();
        assert!(status.success(), "{shell}");
        let lines = lines(&log);
        let ignored = lines[0].split_whitespace().nth(1).unwrap();
        let pipe = u64::from_str_radix(ignored, 16).unwrap() & (1 << (libc::SIGPIPE - 1));
        (pipe != 0, lines[1..].join(""))
    };
    assert_eq!(met("exec \"$0\" \"$@\" </dev/null"), (false, "012".into()));
    assert_eq!(
        met("trap '' PIPE; exec \"$0\" \"$@\" </dev/null"),
        (true, "012".into())
    );
    assert_eq!(met("exec \"$0\" \"$@\" <&-").1, "12");
    assert_eq!(met("exec \"$0\" \"$@\" <&- 2>&-").1, "1");
}
