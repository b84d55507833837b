//! What goes by HTTP has in common: a client that speaks to whom the configuration says and to nobody else.
//!
//! Files with secrets are read for each delivery: they may be exchanged at any time, and nothing of them is kept. No error
//! text has a URL or an answer's body in it.

use super::Failure;
use crate::resolve;
use crate::spec::Url;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use ureq::http::{StatusCode, request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use zeroize::Zeroizing;

/// Where systems keep the certificates of authorities.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const AUTHORITIES_MAX: u64 = 16 << 20;
const SECRET_MAX: u64 = 64 << 10;
/// An answer is read so far that the connection can be used again.
const ANSWER_MAX: u64 = 64 << 10;

/// Why a file that the configuration names, or the system's, is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is larger than {most} bytes", .path.display())]
    Large { path: PathBuf, most: u64 },
    #[error("{} is no text", .0.display())]
    NoText(PathBuf),
    #[error("{} has no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("this system has no certificates of authorities: name a file with `ca_file`")]
    NoAuthorities,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        // It may be another one by the next time.
        Failure::later(error)
    }
}

pub(super) struct Client {
    timeout: Duration,
    /// Certificates of authorities, PEM; the system's when there is none.
    ca_file: Option<PathBuf>,
    user_agent: String,
    agent: Option<ureq::Agent>,
}

impl Client {
    pub fn new(timeout: Duration, ca_file: Option<PathBuf>, version: &str) -> Client {
        Client {
            timeout,
            ca_file,
            user_agent: format!("keytrail/{version}"),
            agent: None,
        }
    }

    /// Sends a request and, when it succeeded, gives what was answered, as far as that came and is kept.
    pub fn send(&mut self, request: request::Builder, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let sent = self.try_send(request, body);
        if sent.is_err() {
            // Certificates and URL may be others by the next time.
            self.agent = None;
        }
        sent
    }

    fn try_send(&mut self, request: request::Builder, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let wrong = |_| Failure::later("the URL is wrong");
        let request = request.body(body).map_err(wrong)?;
        let agent = match &self.agent {
            Some(agent) => agent,
            None => {
                let tls = request.uri().scheme_str() == Some("https");
                let agent = self.agent(tls)?;
                self.agent.insert(agent)
            }
        };
        let answer = agent.run(request).map_err(|e| Failure::later(said(&e)))?;
        let (head, body) = answer.into_parts();
        // What does not fit means another connection next time.
        let mut rest = body.into_reader().take(ANSWER_MAX);
        let mut text = Vec::new();
        let _ = rest.read_to_end(&mut text);
        if head.status.is_success() {
            return Ok(text);
        }
        Err(failure(head.status, &head.headers))
    }

    fn agent(&self, tls: bool) -> Result<ureq::Agent, FileError> {
        let mut config = Config::builder()
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // Where events go is said in the configuration and nowhere else.
            .proxy(None)
            .user_agent(self.user_agent.as_str());
        if tls {
            let roots = authorities(self.ca_file.as_deref())?;
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(roots)))
                .unversioned_rustls_crypto_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .build();
            config = config.tls_config(tls);
        }
        Ok(ureq::Agent::with_parts(
            config.build(),
            DefaultConnector::default(),
            resolve::ForHttp,
        ))
    }
}

/// What a status means that is not one of success.
pub(super) fn failure(status: StatusCode, headers: &HeaderMap) -> Failure {
    let status = status.as_u16();
    let why = format!("it answered {status}");
    if !matches!(status, 408 | 429 | 500..) {
        return Failure::Refused(why);
    }
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    Failure::Later {
        why,
        after,
        rewind: false,
    }
}

/// The URL, of a file when that has it.
pub(super) fn url(url: &Url) -> Result<Zeroizing<String>, Failure> {
    match url {
        Url::Text(url) => Ok(Zeroizing::new(url.clone())),
        Url::File(path) => {
            let url = secret(path)?;
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(Failure::later(format!("{} has no URL", path.display())));
            }
            Ok(url)
        }
    }
}

/// The headers that a file has, if there is one.
pub(super) fn headers(path: Option<&Path>) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut found = Vec::new();
    let Some(path) = path else {
        return Ok(found);
    };
    for (number, line) in secret(path)?.lines().enumerate() {
        let read = header(line)
            .map_err(|why| Failure::later(format!("{}:{}: {why}", path.display(), number + 1)))?;
        found.extend(read);
    }
    Ok(found)
}

/// A file's text without what ends it.
pub(super) fn secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let text = read(path, SECRET_MAX)?;
    let text = std::str::from_utf8(&text).map_err(|_| FileError::NoText(path.to_owned()))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let path = path.to_owned();
    let said = |error| FileError::Io {
        path: path.clone(),
        error,
    };
    let file = std::fs::File::open(&path).map_err(said)?;
    // Room for all of it, so that growing leaves no copy.
    let length = file.metadata().map_err(said)?.len().min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > most {
        return Err(FileError::Large { path, most });
    }
    Ok(bytes)
}

/// A line of the file of headers; none in blank lines and comments.
fn header(line: &str) -> Result<Option<(HeaderName, HeaderValue)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line
        .split_once(':')
        .ok_or("is no header: `Name: value` is one")?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| "has no name of a header")?;
    let mut value = HeaderValue::try_from(value.trim()).map_err(|_| "has no value of a header")?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

/// Certificates of authorities: those of a file, or the system's.
pub(super) fn authorities(file: Option<&Path>) -> Result<Vec<Certificate<'static>>, FileError> {
    let system = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let path = file.or_else(system).ok_or(FileError::NoAuthorities)?;
    let pem = read(path, AUTHORITIES_MAX)?;
    let roots: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() {
        return Err(FileError::NoCertificate(path.to_owned()));
    }
    Ok(roots)
}

/// What went wrong, without what it went wrong with.
fn said(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::Timeout(_) => "it did not answer in time".to_owned(),
        ureq::Error::HostNotFound => "its name has no address".to_owned(),
        ureq::Error::Rustls(e) => format!("TLS: {e}"),
        ureq::Error::Tls(e) => format!("TLS: {e}"),
        ureq::Error::Protocol(_) => "its answer is not HTTP".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the URL is wrong".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_or_complained_about_without_their_value() {
        let (name, value) = header(" Authorization : Bearer abc ").unwrap().unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Bearer abc")
        );
        assert!(!format!("{value:?}").contains("abc"));
        assert!(header("").unwrap().is_none() && header("# x: y").unwrap().is_none());
        for bad in ["secret", "a b: secret", "a: sec\u{1}ret"] {
            assert!(!header(bad).unwrap_err().contains("secret"), "{bad}");
        }
    }
}
