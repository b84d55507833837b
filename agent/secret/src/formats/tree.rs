//! Documents as trees of bounded size: what a document costs in memory follows from its length, whatever it repeats.

use super::Context;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Most memory of a tree, and how much of it a byte of its document is worth.
const MAX_BYTES: usize = 64 << 20;
const PER_BYTE: usize = 24;
/// Beside its text an entry takes about this much.
const NODE: usize = size_of::<Value>();
const ENTRY: usize = size_of::<String>() + 16;

/// What the trees of one document may still take.
#[derive(Debug)]
pub struct Budget {
    left: usize,
    /// It was not enough.
    pub spent: bool,
}

impl Budget {
    pub fn of(text: &[u8]) -> Budget {
        Budget {
            left: (64 * 1024 + text.len() * PER_BYTE).min(MAX_BYTES),
            spent: false,
        }
    }

    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.spent = true;
                Err(E::custom("a document larger than its text allows"))
            }
        }
    }

    /// Reads one document; `None` when it is none, or larger than what is left.
    pub fn read<'de, D: Deserializer<'de>>(&mut self, from: D) -> Option<Value> {
        Node(self).deserialize(from).ok()
    }
}

/// Notes that a document was not read to its end.
pub fn incomplete(context: &mut Context<'_, '_>) {
    context.finds.limits.document = true;
}

/// One value of a tree.
pub struct Node<'b>(pub &'b mut Budget);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.0.take(NODE)?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.take(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(Node(&mut *self.0))? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            self.0.take(ENTRY + key.len())?;
            let value = from.next_value_seed(Node(&mut *self.0))?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// A value with a tag of YAML: the tag says nothing about credentials.
    fn visit_enum<A: EnumAccess<'de>>(self, from: A) -> Result<Value, A::Error> {
        use serde::de::VariantAccess as _;
        let (_, value) = from.variant::<String>()?;
        value.newtype_variant_seed(self)
    }
}
