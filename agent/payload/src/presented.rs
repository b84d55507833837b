//! Headers of requests that hold a credential and nothing else: who sends one uses it, whether it was known before or not.
//!
//! Not among them: cookies, which are of people's sessions; tokens against forgery (CSRF), nonces and ids; and signatures,
//! which are made anew for each request (`AWS4-HMAC-SHA256`, `Digest`, `Hawk`, `SharedKey`, `DPoP` proofs).

use keytrail_model::{CredentialRef, Transform};
use std::ops::Range;

/// Takes a credential that nobody may have known.
pub trait Unknown {
    /// What this header of a request holds that is to be told from now on, and how it stands there. Nothing of what is known:
    /// that is found like anything else.
    fn presented(&mut self, header: &'static str, value: &[u8]) -> Vec<(CredentialRef, Transform)>;
}

/// Lengths of values that are inspected.
pub const LENGTHS: Range<usize> = 12..8 * 1024;
/// Values of one head that are kept until its end.
pub const MOST: usize = 4;

/// Names in lower case.
const HEADERS: [&str; 34] = [
    "authorization",
    "proxy-authorization",
    "x-vault-token",
    "x-aws-ec2-metadata-token",
    "x-amz-security-token",
    "x-ms-authorization-auxiliary",
    "private-token",
    "job-token",
    "deploy-token",
    "x-consul-token",
    "x-nomad-token",
    "x-auth-token",
    "x-access-token",
    "x-api-key",
    "x-api-token",
    "api-key",
    "apikey",
    "x-apikey",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-jfrog-art-api",
    "x-figma-token",
    "x-shopify-access-token",
    "x-rundeck-auth-token",
    "x-octopus-apikey",
    "x-functions-key",
    "ocp-apim-subscription-key",
    "x-auth-key",
    "x-plex-token",
    "x-n8n-api-key",
    "x-nuget-apikey",
    "circle-token",
    "dd-api-key",
    "dd-application-key",
];

/// Schemes of `Authorization` behind which a credential stands as it is; the others sign, or ask.
const SCHEMES: [&str; 18] = [
    "bearer",
    "token",
    "basic",
    "bot",
    "apikey",
    "api-key",
    "api-token",
    "apitoken",
    "key",
    "splunk",
    "ssws",
    "oauth",
    "geniekey",
    "deepl-auth-key",
    "zoho-oauthtoken",
    "shippotoken",
    "klaviyo-api-key",
    "dpop",
];

/// The place of a header among those that are inspected.
pub fn place(name: &[u8]) -> Option<usize> {
    HEADERS
        .iter()
        .position(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// The header at a place.
pub fn name(place: usize) -> Option<&'static str> {
    HEADERS.get(place).copied()
}

/// Whether the value of such a header may be a credential, by what stands before it and by its length.
pub fn fits(header: &str, value: &[u8]) -> bool {
    if !LENGTHS.contains(&value.len()) {
        return false;
    }
    let mut words = value.split(|&c| c == b' ');
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let plain = |word: &[u8]| {
        word.iter()
            .all(|c| (b'!'..=b'~').contains(c) && !b",;\"".contains(c))
    };
    match second {
        None => plain(first),
        Some(token) => {
            let asks = header.ends_with("authorization") || header.starts_with("x-ms-auth");
            let scheme = SCHEMES
                .iter()
                .any(|known| known.as_bytes().eq_ignore_ascii_case(first));
            // `OAuth a="b", c="d"` signs.
            (asks && scheme || first.eq_ignore_ascii_case(b"bearer"))
                && words.next().is_none()
                && LENGTHS.contains(&token.len())
                && plain(token)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_distinguished_from_signatures_and_questions() {
        let token = "q3VtAcK8s1LwXy7BmZ4e";
        let fits = |header: &str, value: &str| {
            let place = place(header.as_bytes());
            place
                .and_then(name)
                .is_some_and(|of| fits(of, value.as_bytes()))
        };
        for scheme in ["Bearer", "bearer", "token", "Basic", "SSWS", "Splunk"] {
            assert!(
                fits("Authorization", &format!("{scheme} {token}")),
                "{scheme}"
            );
            assert!(fits("proxy-authorization", &format!("{scheme} {token}")));
        }
        for header in [
            "authorization",
            "X-Vault-Token",
            "x-aws-ec2-metadata-token",
            "PRIVATE-TOKEN",
        ] {
            assert!(fits(header, token), "{header}");
        }
        for value in [
            "AWS4-HMAC-SHA256 Credential=AKIAQ3VTACK8S1LWXY7B/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=ab",
            "Digest username=\"bob\", realm=\"x\", nonce=\"q3VtAcK8s1LwXy7BmZ4e\"",
            "OAuth oauth_consumer_key=\"q3VtAcK8s1LwXy7BmZ4e\",oauth_signature=\"x\"",
            "SharedKey account:q3VtAcK8s1LwXy7BmZ4eq3VtAcK8s1LwXy7BmZ4e=",
            "Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gJDAi",
            "Bearer short",
            "Bearer two words",
        ] {
            assert!(!fits("authorization", value), "{value}");
        }
        for header in [
            "cookie",
            "x-csrf-token",
            "x-request-id",
            "idempotency-key",
            "dpop",
            "x-hub-signature-256",
        ] {
            assert!(!fits(header, token), "{header}");
        }
        assert!(!fits("x-vault-token", "two words-of-something"));
    }

    #[test]
    fn names_and_places_lead_back() {
        for (at, of) in HEADERS.iter().enumerate() {
            assert_eq!((place(of.as_bytes()), name(at)), (Some(at), Some(*of)));
            assert_eq!(*of, of.to_ascii_lowercase());
        }
        assert_eq!(name(HEADERS.len()), None);
    }
}
