//! Messages of HTTP/1, chunked and encoded.

#![no_main]

use keytrail_fuzz::speak;
use keytrail_payload::Layer;
use libfuzzer_sys::fuzz_target;

const PREFIXES: &[&[u8]] = &[b"", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 9999\r\n\r\n"];

fuzz_target!(|bytes: &[u8]| {
    for prefix in PREFIXES {
        speak(Layer::Tls, prefix, bytes);
    }
});
