//! Arguments of the questions about the past.

use crate::cli::args::AddressArgs;
use crate::cli::filter_args::{UnknownActor, When, parse_actor, parse_when};
use clap::{Args, Subcommand, ValueEnum};
use keytrail_proto::v1;
use std::path::PathBuf;

/// Shape of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Columns with what matters.
    #[default]
    Table,
    /// Columns with everything.
    Wide,
    /// Canonical proto3 JSON, one object a line.
    Json,
    /// The same as YAML, one document an object.
    Yaml,
    /// RFC 4180, with headings.
    Csv,
}

/// Shape of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FindingShape {
    /// Columns with what matters.
    #[default]
    Table,
    /// Columns with everything.
    Wide,
    /// Canonical proto3 JSON, one object a line.
    Json,
    /// The same as YAML, one document an object.
    Yaml,
    /// RFC 4180, with headings.
    Csv,
    /// Results of SARIF 2.1.0, for code hosts and what collects scans.
    Sarif,
}

impl FindingShape {
    /// The same of other answers.
    pub fn plain(self) -> Option<Shape> {
        Some(match self {
            FindingShape::Table => Shape::Table,
            FindingShape::Wide => Shape::Wide,
            FindingShape::Json => Shape::Json,
            FindingShape::Yaml => Shape::Yaml,
            FindingShape::Csv => Shape::Csv,
            FindingShape::Sarif => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphShape {
    /// Graphviz.
    #[default]
    Dot,
    Json,
    /// One page that needs nothing else.
    Html,
}

/// What was done with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActArg {
    /// The file that holds it was read.
    Read,
    /// A process had it in its environment or arguments.
    Held,
    /// It was sent.
    Sent,
}

impl ActArg {
    pub fn number(self) -> i32 {
        match self {
            ActArg::Read => v1::UseAct::Read,
            ActArg::Held => v1::UseAct::Held,
            ActArg::Sent => v1::UseAct::Sent,
        }
        .into()
    }
}

/// An interval.
#[derive(Debug, Args)]
pub struct Times {
    /// From so long ago (30s, 5m, 2h, 7d), or from this time (2026-11-28T21:03, in the local zone unless it says otherwise).
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub since: Option<When>,

    /// The same.
    #[arg(long, value_name = "TIME", value_parser = parse_when, conflicts_with = "since")]
    pub from: Option<When>,

    /// Until then [default: now].
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub to: Option<When>,
}

impl Times {
    pub fn interval(&self) -> (Option<When>, Option<When>) {
        (self.since.or(self.from), self.to)
    }
}

/// What the processes ran in, and for whom.
#[derive(Debug, Default, Args)]
pub struct RunsArgs {
    /// Only what ran in this: a kind (ci_job, package_install, agent_tool, cron, ssh_session, login_shell) or a name
    /// (github, npm, claude). With ! before it: all but that; may be repeated.
    #[arg(long, value_name = "CONTEXT", value_delimiter = ',')]
    pub context: Vec<String>,

    /// Only on behalf of this: person, agent, package, ci, job, service. With ! before it: all but that; may be repeated.
    #[arg(long, value_name = "ACTOR", value_delimiter = ',', value_parser = parse_actor_word)]
    pub actor: Vec<String>,
}

/// The word of an actor, or `!` and that.
fn parse_actor_word(text: &str) -> Result<String, UnknownActor> {
    parse_actor(text.strip_prefix('!').unwrap_or(text)).map(|_| text.to_owned())
}

#[derive(Debug, Args)]
pub struct CredentialsArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// Kind, identifier (both with * and ?) or fingerprint (8 digits are enough).
    pub credential: Option<String>,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Shape,

    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct CredentialArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// Fingerprint (8 digits are enough) or identifier.
    pub credential: String,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Shape,
}

#[derive(Debug, Args)]
pub struct UsedArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    /// Fingerprint (8 digits are enough) or identifier.
    #[arg(required_unless_present = "secret_stdin")]
    pub credential: Option<String>,

    #[command(flatten)]
    pub times: Times,

    /// Only by this program: path or name of the executable, or of the script.
    #[arg(long, value_name = "PROGRAM")]
    pub by: Option<String>,

    /// Only what was sent to this host name or address.
    #[arg(long, value_name = "HOST")]
    pub to_host: Option<String>,

    /// Only in this environment of the site: see `[[environment]]` in docs/RULES.md.
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,

    /// Only this; may be repeated.
    #[arg(long, value_name = "ACT", value_delimiter = ',')]
    pub act: Vec<ActArg>,

    /// Read the secret itself from standard input. It is hashed here, with the key in the state directory, and wiped;
    /// the agent gets the fingerprint only.
    #[arg(long, conflicts_with = "credential")]
    pub secret_stdin: bool,

    /// Where the agent keeps its fingerprint key.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/keytrail",
        env = "KEYTRAIL_STATE_DIR"
    )]
    pub state_dir: PathBuf,

    /// The fleet's fingerprint key, when the agent uses one.
    #[arg(long, value_name = "FILE")]
    pub fingerprint_key_file: Option<PathBuf>,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Shape,
}

#[derive(Debug, Args)]
pub struct UsesArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(flatten)]
    pub times: Times,

    /// Only this credential: kind, identifier (both with * and ?) or fingerprint (8 digits are enough). With ! before it:
    /// all but that, as in the next two.
    #[arg(long, value_name = "CREDENTIAL")]
    pub credential: Option<String>,

    /// Only by this program: path or name of the executable, or of the script.
    #[arg(long, value_name = "PROGRAM")]
    pub by: Option<String>,

    /// Only what was sent to this host name or address.
    #[arg(long, value_name = "HOST")]
    pub to_host: Option<String>,

    /// Only this; may be repeated.
    #[arg(long, value_name = "ACT", value_delimiter = ',')]
    pub act: Vec<ActArg>,

    /// Only in this environment of the site: see `[[environment]]` in docs/RULES.md. With ! before it: all but that.
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,

    #[command(flatten)]
    pub runs: RunsArgs,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Shape,

    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct FindingsArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(flatten)]
    pub times: Times,

    /// Only about this credential; with ! before it: all but that.
    #[arg(long, value_name = "CREDENTIAL")]
    pub credential: Option<String>,

    /// Only of this rule; with ! before it: of all others.
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,

    #[command(flatten)]
    pub runs: RunsArgs,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: FindingShape,

    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct CoverageArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(flatten)]
    pub times: Times,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Shape,
}

#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(flatten)]
    pub times: Times,

    /// Only this credential.
    #[arg(long, value_name = "CREDENTIAL")]
    pub credential: Option<String>,

    /// Shape of the output.
    #[arg(short, long, value_name = "FORMAT", default_value = "dot")]
    pub output: GraphShape,
}

#[derive(Debug, Args)]
pub struct BaselineArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(subcommand)]
    pub action: BaselineAction,
}

#[derive(Debug, Subcommand)]
pub enum BaselineAction {
    /// Which credentials have one, and whether it is still learned.
    List {
        /// Kind, identifier (both with * and ?) or fingerprint (8 digits are enough).
        credential: Option<String>,
        /// Shape of the output.
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Shape,
    },
    /// What is usual for one.
    Show {
        /// Fingerprint (8 digits are enough) or identifier.
        credential: String,
    },
    /// What is known is what is usual: learning ends now.
    Accept {
        /// Fingerprint (8 digits are enough) or identifier.
        credential: String,
    },
    /// Forget it, and learn anew.
    Reset {
        /// Fingerprint (8 digits are enough) or identifier.
        credential: String,
    },
}
