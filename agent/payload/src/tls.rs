//! TLS record headers and the server name in a ClientHello (RFC 8446 sections 5.1 and 4.1.2, RFC 6066 section 3).

use super::host::host_name;
use keytrail_model::HostName;

/// Content type of handshake records.
pub const HANDSHAKE: u8 = 22;
/// Longest fragment of an encrypted record (RFC 8446 section 5.2).
const MAX_FRAGMENT: usize = (1 << 14) + 256;
/// Most of a ClientHello that is kept: post-quantum key shares make it about 1.8 KiB, session tickets more.
const MAX_HELLO: usize = 16 * 1024;
pub const RECORD_HEADER: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// 20 change_cipher_spec, 21 alert, 22 handshake, 23 application_data.
    pub content_type: u8,
    /// Length of the fragment, bytes.
    pub length: u16,
}

/// The record header at the beginning of `bytes`, if it is one.
pub fn record_header(bytes: &[u8]) -> Option<RecordHeader> {
    let &[content_type @ 20..=23, 3, 0..=4, high, low, ..] = bytes else {
        return None;
    };
    let length = u16::from_be_bytes([high, low]);
    // Only application data may be empty.
    let fits = usize::from(length) <= MAX_FRAGMENT && (length > 0 || content_type == 23);
    fits.then_some(RecordHeader {
        content_type,
        length,
    })
}

/// Do these bytes begin with a TLS record?
pub fn looks_like_tls(bytes: &[u8]) -> bool {
    record_header(bytes).is_some()
}

/// What the beginning of a connection says so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello that is not complete yet.
    Partial,
    /// A ClientHello with a server name. With encrypted ClientHello it is the public name only.
    Name(HostName),
    /// A ClientHello without a (valid) server name.
    Nameless,
    /// Not a ClientHello.
    Other,
}

/// Puts a ClientHello together from the payloads of one connection, whatever its split into records and writes.
#[derive(Debug, Default)]
pub struct HelloAssembler {
    header: Vec<u8>,
    /// Bytes of the current record still to come.
    record_left: usize,
    /// The handshake message, header included.
    message: Vec<u8>,
}

impl HelloAssembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Has it begun and not ended?
    pub fn is_waiting(&self) -> bool {
        !(self.header.is_empty() && self.message.is_empty())
    }

    /// Feeds the next bytes the client sent. After anything but [`Hello::Partial`] it starts anew.
    pub fn push(&mut self, bytes: &[u8]) -> Hello {
        let state = self.feed(bytes);
        if state != Hello::Partial {
            *self = Self::default();
        }
        state
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Hello {
        while !bytes.is_empty() {
            if self.record_left == 0 {
                let take = (RECORD_HEADER - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if self.header.len() < RECORD_HEADER {
                    return if self.header[0] == HANDSHAKE {
                        Hello::Partial
                    } else {
                        Hello::Other
                    };
                }
                match record_header(&self.header) {
                    Some(RecordHeader {
                        content_type: HANDSHAKE,
                        length,
                    }) => self.record_left = usize::from(length),
                    _ => return Hello::Other,
                }
                self.header.clear();
                continue;
            }
            let take = self.record_left.min(bytes.len());
            self.message.extend_from_slice(&bytes[..take]);
            self.record_left -= take;
            bytes = &bytes[take..];
            if self.message.first().is_some_and(|&kind| kind != 1) {
                return Hello::Other;
            }
            if let Some(&[_, a, b, c]) = self.message.first_chunk::<4>() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if length > MAX_HELLO {
                    return Hello::Other;
                }
                if let Some(body) = self.message.get(4..4 + length) {
                    return match server_name(body) {
                        Some(name) => Hello::Name(HostName {
                            name,
                            provenance: "sni".to_owned(),
                        }),
                        None => Hello::Nameless,
                    };
                }
            }
            if self.message.len() > MAX_HELLO + 4 {
                return Hello::Other;
            }
        }
        Hello::Partial
    }
}

/// The host name in the server_name extension of a ClientHello's body.
fn server_name(body: &[u8]) -> Option<String> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // legacy_version, random
    hello.vector8()?; // legacy_session_id
    hello.vector16()?; // cipher_suites
    hello.vector8()?; // legacy_compression_methods
    let mut extensions = Reader(hello.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        if kind != 0 {
            continue;
        }
        let mut names = Reader(Reader(data).vector16()?);
        while !names.0.is_empty() {
            let kind = names.take(1)?[0];
            let name = names.vector16()?;
            if kind == 0 {
                return host_name(name).filter(|_| !name.contains(&b':'));
            }
        }
        return None;
    }
    None
}

