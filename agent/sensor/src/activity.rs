//! What a process of the agent's own does to make hooks fire while the agent runs: a few harmless calls of its own, on
//! loopback and in its own memory. The agent is of no interest to its hooks, so it takes another process.

use super::tls;
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Begins with what no other TLS write has, and ends up in no library.
pub const SESSION: u64 = 0x6b65_7974_7261;
const BYTES: &[u8] = b"keytrail self-test while running";
/// It ends after so many seconds, whatever it waits for.
const ALARM: u32 = 10;

/// What was done, as bits of the exit status: what was not is not missed.
pub mod done {
    pub const FILE: u8 = 1;
    pub const TCP: u8 = 2;
    pub const UNIX: u8 = 4;
    pub const UDP: u8 = 8;
    pub const WRITE: u8 = 16;
    pub const MEMORY: u8 = 32;
    pub const PROBED: u8 = 64;
}

/// Waits for a byte on standard input, does what it can, and says what that was. Without the byte it does nothing.
pub fn run(file: Option<&Path>) -> u8 {
    // SAFETY: alarm takes a number; its signal ends this process, which is what it is for.
    unsafe { libc::alarm(ALARM) };
    let mut go = [0u8; 1];
    if std::io::stdin().read_exact(&mut go).is_err() {
        return 0;
    }
    let mut what = 0;
    let mut note = |bit: u8, good: bool| {
        if good {
            what |= bit;
        }
    };
    note(done::FILE, file.is_some_and(|file| read(file).is_ok()));
    note(done::TCP, tcp().is_ok());
    note(done::UNIX, unix().is_ok());
    note(done::UDP, udp().is_ok());
    note(done::WRITE, pipe().is_ok());
    note(done::MEMORY, memory());
    tls::canary(SESSION, BYTES.as_ptr(), BYTES.len());
    note(done::PROBED, true);
    // What comes of a call is inspected when the thread makes its next one.
    // SAFETY: getppid has no preconditions.
    unsafe { libc::getppid() };
    what
}

fn read(file: &Path) -> std::io::Result<()> {
    File::open(file)?.read_exact(&mut [0; 8])
}

fn tcp() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.write_all(BYTES)?;
    listener.accept()?.0.read_exact(&mut [0; BYTES.len()])
}

fn unix() -> std::io::Result<()> {
    let listener = listener()?;
    UnixStream::connect_addr(&listener.local_addr()?)?.write_all(BYTES)
}

/// A listener under an abstract name that the kernel chooses: one that can be known before could be taken by anybody, and
/// then nothing would be tried.
pub(super) fn listener() -> std::io::Result<UnixListener> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let family: libc::sa_family_t = libc::AF_UNIX as libc::sa_family_t;
    // SAFETY: the address is its family alone (unix(7): "autobind"), of the length that is said; it lives through the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&family).cast(),
            size_of_val(&family) as libc::socklen_t,
        )
    };
    if bound != 0 {
        return Err(std::io::Error::last_os_error());
    }
    rustix::net::listen(&socket, 1)?;
    Ok(UnixListener::from(socket))
}

fn udp() -> std::io::Result<()> {
    let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
    UdpSocket::bind(("127.0.0.1", 0))?.send_to(BYTES, receiver.local_addr()?)?;
    Ok(())
}

fn pipe() -> std::io::Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(BYTES)?;
    reader.read_exact(&mut [0; BYTES.len()])
}

/// Reads its own memory as if it were another's; false when it is refused.
pub(super) fn memory() -> bool {
    let mut buffer = [0u8; BYTES.len()];
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: BYTES.as_ptr().cast_mut().cast(),
        iov_len: BYTES.len(),
    };
    let me = std::process::id().cast_signed();
    // SAFETY: both name memory of this process of the length they say; the first is a buffer of its own.
    let count = unsafe { libc::process_vm_readv(me, &local, 1, &remote, 1, 0) };
    count == BYTES.len().cast_signed() && buffer == BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt as _;

    #[test]
    fn nobody_can_take_the_name_before() {
        let names = [listener().unwrap(), listener().unwrap()].map(|one| {
            one.local_addr()
                .unwrap()
                .as_abstract_name()
                .unwrap()
                .to_vec()
        });
        assert_ne!(names[0], names[1]);
        // Five hexadecimal digits.
        assert!(names.iter().all(|name| name.len() == 5), "{names:?}");
        unix().unwrap();
    }
}
