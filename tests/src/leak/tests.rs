use super::*;
use crate::{
    command::{act, sh},
    machine::{Scratch, patience, wait_for},
    plant,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

fn scanner(planted: &plant::Planted) -> Scanner {
    Scanner::new(&planted.secrets)
}

fn hits(scanner: &Scanner, bytes: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    scanner.find(bytes, &mut found, "it");
    found
}

#[test]
fn every_form_is_found() {
    let token = plant::github();
    let scanner = scanner(&token);
    assert!(hits(&scanner, b"nothing to see here").is_empty());
    assert!(hits(&scanner, b"ghp_").is_empty(), "a prefix is public");
    let text = &token.value;
    for before in ["", "u", "us", "use", "x-access-token:"] {
        let coded = STANDARD.encode(format!("{before}{text}@after"));
        assert!(!hits(&scanner, coded.as_bytes()).is_empty(), "{before}");
    }
    let coded: String = text.bytes().map(|b| format!("{b:02x}")).collect();
    for bytes in [text.clone(), coded.clone(), coded.to_uppercase()] {
        assert!(!hits(&scanner, format!("<{bytes}>").as_bytes()).is_empty());
    }
    // Half of it is a leak too; a few letters are not.
    assert!(!hits(&scanner, &text.as_bytes()[20..]).is_empty());
    assert!(hits(&scanner, &text.as_bytes()[32..]).is_empty());
}

#[test]
fn seams_hide_nothing() {
    let scratch = Scratch::new();
    let token = plant::stripe();
    let mut bytes = vec![b'.'; PIECE - 20];
    bytes.extend_from_slice(token.value.as_bytes());
    std::fs::write(scratch.join("log"), &bytes).unwrap();
    let report = scanner(&token).files(&[scratch.path().to_owned()], &[]);
    assert_eq!(report.files, 1);
    assert!(
        report.found.iter().any(|f| f.contains("(raw) in")),
        "{report:?}"
    );
    let left = scanner(&token).files(&[scratch.path().to_owned()], &[scratch.join("log")]);
    assert!(left.found.is_empty(), "{left:?}");
}

/// The control of the leak test: a process that does hold a secret is convicted.
#[test]
fn a_process_that_holds_it_is_convicted() {
    let token = plant::github();
    let scanner = scanner(&token);
    let holder = act("sleep").arg("60").env("ANY", &token.value).spawn();
    let clean = act("sleep").arg("60").spawn();
    let report = wait_for("sleep to be executed", patience(10), || {
        let report = scanner.memory(holder.pid());
        (!report.found.is_empty()).then_some(report)
    });
    assert!(report.bytes > 100_000, "{report:?}");
    let report = scanner.memory(clean.pid());
    assert!(report.found.is_empty(), "{report:?}");
}

/// A heap, and a form other than the raw one.
#[test]
fn a_heap_that_holds_it_encoded_is_convicted() {
    let token = plant::github();
    let python = "import sys,base64,time; t=sys.stdin.readline().strip(); \
        b=base64.b64encode(('x'+t).encode()); h=t.encode().hex(); del t; print('ready',flush=True); time.sleep(60)";
    let mut holder = act("/usr/bin/python3")
        .args(["-c", python])
        .spawn_listening();
    holder.say(&token.value);
    let scanner = scanner(&token);
    wait_for("both forms", patience(10), || {
        let found = scanner.memory(holder.pid()).found;
        let has = |form: &str| found.iter().any(|f| f.contains(form));
        (has("base64, shift 1") && has("(hex)")).then_some(())
    });
}

#[test]
fn a_core_image_is_searched() {
    if crate::machine::find("gcore").is_none() {
        panic!("gcore is missing: install gdb");
    }
    let scratch = Scratch::new();
    let token = plant::github();
    let holder = sh("read line; sleep 60 & wait").env("ANY", &token.value);
    let mut holder = holder.spawn_listening();
    holder.say("go");
    let report = scanner(&token).core_image(holder.pid(), scratch.path());
    assert!(!report.found.is_empty(), "{report:?}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}
