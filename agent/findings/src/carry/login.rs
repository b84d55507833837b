//! Options of programs that copy files behind which a file stands that they do not send: what they log in with, what they are
//! configured by, lists and scripts.

/// Of each program, and which of its options take such a file. The same letter is another thing elsewhere.
const OPTIONS: &[(&[&str], &[&str])] = &[
    (
        &["scp", "sftp"],
        &["-i", "-F", "-o", "-S", "-c", "-J", "-b", "-D"],
    ),
    (
        &["rsync"],
        &[
            "-e",
            "--rsh",
            "--password-file",
            "--files-from",
            "--exclude-from",
            "--include-from",
            "--config",
            "--log-file",
        ],
    ),
    (
        &["rclone"],
        &[
            "--config",
            "--files-from",
            "--files-from-raw",
            "--filter-from",
            "--exclude-from",
            "--include-from",
            "--log-file",
        ],
    ),
    (&["aws"], &["--profile", "--ca-bundle", "--private-key"]),
    (&["gsutil"], &["-o", "-i"]),
    (
        &["gcloud", "gcloud.py"],
        &[
            "--key-file",
            "--cred-file",
            "--credential-file-override",
            "--login-config",
            "--flags-file",
            "--configuration",
            "--ssh-key-file",
        ],
    ),
    (
        &["az"],
        &[
            "-p",
            "-i",
            "--password",
            "--certificate",
            "--private-key-file",
            "--public-key-file",
        ],
    ),
    (&["mc"], &["-C", "--config-dir"]),
    (
        &["s3cmd"],
        &["-c", "--config", "--ca-certs", "--ssl-cert", "--ssl-key"],
    ),
    (&["s5cmd"], &["--credentials-file", "--profile"]),
    (&["lftp"], &["-f", "--rcfile"]),
    (&["ftp", "tnftp"], &["-N"]),
    (&["ncftpput"], &["-f"]),
    (
        &["smbclient"],
        &[
            "-A",
            "--authentication-file",
            "-s",
            "--configfile",
            "--use-krb5-ccache",
        ],
    ),
];

/// Endings of long options that say as much by themselves: `--sftp-key-file`, `--drive-service-account-file`.
const ENDINGS: &[&str] = &[
    "key-file",
    "account-file",
    "credentials-file",
    "password-file",
    "private-key",
    "client-cert",
    "client-key",
    "ca-cert",
    "principal-file",
];

/// Whether the argument behind an option of a program is a file that it does not send.
pub(super) fn is_login_option(called: &str, option: &str) -> bool {
    let options = OPTIONS
        .iter()
        .filter(|(programs, _)| programs.contains(&called));
    options
        .into_iter()
        .any(|(_, options)| options.contains(&option))
        || option.starts_with("--") && ENDINGS.iter().any(|ending| option.ends_with(ending))
}
