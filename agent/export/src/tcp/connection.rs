//! A connection that has shown a good certificate, and what ends it.

use super::accounts::{Account, Share};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long a client may take to begin to speak HTTP/2.
const SPEAK: Duration = Duration::from_secs(10);
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE: usize = 24;

/// Ends when its future does: the certificate has expired, or who vouched for it does not count any more.
pub(super) struct TlsConnection {
    inner: TlsStream<TcpStream>,
    account: Arc<Account>,
    ends: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Until enough was read for a client to be one.
    silent: Option<(usize, Pin<Box<tokio::time::Sleep>>)>,
    _share: Share,
}

impl TlsConnection {
    /// `lifetime` is what is left of the certificate; `authorities` changes with those who vouch for clients.
    pub fn new(
        inner: TlsStream<TcpStream>,
        account: Arc<Account>,
        share: Share,
        lifetime: Duration,
        mut authorities: watch::Receiver<u64>,
    ) -> TlsConnection {
        let ends = async move {
            tokio::select! {
                () = tokio::time::sleep(lifetime) => {}
                // With others, or with the server itself.
                _ = authorities.changed() => {}
            }
        };
        TlsConnection {
            inner,
            account,
            ends: Box::pin(ends),
            silent: Some((0, Box::pin(tokio::time::sleep(SPEAK)))),
            _share: share,
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ends.as_mut().poll(context).is_ready() {
            // A future that is done is not asked again: whoever gets this error drops the connection.
            self.ends = Box::pin(std::future::ready(()));
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some((_, patience)) = &mut self.silent
            && patience.as_mut().poll(context).is_ready()
        {
            self.silent = Some((0, Box::pin(tokio::time::sleep(Duration::ZERO))));
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = Arc<Account>;

    fn connect_info(&self) -> Arc<Account> {
        self.account.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some((read, _)) = &mut self.silent {
            *read += buffer.filled().len() - before;
            if *read >= PREFACE {
                self.silent = None;
            }
        }
        result
    }
}

impl AsyncWrite for TlsConnection {
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
