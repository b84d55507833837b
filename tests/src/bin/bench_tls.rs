//! Benchmark load: `SSL_write` of 1 KiB over loopback again and again; prints nanoseconds per write, and
//! those of the writer's processor time.
//!
//! `bench_tls CERTIFICATE KEY WRITES`. OpenSSL is loaded at run time and called by its C interface: the probes
//! under test sit on the system's library, and a linked copy would need its headers on every machine.

use keytrail_tests::load::{Spent, Whose};
use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    io::{self, BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const SIZE: usize = 1024;
const PEM: c_int = 1;
/// First argument of the server's process.
const SERVE: &str = "--serve";
/// Time for the agent to inspect this process, which it has to do once, before anything is measured.
const QUIET_BEFORE: Duration = Duration::from_millis(500);

/// `SSL_CTX` and `SSL`, opaque.
type Handle = *mut c_void;

/// The functions of libssl 3 used here, as openssl/ssl.h declares them.
#[derive(Clone, Copy)]
struct Ssl {
    client_method: unsafe extern "C" fn() -> *const c_void,
    server_method: unsafe extern "C" fn() -> *const c_void,
    ctx_new: unsafe extern "C" fn(*const c_void) -> Handle,
    ctx_certificate: unsafe extern "C" fn(Handle, *const c_char, c_int) -> c_int,
    ctx_key: unsafe extern "C" fn(Handle, *const c_char, c_int) -> c_int,
    new: unsafe extern "C" fn(Handle) -> Handle,
    set_fd: unsafe extern "C" fn(Handle, c_int) -> c_int,
    connect: unsafe extern "C" fn(Handle) -> c_int,
    accept: unsafe extern "C" fn(Handle) -> c_int,

    write: unsafe extern "C" fn(Handle, *const c_void, c_int) -> c_int,
    ctrl: unsafe extern "C" fn(Handle, c_int, c_long, *mut c_void) -> c_long,
}

/// Looks `name` up in `library` as a function of type `F`.
///
/// # Safety
/// `F` must be the function's type in C.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> io::Result<F> {
    // SAFETY: `library` is what dlopen returned and `name` ends with a zero.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return Err(io::Error::other(format!(
            "libssl has no {}",
            name.to_string_lossy()
        )));
    }
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a function pointer has the size of the address, checked above; the caller vouches for its type.
    Ok(unsafe { std::mem::transmute_copy(&address) })
}

