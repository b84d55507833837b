//! Identifiers are claimed as words of their own only; secrets wherever they stand.

use super::*;
use keytrail_model::Pid;
use proptest::prelude::*;

const ID: &str = "AKIAZ7Q2XW4M5N8P3RTV";
const MAIL: &str = "deploy@acme-prod.iam.gserviceaccount.com";
const SECOND: u64 = 1_000_000_000;

fn knows(identifier: &str) -> Matcher {
    let mut m = Matcher::new(&KEY);
    let learned = m.learn_identifier(credential("0"), identifier);
    assert!(matches!(learned, Learned::New { .. }));
    m
}

/// Occurrences, and how many of them the next bytes decide.
fn words(m: &Matcher, parts: &[&[u8]]) -> (u32, u32) {
    let hits = scan(m, parts);
    let count = |open: bool| {
        hits.iter()
            .filter(|h| h.open == open)
            .map(|h| h.occurrences)
            .sum()
    };
    (count(false), count(true))
}

#[test]
fn a_word_is_claimed_and_a_part_of_one_is_not() {
    let m = knows(ID);
    for (before, after) in [
        ("", "/"),
        ("Credential=", "/20260101/us-east-1"),
        ("{\"k\":\"", "\"}"),
        ("AWS ", ":signature"),
        ("a\n", "\r\n"),
        ("- ", ". Then"),
        ("-- ", " --"),
        ("(", ")"),
        ("X-Amz-Credential%3D", "%2F20260101"),
        ("Location%253D", "%252F"),
        ("one\\n", "\\nthree"),
        ("k\\u003d", "\\u0026"),
        ("\0", "\0"),
        ("\u{e9}", "\u{e9}"),
    ] {
        let text = format!("{before}{ID}{after}");
        assert_eq!(words(&m, &[text.as_bytes()]), (1, 0), "{text:?}");
    }
    for (before, after) in [
        ("x", "/"),
        ("=", "x"),
        ("=", "0"),
        ("my-", "/"),
        ("my_", "/"),
        ("my.", "/"),
        ("=", "-2/"),
        ("=", "_2/"),
        ("=", ".csv/"),
        ("%41", "/"),
        ("=", "%41"),
        ("=", "\\u0041"),
        ("%2", "/"),
        ("\\u0041", "/"),
        ("\\u00e9", "/"),
        ("\\\\u0041", "/"),
    ] {
        let text = format!(" {before}{ID}{after} ");
        assert_eq!(words(&m, &[text.as_bytes()]), (0, 0), "{text:?}");
    }
    let m = knows(MAIL);
    for (text, expected) in [
        (format!("<{MAIL}>"), 1),
        (format!("to {MAIL}."), 0),
        (format!("to {MAIL}. Bye"), 1),
        (format!("<x{MAIL}>"), 0),
        (format!("<my-{MAIL}>"), 0),
        (format!("<{MAIL}.example>"), 0),
    ] {
        assert_eq!(words(&m, &[text.as_bytes()]).0, expected, "{text}");
    }
    // A secret is one wherever it stands.
    let m = matcher(&[TOKEN]);
    let text = [b"x", TOKEN, b"x"].concat();
    assert_eq!(found(&m, &[&text]), one("raw"));
}

#[test]
fn in_base64_and_hex_the_neighbours_are_decoded() {
    let hex = |text: &str| -> Vec<u8> {
        text.bytes()
            .flat_map(|b| format!("{b:02x}").into_bytes())
            .collect()
    };
    let m = knows(ID);
    for alignment in 0..3 {
        for (last, next, expected) in [
            (':', ':', 1),
            ('=', '"', 1),
            ('x', ':', 0),
            (':', 'x', 0),
            (':', '0', 0),
        ] {
            let text = format!("{}{last}{ID}{next}secret", &"..."[..alignment]);
            for encoded in [base64(text.as_bytes()), hex(&text)] {
                for frame in ["", "\n", "Authorization: Basic "] {
                    let payload = [frame.as_bytes(), &encoded, b"\r\n"].concat();
                    assert_eq!(words(&m, &[&payload]), (expected, 0), "{text} {frame:?}");
                }
            }
        }
        // The whole of what was encoded. Without padding the next line may go on with it.
        let text = format!("{}:{ID}", &"..."[..alignment]);
        for encoded in [base64(text.as_bytes()), hex(&text)] {
            let payload = [b"Authorization: Basic ", &encoded[..], b"\r\n"].concat();
            let (closed, open) = words(&m, &[&payload]);
            assert_eq!(closed + open, 1, "{text}");
            assert_eq!(closed == 1, encoded.ends_with(b"="), "{text}");
        }
    }
    let whole = [
        b"key: 20\r\n\r\n",
        &base64(format!("{ID}:").as_bytes())[..],
        b"\n",
    ]
    .concat();
    assert_eq!(
        words(&m, &[&whole]),
        (1, 0),
        "an empty line ends what was before"
    );
    assert_eq!(
        words(&m, &[b"x4", &hex(ID), b" "]),
        (0, 0),
        "half a byte before"
    );
}

