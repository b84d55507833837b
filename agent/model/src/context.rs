//! What a process runs in, reported by its ancestry: a package's installation, a tool call of an AI agent, a CI job, cron, a
//! session over SSH, a login shell. Names only: who controls an ancestor's name or arguments can pretend to be one of
//! these, so a context explains and never excuses by itself.

use crate::multicall::applet;
use crate::script::is_shell_name;
use crate::words::{Actor, ContextKind};

/// One program that gives everything below it a context.
struct Giver {
    kind: ContextKind,
    name: &'static str,
    /// File names of its executable or its script, modules, first words of its thread's name.
    known_as: &'static [&'static str],
    /// Folders of `node_modules` or `site-packages` that its script lies in.
    packages: &'static [&'static str],
    /// One of these is among its first arguments; of all calls when empty.
    commands: &'static [&'static str],
}

const fn giver(
    kind: ContextKind,
    name: &'static str,
    known_as: &'static [&'static str],
    packages: &'static [&'static str],
    commands: &'static [&'static str],
) -> Giver {
    Giver {
        kind,
        name,
        known_as,
        packages,
        commands,
    }
}

use ContextKind::{AgentTool, CiJob, Cron, LoginShell, PackageInstall, SshSession};

/// `install` and its short forms of npm(1), pnpm(1) and yarn(1): what runs the scripts of packages.
const NODE: &[&str] = &[
    "install",
    "i",
    "in",
    "ins",
    "add",
    "ci",
    "clean-install",
    "install-test",
    "it",
    "update",
    "up",
    "upgrade",
    "rebuild",
    "rb",
    "dedupe",
];
const PIP: &[&str] = &["install", "wheel", "download"];
const SYSTEM: &[&str] = &[
    "install",
    "upgrade",
    "dist-upgrade",
    "full-upgrade",
    "reinstall",
    "update",
    "add",
];
/// Arguments that are inspected for a command: options may stand before it.
const ARGUMENTS: usize = 6;

