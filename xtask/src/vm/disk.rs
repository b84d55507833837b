//! The disk of one run: a copy of the image with the job in it, written and read without mounting.

use super::{GuestFile, Init, Job};
use crate::{arch::Arch, cmd};
use anyhow::{Context as _, Result, bail};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process,
};

/// What the guest boots with: the file here, where it lies there, whether it is a program.
const BOOT: [(&str, &str, bool); 3] = [
    ("tests/vm/init.sh", SCRIPT_INIT, true),
    ("tests/vm/job.sh", "/usr/sbin/keytrail-job", true),
    (
        "tests/vm/keytrail-job.service",
        "/etc/systemd/system/keytrail-job.service",
        false,
    ),
];
const SCRIPT_INIT: &str = "/usr/sbin/keytrail-init";

/// Words of the kernel's command line that start the job.
pub fn boot_words(init: Init) -> String {
    match init {
        Init::Script => format!("init={SCRIPT_INIT}"),
        Init::Systemd => {
            "init=/lib/systemd/systemd systemd.unit=keytrail-job.service systemd.show_status=no"
                .to_owned()
        }
    }
}

/// A folder for one run, removed with its large files when the run is over.
pub struct RunDir {
    pub dir: PathBuf,
    /// The guest's serial console, which stays.
    pub console: PathBuf,
}

