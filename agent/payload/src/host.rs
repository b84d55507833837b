//! Host names as they come off the wire: whatever is not plainly a name or an address is refused.

/// Longest host name, bytes (RFC 1035 section 2.3.4, in text).
const MAX_NAME: usize = 253;
/// Longest label of it.
const MAX_LABEL: usize = 63;

/// The host of `authority` (`host`, `host:port`, `[v6]:port`) in lower case without port and final dot; an IPv6
/// address without its brackets. `None` when it is anything else.
pub fn host_name(authority: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(authority)
        .ok()?
        .trim_matches([' ', '\t']);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
            return None;
        }
        return address
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(|a| a.to_string());
    }
    let name = match text.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return None,
        None => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    (name.len() <= MAX_NAME && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

/// An empty port is allowed by RFC 3986 section 3.2.3.
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn normalises_names_and_addresses() {
        let cases: &[(&str, &str)] = &[
            ("Example.COM", "example.com"),
            ("example.com:8443", "example.com"),
            ("example.com.", "example.com"),
            (" api_1.example.com \t", "api_1.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:443", "::1"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("localhost:", "localhost"),
        ];
        for (text, name) in cases {
            assert_eq!(host_name(text.as_bytes()).as_deref(), Some(*name), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_name() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        let cases = [
            "",
            ".",
            "a..b",
            "a b",
            "user@host",
            "host:99x",
            "host:123456",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[host]",
            "a/b",
            "a\nb",
            "a\x1b[31m",
            "exämple",
            &long_label,
            &long_name,
        ];
        for text in cases {
            assert_eq!(host_name(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(host_name(b"\xff\xfe"), None);
        assert_eq!(host_name(b"a\0b"), None);
    }
}
