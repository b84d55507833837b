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
  sudo keytrail inventory -o json --min-confidence 0.9
  sudo keytrail inventory -o cbom > host.cdx.json";

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

pub const CREDENTIALS: &str = "\
Examples:
  keytrail credentials                    all this agent has seen
  keytrail credentials 'github-*' -o csv";

pub const USED: &str = "\
Examples:
  keytrail used kt1:0123456789abcdef --since 7d
  keytrail used octocat --from 2026-11-01 --to 2026-11-02 --by git
  keytrail used AKIAIOSFODNN7EXAMPLE --to-host s3.amazonaws.com
  sudo keytrail used --secret-stdin       reads the secret from standard input

Exit status: 0 it was used; 1 it was not; 6 not known, because something could not be seen; 2 wrong usage; 3 no agent \
to talk to; 5 not permitted; 7 the question could not be answered.";

pub const USES: &str = "\
Examples:
  keytrail uses --since 2h --act sent
  keytrail uses --by curl --to-host api.github.com -o wide";

pub const CAPTURE: &str = "\
Examples:
  sudo keytrail capture --for 10m -o /mnt/evidence
  sudo keytrail capture --until-signal --case 42 --evidence 7 --examiner Smith
  sudo keytrail capture -o /mnt/evidence -- ./deploy.sh
  sudo keytrail capture --sign-key team.pem --key fleet.key -o /mnt/evidence
  keytrail capture --root /mnt/image -o /mnt/evidence

Writes HOST-TIME.tar.zst, its signature (.sig) and the public key (.pub) into the output directory, and nothing anywhere
else. Ctrl-C and SIGTERM end it early: what there is until then is in the bundle, which says so. What a killed capture
left behind is finished by the next one in the same directory. Exit status: 0 the bundle was written; 1 it was not.";

pub const VERIFY: &str = "\
Examples:
  keytrail verify web1-20261129T074512Z.tar.zst
  keytrail verify web1-20261129T074512Z.tar.zst --public-key team.pub

Nothing is extracted. Exit status: 0 it is as it was made; 1 something was changed, or is not signed with that key; 2 it
cannot be read.";

pub const REPORT: &str = "\
Examples:
  keytrail report --since 1d -o report.html
  keytrail report --since 2026-11-28 > report.html";

pub const DEMO: &str = "\
Examples:
  sudo keytrail demo
  sudo keytrail demo -o json              the same events, for programs

Nothing of this host's own credentials is touched: the decoy is made for it and goes to a server of its own.";

pub const CREDENTIAL: &str = "\
Examples:
  keytrail credential kt1:0123456789abcdef
  keytrail credential octocat -o wide";

pub const FINDINGS: &str = "\
Examples:
  keytrail findings --since 1d
  keytrail findings --rule '!added-to-container'
  keytrail findings --actor agent -o sarif > findings.sarif";

pub const COVERAGE: &str = "\
Examples:
  keytrail coverage --since 7d
  keytrail coverage --from 2026-11-01 --to 2026-11-02 -o csv";

pub const GRAPH: &str = "\
Examples:
  keytrail graph --since 1d | dot -Tsvg > graph.svg
  keytrail graph --credential octocat -o html > graph.html";

pub const BASELINE: &str = "\
Examples:
  keytrail baseline list
  keytrail baseline list 'github-*' -o csv
  keytrail baseline show octocat
  keytrail baseline accept kt1:0123456789abcdef
  keytrail baseline reset octocat";

pub const REPLAY: &str = "\
Examples:
  keytrail replay recording.jsonl
  keytrail replay recording.jsonl -o json";

pub const DECOY: &str = "\
Examples:
  sudo keytrail decoy plant               an access key in ~/.aws/credentials
  sudo keytrail decoy plant --kind github /srv/backup/hosts.yml
  sudo keytrail decoy list";

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
            CREDENTIALS,
            USED,
            USES,
            CAPTURE,
            VERIFY,
            REPORT,
            DECOY,
            DEMO,
            CREDENTIAL,
            FINDINGS,
            COVERAGE,
            GRAPH,
            BASELINE,
            REPLAY,
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
        assert!(tried > 40, "{tried}");
    }

    #[test]
    fn every_command_has_examples() {
        use clap::CommandFactory as _;
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let has = help.is_some_and(|help| help.contains("Examples:"));
            // It takes nothing and says one line.
            let needs = !command.is_hide_set() && !matches!(command.get_name(), "version" | "help");
            assert!(has || !needs, "{}", command.get_name());
        }
    }
}
