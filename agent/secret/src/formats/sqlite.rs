//! Records of an SQLite database by its published file format (sqlite.org/fileformat2.html), for stores whose tables are
//! public. The file is read as it lies there: what was deleted and not yet overwritten on a page is not looked for, a
//! write-ahead log beside it is not applied.

use super::{Context, json, tree};

/// Most records of one page and bytes of one record.
const MAX_CELLS: usize = 4096;
const MAX_VALUE: usize = 1 << 20;
/// What a record costs at least, in bytes read.
const RECORD: usize = 64;

/// One column of a record.
enum Column {
    Bytes(Vec<u8>),
    Other,
}

impl Column {
    fn text(&self) -> &[u8] {
        match self {
            Column::Bytes(bytes) => bytes,
            Column::Other => &[],
        }
    }
}

impl Drop for Column {
    fn drop(&mut self) {
        if let Column::Bytes(bytes) = self {
            zeroize::Zeroize::zeroize(bytes);
        }
    }
}

/// gcloud's stores: `credentials` (account, JSON) and `access_tokens` (account, token, expiry).
pub fn gcloud(context: &mut Context<'_, '_>) {
    let text = context.text;
    let mut nodes = 0;
    let whole = records(text, |columns| {
        let [account, value, ..] = columns else {
            return;
        };
        // The rows of sqlite_schema begin with "table" or "index".
        let account = crate::scan::text::clean(account.text());
        let value = value.text();
        if value.first() == Some(&b'{') {
            if let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(value) {
                if let Some(object) = document.as_object_mut()
                    && !object.contains_key("account")
                {
                    object.insert("account".to_string(), account.into());
                }
                json::walk(context, "", &document, 0, &mut nodes);
            }
        } else if value.starts_with(b"ya29.") {
            let expires = columns
                .get(2)
                .and_then(|c| std::str::from_utf8(c.text()).ok())
                .and_then(crate::derive::date::epoch);
            if let Some(raw) = context.emit("google-oauth-token", value, account) {
                raw.expires = expires;
            }
        }
    });
    if !whole {
        tree::incomplete(context);
    }
}

/// Calls `f` with the columns of every record on every leaf page of a table; false when the records claim more bytes than
/// the file has, and the last ones were left out.
fn records(file: &[u8], mut f: impl FnMut(&[Column])) -> bool {
    if !file.starts_with(b"SQLite format 3\0") || file.len() < 100 {
        return true;
    }
    let size = match u16::from_be_bytes([file[16], file[17]]) {
        1 => 65_536,
        n => usize::from(n),
    };
    if size < 512 || !size.is_power_of_two() {
        return true;
    }
    // Records do not overlap in a sound file, and its pages of other sorts leave room.
    let mut left = file.len() * 2;
    // Bytes at the end of each page that belong to extensions.
    let usable = size - usize::from(file[20]).min(size - 480);
    for (number, page) in file.chunks(size).enumerate() {
        // The first page begins with the header of the file.
        let header = if number == 0 { 100 } else { 0 };
        let Some(&[13, _, _, high, low]) = page.get(header..header + 5) else {
            continue;
        };
        let cells = usize::from(u16::from_be_bytes([high, low])).min(MAX_CELLS);
        for cell in 0..cells {
            let at = header + 8 + 2 * cell;
            let Some(&[high, low]) = page.get(at..at + 2) else {
                break;
            };
            let offset = usize::from(u16::from_be_bytes([high, low]));
            let length = page.get(offset..).and_then(varint).map_or(0, |(n, _)| n);
            let cost = usize::try_from(length).map_or(RECORD, |n| n.min(MAX_VALUE) + RECORD);
            match left.checked_sub(cost) {
                Some(rest) => left = rest,
                None => return false,
            }
            if let Some(record) = payload(file, page, offset, size, usable)
                && let Some(columns) = columns(&record)
            {
                f(&columns);
            }
        }
    }
    true
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

/// The bytes of a cell, with those on overflow pages.
fn payload(
    file: &[u8],
    page: &[u8],
    offset: usize,
    size: usize,
    usable: usize,
) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (length, n) = varint(page.get(offset..)?)?;
    let (_, m) = varint(page.get(offset + n..)?)?;
    let length = usize::try_from(length).ok().filter(|l| *l <= MAX_VALUE)?;
    let start = offset + n + m;
    // What of it stays on the page, by the format's formulas for leaf pages of tables.
    let most = usable - 35;
    let local = if length <= most {
        length
    } else {
        let least = (usable - 12) * 32 / 255 - 23;
        let k = least + (length - least) % (usable - 4);
        if k <= most { k } else { least }
    };
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(length));
    out.extend_from_slice(page.get(start..start + local)?);
    let mut next = page.get(start + local..start + local + 4);
    // Every page adds at least one byte, so a loop of pages ends.
    while out.len() < length {
        let number = u32::from_be_bytes(next?.try_into().ok()?) as usize;
        let overflow = file.get(number.checked_sub(1)?.checked_mul(size)?..)?;
        let n = (length - out.len()).min(usable - 4);
        out.extend_from_slice(overflow.get(4..4 + n)?);
        next = overflow.get(..4);
    }
    Some(out)
}

/// Columns of a record: a header of serial types, then the values.
fn columns(record: &[u8]) -> Option<Vec<Column>> {
    let (header, mut at) = varint(record)?;
    let header = usize::try_from(header)
        .ok()
        .filter(|h| *h <= record.len())?;
    let mut value = header;
    let mut out = Vec::new();
    while at < header && out.len() < 64 {
        let (kind, n) = varint(&record[at..])?;
        at += n;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            n => usize::try_from((n - 12) / 2).ok()?,
        };
        let bytes = record.get(value..value.checked_add(length)?)?;
        value += length;
        out.push(if kind >= 12 {
            Column::Bytes(bytes.to_vec())
        } else {
            Column::Other
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x80; 3]), None);
    }

    #[test]
    fn a_record_of_text_and_numbers() {
        // Header of four bytes: text of 2, one-byte integer, NULL.
        let record = [4, 17, 1, 0, b'a', b'b', 9];
        let columns = columns(&record).unwrap();
        assert_eq!((columns.len(), columns[0].text()), (3, &b"ab"[..]));
        assert!(super::columns(&[4, 17, 1, 0, b'a']).is_none());
    }

    #[test]
    fn pages_that_point_at_each_other_end() {
        let mut file = vec![0u8; 1024];
        file[..16].copy_from_slice(b"SQLite format 3\0");
        file[16..18].copy_from_slice(&512u16.to_be_bytes());
        // Second page: one cell with a payload of 2^19 bytes whose overflow page is this page.
        file[512..517].copy_from_slice(&[13, 0, 0, 0, 1]);
        file[520..522].copy_from_slice(&40u16.to_be_bytes());
        file[552..557].copy_from_slice(&[0xa0, 0x80, 0x00, 1, 0]);
        let mut seen = 0;
        records(&file, |_| seen += 1);
        assert!(seen <= 1);
    }
}
