//! Values that a place gives meaning to: environment variables, flags, URLs, private keys.

use super::Classifier;
use crate::checks::{Doubt, doubt, looks_random, user_is_secret};
use crate::derive;
use crate::scan::prefilter::Hook;
use crate::scan::text::clean;
use crate::scan::{Finds, Raw, name, pem, token, value};

/// Longest name and value of a variable that are read together, bytes.
const NEAR_NAME: usize = 4096;

/// Lengths of what a file holds that is a secret alone, bytes.
const NAMED_FILE: std::ops::RangeInclusive<usize> = 8..=1024;

/// No token of an issuer's form is shorter, bytes.
const FORMED_MIN: usize = 12;

impl Classifier {
    pub(super) fn flag_value(&self, program: &[u8], flag: &[u8], value: &[u8], finds: &mut Finds) {
        if value.starts_with(b"-") || value.is_empty() {
            return;
        }
        let userpass = matches!(program, b"curl" | b"http" | b"https" | b"wget")
            && matches!(
                flag,
                b"-u" | b"--user" | b"-U" | b"--proxy-user" | b"-a" | b"--auth"
            );
        if userpass {
            if let Some(colon) = value.iter().position(|b| *b == b':')
                && user_is_secret(&value[..colon], &value[colon + 1..])
                && let Some(rule) = self.rule_named("http-basic-auth")
            {
                finds.push(self.raw(rule, &value[..colon], 0..colon, String::new(), 1));
            } else if let Some(colon) = value.iter().position(|b| *b == b':')
                && doubt(&value[colon + 1..]) != Doubt::Hard
                && let Some(rule) = self.rule_named("http-basic-auth")
            {
                finds.push(self.raw(
                    rule,
                    &value[colon + 1..],
                    colon + 1..value.len(),
                    clean(&value[..colon]),
                    2,
                ));
            }
            return;
        }
        if flag.len() > 3
            && flag.starts_with(b"--")
            && !flag.contains(&b'=')
            && let Some(class) = name::classify(&flag[2..])
            && let Some(confidence) = value::judge(class, flag, value, value::Written::Flag)
            && let Some(rule) = self.rule_named(generic(class))
        {
            let mut raw = self.raw(rule, value, 0..value.len(), clean(flag), 0);
            raw.confidence = confidence;
            finds.push(raw);
        }
    }

    pub(super) fn env_value(&self, name: &[u8], text: &[u8], finds: &mut Finds) {
        let trimmed = text.trim_ascii();
        if trimmed.len() < 4 {
            return;
        }
        let exact = self.env.get(name).into_iter().flatten();
        let prefixed = self
            .env_prefix
            .iter()
            .filter(|(p, _)| name.starts_with(p))
            .map(|(_, i)| i);
        for &rule in exact.chain(prefixed) {
            let rule = rule as usize;
            if finds
                .list
                .iter()
                .any(|f| f.rule == rule || (f.rank >= 1 && f.span.len() * 2 >= trimmed.len()))
            {
                continue;
            }
            let spec = &self.rules[rule].spec;
            // An issuer that gives its tokens a form gives them a length, too.
            if !spec.regex.is_empty() && trimmed.len() < FORMED_MIN {
                continue;
            }
            if doubt(trimmed) >= Doubt::Word
                || spec.public
                || value::judge(
                    name::NameClass::Password,
                    name,
                    trimmed,
                    value::Written::Bare,
                )
                .is_none()
            {
                continue;
            }
            let derived = derive::derive(
                if spec.identifier.is_empty() {
                    "none"
                } else {
                    &spec.identifier
                },
                trimmed,
            );
            let mut raw = self.raw(rule, trimmed, 0..text.len(), derived.identifier, 1);
            raw.expires = derived.expires;
            // The name is the issuer's, the form is not proved.
            raw.confidence = if spec.regex.is_empty() {
                spec.confidence
            } else {
                (spec.confidence * 0.8).min(0.8)
            };
            finds.push(raw);
        }
        if !finds.list.iter().any(|found| found.rank >= 1) {
            self.env_near(name, text, finds);
        }
        if let Some(class) = name::classify(name)
            && let Some(confidence) = value::judge(class, name, trimmed, value::Written::Bare)
            && let Some(rule) = self.rule_named(generic(class))
        {
            let mut raw = self.raw(rule, trimmed, 0..text.len(), clean(name), 0);
            raw.confidence = confidence;
            finds.push(raw);
        }
    }

