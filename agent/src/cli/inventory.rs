//! `keytrail inventory`: the credentials on this host, and what changed since the last look.

use super::args::TableFormat;
use super::exit;
use super::shared_args::confidence;
use crate::output::inventory as render;
use crate::output::{Rows, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keytrail_inventory::diff::diff;
use keytrail_inventory::model::{Class, Entry};
use keytrail_inventory::names;
use keytrail_inventory::run::{self, Document, Options, RunError};
use keytrail_inventory::state::{Run, State, StateError};
use keytrail_inventory::walk::Report;
use keytrail_secret::{Classifier, Fingerprinter};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

/// Where the agent keeps its state.
const SYSTEM_STATE: &str = "/var/lib/keytrail";
/// Rules of this site.
const SYSTEM_RULES: &str = "/etc/keytrail/rules.d";

/// Arguments of `keytrail inventory`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 the inventory is done (what could not be read is counted in it); 1 it could not be \
made or stored, or, with --strict, something could not be read; 2 wrong usage."
)]
pub struct InventoryArgs {
    #[command(subcommand)]
    pub action: Option<InventoryAction>,

    /// Look below this directory only.
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    pub root: PathBuf,

    /// Look into the environments and command lines of running processes [default: as root, with --root /].
    #[arg(long, global = true)]
    pub processes: bool,

    /// Do not inspect processes.
    #[arg(long, conflicts_with = "processes", global = true)]
    pub no_processes: bool,

    /// Walk the roots of other mount namespaces (containers) too [default: as root, with --root /].
    #[arg(long, global = true)]
    pub containers: bool,

    /// Shape of the output.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "table",
        global = true
    )]
    pub output: InventoryFormat,

    /// Where the fingerprint key and earlier inventories are [default: /var/lib/keytrail for root, else
    /// ~/.local/state/keytrail].
    #[arg(long, value_name = "DIR", global = true, env = "KEYTRAIL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// The fleet's fingerprint key, instead of the state directory's own.
    #[arg(long, value_name = "FILE", global = true)]
    pub fingerprint_key_file: Option<PathBuf>,

    /// Directory with more rules [default: /etc/keytrail/rules.d if there is one].
    #[arg(long, value_name = "DIR", global = true)]
    pub rules_dir: Option<PathBuf>,

    /// Report credentials older than this.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=36_500), global = true)]
    pub older_than: u32,

    /// Show only credentials of at least this confidence (all are stored).
    #[arg(long, value_name = "0..1", value_parser = confidence, default_value_t = 0.5, global = true)]
    pub min_confidence: f64,

    /// Show what is public (shipped by packages, unchanged) and samples (third-party code, test data), too.
    #[arg(long, global = true)]
    pub all: bool,

    /// Walk network and user-space file systems too (they may hang).
    #[arg(long, global = true)]
    pub all_filesystems: bool,

    /// Threads that walk.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), global = true)]
    pub threads: Option<u16>,

    /// Exit with 1 when something could not be read.
    #[arg(long, global = true)]
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum InventoryAction {
    /// What changed since the last inventory of this root, as far as the running agent saw it; otherwise between the
    /// last two.
    Diff {
        /// Take an inventory now, and compare it with the last one.
        #[arg(long)]
        now: bool,
    },
}

/// A table for people, the rest for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InventoryFormat {
    #[default]
    Table,
    /// The table with nothing cut.
    Wide,
    Json,
    Yaml,
    Csv,
    /// Results of SARIF 2.1.0, for code hosts and what collects scans.
    Sarif,
    /// A cryptographic bill of materials, CycloneDX 1.7.
    Cbom,
}

impl InventoryFormat {
    /// Those that changes have too.
    fn of_changes(self) -> Option<TableFormat> {
        Some(match self {
            InventoryFormat::Table => TableFormat::Table,
            InventoryFormat::Wide => TableFormat::Wide,
            InventoryFormat::Json => TableFormat::Json,
            InventoryFormat::Yaml => TableFormat::Yaml,
            InventoryFormat::Csv => TableFormat::Csv,
            InventoryFormat::Sarif | InventoryFormat::Cbom => return None,
        })
    }
}

/// Runs `keytrail inventory`; returns the exit status.
#[must_use]
pub fn run(args: &InventoryArgs) -> u8 {
    if args.action.is_some() && args.output.of_changes().is_none() {
        eprintln!(
            "keytrail: changes have no form in sarif and cbom: table, wide, json, yaml and csv are there"
        );
        return exit::USAGE;
    }
    match act(args) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("keytrail: {error}");
            exit::FAILED
        }
    }
}

