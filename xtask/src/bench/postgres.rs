//! pgbench over TLS with a password held: a server of its own, in the folder of the measurement.

use super::{
    harm::{Server, make_certificate, per_round, pinned, token},
    measure::Once,
};
use crate::cmd;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const PORT: u16 = 18_582;
/// How long pgbench runs.
const SECONDS: &str = "4";
/// Time the server has to recover and let somebody in.
const STARTS: Duration = Duration::from_secs(10);
/// Whom Debian's package makes for the server: it refuses to be root.
const USER: &str = "postgres";

/// A database that was made once, and the password of its user.
pub struct Postgres {
    data: PathBuf,
    programs: PathBuf,
    password: String,
}

impl Postgres {
    pub fn new(work: &Path) -> Result<Self> {
        let this = Self {
            data: work.join("pg"),
            programs: programs()?,
            password: token().1,
        };
        fs::create_dir(&this.data)?;
        let password = work.join("pg-password");
        fs::write(&password, &this.password)?;
        let owner = |what: &str| -> Result<u32> {
            Ok(cmd::output(cmd::clean("id").args([what, USER]))?
                .trim()
                .parse()?)
        };
        let (user, group) = (owner("-u")?, owner("-g")?);
        for path in [&this.data, &password] {
            chown(path, Some(user), Some(group))?;
        }
        cmd::output(
            this.as_user(0, "initdb")
                .arg("--pgdata")
                .arg(&this.data)
                .args(["--auth", "scram-sha-256", "--no-sync", "--pwfile"])
                .arg(&password),
        )?;
        fs::remove_file(&password)?;
        let (key, certificate) = (this.data.join("server.key"), this.data.join("server.crt"));
        make_certificate(&certificate, &key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        for path in [&key, &certificate] {
            chown(path, Some(user), Some(group))?;
        }
        let server = this.serve()?;
        cmd::output(this.client().args(["--initialize", "--quiet", "--scale=1"]))?;
        server.stop()?;
        Ok(this)
    }

    /// SELECTs by four connections; the rate leaves the connecting out.
    pub fn once(&self) -> Result<Once> {
        let server = self.serve()?;
        let text = cmd::output(self.client().args(["-S", "-c", "4", "-T", SECONDS]))?;
        server.stop()?;
        let rate: f64 = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next())
            .and_then(|rate| rate.parse().ok())
            .with_context(|| format!("pgbench said no rate: {text}"))?;
        let seconds: f64 = SECONDS.parse()?;
        Ok(per_round(
            Duration::from_secs_f64(seconds),
            (rate * seconds) as u64,
        ))
    }

    fn serve(&self) -> Result<Server> {
        let mut command = self.as_user(0, "postgres");
        command.arg("-D").arg(&self.data);
        command
            .args(["-p", &PORT.to_string(), "-k"])
            .arg(&self.data);
        for setting in ["ssl=on", "fsync=off", "listen_addresses=127.0.0.1"] {
            command.args(["-c", setting]);
        }
        let server = Server::start(&mut command, PORT)?;
        // It listens before it lets anybody in.
        let end = Instant::now() + STARTS;
        while !self.accepts()? {
            if Instant::now() > end {
                bail!("the server of PostgreSQL lets nobody in");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn accepts(&self) -> Result<bool> {
        let asked = cmd::clean(self.programs.join("pg_isready"))
            .args(["--quiet", "-h", "127.0.0.1", "-p", &PORT.to_string()])
            .status()?;
        Ok(asked.success())
    }

    fn client(&self) -> Command {
        let program = self.programs.join("pgbench");
        let mut command = pinned(1, &program.display().to_string());
        command
            .args(["-h", "127.0.0.1", "-p", &PORT.to_string(), "-U", USER])
            .env("PGPASSWORD", &self.password)
            .env("PGSSLMODE", "require");
        command.arg(USER);
        command
    }

    fn as_user(&self, processor: u32, program: &str) -> Command {
        let mut command = pinned(processor, "setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
        command.arg(self.programs.join(program));
        command
    }
}

/// Debian's place of the server's programs, of whatever version.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .context("no server of PostgreSQL")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|path| path.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().context("no server of PostgreSQL")
}
