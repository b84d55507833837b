//! A package's header as rpm's database keeps it (rpm.org, "RPM package format: header"): two counts, an index of
//! entries, and a store. Numbers are big-endian.

/// Tags of rpmtag.h.
const NAME: u32 = 1000;
const FILE_STATES: u32 = 1029;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;
const FILE_DIGESTS: u32 = 1035;

/// Types of rpmtag.h.
const CHAR: u32 = 1;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;

/// Entries of an index, as rpm itself bounds them.
const MAX_ENTRIES: usize = 0xffff;
/// Longest name of a package, as far as it is looked for.
const MAX_NAME: usize = 1024;
/// Folders and files of a package that are taken: texlive has some 150,000 files. Every zero byte of a hostile header
/// is a name.
const MAX_DIRS: usize = 1 << 16;
const MAX_FILES: usize = 1 << 20;

/// What is asked of a header; everything borrows its bytes.
pub struct Header<'a> {
    pub name: &'a [u8],
    base_names: Array<'a>,
    dir_names: Array<'a>,
    dir_indexes: &'a [u8],
    states: &'a [u8],
    /// In hexadecimal digits; empty for what is no regular file.
    digests: Array<'a>,
}

/// Strings that end with a zero byte each.
#[derive(Clone, Copy, Default)]
struct Array<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Array<'a> {
    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let end = memchr::memchr(0, rest)?;
            let (string, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            Some(string)
        })
        .take(self.count)
    }
}

fn number(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_be_bytes(*b))
}

impl<'a> Header<'a> {
    /// `None` when the bytes are no header, or one without a name.
    pub fn parse(bytes: &'a [u8]) -> Option<Header<'a>> {
        let entries = number(bytes, 0)? as usize;
        let length = number(bytes, 1)? as usize;
        if entries > MAX_ENTRIES {
            return None;
        }
        let (index, store) = bytes.get(8..)?.split_at_checked(entries * 16)?;
        let store = store.get(..length)?;
        let mut header = Header {
            name: &[],
            base_names: Array::default(),
            dir_names: Array::default(),
            dir_indexes: &[],
            states: &[],
            digests: Array::default(),
        };
        for entry in index.chunks_exact(16) {
            let (tag, kind) = (number(entry, 0)?, number(entry, 1)?);
            let count = number(entry, 3)? as usize;
            let Some(data) = store.get(number(entry, 2)? as usize..) else {
                continue;
            };
            let strings = Array { bytes: data, count };
            match (tag, kind) {
                (NAME, STRING) if header.name.is_empty() => {
                    // Cut, because a header may say this often and never end its string.
                    let start = data.get(..data.len().min(MAX_NAME)).unwrap_or_default();
                    let end = memchr::memchr(0, start)?;
                    header.name = start.get(..end)?;
                }
                (FILE_DIGESTS, STRING_ARRAY) => header.digests = strings,
                (BASE_NAMES, STRING_ARRAY) => header.base_names = strings,
                (DIR_NAMES, STRING_ARRAY) => header.dir_names = strings,
                (DIR_INDEXES, INT32) => {
                    header.dir_indexes = data.get(..count.checked_mul(4)?).unwrap_or_default();
                }
                (FILE_STATES, CHAR) => header.states = data.get(..count).unwrap_or_default(),
                _ => {}
            }
        }
        (!header.name.is_empty()).then_some(header)
    }

    /// Calls `f` with folder (a slash at its end), name and digest of each file that is the package's: not of those that
    /// another package replaced, or that were not installed.
    pub fn files(&self, mut f: impl FnMut(&'a [u8], &'a [u8], &'a [u8])) {
        let dirs: Vec<&[u8]> = self.dir_names.iter().take(MAX_DIRS).collect();
        let mut digests = self.digests.iter();
        for (i, name) in self.base_names.iter().take(MAX_FILES).enumerate() {
            let digest = digests.next().unwrap_or_default();
            let dir = number(self.dir_indexes, i).and_then(|d| dirs.get(d as usize));
            // RPMFILE_STATE_NORMAL is 0.
            if let Some(dir) = dir
                && self.states.get(i).is_none_or(|state| *state == 0)
            {
                f(dir, name, digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(states: &[u8]) -> Vec<u8> {
        let mut store = Vec::new();
        let mut index = Vec::new();
        let mut add = |tag: u32, kind: u32, count: u32, data: &[u8]| {
            for n in [tag, kind, store.len() as u32, count] {
                index.extend_from_slice(&n.to_be_bytes());
            }
            store.extend_from_slice(data);
        };
        add(NAME, STRING, 1, b"nginx\0");
        add(BASE_NAMES, STRING_ARRAY, 3, b"a.key\0b\0c\0");
        add(DIR_NAMES, STRING_ARRAY, 2, b"/etc/\0/usr/lib/\0");
        add(DIR_INDEXES, INT32, 3, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9]);
        add(FILE_STATES, CHAR, states.len() as u32, states);
        let mut bytes = (5u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&(store.len() as u32).to_be_bytes());
        [bytes, index, store].concat()
    }

    fn files(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if let Some(header) = Header::parse(bytes) {
            header.files(|dir, name, _| out.push([dir, name].concat()));
        }
        out
    }

    #[test]
    fn files_have_their_folder_and_state() {
        let bytes = header(&[]);
        assert_eq!(Header::parse(&bytes).unwrap().name, b"nginx");
        // The third one's folder does not exist.
        assert_eq!(
            files(&bytes),
            [b"/etc/a.key".to_vec(), b"/usr/lib/b".to_vec()]
        );
        assert_eq!(files(&header(&[1, 0, 0])), [b"/usr/lib/b".to_vec()]);
    }

    proptest! {
        #[test]
        fn any_damage(at in 0usize..200, with: [u8; 4], end in 0usize..250) {
            let mut bytes = header(&[0, 0, 0]);
            for (i, b) in with.into_iter().enumerate() {
                if let Some(to) = bytes.get_mut(at + i) {
                    *to = b;
                }
            }
            bytes.truncate(end);
            prop_assert!(files(&bytes).len() <= 3);
        }
    }
}
