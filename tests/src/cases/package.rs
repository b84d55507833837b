//! The Debian package, as dpkg and systemd treat it from its installation to its purge.

use crate::{
    command::{Done, act},
    machine::{Scratch, turn},
    service::{BINARY, SOCKET, Service, UNIT, Watch, journal, property, require_guest, systemctl},
};
use std::{fs, path::Path};

/// Of the debug build; `cargo xtask test` makes it.
const PACKAGE: &str = "/job/keytrail.deb";
const CONFIG: &str = "/etc/keytrail/agent.toml";
const STATE: &str = "/var/lib/keytrail";

fn dpkg(words: &[&str]) -> Done {
    // The guest has neither diff nor ldconfig, which this package does not need. Under emulation unpacking takes its time.
    act("dpkg")
        .arg("--force-bad-path")
        .args(words)
        .limit(300)
        .run()
        .ok()
}

/// dpkg's memory, which the image lacks, and nothing of what other tests installed by hand.
fn prepare() {
    require_guest();
    for dir in ["info", "updates", "triggers", "parts", "alternatives"] {
        fs::create_dir_all(Path::new("/var/lib/dpkg").join(dir)).unwrap();
    }
    for file in ["status", "available"] {
        let path = Path::new("/var/lib/dpkg").join(file);
        if !path.exists() {
            fs::write(path, "").unwrap();
        }
    }
    let _ = systemctl(&["disable", "--now", "keytrail"]);
    // dpkg does not give back what was deleted of a configuration it remembers.
    let _ = act("dpkg")
        .args(["--force-bad-path", "-P", "keytrail"])
        .limit(300)
        .run();
    let left = ["/etc/systemd/system/keytrail.service", BINARY, CONFIG];
    act("rm").arg("-f").args(left).run().ok();
    act("rm").args(["-rf", STATE]).run().ok();
    systemctl(&["daemon-reload"]).ok();
}

pub fn installed_upgraded_removed_purged() {
    let _turn = turn();
    let scratch = Scratch::new();
    prepare();

    dpkg(&["-i", PACKAGE]);
    // Known to systemd at once, and not running before somebody says so.
    assert_eq!(property(UNIT, "LoadState"), "loaded", "{}", journal(UNIT));
    assert_eq!(property(UNIT, "ActiveState"), "inactive");
    dpkg(&["--verify", "keytrail"]);
    let service = Service::enable();
    let watch = Watch::start(&service, &scratch.join("watch.stderr"));
    super::systemd::a_read(&watch);
    drop(watch);
    service.doctor();

    // The same again is an upgrade: what the administrator wrote stays, and the new program runs.
    let first = service.pid();
    let own = format!("{}\n# ours\n", fs::read_to_string(CONFIG).unwrap());
    fs::write(CONFIG, &own).unwrap();
    dpkg(&["-i", PACKAGE]);
    assert_eq!(fs::read_to_string(CONFIG).unwrap(), own);
    assert_ne!(service.restarted(first), first);

    dpkg(&["-r", "keytrail"]);
    assert_eq!(property(UNIT, "ActiveState"), "inactive");
    assert_eq!(property(UNIT, "LoadState"), "not-found");
    for gone in [BINARY, SOCKET, "/usr/share/man/man1/keytrail.1.gz"] {
        assert!(!Path::new(gone).exists(), "{gone} is left");
    }
    let link = "/etc/systemd/system/multi-user.target.wants/keytrail.service";
    assert!(fs::symlink_metadata(link).is_err(), "it is still enabled");
    // Removed is not purged: both are there for who installs it again.
    assert!(Path::new(CONFIG).exists() && Path::new(STATE).exists());

    dpkg(&["-P", "keytrail"]);
    for gone in ["/etc/keytrail", STATE] {
        assert!(!Path::new(gone).exists(), "{gone} is left");
    }
}
