//! The index of a git work tree (gitformat-index(5)): which files git knows.

/// Largest index that is worth reading, bytes.
pub const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// The bytes are an index in which names can be searched for: of version 2 or 3, where they are whole.
#[must_use]
pub fn is_searchable(index: &[u8]) -> bool {
    index.starts_with(b"DIRC\0\0\0\x02") || index.starts_with(b"DIRC\0\0\0\x03")
}

/// Whether the index has this name, below the top of the work tree. Searched for, not parsed: the length field before it and
/// the NUL after it tell a whole name from a part of one.
#[must_use]
pub fn tracks(index: &[u8], name: &[u8]) -> bool {
    memchr::memmem::find_iter(index, name).any(|at| {
        let number = |i: usize| {
            Some(u16::from_be_bytes(
                index.get(i.checked_sub(2)?..i)?.try_into().ok()?,
            ))
        };
        let fits =
            |n: Option<u16>| n.is_some_and(|n| usize::from(n & 0xfff) == name.len().min(0xfff));
        // Extended flags, if any, come between the length and the name.
        index.get(at + name.len()) == Some(&0)
            && (fits(number(at)) || fits(at.checked_sub(2).and_then(number)))
    })
}
