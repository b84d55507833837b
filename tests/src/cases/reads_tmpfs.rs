//! Reads of files in memory, where containers and services have their tokens: on file systems that are made for one of
//! them, read once at its start, and gone with it.

use super::count;
use crate::{
    agent::Agent,
    command::act,
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, patience, turn, wait_for},
};
use std::collections::BTreeSet;

/// A classic token of GitHub, made anew; and calls that Python has no words for.
const PYTHON: &str = r#"
import ctypes, mmap, os, random, string, sys, zlib
libc = ctypes.CDLL(None, use_errno=True)
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
def token():
    text = ''.join(random.choice(BASE62) for _ in range(30))
    crc, tail = zlib.crc32(text.encode()), ''
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        tail = BASE62[digit] + tail
    return 'ghp_' + text + tail
def write(path):
    with open(path, 'w') as file:
        file.write('token: ' + token() + '\n')
def forked(act):
    if (child := os.fork()) == 0:
        act()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
def mounted(at):
    assert libc.unshare(0x20000) == 0
    assert libc.mount(b'none', b'/', None, 0x4c000, None) == 0
    assert libc.mount(b'none', at.encode(), b'tmpfs', 0, None) == 0
"#;

fn python(script: &str) -> crate::command::Act {
    act("python3").args(["-c", &format!("{PYTHON}{script}")])
}

fn reads_of(agent: &Agent, root: u32) -> Vec<Event> {
    of_kind(&agent.tree(root), "credential_read")
}

/// Two hundred file systems, each in a mount namespace of its own, with a token that is read once by a process of some
/// milliseconds and is gone with it: every read is reported, once, under its path. Beside somebody who reads all the time.
pub fn gone_with_their_readers() {
    const NUMBER: usize = 200;
    let _turn = turn();
    let scratch = Scratch::new();
    let busy = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = busy.path().join("busy");
    std::fs::write(&file, vec![b'x'; 4096]).unwrap();
    let agent = Agent::start(&scratch);
    let mut reader = python("file = os.open(sys.argv[1], 0)\nwhile True: os.pread(file, 4096, 0)")
        .arg(&file)
        .spawn();
    let script = format!(
        r#"
def one(number):
    at = f'{{sys.argv[1]}}/m-{{number}}'
    os.mkdir(at)
    mounted(at)
    write(at + '/token')
    os.dup2(os.open('/dev/null', 1), 1)
    os.execv('/bin/cat', ['cat', at + '/token'])
for number in range({NUMBER}):
    forked(lambda: one(number))
"#
    );
    let done = python(&script)
        .arg(scratch.make("mounts"))
        .limit(patience(60).as_secs())
        .run()
        .ok();
    reader.end();
    agent.wait_idle();
    let reads = reads_of(&agent, done.pid);
    let by_cat: Vec<Event> = reads
        .iter()
        .filter(|e| e.executable().ends_with("/cat"))
        .cloned()
        .collect();
    let paths: BTreeSet<&str> = by_cat.iter().map(|e| e.path()).collect();
    let expected: BTreeSet<String> = (0..NUMBER)
        .map(|number| {
            scratch
                .join(&format!("mounts/m-{number}/token"))
                .display()
                .to_string()
        })
        .collect();
    let missing: Vec<&String> = expected
        .iter()
        .filter(|p| !paths.contains(p.as_str()))
        .collect();
    assert!(
        missing.is_empty() && by_cat.len() == NUMBER,
        "{} reads reported, not among them {missing:?}\n{}",
        by_cat.len(),
        list(
            &agent
                .events()
                .into_iter()
                .filter(|e| !e.reason().is_empty())
                .collect::<Vec<_>>()
        )
    );
    let secrets: BTreeSet<&str> = by_cat.iter().map(|e| e.fingerprint()).collect();
    assert_eq!(secrets.len(), NUMBER, "each has a token of its own");
    assert!(by_cat.iter().all(|e| e.grade() == "observed"));
}

/// Calls that read, and a mapping.
const WAYS: [&str; 13] = [
    "read",
    "pieces",
    "pread",
    "pread_part",
    "readv",
    "preadv",
    "sendfile",
    "sendfile_at",
    "splice",
    "copy_file_range",
    "aio",
    "aio_vector",
    "mapping",
];

/// By every call that reads, each of a file of its own; and what only looks like a read is none.
#[expect(clippy::too_many_lines, reason = "one story, in its order")]
pub fn each_call() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let script = r#"
at = sys.argv[1]
mounted(at)
sink = os.open('/dev/null', 1)
into, out = os.pipe()
def copy_file_range(file):
    other = os.open(at + '/other', os.O_CREAT | os.O_WRONLY)
    assert os.copy_file_range(file, other, 100) > 0
def mapped(file):
    assert mmap.mmap(file, 0, prot=mmap.PROT_READ)[0:5] == b'token'
# include/uapi/linux/aio_abi.h and arch/x86/entry/syscalls/syscall_64.tbl: io_setup, io_submit, io_getevents.
aio_context = ctypes.c_ulong(0)
assert libc.syscall(206, 8, ctypes.byref(aio_context)) == 0
def aio(file, operation, buffer, length):
    words = (ctypes.c_uint64 * 8)(0, 0, operation | file << 32, buffer, length, 0, 0, 0)
    requests = (ctypes.c_void_p * 1)(ctypes.addressof(words))
    submitted = libc.syscall(209, aio_context, ctypes.c_long(1), requests)
    done = (ctypes.c_uint64 * 4)()
    if submitted == 1:
        libc.syscall(208, aio_context, ctypes.c_long(1), ctypes.c_long(1), done, None)
