//! Frames of a client, also compressed.

#![no_main]

use keytrail_fuzz::speak;
use keytrail_payload::Layer;
use libfuzzer_sys::fuzz_target;

const PREFIXES: &[&[u8]] = &[b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"];

fuzz_target!(|bytes: &[u8]| {
    for prefix in PREFIXES {
        speak(Layer::Tls, prefix, bytes);
    }
});
