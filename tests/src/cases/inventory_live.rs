//! The inventory that a running agent keeps: files no rule names, written, changed, renamed and deleted under its eyes.

use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, keytrail, patience, turn, wait_for},
    plant::{self, Planted},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A fresh AWS key as it stands in somebody's notes.
fn notes(key: &Planted) -> String {
    format!(
        "the exporter's key, for now:\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        key.identifier.as_deref().unwrap(),
        key.value
    )
}

/// Has a shell write a file; gives its pid.
fn write(file: &Path, text: &str) -> u32 {
    sh("cat > \"$1\"; :").arg(file).stdin(text).run().ok().pid
}

/// What is said to be created in this file.
fn created(agent: &Agent, file: &Path) -> Vec<Event> {
    let mut events = of_kind(&agent.events(), "credential_created");
    events.retain(|e| Path::new(e.path()) == file);
    events
}

/// Waits for the event that a key was created in a file, and for no second one.
fn is_created(agent: &Agent, file: &Path, key: &Planted) -> Event {
    let mut watch = agent.stopwatch();
    let event = agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == file && e.shows(key)
    });
    watch.inspect(agent.pid());
    let took = watch.took();
    assert!(took < patience(2), "it came after {took:?}");
    event
}

/// The writer is named. Who reads the file before it is inspected (another agent on this machine) reveals it without
/// that: then nobody is.
fn written_by(event: &Event, root: u32) {
    assert!(
        event.process.is_none() || event.in_tree(root),
        "{}",
        event.brief()
    );
}

fn nothing_new(agent: &Agent, file: &Path, before: usize) {
    std::thread::sleep(patience(2));
    agent.sentinel();
    let events = created(agent, file);
    assert_eq!(events.len(), before, "{}", list(&events));
}

/// `keytrail inventory [WORDS...]` with the agent's state.
fn inventory(agent: &Agent, root: &Path, words: &[&str]) -> (Value, String) {
    let done = act(keytrail())
        .arg("inventory")
        .args(words)
        .arg("--root")
        .arg(root)
        .arg("--state-dir")
        .arg(agent.dir().join("state"))
        .args(["-o", "json"])
        .limit(60)
        .run()
        .ok();
    let text = done.stdout_text();
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (value, text)
}

/// Changes of one kind that a diff names, as fingerprints.
fn changes(document: &Value, change: &str) -> Vec<String> {
    let all = document["changes"].as_array().unwrap();
    all.iter()
        .filter(|c| c["change"] == change)
        .map(|c| c["credential"]["fingerprint"].as_str().unwrap().to_owned())
        .collect()
}

fn entry<'a>(document: &'a Value, fingerprint: &str) -> &'a Value {
    let all = document["credentials"].as_array().unwrap();
    all.iter()
        .find(|c| c["fingerprint"] == fingerprint)
        .unwrap_or_else(|| panic!("{fingerprint} is not in {document:#}"))
}

/// Fails when a part of a secret is in anything the agent wrote or said.
fn nothing_leaked(agent: &Agent, said: &[String], keys: &[&Planted]) {
    let mut texts: Vec<(String, Vec<u8>)> = vec![
        ("stdout".into(), agent.printed()),
        ("stderr".into(), agent.log().into_bytes()),
    ];
    texts.extend(
        said.iter()
            .map(|s| ("inventory".into(), s.clone().into_bytes())),
    );
    for file in fs::read_dir(agent.dir().join("state")).unwrap() {
        let path = file.unwrap().path();
        texts.push((path.display().to_string(), fs::read(&path).unwrap()));
    }
    for secret in plant::secrets(keys.iter().copied()) {
        let part = &secret.bytes[secret.public_prefix..][..16];
        for (name, text) in &texts {
            assert!(
                !text.windows(part.len()).any(|w| w == part),
                "{} is in {name}",
                secret.label
            );
        }
    }
}

