//! Attached is not the same as firing: every hook is made to fire once, cheaply, and must tell the truth.

use super::{FANOTIFY, RawRecord, Sensor, activity, hooks, tls, watch};
use keytrail_abi::{
    Connect, Exec, ExecChunk, FdWrite, Fork, Header, Kind, MessageSend, PROC_HOLDER, PROC_IGNORED,
    ProcState, ProcessAttach, SockSend, TlsWrite, records::target, state::watch as flags,
};
use keytrail_model::Signal;
use keytrail_model::status::{FIRED, Refused};
use std::{
    io::{self, Read, Write},
    mem::offset_of,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{linux::net::SocketAddrExt as _, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const MARK: &[u8] = b"KEYTRAIL_SELF_TEST=1";
/// How long a record may take to appear.
const PATIENCE: Duration = Duration::from_millis(200);

/// Makes fire what can be made to and notes the results in the status.
pub fn all(sensor: &mut Sensor) {
    let me = std::process::id();
    let result = canary(sensor);
    if let Err(reason) = result {
        sensor
            .status
            .offsets
            .push(format!("the ring carries no records: {reason}"));
    }
    // For a moment the agent is a holder, so that its sends are seen.
    sensor.maps.set_process(
        me,
        ProcState {
            state: PROC_HOLDER,
            ..ProcState::default()
        },
    );
    let lifecycle = lifecycle(sensor);
    let network = network(sensor);
    let messages = messages(sensor);
    let uprobe = uprobe(sensor);
    let calls = system_calls(sensor);
    let answer = answer(sensor);
    sensor.maps.set_process(
        me,
        ProcState {
            state: PROC_IGNORED,
            ..ProcState::default()
        },
    );
    sensor.drain(&mut |_| {});
    for (signal, result) in [
        (Signal::Exec, lifecycle[0].clone()),
        (Signal::Fork, lifecycle[1].clone()),
        (Signal::Exit, lifecycle[2].clone()),
        (Signal::Connect, network[0].clone()),
        (Signal::TcpSend, network[1].clone()),
        (Signal::UnixSend, messages[0].clone()),
        (Signal::UdpSend, messages[1].clone()),
        (Signal::FileOpen, lifecycle[3].clone()),
        (Signal::FileRead, lifecycle[4].clone()),
        (Signal::Pipes, lifecycle[5].clone()),
        (Signal::TlsWrite, uprobe),
        (Signal::FdWrite, calls[0].clone()),
        (Signal::ProcessAttach, calls[1].clone()),
        (Signal::Answer, answer),
    ] {
        if let Some(report) = sensor.status.signal_mut(signal)
            && !report.hook.is_empty()
        {
            report.self_test = result;
        }
    }
}

/// Drains until `done` or out of patience.
fn collect(sensor: &mut Sensor, done: &mut dyn FnMut(&RawRecord<'_>) -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut found = false;
    loop {
        sensor.drain(&mut |record| found |= done(&record));
        if found || Instant::now() >= deadline {
            return found;
        }
        // Time passes by the deadline, whatever poll says.
        let _ = sensor.wait(Duration::from_millis(10), &[]);
    }
}

fn kind(bytes: &[u8]) -> u16 {
    u16::from_ne_bytes(super::number(bytes, offset_of!(Header, kind)))
}

fn tgid(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(super::number(bytes, offset_of!(Header, tgid)))
}

/// Why the ring is not believed to carry records.
#[derive(Debug, thiserror::Error)]
enum CanaryError {
    #[error("{}", hooks::words(.0))]
    Run(#[from] io::Error),
    #[error("the canary did not arrive")]
    Lost,
}

fn canary(sensor: &mut Sensor) -> Result<(), CanaryError> {
    hooks::run(&mut sensor.ebpf, "canary")?;
    if collect(sensor, &mut |record| kind(record.bytes) == Kind::CANARY) {
        Ok(())
    } else {
        Err(CanaryError::Lost)
    }
}

/// What was reported about a program that the test has started.
#[derive(Clone, Copy, Default)]
struct Life {
    exec: bool,
    environment: bool,
    fork: bool,
    exit: bool,
    open: bool,
    read: bool,
    pipes: bool,
}

impl Life {
    /// Takes what a record reports the program `pid`. `kernel_reads`: reads have a better hook than fanotify, whose records
    /// would hide that it sees nothing.
    fn take(&mut self, record: &RawRecord<'_>, pid: u32, kernel_reads: bool) {
        let bytes = record.bytes;
        let number = |at| u32::from_ne_bytes(super::number(bytes, at));
        if kind(bytes) == Kind::FORK {
            self.fork |= number(offset_of!(Fork, child_tgid)) == pid;
        }
        if tgid(bytes) != pid {
            return;
        }
        match kind(bytes) {
            Kind::EXEC => {
                self.exec |= number(offset_of!(Exec, parent_tgid)) == std::process::id();
            }
            Kind::EXEC_CHUNK => {
                self.environment |= memchr::memmem::find(bytes, MARK).is_some()
                    && number(offset_of!(ExecChunk, last)) == 1;
            }
            Kind::EXIT => self.exit = true,
            Kind::PIPES => self.pipes = true,
            Kind::FILE_OPEN => self.open = true,
            Kind::FILE_READ => self.read |= !(kernel_reads && record.hook == FANOTIFY),
            _ => {}
        }
    }

    fn is_whole(&self) -> bool {
        self.exec
            && self.environment
            && self.fork
            && self.exit
            && self.open
            && self.read
            && self.pipes
    }

    fn results(&self, program: &Path) -> [String; 6] {
        let result = |good: bool| if good { FIRED } else { "did not fire" }.to_owned();
        let exec = match (self.exec, self.environment) {
            (true, true) => FIRED.to_owned(),
            (true, false) => "fired, but the environment was not captured".to_owned(),
            _ => result(false),
        };
        let read = if !self.read && super::proof::made_up_device(program) {
            format!(
                "not reported: {} is on a file system whose device numbers are made up; there fanotify sees the reads",
                program.display()
            )
        } else {
            result(self.read)
        };
        [
            exec,
            result(self.fork),
            result(self.exit),
            result(self.open),
            read,
            result(self.pipes),
        ]
    }
}

/// Starts a program with a marked environment, whose file is watched meanwhile: exec, fork, exit, and, because the
/// kernel opens and reads what it executes, file_open and file_read; its standard output is a pipe: pipes.
fn lifecycle(sensor: &mut Sensor) -> [String; 6] {
    let not_tried = |reason: &str| std::array::from_fn(|_| format!("not tried: {reason}"));
    let Some(program) = ["/bin/true", "/usr/bin/true"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
    else {
        return not_tried("there is no /bin/true");
    };
    let file = match watch::file_id(program) {
        Ok(file) => file,
        Err(error) => {
            return not_tried(&format!("{}: {}", program.display(), hooks::words(&error)));
        }
    };
    // A refused mark shows in the result.
    let _ = sensor.watch(program, file, flags::FILE);
    // On a busy machine the thread that looks it up may have to wait for a processor.
    let until = Instant::now() + PATIENCE;
    while {
        let _ = sensor.take_watches(PATIENCE);
        sensor.is_watching() && Instant::now() < until
    } {
        thread::sleep(Duration::from_millis(1));
    }
    let child = Command::new(program)
        .env_clear()
        .env("KEYTRAIL_SELF_TEST", "1")
        .stdin(Stdio::null())
        // A pipe, which is reported at its exec.
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            sensor.unwatch(file);
            return not_tried(&format!("{}: {}", program.display(), hooks::words(&error)));
        }
    };
    let pid = child.id();
    // Its status does not matter, its end does.
    let _ = child.wait();
    let kernel_reads = sensor
        .status
        .signal(Signal::FileRead)
        .is_some_and(|report| report.hook != FANOTIFY);
    let mut life = Life::default();
    collect(sensor, &mut |record| {
        life.take(record, pid, kernel_reads);
        life.is_whole()
    });
    sensor.unwatch(file);
    life.results(program)
}

/// Connects to itself and sends a few bytes: connect and tcp_send, with the right addresses.
fn network(sensor: &mut Sensor) -> [String; 2] {
    const BYTES: &[u8] = b"keytrail self-test";
    let tried = (|| -> std::io::Result<(u16, u16)> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        stream.write_all(BYTES)?;
        let (mut other, _) = listener.accept()?;
        let mut buffer = [0; BYTES.len()];
        other.read_exact(&mut buffer)?;
        Ok((stream.local_addr()?.port(), stream.peer_addr()?.port()))
    })();
    let (local, peer) = match tried {
        Ok(ports) => ports,
        Err(error) => {
            let reason = format!("not tried: loopback: {}", hooks::words(&error));
            return [reason.clone(), reason];
        }
    };
    let (mut connect, mut send, mut wrong) = (false, false, false);
    let me = std::process::id();
    collect(sensor, &mut |record| {
        let bytes = record.bytes;
        if tgid(bytes) != me {
            return false;
        }
        let port = |at| u16::from_ne_bytes(super::number(bytes, at));
        match kind(bytes) {
            Kind::CONNECT => {
                let ends = offset_of!(Connect, ends);
                connect |= port(ends + offset_of!(keytrail_abi::Endpoints, peer_port)) == peer;
            }
            Kind::SOCK_SEND => {
                let ends = offset_of!(SockSend, ends);
                let data = bytes.get(size_of::<SockSend>()..).unwrap_or_default();
                let good = port(ends + offset_of!(keytrail_abi::Endpoints, peer_port)) == peer
                    && port(ends + offset_of!(keytrail_abi::Endpoints, local_port)) == local
                    && number_at(bytes, ends + offset_of!(keytrail_abi::Endpoints, peer))
                        == [127, 0, 0, 1]
                    && data.starts_with(BYTES);
                send |= good;
                // Other threads of the agent may send as well, so one good record is enough.
                wrong |= !good;
            }
            _ => {}
        }
        connect && send
    });
    let result = |good: bool| if good { FIRED } else { "did not fire" }.to_owned();
    let sent = if wrong && !send {
        "fired, but reported the wrong address or bytes".to_owned()
    } else {
        result(send)
    };
    [result(connect), sent]
}

/// Sends to itself over a Unix socket and by UDP: each with the right bytes, and the name or address they went to.
fn messages(sensor: &mut Sensor) -> [String; 2] {
    const BYTES: &[u8] = b"keytrail self-test of messages";
    let me = std::process::id();
    let unix = (|| -> std::io::Result<Vec<u8>> {
        let listener = activity::listener()?;
        let to = listener.local_addr()?;
        UnixStream::connect_addr(&to)?.write_all(BYTES)?;
        Ok(to.as_abstract_name().unwrap_or_default().to_vec())
    })();
    let name = unix.as_deref().unwrap_or_default();
    let udp = (|| -> std::io::Result<u16> {
        let receiver = UdpSocket::bind(("127.0.0.1", 0))?;
        let to = receiver.local_addr()?;
        UdpSocket::bind(("127.0.0.1", 0))?.send_to(BYTES, to)?;
        Ok(to.port())
    })();
    let port = udp.as_ref().map_or(0, |port| *port);
    // [fired, rightly]
    let (mut unix_seen, mut udp_seen) = ([false; 2], [false; 2]);
    collect(sensor, &mut |record| {
        let bytes = record.bytes;
        let whole = bytes.get(size_of::<MessageSend>()..).unwrap_or_default();
        // Other threads of the agent may send as well.
        if tgid(bytes) != me || !whole.starts_with(BYTES) {
            return false;
        }
        match kind(bytes) {
            Kind::UNIX_SEND => {
                let reported = bytes
                    .get(offset_of!(MessageSend, name) + 1..)
                    .unwrap_or_default();
                let peer = number_at(bytes, offset_of!(MessageSend, peer_tgid));
                unix_seen[0] = true;
                unix_seen[1] |= reported.starts_with(name) && peer == me.to_ne_bytes();
            }
            Kind::UDP_SEND => {
                let ends = offset_of!(MessageSend, ends);
                let at = ends + offset_of!(keytrail_abi::Endpoints, peer_port);
                let ip = number_at(bytes, ends + offset_of!(keytrail_abi::Endpoints, peer));
                udp_seen[0] = true;
                udp_seen[1] |=
                    u16::from_ne_bytes(super::number(bytes, at)) == port && ip == [127, 0, 0, 1];
            }
            _ => {}
        }
        unix_seen[1] && udp_seen[1]
    });
    let result = |tried: Option<String>, seen: [bool; 2]| match (tried, seen) {
        (Some(reason), _) => format!("not tried: {reason}"),
        (None, [_, true]) => FIRED.to_owned(),
        (None, [true, false]) => "fired, but reported the wrong name, peer or address".to_owned(),
        (None, _) => "did not fire".to_owned(),
    };
    [
        result(unix.err().map(|e| hooks::words(&e)), unix_seen),
        result(udp.err().map(|e| hooks::words(&e)), udp_seen),
    ]
}

/// Takes in what a service of its own answers, which stands for a metadata service meanwhile.
fn answer(sensor: &mut Sensor) -> String {
    const BYTES: &[u8] = b"keytrail self-test of answers";
    let me = std::process::id();
    let tried = (|| -> std::io::Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let to = listener.local_addr()?;
        if !sensor.maps.set_own_service(to.port()) {
            return Err(std::io::Error::other("the map of services is not ours"));
        }
        let mut asker = TcpStream::connect(to)?;
        listener.accept()?.0.write_all(BYTES)?;
        asker.read_exact(&mut [0; BYTES.len()])?;
        Ok(to.port())
    })();
    sensor.maps.set_own_service(0);
    let port = match tried {
        Ok(port) => port,
        Err(error) => return format!("not tried: loopback: {}", hooks::words(&error)),
    };
    let (mut fired, mut good) = (false, false);
    collect(sensor, &mut |record| {
        let bytes = record.bytes;
        if tgid(bytes) != me || kind(bytes) != Kind::ANSWER {
            return false;
        }
        let at = offset_of!(MessageSend, ends) + offset_of!(keytrail_abi::Endpoints, peer_port);
        let data = bytes.get(size_of::<MessageSend>()..).unwrap_or_default();
        fired = true;
        good |= u16::from_ne_bytes(super::number(bytes, at)) == port && data.starts_with(BYTES);
        good
    });
    if good {
        FIRED.to_owned()
    } else if fired {
        "fired, but reported the wrong address or bytes".to_owned()
    } else {
        "did not fire".to_owned()
    }
}

fn number_at(bytes: &[u8], at: usize) -> [u8; 4] {
    super::number(bytes, at)
}

/// Writes to a pipe, and reads its own memory as if it were another's: fd_write and process_attach.
fn system_calls(sensor: &mut Sensor) -> [String; 2] {
    const BYTES: &[u8] = b"keytrail self-test of writes";
    let me = std::process::id();
    let read_back = std::io::pipe().and_then(|(mut reader, mut writer)| {
        writer.write_all(BYTES)?;
        let read = activity::memory();
        // The next call of this thread, upon which the one before is reported.
        reader.read_exact(&mut [0; BYTES.len()])?;
        Ok(read)
    });
    let (mut write, mut attach) = (false, false);
    collect(sensor, &mut |record| {
        let bytes = record.bytes;
        if tgid(bytes) != me {
            return false;
        }
        match kind(bytes) {
            Kind::FD_WRITE => {
                let data = bytes.get(size_of::<FdWrite>()..).unwrap_or_default();
                write |= data.starts_with(BYTES)
                    && number_at(bytes, offset_of!(FdWrite, target)) == target::PIPE.to_ne_bytes();
            }
            Kind::PROCESS_ATTACH => {
                attach |= number_at(bytes, offset_of!(ProcessAttach, number)) == me.to_ne_bytes()
                    && number_at(bytes, offset_of!(ProcessAttach, proven)) == 1u32.to_ne_bytes();
            }
            _ => {}
        }
        write && attach
    });
    let result = |good: bool| if good { FIRED } else { "did not fire" }.to_owned();
    let attached = match read_back {
        Ok(true) => result(attach),
        Ok(false) => "not tried: process_vm_readv is refused".to_owned(),
        Err(error) => format!("not tried: {}", hooks::words(&error)),
    };
    [result(write), attached]
}

/// No library can be probed: the signal has no hook.
fn refuse_uprobes(sensor: &mut Sensor, reason: &str) {
    if let Some(report) = sensor.status.signal_mut(Signal::TlsWrite) {
        report.hook.clear();
        report.tier = None;
        report.refused.push(Refused {
            hook: "uprobe".to_owned(),
            reason: reason.to_owned(),
            // CVE-2025-38466: since its mending CAP_PERFMON is not enough, whatever perf_event_paranoid says.
            remedy: "run the agent with CAP_SYS_ADMIN: kernels from 6.16 on (and older ones with the fix of \
                     CVE-2025-38466) let nobody else probe programs, and neither does a perf_event_paranoid of 3 or more"
                .to_owned(),
        });
    }
}

/// Calls a probed function of the agent itself.
fn uprobe(sensor: &mut Sensor) -> String {
    const BYTES: &[u8] = b"keytrail uprobe self-test";
    let session = 0x6b65_7974;
    let attached = sensor.libraries.with_canary(&mut sensor.ebpf, &mut || {
        tls::canary(session, BYTES.as_ptr(), BYTES.len());
    });
    if let Err(error) = attached {
        let reason = error.to_string();
        if hooks::is_denied(&reason) {
            // What is refused to the agent's own function is refused to every other.
            refuse_uprobes(sensor, &reason);
        }
        return format!("not tried: {reason}");
    }
    let fired = collect(sensor, &mut |record| {
        kind(record.bytes) == Kind::TLS_WRITE
            && u64::from_ne_bytes(super::number(
                record.bytes,
                offset_of!(TlsWrite, tls_session),
            )) == session
            && record
                .bytes
                .get(size_of::<TlsWrite>()..)
                .unwrap_or_default()
                .starts_with(BYTES)
    });
    if fired { FIRED } else { "did not fire" }.to_owned()
}
