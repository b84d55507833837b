//! A sequence of plain bytes: matched as it is, and what is encoded in it decoded and matched again.

use super::boundary;
use super::coded::Coded;
use super::quoted::Quoted;
use super::sink::Sink;
use super::tail::StreamTail;

/// The bytes of a connection, of a body, of a message: whatever follows one another.
#[derive(Default)]
pub struct Text {
    tail: StreamTail,
    coded: Coded,
    quoted: Quoted,
    /// Tells texts of one connection apart.
    id: u32,
    /// It ended in an identifier, in the payload of this number: the next bytes decide whether that is a word.
    open: Option<u32>,
}

impl Text {
    pub fn new(id: u32) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// One that begins where a message begins.
    pub fn message(id: u32) -> Self {
        Self {
            coded: Coded::message(),
            ..Self::new(id)
        }
    }

    /// A message begins in it with the next bytes.
    pub fn begin_message(&mut self) {
        self.coded.begin_message();
    }

    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.resolve(boundary::may_continue(bytes), sink);
        sink.hits.text = self.id;
        let before = sink.hits.opened;
        self.expire(sink.now);
        self.tail.came(sink.now, bytes.len());
        sink.matcher.scan(&mut self.tail, bytes, &mut sink.hits);
        self.open = (sink.hits.opened > before).then_some(sink.serial);
        sink.signed(bytes);
        if sink.matcher.is_empty() {
            self.coded.wipe();
            self.quoted.wipe();
        } else {
            self.coded.push(bytes, sink);
            self.quoted.push(bytes, sink);
        }
    }

    /// The text ends here: an identifier at its end is a word.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        self.resolve(false, sink);
        self.coded.end(sink);
        self.quoted.end(sink);
        self.wipe();
    }

    fn resolve(&mut self, goes_on: bool, sink: &mut Sink<'_>) {
        match self.open.take() {
            Some(serial) if serial == sink.serial => sink.hits.resolve(self.id, goes_on),
            Some(_) => {
                sink.continued |= goes_on;
                sink.resolved += 1;
            }
            None => {}
        }
    }

    /// Forgets bytes that came a second ago (`ages`). `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        self.tail.expire(now);
        self.coded.expire(now);
        self.quoted.expire(now);
    }

    /// Forgets the bytes.
    pub fn wipe(&mut self) {
        self.tail.wipe();
        self.coded.wipe();
        self.quoted.wipe();
        self.open = None;
    }

    /// As [`Text::wipe`], when bytes that were not seen come next.
    pub fn break_off(&mut self) {
        self.wipe();
        self.tail.break_off();
    }

    /// Bytes kept, those of decoders among them.
    pub fn kept(&self) -> usize {
        self.tail.len() + self.coded.kept() + self.quoted.kept()
    }
}