#[test]
fn the_border_between_two_payloads_is_no_border_of_words() {
    let m = knows(ID);
    let id = ID.as_bytes();
    for (parts, expected) in [
        (&[&b"k="[..], id, b"/x"][..], (0, 1)),
        (&[b"k", id, b"/x"], (0, 0)),
        (&[b"k=", &id[..7], &id[7..], b"/"], (0, 1)),
        (&[b"k=", &id[..7], &[&id[7..], b"/"].concat()], (1, 0)),
        (&[b"x", &id[..7], &[&id[7..], b"/"].concat()], (0, 0)),
    ] {
        assert_eq!(words(&m, parts), expected, "{parts:?}");
    }
    let key = StreamKey {
        pid: Pid { tgid: 1, start: 2 },
        layer: Layer::Tls,
        id: 1,
        ends: Default::default(),
    };
    let chunk = |boot_ns, bytes| Chunk {
        boot_ns,
        bytes,
        total: 0,
        offset: 0,
        truncated: false,
    };
    let open = |p: &keytrail_model::Payload| p.hits.iter().map(|h| h.open).collect::<Vec<_>>();
    // What comes next says whether it goes on.
    for (next, continues) in [
        (&b"\r\n"[..], false),
        (b"7", true),
        (b"-7", true),
        (b"- 7", false),
        (b"GET / HTTP/1.1\r\n", false),
        (b"GET", true),
    ] {
        let mut s = Streams::new();
        assert_eq!(open(&s.on_payload(&m, key, chunk(1, id))), [true]);
        assert_eq!(s.on_payload(&m, key, chunk(2, next)).continues, continues);
    }
    // After a pause the bytes are gone, but not whether they ended in a word.
    for (before, expected) in [(&b"k="[..], 1), (b"k", 0)] {
        let mut s = Streams::new();
        s.on_payload(&m, key, chunk(1, before));
        let late = s.on_payload(&m, key, chunk(1 + 2 * SECOND, id));
        assert_eq!(late.hits.len(), expected, "{before:?}");
    }
    // A body of stated length ends words.
    let mut s = Streams::new();
    let request = format!("POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n{ID}");
    assert_eq!(
        open(&s.on_payload(&m, key, chunk(1, request.as_bytes()))),
        [false]
    );
    // What was cut off right behind it is not known to be no part of it.
    let mut s = Streams::new();
    let cut = Chunk {
        truncated: true,
        total: 1 << 20,
        ..chunk(1, id)
    };
    assert!(s.on_payload(&m, key, cut).hits.is_empty());
    assert!(s.on_payload(&m, key, chunk(2, id)).hits.is_empty());
}

proptest! {
    /// Wherever a payload is cut in two, no more is claimed than of the whole; and what is hostile does no harm.
    #[test]
    fn a_cut_claims_no_more(
        before in "[aZ7%25ufn\\\\ .=:_-]{0,8}",
        after in "[aZ7%41u0 .=:_\\\\-]{0,8}",
        form in 0usize..3,
        at: prop::sample::Index,
        noise in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let m = knows(ID);
        let text = format!("{before}{ID}{after}");
        let body = match form {
            0 => text.into_bytes(),
            1 => base64(text.as_bytes()),
            _ => text.bytes().flat_map(|b| format!("{b:02X}").into_bytes()).collect(),
        };
        let payload = [&noise[..], b" ", &body, b" "].concat();
        let whole = words(&m, &[&payload]);
        prop_assert_eq!(whole.1, 0, "a space ends a word");
        let (first, second) = payload.split_at(at.index(payload.len() + 1));
        let mut stream = StreamTail::new();
        let mut claimed = 0;
        for (part, next) in [(first, second), (second, &b" "[..])] {
            let mut hits = Hits::new();
            m.scan(&mut stream, part, &mut hits);
            let resolved = next.is_empty() || super::super::boundary::may_continue(next);
            claimed += hits
                .into_vec()
                .iter()
                .filter(|h| !h.open || !resolved)
                .map(|h| h.occurrences)
                .sum::<u32>();
        }
        prop_assert!(claimed <= whole.0, "{} of {}", claimed, whole.0);
    }
}

