//! Who asks a metadata service for credentials: whoever can reach it gets what the machine, the task or the pod may do. Asked is
//! in clear, at an address of the service's own; what is answered is not seen.

use super::{Core, attack};
use crate::correlate::event;
use keytrail_model::event::Evidence;
use keytrail_model::{
    Channel, DestinationMethod, Direction, EventKind, Pid, Request, SendSeen, Target,
};

/// Process, its program, address and path.
pub(super) type Asked = (Pid, u32, String, String);

impl Core {
    pub(super) fn on_metadata(&mut self, send: &SendSeen) {
        for request in &send.payload.requests {
            let Some(target) = asks_for(&send.ends.peer_ip, request) else {
                continue;
            };
            let pid = send.at.pid;
            let exec = self.table.get(pid).map_or(0, |p| p.exec);
            let ip = send.ends.peer_ip.clone();
            if !self.asked.first((pid, exec, ip, request.path.clone())) {
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
            e.request = Some(Request {
                target: Some(target),
                ..request.clone()
            });
            // Unsecured Credentials: Cloud Instance Metadata API.
            e.attack = attack(&["T1552.005"]);
            self.emit(e);
        }
    }
}

/// Whose credentials a request is for; `None` where it is for anything else, or goes elsewhere. The addresses are those that
/// the kernel side looks at.
fn asks_for(ip: &str, request: &Request) -> Option<Target> {
    const EC2: &str = "/latest/meta-data/iam/security-credentials/";
    const EC2_ITSELF: &str =
        "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
    const GCE: &str = "/computeMetadata/v1/instance/service-accounts/";
    const ALIBABA: &str = "/latest/meta-data/ram/security-credentials/";
    let path = request.path.as_str();
    let named = |service: &str, kind: &str, name: &str| {
        Some(Target {
            service: service.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    };
    let one = |name: &str| !name.is_empty() && !name.contains('/');
    if request.method != "GET" {
        return None;
    }
    match ip {
        "169.254.169.254" | "fd00:ec2::254" => {
            if let Some(role) = path.strip_prefix(EC2).filter(|role| one(role)) {
                return named("aws_imds", "role", role);
            }
            if path == EC2_ITSELF {
                return named("aws_imds", "role", "ec2-instance");
            }
            if let Some((account, what)) = path.strip_prefix(GCE).and_then(|p| p.split_once('/')) {
                return matches!(what, "token" | "identity")
                    .then(|| named("gce_metadata", "service_account", account))?;
            }
            if path == "/metadata/identity/oauth2/token" {
                return named("azure_imds", "managed_identity", "");
            }
            None
        }
        "169.254.170.2" => (path.starts_with("/v2/credentials/")
            || path.starts_with("/v3/") && path.ends_with("/credentials"))
        .then(|| named("aws_ecs", "task_role", ""))?,
        "169.254.170.23" | "fd00:ec2::23" => {
            (path == "/v1/credentials").then(|| named("aws_eks", "pod_identity", ""))?
        }
        "100.100.100.200" => {
            let role = path.strip_prefix(ALIBABA).filter(|role| one(role))?;
            named("alibaba_metadata", "role", role)
        }
        _ => None,
    }
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
