//! Histories of shells, by their names.

/// Whether a file is what a shell, an interpreter or a client keeps of what was typed.
#[must_use]
pub fn is_history(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    // .bash_history, .psql_history, .node_repl_history; .history of csh; .histfile of zsh.
    (name.starts_with('.') && name.ends_with("history"))
        || matches!(
            name,
            ".histfile" | "fish_history" | "ConsoleHost_history.txt"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_known_by_their_names() {
        for path in [
            "/root/.zsh_history",
            "/x/.psql_history",
            "/x/fish_history",
            "/x/.histfile",
            "/x/.bash_history",
        ] {
            assert!(is_history(path), "{path}");
        }
        for path in [
            "/x/history",
            "/x/history.txt",
            "/x/.history-notes",
            "/x/prehistory",
            "/x/.history/settings.env",
        ] {
            assert!(!is_history(path), "{path}");
        }
    }
}
