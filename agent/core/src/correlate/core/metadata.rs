//! Who asks a metadata service for credentials: whoever can reach it gets what the machine, the task or the pod may do. Asked is
//! in clear, at an address of the service's own; so is what it answers.

use super::once::Once;
use super::paths::fits;
use super::{Core, attack};
use crate::correlate::event;
use crate::process::{Holding, HoldingPlace};
use keytrail_model::event::Evidence;
use keytrail_model::{
    AnswerSeen, Channel, CredentialRef, DestinationMethod, Direction, Endpoints, EventKind,
    EvidenceGrade, Pid, Request, SendSeen, Target,
};
use std::collections::{BTreeMap, VecDeque};

/// Requests that wait for their answer.
const MAX_PENDING: usize = 1_024;
/// Credentials from one place that are held beside those of the last answer.
const MAX_OLDER: usize = 3;

/// Process, its program, address and path.
type Asked = (Pid, u32, String, String);
/// Process, its program, and the fingerprint of what it was given.
type Given = (Pid, u32, String);

#[derive(Default)]
pub(super) struct Metadata {
    asked: Once<Asked>,
    given: Once<Given>,
    /// What was asked for last, by process and socket.
    open: BTreeMap<(Pid, u64), (u64, Request)>,
    /// In which order they came to be there; some may be gone.
    order: VecDeque<(u64, (Pid, u64))>,
    number: u64,
}

impl Metadata {
    /// Another request on a connection, or another connection on the same socket: what comes is no answer to the last one.
    fn asks(&mut self, key: (Pid, u64), request: Request) {
        self.number += 1;
        self.open.insert(key, (self.number, request));
        self.order.push_back((self.number, key));
        // The oldest are forgotten first: that costs the answer the path of its request.
        while self.order.len() > MAX_PENDING
            && let Some((number, oldest)) = self.order.pop_front()
        {
            if self.open.get(&oldest).is_some_and(|(n, _)| *n == number) {
                self.open.remove(&oldest);
            }
        }
    }

    pub fn connects(&mut self, pid: Pid, sock: u64) {
        self.open.remove(&(pid, sock));
    }

    pub fn forget(&mut self, pid: Pid) {
        let first = (pid, 0);
        let last = (pid, u64::MAX);
        let gone: Vec<_> = self.open.range(first..=last).map(|(key, _)| *key).collect();
        for key in gone {
            self.open.remove(&key);
        }
    }
}

impl Core {
    pub(super) fn on_metadata(&mut self, send: &SendSeen) {
        for request in &send.payload.requests {
            if !is_service(&send.ends.peer_ip) {
                return;
            }
            let pid = send.at.pid;
            let target = asks_for(&send.ends.peer_ip, request);
            let is_for_credentials = target.is_some();
            let asked = Request {
                target,
                ..request.clone()
            };
            self.metadata.asks((pid, send.ends.sock), asked.clone());
            if !is_for_credentials {
                continue;
            }
            let exec = self.table.get(pid).map_or(0, |p| p.exec);
            let ip = send.ends.peer_ip.clone();
            if !self
                .metadata
                .asked
                .first((pid, exec, ip, request.path.clone()))
            {
                continue;
            }
            let mut e = self.event(EventKind::CredentialRequested, send.at.boot_ns);
            e.process = Some(self.table.describe(pid));
            let mut to = event::destination(Some(&send.ends), &send.payload.hosts);
            to.direction = Some(Direction::Outgoing);
            e.destination = Some(to);
            e.evidence = Some(Evidence {
                payload_bytes: send.payload.total,
                inspected_bytes: send.payload.inspected,
                destination_method: Some(DestinationMethod::Socket),
                ..Evidence::new(None, Channel::Tcp, &send.hook)
            });
            e.request = Some(asked);
            // Unsecured Credentials: Cloud Instance Metadata API.
            e.attack = attack(&["T1552.005"]);
            self.emit(e);
        }
    }
}

impl Core {
    /// The answer: who asked holds from here on what is in it.
    pub(super) fn on_answer(&mut self, seen: &AnswerSeen) {
        let pid = seen.at.pid;
        self.table.touch(&seen.at);
        let exec = self.table.get(pid).map_or(0, |p| p.exec);
        let key = (pid, seen.ends.sock);
        let request = self.metadata.open.remove(&key).map(|(_, request)| request);
        let asked = url(&seen.ends, request.as_ref());
        let place = HoldingPlace::Service(asked);
        let first = self.out.len();
        for credential in &seen.credentials {
            self.hold(&seen.at, credential, place.clone(), seen.at.boot_ns);
            let given = (pid, exec, credential.fingerprint.clone());
            if !self.metadata.given.first(given) {
                continue;
            }
            let mut e = self.event(EventKind::CredentialReceived, seen.at.boot_ns);
            e.process = Some(self.table.describe(pid));
            e.credential = Some(self.best(credential));
            e.source = Some(event::place_source(&place));
            e.request.clone_from(&request);
            let grade = Some(EvidenceGrade::Observed);
            e.evidence = Some(Evidence::new(grade, Channel::Tcp, &seen.hook));
            e.attack = attack(&["T1552.005", &credential.attack]);
            self.emit(e);
        }
        self.drop_older(pid, &place, &seen.credentials);
        self.group(first);
    }

