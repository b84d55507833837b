//! `keytrail capture`: what happens on this host with credentials, and what lies there, in one signed file. Nothing has
//! to be installed, and nothing is written outside of the output directory.
//!
//! Two halves. The first one collects raw files in a working directory (`live`, `processes`, `connections`, `lies`), the
//! most volatile first. The second one (`finish`) makes a bundle of what is in a working directory, whoever left it there:
//! so what a killed capture left is finished by the next one.

mod connections;
mod credentials;
mod facts;
mod finish;
mod footprint;
mod lies;
mod live;
mod processes;
mod redact;
mod signals;
mod timeline;
mod work;

use super::args::EngineArgs;
use super::filter_args::{When, parse_when};
use super::spawn::{self, Held};
use super::{exit, fail, privilege};
use crate::config::Config;
use finish::FinishError;
use keytrail_bundle::{KeyError, Packed, SigningKey};
use live::WatchError;
use signals::Signals;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use work::{Work, WorkError};

/// How long is watched when nobody says.
const DEFAULT: Duration = Duration::from_secs(60);
/// Longest time that is watched, whoever says what: a capture that was forgotten ends.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Watch for so long (30s, 10m, 2h; at most a day) [default: 60s].
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_span, conflicts_with_all = ["until_signal", "command", "root"])]
    pub span: Option<Duration>,

    /// Watch until Ctrl-C or SIGTERM (a day at most).
    #[arg(long, conflicts_with_all = ["command", "root"])]
    pub until_signal: bool,

    /// Case number, for the manifest.
    #[arg(long, value_name = "N", help_heading = "About the case")]
    pub case: Option<String>,

    /// Evidence number, for the manifest.
    #[arg(long, value_name = "N", help_heading = "About the case")]
    pub evidence: Option<String>,

    /// Who makes this capture.
    #[arg(long, value_name = "NAME", help_heading = "About the case")]
    pub examiner: Option<String>,

    /// Anything else that belongs to it.
    #[arg(long, value_name = "TEXT", help_heading = "About the case")]
    pub note: Option<String>,

    /// A mounted image (or any directory) instead of this host: only what lies there, no events.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub root: Option<PathBuf>,

    /// Look for credentials that lie here only; processes are inspected all the same.
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "root")]
    pub walk: PathBuf,

    /// Where the bundle goes; made if it is not there.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,

    /// Sign with this Ed25519 key (PKCS#8, PEM or DER) [default: a fresh one, of which the public half alone is kept].
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,

    /// Fingerprint key (the fleet's), so that bundles of several hosts can be compared [default: a fresh one].
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Stop watching when events and recording have become so long, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub max_size: u64,

    /// Watch while this command runs. The whole host is watched, as ever.
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// A text that is no time to watch for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time span such as 30s, 10m or 2h, of a day at most")]
struct SpanError(String);

fn parse_span(text: &str) -> Result<Duration, SpanError> {
    match parse_when(text) {
        Ok(When::Ago(span)) if !span.is_zero() && span <= LONGEST => Ok(span),
        _ => Err(SpanError(text.to_owned())),
    }
}

/// What ends the watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    For(Duration),
    UntilSignal,
    Command,
    /// Nothing is watched.
    Root,
}

impl CaptureArgs {
    fn plan(&self) -> Plan {
        match self.span {
            _ if self.root.is_some() => Plan::Root,
            _ if !self.command.is_empty() => Plan::Command,
            _ if self.until_signal => Plan::UntilSignal,
            span => Plan::For(span.unwrap_or(DEFAULT)),
        }
    }
}

