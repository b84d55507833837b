//! Names of the read-only globals that the user side sets before loading: kernel field offsets found by BTF.

/// An offset that this kernel does not have.
pub const MISSING: u32 = u32::MAX;
