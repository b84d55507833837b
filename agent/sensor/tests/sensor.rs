//! The sensor against this machine's kernel, with real programs. Needs root; says so and passes where it is not.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's result")]

#[path = "sensor/host.rs"]
mod host;

use host::{Host, Seen, send_buffers, tls_server};
use keytrail_abi::{
    AREA_ARGV, AREA_ENV, Kind, PROC_HOLDER, PROC_UNKNOWN, ProcState, access, header::flags,
};
use keytrail_sensor::{Sensor, SensorError, SensorOptions, Tier};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

/// A sensor, or the reason why there cannot be one here.
macro_rules! host {
    () => {
        match crate::host::Host::new() {
            Some(host) => host,
            None => return,
        }
    };
}

#[path = "sensor/budgets.rs"]
mod budgets;
#[path = "sensor/messages.rs"]
mod messages;
#[path = "sensor/rings.rs"]
mod rings;

#[test]
fn every_signal_has_a_hook_that_fires() {
    let host = host!();
    for report in &host.sensor.status().signals {
        if report.hook.is_empty() && !messages::are_reported(report.signal, None) {
            assert!(!report.refused.is_empty(), "{report:?}");
            continue;
        }
        assert!(!report.hook.is_empty(), "{report:?}");
        assert_eq!(report.self_test, "fired", "{report:?}");
        for refused in &report.refused {
            assert!(
                !refused.reason.is_empty() && !refused.remedy.is_empty(),
                "{refused:?}"
            );
        }
    }
    assert_eq!(host.sensor.status().offsets, Vec::<String>::new());
}

#[test]
fn the_base_tier_can_be_asked_for() {
    let _ = host!();
    let options = SensorOptions {
        tier: Some(Tier::Base),
        ..SensorOptions::default()
    };
    let sensor = Sensor::open(&options).unwrap();
    for report in &sensor.status().signals {
        if report.tier.is_none() && !messages::are_reported(report.signal, Some(Tier::Base)) {
            continue;
        }
        assert_eq!(report.tier, Some(Tier::Base), "{report:?}");
        assert_eq!(report.self_test, "fired", "{report:?}");
    }
}

#[test]
fn cat_is_one_read_and_looking_is_none() {
    let mut host = host!();
    let file = host.secret_on_disk(b"secret\n");
    let path = file.path().to_str().unwrap().to_owned();
    for looking in [
        vec!["stat", &path],
        vec!["ls", "-l", &path],
        vec!["test", "-r", &path],
        vec![
            "find",
            file.path().parent().unwrap().to_str().unwrap(),
            "-name",
            "nothing*",
        ],
    ] {
        let mut command = Command::new(looking[0]);
        let pid = host.run(command.args(&looking[1..]));
        let seen = host.drain_all();
        assert_eq!(seen.reads(pid).len(), 0, "{looking:?}");
        assert_eq!(seen.of(pid, Kind::FILE_OPEN).len(), 0, "{looking:?}");
    }
    let pid = host.run(Command::new("cat").arg(&path));
    let seen = host.drain_all();
    let reads = seen.reads(pid);
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!(reads[0].size, 7);
    assert_eq!(reads[0].header.comm[..4], *b"cat\0");
    assert!(reads[0].header.start_ns > 0);
    assert_eq!(seen.of(pid, Kind::FILE_OPEN).len(), 1);
    // Another process, another record; the same process twice is one.
    let twice = format!("cat {path} {path}; :");
    let pid = host.run(Command::new("sh").args(["-c", &twice]));
    let seen = host.drain_all();
    let cat = seen.child_of(pid).unwrap();
    assert_eq!(seen.reads(cat).len(), 1);
    assert_eq!(seen.reads(pid).len(), 0);
    // A changed file is another version.
    let script = format!(
        "import os,time\nf={path:?}\nopen(f).read()\ntime.sleep(0.02)\nos.chmod(f,0o600)\nopen(f).read()"
    );
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
    assert_eq!(host.drain_all().reads(pid).len(), 2);
}

#[test]
fn reads_that_no_tracepoint_shows() {
    let mut host = host!();
    // tmpfs.
    let mut shm = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    shm.write_all(b"secret\n").unwrap();
    host.watch(shm.path());
    let pid = host.run(Command::new("cat").arg(shm.path()));
    let seen = host.drain_all();
    assert_eq!(seen.reads(pid).len(), 1);
    // Direct I/O.
    let file = host.secret_on_disk(&[b'x'; 8192]);
    Command::new("sync").arg(file.path()).status().unwrap();
    let mut input = std::ffi::OsString::from("if=");
    input.push(file.path());
    let pid =
        host.run(
            Command::new("dd")
                .arg(input)
                .args(["of=/dev/null", "iflag=direct", "bs=4096"]),
        );
    let seen = host.drain_all();
    assert_eq!(seen.reads(pid).len(), 1);
    assert_eq!(
        seen.hook_of(pid, Kind::FILE_READ).as_deref(),
        host.expect_tier("fanotify", "fexit:security_file_permission")
    );
}

#[test]
fn a_read_in_an_overlay_is_known_at_once() {
    let mut host = host!();
    let Some(overlay) = host::Overlay::new(&[("secret", "value\n"), ("other", "nothing\n")]) else {
        return;
    };
    let path = overlay.path("secret");
    host.watch(&path);
    let script = format!("cat {} {}", path.display(), overlay.path("other").display());
    let pid = host.run(Command::new("sh").args(["-c", &script]));
    let seen = host.drain_all();
    let reader = seen.child_of(pid).unwrap_or(pid);
    let reads = seen.reads(reader);
    assert_eq!(reads.len(), 1, "{reads:?}");
    assert_eq!(reads[0].file, keytrail_sensor::file_id(&path).unwrap());
    // By the kernel side, in the very read, where it can know the file.
    let hook = seen.hook_of(reader, Kind::FILE_READ).unwrap();
    let base = host.expect_tier("base", "fentry") == Some("base");
    let tracepoint = host
        .sensor
        .status()
        .signal(keytrail_model::Signal::FileRead)
        .unwrap()
        .hook
        .contains("mm_filemap");
    assert!(
        !base || !tracepoint || hook == "raw_tp:mm_filemap_get_pages",
        "{hook}"
    );
    // Once it is no longer watched nothing is reported.
    host.sensor
        .unwatch(keytrail_sensor::file_id(&path).unwrap());
    let pid = host.run(Command::new("cat").arg(&path));
    assert_eq!(host.drain_all().reads(pid).len(), 0);
}

