//! Which file systems are walked: by /proc/PID/mountinfo, so that one that hangs is never touched to find out, and by
//! statfs magic where a mount shows up that mountinfo did not report.

pub use crate::mounts::Mount;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What to do with a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Walk,
    /// The kernel's own view of something: nothing in it is stored.
    Pseudo,
    /// Another machine or program answers for it: it may hang, and it is not this host's.
    Remote,
    /// Unknown type without a block device below it.
    Unknown,
}

impl Verdict {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Verdict::Walk => "walked",
            Verdict::Pseudo => "pseudo file system",
            Verdict::Remote => "network or user-space file system (--all-filesystems walks it)",
            Verdict::Unknown => "unknown file system type (--all-filesystems walks it)",
        }
    }
}

const PSEUDO: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devtmpfs",
    "devpts",
    "tracefs",
    "debugfs",
    "securityfs",
    "bpf",
    "pstore",
    "configfs",
    "efivarfs",
    "mqueue",
    "hugetlbfs",
    "fusectl",
    "binfmt_misc",
    "autofs",
    "rpc_pipefs",
    "selinuxfs",
    "smackfs",
    "nsfs",
    "binder",
    "resctrl",
    "sockfs",
    "pipefs",
    "anon_inodefs",
    "functionfs",
    "nfsd",
    "openpromfs",
    "xenfs",
];
const REMOTE: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "ceph",
    "9p",
    "afs",
    "coda",
    "lustre",
    "gpfs",
    "beegfs",
    "orangefs",
    "pvfs2",
    "gfs2",
    "ocfs2",
    "glusterfs",
    "virtiofs",
    "davfs",
    "fuse",
    "fuseblk",
    "acfs",
    "vboxsf",
    "prl_fs",
    "vmhgfs",
    "quobyte",
    "panfs",
];
const LOCAL: &[&str] = &[
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "reiserfs",
    "overlay", "aufs", "tmpfs", "ramfs", "rootfs", "squashfs", "erofs", "iso9660", "udf", "vfat",
    "exfat", "msdos", "ntfs", "ntfs3", "hfs", "hfsplus", "minix", "ubifs", "jffs2", "nilfs2",
    "ecryptfs", "cramfs", "romfs", "apfs",
];

/// statfs(2) magic numbers of what is not walked, from linux/magic.h and the file systems' own headers.
const PSEUDO_MAGIC: &[u64] = &[
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x7472_6163,
    0x6462_6720,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x1980_0202,
    0x9584_58f6,
    0x6573_5543,
    0x4249_4e4d,
    0x0187,
    0x6759_6969,
    0xf97c_ff8c,
    0x6e73_6673,
];
const REMOTE_MAGIC: &[u64] = &[
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x517b,
    0x00c3_6400,
    0x0102_1997,
    0x5346_414f,
    0x7375_7245,
    0x0bd0_0bd0,
    0x6573_5546,
    0x7461_636f,
    0x0116_1970,
    0x786f_4256,
];

/// By the type's name and the mount's source, as mountinfo gives them.
#[must_use]
pub fn by_type(kind: &str, source: &[u8]) -> Verdict {
    let base = kind.split('.').next().unwrap_or(kind);
    if PSEUDO.contains(&base) {
        Verdict::Pseudo
    } else if REMOTE.contains(&base) {
        Verdict::Remote
    } else if LOCAL.contains(&base) || source.starts_with(b"/dev/") {
        Verdict::Walk
    } else {
        Verdict::Unknown
    }
}

/// By the number statfs(2) gives.
#[must_use]
pub fn by_magic(magic: u64) -> Verdict {
    if PSEUDO_MAGIC.contains(&magic) {
        Verdict::Pseudo
    } else if REMOTE_MAGIC.contains(&magic) {
        Verdict::Remote
    } else {
        Verdict::Walk
    }
}

/// The mounts of one mount namespace by mount point.
#[derive(Debug, Default)]
pub struct MountTable {
    by_point: HashMap<Vec<u8>, Mount>,
}

impl MountTable {
    /// Of two mounts on one point the later one is what is seen.
    #[must_use]
    pub fn new(mounts: impl IntoIterator<Item = Mount>) -> MountTable {
        MountTable {
            by_point: mounts.into_iter().map(|m| (m.point.clone(), m)).collect(),
        }
    }

    /// The mounts below `root`, with mount points seen from there (`/` is the root itself).
    #[must_use]
    pub fn below(self, root: &Path) -> MountTable {
        let root = root.as_os_str().as_bytes();
        let root = root.strip_suffix(b"/").unwrap_or(root);
        let by_point = self
            .by_point
            .into_values()
            .filter_map(|mut mount| {
                let rest = mount.point.strip_prefix(root)?;
                if !rest.is_empty() && !rest.starts_with(b"/") {
                    return None;
                }
                mount.point = if rest.is_empty() {
                    b"/".to_vec()
                } else {
                    rest.to_vec()
                };
                Some((mount.point.clone(), mount))
            })
            .collect();
        MountTable { by_point }
    }

    #[must_use]
    pub fn at(&self, point: &[u8]) -> Option<&Mount> {
        self.by_point.get(point)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.by_point.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::parse;

    const TEXT: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
40 27 0:44 / /srv/a\\040b rw shared:7 master:2 - nfs4 host:/x rw\n\
41 27 0:45 / /srv/merged rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/up\\040per,workdir=/w\n\
not a line\n";

    #[test]
    fn mountinfo() {
        let table = MountTable::new(parse(TEXT));
        assert_eq!(table.iter().count(), 4);
        let nfs = table.at(b"/srv/a b").unwrap();
        assert_eq!(
            (nfs.kind.as_str(), nfs.source.as_slice()),
            ("nfs4", b"host:/x".as_slice())
        );
        assert_eq!(by_type(&nfs.kind, &nfs.source), Verdict::Remote);
        assert_eq!(
            table.at(b"/srv/merged").unwrap().upper.as_deref(),
            Some(b"/up per".as_slice())
        );
        let below = MountTable::new(parse(TEXT)).below(Path::new("/srv"));
        assert!(
            below.at(b"/a b").is_some() && below.at(b"/proc").is_none() && below.at(b"/").is_none()
        );
        let all = MountTable::new(parse(TEXT)).below(Path::new("/"));
        assert_eq!(
            (all.iter().count(), all.at(b"/").map(|m| m.kind.as_str())),
            (4, Some("ext4"))
        );
    }

    #[test]
    fn types() {
        for (kind, source, verdict) in [
            ("overlay", "overlay", Verdict::Walk),
            ("tmpfs", "tmpfs", Verdict::Walk),
            ("ext4", "/dev/sda1", Verdict::Walk),
            ("fuse.sshfs", "u@h:/", Verdict::Remote),
            ("fuse", "/dev/fuse", Verdict::Remote),
            ("cgroup2", "cgroup2", Verdict::Pseudo),
            ("newfs", "/dev/sdb", Verdict::Walk),
            ("newfs", "newfs", Verdict::Unknown),
        ] {
            assert_eq!(by_type(kind, source.as_bytes()), verdict, "{kind}");
        }
    }

    #[test]
    fn magic_of_this_machine() {
        let of = |path: &str| by_magic(rustix::fs::statfs(path).unwrap().f_type as u64);
        assert_eq!(of("/proc"), Verdict::Pseudo);
        assert_eq!(of("/sys"), Verdict::Pseudo);
        assert_eq!(of("/dev/pts"), Verdict::Pseudo);
        assert_eq!(of(env!("CARGO_MANIFEST_DIR")), Verdict::Walk);
    }
}
