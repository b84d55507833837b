//! Objects in a bucket of S3 or of what speaks like it, a batch each: lines of JSON, or Parquet.
//!
//! An object is named by the day and by its first and last event, so that names sort as events came, and a batch that
//! is sent again replaces itself. Requests are signed by Signature Version 4
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).

mod lake;

use super::http::{Client, secret, url};
use super::{Carrier, Delivered, Failure, Item};
use crate::format::{Reporter, parquet, rfc3339};
use crate::spec::S3Spec;
use keytrail_host::clock::wall_ns;
use pbjson_types::Timestamp;
use ring::{digest, hmac};
use std::fmt::Write as _;
use ureq::http::Request;
use zeroize::Zeroizing;

const SIGNED: &str = "host;x-amz-content-sha256;x-amz-date";

pub(super) struct S3 {
    spec: S3Spec,
    reporter: Reporter,
    client: Client,
}

/// Who signs.
struct Keys {
    id: String,
    secret: Zeroizing<String>,
    /// Of temporary keys.
    token: Option<Zeroizing<String>>,
}

/// An object to be.
struct Object {
    /// Below the bucket and its prefix, as it stands in a URL.
    name: String,
    kind: &'static str,
    body: Vec<u8>,
}

impl S3 {
    pub fn new(spec: S3Spec, reporter: &Reporter) -> S3 {
        S3 {
            client: Client::new(spec.timeout, spec.ca_file.clone(), &reporter.version),
            spec,
            reporter: reporter.clone(),
        }
    }

    fn object(&self, items: &[Item]) -> Result<Object, Failure> {
        // An object belongs to the day of its first event: sent again tomorrow it has the same name.
        let day = day(items.first());
        let name = self.name(items);
        let Some(lake) = &self.spec.lake else {
            let mut body = Vec::new();
            for item in items {
                body.extend_from_slice(&item.line);
                body.push(b'\n');
            }
            return Ok(Object {
                name: format!("{}/{name}.jsonl", day.replace('-', "/")),
                kind: "application/x-ndjson",
                body,
            });
        };
        let lines = items.iter().map(|item| item.line.as_slice());
        let body = parquet::file(lake.class, lines, &self.reporter.version);
        Ok(Object {
            name: format!(
                "{}/{name}.parquet",
                lake::partition(lake, &self.spec.region, &day)
            ),
            kind: "application/vnd.apache.parquet",
            // What cannot be made of these events can never be.
            body: body.map_err(|fault| Failure::Refused(fault.to_string()))?,
        })
    }

    /// `AGENT-EPOCH-FIRST-LAST`.
    fn name(&self, items: &[Item]) -> String {
        let agent = &self.reporter.agent;
        let mut ids = items.iter().filter_map(|item| item.event.id.as_ref());
        let Some(first) = ids.next() else {
            // Nothing but the news that others were forgotten: it is reported once.
            return format!("{agent}-gap-{}", wall_ns());
        };
        let last = ids.next_back().unwrap_or(first);
        // Digits enough that names sort as numbers do.
        format!(
            "{agent}-{:06}-{:012}-{:012}",
            first.epoch, first.sequence, last.sequence
        )
    }

    fn put(&mut self, object: &Object) -> Result<(), Failure> {
        let base = url(&self.spec.url)?;
        let url = format!("{}/{}", base.trim_end_matches('/'), object.name);
        let (host, path) = parts(&url).ok_or_else(|| Failure::later("the URL is wrong"))?;
        let keys = Keys::of(&secret(&self.spec.credentials_file)?).map_err(|why| {
            Failure::later(format!("{} {why}", self.spec.credentials_file.display()))
        })?;
        let timestamp = timestamp(wall_ns());
        let hash = hex(digest::digest(&digest::SHA256, &object.body).as_ref());
        let authorization = sign(
            &keys,
            &self.spec.region,
            &timestamp,
            &canonical("PUT", path, host, &hash, &timestamp, &keys),
        );
        let mut request = Request::put(url.as_str())
            .header("Content-Type", object.kind)
            .header("X-Amz-Content-Sha256", &hash)
            .header("X-Amz-Date", &timestamp)
            .header("Authorization", authorization.as_str());
        if let Some(token) = &keys.token {
            request = request.header("X-Amz-Security-Token", token.as_str());
        }
        self.client.send(request, &object.body).map(drop)
    }
}

