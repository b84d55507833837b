//! `keytrail classify`: what credentials are in this text.

mod jsonl;
mod table;

use super::exit;
use super::shared_args::confidence;
use clap::Args;
use keytrail_secret::{Classifier, Fingerprinter};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the fingerprint key within the state directory.
pub const KEY_FILE: &str = "fingerprint.key";

/// Find credentials in files or in lines of JSON. Secrets are never printed: a credential is its kind, its public
/// identifier and a keyed fingerprint.
#[derive(Debug, Args)]
pub struct ClassifyArgs {
    /// Read lines {"id", "path"?, "text"} and answer one line each, in the same order.
    #[arg(long)]
    pub jsonl: bool,
    /// List the kinds this build knows and end.
    #[arg(long)]
    pub kinds: bool,
    /// With --kinds: JSON lines instead of a table.
    #[arg(long, requires = "kinds")]
    pub json: bool,
    /// The agent's state directory: its fingerprint key is used when it exists and can be read.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/keytrail",
        env = "KEYTRAIL_STATE_DIR"
    )]
    pub state_dir: PathBuf,
    /// Fingerprint key (64 hex digits or 32 bytes, mode 0600). Without any key one is made for this run, and
    /// fingerprints of different runs cannot be compared.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Directory of your own rules.
    #[arg(long, value_name = "DIR", default_value = "/etc/keytrail/rules.d")]
    pub rules_dir: PathBuf,
    /// Leave out findings below this confidence (0 to 1).
    #[arg(long, value_name = "0..1", value_parser = confidence, default_value_t = 0.0)]
    pub min_confidence: f64,
    /// Worker threads for --jsonl; 0: one for each core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Files; `-` or nothing is standard input.
    pub files: Vec<PathBuf>,
}

/// Runs the command. Status 1: some input could not be read.
///
/// # Errors
/// When the output cannot be written, or the key given by --key-file is refused.
pub fn run(args: &ClassifyArgs) -> io::Result<u8> {
    let (classifier, errors) = Classifier::with_rules_dir(&args.rules_dir);
    for error in &errors {
        eprintln!("keytrail classify: rule refused: {error}");
    }
    let result = if args.kinds {
        table::kinds(&classifier, args.json, &mut io::stdout().lock()).map(|()| true)
    } else {
        let fingerprinter = key(args)?;
        if args.jsonl {
            jsonl::run(args, &classifier, &fingerprinter)
        } else {
            table::run(args, &classifier, &fingerprinter, &mut io::stdout().lock())
        }
    };
    match result {
        Ok(true) => Ok(exit::OK),
        Ok(false) => Ok(exit::FAILED),
        // `keytrail classify ... | head` is no error.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(e) => Err(e),
    }
}

fn key(args: &ClassifyArgs) -> io::Result<Fingerprinter> {
    if let Some(file) = &args.key_file {
        return Fingerprinter::load(file);
    }
    match Fingerprinter::load(&args.state_dir.join(KEY_FILE)) {
        Ok(key) => Ok(key),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Fingerprinter::random()
        }
        Err(e) => {
            let _ = writeln!(
                io::stderr(),
                "keytrail classify: {e}; fingerprints of this run cannot be compared with others"
            );
            Fingerprinter::random()
        }
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
