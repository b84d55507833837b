//! The compiled rules and what they find in a text.

use super::api::{Finding, KindInfo, Origin, RuleError, WatchGlob};
use super::checks::{Doubt, doubt};
use super::derive;
use super::formats::{self, Context};
use super::rules::{Rule, builtin, load};
use super::scan::prefilter::{Hook, Prefilter};
use super::scan::{Finds, Raw, assign, name, part, pem, token, value};
use super::settle;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

/// Largest text that is looked at; what lies beyond is left out (callers sample larger files).
pub const MAX_TEXT: usize = 64 << 20;

/// Compiled rules. Immutable, so shared between threads without locks.
#[derive(Debug)]
pub struct Classifier {
    rules: Vec<Rule>,
    by_name: HashMap<String, usize>,
    prefilter: Prefilter,
    env: HashMap<Vec<u8>, Vec<u32>>,
    /// Environment names that end in `*`.
    env_prefix: Vec<(Vec<u8>, u32)>,
    globs: OnceLock<(GlobSet, Vec<u32>)>,
}

impl Classifier {
    /// The rules compiled in.
    pub fn builtin() -> Classifier {
        Classifier::from_rules(builtin::rules().0)
    }

    /// The rules compiled in and the user's `*.toml`. A user's rule with the name of another replaces it; one that
    /// does not hold (or whose own examples fail) is refused and named, the others stay.
    pub fn with_rules_dir(dir: &Path) -> (Classifier, Vec<RuleError>) {
        let (mut rules, mut errors) = builtin::rules();
        let (mine, mut bad) = load::directory(dir);
        errors.append(&mut bad);
        for rule in mine {
            if let Err(reason) = examples_hold(&rule) {
                let (file, line) = rule.place;
                errors.push(RuleError { file, line, reason });
                continue;
            }
            match rules.iter_mut().find(|r| r.spec.name == rule.spec.name) {
                Some(old) => *old = rule,
                None => rules.push(rule),
            }
        }
        (Classifier::from_rules(rules), errors)
    }