    /// Rules that look for a value after a word: in an environment the name of the variable holds the word.
    fn env_near(&self, name: &[u8], text: &[u8], finds: &mut Finds) {
        if text.len() > NEAR_NAME || name.len() > NEAR_NAME {
            return;
        }
        let start = name.len() + 1;
        let line = zeroize::Zeroizing::new([name, b"=", text].concat());
        let mut found = Finds::of(&line);
        self.prefilter.scan(&line[..start], |from, to, hook| {
            if let Hook::Near(rule) = hook {
                let index = rule as usize;
                token::after_word(&line, from..to, &self.rules[index], index, &mut found);
            }
        });
        for mut raw in found.list {
            let places = raw.parts.iter_mut().map(|part| &mut part.span);
            for place in places.chain([&mut raw.span]) {
                *place = place.start.saturating_sub(start)..place.end.saturating_sub(start);
            }
            finds.push(raw);
        }
    }

    /// A file that holds one word and has the name of a secret: `/run/secrets/db_password`, `~/.config/restic/password`,
    /// `config/credentials/production.key`.
    pub(super) fn named_file(&self, path: &str, text: &[u8], finds: &mut Finds) {
        let value = text.trim_ascii();
        if !NAMED_FILE.contains(&value.len())
            || value.iter().any(|b| b.is_ascii_whitespace() || *b < 0x20)
            // A branch may have any name, and holds a commit.
            || path.contains("/.git/")
            // Fields, as of `.pgpass` and `.htpasswd`.
            || value.contains(&b':')
        {
            return;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".txt").unwrap_or(name).as_bytes();
        let class = match name::classify(name) {
            Some(name::NameClass::Key) if name.ends_with(b".key") => name::NameClass::Secret,
            None | Some(name::NameClass::Key) => return,
            Some(class) => class,
        };
        if let Some(confidence) = value::judge_alone(class, name, value)
            && let Some(rule) = self.rule_named(generic(class))
        {
            let start = text.len() - text.trim_ascii_start().len();
            let mut raw = self.raw(rule, value, start..start + value.len(), clean(name), 0);
            raw.confidence = confidence;
            finds.push(raw);
        }
    }

    pub(super) fn url(&self, text: &[u8], at: usize, finds: &mut Finds) {
        let Some(url) = derive::url::at(text, at) else {
            return;
        };
        let password = &text[url.password.clone()];
        // https://TOKEN@host and https://TOKEN:x-oauth-basic@host: the user is the secret.
        let secret_user = &text[url.user.clone()];
        if text[url.scheme.clone()].starts_with(b"http") && user_is_secret(secret_user, password) {
            if let Some(rule) = self.rule_named("url-password") {
                let identifier = clean(&text[url.host.clone()]);
                finds.push(self.raw(rule, secret_user, url.user.clone(), identifier, 1));
            }
            return;
        }
        if password.len() < 4 || url.host.is_empty() {
            return;
        }
        let verdict = doubt(password);
        let user = &text[url.user.clone()];
        if is_no_login(user, password, verdict) {
            return;
        }
        let Some(rule) = self.rule_named(rule_of_scheme(&text[url.scheme.clone()])) else {
            return;
        };
        let identifier = derive::url::identifier(text, &url);
        let decoded = percent_decode(password);
        let mut raw = self.raw(rule, &decoded, url.password.clone(), identifier, 2);
        if self.rules[rule].spec.name == "postgresql-url" {
            raw.login = String::from_utf8_lossy(&percent_decode(user)).into_owned();
        }
        let host = &text[url.host.clone()];
        let random = looks_random(&decoded);
        let web = rule == self.rule_named("url-password").unwrap_or(usize::MAX);
        let manual = is_host_of_manuals(host);
        let named = password.iter().all(u8::is_ascii_alphabetic)
            && [&b"pass"[..], b"password", b"pwd"]
                .iter()
                .any(|word| password.to_ascii_lowercase().ends_with(word));
        let doubtful = manual || named || user == password || verdict != Doubt::None;
        if !random && (web && doubtful || manual && verdict == Doubt::Word) {
            return;
        }
        if verdict == Doubt::Word {
            raw.confidence = 0.3;
        }
        if user == password {
            raw.confidence = raw.confidence.min(0.5);
        }
        if verdict == Doubt::Soft {
            raw.confidence = raw.confidence.min(0.45);
        }
        if manual {
            raw.confidence = raw.confidence.min(0.6);
        }
        if web && !random {
            raw.confidence *= 0.8;
        }
        finds.push(raw);
    }

