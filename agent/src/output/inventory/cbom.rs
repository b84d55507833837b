//! CycloneDX 1.7 (<https://cyclonedx.org/docs/1.7/json/>), the cryptographic part: each credential a component. There is no
//! `value`, and the `fingerprint` of the standard is a plain hash, which would give a short secret away: the keyed one is
//! the component's `id`.

use keytrail_inventory::clock::rfc3339;
use keytrail_inventory::model::{Area, Entry, Location};
use keytrail_inventory::run::Document;
use keytrail_inventory::walk::Report;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;

/// Writes the bill, one component after the other.
///
/// # Errors
/// What the writer gives, or that the system gave no random numbers.
pub fn write(
    out: &mut impl io::Write,
    document: &Document,
    report: &Report,
    shown: &[&Entry],
) -> io::Result<()> {
    let bill = Bill {
        document,
        whole: document.run.unreadable + document.processes.unreadable + document.refused == 0
            && report.crowded.load(Ordering::Relaxed) == 0
            && report.sampled_count.load(Ordering::Relaxed) == 0
            && report.skipped().is_empty(),
        serial: serial()?,
        components: shown,
    };
    serde_json::to_writer_pretty(&mut *out, &bill)?;
    out.write_all(b"\n")
}

/// `urn:uuid:` and a random UUID (RFC 9562, version 4): each bill has one of its own.
fn serial() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gave no random numbers"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::from("urn:uuid:");
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

struct Bill<'a> {
    document: &'a Document,
    /// Nothing is known that was left out.
    whole: bool,
    serial: String,
    components: &'a [&'a Entry],
}

impl Serialize for Bill<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let run = &self.document.run;
        let host = rustix::system::uname();
        let metadata = json!({
            "timestamp": rfc3339(run.finished),
            "tools": {"components": [
                {"type": "application", "name": "keytrail", "version": env!("CARGO_PKG_VERSION")},
            ]},
            "component": {
                "type": "device",
                "bom-ref": "host",
                "name": host.nodename().to_string_lossy(),
            },
            "properties": [
                {"name": "keytrail:root", "value": run.root},
                {"name": "keytrail:processes", "value": run.processes.to_string()},
                {"name": "keytrail:unreadable", "value": run.unreadable.to_string()},
            ],
        });
        // That all is there cannot be known of a host: at most that nothing is known to be missing.
        let aggregate = if self.whole { "unknown" } else { "incomplete" };
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("bomFormat", "CycloneDX")?;
        map.serialize_entry("specVersion", "1.7")?;
        map.serialize_entry("serialNumber", &self.serial)?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("metadata", &metadata)?;
        map.serialize_entry("components", &Components(self.components))?;
        let composition = json!([{"aggregate": aggregate, "assemblies": ["host"]}]);
        map.serialize_entry("compositions", &composition)?;
        map.end()
    }
}

struct Components<'a>(&'a [&'a Entry]);

impl Serialize for Components<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = keytrail_inventory::clock::now();
        serializer.collect_seq(self.0.iter().map(|entry| component(entry, now)))
    }
}

fn component(entry: &Entry, now: i64) -> Value {
    let c = &entry.credential;
    let mut material = json!({"type": material(entry), "id": c.fingerprint});
    if let Some(expires) = c.expires {
        material["expirationDate"] = rfc3339(expires).into();
        if expires <= now {
            // Of SP 800-57: its time is over, and it is there to be inspected.
            material["state"] = "deactivated".into();
        }
    }
    let mut properties = Vec::new();
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            properties.push(json!({"name": format!("keytrail:{name}"), "value": value}));
        }
    };
    say("identifier", c.identifier.clone());
    say("class", entry.class.name().into());
    say("confidence", format!("{:.2}", c.confidence));
    say("privilege", c.privilege.to_string());
    say("rule", c.rule.clone());
    say("first_seen", rfc3339(entry.first_seen));
    say("known_since", rfc3339(entry.since()));
    say("rotated", entry.rotated.map(rfc3339).unwrap_or_default());
    say("previous", entry.previous.clone());
    for exposure in &entry.exposures {
        say(
            "exposure",
            format!("{}: {}", exposure.code, exposure.detail),
        );
    }
    if entry.more_places > 0 {
        say("more_places", entry.more_places.to_string());
    }
    let name = match c.identifier.as_str() {
        "" => c.kind.clone(),
        identifier => format!("{} {identifier}", c.kind),
    };
    json!({
        "type": "cryptographic-asset",
        "bom-ref": c.fingerprint,
        "name": name,
        "cryptoProperties": {
            "assetType": "related-crypto-material",
            "relatedCryptoMaterialProperties": material,
        },
        "evidence": {"occurrences": entry.places.iter().map(occurrence).collect::<Vec<_>>()},
        "properties": properties,
    })
}

/// The word of the standard for a kind.
fn material(entry: &Entry) -> &'static str {
    let kind = entry.credential.kind.as_str();
    if entry.credential.is_private_key() {
        "private-key"
    } else if kind.contains("password") {
        "password"
    } else if kind.contains("token") || kind.contains("jwt") {
        "token"
    } else {
        "credential"
    }
}

fn occurrence(place: &Location) -> Value {
    let (location, mut more) = match place {
        Location::File(f) => (f.path.clone(), format!("mode {:04o}", f.mode)),
        Location::Process(p) => {
            let area = match p.area {
                Area::Env => "environment",
                Area::Argv => "argument",
            };
            (p.exe.clone(), format!("{area} {}", p.name))
        }
        Location::Socket(s) => (s.path.clone(), "socket".to_owned()),
    };
    if !place.container().is_empty() {
        let _ = write!(more, ", in container {}", place.container());
    }
    json!({"location": location, "additionalContext": more})
}
