//! Tokens and keys that fit into an environment variable.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{BASE62, Planted, Secret, bytes, text};

const ALNUM_URL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";
const BASE64: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/";
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DIGITS: &[u8] = b"0123456789";

/// 30 random characters and their CRC32 in base 62: the tail of npm's and GitHub's classic tokens.
fn with_checksum() -> String {
    let random = text(BASE62, 30);
    let mut sum = crc32fast::hash(random.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(sum % 62) as usize];
        sum /= 62;
    }
    random + std::str::from_utf8(&digits).unwrap()
}

/// A classic personal access token of GitHub.
#[must_use]
pub fn github() -> Planted {
    Planted::token("GITHUB_TOKEN", "ghp_", &with_checksum())
}

#[must_use]
pub fn npm() -> Planted {
    Planted::token("NPM_TOKEN", "npm_", &with_checksum())
}

/// A live secret key of Stripe: 51 stands for its version.
#[must_use]
pub fn stripe() -> Planted {
    Planted::token("STRIPE_SECRET_KEY", "sk_live_51", &text(BASE62, 97))
}

#[must_use]
pub fn anthropic() -> Planted {
    let rest = text(ALNUM_URL, 93) + "AA";
    Planted::token("ANTHROPIC_API_KEY", "sk-ant-api03-", &rest)
}

/// A bot token of Slack; its two numbers name the team and the bot and are public.
#[must_use]
pub fn slack() -> Planted {
    let number = |digits: usize| format!("{}{}", 1 + bytes(1)[0] % 9, text(DIGITS, digits - 1));
    let prefix = format!("xoxb-{}-{}-", number(12), number(13));
    Planted::token("SLACK_BOT_TOKEN", &prefix, &text(BASE62, 24))
}

/// The token by which a step of a CI job asks for one of its workflow's identity.
#[must_use]
pub fn oidc_request() -> Planted {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let head = part(r#"{"typ":"JWT","alg":"RS256","kid":"38826b17"}"#);
    let claims = part(&format!(
        r#"{{"sub":"repo:shop/orders:ref:refs/heads/main","repository":"shop/orders","iss":"https://token.actions.githubusercontent.com","jti":"{}"}}"#,
        text(BASE62, 22)
    ));
    Planted::token(
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        &format!("{head}.{claims}."),
        &text(ALNUM_URL, 342),
    )
}

/// An access key of AWS: identifier and secret.
#[must_use]
pub fn aws() -> Planted {
    // I and J as the fifth character stand for an older form without an account.
    let id = format!("AKIA{}{}", text(b"QRSTUV", 1), text(BASE32, 15));
    let secret = text(BASE64, 40);
    Planted {
        name: "AWS_SECRET_ACCESS_KEY",
        identifier: Some(id),
        secrets: vec![Secret {
            label: "AWS_SECRET_ACCESS_KEY".to_owned(),
            bytes: secret.clone().into_bytes(),
            public_prefix: 0,
        }],
        value: secret,
    }
}

/// A database with its password.
#[must_use]
pub fn database_url() -> Planted {
    let password = text(BASE62, 28);
    Planted {
        name: "DATABASE_URL",
        identifier: None,
        value: format!("postgres://orders_rw:{password}@db7.example.internal:5432/orders"),
        secrets: vec![Secret {
            label: "DATABASE_URL".to_owned(),
            bytes: password.into_bytes(),
            public_prefix: 0,
        }],
    }
}

/// A password that is typed on a command line.
#[must_use]
pub fn typed_password() -> Planted {
    let password = text(BASE62, 24);
    Planted {
        name: "typed password",
        identifier: None,
        value: password.clone(),
        secrets: vec![Secret {
            label: "typed password".to_owned(),
            bytes: password.into_bytes(),
            public_prefix: 0,
        }],
    }
}

/// Variables of a build that look random and are no credentials.
#[must_use]
pub fn gitlab_like_noise() -> Vec<(String, String)> {
    let hex = |count: usize| -> String {
        bytes(count / 2)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let h = hex(32);
    let uuid = format!(
        "{}-{}-4{}-a{}-{}",
        &h[..8],
        &h[8..12],
        &h[13..16],
        &h[17..20],
        &h[20..]
    );
    [
        ("CI", "true".to_owned()),
        ("CI_COMMIT_SHA", hex(40)),
        ("CI_COMMIT_BEFORE_SHA", hex(40)),
        ("CI_COMMIT_SHORT_SHA", hex(8)),
        ("CI_COMMIT_REF_NAME", "main".to_owned()),
        (
            "CI_COMMIT_MESSAGE",
            "Rename the token counter and its keys".to_owned(),
        ),
        ("CI_PIPELINE_ID", text(DIGITS, 9)),
        ("CI_JOB_ID", text(DIGITS, 10)),
        ("CI_JOB_STAGE", "test".to_owned()),
        ("CI_PROJECT_PATH", "shop/orders".to_owned()),
        ("CI_RUNNER_VERSION", "17.5.0".to_owned()),
        ("BUILD_UUID", uuid),
        ("CACHE_DIGEST", format!("sha256:{}", hex(64))),
        ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
        ("EDITOR", "vi".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("LOGNAME", "build".to_owned()),
        ("NODE_ENV", "production".to_owned()),
        ("PAGER", "cat".to_owned()),
        ("PYTHONHASHSEED", "0".to_owned()),
        ("SHELL", "/bin/sh".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("USER", "build".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_lengths_of_real_ones() {
        assert_eq!(github().value.len(), 40);
        assert_eq!(npm().value.len(), 40);
        assert_eq!(anthropic().value.len(), 108);
        assert_eq!(aws().identifier.unwrap().len(), 20);
        assert_ne!(github().value, github().value);
    }
}
