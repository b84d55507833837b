//! Records and handshakes on a socket.

#![no_main]

use keytrail_fuzz::speak;
use keytrail_payload::Layer;
use libfuzzer_sys::fuzz_target;

const PREFIXES: &[&[u8]] = &[b"", b"\x16\x03\x01"];

fuzz_target!(|bytes: &[u8]| {
    for prefix in PREFIXES {
        speak(Layer::Socket, prefix, bytes);
    }
});
