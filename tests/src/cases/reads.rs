//! Reading a file that holds a credential, and everything that only looks like it.

use super::count;
use crate::{
    agent::{Agent, Setup},
    command::{act, sh},
    events::{Ask as _, Event, of_kind},
    machine::{Scratch, patience, turn, wait_for},
    plant,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Has `cat` read the file; gives the shell's pid and the read events of its tree.
fn cat(agent: &Agent, file: &Path) -> (u32, Vec<Event>) {
    // The `:` keeps the shell from becoming cat.
    let done = sh("cat \"$1\"; :").arg(file).run().ok();
    assert!(!done.stdout.is_empty(), "cat read nothing");
    agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    agent.wait_idle();
    (done.pid, of_kind(&agent.tree(done.pid), "credential_read"))
}

/// Checks the one read event of a cat of an AWS credential file.
fn is_the_read(reads: &[Event], shell: u32, planted: &plant::Planted, file: &Path) {
    count(reads, 1, "read events");
    let event = &reads[0];
    let text = event.brief();
    assert!(event.shows(planted), "{text}");
    assert!(event.credential_kind().starts_with("aws-"), "{text}");
    assert!(event.fingerprint().starts_with("kt1:"), "{text}");
    assert_eq!(event.fingerprint().len(), 36, "{text}");
    assert_eq!(event.grade(), "observed", "{text}");
    assert_eq!(event.channel(), "file", "{text}");

    let source = event.source.as_ref().unwrap();
    let meta = fs::metadata(file).unwrap();
    assert_eq!(event.source_type(), "file", "{text}");
    assert_eq!(Path::new(&source.path), file, "{text}");
    assert_eq!(source.inode, meta.ino(), "{text}");
    assert_eq!(source.device, kernel_device(meta.dev()), "{text}");
    assert_eq!(source.mode, "0600", "{text}");
    assert_eq!(source.owner_uid, 0, "{text}");

    let process = event.process.as_ref().unwrap();
    let executable = process.executable.as_ref().unwrap();
    assert!(executable.path.ends_with("/cat"), "{text}");
    assert_eq!(executable.inode, fs::metadata("/bin/cat").unwrap().ino());
    assert_eq!(process.argv, ["cat", file.to_str().unwrap()], "{text}");
    assert_eq!(process.comm, "cat", "{text}");
    // Of a process that is gone in a millisecond it may be unknown, but not another one's.
    assert!(matches!(process.cwd.as_str(), "/" | ""), "{text}");
    assert_ne!(process.pid, shell, "{text}");
    assert_eq!(process.ppid, shell, "{text}");
    let parents: Vec<u32> = process.ancestors.iter().map(|a| a.pid).collect();
    assert_eq!(parents.first(), Some(&shell), "{text}");
    assert!(parents.contains(&std::process::id()), "{text}");
    assert_eq!(process.ancestors[0].comm, "sh", "{text}");
}

/// The kernel's own encoding of a device number, as events carry it.
fn kernel_device(st_dev: u64) -> u64 {
    u64::from(libc::major(st_dev)) << 20 | u64::from(libc::minor(st_dev))
}

/// `cat` of a planted `~/.aws/credentials` is one read event that tells all.
pub fn cat_is_one_read() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);
    // Another process is another reader.
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);
}

/// A credential that appears while the agent runs, in a directory that is there already, then in one that is not,
/// and one that replaces another by a rename, as editors and tools do.
pub fn planted_while_the_agent_runs() {
    let _turn = turn();
    let scratch = Scratch::new();
    scratch.make("home/.aws");
    let agent = Agent::start(&scratch);
    let noticed = || std::thread::sleep(patience(1));
    let (planted, file) = plant::aws_credentials(agent.home());
    noticed();
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);

    let (planted, new) = plant::aws_credentials(&scratch.make("other"));
    fs::rename(new, &file).unwrap();
    noticed();
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);

    fs::remove_dir_all(agent.home().join(".aws")).unwrap();
    noticed();
    let (planted, file) = plant::aws_credentials(agent.home());
    noticed();
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);
}

