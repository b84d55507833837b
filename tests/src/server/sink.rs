//! A TCP server that keeps what it gets and says nothing, or one sentence.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Most bytes kept of one connection.
const MAX: usize = 16 << 20;

/// What a whole HTTP server would say at least.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

pub struct Sink {
    pub port: u16,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Never answers.
    pub fn silent() -> Self {
        Self::start(false)
    }

    /// Answers `200 OK` to the first request of every connection, once it is whole.
    pub fn http() -> Self {
        Self::start(true)
    }

    fn start(answers: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (received, stop) = (received.clone(), stop.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (received, stop) = (received.clone(), stop.clone());
                    std::thread::spawn(move || serve(stream, answers, &received, &stop));
                }
            })
        };
        Self {
            port,
            received,
            stop,
            thread: Some(thread),
        }
    }

    /// What arrived so far, a connection each.
    #[must_use]
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }

    /// Whether these bytes arrived on some connection.
    #[must_use]
    pub fn has(&self, needle: &str) -> bool {
        self.received()
            .iter()
            .any(|bytes| String::from_utf8_lossy(bytes).contains(needle))
    }
}

fn serve(mut stream: TcpStream, answers: bool, received: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    let place = {
        let mut all = received.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let mut buffer = [0; 16384];
    let mut answered = false;
    while !stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut all = received.lock().unwrap();
                if all[place].len() < MAX {
                    all[place].extend_from_slice(&buffer[..count]);
                }
                let whole = is_whole(&all[place]);
                drop(all);
                // An answer in the middle of a request may keep the client from sending the rest.
                if answers && !answered && whole {
                    answered = true;
                    let _ = stream.write_all(OK);
                }
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => return,
        }
    }
}

/// Whether the head of an HTTP request and as many bytes as it announces have come, or the last of its chunks.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    if head
        .lines()
        .any(|line| line.starts_with("transfer-encoding:") && line.contains("chunked"))
    {
        return request[end..].ends_with(b"\r\n0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |text| text.trim().parse().unwrap_or(0));
    request.len() - end - 4 >= length
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_whole_request() {
        assert!(!is_whole(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n"));
        assert!(!is_whole(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"));
        assert!(is_whole(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"));
        assert!(is_whole(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let chunked = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert!(is_whole(chunked));
        assert!(!is_whole(&chunked[..chunked.len() - 1]));
        assert!(!is_whole(&chunked[..chunked.len() - 5]));
    }

    #[test]
    fn keeps_what_arrives() {
        let sink = Sink::http();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, sink.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        assert!(sink.has("GET / HTTP"));
        assert!(!sink.has("POST"));
    }
}
