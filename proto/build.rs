//! Compiles the schema without protoc: protox parses it, prost and tonic generate the types, pbjson their JSON.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "keytrail/v1/event.proto",
        "keytrail/v1/history.proto",
        "keytrail/v1/service.proto",
    ];
    println!("cargo:rerun-if-changed=keytrail");
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("keytrail.bin");
    fs::write(&out, descriptors.encode_to_vec())?;

    // In the order of their keys: what is in an event is the same bytes every time.
    const ORDERED: &str = ".keytrail.v1.Workload";
    let mut config = prost_build::Config::new();
    config
        .btree_map([ORDERED])
        .enable_type_names()
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_well_known_types();
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)?;
    pbjson_build::Builder::new()
        .register_descriptors(&fs::read(&out)?)?
        .btree_map([ORDERED])
        .build(&[".keytrail"])?;
    Ok(())
}
