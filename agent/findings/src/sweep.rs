//! Programs that read whatever lies where they were sent: backups and scanners, and searches through a tree. What they come
//! past they were not looking for.

use crate::facts::ProcessFacts;
use crate::key_places::{KEYS, is_hidden};
use crate::tool::tool_run_by;

/// What they read they are there to read.
const SCANNERS: &[&str] = &[
    "gitleaks",
    "trufflehog",
    "kingfisher",
    "titus",
    "noseyparker",
    "ggshield",
    "detect-secrets",
    "trivy",
    "restic",
    "borg",
    "kopia",
    "duplicity",
    "bacula-fd",
    "clamscan",
    "clamd",
];
/// They copy what they are given: whole directories, or the places of keys.
const ARCHIVERS: &[&str] = &[
    "tar", "bsdtar", "rsync", "cp", "zip", "cpio", "rclone", "updatedb",
];
/// They show the lines that they were asked for.
const SEARCHES: &[&str] = &[
    "grep", "egrep", "fgrep", "rg", "ag", "ack", "ugrep", "git-grep",
];
/// What they say of a file has nothing of what is in it.
const MEASURES: &[&str] = &[
    "file",
    "wc",
    "md5sum",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "b2sum",
    "b3sum",
    "cksum",
    "fdupes",
    "rdfind",
    "jdupes",
];
/// How keys, and what stands before them, look.
const LOOKED_FOR: &[&str] = &[
    "passw",
    "pwd",
    "api_key",
    "apikey",
    "api-key",
    "private",
    "begin ",
    "akia",
    "asia",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat",
    "glpat",
    "sk-",
    "sk_",
    "xox",
    "bearer",
    "eyj",
    "authorization",
];

/// How a program comes past what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// It copies everything, or looks for what should not be there.
    Backup,
    /// It looks for something else.
    Search,
}

impl Sweep {
    pub fn word(self) -> &'static str {
        match self {
            Sweep::Backup => "backup",
            Sweep::Search => "search",
        }
    }
}

/// Whether a program of backups was told to keep the places of keys and nothing else.
fn keeps_keys(tool: &str, process: &ProcessFacts) -> bool {
    let act = match tool {
        "restic" | "rustic" => "backup",
        "borg" | "kopia" => "create",
        _ => return false,
    };
    let mut arguments = process.argv.iter().skip_while(|a| *a != act).skip(1);
    let mut named = 0;
    let mut before = "";
    let only_keys = arguments.all(|argument| {
        // `--tag x`: no place; and borg's `/repository::archive`.
        let is_value = before.starts_with('-') && !before.contains('=') && has_value(before);
        let after_option = before.starts_with('-') && !before.contains('=');
        before = argument;
        if is_value || argument.starts_with('-') || argument.contains("::") {
            return true;
        }
        // What has no such beginning may be the value of an option before it.
        if !argument.starts_with(['/', '.', '~']) {
            return after_option;
        }
        named += 1;
        let from = if argument.starts_with('.') {
            &process.cwd
        } else {
            ""
        };
        is_hidden(from) || is_hidden(argument)
    });
    only_keys && named > 0
}

/// Options of programs of backups that stand before a path which is none to be kept.
fn has_value(option: &str) -> bool {
    [
        "-r",
        "-p",
        "-e",
        "--repo",
        "--repository-file",
        "--exclude",
        "--iexclude",
        "--exclude-file",
        "--iexclude-file",
        "--exclude-from",
        "--exclude-if-present",
        "--password-file",
        "--cache-dir",
        "--config-file",
    ]
    .contains(&option)
}

/// Whether a process does that: an installed program, that was not told where keys lie or how they look, and that neither
/// the installation of a package nor an agent runs.
pub(crate) fn sweep_of(process: &ProcessFacts) -> Option<Sweep> {
    let driven = |c: &crate::facts::ContextFacts| {
        matches!(c.kind.as_str(), "package_install" | "agent_tool")
    };
    if process.contexts.iter().any(driven) {
        return None;
    }
    let tool = tool_run_by(process)?;
    if SCANNERS.contains(&tool) {
        return (!keeps_keys(tool, process)).then_some(Sweep::Backup);
    }
    // What `find -exec` hands them is a list of all there is.
    if MEASURES.contains(&tool) {
        return Some(Sweep::Search);
    }
    let arguments = || process.argv.iter().skip(1).map(String::as_str);
    // One file copied is not all there is.
    let whole = tool != "cp" || arguments().any(is_recursive);
    if ARCHIVERS.contains(&tool) && whole && !arguments().any(|a| names_keys(a) || is_list(a)) {
        return Some(Sweep::Backup);
    }
    let plain = |a: &str| !names_keys(a) && !looks_for_keys(a) && !is_pattern_file(a);
    (SEARCHES.contains(&tool) && arguments().all(plain)).then_some(Sweep::Search)
}

