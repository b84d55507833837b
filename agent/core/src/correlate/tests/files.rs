//! The life of a credential's file.

use super::*;

fn facts(mode: u32) -> FileFacts {
    FileFacts {
        path: "/root/.netrc".to_owned(),
        mode,
        ..FileFacts::default()
    }
}

fn changed(
    at: Option<Stamp>,
    (file, change): (FileFacts, FileChange),
    credentials: Vec<CredentialRef>,
) -> Observation {
    Observation::FileChanged {
        at,
        boot_ns: 9 * SEC,
        file,
        change,
        credentials,
    }
}

#[test]
fn one_event_a_credential_with_who_did_it() {
    let change = FileChange {
        before: Some(FileAccess {
            mode: 0o600,
            uid: 0,
            gid: 0,
        }),
        ..FileChange::new(FileAction::Permissions)
    };
    let twice = vec![credential("a"), credential("b"), credential("a")];
    let events = run(&[
        start(),
        exec(2, 1, 2 * SEC, Vec::new()),
        changed(Some(at(2, 9 * SEC)), (facts(0o644), change.clone()), twice),
        // Tighter is no technique of anybody's.
        changed(None, (facts(0o400), change), vec![credential("a")]),
    ]);
    let told = of(&events, "credential_file_changed");
    assert_eq!(told.len(), 3);
    for (event, name) in told.iter().zip(["a", "b", "a"]) {
        let fingerprint = &event.credential.as_ref().unwrap().fingerprint;
        assert_eq!(*fingerprint, credential(name).fingerprint);
        assert!(event.evidence.is_none() && event.coverage.is_empty());
    }
    assert_eq!(told[0].process.as_ref().unwrap().pid, 2);
    assert_eq!(told[0].source.as_ref().unwrap().mode, "0644");
    let before = told[0].change.as_ref().unwrap().before.unwrap();
    assert_eq!(before.mode, 0o600);
    assert_eq!(told[0].attack, ["T1222.002"]);
    assert!(told[2].process.is_none() && told[2].attack.is_empty());
}

#[test]
fn a_file_of_many_credentials_is_told_of_in_part_and_says_so() {
    let many: Vec<CredentialRef> = (0..40).map(|n| credential(&n.to_string())).collect();
    let change = FileChange::new(FileAction::Deleted);
    let events = run(&[start(), changed(None, (facts(0o600), change), many)]);
    let told = of(&events, "credential_file_changed");
    assert_eq!(told.len(), 32);
    assert_eq!(
        told[31].coverage,
        ["the same is true of 8 more in this file"]
    );
    assert!(told[..31].iter().all(|e| e.coverage.is_empty()));
}
