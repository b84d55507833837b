//! What stands for a metadata service in the self-test: the address of one, in a network of its thread's own.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

/// EC2's, GCE's, Azure's and others'.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Asks it for bytes and takes them in.
///
/// # Errors
/// The kernel gives no network of one's own (it takes `CAP_SYS_ADMIN`), or the address cannot be had in it.
pub fn answer(bytes: &[u8]) -> io::Result<()> {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            // SAFETY: of this thread, which ends here, the network alone is made its own.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
            let listener = listener()?;
            let mut asker = TcpStream::connect(listener.local_addr()?)?;
            listener.accept()?.0.write_all(bytes)?;
            let mut taken = vec![0; bytes.len()];
            asker.read_exact(&mut taken)
        });
        asked
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the self-test has ended")))
    })
}

/// Listens at the address, which loopback gets here.
fn listener() -> io::Result<TcpListener> {
    // include/uapi/linux/sockios.h, include/uapi/linux/if.h.
    const SIOCSIFFLAGS: libc::c_ulong = 0x8914;
    const SIOCSIFADDR: libc::c_ulong = 0x8916;
    const IFF_UP: u16 = 1;
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let of_loopback = |request: libc::c_ulong, value: &[u8]| {
        // struct ifreq: 16 bytes of the name, 24 of the value.
        let mut asked = [0u8; 40];
        asked[..2].copy_from_slice(b"lo");
        asked[16..16 + value.len()].copy_from_slice(value);
        // SAFETY: both requests read a struct ifreq, which `asked` has the size of, and keep nothing of it.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, asked.as_ptr()) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // struct sockaddr_in: family, port, address.
    let mut address = [0u8; 8];
    address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    address[4..].copy_from_slice(&ADDRESS.octets());
    of_loopback(SIOCSIFADDR, &address)?;
    of_loopback(SIOCSIFFLAGS, &IFF_UP.to_ne_bytes())?;
    TcpListener::bind((ADDRESS, 0))
}
