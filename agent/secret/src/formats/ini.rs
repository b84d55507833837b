//! INI files: sections of `name = value` whose section says whose the secret is.

use super::{Context, short, worth};
use crate::api::Origin;
use crate::checks::user_is_secret;
use std::collections::HashMap;
use std::ops::Range;

/// One `name = value`.
struct Entry<'a> {
    name: String,
    value: &'a str,
    span: Range<usize>,
}

/// The entries below one `[section]`, and where each name stands first: whose a secret is, another entry says.
#[derive(Default)]
struct Section<'a> {
    title: &'a str,
    entries: Vec<Entry<'a>>,
    first: HashMap<String, usize>,
}

impl<'a> Section<'a> {
    fn add(&mut self, entry: Entry<'a>) {
        let at = self.entries.len();
        self.first.entry(entry.name.clone()).or_insert(at);
        self.entries.push(entry);
    }

    /// The value of the entry that comes first among those with one of the names; empty without one.
    fn value(&self, names: &[&str]) -> &'a str {
        names
            .iter()
            .filter_map(|name| self.first.get(*name))
            .min()
            .and_then(|at| self.entries.get(*at))
            .map(|entry| short(entry.value))
            .unwrap_or_default()
    }
}

pub fn parse(context: &mut Context<'_, '_>) {
    let Ok(text) = std::str::from_utf8(context.text) else {
        return;
    };
    let mut section = Section::default();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = trimmed.strip_prefix('[').and_then(|t| t.split(']').next()) {
            report(context, &section);
            section = Section {
                title: short(title),
                ..Section::default()
            };
            continue;
        }
        if let Some(entry) = entry(line, start) {
            section.add(entry);
        }
    }
    report(context, &section);
}

fn entry(line: &str, start: usize) -> Option<Entry<'_>> {
    let (name, rest) = line.split_once('=')?;
    let value = rest.trim().trim_matches(['"', '\'']);
    if value.is_empty() {
        return None;
    }
    let at = start + name.len() + 1 + rest.find(value)?;
    Some(Entry {
        name: name.trim().to_ascii_lowercase(),
        value,
        span: at..at + value.len(),
    })
}

/// Reports the secrets of one section with the section's own words for whose they are.
fn report(context: &mut Context<'_, '_>, section: &Section<'_>) {
    let file = context.file_name().to_string();
    for entry in &section.entries {
        // Placeholders are not reported, so that nothing need be known about them.
        if !worth(entry.value.as_bytes()) {
            continue;
        }
        let Some((rule, identifier)) = recognise(context.path, &file, section, entry) else {
            continue;
        };
        if context.finds.full() {
            return;
        }
        // A token of a known kind keeps its kind.
        let known = context
            .classifier
            .classify_value(entry.value.as_bytes(), Origin::Text);
        let best = known
            .iter()
            .filter(|f| f.specific() && f.confidence >= 0.6 && !f.parts.is_empty())
            .max_by(|a, b| a.confidence.total_cmp(&b.confidence));
        let rule = best.map_or(rule.to_string(), |f| f.rule.clone());
        context.emit_at(
            &rule,
            entry.value.as_bytes(),
            entry.span.clone(),
            identifier.trim().trim_matches('@').to_string(),
        );
    }
}

/// What is secret of a connection of NetworkManager.
const NETWORK_MANAGER: [&str; 8] = [
    "psk",
    "password",
    "wep-key0",
    "private-key",
    "leap-password",
    "secret",
    "preshared-key",
    "private-key-password",
];
/// What is secret of a remote of rclone.
const RCLONE: [&str; 7] = [
    "pass",
    "password",
    "token",
    "secret_access_key",
    "client_secret",
    "service_account_credentials",
    "key",
];

/// The rule of an entry that holds a secret in a file of this name, and whose secret it is.
fn recognise(
    path: &str,
    file: &str,
    section: &Section<'_>,
    entry: &Entry<'_>,
) -> Option<(&'static str, String)> {
    let name = entry.name.as_str();
    let of = |names: &[&str]| section.value(names);
    let titled = |names: &[&str]| format!("{} {}", section.title, of(names));
    Some(match file {
        ".my.cnf" | "my.cnf" | "debian.cnf" | ".mylogin.cnf"
            if matches!(name, "password" | "loose-password") =>
        {
            (
                "mysql-config",
                format!("{}@{}", of(&["user"]), of(&["host", "socket"])),
            )
        }
        ".pypirc" => return pypi(section, entry),
        ".databrickscfg" if matches!(name, "token" | "password" | "client_secret") => {
            ("databricks-token", of(&["host"]).to_string())
        }
        ".s3cfg" if name == "secret_key" => ("s3cfg", of(&["access_key"]).to_string()),
        ".boto" if name.ends_with("secret_access_key") => (
            "gcs-hmac-key",
            of(&["gs_access_key_id", "aws_access_key_id"]).to_string(),
        ),
        "config" | "config.toml" | "connections.toml"
            if name == "password"
                && (file == "connections.toml" || section.title.starts_with("connections")) =>
        {
            (
                "snowflake-config",
                format!(
                    "{} {}",
                    of(&["account", "accountname"]),
                    of(&["user", "username"])
                ),
            )
        }
        ".sentryclirc" if name == "token" => ("sentry-config", of(&["url", "org"]).to_string()),
        _ if file.ends_with(".nmconnection") || path.contains("system-connections") => {
            if !NETWORK_MANAGER.contains(&name) {
                return None;
            }
            let connection = file.trim_end_matches(".nmconnection");
            (
                "networkmanager-secret",
                format!("{} {connection}", section.title),
            )
        }
        "rclone.conf" if RCLONE.contains(&name) => (
            "rclone-config",
            titled(&["user", "access_key_id", "account"]),
        ),
        _ => return None,
    })
}

/// PyPI takes a token as the user or as the password of `__token__`.
fn pypi(section: &Section<'_>, entry: &Entry<'_>) -> Option<(&'static str, String)> {
    let (user, password) = (section.value(&["username"]), section.value(&["password"]));
    match entry.name.as_str() {
        "username" if user_is_secret(entry.value.as_bytes(), password.as_bytes()) => {
            Some(("pypirc", section.title.to_string()))
        }
        "password" if !user_is_secret(user.as_bytes(), entry.value.as_bytes()) => {
            Some(("pypirc", format!("{} {user}", section.title)))
        }
        _ => None,
    }
}
