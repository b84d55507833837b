//! What left over Unix sockets and by UDP. Neither is a connection of the network that a TLS write could be looked for
//! on: they are kept apart from those, and only what is nested in a TLS call is joined with it.

use super::Core;
use super::send::{Outbound, Stream};
use crate::correlate::tls::Link;
use keytrail_model::event::Peer;
use keytrail_model::{Bound, DestinationMethod, Direction, Endpoints, Pid, SendSeen};

/// Port of the DNS (RFC 1035).
const DNS: u16 = 53;
/// So much in long labels under one domain is more than names.
const MUCH: u64 = 400;

impl Core {
    pub(super) fn on_message(&mut self, send: &SendSeen) {
        let (pid, unix) = (send.at.pid, send.ends.is_unix());
        let sock = send.ends.sock;
        if !unix {
            self.note_datagram(send);
        }
        let link = |method| Link {
            ends: Some(send.ends.clone()),
            method,
        };
        if send.tls_call.is_some() {
            let carries = self.tls.send(send, false);
            for (seen, method) in carries.proven {
                self.sent(Outbound {
                    direction: send.direction,
                    ..Outbound::of_write(seen, link(method))
                });
            }
        }
        if send.tls_record.is_some() {
            return;
        }
        let payload = &send.payload;
        if payload.inspected == 0 && payload.truncated {
            let bound = if unix {
                Bound::UnixBytes
            } else {
                Bound::UdpBytes
            };
            self.dropped.add(bound, u64::from(self.holds(pid)));
        } else {
            self.count_cut(pid, payload);
        }
        let stream = if unix {
            Stream::Unix(sock)
        } else {
            Stream::Udp(sock)
        };
        self.resolve_words(pid, stream, payload.continues);
        if unix {
            self.put_into_pair(send);
        }
        if payload.hits.is_empty() {
            return;
        }
        // An address that could not be read is not known.
        let method = if unix || send.ends.peer_port != 0 {
            DestinationMethod::Socket
        } else {
            DestinationMethod::Unknown
        };
        self.sent(Outbound {
            at: send.at.clone(),
            payload: payload.clone(),
            link: link(method),
            stream,
            direction: send.direction,
            path: String::new(),
            hook: send.hook.clone(),
        });
    }

    /// What a datagram means for lineage. Every holder asks for names: that is none, unless these are long, and many in a row
    /// under one domain: then they are a way out. Nor is anything over a Unix socket,
    /// by which every holder talks to the services of its host.
    fn note_datagram(&mut self, send: &SendSeen) {
        if send.ends.peer_port == DNS && send.asked < MUCH {
            return;
        }
        let asked = self.flows.asked_for(send.at.pid, &send.ends);
        let version = self.table.version(send.at.pid);
        let flow = self
            .flows
            .sent(&send.at, &send.ends, send.payload.total, version);
        if asked {
            flow.direction = Some(Direction::Outgoing);
        }
        flow.sealed |= send.sealed;
        if !flow.sealed {
            flow.inspect(&send.payload);
        }
        if flow.hook.is_empty() {
            flow.hook.clone_from(&send.hook);
        }
    }

    /// Who is at the other end of a Unix socket.
    pub(super) fn peer(&self, ends: &Endpoints) -> Option<Peer> {
        let seen = ends.peer.as_deref()?;
        let pid = Pid {
            tgid: seen.tgid,
            start: seen.start,
        };
        let mut peer = Peer {
            pid: seen.tgid,
            comm: seen.comm.clone(),
            executable: seen.executable.clone(),
            ..Peer::default()
        };
        if pid.start != 0 {
            let known = self.table.describe(pid);
            peer.key = known.key;
            if peer.executable.is_empty() {
                peer.executable = known.executable.map(|exe| exe.path).unwrap_or_default();
            }
            if peer.comm.is_empty() {
                peer.comm = known.comm;
            }
        }
        Some(peer)
    }
}
