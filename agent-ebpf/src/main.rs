//! keytrail's kernel side. One file per signal; each begins with its hooks, a list of attach stubs with the kernel's
//! prototypes. Nothing here decides: it filters (a process that holds nothing costs one look-up), copies and counts.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]

/// A line in the debug log (feature `log`), nothing otherwise. Arguments are not even evaluated without the feature.
macro_rules! trace {
    ($($argument:tt)*) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!($($argument)*);
    };
}

mod answer;
mod arch;
mod budget;
mod connection;
mod discover;
mod exec;
mod file;
mod lifecycle;
mod maps;
mod message;
mod message_peer;
mod opened;
mod payload;
mod pipes;
mod record;
mod service;
mod socket;
mod syscall;
mod taking;
mod tls;
mod tls_go;
mod tls_nss;
mod tls_rustls;
mod tmpfs;
mod touch;
mod write;

/// The helpers used are for GPL-compatible programs; this declaration covers the programs in this object only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Nothing here may panic; the build looks for this symbol in the object.
    loop {}
}
