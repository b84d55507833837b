use super::*;
use crate::{SigningKey, Tool, entry_of, pack};
use std::fs;
use std::path::PathBuf;

struct Made {
    dir: tempfile::TempDir,
    bundle: PathBuf,
    key: SigningKey,
}

const FILES: [&str; 3] = ["events.jsonl", "findings.jsonl", "report.html"];

fn content(name: &str) -> Vec<u8> {
    (0..9_000)
        .flat_map(|n| format!("{name} line {n}\n").into_bytes())
        .collect()
}

fn manifest(dir: &Path, key: &SigningKey) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        tool: Tool {
            name: "keytrail".to_owned(),
            version: "0.0.0".to_owned(),
            sha256: String::new(),
        },
        signing_key: key.public().name(),
        files: FILES
            .iter()
            .map(|name| entry_of(dir, name).unwrap())
            .collect(),
        ..Manifest::default()
    }
}

fn made() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    for name in FILES {
        fs::write(work.join(name), content(name)).unwrap();
    }
    // An empty file is a member like any other.
    fs::write(work.join(FILES[1]), "").unwrap();
    let key = SigningKey::fresh().unwrap();
    let bundle = dir.path().join("h.tar.zst");
    pack(&work, &manifest(&work, &key), 1_790_000_000, &key, &bundle).unwrap();
    Made { dir, bundle, key }
}

impl Made {
    fn report(&self) -> Report {
        verify(&self.bundle, None).unwrap()
    }

    /// The same archive with one file changed after its manifest was made, signed with the key of who changed it.
    fn forged(&self, change: impl FnOnce(&Path, &mut Manifest)) -> Report {
        let work = self.dir.path().join("work");
        let mut manifest = manifest(&work, &self.key);
        let true_manifest = serde_json::to_vec_pretty(&manifest).unwrap();
        change(&work, &mut manifest);
        let bundle = self.dir.path().join("forged.tar.zst");
        pack(&work, &manifest, 1_790_000_000, &self.key, &bundle).unwrap();
        // The manifest that was made before stands in front again.
        let bytes = fs::read(&bundle).unwrap();
        let length = crate::frames::read_frame(&bytes, |_| true).unwrap();
        let mut forged = Vec::new();
        let head = crate::ustar::header(MANIFEST, true_manifest.len() as u64, 0);
        let padding = vec![0; crate::ustar::padding(true_manifest.len() as u64)];
        let first = [head.as_slice(), &true_manifest, &padding].concat();
        crate::frames::frame(first.as_slice(), &mut forged).unwrap();
        forged.extend_from_slice(&bytes[length..]);
        fs::write(&bundle, &forged).unwrap();
        fs::write(beside(&bundle, ".sig"), self.key.sign(&forged)).unwrap();
        verify(&bundle, None).unwrap()
    }
}

#[test]
fn what_was_made_is_intact_and_others_read_it() {
    let made = made();
    let report = made.report();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.intact, report.key), (3, Some(made.key.public())));
    assert_eq!(report.manifest.unwrap().tool.version, "0.0.0");
    let events = read_member(&made.bundle, FILES[0], usize::MAX)
        .unwrap()
        .unwrap();
    assert!(events == content(FILES[0]));
    assert_eq!(
        read_member(&made.bundle, FILES[0], 5).unwrap().unwrap(),
        b"event"
    );
    assert_eq!(read_member(&made.bundle, "none", 5).unwrap(), None);
    // tar and zstd of this system, where they are.
    let listed = std::process::Command::new("tar")
        .args(["--zstd", "-tf"])
        .arg(&made.bundle)
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
    {
        let names = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(
            names.lines().collect::<Vec<_>>(),
            [MANIFEST, FILES[0], FILES[1], FILES[2]]
        );
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let made = made();
    let whole = fs::read(&made.bundle).unwrap();
    let mut named = 0;
    for at in (0..whole.len())
        .step_by(61)
        .chain(whole.len() - 40..whole.len())
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&made.bundle, &bytes).unwrap();
        let report = made.report();
        assert!(!report.is_intact(), "byte {at}");
        named += usize::from(report.changes.iter().any(|c| {
            matches!(
                c,
                Change::Content { .. } | Change::Cut { .. } | Change::Archive { .. }
            )
        }));
    }
    assert!(named > 100, "{named}");
}

#[test]
fn a_damaged_member_leaves_the_others_readable() {
    let made = made();
    let mut bytes = fs::read(&made.bundle).unwrap();
    let first = crate::frames::read_frame(&bytes, |_| true).unwrap();
    let second = crate::frames::read_frame(&bytes[first..], |_| true).unwrap();
    for byte in &mut bytes[first + second / 2..first + second / 2 + 64] {
        *byte = !*byte;
    }
    fs::write(&made.bundle, &bytes).unwrap();
    let report = made.report();
    assert_eq!(report.signature, SignatureState::Bad);
    let name = |c: &Change| match c {
        Change::Content { name, .. } | Change::Cut { name, .. } | Change::Size { name, .. } => {
            name.clone()
        }
        Change::Archive { at, .. } => {
            assert!((*at as usize) < first + second, "{at}");
            FILES[0].to_owned()
        }
        other => panic!("{other:?}"),
    };
    assert!(!report.changes.is_empty());
    assert!(
        report.changes.iter().all(|c| name(c) == FILES[0]),
        "{:?}",
        report.changes
    );
    assert_eq!(report.intact, 2);
}

