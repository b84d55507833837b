//! `keytrail decoy`: credentials that open nothing, in places where such credentials lie. Nobody has a reason to touch
//! one.

use super::args::AddressArgs;
use super::classify::KEY_FILE;
use super::demo::decoy::{random_base62, token};
use super::exit;
use super::history::{End, Outcome, Shape, history, print, run as connected, show};
use crate::output::history as render;
use clap::{Args, Subcommand, ValueEnum};
use keytrail_proto::v1::baseline_service_client::BaselineServiceClient;
use keytrail_proto::v1::{
    AddDecoyRequest, Decoy, GetHistoryStatusRequest, ListDecoysRequest, RemoveDecoyRequest,
};
use keytrail_secret::{Classifier, Fingerprinter, Origin};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A decoy is a small file; what is larger is none of ours.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Debug, Args)]
pub struct DecoyArgs {
    #[command(flatten)]
    pub agent: AddressArgs,

    #[command(subcommand)]
    pub action: DecoyAction,
}

#[derive(Debug, Subcommand)]
pub enum DecoyAction {
    /// Write one, and tell the agent.
    Plant {
        /// What it looks like.
        #[arg(long, value_name = "KIND", default_value = "aws")]
        kind: DecoyKind,

        /// Where; the file must not exist yet [default: the usual place in the home directory].
        path: Option<PathBuf>,

        #[command(flatten)]
        key: KeyArgs,
    },
    /// Show all.
    List {
        /// Shape of the output.
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Shape,
    },
    /// Delete one, and tell the agent.
    Remove {
        /// Its path or fingerprint (8 digits are enough).
        decoy: String,

        #[command(flatten)]
        key: KeyArgs,
    },
}

#[derive(Debug, Args)]
pub struct KeyArgs {
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecoyKind {
    /// An access key in ~/.aws/credentials.
    Aws,
    /// A personal access token in ~/.config/gh/hosts.yml.
    Github,
    /// Name and password in ~/.netrc.
    Netrc,
}

impl DecoyKind {
    fn usual_place(self) -> &'static str {
        match self {
            DecoyKind::Aws => ".aws/credentials",
            DecoyKind::Github => ".config/gh/hosts.yml",
            DecoyKind::Netrc => ".netrc",
        }
    }

    fn text(self) -> io::Result<Zeroizing<String>> {
        Ok(Zeroizing::new(match self {
            DecoyKind::Aws => {
                // Key ids are of capital letters and the digits 2 to 7.
                let id: String = random_base62(64)?
                    .to_uppercase()
                    .chars()
                    .filter(|c| c.is_ascii_uppercase() || ('2'..='7').contains(c))
                    .take(16)
                    .collect();
                format!(
                    "[default]\naws_access_key_id = AKIA{id}\naws_secret_access_key = {}\n",
                    random_base62(40)?.as_str()
                )
            }
            DecoyKind::Github => format!(
                "github.com:\n    user: deploy\n    oauth_token: {}\n    git_protocol: https\n",
                token()?.as_str()
            ),
            DecoyKind::Netrc => format!(
                "machine registry.example.com\nlogin deploy\npassword {}\n",
                random_base62(28)?.as_str()
            ),
        }))
    }
}

pub(super) fn run(args: &DecoyArgs) -> u8 {
    connected(&args.agent.target(), async |channel| {
        let key_name = history(channel.clone())
            .get_history_status(GetHistoryStatusRequest {})
            .await?
            .into_inner()
            .fingerprint_key;
        let mut client = BaselineServiceClient::new(channel);
        match &args.action {
            DecoyAction::Plant { kind, path, key } => {
                let path = place(*kind, path.as_deref())?;
                let text = kind.text().map_err(|e| failed(&e))?;
                let (fingerprint, found) =
                    read(&key_of(key, &key_name)?, &path, text.as_bytes())
                        .ok_or_else(|| failed(&"no rule knows this decoy at that place"))?;
                let decoy = Decoy {
                    fingerprint: fingerprint.clone(),
                    kind: found,
                    path: path.display().to_string(),
                    planted: None,
                };
                // Reported first: nobody can be faster than the agent knows.
                client
                    .add_decoy(AddDecoyRequest { decoy: Some(decoy) })
                    .await?;
                if let Err(e) = write(&path, text.as_bytes()) {
                    client
                        .remove_decoy(RemoveDecoyRequest { fingerprint })
                        .await?;
                    return Err(failed(&format!("{}: {e}", path.display())));
                }
                print(&format!("{} {fingerprint}\n", path.display()))?;
                Ok(exit::OK)
            }
            DecoyAction::List { output } => {
                let decoys = client
                    .list_decoys(ListDecoysRequest {})
                    .await?
                    .into_inner()
                    .decoys;
                show(*output, &decoys, render::decoys)?;
                Ok(exit::OK)
            }
            DecoyAction::Remove { decoy, key } => {
                let decoys = client
                    .list_decoys(ListDecoysRequest {})
                    .await?
                    .into_inner()
                    .decoys;
                let digits = decoy.strip_prefix("kt1:").unwrap_or(decoy);
                let is = |d: &&Decoy| {
                    d.path == *decoy || digits.len() >= 8 && d.fingerprint[4..].starts_with(digits)
                };
                let Some(found) = decoys.iter().find(is) else {
                    return Err(failed(&format!("there is no decoy {decoy}")));
                };
                remove(&key_of(key, &key_name)?, found)?;
                client
                    .remove_decoy(RemoveDecoyRequest {
                        fingerprint: found.fingerprint.clone(),
                    })
                    .await?;
                Ok(exit::OK)
            }
        }
    })
}