fn is_recursive(argument: &str) -> bool {
    matches!(argument, "--recursive" | "--archive")
        || argument.starts_with('-')
            && !argument.starts_with("--")
            && argument.contains(['r', 'R', 'a'])
}

fn is_excluded(argument: &str) -> bool {
    argument.starts_with("--exclude")
}

fn names_keys(argument: &str) -> bool {
    !is_excluded(argument) && KEYS.iter().any(|word| argument.contains(word))
}

fn looks_for_keys(argument: &str) -> bool {
    let argument = argument.to_ascii_lowercase();
    !is_excluded(&argument) && LOOKED_FOR.iter().any(|word| argument.contains(word))
}

/// Files named in a file: nobody sees which.
fn is_list(argument: &str) -> bool {
    let letters = argument.strip_prefix('-').unwrap_or_default();
    ["--files-from", "--from0", "-@"]
        .iter()
        .any(|option| argument.starts_with(option))
        || letters
            .split_once('T')
            .is_some_and(|(before, _)| before.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// Patterns in a file: nobody sees which.
fn is_pattern_file(argument: &str) -> bool {
    let letters = argument.strip_prefix('-').unwrap_or_default();
    argument.starts_with("--file")
        || letters
            .split_once('f')
            .is_some_and(|(before, _)| before.bytes().all(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn what_reads_everything_and_what_knew_where_to_look() {
        let of = |executable: &str, argv: &[&str]| {
            sweep_of(&ProcessFacts {
                executable: executable.into(),
                argv: argv.iter().map(|a| (*a).to_owned()).collect(),
                ..ProcessFacts::default()
            })
        };
        for (executable, argv, is) in [
            (
                "/usr/bin/tar",
                &["tar", "-czf", "b.tgz", "/home/ada"][..],
                Some(Sweep::Backup),
            ),
            (
                "/usr/bin/tar",
                &["tar", "-cz", "--exclude=.ssh", "/home/ada"],
                Some(Sweep::Backup),
            ),
            ("/usr/bin/tar", &["tar", "-cz", "/home/ada/.ssh"], None),
            ("/usr/bin/tar", &["tar", "-czT", "list"], None),
            (
                "/usr/bin/cp",
                &["cp", "-a", "/home/ada", "/mnt"],
                Some(Sweep::Backup),
            ),
            ("/usr/bin/cp", &["cp", "/home/ada/x", "/mnt"], None),
            ("/home/ada/bin/tar", &["tar", "-cz", "/home/ada"], None),
            (
                "/usr/bin/gitleaks",
                &["gitleaks", "--secrets"],
                Some(Sweep::Backup),
            ),
            (
                "/usr/bin/grep",
                &["grep", "-rn", "TODO", "/home/ada"],
                Some(Sweep::Search),
            ),
            (
                "/usr/bin/grep",
                &["grep", "-rE", "AKIA|ghp_", "/home/ada"],
                None,
            ),
            (
                "/usr/bin/grep",
                &["grep", "-ri", "PASSWORD", "/home/ada"],
                None,
            ),
            (
                "/usr/bin/grep",
                &["grep", "-rf", "patterns", "/home/ada"],
                None,
            ),
            (
                "/usr/bin/grep",
                &["grep", "-r", "x", "/home/ada/.aws"],
                None,
            ),
            (
                "/usr/bin/restic",
                &[
                    "restic",
                    "-r",
                    "/srv/repo",
                    "backup",
                    "--tag",
                    "x",
                    "/home",
                    "/etc",
                ],
                Some(Sweep::Backup),
            ),
            (
                "/usr/bin/restic",
                &[
                    "restic",
                    "-r",
                    "/srv/repo",
                    "backup",
                    "/home/ada",
                    "/home/ada/.ssh",
                ],
                Some(Sweep::Backup),
            ),
            (
                "/usr/bin/restic",
                &[
                    "restic",
                    "backup",
                    "--exclude-file",
                    "/etc/x",
                    "-q",
                    "/home/ada/.ssh",
                    "/home/ada/.aws",
                ],
                None,
            ),
            (
                "/usr/bin/restic",
                &["restic", "backup", "."],
                Some(Sweep::Backup),
            ),
            ("/usr/bin/restic", &["restic", "backup", "./.ssh"], None),
            (
                "/usr/bin/restic",
                &["restic", "backup", "--files-from", "/etc/backup.list"],
                Some(Sweep::Backup),
            ),
            (
                "/usr/bin/file",
                &["file", "/home/ada/.aws/credentials"],
                Some(Sweep::Search),
            ),
            ("/usr/bin/cat", &["cat", "/home/ada/x"], None),
        ] {
            assert_eq!(of(executable, argv), is, "{argv:?}");
        }
    }
}