/// Length-prefixed fields; `None` when one reaches over the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(len_bytes: usize, data: &[u8]) -> Vec<u8> {
        let mut out = (data.len() as u32).to_be_bytes()[4 - len_bytes..].to_vec();
        out.extend_from_slice(data);
        out
    }

    /// A ClientHello in records of at most `fragment` bytes, with `padding` bytes of another extension first.
    pub fn client_hello(name: Option<&[u8]>, padding: usize, fragment: usize) -> Vec<u8> {
        let mut extensions = [&[0, 51][..], &vector(2, &vec![7; padding])].concat();
        if let Some(name) = name {
            let list = vector(2, &[&[0][..], &vector(2, name)].concat());
            extensions.extend([&[0, 0][..], &vector(2, &list)].concat());
        }
        let body = [
            &[3, 3][..],
            &[9; 32],
            &vector(1, &[5; 32]),
            &vector(2, &[0x13, 1, 0x13, 2]),
            &vector(1, &[0]),
            &vector(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &vector(3, &body)].concat();
        message
            .chunks(fragment)
            .flat_map(|chunk| [&[22, 3, 1][..], &vector(2, chunk)].concat())
            .collect()
    }

    fn name(name: &str) -> Hello {
        Hello::Name(HostName {
            name: name.to_owned(),
            provenance: "sni".to_owned(),
        })
    }

    #[test]
    fn server_name_at_every_split_point_and_fragment_size() {
        for fragment in [1, 100, 512, 16384] {
            let hello = client_hello(Some(b"Api.Example.com"), 700, fragment);
            for cut in (1..hello.len()).step_by(if fragment == 1 { 97 } else { 1 }) {
                let mut assembler = HelloAssembler::new();
                assert_eq!(
                    assembler.push(&hello[..cut]),
                    Hello::Partial,
                    "cut at {cut}"
                );
                assert_eq!(
                    assembler.push(&hello[cut..]),
                    name("api.example.com"),
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn hello_without_or_with_a_bad_name() {
        let push = |bytes: &[u8]| HelloAssembler::new().push(bytes);
        assert_eq!(push(&client_hello(None, 10, 16384)), Hello::Nameless);
        assert_eq!(
            push(&client_hello(Some(b"a b"), 10, 16384)),
            Hello::Nameless
        );
        assert_eq!(
            push(&client_hello(Some(b"a:1"), 10, 16384)),
            Hello::Nameless
        );
        assert_eq!(push(b"GET / HTTP/1.1\r\n"), Hello::Other);
        assert_eq!(push(&[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]), Hello::Other);
        assert_eq!(
            push(&[22, 3, 3, 0, 4, 2, 0, 0, 0]),
            Hello::Other,
            "a ServerHello"
        );
        assert_eq!(
            push(&[22, 3, 3, 0, 4, 1, 255, 255, 255]),
            Hello::Other,
            "16 MiB announced"
        );
    }

    #[test]
    fn recognises_records() {
        assert!(looks_like_tls(&[22, 3, 1, 2, 0]));
        assert_eq!(
            record_header(&[23, 3, 3, 0x40, 0x11]),
            Some(RecordHeader {
                content_type: 23,
                length: 0x4011
            })
        );
        for bytes in [
            &b"GET / "[..],
            &[22, 3, 1, 2],
            &[22, 2, 0, 0, 9],
            &[19, 3, 1, 0, 9],
            &[22, 3, 5, 0, 9],
            &[23, 3, 3, 0xff, 0],
        ] {
            assert!(!looks_like_tls(bytes), "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn hostile_hellos_do_not_panic(mut hello in Just(client_hello(Some(b"x.example"), 30, 64)), at in 0usize..160, byte: u8, cut in 0usize..160) {
            let at = at % hello.len();
            hello[at] = byte;
            let cut = cut % hello.len();
            let mut assembler = HelloAssembler::new();
            assembler.push(&hello[..cut]);
            assembler.push(&hello[cut..]);
            prop_assert!(assembler.message.len() <= MAX_HELLO + MAX_FRAGMENT);
        }
    }
}
