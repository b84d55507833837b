//! The life of a credential's file: replaced, rotated, deleted, moved, opened to others, linked, mounted over; and who did it.

use crate::{
    agent::Agent,
    command::{act, sh},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, patience, turn},
    plant::{self, Planted},
};
use keytrail_model::FileAction;
use std::{
    fs,
    path::{Path, PathBuf},
};

const KIND: &str = "credential_file_changed";

fn text(key: &Planted) -> String {
    format!("GITHUB_TOKEN={}\n", key.value)
}

fn action(event: &Event) -> &'static str {
    FileAction::word_of(event.change.as_ref().map_or(0, |c| c.action))
}

/// What was reported about this file, in order.
fn reported(agent: &Agent, file: &Path) -> Vec<Event> {
    let mut events = of_kind(&agent.events(), KIND);
    events.retain(|e| Path::new(e.path()) == file);
    events
}

/// Waits for what is reported about a file.
fn expect(agent: &Agent, file: &Path, what: &str) -> Event {
    agent.expect(what, 0, |e| {
        e.is(KIND) && Path::new(e.path()) == file && action(e) == what
    })
}

fn change(event: &Event) -> &keytrail_proto::v1::FileChange {
    event.change.as_ref().unwrap()
}

/// A file with a token that a running agent knows and follows.
fn known(agent: &Agent, dir: &Path, name: &str) -> (PathBuf, Planted) {
    let (file, key) = (dir.join(name), plant::github());
    sh("umask 077; cat >$1; cat $1 >/dev/null")
        .arg(&file)
        .stdin(text(&key))
        .run()
        .ok();
    agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == file
    });
    // It is followed a moment after it was reported.
    std::thread::sleep(patience(1));
    (file, key)
}

/// Nothing else was reported about this file.
fn only(agent: &Agent, file: &Path, actions: &[&str]) {
    std::thread::sleep(patience(1));
    agent.sentinel();
    let events = reported(agent, file);
    let said: Vec<&str> = events.iter().map(action).collect();
    assert_eq!(said, actions, "{}", list(&events));
}

fn by(event: &Event, root: u32, program: &str) {
    assert!(
        event.in_tree(root) && event.executable().ends_with(program),
        "not by {program} below {root}: {}",
        event.brief()
    );
}

/// chmod and chown, with what was before; opening it to everybody is a finding.
pub fn opened_to_others() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let before = reported(&agent, &file).len();
    let done = sh("chmod 644 $1; :").arg(&file).run().ok();
    let permissions =
        |e: &Event, root: u32| e.is(KIND) && action(e) == "permissions" && e.in_tree(root);
    let event = agent.expect("the mode", done.pid, |e| permissions(e, done.pid));
    by(&event, done.pid, "/chmod");
    assert_eq!(change(&event).previous_mode, "0600", "{}", event.brief());
    assert_eq!(event.source.as_ref().unwrap().mode, "0644");
    std::thread::sleep(patience(1));
    let done = sh("chown 1234:4321 $1; :").arg(&file).run().ok();
    let event = agent.expect("the owner", done.pid, |e| permissions(e, done.pid));
    by(&event, done.pid, "/chown");
    let source = event.source.as_ref().unwrap();
    assert_eq!((source.owner_uid, source.owner_gid), (1234, 4321));
    assert_eq!(change(&event).previous_owner_uid, Some(0));
    assert_eq!(change(&event).previous_owner_gid, Some(0));
    std::thread::sleep(patience(1));
    // Times of a file are nobody's business.
    sh("touch $1").arg(&file).run().ok();
    std::thread::sleep(patience(1));
    agent.sentinel();
    assert_eq!(
        reported(&agent, &file).len(),
        before + 2,
        "{}",
        list(&reported(&agent, &file))
    );
    agent.stop();
}