/// `2026-11-29`.
fn day(item: Option<&Item>) -> String {
    let time = item.and_then(|item| item.event.time);
    let mut text = rfc3339(time.as_ref(), 1);
    text.truncate("2026-11-29".len());
    text
}

impl Carrier for S3 {
    fn deliver(&mut self, items: &[Item]) -> Result<Delivered, Failure> {
        let mut delivered = Delivered::default();
        let mut taken = 0;
        // In a lake a day is a partition.
        let apart = self.spec.lake.is_some();
        let together = |one: &Item, next: &Item| !apart || day(Some(one)) == day(Some(next));
        for items in items.chunk_by(together) {
            let done = self.object(items).and_then(|object| self.put(&object));
            match done {
                // What came before is there: the batch is not sent again for it.
                Err(Failure::Refused(why)) if taken > 0 => {
                    delivered.left_out += items.len() as u64;
                    delivered.why = why;
                }
                done => done?,
            }
            taken += items.len();
        }
        Ok(delivered)
    }
}

impl Keys {
    /// As in a file of the AWS tools: the first profile in it.
    fn of(text: &str) -> Result<Keys, &'static str> {
        let find = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs
                .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        let own = |text: &str| Zeroizing::new(text.to_owned());
        let id = find("aws_access_key_id").ok_or("has no aws_access_key_id")?;
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("has an aws_access_key_id that is none");
        }
        Ok(Keys {
            id: id.to_owned(),
            secret: own(find("aws_secret_access_key").ok_or("has no aws_secret_access_key")?),
            token: find("aws_session_token").map(own),
        })
    }
}

/// Host with port, and path.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = &url[url.find("://")? + 3..];
    let at = rest.find('/')?;
    Some((&rest[..at], &rest[at..]))
}

/// `20261129T150405Z`.
fn timestamp(ns: u64) -> String {
    let time = Timestamp {
        seconds: (ns / 1_000_000_000).cast_signed(),
        nanos: 0,
    };
    let mut text = rfc3339(Some(&time), 1).replace(['-', ':'], "");
    text.truncate("20261129T150405".len());
    text.push('Z');
    text
}

/// The request as it is signed. Paths have nothing that would have to be encoded: the configuration sees to that.
fn canonical(
    method: &str,
    path: &str,
    host: &str,
    hash: &str,
    timestamp: &str,
    keys: &Keys,
) -> String {
    let mut text = format!(
        "{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{timestamp}\n"
    );
    match &keys.token {
        Some(token) => {
            let _ = write!(
                text,
                "x-amz-security-token:{}\n\n{SIGNED};x-amz-security-token\n{hash}",
                token.as_str()
            );
        }
        None => {
            let _ = write!(text, "\n{SIGNED}\n{hash}");
        }
    }
    text
}

