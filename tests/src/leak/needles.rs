//! The forms under which a secret may have survived.

use crate::plant::Secret;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use std::collections::BTreeMap;

pub struct Needle {
    pub bytes: Vec<u8>,
    pub label: String,
}

/// Bytes of a piece: long enough never to be there by chance, short enough to survive partial overwriting.
const PIECE: usize = 16;

/// All forms of all secrets, no two alike.
pub fn of(secrets: &[Secret]) -> Vec<Needle> {
    let mut all = BTreeMap::new();
    for secret in secrets {
        assert!(
            secret.bytes.len() - secret.public_prefix >= PIECE,
            "{} is too short to search for",
            secret.label
        );
        for (form, bytes, public) in forms(secret) {
            let label = format!("{} ({form})", secret.label);
            for (piece, range) in pieces(bytes.len(), public) {
                all.entry(bytes[range].to_vec())
                    .or_insert_with(|| format!("{label}{piece}"));
            }
            all.entry(bytes).or_insert(label);
        }
    }
    all.into_iter()
        .map(|(bytes, label)| Needle { bytes, label })
        .collect()
}

/// Each form with the number of its first bytes that are public.
fn forms(secret: &Secret) -> Vec<(String, Vec<u8>, usize)> {
    let raw = &secret.bytes;
    let public = secret.public_prefix;
    let mut forms = vec![("raw".to_owned(), raw.clone(), public)];
    for shift in 0..3 {
        // What stands before the secret decides how its bits fall into characters: two unknown bytes at most.
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(raw);
        // Characters that mix in bits of the neighbours are left out, at both ends.
        let first = (shift * 8).div_ceil(6);
        let last = (shifted.len() * 8) / 6;
        for (name, text) in [
            ("base64", STANDARD_NO_PAD.encode(&shifted)),
            ("base64url", URL_SAFE_NO_PAD.encode(&shifted)),
        ] {
            let inner = text.as_bytes()[first..last].to_vec();
            forms.push((format!("{name}, shift {shift}"), inner, public * 4 / 3 + 2));
        }
    }
    let lower: String = raw.iter().map(|b| format!("{b:02x}")).collect();
    forms.push(("HEX".to_owned(), lower.to_uppercase().into(), public * 2));
    forms.push(("hex".to_owned(), lower.into(), public * 2));
    let percent: String = raw
        .iter()
        .map(|b| match b {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                char::from(*b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect();
    forms.push(("percent".to_owned(), percent.into(), public));
    if let Ok(text) = std::str::from_utf8(raw) {
        let json = serde_json::to_string(text).unwrap();
        forms.push((
            "json".to_owned(),
            json.trim_matches('"').as_bytes().to_vec(),
            public,
        ));
        let slashes = json.trim_matches('"').replace('/', "\\/");
        forms.push(("json, escaped slashes".to_owned(), slashes.into(), public));
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        forms.push(("utf-16".to_owned(), wide, public * 2));
    }
    forms
}

/// First, middle and last piece of the private part.
fn pieces(length: usize, public: usize) -> Vec<(&'static str, std::ops::Range<usize>)> {
    let private = length.saturating_sub(public);
    if private < PIECE + 4 {
        return Vec::new();
    }
    let middle = public + (private - PIECE) / 2;
    vec![
        (", its first part", public..public + PIECE),
        (", its middle", middle..middle + PIECE),
        (", its last part", length - PIECE..length),
    ]
}
