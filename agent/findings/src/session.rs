//! What a person types: the shell of a session, and code in an argument of a program that was started from there. What a
//! person lets somebody in by, and keeps in a start-up file, they have just written themselves.

use crate::facts::{AncestorFacts, ContextFacts, ProcessFacts};
use crate::tool::tool_of;
use keytrail_model::INLINE;

/// Who starts login shells, with a - before their name.
const LOGINS: &[&str] = &["sshd", "sshd-session", "dropbear", "login", "su", "sudo"];
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
/// What somebody types in one line, bytes. What was downloaded (`sh -c "$(curl ...)"`) is more, and has more lines.
const MOST_TYPED: usize = 1024;

/// Whether what a process does was typed. Its name and that of its shell are chosen by whoever runs it: what counts is which
/// installed program started the shell, and that nobody else stands between.
pub(crate) fn is_typed(process: &ProcessFacts) -> bool {
    let driven = |c: &ContextFacts| {
        matches!(
            c.kind.as_str(),
            "package_install" | "agent_tool" | "ci_job" | "cron"
        )
    };
    if process.contexts.iter().any(driven) {
        return false;
    }
    let above = above(process);
    if process.script == INLINE {
        return is_one_line(&process.argv) && gives_session(process, above);
    }
    let login = process.argv.first().is_some_and(|a| a.starts_with('-'));
    is_shell(&process.executable, &process.script) && is_begun(login, above.first())
}

/// What is above a process. A copy of a shell that executed nothing is that shell.
fn above(process: &ProcessFacts) -> &[AncestorFacts] {
    let mut above = process.ancestors.as_slice();
    let mut key = &process.key;
    while let Some((next, rest)) = above.split_first()
        && key.ends_with(":0")
        && (&next.executable, &next.script) == (&process.executable, &process.script)
    {
        key = &next.key;
        above = rest;
    }
    above
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
    let server = gives("ssh_session") && tool_of(&parent.executable, &parent.script).is_some();
    server
        || is_shell(&parent.executable, &parent.script)
            && is_begun(gives("login_shell"), rest.first())
}

fn is_shell(executable: &str, script: &str) -> bool {
    tool_of(executable, script).is_some_and(|tool| SHELLS.contains(&tool)) && script.is_empty()
}

/// Whether this starts shells that people sit at. `login`: the shell is called with a - before its name, without which what
/// is piped to `sudo bash` would be typed.
fn is_begun(login: bool, by: Option<&AncestorFacts>) -> bool {
    by.and_then(|by| tool_of(&by.executable, &by.script))
        .is_some_and(|tool| login && LOGINS.contains(&tool) || TERMINALS.contains(&tool))
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
        is_typed(&ProcessFacts {
            key: "p:1".into(),
            executable: executable.into(),
            script: script.into(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            ancestors: above.iter().map(ancestor).collect(),
            contexts: contexts.iter().map(context).collect(),
            ..ProcessFacts::default()
        })
    }

    const SSHD: (&str, &str, &str) = ("d:1", "/usr/sbin/sshd", "");
    const SHELL: (&str, &str, &str) = ("s:1", "/usr/bin/bash", "");
    const TERMINAL: (&str, &str, &str) = ("t:1", "/usr/bin/tmux", "");
    const BY_SSH: (&str, &str) = ("ssh_session", "d:1");
    const LOGIN: (&str, &str) = ("login_shell", "s:1");
    const LINE: (&str, &str, &[&str]) = ("/usr/bin/bash", "-c", &["bash", "-c", "echo a >> b"]);
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
        assert!(typed(LINE, &[SHELL, TERMINAL], &[]));
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
        let many = ("/usr/bin/bash", "-c", &["bash", "-c", "echo a\necho b"][..]);
        assert!(!typed(many, &[SHELL, SSHD], &[LOGIN, BY_SSH]));
        // Whoever gives a shell the name of a login shell, or has a terminal's name.
        assert!(!typed(DASH, &[("x:1", "/home/a/x", "")], &[]));
        assert!(!typed(LINE, &[SHELL, ("x:1", "/home/a/x", "")], &[LOGIN]));
        assert!(!typed(PLAIN, &[("t:1", "/tmp/tmux", "")], &[]));
        // Below what works by itself.
        let agent = ("agent_tool", "a:1");
        assert!(!typed(LINE, &[SHELL, SSHD], &[agent, LOGIN, BY_SSH]));
        assert!(!typed(LINE, &[], &[]));
    }

    #[test]
    fn a_copy_of_a_shell_is_that_shell() {
        let copy = |key: &str| {
            is_typed(&ProcessFacts {
                key: key.into(),
                executable: LINE.0.into(),
                script: LINE.1.into(),
                argv: LINE.2.iter().map(|a| (*a).to_owned()).collect(),
                ancestors: [("q:1", LINE.0, LINE.1), SHELL, SSHD]
                    .iter()
                    .map(ancestor)
                    .collect(),
                contexts: [LOGIN, BY_SSH].iter().map(context).collect(),
                ..ProcessFacts::default()
            })
        };
        assert!(copy("p:0"));
        assert!(!copy("p:1"));
    }
}
