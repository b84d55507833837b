//! Programs that carry bytes from hand to hand: which file, or whether their standard input, they were told to send. What a
//! client reads to log in with (`curl --key`, `scp -i`) is not what it sends.

mod login;

use crate::clients::is_temporary;
use crate::facts::{Facts, ProcessFacts, StepFacts};
use crate::key_places::{KEYS, is_hidden};
use keytrail_model::is_multicall;
use login::is_login_option;

/// Clients of other protocols that send whatever is given to their standard input.
const PIPES: &[&str] = &[
    "nc",
    "ncat",
    "netcat",
    "nc.openbsd",
    "nc.traditional",
    "socat",
    "telnet",
    "gnutls-cli",
];
/// Those that copy the files which stand among their arguments.
const COPIERS: &[&str] = &[
    "scp",
    "sftp",
    "rsync",
    "rclone",
    "aws",
    "gsutil",
    "gcloud",
    "gcloud.py",
    "az",
    "azcopy",
    "mc",
    "s3cmd",
    "s5cmd",
    "croc",
    "wormhole",
    "magic-wormhole",
    "lftp",
    "ftp",
    "ncftpput",
    "tftp",
    "smbclient",
    "transfer",
    "gh",
    "glab",
];
/// They keep what they are given in a repository, which may be a directory, or somebody's server.
const BACKUPS: &[&str] = &["restic", "rustic", "borg", "kopia", "duplicity"];
/// How a repository begins that is not a directory.
const ELSEWHERE: &[&str] = &[
    "sftp:", "rest:", "s3:", "b2:", "azure:", "gs:", "swift:", "rclone:", "ssh:", "scp:", "rsync:",
    "ftp:", "ftps:", "webdav:", "webdavs:", "opendal:", "http:", "https:",
];
/// Programs of a shell's pipelines that pass on what they read, as it is or in another form.
const PACKERS: &[&str] = &[
    "cat", "tac", "head", "tail", "tar", "bsdtar", "zip", "gzip", "pigz", "bzip2", "xz", "zstd",
    "7z", "7za", "cpio", "base64", "base32", "basenc", "uuencode", "xxd", "od", "hexdump",
    "openssl", "gpg", "age", "grep", "egrep", "fgrep", "rg", "sed", "awk", "gawk", "mawk", "cut",
    "tr", "tee", "sort", "find", "xargs", "jq", "yq", "dd", "paste", "rev", "fold", "split", "cp",
    "mv", "install", "strings", "uniq", "nl", "fmt",
];
/// They ask for what their arguments name.
const ASKERS: &[&str] = &[
    "curl", "wget", "wget2", "http", "https", "xh", "dig", "kdig", "drill", "host", "nslookup",
    "getent", "ping",
];
/// Those that give out what they keep to who asks.
const KEEPERS: &[&str] = &[
    "git",
    "git-credential-store",
    "gh",
    "glab",
    "pass",
    "secret-tool",
];
/// What a program that uses a server's key has made with it is the key itself, encrypted, from so many bytes on: a request to
/// sign a certificate has up to 1,900 with its headers. So has an encrypted key of 2,048 bits, which cannot be told from that.
const KEY_BYTES: u64 = 2_200;

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn called(process: &ProcessFacts) -> &str {
    process.called()
}

/// Whether an argument is this file, or a directory around it that is itself a place of keys.
fn is_file(process: &ProcessFacts, argument: &str, path: &str) -> bool {
    let argument = argument.trim_end_matches('/');
    if argument.is_empty() || path.is_empty() {
        return false;
    }
    let whole = if argument.starts_with('/') {
        argument.to_owned()
    } else {
        let relative = argument.strip_prefix("./").unwrap_or(argument);
        format!("{}/{relative}", process.cwd.trim_end_matches('/'))
    };
    path == whole
        || is_hidden(&whole)
            && path
                .strip_prefix(&whole)
                .is_some_and(|rest| rest.starts_with('/'))
}

