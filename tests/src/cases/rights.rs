//! The agent with one capability or one mount less: what `keytrail doctor` says of it is the table of docs/DEPLOY.md, is true, and helps.

use crate::{
    command::{Act, act},
    machine::{Scratch, keytrail, turn},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

/// What the unit and the chart with `SYS_ADMIN` give, by the names of setpriv(1).
const SET: [&str; 8] = [
    "sys_admin",
    "bpf",
    "perfmon",
    "sys_ptrace",
    "dac_read_search",
    "checkpoint_restore",
    "net_admin",
    "syslog",
];

/// Between two of these in docs/DEPLOY.md.
const MARK: &str = "<!-- rights -->\n";

/// A signal, what it was refused, why, and what is said to help.
type Complaint = (String, String, String, String);

struct Said {
    /// Why nothing could be tried.
    sentence: Option<String>,
    complaints: BTreeSet<Complaint>,
    unserved: BTreeSet<String>,
}

/// What the chart mounts, and what each is looked for in a remedy.
const MOUNTS: [(&str, &str); 4] = [
    ("/sys/kernel/btf", "CONFIG_DEBUG_INFO_BTF"),
    ("/sys/fs/cgroup", "cgroup v2"),
    ("/sys/fs/bpf", "/sys/fs/bpf"),
    ("/sys/kernel/tracing", "/sys/kernel/tracing"),
];

/// `keytrail doctor` as root with these capabilities and no others.
fn with(scratch: &Scratch, set: &[&str]) -> Said {
    let bounds: String = set.iter().map(|name| format!(",+{name}")).collect();
    let setpriv = act("setpriv")
        .arg(format!("--bounding-set=-all{bounds}"))
        .arg("--inh-caps=-all");
    doctor(scratch, setpriv)
}

/// The same with all capabilities, where this directory is empty.
fn hidden(scratch: &Scratch, mount: &str) -> Said {
    let hide = "mount -t tmpfs none \"$0\" && exec \"$@\"";
    doctor(
        scratch,
        act("unshare").args(["-m", "sh", "-c", hide, mount]),
    )
}

fn doctor(scratch: &Scratch, by: Act) -> Said {
    let nobody = format!("unix:{}", scratch.join("nobody.sock").display());
    let done = by
        .arg(keytrail())
        .args(["doctor", "-o", "json", "--address", &nobody])
        .env("HOME", scratch.path())
        .run();
    let mut said = Said {
        sentence: None,
        complaints: BTreeSet::new(),
        unserved: BTreeSet::new(),
    };
    if matches!(done.code(), 1 | 5) && done.stdout.is_empty() {
        said.sentence = Some(done.plain_words());
        return said;
    }
    assert_eq!(done.code(), 3, "{}", done.stderr_text());
    let answer: Value = serde_json::from_str(&done.stdout_text()).unwrap();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    for signal in answer["signals"].as_array().unwrap() {
        let name = text(signal, "signal").replace("SIGNAL_", "").to_lowercase();
        if text(signal, "hook").is_empty() {
            said.unserved.insert(name.clone());
        }
        for refused in signal["refused"].as_array().into_iter().flatten() {
            said.complaints.insert((
                name.clone(),
                text(refused, "hook"),
                text(refused, "reason"),
                text(refused, "remedy"),
            ));
        }
    }
    said
}

fn without(set: &[&'static str], left_out: &str) -> Vec<&'static str> {
    set.iter()
        .copied()
        .filter(|name| *name != left_out)
        .collect()
}

/// A row of the table: what is lost. What is said to help has to name what is missing: `names`.
fn row(name: &str, names: &str, from: &str, whole: &Said, less: &Said) -> String {
    if let Some(sentence) = &less.sentence {
        assert!(sentence.contains(names), "{name}: {sentence}");
        return format!("| `{name}` | {from} | everything: the agent does not start | says so |\n");
    }
    let new: Vec<&Complaint> = less.complaints.difference(&whole.complaints).collect();
    let unserved: Vec<&String> = less.unserved.difference(&whole.unserved).collect();
    if new.is_empty() {
        assert!(unserved.is_empty(), "{name}: {unserved:?} without a word");
        return format!("| `{name}` | {from} | nothing | nothing |\n");
    }
    let mut lost = Vec::new();
    for (signal, hook, reason, remedy) in new {
        assert!(!reason.is_empty(), "{name}: {signal} {hook}");
        // With it the complaint is not there.
        assert!(
            remedy.contains(names),
            "{name}: {signal} is refused {hook} ({reason}), and this helps nobody: {remedy}"
        );
        let none = if unserved.contains(&signal) {
            ", and nothing else serves it"
        } else {
            ""
        };
        lost.push(format!("`{signal}`: {hook}{none}"));
    }
    let said = match lost.len() {
        1 => "names it".to_owned(),
        n => format!("names it, {n} times"),
    };
    format!("| `{name}` | {from} | {} | {said} |\n", lost.join("; "))
}

/// Each capability left out, of the set with SYS_ADMIN and of that without it, and each mount.
pub fn each_right_costs_what_doctor_says() {
    let _turn = turn();
    let scratch = Scratch::new();
    let least = without(&SET, "sys_admin");
    let mut table = String::new();
    for (set, from) in [
        (SET.to_vec(), "all eight"),
        (least, "seven, without `CAP_SYS_ADMIN`"),
    ] {
        let whole = with(&scratch, &set);
        assert!(whole.sentence.is_none());
        for name in &set {
            let less = with(&scratch, &without(&set, name));
            let capability = format!("CAP_{}", name.to_uppercase());
            table.push_str(&row(&capability, &capability, from, &whole, &less));
        }
    }
    let whole = hidden(&scratch, &scratch.make("anything").display().to_string());
    for (mount, names) in MOUNTS {
        let less = hidden(&scratch, mount);
        table.push_str(&row(mount, names, "all mounts", &whole, &less));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DEPLOY.md");
    let page = fs::read_to_string(&path).unwrap();
    let parts: Vec<&str> = page.split(MARK).collect();
    let [before, there, after] = parts[..] else {
        panic!("docs/DEPLOY.md has no table between two {MARK}");
    };
    const HEAD: &str = "| left out | of | what is lost | `keytrail doctor` |\n|---|---|---|---|\n";
    let made = format!("{HEAD}{table}");
    if std::env::var_os("KEYTRAIL_BLESS").is_some() {
        fs::write(&path, [before, MARK, &made, MARK, after].concat()).unwrap();
    } else {
        assert_eq!(there, made, "write it anew with KEYTRAIL_BLESS=1");
    }
}