impl RunDir {
    /// `name` tells the runs of one process apart.
    pub fn new(name: &str) -> Result<Self> {
        let base = cmd::target().join("vm");
        fs::create_dir_all(&base)?;
        sweep(&base)?;
        let dir = base.join(format!("run-{}-{name}", process::id()));
        fs::create_dir_all(&dir)?;
        let console = base.join(format!("console-{name}-{}.log", process::id()));
        Ok(Self { dir, console })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what runs left that were killed, and all but the newest console logs.
fn sweep(base: &Path) -> Result<()> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if let Some(rest) = name.strip_prefix("run-") {
            let pid = rest.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(pid).exists() {
                fs::remove_dir_all(&path)?;
            }
        } else if name.starts_with("console-") {
            logs.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    logs.sort();
    let spare = logs.len().saturating_sub(20);
    for (_, path) in &logs[..spare] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Copies the image and puts the job's files into the copy.
pub fn prepare(run: &RunDir, image: &Path, job: &Job<'_>) -> Result<PathBuf> {
    let disk = run.dir.join("disk.img");
    cmd::run(
        cmd::clean("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([image, &disk]),
    )?;

    let script = run.dir.join("run.sh");
    fs::write(&script, job_script(job))?;
    let mut commands = String::new();
    for (host, guest, executable) in BOOT {
        put(
            &mut commands,
            &cmd::root().join(host),
            Path::new(guest),
            executable,
        )?;
    }
    put(&mut commands, &script, Path::new("/job/run.sh"), true)?;
    for (number, file) in job.files.iter().enumerate() {
        let lean = strip(
            job.kernel.arch,
            file,
            &run.dir.join(format!("file-{number}")),
        )?;
        put(
            &mut commands,
            &lean,
            &file.guest,
            is_executable(&file.host)?,
        )?;
    }
    let list = run.dir.join("debugfs.cmds");
    fs::write(&list, commands)?;
    debugfs(&["-w", "-f"], &list, &disk)?;
    Ok(disk)
}

/// The shell script of the job: the command, with the agent also where this machine has it, because
/// cargo's tests know it by that path.
fn job_script(job: &Job<'_>) -> String {
    let mut script = String::from("export KEYTRAIL_VM=1\n");
    if job.kernel.arch == Arch::Aarch64 {
        // Elsewhere the processor's name says that it is emulated.
        script.push_str("export KEYTRAIL_TEST_SLOW=10\n");
    }
    for file in job
        .files
        .iter()
        .filter(|file| file.guest.ends_with("bin/keytrail"))
    {
        let (host, guest) = (
            file.host.display().to_string(),
            file.guest.display().to_string(),
        );
        let dir = file
            .host
            .parent()
            .map(|dir| dir.display().to_string())
            .unwrap_or_default();
        let _ = writeln!(
            script,
            "export KEYTRAIL_BIN={guest}\nmkdir -p {dir} && ln -sfn {guest} {host}",
            guest = cmd::quote(&guest),
            host = cmd::quote(&host),
            dir = cmd::quote(&dir),
        );
    }
    let words: Vec<String> = job.command.iter().map(|word| cmd::quote(word)).collect();
    let _ = writeln!(script, "exec {}", words.join(" "));
    script
}

/// Debug information of a test binary is ten times its code; it stays here.
fn strip(arch: Arch, file: &GuestFile, to: &Path) -> Result<PathBuf> {
    let mut magic = [0; 4];
    let elf = fs::File::open(&file.host)
        .and_then(|mut host| std::io::Read::read_exact(&mut host, &mut magic))
        .is_ok()
        && magic == *b"\x7fELF";
    // The kernel side's object needs its debug sections.
    if elf
        && is_executable(&file.host)?
        && cmd::output(
            cmd::clean(arch.tool("strip"))
                .arg("--strip-debug")
                .arg("-o")
                .arg(to)
                .arg(&file.host),
        )
        .is_ok()
    {
        return Ok(to.to_owned());
    }
    Ok(file.host.clone())
}

fn is_executable(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = fs::metadata(path)
        .with_context(|| format!("cannot copy {} into the guest", path.display()))?;
    Ok(meta.permissions().mode() & 0o111 != 0)
}

/// debugfs writes only into its current folder, and reads words with double quotes at most.
fn put(commands: &mut String, host: &Path, guest: &Path, executable: bool) -> Result<()> {
    let (Some(dir), Some(name)) = (guest.parent(), guest.file_name()) else {
        bail!("{}: not a file in the guest", guest.display());
    };
    let host = fs::canonicalize(host).with_context(|| format!("cannot copy {}", host.display()))?;
    let (host, dir, name) = (
        host.display().to_string(),
        dir.display().to_string(),
        name.to_string_lossy(),
    );
    if [&*host, &*dir, &*name]
        .iter()
        .any(|word| word.contains(['"', '\n']))
    {
        bail!("{host}: cannot be copied into the guest under that name");
    }
    let mode = if executable { "0100755" } else { "0100644" };
    let _ = writeln!(
        commands,
        "cd \"{dir}\"\nrm \"{name}\"\nwrite \"{host}\" \"{name}\"\nset_inode_field \"{name}\" mode {mode}"
    );
    Ok(())
}

/// Copies `/job/out` of a disk whose machine is off to `to`.
pub fn collect(disk: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let to = fs::canonicalize(to)?;
    let request = format!("rdump /job/out \"{}\"", to.display());
    debugfs(&["-R"], Path::new(&request), disk)?;
    let inner = to.join("out");
    if inner.is_dir() {
        for entry in fs::read_dir(&inner)? {
            let entry = entry?;
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
        fs::remove_dir(&inner)?;
    }
    Ok(())
}

/// debugfs ends with status 0 whatever happened: only its complaints tell.
fn debugfs(flags: &[&str], request: &Path, disk: &Path) -> Result<()> {
    let out = cmd::clean(cmd::find("debugfs").context("debugfs is missing (package e2fsprogs)")?)
        .args(flags)
        .args([request, disk])
        .output()?;
    let complaints: Vec<String> = String::from_utf8_lossy(&out.stderr)
        .lines()
        .filter(|line| !line.starts_with("debugfs ") && !line.is_empty())
        // `rm` of a file that is not there yet; owners cannot be kept unless we are root.
        .filter(|line| !line.contains("while trying to resolve filename"))
        .filter(|line| !line.contains("while changing ownership"))
        .map(str::to_owned)
        .collect();
    if !out.status.success() || !complaints.is_empty() {
        bail!("debugfs on {}: {}", disk.display(), complaints.join("; "));
    }
    Ok(())
}
