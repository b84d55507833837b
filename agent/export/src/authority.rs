//! Clients that name the socket where HTTP wants a host.
//!
//! gRPC's C core (Python, Ruby, PHP, C++) takes the percent-encoded path of a unix socket for `:authority`
//! (`run%2Fkeytrail%2Fkeytrail.sock`). HTTP/2 servers in Rust refuse that as malformed, and the stream ends in
//! PROTOCOL_ERROR before any service is asked. Nobody here inspects the authority, so what no host may hold is
//! replaced by as many `-` on the way in: the length stays the same, and with it everything the header compression of
//! both sides counts.
//!
//! It goes byte by byte over frames and header blocks (RFC 9113, RFC 7541) and keeps a few numbers only. What it does
//! not understand it leaves as it is: judging frames is the server's work.

mod header_block;

use header_block::HeaderBlock;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: u32 = 5;

/// Where in the stream of frames the next byte is.
#[derive(Clone, Copy, Debug)]
enum At {
    Preface(usize),
    Head([u8; FRAME_HEAD], usize),
    /// The byte that says how much padding there is.
    PadLength,
    /// So many bytes that are nobody's here: the priority, then the fragment.
    Priority(u32),
    Fragment(u32),
    Skip(u32),
}

/// Rewrites what a client sends.
#[derive(Debug)]
struct Rewrite {
    at: At,
    flags: u8,
    /// Bytes of the frame's payload from here on.
    left: u32,
    padding: u32,
    block: HeaderBlock,
}

impl Default for Rewrite {
    fn default() -> Self {
        Rewrite {
            at: At::Preface(0),
            flags: 0,
            left: 0,
            padding: 0,
            block: HeaderBlock::default(),
        }
    }
}

impl Rewrite {
    fn bytes(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = match self.at {
                At::Preface(n) => {
                    let used = bytes.len().min(PREFACE - n);
                    self.at = match n + used {
                        PREFACE => At::Head([0; FRAME_HEAD], 0),
                        n => At::Preface(n),
                    };
                    used
                }
                At::Head(mut head, n) => {
                    let used = bytes.len().min(FRAME_HEAD - n);
                    head[n..n + used].copy_from_slice(&bytes[..used]);
                    self.at = match n + used {
                        FRAME_HEAD => self.frame(head),
                        n => At::Head(head, n),
                    };
                    used
                }
                At::PadLength => {
                    self.padding = u32::from(bytes[0]);
                    self.left -= 1;
                    self.at = self.after_padding_length();
                    1
                }
                At::Priority(n) => {
                    let used = share(bytes, n);
                    self.at = match n - used {
                        0 => self.fragment(),
                        n => At::Priority(n),
                    };
                    self.left -= used;
                    used as usize
                }
                At::Fragment(n) => {
                    let used = share(bytes, n);
                    self.block.bytes(&mut bytes[..used as usize]);
                    self.left -= used;
                    self.at = match n - used {
                        0 => self.end_of_fragment(),
                        n => At::Fragment(n),
                    };
                    used as usize
                }
                At::Skip(n) => {
                    let used = share(bytes, n);
                    self.at = match n - used {
                        0 => At::Head([0; FRAME_HEAD], 0),
                        n => At::Skip(n),
                    };
                    used as usize
                }
            };
            bytes = &mut bytes[used..];
        }
    }

    fn frame(&mut self, head: [u8; FRAME_HEAD]) -> At {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let kind = head[3];
        if length == 0 || !matches!(kind, HEADERS | CONTINUATION) {
            return skip(length);
        }
        self.left = length;
        self.padding = 0;
        // A continuation has neither padding nor priority.
        self.flags = head[4]
            & if kind == HEADERS {
                u8::MAX
            } else {
                END_HEADERS
            };
        if self.flags & PADDED != 0 {
            At::PadLength
        } else {
            self.after_padding_length()
        }
    }

    fn after_padding_length(&mut self) -> At {
        if self.flags & PRIORITY == 0 {
            return self.fragment();
        }
        match self.left.min(PRIORITY_BYTES) {
            0 => skip(0),
            n => At::Priority(n),
        }
    }

    /// What is left of the frame after the bytes in front of the fragment.
    fn fragment(&mut self) -> At {
        let before = match self.at {
            At::Priority(n) => n,
            _ => 0,
        };
        match (self.left - before).saturating_sub(self.padding) {
            0 => self.end_of_fragment_with(self.left - before),
            n => At::Fragment(n),
        }
    }

    fn end_of_fragment(&mut self) -> At {
        self.end_of_fragment_with(self.left)
    }

    fn end_of_fragment_with(&mut self, left: u32) -> At {
        if self.flags & END_HEADERS != 0 {
            self.block = HeaderBlock::default();
        }
        skip(left)
    }
}

fn skip(bytes: u32) -> At {
    match bytes {
        0 => At::Head([0; FRAME_HEAD], 0),
        n => At::Skip(n),
    }
}

/// How many of `bytes` belong to a part of `n` bytes.
fn share(bytes: &[u8], n: u32) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(n)
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    inner: UnixStream,
    rewrite: Rewrite,
}

impl Connection {
    pub fn new(inner: UnixStream) -> Connection {
        Connection {
            inner,
            rewrite: Rewrite::default(),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.inner.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(result, Poll::Ready(Ok(()))) {
            self.rewrite.bytes(&mut buffer.filled_mut()[before..]);
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