/// Whose number a call names is up to the caller: all numbers there are would fill the ring.
#[test]
fn one_program_s_calls_are_reported_so_many_times_a_second() {
    let mut host = host!();
    let attach = keytrail_model::Signal::ProcessAttach;
    let has_hook = |report: &keytrail_sensor::SignalReport| !report.hook.is_empty();
    if !host.sensor.status().signal(attach).is_some_and(has_hook) {
        return;
    }
    host.sensor.losses();
    let script = "import ctypes,os\n\
        libc=ctypes.CDLL(None)\n\
        class Iovec(ctypes.Structure): _fields_=[('base',ctypes.c_void_p),('len',ctypes.c_size_t)]\n\
        to=ctypes.create_string_buffer(8)\n\
        one=Iovec(ctypes.addressof(to),8)\n\
        for n in range(3000000,3004000): libc.process_vm_readv(n,ctypes.byref(one),1,ctypes.byref(one),1,0)\n";
    let began = std::time::Instant::now();
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", script]));
    let windows = began.elapsed().as_secs() as usize + 2;
    let seen = host.drain_all();
    let reported = seen.of(pid, Kind::PROCESS_ATTACH).len();
    assert!(
        reported > 0 && reported <= 33 * windows,
        "{reported} in {windows} windows"
    );
    let passed: u64 = host
        .sensor
        .losses()
        .iter()
        .filter(|loss| loss.kind == keytrail_sensor::ATTACH_LIMIT)
        .map(|loss| loss.count)
        .sum();
    assert!(passed as usize >= 4000 - 33 * windows, "{passed}");
}

/// Whoever let a file be inspected may put a link to any other file in its place.
#[test]
fn what_took_the_place_of_an_inspected_file_is_not_reported_as_that_file() {
    let mut host = host!();
    let dir = tempfile::tempdir_in(host::on_disk()).unwrap();
    let (path, victim) = (dir.path().join("env"), dir.path().join("libc"));
    std::fs::write(&path, "secret\n").unwrap();
    std::fs::write(&victim, "everybody's\n").unwrap();
    let file = keytrail_sensor::file_id(&path).unwrap();
    std::fs::rename(&path, dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    let flags = keytrail_abi::state::watch::FILE;
    host.sensor.watch(&path, file, flags).unwrap();
    let kinds: Vec<_> = host
        .collect_watches()
        .iter()
        .map(|(_, error)| error.kind())
        .collect();
    assert_eq!(kinds, [std::io::ErrorKind::NotFound]);
    let pid = host.run(Command::new("cat").arg(&victim));
    let seen = host.drain_all();
    let reported: Vec<u64> = [Kind::FILE_OPEN, Kind::FILE_READ]
        .into_iter()
        .flat_map(|kind| seen.of(pid, kind))
        .map(|bytes| host::read::<keytrail_abi::FileAccess>(bytes).file.ino)
        .collect();
    assert!(reported.is_empty(), "{reported:?}");
    // The file itself is reported wherever it was moved to: it is the inode that was inspected.
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(dir.path().join("kept"), &path).unwrap();
    host.watch(&path);
    let pid = host.run(Command::new("cat").arg(&path));
    assert_eq!(host.drain_all().reads(pid).len(), 1);
    // Nor is a mark taken off or put on where another file lies by now.
    std::fs::rename(&path, dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    host.sensor.unwatch(file);
    assert!(host.collect_watches().is_empty());
}

/// Maps `path` as the rest of the script says, in Python; `libc` is there for mprotect.
fn map_script(path: &str, rest: &str) -> String {
    format!(
        "import ctypes,mmap,os\nlibc=ctypes.CDLL(None,use_errno=True)\nlibc.mmap.restype=ctypes.c_void_p\n\
         libc.mmap.argtypes=[ctypes.c_void_p,ctypes.c_size_t]+[ctypes.c_int]*3+[ctypes.c_long]\n\
         libc.mprotect.argtypes=[ctypes.c_void_p,ctypes.c_size_t,ctypes.c_int]\n\
         f=os.open({path:?},os.O_RDONLY)\n{rest}"
    )
}

#[test]
fn a_mapping_is_a_read_once_it_is_touched() {
    let mut host = host!();
    let file = host.secret_on_disk(&[b'x'; 8192]);
    let path = file.path().to_str().unwrap();
    let touch = "assert ctypes.string_at(m+5000,1)==b'x'";
    let map = |protection: u32| format!("m=libc.mmap(None,8192,{protection},2,f,0)\n");
    let run = |host: &mut Host, rest: &str| {
        let script = map_script(path, rest);
        let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
        let seen = host.drain_all();
        assert!(seen.finished(pid), "{rest}");
        (seen.reads(pid), seen.hook_of(pid, Kind::FILE_READ))
    };
    let (reads, hook) = run(&mut host, &(map(1) + touch));
    assert_eq!(reads.len(), 1);
    let hook = hook.unwrap();
    if !host.reports_faults() {
        // Older kernels report the mapping, not of its use.
        assert_eq!(reads[0].access, access::MAPPED);
        assert_eq!(hook, "fexit:security_mmap_file");
        return;
    }
    assert_eq!(reads[0].access, access::MMAP);
    assert!(hook.starts_with("raw_tp:mm_filemap"), "{hook}");
    let (reads, _) = run(&mut host, &map(1));
    assert_eq!(reads.len(), 0, "mapped and not touched");
    let allow = "assert libc.mprotect(m,8192,1)==0\n";
    let (reads, _) = run(&mut host, &(map(0) + allow + touch));
    assert_eq!(reads.len(), 1, "mapped without rights, which came later");
    let (reads, _) = run(&mut host, &(map(0) + allow));
    assert_eq!(reads.len(), 0, "given rights and not used");
}

#[test]
fn a_mapping_on_tmpfs_is_reported_when_it_is_made() {
    let mut host = host!();
    if host.expect_tier("base", "fentry") == Some("base") {
        eprintln!("not tried: the base tier does not see mappings of tmpfs");
        return;
    }
    let mut file = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    file.write_all(&[b'x'; 8192]).unwrap();
    host.watch(file.path());
    let script = map_script(
        file.path().to_str().unwrap(),
        "assert libc.mmap(None,8192,1,2,f,0)",
    );
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
    let reads = host.drain_all().reads(pid);
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].access, access::MAPPED);
}

