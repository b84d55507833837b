//! The same for people: aligned columns.

use super::{ClassifyArgs, is_stdin};
use keytrail_secret::{Classifier, Fingerprinter, Origin, wide};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of a file that are inspected.
const MAX_FILE: u64 = 64 << 20;

/// True when every file could be read.
pub fn run(
    args: &ClassifyArgs,
    classifier: &Classifier,
    fingerprinter: &Fingerprinter,
    out: &mut dyn Write,
) -> io::Result<bool> {
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut unread = 0;
    let stdin = ["-".into()];
    let files = if args.files.is_empty() {
        &stdin[..]
    } else {
        &args.files
    };
    for path in files {
        match read(path) {
            Err(e) => {
                eprintln!("keytrail classify: {}: {e}", path.display());
                unread += 1;
            }
            Ok((text, cut)) => {
                if cut {
                    eprintln!(
                        "keytrail classify: {}: only the first {} MiB are inspected",
                        path.display(),
                        MAX_FILE >> 20
                    );
                }
                let name = path.to_string_lossy();
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let absolute = absolute.to_string_lossy();
                let origin = if is_stdin(path) {
                    Origin::Text
                } else {
                    Origin::File { path: &absolute }
                };
                for finding in classifier.classify(&text, origin) {
                    if finding.confidence < args.min_confidence {
                        continue;
                    }
                    let credential = finding.credential(fingerprinter);
                    let line = wide::line(&text, finding.span().start);
                    rows.push([
                        format!("{}:{line}", printable(&name)),
                        credential.kind,
                        format!("{:.2}", credential.confidence),
                        credential.fingerprint,
                        printable(&credential.identifier),
                    ]);
                }
            }
        }
    }
    let good = unread == 0;
    if rows.is_empty() {
        // What could not be read may hold any number: that was said already, and nothing else is true.
        if good {
            writeln!(out, "no credentials found")?;
        } else if files.len() > unread {
            writeln!(out, "no credentials found in what could be read")?;
        }
    } else {
        columns(
            &["PLACE", "KIND", "CONFIDENCE", "FINGERPRINT", "IDENTIFIER"],
            &rows,
            out,
        )?;
    }
    Ok(good)
}

fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
    let mut text = Zeroizing::new(Vec::new());
    if is_stdin(path) {
        io::stdin().lock().take(MAX_FILE).read_to_end(&mut text)?;
    } else {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                "is a directory",
            ));
        }
        file.take(MAX_FILE).read_to_end(&mut text)?;
    }
    let cut = text.len() as u64 == MAX_FILE;
    Ok((text, cut))
}

/// The list of kinds.
pub fn kinds(classifier: &Classifier, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let kinds = classifier.kinds();
    if json {
        for k in kinds {
            let line = serde_json::json!({
                "kind": k.kind, "rule": k.rule, "description": k.description, "confidence": k.confidence, "privilege": k.privilege,
                "wire": k.wire, "attack": k.attack, "env": k.env, "paths": k.paths,
            });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 5]> = kinds
        .into_iter()
        .map(|k| {
            [
                k.kind,
                k.rule,
                format!("{:.2}", k.confidence),
                k.privilege.to_string(),
                k.description,
            ]
        })
        .collect();
    columns(
        &["KIND", "RULE", "CONFIDENCE", "PRIVILEGE", "DESCRIPTION"],
        &rows,
        out,
    )
}

/// No control characters: a file name must not drive the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn columns(head: &[&str; 5], rows: &[[String; 5]], out: &mut dyn Write) -> io::Result<()> {
    let mut width = head.map(str::len);
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut line = |cells: [&str; 5]| -> io::Result<()> {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            text.push_str(cell);
            if i < 4 {
                text.extend(std::iter::repeat_n(
                    ' ',
                    width[i] + 2 - cell.chars().count(),
                ));
            }
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(*head)?;
    for row in rows {
        line([&row[0], &row[1], &row[2], &row[3], &row[4]])?;
    }
    Ok(())
}
