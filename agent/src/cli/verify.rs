//! `keytrail verify`: is a bundle as it was made?

use super::{exit, fail};
use crate::output::{Colour, Style, escape};
use keytrail_bundle::{Change, Manifest, Report, SignatureState, verify};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The bundle, with its signature (.sig) beside it.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,

    /// The key it must be signed with (PEM or DER) [default: the one beside the bundle, which proves that nothing was
    /// damaged, and not who made it].
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
}

pub(super) fn run(args: &VerifyArgs) -> u8 {
    let report = match verify(&args.bundle, args.public_key.as_deref()) {
        Ok(report) => report,
        Err(e) => return fail(&format_args!("{}: {e}", args.bundle.display()), exit::USAGE),
    };
    if let (SignatureState::NoKey(why), Some(_)) = (&report.signature, &args.public_key) {
        return fail(why, exit::USAGE);
    }
    let text = render(&report, args.public_key.is_some(), &Style::of(io::stdout()));
    // Whoever read it has seen enough; the status says it all.
    let _ = io::stdout().write_all(text.as_bytes());
    if report.is_intact() {
        exit::OK
    } else {
        exit::FAILED
    }
}

fn render(report: &Report, key_was_given: bool, style: &Style) -> String {
    let mut out = String::new();
    let (word, colour) = if report.is_intact() {
        ("INTACT", Colour::Green)
    } else {
        ("CHANGED", Colour::Red)
    };
    style.paint(&mut out, colour, word);
    let _ = writeln!(out, "  {} bytes, sha256 {}", report.size, report.sha256);
    let _ = writeln!(out, "{}", signature(report, key_was_given));
    if let Some(manifest) = &report.manifest {
        made(&mut out, manifest);
        let _ = writeln!(
            out,
            "{} of {} files are as the manifest says",
            report.intact,
            manifest.files.len()
        );
    }
    for change in &report.changes {
        let _ = writeln!(out, "  {}", sentence(change));
    }
    if report.changes.is_empty() && report.signature == SignatureState::Bad {
        let _ = writeln!(
            out,
            "  all files are as the manifest says: the manifest itself, or what lies between the files, was changed"
        );
    }
    out
}

fn signature(report: &Report, key_was_given: bool) -> String {
    let key = report.key.as_ref().map_or_else(String::new, |k| k.name());
    match &report.signature {
        SignatureState::Good if key_was_given => {
            format!("signed with the key that was given, sha256 {key}")
        }
        SignatureState::Good => format!(
            "signed with the key beside it, sha256 {key}: compare it with what was noted when it was made"
        ),
        SignatureState::Missing(why) => format!("there is no signature: {}", escape(why)),
        SignatureState::NoKey(why) => format!("there is no key to check it with: {}", escape(why)),
        SignatureState::WrongKey { made_with } => format!(
            "not signed with this key (sha256 {key}); it says of itself that it was made with key sha256 {}",
            escape(made_with)
        ),
        SignatureState::Bad => format!(
            "the signature by key sha256 {key} is not that of these bytes: something was changed"
        ),
    }
}

fn made(out: &mut String, manifest: &Manifest) {
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or("?");
        escape(text).chars().take(200).collect::<String>()
    };
    let capture = manifest.facts.get("capture").cloned().unwrap_or_default();
    let host = manifest.facts.get("host").cloned().unwrap_or_default();
    let _ = writeln!(
        out,
        "made by {} {} (sha256 {}) on {}, {}",
        escape(&manifest.tool.name),
        escape(&manifest.tool.version),
        escape(&manifest.tool.sha256),
        text(&host["name"]),
        text(&capture["started"]),
    );
    for why in manifest
        .facts
        .get("partial_because")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(20)
    {
        let _ = writeln!(out, "not whole: {}", text(why));
    }
}

fn sentence(change: &Change) -> String {
    match change {
        Change::Content {
            name,
            within: Some((from, to)),
        } => format!("{name}: changed, first between its bytes {from} and {to}"),
        Change::Content { name, within: None } => format!("{name}: changed"),
        Change::Size { name, was, is } if is < was => {
            format!("{name}: ends at byte {is}, and had {was}")
        }
        Change::Size { name, was, is } => {
            format!("{name}: goes on after byte {was}, up to {is}")
        }
        Change::Cut { name, was, is } => {
            format!("{name}: cannot be read after byte {is} of {was}")
        }
        Change::Missing { name } => format!("{name}: is missing"),
        Change::Added { name } => format!("{name}: was added"),
        Change::Twice { name } => format!("{name}: is there more than once"),
        Change::Archive { at, why } => {
            format!("the archive is damaged at byte {at}: {}", escape(why))
        }
        Change::Manifest { why } => {
            format!("manifest.json: {}; no file can be compared", escape(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_reported_by_name() {
        let name = || "x.json".to_owned();
        for (change, words) in [
            (
                Change::Content {
                    name: name(),
                    within: Some((5, 9)),
                },
                "changed, first between its bytes 5 and 9",
            ),
            (
                Change::Size {
                    name: name(),
                    was: 9,
                    is: 5,
                },
                "ends at byte 5, and had 9",
            ),
            (
                Change::Size {
                    name: name(),
                    was: 5,
                    is: 9,
                },
                "goes on after byte 5, up to 9",
            ),
            (
                Change::Cut {
                    name: name(),
                    was: 9,
                    is: 5,
                },
                "cannot be read after byte 5 of 9",
            ),
            (Change::Missing { name: name() }, "is missing"),
            (Change::Added { name: name() }, "was added"),
            (Change::Twice { name: name() }, "more than once"),
        ] {
            assert_eq!(
                sentence(&change)
                    .strip_prefix("x.json: ")
                    .map(|s| s.contains(words)),
                Some(true)
            );
        }
    }
}
