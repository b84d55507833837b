//! Kernels of several ages, as their type information shows them.

use super::*;
use crate::btf::builder::Builder;
use crate::btf::parse::kind;

/// A member: its name, its type, its bit offset.
type Member<'a> = (&'a str, Type, u32);

/// A kernel with these structs.
fn kernel(structs: &[(&str, &[Member<'_>])]) -> Btf {
    let mut b = Builder::default();
    let byte = b.int(1);
    let int = b.int(4);
    let long = b.int(8);
    let time = b.aggregate(
        "timespec64",
        kind::STRUCT,
        false,
        16,
        &[("tv_sec", long, 0), ("tv_nsec", long, 64)],
    );
    for (name, members) in structs {
        // The flag says that the upper byte of an offset is the width of a bit field.
        let members: Vec<(&str, u32, u32)> = members
            .iter()
            .map(|(name, kind, at)| match kind {
                Type::Byte => (*name, byte, *at),
                Type::Int => (*name, int, *at),
                Type::Long => (*name, long, *at),
                Type::Time => (*name, time, *at),
                Type::Bits(width) => (*name, int, width << 24 | at),
            })
            .collect();
        b.aggregate(name, kind::STRUCT, true, 256, &members);
    }
    Btf::parse(b.bytes()).unwrap()
}

#[derive(Clone, Copy)]
enum Type {
    Byte,
    Int,
    Long,
    Time,
    Bits(u32),
}
use Type::{Bits, Byte, Int, Long, Time};

#[test]
fn renamed_fields_are_found_under_each_name() {
    // Up to 5.4: the start is `real_start_time`; up to 6.5 the change time is a timespec64.
    let old = resolve(&kernel(&[
        (
            "task_struct",
            &[
                ("tgid", Int, 32),
                ("start_time", Long, 64),
                ("real_start_time", Long, 128),
            ],
        ),
        ("inode", &[("i_ino", Long, 0), ("i_ctime", Time, 320)]),
        ("iov_iter", &[("type", Int, 0), ("iov", Long, 192)]),
    ]));
    assert_eq!(old.get(f::TASK_START_BOOTTIME), Some(16));
    assert_eq!(old.get(f::INODE_CTIME_SEC), Some(40));
    assert_eq!(old.get(f::INODE_CTIME_NSEC), Some(48));
    assert_eq!(old.get(f::INODE_CTIME_NSEC_SIZE), Some(8));
    assert_eq!(old.get(f::ITER_TYPE), Some(0));
    assert_eq!(old.get(f::ITER_TYPE_SIZE), Some(4));
    assert_eq!(old.get(f::ITER_IOV), Some(24));

    // 6.6 to 6.10.
    let middle = resolve(&kernel(&[
        ("task_struct", &[("start_boottime", Long, 64)]),
        ("inode", &[("__i_ctime", Time, 384)]),
    ]));
    assert_eq!(middle.get(f::TASK_START_BOOTTIME), Some(8));
    assert_eq!(middle.get(f::INODE_CTIME_SEC), Some(48));
    assert_eq!(middle.get(f::INODE_CTIME_NSEC), Some(56));

    // From 6.11 on: two fields, the second of which has four bytes.
    let new = resolve(&kernel(&[
        (
            "inode",
            &[("i_ctime_sec", Long, 448), ("i_ctime_nsec", Int, 512)],
        ),
        ("iov_iter", &[("iter_type", Byte, 8), ("__iov", Long, 128)]),
    ]));
    assert_eq!(new.get(f::INODE_CTIME_SEC), Some(56));
    assert_eq!(new.get(f::INODE_CTIME_NSEC), Some(64));
    assert_eq!(new.get(f::INODE_CTIME_NSEC_SIZE), Some(4));
    assert_eq!(new.get(f::ITER_TYPE), Some(1));
    assert_eq!(new.get(f::ITER_TYPE_SIZE), Some(1));
    assert_eq!(new.get(f::ITER_IOV), Some(16));
}

#[test]
fn the_newest_name_counts_where_a_kernel_has_several() {
    let both = resolve(&kernel(&[(
        "task_struct",
        &[("real_start_time", Long, 64), ("start_boottime", Long, 128)],
    )]));
    assert_eq!(both.get(f::TASK_START_BOOTTIME), Some(16));
}

#[test]
fn what_is_not_there_is_named() {
    let fields = resolve(&kernel(&[(
        "task_struct",
        &[("tgid", Int, 32), ("start_boottime", Long, 64)],
    )]));
    assert_eq!(fields.get(f::TASK_MM), None);
    assert_eq!(fields.get(f::INODE_CTIME_NSEC_SIZE), None);
    assert_eq!(
        fields.missing(&[
            f::TASK_TGID,
            f::TASK_MM,
            f::TASK_START_BOOTTIME,
            f::INODE_CTIME_SEC,
        ]),
        ["TASK_MM", "INODE_CTIME_SEC"]
    );
}

/// Bit fields of old kernels: read as whole numbers they would be garbage.
#[test]
fn bit_fields_are_used_only_where_they_are_meant() {
    let old = resolve(&kernel(&[
        ("linux_binprm", &[("secureexec", Bits(1), 163)]),
        (
            "sock",
            &[("sk_protocol", Bits(8), 72), ("sk_shutdown", Bits(2), 80)],
        ),
    ]));
    assert_eq!(old.get(f::BPRM_SECUREEXEC), Some(20));
    assert_eq!(old.get(f::BPRM_SECUREEXEC_BIT), Some(3));
    assert_eq!(old.get(f::SOCK_PROTOCOL), None);
    assert_eq!(old.get(f::SOCK_SHUTDOWN), None);

    let new = resolve(&kernel(&[
        ("linux_binprm", &[("secureexec", Int, 160)]),
        (
            "sock",
            &[("sk_protocol", Int, 96), ("sk_shutdown", Byte, 80)],
        ),
    ]));
    assert_eq!(new.get(f::BPRM_SECUREEXEC), None);
    assert_eq!(new.get(f::SOCK_PROTOCOL), Some(12));
    assert_eq!(new.get(f::SOCK_PROTOCOL_SIZE), Some(4));
    assert_eq!(new.get(f::SOCK_SHUTDOWN), Some(10));
    let wide = resolve(&kernel(&[("sock", &[("sk_shutdown", Int, 96)])]));
    assert_eq!(wide.get(f::SOCK_SHUTDOWN), None);
}