    /// A service gives others from time to time: the last ones before stay, since they are good for a while, and several may be
    /// asked for under one path (their names are in the query).
    fn drop_older(&mut self, pid: Pid, place: &HoldingPlace, given: &[CredentialRef]) {
        let is_older = |h: &Holding| {
            let fingerprint = &h.credential.fingerprint;
            h.place == *place && !given.iter().any(|c| c.fingerprint == *fingerprint)
        };
        let Some(proc) = self.table.get(pid) else {
            return;
        };
        let older = proc.holdings.iter().filter(|h| is_older(h));
        let mut times: Vec<u64> = older.map(|h| h.since_ns).collect();
        times.sort_unstable();
        let Some(last) = times.len().checked_sub(MAX_OLDER) else {
            return;
        };
        let Some(&since_ns) = times.get(last) else {
            return;
        };
        self.table
            .take_holdings(pid, |h| is_older(h) && h.since_ns < since_ns);
    }
}

/// The addresses of metadata services, as the kernel side knows them.
fn is_service(ip: &str) -> bool {
    matches!(
        ip,
        "169.254.169.254"
            | "fd00:ec2::254"
            | "169.254.170.2"
            | "169.254.170.23"
            | "fd00:ec2::23"
            | "100.100.100.200"
    )
}

/// Whether something was asked of the service at the other end.
pub(super) fn is_of(asked: &str, ends: &Endpoints) -> bool {
    asked.starts_with(&url(ends, None))
}

/// What was asked for: the service alone where the request was not seen.
fn url(ends: &Endpoints, request: Option<&Request>) -> String {
    let host = if ends.peer_ip.contains(':') {
        format!("[{}]", ends.peer_ip)
    } else {
        ends.peer_ip.clone()
    };
    let port = if ends.peer_port == 80 {
        String::new()
    } else {
        format!(":{}", ends.peer_port)
    };
    let path = request.map_or("/", |request| &request.path);
    format!("http://{host}{port}{path}")
}

const LINK_LOCAL: &[&str] = &["169.254.169.254", "fd00:ec2::254"];
const ECS: &[&str] = &["169.254.170.2"];
const EKS: &[&str] = &["169.254.170.23", "fd00:ec2::23"];
const ALIBABA: &[&str] = &["100.100.100.200"];

/// Where credentials are given to whoever asks: addresses, path, service, and whose they are: its kind, and its name where the
/// path does not have it. The addresses are those that the kernel side inspects.
#[rustfmt::skip]
const GIVEN: &[(&[&str], &str, &str, &str, &str)] = &[
    (LINK_LOCAL, "/latest/meta-data/iam/security-credentials/*", "aws_imds", "role", ""),
    (LINK_LOCAL, "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance", "aws_imds", "role", "ec2-instance"),
    (LINK_LOCAL, "/computeMetadata/v1/instance/service-accounts/*/token", "gce_metadata", "service_account", ""),
    (LINK_LOCAL, "/computeMetadata/v1/instance/service-accounts/*/identity", "gce_metadata", "service_account", ""),
    (LINK_LOCAL, "/metadata/identity/oauth2/token", "azure_imds", "managed_identity", ""),
    (ECS, "/v2/credentials/+", "aws_ecs", "task_role", ""),
    (ECS, "/v3/**/credentials", "aws_ecs", "task_role", ""),
    (EKS, "/v1/credentials", "aws_eks", "pod_identity", ""),
    (ALIBABA, "/latest/meta-data/ram/security-credentials/*", "alibaba_metadata", "role", ""),
];

/// Whose credentials a request is for; `None` where it is for anything else, or goes elsewhere.
fn asks_for(ip: &str, request: &Request) -> Option<Target> {
    if request.method != "GET" {
        return None;
    }
    GIVEN
        .iter()
        .filter(|(addresses, ..)| addresses.contains(&ip))
        .find_map(|(_, path, service, kind, fixed)| {
            let name = fits(path, &request.path)?;
            Some(Target {
                service: (*service).to_owned(),
                kind: (*kind).to_owned(),
                name: if fixed.is_empty() { name } else { fixed }.to_owned(),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_gives_credentials_counts() {
        let target = |ip: &str, method: &str, path: &str| {
            let request = Request {
                method: method.to_owned(),
                path: path.to_owned(),
                ..Request::default()
            };
            asks_for(ip, &request).map(|t| format!("{} {} {}", t.service, t.kind, t.name))
        };
        let imds = "169.254.169.254";
        for (ip, path, expected) in [
            (
                imds,
                "/latest/meta-data/iam/security-credentials/web-1",
                "aws_imds role web-1",
            ),
            (
                imds,
                "/computeMetadata/v1/instance/service-accounts/default/token",
                "gce_metadata service_account default",
            ),
            (
                imds,
                "/metadata/identity/oauth2/token",
                "azure_imds managed_identity ",
            ),
            (
                "169.254.170.2",
                "/v2/credentials/{id}",
                "aws_ecs task_role ",
            ),
            ("169.254.170.23", "/v1/credentials", "aws_eks pod_identity "),
            ("fd00:ec2::23", "/v1/credentials", "aws_eks pod_identity "),
            (
                "100.100.100.200",
                "/latest/meta-data/ram/security-credentials/web",
                "alibaba_metadata role web",
            ),
        ] {
            assert_eq!(target(ip, "GET", path).as_deref(), Some(expected), "{path}");
            // Elsewhere the same path is anybody's.
            assert_eq!(target("10.0.0.9", "GET", path), None);
            assert_eq!(target(ip, "PUT", path), None);
        }
        for path in [
            "/latest/api/token",
            "/latest/meta-data/instance-id",
            // The list of roles: their names, no credentials.
            "/latest/meta-data/iam/security-credentials/",
            "/computeMetadata/v1/instance/service-accounts/default/email",
            "/metadata/instance",
        ] {
            assert_eq!(target(imds, "GET", path), None, "{path}");
        }
    }
}