/// What was there before the agent, and is rewritten by who read it before anybody looked, is no new credential.
pub fn rewritten_unseen() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let plant = |name: &str| {
        let file = work.join(name);
        fs::write(&file, format!("# x\n{}", text(&plant::github()))).unwrap();
        file
    };
    let before = [plant("one.env"), plant("two.env")];
    let agent = Agent::start(&scratch);
    sh("sed -i 's/^# x/# y/' $1; cp $2 $3/copy; cat $3/copy > $2; rm $3/copy")
        .arg(&before[0])
        .arg(&before[1])
        .arg(&work)
        .run()
        .ok();
    // The control: what is new is reported as such.
    let (new, _) = known(&agent, &work, "new.env");
    agent.sentinel();
    let created = of_kind(&agent.events(), "credential_created");
    assert!(created.iter().any(|e| Path::new(e.path()) == new));
    for file in &before {
        let reported = created.iter().filter(|e| Path::new(e.path()) == file);
        assert_eq!(reported.count(), 0, "{}", list(&created));
        // Nothing is lost by that: who reads it is reported.
        let done = sh("cat $1; :").arg(file).run().ok();
        agent.expect("the read", done.pid, |e| {
            e.is("credential_read") && e.in_tree(done.pid) && Path::new(e.path()) == file
        });
    }
    agent.stop();
}

/// Another token: by sed, by an editor's rename with a backup, and by truncating.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn rotated() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, first) = known(&agent, &work, "app.env");
    let mut old = agent
        .expect("the first", 0, |e| {
            e.is("credential_created") && Path::new(e.path()) == file
        })
        .fingerprint()
        .to_owned();
    let mut before = first.value;
    for (how, script, program) in [
        ("sed", "sed -i s/$2/$3/ $1; :", "/sed"),
        (
            "an editor",
            "mv $1 $1~; printf 'GITHUB_TOKEN=%s\\n' $3 >$1; rm $1~; :",
            "",
        ),
        (
            "a truncating copy",
            "printf 'GITHUB_TOKEN=%s\\n' $3 >$1.new; cp $1.new $1; rm $1.new; :",
            "",
        ),
    ] {
        let mut tries = 0;
        let (event, done) = loop {
            tries += 1;
            let since = agent.sequence();
            let next = plant::github();
            let done = sh(script)
                .arg(&file)
                .arg(&before)
                .arg(&next.value)
                .run()
                .ok();
            before = next.value;
            let is_rotation = |e: &Event| {
                e.is(KIND)
                    && Path::new(e.path()) == file
                    && action(e) == "rotated"
                    && change(e).previous_fingerprint == old
            };
            let is_new = |e: &Event| {
                e.is("credential_created") && Path::new(e.path()) == file && e.sequence() > since
            };
            let mut event = agent.expect(how, 0, |e| is_rotation(e) || is_new(e));
            if is_new(&event) {
                agent.wait_idle();
                if let Some(rotation) = agent.events().into_iter().find(|e| is_rotation(e)) {
                    event = rotation;
                }
            }
            if is_rotation(&event) {
                break (event, done);
            }
            // A shell that had no processor between moving the file away and writing another has it seen missing, which is
            // reported as what it is.
            let events = reported(&agent, &file);
            let moved = |e: &Event| action(e) == "moved" && e.sequence() > since;
            assert!(
                events.iter().any(moved) && tries < 3,
                "{how}, try {tries}: {}\n{}",
                event.brief(),
                list(&events)
            );
            old = event.fingerprint().to_owned();
            std::thread::sleep(patience(1));
        };
        assert_ne!(event.fingerprint(), old, "{how}");
        if program.is_empty() {
            // Several programs did it: one of them, or nobody.
            assert!(
                event.process.is_none() || event.in_tree(done.pid),
                "{}",
                event.brief()
            );
        } else {
            by(&event, done.pid, program);
        }
        old = event.fingerprint().to_owned();
        std::thread::sleep(patience(1));
    }
    let rotations = reported(&agent, &file)
        .iter()
        .filter(|e| action(e) == "rotated")
        .count();
    assert_eq!(rotations, 3, "{}", list(&reported(&agent, &file)));
    // Not in it any more.
    let done = sh("sed -i /TOKEN/d $1; :").arg(&file).run().ok();
    let event = expect(&agent, &file, "removed");
    assert_eq!(event.fingerprint(), old);
    by(&event, done.pid, "/sed");
    agent.stop();
}

/// The same content under the same name, in another file.
pub fn replaced() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let done = sh("cp -p $1 $1.x; exec mv $1.x $1").arg(&file).run().ok();
    let event = expect(&agent, &file, "replaced");
    by(&event, done.pid, "/mv");
    only(&agent, &file, &["replaced"]);
    agent.stop();
}

