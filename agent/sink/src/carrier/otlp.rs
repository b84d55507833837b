//! Log records to a collector of OpenTelemetry, by OTLP in protobuf.
//!
//! The collector's answer says that it has them; whether on disk or in its memory is the collector's own affair. That it
//! took a part only is counted: which part, it does not say, and the protocol forbids to send such a request again.

use super::collector::Collector;
use super::{Carrier, Delivered, Failure, Item};
use crate::format::Reporter;
use crate::format::otlp;
use crate::spec::OtlpSpec;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Bytes of records in a request: receivers of gRPC take 4 MiB unless they are told otherwise.
const REQUEST_MAX: usize = 3 << 20;

pub(super) struct Otlp {
    reporter: Reporter,
    collector: Collector,
}

impl Otlp {
    pub fn new(spec: OtlpSpec, reporter: Reporter) -> Otlp {
        let collector = Collector::new(spec, &reporter.version);
        Otlp {
            reporter,
            collector,
        }
    }

    /// Sends a request; gives how many of its records the collector did not take.
    fn send(&mut self, items: &[Item]) -> Result<u64, Failure> {
        let records = items.iter().map(|item| item.line.clone()).collect();
        let body = otlp::request(records, &self.reporter);
        let answer = self.collector.export(EXPORT, &body)?;
        Ok(otlp::rejected(&answer).min(items.len() as u64))
    }
}

impl Carrier for Otlp {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let (mut left_out, mut taken) = (0, 0);
        for part in requests(items, REQUEST_MAX) {
            left_out += match self.send(part) {
                // What came before is there: the batch is not sent again for it, nor counted as left out.
                Err(Failure::Refused(_)) if taken > 0 => part.len() as u64,
                sent => sent?,
            };
            taken += part.len();
        }
        Ok(Delivered {
            left_out,
            why: "the collector rejected them".into(),
            ..Delivered::default()
        })
    }
}

/// The items in runs of so many bytes at most, or of one that has more.
fn requests(items: &[Item], most: usize) -> impl Iterator<Item = &[Item]> {
    let mut bytes = items.first().map_or(0, |item| item.line.len());
    items.chunk_by(move |_, next| {
        bytes += next.line.len();
        let fits = bytes <= most;
        if !fits {
            bytes = next.line.len();
        }
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::grpc::tests::{Answer, Server};
    use crate::format::otlp::wire::{PartialSuccess, Response};
    use crate::format::{encode, samples};
    use crate::spec::{Format, OtlpProtocol, Url};
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

    fn reporter() -> Reporter {
        Reporter {
            host: "h".into(),
            version: "1".into(),
            agent: "a".into(),
        }
    }

    fn otlp(url: String, protocol: OtlpProtocol) -> Otlp {
        let spec = OtlpSpec {
            url: Url::Text(url),
            protocol,
            headers_file: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
        };
        Otlp::new(spec, reporter())
    }

    fn items() -> Vec<Item> {
        [samples::sent(), samples::gap()]
            .into_iter()
            .map(|event| Item {
                line: encode(Format::Otlp, &event, &reporter()).unwrap(),
                event: Arc::new(event),
            })
            .collect()
    }

    fn rejects(n: i64) -> Response {
        Response {
            partial_success: Some(PartialSuccess {
                rejected_log_records: n,
                error_message: "no".into(),
            }),
        }
    }

    #[test]
    fn what_the_collector_rejects_is_counted_and_what_fails_comes_again() {
        let part = |n| rejects(n).encode_to_vec();
        let (url, thread) = collector(vec![
            (200, Vec::new()),
            (200, part(1)),
            (200, part(i64::MAX)),
            (200, part(-1)),
            (503, Vec::new()),
            (400, Vec::new()),
            (200, b"<html>".to_vec()),
        ]);
        let mut otlp = otlp(url, OtlpProtocol::Http);
        let items = items();
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

    #[test]
    fn by_grpc_the_same_records_go_and_the_same_is_counted() {
        let server = Server::start(vec![
            Answer::Says(Ok(Response::default())),
            Answer::Says(Ok(rejects(1))),
            Answer::Says(Ok(rejects(i64::MAX))),
            Answer::Says(Err(tonic::Status::unavailable("x"))),
            Answer::Says(Err(tonic::Status::invalid_argument("x"))),
            Answer::Says(Ok(rejects(-1))),
        ]);
        let mut otlp = otlp(server.url.clone(), OtlpProtocol::Grpc);
        let items = items();
        for left_out in [0, 1, 2] {
            assert_eq!(otlp.deliver(&items).unwrap().left_out, left_out);
        }
        assert!(matches!(otlp.deliver(&items), Err(Failure::Later { .. })));
        assert!(matches!(otlp.deliver(&items), Err(Failure::Refused(_))));
        assert_eq!(otlp.deliver(&items).unwrap().left_out, 0);
        let records = items.iter().map(|item| item.line.clone()).collect();
        let request = otlp::request(records, &reporter());
        let got = server.messages();
        assert_eq!(got.len(), 6);
        assert!(got.iter().all(|got| got.encode_to_vec() == request));
        assert!(server.calls().iter().all(|call| call.path == EXPORT));
    }

    #[test]
    fn what_is_too_much_for_a_request_goes_in_several() {
        let item = |n| Item {
            event: Arc::default(),
            line: vec![0; n],
        };
        let runs = |sizes: &[usize]| -> Vec<usize> {
            let items: Vec<Item> = sizes.iter().map(|n| item(*n)).collect();
            requests(&items, 10).map(<[Item]>::len).collect()
        };
        assert_eq!(runs(&[4, 6, 1, 9, 1]), [2, 2, 1]);
        assert_eq!(runs(&[11, 1, 12, 10]), [1, 1, 1, 1]);
        assert_eq!(runs(&[0, 0, 10]), [3]);
        assert!(runs(&[]).is_empty());
    }
}
