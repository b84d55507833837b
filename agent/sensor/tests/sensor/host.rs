//! A sensor with what it has seen, taken apart.

use keytrail_abi::{
    Exec, ExecChunk, FileAccess, Fork, Header, Kind, ProcState, SockSend, TlsWrite, state::watch,
};
use keytrail_sensor::{RawRecord, Sensor, SensorOptions, Tier, file_id};
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub struct Host {
    pub sensor: Sensor,
    /// What has come since the last look.
    pending: Seen,
    /// Processes run since then, whose end has not been reported.
    running: Vec<u32>,
}

impl Host {
    /// `None`, with the reason on stderr, where the tests cannot run.
    pub fn new() -> Option<Self> {
        Self::with(&SensorOptions::default())
    }

    pub fn with(options: &SensorOptions) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root to load the kernel side");
            return None;
        }
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            eprintln!("skipped: this kernel has no BTF");
            return None;
        }
        match Sensor::open(options) {
            Ok(sensor) => Some(Self {
                sensor,
                pending: Seen::default(),
                running: Vec::new(),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a command to its end; its pid. The rings are emptied meanwhile: the rest of the machine is in them too,
    /// other tests and their sensors included, and a ring nobody empties loses records.
    pub fn run(&mut self, command: &mut Command) -> u32 {
        let mut child = quiet(command).spawn().unwrap();
        let pid = child.id();
        while child.try_wait().unwrap().is_none() {
            self.drain();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.running.push(pid);
        pid
    }

    /// The same, with nobody emptying the rings.
    pub fn run_unread(&mut self, command: &mut Command) -> u32 {
        let mut child = quiet(command).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        self.running.push(pid);
        pid
    }

    /// Takes what has come; how many records.
    fn drain(&mut self) -> usize {
        let pending = &mut self.pending.records;
        self.sensor.drain(&mut |record: RawRecord<'_>| {
            pending.push((record.bytes.to_vec(), record.hook.to_owned()));
        })
    }

    /// What the kernel side says of a process once it has seen its exec. `spawn` returns earlier than that: its pipe
    /// is closed, and its parent goes on, in the middle of the exec.
    pub fn executed(&mut self, pid: u32) -> ProcState {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.drain();
            let scripted = !self.pending.of(pid, Kind::EXEC).is_empty();
            if let Some(state) = self.sensor.process(pid).filter(|_| scripted) {
                return state;
            }
            assert!(
                Instant::now() < deadline,
                "no exec of {pid}, and these losses: {:?}",
                self.sensor.losses()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn watch(&mut self, path: &Path) {
        self.sensor
            .watch(path, file_id(path).unwrap(), watch::FILE)
            .unwrap();
        let failed = self.collect_watches();
        assert!(failed.is_empty(), "{failed:?}");
    }

    /// What of the watches was refused, once all are decided.
    pub fn collect_watches(&mut self) -> Vec<(std::path::PathBuf, std::io::Error)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut failed = Vec::new();
        while Instant::now() < deadline {
            failed.extend(self.sensor.take_watches(Duration::from_millis(50)));
            if !self.sensor.is_watching() {
                break;
            }
        }
        failed
    }

    /// A watched file on a file system that the tracepoints see.
    pub fn secret_on_disk(&mut self, content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().tempfile_in(on_disk()).unwrap();
        file.write_all(content).unwrap();
        self.watch(file.path());
        file
    }

    pub fn expect_tier(&self, base: &'static str, fentry: &'static str) -> Option<&'static str> {
        let tier = self
            .sensor
            .status()
            .signal(keytrail_model::Signal::FileRead)
            .and_then(|report| report.tier);
        Some(if tier == Some(Tier::Fentry) {
            fentry
        } else {
            base
        })
    }

    /// Kernels before 5.15 do not tell which uprobe fired, nor when the probed call is over.
    pub fn knows_calls(&self) -> bool {
        let report = self
            .sensor
            .status()
            .signal(keytrail_model::Signal::TlsWrite);
        report.is_some_and(|report| report.note.is_empty())
    }

    /// Does the kernel report accesses to mappings?
    pub fn reports_faults(&self) -> bool {
        let report = self
            .sensor
            .status()
            .signal(keytrail_model::Signal::FileRead);
        report.is_some_and(|report| report.hook.contains("mm_filemap_map_pages"))
    }

    /// Kernels before 5.15 do not show the arguments of the system call a thread is in. The base tier sees reads only
    /// where bytes are read.
    pub fn knows_registers(&self) -> bool {
        self.knows_calls()
    }

    /// The name of a uprobe, where the kernel reports it.
    pub fn with_cookies(&self, hook: &str) -> Option<String> {
        Some(if self.knows_calls() { hook } else { "uprobe" }.to_owned())
    }

    /// Drains until the processes that were run have ended, as far as the kernel side tells it, and then until nothing
    /// has come for a while.
    pub fn drain_all(&mut self) -> Seen {
        let ended = Instant::now() + Duration::from_secs(1);
        while !self.running.is_empty() && Instant::now() < ended {
            self.drain();
            let scripted = &self.pending;
            self.running
                .retain(|pid| scripted.of(*pid, Kind::EXIT).is_empty());
            if !self.running.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.running.clear();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut quiet = 0;
        while quiet < 3 && Instant::now() < deadline {
            // One that is still being written holds back those behind it.
            let nothing = self.drain() == 0 && self.sensor.unread() == 0;
            quiet = if nothing { quiet + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(15));
        }
        std::mem::take(&mut self.pending)
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

/// A directory on a real file system, also where the tests were not built (in a virtual machine).
pub fn on_disk() -> &'static Path {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if built.is_dir() {
        built
    } else {
        Path::new("/var/tmp")
    }
}

#[derive(Default)]
pub struct Seen {
    records: Vec<(Vec<u8>, String)>,
}

pub fn read<T: Copy>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>());
    // SAFETY: long enough; the records are repr(C) of integers.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}

#[derive(Debug)]
pub struct Sent {
    pub record: SockSend,
    pub data: Vec<u8>,
}

#[derive(Debug)]
pub struct Written {
    pub record: TlsWrite,
    pub data: Vec<u8>,
}

pub struct Executed {
    pub record: Exec,
    /// All flags of its chunks.
    pub flags: u16,
    pub complete: bool,
    chunks: Vec<(ExecChunk, Vec<u8>)>,
}

impl Executed {
    /// The captured bytes of an area.
    pub fn area(&self, area: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (chunk, data) in self.chunks.iter().filter(|(chunk, _)| chunk.area == area) {
            assert_eq!(chunk.offset as usize, bytes.len());
            bytes.extend_from_slice(data);
        }
        bytes
    }
}

impl Seen {
    /// Records of a kind made by a process (not by fanotify, which has no CPU, if `kind` is one it shares).
    pub fn of(&self, tgid: u32, kind: u16) -> Vec<&[u8]> {
        self.records
            .iter()
            .map(|(bytes, _)| bytes.as_slice())
            .filter(|bytes| {
                let header: Header = read(bytes);
                header.tgid == tgid && header.kind == kind
            })
            .collect()
    }

    pub fn hook_of(&self, tgid: u32, kind: u16) -> Option<String> {
        self.records.iter().find_map(|(bytes, hook)| {
            let header: Header = read(bytes);
            (header.tgid == tgid && header.kind == kind).then(|| hook.clone())
        })
    }

    /// Did the process end by itself, with success?
    pub fn finished(&self, tgid: u32) -> bool {
        self.of(tgid, Kind::EXIT)
            .into_iter()
            .any(|bytes| read::<keytrail_abi::Exit>(bytes).exit_code == 0)
    }

    pub fn contains(&self, part: &[u8]) -> bool {
        self.records.iter().any(|(bytes, _)| contains(bytes, part))
    }

    pub fn reads(&self, tgid: u32) -> Vec<FileAccess> {
        self.of(tgid, Kind::FILE_READ)
            .into_iter()
            .map(read)
            .collect()
    }

    /// Names of the programs that read the file at `path` when it was new to the kernel side.
    pub fn news(&self, tgid: u32, path: &str) -> Vec<[u8; 16]> {
        let file = file_id(Path::new(path)).unwrap();
        self.of(tgid, Kind::FILE_NEW)
            .into_iter()
            .map(read::<keytrail_abi::FileNew>)
            .filter(|new| new.file == file)
            .map(|new| new.header.comm)
            .collect()
    }

    pub fn sends(&self, tgid: u32) -> Vec<Sent> {
        self.of(tgid, Kind::SOCK_SEND)
            .into_iter()
            .map(|bytes| {
                let record: SockSend = read(bytes);
                let data = bytes[size_of::<SockSend>()..][..record.data_len as usize].to_vec();
                assert_eq!(
                    record.header.len as usize,
                    size_of::<SockSend>() + data.len()
                );
                Sent { record, data }
            })
            .collect()
    }

    pub fn tls(&self, tgid: u32) -> Vec<Written> {
        self.of(tgid, Kind::TLS_WRITE)
            .into_iter()
            .map(|bytes| {
                let record: TlsWrite = read(bytes);
                let data = bytes[size_of::<TlsWrite>()..][..record.data_len as usize].to_vec();
                Written { record, data }
            })
            .collect()
    }

    /// The first exec of a process.
    pub fn exec(&self, tgid: u32) -> Option<Executed> {
        self.execs(tgid).into_iter().next()
    }

    pub fn execs(&self, tgid: u32) -> Vec<Executed> {
        self.of(tgid, Kind::EXEC)
            .into_iter()
            .map(|bytes| {
                let record: Exec = read(bytes);
                let chunks: Vec<(ExecChunk, Vec<u8>)> = self
                    .of(tgid, Kind::EXEC_CHUNK)
                    .into_iter()
                    .map(|bytes| (read::<ExecChunk>(bytes), bytes))
                    .filter(|(chunk, _)| chunk.exec_id == record.exec_id)
                    .map(|(chunk, bytes)| {
                        (
                            chunk,
                            bytes[size_of::<ExecChunk>()..][..chunk.data_len as usize].to_vec(),
                        )
                    })
                    .collect();
                Executed {
                    record,
                    flags: chunks
                        .iter()
                        .fold(0, |flags, (chunk, _)| flags | chunk.header.flags),
                    complete: chunks.iter().filter(|(chunk, _)| chunk.last == 1).count() == 1,
                    chunks,
                }
            })
            .collect()
    }

    /// Places of a process's records of a kind among all that were handed out.
    pub fn places(&self, tgid: u32, kind: u16) -> Vec<usize> {
        let of = |bytes: &[u8]| {
            let header: Header = read(bytes);
            header.tgid == tgid && header.kind == kind
        };
        (0..)
            .zip(&self.records)
            .filter(|(_, (bytes, _))| of(bytes))
            .map(|(place, _)| place)
            .collect()
    }

    /// Under which numbers the first reads of a file were asked about.
    pub fn questions(&self, tgid: u32, path: &str) -> Vec<u64> {
        let file = file_id(Path::new(path)).unwrap();
        self.of(tgid, Kind::FILE_NEW)
            .into_iter()
            .map(read::<keytrail_abi::FileNew>)
            .filter(|new| new.file == file)
            .map(|new| new.exec_id)
            .collect()
    }

    /// The first process forked by `tgid`.
    pub fn child_of(&self, tgid: u32) -> Option<u32> {
        self.of(tgid, Kind::FORK)
            .first()
            .map(|bytes| read::<Fork>(bytes).child_tgid)
    }
}

/// How many sequence numbers are missing on each CPU, from the sensor's start on; CPUs without a hole are left out.
pub fn holes(seen: &[&Seen]) -> std::collections::BTreeMap<u32, u64> {
    let mut cpus = std::collections::BTreeMap::<u32, (u64, u64)>::new();
    for (bytes, _) in seen.iter().flat_map(|seen| &seen.records) {
        let header: Header = read(bytes);
        let (next, count) = cpus.entry(header.cpu).or_default();
        *next = (header.cpu_seq + 1).max(*next);
        *count += 1;
    }
    cpus.into_iter()
        .map(|(cpu, (next, count))| (cpu, next - count))
        .filter(|(_, missing)| *missing != 0)
        .collect()
}

/// Debian's openssl as a server with a certificate of its own; `None` with a reason where there is none.
pub fn tls_server() -> Option<(Child, u16)> {
    let directory = on_disk();
    let key = directory.join(format!("key-{}.pem", std::process::id()));
    let certificate = directory.join(format!("cert-{}.pem", std::process::id()));
    if !certificate.exists() {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("not tried: openssl makes no certificate");
            return None;
        }
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-key",
        ])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            Instant::now() < deadline,
            "openssl s_server does not listen"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Some((server, port))
}

/// Runs a Python script that writes to a connected socket `fd`; its pid and what arrived.
pub fn send_buffers(host: &mut Host, script: &str) -> (u32, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let script = format!(
        "import socket\ns=socket.create_connection(('127.0.0.1',{port}))\nfd=s.fileno()\n{script}"
    );
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
    (pid, server.join().unwrap())
}

/// A mounted overlay over a directory on disk, gone when dropped.
pub struct Overlay {
    directory: tempfile::TempDir,
}

impl Overlay {
    /// `None`, with the reason, where overlays cannot be mounted.
    pub fn new(files: &[(&str, &str)]) -> Option<Self> {
        let directory = tempfile::tempdir_in(on_disk()).unwrap();
        let part = |name: &str| directory.path().join(name);
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir(part(name)).unwrap();
        }
        for (name, content) in files {
            std::fs::write(part("lower").join(name), content).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            part("lower").display(),
            part("upper").display(),
            part("work").display()
        );
        let mounted = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(part("merged"))
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("not tried: overlays cannot be mounted here");
            return None;
        }
        Some(Self { directory })
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("merged").join(name)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path().join("merged"))
            .status();
    }
}
