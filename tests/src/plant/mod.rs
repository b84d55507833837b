//! Credentials made for one test: right in every checkable detail, random in every secret one.

mod files;
mod random;
mod tokens;

pub use files::{aws_credentials, service_account};
pub use random::{BASE62, bytes, text};
pub use tokens::{
    anthropic, aws, database_url, github, gitlab_like_noise, npm, oidc_request, slack, stripe,
    typed_password,
};

/// One planted credential.
#[derive(Clone)]
pub struct Planted {
    /// The environment variable it usually lives in; the file name for file credentials.
    pub name: &'static str,
    /// What stands in the variable or the file.
    pub value: String,
    /// What may be shown, when there is something.
    pub identifier: Option<String>,
    /// The parts that must never be found anywhere.
    pub secrets: Vec<Secret>,
}

/// A part of a credential that must never be found anywhere.
#[derive(Clone)]
pub struct Secret {
    pub label: String,
    pub bytes: Vec<u8>,
    /// How many of its first bytes are the same for every credential of this kind.
    pub public_prefix: usize,
}

impl Planted {
    fn token(name: &'static str, prefix: &str, rest: &str) -> Self {
        let value = format!("{prefix}{rest}");
        Self {
            name,
            identifier: None,
            secrets: vec![Secret {
                label: name.to_owned(),
                bytes: value.clone().into_bytes(),
                public_prefix: prefix.len(),
            }],
            value,
        }
    }
}

/// All secrets of some credentials.
#[must_use]
pub fn secrets<'a>(planted: impl IntoIterator<Item = &'a Planted>) -> Vec<Secret> {
    planted
        .into_iter()
        .flat_map(|p| p.secrets.iter().cloned())
        .collect()
}
