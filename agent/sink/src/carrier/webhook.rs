//! POST of a batch. A key that both ends have signs it: the header `Keytrail-Signature` is `sha256=` and the hex digits of
//! HMAC-SHA256 over the value of `Keytrail-Timestamp` (seconds since the epoch), a point, and the body.

use super::http::{Client, headers, secret, url};
use super::{Carrier, Delivered, Failure, Item};
use crate::spec::{Body, WebhookSpec};
use keytrail_host::clock::wall_ns;
use ring::hmac;
use std::fmt::Write as _;
use ureq::http::Request;
use ureq::http::header::CONTENT_TYPE;

pub(super) struct Webhook {
    spec: WebhookSpec,
    json: bool,
    client: Client,
}

impl Webhook {
    pub fn new(spec: WebhookSpec, json: bool, version: &str) -> Webhook {
        Webhook {
            client: Client::new(spec.timeout, spec.ca_file.clone(), version),
            spec,
            json,
        }
    }

    fn post(&mut self, body: &[u8]) -> Result<(), Failure> {
        let url = url(&self.spec.url)?;
        let kind = match (self.json, self.spec.body) {
            (true, Body::Lines) => "application/x-ndjson",
            (true, Body::Array | Body::Single) => "application/json",
            (false, _) => "text/plain; charset=utf-8",
        };
        let mut request = Request::post(url.as_str()).header(CONTENT_TYPE, kind);
        for (name, value) in headers(self.spec.headers_file.as_deref())? {
            request = request.header(name, value);
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
        self.client.send(request, body).map(drop)
    }
}

impl Carrier for Webhook {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let sent = match self.spec.body {
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
        sent.map(|()| Delivered::default())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Url;
    use std::sync::Arc;
    use std::time::Duration;

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
