//! The members of a bundle as they come out of its frames, also of one that is damaged: what cannot be read is reported, and
//! reading goes on at the next frame in which a member begins.

use super::frames;
use super::ustar::{self, BLOCK, Head};
use super::{MAX_CONTENT, MAX_MEMBERS};

/// What is seen on the way.
pub trait Visitor {
    /// A member begins.
    fn begin(&mut self, head: &Head);
    /// The next bytes of its content.
    fn content(&mut self, bytes: &[u8]);
    /// It has ended; `whole` says that all its bytes came.
    fn end(&mut self, whole: bool);
    /// What is no bundle: at this byte of the file (compressed), and why, as the end of a sentence.
    fn damaged(&mut self, at: u64, why: String);
    /// Nothing more is to be read.
    fn is_done(&self) -> bool {
        false
    }
}

/// Frames that are looked for behind damaged ones.
const MAX_ATTEMPTS: usize = 10_000;

/// Reads all there is.
pub fn read(bytes: &[u8], visitor: &mut impl Visitor) {
    let mut stream = Stream::new(visitor);
    let (mut at, mut attempts) = (0, 0);
    while at < bytes.len() && !stream.full && !stream.visitor.is_done() {
        let rest = bytes.get(at..).unwrap_or_default();
        let each = |piece: &[u8]| {
            stream.take(at as u64, piece);
            !stream.full && !stream.visitor.is_done()
        };
        match frames::read_frame(rest, each) {
            Ok(length) => {
                at += length;
                stream.frame_ended();
            }
            Err((within, why)) => {
                stream.broken((at + within) as u64, why);
                attempts += 1;
                match frames::next(bytes, at + 1) {
                    Some(next) if attempts < MAX_ATTEMPTS => at = next,
                    _ => break,
                }
            }
        }
    }
    stream.finish(bytes.len() as u64);
}

enum State {
    /// A header, as far as it came.
    Head(Vec<u8>),
    /// Bytes of content that are still to come, and of padding after it.
    Content(u64, usize),
    /// Bytes of padding that are still to come.
    Padding(usize),
    /// The end of the archive.
    End,
    /// No header: the rest of the frame is passed over.
    Lost,
}

struct Stream<'a, V> {
    visitor: &'a mut V,
    state: State,
    members: usize,
    total: u64,
    full: bool,
    /// Damage was reported, and no member was found since: what is seen now may be anything.
    resync: bool,
}

impl<'a, V: Visitor> Stream<'a, V> {
    fn new(visitor: &'a mut V) -> Self {
        Stream {
            visitor,
            state: State::Head(Vec::new()),
            members: 0,
            total: 0,
            full: false,
            resync: false,
        }
    }

    fn damaged(&mut self, at: u64, why: String) {
        if !self.resync {
            self.visitor.damaged(at, why);
        }
    }

    fn take(&mut self, at: u64, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.full {
            return;
        }
        if self.total > MAX_CONTENT || self.members > MAX_MEMBERS {
            self.full = true;
            let why = "there is more in it than in any bundle".to_owned();
            self.visitor.damaged(at, why);
            return;
        }
        while !bytes.is_empty() {
            bytes = self.some(at, bytes);
        }
    }

    /// Takes some of these bytes and returns the rest.
    fn some<'b>(&mut self, at: u64, bytes: &'b [u8]) -> &'b [u8] {
        match &mut self.state {
            State::Head(have) => {
                let (now, later) = bytes.split_at(bytes.len().min(BLOCK - have.len()));
                have.extend_from_slice(now);
                if have.len() == BLOCK {
                    let block = std::mem::take(have);
                    self.head(at, &block);
                }
                later
            }
            State::Content(left, padding) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let (now, later) = bytes.split_at(bytes.len().min(most));
                *left -= now.len() as u64;
                let ended = (*left == 0).then_some(*padding);
                self.visitor.content(now);
                if let Some(padding) = ended {
                    self.visitor.end(true);
                    self.state = State::padding(padding);
                }
                later
            }
            State::Padding(left) => {
                let (now, later) = bytes.split_at(bytes.len().min(*left));
                self.state = State::padding(*left - now.len());
                self.zeroes(at, now);
                later
            }
            State::End => {
                self.zeroes(at, bytes);
                &[]
            }
            State::Lost => &[],
        }
    }

    fn zeroes(&mut self, at: u64, bytes: &[u8]) {
        if bytes.iter().any(|b| *b != 0) {
            let why = "there is something where only zeroes belong".to_owned();
            self.damaged(at, why);
            if matches!(self.state, State::End) {
                self.state = State::Lost;
            }
        }
    }

    fn head(&mut self, at: u64, block: &[u8]) {
        let Ok(block) = <&[u8; BLOCK]>::try_from(block) else {
            return;
        };
        if block.iter().all(|b| *b == 0) {
            self.state = State::End;
            return;
        }
        match ustar::parse(block) {
            Ok(head) => {
                self.members += 1;
                self.resync = false;
                self.visitor.begin(&head);
                let padding = ustar::padding(head.size);
                self.state = State::Content(head.size, padding);
                if head.size == 0 {
                    self.visitor.end(true);
                    self.state = State::padding(0);
                }
            }
            Err(why) => {
                self.damaged(at, format!("a member's head cannot be read: {why}"));
                self.resync = true;
                self.state = State::Lost;
            }
        }
    }

    /// A frame is over: where it led nowhere, the next one begins a member.
    fn frame_ended(&mut self) {
        if matches!(self.state, State::Lost) {
            self.state = State::Head(Vec::new());
        }
    }

    /// The frame at hand gives no more; a member that was in it is not whole.
    fn broken(&mut self, at: u64, why: String) {
        self.damaged(at, why);
        if let State::Content(..) = self.state {
            self.visitor.end(false);
        }
        self.resync = true;
        self.state = State::Head(Vec::new());
    }

    fn finish(mut self, at: u64) {
        let ended = matches!(self.state, State::End);
        if let State::Content(..) = self.state {
            self.visitor.end(false);
        }
        if !ended && !self.full && !self.visitor.is_done() {
            self.damaged(at, "it ends before the archive's end".to_owned());
        }
    }
}

impl State {
    fn padding(left: usize) -> State {
        match left {
            0 => State::Head(Vec::new()),
            left => State::Padding(left),
        }
    }
}
