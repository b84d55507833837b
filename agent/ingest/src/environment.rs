//! Environment blocks and argument lists as the kernel holds them: NUL-separated, of any bytes.

/// `NAME=value` pairs of an environment block; entries without `=` are left out.
pub fn pairs(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|b| *b == 0).filter_map(|entry| {
        let at = memchr::memchr(b'=', entry)?;
        (at > 0).then(|| (&entry[..at], &entry[at + 1..]))
    })
}

/// Ranges of the arguments within an argv area. The area ends with a NUL that begins no further argument.
pub fn arguments(area: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < area.len() {
        let end = memchr::memchr(0, &area[start..]).map_or(area.len(), |n| start + n);
        out.push(start..end);
        start = end + 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_odd_blocks() {
        let got: Vec<_> = pairs(b"A=1\0=x\0NOPE\0B=\0C=a=b\0\0").collect();
        assert_eq!(got, [(&b"A"[..], &b"1"[..]), (b"B", b""), (b"C", b"a=b")]);
    }

    #[test]
    fn empty_arguments_count() {
        assert_eq!(arguments(b"a\0\0b\0"), [0..1, 2..2, 3..4]);
        assert_eq!(arguments(b"cut").first(), Some(&(0..3)));
        assert!(arguments(b"").is_empty());
    }
}
