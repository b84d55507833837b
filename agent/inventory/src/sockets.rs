//! Sockets behind which something holds credentials: whoever may connect can use them. Listed, never connected to.

use super::model::SocketLocation;
use super::walk::At;
use keytrail_model::Credential;
use keytrail_secret::Fingerprinter;
use rustix::fs::AtFlags;

/// Environment variables that name such a socket, and its kind.
const VARIABLES: &[(&str, &str)] = &[
    ("SSH_AUTH_SOCK", "ssh-agent-socket"),
    ("SPIFFE_ENDPOINT_SOCKET", "spiffe-workload-socket"),
    ("GPG_AGENT_INFO", "gpg-agent-socket"),
    ("DOCKER_HOST", "docker-socket"),
    ("CONTAINER_HOST", "podman-socket"),
    ("CONTAINERD_ADDRESS", "containerd-socket"),
    ("CONTAINER_RUNTIME_ENDPOINT", "container-runtime-socket"),
    ("VAULT_AGENT_ADDR", "vault-agent-socket"),
    ("VAULT_ADDR", "vault-agent-socket"),
    ("SSH_TPM_AUTH_SOCK", "ssh-agent-socket"),
    ("BUILDKIT_HOST", "buildkit-socket"),
];

/// The socket an environment variable names: kind and path.
#[must_use]
pub fn of_variable(name: &str, value: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let kind = VARIABLES.iter().find(|v| v.0 == name)?.1;
    let mut path = value;
    for scheme in [b"unix://".as_slice(), b"unix:"] {
        if let Some(rest) = path.strip_prefix(scheme) {
            path = rest;
            break;
        }
    }
    if name == "GPG_AGENT_INFO" {
        // path:pid:version
        path = path.split(|b| *b == b':').next()?;
    }
    // Addresses of other kinds (tcp://, https://) are no sockets; linux/un.h allows 108 bytes.
    (path.starts_with(b"/") && path.len() <= 108 && !path.contains(&0))
        .then(|| (kind, path.to_vec()))
}

/// The kind of a socket by its place.
#[must_use]
pub fn of_path(path: &[u8]) -> Option<&'static str> {
    let mut parts = path.rsplit(|b| *b == b'/');
    let name = parts.next()?;
    let dir = parts.next().unwrap_or_default();
    let has = |needle: &[u8]| memchr::memmem::find(path, needle).is_some();
    Some(match name {
        b"docker.sock" | b"dockerd.sock" => "docker-socket",
        b"containerd.sock" => "containerd-socket",
        b"crio.sock" => "container-runtime-socket",
        b"podman.sock" => "podman-socket",
        b"buildkitd.sock" => "buildkit-socket",
        b"lxd.socket" | b"unix.socket" if has(b"lxd") || has(b"incus") => "lxd-socket",
        b"S.gpg-agent" | b"S.gpg-agent.ssh" | b"S.gpg-agent.extra" | b"S.gpg-agent.browser" => {
            "gpg-agent-socket"
        }
        b"ssh-agent.socket" | b"ssh-agent.sock" | b"openssh_agent" => "ssh-agent-socket",
        b"ssh" | b"pkcs11" | b"control" if dir == b"keyring" || dir.starts_with(b"keyring-") => {
            "keyring-socket"
        }
        b"agent.sock" | b"api.sock" | b"workload.sock" | b"socket"
            if has(b"spire") || has(b"spiffe") || has(b"workload-spiffe") =>
        {
            "spiffe-workload-socket"
        }
        b"agent.sock" if has(b"1password") => "ssh-agent-socket",
        _ if name.starts_with(b"agent.") && dir.starts_with(b"ssh-") => "ssh-agent-socket",
        _ => return None,
    })
}

/// 1: whoever connects is root on this host. 2: uses others' keys.
fn privilege(kind: &str) -> u8 {
    match kind {
        "docker-socket"
        | "containerd-socket"
        | "container-runtime-socket"
        | "podman-socket"
        | "lxd-socket" => 1,
        _ => 2,
    }
}

/// A socket as a credential: it has no secret of its own, so its fingerprint is that of its place.
#[must_use]
pub fn credential(
    kind: &str,
    container: &str,
    path: &str,
    fingerprinter: &Fingerprinter,
) -> Credential {
    Credential {
        kind: kind.to_owned(),
        identifier: path.to_owned(),
        fingerprint: fingerprinter.fingerprint(format!("socket\0{container}\0{path}").as_bytes()),
        confidence: 0.95,
        expires: None,
        rule: "agent-socket".to_owned(),
        privilege: privilege(kind),
        // Unix sockets of agents: SSH hijacking, container administration; else alternate authentication material.
        attack: match kind {
            "ssh-agent-socket" | "keyring-socket" | "gpg-agent-socket" => "T1563.001",
            "spiffe-workload-socket" | "vault-agent-socket" => "T1550.001",
            _ => "T1610",
        }
        .to_owned(),
    }
}

/// A socket the walk found, if it is of a kind that matters.
pub(super) fn found(
    at: &At<'_>,
    fingerprinter: &Fingerprinter,
) -> Option<(Credential, SocketLocation)> {
    let kind = of_path(at.path)?;
    let stat = rustix::fs::statat(at.dir, at.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let path = at.shown();
    let place = SocketLocation {
        path: path.clone(),
        container: at.root.container.clone(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        reach: at.reach,
        ..SocketLocation::default()
    };
    Some((
        credential(kind, &at.root.container, &path, fingerprinter),
        place,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_variable() {
        let of = |n: &str, v: &str| {
            of_variable(n, v.as_bytes()).map(|(k, p)| (k, String::from_utf8(p).unwrap()))
        };
        assert_eq!(
            of("SSH_AUTH_SOCK", "/tmp/ssh-x/agent.1"),
            Some(("ssh-agent-socket", "/tmp/ssh-x/agent.1".into()))
        );
        assert_eq!(
            of("DOCKER_HOST", "unix:///run/docker.sock"),
            Some(("docker-socket", "/run/docker.sock".into()))
        );
        assert_eq!(of("DOCKER_HOST", "tcp://10.0.0.1:2375"), None);
        assert_eq!(of("VAULT_ADDR", "https://vault:8200"), None);
        assert_eq!(
            of("GPG_AGENT_INFO", "/run/S.gpg-agent:12:1"),
            Some(("gpg-agent-socket", "/run/S.gpg-agent".into()))
        );
        assert_eq!(of("SSH_AUTH_SOCK", &format!("/{}", "x".repeat(200))), None);
        assert_eq!(of("HOME", "/root"), None);
    }

    #[test]
    fn by_path() {
        assert_eq!(of_path(b"tmp/ssh-AbC/agent.77"), Some("ssh-agent-socket"));
        assert_eq!(
            of_path(b"run/user/1000/gnupg/S.gpg-agent.ssh"),
            Some("gpg-agent-socket")
        );
        assert_eq!(
            of_path(b"run/spire/sockets/agent.sock"),
            Some("spiffe-workload-socket")
        );
        assert_eq!(of_path(b"run/docker.sock"), Some("docker-socket"));
        assert_eq!(of_path(b"run/dbus/system_bus_socket"), None);
        assert_eq!(of_path(b"srv/agent.sock"), None);
    }
}