/// Read at once by the shell that wrote it: seen, or said that it could not be.
pub fn read_right_after_it_was_written() {
    let _turn = turn();
    let scratch = Scratch::new();
    scratch.make("home/.aws");
    let agent = Agent::start(&scratch);
    let (planted, elsewhere) = plant::aws_credentials(&scratch.make("other"));
    let file = agent.home().join(".aws/credentials");
    let done = sh("cp \"$1\" \"$2\"; cat \"$2\"; :")
        .arg(&elsewhere)
        .arg(&file)
        .run()
        .ok();
    assert!(done.stdout_text().contains(&planted.value));
    agent.expect("the read, or a word on it", done.pid, |e| {
        Path::new(e.path()) == file
            && e.shows(&planted)
            && ((e.is("credential_read")
                && e.in_tree(done.pid)
                && e.executable().ends_with("/cat"))
                || (e.is("credential_created") && !e.coverage.is_empty()))
    });
}

/// The same in a home that the agent has to find by itself, without a word of configuration.
pub fn homes_are_found() {
    let _turn = turn();
    let scratch = Scratch::new();
    let home = Home::new();
    let (planted, file) = plant::aws_credentials(&home.0);
    let agent = Setup::new(&scratch).whole_config("").start();
    let (shell, reads) = cat(&agent, &file);
    is_the_read(&reads, shell, &planted, &file);
}

/// A home under /home, gone when the test ends.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let dir = PathBuf::from(format!(
            "/home/keytrail-test-{}",
            plant::text(plant::BASE62, 8)
        ));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `stat`, `ls -l`, `find -name` and `test -r` are not reads, nor opens.
pub fn looking_is_not_reading() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let looks = sh(
        "stat \"$1\"; ls -l \"$1\"; find \"$2\" -name credentials; test -r \"$1\"; [ -s \"$1\" ] && echo there; :",
    )
    .arg(&file)
    .arg(agent.home())
    .run()
    .ok();
    assert!(looks.stdout_text().contains("there"));
    // The control: a read afterwards is seen, so the looks would have been.
    let (_, reads) = cat(&agent, &file);
    count(&reads, 1, "reads by cat");
    let about: Vec<Event> = agent
        .tree(looks.pid)
        .into_iter()
        .filter(|e| e.credential.is_some())
        .collect();
    count(&about, 0, "events about inspecting a file");
}

/// To open is not to read: it is reported as what it is, once, by whom it was.
pub fn opening_is_not_reading() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let opens = sh("exec 3<\"$1\"; sleep 0.1; exec 3<&-; :")
        .arg(&file)
        .run()
        .ok();
    let (shell, reads) = cat(&agent, &file);
    count(&reads, 1, "reads by cat");
    let about = agent.tree(opens.pid);
    count(&of_kind(&about, "credential_read"), 0, "reads by opening");
    let opened = of_kind(&about, "credential_opened");
    count(&opened, 1, "opens");
    let text = opened[0].brief();
    assert_eq!(opened[0].pid(), opens.pid, "{text}");
    assert_eq!(Path::new(opened[0].path()), file, "{text}");
    assert!(opened[0].shows(&planted), "{text}");
    // Nothing is claimed of the bytes.
    assert_eq!(
        (opened[0].grade(), opened[0].channel()),
        ("", "file"),
        "{text}"
    );
    // A read's open is a part of it.
    let by_cat = of_kind(&agent.tree(shell), "credential_opened");
    count(&by_cat, 0, "opens by who read");
}

/// A read that has nowhere to put the bytes fails, after the pages were looked up: of a file that is watched, and of one that
/// nobody has inspected.
pub fn failing_is_not_reading() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, watched) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let (_, elsewhere) = plant::aws_credentials(&scratch.make("other"));
    let script = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
