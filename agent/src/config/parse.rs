//! TOML with places: every complaint names the file and the line.

use std::fmt;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration is written by hand: anything larger is a mistake (or /dev/zero).
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", file.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    message: String,
}

impl ConfigError {
    /// Line of the file, from 1, when a line is to blame.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

pub(super) fn read_bounded(file: &Path) -> Result<String, ConfigError> {
    let fail = |message: String| ConfigError {
        file: file.into(),
        line: None,
        message,
    };
    let opened = std::fs::File::open(file)
        .map_err(|e| fail(format!("cannot read the configuration: {e}")))?;
    let mut bytes = Vec::new();
    opened
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fail(format!("cannot read the configuration: {e}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(
            "larger than 1 MiB: this is not a configuration".into(),
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        ConfigError {
            file: file.into(),
            line: Some(1 + before.iter().filter(|&&b| b == b'\n').count()),
            message: "not UTF-8".into(),
        }
    })
}

/// A parsed file, still with the places of everything in it.
pub(super) struct Document<'t> {
    text: &'t str,
    file: &'t Path,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    pub fn new(text: &'t str, file: &'t Path) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Document {
                text,
                file,
                root: root.into_inner(),
            }),
            Err(e) => Err(ConfigError {
                file: file.into(),
                line: e.span().map(|s| line_of(text, s.start)),
                message: e.message().trim().replace('\n', "; "),
            }),
        }
    }

    pub fn root(&self) -> Table<'_, 't> {
        Table {
            document: self,
            path: String::new(),
            table: &self.root,
        }
    }

    /// What is wrong with the file and with no line of it.
    pub fn whole(&self, message: &str) -> ConfigError {
        ConfigError {
            file: self.file.into(),
            line: None,
            message: message.to_owned(),
        }
    }

    fn error(&self, at: Range<usize>, message: String) -> ConfigError {
        ConfigError {
            file: self.file.into(),
            line: Some(line_of(self.text, at.start)),
            message,
        }
    }
}

/// One table of the document, with its name for messages.
pub(super) struct Table<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    table: &'d DeTable<'t>,
}

/// One value, with the key it belongs to.
pub(super) struct Value<'d, 't> {
    document: &'d Document<'t>,
    key: String,
    value: &'d Spanned<DeValue<'t>>,
}

impl<'d, 't> Table<'d, 't> {
    /// Calls `set` for every key, in the order of the file's keys; a key not in `known` is refused by name.
    pub fn each(
        &self,
        known: &[&str],
        mut set: impl FnMut(&str, Value<'d, 't>) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        // The first mistake in the file is the one reported: tables keep keys sorted, so sort by place.
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let full = format!("{}{name}", self.path);
            if !known.contains(&name) {
                let mut message = format!("unknown key `{}`", full.escape_debug());
                if let Some(near) = nearest(name, known) {
                    message.push_str(&format!(" (did you mean `{}{near}`?)", self.path));
                }
                return Err(self.document.error(key.span(), message));
            }
            set(
                name,
                Value {
                    document: self.document,
                    key: full,
                    value,
                },
            )?;
        }
        Ok(())
    }
}

impl<'d, 't> Value<'d, 't> {
    /// An error at this value's line: "`key` MESSAGE".
    pub fn error(&self, message: impl fmt::Display) -> ConfigError {
        self.document
            .error(self.value.span(), format!("`{}` {message}", self.key))
    }

    fn expected(&self, what: &str) -> ConfigError {
        self.error(format!(
            "must be {what}, not {}",
            article(self.value.get_ref().type_str())
        ))
    }

    pub fn string(&self) -> Result<String, ConfigError> {
        let text = self
            .value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.expected("a string"))?;
        if text.contains('\0') {
            return Err(self.error("must not contain a NUL character"));
        }
        Ok(text.to_owned())
    }

    /// An absolute path.
    pub fn path(&self) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(self.string()?);
        if !path.is_absolute() {
            return Err(self.error("must be an absolute path"));
        }
        Ok(path)
    }

    pub fn boolean(&self) -> Result<bool, ConfigError> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    /// An integer within `range`.
    pub fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = self
            .value
            .get_ref()
            .as_integer()
            .ok_or_else(|| self.expected("an integer"))?;
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                self.error(format!(
                    "must be between {} and {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    pub fn strings(&self) -> Result<Vec<String>, ConfigError> {
        let array = self
            .value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.expected("an array of strings"))?;
        array
            .iter()
            .map(|value| {
                Value {
                    document: self.document,
                    key: self.key.clone(),
                    value,
                }
                .string()
            })
            .collect()
    }

    /// The elements of an array, each with the key of the array.
    pub fn elements(&self) -> Result<Vec<Value<'d, 't>>, ConfigError> {
        let array = self
            .value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.expected("an array of tables"))?;
        let element = |value| Value {
            document: self.document,
            key: self.key.clone(),
            value,
        };
        Ok(array.iter().map(element).collect())
    }

    pub fn table(&self) -> Result<Table<'d, 't>, ConfigError> {
        let table = self
            .value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.expected("a table"))?;
        Ok(Table {
            document: self.document,
            path: format!("{}.", self.key),
            table,
        })
    }
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|&&b| b == b'\n')
        .count()
}

/// The known key a typing mistake was most likely meant to be: at most two edits and a third of its length away.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|k| (edits(name, k), *k))
        .filter(|(distance, k)| *distance <= 2.max(k.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// Levenshtein distance, in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edits("lisen", "listen"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("tier", "tier"), 0);
        assert_eq!(nearest("lisen", &["listen", "tier"]), Some("listen"));
        assert_eq!(nearest("zzzzzzzzz", &["listen", "tier"]), None);
    }
}
