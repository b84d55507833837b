//! The literals of all rules, found in one pass.
//!
//! A text is far longer than what is found in it, so the pass decides for each position, from three bytes of any letter
//! case and one bit in a table that stays in the processor's nearest cache, that no literal is there. Each literal is
//! represented by the rarest three of its bytes; of the few positions that pass, eight bytes are compared in one step
//! before the literal itself is inspected.

use crate::rules::Rule;
use std::collections::HashMap;

/// What to do where a literal was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Try the rule's expression at the literal.
    Token(u32),
    /// Try the rule's expression after the word.
    Near(u32),
    /// Run the rule's parser over the whole text, once.
    Structure(u32),
    /// A word of secret names: perhaps an assignment.
    Assign,
    /// `://`
    Url,
    /// `-----BEGIN`
    Pem,
}

/// Words that secret names hold.
const ASSIGN: &[&str] = &[
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "cred",
    "auth",
    "psw",
    "_pat",
    "-pat",
    "psk",
    "pw=",
    "pw:",
    "pw =",
    "pw\"",
    "pw'",
    "contrase\u{f1}a",
    "contrasena",
    "senha",
    "wachtwoord",
    "kennwort",
    "_salt",
    "_seed",
    "pepper",
    "erlang_cookie",
    "release_cookie",
];

/// Number of hashes of three bytes: one bit each is 8 KiB.
const SLOTS: usize = 1 << 16;

#[derive(Debug)]
struct Literal {
    /// In small letters, at least two bytes.
    bytes: Vec<u8>,
    /// Where its three bytes begin within it.
    offset: usize,
    hooks: Vec<Hook>,
}

#[derive(Debug)]
pub struct Prefilter {
    literals: Vec<Literal>,
    /// A bit for each hash that some literal has.
    bits: Vec<u64>,
    /// For each hash, which of `chains` begins its literals; 0: none.
    heads: Vec<u16>,
    chains: Vec<Link>,
}

/// One literal of a hash.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// What the eight bytes from the position on are where the literal stands, with [`CASE`] set; bytes beyond its end
    /// are zero here and in the mask.
    bytes: u64,
    mask: u64,
    literal: u16,
    /// Index of the next link; 0: none.
    next: u16,
}

/// Positions that are inspected together.
const STEP: u32 = 6;

/// The bit that tells small letters from capitals, in each of eight bytes.
const CASE: u64 = 0x2020_2020_2020_2020;

/// Up to eight bytes; what lies beyond the end is zero.
fn eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(whole) => u64::from_le_bytes(*whole),
        None => bytes
            .iter()
            .rev()
            .fold(0, |sum, b| sum << 8 | u64::from(*b)),
    }
}

/// Three bytes without letter case. Setting the bit that tells cases apart also joins a few signs; the comparison that
/// follows tells them apart again.
fn hash(three: u32) -> usize {
    (((three | 0x0020_2020) & 0x00ff_ffff).wrapping_mul(0x9e37_79b1) >> 16) as usize
}

