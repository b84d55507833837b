//! A TLS server on loopback for one visitor, with a certificate made on the spot.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);
/// A request head larger than this is not from the demo.
const MAX_REQUEST: usize = 64 << 10;

/// A bound socket that nobody serves yet.
pub(super) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    config: Arc<ServerConfig>,
}

/// A serving thread.
pub(super) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Server {
    pub fn bind() -> io::Result<Bound> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|b| {
                    b.with_no_client_auth()
                        .with_single_cert(vec![made.cert.der().clone()], key)
                })
                .map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        Ok(Bound {
            listener,
            address,
            config: Arc::new(config),
        })
    }

    /// Ends the thread; how many requests were answered.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from accept().
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = self.thread.join();
        self.served.load(Ordering::SeqCst)
    }
}

impl Bound {
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn start(self) -> io::Result<Server> {
        let Bound {
            listener,
            address,
            config,
        } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new().name("demo-tls".into()).spawn({
            let (stop, served) = (stop.clone(), served.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    match stream.and_then(|s| answer(s, &config)) {
                        Ok(()) => {
                            served.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(e) => tracing::debug!(error = %e, "the demo's server lost a visitor"),
                    }
                }
            }
        })?;
        Ok(Server {
            address,
            stop,
            served,
            thread,
        })
    }
}

fn answer(mut socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    {
        let mut stream = Stream::new(&mut tls, &mut socket);
        // The request carries the decoy: wiped like any secret.
        let mut request = zeroize::Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
        let mut chunk = zeroize::Zeroizing::new([0u8; 4096]);
        while !request.windows(4).any(|w| w == b"\r\n\r\n") {
            let n = stream.read(&mut chunk[..])?;
            if n == 0 || request.len() + n > MAX_REQUEST {
                return Err(io::Error::other("not a request"));
            }
            request.extend_from_slice(&chunk[..n]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")?;
    }
    tls.send_close_notify();
    tls.complete_io(&mut socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_without_a_visitor_and_survives_nonsense() {
        let server = Server::bind().unwrap().start().unwrap();
        let mut visitor = TcpStream::connect(server.address).unwrap();
        visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(visitor);
        assert_eq!(server.stop(), 0);
    }
}
