//! `bench_empty LIBRARY FUNCTION TRACEPOINT...`: programs that do nothing, at the entry of a function in all processes and at raw
//! tracepoints, until it is ended: the least that anything at these places costs. Prints a line when they are there.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::ExitCode,
};

/// `bpf(2)`: commands and types, as in linux/bpf.h.
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const KPROBE: u32 = 2;
const RAW_TRACEPOINT: u32 = 17;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];
/// `perf_event_open(2)`: the size of its attributes as of Linux 4.1, and its ioctls, as in linux/perf_event.h.
const PERF_ATTR_SIZE: u32 = 112;
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;
const CLOSE_ON_EXEC: libc::c_ulong = 8;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_empty: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), Error> {
    let [library, function, tracepoints @ ..] = args else {
        return Err("usage: bench_empty LIBRARY FUNCTION TRACEPOINT...".into());
    };
    let mut held = vec![uprobe(library, function)?];
    for name in tracepoints {
        held.push(raw_tracepoint(name).map_err(|e| format!("{name}: {e}"))?);
    }
    println!("at work");
    loop {
        std::thread::park();
    }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn bpf(command: libc::c_long, attributes: &[u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: attributes of that size that live, as do the bytes they point to.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    })
}

fn nothing(kind: u32) -> io::Result<OwnedFd> {
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(kind) | (NOTHING.len() as u64) << 32;
    attributes[1] = NOTHING.as_ptr() as u64;
    attributes[2] = c"GPL".as_ptr() as u64;
    bpf(PROG_LOAD, &attributes)
}

/// The link holds the program.
fn raw_tracepoint(name: &str) -> Result<OwnedFd, Error> {
    let program = nothing(RAW_TRACEPOINT)?;
    let name = CString::new(name)?;
    let mut attributes = [0_u64; 16];
    attributes[0] = name.as_ptr() as u64;
    attributes[1] = program.as_raw_fd() as u64;
    Ok(bpf(RAW_TRACEPOINT_OPEN, &attributes)?)
}

/// The event holds the program.
fn uprobe(library: &str, function: &str) -> Result<OwnedFd, Error> {
    let (path, offset) = place(library, function)?;
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind: u32 = kind.trim().parse()?;
    let mut attributes = [0_u64; PERF_ATTR_SIZE as usize / 8];
    attributes[0] = u64::from(kind) | u64::from(PERF_ATTR_SIZE) << 32;
    attributes[7] = path.as_ptr() as u64;
    attributes[8] = offset;
    // SAFETY: attributes of the size they name that live, as does the path they point to.
    let event = descriptor(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            -1,
            0,
            -1,
            CLOSE_ON_EXEC,
        )
    })?;
    let program = nothing(KPROBE)?;
    // SAFETY: an event and a program of this process.
    let set = unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF, program.as_raw_fd()) };
    // SAFETY: an event of this process.
    let enabled = unsafe { libc::ioctl(event.as_raw_fd(), ENABLE, 0) };
    if set != 0 || enabled != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(event)
}

/// The file and the offset in it of a function, as the loader sees it.
fn place(library: &str, function: &str) -> Result<(CString, u64), Error> {
    let (name, symbol) = (CString::new(library)?, CString::new(function)?);
    // SAFETY: names that live; the library stays loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) };
    if handle.is_null() {
        return Err(format!("{library} cannot be loaded").into());
    }
    // SAFETY: a handle of a loaded library, and a name that lives.
    let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) } as u64;
    let maps = fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, _, offset, _, _, path] = fields[..] else {
            continue;
        };
        let Some((from, to)) = range.split_once('-') else {
            continue;
        };
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16);
        let (from, to) = (hexadecimal(from)?, hexadecimal(to)?);
        if (from..to).contains(&address) {
            return Ok((CString::new(path)?, address - from + hexadecimal(offset)?));
        }
    }
    Err(format!("{library} has no {function}").into())
}
