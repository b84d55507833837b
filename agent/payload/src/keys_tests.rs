use super::*;
use crate::tests::credential;
use crate::{Chunk, Layer, Matcher, StreamKey, Streams};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keytrail_model::{Hit, IdentifiedBy, Payload, Pid, Transform};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

enum Pair {
    Curve(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Pair {
    fn curve() -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Curve(
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random)
                .unwrap(),
        )
    }

    fn edwards() -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Edwards(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
    }

    fn public(&self) -> PublicKey {
        let (algorithm, bytes) = match self {
            Self::Curve(pair) => (KeyAlgorithm::P256, pair.public_key().as_ref()),
            Self::Edwards(pair) => (KeyAlgorithm::Ed25519, pair.public_key().as_ref()),
        };
        PublicKey {
            algorithm,
            bytes: bytes.to_vec(),
        }
    }

    fn token(&self) -> String {
        let name = match self {
            Self::Curve(_) => "ES256",
            Self::Edwards(_) => "EdDSA",
        };
        let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"JWT", "alg" : "{name}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"48151","exp":1795289040}"#);
        let signed = format!("{head}.{claims}");
        let signature = match self {
            Self::Curve(pair) => pair
                .sign(&SystemRandom::new(), signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            Self::Edwards(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn knowing(pairs: &[&Pair]) -> Matcher {
    let mut matcher = Matcher::new(&crate::tests::KEY);
    for (n, pair) in pairs.iter().enumerate() {
        matcher.learn_key(credential(&n.to_string()), &pair.public());
    }
    matcher
}

fn key(layer: Layer) -> StreamKey {
    StreamKey {
        pid: Pid { tgid: 1, start: 1 },
        layer,
        id: 1,
        ends: Default::default(),
    }
}

fn whole(bytes: &[u8]) -> Chunk<'_> {
    Chunk::whole(1, bytes)
}

fn sent(matcher: &Matcher, bytes: &[u8]) -> Payload {
    Streams::new().on_payload(matcher, key(Layer::Tls), whole(bytes))
}

fn named(hits: &[Hit]) -> Vec<(&str, Option<IdentifiedBy>)> {
    hits.iter()
        .map(|hit| (&hit.credential.fingerprint[4..], hit.by))
        .collect()
}

#[test]
fn a_token_names_the_key_that_signed_it_and_no_other() {
    let (curve, other, edwards) = (Pair::curve(), Pair::curve(), Pair::edwards());
    let m = knowing(&[&curve, &other, &edwards]);
    let by = Some(IdentifiedBy::JwtSignature);
    for (pair, who) in [(&curve, "0"), (&other, "1"), (&edwards, "2")] {
        let token = pair.token();
        let bearer =
            format!("GET /app HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
        let assertion = format!("grant_type=urn%3Aietf&assertion={token}");
        let json = format!(r#"{{"jwt":"{token}"}}"#);
        for text in [&bearer, &assertion, &json] {
            let payload = sent(&m, text.as_bytes());
            assert_eq!(named(&payload.hits), [(who, by)], "{text}");
        }
        // Known from before: no other key is tried.
        assert_eq!(named(&sent(&m, bearer.as_bytes()).hits), [(who, by)]);
        // One bit of the claims, or of the signature, and it is nobody's.
        let at = token.len() - 30;
        let swapped = if token.as_bytes()[at] == b'A' {
            "B"
        } else {
            "A"
        };
        let forged = [&token[..at], swapped, &token[at + 1..]].concat();
        assert!(
            sent(&m, format!("a {forged}\r\n").as_bytes())
                .hits
                .is_empty()
        );
    }
    // By somebody whose key is not held here.
    let stranger = Pair::curve().token();
    let payload = sent(&m, format!("Bearer {stranger}\r\n").as_bytes());
    assert!(payload.hits.is_empty() && payload.undecoded.is_empty());
}

#[test]
fn what_is_forgotten_signs_no_more() {
    let pair = Pair::edwards();
    let mut m = knowing(&[&pair]);
    let text = format!("Bearer {}\r\n", pair.token());
    assert_eq!(sent(&m, text.as_bytes()).hits.len(), 1);
    m.forget("kt1:0");
    assert!(sent(&m, text.as_bytes()).hits.is_empty());
}

#[test]
fn more_signatures_than_there_is_time_for_are_counted() {
    let pairs: Vec<Pair> = (0..3).map(|_| Pair::edwards()).collect();
    let m = knowing(&pairs.iter().collect::<Vec<_>>());
    let mut streams = Streams::new();
    let mut unknown = 0;
    for _ in 0..200 {
        let text = format!("Bearer {}\r\n", Pair::edwards().token());
        let payload = streams.on_payload(&m, key(Layer::Tls), whole(text.as_bytes()));
        unknown += payload.undecoded.cut;
    }
    // 256 tries, three a token.
    assert!((110..=120).contains(&unknown), "{unknown}");
    // A second later there is time again.
    let text = format!("Bearer {}\r\n", pairs[0].token());
    let later = Chunk {
        boot_ns: 1_100_000_000,
        ..whole(text.as_bytes())
    };
    assert_eq!(streams.on_payload(&m, key(Layer::Tls), later).hits.len(), 1);
}

#[test]
fn texts_that_only_begin_as_tokens() {
    for text in ["eyJ", "eyJ.a", "eyJ.a.", "xeyJ.a.b", "eyJ.a.b.c", "..eyJ"] {
        assert_eq!(tokens(text.as_bytes()).count(), 0, "{text}");
    }
    assert_eq!(tokens(b"eyJ.a.b eyJ.c.d").count(), 2);
    // Linear in what it is given.
    assert_eq!(tokens(&b"eyJ".repeat(1 << 16)).count(), 0);
}

#[test]
fn the_public_half_is_known_wherever_it_is_shown() {
    let pair = Pair::curve();
    let m = knowing(&[&pair]);
    let point = pair.public().bytes;
    // As a client of ssh-agent sends it: between lengths that look like letters.
    let blob = [&b"\0\0\0\x41"[..], &point, b"\0\0\0"].concat();
    let by = Some(IdentifiedBy::PublicKey);
    assert_eq!(named(&sent(&m, &blob).hits), [("0", by)]);
    let text = [b"key AAAA", &crate::tests::base64(&blob)[..], b" me@host"].concat();
    let hits = sent(&m, &text).hits;
    assert_eq!(
        (named(&hits), hits[0].transform),
        (vec![("0", by)], Transform::Base64)
    );
    assert!(sent(&m, &point[..40]).hits.is_empty());
}

#[test]
fn a_client_certificate_is_known_by_its_key_and_a_servers_is_none() {
    let pair = Pair::curve();
    let mut m = knowing(&[&pair]);
    m.learn(credential("secret"), "", crate::tests::TOKEN);
    // A handshake message of this type that holds a certificate, about.
    let flight = |kind: u8| {
        let body = [
            &[0u8; 60][..],
            &pair.public().bytes,
            crate::tests::TOKEN,
            &[0; 90],
        ]
        .concat();
        let message = [&[kind, 0, 0, body.len() as u8][..], &body].concat();
        [
            &[22, 3, 3][..],
            &(message.len() as u16).to_be_bytes(),
            &message,
        ]
        .concat()
    };
    let by = Some(IdentifiedBy::ClientCertificate);
    let sent = |bytes: &[u8]| Streams::new().on_send(&m, key(Layer::Socket), whole(bytes));
    assert_eq!(named(&sent(&flight(11)).payload.hits), [("0", by)]);
    // Behind a hello of a server, and in what is encrypted.
    assert!(sent(&flight(2)).payload.hits.is_empty());
    let mut encrypted = flight(11);
    encrypted[0] = 23;
    assert!(sent(&encrypted).payload.hits.is_empty());
}
