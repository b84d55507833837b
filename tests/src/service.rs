//! keytrail as a systemd service, installed as the README says. Only for a guest whose PID 1 is systemd: it changes the
//! machine's own units.

use crate::{
    command::{Act, Background, Done, act},
    events::{Event, list, parse_lines},
    machine::{is_slow, keytrail, patience, wait_for},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The unit that is tested.
pub const UNIT: &str = "keytrail.service";
const UNITS: &str = "/etc/systemd/system";
/// What an emulated machine needs longer for than the unit grants.
const PATIENT: &str = "keytrail.service.d/patient.conf";
/// Where the unit's agent serves.
pub const SOCKET: &str = "/run/keytrail/keytrail.sock";
pub const BINARY: &str = "/usr/bin/keytrail";

/// `systemctl WORDS...`
pub fn systemctl(words: &[&str]) -> Done {
    act("systemctl").args(words).limit(120).run()
}

/// A property of a unit as `systemctl show` gives it.
#[must_use]
pub fn property(unit: &str, name: &str) -> String {
    let done = systemctl(&["show", "--value", "--property", name, unit]).ok();
    done.stdout_text().trim().to_owned()
}

/// What a unit has logged since boot.
#[must_use]
pub fn journal(unit: &str) -> String {
    let done = act("journalctl")
        .args(["--boot", "--no-pager", "--output=cat", "--unit", unit])
        .run();
    done.stdout_text()
}

/// Writes a unit, or a piece of one (`keytrail.service.d/NAME.conf`).
pub fn write_unit(name: &str, text: &str) {
    let path = Path::new(UNITS).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    systemctl(&["daemon-reload"]).ok();
}

pub fn remove_unit(name: &str) {
    fs::remove_file(Path::new(UNITS).join(name)).unwrap();
    systemctl(&["daemon-reload"]).ok();
}

/// Fails on any machine but a guest that systemd runs.
pub fn require_guest() {
    let pid1 = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(
        (pid1.trim(), std::env::var_os("KEYTRAIL_VM").is_some()),
        ("systemd", true),
        "these tests install a service: run them with `cargo xtask test vm`"
    );
}

/// Fails when `keytrail doctor` names a fault, in its table: all is served and proven. That something came too late or was lost
/// is honest in an emulated machine, or beside others, and no fault.
pub fn is_well(done: &Done) {
    let said = done.stdout_text();
    let verdict = said.lines().next().unwrap_or_default();
    let problems = verdict
        .strip_prefix("NOT WELL: ")
        .map(|rest| rest.split(" To be known: ").next().unwrap_or_default());
    let faults: Vec<&str> = problems
        .into_iter()
        .flat_map(|problems| problems.split("; "))
        .filter(|problem| !problem.contains(" since the agent started"))
        .collect();
    assert!(faults.is_empty(), "{said}");
    assert_eq!(done.status.success(), problems.is_none(), "{said}");
}

/// The running service. It is stopped with the value, and its log shown when the test fails.
pub struct Service;

impl Service {
    /// Installs it word by word as the README says and starts it. Anew each time: another test may have removed it.
    pub fn start() -> Self {
        require_guest();
        let install = |words: &[&str]| act("install").args(words).run().ok();
        let binary = keytrail();
        install(&["-m", "0755", binary.to_str().unwrap(), BINARY]);
        install(&[
            "-D",
            "-m",
            "0644",
            "/job/agent.toml",
            "/etc/keytrail/agent.toml",
        ]);
        install(&["-m", "0644", "/job/keytrail.service", UNITS]);
        if is_slow() {
            write_unit(PATIENT, "[Service]\nTimeoutStartSec=600\nWatchdogSec=300\n");
        }
        systemctl(&["daemon-reload"]).ok();
        Self::enable()
    }

    /// Starts the unit that is installed.
    pub fn enable() -> Self {
        let service = Self;
        let done = systemctl(&["enable", "--now", "keytrail"]);
        assert!(
            done.status.success(),
            "{}{}",
            done.stderr_text(),
            journal(UNIT)
        );
        assert_eq!(property(UNIT, "ActiveState"), "active");
        service
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        property(UNIT, "MainPID").parse().unwrap()
    }

    /// `keytrail WORDS...` as a user of the machine types it.
    #[must_use]
    pub fn keytrail(&self, words: &[&str]) -> Act {
        act(BINARY).args(words)
    }

    /// `keytrail doctor`, which [`is_well`].
    pub fn doctor(&self) -> Done {
        let done = self.keytrail(&["doctor"]).limit(60).run();
        is_well(&done);
        done
    }

    /// Waits until another process than `old` is the unit's and has said that it is ready.
    pub fn restarted(&self, old: u32) -> u32 {
        wait_for("the unit to be active again", patience(20), || {
            let pid = self.pid();
            let active = property(UNIT, "ActiveState") == "active";
            (active && pid != 0 && pid != old).then_some(pid)
        })
    }

    /// Stops it; gives how long that took.
    pub fn stop(&self) -> Duration {
        let began = Instant::now();
        systemctl(&["stop", "keytrail"]).ok();
        began.elapsed()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the unit's log:\n{}", journal(UNIT));
        }
        let _ = systemctl(&["stop", "keytrail"]);
        if fs::remove_file(Path::new(UNITS).join(PATIENT)).is_ok() {
            let _ = systemctl(&["daemon-reload"]);
        }
    }
}

/// `keytrail watch -o json`, from the oldest event on.
pub struct Watch {
    _process: Background,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Watch {
    pub fn start(service: &Service, stderr: &Path) -> Self {
        let process = service
            .keytrail(&["watch", "--since", "all", "-o", "json"])
            .spawn_reading(stderr);
        Self {
            output: process.output(),
            _process: process,
        }
    }

    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let output = self.output.lock().unwrap();
        let whole = output
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        parse_lines(std::str::from_utf8(&output[..whole]).unwrap())
    }

    /// Waits for an event; the failure lists what there was instead.
    pub fn expect(&self, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        let began = Instant::now();
        loop {
            let events = self.events();
            if let Some(event) = events.iter().find(|e| is(e)) {
                return event.clone();
            }
            assert!(
                began.elapsed() < patience(60),
                "waited in vain for {what}; there was:\n{}",
                list(&events)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The agent's socket.
#[must_use]
pub fn socket() -> PathBuf {
    SOCKET.into()
}
