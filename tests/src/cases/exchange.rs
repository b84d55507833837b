//! What is written in the forms of others: valid by their own schemas, whole, and without a secret.

use super::tls_programs::installed;
use crate::{
    agent::Agent,
    command::{act, sh},
    machine::{Scratch, keytrail, turn},
    plant,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

/// The schemas that the standards publish.
const FORMS: &str = include_str!("../server/forms.py");
const SARIF: &str = "npm/node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json";

/// The document, when it is valid.
fn valid(scratch: &Scratch, form: &str, text: &str) -> Value {
    let file = scratch.join(form);
    fs::write(&file, text).unwrap();
    let done = act(installed("python/bin/python3"))
        .args(["-c", FORMS, form])
        .arg(&file)
        .arg(installed(SARIF))
        .run();
    assert!(
        done.status.success(),
        "{form}: {}{}",
        done.stdout_text(),
        done.stderr_text()
    );
    serde_json::from_str(text).unwrap()
}

/// The same credentials in JSON, SARIF, CycloneDX and CSV: in files with odd names, with everybody, in an environment.
pub fn an_inventory_in_forms_of_others() {
    let _turn = turn();
    let scratch = Scratch::new();
    let root = scratch.make("root");
    let mut secrets = Vec::new();
    for (name, mode) in [("a b#%?.env", 0o644), ("c\u{e9}\n\u{1}.env", 0o600)] {
        let token = plant::github().value;
        let path = root.join(name);
        fs::write(&path, format!("GITHUB_TOKEN={token}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        secrets.push(token);
    }
    sh("openssl genpkey -algorithm ed25519 -out \"$1\"")
        .arg(root.join("server.key"))
        .run()
        .ok();
    let key = fs::read_to_string(root.join("server.key")).unwrap();
    secrets.push(key.lines().nth(1).unwrap().to_owned());
    let token = plant::github().value;
    let holder = act("sleep").arg("600").env("GITHUB_TOKEN", &token).spawn();
    secrets.push(token);
    let state = scratch.join("state");
    let written = |form: &str| {
        let done = act(keytrail())
            .args(["inventory", "--processes", "--all", "--min-confidence", "0"])
            .args(["-o", form, "--root"])
            .arg(&root)
            .arg("--state-dir")
            .arg(&state)
            .run()
            .ok();
        let text = done.stdout_text();
        for secret in &secrets {
            assert!(!text.contains(secret), "{form} has a secret");
        }
        text
    };
    let json: Value = serde_json::from_str(&written("json")).unwrap();
    let ours: BTreeSet<&str> = json["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["fingerprint"].as_str().unwrap())
        .collect();
    assert!(ours.len() >= 4, "{json:#}");
    sarif(&valid(&scratch, "sarif", &written("sarif")), &ours, &root);
    bill(&valid(&scratch, "cbom", &written("cbom")), &ours, &root);
    // A row each, and the headings.
    let csv = written("csv");
    for fingerprint in &ours {
        assert!(csv.contains(fingerprint), "{csv}");
    }
    drop(holder);
    let diff = act(keytrail())
        .args(["inventory", "diff", "-o", "sarif", "--state-dir"])
        .arg(&state)
        .run();
    assert_eq!(diff.code(), 2, "{}", diff.stderr_text());
}

fn sarif(log: &Value, ours: &BTreeSet<&str>, root: &Path) {
    let run = &log["runs"][0];
    let results = run["results"].as_array().unwrap();
    let found: BTreeSet<&str> = results
        .iter()
        .map(|r| {
            r["partialFingerprints"]["keytrailFingerprint/v1"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert!(ours.is_subset(&found), "{ours:?}\n{log:#}");
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in results {
        assert!(
            rules.iter().any(|rule| rule["id"] == result["ruleId"]),
            "{result:#}"
        );
        assert!(result.get("snippet").is_none());
    }
    let uri = |end: &str| format!("file://{}{end}", root.display());
    let at = |uri: &str| {
        results.iter().find(|r| {
            r["locations"]
                .as_array()
                .unwrap()
                .iter()
                .any(|l| l["physicalLocation"]["artifactLocation"]["uri"] == uri)
        })
    };
    // Everybody reads the one, its owner alone the other.
    let open = at(&uri("/a%20b%23%25%3F.env")).unwrap_or_else(|| panic!("{log:#}"));
    assert_eq!(open["level"], "error", "{open:#}");
    let own = at(&uri("/c%C3%A9%0A%01.env")).unwrap_or_else(|| panic!("{log:#}"));
    assert_ne!(own["level"], "error", "{own:#}");
    let named = |r: &Value| {
        r["locations"].as_array().unwrap().iter().any(|l| {
            l["logicalLocations"][0]["fullyQualifiedName"]
                .as_str()
                .is_some_and(|name| name.ends_with("sleep:environment:GITHUB_TOKEN"))
        })
    };
    assert!(results.iter().any(named), "{log:#}");
}

fn bill(bill: &Value, ours: &BTreeSet<&str>, root: &Path) {
    let components = bill["components"].as_array().unwrap();
    let refs: BTreeSet<&str> = components
        .iter()
        .map(|c| c["bom-ref"].as_str().unwrap())
        .collect();
    assert_eq!(refs.len(), components.len(), "a reference twice");
    assert!(ours.is_subset(&refs), "{ours:?}\n{bill:#}");
    let material = |name: &str| {
        let path = root.join(name).display().to_string();
        let there = components.iter().find(|c| {
            c["evidence"]["occurrences"]
                .as_array()
                .unwrap()
                .iter()
                .any(|o| o["location"] == path.as_str())
        });
        let there = there.unwrap_or_else(|| panic!("{name}: {bill:#}"));
        let properties = &there["cryptoProperties"]["relatedCryptoMaterialProperties"];
        assert!(properties.get("value").is_none());
        properties["type"].as_str().unwrap().to_owned()
    };
    assert_eq!(material("server.key"), "private-key");
    assert_eq!(material("a b#%?.env"), "token");
}

/// Findings of a running agent, as results.
pub fn findings_in_forms_of_others() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let path = agent.home().join("decoy/.netrc");
    agent
        .client("decoy")
        .args([Path::new("plant"), &path, Path::new("--state-dir")])
        .arg(agent.dir().join("state"))
        .args(["--kind", "netrc"])
        .run()
        .ok();
    agent.sentinel();
    let done = sh("cat \"$1\" > /dev/null").arg(&path).run().ok();
    let touched = agent.expect("the finding", done.pid, |e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "decoy-touched")
    });
    agent.wait_idle();
    let text = agent.client("findings").args(["-o", "sarif"]).run().ok();
    let log = valid(&scratch, "sarif", &text.stdout_text());
    let results = log["runs"][0]["results"].as_array().unwrap();
    let result = results
        .iter()
        .find(|r| r["ruleId"] == "decoy-touched")
        .unwrap_or_else(|| panic!("{log:#}"));
    assert_eq!(result["level"], "error");
    let id = touched.id.unwrap();
    let event = format!("{}:{}", id.epoch, id.sequence);
    assert_eq!(result["properties"]["event"], event.as_str());
    let csv = agent.client("findings").args(["-o", "csv"]).run().ok();
    assert!(csv.stdout_text().contains("decoy-touched"));
    agent.stop();
}
