//! What is spoken on one connection, and where in its bytes the texts are.
//!
//! Every byte of a connection reaches the matcher, whatever is spoken: framing only decides which bytes follow each
//! other. Where framing is lost the bytes are inspected as they come until it is found again.

use super::boundary;
use super::coded::Packed;
use super::h2::{self, Http2};
use super::http::{Http, Piece, begins_request};
use super::logins::Login;
use super::presented;
use super::sink::{Credit, Sink};
use super::text::Text;
use super::websocket::WebSocket;
use keytrail_model::{IdentifiedBy, Transform};

/// State of one connection.
#[derive(Default)]
pub struct Talk {
    /// Bytes that follow each other on the connection itself.
    wire: Text,
    http: Http,
    /// The chunks of a body put together.
    body: Option<Box<Text>>,
    /// A body that is there as it is goes on.
    in_body: bool,
    /// A body whose head names its encoding.
    packed: Option<Box<Packed>>,
    mode: Mode,
    /// Place of the current request among those of this payload.
    request: Option<u16>,
    /// Texts that ended in an identifier in the last payload.
    open: u32,
    serial: u32,
    /// The last bytes ended with a message.
    ended: bool,
    /// A login to a database that has begun.
    login: Option<Login>,
    /// When values of headers were first found waiting for the end of their head, nanoseconds since boot.
    presents_since: Option<u64>,
    pub credit: Credit,
}

/// How long a head may take to end behind a credential in it: bytes are not kept for longer.
const HEAD_NS: u64 = 1_000_000_000;

#[derive(Default)]
enum Mode {
    #[default]
    Http1,
    Http2(Box<Http2>),
    WebSocket(Box<WebSocket>),
}

/// Tags of texts; those of HTTP/2 streams are their numbers.
const BODY: u32 = 1 << 31;

impl Talk {
    /// Inspects the next bytes. `begins`: a write begins here, of `total` bytes. Whether the first bytes may go on with
    /// a word that the bytes before ended in.
    pub fn push(&mut self, bytes: &[u8], begins: bool, total: u64, sink: &mut Sink<'_>) -> bool {
        self.serial = self.serial.wrapping_add(1);
        sink.serial = self.serial;
        self.request = None;
        self.ended = false;
        let plain = matches!(self.mode, Mode::Http1) && !self.http.is_chunked();
        let open = self.open;
        if begins
            && matches!(self.mode, Mode::Http1)
            && self.http.is_outside()
            && h2::begins_with_frames(bytes, total)
        {
            self.mode = Mode::Http2(Box::new(Http2::joined()));
        }
        self.login(bytes, begins, sink);
        self.speak(bytes, begins, total, sink);
        self.open = sink.hits.opened;
        if plain && matches!(self.mode, Mode::Http1) {
            // A new request is no continuation of the body before it.
            return boundary::may_continue(bytes) && !begins_request(bytes);
        }
        sink.continued || sink.resolved < open
    }

    /// Follows a login to a database, where passwords for one are known.
    fn login(&mut self, bytes: &[u8], begins: bool, sink: &mut Sink<'_>) {
        if !begins || sink.matcher.logins.is_empty() || !self.http.is_outside() {
            return;
        }
        let Some(login) = &mut self.login else {
            self.login = Login::begun(bytes);
            return;
        };
        if let Some(user) = login.message(bytes) {
            for credential in sink.matcher.logins.of(user) {
                let by = Some(IdentifiedBy::ScramLogin);
                sink.hits.record(credential, by, Transform::Raw, "", false);
            }
            self.login = None;
        }
    }

    fn speak(&mut self, bytes: &[u8], begins: bool, total: u64, sink: &mut Sink<'_>) {
        match &mut self.mode {
            Mode::Http2(h2) => h2.push(bytes, begins.then_some(total), &mut self.wire, sink),
            Mode::WebSocket(ws) => {
                if !ws.push(bytes, sink) {
                    // It was none: the upgrade was refused.
                    self.mode = Mode::Http1;
                    self.http1(bytes, sink);
                }
            }
            Mode::Http1 => self.http1(bytes, sink),
        }
    }