#[test]
fn an_identifier_says_what_it_stands_in() {
    use keytrail_model::IdentifiedBy::{AwsSignature, Identifier, JwtClaim};
    const ID: &str = "AKIAQRSTUV2345ABCDEF";
    const MAIL: &str = "deployer@shop-prod.iam.gserviceaccount.com";
    let mut m = Matcher::new(&KEY);
    m.learn_identifier(credential("aws"), ID);
    m.learn_identifier(credential("gcp"), MAIL);
    let by = |text: &str| -> Vec<_> {
        let hits = payloads(&m, &[(text.as_bytes(), 0)]).remove(0).hits;
        hits.iter().map(|hit| hit.by.unwrap()).collect()
    };
    let scope = "20260101/eu-west-1/s3/aws4_request";
    let header =
        format!("Authorization: AWS4-HMAC-SHA256 Credential={ID}/{scope}, SignedHeaders=host\r\n");
    assert_eq!(by(&header), [AwsSignature]);
    let query = format!(
        "GET /k?X-Amz-Credential={ID}%2F20260101%2Feu-west-1&X-Amz-Date=1 HTTP/1.1\r\n\r\n"
    );
    assert_eq!(by(&query), [AwsSignature]);
    // Named, and no more.
    for text in [
        format!("AWSAccessKeyId={ID}&Action=x\r\n"),
        format!("Credential={ID}/key \r\n"),
        format!("rotate {ID}/{scope}\r\n"),
    ] {
        assert_eq!(by(&text), [Identifier], "{text}");
    }
    let part = |text: &str| {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        URL_SAFE_NO_PAD.encode(text)
    };
    let token = [
        part(r#"{"alg":"RS256"}"#),
        part(&format!(r#"{{"iss":"{MAIL}","sub":"{MAIL}"}}"#)),
        "c2lnbmF0dXJl".to_owned(),
    ]
    .join(".");
    // At two alignments, perhaps.
    let claims = by(&format!("assertion={token}&x=1\r\n"));
    assert!(
        !claims.is_empty() && claims.iter().all(|by| *by == JwtClaim),
        "{claims:?}"
    );
    let encoded = by(&format!(
        "data: {}\r\n",
        part(&format!("user {MAIL} is here"))
    ));
    assert_eq!(encoded, [Identifier]);
}

#[test]
fn a_login_that_proves_a_password_names_its_user() {
    let mut m = Matcher::new(&KEY);
    m.learn_login(credential("db"), "orders_rw");
    m.learn_login(credential("other"), "reporting");
    let message = |kind: &[u8], content: &[u8]| {
        let length = (content.len() as u32 + 4).to_be_bytes();
        [kind, &length, content].concat()
    };
    let startup = message(b"", b"\0\x03\0\0user\0orders_rw\0database\0orders\0\0");
    let first = message(b"p", b"SCRAM-SHA-256\0\0\0\0\x10n,,n=,r=rOprNGfw");
    let last = message(
        b"p",
        b"c=biws,r=rOprNGfwEbe,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgs",
    );
    let sent = payloads(&m, &[(&startup, 0), (&first, 0), (&last, 0)]);
    let hits = |n: usize| -> Vec<_> {
        let of = sent[n].hits.iter();
        of.map(|h| (h.credential.fingerprint.as_str(), h.by.unwrap()))
            .collect()
    };
    assert!(hits(0).is_empty() && hits(1).is_empty());
    assert_eq!(
        hits(2),
        [("kt1:db", keytrail_model::IdentifiedBy::ScramLogin)]
    );
    m.forget("kt1:db");
    let sent = payloads(&m, &[(&startup, 0), (&first, 0), (&last, 0)]);
    assert!(sent.iter().all(|payload| payload.hits.is_empty()));
}
