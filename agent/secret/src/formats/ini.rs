//! INI files: sections of `name = value` whose section says whose the secret is.

use super::Context;
use crate::api::Origin;
use crate::checks::user_is_secret;
use std::ops::Range;

const MAX_LINES: usize = 100_000;

struct Entry<'a> {
    section: &'a str,
    name: String,
    value: &'a str,
    span: Range<usize>,
}

pub fn parse(context: &mut Context<'_, '_>) {
    let Ok(text) = std::str::from_utf8(context.text) else {
        return;
    };
    let mut section = "";
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut offset = 0;
    let mut from = 0;
    for line in text.split_inclusive('\n').take(MAX_LINES) {
        let start = offset;
        offset += line.len();
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|t| t.split(']').next()) {
            report(context, &entries[from..]);
            from = entries.len();
            section = name;
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        if value.is_empty() {
            continue;
        }
        let at = start + line.find(value).unwrap_or(0).max(name.len());
        let at = text[start..offset]
            .get(at - start..)
            .and_then(|rest| rest.find(value))
            .map_or(at, |n| at + n);
        entries.push(Entry {
            section,
            name: name.trim().to_ascii_lowercase(),
            value,
            span: at..at + value.len(),
        });
    }
    report(context, &entries[from..]);
}

/// Reports the secrets of one section with the section's own words for whose they are.
fn report(context: &mut Context<'_, '_>, section: &[Entry<'_>]) {
    let find = |names: &[&str]| {
        section
            .iter()
            .find(|e| names.contains(&e.name.as_str()))
            .map(|e| e.value)
            .unwrap_or_default()
    };
    let file = context.file_name().to_string();
    for entry in section {
        let name = entry.name.as_str();
        let (rule, identifier) = match file.as_str() {
            ".my.cnf" | "my.cnf" | "debian.cnf" | ".mylogin.cnf"
                if matches!(name, "password" | "loose-password") =>
            {
                (
                    "mysql-config",
                    format!("{}@{}", find(&["user"]), find(&["host", "socket"])),
                )
            }
            ".pypirc"
                if name == "username"
                    && user_is_secret(entry.value.as_bytes(), find(&["password"]).as_bytes()) =>
            {
                ("pypirc", entry.section.to_string())
            }
            ".pypirc"
                if name == "password"
                    && user_is_secret(find(&["username"]).as_bytes(), entry.value.as_bytes()) =>
            {
                continue;
            }
            ".pypirc" if name == "password" => (
                "pypirc",
                format!("{} {}", entry.section, find(&["username"])),
            ),
            ".databrickscfg" if matches!(name, "token" | "password" | "client_secret") => {
                ("databricks-token", find(&["host"]).to_string())
            }
            ".s3cfg" if name == "secret_key" => ("s3cfg", find(&["access_key"]).to_string()),
            ".boto" if name.ends_with("secret_access_key") => (
                "gcs-hmac-key",
                find(&["gs_access_key_id", "aws_access_key_id"]).to_string(),
            ),
            "config" | "config.toml" | "connections.toml"
                if name == "password"
                    && (file == "connections.toml" || entry.section.starts_with("connections")) =>
            {
                (
                    "snowflake-config",
                    format!(
                        "{} {}",
                        find(&["account", "accountname"]),
                        find(&["user", "username"])
                    ),
                )
            }
            ".sentryclirc" if name == "token" => {
                ("sentry-config", find(&["url", "org"]).to_string())
            }
            _ if file.ends_with(".nmconnection") || context.path.contains("system-connections") => {
                match name {
                    "psk"
                    | "password"
                    | "wep-key0"
                    | "private-key"
                    | "leap-password"
                    | "secret"
                    | "preshared-key"
                    | "private-key-password" => (
                        "networkmanager-secret",
                        format!(
                            "{} {}",
                            entry.section,
                            file.trim_end_matches(".nmconnection")
                        ),
                    ),
                    _ => continue,
                }
            }
            "rclone.conf"
                if matches!(
                    name,
                    "pass"
                        | "password"
                        | "token"
                        | "secret_access_key"
                        | "client_secret"
                        | "service_account_credentials"
                        | "key"
                ) =>
            {
                (
                    "rclone-config",
                    format!(
                        "{} {}",
                        entry.section,
                        find(&["user", "access_key_id", "account"])
                    ),
                )
            }
            _ => continue,
        };
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
