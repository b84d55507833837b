//! Puts the compiled kernel side where `sensor` embeds it from.

use std::{env, fs, path::PathBuf, process::exit};

fn main() {
    println!("cargo::rerun-if-env-changed=KEYTRAIL_BPF_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    // Each machine's kernels have one of their own (xtask/src/build/ebpf.rs).
    let name = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("aarch64") => "keytrail-aarch64.o",
        _ => "keytrail.o",
    };
    let object = env::var_os("KEYTRAIL_BPF_OBJECT")
        .map(PathBuf::from)
        .unwrap_or_else(|| manifest.join("../../target/bpf").join(name));
    println!("cargo::rerun-if-changed={}", object.display());
    let target = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("keytrail.o");
    if let Err(error) = fs::copy(&object, &target) {
        eprintln!(
            "The kernel side is not built: {} cannot be copied ({error}). Run `cargo xtask build`, which builds it first, \
             or name the object in KEYTRAIL_BPF_OBJECT.",
            object.display()
        );
        exit(1);
    }
}
