//! Where the API server is, and as whom it is asked.

use hyper::header::HeaderValue;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where a pod finds its account (kubernetes.io/docs/tasks/run-application/access-api-from-pod).
pub const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Bytes of a token and of the authorities; both have some thousand.
const MAX_FILE: u64 = 1 << 20;
/// RFC 1035: the longest name, bytes.
const MAX_NAME: usize = 253;

/// What is wrong with the environment of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("KUBERNETES_SERVICE_PORT is no port")]
    Port,
    #[error("NODE_NAME is not the name of a node")]
    Node,
}

/// Why the API server cannot be asked as anybody. Nothing of a token is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    #[error("{} has no authorities in PEM", .0.display())]
    Authorities(PathBuf),
    #[error("{} has no token", .0.display())]
    Token(PathBuf),
    #[error("{0}")]
    Tls(rustls::Error),
    #[error("KUBERNETES_SERVICE_HOST is no name of a host")]
    Host,
}

/// A cluster as a pod of it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Name or address of the API server.
    pub host: String,
    pub port: u16,
    /// The node whose pods are asked for.
    pub node: String,
    /// Directory with `token` and `ca.crt`.
    pub account: PathBuf,
}

impl Cluster {
    /// What the environment of a pod says (`KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`, and `NODE_NAME`, which
    /// the chart sets); `None` outside of one.
    ///
    /// # Errors
    /// It is a pod, and something is missing or makes no sense.
    pub fn find(
        variable: impl Fn(&str) -> Option<String>,
        account: &Path,
    ) -> Option<Result<Cluster, ClusterError>> {
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
        Some(Cluster::new(host, variable, account))
    }

    fn new(
        host: String,
        variable: impl Fn(&str) -> Option<String>,
        account: &Path,
    ) -> Result<Cluster, ClusterError> {
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let port = port.parse().map_err(|_| ClusterError::Port)?;
        let node = variable("NODE_NAME").unwrap_or_default();
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if node.is_empty() || node.len() > MAX_NAME || !node.bytes().all(named) {
            return Err(ClusterError::Node);
        }
        Ok(Cluster {
            host,
            port,
            node,
            account: account.to_owned(),
        })
    }

    /// What the account says now: tokens are replaced every hour or so.
    pub(crate) fn credentials(&self) -> Result<Credentials, AccountError> {
        let mut roots = RootCertStore::empty();
        let path = self.account.join("ca.crt");
        let text = read(&path)?;
        for authority in CertificateDer::pem_slice_iter(&text) {
            authority
                .map_err(|_| ())
                .and_then(|authority| roots.add(authority).map_err(|_| ()))
                .map_err(|()| AccountError::Authorities(path.clone()))?;
        }
        if roots.is_empty() {
            return Err(AccountError::Authorities(path));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AccountError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let path = self.account.join("token");
        let token = read(&path)?;
        let mut header = Zeroizing::new(b"Bearer ".to_vec());
        header.reserve_exact(token.len());
        header.extend_from_slice(token.trim_ascii());
        // The error has nothing of it.
        let mut authorization =
            HeaderValue::from_bytes(&header).map_err(|_| AccountError::Token(path))?;
        authorization.set_sensitive(true);
        let name = ServerName::try_from(self.host.clone()).map_err(|_| AccountError::Host)?;
        Ok(Credentials {
            config: Arc::new(config),
            name,
            authorization,
        })
    }
}

/// What one connection needs. Of the token the agent's allocator wipes whatever is freed.
pub(crate) struct Credentials {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
    pub authorization: HeaderValue,
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, AccountError> {
    let fail = |e: io::Error| AccountError::File(path.to_owned(), e);
    let file = File::open(path).map_err(fail)?;
    // As long as it may be from the beginning: a buffer that grows leaves copies behind.
    let length = file.metadata().map_err(fail)?.len().min(MAX_FILE) as usize;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_recognized_by_its_environment() {
        let find = |variables: &'static [(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Cluster::find(variable, Path::new("/account"))
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[("NODE_NAME", "n1")]), None);
        let host = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        assert_eq!(
            find(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]),
            Some(Err(ClusterError::Node))
        );
        let bad: &[&[(&str, &str)]] = &[
            &[
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ("NODE_NAME", "n1&limit=1"),
            ],
            &[
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ("NODE_NAME", "n1"),
                ("KUBERNETES_SERVICE_PORT", "x"),
            ],
        ];
        for variables in bad {
            assert!(matches!(find(variables), Some(Err(_))), "{variables:?}");
        }
        let found = find(&[
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("NODE_NAME", "n1.example"),
        ]);
        let found = found.unwrap().unwrap();
        assert_eq!((found.host.as_str(), found.port), (host.1, 443));
    }
}
