//! What the status of a call means to who has something to deliver: by OTLP
//! (<https://opentelemetry.io/docs/specs/otlp/#failures>), which has it of gRPC
//! (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).

use crate::carrier::{Failure, http};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};
use pbjson_types::{Any, Duration as Delay};
use prost::Message;
use std::time::Duration;

/// Codes by their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const UNKNOWN: &str = "UNKNOWN";

/// Binary values come with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `google.rpc.Status`, of which only the details are of use.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// Why a call failed, by the status of HTTP, headers and trailers; `None` when it did not.
pub(super) fn failure(status: StatusCode, said: &HeaderMap) -> Option<Failure> {
    let Some(code) = said.get("grpc-status") else {
        // Of somebody between, or of what is no gRPC at all.
        return Some(match status.is_success() {
            true => Failure::later("its answer is not gRPC"),
            false => http::failure(status, said),
        });
    };
    let code = name(code);
    if code == "OK" {
        return None;
    }
    let after = said.get("grpc-status-details-bin").and_then(retry);
    let why = format!("it answered {code}");
    let again = match code {
        "CANCELLED" | "DEADLINE_EXCEEDED" | "ABORTED" | "OUT_OF_RANGE" | "UNAVAILABLE"
        | "DATA_LOSS" => true,
        // It may have too much to do, or never take so much.
        "RESOURCE_EXHAUSTED" => after.is_some(),
        _ => false,
    };
    Some(match again {
        true => Failure::Later {
            why,
            after,
            rewind: false,
        },
        false => Failure::Refused(why),
    })
}

fn name(code: &HeaderValue) -> &'static str {
    let number = code.to_str().ok().and_then(|text| text.parse().ok());
    let named = number.and_then(|number: usize| NAMES.get(number));
    named.copied().unwrap_or(UNKNOWN)
}

/// How long the receiver asks to be left alone, if it says that trying again is of use.
fn retry(details: &HeaderValue) -> Option<Duration> {
    let bytes = BASE64.decode(details.as_bytes()).ok()?;
    let status = Status::decode(bytes.as_slice()).ok()?;
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_ref()).ok()?.delay;
    let seconds = delay.map_or(0, |delay| delay.seconds);
    let nanos = delay.map_or(0, |delay| delay.nanos);
    // What is negative is none.
    Some(Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanos).unwrap_or(0).min(999_999_999),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(code: &str, details: Option<&str>) -> HeaderMap {
        let mut said = HeaderMap::new();
        said.insert("grpc-status", code.parse().unwrap());
        if let Some(details) = details {
            said.insert("grpc-status-details-bin", details.parse().unwrap());
        }
        said
    }

    fn details(seconds: i64, nanos: i32) -> Vec<u8> {
        let info = RetryInfo {
            delay: Some(Delay { seconds, nanos }),
        };
        let of = |kind: &str, value: Vec<u8>| Any {
            type_url: format!("type.googleapis.com/google.rpc.{kind}"),
            value: value.into(),
        };
        let status = Status {
            details: vec![
                of("Help", vec![1, 2, 3]),
                of("RetryInfo", info.encode_to_vec()),
            ],
        };
        status.encode_to_vec()
    }

    #[test]
    fn codes_mean_what_otlp_says() {
        let again = ["1", "4", "10", "11", "14", "15"];
        for code in (1..=16)
            .map(|n| n.to_string())
            .chain(["99".into(), "x".into()])
        {
            match failure(StatusCode::OK, &said(&code, None)).unwrap() {
                Failure::Later { after, rewind, .. } => {
                    assert!(again.contains(&code.as_str()), "{code}");
                    assert!(after.is_none() && !rewind);
                }
                Failure::Refused(_) => assert!(!again.contains(&code.as_str()), "{code}"),
            }
        }
        assert!(failure(StatusCode::OK, &said("0", None)).is_none());
        let Some(Failure::Refused(why)) = failure(StatusCode::OK, &said("16", None)) else {
            panic!("not refused");
        };
        assert_eq!(why, "it answered UNAUTHENTICATED");
    }

    #[test]
    fn without_a_status_that_of_http_counts() {
        let mut head = HeaderMap::new();
        head.insert("retry-after", "7".parse().unwrap());
        let of = |status: u16| failure(StatusCode::from_u16(status).unwrap(), &head).unwrap();
        let seconds = Some(Duration::from_secs(7));
        assert!(matches!(of(503), Failure::Later { after, .. } if after == seconds));
        assert!(matches!(of(404), Failure::Refused(_)));
        assert!(matches!(of(200), Failure::Later { after: None, .. }));
        assert!(matches!(of(204), Failure::Later { after: None, .. }));
    }

    #[test]
    fn what_asks_for_another_try_says_when() {
        let bytes = details(3, 500_000_000);
        let padded = base64::engine::general_purpose::STANDARD.encode(&bytes);
        for text in [padded.as_str(), padded.trim_end_matches('=')] {
            for code in ["8", "14"] {
                let failed = failure(StatusCode::OK, &said(code, Some(text))).unwrap();
                let Failure::Later { after, .. } = failed else {
                    panic!("{code} is refused");
                };
                assert_eq!(after, Some(Duration::from_millis(3500)));
            }
            // It does not make of a refusal something else.
            let failed = failure(StatusCode::OK, &said("3", Some(text))).unwrap();
            assert!(matches!(failed, Failure::Refused(_)));
        }
        let negative = BASE64.encode(details(-3, -1));
        let Some(Failure::Later { after, .. }) =
            failure(StatusCode::OK, &said("8", Some(&negative)))
        else {
            panic!("refused");
        };
        assert_eq!(after, Some(Duration::ZERO));
        for nothing in ["!", "AAAA", ""] {
            let failed = failure(StatusCode::OK, &said("8", Some(nothing))).unwrap();
            assert!(matches!(failed, Failure::Refused(_)), "{nothing:?}");
        }
    }

    proptest! {
        #[test]
        fn no_details_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, byte: u8) {
            let mut near = details(i64::MAX, i32::MAX);
            let at = at % near.len();
            near[at] = byte;
            for bytes in [bytes, near] {
                let _ = failure(StatusCode::OK, &said("8", Some(&BASE64.encode(&bytes))));
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    let _ = (name(&value), retry(&value));
                }
            }
        }
    }
}
