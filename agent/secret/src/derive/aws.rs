//! AWS key ids name their account.

use super::Derived;

/// Account number inside a key id: the 16 characters after the 4-letter prefix are base32; the first 6 bytes, big endian,
/// hold the account in 40 bits from bit 7. Key ids from before 2019 (fifth character I or J) do not carry it.
pub fn account(key_id: &str) -> Option<String> {
    let body = key_id.get(4..)?.as_bytes();
    if body.len() < 12 || matches!(body[0], b'I' | b'J') {
        return None;
    }
    let mut bits: u64 = 0;
    // 10 characters of 5 bits are 50 bits: the first 48 are the 6 bytes.
    for &c in &body[..10] {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u64::from(digit);
    }
    let six = bits >> 2;
    let account = (six & 0x7fff_ffff_ff80) >> 7;
    // Account numbers have 12 digits; more of them is no key id of AWS.
    (account <= 999_999_999_999).then(|| format!("{account:012}"))
}

pub fn key_id(id: &str) -> Derived {
    let identifier = match account(id) {
        Some(account) => format!("{id} account {account}"),
        None => id.to_string(),
    };
    Derived {
        identifier,
        expires: None,
        public: vec![id.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_from_a_key_id() {
        // Published pair of key id and account from the article that first described the encoding.
        assert_eq!(
            account("ASIAQNZGKIQY56JQ7WML").as_deref(),
            Some("029608264753")
        );
        assert_eq!(account("AKIAIOSFODNN7EXAMPLE"), None);
        assert_eq!(account("AKIA"), None);
        assert_eq!(account("AKIA0000000000000000"), None);
    }
}