/// Why there is no inventory, or nothing to compare.
#[derive(Debug, thiserror::Error)]
enum InventoryError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("{}: {}", .0.display(), .1)]
    At(PathBuf, io::Error),
    #[error("there is no HOME to keep state in: name a directory with --state-dir")]
    NoHome,
    #[error("there is no inventory of {0} yet: make one with `keytrail inventory`")]
    Nothing(String),
    #[error(
        "there is only one inventory of {0}, and no agent that saw what came after it: make another with `keytrail \
         inventory`"
    )]
    OnlyOne(String),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

fn act(args: &InventoryArgs) -> Result<u8, InventoryError> {
    let dir = state_dir(args)?;
    if args.action == Some(InventoryAction::Diff { now: false }) {
        return compare(args, &State::open(&dir)?);
    }
    let host = args.root == Path::new("/");
    let fingerprinter = fingerprinter(args, &dir)?;
    let mut state = State::open(&dir)?;
    let classifier = classifier(args);
    let root = rustix::process::geteuid().is_root();
    let options = Options {
        root: args.root.clone(),
        processes: !args.no_processes && (args.processes || (host && root)),
        containers: args.containers || (host && root),
        all_filesystems: args.all_filesystems,
        threads: args.threads.map_or_else(threads, usize::from),
        max_age: max_age(args),
        state_dir: Some(dir),
    };
    let report = Report::default();
    let mut document = with_progress(&report, &args.root, || {
        run::take(&options, &classifier, &fingerprinter, &report)
    })?;
    run::remember(&mut document, &mut state, options.max_age)?;
    if args.action.is_some() {
        return compare(args, &state);
    }
    show(args, &document, &report)?;
    let unread = document.run.unreadable + document.processes.unreadable > 0;
    Ok(if args.strict && unread {
        exit::FAILED
    } else {
        exit::OK
    })
}

/// Two to four: directories are waited for rather than computed, and the host has other work.
fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 4)
}

fn state_dir(args: &InventoryArgs) -> Result<PathBuf, InventoryError> {
    if let Some(dir) = &args.state_dir {
        return Ok(std::path::absolute(dir)?);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(SYSTEM_STATE.into());
    }
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("keytrail"))
        .ok_or(InventoryError::NoHome)
}

fn fingerprinter(args: &InventoryArgs, dir: &Path) -> Result<Fingerprinter, InventoryError> {
    if let Some(file) = &args.fingerprint_key_file {
        return Fingerprinter::load(file).map_err(|e| InventoryError::At(file.clone(), e));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| InventoryError::At(dir.to_owned(), e))?;
    Ok(Fingerprinter::load_or_create(&dir.join("fingerprint.key"))?)
}

fn classifier(args: &InventoryArgs) -> Classifier {
    let default = Path::new(SYSTEM_RULES);
    let dir = args
        .rules_dir
        .as_deref()
        .or_else(|| default.is_dir().then_some(default));
    let Some(dir) = dir else {
        return Classifier::builtin();
    };
    let (classifier, errors) = Classifier::with_rules_dir(dir);
    for error in errors {
        eprintln!("keytrail: rule refused: {error}");
    }
    classifier
}

/// Shows on a terminal how far the walk is.
fn with_progress<T>(report: &Report, root: &Path, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    // Inodes in use say how many files to expect, when the whole file system is walked.
    let whole = root == Path::new("/");
    let expected = rustix::fs::statvfs(root)
        .ok()
        .map(|s| s.f_files.saturating_sub(s.f_ffree))
        .filter(|n| whole && *n > 0);
    let bar = ProgressBar::with_draw_target(expected, ProgressDrawTarget::stderr());
    let template = if expected.is_some() {
        "{spinner} [{bar:30}] {pos} of about {len} files and directories, {elapsed} {msg}"
    } else {
        "{spinner} {pos} files and directories, {elapsed} {msg}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let (done, wait) = mpsc::channel::<()>();
    let bar = &bar;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(Duration::from_millis(100))
                == Err(mpsc::RecvTimeoutError::Timeout)
            {
                let files = report.files.load(Ordering::Relaxed)
                    + report.directories.load(Ordering::Relaxed);
                bar.set_length(bar.length().unwrap_or(0).max(files));
                bar.set_position(files);
                bar.set_message(format!(
                    "{} read",
                    report.classified.load(Ordering::Relaxed)
                ));
            }
            bar.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}

fn show(args: &InventoryArgs, document: &Document, report: &Report) -> Result<(), InventoryError> {
    let shown: Vec<&Entry> = document.entries.iter().filter(|e| shows(args, e)).collect();
    match args.output {
        InventoryFormat::Json | InventoryFormat::Sarif | InventoryFormat::Cbom => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            let written = match args.output {
                InventoryFormat::Sarif => render::sarif::write(&mut out, document, report, &shown),
                InventoryFormat::Cbom => render::cbom::write(&mut out, document, report, &shown),
                _ => render::write_document(&mut out, document, report, &shown),
            };
            printed(written.and_then(|()| out.flush()))
        }
        InventoryFormat::Table | InventoryFormat::Wide => {
            let format = args.output.of_changes().unwrap_or_default();
            let style = format.style(io::stdout()).unwrap_or(Style::PLAIN);
            print(&render::inventory(document, report, &shown, &style))
        }
        InventoryFormat::Yaml | InventoryFormat::Csv => {
            let mut bytes = Vec::new();
            render::write_document(&mut bytes, document, report, &shown)?;
            let value = serde_json::from_slice(&bytes)?;
            let format = args.output.of_changes().unwrap_or_default();
            print(&in_format(&value, format, CREDENTIALS)?)
        }
    }
}

