//! Records of version 2, as a partition keeps them (<https://kafka.apache.org/documentation/#messageformat>).

use super::bytes::Put as _;

/// The name of the header that has an event's id.
pub(super) const ID: &str = "event.id";

/// A record of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Also its key; no key when empty.
    pub id: &'a str,
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    pub value: &'a [u8],
}

impl Record<'_> {
    /// Bytes that it takes in a batch, at most.
    pub fn room(&self) -> usize {
        // Attributes, seven numbers of ten bytes or less, and the header.
        self.value.len() + 2 * self.id.len() + ID.len() + 71
    }

    fn write(&self, number: usize, first_ms: i64, out: &mut Vec<u8>) {
        let mut text = Vec::with_capacity(self.room());
        text.push(0);
        text.varint(self.time_ms - first_ms);
        text.varint(number as i64);
        if self.id.is_empty() {
            text.varint(-1);
        } else {
            text.counted(self.id.as_bytes());
        }
        text.counted(self.value);
        if self.id.is_empty() {
            text.varint(0);
        } else {
            text.varint(1);
            text.counted(ID.as_bytes());
            text.counted(self.id.as_bytes());
        }
        out.counted(&text);
    }
}

/// One batch: not compressed, of nobody's transaction, with the times of its events.
pub(super) fn batch(records: &[Record<'_>]) -> Vec<u8> {
    const MAGIC: u8 = 2;
    let first = records.first().map_or(0, |record| record.time_ms);
    let last = records.iter().map(|record| record.time_ms).max();
    let mut body = Vec::with_capacity(64 + records.iter().map(Record::room).sum::<usize>());
    // Attributes; the last offset; the first time and the greatest.
    body.int16(0);
    body.int32(records.len() as i32 - 1);
    body.int64(first);
    body.int64(last.unwrap_or(first));
    // Whose: identity, epoch and number of an idempotent producer, which this is not.
    body.int64(-1);
    body.int16(-1);
    body.int32(-1);
    body.int32(records.len() as i32);
    for (number, record) in records.iter().enumerate() {
        record.write(number, first, &mut body);
    }
    let mut out = Vec::with_capacity(body.len() + 21);
    out.int64(0);
    // What follows: the epoch of the leader, the version, the check and the body.
    out.int32(body.len() as i32 + 9);
    out.int32(-1);
    out.push(MAGIC);
    out.extend_from_slice(&crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x82f6_3b78
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_castagnolis() {
        // Of RFC 3720, B.4, and the check value of CRC-32C.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[255; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_batch_is_laid_out_as_the_documentation_says() {
        let record = |id, time_ms, value| Record { id, time_ms, value };
        let bytes = batch(&[record("a:1:1", 1000, b"one"), record("", 998, b"two")]);
        assert_eq!(bytes[..8], [0; 8]);
        assert_eq!(bytes[8..12], (bytes.len() as i32 - 12).to_be_bytes());
        assert_eq!(bytes[16], 2);
        assert_eq!(bytes[17..21], crc32c(&bytes[21..]).to_be_bytes());
        assert_eq!(bytes[23..27], 1_i32.to_be_bytes());
        assert_eq!(bytes[27..35], 1000_i64.to_be_bytes());
        assert_eq!(bytes[57..61], 2_i32.to_be_bytes());
        let first = b"\x3a\0\0\0\x0aa:1:1\x06one\x02\x10event.id\x0aa:1:1";
        assert_eq!(&bytes[61..61 + first.len()], first);
        assert_eq!(&bytes[61 + first.len()..], b"\x12\0\x03\x02\x01\x06two\0");
        for record in [record("a:1:1", 1000, b"one"), record("", 998, b"two")] {
            assert!(batch(&[record]).len() <= 61 + record.room());
        }
    }
}