/// A key in a place that no rule names: created, rotated, removed, and back.
pub fn written_anywhere() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work/deep");
    let agent = Agent::start(&scratch);
    let file = work.join("notes.txt");
    let (first, second) = (plant::aws(), plant::aws());

    // The state before: nothing.
    inventory(&agent, &work, &[]);

    let shell = write(&file, &notes(&first));
    let event = is_created(&agent, &file, &first);
    written_by(&event, shell);
    assert_eq!(event.source_type(), "file", "{}", event.brief());
    let old = event.fingerprint().to_owned();
    nothing_new(&agent, &file, 1);
    let (diff, said) = inventory(&agent, &work, &["diff"]);
    assert_eq!(diff["to"]["live"], true, "{said}");
    assert_eq!(changes(&diff, "added"), [old.as_str()], "{said}");
    let (document, _) = inventory(&agent, &work, &[]);
    let seen = entry(&document, &old)["first_seen"].clone();
    let place = &entry(&document, &old)["places"][0];
    assert_eq!(place["path"], file.to_str().unwrap(), "{place:#}");

    // Another key in its stead, written aside and renamed as editors do.
    let aside = work.join(".notes.txt.swp");
    write(&aside, &notes(&second));
    fs::rename(&aside, &file).unwrap();
    let event = is_created(&agent, &file, &second);
    let new = event.fingerprint().to_owned();
    assert_ne!(old, new);
    assert!(created(&agent, &aside).is_empty());
    wait_for("the rotation", patience(5), || {
        let (diff, _) = inventory(&agent, &work, &["diff"]);
        (changes(&diff, "rotated") == [new.as_str()]).then_some(())
    });
    let (document, said) = inventory(&agent, &work, &[]);
    let entry = entry(&document, &new);
    assert!(!entry["rotated"].is_null(), "{entry:#}");
    assert!(
        seen.is_string() && !entry["first_seen"].is_null(),
        "{seen} {entry:#}"
    );

    // Gone, and the same again: nothing that was not seen before.
    fs::remove_file(&file).unwrap();
    wait_for("the removal", patience(5), || {
        let (diff, _) = inventory(&agent, &work, &["diff"]);
        (changes(&diff, "removed") == [new.as_str()]).then_some(())
    });
    write(&file, &notes(&second));
    write(&file, &notes(&second));
    nothing_new(&agent, &file, 2);
    wait_for("the key again", patience(5), || {
        let (diff, _) = inventory(&agent, &work, &["diff"]);
        changes(&diff, "removed").is_empty().then_some(())
    });
    nothing_leaked(&agent, &[said], &[&first, &second]);
}

/// Files without a credential, and what is appended to one of them.
pub fn clean_files_are_silent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    // There before the agent, and never inspected by it.
    let old = work.join("old.conf");
    let known = plant::aws();
    fs::write(&old, notes(&known)).unwrap();
    let agent = Agent::start(&scratch);
    let file = work.join("plain.conf");
    write(&file, "colour = blue\nplaces = \"of no interest\"\n");
    write(
        &work.join("program"),
        "\u{7f}ELF and more of it, and more\0\0\0",
    );
    // It may have held its key long since.
    write(&old, &(notes(&known) + "# touched\n"));
    nothing_new(&agent, &file, 0);
    let mut all = of_kind(&agent.events(), "credential_created");
    // The machine has a life of its own.
    all.retain(|e| Path::new(e.path()).starts_with(&work));
    assert!(all.is_empty(), "{}", list(&all));

    let key = plant::aws();
    let done = sh("cat >> \"$1\"; :")
        .arg(&file)
        .stdin(notes(&key))
        .run()
        .ok();
    let event = is_created(&agent, &file, &key);
    written_by(&event, done.pid);
    // A copy is a new place of a known credential.
    let copy = work.join("copy.conf");
    fs::copy(&file, &copy).unwrap();
    is_created(&agent, &copy, &key);
    nothing_leaked(&agent, &[], &[&key, &known]);
}

/// Many small files, as compilers make them, and one with a key among them: bounded, and not lost in them.
pub fn a_storm_of_files() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let before = agent.cpu();
    let began = Instant::now();
    let done = sh("cd \"$1\" || exit 1
        i=0; while [ $i -lt 3000 ]; do
            echo \"int f$i(void) { return $i; } /* a line of text that is read */\" > f$i.c
            i=$((i+1))
        done")
    .arg(&work)
    .limit(120)
    .run()
    .ok();
    assert!(done.status.success());
    let key = plant::github();
    let file = work.join("f9999.c");
    fs::write(&file, format!("token = \"{}\"\n", key.value)).unwrap();
    agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == file
    });
    let (took, cost) = (began.elapsed(), agent.cpu() - before);
    eprintln!("3000 files in {took:?} cost the agent {cost:?}");
    // Files made by the test's own agent and shell are inspected in milliseconds of a slow machine's time.
    assert!(
        cost < Duration::from_secs(3) * crate::machine::slowness(),
        "{cost:?}"
    );
    nothing_leaked(&agent, &[], &[&key]);
}

/// A file system that is mounted while the agent runs: reported, and never kept from being unmounted.
pub fn mounted_later() {
    let _turn = turn();
    let scratch = Scratch::new();
    let point = scratch.make("mnt");
    let agent = Setup::new(&scratch).start();
    let mounted = Mounted::tmpfs(&point);
    // The agent learns of the mount, and marks it.
    std::thread::sleep(patience(1));
    let key = plant::aws();
    let file = point.join("notes.txt");
    write(&file, &notes(&key));
    is_created(&agent, &file, &key);
    for i in 0..50 {
        fs::write(point.join(format!("f{i}")), "some text that is inspected\n").unwrap();
    }
    mounted.unmount();
    agent.assert_alive();
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(point: &Path) -> Self {
        act("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(point)
            .run()
            .ok();
        Mounted(point.to_owned())
    }

    /// Not lazily: nobody else may hold it.
    fn unmount(self) {
        act("umount").arg(&self.0).run().ok();
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = act("umount").arg("-l").arg(&self.0).run();
    }
}