impl Ssl {
    fn load() -> io::Result<Self> {
        // SAFETY: the name ends with a zero; libssl's constructors may run at any time.
        let library = unsafe { libc::dlopen(c"libssl.so.3".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(io::Error::other("cannot load libssl.so.3"));
        }
        // SAFETY: every field has the type that openssl/ssl.h of 3.x gives the function of that name.
        unsafe {
            Ok(Self {
                client_method: symbol(library, c"TLS_client_method")?,
                server_method: symbol(library, c"TLS_server_method")?,
                ctx_new: symbol(library, c"SSL_CTX_new")?,
                ctx_certificate: symbol(library, c"SSL_CTX_use_certificate_file")?,
                ctx_key: symbol(library, c"SSL_CTX_use_PrivateKey_file")?,
                new: symbol(library, c"SSL_new")?,
                set_fd: symbol(library, c"SSL_set_fd")?,
                connect: symbol(library, c"SSL_connect")?,
                accept: symbol(library, c"SSL_accept")?,

                write: symbol(library, c"SSL_write")?,
                ctrl: symbol(library, c"SSL_ctrl")?,
            })
        }
    }

    fn check(result: c_int, what: &str) -> io::Result<()> {
        if result == 1 {
            Ok(())
        } else {
            Err(io::Error::other(format!("{what} failed ({result})")))
        }
    }

    /// A connection on `stream`, which must outlive it. Nothing is ever freed: the process ends soon.
    fn session(self, context: Handle, stream: &TcpStream) -> io::Result<Handle> {
        // SAFETY: `context` came from SSL_CTX_new and the descriptor is open.
        unsafe {
            let session = (self.new)(context);
            if session.is_null() {
                return Err(io::Error::other("SSL_new failed"));
            }
            Self::check((self.set_fd)(session, stream.as_raw_fd()), "SSL_set_fd")?;
            Ok(session)
        }
    }
}

/// Accepts one connection and reads it to its end.
fn serve(ssl: Ssl, listener: &TcpListener, certificate: &CStr, key: &CStr) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    // SAFETY: the strings end with a zero, the buffer is as long as said, and the session belongs to this thread.
    unsafe {
        let context = (ssl.ctx_new)((ssl.server_method)());
        Ssl::check(
            (ssl.ctx_certificate)(context, certificate.as_ptr(), PEM),
            "the certificate",
        )?;
        Ssl::check((ssl.ctx_key)(context, key.as_ptr(), PEM), "the key")?;
        let session = ssl.session(context, &stream)?;
        Ssl::check((ssl.accept)(session), "SSL_accept")?;
        // Not decrypted, and woken for many writes at once: else the time would be that of the reader, or of waking it.
        let least: c_int = 256 << 10;
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const least).cast(),
            size_of::<c_int>() as libc::socklen_t,
        );
        let mut buffer = vec![0u8; 1 << 20];
        while stream.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn send(ssl: Ssl, session: Handle, writes: u32) -> io::Result<Spent> {
    let payload = [b'x'; SIZE];
    let started = Spent::now(Whose::Thread)?;
    for _ in 0..writes {
        // SAFETY: the session belongs to this thread and the payload is SIZE bytes long.
        let sent = unsafe { (ssl.write)(session, payload.as_ptr().cast(), SIZE as c_int) };
        if sent != SIZE as c_int {
            return Err(io::Error::other(format!("SSL_write returned {sent}")));
        }
    }
    started.until_now(writes)
}

/// The server: a process of its own, because who reads the key is a holder and its payloads are inspected. Says its
/// port first.
fn server(certificate: &str, key: &str) -> io::Result<()> {
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    pin(1);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    serve(Ssl::load()?, &listener, &text(certificate)?, &text(key)?)
}

/// To a processor of its own where there is one: when both ends share one, the time is the scheduler's.
fn pin(cpu: usize) {
    // SAFETY: the set is plain data, zero is an empty one, and its size is passed along. A refusal leaves it be.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// Ended on every way out.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(certificate: &str, key: &str, writes: u32) -> io::Result<Spent> {
    let ssl = Ssl::load()?;
    pin(0);
    let mut server = Server(
        Command::new(env::current_exe()?)
            .args([SERVE, certificate, key])
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut port = String::new();
    if let Some(output) = server.0.stdout.take() {
        BufReader::new(output).read_line(&mut port)?;
    }
    let port: u16 = port.trim().parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    // SAFETY: as in `serve`; the client checks no certificate, the server is its own child.
    let session = unsafe {
        let context = (ssl.ctx_new)((ssl.client_method)());
        let session = ssl.session(context, &stream)?;
        // SSL_CTRL_SET_TLSEXT_HOSTNAME (55), TLSEXT_NAMETYPE_host_name (0), as the macro of tls1.h does.
        (ssl.ctrl)(session, 55, 0, c"localhost".as_ptr().cast_mut().cast());
        Ssl::check((ssl.connect)(session), "SSL_connect")?;
        session
    };
    thread::sleep(QUIET_BEFORE);
    send(ssl, session, writes / 10 + 1)?;
    send(ssl, session, writes)
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [SERVE, certificate, key] => server(certificate, key),
        [certificate, key, writes] if writes.parse::<u32>().is_ok_and(|writes| writes > 0) => {
            run(certificate, key, writes.parse().unwrap_or(1)).map(|spent| println!("{spent}"))
        }
        _ => {
            eprintln!("usage: bench_tls CERTIFICATE KEY WRITES");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_tls: {error}");
            ExitCode::FAILURE
        }
    }
}