const GIVERS: &[Giver] = &[
    giver(PackageInstall, "npm", &["npm", "npm-cli.js"], &[], NODE),
    giver(PackageInstall, "pnpm", &["pnpm", "pnpm.cjs"], &[], NODE),
    giver(
        PackageInstall,
        "yarn",
        &["yarn", "yarn.js", "yarnpkg"],
        &[],
        NODE,
    ),
    giver(
        PackageInstall,
        "bun",
        &["bun"],
        &[],
        &["install", "i", "add"],
    ),
    giver(
        PackageInstall,
        "pip",
        &["pip", "pip3", "-m pip", "__main__.py"],
        &["pip"],
        PIP,
    ),
    giver(
        PackageInstall,
        "pipx",
        &["pipx", "-m pipx"],
        &[],
        &["install", "upgrade", "inject"],
    ),
    giver(
        PackageInstall,
        "uv",
        &["uv"],
        &[],
        &["install", "sync", "add", "build"],
    ),
    giver(
        PackageInstall,
        "poetry",
        &["poetry", "-m poetry"],
        &[],
        &["install", "add", "update", "build"],
    ),
    giver(
        PackageInstall,
        "cargo",
        &["build-script-build", "build-script-main"],
        &[],
        &[],
    ),
    giver(PackageInstall, "gem", &["gem", "gem3"], &[], SYSTEM),
    giver(
        PackageInstall,
        "bundle",
        &["bundle", "bundler"],
        &[],
        SYSTEM,
    ),
    giver(
        PackageInstall,
        "composer",
        &["composer", "composer.phar"],
        &[],
        &["install", "update", "require"],
    ),
    giver(
        PackageInstall,
        "apt",
        &["apt", "apt-get", "aptitude"],
        &[],
        SYSTEM,
    ),
    giver(PackageInstall, "dpkg", &["dpkg"], &[], &[]),
    giver(
        PackageInstall,
        "dnf",
        &["dnf", "dnf5", "yum", "microdnf"],
        &[],
        SYSTEM,
    ),
    giver(PackageInstall, "rpm", &["rpm"], &[], &[]),
    giver(PackageInstall, "apk", &["apk"], &[], SYSTEM),
    giver(PackageInstall, "makepkg", &["makepkg"], &[], &[]),
    giver(PackageInstall, "pacman", &["pacman"], &[], &[]),
    giver(
        AgentTool,
        "claude",
        &["claude"],
        &["@anthropic-ai/claude-code"],
        &[],
    ),
    giver(AgentTool, "codex", &["codex"], &["@openai/codex"], &[]),
    giver(
        AgentTool,
        "gemini",
        &["gemini"],
        &["@google/gemini-cli"],
        &[],
    ),
    giver(AgentTool, "cursor", &["cursor-agent"], &[], &[]),
    giver(
        AgentTool,
        "copilot",
        &["copilot"],
        &["@github/copilot"],
        &[],
    ),
    giver(AgentTool, "aider", &["aider", "-m aider"], &[], &[]),
    giver(AgentTool, "goose", &["goose"], &[], &[]),
    giver(AgentTool, "opencode", &["opencode"], &["opencode-ai"], &[]),
    giver(AgentTool, "amp", &["amp"], &["@sourcegraph/amp"], &[]),
    giver(
        CiJob,
        "github",
        &["Runner.Worker", "Runner.Listener"],
        &[],
        &[],
    ),
    giver(CiJob, "gitlab", &["gitlab-runner"], &[], &[]),
    giver(CiJob, "buildkite", &["buildkite-agent"], &[], &[]),
    giver(
        CiJob,
        "jenkins",
        &["agent.jar", "remoting.jar", "slave.jar"],
        &[],
        &[],
    ),
    giver(
        CiJob,
        "circleci",
        &["circleci-agent", "circleci-runner"],
        &[],
        &[],
    ),
    giver(CiJob, "gitea", &["act_runner", "forgejo-runner"], &[], &[]),
    giver(CiJob, "act", &["act"], &[], &[]),
    giver(
        Cron,
        "cron",
        &["cron", "crond", "anacron", "fcron"],
        &[],
        &[],
    ),
    giver(Cron, "at", &["atd"], &[], &[]),
    giver(
        SshSession,
        "sshd",
        &["sshd", "sshd-session", "dropbear"],
        &[],
        &[],
    ),
];

/// What is known of an ancestor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Program<'a> {
    pub executable: &'a str,
    pub comm: &'a str,
    /// Of an interpreter, see [`crate::script_of`]; otherwise empty.
    pub script: &'a str,
    pub argv: &'a [String],
}

/// The context that a program gives to what descends from it.
#[must_use]
pub fn context_of(program: &Program<'_>) -> Option<(ContextKind, &'static str)> {
    GIVERS
        .iter()
        .find(|giver| giver.is(program) && giver.commanded(program))
        .map(|giver| (giver.kind, giver.name))
        .or_else(|| is_login_shell(program).then_some((LoginShell, "shell")))
}

/// A shell that is called with a - before its name, and with no script: what runs below it, somebody typed.
fn is_login_shell(program: &Program<'_>) -> bool {
    let name = applet(program.executable, program.argv)
        .map_or_else(|| file_name(program.executable), |(name, _)| name);
    program.script.is_empty()
        && is_shell_name(name)
        && program.argv.first().is_some_and(|a| a.starts_with('-'))
}

/// Where a process runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Kinds of its contexts, the innermost first.
    pub contexts: &'a [ContextKind],
    pub unit: &'a str,
    pub container: &'a str,
    pub pod: &'a str,
    /// Audit login uid; 4294967295 for none.
    pub loginuid: u32,
}