/// Moved, with where to; and deleted, by whom.
pub fn moved_and_deleted() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let other = work.join("kept.txt");
    let done = sh("mv $1 $2; :").arg(&file).arg(&other).run().ok();
    let event = expect(&agent, &file, "moved");
    by(&event, done.pid, "/mv");
    assert_eq!(change(&event).new_path, other.to_str().unwrap());
    std::thread::sleep(patience(1));
    // It is followed under its new name.
    let done = sh("rm $1; :").arg(&other).run().ok();
    let event = expect(&agent, &other, "deleted");
    by(&event, done.pid, "/rm");
    only(&agent, &other, &["deleted"]);
    only(&agent, &file, &["moved"]);
    // With the directory it is in.
    let (file, _) = known(&agent, &scratch.make("work/deep/er"), "app.env");
    let done = sh("rm -r $1; :").arg(work.join("deep")).run().ok();
    let event = expect(&agent, &file, "deleted");
    by(&event, done.pid, "/rm");
    agent.stop();
}

/// A second name, and something that is mounted over it.
pub fn linked_and_covered() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let other = work.join("name");
    let done = sh("ln $1 $2; :").arg(&file).arg(&other).run().ok();
    let event = expect(&agent, &file, "linked");
    by(&event, done.pid, "/ln");
    assert_eq!(change(&event).new_path, other.to_str().unwrap());
    std::thread::sleep(patience(1));
    let fake = work.join("fake");
    fs::write(&fake, "nothing of interest\n").unwrap();
    act("mount").arg("--bind").arg(&fake).arg(&file).run().ok();
    let event = agent.expect("what covers it", 0, |e| {
        e.is(KIND) && Path::new(e.path()) == file && action(e) == "covered"
    });
    let unmounted = act("umount").arg(&file).run();
    assert!(event.process.is_none(), "{}", event.brief());
    unmounted.ok();
    // What lies there again was not put there.
    only(&agent, &file, &["linked", "covered"]);
    agent.stop();
}

/// As kubelet puts new versions of a volume's files in place: another directory behind one link.
pub fn swapped() {
    let _turn = turn();
    let scratch = Scratch::new();
    let volume = scratch.make("volume");
    let agent = Agent::start(&scratch);
    let (first, second) = (plant::github(), plant::github());
    let put = |key: &Planted, version: &str| {
        sh("cd $1; mkdir ..$2; printf 'GITHUB_TOKEN=%s\\n' $3 >..$2/app.env; chmod 600 ..$2/app.env
            ln -s ..$2 ..data_tmp; exec mv -T ..data_tmp ..data")
            .arg(&volume)
            .arg(version)
            .arg(&key.value)
            .run()
            .ok()
    };
    put(&first, "2026_11_29_1");
    sh("ln -s ..data/app.env $1/app.env; cat $1/app.env")
        .arg(&volume)
        .run()
        .ok();
    let file = volume.join("..2026_11_29_1/app.env");
    agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == file
    });
    std::thread::sleep(patience(1));
    put(&second, "2026_11_29_2");
    std::thread::sleep(patience(1));
    let done = sh("rm -r $1; :").arg(file.parent().unwrap()).run().ok();
    let event = expect(&agent, &file, "deleted");
    by(&event, done.pid, "/rm");
    agent.expect("its successor", 0, |e| {
        e.is("credential_created") && e.path().ends_with("..2026_11_29_2/app.env")
    });
    agent.stop();
}

/// The same in a place that is watched, where the link's own name counts.
pub fn swapped_behind_a_watched_name() {
    let _turn = turn();
    let scratch = Scratch::new();
    let home = scratch.make("home");
    let script = "cd $1; mkdir ..$2; printf '{\"GITHUB_TOKEN\":\"%s\"}\n' $3 >..$2/key.json
        ln -s ..$2 ..data_tmp; exec mv -T ..data_tmp ..data";
    let put = |key: &Planted, version: &str| {
        let sh = sh(script).arg(&home).arg(version);
        sh.arg(&key.value).run().ok()
    };
    put(&plant::github(), "2026_11_29_1");
    sh("ln -s ..data/key.json $1/key.json")
        .arg(&home)
        .run()
        .ok();
    let agent = Agent::start(&scratch);
    let file = home.join("key.json");
    std::thread::sleep(patience(2));
    let done = put(&plant::github(), "2026_11_29_2");
    let event = expect(&agent, &file, "rotated");
    assert!(!change(&event).previous_fingerprint.is_empty());
    assert_ne!(change(&event).previous_fingerprint, event.fingerprint());
    assert!(
        event.process.is_none() || event.in_tree(done.pid),
        "{}",
        event.brief()
    );
    agent.stop();
}

