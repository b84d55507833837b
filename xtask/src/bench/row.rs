//! What can be measured, in the order of the report: one row of the table a row of it.

use clap::ValueEnum as _;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Row {
    /// nginx, which holds its key, under wrk: 1 KiB over TLS; here only
    NginxTls,
    /// The same, 100 KiB
    NginxTlsLarge,
    /// The same process, 1 KiB in clear
    NginxPlain,
    /// 1 KiB over TLS at 5,000 requests a second: processor time of server and agent together; here only
    NginxTlsRate,
    /// The same, 100 KiB
    NginxTlsLargeRate,
    /// The same, 1 KiB in clear
    NginxPlainRate,
    /// nginx as a proxy that sends a secret on with every request; here only
    NginxProxy,
    /// SSL_write of 1 KiB over loopback by a holder
    Holder,
    /// pgbench over TLS with a password in its environment; here only
    Postgres,
    /// redis-benchmark with a password in its environment; here only
    Redis,
    /// git clone of this repository by a holder; here only
    Git,
    /// The build of `compile` by a holder; here only
    CompileHolder,
    /// open+read+close of a file that nobody watches
    File,
    /// fork+exec+wait of /bin/true
    Exec,
    /// SSL_write of 1 KiB over loopback by a process without credentials
    Tls,
    /// A build: gcc compiles a hundred C files; here only, a guest has no compiler
    Compile,
    /// The agent with nothing to do: memory and CPU
    Rest,
    /// `keytrail inventory` of a tree, beside find; here only
    Inventory,
    /// The same with 1,000,000 files of 50 GB, on this machine only (with holes: 6 GB of disk)
    Large,
    /// `keytrail classify --jsonl` on one core, beside grep; here only
    Classify,
}

/// What there is to know of a row beside its name and how it is measured.
struct Facts {
    /// What it is called in the report.
    title: &'static str,
    /// Rounds of one run on real hardware; 1 where the load says itself how many it made.
    rounds: u32,
    /// Whether a guest has what it needs (a compiler, room on its disk), and shows more than this machine does: the walk
    /// of a tree and text use no hook.
    in_guests: bool,
    /// Whether what the subject's own process takes is a part of what is compared.
    counts_the_subject: bool,
}

const fn here(title: &'static str, rounds: u32) -> Facts {
    Facts {
        title,
        rounds,
        in_guests: false,
        counts_the_subject: false,
    }
}

const fn anywhere(title: &'static str, rounds: u32) -> Facts {
    Facts {
        in_guests: true,
        ..here(title, rounds)
    }
}

const fn with_the_subject(title: &'static str) -> Facts {
    Facts {
        counts_the_subject: true,
        ..here(title, 1)
    }
}

impl Row {
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::from_str(name, false).ok()
    }

    /// As it is typed.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    const fn facts(self) -> Facts {
        match self {
            Self::NginxTls => here("nginx, holds its key: 1 KiB over TLS (aim: 1.25)", 1),
            Self::NginxTlsLarge => here("nginx, holds its key: 100 KiB over TLS (aim: 1.13)", 1),
            Self::NginxPlain => here("nginx, holds a key: 1 KiB in clear (aim: 1.07)", 1),
            Self::NginxTlsRate => with_the_subject(
                "nginx, 1 KiB over TLS at 5,000 a second: processor time of both, a request (aim: 1.05)",
            ),
            Self::NginxTlsLargeRate => with_the_subject("the same, 100 KiB (aim: 1.05)"),
            Self::NginxPlainRate => with_the_subject("the same, 1 KiB in clear (aim: 1.05)"),
            Self::NginxProxy => here(
                "nginx as a proxy that sends a secret with every request (aim: 1.33)",
                1,
            ),
            Self::Holder => anywhere("SSL_write of 1 KiB by a holder (aim: 1.5)", 50_000),
            Self::Postgres => here("pgbench over TLS, the password held, SELECT (aim: 1.05)", 1),
            Self::Redis => here("redis-benchmark by a holder, SET (aim: 1.05)", 1),
            Self::Git => here("git clone by a holder (aim: 1.05)", 1),
            Self::CompileHolder => here(
                "a build of 100 C files by a holder, a file (aim: 1.05)",
                100,
            ),
            Self::File => anywhere("open+read+close, unwatched file", 200_000),
            Self::Exec => anywhere("fork+exec+wait of /bin/true", 2_000),
            Self::Tls => anywhere("SSL_write of 1 KiB, no credentials", 50_000),
            Self::Compile => here("a build of 100 C files by gcc, a file (aim: 1.02)", 100),
            Self::Rest => anywhere("at rest", 1),
            // Files of the tree: one in 20 with a credential makes 10,000.
            Self::Inventory => here(
                "inventory, a file of 200,000, one in 20 with a credential",
                200_000,
            ),
            Self::Large => here(
                "inventory, a file of 1,000,000 (50 GB), one in 100 with a credential",
                1_000_000,
            ),
            // Megabytes.
            Self::Classify => here(
                "classify --jsonl, a megabyte (processor time; its own time is that of its start)",
                256,
            ),
        }
    }

    pub const fn title(self) -> &'static str {
        self.facts().title
    }

    pub const fn rounds(self) -> u32 {
        self.facts().rounds
    }

    pub const fn in_guests(self) -> bool {
        self.facts().in_guests
    }

    pub const fn counts_the_subject(self) -> bool {
        self.facts().counts_the_subject
    }
}

#[cfg(test)]
mod tests {
    use super::Row;

    #[test]
    fn names_are_distinguished_and_found_again() {
        for row in Row::all() {
            assert_eq!(Row::parse(&row.name()), Some(*row), "{row:?}");
        }
        let mut titles: Vec<&str> = Row::all().iter().map(|row| row.title()).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), Row::all().len());
    }
}
