//! Addresses of a name: /etc/hosts, and the name servers of /etc/resolv.conf by UDP (RFC 1035).
//!
//! The C library's resolver loads whatever /etc/nsswitch.conf names into the process; a program with the C library linked
//! in must not do that with libraries of another version.

use ring::rand::{SecureRandom as _, SystemRandom};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As many as resolv.conf(5) takes.
const SERVERS: usize = 3;
const SUFFIXES: usize = 6;
/// Before another server is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files of a system's own making are small.
const FILE_MAX: usize = 4 << 20;
const ADDRESSES: usize = 16;
const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// Addresses of `HOST:PORT`.
///
/// # Errors
/// It has none, or nobody says.
pub(crate) fn addresses(address: &str, timeout: Duration) -> io::Result<Vec<SocketAddr>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let found = lookup(host, timeout)?;
    Ok(found.into_iter().map(|ip| (ip, port).into()).collect())
}

/// The same for the client of HTTP.
#[derive(Debug)]
pub(crate) struct ForHttp;

impl Resolver for ForHttp {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let timeout = timeout.not_zero().map_or(PATIENCE * 2, |t| *t);
        let found = lookup(host, timeout).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ureq::Error::HostNotFound,
            _ => ureq::Error::Io(error),
        })?;
        let mut out = self.empty();
        for ip in found.into_iter().take(ADDRESSES) {
            out.push((ip, port).into());
        }
        Ok(out)
    }
}

fn lookup(host: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    let read = |path: &str| {
        let mut text = fs::read_to_string(path).unwrap_or_default();
        if text.len() > FILE_MAX {
            text.clear();
        }
        text
    };
    let found = in_hosts(&read("/etc/hosts"), host);
    if !found.is_empty() {
        return Ok(found);
    }
    // RFC 6761, 6.3: never asked of a server.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let settings = Settings::of(&read("/etc/resolv.conf"));
    ask(&settings, host, Instant::now() + timeout)
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|w| w.parse().ok()) else {
            continue;
        };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    servers: Vec<SocketAddr>,
    suffixes: Vec<String>,
}

impl Settings {
    fn of(text: &str) -> Settings {
        let mut settings = Settings::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                    settings
                        .servers
                        .extend(server.map(|ip| SocketAddr::from((ip, 53))));
                }
                Some("search" | "domain") => {
                    settings.suffixes = words.take(SUFFIXES).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        if settings.servers.is_empty() {
            settings.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        settings.servers.truncate(SERVERS);
        settings
    }

    /// What a name may be short for, in the order in which it is tried.
    fn names(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<String> = self
            .suffixes
            .iter()
            .map(|suffix| format!("{host}.{}", suffix.trim_end_matches('.')))
            .collect();
        // A name with a point is most likely whole.
        let at = if host.contains('.') { 0 } else { names.len() };
        names.insert(at, host.to_owned());
        names
    }
}

fn ask(settings: &Settings, host: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for name in settings.names(host) {
        for server in &settings.servers {
            let mut found = Vec::new();
            let mut answered = true;
            for kind in [A, AAAA] {
                match query(*server, &name, kind, deadline) {
                    Ok(ips) => found.extend(ips),
                    Err(error) => {
                        last = error;
                        answered = false;
                        break;
                    }
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if answered {
                // It knows of no such name: another server knows no better.
                break;
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
        }
    }
    Err(last)
}

fn query(server: SocketAddr, name: &str, kind: u16, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let mut id = [0; 2];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| io::Error::other("the system gave no random numbers"))?;
    let question = question(id, name, kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "is no name of a host"))?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connected: only what comes from the server is received.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let end = deadline.min(Instant::now() + PATIENCE);
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no name server answered in time",
            ));
        }
        socket.set_read_timeout(Some(left))?;
        let n = match socket.recv(&mut buffer) {
            Ok(n) => n,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(e) => {
                return Err(io::Error::new(
                    e.kind(),
                    format!("name server {}: {e}", server.ip()),
                ));
            }
        };
        match answer(&buffer[..n], &question, kind) {
            Some(Ok(found)) => return Ok(found),
            Some(Err(code)) => {
                return Err(io::Error::other(format!(
                    "a name server answered with error {code}"
                )));
            }
            // Not of this question.
            None => {}
        }
    }
}

/// A query for the addresses of a name, recursion desired.
fn question(id: [u8; 2], name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    if name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    Some(out)
}

/// Addresses of this kind in an answer, whoever's they are: aliases lead to other names. `None`: it is no answer to this
/// question. An error is the server's code; that there is no such name is none.
fn answer(message: &[u8], question: &[u8], kind: u16) -> Option<Result<Vec<IpAddr>, u8>> {
    let head = message.get(..12)?;
    if head[..2] != question[..2] || head[2] & 0x80 == 0 {
        return None;
    }
    // The question comes back; case is the server's.
    let asked = message.get(12..question.len())?;
    if !asked.eq_ignore_ascii_case(&question[12..]) {
        return None;
    }
    match head[3] & 0x0f {
        0 => {}
        3 => return Some(Ok(Vec::new())),
        code => return Some(Err(code)),
    }
    let count = u16::from_be_bytes([head[6], head[7]]);
    let mut found = Vec::new();
    let mut at = question.len();
    for _ in 0..count {
        // A cut answer has what it has.
        let Some((ip, next)) = record(message, at, kind) else {
            break;
        };
        found.extend(ip.filter(|_| found.len() < ADDRESSES));
        at = next;
    }
    Some(Ok(found))
}

/// One record: its address, when it is of this kind, and where the next one begins.
fn record(message: &[u8], at: usize, kind: u16) -> Option<(Option<IpAddr>, usize)> {
    let at = after_name(message, at)?;
    let head = message.get(at..at + 10)?;
    let of = u16::from_be_bytes([head[0], head[1]]);
    let class = u16::from_be_bytes([head[2], head[3]]);
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let data = message.get(at + 10..at + 10 + length)?;
    let ip = match (class, of) {
        (IN, A) if kind == A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        (IN, AAAA) if kind == AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    };
    Some((ip, at + 10 + length))
}

/// Where a name ends; what it refers to is of no interest.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        at += match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=63 => usize::from(length) + 1,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests;
