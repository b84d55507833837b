//! What the manifest says of the host, of the capture, and of what the capture itself cost.

use super::work::Begin;
use super::{CaptureArgs, Plan, redact::redact};
use keytrail_bundle::SigningKey;
use keytrail_host::clock::{both, wall_ns};
use keytrail_secret::Classifier;
use pbjson_types::Timestamp;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;

/// Nanoseconds since the epoch as RFC 3339, UTC.
pub fn moment(wall_ns: u64) -> String {
    crate::output::utc(&timestamp(wall_ns))
}

pub fn timestamp(wall_ns: u64) -> Timestamp {
    keytrail_export::convert::timestamp(wall_ns)
}

/// Everything that is known before anything is inspected.
pub fn begin(args: &CaptureArgs, plan: Plan, key: &SigningKey) -> Begin {
    let (boot_ns, wall_ns) = both();
    let host = host();
    let classifier = Classifier::builtin();
    let typed = |text: &Option<String>| text.as_ref().map(|t| redact(t, &classifier));
    let capture = json!({
        "case": typed(&args.case),
        "evidence": typed(&args.evidence),
        "examiner": typed(&args.examiner),
        "note": typed(&args.note),
        "arguments": arguments(args, &classifier),
        "plan": match plan {
            Plan::For(span) => json!({"seconds": span.as_secs()}),
            Plan::UntilSignal => json!("until a signal"),
            Plan::Command => json!("while a command runs"),
            Plan::Root => json!("no events: what lies below a directory"),
        },
        "signing_key": if args.sign_key.is_some() { "given" } else { "made for this bundle" },
        "signing_key_sha256": key.public().name(),
        "inventory_of": args.root.as_ref().unwrap_or(&args.walk).display().to_string(),
    });
    Begin {
        name: name(&host, wall_ns),
        tool: json!({
            "name": "keytrail",
            "version": env!("CARGO_PKG_VERSION"),
            "sha256": own_sha256().unwrap_or_default(),
        }),
        capture,
        host,
        wall_ns,
        boot_ns,
        fresh_key: args.key.is_none(),
        root: args.root.as_ref().map(|r| r.display().to_string()),
    }
}

/// `HOST-20261129T074512Z`.
fn name(host: &Value, wall_ns: u64) -> String {
    let host = host["name"].as_str().unwrap_or_default();
    let host: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(60)
        .collect();
    let host = if host.is_empty() { "host" } else { &host };
    let time: String = moment(wall_ns)
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("{host}-{time}Z")
}

/// Ours, without the command's: these may hold what nobody has looked for yet (its process has them, redacted).
fn arguments(args: &CaptureArgs, classifier: &Classifier) -> Vec<String> {
    let all: Vec<_> = std::env::args_os().collect();
    let ours = all.len().saturating_sub(args.command.len());
    let mut out: Vec<String> = all
        .iter()
        .take(ours)
        .map(|a| redact(&a.to_string_lossy(), classifier))
        .collect();
    if let Some(program) = args.command.first() {
        out.push(redact(&program.to_string_lossy(), classifier));
        out.push(format!("[{} arguments]", args.command.len() - 1));
    }
    out
}

fn own_sha256() -> Option<String> {
    let mut file = fs::File::open("/proc/self/exe").ok()?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(keytrail_bundle::hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path)
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}

fn host() -> Value {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or("", |name| name.trim_matches('"'));
    let uptime = line_of("/proc/uptime");
    let offset = crate::output::Local::of(&timestamp(wall_ns()));
    json!({
        "name": line_of("/proc/sys/kernel/hostname"),
        "system": system,
        "kernel": text(uname.release()),
        "kernel_version": text(uname.version()),
        "architecture": text(uname.machine()),
        "boot_id": line_of("/proc/sys/kernel/random/boot_id"),
        "machine_id": line_of("/etc/machine-id"),
        "uptime_seconds": uptime.split(' ').next().and_then(|s| s.parse::<f64>().ok()),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "time_zone": offset.zone,
        "user": rustix::process::geteuid().as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::footprint::Footprint;
    use super::*;

    #[test]
    fn names_are_harmless_and_say_when() {
        let at = 1_795_938_312_000_000_000;
        assert_eq!(
            name(&json!({"name": "web-1.example"}), at),
            "web-1example-20261129T074512Z"
        );
        assert_eq!(name(&json!({"name": "../../x"}), at), "x-20261129T074512Z");
        assert_eq!(name(&json!({}), at), "host-20261129T074512Z");
    }

    #[test]
    fn this_process_has_taken_something() {
        let mut footprint = Footprint::default();
        footprint.measure();
        assert!(
            footprint.peak_memory_bytes > 1 << 20 && footprint.bytes_read > 0,
            "{footprint:?}"
        );
        assert_eq!(own_sha256().unwrap().len(), 64);
    }
}