/// What is unmounted, read, touched or saved again unchanged: not a word.
pub fn nothing_happened() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (work, point) = (scratch.make("work"), scratch.make("mnt"));
    let agent = Agent::start(&scratch);
    let (file, key) = known(&agent, &work, "app.env");
    let seen = reported(&agent, &file).len();
    sh("cat $1; touch $1; dd if=$1 of=/dev/null 2>/dev/null")
        .arg(&file)
        .run()
        .ok();
    sh("echo more=1 >>$1").arg(&file).run().ok();
    act("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&point)
        .run()
        .ok();
    std::thread::sleep(patience(1));
    let inside = point.join("app.env");
    fs::write(&inside, text(&key)).unwrap();
    agent.expect("the copy", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == inside
    });
    std::thread::sleep(patience(1));
    act("umount").arg(&point).run().ok();
    std::thread::sleep(patience(1));
    agent.sentinel();
    assert_eq!(
        reported(&agent, &file).len(),
        seen,
        "{}",
        list(&reported(&agent, &file))
    );
    let gone = reported(&agent, &inside);
    assert!(gone.is_empty(), "unmounted is not deleted: {}", list(&gone));
    agent.stop();
}

/// A symbolic link takes a file's own name, and leads to a copy that belongs to somebody else.
pub fn linked_over() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (work, other) = (scratch.make("work"), scratch.make("other").join("copy"));
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let done = sh("cp $1 $2; chown 1234 $2; ln -sf $2 $1; :")
        .arg(&file)
        .arg(&other)
        .run()
        .ok();
    let event = agent.expect("the link", 0, |e| {
        e.is(KIND) && action(e) == "replaced" && Path::new(e.path()) == file
    });
    assert_eq!(Path::new(&change(&event).link), other, "{}", event.brief());
    assert_eq!(change(&event).previous_owner_uid, Some(0));
    let found = agent.expect("the finding", 0, |e| {
        e.is("finding") && Path::new(e.path()) == file && e.sequence() > event.sequence()
    });
    let finding = found.finding.as_ref().unwrap();
    assert_eq!(finding.rule, "linked-over", "{}", found.brief());
    assert!(done.status.success());
    agent.stop();
}

/// The history of the file stands in the passport of the credential: what was done to it, when, and by whom.
pub fn the_passport_shows_it() {
    let _turn = turn();
    let scratch = Scratch::new();
    let work = scratch.make("work");
    let agent = Agent::start(&scratch);
    let (file, _) = known(&agent, &work, "app.env");
    let created = agent.expect("the new credential", 0, |e| {
        e.is("credential_created") && Path::new(e.path()) == file
    });
    let opened = sh("exec chmod 0644 $1").arg(&file).run().ok();
    expect(&agent, &file, "permissions");
    let next = plant::github();
    let turned = sh("sed -i s/=.*/=$2/ $1; :")
        .arg(&file)
        .arg(&next.value)
        .run()
        .ok();
    let rotated = expect(&agent, &file, "rotated");
    std::thread::sleep(patience(1));
    let gone = sh("exec rm $1").arg(&file).run().ok();
    expect(&agent, &file, "deleted");
    agent.wait_idle();
    let ask = |fingerprint: &str, more: &[&str]| {
        let done = agent.client("credential").arg(fingerprint).args(more).run();
        String::from_utf8_lossy(&done.ok().stdout).into_owned()
    };
    let first = ask(created.fingerprint(), &[]);
    for part in [
        "WHAT BECAME OF ITS FILES".to_owned(),
        format!("chmod[{}]", opened.pid),
        "changed mode".to_owned(),
        "created".to_owned(),
        "rotated".to_owned(),
    ] {
        assert!(first.contains(&part), "{part} is not in\n{first}");
    }
    let second = ask(rotated.fingerprint(), &[]);
    assert!(
        second.contains("rotated") && second.contains(&format!("rm[{}]", gone.pid)),
        "{second}\n{}",
        turned.pid
    );
    let json = ask(created.fingerprint(), &["-o", "json"]);
    let passport: serde_json::Value = serde_json::from_str(&json).unwrap();
    let changes = passport["changes"].as_array().unwrap();
    assert_eq!(
        changes.last().unwrap()["kind"],
        "EVENT_KIND_CREDENTIAL_CREATED",
        "{json}"
    );
    assert!(
        changes
            .iter()
            .any(|e| e["change"]["action"] == "FILE_ACTION_PERMISSIONS"
                && e["process"]["pid"] == opened.pid),
        "{json}"
    );
    agent.stop();
}