    pub fn from_rules(rules: Vec<Rule>) -> Classifier {
        let prefilter = Prefilter::new(&rules);
        let mut by_name = HashMap::new();
        let mut env: HashMap<Vec<u8>, Vec<u32>> = HashMap::new();
        let mut env_prefix = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            by_name.entry(rule.spec.name.clone()).or_insert(i);
            for name in &rule.spec.env {
                match name.strip_suffix('*') {
                    Some(prefix) => env_prefix.push((prefix.as_bytes().to_vec(), i as u32)),
                    None => env
                        .entry(name.as_bytes().to_vec())
                        .or_default()
                        .push(i as u32),
                }
            }
        }
        Classifier {
            rules,
            by_name,
            prefilter,
            env,
            env_prefix,
            globs: OnceLock::new(),
        }
    }

    /// Everything that looks like a credential, sorted by position, each once. Placeholders are left out.
    pub fn classify(&self, text: &[u8], origin: Origin<'_>) -> Vec<Finding> {
        let text = &text[..text.len().min(MAX_TEXT)];
        let mut finds = Finds::default();
        self.collect(text, origin, &mut finds);
        let mut findings = settle::settle(self, text, finds);
        if specimen(path_of(origin), text) {
            for finding in &mut findings {
                finding.confidence = finding.confidence.min(SPECIMEN);
            }
        }
        findings
    }

    /// As `classify`, without parsers of whole texts: for values that a parser took out of a text, so that hostile nesting
    /// cannot recurse.
    pub(crate) fn classify_value(&self, value: &[u8], origin: Origin<'_>) -> Vec<Finding> {
        let mut finds = Finds::default();
        self.scan_text(value, origin, &mut finds);
        settle::settle(self, value, finds)
    }

    /// A whole environment: pairs what belongs together (an AWS key id, its secret and its session token are one
    /// credential). Names with the findings of their values; places are offsets into the value.
    pub fn classify_env<'a>(
        &self,
        block: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Vec<(String, Finding)> {
        let block: Vec<(&[u8], &[u8])> = block.into_iter().take(8192).collect();
        let mut out: Vec<(String, Finding)> = Vec::new();
        for &(name, value) in &block {
            if value.len() < 4 || name.is_empty() {
                continue;
            }
            let name = String::from_utf8_lossy(name);
            let mut finds = Finds::default();
            self.collect(value, Origin::Env { name: &name }, &mut finds);
            if finds.list.is_empty() {
                continue;
            }
            for finding in settle::settle(self, value, finds) {
                out.push((name.to_string(), finding));
            }
        }
        settle::pair_env(&block, &mut out);
        out
    }

    /// The argument vector of a process. Knows flags whose value is the next argument (`-u user:password`,
    /// `--password x`). Index of the argument with the finding; places are offsets into that argument.
    pub fn classify_argv(&self, argv: &[&[u8]]) -> Vec<(usize, Finding)> {
        let mut out = Vec::new();
        let program = argv
            .first()
            .map(|a| a.rsplit(|b| *b == b'/').next().unwrap_or(a))
            .unwrap_or_default();
        for (i, arg) in argv.iter().enumerate().take(4096) {
            let mut finds = Finds::default();
            self.collect(arg, Origin::Argv { index: i as u32 }, &mut finds);
            if i >= 2 {
                self.flag_value(program, argv[i - 1], arg, &mut finds);
            }
            if finds.list.is_empty() {
                continue;
            }
            out.extend(settle::settle(self, arg, finds).into_iter().map(|f| (i, f)));
        }
        out
    }

    fn flag_value(&self, program: &[u8], flag: &[u8], value: &[u8], finds: &mut Finds) {
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
                && doubt(&value[colon + 1..]) != Doubt::Hard
                && let Some(rule) = self.rule_named("http-basic-auth")
            {
                finds.push(self.raw(
                    rule,
                    &value[colon + 1..],
                    colon + 1..value.len(),
                    token::clean(&value[..colon]),
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
            let mut raw = self.raw(rule, value, 0..value.len(), token::clean(flag), 0);
            raw.confidence = confidence;
            finds.push(raw);
        }
    }

    /// Where each kind lives, for the watcher and the inventory.
    pub fn watch_globs(&self) -> Vec<WatchGlob> {
        let mut out: Vec<WatchGlob> = self
            .rules
            .iter()
            .flat_map(|r| {
                r.spec.paths.iter().map(|glob| WatchGlob {
                    glob: glob.clone(),
                    kind: r.spec.kind.clone(),
                })
            })
            .collect();
        out.sort_by(|a, b| (&a.glob, &a.kind).cmp(&(&b.glob, &b.kind)));
        out.dedup_by(|a, b| a.glob == b.glob);
        out
    }

    /// Every rule with its kind, in the order of kinds.
    pub fn kinds(&self) -> Vec<KindInfo> {
        let mut out: Vec<KindInfo> = self
            .rules
            .iter()
            .map(|r| KindInfo {
                kind: r.spec.kind.clone(),
                rule: r.spec.name.clone(),
                description: r.spec.description.clone(),
                confidence: r.spec.confidence,
                privilege: r.spec.privilege,
                wire: r.spec.wire.clone(),
                attack: r.spec.attack.clone(),
                env: r.spec.env.clone(),
                paths: r.spec.paths.clone(),
            })
            .collect();
        out.sort_by(|a, b| (&a.kind, &a.rule).cmp(&(&b.kind, &b.rule)));
        out
    }

    pub(crate) fn rule(&self, index: usize) -> &Rule {
        &self.rules[index]
    }

    pub(crate) fn rule_named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn raw(
        &self,
        rule: usize,
        value: &[u8],
        span: std::ops::Range<usize>,
        identifier: String,
        rank: u8,
    ) -> Raw {
        Raw {
            rule,
            kind: None,
            parts: vec![part("", value, span.clone())],
            span,
            identifier,
            confidence: self.rules[rule].spec.confidence,
            rank,
            ..Raw::default()
        }
    }

    fn collect(&self, text: &[u8], origin: Origin<'_>, finds: &mut Finds) {
        let mut structures = self.scan_text(text, origin, finds);
        let path = path_of(origin);
        if !path.is_empty() {
            structures.extend(self.rules_of_path(path));
        }
        structures.sort_unstable();
        structures.dedup();
        let mut done: Vec<&str> = Vec::new();
        for rule in structures {
            let structure = self.rules[rule as usize].spec.structure.as_str();
            // One parser serves several rules; it runs once.
            if !done.contains(&structure) {
                done.push(structure);
                formats::run(
                    structure,
                    &mut Context {
                        classifier: self,
                        text,
                        path,
                        rule: rule as usize,
                        finds,
                    },
                );
            }
        }
    }

    /// The pass over the text; returns the rules whose parsers a literal called for.
    fn scan_text(&self, text: &[u8], origin: Origin<'_>, finds: &mut Finds) -> Vec<u32> {
        let path = path_of(origin);
        let mut structures: Vec<u32> = Vec::new();
        let kind = text_kind(path);
        // Message catalogues, programs, compiled code: words there are labels. A core dump or a saved environment holds
        // assignments all the same, each after a zero byte.
        let binary = memchr::memchr(0, &text[..text.len().min(8192)]).is_some();
        let mut name_end = 0;
        let mut pem_end = 0;
        self.prefilter.scan(text, |start, end, hook| {
            if finds.full() {
                finds.truncated = true;
                return;
            }
            match hook {
                Hook::Token(i) => {
                    token::at_literal(text, start..end, &self.rules[i as usize], i as usize, finds)
                }
                Hook::Near(i) => {
                    token::after_word(text, start..end, &self.rules[i as usize], i as usize, finds)
                }
                Hook::Structure(i) => {
                    if !structures.contains(&i) {
                        structures.push(i);
                    }
                }
                Hook::Assign => {
                    if end <= name_end {
                        return;
                    }
                    let name = assign::name_around(text, &(start..end));
                    name_end = name.end;
                    if binary
                        && !(text.get(name.end) == Some(&b'=')
                            && name
                                .start
                                .checked_sub(1)
                                .is_none_or(|i| matches!(text[i], 0 | b'\n')))
                    {
                        return;
                    }
                    if let Some(found) = assign::read(text, name, kind)
                        && let Some(rule) = self.rule_named(generic(found.class))
                    {
                        let label = token::clean(&text[found.name]);
                        let mut raw = self.raw(
                            rule,
                            text[found.value.clone()].trim_ascii(),
                            found.value,
                            label,
                            0,
                        );
                        raw.confidence = found.confidence;
                        finds.push(raw);
                    }
                }
                Hook::Url => self.url(text, start, finds),
                Hook::Pem => {
                    if start >= pem_end
                        && let Some(key) = pem::at(text, start)
                    {
                        pem_end = key.span.end;
                        self.pem(text, path, key, 2, finds);
                    }
                }
            }
        });
        if let Origin::Env { name } = origin {
            self.env_value(name.as_bytes(), text, finds);
        }
        structures
    }

    fn env_value(&self, name: &[u8], text: &[u8], finds: &mut Finds) {
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
        if let Some(class) = name::classify(name)
            && let Some(confidence) = value::judge(class, name, trimmed, value::Written::Bare)
            && let Some(rule) = self.rule_named(generic(class))
        {
            let mut raw = self.raw(rule, trimmed, 0..text.len(), token::clean(name), 0);
            raw.confidence = confidence;
            finds.push(raw);
        }
    }

    fn url(&self, text: &[u8], at: usize, finds: &mut Finds) {
        let Some(url) = derive::url::at(text, at) else {
            return;
        };
        let password = &text[url.password.clone()];
        if password.len() < 4 || url.host.is_empty() {
            return;
        }
        let verdict = doubt(password);
        let user = &text[url.user.clone()];
        // `:pserver:anoncvs@`: a method, not a password.
        if user.is_empty() && password.contains(&b':') {
            return;
        }
        // `[::1]:8080/@scope/name`: a bracketed address is a host, not a user.
        if user.starts_with(b"[") {
            return;
        }
        // `user:password@host` is how manuals write it.
        let manual = verdict == Doubt::Word
            && (password.len() <= 2
                || password[..2].eq_ignore_ascii_case(b"pa")
                || password[..2].eq_ignore_ascii_case(b"pw"));
        if verdict == Doubt::Hard
            || manual
            || doubt(user) == Doubt::Hard && password.len() < 8 && user.starts_with(b"<")
        {
            return;
        }
        let scheme = text[url.scheme.clone()].to_ascii_lowercase();
        let scheme = String::from_utf8_lossy(&scheme);
        let scheme = scheme.rsplit("jdbc:").next().unwrap_or_default();
        let base = scheme.split('+').next().unwrap_or_default();
        let rule = match base {
            "postgres" | "postgresql" | "psql" | "redshift" | "cockroachdb" | "timescaledb" => {
                "postgresql-url"
            }
            "mysql" | "mysqlx" | "mariadb" | "mysql2" => "mysql-url",
            "mongodb" => "mongodb-url",
            "redis" | "rediss" | "valkey" => "redis-url",
            "amqp" | "amqps" => "amqp-url",
            "mssql" | "sqlserver" | "oracle" | "clickhouse" | "snowflake" | "cassandra"
            | "neo4j" | "bolt" | "jdbc" => "database-url",
            _ => "url-password",
        };
        let Some(rule) = self.rule_named(rule) else {
            return;
        };
        let identifier = derive::url::identifier(text, &url);
        let decoded = percent_decode(password);
        let mut raw = self.raw(rule, &decoded, url.password.clone(), identifier, 2);
        let host = &text[url.host.clone()];
        let random = super::checks::looks_random(&decoded);
        let web = rule == self.rule_named("url-password").unwrap_or(usize::MAX);
        // Hosts of manuals (RFC 2606 and their imitations).
        let manual = host.windows(7).any(|w| w.eq_ignore_ascii_case(b"example"))
            || host.windows(5).any(|w| w.eq_ignore_ascii_case(b"bogus"))
            || host.starts_with(b"[2001:db8:");
        let doubtful = manual || user == password || verdict != Doubt::None;
        if !random && (web && doubtful || manual && verdict == Doubt::Word) {
            return;
        }
        if verdict == Doubt::Word {
            raw.confidence = 0.3;
        }
        if verdict == Doubt::Soft || user == password {
            raw.confidence = raw.confidence.min(0.5);
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
        let certificate = if key.ssh { None } else { pem::paired(text) };
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
            confidence,
            rank,
        });
    }

    fn rules_of_path(&self, path: &str) -> Vec<u32> {
        let (set, owners) = self.globs.get_or_init(|| {
            let mut builder = GlobSetBuilder::new();
            let mut owners = Vec::new();
            for (i, rule) in self.rules.iter().enumerate() {
                for glob in &rule.spec.paths {
                    // Homes and container roots lie anywhere.
                    let wide = match glob.strip_prefix('~') {
                        Some(rest) => format!("**{rest}"),
                        None if glob.starts_with('/') => format!("**{glob}"),
                        None => glob.clone(),
                    };
                    if let Ok(glob) = GlobBuilder::new(&wide).literal_separator(true).build() {
                        builder.add(glob);
                        owners.push(i as u32);
                    }
                }
            }
            (builder.build().unwrap_or_else(|_| GlobSet::empty()), owners)
        });
        if public_file(path) {
            return Vec::new();
        }
        let mut out: Vec<u32> = set.matches(path).into_iter().map(|i| owners[i]).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Kinds whose usual place the path is, whatever it holds.
    pub fn kinds_of_path(&self, path: &str) -> Vec<&str> {
        let mut out: Vec<&str> = self
            .rules_of_path(path)
            .into_iter()
            .map(|i| self.rules[i as usize].spec.kind.as_str())
            .collect();
        out.dedup();
        out
    }
}

/// Files that lie beside secrets and hold none: public halves, certificates, templates of environment files.
fn public_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    matches!(
        name,
        "cert.pem"
            | "fullchain.pem"
            | "chain.pem"
            | "ca.pem"
            | "cacert.pem"
            | "ca-cert.pem"
            | "ca-bundle.pem"
    ) || matches!(ending, "pub" | "crt" | "cer" | "csr")
        || path.contains("/ssl/certs/")
        || name.starts_with(".env.")
            && matches!(
                ending,
                "example"
                    | "sample"
                    | "template"
                    | "dist"
                    | "md"
                    | "rs"
                    | "js"
                    | "ts"
                    | "py"
                    | "go"
            )
}