fn three(bytes: &[u8]) -> u32 {
    let byte = |i: usize| u32::from(bytes.get(i).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16
}

/// The triples of letters and signs that occur most often in source code, logs, JSON and manuals.
const FREQUENT: &[u8] = b"\
    ----05-06-09-24-co-de....0-.0..co//g/co/gi/li/no/pu/sp/us00002502605-06-07:12u14:20225-26-29:2u15-06-06-27:29-2\
    9:2://:29:amablaccaceachackaddageailainalfaliallalsaluamdameancandangansapeapiapparaareargariaseassataateathati\
    attatuavab.cb12basberbjeblecalcancatceschacheckackeclacliclocodcomconcrecrictectictxcumcurd64datde/debdefdejden\
    depderdesdevdindoce/ce/peadeateb1ecieckecoectefiejseleelfencendensentenvequer.eraereeriernerrersertervescespess\
    estesuetaeteethettetueveeviexpextferfiefigfilfinforfrofungengesgetgingitglegurhalhanhapharhathecherhishrehtthub\
    icaiceideieniesifiigniguileillilsimeimpindineinfinginiinsintioniptireistit/iteithitiiveizejecjs/kagkedkeykinlas\
    latlealecledlenleslf-lf.libliclinlislitll/llelocluem/nmanmatmbemd6menmesmetmitmmimodmpln20nalnamncenconctndened\
    nernfinfongeninnmenodnonnotnpansenssnstntantentintsnumobjocaoceocuodeom/ommomponeonfongonsontoolopeoptoreormort\
    ossostounouroutovepacpanparpatpecpenperpleporpospreprops:ptipulputqueralramranratrcerearecredrefrenrepreqresret\
    rinripritrmarocromronrorrourrorucs/ns:/sagscrsecsedselsersetshasigsinsiosouspaspessassisslstastestostrtabtaltan\
    tartattchtedtemtentertestexthathethithothutiltimtintiotortpstratretritrotruttittpturtustypu00ub.uctuesullultume\
    uncunpunsunturcureurnuseustutivalvenverwitworype";

/// How often three bytes occur in the texts that are inspected, roughly: the frequent ones, then letters as in English, then
/// signs of notation.
fn commonness(three: &[u8]) -> usize {
    const ORDER: &[u8] = b"zqj~^$%&@!#?8x79645vk23+w*1bgy0pmfu[]{};hdcl_/()>n<=:'\\\",srioa-te. ";
    let rank: usize = three
        .iter()
        .map(|b| ORDER.iter().position(|o| o == b).unwrap_or(0))
        .sum();
    rank + 1000 * usize::from(FREQUENT.chunks_exact(3).any(|f| f == three))
}

/// Shortest name of one word: shorter ones stand within others.
const JOINED: usize = 8;

/// A name of several words as camelCase has it (`bw_session` is `bwSession` in programs); `None`: it is one word.
fn joined(word: &str) -> Option<String> {
    let inner = word.trim_matches('_');
    let joined = word.replace('_', "");
    (inner.len() == word.len() && inner.contains('_') && joined.len() >= JOINED).then_some(joined)
}

impl Prefilter {
    pub fn new(rules: &[Rule]) -> Prefilter {
        let mut literals: Vec<Literal> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut add = |literal: &str, hook: Hook| {
            let literal = literal.to_ascii_lowercase();
            // `validate` refuses shorter ones; links count in sixteen bits.
            if literal.len() < 2 || literals.len() >= usize::from(u16::MAX) {
                return;
            }
            let at = *index.entry(literal.clone()).or_insert_with(|| {
                let bytes = literal.into_bytes();
                let offset = (0..bytes.len().saturating_sub(2).max(1))
                    .min_by_key(|i| commonness(&bytes[*i..bytes.len().min(i + 3)]))
                    .unwrap_or(0);
                literals.push(Literal {
                    bytes,
                    offset,
                    hooks: Vec::new(),
                });
                literals.len() - 1
            });
            if !literals[at].hooks.contains(&hook) {
                literals[at].hooks.push(hook);
            }
        };
        for word in ASSIGN {
            add(word, Hook::Assign);
        }
        add("://", Hook::Url);
        add("-----begin", Hook::Pem);
        for (i, rule) in rules.iter().enumerate() {
            let i = i as u32;
            for literal in &rule.spec.literals {
                add(
                    literal,
                    if rule.spec.regex.is_empty() {
                        Hook::Structure(i)
                    } else {
                        Hook::Token(i)
                    },
                );
            }
            for word in &rule.spec.near {
                add(word, Hook::Near(i));
                if let Some(joined) = joined(word) {
                    add(&joined, Hook::Near(i));
                }
            }
        }
        let mut filter = Prefilter {
            literals,
            bits: vec![0; SLOTS / 64],
            heads: vec![0; SLOTS],
            chains: vec![Link::default()],
        };
        for at in 0..filter.literals.len() {
            let literal = &filter.literals[at];
            let key = three(&literal.bytes[literal.offset..]);
            if literal.bytes.len() >= 3 {
                filter.link(hash(key), at);
            } else {
                // Two bytes: whatever the third is.
                let mut slots: Vec<usize> = (0..=255u32).map(|b| hash(key | b << 16)).collect();
                slots.sort_unstable();
                slots.dedup();
                for slot in slots {
                    filter.link(slot, at);
                }
            }
        }
        filter
    }

    fn link(&mut self, slot: usize, literal: usize) {
        let Literal { bytes, offset, .. } = &self.literals[literal];
        let bytes = &bytes[*offset..];
        let mask = match bytes.len() {
            0..8 => (1 << (8 * bytes.len())) - 1,
            _ => u64::MAX,
        };
        let bytes = (eight(bytes) | CASE) & mask;
        let (Ok(next), Ok(literal)) = (u16::try_from(self.chains.len()), u16::try_from(literal))
        else {
            return;
        };
        self.chains.push(Link {
            bytes,
            mask,
            literal,
            next: self.heads[slot],
        });
        self.heads[slot] = next;
        self.bits[slot / 64] |= 1 << (slot % 64);
    }

    /// Calls `f(start, end, hook)` for every literal in the text, nearly in order of their places.
    pub fn scan(&self, text: &[u8], mut f: impl FnMut(usize, usize, Hook)) {
        // A slice whose length the compiler knows needs no check for each byte.
        let Some(bits) = self.bits.first_chunk::<{ SLOTS / 64 }>() else {
            return;
        };
        let possible = |slot: usize| bits[slot / 64] >> (slot % 64) & 1 != 0;
        // Six positions of three bytes in eight, and one question for all of them: nearly always there is none.
        let mut at = 0;
        while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_le_bytes(*eight) | CASE;
            let mut hits = (0..STEP).fold(0u32, |hits, k| {
                hits | u32::from(possible(hash((word >> (8 * k)) as u32))) << k
            });
            while hits != 0 {
                let k = hits.trailing_zeros();
                hits &= hits - 1;
                let slot = hash((word >> (8 * k)) as u32);
                self.compare(text, at + k as usize, slot, &mut f);
            }
            at += STEP as usize;
        }
        for i in at..text.len().saturating_sub(1) {
            let slot = hash(three(&text[i..]));
            if possible(slot) {
                self.compare(text, i, slot, &mut f);
            }
        }
    }

    #[inline(never)]
    fn compare(&self, text: &[u8], at: usize, slot: usize, f: &mut impl FnMut(usize, usize, Hook)) {
        let there = eight(text.get(at..).unwrap_or_default()) | CASE;
        let mut next = self.heads[slot];
        while next != 0 {
            let link = self.chains[usize::from(next)];
            next = link.next;
            if there & link.mask != link.bytes {
                continue;
            }
            let literal = &self.literals[usize::from(link.literal)];
            let Some(start) = at.checked_sub(literal.offset) else {
                continue;
            };
            let end = start + literal.bytes.len();
            if text
                .get(start..end)
                .is_some_and(|there| there.eq_ignore_ascii_case(&literal.bytes))
            {
                for &hook in &literal.hooks {
                    f(start, end, hook);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::builtin;

    /// What the pass finds, found slowly.
    fn naive(filter: &Prefilter, text: &[u8]) -> Vec<(usize, usize, Hook)> {
        let mut out = Vec::new();
        for literal in &filter.literals {
            for (at, there) in text.windows(literal.bytes.len()).enumerate() {
                if there.eq_ignore_ascii_case(&literal.bytes) {
                    out.extend(literal.hooks.iter().map(|h| (at, at + there.len(), *h)));
                }
            }
        }
        out
    }

    fn sorted(mut hits: Vec<(usize, usize, Hook)>) -> Vec<String> {
        hits.sort_by_key(|(start, end, _)| (*start, *end));
        let mut out: Vec<String> = hits.iter().map(|hit| format!("{hit:?}")).collect();
        out.sort();
        out
    }

    #[test]
    fn every_literal_is_found_wherever_it_stands_and_however_it_is_written() {
        let rules = builtin::rules().0;
        let filter = Prefilter::new(&rules);
        assert!(filter.literals.len() > 500);
        for literal in &filter.literals {
            let word = String::from_utf8(literal.bytes.clone()).unwrap();
            for text in [
                word.clone(),
                word.to_ascii_uppercase(),
                format!("x{word}"),
                format!("{word}y"),
                format!("ab {word} cd"),
                format!("{word}{word}"),
            ] {
                let mut hits = Vec::new();
                filter.scan(text.as_bytes(), |start, end, hook| {
                    hits.push((start, end, hook))
                });
                assert_eq!(
                    sorted(hits),
                    sorted(naive(&filter, text.as_bytes())),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn short_texts_hold_what_they_hold() {
        let filter = Prefilter::new(&builtin::rules().0);
        for text in ["", "s", "sk", "key", "://", "Q~", "\u{e9}", "pwd=", "KEY"] {
            let mut hits = Vec::new();
            filter.scan(text.as_bytes(), |start, end, hook| {
                hits.push((start, end, hook))
            });
            assert_eq!(
                sorted(hits),
                sorted(naive(&filter, text.as_bytes())),
                "{text}"
            );
        }
    }
}
