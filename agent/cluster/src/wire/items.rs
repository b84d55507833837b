//! A list in protobuf, of which so much is kept as is good for the reader: an item that says nothing takes two bytes on its way and
//! a hundred in memory, and an answer may have millions of them.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

/// Items that are kept. The kubelet is made for 110 pods and large nodes have 500; of each, some containers that have ended are there.
const MAX_ITEMS: usize = 16_384;
/// Bytes of one. What it is made of takes up to 14 times as much when it is read.
const MAX_ITEM: usize = 1 << 20;
/// The field that has them.
const ITEMS: u32 = 1;

/// The items as they came, and how many were passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Items {
    kept: Vec<Bytes>,
    left_off: u64,
}

impl Items {
    /// Each item, read when it is asked for; and how many could not be taken in until then.
    pub fn read<'a, T: Message + Default + 'a>(
        self,
        left_off: &'a mut u64,
    ) -> impl Iterator<Item = T> + 'a {
        *left_off += self.left_off;
        self.kept.into_iter().filter_map(move |item| {
            let item = T::decode(item);
            *left_off += u64::from(item.is_err());
            item.ok()
        })
    }
}

impl Message for Items {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        encoding::bytes::encode_repeated(ITEMS, &self.kept, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != ITEMS {
            return encoding::skip_field(wire_type, tag, buffer, context);
        }
        if self.kept.len() >= MAX_ITEMS {
            self.left_off += 1;
            return encoding::skip_field(wire_type, tag, buffer, context);
        }
        let mut item = Bytes::new();
        encoding::bytes::merge(wire_type, &mut item, buffer, context)?;
        match item.len() > MAX_ITEM {
            true => self.left_off += 1,
            false => self.kept.push(item),
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        encoding::bytes::encoded_len_repeated(ITEMS, &self.kept)
    }

    fn clear(&mut self) {
        *self = Items::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cri::PodSandbox;

    fn named(id: &str) -> Bytes {
        let pod = PodSandbox {
            id: id.to_owned(),
            ..PodSandbox::default()
        };
        pod.encode_to_vec().into()
    }

    #[test]
    fn what_is_too_much_is_counted_and_the_rest_is_read() {
        let sent = Items {
            kept: vec![
                named("a"),
                // Longer than its own bytes; and the field has a length, whatever it is.
                vec![0x0a, 5, b'x'].into(),
                named(&"x".repeat(MAX_ITEM)),
                named("b"),
            ],
            left_off: 0,
        };
        // A field from a later version.
        let mut bytes = sent.encode_to_vec();
        bytes.extend([3 << 3, 1]);
        let mut left_off = 0;
        let items = Items::decode(bytes.as_slice()).unwrap();
        let ids: Vec<String> = items
            .read::<PodSandbox>(&mut left_off)
            .map(|pod| pod.id)
            .collect();
        assert_eq!((ids, left_off), (vec!["a".to_owned(), "b".to_owned()], 2));
        assert!(Items::decode([ITEMS as u8 * 8, 1].as_slice()).is_err());
    }

    #[test]
    fn millions_of_items_take_no_room() {
        let empty = [0x0a, 0].repeat(MAX_ITEMS + 1_000_000);
        let items = Items::decode(empty.as_slice()).unwrap();
        assert!(items.kept.capacity() <= 2 * MAX_ITEMS);
        let mut left_off = 0;
        assert_eq!(items.read::<PodSandbox>(&mut left_off).count(), MAX_ITEMS);
        assert_eq!(left_off, 1_000_000);
    }
}
