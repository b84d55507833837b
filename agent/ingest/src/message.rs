//! Sends over Unix sockets and by UDP into observations.

use super::convert;
use super::in_use::UsedCredentials;
use super::stage::{Digest, chunk};
use keytrail_abi as abi;
use keytrail_host::procfs;
use keytrail_model::{Direction, Endpoints, Payload, PeerSeen, Pid, SendSeen};
use keytrail_payload::{Layer, Matcher, StreamKey, Streams, Unknown, datagram};

/// include/linux/net.h.
const SOCK_DGRAM: u16 = 2;
/// Ports of name services whose messages are the DNS's (RFC 1035, RFC 6762, RFC 4795).
const NAME_SERVICES: [u16; 3] = [53, 5353, 5355];

impl Digest {
    pub(super) fn message(
        &mut self,
        r: &abi::MessageSend,
        data: &[u8],
        hook: &str,
    ) -> (SendSeen, UsedCredentials) {
        let at = convert::task_info(&r.header);
        let unix = r.header.kind == abi::Kind::UNIX_SEND;
        let datagrams = !unix || r.sock_type == SOCK_DGRAM;
        let key = StreamKey {
            pid: at.pid,
            layer: Layer::Socket,
            id: r.ends.sock,
            ends: if unix {
                // A later socket on the same piece of memory has another inode.
                let mut of = [0; 16];
                of[..8].copy_from_slice(&r.socket_ino.to_ne_bytes());
                (of, 0, 0)
            } else {
                (r.ends.peer, r.ends.peer_port, r.ends.local_port)
            },
        };
        let begins = r.offset == 0;
        if datagrams && begins {
            // Each is read by itself.
            self.streams.close(&key);
        }
        self.after_hole(&r.header, r.offset, &key);
        let part = chunk(&r.header, data, r.offset, r.total);
        let whole = part.offset + data.len() as u64 >= r.total || part.truncated;
        let accepted = r.header.flags & abi::header::flags::ACCEPTED != 0;
        if accepted {
            self.in_use.serves(at.pid);
        }
        let (classifier, registry) = (&self.classifier, &self.registry);
        let matcher = &registry.matcher;
        let mut meeting = self.in_use.meeting(&at, classifier, registry);
        let (mut payload, records) = if r.tls_call == 0 {
            // What merely looks like TLS is inspected.
            let asks = !datagrams && !accepted;
            let unknown = asks.then_some(&mut meeting as &mut dyn Unknown);
            let payload = self.streams.on_payload_with(matcher, key, part, unknown);
            (payload, Vec::new())
        } else {
            let sent = self.streams.on_send(matcher, key, part);
            let begins = sent.goes_on.is_none();
            (sent.payload, if begins { sent.records } else { Vec::new() })
        };
        let used = meeting.end();
        if datagrams {
            payload.continues &= !begins;
            if whole {
                for hit in &mut payload.hits {
                    hit.open = false;
                }
                self.streams.close(&key);
            }
        }
        let mut asked = 0;
        if !unix && begins && NAME_SERVICES.contains(&r.ends.peer_port) {
            let who = (at.pid, (r.ends.peer, r.ends.peer_port));
            asked = self.in_names(who, at.boot_ns, data, &mut payload);
        }
        let mut ends = convert::endpoints(&r.ends);
        if unix {
            name_peer(r, at.pid, !payload.hits.is_empty(), &mut ends);
        }
        let mut records = records.iter().map(|r| (r.content_type, r.length));
        let seen = SendSeen {
            ends,
            sealed: !unix && begins && datagram::is_sealed(data),
            asked,
            payload,
            tls_record: records.next(),
            tls_more: records.collect(),
            goes_on: None,
            tls_call: (r.tls_call != 0).then_some((r.tls_call, r.tls_session)),
            hello: None,
            direction: accepted.then_some(Direction::Accepted),
            hook: hook.to_owned(),
            at,
        };
        (seen, used)
    }

    /// Inspects the names that a message of a name service asks for, with their labels joined, and with those that the same
    /// process asked the same service for before. Returns how much it asked for in long labels in a row.
    fn in_names(
        &mut self,
        who: (Pid, ([u8; 16], u16)),
        now_ns: u64,
        data: &[u8],
        payload: &mut Payload,
    ) -> u64 {
        let mut asked = 0;
        let matcher = &self.registry.matcher;
        for name in datagram::asked_names(data) {
            add_secrets(matcher, &name, payload);
            if let Some(pieces) = self.dns_pieces.join(who, &name, now_ns) {
                add_secrets(matcher, &pieces, payload);
            }
            asked = asked.max(self.dns_pieces.much(who, &name));
        }
        if payload.hits.iter().any(|hit| hit.secret) {
            self.dns_pieces.reported(who.0);
        }
        asked
    }
}

/// A word of two labels is none: only whole secrets are looked for across them.
fn add_secrets(matcher: &Matcher, text: &[u8], payload: &mut Payload) {
    let found = Streams::alone(matcher, text);
    for mut hit in found.into_iter().filter(|hit| hit.secret) {
        hit.request = None;
        let fingerprint = &hit.credential.fingerprint;
        let known = payload
            .hits
            .iter()
            .any(|h| h.secret && h.credential.fingerprint == *fingerprint && h.part == hit.part);
        if !known {
            payload.hits.push(hit);
        }
    }
}

/// Name and peer of a Unix socket. `inspect`: it is worth reading /proc, while the peer still runs.
fn name_peer(r: &abi::MessageSend, sender: Pid, inspect: bool, ends: &mut Endpoints) {
    let name = r.name.get(..usize::from(r.name_len)).unwrap_or_default();
    ends.path = socket_name(name);
    if r.peer_tgid == 0 {
        return;
    }
    let pid = convert::pid(r.peer_tgid, r.peer_start_ns);
    if pid == sender && ends.path.is_empty() {
        // It made a pair itself; who has the other end now is not known.
        return;
    }
    let mut peer = PeerSeen {
        tgid: pid.tgid,
        start: pid.start,
        ..PeerSeen::default()
    };
    if inspect && let Some(facts) = procfs::facts(pid.tgid).filter(|facts| facts.start == pid.start)
    {
        peer.comm = facts.comm;
        peer.executable = procfs::exe(pid.tgid).unwrap_or_default().path;
    }
    ends.peer = Some(Box::new(peer));
}

/// `sun_path` as people know it: abstract names begin with `@`, and may hold any bytes.
fn socket_name(bytes: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match bytes {
        // Some bind the whole of `sun_path`, zeros and all.
        [0, name @ ..] => {
            let end = name
                .iter()
                .rposition(|b| *b != 0)
                .map_or(0, |last| last + 1);
            format!("@{}", text(&name[..end]).replace('\0', "@"))
        }
        _ => text(bytes.split(|b| *b == 0).next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sockets() {
        assert_eq!(socket_name(b""), "");
        assert_eq!(socket_name(b"/run/docker.sock\0"), "/run/docker.sock");
        assert_eq!(socket_name(b"relative"), "relative");
        assert_eq!(socket_name(b"\0bus\0one\0\0\0"), "@bus@one");
        assert_eq!(socket_name(b"\0"), "@");
    }
}