/// What the arguments of curl, wget or httpie say is to be sent: files, `-` for the standard input.
fn bodies(process: &ProcessFacts) -> Vec<&str> {
    let mut bodies = Vec::new();
    let mut before = "";
    let wget = called(process).starts_with("wget");
    let curl = called(process).starts_with("curl");
    for argument in process.argv.iter().skip(1).map(String::as_str) {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, value),
            // Values stand behind a letter as well: `-T-`, `-d@file`, `-sd@file`.
            _ if curl && is_short(argument) => match argument.find(['T', 'd', 'F']) {
                Some(at) => (
                    &argument[at..=at],
                    argument.get(at + 1..).unwrap_or_default(),
                ),
                None => ("", ""),
            },
            _ if argument.starts_with('-') && argument.len() > 1 => ("", ""),
            _ => (before, argument),
        };
        before = if value.is_empty() { option } else { "" };
        if before.is_empty() && argument.starts_with("--") && !argument.contains('=') {
            before = argument;
        }
        match option {
            "T" | "--upload-file" if curl => bodies.push(if value == "." { "-" } else { value }),
            "d" | "F" | "--data" | "--data-binary" | "--data-ascii" | "--data-raw"
            | "--data-urlencode" | "--json" | "--form"
                if curl =>
            {
                let at = value.find(['@', '<']);
                let file = at.map_or("", |at| value.get(at + 1..).unwrap_or_default());
                // `file=@x;type=text/plain`.
                bodies.push(file.split(';').next().unwrap_or_default());
            }
            "--post-file" | "--body-file" if wget => bodies.push(value),
            "" if !curl && !wget => {
                bodies.push(value.split_once('@').map_or("", |(_, file)| file));
            }
            _ => {}
        }
    }
    bodies.retain(|body| !body.is_empty());
    bodies
}

/// Whether curl was told nothing by which it would read this file to log in, or to be configured: then a file that it is to
/// send leads there, under another name.
fn has_no_other_use(process: &ProcessFacts, path: &str) -> bool {
    let file = name(path);
    let netrc = |a: &String| {
        // In a bundle what stands behind an option with a value is that value.
        let options = a.split(['d', 'F', 'T']).next().unwrap_or_default();
        a.starts_with("--netrc") || is_short(a) && options.contains('n')
    };
    let configured = |a: &String| {
        [
            "--config", "--key", "--cert", "--cookie", "--proxy-", "--pubkey", "--cacert",
        ]
        .iter()
        .any(|option| a.starts_with(option))
            || is_short(a) && a.contains(['K', 'E', 'b'])
            || a.contains(file)
    };
    let arguments = || process.argv.iter().skip(1);
    if matches!(file, ".curlrc" | "_curlrc" | "curlrc") {
        return false;
    }
    // It logs in by SSH with what it finds there itself.
    let by_ssh = |a: &String| a.starts_with("sftp://") || a.starts_with("scp://");
    if path.contains("/.ssh/") && arguments().any(by_ssh) {
        return false;
    }
    !arguments().any(|a| configured(a) || netrc(a) && file.contains("netrc"))
}

/// A bundle of options of one letter.
fn is_short(argument: &str) -> bool {
    argument.starts_with('-') && !argument.starts_with("--") && argument.len() > 1
}

/// Whether the process sends the file because it was told to.
fn sends_file(process: &ProcessFacts, path: &str) -> bool {
    let called = called(process);
    match called {
        "curl" | "wget" | "wget2" | "http" | "https" | "xh" => {
            let bodies = bodies(process);
            bodies.iter().any(|body| is_file(process, body, path))
                || called == "curl"
                    && bodies.iter().any(|body| *body != "-")
                    && has_no_other_use(process, path)
        }
        _ if PIPES.contains(&called) || is_tls_client(process) => {
            // A file that is named is a key or a certificate, but for socat's own addresses.
            let named = |a: &&String| a.ends_with(path) || a.contains(name(path));
            process.argv.iter().find(named).is_none_or(|argument| {
                let begin = argument.split([':', ',']).next().unwrap_or_default();
                ["FILE", "OPEN", "GOPEN"]
                    .iter()
                    .any(|address| begin.eq_ignore_ascii_case(address))
            })
        }
        // Its own keys it logs in with.
        "ssh" => {
            let named = |a: &String| a.ends_with(path) || is_file(process, a, path);
            !path.contains("/.ssh/") && !process.argv.iter().any(named)
        }
        _ if BACKUPS.contains(&called) => backs_up_keys(process, path),
        _ if COPIERS.contains(&called) => {
            let arguments = &process.argv;
            arguments.iter().enumerate().skip(1).any(|(at, argument)| {
                let before = arguments.get(at - 1).map_or("", String::as_str);
                !is_login_option(called, before)
                    && is_file(
                        process,
                        argument.strip_prefix("fileb://").unwrap_or(argument),
                        path,
                    )
            })
        }
        _ => false,
    }
}

/// Whether a program of backups was told to keep this file elsewhere, and nothing but places of keys: of a home, or of a list
/// of what somebody wants to keep, they are a part.
fn backs_up_keys(process: &ProcessFacts, path: &str) -> bool {
    let arguments = || process.argv.iter().skip(1);
    let elsewhere = |argument: &String| {
        let repository = argument
            .split_once('=')
            .map_or(&**argument, |(_, value)| value);
        ELSEWHERE
            .iter()
            .any(|scheme| repository.starts_with(scheme))
            || repository
                .split_once(':')
                .is_some_and(|(host, _)| host.contains('@'))
    };
    let mut named = arguments().filter(|a| a.starts_with(['/', '.']) && !elsewhere(a));
    arguments().any(elsewhere)
        && arguments().any(|a| is_file(process, a, path))
        && named.all(|a| is_hidden(a))
}