#[test]
fn a_read_of_nothing_is_none() {
    let mut host = host!();
    let file = host.secret_on_disk(b"secret-of-17-byte");
    let path = file.path().to_str().unwrap().to_owned();
    let mut run = |script: &str| {
        let script = format!("import os\nf=os.open({path:?},os.O_RDONLY)\n{script}");
        let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
        let seen = host.drain_all();
        assert!(seen.finished(pid), "{script}");
        (seen.reads(pid).len(), host.knows_registers())
    };
    // Not readv: fanotify reports that one even at the end.
    for nothing in [
        "assert os.read(f,0)==b''",
        "os.lseek(f,0,2)\nassert os.read(f,100)==b''",
        "assert os.pread(f,100,17)==b''",
    ] {
        let (reads, known) = run(nothing);
        if known {
            assert_eq!(reads, 0, "{nothing}");
        }
    }
    // The place in the file does not matter to these.
    for something in [
        "assert os.read(f,1)==b's'",
        "os.lseek(f,0,2)\nassert os.pread(f,3,14)==b'yte'",
        "os.lseek(f,16,0)\nassert os.read(f,100)==b'e'",
        "b=bytearray(9)\nos.lseek(f,0,2)\nassert os.preadv(f,[b],0)==9",
        "r,w=os.pipe()\nos.lseek(f,0,2)\nassert os.sendfile(w,f,0,17)==17",
        "assert os.read(f,0)==b'' and len(os.read(f,100))==17 and os.read(f,100)==b''",
    ] {
        assert_eq!(run(something).0, 1, "{something}");
    }
}

#[test]
fn an_executed_program_reads_anew() {
    let mut host = host!();
    let watched = host.secret_on_disk(b"secret-of-17-byte");
    let directory = tempfile::tempdir_in(host::on_disk()).unwrap();
    let fresh = directory.path().join("fresh");
    fs::write(&fresh, "nobody has inspected this file yet").unwrap();
    let watched = watched.path().to_str().unwrap();
    let fresh = fresh.to_str().unwrap();
    // The shell itself reads, twice; then the same process is another program.
    let script = format!(
        "for n in 1 2; do read -r a < {watched}; read -r a < {fresh}; done; exec cat {watched} {fresh}"
    );
    let pid = host.run(Command::new("sh").args(["-c", &script]));
    let seen = host.drain_all();
    assert_eq!(seen.execs(pid).len(), 2);
    let comms: Vec<_> = seen
        .reads(pid)
        .iter()
        .map(|read| read.header.comm)
        .collect();
    assert_eq!(comms.len(), 2);
    assert_eq!(
        (&comms[0][..3], &comms[1][..4]),
        (&b"sh\0"[..], &b"cat\0"[..])
    );
    let news = seen.news(pid, fresh);
    assert_eq!(news.len(), 2, "{news:?}");
    assert_eq!(
        (&news[0][..3], &news[1][..4]),
        (&b"sh\0"[..], &b"cat\0"[..])
    );
    // Named after the hook that saw the read, not after what tells opens.
    let reads = host
        .sensor
        .status()
        .signal(keytrail_model::Signal::FileRead)
        .unwrap();
    let hook = seen.hook_of(pid, Kind::FILE_NEW).unwrap();
    assert!(
        reads.hook.split(" + ").any(|named| named == hook) && hook != "fanotify",
        "{hook}"
    );
}