f = os.open(sys.argv[1], 0)
assert libc.read(f, ctypes.c_void_p(8), 100) == -1 and ctypes.get_errno() == 14
assert libc.pread(f, ctypes.c_void_p(8), 100, 0) == -1 and ctypes.get_errno() == 14
print('failed')";
    for file in [&watched, &elsewhere] {
        let fails = act("/usr/bin/python3")
            .args(["-c", script])
            .arg(file)
            .run()
            .ok();
        assert!(fails.stdout_text().contains("failed"));
        // The control: the same file is seen to be read.
        let (_, reads) = cat(&agent, file);
        count(&reads, 1, "reads by cat");
        let about = of_kind(&agent.tree(fails.pid), "credential_read");
        count(&about, 0, "reads that failed");
    }
}

/// Container ids have 64 letters, names may have 255 bytes, and they need not be text.
pub fn names_of_any_length_and_kind() {
    use std::os::unix::ffi::OsStrExt as _;
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let place = scratch.make("place");
    let long = [b'x'; 255];
    for name in [&[b'a'; 64][..], &long, b"caf\xe9"] {
        let name = std::ffi::OsStr::from_bytes(name);
        let (planted, file) = plant::aws_credentials(&place);
        let there = place.join(name).join(name);
        fs::create_dir(place.join(name)).unwrap();
        fs::rename(file, &there).unwrap();
        let (_, reads) = cat(&agent, &there);
        count(&reads, 1, "read events");
        let text = reads[0].brief();
        assert!(reads[0].shows(&planted), "{text}");
        assert_eq!(reads[0].path(), there.to_string_lossy(), "{text}");
    }
}

/// A file that only another mount namespace has, where containers have theirs: what is there when the agent starts
/// and what comes while it runs, each read once, under its name inside.
pub fn other_mount_namespaces() {
    let _turn = turn();
    let scratch = Scratch::new();
    let home = scratch.make("home");
    let outside = home.join(".aws/credentials");
    // The namespace with a home of its own; the file is copied in, and read, on a word.
    let inside = |name: &str| {
        let (planted, file) = plant::aws_credentials(&scratch.make(name));
        let ready = scratch.join(&format!("{name}.ready"));
        let script = "mount -t tmpfs none \"$1\" && mkdir \"$1/.aws\" && cp \"$2\" \"$1/.aws/credentials\" && \
            rm \"$2\" && : >\"$3\" && while read line; do cat \"$1/.aws/credentials\"; done";
        let shell = act("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(&home)
            .arg(&file)
            .arg(&ready)
            .spawn_listening();
        wait_for("the mount namespace", patience(10), || {
            ready.exists().then_some(())
        });
        assert!(!outside.exists());
        (planted, shell)
    };
    let before = inside("before");
    let agent = Agent::start(&scratch);
    let after = inside("after");
    // New namespaces are looked for every five seconds.
    std::thread::sleep(patience(7));
    for (planted, mut shell) in [before, after] {
        let root = shell.pid();
        shell.say("go");
        agent.expect("the read", root, |e| {
            e.is("credential_read") && e.in_tree(root) && e.executable().ends_with("/cat")
        });
        agent.wait_idle();
        let reads: Vec<Event> = of_kind(&agent.tree(root), "credential_read")
            .into_iter()
            .filter(|e| e.executable().ends_with("/cat"))
            .collect();
        count(&reads, 1, "reads by cat");
        let text = reads[0].brief();
        assert!(reads[0].shows(&planted), "{text}");
        assert_eq!(Path::new(reads[0].path()), outside, "{text}");
        assert_eq!(reads[0].grade(), "observed", "{text}");
    }
}

/// Reads by other ways than read(2): through a mapping, by copying inside the kernel, in part.
pub fn other_ways_of_reading() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let ways = [
        (
            "a mapping",
            "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); assert m[0:1]==b'['",
        ),
        (
            "sendfile",
            "import os,sys; f=os.open(sys.argv[1],0); n=os.open('/dev/null',1); r,w=os.pipe(); assert os.sendfile(w,f,0,100)>0",
        ),
        (
            "splice",
            "import os,sys; f=os.open(sys.argv[1],0); r,w=os.pipe(); assert os.splice(f,w,100)>0",
        ),
        (
            "pread",
            "import os,sys; f=os.open(sys.argv[1],0); assert os.pread(f,10,20)",
        ),
    ];
    for (way, script) in ways {
        if way == "splice" {
            // os.splice came with Python 3.10.
            let has = act("/usr/bin/python3")
                .args(["-c", "import os; os.splice"])
                .run();
            if !has.status.success() {
                continue;
            }
        }
        let done = act("/usr/bin/python3")
            .args(["-c", script])
            .arg(&file)
            .run()
            .ok();
        let read = agent.expect(way, done.pid, |e| {
            e.is("credential_read") && e.pid() == done.pid
        });
        assert!(read.shows(&planted), "{}", read.brief());
        agent.wait_idle();
        count(&of_kind(&agent.tree(done.pid), "credential_read"), 1, way);
    }
}