    /// A private key: its kind follows from its form and from where it lies.
    pub(crate) fn pem(
        &self,
        text: &[u8],
        path: &str,
        mut key: pem::PemKey,
        rank: u8,
        finds: &mut Finds,
    ) {
        let name = if key.ssh {
            if path.contains("/ssh_host_") {
                "ssh-host-key"
            } else {
                "ssh-private-key"
            }
        } else if key.label.starts_with("PGP") {
            "pgp-private-key"
        } else if path.contains("/kubernetes/pki/") || path.contains("/etcd/pki/") {
            "kubernetes-pki-key"
        } else if path.contains("/kubelet/pki/") {
            "kubelet-client-key"
        } else if path.contains("/ssh_host_") {
            "ssh-host-key"
        } else if path.contains("/.ssh/") {
            "ssh-private-key"
        } else if path.contains("/etc/ssl/")
            || path.contains("/letsencrypt/")
            || path.contains("/etc/pki/")
        {
            "tls-private-key"
        } else if path.contains("/.oci/") {
            "oci-api-key"
        } else {
            "private-key"
        };
        let certificate = if key.ssh {
            None
        } else {
            finds.certificate(text).cloned()
        };
        let name = if name == "private-key" && certificate.is_some() {
            "tls-private-key"
        } else {
            name
        };
        let Some(rule) = self.rule_named(name) else {
            return;
        };
        let mut confidence = self.rules[rule].spec.confidence;
        // A body that does not decode is a sample in documentation or a damaged key.
        if !key.sound {
            confidence *= 0.6;
        }
        let mut identifier = key.identifier.clone();
        let mut expires = None;
        let mut public = Vec::new();
        if let Some(certificate) = certificate {
            expires = Some(certificate.not_after);
            identifier = if key.encrypted {
                format!("{} (encrypted)", certificate.identifier())
            } else {
                certificate.identifier()
            };
            public.push(certificate.subject);
        }
        let span = key.span.clone();
        let parts = vec![pem::to_part(&mut key)];
        finds.push(Raw {
            rule,
            kind: None,
            span,
            parts,
            identifier,
            expires,
            public,
            key: key.public.take(),
            confidence,
            rank,
            ..Raw::default()
        });
    }
}

pub(super) fn generic(class: name::NameClass) -> &'static str {
    match class {
        name::NameClass::Password => "generic-password",
        name::NameClass::Secret => "generic-secret",
        name::NameClass::Key => "generic-key",
    }
}

/// Whether what stands before the `@` of an URL is something else than a user and his password.
fn is_no_login(user: &[u8], password: &[u8], verdict: Doubt) -> bool {
    // `:pserver:anoncvs@`: a method, not a password.
    if user.is_empty() && password.contains(&b':') {
        return true;
    }
    // `[::1]:8080/@scope/name`: a bracketed address is a host, not a user.
    if user.starts_with(b"[") || password.ends_with(b"]") {
        return true;
    }
    // `user:password@host` is how manuals write it.
    let manual = verdict == Doubt::Word
        && (password.len() <= 2
            || password[..2].eq_ignore_ascii_case(b"pa")
            || password[..2].eq_ignore_ascii_case(b"pw"));
    verdict == Doubt::Hard
        || manual
        || doubt(user) == Doubt::Hard && password.len() < 8 && user.starts_with(b"<")
}

/// The rule of a password in an URL, by what speaks its scheme.
fn rule_of_scheme(scheme: &[u8]) -> &'static str {
    let scheme = scheme.to_ascii_lowercase();
    let scheme = String::from_utf8_lossy(&scheme);
    let scheme = scheme.rsplit("jdbc:").next().unwrap_or_default();
    let base = scheme.split('+').next().unwrap_or_default();
    match base {
        "postgres" | "postgresql" | "psql" | "redshift" | "cockroachdb" | "timescaledb" => {
            "postgresql-url"
        }
        "mysql" | "mysqlx" | "mariadb" | "mysql2" => "mysql-url",
        "mongodb" => "mongodb-url",
        "redis" | "rediss" | "valkey" => "redis-url",
        "amqp" | "amqps" => "amqp-url",
        "mssql" | "sqlserver" | "oracle" | "clickhouse" | "snowflake" | "cassandra" | "neo4j"
        | "bolt" | "jdbc" => "database-url",
        _ => "url-password",
    }
}

/// Hosts of manuals (RFC 2606 and their imitations).
fn is_host_of_manuals(host: &[u8]) -> bool {
    host.windows(7).any(|w| w.eq_ignore_ascii_case(b"example"))
        || host.windows(5).any(|w| w.eq_ignore_ascii_case(b"bogus"))
        || host.starts_with(b"[2001:db8:")
}

fn percent_decode(text: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(text.len()));
    let mut i = 0;
    while i < text.len() {
        let hex = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16));
        if text[i] == b'%'
            && let (Some(high), Some(low)) = (hex(text.get(i + 1)), hex(text.get(i + 2)))
        {
            out.push((high * 16 + low) as u8);
            i += 3;
        } else {
            out.push(text[i]);
            i += 1;
        }
    }
    out
}