/// What names are remembered under: equal for the same place, different for any other, and what user space can check.
#[test]
fn places_are_distinguished() {
    use keytrail_ingest::cgroups::Hierarchies;
    use std::os::unix::fs::MetadataExt as _;
    let mut host = host!();
    let dirs = tempfile::tempdir().unwrap();
    let mut run = |program: &std::path::Path, dir: &std::path::Path| {
        for _ in 0..3 {
            let pid = host.run(Command::new(program).current_dir(dir));
            if let Some(exec) = host.drain_all().exec(pid) {
                return exec.record;
            }
            // Beside the sensors of all other tests a record may find no room, and then it is counted.
            assert_ne!(host.sensor.losses(), []);
        }
        panic!("three execs without a record");
    };
    let copy = dirs.path().join("true");
    // By another process: what a child that is forked meanwhile has open for writing cannot be executed.
    let copied = Command::new("cp").arg("/bin/true").arg(&copy).status();
    assert!(copied.unwrap().success());
    let (a, b) = (dirs.path().join("a"), dirs.path().join("b"));
    fs::create_dir(&a).unwrap();
    let first = run(&copy, &a);
    let again = run(&copy, &a);
    assert_ne!((first.cwd.names, first.exe.names), (0, 0));
    assert_eq!((first.cwd, first.exe), (again.cwd, again.exe));
    assert_eq!(first.cwd.file.ino, fs::metadata(&a).unwrap().ino());
    assert_eq!(first.exe.file.ino, fs::metadata(&copy).unwrap().ino());
    // The same inode under another name is another place.
    fs::rename(&a, &b).unwrap();
    let moved = run(&copy, &b);
    assert_eq!(moved.cwd.file, first.cwd.file);
    assert_ne!(moved.cwd.names, first.cwd.names);
    let link = dirs.path().join("link");
    fs::hard_link(&copy, &link).unwrap();
    let linked = run(&link, &b);
    assert_eq!(linked.exe.file, first.exe.file);
    assert_ne!(linked.exe.names, first.exe.names);
    // /proc's cgroups add up to what the kernel side says, where all hierarchies are mounted.
    let own = Hierarchies::default().of(std::process::id(), 1).unwrap();
    assert!(
        own.sum.is_none_or(|sum| sum == first.cgroups),
        "{}",
        own.path
    );
    assert_ne!(first.cgroups, 0);
    let unseen = own.sum.is_none();
    eprintln!(
        "{}",
        if unseen {
            "cgroups cannot be checked here"
        } else {
            "cgroups checked"
        }
    );
}

#[test]
fn the_environment_is_captured_whole() {
    let mut host = host!();
    for size in [0usize, 100, 250, 3000, 4096, 9000, 60_000] {
        let value: String = (0..size)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "true"])
            .env_clear()
            .env("FIRST", "1")
            .env("VALUE", &value)
            .env("LAST", "2");
        let pid = host.run(&mut command);
        let seen = host.drain_all();
        let exec = seen.exec(pid).unwrap();
        assert_eq!(exec.area(AREA_ARGV), b"/bin/sh\0-c\0true\0");
        let environment = exec.area(AREA_ENV);
        assert_eq!(environment.len() as u64, exec.record.env_len, "{size}");
        let wanted = format!("VALUE={value}\0");
        assert!(host::contains(&environment, wanted.as_bytes()), "{size}");
        assert!(
            host::contains(&environment, b"FIRST=1\0") && host::contains(&environment, b"LAST=2\0")
        );
        assert_eq!(exec.flags & (flags::TRUNCATED | flags::UNREADABLE), 0);
        assert!(exec.complete);
        assert_eq!(exec.record.parent_tgid, std::process::id());
        assert_eq!((exec.record.argc, exec.record.envc), (3, 3));
        assert_eq!(
            &exec.record.filename[..exec.record.filename_len as usize],
            b"/bin/sh"
        );
    }
}

#[test]
fn a_huge_environment_is_cut_and_says_so() {
    let mut host = host!();
    let mut command = Command::new("/bin/true");
    command.env_clear();
    // A quarter of the usual stack limit of 8 MiB is the most that execve takes.
    for n in 0..19 {
        command.env(format!("V{n}"), "x".repeat(100_000));
    }
    let pid = host.run(&mut command);
    let seen = host.drain_all();
    let exec = seen.exec(pid).unwrap();
    assert!(exec.record.env_len > 1_900_000);
    assert_eq!(exec.area(AREA_ENV).len(), keytrail_abi::EXEC_AREA_MAX);
    assert_ne!(exec.flags & flags::TRUNCATED, 0);
    assert!(exec.complete);
}

#[test]
fn exec_from_another_thread_keeps_the_process() {
    let mut host = host!();
    let script = "import os,threading\nthreading.Thread(target=lambda: os.execv('/bin/true',['true','thread'])).start()\nimport time\ntime.sleep(5)";
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", script]));
    let seen = host.drain_all();
    let exec = seen.execs(pid).pop().unwrap();
    assert_eq!(exec.area(AREA_ARGV), b"true\0thread\0");
    assert_eq!(exec.record.header.tid, pid);
    assert_ne!(exec.record.old_tid, pid);
    let first = seen.exec(pid).unwrap();
    assert_eq!(first.record.header.start_ns, exec.record.header.start_ns);
    assert_eq!(seen.of(pid, Kind::EXIT).len(), 1);
}

#[test]
fn a_plain_request_is_seen_with_its_destination() {
    let mut host = host!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        buffer[..n].to_vec()
    });
    let pid = host.run(Command::new("curl").args([
        "-s",
        "-H",
        "X-Secret: planted",
        &format!("http://127.0.0.1:{port}/path"),
    ]));
    let request = server.join().unwrap();
    let seen = host.drain_all();
    let sends = seen.sends(pid);
    let whole: Vec<u8> = sends.iter().flat_map(|send| send.data.clone()).collect();
    assert_eq!(whole, request);
    assert_eq!(sends[0].record.ends.peer_port, port);
    assert_eq!(sends[0].record.ends.peer[..4], [127, 0, 0, 1]);
    assert_eq!(
        (sends[0].record.ends.family, sends[0].record.ends.protocol),
        (2, 6)
    );
    assert_eq!(sends[0].record.tls_call, 0);
    let connect = seen.of(pid, Kind::CONNECT);
    assert!(!connect.is_empty());
}