/// The header that says who asks and proves it.
fn sign(keys: &Keys, region: &str, timestamp: &str, canonical: &str) -> String {
    let day = &timestamp[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{hash}");
    let mut key = Zeroizing::new(format!("AWS4{}", keys.secret.as_str()).into_bytes());
    for word in [day, region, "s3", "aws4_request"] {
        key = Zeroizing::new(mac(&key, word).as_ref().to_vec());
    }
    let signature = hex(mac(&key, &text).as_ref());
    let signed = match keys.token {
        Some(_) => format!("{SIGNED};x-amz-security-token"),
        None => SIGNED.to_owned(),
    };
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
        keys.id
    )
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{LakeSpec, OcsfClass, Url};
    use keytrail_proto::v1::{Event, EventId};
    use std::sync::Arc;
    use std::time::Duration;

    /// The keys of the examples in the documentation of Signature Version 4, which open nothing.
    fn keys() -> Keys {
        let id = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
        let secret = ["wJalrXUtnFEMI/K7MDENG+", "bPxRfiCYEXAMPLEKEY"].concat();
        Keys::of(&format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key={secret}\n"
        ))
        .unwrap()
    }

    #[test]
    fn the_signing_key_is_that_of_the_documentation() {
        // "Examples of how to derive a signing key": 20120215, us-east-1, iam.
        let mut key = format!("AWS4{}", keys().secret.as_str()).into_bytes();
        for word in ["20120215", "us-east-1", "iam", "aws4_request"] {
            key = mac(&key, word).as_ref().to_vec();
        }
        assert_eq!(
            hex(&key),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
        );
    }

    #[test]
    fn the_request_is_signed_as_the_standard_lays_it_out() {
        let keys = keys();
        let timestamp = timestamp(1_369_353_600_000_000_000);
        assert_eq!(timestamp, "20130524T000000Z");
        let (host, path) = parts("https://b.example:9000/bucket/2013/x.jsonl").unwrap();
        assert_eq!((host, path), ("b.example:9000", "/bucket/2013/x.jsonl"));
        let text = canonical("PUT", path, host, "00ff", &timestamp, &keys);
        assert_eq!(
            text,
            "PUT\n/bucket/2013/x.jsonl\n\nhost:b.example:9000\nx-amz-content-sha256:00ff\n\
             x-amz-date:20130524T000000Z\n\nhost;x-amz-content-sha256;x-amz-date\n00ff"
        );
        let signed = sign(&keys, "us-east-1", &timestamp, &text);
        assert!(
            signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIA"),
            "{signed}"
        );
        assert!(signed.contains("/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;"));
        assert!(!signed.contains(keys.secret.as_str()));
        let temporary = Keys {
            token: Some(Zeroizing::new("tok".into())),
            ..keys
        };
        let text = canonical("PUT", path, host, "00ff", &timestamp, &temporary);
        assert!(text.contains("\nx-amz-security-token:tok\n\nhost;"));
    }

    #[test]
    fn names_sort_as_events_came_and_are_the_same_again() {
        let spec = S3Spec {
            url: Url::Text("http://127.0.0.1:1/b".into()),
            region: "us-east-1".into(),
            credentials_file: "/nowhere".into(),
            ca_file: None,
            every: Duration::from_secs(1),
            lake: None,
            timeout: Duration::from_secs(1),
        };
        let reporter = Reporter {
            agent: "a0".into(),
            ..Reporter::default()
        };
        let s3 = S3::new(spec, &reporter);
        let item = |sequence| Item {
            event: Arc::new(Event {
                id: Some(EventId {
                    epoch: 3,
                    sequence,
                    ..EventId::default()
                }),
                time: Some(Timestamp {
                    seconds: 1_795_964_400,
                    nanos: 0,
                }),
                ..Event::default()
            }),
            line: b"{}".to_vec(),
        };
        let name = |s3: &S3, items: &[Item]| s3.object(items).unwrap().name;
        assert_eq!(
            name(&s3, &[item(9), item(10)]),
            "2026/11/29/a0-000003-000000000009-000000000010.jsonl"
        );
        assert!(name(&s3, &[item(9)]) < name(&s3, &[item(10)]));
        assert!(name(&s3, &[]).contains("a0-gap-"));
        let mut lake = s3;
        lake.spec.lake = Some(LakeSpec {
            source: "keytrail".into(),
            account: "123456789012".into(),
            class: OcsfClass::BaseEvent,
        });
        let object = lake.object(&[item(9)]).unwrap();
        assert_eq!(
            object.name,
            "ext/keytrail/region%3Dus-east-1/accountId%3D123456789012/eventDay%3D20261129/a0-000003-000000000009-000000000009.parquet"
        );
        assert!(object.body.starts_with(b"PAR1") && object.body.ends_with(b"PAR1"));
    }

    #[test]
    fn files_without_keys_are_refused_without_their_text() {
        for bad in [
            "",
            "SECRET",
            "aws_access_key_id=SECRET KEY\naws_secret_access_key=SECRET",
        ] {
            let Err(why) = Keys::of(bad) else {
                panic!("{bad}");
            };
            assert!(!why.contains("SECRET"), "{why}");
        }
    }
}