/// Files in memory (tmpfs: where containers have their tokens) pass by the page cache of disks: seen, or said.
pub fn tmpfs_is_not_silent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = tempfile::Builder::new()
        .prefix("keytrail-test-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let (planted, file) = plant::aws_credentials(dir.path());
    let agent = Setup::new(&scratch)
        .whole_config(&format!("watch = [\"{}\"]", file.display()))
        .start();
    let done = sh("cat \"$1\"; :").arg(&file).run().ok();
    let event = agent.expect(
        "a read, or an open with a word on what was not seen",
        done.pid,
        |e| {
            e.in_tree(done.pid)
                && (e.is("credential_read")
                    || (e.is("credential_opened") && !e.coverage.is_empty()))
        },
    );
    assert!(event.shows(&planted), "{}", event.brief());
    assert_eq!(Path::new(event.path()), file);
}

/// The identity of who reads: user ids and working directory, of a process that is not root.
pub fn readers_are_named() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (_, file) = plant::aws_credentials(&scratch.make("home"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let agent = Agent::start(&scratch);
    let done = sh("cd /usr/bin; setpriv --reuid 65534 --regid 65534 --clear-groups tail -n 1 --retry -f --pid=$$ \"$1\" & sleep 0.5; :")
        .arg(&file)
        .run()
        .ok();
    let read = agent.expect("the read", done.pid, |e| {
        e.is("credential_read") && e.in_tree(done.pid)
    });
    let process = read.process.as_ref().unwrap();
    assert_eq!(
        (process.uid, process.euid, process.gid),
        (65534, 65534, 65534)
    );
    assert_eq!(process.cwd, "/usr/bin");
    assert_eq!(read.source.as_ref().unwrap().mode, "0644");
}

/// A file on a disk that is replaced again and again, by those who do that: each read after it is reported, under its path.
pub fn after_each_change() {
    let _turn = turn();
    let scratch = Scratch::new();
    let (planted, file) = plant::aws_credentials(&scratch.make("home"));
    let agent = Agent::start(&scratch);
    let done = sh("f=$1; echo '# 0' >>$f
        for i in 1 2 3 4 5; do
            sed -i \"s/^#.*/# $i/\" $f; cat $f; sleep 0.2
            cp $f $f.new; mv $f.new $f; cat $f; sleep 0.2
            cp $f $f.old; rm $f; cp $f.old $f; cat $f; sleep 0.2
        done")
    .arg(&file)
    .run()
    .ok();
    agent.wait_idle();
    let reads: Vec<Event> = of_kind(&agent.tree(done.pid), "credential_read")
        .into_iter()
        .filter(|e| e.executable().ends_with("/cat"))
        .collect();
    count(&reads, 15, "reads by cat");
    assert!(
        reads
            .iter()
            .all(|e| e.shows(&planted) && Path::new(e.path()) == file)
    );
}