#[test]
fn curl_over_tls_shows_plaintext_and_socket() {
    let mut host = host!();
    host.sensor.scan_libraries();
    let Some((mut server, port)) = tls_server() else {
        return;
    };
    let url = format!("https://localhost:{port}/");
    let pid = host.run(Command::new("curl").args([
        "-sk",
        "--ipv4",
        "-H",
        "Authorization: Bearer planted",
        &url,
    ]));
    let seen = host.drain_all();
    server.kill().unwrap();
    server.wait().unwrap();
    let writes = seen.tls(pid);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].data.starts_with(b"GET / HTTP/1.1\r\n"));
    assert!(host::contains(&writes[0].data, b"Bearer planted"));
    assert_eq!(writes[0].record.total as usize, writes[0].data.len());
    assert_eq!(
        seen.hook_of(pid, Kind::TLS_WRITE),
        host.with_cookies("uprobe:SSL_write")
    );
    let sends = seen.sends(pid);
    let hello = sends
        .iter()
        .find(|send| send.data.first() == Some(&0x16))
        .unwrap();
    assert!(
        host::contains(&hello.data, b"localhost"),
        "no SNI in the ClientHello"
    );
    assert_eq!(hello.record.tls_call, 0);
    let nested: Vec<_> = sends
        .iter()
        .filter(|send| send.record.tls_call == writes[0].record.tls_call)
        .collect();
    if !host.knows_calls() {
        assert_eq!(nested.len(), 0, "a call was guessed: {sends:?}");
        assert!(sends.iter().all(|send| send.record.ends.peer_port == port));
        return;
    }
    assert_eq!(nested.len(), 1, "{sends:?}");
    assert_eq!(nested[0].record.ends.peer_port, port);
    assert_eq!(nested[0].record.tls_session, writes[0].record.tls_session);
    assert_eq!(nested[0].data[0], 0x17);
    // TLS 1.3: five bytes of header, one of type, sixteen of tag.
    assert_eq!(nested[0].record.total, writes[0].record.total + 22);
}

#[test]
fn python_uses_ssl_write_ex() {
    let mut host = host!();
    host.sensor.scan_libraries();
    let Some((mut server, port)) = tls_server() else {
        return;
    };
    let script = format!(
        "import ssl,urllib.request as u\nc=ssl._create_unverified_context()\nu.urlopen(u.Request('https://127.0.0.1:{port}/',headers={{'X-Planted':'planted-header'}}),context=c).read()"
    );
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &script]));
    let seen = host.drain_all();
    server.kill().unwrap();
    server.wait().unwrap();
    let writes = seen.tls(pid);
    assert!(
        writes
            .iter()
            .any(|write| host::contains(&write.data, b"planted-header")),
        "{writes:?}"
    );
    assert_eq!(
        seen.hook_of(pid, Kind::TLS_WRITE),
        host.with_cookies("uprobe:SSL_write_ex")
    );
    for write in &writes {
        let nested = seen
            .sends(pid)
            .into_iter()
            .filter(|send| send.record.tls_call == write.record.tls_call);
        let ports: Vec<_> = nested.map(|send| send.record.ends.peer_port).collect();
        let reported: &[u16] = if host.knows_calls() { &[port] } else { &[] };
        assert_eq!(ports, reported);
    }
}

#[test]
fn gnutls_is_seen_once() {
    let mut host = host!();
    host.sensor.scan_libraries();
    if !std::path::Path::new("/usr/bin/wget").exists() {
        eprintln!("not tried: there is no wget");
        return;
    }
    let Some((mut server, port)) = tls_server() else {
        return;
    };
    let pid = host.run(Command::new("wget").args([
        "-q",
        "-O",
        "/dev/null",
        "--no-check-certificate",
        "--tries=1",
        &format!("https://127.0.0.1:{port}/"),
    ]));
    let seen = host.drain_all();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(seen.finished(pid), "wget fetched nothing");
    let writes: Vec<_> = seen
        .tls(pid)
        .into_iter()
        .filter(|write| write.data.starts_with(b"GET /"))
        .collect();
    // gnutls_record_send goes on in gnutls_record_send2, and both are probed.
    assert_eq!(
        writes.len(),
        if host.knows_calls() { 1 } else { 2 },
        "{writes:?}"
    );
}

#[test]
fn a_clean_process_is_left_alone_until_it_reads_a_secret() {
    let mut host = host!();
    let file = host.secret_on_disk(b"secret\n");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "import socket,sys\ns=socket.create_connection(('127.0.0.1',{port}))\n\
         for line in sys.stdin:\n  a=line.split()\n  if a[0]=='send': s.sendall(a[1].encode())\n  else: open({:?}).read()\n  print('ok',flush=True)",
        file.path()
    );
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (_stream, _) = listener.accept().unwrap();
    let pid = child.id();
    let mut input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut say = |line: &str| {
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut output, &mut answer).unwrap();
        assert_eq!(answer, "ok\n");
    };
    say("send before");
    let seen = host.drain_all();
    // That of its exec, or of the last file it read that nobody had seen.
    let exec_id = host.sensor.process(pid).unwrap().exec_id;
    assert_eq!(host.sensor.process(pid).unwrap().state, PROC_UNKNOWN);
    assert_eq!(seen.sends(pid).len(), 1);
    assert_ne!(
        seen.sends(pid)[0].record.header.flags & flags::UNCLASSIFIED,
        0
    );

    host.sensor.clear_process(pid, exec_id + (1 << 16));
    assert!(
        host.sensor.process(pid).is_some(),
        "another exec's verdict was applied"
    );
    host.sensor.clear_process(pid, exec_id);
    assert!(host.sensor.process(pid).is_none());
    say("send clean");
    assert_eq!(host.drain_all().sends(pid).len(), 0);

    say("read");
    assert_eq!(host.sensor.process(pid).unwrap().state, PROC_HOLDER);
    say("send after");
    let seen = host.drain_all();
    assert_eq!(seen.reads(pid).len(), 1);
    assert_eq!(seen.sends(pid)[0].data, b"after");
    assert_eq!(
        seen.sends(pid)[0].record.header.flags & flags::UNCLASSIFIED,
        0
    );
    drop(input);
    child.wait().unwrap();
    host.drain_all();
    assert!(host.sensor.process(pid).is_none(), "its exit left an entry");
}