#[test]
fn a_change_within_a_file_is_found_where_it_is() {
    let made = made();
    let report = made.forged(|work, manifest| {
        let mut bytes = content(FILES[0]);
        bytes[5_000] ^= 1;
        fs::write(work.join(FILES[0]), bytes).unwrap();
        manifest.files[0] = entry_of(work, FILES[0]).unwrap();
    });
    assert_eq!(report.signature, SignatureState::Good);
    assert_eq!(
        report.changes,
        [Change::Content {
            name: FILES[0].to_owned(),
            within: Some((4_096, 5_120))
        }]
    );
}

#[test]
fn shorter_longer_missing_added_and_twice() {
    let made = made();
    let whole = content(FILES[0]);
    let (name, was) = (FILES[0].to_owned(), whole.len() as u64);
    for is in [was - 1, was - 3_000, was + 1, 0] {
        let report = made.forged(|work, manifest| {
            let mut bytes = content(FILES[0]);
            bytes.resize(is as usize, b'x');
            fs::write(work.join(FILES[0]), bytes).unwrap();
            manifest.files[0] = entry_of(work, FILES[0]).unwrap();
        });
        fs::write(made.dir.path().join("work").join(FILES[0]), &whole).unwrap();
        let name = name.clone();
        assert_eq!(report.changes, [Change::Size { name, was, is }]);
    }
    let report = made.forged(|_, manifest| drop(manifest.files.remove(1)));
    let name = FILES[1].to_owned();
    assert_eq!(report.changes, [Change::Missing { name }]);
    let report = made.forged(|work, manifest| {
        fs::write(work.join("more.txt"), "more").unwrap();
        manifest.files.push(entry_of(work, "more.txt").unwrap());
    });
    let name = "more.txt".to_owned();
    assert_eq!(report.changes, [Change::Added { name }]);
    let report = made.forged(|_, manifest| manifest.files.push(manifest.files[2].clone()));
    let name = FILES[2].to_owned();
    assert_eq!(report.changes, [Change::Twice { name }]);
}

#[test]
fn cut_at_any_byte_is_found() {
    let made = made();
    let whole = fs::read(&made.bundle).unwrap();
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&made.bundle, &whole[..length]).unwrap();
        let report = made.report();
        assert_ne!(report.signature, SignatureState::Good);
        assert!(!report.changes.is_empty(), "{length}");
    }
    let longer = [whole.as_slice(), b"more"].concat();
    fs::write(&made.bundle, longer).unwrap();
    let report = made.report();
    assert!(
        matches!(report.changes.as_slice(), [Change::Archive { at, .. }] if *at == whole.len() as u64),
        "{:?}",
        report.changes
    );
}

#[test]
fn keys_and_signatures_that_are_not_there_or_not_the_ones() {
    let made = made();
    let other = made.dir.path().join("other.pub");
    fs::write(&other, SigningKey::fresh().unwrap().public().pem()).unwrap();
    let made_with = made.key.public().name();
    let report = verify(&made.bundle, Some(&other)).unwrap();
    assert_eq!(report.signature, SignatureState::WrongKey { made_with });
    assert!(report.changes.is_empty() && !report.is_intact());
    fs::write(&other, "no key").unwrap();
    let report = verify(&made.bundle, Some(&other)).unwrap();
    assert!(matches!(report.signature, SignatureState::NoKey(_)));
    fs::write(beside(&made.bundle, ".sig"), [1; 64]).unwrap();
    assert_eq!(made.report().signature, SignatureState::Bad);
    fs::remove_file(beside(&made.bundle, ".sig")).unwrap();
    assert!(matches!(
        made.report().signature,
        SignatureState::Missing(_)
    ));
}

#[test]
fn what_is_no_bundle_is_reported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let mut bomb = Vec::new();
    crate::frames::frame([0; 5 << 20].as_slice(), &mut bomb).unwrap();
    for bytes in [
        b"".as_slice(),
        b"text",
        &[0x28, 0xb5, 0x2f, 0xfd].repeat(20_000),
        &bomb,
    ] {
        fs::write(&path, bytes).unwrap();
        let report = verify(&path, None).unwrap();
        assert!(!report.is_intact());
        assert!(
            report
                .changes
                .iter()
                .any(|c| matches!(c, Change::Manifest { .. })),
            "{report:?}"
        );
    }
    assert!(verify(&dir.path().join("none"), None).is_err());
}

#[test]
fn a_bomb_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    // A frame with a window of 1 MiB and a million blocks of 128 KiB of zeroes, four bytes each: 128 GiB.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
    let block = ((128u32 << 10) << 3 | 1 << 1).to_le_bytes();
    for _ in 0..1 << 20 {
        bytes.extend_from_slice(&[block[0], block[1], block[2], 0]);
    }
    fs::write(&path, &bytes).unwrap();
    let report = verify(&path, None).unwrap();
    let reported =
        |c: &Change| matches!(c, Change::Archive { why, .. } if why.contains("more in it than"));
    assert!(report.changes.iter().any(reported), "{:?}", report.changes);
}

#[test]
fn what_lies_under_its_names_is_replaced_and_never_followed() {
    let made = made();
    let victim = made.dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let bundle = made.dir.path().join("second.tar.zst");
    for path in [
        bundle.clone(),
        beside(&bundle, ".sig"),
        beside(&bundle, ".pub"),
    ] {
        std::os::unix::fs::symlink(&victim, path).unwrap();
    }
    let work = made.dir.path().join("work");
    pack(&work, &manifest(&work, &made.key), 0, &made.key, &bundle).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(verify(&bundle, None).unwrap().is_intact());
}
