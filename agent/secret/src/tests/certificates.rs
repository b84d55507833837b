//! Certificates say in clear whose key it is and until when: made anew, read back.

use crate::derive::x509;
use crate::{Classifier, Finding, Origin};
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SerialNumber};

/// 2031-02-03 00:00:00 UTC.
const NOT_AFTER: i64 = 1_927_843_200;

struct Made {
    certificate: String,
    der: Vec<u8>,
    key: String,
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let mut body = String::new();
    for (n, c) in base64(der).chars().enumerate() {
        if n > 0 && n % 64 == 0 {
            body.push('\n');
        }
        body.push(c);
    }
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn made(names: &[&str], authority: bool) -> Made {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params
        .distinguished_name
        .push(DnType::CommonName, "kubernetes-admin");
    params.serial_number = Some(SerialNumber::from(vec![0x0a, 0x1b, 0x2c, 0xff]));
    params.not_before = rcgen::date_time_ymd(2021, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031, 2, 3);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Made {
        certificate: pem("CERTIFICATE", certificate.der()),
        der: certificate.der().to_vec(),
        key: pem("PRIVATE KEY", key.serialized_der()),
    }
}

#[test]
fn a_certificate_is_read_exactly() {
    let made = made(&["api.example.test", "other.example.test"], false);
    let expected = x509::Certificate {
        subject: "O=system:masters, CN=kubernetes-admin".to_owned(),
        serial: "0a:1b:2c:ff".to_owned(),
        not_after: NOT_AFTER,
        authority: false,
        name: "api.example.test".to_owned(),
    };
    assert_eq!(x509::der(&made.der).as_ref(), Some(&expected));
    assert_eq!(
        x509::first_pem(made.certificate.as_bytes()).as_ref(),
        Some(&expected)
    );
    assert_eq!(
        expected.identifier(),
        "O=system:masters, CN=kubernetes-admin (api.example.test) serial 0a:1b:2c:ff"
    );
    // The leaf comes first, whatever signed it.
    let authority = self::made(&[], true);
    let chain = format!("{}{}{}", made.key, made.certificate, authority.certificate);
    assert_eq!(x509::first_pem(chain.as_bytes()), Some(expected));
    let authority = x509::first_pem(authority.certificate.as_bytes()).unwrap();
    assert!(authority.authority);
    assert_eq!(authority.name, "");
    assert_eq!(
        authority.identifier(),
        "O=system:masters, CN=kubernetes-admin serial 0a:1b:2c:ff"
    );
    // One byte less is none.
    assert_eq!(x509::der(&made.der[..made.der.len() - 1]), None);
}

fn only(text: &str, path: &str) -> Finding {
    let mut findings = Classifier::builtin().classify(text.as_bytes(), Origin::File { path });
    findings.retain(|f| !f.parts.is_empty());
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn a_kubeconfig_expires_with_its_certificate() {
    let made = made(&[], false);
    let config = |certificate: &str| {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster:\n    server: https://10.0.0.1:6443\n\
             contexts:\n- name: c\n  context:\n    cluster: prod\n    user: admin\n\
             users:\n- name: admin\n  user:\n{certificate}    client-key-data: {}\n",
            base64(made.key.as_bytes())
        )
    };
    let certificate = format!(
        "    client-certificate-data: {}\n",
        base64(made.certificate.as_bytes())
    );
    let found = only(&config(&certificate), "/root/.kube/config");
    assert_eq!(found.kind, "kubeconfig");
    assert_eq!(found.expires, Some(NOT_AFTER));
    assert_eq!(
        found.identifier,
        "admin@prod O=system:masters, CN=kubernetes-admin"
    );
    let bare = only(&config(""), "/root/.kube/config");
    assert_eq!(bare.expires, None);
    assert_eq!(bare.identifier, "admin@prod");
}

#[test]
fn a_key_expires_with_the_certificate_beside_it() {
    let made = made(&["api.example.test"], false);
    let text = format!("{}{}", made.key, made.certificate);
    let found = only(&text, "/srv/server.pem");
    assert_eq!(found.kind, "tls-private-key");
    assert_eq!(found.expires, Some(NOT_AFTER));
    assert_eq!(
        found.identifier,
        "O=system:masters, CN=kubernetes-admin (api.example.test) serial 0a:1b:2c:ff"
    );
    assert_eq!(found.public, ["O=system:masters, CN=kubernetes-admin"]);
    assert_eq!(only(&made.key, "/srv/server.pem").expires, None);
}

#[test]
fn the_public_half_of_a_key_is_read_in_every_form() {
    use keytrail_model::KeyAlgorithm;
    let made = made(&["a.example.test"], false);
    let key = |text: &str, path: &str| only(text, path).key.expect("its public half");
    let pkcs8 = key(&made.key, "/srv/app/key.pem");
    assert_eq!(pkcs8.algorithm, KeyAlgorithm::P256);
    // It stands in the certificate.
    assert!(memchr::memmem::find(&made.der, &pkcs8.bytes[1..]).is_some());
    // The same key as `openssl ec` writes it (RFC 5915), within PKCS #8 without its curve.
    let body: String = made.key.lines().filter(|l| !l.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    let inner = memchr::memmem::find(&der, b"\x02\x01\x01\x04\x20").unwrap();
    let secret = &der[inner + 5..inner + 37];
    let curve = b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let numbers = [&b"\x02\x01\x01\x04\x20"[..], secret, curve].concat();
    let sec1 = [
        &[0x30, (numbers.len() + 70) as u8][..],
        &numbers,
        &[0xa1, 0x44, 0x03, 0x42, 0],
        &pkcs8.bytes,
    ]
    .concat();
    let text = pem("EC PRIVATE KEY", &sec1);
    assert_eq!(key(&text, "/srv/app/ec.pem"), pkcs8);
    // One key has one identifier, whatever its armour is called; in DER it is the same credential as in PEM.
    let armoured = only(&made.key, "/srv/app/key.pem");
    assert!(armoured.identifier.starts_with("p256 SHA256:"));
    assert_eq!(
        only(&text, "/srv/app/ec.pem").identifier,
        armoured.identifier
    );
    let print = crate::Fingerprinter::new(&[3; 32]);
    for (bare, pem) in [(&der, &made.key), (&sec1, &text)] {
        let origin = Origin::File {
            path: "/srv/app/key",
        };
        let found = Classifier::builtin().classify(bare, origin);
        assert_eq!(found.len(), 1, "{found:?}");
        let pem = only(pem, "/srv/app/key.pem");
        assert_eq!(
            found[0].credential(&print).fingerprint,
            pem.credential(&print).fingerprint
        );
        assert_eq!(
            (&found[0].kind, &found[0].identifier),
            (&pem.kind, &pem.identifier)
        );
        assert_eq!(found[0].span(), 0..bare.len());
    }
    // What else is DER.
    for other in [&made.der[..], &der[..der.len() - 1], &pkcs8.bytes] {
        let origin = Origin::File {
            path: "/srv/app/key",
        };
        assert!(Classifier::builtin().classify(other, origin).is_empty());
    }
    // A curve that is not followed.
    let other = [&sec1[..sec1.len() - 66], b"\x01", &sec1[sec1.len() - 65..]].concat();
    assert_eq!(
        only(&pem("EC PRIVATE KEY", &other), "/srv/app/ec.pem").key,
        None
    );
}

#[test]
fn passwords_of_databases_know_their_user() {
    let login = |text: &str, path: &str| {
        let found = Classifier::builtin().classify(text.as_bytes(), Origin::File { path });
        found.iter().map(|f| f.login.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        login(
            "DATABASE_URL=postgres://orders%5Frw:q3VtAcK8s1LwXy7BmZ4e@db7:5432/orders\n",
            "/srv/.env"
        ),
        ["orders_rw"]
    );
    assert_eq!(
        login(
            "db7:5432:*:orders_rw:q3VtAcK8s1LwXy7BmZ4e\n",
            "/root/.pgpass"
        ),
        ["orders_rw"]
    );
    assert_eq!(
        login(
            "redis://app:q3VtAcK8s1LwXy7BmZ4e@cache:6379/0\n",
            "/srv/.env"
        ),
        [""]
    );
    let block: [(&[u8], &[u8]); 2] = [
        (b"PGUSER", b"orders_rw"),
        (b"PGPASSWORD", b"q3VtAcK8s1LwXy7BmZ4e"),
    ];
    let found = Classifier::builtin().classify_env(block);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.login, "orders_rw");
}
