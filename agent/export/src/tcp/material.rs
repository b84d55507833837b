//! Certificate, key and authorities: read from their files, and read anew when these change.

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A bundle of authorities has some hundred certificates at most; beyond this a file is a mistake.
const MAX_FILE: u64 = 1 << 20;

/// The three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities by which the other side is judged, PEM.
    pub ca: PathBuf,
    /// The own certificate and those between it and its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// What is wrong with them. Never has anything of their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl TlsError {
    fn of(path: &Path, what: impl fmt::Display) -> TlsError {
        TlsError(format!("{}: {what}", path.display()))
    }

    pub(crate) fn new(sentence: impl Into<String>) -> TlsError {
        TlsError(sentence.into())
    }
}

/// By which a changed file is known, also behind the symbolic links of a mounted Kubernetes Secret: device, inode, size and
/// time of change of each.
pub(super) type FileVersions = [Option<(u64, u64, u64, i64, i64)>; 3];

impl TlsFiles {
    pub(super) fn versions(&self) -> FileVersions {
        [&self.ca, &self.certificate, &self.key].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((
                meta.dev(),
                meta.ino(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec(),
            ))
        })
    }

    pub(crate) fn roots(&self) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
        let mut roots = RootCertStore::empty();
        let authorities = certificates(&self.ca)?;
        for authority in &authorities {
            roots
                .add(authority.clone())
                .map_err(|e| TlsError::of(&self.ca, e))?;
        }
        Ok((roots, authorities))
    }

    pub(crate) fn own(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate)?;
        let text = read(&self.key)?;
        // The error may quote the line: it is left out.
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| TlsError::of(&self.key, "has no private key in PEM"))?;
        Ok((chain, key))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let fail = |e: std::io::Error| TlsError::of(path, e);
    let file = File::open(path).map_err(fail)?;
    // As long as it may be from the beginning: a buffer that grows leaves copies behind.
    let length = file.metadata().map_err(fail)?.len().min(MAX_FILE) as usize;
    let mut text = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > MAX_FILE {
        return Err(TlsError::of(path, "larger than 1 MiB"));
    }
    Ok(text)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::of(path, "is not PEM"))?;
    match found.is_empty() {
        true => Err(TlsError::of(path, "has no certificate in PEM")),
        false => Ok(found),
    }
}

/// What new connections are made with.
#[derive(Clone)]
pub(super) struct Material {
    pub config: Arc<ServerConfig>,
    /// Who vouches for clients: when it changes, connections made before it end.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

impl Material {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read or used, or key and certificate do not belong together.
    pub fn load(files: &TlsFiles) -> Result<Material, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (roots, authorities) = files.roots()?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| TlsError::of(&files.ca, e))?;
        let (chain, key) = files.own()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| TlsError::new(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| TlsError::of(&files.certificate, e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection shows its certificate anew: one that was withdrawn or has expired is not resumed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Material {
            config: Arc::new(config),
            authorities,
        })
    }
}