fn is_tls_client(process: &ProcessFacts) -> bool {
    process.called() == "openssl" && process.argv.get(1).is_some_and(|a| a == "s_client")
}

/// Whether the process sends what its standard input gives.
fn sends_input(process: &ProcessFacts) -> bool {
    let called = called(process);
    match called {
        "curl" => bodies(process).contains(&"-"),
        "wget" | "wget2" => bodies(process)
            .iter()
            .any(|body| *body == "-" || *body == "/dev/stdin"),
        "http" | "https" | "xh" | "ssh" => true,
        "openssl" => is_tls_client(process),
        "rclone" => process.argv.iter().any(|a| a == "rcat"),
        "aws" | "gsutil" | "gcloud" | "gcloud.py" | "mc" | "s3cmd" => {
            process.argv.iter().any(|a| a == "-")
        }
        _ => PIPES.contains(&called),
    }
}

/// Whether the event shows that a file with a credential was given to a program that sends it: read by that program itself, or
/// by the first of a pipeline that ends there, or packed into a file that it sends.
pub(crate) fn is_carried(facts: &Facts) -> bool {
    let Some(process) = &facts.process else {
        return false;
    };
    if facts.kind == "credential_read" {
        return is_kept(&facts.source.path) && sends_file(process, &facts.source.path);
    }
    let [first, between @ .., last] = &facts.steps[..] else {
        return false;
    };
    let given = match last.how.as_str() {
        "pipe" | "socket" => sends_input(process),
        "file" => sends_file(process, &last.name) || sends_input(process),
        _ => false,
    };
    // What a keeper sends on need not be what it keeps: it has to be seen.
    let packs = |step: &StepFacts| {
        let program = name(&step.executable);
        // A step does not say which of many programs it was: of those that read a file, most pass it on.
        PACKERS.contains(&program)
            || is_multicall(program)
            || facts.grade == "observed" && KEEPERS.contains(&program)
    };
    let kind = facts.credential.as_ref().map_or("", |c| c.kind.as_str());
    // A copy in a temporary place is not there to be packed; what has no more than a telling name may be anything.
    let copied = || is_temporary(&first.name) && !kind.is_empty() && !kind.starts_with("generic-");
    // What signs or decrypts with a key is given it for that.
    let uses = || matches!(name(&first.executable), "openssl" | "age" | "gpg" | "gpg2");
    // Where a server has its key, somebody packs it or encrypts it: what is signed with it is shorter than most keys.
    // Who brings it to another server does that by SSH.
    let served =
        || signs_only(kind) && called(process) != "ssh" && (!uses() || facts.bytes >= KEY_BYTES);
    // A key has no business in what a program asks for by name, which is how it goes in pieces.
    let asked =
        || last.how == "pipe" && signs_only(kind) && ASKERS.contains(&called(process)) && !uses();
    (given || asked())
        && first.how == "read"
        && (is_kept(&first.name) || copied() || served())
        && packs(first)
        && between.iter().all(packs)
}

/// Kinds that never leave who signs with them.
fn signs_only(kind: &str) -> bool {
    matches!(
        kind,
        "private-key"
            | "ssh-private-key"
            | "ssh-host-key"
            | "tls-private-key"
            | "gpg-private-key"
            | "pgp-private-key"
            | "age-secret-key"
            | "wireguard-key"
            | "shadow-hash"
    )
}

/// Whether a program that packs was given whole directories, and not the places of keys: a backup of a home.
pub(crate) fn packs_all(process: &ProcessFacts) -> bool {
    let names = |argument: &String| {
        !argument.starts_with("--exclude") && KEYS.iter().any(|key| argument.contains(key))
    };
    matches!(
        called(process),
        "tar" | "bsdtar" | "zip" | "cpio" | "7z" | "7za" | "find"
    ) && !process.argv.iter().skip(1).any(names)
}

/// Where people and systems keep their keys. What a pod is given is there to be sent.
fn is_kept(path: &str) -> bool {
    let file = name(path);
    !path.starts_with("/run/secrets/")
        && !path.starts_with("/var/run/secrets/")
        && (is_hidden(path)
            || file == ".env"
            || file.starts_with(".env.")
            || file.starts_with("id_")
            || [
                "/etc/shadow",
                "/etc/gshadow",
                "/etc/ssh/",
                "/etc/kubernetes/",
                "/etc/rancher/",
            ]
            .iter()
            .any(|place| path.starts_with(place)))
}

#[cfg(test)]
mod tests;
