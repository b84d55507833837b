//! Log records to a collector of OpenTelemetry, by OTLP/HTTP in protobuf
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! The collector's answer says that it has them; whether on disk or in its memory is the collector's own affair. That it
//! took a part only is counted: which part, it does not say, and the protocol forbids to send such a request again.

use super::http::{Client, headers, url};
use super::{Carrier, Delivered, Failure, Item};
use crate::format::Teller;
use crate::format::otlp;
use crate::spec::OtlpSpec;
use ureq::http::Request;
use ureq::http::header::CONTENT_TYPE;

pub(super) struct Otlp {
    spec: OtlpSpec,
    teller: Teller,
    client: Client,
}

impl Otlp {
    pub fn new(spec: OtlpSpec, teller: Teller) -> Otlp {
        Otlp {
            client: Client::new(spec.timeout, spec.ca_file.clone(), &teller.version),
            spec,
            teller,
        }
    }
}

impl Carrier for Otlp {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let records = items.iter().map(|item| item.line.clone()).collect();
        let body = otlp::request(records, &self.teller);
        let url = url(&self.spec.url)?;
        let mut request =
            Request::post(url.as_str()).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in headers(self.spec.headers_file.as_deref())? {
            request = request.header(name, value);
        }
        let answer = self.client.send(request, &body)?;
        let left_out = otlp::rejected(&answer).min(items.len() as u64);
        Ok(Delivered {
            left_out,
            why: "the collector rejected them".into(),
            ..Delivered::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::otlp::wire::{PartialSuccess, Response};
    use crate::format::{encode, samples};
    use crate::spec::{Format, Url};
    use prost::Message as _;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    /// Answers one request after the other with these.
    fn collector(answers: Vec<(u16, Vec<u8>)>) -> (String, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            for (status, body) in answers {
                let (mut peer, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 65536];
                let whole = |request: &[u8]| {
                    let head = request.windows(4).position(|w| w == b"\r\n\r\n")?;
                    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
                    let length = text.split("content-length: ").nth(1)?.lines().next()?;
                    let body = request[head + 4..].to_vec();
                    (body.len() >= length.parse().ok()?).then_some(body)
                };
                let sent = loop {
                    match whole(&request) {
                        Some(body) => break body,
                        None => {
                            let n = peer.read(&mut buffer).unwrap();
                            request.extend_from_slice(&buffer[..n]);
                        }
                    }
                };
                let head = String::from_utf8_lossy(&request).to_lowercase();
                assert!(head.contains("content-type: application/x-protobuf"));
                got.push(sent);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                peer.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
            got
        });
        (url, thread)
    }

    #[test]
    fn what_the_collector_rejects_is_counted_and_what_fails_comes_again() {
        let part = |n| {
            Response {
                partial_success: Some(PartialSuccess {
                    rejected_log_records: n,
                    error_message: "no".into(),
                }),
            }
            .encode_to_vec()
        };
        let (url, thread) = collector(vec![
            (200, Vec::new()),
            (200, part(1)),
            (200, part(i64::MAX)),
            (200, part(-1)),
            (503, Vec::new()),
            (400, Vec::new()),
            (200, b"<html>".to_vec()),
        ]);
        let teller = Teller {
            host: "h".into(),
            version: "1".into(),
            agent: "a".into(),
        };
        let spec = OtlpSpec {
            url: Url::Text(url),
            headers_file: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
        };
        let mut otlp = Otlp::new(spec, teller.clone());
        let items: Vec<Item> = [samples::sent(), samples::gap()]
            .into_iter()
            .map(|event| Item {
                line: encode(Format::Otlp, &event, &teller).unwrap(),
                event: Arc::new(event),
            })
            .collect();
        for left_out in [0, 1, 2, 0] {
            assert_eq!(otlp.deliver(&items).unwrap().left_out, left_out);
        }
        assert!(matches!(otlp.deliver(&items), Err(Failure::Later { .. })));
        assert!(matches!(otlp.deliver(&items), Err(Failure::Refused(_))));
        assert_eq!(otlp.deliver(&items).unwrap().left_out, 0);
        let got = thread.join().unwrap();
        assert!(
            got.windows(2).all(|pair| pair[0] == pair[1]),
            "the same each time"
        );
    }
}
