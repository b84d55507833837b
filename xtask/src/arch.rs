//! The machines keytrail is built for, and what each part of the build calls them.

use std::fmt;

/// As `uname -m` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, clap::ValueEnum)]
pub enum Arch {
    #[default]
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// rustc's.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Debian's.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// A program of the binutils for it.
    pub fn tool(self, program: &str) -> String {
        match self {
            Self::X86_64 => program.to_owned(),
            Self::Aarch64 => format!("aarch64-linux-gnu-{program}"),
        }
    }

    /// What tells its files from those of the machine that builds.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::X86_64 => "",
            Self::Aarch64 => "-aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
