//! Rows of one table of an SQLite database, by its published file format (sqlite.org/fileformat2.html), from an open
//! file: SQLite itself opens by path, and a path of another mount namespace names another file here.
//!
//! A write-ahead log beside the file is not applied: the rows are those of the last checkpoint. A file made to mislead
//! costs a bounded time: each page of the tree is visited once, and rows have a budget of bytes.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Pages of a database at most: 4 GiB in pages of 4 KiB.
const MAX_PAGES: u64 = 1 << 20;
/// Longest row.
const MAX_ROW: usize = 32 << 20;
/// Bytes of all rows of a table together.
const BUDGET: usize = 2 << 30;

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// An open database.
pub struct Database {
    file: File,
    page_size: usize,
    /// Bytes of a page without those of extensions at its end.
    usable: usize,
    pages: u32,
}

impl Database {
    /// `None` when it is no database.
    pub fn open(file: File) -> Option<Database> {
        let mut head = [0; 100];
        file.read_exact_at(&mut head, 0).ok()?;
        let rest = head.strip_prefix(b"SQLite format 3\0")?;
        let page_size = match u16::from_be_bytes([*rest.first()?, *rest.get(1)?]) {
            1 => 65_536,
            n => usize::from(n),
        };
        if page_size < 512 || !page_size.is_power_of_two() {
            return None;
        }
        let usable = page_size - usize::from(*rest.get(4)?);
        let pages = file.metadata().ok()?.len() / page_size as u64;
        Some(Database {
            file,
            page_size,
            usable: if usable < 480 { return None } else { usable },
            pages: u32::try_from(pages.min(MAX_PAGES)).ok()?,
        })
    }

