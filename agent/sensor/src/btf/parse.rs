//! Types, members and enumerators of a BTF blob.

use std::collections::HashMap;

pub(super) const MAGIC: u16 = 0xeb9f;
/// Longest chain of typedefs and qualifiers that is followed.
const CHAIN_MAX: usize = 64;
/// Deepest nesting of anonymous structs and unions.
const NEST_MAX: usize = 16;
/// Most members visited for one look-up.
const VISIT_MAX: usize = 1 << 20;
/// Largest blob that is inspected, bytes: the largest vmlinux seen has 12 MB.
const SIZE_MAX: usize = 256 << 20;

/// Kinds of types (include/uapi/linux/btf.h).
pub(super) mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Why a blob is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("it cannot be read ({0})")]
    Io(String),
    /// It is not BTF of this machine's byte order.
    #[error("it is not BTF of this byte order")]
    Magic,
    /// It ends before it should, or points outside itself.
    #[error("it is cut off or points outside itself")]
    Truncated,
    /// A type of a kind that did not exist when this was written: what follows it cannot be found.
    #[error("it has a type of unknown kind {0}")]
    UnknownKind(u32),
    /// Larger than any kernel's.
    #[error("it is larger than any kernel's")]
    TooLarge,
}

/// Where a field lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Byte that holds the field's lowest bit.
    pub offset: u32,
    /// Lowest bit within that byte; 0 for everything but bit fields.
    pub bit: u32,
    /// Width in bits if it is a bit field, else 0.
    pub bits: u32,
    /// Size of the field's type, bytes; 0 when unknown.
    pub size: u32,
}

/// A parsed blob.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    /// Byte position of type id n + 1.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
    /// Structs, unions, enums and typedefs by name.
    names: HashMap<Box<[u8]>, Vec<u32>>,
}

struct Type {
    name: u32,
    kind: u32,
    vlen: usize,
    flag: bool,
    /// Size or referred type, by kind.
    value: u32,
    /// Position of what follows the common part.
    rest: usize,
}

impl Btf {
    /// Reads and parses a file, normally `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// See [`BtfError`].
    pub fn load(path: &std::path::Path) -> Result<Self, BtfError> {
        Self::parse(std::fs::read(path).map_err(|error| BtfError::Io(error.to_string()))?)
    }

