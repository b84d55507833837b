//! Questions to what is on disk, from any thread: each opens the file read-only, and the writer is never waited for.

mod baselines;
mod coverage;
mod credentials;
mod findings;
mod graph;
mod passport;
mod resume;
mod used;
mod uses;

pub use resume::Resumed;

use pbjson_types::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rows of one page, when nobody says how many, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// Longest pattern or name.
const MAX_TEXT: usize = 4096;
/// Fingerprints begin with this, so people may leave it out.
const FINGERPRINT: &str = "kt1:";
/// Shortest prefix of a fingerprint's digits that is taken for one.
const FINGERPRINT_MIN: usize = 8;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It makes no sense: a sentence for who asked.
    #[error("{0}")]
    Bad(String),
    /// There is no such credential.
    #[error("{0}")]
    NotFound(String),
    #[error("{path}: {source}")]
    Database {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// Inside, SQLite's errors do without the path.
enum Fail {
    Read(ReadError),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fail {
    fn from(e: rusqlite::Error) -> Fail {
        Fail::Sql(e)
    }
}

fn bad(sentence: impl Into<String>) -> Fail {
    Fail::Read(ReadError::Bad(sentence.into()))
}

type Answer<T> = Result<T, Fail>;

/// Answers questions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Reader {
        Reader { path: path.into() }
    }

    /// Opens the file anew for each question: a damaged one may have been replaced since.
    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Answer<T>) -> Result<T, ReadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let answer = Connection::open_with_flags(&self.path, flags)
            .map_err(Fail::Sql)
            .and_then(|db| {
                db.busy_timeout(Duration::from_secs(2))?;
                // Pages are shared with the writer by the system; what is mapped is not copied.
                db.execute_batch(
                    "PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 67108864; PRAGMA cache_size = -8192;",
                )?;
                // One state of the file for the whole question.
                let transaction = db.unchecked_transaction()?;
                question(&transaction)
            });
        answer.map_err(|fail| match fail {
            Fail::Read(e) => e,
            Fail::Sql(source) => ReadError::Database {
                path: self.path.clone(),
                source,
            },
        })
    }
}

fn page(asked: u32) -> usize {
    let size = if asked == 0 { PAGE } else { asked };
    size.min(MAX_PAGE) as usize
}

/// A page token of numbers.
fn token<const N: usize>(text: &str) -> Answer<Option<[i64; N]>> {
    if text.is_empty() {
        return Ok(None);
    }
    let numbers: Option<Vec<i64>> = text.split('.').map(|n| n.parse().ok()).collect();
    numbers
        .and_then(|n| n.try_into().ok())
        .map(Some)
        .ok_or_else(|| bad("this is no page token of this question"))
}

fn make_token(numbers: &[i64]) -> String {
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    texts.join(".")
}

fn nanoseconds(time: &Timestamp) -> i64 {
    let seconds = time.seconds.saturating_mul(1_000_000_000);
    seconds.saturating_add(time.nanos.into())
}

fn timestamp(ns: i64) -> Timestamp {
    Timestamp {
        seconds: ns.div_euclid(1_000_000_000),
        nanos: ns.rem_euclid(1_000_000_000) as i32,
    }
}

/// From and to, wall-clock nanoseconds; everything when neither is said.
fn interval(from: Option<&Timestamp>, to: Option<&Timestamp>) -> Answer<(i64, i64)> {
    let from = from.map_or(0, nanoseconds);
    let to = to.map_or(i64::MAX, nanoseconds);
    if from > to {
        return Err(bad("the interval ends before it begins"));
    }
    Ok((from, to))
}

fn mark(db: &Connection, name: &str) -> Answer<Option<i64>> {
    let value = db
        .query_row("SELECT value FROM marks WHERE name = ?1", [name], |r| {
            r.get(0)
        })
        .optional()?;
    Ok(value)
}

/// Numbers as a parameter for `IN (SELECT value FROM json_each(?))`.
fn list(ids: &[i64]) -> String {
    let texts: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("[{}]", texts.join(","))
}

/// What follows the mark of a fingerprint, in either case: it is copied from anywhere.
fn without_prefix(text: &str) -> Option<&str> {
    let (mark, digits) = text.split_at_checked(FINGERPRINT.len())?;
    mark.eq_ignore_ascii_case(FINGERPRINT).then_some(digits)
}

/// The digits of what looks like a fingerprint or the beginning of one.
fn fingerprint_digits(text: &str) -> Option<String> {
    let digits = without_prefix(text).unwrap_or(text);
    let plausible = (FINGERPRINT_MIN..=32).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plausible.then(|| digits.to_ascii_lowercase())
}

/// The credentials a text names by fingerprint or identifier.
fn named(db: &Connection, text: &str) -> Answer<Vec<i64>> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(bad(
            "a credential is named by its fingerprint or identifier",
        ));
    }
    if without_prefix(text).is_some() && fingerprint_digits(text).is_none() {
        return Err(bad("a fingerprint is kt1: and at least 8 hex digits"));
    }
    if let Some(digits) = fingerprint_digits(text) {
        let mut query =
            db.prepare("SELECT id FROM credentials WHERE fingerprint >= ?1 AND fingerprint < ?2")?;
        let from = format!("{FINGERPRINT}{digits}");
        // The letter after f.
        let ids: Vec<i64> = query
            .query_map(params![from, format!("{from}g")], |r| r.get(0))?
            .collect::<Result<_, _>>()?;
        if !ids.is_empty() || text.starts_with(FINGERPRINT) {
            return Ok(ids);
        }
    }
    let mut query = db.prepare("SELECT id FROM credentials WHERE identifier = ?1")?;
    let ids = query.query_map([text], |r| r.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// The credentials a filter lets through: kind or identifier (patterns too) or fingerprint. `None`: all.
fn filtered(db: &Connection, text: &str) -> Answer<Option<Vec<i64>>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_TEXT {
        return Err(bad("this filter is too long"));
    }
    let mut ids = named(db, text)?;
    let mut query =
        db.prepare("SELECT id FROM credentials WHERE kind GLOB ?1 OR identifier GLOB ?1")?;
    // Only * and ? are patterns.
    let pattern = text.replace('[', "[[]");
    for id in query.query_map([pattern], |r| r.get(0))? {
        ids.push(id?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids))
}