#[test]
fn children_inherit_what_is_known() {
    let mut host = host!();
    let pid = host.run(Command::new("sh").args(["-c", "(sleep 0.2; :) & wait"]));
    let seen = host.drain_all();
    let child = seen.child_of(pid).unwrap();
    assert!(seen.of(child, Kind::EXIT).len() == 1 && seen.of(pid, Kind::EXIT).len() == 1);
}

#[test]
fn late_decisions_harm_nobody() {
    let mut host = host!();
    let state = |state, exec_id| ProcState {
        state,
        met: 0,
        exec_id,
    };
    // Dead before the decision came: what is put into the table now nobody would ever take out.
    let dead = host.run(&mut Command::new("true"));
    host.drain_all();
    host.sensor.set_process(dead, state(PROC_HOLDER, 0));
    assert_eq!(host.sensor.process(dead), None);

    let mut child = Command::new("sleep").arg("30").spawn().unwrap();
    host.executed(child.id());
    // Each library that it has yet to read is a question of its own.
    let stat = format!("/proc/{}/stat", child.id());
    let sleeps = || {
        std::fs::read_to_string(&stat)
            .unwrap()
            .contains("(sleep) S ")
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !sleeps() {
        assert!(std::time::Instant::now() < deadline, "it never sleeps");
        std::thread::sleep(Duration::from_millis(5));
    }
    let now = host.executed(child.id());
    assert_eq!(now.state, PROC_UNKNOWN);
    // A decision about the program before it.
    host.sensor
        .set_process(child.id(), state(PROC_HOLDER, now.exec_id + 1000));
    assert_eq!(host.sensor.process(child.id()), Some(now));
    // Nobody decides: it is named the second time, and not before.
    let waits = |sensor: &mut Sensor| sensor.sweep().iter().any(|(tgid, _)| *tgid == child.id());
    assert!(!waits(&mut host.sensor));
    assert!(waits(&mut host.sensor));
    host.sensor
        .set_process(child.id(), state(PROC_HOLDER, now.exec_id));
    assert!(!waits(&mut host.sensor));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn every_segment_and_every_call_is_captured_once() {
    let mut host = host!();
    // Twelve segments, one empty; the same buffer three times; one call larger than what is captured of a call.
    let (pid, received) = send_buffers(
        &mut host,
        "import os\nos.writev(fd,[bytes([65+n])*(n*100) for n in range(12)])\nb=bytearray(b'same')*64\nfor n in range(3):\n  os.write(fd,b)\nos.write(fd,bytes(range(256))*800)",
    );
    let seen = host.drain_all();
    let sends = seen.sends(pid);
    let totals: Vec<u64> = sends
        .iter()
        .filter(|send| send.record.header.flags & flags::CONTINUED == 0)
        .map(|send| send.record.total)
        .collect();
    assert_eq!(totals, [6600, 256, 256, 256, 204_800]);
    let captured: Vec<u8> = sends.iter().flat_map(|send| send.data.clone()).collect();
    assert_eq!(captured.len(), 6600 + 3 * 256 + keytrail_abi::PAYLOAD_MAX);
    assert_eq!(captured, received[..captured.len()]);
    let last = sends.last().unwrap();
    assert_ne!(last.record.header.flags & flags::TRUNCATED, 0);
    assert!(
        sends
            .iter()
            .rev()
            .skip(1)
            .all(|send| send.record.header.flags & flags::TRUNCATED == 0)
    );
}

/// A Python script with both ends of a connection, `s` and `p`, that expects errors.
fn pair_script(rest: &str) -> String {
    format!(
        "import errno,os,select,socket,struct,time\n\
         l=socket.socket()\nl.bind(('127.0.0.1',0))\nl.listen()\n\
         s=socket.create_connection(l.getsockname())\np,_=l.accept()\n\
         def fails(data,*codes,s=s):\n  try:\n    s.send(data)\n  except OSError as e:\n    assert e.errno in codes,e\n    return\n  assert False\n\
         {rest}"
    )
}

#[test]
fn what_does_not_leave_was_not_sent() {
    let mut host = host!();
    for script in [
        "p.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0))\np.close()\ntime.sleep(.1)\n\
         fails(b'dead',errno.ECONNRESET)\nfails(b'dead',errno.EPIPE)",
        "s.shutdown(socket.SHUT_WR)\nfails(b'dead',errno.EPIPE)",
        "fails(b'dead',errno.EPIPE,errno.ENOTCONN,s=socket.socket())",
        // To an address that answers nothing, so that the connection stays half open.
        "n=socket.socket()\nn.setblocking(False)\nl.close()\n\
         b=socket.socket()\nb.bind(('127.0.0.1',0))\nb.listen(0)\nk=[]\n\
         for _ in range(4):\n  n=socket.socket()\n  n.setblocking(False)\n  n.connect_ex(b.getsockname())\n  k.append(n)\n\
         fails(b'dead',errno.EAGAIN,s=k[-1])",
    ] {
        let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &pair_script(script)]));
        let seen = host.drain_all();
        assert!(seen.finished(pid), "{script}");
        let sends = seen.sends(pid);
        assert_eq!(sends.len(), 0, "{script}: {sends:?}");
    }
    // Half closed by the peer only: that leaves.
    let script = "p.shutdown(socket.SHUT_WR)\ntime.sleep(.1)\ns.send(b'alive')";
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &pair_script(script)]));
    assert_eq!(host.drain_all().sends(pid).len(), 1);
}

