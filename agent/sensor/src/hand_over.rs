//! Ends quickly although its probes do not.
//!
//! The kernel waits for a grace period for every probe of a function it takes off (80 to 110 ms each on 6.18), one
//! after another whoever closes them: a process with 35 of them needs 3 s to exit. So they are handed to a process that
//! has nothing else to do, and that closes them once this one is gone.

use std::{
    fs, io,
    os::{fd::RawFd, unix::process::CommandExt as _},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long the start of the helper may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// Starts `helper` with this process's probes. It has to end when its standard input does, which is when this process
/// has ended.
///
/// # Errors
/// When it cannot be started: then the probes are closed here.
pub fn hand_over(mut helper: Command) -> io::Result<()> {
    let probes = probes()?;
    if probes.is_empty() {
        return Ok(());
    }
    helper
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only fcntl is called, which is safe there.
    unsafe {
        helper.pre_exec(move || {
            for &fd in &probes {
                if libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    // The start of a program closes copies of what is open here, and the close of a file on a file system that does not
    // answer waits for it. By then the copies of the probes are there, which is what counts.
    let (done, started) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("hand-over".into())
        .spawn(move || {
            let child = helper.spawn().map(|mut child| {
                // Open until this process has ended. Nobody waits for the child here: it ends later.
                std::mem::forget(child.stdin.take());
            });
            // Who asked may have gone on.
            let _ = done.send(child);
        })?;
    started.recv_timeout(PATIENCE).unwrap_or(Ok(()))
}

/// Descriptors of what is attached: BPF links, and perf events where there are no links for them (before 5.15).
fn probes() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The descriptor of this listing is gone by then.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        if (target.starts_with("anon_inode:bpf") && target.contains("link"))
            || target == "anon_inode:[perf_event]"
        {
            found.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|fd| fd.parse::<RawFd>().ok()),
            );
        }
    }
    Ok(found)
}
