//! Which addresses a name may move between without anybody wondering.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network of an address, as a text; empty for what is none.
///
/// Whoever sends chooses the name he gives, so that a name counts only together with where it went. A provider's name moves
/// between addresses all day, as a rule within what its registry gave it: /16 of version 4 and /32 of version 6 are the
/// sizes that come nearest. What is not routed in the Internet is given out address by address within one house, where the
/// neighbour of a server is another server: there each address is a network of its own. This host is one.
pub(crate) fn network(ip: &str) -> String {
    match ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => "loopback".to_owned(),
        Ok(IpAddr::V4(ip)) if is_routed(ip) => {
            let [a, b, _, _] = ip.octets();
            format!("{a}.{b}.0.0/16")
        }
        // 2000::/3 is all that is given out.
        Ok(IpAddr::V6(ip)) if ip.segments()[0] >> 13 == 1 && !is_documentation(ip) => {
            let [a, b, ..] = ip.segments();
            format!("{}/32", Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0))
        }
        Ok(ip) => ip.to_string(),
        Err(_) => String::new(),
    }
}

/// What a destination is reported as, with the network in place of the address: a name that moves within it is the same place.
pub(crate) fn by_network(text: &str) -> Cow<'_, str> {
    let parts = || {
        let (name, rest) = text.rsplit_once(" (")?;
        let (ip, port) = rest.strip_suffix(')')?.rsplit_once(':')?;
        let network = network(ip.trim_start_matches('[').trim_end_matches(']'));
        (!network.is_empty()).then(|| format!("{name} ({network} {port})"))
    };
    parts().map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Whether an address is one of the Internet.
fn is_routed(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // Shared by the customers of a provider; and for measurements.
    let shared = a == 100 && b >> 6 == 1;
    let measured = a == 198 && b >> 1 == 9;
    !(ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || shared
        || measured)
}

fn is_documentation(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    a == 0x2001 && b == 0xdb8
}

#[cfg(test)]
mod tests {
    use super::{by_network, network};

    #[test]
    fn addresses_and_their_networks() {
        for (ip, is) in [
            ("140.82.112.3", "140.82.0.0/16"),
            ("140.82.121.6", "140.82.0.0/16"),
            ("::ffff:140.82.121.6", "140.82.0.0/16"),
            ("2606:4700:10::1", "2606:4700::/32"),
            ("127.0.0.1", "loopback"),
            ("127.0.0.53", "loopback"),
            ("::1", "loopback"),
            ("10.1.2.3", "10.1.2.3"),
            ("192.168.0.4", "192.168.0.4"),
            ("100.64.0.1", "100.64.0.1"),
            ("100.128.0.1", "100.128.0.0/16"),
            ("198.18.77.2", "198.18.77.2"),
            ("198.20.77.2", "198.20.0.0/16"),
            ("169.254.169.254", "169.254.169.254"),
            ("fd00::7", "fd00::7"),
            ("fe80::1", "fe80::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("/run/docker.sock", ""),
            ("", ""),
        ] {
            assert_eq!(network(ip), is, "{ip}");
        }
    }

    #[test]
    fn a_name_that_moves_within_its_network() {
        for (text, is) in [
            (
                "a.example (140.82.1.2:443)",
                "a.example (140.82.0.0/16 443)",
            ),
            ("a ([2606:4700::9]:443)", "a (2606:4700::/32 443)"),
            ("140.82.1.2:443", "140.82.1.2:443"),
            ("/run/x (y:1)", "/run/x (y:1)"),
            ("", ""),
        ] {
            assert_eq!(by_network(text), is);
        }
    }
}
