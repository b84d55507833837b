//! The Huffman code of header strings (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical: the lengths of the code words alone give the words. Decoding compares against the first
//! word of each length, so that it needs no tree.

use zeroize::Zeroizing;

/// Bits of the code word of each byte, and of the end of string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// The end of string, which must not occur in one.
const END: u16 = 256;

/// The code, by length: what is needed to go from bits to symbols.
struct Code {
    /// Of the words of this length: the end of their range, all words left-aligned in 32 bits.
    limit: [u64; LONGEST + 1],
    /// What to add to a word of this length to get the place of its symbol.
    base: [i64; LONGEST + 1],
    symbols: [u16; 257],
}

const CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        limit: [0; LONGEST + 1],
        base: [0; LONGEST + 1],
        symbols: [0; 257],
    };
    let mut word: u64 = 0;
    let mut place = 0;
    let mut length = SHORTEST;
    while length <= LONGEST {
        code.base[length] = place as i64 - word as i64;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u16;
                place += 1;
                word += 1;
            }
            symbol += 1;
        }
        code.limit[length] = word << (32 - length);
        word <<= 1;
        length += 1;
    }
    code
}

/// Decodes a whole string; `None` when it is none, or longer than `most` bytes.
pub fn decode(coded: &[u8], most: usize) -> Option<Zeroizing<Vec<u8>>> {
    // The shortest word has five bits.
    let mut out = crate::encode::buffer((coded.len() * 8 / SHORTEST).min(most));
    let mut bits: u64 = 0;
    let mut count = 0usize;
    let mut rest = coded.iter();
    loop {
        while count <= 32 {
            let Some(&byte) = rest.next() else { break };
            bits = bits << 8 | u64::from(byte);
            count += 8;
        }
        if count < SHORTEST {
            break;
        }
        // The next 32 bits, padded with ones as the end of the string is.
        let next = if count >= 32 {
            bits >> (count - 32) & 0xffff_ffff
        } else {
            (bits << (32 - count) | ((1 << (32 - count)) - 1)) & 0xffff_ffff
        };
        let length = (SHORTEST..=LONGEST).find(|&length| next < CODE.limit[length])?;
        if length > count {
            // No word: the padding, which the end decides.
            break;
        }
        let place = (next >> (32 - length)) as i64 + CODE.base[length];
        let symbol = *CODE.symbols.get(usize::try_from(place).ok()?)?;
        if symbol == END || out.len() >= most {
            return None;
        }
        out.push(symbol as u8);
        count -= length;
    }
    // At most seven bits of ones may be left (section 5.2).
    let padding = bits & ((1 << count) - 1);
    (count < 8 && padding == (1 << count) - 1).then_some(out)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An encoder to test against: words straight from the lengths.
    pub fn encode(text: &[u8]) -> Vec<u8> {
        let mut words = [(0u32, 0u8); 257];
        let mut order: Vec<usize> = (0..257).collect();
        order.sort_by_key(|&s| (LENGTHS[s], s));
        let (mut word, mut length) = (0u32, LENGTHS[order[0]]);
        for (i, &symbol) in order.iter().enumerate() {
            if i > 0 {
                word = (word + 1) << (LENGTHS[symbol] - length);
            }
            length = LENGTHS[symbol];
            words[symbol] = (word, length);
        }
        let mut bits: Vec<bool> = Vec::new();
        for &byte in text {
            let (word, length) = words[usize::from(byte)];
            bits.extend((0..length).rev().map(|i| word >> i & 1 == 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(true);
        }
        bits.chunks(8)
            .map(|byte| byte.iter().fold(0, |all, &bit| all << 1 | u8::from(bit)))
            .collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let cases: [(&[u8], &[u8]); 3] = [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                b"www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], b"no-cache"),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
                b"custom-value",
            ),
        ];
        for (coded, text) in cases {
            assert_eq!(decode(coded, 100).as_deref().map(Vec::as_slice), Some(text));
            assert_eq!(encode(text), coded);
        }
    }

    #[test]
    fn what_is_no_string_is_refused() {
        assert!(decode(&[0xff; 4], 100).is_none(), "the end of string");
        assert!(decode(&[0xff], 100).is_none(), "eight bits of padding");
        assert!(decode(&[0b0000_0000], 100).is_none(), "padding of zeros");
        assert!(decode(&encode(b"aaaaaaaa"), 7).is_none(), "too long");
        assert_eq!(decode(&[], 7).map(|t| t.len()), Some(0));
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let coded = encode(&text);
            prop_assert_eq!(decode(&coded, 1000).map(|t| t.to_vec()), Some(text));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(coded in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(text) = decode(&coded, 1000) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}
