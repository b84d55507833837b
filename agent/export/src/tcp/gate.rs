//! What a client may call, and how many calls at a time.

use super::accounts::{Account, Share};
use super::identity::Role;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Methods that change something. Every other one that is served only tells; a test holds both against the schema.
pub(super) const CHANGES: &[&str] = &[
    "/keytrail.v1.BaselineService/AddDecoy",
    "/keytrail.v1.BaselineService/RemoveDecoy",
    "/keytrail.v1.BaselineService/UpdateBaseline",
];
/// Methods that only tell, and whole services that do (with a closing slash).
pub(super) const READS: &[&str] = &[
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/keytrail.v1.BaselineService/ListBaselines",
    "/keytrail.v1.BaselineService/ListDecoys",
    "/keytrail.v1.EventService/GetStatus",
    "/keytrail.v1.EventService/StreamEvents",
    "/keytrail.v1.HistoryService/CheckUse",
    "/keytrail.v1.HistoryService/GetGraph",
    "/keytrail.v1.HistoryService/GetHistoryStatus",
    "/keytrail.v1.HistoryService/ListCoverage",
    "/keytrail.v1.HistoryService/ListFindings",
    "/keytrail.v1.HistoryService/ListUses",
    "/keytrail.v1.InventoryService/GetCredential",
    "/keytrail.v1.InventoryService/ListCredentials",
];

/// What a method asks of its caller. One that is in no list asks for most.
fn needs(method: &str) -> Role {
    let reads = READS.iter().any(|known| match known.ends_with('/') {
        true => method.starts_with(known),
        false => method == *known,
    });
    if reads { Role::Read } else { Role::Administer }
}

/// The name of a method for a log: a client writes what it wants there.
fn shown(method: &str) -> String {
    method
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

fn admit(account: &Arc<Account>, method: &str) -> Result<Share, Status> {
    let needed = needs(method);
    if account.role == Role::None {
        return Err(Status::permission_denied(
            "none of the subject alternative names of this client's certificate is in `tcp.read` or `tcp.administer` of the agent's configuration",
        ));
    }
    if account.role < needed {
        return Err(Status::permission_denied(format!(
            "{} may {}: this asks for `tcp.{needed}`",
            account.name, account.role
        )));
    }
    if !account.is_in_rate(Instant::now()) {
        return Err(Status::resource_exhausted(format!(
            "{} asks too often: {} calls a second are served",
            account.name,
            super::accounts::PER_SECOND
        )));
    }
    let share = account.call().ok_or_else(|| {
        Status::resource_exhausted(format!(
            "{} has {} calls that run: no more are served at a time",
            account.name,
            super::accounts::CALLS
        ))
    })?;
    if CHANGES.contains(&method) {
        tracing::info!(client = account.name, method = %shown(method), "an administrator changes something");
    }
    Ok(share)
}

/// Lets through who may.
#[derive(Clone, Copy, Debug)]
pub(super) struct GateLayer;

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;
    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Gate<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Every connection has one; without it nobody is let in.
        let admitted = match request.extensions().get::<Arc<Account>>() {
            Some(account) => admit(account, request.uri().path()),
            None => Err(Status::unauthenticated("who asks is not known")),
        };
        match admitted {
            Ok(share) => {
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let answer = answer.await?;
                    Ok(answer.map(|body| {
                        Body::new(Held {
                            body,
                            _share: share,
                        })
                    }))
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// A body that holds its call's share to the end.
struct Held {
    body: Body,
    _share: Share,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    /// A method that is added to the schema gets its role by hand.
    #[test]
    fn every_method_of_the_schema_has_its_role() {
        let pool = DescriptorPool::decode(keytrail_proto::DESCRIPTORS).unwrap();
        let mut known: Vec<String> = pool
            .services()
            .flat_map(|service| {
                service
                    .methods()
                    .map(|m| format!("/{}/{}", service.full_name(), m.name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        known.sort();
        let mut listed: Vec<&str> = READS
            .iter()
            .chain(CHANGES)
            .copied()
            .filter(|m| !m.starts_with("/grpc."))
            .collect();
        listed.sort_unstable();
        assert_eq!(listed, known);
        assert_eq!(needs("/keytrail.v1.EventService/StreamEvents"), Role::Read);
        assert_eq!(
            needs("/keytrail.v1.EventService/StreamEventsX"),
            Role::Administer
        );
        assert_eq!(needs("/nobody.Knows/This"), Role::Administer);
    }
}