pub(super) fn run(args: &CaptureArgs, config: Config) -> u8 {
    let plan = args.plan();
    if plan == Plan::Command
        && let Err(e) = spawn::find(&args.command[0])
    {
        return fail(&e, e.status());
    }
    if plan != Plan::Root
        && let Some(sentence) = privilege::missing()
    {
        return fail(&sentence, exit::NOT_PERMITTED);
    }
    let key = match signing_key(args.sign_key.as_deref()) {
        Ok(key) => key,
        Err(e) => return fail(&e, exit::USAGE),
    };
    if let Some(file) = &args.key
        && let Err(e) = keytrail_secret::Fingerprinter::load(file)
    {
        return fail(&format_args!("{}: {e}", file.display()), exit::USAGE);
    }
    // Before there is a thread, and before this process is anything but what it was started as.
    let held = match plan {
        Plan::Command => match Held::spawn(&args.command) {
            Ok(held) => Some(held),
            Err(e) => return fail(&e, e.status()),
        },
        _ => None,
    };
    let signals = Signals::take();
    let output = match work::output(&args.output) {
        Ok(output) => output,
        Err(e) => return fail(&e, exit::FAILED),
    };
    for left in work::left_behind(&output) {
        say(&format_args!(
            "finishing {}, which was left behind",
            left.name()
        ));
        match finish::finish(left, None, &key) {
            Ok(packed) => print_outcome(&packed, &key),
            Err(e) => eprintln!("keytrail: {e}"),
        }
    }
    match capture(args, config, plan, held, &signals, &output, &key) {
        Ok(packed) => {
            print_outcome(&packed, &key);
            exit::OK
        }
        Err(e) => fail(&e, exit::FAILED),
    }
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error(transparent)]
    Work(#[from] WorkError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Finish(#[from] FinishError),
}

fn capture(
    args: &CaptureArgs,
    config: Config,
    plan: Plan,
    held: Option<Held>,
    signals: &Signals,
    output: &Path,
    key: &SigningKey,
) -> Result<Packed, CaptureError> {
    let rules = config.rules_dir.clone();
    let begun = facts::begin(args, plan, key);
    let work = Work::make(output, begun)?;
    let mut end = work::End::default();
    // The sensors' own threads keep their priority: what they do not take in in time is lost. All else waits for others.
    let watched = match plan {
        Plan::Root => Ok(None),
        _ => live::watch(args, config, plan, held, signals, &work, &mut end).map(Some),
    };
    keytrail_host::priority::lower_this_thread();
    let stopped = signals.count() > 0 && plan != Plan::UntilSignal;
    match watched {
        Ok(_) if stopped => {
            end.partial("it was interrupted: there is no inventory of what lies on the host")
        }
        Ok(_) => lies::take(args, &rules, signals, &work, &mut end),
        Err(e) => {
            work.remove();
            return Err(e.into());
        }
    }
    end.close(&work);
    say(&"packing");
    Ok(finish::finish(work, Some(end), key)?)
}

/// Why there is nothing to sign with. Nothing of a key is in here.
#[derive(Debug, thiserror::Error)]
enum SignKeyError {
    #[error(transparent)]
    Fresh(KeyError),
    #[error("the signing key {}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    #[error("the signing key {}: group or others may read it: run `chmod 600` on it", .0.display())]
    Open(PathBuf),
    #[error("the signing key {}: {}", .0.display(), .1)]
    Key(PathBuf, KeyError),
}

fn signing_key(file: Option<&Path>) -> Result<SigningKey, SignKeyError> {
    let Some(path) = file else {
        return SigningKey::fresh().map_err(SignKeyError::Fresh);
    };
    let wrong = |e: io::Error| SignKeyError::File(path.to_owned(), e);
    let file = std::fs::File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    if meta.mode() & 0o077 != 0 {
        return Err(SignKeyError::Open(path.to_owned()));
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(16 << 10));
    file.take(16 << 10).read_to_end(&mut bytes).map_err(wrong)?;
    SigningKey::parse(&bytes).map_err(|e| SignKeyError::Key(path.to_owned(), e))
}

/// Progress.
fn say(what: &dyn std::fmt::Display) {
    eprintln!("-- {what}");
}

/// What there is now: on stdout the bundle alone, for scripts.
fn print_outcome(packed: &Packed, key: &SigningKey) {
    println!("{}", packed.bundle.display());
    say(&format_args!(
        "{} KiB, sha256 {}",
        packed.size.div_ceil(1_024),
        packed.sha256
    ));
    say(&format_args!(
        "signed with key sha256 {}",
        key.public().name()
    ));
    say(&"note both elsewhere: whoever can change the bundle can sign it anew");
}
