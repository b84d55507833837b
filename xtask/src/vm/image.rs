//! The guest's root: a small Debian put together from packages, without running any of their scripts.

use crate::{arch::Arch, cmd, setup::apt};
use anyhow::{Context as _, Result};
use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    time::Instant,
};

/// Which programs the guest has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// What the tests use.
    Base,
    /// With the peers of the benchmarks too.
    Bench,
}

/// Raised whenever the recipe below changes, so that old images are not reused.
const RECIPE: u32 = 2;

/// Apparent size of the disk; the file is sparse.
const DISK: &str = "3G";

const BASE: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "findutils",
    "gdb",
    "git",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "libgcc-s1",
    "login",
    "mawk",
    "mount",
    "netbase",
    "netcat-openbsd",
    "nginx-light",
    "openssh-client",
    "openssl",
    "passwd",
    "procps",
    "python3",
    "sed",
    "strace",
    "systemd",
    "tar",
    "util-linux",
    "wget",
];

/// What the tests use on aarch64 alone: where on other machines a program of this one does.
const OF_AARCH64: &[&str] = &["hey"];

const PEERS: &[&str] = &["auditd", "bpftrace", "libbpf-tools"];

/// Units of systemd that a guest of one job does without: they cost seconds under emulation, or want a package
/// or a kernel module that is not there. What the agent meets on a real host stays: tracefs, sysctl, the journal.
const MASKED: &[&str] = &[
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "systemd-ask-password-console.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-repart.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "veritysetup.target",
];

/// Path of the image; built the first time (about 100 packages, half a minute).
pub fn ensure(flavour: Flavour, arch: Arch, cache: &Path) -> Result<PathBuf> {
    let mut packages = BASE.to_vec();
    if flavour == Flavour::Bench {
        packages.extend(PEERS);
    }
    if arch == Arch::Aarch64 {
        packages.extend(OF_AARCH64);
    }
    let suite = apt::codename();
    let mut hasher = DefaultHasher::new();
    (RECIPE, DISK, &suite, &packages, MASKED).hash(&mut hasher);
    let of = arch.suffix();
    let name = format!("root-{suite}{of}-{flavour:?}-{:016x}", hasher.finish()).to_lowercase();
    let image = cache.join(format!("{name}.img"));
    if image.is_file() {
        return Ok(image);
    }
    let started = Instant::now();
    let sources = apt::Private::for_release_of(&suite, arch)?;
    let root = cache.join("root.partial");
    remove_as_root(&root)?;
    let versions = unpack(&sources, &packages, cache, &root)?;
    configure(&root, arch)?;

    let partial = cache.join("image.partial");
    cmd::output(
        cmd::as_root("mke2fs")
            // No journal: the machine is switched off, never crashed into, and it would only cost writes.
            .args([
                "-q",
                "-F",
                "-t",
                "ext4",
                "-O",
                "^has_journal",
                "-E",
                "root_owner=0:0",
                "-d",
            ])
            .args([&root, &partial])
            .arg(DISK),
    )?;
    if !cmd::is_root() {
        let user = cmd::output(cmd::clean("id").arg("-u"))?;
        cmd::run(cmd::as_root("chown").arg(user.trim()).arg(&partial))?;
    }
    remove_as_root(&root)?;
    fs::write(cache.join(format!("{name}.packages")), versions)?;
    fs::rename(&partial, &image)?;
    cmd::step(format!(
        "guest image of {suite}{of}: {:.1} s",
        started.elapsed().as_secs_f32()
    ));
    Ok(image)
}

/// Downloads the packages with all they depend on and unpacks them; returns their names and versions.
fn unpack(sources: &apt::Private, packages: &[&str], cache: &Path, root: &Path) -> Result<String> {
    let debs = cache.join("debs");
    fs::create_dir_all(debs.join("archives/partial"))?;
    // With an empty status file apt resolves as if nothing were installed: the whole closure.
    let empty = debs.join("no-packages");
    fs::write(&empty, "")?;
    let closure = |mode: &str| {
        let mut command = sources.get();
        command
            .arg("-o")
            .arg(format!("Dir::State::status={}", empty.display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", debs.display()))
            .args(["-qq", "-y", "--no-install-recommends", mode, "install"])
            .args(packages);
        command
    };
    let wanted = cmd::output(&mut closure("--print-uris"))?;
    let names: Vec<&str> = wanted
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    cmd::step(format!(
        "guest image: {} packages for {}",
        names.len(),
        packages.join(" ")
    ));
    cmd::output(&mut closure("--download-only"))?;

    // Debian's packages still name /bin and /lib, which are links to /usr: they must exist before.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(dir))?;
        std::os::unix::fs::symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    let mut list = names.clone();
    list.sort_unstable();
    for name in &names {
        let deb = debs.join("archives").join(name);
        let script = format!(
            "set -e; dpkg-deb --fsys-tarfile {} | tar -x --keep-directory-symlink -C {}",
            cmd::quote(&deb.display().to_string()),
            cmd::quote(&root.display().to_string())
        );
        // As root: owners and set-uid bits are kept.
        cmd::run(cmd::as_root("bash").args(["-o", "pipefail", "-c", &script]))
            .with_context(|| format!("cannot unpack {name}"))?;
    }
    // Packages stay only until the image stands; they are the bulk of the cache.
    fs::remove_dir_all(&debs)?;
    Ok(list.join("\n") + "\n")
}

/// What the packages' own scripts would have done, as far as the guest needs it.
fn configure(root: &Path, arch: Arch) -> Result<()> {
    let script = r#"set -eu
cd "$1"
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
printf 'keytrail-vm\n' >etc/hostname
printf '127.0.0.1 localhost keytrail-vm\n::1 localhost\n' >etc/hosts
ln -sf mawk usr/bin/awk
[ ! -e usr/bin/nc.openbsd ] || ln -sf nc.openbsd usr/bin/nc
mkdir -p job/out root etc/ssl/certs var/log/nginx var/lib/nginx usr/local/bin
printf '0123456789abcdef0123456789abcdef\n' >etc/machine-id
for unit in $2; do ln -sf /dev/null "etc/systemd/system/$unit"; done
find usr/share/ca-certificates -name '*.crt' -exec cat {} + >etc/ssl/certs/ca-certificates.crt
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info
[ -n "$3" ] || ldconfig -r .
"#;
    cmd::run(
        cmd::as_root("sh")
            .args(["-c", script, "sh"])
            .arg(root)
            .arg(MASKED.join(" "))
            // This machine's ldconfig reads no libraries of another one. Debian's linker finds them without a cache.
            .arg(arch.suffix()),
    )
}

fn remove_as_root(dir: &Path) -> Result<()> {
    if dir.exists() {
        cmd::run(
            cmd::as_root("rm")
                .arg("-rf")
                .arg("--one-file-system")
                .arg(dir),
        )?;
    }
    Ok(())
}
