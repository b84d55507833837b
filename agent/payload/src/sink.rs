//! What one payload gives, while it is inspected.

use super::hits::Hits;
use super::keys::{self, Signed};
use super::matcher::Matcher;
use super::presented::{self, Unknown};
use keytrail_model::{HostName, IdentifiedBy, Request, Transform, Undecoded};

/// Most requests reported for one payload: of HTTP/2, a write of 16 KiB may begin some hundred.
const MAX_REQUESTS: usize = 256;
/// Most names kept of one payload.
const MAX_HOSTS: usize = 8;

/// Decoded bytes a connection may bring forth: at first, for each byte it sends, and at most at a time. What a
/// decoder makes of few bytes costs us more than it costs the sender, so it has to be paid for.
const CREDIT_FIRST: u64 = 64 * 1024;
const CREDIT_PER_BYTE: u64 = 32;
const CREDIT_MOST: u64 = 1024 * 1024;

/// Decoded bytes a connection may still bring forth.
#[derive(Clone, Copy, Debug)]
pub struct Credit(u64);

impl Default for Credit {
    fn default() -> Self {
        Self(CREDIT_FIRST)
    }
}

impl Credit {
    pub fn earn(&mut self, bytes: usize) {
        self.0 = self
            .0
            .saturating_add(CREDIT_PER_BYTE * bytes as u64)
            .min(CREDIT_MOST);
    }

    /// Whether that many are left; then they are used.
    pub fn spend(&mut self, bytes: usize) -> bool {
        let enough = self.0 >= bytes as u64;
        self.0 = self.0.saturating_sub(bytes as u64);
        enough
    }
}

pub struct Sink<'m> {
    pub matcher: &'m Matcher,
    /// Who is asked about credentials that nobody may have known, if anybody is.
    pub unknown: Option<&'m mut (dyn Unknown + 'm)>,
    pub hits: Hits,
    pub hosts: Vec<HostName>,
    pub requests: Vec<Request>,
    pub undecoded: Undecoded,
    pub credit: Credit,
    /// Signatures that may still be verified.
    pub signatures: u32,
    /// When this payload came, nanoseconds since boot.
    pub now: u64,
    /// Number of this payload among those of its connection.
    pub serial: u32,
    /// A text that ended in an identifier goes on with its word.
    pub continued: bool,
    /// Texts that ended in an identifier before this payload and were told how it goes on.
    pub resolved: u32,
}

impl<'m> Sink<'m> {
    pub fn new(matcher: &'m Matcher, credit: Credit) -> Self {
        Self {
            matcher,
            unknown: None,
            hits: Hits::new(),
            hosts: Vec::new(),
            requests: Vec::new(),
            undecoded: Undecoded::default(),
            credit,
            signatures: 0,
            now: 0,
            serial: 0,
            continued: false,
            resolved: 0,
        }
    }

    /// Does something with bytes that were decoded; nothing when they are nested too deeply.
    pub fn within(&mut self, decoding: Transform, act: impl FnOnce(&mut Self)) {
        if self.hits.depth() >= super::hits::MAX_CHAIN {
            self.undecoded.cut += 1;
            return;
        }
        self.hits.enter(decoding);
        act(self);
        self.hits.leave();
    }

    /// Looks for JSON Web Tokens that a key held here has signed. One that is split over two writes is not found.
    pub fn signed(&mut self, bytes: &[u8]) {
        let matcher = self.matcher;
        if matcher.keys.is_empty() {
            return;
        }
        for token in keys::tokens(bytes) {
            let token = &bytes[token];
            match matcher
                .keys
                .signer(token, &matcher.confirm, &mut self.signatures)
            {
                Signed::By(credential) => {
                    let by = Some(IdentifiedBy::JwtSignature);
                    self.hits.record(&credential, by, Transform::Raw, "", false);
                }
                Signed::ByOthers => {}
                Signed::Unknown => self.undecoded.cut += 1,
            }
        }
    }

    /// A header of a request that holds a credential: one that was not known is from now on. What a key of this host has
    /// signed is reported as that key's use.
    pub fn meet(&mut self, header: &'static str, value: &[u8]) {
        let matcher = self.matcher;
        let Some(unknown) = self.unknown.as_deref_mut() else {
            return;
        };
        if !presented::fits(header, value) {
            return;
        }
        if !matcher.keys.is_empty() {
            for token in keys::tokens(value) {
                let of = &value[token];
                match matcher
                    .keys
                    .signer(of, &matcher.confirm, &mut self.signatures)
                {
                    Signed::ByOthers => {}
                    Signed::By(_) | Signed::Unknown => return,
                }
            }
        }
        for (credential, transform) in unknown.presented(header, value) {
            self.hits.record(&credential, None, transform, "", false);
        }
    }

    pub fn host(&mut self, host: &HostName) {
        if !self.hosts.contains(host) && self.hosts.len() < MAX_HOSTS {
            self.hosts.push(host.clone());
        }
    }

    /// The place of a request among those of this payload; `None` when there are too many.
    pub fn request(&mut self, request: &Request) -> Option<u16> {
        if self.requests.len() >= MAX_REQUESTS {
            return None;
        }
        self.requests.push(Request {
            bytes: 0,
            ..request.clone()
        });
        Some((self.requests.len() - 1) as u16)
    }
}
