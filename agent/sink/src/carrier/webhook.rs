//! POST of a batch. A key that both ends have signs it: the header `Keytrail-Signature` is `sha256=` and the hex digits of
//! HMAC-SHA256 over the value of `Keytrail-Timestamp` (seconds since the epoch), a point, and the body.
//!
//! Files with secrets are read for each delivery: they may be exchanged at any time, and nothing of them is kept. No error
//! text has a URL or an answer's body in it.

use super::{Carrier, Delivered, Failure, Item};
use crate::resolve;
use crate::spec::{Body, Url, WebhookSpec};
use keytrail_host::clock::wall_ns;
use ring::hmac;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
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

pub(super) struct Webhook {
    spec: WebhookSpec,
    json: bool,
    user_agent: String,
    agent: Option<ureq::Agent>,
}

impl Webhook {
    pub fn new(spec: WebhookSpec, json: bool, version: &str) -> Webhook {
        Webhook {
            spec,
            json,
            user_agent: format!("keytrail/{version}"),
            agent: None,
        }
    }

    fn agent(&self, url: &str) -> Result<ureq::Agent, String> {
        let mut config = Config::builder()
            .timeout_global(Some(self.spec.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            // Where events go is said in the configuration and nowhere else.
            .proxy(None)
            .user_agent(self.user_agent.as_str());
        if url.starts_with("https:") {
            let roots = authorities(self.spec.ca_file.as_deref())?;
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

    fn post(&mut self, body: &[u8]) -> Result<(), Failure> {
        let url = match &self.spec.url {
            Url::Text(url) => Zeroizing::new(url.clone()),
            Url::File(path) => {
                let url = secret(path)?;
                if !url.starts_with("https://") && !url.starts_with("http://") {
                    return Err(Failure::later(format!("{} has no URL", path.display())));
                }
                url
            }
        };
        let agent = match &self.agent {
            Some(agent) => agent,
            None => {
                let agent = self.agent(&url).map_err(Failure::later)?;
                self.agent.insert(agent)
            }
        };
        let kind = match (self.json, self.spec.body) {
            (true, Body::Lines) => "application/x-ndjson",
            (true, Body::Array | Body::Single) => "application/json",
            (false, _) => "text/plain; charset=utf-8",
        };
        let mut request = agent.post(url.as_str()).content_type(kind);
        if let Some(path) = &self.spec.headers_file {
            let text = secret(path)?;
            for (number, line) in text.lines().enumerate() {
                let Some((name, value)) = header(line).map_err(|why| {
                    Failure::later(format!("{}:{}: {why}", path.display(), number + 1))
                })?
                else {
                    continue;
                };
                request = request.header(name, value);
            }
        }
        if let Some(path) = &self.spec.secret_file {
            let key = secret(path)?;
            if key.is_empty() {
                return Err(Failure::later(format!("{} is empty", path.display())));
            }
            let time = (wall_ns() / 1_000_000_000).to_string();
            request = request
                .header("Keytrail-Signature", signature(key.as_bytes(), &time, body))
                .header("Keytrail-Timestamp", time);
        }
        let answer = request.send(body).map_err(|e| Failure::later(said(&e)))?;
        let status = answer.status().as_u16();
        let after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        // What does not fit means another connection next time.
        let mut rest = answer.into_body().into_reader().take(ANSWER_MAX);
        let _ = std::io::copy(&mut rest, &mut std::io::sink());
        let why = format!("it answered {status}");
        match status {
            200..=299 => Ok(()),
            408 | 429 | 500.. => Err(Failure::Later {
                why,
                after,
                rewind: false,
            }),
            _ => Err(Failure::Refused(why)),
        }
    }
}

impl Carrier for Webhook {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let result = match self.spec.body {
            Body::Single => items.iter().try_for_each(|item| self.post(&item.line)),
            Body::Lines => {
                let mut body = Vec::new();
                for item in items {
                    body.extend_from_slice(&item.line);
                    body.push(b'\n');
                }
                self.post(&body)
            }
            Body::Array => {
                let lines: Vec<&[u8]> = items.iter().map(|i| i.line.as_slice()).collect();
                let body = [b"[".as_slice(), &lines.join(&b','), b"]"].concat();
                self.post(&body)
            }
        };
        if result.is_err() {
            // Certificates and URL may be others by the next time.
            self.agent = None;
        }
        result.map(|()| Delivered::default())
    }
}

fn signature(key: &[u8], time: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    let mut text = String::from("sha256=");
    for byte in context.sign().as_ref() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A file's text without what ends it.
fn secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = read(path, SECRET_MAX).map_err(Failure::later)?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| Failure::later(format!("{} is no text", path.display())))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let said = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(said)?;
    // Room for all of it, so that growing leaves no copy.
    let length = file.metadata().map_err(said)?.len().min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > most {
        return Err(format!("{} is larger than {most} bytes", path.display()));
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

fn authorities(file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let system = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let path = file
        .or_else(system)
        .ok_or("this system has no certificates of authorities: name a file with `ca_file`")?;
    let pem = read(path, AUTHORITIES_MAX)?;
    let roots: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() {
        return Err(format!("{} has no certificate", path.display()));
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
    fn the_signature_is_that_of_the_standard() {
        // RFC 4231, test case 2, whose data are cut where the point is.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let expected = hmac::sign(&key, b"1700000000.body");
        let text = signature(b"Jefe", "1700000000", b"body");
        let digits = text.strip_prefix("sha256=").unwrap();
        assert_eq!(digits.len(), 64);
        let bytes: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(bytes, expected.as_ref());
    }

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

    #[test]
    fn errors_name_no_url() {
        let spec = WebhookSpec {
            url: Url::Text("http://127.0.0.1:1/SECRET path".into()),
            body: Body::Lines,
            headers_file: None,
            secret_file: None,
            ca_file: None,
            timeout: Duration::from_secs(2),
        };
        let item = Item {
            event: Arc::default(),
            line: b"{}".to_vec(),
        };
        for url in [
            "http://127.0.0.1:1/SECRET",
            "http://127.0.0.1:1/SECRET path",
            "https://[SECRET",
        ] {
            let spec = WebhookSpec {
                url: Url::Text(url.into()),
                ..spec.clone()
            };
            let failed = Webhook::new(spec, true, "0").deliver(std::slice::from_ref(&item));
            let text = format!("{:?}", failed.unwrap_err());
            assert!(!text.contains("SECRET"), "{text}");
        }
    }
}
