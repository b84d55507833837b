//! Which compiler can build the kernel side here.

use crate::cmd;
use std::{fs, path::Path};

/// The LLVM that bpf-linker is built with; a compiler with a newer one writes bitcode it cannot read.
pub const LLVM: u32 = 22;
pub const TARGET: &str = "bpfel-unknown-none";

/// A way to build for the BPF target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Debian's rustc with Debian's `core` for the target.
    Debian,
    /// rustup's nightly with rust-src, building `core` on the way.
    Nightly,
}

pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Of rust-web-clippy, built with that compiler.
pub const DEBIAN_CLIPPY: &str = "/usr/bin/clippy-driver";

pub const ADVICE: &str = "no compiler here can build the kernel side. Either of these will do:
  Debian 12:  apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev   (from bookworm-security)
  elsewhere:  rustup toolchain install nightly --component rust-src && cargo install bpf-linker";

impl Route {
    /// Debian's is preferred: its compiler is the one the tests run with.
    pub fn find() -> Option<Self> {
        if debian() {
            Some(Self::Debian)
        } else if nightly() {
            Some(Self::Nightly)
        } else {
            None
        }
    }
}

fn debian() -> bool {
    if !Path::new(DEBIAN_RUSTC).is_file() {
        return false;
    }
    let about = cmd::output(cmd::clean(DEBIAN_RUSTC).arg("-vV")).unwrap_or_default();
    let Ok(sysroot) = cmd::output(cmd::clean(DEBIAN_RUSTC).args(["--print", "sysroot"])) else {
        return false;
    };
    let core = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib");
    let has_core = fs::read_dir(core)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        });
    has_core && llvm(&about).is_some_and(|version| version <= LLVM)
}

fn nightly() -> bool {
    if cmd::find("rustup").is_none() {
        return false;
    }
    // Without this rustup might set out to download the toolchain.
    cmd::output(
        cmd::clean("rustup")
            .args(["run", "nightly", "rustc", "--print", "sysroot"])
            .env("RUSTUP_AUTO_INSTALL", "0"),
    )
    .is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .is_file()
    })
}

/// Major version of LLVM in `rustc -vV`.
fn llvm(about: &str) -> Option<u32> {
    about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::llvm;

    #[test]
    fn llvm_major() {
        assert_eq!(
            llvm("rustc 1.96.0\nbinary: rustc\nLLVM version: 22.1.8\n"),
            Some(22)
        );
        assert_eq!(llvm("rustc 1.96.0\nLLVM version: x\n"), None);
        assert_eq!(llvm(""), None);
    }
}