fn failed(e: &dyn std::fmt::Display) -> End {
    End {
        status: exit::FAILED,
        sentence: e.to_string(),
    }
}

fn place(kind: DecoyKind, path: Option<&Path>) -> Result<PathBuf, End> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => {
            let home =
                std::env::var_os("HOME").ok_or_else(|| failed(&"there is no HOME: name a path"))?;
            Path::new(&home).join(kind.usual_place())
        }
    };
    let path = std::path::absolute(&path).map_err(|e| failed(&e))?;
    if path.symlink_metadata().is_ok() {
        return Err(failed(&format!(
            "{} exists already: a decoy never takes the place of anything",
            path.display()
        )));
    }
    Ok(path)
}

/// The agent's key: a fingerprint made with another one would never be seen.
fn key_of(args: &KeyArgs, name: &str) -> Result<Fingerprinter, End> {
    let path = args
        .fingerprint_key_file
        .clone()
        .unwrap_or_else(|| args.state_dir.join(KEY_FILE));
    let key = Fingerprinter::load(&path).map_err(|e| {
        failed(&format!(
            "the agent's fingerprint key {}: {e}",
            path.display()
        ))
    })?;
    if key.key_name() != name {
        return Err(failed(&format!(
            "{} is not the key of this agent",
            path.display()
        )));
    }
    Ok(key)
}

/// Fingerprint and kind of what a text at a place holds.
fn read(key: &Fingerprinter, path: &Path, text: &[u8]) -> Option<(String, String)> {
    let path = path.to_string_lossy();
    let found = Classifier::builtin().classify(text, Origin::File { path: &path });
    let best = found
        .iter()
        .filter(|finding| !finding.parts.is_empty())
        .max_by(|a, b| a.confidence.total_cmp(&b.confidence))?;
    let credential = best.credential(key);
    Some((credential.fingerprint, credential.kind))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text)
}

/// Deletes the file, if it still is what was planted.
fn remove(key: &Fingerprinter, decoy: &Decoy) -> Outcome {
    let path = Path::new(&decoy.path);
    let mut text = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize));
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(exit::OK),
        Err(e) => return Err(failed(&format!("{}: {e}", path.display()))),
    };
    file.take(MOST_BYTES)
        .read_to_end(&mut text)
        .map_err(|e| failed(&format!("{}: {e}", path.display())))?;
    if read(key, path, &text).is_none_or(|(fingerprint, _)| fingerprint != decoy.fingerprint) {
        return Err(failed(&format!(
            "{} is not what was planted there any more: delete it by hand if you mean it",
            path.display()
        )));
    }
    fs::remove_file(path).map_err(|e| failed(&format!("{}: {e}", path.display())))?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_where_it_usually_lies_and_removed_only_as_it_was() {
        let key = Fingerprinter::new(&[7; 32]);
        let dir = tempfile::tempdir().unwrap();
        for kind in [DecoyKind::Aws, DecoyKind::Github, DecoyKind::Netrc] {
            let path = dir.path().join("home/u").join(kind.usual_place());
            let text = kind.text().unwrap();
            let (fingerprint, name) =
                read(&key, &path, text.as_bytes()).unwrap_or_else(|| panic!("{kind:?}"));
            write(&path, text.as_bytes()).unwrap();
            assert!(write(&path, b"x").is_err(), "never over another file");
            let decoy = Decoy {
                fingerprint,
                kind: name,
                path: path.display().to_string(),
                planted: None,
            };
            let other = Decoy {
                fingerprint: format!("kt1:{}", "0".repeat(32)),
                ..decoy.clone()
            };
            assert!(remove(&key, &other).is_err() && path.exists());
            assert!(remove(&key, &decoy).is_ok() && !path.exists());
        }
    }
}
