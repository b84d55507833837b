//! Files that make programs run by themselves, or let somebody in: what is written there outlives whoever wrote it.
//! Sources: the persistence techniques of MITRE ATT&CK (v17 and later), and the manual of each program named.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::sync::LazyLock;

/// Technique and patterns. `~` stands for a home: /root, /home/NAME, and the homes of services in /var/lib.
const PLACES: &[(&str, &[&str])] = &[
    (
        "T1098.004",
        &["**/.ssh/authorized_keys", "**/.ssh/authorized_keys2"],
    ),
    (
        "T1546.004",
        &[
            "~/.{bashrc,bash_profile,bash_login,bash_logout,bash_aliases,profile,zshrc,zprofile,zshenv,zlogin,zlogout}",
            "~/.config/fish/config.fish",
            "~/.config/fish/conf.d/*.fish",
            "~/.ssh/rc",
            "/etc/{profile,bash.bashrc,zshrc}",
            "/etc/zsh/*",
            "/etc/profile.d/*",
            "/etc/ssh/sshrc",
        ],
    ),
    (
        "T1543.002",
        &[
            "/{etc,run}/systemd/{system,user}/**",
            "/{lib,usr/lib,usr/local/lib}/systemd/{system,user}/**",
            "~/.config/systemd/user/**",
            "~/.local/share/systemd/user/**",
        ],
    ),
    (
        "T1053.003",
        &[
            "/etc/{crontab,anacrontab}",
            "/etc/cron.{d,hourly,daily,weekly,monthly}/*",
            "/var/spool/cron/**",
        ],
    ),
    (
        "T1547.013",
        &[
            "~/.config/autostart/*.desktop",
            "/etc/xdg/autostart/*.desktop",
        ],
    ),
    ("T1574.006", &["/etc/ld.so.preload"]),
    (
        "T1546.018",
        &[
            "**/{site,dist}-packages/*.pth",
            "**/{sitecustomize,usercustomize}.py",
        ],
    ),
    (
        "T1546",
        &[
            // githooks(5).
            "**/.git/hooks/{applypatch-msg,pre-applypatch,post-applypatch,pre-commit,pre-merge-commit,prepare-commit-msg,commit-msg,post-commit,pre-rebase,post-checkout,post-merge,pre-push,pre-receive,update,post-receive,post-update,push-to-checkout,pre-auto-gc,post-rewrite,fsmonitor-watchman,post-index-change,reference-transaction,sendemail-validate}",
            // Hooks and servers of AI agents, tasks of editors that run when a folder is opened.
            "**/.claude/{settings,settings.local}.json",
            "**/.mcp.json",
            "**/.cursor/{mcp,hooks}.json",
            "**/.gemini/settings.json",
            "~/.codex/config.toml",
            "**/.vscode/{tasks,mcp}.json",
        ],
    ),
    (
        "T1677",
        &[
            "**/.github/workflows/*.{yml,yaml}",
            "**/.gitlab-ci.yml",
            "**/.circleci/config.yml",
            "**/.buildkite/*.yml",
        ],
    ),
    ("T1548.003", &["/etc/sudoers", "/etc/sudoers.d/*"]),
    ("T1556.003", &["/etc/pam.d/*"]),
    ("T1546.017", &["/etc/udev/rules.d/*.rules"]),
    ("T1546.016", &["/etc/apt/apt.conf.d/*"]),
];

const HOME: &str = "{/root,/home/*,/var/lib/*}";

struct Table {
    set: GlobSet,
    /// Of the pattern of the same number.
    techniques: Vec<&'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut set = GlobSetBuilder::new();
    let mut techniques = Vec::new();
    for (technique, patterns) in PLACES {
        for pattern in *patterns {
            let whole = pattern
                .strip_prefix('~')
                .map_or_else(|| (*pattern).to_owned(), |rest| format!("{HOME}{rest}"));
            // A pattern that does not hold is found by the test that matches each.
            if let Ok(glob) = GlobBuilder::new(&whole).literal_separator(true).build() {
                set.add(glob);
                techniques.push(*technique);
            }
        }
    }
    Table {
        set: set.build().unwrap_or_default(),
        techniques,
    }
});

/// The technique of ATT&CK that writing this file can be; `None` for all other files.
pub(super) fn technique(path: &str) -> Option<&'static str> {
    let table = &*TABLE;
    let first = table.set.matches(path).into_iter().next()?;
    table.techniques.get(first).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_known() {
        for (path, expected) in [
            ("/root/.ssh/authorized_keys", "T1098.004"),
            ("/srv/git/.ssh/authorized_keys2", "T1098.004"),
            ("/home/ada/.bashrc", "T1546.004"),
            ("/root/.config/fish/conf.d/a.fish", "T1546.004"),
            ("/etc/profile.d/x.sh", "T1546.004"),
            ("/etc/systemd/system/a.service", "T1543.002"),
            ("/etc/systemd/system/a.service.d/o.conf", "T1543.002"),
            ("/home/ada/.config/systemd/user/sysmon.service", "T1543.002"),
            ("/usr/lib/systemd/system/x.timer", "T1543.002"),
            ("/var/spool/cron/crontabs/root", "T1053.003"),
            ("/etc/cron.d/x", "T1053.003"),
            ("/home/ada/.config/autostart/a.desktop", "T1547.013"),
            ("/etc/ld.so.preload", "T1574.006"),
            ("/opt/v/lib/python3.11/site-packages/x.pth", "T1546.018"),
            ("/usr/lib/python3.11/sitecustomize.py", "T1546.018"),
            ("/src/a/.git/hooks/pre-commit", "T1546"),
            ("/src/a/.claude/settings.json", "T1546"),
            ("/src/a/.mcp.json", "T1546"),
            ("/home/ada/.codex/config.toml", "T1546"),
            ("/src/a/.vscode/tasks.json", "T1546"),
            ("/src/a/.github/workflows/ci.yml", "T1677"),
            ("/src/a/.gitlab-ci.yml", "T1677"),
            ("/etc/sudoers.d/x", "T1548.003"),
            ("/etc/pam.d/sshd", "T1556.003"),
            ("/etc/udev/rules.d/1.rules", "T1546.017"),
            ("/etc/apt/apt.conf.d/1x", "T1546.016"),
        ] {
            assert_eq!(technique(path), Some(expected), "{path}");
        }
        let all: usize = PLACES.iter().map(|(_, patterns)| patterns.len()).sum();
        assert_eq!(TABLE.techniques.len(), all, "a pattern does not hold");
        assert_eq!(TABLE.set.len(), all);
    }

    #[test]
    fn other_files_are_not() {
        for path in [
            "/root/.ssh/known_hosts",
            "/src/a/.bashrc",
            "/home/ada/notes/.bashrc.txt",
            "/src/a/.git/hooks/pre-commit.sample",
            "/src/a/.git/config",
            "/src/a/workflows/ci.yml",
            "/opt/v/lib/python3.11/site-packages/x.py",
            "/home/ada/.config/systemd/x",
            "",
        ] {
            assert_eq!(technique(path), None, "{path}");
        }
    }
}