/// On whose behalf a process runs; `None` where nothing tells. What somebody started at a shell and lets an agent or an
/// installation do is the agent's or the package's.
#[must_use]
pub fn actor_of(around: &Surroundings<'_>) -> Option<Actor> {
    let by_context = around.contexts.iter().find_map(|kind| match kind {
        PackageInstall => Some(Actor::Package),
        AgentTool => Some(Actor::Agent),
        CiJob => Some(Actor::Ci),
        Cron => Some(Actor::Job),
        SshSession | LoginShell => None,
    });
    let session = || {
        let given = around
            .contexts
            .iter()
            .any(|kind| matches!(kind, SshSession | LoginShell));
        given.then_some(Actor::Person)
    };
    // A manager of a user's services is a unit of the system, and those are units of their own.
    let unit = around.unit.ends_with(".service") && !around.unit.starts_with("user@");
    let service = || {
        let contained = !around.container.is_empty() || !around.pod.is_empty();
        (contained || unit && around.loginuid == u32::MAX).then_some(Actor::Service)
    };
    by_context.or_else(session).or_else(service)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Giver {
    fn is(&self, program: &Program<'_>) -> bool {
        // `npm install`: some programs write what they do over their name.
        let title = program.comm.split([' ', ':']).next().unwrap_or_default();
        let script = program.script;
        let file = file_name(script);
        // A package that runs as a module's folder: `python /usr/lib/python3/dist-packages/pip install`.
        let main = file == "__main__.py";
        self.known_as.iter().any(|name| match *name {
            "__main__.py" => main && self.in_package(script),
            name => {
                name == file_name(program.executable)
                    || name == title
                    || name == script
                    || name == file
            }
        }) || self.in_package(script)
    }

    fn in_package(&self, script: &str) -> bool {
        self.packages.iter().any(|package| {
            ["node_modules", "site-packages", "dist-packages"]
                .iter()
                .any(|folder| {
                    script
                        .split_once(&format!("/{folder}/{package}"))
                        .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
                })
        })
    }

    fn commanded(&self, program: &Program<'_>) -> bool {
        if self.commands.is_empty() {
            return true;
        }
        // Where arguments were written over, they are one text.
        let words = program
            .argv
            .iter()
            .skip(1)
            .take(ARGUMENTS)
            .map(String::as_str)
            .chain(
                program
                    .argv
                    .first()
                    .into_iter()
                    .flat_map(|a| a.split(' ').skip(1)),
            )
            .chain(program.comm.split(' ').skip(1));
        let mut words = words.filter(|word| !word.is_empty());
        // `yarn` alone installs.
        words.any(|word| self.commands.contains(&word))
            || self.name == "yarn" && program.argv.len() <= 2 && !program.comm.contains(' ')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script_of;

    fn of(executable: &str, comm: &str, argv: &str) -> Option<String> {
        let argv: Vec<String> = argv.split(' ').map(str::to_owned).collect();
        let script = script_of(executable, &argv, "/w").unwrap_or_default();
        context_of(&Program {
            executable,
            comm,
            script: &script,
            argv: &argv,
        })
        .map(|(kind, name)| format!("{kind}:{name}"))
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn givers_by_what_they_are_called_with() {
        for (executable, comm, argv, expected) in [
            (
                "/usr/bin/node",
                "npm install x",
                "node /usr/bin/npm install x",
                "package_install:npm",
            ),
            (
                "/usr/bin/node",
                "node",
                "node /usr/lib/node_modules/npm/bin/npm-cli.js ci",
                "package_install:npm",
            ),
            ("/usr/bin/node", "npm ci", "npm ci", "package_install:npm"),
            (
                "/usr/bin/python3.11",
                "pip3",
                "/usr/bin/python3 /usr/bin/pip3 install .",
                "package_install:pip",
            ),
            (
                "/usr/bin/python3.11",
                "python3",
                "python3 -m pip -q install .",
                "package_install:pip",
            ),
            (
                "/usr/bin/python3.11",
                "python3",
                "python3 /usr/lib/python3/dist-packages/pip/__main__.py install .",
                "package_install:pip",
            ),
            ("/opt/uv", "uv", "uv pip install x", "package_install:uv"),
            (
                "/usr/bin/apt-get",
                "apt-get",
                "apt-get -y install x",
                "package_install:apt",
            ),
            (
                "/usr/bin/dpkg",
                "dpkg",
                "dpkg --configure -a",
                "package_install:dpkg",
            ),
            (
                "/w/target/debug/build/x-1/build-script-build",
                "build-script-bu",
                "/w/target/debug/build/x-1/build-script-build",
                "package_install:cargo",
            ),
            (
                "/usr/bin/node",
                "node",
                "node /w/.yarn/yarn.js",
                "package_install:yarn",
            ),
            ("/usr/bin/node", "claude", "claude", "agent_tool:claude"),
            (
                "/usr/bin/node",
                "node",
                "node /usr/lib/node_modules/@google/gemini-cli/dist/index.js --yolo",
                "agent_tool:gemini",
            ),
            (
                "/usr/bin/node",
                "node",
                "node /usr/local/bin/gemini --yolo",
                "agent_tool:gemini",
            ),
            (
                "/usr/bin/python3",
                "aider",
                "python3 /root/.local/bin/aider",
                "agent_tool:aider",
            ),
            (
                "/opt/runner/bin/Runner.Worker",
                "Runner.Worker",
                "Runner.Worker spawnclient 1 2",
                "ci_job:github",
            ),
            (
                "/usr/bin/java",
                "java",
                "java -jar /var/agent.jar -url x",
                "ci_job:jenkins",
            ),
            ("/usr/sbin/cron", "cron", "/usr/sbin/CRON -f", "cron:cron"),
            (
                "/usr/sbin/sshd",
                "sshd",
                "sshd: ada@pts/0",
                "ssh_session:sshd",
            ),
        ] {
            assert_eq!(
                of(executable, comm, argv).as_deref(),
                Some(expected),
                "{argv}"
            );
        }
    }

    #[test]
    fn a_login_shell_is_called_with_a_dash_and_runs_no_script() {
        for (executable, argv, expected) in [
            ("/usr/bin/bash", "-bash", Some("login_shell:shell")),
            ("/usr/bin/zsh", "-zsh -i", Some("login_shell:shell")),
            ("/bin/busybox", "-sh", Some("login_shell:shell")),
            ("/bin/busybox", "-cat", None),
            ("/usr/bin/bash", "-bash -c id", None),
            ("/usr/bin/bash", "bash", None),
            ("/usr/bin/python3", "-python3", None),
        ] {
            assert_eq!(of(executable, "x", argv).as_deref(), expected, "{argv}");
        }
    }

    #[test]
    fn on_whose_behalf() {
        let around =
            |contexts: &'static [ContextKind], unit: &'static str, loginuid| Surroundings {
                contexts,
                unit,
                loginuid,
                ..Surroundings::default()
            };
        const NONE: u32 = u32::MAX;
        for (around, expected) in [
            (
                around(&[LoginShell, SshSession], "ssh.service", 7),
                Some(Actor::Person),
            ),
            (around(&[AgentTool, LoginShell], "", 7), Some(Actor::Agent)),
            (
                around(&[PackageInstall, AgentTool], "", 7),
                Some(Actor::Package),
            ),
            (around(&[CiJob], "runner.service", NONE), Some(Actor::Ci)),
            (around(&[Cron], "cron.service", 0), Some(Actor::Job)),
            (around(&[], "web.service", NONE), Some(Actor::Service)),
            (around(&[], "user@7.service", NONE), None),
            (around(&[], "session-3.scope", 7), None),
            (
                Surroundings {
                    pod: "p",
                    ..around(&[], "", NONE)
                },
                Some(Actor::Service),
            ),
        ] {
            assert_eq!(actor_of(&around), expected, "{around:?}");
        }
    }

    #[test]
    fn others_give_none() {
        for (executable, comm, argv) in [
            (
                "/usr/bin/node",
                "npm run deploy",
                "node /usr/bin/npm run deploy",
            ),
            ("/usr/bin/node", "node", "node /w/server.js install"),
            ("/usr/bin/python3", "pip", "python3 /usr/bin/pip list"),
            ("/usr/bin/uv", "uv", "uv run app.py"),
            ("/root/.cargo/bin/cargo", "cargo", "cargo run"),
            ("/usr/bin/apt-get", "apt-get", "apt-get moo"),
            ("/usr/bin/bash", "bash", "bash"),
            (
                "/usr/bin/python3",
                "python3",
                "python3 /usr/lib/python3/dist-packages/pipenv/__main__.py install",
            ),
        ] {
            assert_eq!(of(executable, comm, argv), None, "{argv}");
        }
    }
}
