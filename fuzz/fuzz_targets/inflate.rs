//! Compressed data, recognised by its first bytes.

#![no_main]

use keytrail_fuzz::speak;
use keytrail_payload::Layer;
use libfuzzer_sys::fuzz_target;

const PREFIXES: &[&[u8]] = &[b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd", b"H4sIAAAAAAAA"];

fuzz_target!(|bytes: &[u8]| {
    for prefix in PREFIXES {
        speak(Layer::Tls, prefix, bytes);
    }
});
