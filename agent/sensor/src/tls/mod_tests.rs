use super::*;
use crate::{Sensor, SensorError, SensorOptions};
use std::{
    io::Read,
    process::{Command, Stdio},
    time::Instant,
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

const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu/libssl.so.3";

#[test]
fn scans_are_quick_and_attach_once() {
    let Some(mut sensor) = sensor() else { return };
    let (start, before) = (Instant::now(), cpu());
    sensor.scan_libraries();
    eprintln!(
        "first scan: {:?}, cpu {:?}",
        start.elapsed(),
        cpu() - before
    );
    // Not by the clock: the kernel may be busy taking another test's probes off.
    assert!(cpu() - before < Duration::from_secs(3));
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
    let mut quickest = Duration::MAX;
    for _ in 0..8 {
        let before = cpu();
        sensor.scan_libraries();
        let took = cpu() - before;
        quickest = quickest.min(took);
        libraries(&sensor);
    }
    eprintln!(
        "later scans: {quickest:?} of {} processes, {attached} probes",
        sensor.libraries.processes.len()
    );
    // Nothing is opened twice: with everything known, a process costs two look-ups.
    assert!(quickest < Duration::from_micros(200 * (sensor.libraries.processes.len() as u64 + 50)));
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
    assert_eq!(sensor.attach_process_libraries(&[child.id()]), 1);
    assert_eq!(sensor.attach_process_libraries(&[child.id()]), 0);
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
    for _ in 0..=PATHS_EVERY + 1 {
        sensor.scan_libraries();
    }
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
