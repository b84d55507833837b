//! A header block behind the preface of HTTP/2, and frames after it.

#![no_main]

use keytrail_fuzz::speak;
use keytrail_payload::Layer;
use libfuzzer_sys::fuzz_target;

const PREFIXES: &[&[u8]] = &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];

fuzz_target!(|bytes: &[u8]| {
    for prefix in PREFIXES {
        speak(Layer::Tls, prefix, bytes);
    }
});
