//! Recognition of places apart from content: the text asked about is empty, only the path speaks.

use super::ask::command;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// Below any home directory.
const IN_HOME: &[&str] = &[
    ".aws/credentials",
    ".aws/cli/cache/0a1b.json",
    ".aws/sso/cache/77.json",
    ".azure/accessTokens.json",
    ".azure/msal_token_cache.json",
    ".azure/msal_token_cache.bin",
    ".azure/service_principal_entries.json",
    ".boto",
    ".config/gcloud/application_default_credentials.json",
    ".config/gcloud/credentials.db",
    ".config/gcloud/access_tokens.db",
    ".config/gcloud/legacy_credentials/me@x.org/adc.json",
    ".oci/config",
    ".oci/oci_api_key.pem",
    ".kube/config",
    ".docker/config.json",
    ".dockercfg",
    ".vault-token",
    ".config/gh/hosts.yml",
    ".config/hub",
    ".git-credentials",
    ".config/git/credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".gem/credentials",
    ".composer/auth.json",
    ".terraform.d/credentials.tfrc.json",
    ".ssh/id_rsa",
    ".ssh/id_ed25519",
    ".ssh/id_ecdsa",
    ".netrc",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".databrickscfg",
    ".claude/.credentials.json",
    ".claude.json",
    ".codex/auth.json",
    ".cache/huggingface/token",
    ".cursor/mcp.json",
    ".gnupg/private-keys-v1.d/0123456789ABCDEF0123456789ABCDEF01234567.key",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
    ".mysql_history",
    ".s3cfg",
    ".config/rclone/rclone.conf",
    ".sentryclirc",
    ".nuget/NuGet/NuGet.Config",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    ".pulumi/credentials.json",
    ".circleci/cli.yml",
    ".config/doctl/config.yaml",
    ".fly/config.yml",
    ".config/sops/age/keys.txt",
];

const ABSOLUTE: &[&str] = &[
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/krb5.keytab",
    "/tmp/krb5cc_1000",
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
    "/etc/kubernetes/pki/ca.key",
    "/etc/kubernetes/pki/sa.key",
    "/etc/kubernetes/pki/etcd/server.key",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    "/var/run/secrets/azure/tokens/azure-identity-token",
    "/etc/ssl/private/site.key",
    "/etc/letsencrypt/live/x.org/privkey.pem",
    "/etc/wireguard/wg0.conf",
    "/run/credentials/a.service/token",
    "/etc/mysql/debian.cnf",
    "/etc/NetworkManager/system-connections/home.nmconnection",
    "/var/lib/jenkins/secrets/master.key",
    "/var/lib/jenkins/credentials.xml",
    "/srv/app/.env",
    "/srv/app/.env.production",
    "/srv/infra/terraform.tfstate",
    "/srv/app/.mcp.json",
    "/srv/www/wp-config.php",
    "/srv/www/.htpasswd",
    "/etc/redis/redis.conf",
    "/srv/app/config/master.key",
    "/srv/ci/gha-creds-0a1b2c.json",
];

/// Neighbours of those places that hold nothing.
const LOOK_ALIKES: &[&str] = &[
    ".aws/cli/alias",
    ".aws/models/x.json",
    ".kube/cache/discovery/x.json",
    ".docker/contexts/meta.json",
    ".docker/buildx/current",
    ".config/gh/config.yml",
    ".npmrc.md",
    ".ssh/id_rsa.pub",
    ".ssh/id_ed25519.pub",
    ".ssh/known_hosts",
    ".ssh/authorized_keys",
    ".gnupg/pubring.kbx",
    ".gnupg/trustdb.gpg",
    ".cargo/config.toml",
    ".terraform.d/plugin-cache/x",
    ".cache/huggingface/hub/model.bin",
    ".config/gcloud/logs/x.log",
    ".claude/settings.json",
    ".codex/sessions/x.log",
    ".bashrc",
    ".profile",
    ".vimrc",
    "notes.txt",
    "credentials.rs",
    "src/token.go",
    "Documents/passwords-policy.pdf",
    "project/.envrc.md",
    ".env.rs",
];

const LOOK_ALIKES_ABSOLUTE: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/etc/ssh/sshd_config",
    "/etc/ssl/certs/ca.pem",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/manifests/etcd.yaml",
    "/etc/krb5.conf",
    "/etc/letsencrypt/live/x.org/cert.pem",
    "/etc/letsencrypt/live/x.org/fullchain.pem",
    "/usr/bin/ssh",
    "/usr/lib/python3/dist-packages/keyring/credentials.py",
    "/usr/share/doc/git/contrib/credential/netrc/README",
    "/var/log/auth.log",
    "/proc/self/status",
    "/var/lib/dpkg/status",
    "/run/systemd/journal/socket",
    "/var/lib/kubelet/pki/kubelet.crt",
    "/etc/wireguard/README",
    "/srv/app/package.json",
    "/srv/app/env.example",
    "/var/lib/jenkins/config.history",
    "/tmp/krb5.log",
];

/// Places asked about and answered rightly.
pub struct Score {
    pub known: usize,
    pub of: usize,
    pub claimed: usize,
    pub of_look_alikes: usize,
    pub missed: Vec<String>,
    pub wrong: Vec<String>,
}

pub fn run(binary: &Path) -> Result<Score> {
    const HOMES: &[&str] = &[
        "/root/",
        "/home/ada/",
        "/proc/4711/root/home/ada/",
        "/var/lib/gitlab-runner/",
    ];
    let mut questions: Vec<(bool, String)> = Vec::new();
    for (right, below, absolute) in [
        (true, IN_HOME, ABSOLUTE),
        (false, LOOK_ALIKES, LOOK_ALIKES_ABSOLUTE),
    ] {
        for place in below {
            questions.extend(HOMES.iter().map(|home| (right, format!("{home}{place}"))));
        }
        questions.extend(absolute.iter().map(|p| (right, (*p).to_string())));
        questions.extend(
            absolute
                .iter()
                .filter(|p| !p.starts_with("/proc/"))
                .map(|p| (right, format!("/proc/4711/root{p}"))),
        );
    }
    let mut child = command(binary).spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the classifier")
    };
    let mut score = Score {
        known: 0,
        of: 0,
        claimed: 0,
        of_look_alikes: 0,
        missed: Vec::new(),
        wrong: Vec::new(),
    };
    std::thread::scope(|scope| -> Result<()> {
        let questions = &questions;
        scope.spawn(move || {
            for (_, path) in questions {
                if writeln!(stdin, "{}", json!({"id": 0, "path": path, "text": ""})).is_err() {
                    return;
                }
            }
        });
        for ((right, path), line) in questions.iter().zip(BufReader::new(stdout).lines()) {
            let answer: Value = serde_json::from_str(&line?)?;
            let known = answer["usual_place_of"]
                .as_array()
                .is_some_and(|k| !k.is_empty());
            if *right {
                score.of += 1;
                score.known += usize::from(known);
                if !known {
                    score.missed.push(path.clone());
                }
            } else {
                score.of_look_alikes += 1;
                score.claimed += usize::from(known);
                if known {
                    score.wrong.push(format!(
                        "{path} ({})",
                        answer["usual_place_of"][0].as_str().unwrap_or_default()
                    ));
                }
            }
        }
        Ok(())
    })?;
    child.wait()?;
    Ok(score)
}
