//! `keytrail capture`: one signed file of what happened and what lies there, nothing anywhere else, whatever ends it.

use crate::{
    agent::Agent,
    command::{Act, Done, act, sh},
    events::{Ask as _, list, of_kind, parse_lines},
    leak::Scanner,
    machine::{Scratch, keytrail, patience, turn, wait_for},
    plant,
    server::TlsServer,
};
use keytrail_bundle::{Manifest, SignatureState};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Bytes of a member that are read at most.
const MOST: usize = 256 << 20;

fn capture(output: &Path) -> Act {
    act(keytrail())
        .arg("capture")
        .arg("--output")
        .arg(output)
        .limit(120)
}

/// The bundles in a directory, by name.
fn bundles(output: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(output)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "zst"))
        .collect();
    all.sort();
    all
}

/// A bundle that is as it was made.
struct Bundle {
    path: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    fn intact(path: &Path) -> Self {
        let report = keytrail_bundle::verify(path, None).unwrap();
        assert_eq!(report.signature, SignatureState::Good);
        assert!(report.changes.is_empty(), "{:?}", report.changes);
        let verified = verify(path, &[]);
        assert_eq!(verified.code(), 0, "{}", verified.stdout_text());
        assert!(verified.stdout_text().starts_with("INTACT"));
        Self {
            path: path.to_owned(),
            manifest: report.manifest.unwrap(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.manifest.files.iter().any(|f| f.name == name)
    }

    fn text(&self, name: &str) -> String {
        let bytes = keytrail_bundle::read_member(&self.path, name, MOST).unwrap();
        let bytes = bytes.unwrap_or_else(|| panic!("there is no {name}"));
        String::from_utf8(bytes).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.text(name);
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    fn partial(&self) -> String {
        self.manifest.facts["partial_because"].to_string()
    }

    /// All members side by side in a directory.
    fn unpacked(&self, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        for name in self
            .manifest
            .files
            .iter()
            .map(|f| f.name.as_str())
            .chain(["manifest.json"])
        {
            fs::write(dir.join(name), self.text(name)).unwrap();
        }
        dir.to_owned()
    }
}

fn verify(bundle: &Path, args: &[&str]) -> Done {
    act(keytrail()).arg("verify").arg(bundle).args(args).run()
}

/// Captures while a command sends a token and reads a file, in a mount namespace in which what is left elsewhere shows.
fn captured(scratch: &Scratch, token: &str, url: &str, credentials: &Path) -> Done {
    // What `mount` itself leaves in /run is there before.
    let inside = "for d in /run /tmp /var/lib; do mount -t tmpfs none $d || exit 99; done
        there() { find /run /tmp /var/lib -mindepth 1 -printf '%p %i %T@ %s\\n' | sort; }
        left=$1; shift; there >\"$left.before\"; \"$@\"; status=$?
        there | diff \"$left.before\" - >\"$left\"; exit $status";
    act("unshare")
        .args(["-m", "sh", "-c", inside, "sh"])
        .arg(scratch.join("left"))
        .arg(keytrail())
        .args(["capture", "--case", "42", "--examiner", "Smith"])
        .arg("--note")
        .arg(format!("she pasted {}", token))
        .arg("--walk")
        .arg(scratch.join("home"))
        .arg("-o")
        .arg(scratch.join("out"))
        .args(["--", "sh", "-c"])
        .arg("curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\" >/dev/null; cat \"$2\" >/dev/null; exit 3")
        .arg("sh")
        .arg(url)
        .arg(credentials)
        .env("GITHUB_TOKEN", token)
        .limit(120)
        .run()
}

/// The whole way: a token is used while a command runs. The places where programs leave things are empty file systems
/// of their own, and are empty afterwards.
pub fn of_a_command() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let token = plant::github();
    let (aws, credentials) = plant::aws_credentials(&scratch.make("home"));
    // Who keeps it calls it by its value.
    let named = plant::github();
    let file = scratch.join(&format!("home/{}.txt", named.value));
    fs::write(file, format!("GITHUB_TOKEN={}\n", named.value)).unwrap();
    let output = scratch.make("out");
    let done = captured(
        &scratch,
        &token.value,
        &server.url("/captured"),
        &credentials,
    );
    assert_eq!(done.code(), 0, "{}", done.stderr_text());
    assert_eq!(
        fs::read_to_string(scratch.join("left")).unwrap(),
        "",
        "left outside of the output"
    );
    let mut names: Vec<String> = fs::read_dir(&output)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    let path = bundles(&output).remove(0);
    assert_eq!(done.stdout_text().trim(), path.display().to_string());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let bundle = Bundle::intact(&path);
    assert_eq!(
        bundle.manifest.facts["partial"],
        false,
        "{}",
        bundle.partial()
    );
    let facts = &bundle.manifest.facts["capture"];
    assert_eq!(
        (&facts["case"], &facts["examiner"]),
        (&"42".into(), &"Smith".into())
    );
    assert_eq!(
        (&facts["ended_by"], &facts["command"]),
        (&"command".into(), &"exit status 3".into())
    );

    has_what_was_seen(&bundle);

    // Replayed, it is the same.
    let unpacked = bundle.unpacked(&scratch.join("unpacked"));
    let replayed = act(keytrail())
        .arg("replay")
        .arg(unpacked.join("recording.jsonl"))
        .args(["-o", "json"])
        .run()
        .ok();
    assert!(
        replayed.stdout_text() == bundle.text("events.jsonl"),
        "the recording tells another story"
    );

    // No secret in any of it, in any form.
    let secrets = plant::secrets([&token, &aws, &named]);
    for name in ["inventory.json", "credentials.jsonl", "bodyfile.txt"] {
        assert!(bundle.text(name).contains("/[redacted github-"), "{name}");
    }
    let report = Scanner::new(&secrets).files(&[unpacked, output.clone()], &[]);
    assert!(report.found.is_empty(), "{:#?}", report.found);
    assert!(report.files >= 15 && report.bytes > 10_000, "{report:?}");

    signature_holds(&path);
    changed(&path, &scratch);
}

/// The token's way is in each member that should have it.
fn has_what_was_seen(bundle: &Bundle) {
    let text = bundle.text("events.jsonl");
    let events = parse_lines(&text);
    let sent = of_kind(&events, "credential_sent");
    let is_ours =
        |e: &&crate::events::Event| e.grade() == "observed" && e.executable().ends_with("/curl");
    let sent = sent
        .iter()
        .find(is_ours)
        .unwrap_or_else(|| panic!("no send in\n{}", list(&events)));
    let fingerprint = sent.fingerprint().to_owned();
    for (file, what) in [
        ("credentials.jsonl", fingerprint.as_str()),
        ("timeline.csv", fingerprint.as_str()),
        ("timeline.jsonl", "Data Sent"),
        ("report.html", "curl["),
        ("inventory.json", "aws-access-key"),
        ("coverage.json", "\"hook\""),
        ("connections.jsonl", "\"state\":\"listen\""),
        ("bodyfile.txt", "/.aws/credentials|"),
    ] {
        assert!(bundle.text(file).contains(what), "{file} has no {what}");
    }
    assert!(bundle.has("findings.jsonl"));
    let processes = bundle.lines("processes.jsonl");
    let server_of_ours = processes.iter().any(|p| {
        p["sha256"].as_str().unwrap().len() == 64 && !p["argv"].as_array().unwrap().is_empty()
    });
    assert!(processes.len() > 3 && server_of_ours, "{processes:?}");
}

/// Others check the signature too.
fn signature_holds(path: &Path) {
    let with = |end: &str| format!("{}{end}", path.display());
    act("openssl")
        .args([
            "pkeyutl",
            "-verify",
            "-rawin",
            "-pubin",
            "-inkey",
            &with(".pub"),
        ])
        .args(["-sigfile", &with(".sig"), "-in", &with("")])
        .run()
        .ok();
}

/// `verify` finds a flipped byte, another key, a lost signature, and says what it cannot read.
fn changed(path: &Path, scratch: &Scratch) {
    let whole = fs::read(path).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, &bytes).unwrap();
    let done = verify(path, &[]);
    assert_eq!(done.code(), 1);
    let text = done.stdout_text();
    assert!(
        text.starts_with("CHANGED") && text.contains("made by keytrail"),
        "{text}"
    );
    fs::write(path, &whole).unwrap();

    let key = scratch.join("other.pem");
    let other = scratch.join("other.pub");
    act("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&key)
        .run()
        .ok();
    act("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(&other)
        .run()
        .ok();
    let done = verify(path, &["--public-key", other.to_str().unwrap()]);
    assert_eq!(done.code(), 1);
    assert!(
        done.stdout_text().contains("not signed with this key"),
        "{}",
        done.stdout_text()
    );
    let done = verify(path, &["--public-key", "/nonexistent"]);
    assert_eq!(done.code(), 2, "{}", done.plain_words());
    assert_eq!(verify(&scratch.join("none"), &[]).code(), 2);
}

/// Starts a capture of ten minutes and waits until it watches.
fn watching(scratch: &Scratch, output: &Path) -> crate::command::Background {
    let log = scratch.join("log");
    let running = capture(output)
        .args(["--for", "10m", "--walk"])
        .arg(scratch.make("nothing"))
        .spawn_reading(&log);
    wait_for("the capture to watch", patience(60), || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("watching")
            .then_some(())
    });
    let token = plant::github();
    sh("exit 0").env("GITHUB_TOKEN", &token.value).run().ok();
    // The event is in the file at once.
    wait_for("an event to be written", patience(20), || {
        let dirs = fs::read_dir(output).unwrap();
        let work = dirs.map(|e| e.unwrap().path()).find(|p| p.is_dir())?;
        let text = fs::read_to_string(work.join("events.jsonl")).unwrap_or_default();
        text.contains("CREDENTIAL_EXPOSED").then_some(())
    });
    running
}

/// Ctrl-C and SIGTERM: what there is becomes a bundle, which says that it is not whole.
pub fn ended_by_a_signal() {
    let _turn = turn();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let scratch = Scratch::new();
        let output = scratch.make("out");
        let mut running = watching(&scratch, &output);
        running.signal(signal);
        let status = running.wait(patience(60), "the capture after a signal");
        assert!(status.success(), "{status}");
        let bundle = Bundle::intact(&bundles(&output)[0]);
        assert!(
            bundle.partial().contains("a signal ended it"),
            "{}",
            bundle.partial()
        );
        assert!(bundle.text("events.jsonl").contains("CREDENTIAL_EXPOSED"));
        let left = fs::read_dir(&output).unwrap().count();
        assert_eq!(left, 3);
    }
}

/// What a killed capture left is finished by the next one in the same directory, whatever that one is about.
pub fn killed_and_finished() {
    let _turn = turn();
    let scratch = Scratch::new();
    let output = scratch.make("out");
    let mut running = watching(&scratch, &output);
    running.end();
    assert!(bundles(&output).is_empty());
    let image = scratch.make("image");
    capture(&output).arg("--root").arg(&image).run().ok();
    let all = bundles(&output);
    assert_eq!(all.len(), 2, "{all:?}");
    let killed: Vec<Bundle> = all
        .iter()
        .map(|path| Bundle::intact(path))
        .filter(|b| b.partial().contains("killed"))
        .collect();
    assert_eq!(killed.len(), 1);
    let events = killed[0].text("events.jsonl");
    assert!(events.contains("CREDENTIAL_EXPOSED"));
    assert_eq!(killed[0].manifest.facts["capture"]["ended"], Value::Null);
    // As far as the recording goes, it is the same story.
    let unpacked = killed[0].unpacked(&scratch.join("unpacked"));
    let replayed = act(keytrail())
        .arg("replay")
        .arg(unpacked.join("recording.jsonl"))
        .args(["-o", "json"])
        .run()
        .ok()
        .stdout_text();
    assert!(
        events.starts_with(&replayed) || replayed.starts_with(&events),
        "another story from what was left of the recording"
    );
    // Working directories, locks and keys are gone.
    assert_eq!(fs::read_dir(&output).unwrap().count(), 6);
}

/// An image: what lies in it, with the times the files had, and nothing of this host.
pub fn of_an_image() {
    let scratch = Scratch::new();
    let token = plant::npm();
    let dir = scratch.make("image/home/ann");
    let file = dir.join(".npmrc");
    fs::write(
        &file,
        format!("//registry.npmjs.org/:_authToken={}\n", token.value),
    )
    .unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    let times = fs::FileTimes::new()
        .set_accessed(long_ago)
        .set_modified(long_ago);
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_times(times)
        .unwrap();
    let key = scratch.join("fleet.key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let output = scratch.make("out");
    for _ in 0..2 {
        capture(&output)
            .arg("--root")
            .arg(scratch.join("image"))
            .arg("--key")
            .arg(&key)
            .run()
            .ok();
    }
    let all: Vec<Bundle> = bundles(&output).iter().map(|p| Bundle::intact(p)).collect();
    assert_eq!(all.len(), 2);
    let bundle = &all[0];
    assert!(
        bundle.manifest.facts["scope"]
            .as_str()
            .unwrap()
            .starts_with("only what lies below")
    );
    for name in [
        "events.jsonl",
        "processes.jsonl",
        "connections.jsonl",
        "recording.jsonl",
    ] {
        assert!(!bundle.has(name), "{name}");
    }
    let body = bundle.text("bodyfile.txt");
    let line = body.lines().find(|l| l.contains("/.npmrc|")).unwrap();
    let fields: Vec<&str> = line.split('|').collect();
    assert_eq!((fields[0], fields.len()), ("0", 11), "{line}");
    assert_eq!(
        (fields[7], fields[8]),
        ("1500000000", "1500000000"),
        "{line}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().atime(),
        1_500_000_000,
        "the file was touched"
    );
    // With one key for all, bundles can be compared.
    let fingerprints = |b: &Bundle| -> Vec<String> {
        b.lines("credentials.jsonl")
            .iter()
            .map(|c| c["fingerprint"].to_string())
            .collect()
    };
    assert_eq!(fingerprints(&all[0]), fingerprints(&all[1]));
    assert_eq!(fingerprints(bundle).len(), 1);
    assert_eq!(
        bundle.manifest.facts["fingerprints"]["comparable_with_other_captures"],
        true
    );
    let report =
        Scanner::new(&token.secrets).files(&[bundle.unpacked(&scratch.join("unpacked"))], &[]);
    assert!(report.found.is_empty(), "{:#?}", report.found);
}

/// The page of a running agent has the send, and no secret.
pub fn report_of_an_agent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::start(&scratch.join("server"));
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let done = sh("curl -sk -H \"Authorization: Bearer $GITHUB_TOKEN\" \"$1\"")
        .arg(server.url("/reported"))
        .env("GITHUB_TOKEN", &token.value)
        .run()
        .ok();
    agent.expect("the send", done.pid, |e| {
        e.is("credential_sent") && e.in_tree(done.pid) && e.grade() == "observed"
    });
    let page = scratch.join("report.html");
    agent
        .client("report")
        .args(["--since", "1h", "-o"])
        .arg(&page)
        .run()
        .ok();
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("github-token") && text.contains("localhost"),
        "{text}"
    );
    assert!(
        text.contains("seen in what was sent.") && text.contains("<svg"),
        "{text}"
    );
    let found = Scanner::new(&token.secrets).files(&[page], &[]).found;
    assert!(found.is_empty(), "{found:?}");
}
