//! Tables whose header names a column of secrets: CSV and its kin, Markdown, what password managers and consoles export.

use super::Context;
use super::lines::{lines, show};
use crate::api::Origin;
use crate::classifier::text_kind;
use crate::scan::assign::TextKind;
use crate::scan::name::{NameClass, classify};
use crate::scan::value::{Written, judge};
use std::ops::Range;

const MAX_COLUMNS: usize = 64;
/// Longest name of a column, bytes.
const MAX_TITLE: usize = 40;

/// What a cell must be worth: manuals have tables of settings with words in them.
const LEAST: f64 = 0.5;

struct Column {
    at: usize,
    class: NameClass,
    title: Vec<u8>,
}

struct Header {
    separator: u8,
    columns: usize,
    secret: Vec<Column>,
    /// The column that says whose the secret is.
    owner: Option<usize>,
}

impl Header {
    /// The line before has as many cells, so that this one is a row below another header.
    fn continues(&self, last: &[u8]) -> bool {
        !last.is_empty()
            // Excel's line that tells the separator.
            && !last.starts_with(b"sep=")
            && cells(last, self.separator).len() == self.columns
    }
}

pub fn parse(context: &mut Context<'_, '_>) {
    // Arguments of calls, one a line, look like rows.
    if text_kind(context.path) == TextKind::Source {
        return;
    }
    let text = context.text;
    let mut header: Option<Header> = None;
    let mut found = Vec::new();
    let mut before: &[u8] = b"";
    for (start, line) in lines(text) {
        let last = std::mem::replace(&mut before, line);
        let row = header
            .as_ref()
            .map(|header| (header, cells(line, header.separator)));
        match row {
            Some((header, cells)) if cells.len() == header.columns && !line.is_empty() => {
                take(context, header, line, start, &cells, &mut found);
            }
            // A row of the same table has as many cells, whatever the words in it.
            _ => header = read_header(line).filter(|header| !header.continues(last)),
        }
        if context.finds.full() || found.len() > super::super::scan::MAX_FINDINGS {
            break;
        }
    }
    for (span, identifier, confidence) in found {
        if let Some(raw) = context.emit_at("table-secret", &text[span.clone()], span, identifier) {
            raw.confidence = confidence;
            // What a name tells never outranks what a form tells.
            raw.rank = 0;
        }
    }
}

/// Place, whose it is, confidence.
type Found = (Range<usize>, String, f64);

/// The secrets of one row.
fn take(
    context: &Context<'_, '_>,
    header: &Header,
    line: &[u8],
    start: usize,
    cells: &[Range<usize>],
    found: &mut Vec<Found>,
) {
    for column in &header.secret {
        let Some(cell) = cells.get(column.at) else {
            continue;
        };
        let value = &line[cell.clone()];
        // A blank makes it prose; a table of one word in each cell is a vocabulary.
        let Some(confidence) = judge(column.class, &column.title, value, Written::Compared)
            .filter(|confidence| *confidence >= LEAST && !value.contains(&b' '))
        else {
            continue;
        };
        let known = context.classifier.classify_value(value, Origin::Text);
        if known.iter().any(|f| f.specific() && !f.parts.is_empty()) {
            // The scan of the text finds it as what it is.
            continue;
        }
        let owner = header
            .owner
            .and_then(|at| cells.get(at))
            .map(|cell| show(&line[cell.clone()]))
            .unwrap_or_default();
        found.push((start + cell.start..start + cell.end, owner, confidence));
    }
}

fn read_header(line: &[u8]) -> Option<Header> {
    if line.len() > 2048 {
        return None;
    }
    [b',', b'\t', b';', b'|']
        .into_iter()
        .find_map(|separator| header_of(line, separator))
}

/// A line of short names, one of which sounds secret.
fn header_of(line: &[u8], separator: u8) -> Option<Header> {
    // Only in Markdown a table may be set in.
    if separator != b'|' && line.first().is_none_or(u8::is_ascii_whitespace) {
        return None;
    }
    let cells = cells(line, separator);
    if cells.len() < 2 || cells.len() > MAX_COLUMNS {
        return None;
    }
    let mut secret = Vec::new();
    let mut owner = None;
    for (at, cell) in cells.iter().enumerate() {
        let title = &line[cell.clone()];
        let good = title.len() <= MAX_TITLE
            && title.iter().all(|b| {
                b.is_ascii_alphanumeric() || b" _-.()#".contains(b) || *b >= 0x80
            })
            // A number or a version names no column.
            && (!title.iter().any(u8::is_ascii_digit) || title.iter().any(u8::is_ascii_alphabetic))
            // A sentence has more words.
            && title.iter().filter(|b| **b == b' ').count() <= 3;
        if !good || title.is_empty() {
            return None;
        }
        if let Some(class) = classify(title) {
            secret.push(Column {
                at,
                class,
                title: title.to_vec(),
            });
        } else if owner.is_none() && names_owner(title) {
            owner = Some(at);
        }
    }
    (!secret.is_empty()).then_some(Header {
        separator,
        columns: cells.len(),
        secret,
        owner,
    })
}

fn names_owner(title: &[u8]) -> bool {
    let title = title.to_ascii_lowercase();
    [
        "user",
        "login",
        "account",
        "email",
        "name",
        "host",
        "access key",
    ]
    .iter()
    .any(|word| memchr::memmem::find(&title, word.as_bytes()).is_some())
}

/// The cells of a line without their quotes, white space and, in Markdown, outer bars and code signs.
fn cells(line: &[u8], separator: u8) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let (mut from, mut to) = (0, line.len());
    if separator == b'|' {
        let trimmed = line.trim_ascii();
        let lead = line.len() - line.trim_ascii_start().len();
        if trimmed.len() >= 2 && trimmed[0] == b'|' && trimmed.ends_with(b"|") {
            (from, to) = (lead + 1, lead + trimmed.len() - 1);
        }
        start = from;
    }
    for i in from..to {
        match line[i] {
            b'"' if separator != b'|' => quoted = !quoted,
            b if b == separator && !quoted => {
                out.push(trim(line, start..i));
                start = i + 1;
                if out.len() > MAX_COLUMNS {
                    return out;
                }
            }
            _ => {}
        }
    }
    if start <= to {
        out.push(trim(line, start..to));
    }
    out
}

fn trim(line: &[u8], cell: Range<usize>) -> Range<usize> {
    let mut cell = cell;
    while cell.start < cell.end && line[cell.start].is_ascii_whitespace() {
        cell.start += 1;
    }
    while cell.start < cell.end && line[cell.end - 1].is_ascii_whitespace() {
        cell.end -= 1;
    }
    let (start, end) = (cell.start, cell.end);
    for mark in [b'"', b'`', b'\''] {
        if end - start >= 2 && line[start] == mark && line[end - 1] == mark {
            return start + 1..end - 1;
        }
    }
    cell
}