    /// Calls `f` with the first values of each row of the table.
    pub fn rows<const N: usize>(&self, table: &[u8], f: impl FnMut([Value<'_>; N])) -> Option<()> {
        let mut root = None;
        self.walk(1, |[kind, name, _, page, _]: [Value<'_>; 5]| {
            if kind == Value::Bytes(b"table")
                && name == Value::Bytes(table)
                && let Value::Integer(page) = page
            {
                root = u32::try_from(page).ok();
            }
        });
        self.walk(root?, f);
        Some(())
    }

    fn walk<const N: usize>(&self, root: u32, mut f: impl FnMut([Value<'_>; N])) {
        // A page is put down for a visit once, whatever number of cells name it. There is no page 0.
        let mut seen = vec![false; self.pages as usize + 1];
        let mut visit = |number: Option<u32>, left: &mut Vec<u32>| {
            if let Some(number) = number.filter(|n| *n > 0)
                && let Some(seen @ false) = seen.get_mut(number as usize)
            {
                *seen = true;
                left.push(number);
            }
        };
        let mut left = Vec::new();
        visit(Some(root), &mut left);
        let mut page = vec![0; self.page_size];
        let mut row = Vec::new();
        let mut budget = BUDGET;
        while let Some(number) = left.pop() {
            if self.read(number, &mut page).is_none() {
                continue;
            }
            // The first page begins with the header of the file.
            let header = if number == 1 { 100 } else { 0 };
            let Some(&[kind, _, _, high, low]) = page.get(header..header + 5) else {
                continue;
            };
            let cells = usize::from(u16::from_be_bytes([high, low]));
            // A leaf of a table, or an inner page, whose header ends with the last child.
            let pointers = match kind {
                13 => header + 8,
                5 => {
                    visit(u32_at(&page, header + 8), &mut left);
                    header + 12
                }
                _ => continue,
            };
            for cell in 0..cells.min(self.page_size / 2) {
                let Some(&[high, low]) = page.get(pointers + 2 * cell..pointers + 2 * cell + 2)
                else {
                    break;
                };
                let at = usize::from(u16::from_be_bytes([high, low]));
                if kind == 5 {
                    visit(u32_at(&page, at), &mut left);
                } else if self.row(&page, at, &mut row, &mut budget).is_some()
                    && let Some(values) = values(&row)
                {
                    f(values);
                }
            }
        }
    }

    fn read(&self, number: u32, page: &mut [u8]) -> Option<()> {
        let at = u64::from(number.checked_sub(1)?) * self.page_size as u64;
        self.file.read_exact_at(page, at).ok()
    }

    /// A row with what overflow pages hold of it.
    fn row(&self, page: &[u8], at: usize, row: &mut Vec<u8>, budget: &mut usize) -> Option<()> {
        let cell = page.get(at..self.usable)?;
        let (length, a) = varint(cell)?;
        let (_rowid, b) = varint(cell.get(a..)?)?;
        let cell = cell.get(a + b..)?;
        let length = usize::try_from(length).ok().filter(|n| *n <= MAX_ROW)?;
        // A row without bytes takes time too.
        *budget = budget.checked_sub(length.max(16))?;
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        let local = if length <= most {
            length
        } else {
            let fitting = least + (length - least) % (self.usable - 4);
            if fitting <= most { fitting } else { least }
        };
        row.clear();
        row.extend_from_slice(cell.get(..local)?);
        let mut next = u32_at(cell, local);
        let mut more = vec![0; if local < length { self.page_size } else { 0 }];
        while row.len() < length {
            // Each turn takes bytes, so a chain that is a circle ends.
            self.read(next?, &mut more)?;
            next = u32_at(&more, 0);
            let n = (length - row.len()).min(self.usable - 4);
            row.extend_from_slice(more.get(4..4 + n)?);
        }
        Some(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_be_bytes(*b))
}

/// A variable-length integer and its length.
fn varint(data: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &b) in data.iter().take(9).enumerate() {
        if i == 8 {
            return Some((value << 8 | u64::from(b), 9));
        }
        value = value << 7 | u64::from(b & 0x7f);
        if b < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// The first values of a record; those it does not have are NULL.
fn values<const N: usize>(record: &[u8]) -> Option<[Value<'_>; N]> {
    let (end, mut at) = varint(record)?;
    let mut body = usize::try_from(end).ok()?;
    let types = record.get(..body)?;
    let mut values = [Value::Null; N];
    for value in &mut values {
        let Some((kind, n)) = types.get(at..).and_then(varint) else {
            break;
        };
        at += n;
        let length = match kind {
            0 | 8..=11 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = record.get(body..body.checked_add(length)?)?;
        body += length;
        *value = match kind {
            1..=6 => Value::Integer(integer(bytes)),
            8 | 9 => Value::Integer(kind as i64 - 8),
            12.. => Value::Bytes(bytes),
            _ => Value::Null,
        };
    }
    Some(values)
}

/// Up to eight bytes, the first one with the sign.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|b| *b >= 0x80);
    bytes
        .iter()
        .fold(if negative { -1 } else { 0 }, |n, b| n << 8 | i64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &std::path::Path, page_size: u32) -> std::path::PathBuf {
        let path = dir.join(format!("{page_size}.sqlite"));
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA page_size={page_size}; CREATE TABLE other(a, b); INSERT INTO other VALUES (1, 'no');
             CREATE TABLE t(n INTEGER PRIMARY KEY, i, b); BEGIN"
        ))
        .unwrap();
        for n in 0..2000i64 {
            let blob = vec![n as u8; (n * 37 % 5000) as usize];
            db.execute(
                "INSERT INTO t(i, b) VALUES (?1, ?2)",
                (n * n * n - 4000, blob),
            )
            .unwrap();
        }
        db.execute_batch("COMMIT; DELETE FROM t WHERE n % 7 = 0")
            .unwrap();
        path
    }

    #[test]
    fn all_rows_of_a_table_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        for size in [512, 4096, 65_536] {
            let database = Database::open(File::open(made(dir.path(), size)).unwrap()).unwrap();
            let mut found = Vec::new();
            let read = database.rows(b"t", |[_, i, b]: [Value<'_>; 3]| {
                let Value::Integer(i) = i else {
                    panic!("{i:?}")
                };
                found.push((i, b.bytes().to_vec()));
            });
            assert!(read.is_some());
            found.sort_unstable();
            let expected: Vec<(i64, Vec<u8>)> = (0..2000i64)
                .filter(|n| (n + 1) % 7 != 0)
                .map(|n| (n * n * n - 4000, vec![n as u8; (n * 37 % 5000) as usize]))
                .collect();
            assert_eq!(found, expected, "pages of {size}");
            assert!(database.rows(b"none", |_: [Value<'_>; 1]| ()).is_none());
        }
    }

    #[test]
    fn damaged_files_end() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(made(dir.path(), 512)).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..200 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = random as usize % bytes.len();
                bytes[at] = (random >> 40) as u8;
            }
            bytes[..16].copy_from_slice(&whole[..16]);
            let path = dir.path().join("damaged");
            std::fs::write(&path, &bytes).unwrap();
            if let Some(database) = Database::open(File::open(&path).unwrap()) {
                let mut rows = 0;
                database.rows(b"t", |_: [Value<'_>; 3]| rows += 1);
                // No page is read twice, and a page of 512 bytes has no room for more cells.
                assert!(rows <= bytes.len());
            }
        }
    }
}
