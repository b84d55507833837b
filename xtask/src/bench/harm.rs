//! Loads by programs that hold something, which is the normal case: every server holds a key.

use super::{
    Row,
    measure::{Once, processor_time},
};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    cell::Cell,
    fs,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const TLS_PORT: u16 = 18_543;
const PLAIN_PORT: u16 = 18_580;
const PROXY_PORT: u16 = 18_581;
const REDIS_PORT: u16 = 18_579;
/// How long wrk runs.
const SECONDS: u32 = 4;
/// Requests a second, and connections, where the server is not at its limit.
const RATE: u32 = 5_000;
const CONNECTIONS: u32 = 8;
/// Commands of one run of redis-benchmark.
const COMMANDS: u32 = 100_000;

/// A variable that makes its process a holder: of a form that is known, and of nobody.
pub fn token() -> (&'static str, String) {
    let random: String = fs::read("/proc/sys/kernel/random/uuid")
        .unwrap_or_default()
        .iter()
        .cycle()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(|byte| char::from(*byte))
        .take(36)
        .collect();
    ("GITHUB_TOKEN", format!("ghp_{random}"))
}

/// A key, and a certificate of it for localhost, for two days.
pub fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    cmd::output(
        cmd::clean("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days"])
            .args(["2", "-subj", "/CN=localhost", "-out"])
            .arg(certificate)
            .arg("-keyout")
            .arg(key),
    )?;
    Ok(())
}

/// What is put under load.
pub struct Served {
    row: Row,
    dir: PathBuf,
    clones: Cell<u32>,
}

impl Served {
    pub fn new(row: Row, work: &Path) -> Result<Self> {
        let dir = work.join("served");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("f1k"), [b'x'; 1024])?;
        fs::write(dir.join("f100k"), vec![b'x'; 100 << 10])?;
        let (key, certificate) = (dir.join("k.pem"), dir.join("c.pem"));
        if !key.exists() {
            make_certificate(&certificate, &key)?;
        }
        let d = dir.display();
        fs::write(
            dir.join("n.conf"),
            format!(
                "worker_processes 1; pid {d}/pid; error_log {d}/err; daemon off; user root;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ access_log off; keepalive_requests 1000000;\n\
                 server {{ listen 127.0.0.1:{TLS_PORT} ssl; ssl_certificate {d}/c.pem;\n\
                 ssl_certificate_key {d}/k.pem; root {d}; }}\n\
                 server {{ listen 127.0.0.1:{PLAIN_PORT}; root {d}; }} }}\n"
            ),
        )?;
        Ok(Self {
            row,
            dir,
            clones: Cell::new(0),
        })
    }

    pub fn once(&self) -> Result<Once> {
        match self.row {
            Row::NginxTls => self.nginx(&format!("https://127.0.0.1:{TLS_PORT}/f1k")),
            Row::NginxTlsLarge => self.nginx(&format!("https://127.0.0.1:{TLS_PORT}/f100k")),
            Row::NginxPlain => self.nginx(&format!("http://127.0.0.1:{PLAIN_PORT}/f1k")),
            Row::NginxTlsRate => self.at_rate(&format!("https://127.0.0.1:{TLS_PORT}/f1k")),
            Row::NginxTlsLargeRate => self.at_rate(&format!("https://127.0.0.1:{TLS_PORT}/f100k")),
            Row::NginxPlainRate => self.at_rate(&format!("http://127.0.0.1:{PLAIN_PORT}/f1k")),
            Row::NginxProxy => self.proxy(),
            Row::Redis => self.redis(),
            Row::Git => self.git(),
            _ => bail!("{} is no load of this kind", self.row.name()),
        }
    }

    fn nginx(&self, url: &str) -> Result<Once> {
        let server = self.serve("n.conf", PLAIN_PORT)?;
        // By then the agent knows what the server holds.
        thread::sleep(Duration::from_secs(1));
        let once = wrk(url);
        server.stop()?;
        once
    }

    /// What a request takes of the server's processor at a rate that it can easily answer.
    fn at_rate(&self, url: &str) -> Result<Once> {
        let server = self.serve("n.conf", PLAIN_PORT)?;
        thread::sleep(Duration::from_secs(1));
        let (seconds, each) = (format!("{SECONDS}s"), (RATE / CONNECTIONS).to_string());
        let connections = CONNECTIONS.to_string();
        let before = server.processor_time()?;
        let text = cmd::output(
            pinned(1, "hey")
                .args(["-z", &seconds, "-c", &connections, "-q", &each])
                .args(["-disable-compression", url]),
        )?;
        let spent = server.processor_time()?.saturating_sub(before);
        server.stop()?;
        let answered: u64 = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("[200]")?.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("hey got no answer: {text}"))?;
        Ok(Once {
            nanoseconds: spent as f64 / answered as f64,
            rounds: answered,
        })
    }

    /// A server that sends a secret on with every request.
    fn proxy(&self) -> Result<Once> {
        let d = self.dir.display();
        fs::write(
            self.dir.join("p.conf"),
            format!(
                "worker_processes 1; pid {d}/proxy.pid; error_log {d}/err; daemon off; user root;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{ access_log off; keepalive_requests 1000000;\n\
                 upstream served {{ server 127.0.0.1:{PLAIN_PORT}; keepalive 16; }}\n\
                 server {{ listen 127.0.0.1:{PROXY_PORT}; location / {{ proxy_pass http://served;\n\
                 proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_set_header Authorization \"Bearer {}\"; }} }} }}\n",
                token().1
            ),
        )?;
        let upstream = self.serve("n.conf", PLAIN_PORT)?;
        let proxy = self.serve("p.conf", PROXY_PORT)?;
        thread::sleep(Duration::from_secs(1));
        let once = wrk(&format!("http://127.0.0.1:{PROXY_PORT}/f1k"));
        proxy.stop()?;
        upstream.stop()?;
        once
    }

    fn serve(&self, config: &str, port: u16) -> Result<Server> {
        let mut command = pinned(0, "nginx");
        command.arg("-c").arg(self.dir.join(config));
        Server::start(&mut command, port)
    }

    fn redis(&self) -> Result<Once> {
        let (name, password) = ("REDISCLI_AUTH", token().1);
        let port = REDIS_PORT.to_string();
        let mut command = pinned(0, "redis-server");
        command.args(["--port", &port, "--save", "", "--appendonly", "no"]);
        command
            .args(["--requirepass", &password])
            .current_dir(&self.dir);
        let server = Server::start(&mut command, REDIS_PORT)?;
        let started = Instant::now();
        cmd::output(
            pinned(1, "redis-benchmark")
                .args(["-p", &port, "-a", &password, "-t", "set", "-q", "-n"])
                .arg(COMMANDS.to_string())
                .env(name, &password),
        )?;
        let took = started.elapsed();
        server.stop()?;
        Ok(per_round(took, COMMANDS.into()))
    }

    /// A clone of this project's own repository, by the protocol and not by links. It stays until all is measured: ext4
    /// searches long for inodes that were not deleted a moment ago, which takes longer than the clone.
    fn git(&self) -> Result<Once> {
        let number = self.clones.get();
        self.clones.set(number + 1);
        let to = self.dir.join(format!("clone-{number}"));
        let (name, value) = token();
        let started = Instant::now();
        cmd::output(
            cmd::clean("git")
                .args(["clone", "--quiet", "--no-local", "--no-hardlinks"])
                .args(["--config", "safe.directory=*"])
                .arg(format!("file://{}", cmd::root().display()))
                .arg(&to)
                .env(name, value),
        )?;
        Ok(per_round(started.elapsed(), 1))
    }
}