    fn http1(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if self.http.is_chunked() && begins_request(bytes) {
            self.http.reset();
            self.end_body(sink);
        }
        if !self.http.is_outside() {
            self.name(sink);
        }
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let first = self.http.is_first_line();
            let (used, piece) = self.http.step(&bytes[at..], sink.matcher);
            at += used;
            self.ended = matches!(piece, Piece::Body(true) | Piece::Ended);
            match piece {
                Piece::Begins => {
                    self.flush(&bytes[from..at], sink);
                    from = at;
                    self.end_body(sink);
                    self.request = None;
                    self.in_body = false;
                }
                Piece::Head if first => {
                    self.flush(&bytes[from..at - used], sink);
                    from = at;
                    sink.hits.target = true;
                    self.flush(&bytes[at - used..at], sink);
                    sink.hits.target = false;
                    self.name(sink);
                }
                Piece::Head => {
                    self.name(sink);
                    self.present(sink);
                }
                Piece::Body(ends) => {
                    self.flush(&bytes[from..at - used], sink);
                    from = at;
                    // Where the head names the encoding, it is decoded by that.
                    let begins = !std::mem::replace(&mut self.in_body, !ends);
                    if begins && self.http.head().encoding.is_none() {
                        self.wire.begin_message();
                    }
                    sink.hits.body = true;
                    self.flush(&bytes[at - used..at], sink);
                    self.unpack(&bytes[at - used..at], sink);
                    sink.hits.body = false;
                    if ends {
                        self.packed = None;
                    }
                }
                Piece::Chunk => {
                    self.flush(&bytes[from..at - used], sink);
                    from = at;
                    self.chunk(&bytes[at - used..at], sink);
                }
                Piece::Framing | Piece::Other => {}
                Piece::Ended => self.end_body(sink),
                Piece::WebSocket => {
                    self.flush(&bytes[from..at], sink);
                    self.upgrade(&bytes[at..], sink);
                    return;
                }
                Piece::Http2 => {
                    self.flush(&bytes[from..at], sink);
                    self.wire.break_off();
                    self.mode = Mode::Http2(Box::new(Http2::begun()));
                    self.speak(&bytes[at..], false, 0, sink);
                    return;
                }
            }
        }
        self.flush(&bytes[from..], sink);
        self.facts(sink);
    }

    /// The head asked for a WebSocket: what follows is one, if it is framed like one.
    fn upgrade(&mut self, rest: &[u8], sink: &mut Sink<'_>) {
        self.present(sink);
        let head = self.http.head();
        let mut ws = WebSocket::new(head.request.clone(), head.is_request, head.deflate);
        if rest.is_empty() || ws.push(rest, sink) {
            self.mode = Mode::WebSocket(Box::new(ws));
            self.wire.break_off();
        } else {
            self.wire.push(rest, sink);
        }
    }

    /// Names the hosts of the current request.
    fn name(&self, sink: &mut Sink<'_>) {
        for host in &self.http.head().hosts {
            sink.host(host);
        }
    }

    /// What the head that has ended holds that is a credential.
    fn present(&mut self, sink: &mut Sink<'_>) {
        for (place, value) in self.http.take_presented() {
            self.current(0, sink);
            if let Some(header) = presented::name(place) {
                sink.meet(header, &value);
            }
        }
    }

    /// The place of the current request in this payload.
    fn current(&mut self, bytes: usize, sink: &mut Sink<'_>) {
        let head = self.http.head();
        if head.is_request || head.request.status_class != 0 {
            if self.request.is_none() {
                self.request = sink.request(&head.request);
            }
            if let Some(listed) = self
                .request
                .and_then(|i| sink.requests.get_mut(usize::from(i)))
            {
                listed.bytes += bytes as u64;
            }
        }
        sink.hits.request = self.request;
    }

    /// Brings what is reported about the current request up to what is known by now.
    fn facts(&self, sink: &mut Sink<'_>) {
        let listed = self
            .request
            .and_then(|i| sink.requests.get_mut(usize::from(i)));
        if let Some(listed) = listed {
            let bytes = listed.bytes;
            listed.clone_from(&self.http.head().request);
            listed.bytes = bytes;
            listed.target = super::request::target(listed);
        }
    }

    /// Inspects bytes of the connection itself.
    fn flush(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        if bytes.is_empty() {
            return;
        }
        self.current(bytes.len(), sink);
        self.wire.push(bytes, sink);
        self.facts(sink);
    }

    fn chunk(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        self.current(bytes.len(), sink);
        self.wire.break_off();
        sink.hits.body = true;
        self.body
            .get_or_insert_with(|| Box::new(Text::message(BODY)))
            .push(bytes, sink);
        self.unpack(bytes, sink);
        sink.hits.body = false;
    }

    fn unpack(&mut self, bytes: &[u8], sink: &mut Sink<'_>) {
        let Some(encoding) = self.http.head().encoding else {
            return;
        };
        self.current(0, sink);
        let packed = self
            .packed
            .get_or_insert_with(|| Box::new(Packed::new(encoding)));
        packed.push(bytes, sink);
    }

    fn end_body(&mut self, sink: &mut Sink<'_>) {
        sink.hits.body = true;
        if let Some(mut body) = self.body.take() {
            body.end(sink);
        }
        if let Some(mut packed) = self.packed.take() {
            packed.end(sink);
        }
        sink.hits.body = false;
    }

    /// The last bytes ended with a message.
    pub fn message_ended(&self) -> bool {
        self.ended
    }

    /// So many bytes of this write were not seen; `None` when it is not known how many.
    pub fn skip(&mut self, bytes: Option<u64>, sink: &mut Sink<'_>) {
        if self.packed.take().is_some_and(|p| p.has_output()) {
            sink.undecoded.lost += 1;
        }
        self.wire.break_off();
        if let Some(body) = &mut self.body {
            body.break_off();
        }
        match (&mut self.mode, bytes) {
            (Mode::Http1, Some(bytes)) => self.http.skip(bytes),
            (Mode::Http1, None) => self.http.reset(),
            (Mode::Http2(h2), bytes) => h2.skip(bytes, sink),
            (Mode::WebSocket(ws), bytes) => ws.skip(bytes),
        }
    }

    /// Other bytes came, of which nothing is known here: what was spoken has ended.
    pub fn forget(&mut self) {
        self.wire.wipe();
        let Self {
            wire,
            serial,
            credit,
            ..
        } = std::mem::take(self);
        *self = Self {
            wire,
            serial,
            credit,
            ..Self::default()
        };
    }

    /// Forgets bytes; what is known about the connection stays.
    pub fn wipe(&mut self) {
        self.wire.wipe();
        if let Some(body) = &mut self.body {
            body.wipe();
        }
        self.packed = None;
        self.http.wipe();
        match &mut self.mode {
            Mode::Http1 => {}
            Mode::Http2(h2) => h2.wipe(),
            Mode::WebSocket(ws) => ws.wipe(),
        }
    }

    /// Forgets bytes that came a second ago, of whatever text. `now` in nanoseconds since boot.
    pub fn expire(&mut self, now: u64) {
        self.wire.expire(now);
        if let Some(body) = &mut self.body {
            body.expire(now);
        }
        Packed::expire(&mut self.packed, now);
        if self.http.presents() {
            let since = *self.presents_since.get_or_insert(now);
            if now.saturating_sub(since) >= HEAD_NS {
                self.http.forget_presented();
            }
        } else {
            self.presents_since = None;
        }
        match &mut self.mode {
            Mode::Http1 => {}
            Mode::Http2(h2) => h2.expire(now),
            Mode::WebSocket(ws) => ws.expire(now),
        }
    }

    /// It speaks a protocol that later bytes cannot be read without what was said before.
    pub fn is_lasting(&self) -> bool {
        matches!(self.mode, Mode::Http2(_) | Mode::WebSocket(_))
    }

    /// About how many bytes are kept that are of no secret.
    pub fn held(&self) -> usize {
        match &self.mode {
            Mode::Http2(h2) => h2.held(),
            _ => 0,
        }
    }

    /// Bytes kept that may be of a secret.
    pub fn kept(&self) -> usize {
        let mode = match &self.mode {
            Mode::Http1 => 0,
            Mode::Http2(h2) => h2.kept(),
            Mode::WebSocket(ws) => ws.kept(),
        };
        self.wire.kept()
            + self.http.kept()
            + self.body.as_ref().map_or(0, |b| b.kept())
            + self.packed.as_ref().map_or(0, |p| p.kept())
            + mode
    }
}
