//! Examples, for `--help`: each is a command that works as it stands (a test parses them all).

pub const KEYTRAIL: &str = "\
Examples:
  sudo keytrail demo                      what it looks like, in five seconds
  sudo keytrail trace -- npm install      what a command does with credentials
  sudo keytrail inventory                 what lies on this host
  sudo keytrail agent --print             watch the whole host
  keytrail doctor                         is all well, and what cannot be seen

";

pub const AGENT: &str = "\
Examples:
  sudo keytrail agent                     serve events on the default socket
  sudo keytrail agent --print -o json     and print them
  sudo keytrail agent --listen unix:/run/mine.sock --state-dir /var/lib/mine";

pub const WATCH: &str = "\
Examples:
  keytrail watch                                      from now on
  keytrail watch --since 1h --no-follow               the last hour, then end
  keytrail watch --last 20 --kind sent                the last 20 sends, then what comes
  keytrail watch --credential 'github-*' --grade observed
  keytrail watch --process 'python*' --process '!python3.11'
  keytrail watch --host '*.example.com' --host '!10.0.0.0/8'
  keytrail watch -o csv --since all --no-follow

A value that begins with ! leaves out what it names; quote it, for the shell's sake.";

pub const TRACE: &str = "\
Examples:
  sudo keytrail trace -- npm install
  sudo keytrail trace --events events.jsonl -- ./deploy.sh --now
  sudo keytrail trace -o wide make

Signals sent to keytrail are passed on to CMD. Wrong usage of keytrail itself is status 2.";

pub const CLASSIFY: &str = "\
Examples:
  keytrail classify .env config/*.yml
  git diff | keytrail classify
  keytrail classify --kinds";

pub const DOCTOR: &str = "\
Examples:
  keytrail doctor                 the running agent's view; without one, tried here and now
  keytrail doctor -o json

The first line says whether all is well. Exit status: 0 all is well; 1 something is not seen or was lost; 3 no agent
answers; 5 not permitted.";

pub const INVENTORY: &str = "\
Examples:
  sudo keytrail inventory
  keytrail inventory --root ~/work
  sudo keytrail inventory diff
  sudo keytrail inventory -o json --min-confidence 0.9";

pub const TOP: &str = "\
Examples:
  keytrail top
  keytrail top --since all
  keytrail top --credential 'aws-*'

Keys: q or Ctrl-C ends, tab goes to the next table, up and down move, s sorts by another column, p holds still.";

pub const COMPLETIONS: &str = "\
Examples:
  keytrail completions bash > /usr/share/bash-completion/completions/keytrail
  keytrail completions zsh > \"${fpath[1]}/_keytrail\"
  keytrail completions fish > ~/.config/fish/completions/keytrail.fish";

pub const MAN: &str = "\
Examples:
  keytrail man | man -l -
  keytrail man --dir /usr/local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use clap::Parser as _;

    #[test]
    fn every_example_is_understood() {
        let texts = [
            KEYTRAIL,
            AGENT,
            WATCH,
            TRACE,
            CLASSIFY,
            DOCTOR,
            INVENTORY,
            TOP,
            COMPLETIONS,
            MAN,
        ];
        let mut tried = 0;
        for line in texts.iter().flat_map(|t| t.lines()) {
            let Some(line) = line.strip_prefix("  ") else {
                continue;
            };
            let line = line
                .trim_start_matches("git diff | ")
                .trim_start_matches("sudo ");
            // Two blanks begin the explanation; `>` and `|` are the shell's.
            let command = line.split("  ").next().unwrap_or_default();
            let command = command.split(['>', '|']).next().unwrap_or_default();
            let words = command.split_whitespace().map(|w| w.trim_matches('\''));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
            tried += 1;
        }
        assert!(tried > 25, "{tried}");
    }
}