/// What wrk gets out of a server.
fn wrk(url: &str) -> Result<Once> {
    let seconds = format!("-d{SECONDS}s");
    let text = cmd::output(pinned(1, "wrk").args(["-t1", "-c8", &seconds, url]))?;
    let rate: f64 = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok())
        .with_context(|| format!("wrk said no rate: {text}"))?;
    Ok(Once {
        nanoseconds: 1e9 / rate,
        rounds: (rate * f64::from(SECONDS)) as u64,
    })
}

pub fn per_round(took: Duration, rounds: u64) -> Once {
    Once {
        nanoseconds: took.as_nanos() as f64 / rounds as f64,
        rounds,
    }
}

/// A program on one processor, where there are two: load and server do not take turns on one.
pub fn pinned(processor: u32, program: &str) -> Command {
    let mut command;
    if thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
        command = cmd::clean("taskset");
        command.args(["-c", &processor.to_string(), program]);
    } else {
        command = cmd::clean(program);
    }
    command.env_remove("GITHUB_TOKEN");
    command
}

/// A server that ends with its group.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut server = Self(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline || server.0.try_wait()?.is_some() {
                bail!("{command:?} does not answer on port {port}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Of the server and its workers so far, in nanoseconds.
    fn processor_time(&self) -> Result<u64> {
        let pid = self.0.id();
        let workers = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let workers = workers.split_whitespace().map(str::parse);
        let mut total = processor_time(pid)?;
        for worker in workers {
            total += processor_time(worker?)?;
        }
        Ok(total)
    }

    pub fn stop(mut self) -> Result<()> {
        self.end();
        thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    fn end(&mut self) {
        // taskset has become the server: the child is its first process, and ends the others.
        let _ = cmd::clean("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.end();
        }
    }
}
