//! BTF made by hand, for tests.

use super::parse::{MAGIC, kind};

/// Builds small blobs.
#[derive(Default)]
pub struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    pub fn add(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        value: u32,
        rest: &[u32],
        vlen: usize,
    ) -> u32 {
        let name = self.name(name);
        let info = u32::from(flag) << 31 | kind << 24 | vlen as u32;
        self.types.extend([name, info, value]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    pub fn int(&mut self, size: u32) -> u32 {
        self.add("int", kind::INT, false, size, &[size * 8], 0)
    }

    pub fn aggregate(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let rest: Vec<u32> = members
            .iter()
            .flat_map(|(name, id, at)| [self.name(name), *id, *at])
            .collect();
        self.add(name, kind, flag, size, &rest, members.len())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let types = self.types.len() as u32 * 4;
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types, types, self.strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(self.types.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(&self.strings);
        bytes
    }
}
