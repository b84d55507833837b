//! A collector of OpenTelemetry, by HTTP or by gRPC (<https://opentelemetry.io/docs/specs/otlp/>): whatever it is sent.

use super::http::{headers, url};
use super::{Failure, grpc, http};
use crate::spec::{OtlpProtocol, OtlpSpec};
use ureq::http::Request;
use ureq::http::header::CONTENT_TYPE;

pub(crate) struct Collector {
    spec: OtlpSpec,
    client: Client,
}

enum Client {
    Http(http::Client),
    Grpc(grpc::Client),
}

impl Collector {
    pub fn new(spec: OtlpSpec, version: &str) -> Collector {
        let (timeout, ca_file) = (spec.timeout, spec.ca_file.clone());
        let client = match spec.protocol {
            OtlpProtocol::Http => Client::Http(http::Client::new(timeout, ca_file, version)),
            OtlpProtocol::Grpc => Client::Grpc(grpc::Client::new(timeout, ca_file, version)),
        };
        Collector { spec, client }
    }

    /// Sends a request and gives the answer. `method`: by gRPC, whose methods have names of their own; by HTTP it is in the
    /// URL.
    pub fn export(&mut self, method: &'static str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let url = url(&self.spec.url)?;
        let headers = headers(self.spec.headers_file.as_deref())?;
        match &mut self.client {
            Client::Http(client) => {
                let mut request =
                    Request::post(url.as_str()).header(CONTENT_TYPE, "application/x-protobuf");
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                client.send(request, body)
            }
            Client::Grpc(client) => client.call(&url, method, headers, body),
        }
    }
}