/// Highest confidence of what stands in documentation, test data or program code: real in form, but published.
const SPECIMEN: f64 = 0.85;

/// Documentation, examples and test data by their folder; libraries and programs (self-test keys) by their first bytes.
fn specimen(path: &str, text: &[u8]) -> bool {
    if text.starts_with(b"\x7fELF") || text.starts_with(b"!<arch>\n") {
        return true;
    }
    path.split('/').any(|part| {
        matches!(
            part,
            "doc"
                | "docs"
                | "man"
                | "test"
                | "tests"
                | "testdata"
                | "test_data"
                | "testing"
                | "fixtures"
                | "example"
                | "examples"
                | "__pycache__"
                | "dummyserver"
        ) || part.ends_with(".egg-info")
            || part.ends_with(".dist-info")
    })
}

fn path_of(origin: Origin<'_>) -> &str {
    match origin {
        Origin::File { path } => path,
        _ => "",
    }
}

fn generic(class: name::NameClass) -> &'static str {
    match class {
        name::NameClass::Password => "generic-password",
        name::NameClass::Secret => "generic-secret",
        name::NameClass::Key => "generic-key",
    }
}

/// What the file's name says about bare values in it.
fn text_kind(path: &str) -> assign::TextKind {
    if config_file(path) {
        return assign::TextKind::Config;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let source = name.rsplit_once('.').is_some_and(|(_, ending)| {
        matches!(
            ending,
            "py" | "pyi"
                | "js"
                | "mjs"
                | "cjs"
                | "jsx"
                | "ts"
                | "tsx"
                | "go"
                | "rs"
                | "java"
                | "kt"
                | "scala"
                | "groovy"
                | "c"
                | "h"
                | "cc"
                | "cpp"
                | "hpp"
                | "cs"
                | "rb"
                | "php"
                | "pl"
                | "pm"
                | "swift"
                | "m"
                | "lua"
                | "ex"
                | "exs"
                | "erl"
                | "hs"
                | "dart"
                | "vue"
        )
    });
    if source {
        assign::TextKind::Source
    } else {
        assign::TextKind::Other
    }
}

/// Files whose bare values are literals.
fn config_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with(".env")
        || name.ends_with(".env")
        || name.ends_with("_history")
        || name == "credentials"
        || name == "environment"
    {
        return true;
    }
    matches!(
        name.rsplit('.').next().unwrap_or_default(),
        "ini"
            | "cfg"
            | "conf"
            | "cnf"
            | "properties"
            | "env"
            | "yml"
            | "yaml"
            | "toml"
            | "tfvars"
            | "config"
    )
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

/// Runs a rule's own examples: every positive one must be found by the rule, no negative one.
pub fn examples_hold(rule: &Rule) -> Result<(), String> {
    let spec = rule.spec.clone();
    let name = spec.name.clone();
    let (positive, negative) = (spec.positive.clone(), spec.negative.clone());
    let alone = Classifier::from_rules(vec![Rule::new(spec)]);
    for (expected, examples) in [(true, &positive), (false, &negative)] {
        for (i, example) in examples.iter().enumerate() {
            let text = super::rules::template::expand(example.text(), i as u64 + 7)
                .map_err(|e| format!("rule {name}: {e}"))?;
            let found = !super::tests_support::classify_example(&alone, example, &text).is_empty();
            if found != expected {
                let what = if expected {
                    "positive example is not found"
                } else {
                    "negative example is found"
                };
                return Err(format!("rule {name}: {what}: {:?}", example.text()));
            }
        }
    }
    Ok(())
}
