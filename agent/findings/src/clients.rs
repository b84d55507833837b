//! Which programs a kind of credential is made for: that they read it is what it is there for.

use crate::facts::ProcessFacts;
use keytrail_model::INLINE;

struct Client {
    /// File names of the executable or of an interpreter's script.
    names: &'static [&'static str],
    /// Beginnings of kinds.
    kinds: &'static [&'static str],
}

const CLIENTS: &[Client] = &[
    Client {
        names: &[
            "git",
            "git-remote-http",
            "git-remote-https",
            "git-credential-store",
            "git-credential-cache--daemon",
            "git-lfs",
            "hub",
        ],
        kinds: &[
            "github-",
            "gitlab-",
            "bitbucket-",
            "azure-devops-",
            "atlassian-",
            "url-",
            "netrc",
            "http-basic-",
        ],
    },
    Client {
        names: &["gh"],
        kinds: &["github-"],
    },
    Client {
        names: &["glab"],
        kinds: &["gitlab-"],
    },
    Client {
        names: &[
            "ssh",
            "scp",
            "sftp",
            "ssh-add",
            "ssh-keygen",
            "sshd",
            "sshd-session",
            "sshd-auth",
        ],
        kinds: &["ssh-", "private-key"],
    },
    Client {
        names: &[
            "npm",
            "npm-cli.js",
            "npx",
            "npx-cli.js",
            "pnpm",
            "pnpm.cjs",
            "yarn",
            "yarn.js",
            "yarn.cjs",
            "bun",
        ],
        kinds: &["npm", "github-", "gitlab-"],
    },
    Client {
        names: &["pip", "pip3", "twine", "uv", "poetry", "__pip-runner__.py"],
        kinds: &["pypi", "netrc", "url-", "http-basic-"],
    },
    Client {
        names: &["cargo"],
        kinds: &["cargo-"],
    },
    Client {
        names: &["gem", "bundle", "bundler"],
        kinds: &["rubygems-", "bundler-"],
    },
    Client {
        names: &["aws", "aws_completer", "sam", "eksctl"],
        kinds: &["aws-"],
    },
    Client {
        names: &["gcloud", "gcloud.py", "gsutil", "bq"],
        kinds: &["gcp-", "gcloud-", "google-"],
    },
    Client {
        names: &["az"],
        kinds: &["azure-"],
    },
    Client {
        names: &["kubectl", "helm", "k9s", "kubelet"],
        kinds: &["kube", "jwt"],
    },
    Client {
        names: &[
            "docker", "dockerd", "podman", "buildah", "skopeo", "crane", "nerdctl",
        ],
        kinds: &["docker-"],
    },
    Client {
        names: &["vault", "bao"],
        kinds: &["vault-"],
    },
    Client {
        names: &["terraform", "tofu"],
        kinds: &["terraform-", "aws-", "gcp-", "azure-"],
    },
    Client {
        names: &["psql", "pg_dump", "pg_restore", "pg_basebackup"],
        kinds: &["pgpass", "postgresql-"],
    },
    Client {
        names: &[
            "mysql",
            "mariadb",
            "mysqldump",
            "mariadb-dump",
            "mysqladmin",
            "mariadb-admin",
        ],
        kinds: &["mysql-"],
    },
    Client {
        names: &["curl", "wget"],
        kinds: &["netrc", "curl-"],
    },
    Client {
        names: &[
            "sudo",
            "su",
            "login",
            "passwd",
            "chpasswd",
            "useradd",
            "usermod",
            "userdel",
            "groupadd",
            "groupmod",
            "groupdel",
            "gpasswd",
            "chage",
            "pwck",
            "grpck",
            "unix_chkpwd",
            "systemd-sysusers",
            "cron",
            "crond",
            "adduser",
            "deluser",
        ],
        kinds: &["shadow-", "password-hash"],
    },
    Client {
        names: &["gpg", "gpg-agent", "gpgsm"],
        kinds: &["gpg-", "pgp-"],
    },
    Client {
        names: &["claude"],
        kinds: &["anthropic-"],
    },
    Client {
        names: &["codex"],
        kinds: &["openai-", "codex-"],
    },
    Client {
        names: &["gemini"],
        kinds: &["google-", "gcp-"],
    },
];

/// Whether a process runs a program that a kind of credential is made for. From a temporary place nothing is, and neither is
/// code in an argument.
#[must_use]
pub(crate) fn is_client_of(process: &ProcessFacts, kind: &str) -> bool {
    if process.script == INLINE
        || is_temporary(&process.executable)
        || is_temporary(&process.script)
    {
        return false;
    }
    let called = process.called();
    CLIENTS.iter().any(|client| {
        client.names.contains(&called) && client.kinds.iter().any(|begin| kind.starts_with(begin))
    })
}

/// Places anybody can write to, and that do not outlive a boot.
pub(crate) fn is_temporary(path: &str) -> bool {
    ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/memfd:"]
        .iter()
        .any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_and_who_it_is_made_for() {
        let of = |executable: &str, script: &str, kind: &str| {
            let process = ProcessFacts {
                executable: executable.into(),
                script: script.into(),
                ..Default::default()
            };
            is_client_of(&process, kind)
        };
        for (executable, script, kind) in [
            ("/usr/lib/git-core/git-remote-http", "", "github-token"),
            ("/usr/bin/node", "/usr/bin/npm", "npm-token"),
            ("/usr/bin/python3.11", "-m pip", "netrc"),
            ("/usr/bin/python3.11", "/usr/bin/aws", "aws-access-key"),
            ("/usr/local/bin/kubectl", "", "kubeconfig"),
            ("/usr/sbin/useradd", "", "shadow-hash"),
        ] {
            assert!(of(executable, script, kind), "{executable} {script} {kind}");
        }
        for (executable, script, kind) in [
            ("/usr/bin/git", "", "npm-token"),
            ("/usr/bin/node", "/w/postinstall.js", "npm-token"),
            // What an interpreter is called says nothing.
            ("/usr/bin/python3.11", "/w/setup.py", "netrc"),
            ("/tmp/git", "", "github-token"),
            ("/usr/bin/node", "/tmp/npm", "npm-token"),
            ("/usr/bin/cat", "", "github-token"),
            ("/usr/bin/bun", "-c", "npm-token"),
        ] {
            assert!(
                !of(executable, script, kind),
                "{executable} {script} {kind}"
            );
        }
    }
}