/// What is public or a sample is shown on request only.
fn shows(args: &InventoryArgs, entry: &Entry) -> bool {
    entry.credential.confidence >= args.min_confidence && (args.all || entry.class == Class::Secret)
}

fn compare(args: &InventoryArgs, state: &State) -> Result<u8, InventoryError> {
    let real =
        std::fs::canonicalize(&args.root).map_err(|e| InventoryError::At(args.root.clone(), e))?;
    let root = names::escape(real.as_os_str().as_bytes());
    let runs = state.runs(&root, 2)?;
    let max_age = max_age(args);
    // What the running agent saw since the last look is newer than any stored one.
    if args.action == Some(InventoryAction::Diff { now: false })
        && let Some(last) = runs.last()
        && let Some((now, mut entries)) = state.since(last)?
    {
        run::complete(&mut entries, now.started, max_age)?;
        let before = state.entries(last)?;
        return show_changes(args, (last, before), (&now, entries));
    }
    let [before, after] = runs.as_slice() else {
        return Err(if runs.is_empty() {
            InventoryError::Nothing(root)
        } else {
            InventoryError::OnlyOne(root)
        });
    };
    show_changes(
        args,
        (before, state.entries(before)?),
        (after, state.entries(after)?),
    )
}

fn max_age(args: &InventoryArgs) -> i64 {
    i64::from(args.older_than) * 86_400
}

fn show_changes(
    args: &InventoryArgs,
    before: (&Run, Vec<Entry>),
    after: (&Run, Vec<Entry>),
) -> Result<u8, InventoryError> {
    let (from, to) = (before.0, after.0);
    let changes = diff(before, after);
    let changes: Vec<_> = changes
        .into_iter()
        .filter(|c| shows(args, c.entry()))
        .collect();
    let format = args.output.of_changes().unwrap_or_default();
    if let Some(style) = format.style(io::stdout()) {
        print(&render::changes(from, to, &changes, &style))?;
        return Ok(exit::OK);
    }
    match format {
        TableFormat::Json => print(&json(&render::diff_document(from, to, &changes))?)?,
        other => print(&in_format(
            &render::diff_document(from, to, &changes),
            other,
            CHANGES,
        )?)?,
    }
    Ok(exit::OK)
}

/// Rows of the CSV of an inventory.
const CREDENTIALS: Rows = Rows {
    list: "credentials",
    columns: &[
        "class",
        "kind",
        "identifier",
        "fingerprint",
        "confidence",
        "privilege",
        "age_days",
        "first_seen",
        "known_since",
        "rotated",
        "expires",
        "exposures",
        "places",
        "more_places",
        "previous",
        "rule",
        "attack",
    ],
};

/// Rows of the CSV of what changed between two.
const CHANGES: Rows = Rows {
    list: "changes",
    columns: &[
        "change",
        "credential.class",
        "credential.kind",
        "credential.identifier",
        "credential.fingerprint",
    ],
};

fn in_format(value: &serde_json::Value, format: TableFormat, of: Rows) -> io::Result<String> {
    let written = crate::output::document(value, format.format(), of)?;
    Ok(written.unwrap_or_default())
}

fn json(value: &serde_json::Value) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn print(text: &str) -> Result<(), InventoryError> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// A reader that has seen enough (`| head`) is no failure.
fn printed(result: io::Result<()>) -> Result<(), InventoryError> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(InventoryError::Output(e)),
        _ => Ok(()),
    }
}
