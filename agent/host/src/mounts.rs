//! /proc/PID/mountinfo (proc_pid_mountinfo(5)), parsed once for everybody.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Bytes read of one table.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Mounts taken of one table.
const MAX_MOUNTS: usize = 100_000;
/// Layers taken of one overlay; the kernel allows so many.
const MAX_LAYERS: usize = 501;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device of the file system, as [`super::kernel_device`] encodes it.
    pub device: u32,
    /// What of the file system is mounted here.
    pub root: Vec<u8>,
    /// As the process sees it.
    pub point: Vec<u8>,
    pub kind: String,
    pub source: Vec<u8>,
    /// `upperdir=` of an overlay.
    pub upper: Option<Vec<u8>>,
    /// Directories an overlay is made of, the uppermost first, as who mounted it named them. Empty where they do not say
    /// where a file is shown: directories may be renamed in it (`redirect_dir`).
    pub layers: Vec<Vec<u8>>,
    /// Options of a cgroup file system: the controllers of the first version, or `name=`.
    pub cgroup: Vec<Vec<u8>>,
}

/// The table in this file; empty when it cannot be read.
#[must_use]
pub fn read(file: &Path) -> Vec<Mount> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(file) {
        // A process that exits in between leaves what was read.
        let _ = file.take(MAX_BYTES).read_to_end(&mut text);
    }
    parse(&text).collect()
}

/// The mounts of a table in its order (of two on one point the later one is what is seen); lines that are not
/// understood are left out.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|b| *b == b'\n')
        .take(MAX_MOUNTS)
        .filter_map(line)
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE SUPER_OPTIONS`.
fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (fields.next()?, fields.next()?);
    // Optional fields end with a lone dash.
    fields.by_ref().find(|f| *f == b"-")?;
    let kind = fields.next()?;
    let source = fields.next().unwrap_or_default();
    let options = || {
        fields
            .clone()
            .next()
            .unwrap_or_default()
            .split(|b| *b == b',')
    };
    let upper = options().find_map(|o| Some(octal(o.strip_prefix(b"upperdir=")?)));
    let layers = if kind == b"overlay" {
        layers(options(), upper.as_deref())
    } else {
        Vec::new()
    };
    let cgroup = if kind.starts_with(b"cgroup") {
        options().map(<[u8]>::to_vec).collect()
    } else {
        Vec::new()
    };
    Some(Mount {
        device: (major & 0xfff) << 20 | (minor & 0xf_ffff),
        root: octal(root),
        point: octal(point),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: octal(source),
        upper,
        layers,
        cgroup,
    })
}

/// The directories of an overlay by its options: `lowerdir=A:B`, or from Linux 6.8 on `lowerdir+=A` for each.
fn layers<'a>(options: impl Iterator<Item = &'a [u8]>, upper: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut layers: Vec<Vec<u8>> = upper.map(<[u8]>::to_vec).into_iter().collect();
    for option in options {
        if option == b"redirect_dir=on" {
            return Vec::new();
        }
        if let Some(one) = option.strip_prefix(b"lowerdir+=") {
            layers.push(octal(one));
        } else if let Some(all) = option.strip_prefix(b"lowerdir=") {
            let named = all.split(|b| *b == b':').filter(|dir| !dir.is_empty());
            layers.extend(named.map(octal));
        }
    }
    layers.truncate(MAX_LAYERS);
    layers
}

/// Blank, tab, line feed and backslash are written as `\ooo`.
fn octal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|d| byte == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits
            .map(|d| d.iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0')))
            .and_then(|n| u8::try_from(n).ok())
        {
            Some(value) => {
                out.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        let text = b"36 35 98:1 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\nnonsense\n\
41 27 0:45 / /srv/merged rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/up\\040per,workdir=/w\n";
        let mounts: Vec<Mount> = parse(text).collect();
        assert_eq!(mounts.len(), 2);
        let first = &mounts[0];
        assert_eq!(
            (first.device, first.root.as_slice(), first.point.as_slice()),
            (98 << 20 | 1, b"/mnt1".as_slice(), b"/mnt 2".as_slice())
        );
        assert_eq!(
            (first.kind.as_str(), first.source.as_slice()),
            ("ext3", b"/dev/root".as_slice())
        );
        assert_eq!(mounts[1].upper.as_deref(), Some(b"/up per".as_slice()));
        assert_eq!(
            mounts[1].layers,
            [b"/up per".to_vec(), b"/l1".to_vec(), b"/l2".to_vec()]
        );
        assert_eq!(first.layers, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn the_own_table_has_a_root() {
        let mounts = read(Path::new("/proc/self/mountinfo"));
        assert!(mounts.iter().any(|m| m.point == b"/"));
        assert!(read(Path::new("/proc/self/nothing")).is_empty());
    }

    proptest! {
        #[test]
        fn any_line(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&text).count();
        }
    }
}
