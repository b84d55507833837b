//! See docs/ARCHITECTURE.md.

/// Runs `keytrail inventory`; returns the exit status.
pub fn run<Args>(_args: &Args) -> u8 {
    eprintln!("keytrail: inventory not linked");
    1
}
