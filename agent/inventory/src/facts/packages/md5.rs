//! MD5 (RFC 1321): the digest that dpkg and old rpm record for each file. Collisions can be made, but another content for a
//! digest that is given cannot; that is all that is asked here.

/// Bytes of a block.
const BLOCK: usize = 64;

/// Left rotations of each round's four steps.
const ROTATIONS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// A digest in the making.
pub struct Md5 {
    state: [u32; 4],
    /// What does not fill a block yet.
    rest: Vec<u8>,
    length: u64,
    /// The integer part of 2^32 * |sin(i + 1)|.
    sines: [u32; 64],
}

impl Default for Md5 {
    fn default() -> Self {
        let sine = |i: usize| ((i as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
        Md5 {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            rest: Vec::with_capacity(BLOCK),
            length: 0,
            sines: std::array::from_fn(sine),
        }
    }
}

impl Md5 {
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let take = (BLOCK - self.rest.len()).min(bytes.len());
            let (head, tail) = bytes.split_at(take);
            self.rest.extend_from_slice(head);
            bytes = tail;
            if let Some(block) = self.rest.first_chunk().copied() {
                self.block(&block);
                self.rest.clear();
            }
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(block);
        }
        self.rest.extend_from_slice(rest);
    }

    pub fn finish(mut self) -> [u8; 16] {
        let bits = self.length.wrapping_mul(8);
        let mut end = vec![0x80];
        while (self.rest.len() + end.len()) % BLOCK != BLOCK - 8 {
            end.push(0);
        }
        end.extend_from_slice(&bits.to_le_bytes());
        self.update(&end);
        let mut digest = [0; 16];
        for (out, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *out = word.to_le_bytes();
        }
        digest
    }

    fn block(&mut self, block: &[u8; BLOCK]) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [mut a, mut b, mut c, mut d] = self.state;
        for (i, sine) in self.sines.iter().enumerate() {
            let round = i / 16;
            let (mixed, word) = match round {
                0 => (b & c | !b & d, i),
                1 => (d & b | !d & c, 5 * i + 1),
                2 => (b ^ c ^ d, 3 * i + 5),
                _ => (c ^ (b | !d), 7 * i),
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(*sine)
                .wrapping_add(words[word % 16]);
            let turned = sum.rotate_left(ROTATIONS[round][i % 4]);
            (a, b, c, d) = (d, b.wrapping_add(turned), b, c);
        }
        for (state, word) in self.state.iter_mut().zip([a, b, c, d]) {
            *state = state.wrapping_add(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_own_examples() {
        let of = |text: &str, pieces: usize| {
            let mut md5 = Md5::default();
            for piece in text.as_bytes().chunks(pieces) {
                md5.update(piece);
            }
            md5.finish().map(|b| format!("{b:02x}")).concat()
        };
        for (text, digest) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ] {
            for pieces in [1, 7, 64, 100] {
                assert_eq!(of(text, pieces), digest);
            }
        }
    }
}