#[test]
fn a_send_without_room_is_counted_when_it_fits() {
    let mut host = host!();
    // Buffers of a fixed size: the kernel makes others larger while they are filled.
    let script = "s.setblocking(False)\n\
         s.setsockopt(socket.SOL_SOCKET,socket.SO_SNDBUF,65536)\np.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,65536)\n\
         for size in (65536,1):\n  try:\n    while True: s.send(b'f'*size)\n  except BlockingIOError: pass\n\
         fails(b'again',errno.EAGAIN)\nfails(b'again',errno.EAGAIN)\n\
         while select.select([p],[],[],.2)[0]: p.recv(1<<20)\n\
         assert s.send(b'again')==5 and s.send(b'more')==4";
    let pid = host.run(Command::new("/usr/bin/python3").args(["-c", &pair_script(script)]));
    let seen = host.drain_all();
    assert!(seen.finished(pid));
    let texts: Vec<_> = seen
        .sends(pid)
        .into_iter()
        .filter(|send| send.data.first() != Some(&b'f'))
        .map(|send| send.data)
        .collect();
    assert_eq!(
        texts,
        [b"again".to_vec(), b"more".to_vec()],
        "{:?} {:?}",
        host.sensor.losses(),
        host.sensor.passed_totals()
    );
}

#[test]
fn pages_of_a_file_are_a_send_without_data() {
    let mut host = host!();
    let mut file = tempfile::Builder::new()
        .tempfile_in(host::on_disk())
        .unwrap();
    file.write_all(&vec![b'p'; 300_000]).unwrap();
    let (pid, received) = send_buffers(
        &mut host,
        &format!(
            "import os\nf=os.open({:?},0)\nn=0\nwhile n<300000: n+=os.sendfile(fd,f,n,300000-n)",
            file.path().to_str().unwrap()
        ),
    );
    assert_eq!(received.len(), 300_000);
    let seen = host.drain_all();
    let sends = seen.sends(pid);
    assert!(!sends.is_empty());
    for send in &sends {
        assert_eq!(send.data, b"");
        assert_ne!(send.record.header.flags & flags::UNREADABLE, 0);
        assert_eq!(send.record.ends.peer[..4], [127, 0, 0, 1]);
        assert!(send.record.total > 0);
    }
}

#[test]
fn a_missing_page_costs_that_page() {
    let mut host = host!();
    // Three pages, the middle one never touched: it is not resident, and the kernel itself faults it in later.
    let (pid, received) = send_buffers(
        &mut host,
        "import mmap,os\nm=mmap.mmap(-1,3*4096)\nm[0:4096]=b'a'*4096\nm[8192:12288]=b'c'*4096\nos.write(fd,m)",
    );
    assert_eq!(received.len(), 12288);
    let seen = host.drain_all();
    let sends = seen.sends(pid);
    let captured: Vec<u8> = sends.iter().flat_map(|send| send.data.clone()).collect();
    assert_eq!(captured, [[b'a'; 4096], [b'c'; 4096]].concat());
    assert_eq!(
        sends
            .iter()
            .map(|send| send.record.offset)
            .collect::<Vec<_>>(),
        [0, 4096, 8192]
    );
    assert_ne!(sends[1].record.header.flags & flags::UNREADABLE, 0);
}

#[test]
fn losses_are_counted_and_leave_a_hole() {
    let _ = host!();
    let options = SensorOptions {
        ring_bytes: 1,
        self_test: false,
        ..SensorOptions::default()
    };
    let mut host = Host::with(&options).unwrap();
    // The smallest ring has 256 KiB, and nobody drains it meanwhile.
    let cpus = std::thread::available_parallelism().unwrap().get() as u32;
    let each = 60;
    let load = |cpu: u32, times: u32| {
        let script = format!("n=0; while [ $n -lt {times} ]; do /bin/true; n=$((n+1)); done");
        let done = Command::new("taskset")
            .args(["-c", &cpu.to_string(), "/bin/sh", "-c", &script])
            .env("FILL", "x".repeat(8000))
            .status();
        assert!(done.unwrap().success());
    };
    // The first one fills the ring; from then on every CPU loses all, and each another number.
    load(0, 60);
    let loaded = cpus.min(4);
    (0..loaded).for_each(|cpu| load(cpu, each * (cpu + 1)));
    let seen = host.drain_all();
    let losses = host.sensor.losses();
    let mut lost = std::collections::BTreeMap::<u32, u64>::new();
    for loss in &losses {
        assert!(loss.cpu < cpus, "{loss:?}: there are {cpus} CPUs");
        *lost.entry(loss.cpu).or_default() += loss.count;
    }
    for cpu in 0..loaded {
        for kind in ["exec", "exec_chunk", "fork", "exit"] {
            let of_cpu: Vec<_> = losses
                .iter()
                .filter(|loss| loss.cpu == cpu && loss.kind == kind)
                .collect();
            assert_eq!(of_cpu.len(), 1, "{kind} of CPU {cpu}: {losses:?}");
            assert!(of_cpu[0].count >= u64::from(each * (cpu + 1)), "{of_cpu:?}");
        }
    }
    // What comes after the hole is numbered on, so that the hole is as large as the loss: on each CPU by itself.
    // Every CPU has numbers of its own, so each has to make a record.
    let mut last = 0;
    for cpu in 0..cpus {
        let cpu = cpu.to_string();
        last = host.run(Command::new("taskset").args(["-c", &cpu, "/bin/true"]));
    }
    let after = host.drain_all();
    assert!(after.exec(last).unwrap().complete);
    assert_eq!(host.sensor.losses(), []);
    assert_eq!(host::holes(&[&seen, &after]), lost, "{losses:?}");
}