    /// # Errors
    /// See [`BtfError`]: the blob is refused as a whole when any type in it cannot be walked over.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        if data.len() > SIZE_MAX {
            return Err(BtfError::TooLarge);
        }
        let magic = data
            .get(..2)
            .and_then(|b| b.try_into().ok())
            .map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err(BtfError::Magic);
        }
        let word = |at| word(&data, at).ok_or(BtfError::Truncated);
        let header = word(4)? as usize;
        let section = |offset: u32, len: u32| -> Result<std::ops::Range<usize>, BtfError> {
            let start = header
                .checked_add(offset as usize)
                .ok_or(BtfError::Truncated)?;
            let end = start.checked_add(len as usize).ok_or(BtfError::Truncated)?;
            if end > data.len() {
                Err(BtfError::Truncated)
            } else {
                Ok(start..end)
            }
        };
        let types = section(word(8)?, word(12)?)?;
        let strings = section(word(16)?, word(20)?)?;
        let mut btf = Self {
            data,
            types: Vec::new(),
            strings,
            names: HashMap::new(),
        };
        btf.index(types)?;
        Ok(btf)
    }

    fn index(&mut self, section: std::ops::Range<usize>) -> Result<(), BtfError> {
        let mut at = section.start;
        while at < section.end {
            let found = self.type_at(at).ok_or(BtfError::Truncated)?;
            let extra = match found.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => found.vlen * 12,
                kind::ENUM | kind::FUNC_PROTO => found.vlen * 8,
                kind::PTR
                | kind::FWD
                | kind::TYPEDEF
                | kind::VOLATILE
                | kind::CONST
                | kind::RESTRICT
                | kind::FUNC
                | kind::FLOAT
                | kind::TYPE_TAG => 0,
                other => return Err(BtfError::UnknownKind(other)),
            };
            let next = found.rest.checked_add(extra).ok_or(BtfError::Truncated)?;
            if next > section.end {
                return Err(BtfError::Truncated);
            }
            self.types
                .push(u32::try_from(at).map_err(|_| BtfError::TooLarge)?);
            if found.name != 0
                && matches!(
                    found.kind,
                    kind::STRUCT
                        | kind::UNION
                        | kind::ENUM
                        | kind::ENUM64
                        | kind::TYPEDEF
                        | kind::FUNC
                )
            {
                let id = self.types.len() as u32;
                let name: Box<[u8]> = self.string(found.name).ok_or(BtfError::Truncated)?.into();
                self.names.entry(name).or_default().push(id);
            }
            at = next;
        }
        Ok(())
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let strings = self.data.get(self.strings.clone())?;
        let from = strings.get(offset as usize..)?;
        let end = memchr::memchr(0, from)?;
        from.get(..end)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(&self.data, at.checked_add(4)?)?;
        Some(Type {
            name: word(&self.data, at)?,
            kind: info >> 24 & 0x1f,
            vlen: (info & 0xffff) as usize,
            flag: info >> 31 == 1,
            value: word(&self.data, at.checked_add(8)?)?,
            rest: at.checked_add(12)?,
        })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        // Id 0 is void.
        let at = *self.types.get((id as usize).checked_sub(1)?)?;
        self.type_at(at as usize)
    }

    /// The type behind typedefs and qualifiers, with its id.
    fn bare(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..CHAIN_MAX {
            let found = self.by_id(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.value;
                }
                _ => return Some((id, found)),
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: usize) -> Option<u32> {
        let (_, found) = self.bare(id)?;
        match found.kind {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(found.value)
            }
            kind::PTR => Some(8),
            kind::ARRAY if depth < NEST_MAX => {
                let element = word(&self.data, found.rest)?;
                let count = word(&self.data, found.rest.checked_add(8)?)?;
                self.size_of(element, depth + 1)?.checked_mul(count)
            }
            _ => None,
        }
    }

    fn named(&self, name: &str, kinds: &[u32]) -> Option<(u32, Type)> {
        self.names.get(name.as_bytes())?.iter().find_map(|&id| {
            let (id, found) = self.bare(id)?;
            kinds.contains(&found.kind).then_some((id, found))
        })
    }

    /// Finds `member` in a struct, through anonymous structs and unions: (bit offset, bit-field width, type id).
    fn member(
        &self,
        aggregate: &Type,
        member: &[u8],
        depth: usize,
        budget: &mut usize,
    ) -> Option<(u64, u32, u32)> {
        for n in 0..aggregate.vlen {
            *budget = budget.checked_sub(1)?;
            let at = aggregate.rest.checked_add(n * 12)?;
            let name = word(&self.data, at)?;
            let id = word(&self.data, at.checked_add(4)?)?;
            let raw = word(&self.data, at.checked_add(8)?)?;
            let (bit, bits) = if aggregate.flag {
                (raw & 0xff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if name != 0 {
                if self.string(name) == Some(member) {
                    return Some((u64::from(bit), bits, id));
                }
                continue;
            }
            let Some((_, inner)) = self.bare(id) else {
                continue;
            };
            if depth < NEST_MAX
                && matches!(inner.kind, kind::STRUCT | kind::UNION)
                && let Some((at, bits, id)) = self.member(&inner, member, depth + 1, budget)
            {
                return Some((u64::from(bit) + at, bits, id));
            }
        }
        None
    }

    /// Resolves `struct.field.field`: fields are followed by value, never through pointers.
    pub fn field(&self, path: &str) -> Option<Field> {
        let mut parts = path.split('.');
        let (mut id, _) = self.named(parts.next()?, &[kind::STRUCT, kind::UNION])?;
        let mut at: u64 = 0;
        let mut width = 0;
        let mut budget = VISIT_MAX;
        let mut any = false;
        for part in parts {
            let (_, aggregate) = self.bare(id)?;
            if !matches!(aggregate.kind, kind::STRUCT | kind::UNION) {
                return None;
            }
            let (bit, bits, next) = self.member(&aggregate, part.as_bytes(), 0, &mut budget)?;
            at = at.checked_add(bit)?;
            (id, width, any) = (next, bits, true);
        }
        any.then_some(Field {
            offset: u32::try_from(at / 8).ok()?,
            bit: (at % 8) as u32,
            bits: width,
            size: self.size_of(id, 0).unwrap_or(0),
        })
    }

    /// Size of a struct in bytes.
    pub fn size(&self, name: &str) -> Option<u32> {
        self.named(name, &[kind::STRUCT, kind::UNION])
            .map(|(_, found)| found.value)
    }

    /// Value of an enumerator of a named enum; values above 32 bits are not found.
    pub fn enumerator(&self, name: &str, enumerator: &str) -> Option<u32> {
        let (_, found) = self.named(name, &[kind::ENUM, kind::ENUM64])?;
        let step = if found.kind == kind::ENUM { 8 } else { 12 };
        for n in 0..found.vlen {
            let at = found.rest.checked_add(n * step)?;
            if self.string(word(&self.data, at)?) == Some(enumerator.as_bytes()) {
                let high = if step == 12 {
                    word(&self.data, at.checked_add(8)?)?
                } else {
                    0
                };
                return if high == 0 {
                    word(&self.data, at.checked_add(4)?)
                } else {
                    None
                };
            }
        }
        None
    }

    /// Number of arguments of a raw tracepoint, without the hidden first one. `None`: this kernel has no such
    /// tracepoint (or does not say).
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let (_, pointer) = self.named(&format!("btf_trace_{name}"), &[kind::PTR])?;
        let (_, prototype) = self.bare(pointer.value)?;
        if prototype.kind != kind::FUNC_PROTO {
            return None;
        }
        prototype.vlen.checked_sub(1)
    }

    /// Does the kernel have this function, so that a trampoline could be attached to it?
    pub fn has_function(&self, name: &str) -> bool {
        self.named(name, &[kind::FUNC]).is_some()
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::*;

    fn sample() -> Builder {
        let mut b = Builder::default();
        let int = b.int(4);
        let long = b.int(8);
        let inner = b.aggregate("", kind::STRUCT, false, 8, &[("deep", int, 32)]);
        let union = b.aggregate(
            "",
            kind::UNION,
            false,
            8,
            &[("", inner, 0), ("other", long, 0)],
        );
        let constant = b.add("", kind::CONST, false, union, &[], 0);
        b.aggregate(
            "outer",
            kind::STRUCT,
            true,
            32,
            &[
                ("first", int, 0),
                ("", constant, 64),
                ("bit", int, 1 << 24 | 131),
                ("last", long, 192),
            ],
        );
        let name_a = b.name("B_A");
        let name_b = b.name("B_B");
        b.add("choice", kind::ENUM, false, 4, &[name_a, 3, name_b, 7], 2);
        let proto = b.add("", kind::FUNC_PROTO, false, 0, &[0, int, 0, int, 0, int], 3);
        let pointer = b.add("", kind::PTR, false, proto, &[], 0);
        b.add("btf_trace_thing", kind::TYPEDEF, false, pointer, &[], 0);
        b.add("work", kind::FUNC, false, proto, &[], 1);
        b
    }

    #[test]
    fn fields_are_found_through_anonymous_members() {
        let btf = Btf::parse(sample().bytes()).unwrap();
        let whole = |offset, size| {
            Some(Field {
                offset,
                bit: 0,
                bits: 0,
                size,
            })
        };
        assert_eq!(btf.field("outer.first"), whole(0, 4));
        assert_eq!(btf.field("outer.deep"), whole(12, 4));
        assert_eq!(btf.field("outer.other"), whole(8, 8));
        assert_eq!(btf.field("outer.last"), whole(24, 8));
        assert_eq!(
            btf.field("outer.bit"),
            Some(Field {
                offset: 16,
                bit: 3,
                bits: 1,
                size: 4
            })
        );
        assert_eq!(btf.field("outer.none"), None);
        assert_eq!(btf.field("outer.first.deep"), None);
        assert_eq!(btf.field("outer"), None);
        assert_eq!(btf.size("outer"), Some(32));
        assert_eq!(btf.enumerator("choice", "B_B"), Some(7));
        assert_eq!(btf.enumerator("choice", "B_C"), None);
        assert_eq!(btf.tracepoint_args("thing"), Some(2));
        assert_eq!(btf.tracepoint_args("nothing"), None);
        assert!(btf.has_function("work") && !btf.has_function("play"));
    }

    #[test]
    fn cut_blobs_are_refused() {
        let bytes = sample().bytes();
        for len in 0..bytes.len() {
            assert!(Btf::parse(bytes[..len].to_vec()).is_err(), "{len}");
        }
        assert_eq!(Btf::parse(vec![0; 64]).err(), Some(BtfError::Magic));
    }

    #[test]
    fn mangled_blobs_cost_an_answer_at_most() {
        let bytes = sample().bytes();
        for at in 4..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut mangled = bytes.clone();
                mangled[at] = value;
                // Whatever it says: no panic and no endless walk.
                if let Ok(btf) = Btf::parse(mangled) {
                    for path in ["outer.first", "outer.deep", "outer.none", "choice.x"] {
                        let _ = btf.field(path);
                    }
                    let _ = (
                        btf.enumerator("choice", "B_B"),
                        btf.tracepoint_args("thing"),
                    );
                }
            }
        }
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let mut b = Builder::default();
        // A typedef of itself, and an anonymous struct inside itself, twice.
        b.add("loop", kind::TYPEDEF, false, 1, &[], 0);
        b.aggregate("knot", kind::STRUCT, false, 8, &[("", 3, 0), ("", 3, 0)]);
        b.aggregate("", kind::STRUCT, false, 8, &[("", 3, 0), ("", 3, 0)]);
        let btf = Btf::parse(b.bytes()).unwrap();
        assert_eq!(btf.field("loop.x"), None);
        assert_eq!(btf.field("knot.x"), None);
        assert_eq!(btf.size("loop"), None);
    }

    #[test]
    fn the_running_kernel_has_what_is_needed() {
        let Ok(btf) = Btf::load(std::path::Path::new("/sys/kernel/btf/vmlinux")) else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        let fields = super::super::resolve(&btf);
        use keytrail_abi::globals::field as f;
        let needed = [
            f::TASK_TGID,
            f::MM_ENV_START,
            f::INODE_INO,
            f::SB_DEV,
            f::SOCK_DPORT,
            f::MSG_ITER,
            f::UPID_SIZE,
        ];
        assert_eq!(fields.missing(&needed), Vec::<&str>::new());
        // Two that are known on every kernel.
        assert_eq!(
            btf.field("iovec.iov_len").map(|field| field.offset),
            Some(8)
        );
        assert_eq!(
            btf.field("sockaddr_in.sin_port").map(|field| field.offset),
            Some(2)
        );
    }
}
