//! Headers of POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"): regular files with flat names, nothing else.

/// Bytes of a header, and what contents are padded to.
pub const BLOCK: usize = 512;
/// The largest size that eleven octal digits say.
pub const MAX_SIZE: u64 = 0o77_777_777_777;

/// A name that may be a member: it names a file in no directory, on every system.
pub fn is_flat(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The header of a regular file: mode 0600, of root, at `mtime` (seconds since the epoch).
pub fn header(name: &str, size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, name.as_bytes());
    put(&mut block, 100, b"0000600\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    put(
        &mut block,
        124,
        format!("{:011o}\0", size.min(MAX_SIZE)).as_bytes(),
    );
    put(
        &mut block,
        136,
        format!("{:011o}\0", mtime.min(MAX_SIZE)).as_bytes(),
    );
    put(&mut block, 156, b"0");
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 265, b"root\0");
    put(&mut block, 297, b"root\0");
    let sum = checksum(&block);
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Sum of all bytes, those of the checksum taken for blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u32::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum()
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub name: String,
    pub size: u64,
    pub mtime: u64,
}

/// Reads a header; an error is the end of a sentence.
pub fn parse(block: &[u8; BLOCK]) -> Result<Head, &'static str> {
    let stated = octal(&block[148..156]).ok_or("its checksum is no number")?;
    if stated != u64::from(checksum(block)) {
        return Err("its checksum is wrong");
    }
    // '\0' is what archives before POSIX have.
    if !matches!(block[156], b'0' | 0) {
        return Err("it is no regular file");
    }
    let name = block[..100].split(|b| *b == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or_default();
    // What others pack has `./` in front.
    let name = name.strip_prefix("./").unwrap_or(name);
    if !is_flat(name) || block[345] != 0 {
        return Err("its name is none that keytrail gives");
    }
    Ok(Head {
        name: name.to_owned(),
        size: octal(&block[124..136]).ok_or("its size is no number")?,
        mtime: octal(&block[136..148]).ok_or("its time is no number")?,
    })
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}

/// Zeroes that follow a content of this size.
pub fn padding(size: u64) -> usize {
    match (size % BLOCK as u64) as usize {
        0 => 0,
        rest => BLOCK - rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let block = header("events.jsonl", 1_234_567, 1_790_000_000);
        let head = parse(&block).unwrap();
        assert_eq!(
            (head.name.as_str(), head.size, head.mtime),
            ("events.jsonl", 1_234_567, 1_790_000_000)
        );
        for at in [0, 124, 137, 150, 156, 300] {
            let mut other = block;
            other[at] ^= 1;
            assert!(parse(&other).is_err(), "byte {at}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for name in [
            "",
            "../x",
            "a/b",
            ".x",
            "/etc/passwd",
            "a\\b",
            "a b",
            "é",
            "x\n",
        ] {
            assert!(!is_flat(name), "{name:?}");
            assert!(parse(&header(name, 1, 0)).is_err(), "{name:?}");
        }
        assert!(!is_flat(&"a".repeat(101)) && is_flat("manifest.json"));
    }
}
