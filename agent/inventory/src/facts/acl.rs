//! POSIX access control lists (acl(5)): who may read a file beside what its mode says.

use rustix::fd::{AsRawFd as _, OwnedFd};

/// Entries inspected of one list.
const MAX_ENTRIES: usize = 64;
/// linux/posix_acl_xattr.h and posix_acl.h.
const VERSION: u32 = 2;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const READ: u16 = 0x04;

/// Somebody a list lets read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    User(u32),
    Group(u32),
}

/// Named users and groups that the access list of an open file (`O_PATH` is enough) lets read it, and whether its own
/// group may; `None` without a list.
pub fn readers(file: &OwnedFd) -> Option<(Vec<Reader>, bool)> {
    let mut list = [0u8; 4 + 8 * MAX_ENTRIES];
    // The descriptor may be of `O_PATH`, which fgetxattr(2) refuses.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let n = rustix::fs::getxattr(path, "system.posix_acl_access", &mut list[..]).ok()?;
    parse(list.get(..n)?)
}

/// The attribute as the kernel hands it out: a version, then (tag, permissions, id), all little-endian.
fn parse(list: &[u8]) -> Option<(Vec<Reader>, bool)> {
    let (version, entries) = list.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let entries = entries.as_chunks::<8>().0.iter().map(|e| {
        (
            u16::from_le_bytes([e[0], e[1]]),
            u16::from_le_bytes([e[2], e[3]]),
            u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        )
    });
    // The mask bounds everybody but the owner and the others.
    let mask = entries
        .clone()
        .find(|(tag, ..)| *tag == MASK)
        .map_or(READ, |(_, permissions, _)| permissions);
    let may = |permissions: u16| permissions & mask & READ != 0;
    let mut readers = Vec::new();
    let mut own_group = false;
    for (tag, permissions, id) in entries {
        match tag {
            USER if may(permissions) => readers.push(Reader::User(id)),
            GROUP if may(permissions) => readers.push(Reader::Group(id)),
            GROUP_OBJ => own_group = may(permissions),
            _ => {}
        }
    }
    Some((readers, own_group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_mask_bounds_what_is_granted() {
        let entries = [
            (0x01, 6, u32::MAX),
            (USER, 4, 1001),
            (USER, 2, 1002),
            (GROUP_OBJ, 0, u32::MAX),
            (GROUP, 7, 50),
            (MASK, 4, u32::MAX),
            (0x20, 0, u32::MAX),
        ];
        let expected = vec![Reader::User(1001), Reader::Group(50)];
        assert_eq!(parse(&list(&entries)), Some((expected, false)));
        let mut shut = entries;
        shut[5].1 = 0;
        assert_eq!(parse(&list(&shut)), Some((Vec::new(), false)));
        assert_eq!(parse(&[3, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn a_real_list_is_read_through_a_handle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let entries = [
            (0x01, 6, u32::MAX),
            (USER, 4, 1001),
            (GROUP_OBJ, 4, u32::MAX),
            (MASK, 4, u32::MAX),
            (0x20, 0, u32::MAX),
        ];
        let name = "system.posix_acl_access";
        let flags = rustix::fs::XattrFlags::empty();
        let root = std::fs::File::open("/").unwrap();
        let handle = || {
            let path = path.to_str().unwrap().as_bytes();
            super::super::handle(&root, path).unwrap()
        };
        assert_eq!(readers(&handle()), None);
        match rustix::fs::setxattr(&path, name, &list(&entries), flags) {
            // A temporary directory on a file system without lists.
            Err(rustix::io::Errno::OPNOTSUPP) => return,
            set => set.unwrap(),
        }
        let expected = vec![Reader::User(1001)];
        assert_eq!(readers(&handle()), Some((expected, true)));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