buffer = ctypes.create_string_buffer(100)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 100)
ways = {
    'read': lambda file: os.read(file, 4096),
    'pieces': lambda file: [os.read(file, 9) for _ in range(9)],
    'pread': lambda file: os.pread(file, 4096, 0),
    'pread_part': lambda file: os.pread(file, 30, 7),
    'readv': lambda file: os.readv(file, [bytearray(0), bytearray(4), bytearray(90)]),
    'preadv': lambda file: os.preadv(file, [bytearray(90)], 0),
    'sendfile': lambda file: os.sendfile(out, file, None, 100),
    'sendfile_at': lambda file: os.sendfile(out, file, 0, 100),
    'splice': lambda file: os.splice(file, out, 100),
    'copy_file_range': copy_file_range,
    'aio': lambda file: aio(file, 0, ctypes.addressof(buffer), 100),
    'aio_vector': lambda file: (ctypes.memset(buffer, 0, 100), aio(file, 7, ctypes.addressof(vector), 1)),
    'mapping': mapped,
    'not_opened': lambda file: None,
    'not_at_end': lambda file: [os.lseek(file, 0, 2), os.read(file, 100)],
    'not_empty': lambda file: os.read(file, 0),
    'not_fault': lambda file: libc.read(file, ctypes.c_void_p(16), 100),
    'not_pread_fault': lambda file: libc.pread(file, ctypes.c_void_p(16), 100, ctypes.c_long(0)),
    'not_aio_fault': lambda file: aio(file, 0, 16, 100),
}
said = ''
for way, act in ways.items():
    path = f'{at}/{way}'
    forked(lambda: write(path))
    file = os.open(path, os.O_RDONLY)
    try:
        act(file)
    except (AttributeError, OSError) as error:
        said += f'cannot {way} {error}\n'
with open(sys.argv[2] + '.new', 'w') as file: file.write(said)
os.rename(sys.argv[2] + '.new', sys.argv[2])
sys.stdin.readline()
"#;
    let done = scratch.join("done");
    let mut process = python(script)
        .arg(scratch.make("mount"))
        .arg(&done)
        .spawn_listening();
    let root = process.pid();
    let said = wait_for("all calls", patience(30), || {
        std::fs::read_to_string(&done).ok()
    });
    let tried = |way: &str| !said.contains(&format!("cannot {way} "));
    let ways: Vec<&str> = WAYS.into_iter().filter(|way| tried(way)).collect();
    for way in &ways {
        let end = format!("/mount/{way}");
        agent.expect(way, root, |e| {
            e.is("credential_read") && e.in_tree(root) && e.path().ends_with(&end)
        });
    }
    agent.wait_idle();
    process.say("end");
    let reads = reads_of(&agent, root);
    let of = |way: &str| -> Vec<Event> {
        let end = format!("/mount/{way}");
        reads
            .iter()
            .filter(|e| e.path().ends_with(&end))
            .cloned()
            .collect()
    };
    // By what the read calls are reported: hooks before the call do not know of an address that is none.
    let hook = of("read").first().map_or(String::new(), |e| {
        e.evidence
            .as_ref()
            .map_or(String::new(), |e| e.hook.clone())
    });
    for way in ways {
        count(&of(way), 1, &format!("{way} ({hook})"));
    }
    for way in [
        "not_opened",
        "not_at_end",
        "not_empty",
        "not_fault",
        "not_pread_fault",
        "not_aio_fault",
    ] {
        if hook.starts_with("raw_tp:") || !way.ends_with("fault") {
            count(&of(way), 0, way);
        }
    }
}

/// A token that is replaced while its readers go on: by another in the same file, by a file of the same name, by another
/// file system at the same place. Each read is of what lay there.
pub fn replaced() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let script = r#"
at = sys.argv[1]
path = at + '/token'
def cat():
    null = os.open('/dev/null', 1)
    os.dup2(null, 1)
    os.execv('/bin/cat', ['cat', path])
def renamed():
    write(path + '.new')
    os.rename(path + '.new', path)
def anew():
    os.unlink(path)
    write(path)
mounted(at)
for change in [write, write, renamed, anew, renamed, anew]:
    forked((lambda: change(path)) if change is write else change)
    forked(cat)
assert libc.umount2(at.encode(), 0) == 0
mounted(at)
forked(lambda: write(path))
forked(cat)
"#;
    let done = python(script).arg(scratch.make("mount")).run().ok();
    agent.wait_idle();
    let reads: Vec<Event> = reads_of(&agent, done.pid)
        .into_iter()
        .filter(|e| e.executable().ends_with("/cat"))
        .collect();
    count(&reads, 7, "reads by cat");
    let secrets: BTreeSet<&str> = reads.iter().map(|e| e.fingerprint()).collect();
    assert_eq!(secrets.len(), 7, "{}", list(&reads));
    assert!(
        reads.iter().all(|e| e.path().ends_with("/mount/token")),
        "{}",
        list(&reads)
    );
}
