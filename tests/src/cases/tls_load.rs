//! Programs of several kinds at once, each with hundreds of secrets to many ports over many connections: whatever else the
//! machine does meanwhile, no destination is a wrong one, and what is not seen is said.

use super::{sends_tls::LOOPBACK, tls_stacks::require};
use crate::{
    agent::Agent,
    command::{Act, act},
    events::{Ask as _, Event, list, of_kind},
    machine::{Scratch, patience, turn},
    plant,
    server::TlsServer,
};
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Secrets, and so requests, of each program.
const REQUESTS: usize = 300;
const PORTS: usize = 24;

/// Each asks for `p<PORT>.test` at 127.0.0.1:PORT, with the next secret of the file, at a length of 40 to choose from.
const NODE: &str = "const https = require('https'), fs = require('fs');
const [file, ...ports] = process.argv.slice(2);
const tokens = fs.readFileSync(file, 'utf8').trim().split('\\n').map(l => l.split('=')[1]);
const agent = new https.Agent({keepAlive: true, maxSockets: 5, rejectUnauthorized: false});
let next = 0, open = 0;
function one() {
  if (next >= tokens.length) { if (open === 0) setTimeout(() => process.exit(0), 100); return; }
  const n = next++, port = ports[(n * 7) % ports.length];
  open++;
  const end = () => { open--; one(); };
  https.get({host: '127.0.0.1', port, agent, path: '/' + 'x'.repeat(n * 11 % 40),
    headers: {host: `p${port}.test`, authorization: 'Bearer ' + tokens[n]}}, r => { r.resume(); r.on('end', end); }).on('error', end);
}
for (let k = 0; k < 60; k++) one();
";

const ASYNCIO: &str = "import asyncio, ssl, sys
tokens = [line.strip().split('=')[1] for line in open(sys.argv[1])]
ports = sys.argv[2:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
room = asyncio.Semaphore(30)
async def one(n, token):
    async with room:
        port = ports[n * 7 % len(ports)]
        reader, writer = await asyncio.open_connection('127.0.0.1', int(port), ssl=context)
        head = f'GET /{\"x\" * (n * 11 % 40)} HTTP/1.1\\r\\nHost: p{port}.test\\r\\nConnection: close\\r\\n'
        writer.write((head + f'Authorization: Bearer {token}\\r\\n\\r\\n').encode())
        await reader.read()
        writer.close()
async def main():
    await asyncio.gather(*[one(n, token) for n, token in enumerate(tokens)])
asyncio.run(main())
";

const THREADS: &str = "import http.client, queue, ssl, sys, threading
work = queue.Queue()
for n, line in enumerate(open(sys.argv[1])): work.put((n, line.strip().split('=')[1]))
ports = sys.argv[2:]
context = ssl._create_unverified_context()
def run():
    while True:
        try: n, token = work.get_nowait()
        except queue.Empty: return
        port = ports[n * 7 % len(ports)]
        c = http.client.HTTPSConnection('127.0.0.1', int(port), context=context)
        c.request('GET', '/' + 'x' * (n * 11 % 40), headers={'Host': f'p{port}.test', 'Authorization': 'Bearer ' + token})
        c.getresponse().read()
        c.close()
threads = [threading.Thread(target=run) for _ in range(20)]
for t in threads: t.start()
for t in threads: t.join()
";

/// A private file of so many secrets.
fn secrets(path: &Path, line: impl Fn(usize, &str) -> String) {
    let text: String = (0..REQUESTS)
        .map(|n| line(n, &plant::github().value))
        .collect();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn program(
    scratch: &Scratch,
    server: &TlsServer,
    name: &str,
    interpreter: &str,
    text: &str,
) -> Act {
    let script = scratch.join(&format!("{name}.script"));
    fs::write(&script, text).unwrap();
    let file: PathBuf = scratch.join(&format!("{name}.env"));
    secrets(&file, |n, token| format!("TOKEN_{n}={token}\n"));
    let ports = server.ports().map(|port| port.to_string());
    act(interpreter).arg(script).arg(file).args(ports)
}

fn curl(scratch: &Scratch, server: &TlsServer) -> Act {
    let ports: Vec<u16> = server.ports().collect();
    let file = scratch.join("curl.config");
    secrets(&file, |n, token| {
        let port = ports[n * 7 % ports.len()];
        format!(
            "next\ninsecure\nsilent\noutput=/dev/null\nurl=\"https://127.0.0.1:{port}/{}\"\n\
             header=\"Host: p{port}.test\"\nheader=\"Authorization: Bearer {token}\"\n",
            "x".repeat(n * 11 % 40)
        )
    });
    act("curl")
        .args(["-Z", "--parallel-max", "30", "-K"])
        .arg(file)
}

pub fn destinations_hold_under_load() {
    require("node");
    let _turn = turn();
    let scratch = Scratch::new();
    let server = TlsServer::of_ports(&scratch.join("server"), PORTS);
    let agent = Agent::start(&scratch);
    let programs = [
        program(&scratch, &server, "node", "node", NODE),
        program(&scratch, &server, "asyncio", "python3", ASYNCIO),
        program(&scratch, &server, "threads", "python3", THREADS),
        curl(&scratch, &server),
    ];
    let mut running: Vec<_> = programs.into_iter().map(Act::spawn).collect();
    let pids: Vec<u32> = running
        .iter_mut()
        .map(|program| {
            let status = program.wait(patience(90), "the end of a client");
            assert!(status.success(), "{status}");
            program.pid()
        })
        .collect();
    agent.settle();
    // What a library was given during a handshake is decided later.
    std::thread::sleep(std::time::Duration::from_secs(5));
    agent.settle();
    for (name, pid) in ["node", "asyncio", "threads", "curl"].into_iter().zip(pids) {
        let events = agent.tree(pid);
        let sent: Vec<Event> = of_kind(&events, "credential_sent")
            .into_iter()
            .filter(|e| e.grade() == "observed" && e.channel() == "tls")
            .collect();
        let unknown = sent.iter().filter(|e| e.found_by() == "unknown").count();
        for event in sent.iter().filter(|e| e.found_by() != "unknown") {
            let to = event.destination.as_ref().unwrap();
            let asked = format!("p{}.test", to.port);
            assert!(
                LOOPBACK.contains(&to.ip.as_str()) && to.hosts.iter().any(|h| h.name == asked),
                "a wrong destination:\n  {}",
                event.brief()
            );
        }
        let seen: BTreeSet<&str> = sent.iter().map(|e| e.fingerprint()).collect();
        let gaps = of_kind(&events, "coverage_gap");
        let unsent = gaps
            .iter()
            .filter(|e| e.reason() == "tls_write_unsent")
            .count();
        println!(
            "{name}: {} seen, {unknown} unknown, {unsent} not seen to leave",
            seen.len()
        );
        assert!(
            seen.len() + unsent >= REQUESTS,
            "{name}: {} of {REQUESTS} seen, {unsent} said not to be:\n{}",
            seen.len(),
            list(&gaps)
        );
        assert!(
            (unknown + unsent) * 5 <= REQUESTS,
            "{name}: {unknown} of {REQUESTS} destinations are unknown, {unsent} writes were not seen to leave"
        );
    }
}
