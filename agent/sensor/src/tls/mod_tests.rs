use super::*;
use crate::{Sensor, SensorError, SensorOptions};
use keytrail_model::TlsStack;
use std::{
    io::Read,
    process::{Command, Stdio},
};

/// A sensor, or nothing where there cannot be one.
fn sensor() -> Option<Sensor> {
    match Sensor::open(&SensorOptions {
        self_test: false,
        ..SensorOptions::default()
    }) {
        Ok(sensor) => Some(sensor),
        Err(SensorError::Privilege) => {
            eprintln!("skipped: needs root");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

const AT_MOST: Duration = Duration::from_secs(20);
const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu/libssl.so.3";

#[test]
fn scans_attach_once_and_keep_nobody_waiting() {
    let Some(mut sensor) = sensor() else { return };
    sensor.scan_libraries();
    sensor.libraries.take_all(&mut sensor.ebpf, AT_MOST);
    let attached = sensor.libraries.attachments;
    let libraries = |sensor: &Sensor| {
        let reports = sensor.libraries.reports();
        let system = reports
            .iter()
            .filter(|report| report.path == SYSTEM)
            .count();
        assert_eq!(
            system,
            usize::from(Path::new(SYSTEM).exists()),
            "{reports:?}"
        );
    };
    libraries(&sensor);
    // Who asks only says so.
    let mut quickest = Duration::MAX;
    for _ in 0..8 {
        let before = cpu();
        sensor.search_libraries();
        quickest = quickest.min(cpu() - before);
        sensor.libraries.take_all(&mut sensor.ebpf, AT_MOST);
        libraries(&sensor);
    }
    eprintln!("to ask for a scan: {quickest:?}; {attached} probes");
    assert!(quickest < Duration::from_millis(1));
}

/// A library of a process's own, as wheels and containers bring it, deleted while it is in use.
#[test]
fn a_bundled_library_comes_and_goes() {
    let (python, system) = (Path::new("/usr/bin/python3"), Path::new(SYSTEM));
    if !python.exists() || !system.exists() {
        eprintln!("not tried: there is no {} or no {SYSTEM}", python.display());
        return;
    }
    let Some(mut sensor) = sensor() else { return };
    sensor.scan_libraries();
    sensor.libraries.take_all(&mut sensor.ebpf, AT_MOST);
    let directory = tempfile::tempdir().unwrap();
    let bundled = directory.path().join("libssl-1a2b3c4d.so.3");
    std::fs::copy(system, &bundled).unwrap();
    let script = format!(
        "import ctypes, os, sys; ctypes.CDLL({bundled:?}); os.unlink({bundled:?}); print(flush=True); sys.stdin.read()"
    );
    let mut child = Command::new(python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let mut attach = || {
        sensor.search_process(child.id());
        let found = sensor.libraries.take_all(&mut sensor.ebpf, AT_MOST);
        sensor.take_libraries();
        sensor.status.libraries = sensor.libraries.reports();
        found
    };
    assert_eq!(attach(), 1);
    assert_eq!(attach(), 0);
    let report = |sensor: &Sensor| {
        let path = bundled.to_str().unwrap();
        sensor
            .status()
            .libraries
            .iter()
            .find(|report| report.path == path)
            .cloned()
    };
    let found = report(&sensor).unwrap();
    assert!(
        found.covered && found.hooks.len() == 3 && found.stack == Some(TlsStack::OpenSsl),
        "{found:?}"
    );
    assert!(
        found.hooks.iter().all(|hook| hook.contains("(emulated ")),
        "{found:?}"
    );

    drop(child.stdin.take());
    child.wait().unwrap();
    for _ in 0..=search::PATHS_EVERY + 1 {
        sensor.scan_libraries();
        sensor.libraries.take_all(&mut sensor.ebpf, AT_MOST);
    }
    sensor.status.libraries = sensor.libraries.reports();
    assert_eq!(report(&sensor), None);
    // Whatever else this host runs meanwhile: what is counted is what is attached.
    let links = |sensor: &Sensor| {
        let images = sensor.libraries.images.values();
        images.map(|image| image.links.len()).sum::<usize>()
    };
    assert_eq!(sensor.libraries.attachments, links(&sensor));
    // The host's own library stays, in use or not.
    assert!(
        sensor
            .status()
            .libraries
            .iter()
            .any(|report| report.path == SYSTEM && report.covered)
    );
}

#[test]
fn a_hook_is_known_by_its_number() {
    let libraries = Libraries::default();
    for (index, hook) in stacks::hooks().enumerate() {
        let number = 77 << HOOK_BITS | (index as u64 + 1);
        assert_eq!(libraries.hook(number), hook.name);
    }
    assert_eq!(libraries.hook(0), "uprobe");
    assert_eq!(libraries.hook(77 << HOOK_BITS), "uprobe");
    assert_eq!(libraries.hook(u64::MAX), "uprobe");
}