#[test]
fn a_wiped_ring_holds_nothing_of_the_past() {
    let _ = host!();
    let options = SensorOptions {
        ring_bytes: 1 << 20,
        self_test: false,
        ..SensorOptions::default()
    };
    let mut host = Host::with(&options).unwrap();
    // Much, little, and little again: a pass skips what the passes before have overwritten.
    for (round, processes) in [20, 2, 1, 60, 1].into_iter().enumerate() {
        let marker = format!("marker-{:x}-{round}-in-the-ring", std::process::id());
        let mut there = false;
        // On a busy machine others' records may lead all the way round the ring before we look.
        for _ in 0..10 {
            for _ in 0..processes {
                host.run(Command::new("/bin/true").env("MARKER", &marker));
            }
            assert!(host.drain_all().contains(marker.as_bytes()));
            there = host::contains(&host.sensor.ring_image().unwrap(), marker.as_bytes());
            if there {
                break;
            }
        }
        assert!(there, "nothing to prove");
        let mut records = 0;
        host.sensor.wipe(&mut |_| records += 1).unwrap();
        assert!(
            !host::contains(&host.sensor.ring_image().unwrap(), marker.as_bytes()),
            "the marker of round {round} is still there"
        );
    }
    // And it still works.
    let pid = host.run(&mut Command::new("/bin/true"));
    assert!(host.drain_all().exec(pid).unwrap().complete);
}

/// The kernel shows a ring's pages twice, and each page that is mapped counts as memory of the agent.
#[test]
fn of_the_rings_a_small_part_is_mapped() {
    let _ = host!();
    let bytes = 8 << 20;
    let options = SensorOptions {
        ring_bytes: bytes,
        self_test: false,
        ..SensorOptions::default()
    };
    let mut host = Host::with(&options).unwrap();
    let pid = host.run(&mut Command::new("/bin/true"));
    assert!(host.drain_all().exec(pid).unwrap().complete);
    // All of them, twice, are four times this much; on a busy machine a window is a part of its ring.
    let mapped = host.sensor.rings_mapped();
    assert!(mapped > 0, "nothing was read");
    assert!(
        mapped <= u64::from(bytes),
        "{mapped} bytes of the rings are mapped"
    );
}

#[test]
fn two_hundred_short_processes_are_all_seen() {
    let mut host = host!();
    let mut pids = Vec::new();
    for n in 0..200 {
        let mut child = Command::new("/bin/true")
            .env("NUMBER", n.to_string())
            .spawn()
            .unwrap();
        pids.push((child.id(), n));
        child.wait().unwrap();
    }
    let seen = host.drain_all();
    for (pid, n) in pids {
        let environment = seen.exec(pid).unwrap().area(AREA_ENV);
        assert!(host::contains(
            &environment,
            format!("NUMBER={n}\0").as_bytes()
        ));
    }
    assert_eq!(host.sensor.losses(), []);
}

#[test]
fn nobody_gets_a_plain_sentence() {
    const CHILD: &str = "KEYTRAIL_TEST_AS_NOBODY";
    if std::env::var_os(CHILD).is_some() {
        let error = Sensor::open(&SensorOptions::default()).err().unwrap();
        println!("error: {error}");
        assert!(matches!(error, SensorError::Privilege), "{error:?}");
        return;
    }
    let _ = host!();
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("test");
    // By another process: what a child that is forked meanwhile has open for writing cannot be executed.
    let own = std::env::current_exe().unwrap();
    let copied = Command::new("cp").arg(own).arg(&copy).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let output = Command::new(&copy)
        .args(["--exact", "nobody_gets_a_plain_sentence", "--nocapture"])
        .env(CHILD, "1")
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("error: keytrail needs root"), "{text}");
}

#[test]
fn waiting_ends_when_something_happens() {
    let mut host = host!();
    host.drain_all();
    let started = std::time::Instant::now();
    let mut child = Command::new("/bin/true").spawn().unwrap();
    host.sensor.wait(Duration::from_secs(5), &[]).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "woken by the time-out only"
    );
    child.wait().unwrap();
    let _: Seen = host.drain_all();
}

/// A file that user space found nothing in is not reported again, in the version it inspected and in no other.
#[test]
fn a_clean_file_is_not_reported_until_it_changes() {
    use std::os::unix::fs::MetadataExt as _;
    let mut host = host!();
    let directory = tempfile::tempdir_in(host::on_disk()).unwrap();
    let path = directory.path().join("plain");
    fs::write(&path, "nothing of interest is in here\n").unwrap();
    let text = path.to_str().unwrap().to_owned();
    let file = keytrail_sensor::file_id(&path).unwrap();
    let version = || {
        let meta = fs::metadata(&path).unwrap();
        meta.ctime() as u64 * 1_000_000_000 + meta.ctime_nsec() as u64
    };
    let read = |host: &mut Host| {
        // Wherever it runs: what one CPU remembers says nothing about the others.
        let cpus = std::thread::available_parallelism().unwrap().get();
        let reported: Vec<_> = (0..cpus)
            .map(|cpu| {
                let cpu = cpu.to_string();
                let pid = host.run(Command::new("taskset").args(["-c", &cpu, "cat", &text]));
                let seen = host.drain_all();
                assert!(seen.finished(pid), "{text}");
                seen.news(pid, &text).len()
            })
            .collect();
        assert!(
            reported.iter().all(|one| *one == reported[0]),
            "{reported:?}"
        );
        reported[0]
    };
    assert_eq!(read(&mut host), 1);
    assert_eq!(read(&mut host), 1, "nobody has decided");
    let first = version();
    host.sensor.set_clean(file, first);
    assert_eq!(read(&mut host), 0, "it is clean");
    assert_eq!(read(&mut host), 0, "it stays so");
    // A newer version: nobody has inspected that.
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, "this is something else altogether\n").unwrap();
    let second = version();
    assert_ne!(first, second);
    assert_eq!(read(&mut host), 1, "it was changed");
    // A decision about the old version comes late.
    host.sensor.set_clean(file, first);
    assert_eq!(read(&mut host), 1, "the new version was not decided about");
    host.sensor.set_clean(file, second);
    assert_eq!(read(&mut host), 0);
}
