//! What a path says: which kinds live there, how bare values are read, what is published anyway.

use super::Classifier;
use crate::api::{Origin, WatchGlob};
use crate::scan::assign::TextKind;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

impl Classifier {
    pub(super) fn rules_of_path(&self, path: &str) -> Vec<u32> {
        if self.globs.get().is_none() {
            keytrail_model::scrub_stack();
        }
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
}

/// Highest confidence of what stands in documentation, test data or program code: real in form, but published.
pub(super) const SPECIMEN: f64 = 0.85;

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

/// Documentation, examples and test data by their folder; libraries and programs (self-test keys) by their first bytes.
pub(super) fn specimen(path: &str, text: &[u8]) -> bool {
    text.starts_with(b"\x7fELF") || text.starts_with(b"!<arch>\n") || is_specimen(path)
}

/// A path of documentation, examples or test data.
#[must_use]
pub fn is_specimen(path: &str) -> bool {
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

/// A path of program code, by its ending.
#[must_use]
pub fn is_source(path: &str) -> bool {
    text_kind(path) == TextKind::Source
}

pub(super) fn path_of(origin: Origin<'_>) -> &str {
    match origin {
        Origin::File { path } => path,
        _ => "",
    }
}

/// What the file's name says about bare values in it.
pub(crate) fn text_kind(path: &str) -> TextKind {
    if config_file(path) {
        return TextKind::Config;
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
        TextKind::Source
    } else {
        TextKind::Other
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
