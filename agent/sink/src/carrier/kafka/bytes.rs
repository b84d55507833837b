//! The primitive types of the protocol (<https://kafka.apache.org/protocol>, "Protocol Primitive Types"): numbers with the
//! greatest byte first, lengths before what they count, -1 for nothing.

/// Writes them.
pub(super) trait Put {
    fn int16(&mut self, value: i16);
    fn int32(&mut self, value: i32);
    fn int64(&mut self, value: i64);
    /// Lengths fit: what is written is the agent's own, or from its configuration.
    fn string(&mut self, text: &str);
    fn nothing(&mut self);
    fn bytes(&mut self, bytes: &[u8]);
    /// A signed number of variable length, zigzag.
    fn varint(&mut self, value: i64);
    /// Bytes behind a length of variable length.
    fn counted(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn int16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn int32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn int64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn string(&mut self, text: &str) {
        self.int16(text.len() as i16);
        self.extend_from_slice(text.as_bytes());
    }

    fn nothing(&mut self) {
        self.int16(-1);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.int32(bytes.len() as i32);
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as i64);
        self.extend_from_slice(bytes);
    }
}

/// Reads them; none where there is not what there should be.
pub(super) struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    fn some<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn boolean(&mut self) -> Option<bool> {
        self.some::<1>().map(|[byte]| byte != 0)
    }

    pub fn int16(&mut self) -> Option<i16> {
        self.some().map(i16::from_be_bytes)
    }

    pub fn int32(&mut self) -> Option<i32> {
        self.some().map(i32::from_be_bytes)
    }

    pub fn int64(&mut self) -> Option<i64> {
        self.some().map(i64::from_be_bytes)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// Empty where there is none.
    pub fn string(&mut self) -> Option<&'a str> {
        match self.int16()? {
            -1 => Some(""),
            length => std::str::from_utf8(self.slice(usize::try_from(length).ok()?)?).ok(),
        }
    }

    /// Empty where there are none.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.int32()? {
            -1 => Some(&[]),
            length => self.slice(usize::try_from(length).ok()?),
        }
    }

    /// How often `each` can be read behind a count. Each reads a byte at least, so what is claimed costs no more than what is
    /// there.
    pub fn array<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.int32()?.max(0);
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(each(self)?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_variable_length_are_those_of_protocol_buffers() {
        let of = |value| {
            let mut out = Vec::new();
            out.varint(value);
            out
        };
        for (value, bytes) in [
            (0, &[0_u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[128, 1]),
            (-65, &[129, 1]),
            (300, &[216, 4]),
        ] {
            assert_eq!(of(value), bytes, "{value}");
        }
        assert_eq!(of(i64::MIN).len(), 10);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        out.int16(-3);
        out.string("a b");
        out.nothing();
        out.bytes(b"xyz");
        out.int32(2);
        out.int64(1);
        out.int64(-1);
        let mut take = Take(&out);
        assert_eq!(take.int16(), Some(-3));
        assert_eq!((take.string(), take.string()), (Some("a b"), Some("")));
        assert_eq!(take.bytes(), Some(&b"xyz"[..]));
        assert_eq!(take.array(Take::int64), Some(vec![1, -1]));
        assert!(take.0.is_empty() && take.boolean().is_none());
        // Lengths beyond the end, and below nothing.
        assert!(Take(&[0, 9, 1]).string().is_none() && Take(&[255, 254]).string().is_none());
        assert!(Take(&[0x7f; 8]).array(Take::int64).is_none());
    }
}
