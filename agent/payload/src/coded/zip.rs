//! The head of a member of a ZIP archive (APPNOTE.TXT of PKWARE, section 4.3.7). What is stored as it is needs no decoder.

/// First bytes of a member.
pub const SIGNATURE: &[u8; 4] = b"PK\x03\x04";
/// The head without name and extra field.
const FIXED: usize = 30;
/// DEFLATE, among the methods of compression.
const DEFLATED: u16 = 8;

/// The head, taken byte by byte.
#[derive(Default)]
pub struct ZipHead {
    fixed: Vec<u8>,
    /// Bytes of name and extra field that are to come.
    left: usize,
}

impl ZipHead {
    /// Bytes of `input` that belong to the head, and whether it has ended; `None` when what follows is no DEFLATE, or is
    /// encrypted.
    pub fn feed(&mut self, input: &[u8]) -> Option<(usize, bool)> {
        let take = (FIXED - self.fixed.len()).min(input.len());
        self.fixed.extend_from_slice(&input[..take]);
        if let [s0, s1, s2, s3, _, _, flags, _, m0, m1, .., n0, n1, e0, e1] = self.fixed[..]
            && self.fixed.len() == FIXED
            && take > 0
        {
            let fits = [s0, s1, s2, s3] == *SIGNATURE
                && flags & 1 == 0
                && u16::from_le_bytes([m0, m1]) == DEFLATED;
            if !fits {
                return None;
            }
            self.left = usize::from(u16::from_le_bytes([n0, n1]))
                + usize::from(u16::from_le_bytes([e0, e1]));
        }
        if self.fixed.len() < FIXED {
            return Some((take, false));
        }
        let skip = self.left.min(input.len() - take);
        self.left -= skip;
        Some((take + skip, self.left == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(flags: u8, method: u8, name: &[u8]) -> Vec<u8> {
        let length = name.len() as u8;
        let mut out = vec![b'P', b'K', 3, 4, 20, 0, flags, 0, method, 0];
        out.extend([0; 16]);
        out.extend([length, 0, 3, 0]);
        out.extend_from_slice(name);
        out.extend(b"abc");
        out
    }

    #[test]
    fn a_head_ends_where_its_names_do() {
        let whole = [&head(8, 8, b"id_rsa")[..], b"data"].concat();
        for cut in 0..whole.len() {
            let mut zip = ZipHead::default();
            let (a, b) = whole.split_at(cut);
            let (first, over) = zip.feed(a).unwrap();
            let used = if over {
                first
            } else {
                assert_eq!(first, cut);
                let (second, over) = zip.feed(b).unwrap();
                assert!(over);
                first + second
            };
            assert_eq!(&whole[used..], b"data", "{cut}");
        }
        for (flags, method) in [(1, 8), (0, 0), (0, 12)] {
            assert!(
                ZipHead::default()
                    .feed(&head(flags, method, b"x"))
                    .is_none()
            );
        }
    }
}
