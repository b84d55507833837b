//! A channel whose answers have no details of a status.
//!
//! tonic's client decodes `grpc-status-details-bin` and panics where that is no Base64 (`Status::from_header_map`), and who
//! listens on a socket may send anything. Nobody here reads details, so they are taken out before tonic sees them: of the
//! headers, where an answer is nothing but a status, and of the trailers.

use http_body_util::BodyExt as _;
use http_body_util::combinators::MapFrame;
use hyper::body::{Bytes, Frame};
use hyper::{HeaderMap, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt as _;
use tower::util::MapResponse;

const DETAILS: &str = "grpc-status-details-bin";

type FrameWithout = fn(Frame<Bytes>) -> Frame<Bytes>;
type Answer = Response<MapFrame<Body, FrameWithout>>;
pub(crate) type WithoutDetails = MapResponse<Channel, fn(Response<Body>) -> Answer>;

pub(crate) fn without_details(channel: Channel) -> WithoutDetails {
    channel.map_response(of_answer)
}

fn of_answer(mut answer: Response<Body>) -> Answer {
    take(answer.headers_mut());
    answer.map(|body| body.map_frame(of_frame as FrameWithout))
}

fn of_frame(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            take(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(other) => other,
    }
}

/// Of a name that comes several times, all are taken.
fn take(said: &mut HeaderMap) {
    said.remove(DETAILS);
}
