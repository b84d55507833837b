//! What the agent says at its start.

use super::*;

#[test]
fn what_ran_before_is_a_gap() {
    let gap = before_the_agent(42);
    assert_eq!(
        gap,
        GapSeen {
            boot_ns: gap.boot_ns,
            reason: "backfill".to_owned(),
            detail:
                "42 processes ran before the agent; what they read and sent until now was not seen"
                    .to_owned(),
            remedy: "start the agent early in the boot".to_owned(),
            count: 42,
            signal: "exec".to_owned(),
            ..GapSeen::default()
        }
    );
    assert!(gap.boot_ns > 0);
}

#[test]
fn an_environment_that_cannot_be_read_is_a_gap_of_its_process() {
    let pid = Pid {
        tgid: 77,
        start: 5_000,
    };
    let gap = unreadable_environment(pid, "Permission denied");
    assert_eq!(
        gap,
        GapSeen {
            boot_ns: gap.boot_ns,
            reason: "environment_unreadable".to_owned(),
            detail: "the environment of process 77 cannot be read: Permission denied".to_owned(),
            remedy: "run the agent with CAP_SYS_PTRACE".to_owned(),
            count: 1,
            signal: "exec".to_owned(),
            pid: Some(pid),
            ..GapSeen::default()
        }
    );
    assert!(gap.boot_ns > 0);
}

/// The fleet's key comes before the state directory's, which is not even made for it; a bad one ends the start.
#[test]
fn the_fleets_key_is_used_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("fleet.key");
    fs::write(&key, [7u8; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let state = dir.path().join("state");
    let mut options = EngineOptions {
        state_dir: Some(state.clone()),
        ..EngineOptions::default()
    };
    options.config.fingerprint_key_file = Some(key.clone());
    let expected = Fingerprinter::new(&[7; 32]).fingerprint(b"secret");
    assert_eq!(
        fingerprinter(&options).unwrap().fingerprint(b"secret"),
        expected
    );
    assert!(!state.exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = fingerprinter(&options).unwrap_err().to_string();
    assert!(
        error.contains(key.to_str().unwrap()) && error.contains("0644"),
        "{error}"
    );
    // Its own, which stays.
    options.config.fingerprint_key_file = None;
    let own = fingerprinter(&options).unwrap().fingerprint(b"secret");
    assert_ne!(own, expected);
    assert_eq!(fingerprinter(&options).unwrap().fingerprint(b"secret"), own);
}
