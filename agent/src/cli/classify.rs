//! See docs/ARCHITECTURE.md.

/// Arguments of `keytrail classify`.
#[derive(Debug, clap::Args)]
pub struct ClassifyArgs {}

/// Runs `keytrail classify`; returns the exit status.
pub fn run(_args: &ClassifyArgs) -> u8 {
    eprintln!("keytrail: classify not linked");
    1
}
