//! The fields the kernel side reads, each with the names it has had.

use super::{
    parse::{Btf, Field},
    registers,
};
use keytrail_abi::globals::{MISSING, field as f};

/// Values for the kernel side's global array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    pub values: [u32; f::COUNT],
}

impl Fields {
    pub fn get(&self, index: usize) -> Option<u32> {
        self.values
            .get(index)
            .copied()
            .filter(|&value| value != MISSING)
    }

    pub fn set(&mut self, index: usize, value: u32) {
        if let Some(place) = self.values.get_mut(index) {
            *place = value;
        }
    }

    /// Names of those of `wanted` that this kernel does not have.
    pub fn missing(&self, wanted: &[usize]) -> Vec<&'static str> {
        wanted
            .iter()
            .filter(|&&index| self.get(index).is_none())
            .filter_map(|&index| f::NAMES.get(index).copied())
            .collect()
    }
}

/// Place in the array, and the paths to try in order (newest name first).
const OFFSETS: &[(usize, &[&str])] = &[
    (f::TASK_PID, &["task_struct.pid"]),
    (f::TASK_TGID, &["task_struct.tgid"]),
    (f::TASK_GROUP_LEADER, &["task_struct.group_leader"]),
    // Renamed in 5.5.
    (
        f::TASK_START_BOOTTIME,
        &["task_struct.start_boottime", "task_struct.real_start_time"],
    ),
    (f::TASK_REAL_PARENT, &["task_struct.real_parent"]),
    (f::TASK_MM, &["task_struct.mm"]),
    (f::TASK_CRED, &["task_struct.cred"]),
    (f::TASK_SIGNAL, &["task_struct.signal"]),
    (f::TASK_FS, &["task_struct.fs"]),
    (f::FS_PWD_MNT, &["fs_struct.pwd.mnt"]),
    (f::FS_PWD_DENTRY, &["fs_struct.pwd.dentry"]),
    (f::TASK_CGROUPS, &["task_struct.cgroups"]),
    (f::CSET_LINKS, &["css_set.cgrp_links"]),
    (f::LINK_NODE, &["cgrp_cset_link.cgrp_link"]),
    (f::LINK_CGROUP, &["cgrp_cset_link.cgrp"]),
    (f::CGROUP_KN, &["cgroup.kn"]),
    (f::KN_ID, &["kernfs_node.id"]),
    (f::TASK_NSPROXY, &["task_struct.nsproxy"]),
    (f::TASK_THREAD_PID, &["task_struct.thread_pid"]),
    (f::TASK_EXIT_CODE, &["task_struct.exit_code"]),
    (f::TASK_LOGINUID, &["task_struct.loginuid"]),
    (f::TASK_SESSIONID, &["task_struct.sessionid"]),
    (f::CRED_EUID, &["cred.euid"]),
    (f::CRED_SUID, &["cred.suid"]),
    (f::SIGNAL_LIVE, &["signal_struct.live"]),
    (f::MM_ARG_START, &["mm_struct.arg_start"]),
    (f::MM_ARG_END, &["mm_struct.arg_end"]),
    (f::MM_ENV_START, &["mm_struct.env_start"]),
    (f::MM_ENV_END, &["mm_struct.env_end"]),
    (f::MM_EXE_FILE, &["mm_struct.exe_file"]),
    (f::NSPROXY_MNT_NS, &["nsproxy.mnt_ns"]),
    (f::NSPROXY_NET_NS, &["nsproxy.net_ns"]),
    (f::MNT_NS_INUM, &["mnt_namespace.ns.inum"]),
    (f::NET_INUM, &["net.ns.inum"]),
    (f::PID_LEVEL, &["pid.level"]),
    (f::PID_NUMBERS, &["pid.numbers"]),
    (f::UPID_NR, &["upid.nr"]),
    (f::BPRM_ARGC, &["linux_binprm.argc"]),
    (f::BPRM_ENVC, &["linux_binprm.envc"]),
    (f::BPRM_FILENAME, &["linux_binprm.filename"]),
    (f::BPRM_SECUREEXEC, &["linux_binprm.secureexec"]),
    (f::FILE_INODE, &["file.f_inode"]),
    (f::FILE_DENTRY, &["file.f_path.dentry"]),
    (f::FILE_MNT, &["file.f_path.mnt"]),
    (f::INODE_INO, &["inode.i_ino"]),
    (f::INODE_SB, &["inode.i_sb"]),
    (f::INODE_SIZE, &["inode.i_size"]),
    (f::INODE_FLAGS, &["inode.i_flags"]),
    // A timespec64 up to 6.10 (with underscores in 6.6 to 6.10), two fields since.
    (
        f::INODE_CTIME_SEC,
        &[
            "inode.i_ctime_sec",
            "inode.__i_ctime.tv_sec",
            "inode.i_ctime.tv_sec",
        ],
    ),
    (
        f::INODE_CTIME_NSEC,
        &[
            "inode.i_ctime_nsec",
            "inode.__i_ctime.tv_nsec",
            "inode.i_ctime.tv_nsec",
        ],
    ),
    (f::SB_DEV, &["super_block.s_dev"]),
    (f::MAPPING_HOST, &["address_space.host"]),
    (f::DENTRY_PARENT, &["dentry.d_parent"]),
    (f::DENTRY_INODE, &["dentry.d_inode"]),
    (
        f::DENTRY_NAME,
        &["dentry.d_name.name", "dentry.__d_name.name"],
    ),
    (
        f::DENTRY_HASH_LEN,
        &["dentry.d_name.hash_len", "dentry.__d_name.hash_len"],
    ),
    (f::DENTRY_ALIAS, &["dentry.d_u.d_alias", "dentry.d_alias"]),
    (f::INODE_ALIASES, &["inode.i_dentry.first"]),
    (f::INODE_MODE, &["inode.i_mode"]),
    (f::SB_MAGIC, &["super_block.s_magic"]),
    (f::SOCK_FAMILY, &["sock.__sk_common.skc_family"]),
    (f::SOCK_DADDR, &["sock.__sk_common.skc_daddr"]),
    (f::SOCK_RCV_SADDR, &["sock.__sk_common.skc_rcv_saddr"]),
    (f::SOCK_DPORT, &["sock.__sk_common.skc_dport"]),
    (f::SOCK_NUM, &["sock.__sk_common.skc_num"]),
    (f::SOCK_V6_DADDR, &["sock.__sk_common.skc_v6_daddr"]),
    (f::SOCK_V6_RCV_SADDR, &["sock.__sk_common.skc_v6_rcv_saddr"]),
    (f::SOCK_NET, &["sock.__sk_common.skc_net.net"]),
    (f::SOCK_PROTOCOL, &["sock.sk_protocol"]),
    (f::SOCK_PEER_PID, &["sock.sk_peer_pid"]),
    (f::UNIX_PEER, &["unix_sock.peer"]),
    (f::UNIX_ADDR, &["unix_sock.addr"]),
    (f::UNIX_ADDR_LEN, &["unix_address.len"]),
    (f::UNIX_ADDR_NAME, &["unix_address.name"]),
    (f::PID_TASKS, &["pid.tasks"]),
    (f::TASK_PID_LINKS, &["task_struct.pid_links"]),
    (f::TCP_WRITE_SEQ, &["tcp_sock.write_seq"]),
    (f::MSG_ITER, &["msghdr.msg_iter"]),
    // An `unsigned int type` up to 5.13.
    (f::ITER_TYPE, &["iov_iter.iter_type", "iov_iter.type"]),
    (f::ITER_OFFSET, &["iov_iter.iov_offset"]),
    (f::ITER_COUNT, &["iov_iter.count"]),
    (f::ITER_SEGS, &["iov_iter.nr_segs"]),
    (f::ITER_UBUF, &["iov_iter.ubuf"]),
    // Underscores since 6.4.
    (f::ITER_IOV, &["iov_iter.__iov", "iov_iter.iov"]),
    (f::SOCK_ULP, &["inet_connection_sock.icsk_ulp_ops"]),
    (f::TASK_SELF_EXEC_ID, &["task_struct.self_exec_id"]),
    (f::TASK_FILES, &["task_struct.files"]),
    (f::FILES_FDT, &["files_struct.fdt"]),
    (f::FDTABLE_FD, &["fdtable.fd"]),
    (f::FDTABLE_MAX, &["fdtable.max_fds"]),
    (f::FDTABLE_OPEN, &["fdtable.open_fds"]),
    (f::TASK_FLAGS, &["task_struct.flags"]),
    (f::TASK_CHILDREN_PREV, &["task_struct.children.prev"]),
    (f::TASK_SIBLING_PREV, &["task_struct.sibling.prev"]),
    (f::FILE_MODE, &["file.f_mode"]),
    (f::FILE_PRIVATE, &["file.private_data"]),
    (f::SOCKET_SK, &["socket.sk"]),
    (f::FILE_POS, &["file.f_pos"]),
    (f::SOCK_STATE, &["sock.__sk_common.skc_state"]),
    (f::SOCK_ERR, &["sock.sk_err"]),
    (f::SOCK_WMEM_QUEUED, &["sock.sk_wmem_queued"]),
    (f::SOCK_SNDBUF, &["sock.sk_sndbuf"]),
    (f::SOCK_WRITE_QUEUE, &["sock.sk_write_queue"]),
    (f::SOCK_WRITE_TAIL, &["sock.sk_write_queue.prev"]),
    (f::SOCK_GSO_MAX_SIZE, &["sock.sk_gso_max_size"]),
    (f::SKB_LEN, &["sk_buff.len"]),
    (f::TCP_SND_UNA, &["tcp_sock.snd_una"]),
    (f::TCP_GSO_SEGS, &["tcp_sock.gso_segs"]),
    (f::TCP_MSS_CACHE, &["tcp_sock.mss_cache"]),
    (f::MSG_FLAGS, &["msghdr.msg_flags"]),
    (f::TASK_IO_URING, &["task_struct.io_uring"]),
    (f::TASK_PTRACED, &["task_struct.ptraced"]),
    (f::TASK_PTRACE_ENTRY, &["task_struct.ptrace_entry"]),
    (f::FILES_NEXT_FD, &["files_struct.next_fd"]),
    (f::INODE_RDEV, &["inode.i_rdev"]),
    (f::INODE_UID, &["inode.i_uid"]),
    (f::INODE_GID, &["inode.i_gid"]),
    (f::FILE_OP, &["file.f_op"]),
    (f::INODE_GENERATION, &["inode.i_generation"]),
    (f::INODE_PRIVATE, &["inode.i_private"]),
    (f::UPID_NS, &["upid.ns"]),
    (f::PID_NS_INUM, &["pid_namespace.ns.inum"]),
    (f::CRED_CAPS, &["cred.cap_effective"]),
    (f::VFSMOUNT_ROOT, &["vfsmount.mnt_root"]),
    (f::MOUNT_MNT, &["mount.mnt"]),
    (f::MOUNT_PARENT, &["mount.mnt_parent"]),
    (f::MOUNT_MOUNTPOINT, &["mount.mnt_mountpoint"]),
];

/// Fields that are bit fields on some kernels and may be read only where they are not.
fn whole(field: Field) -> Option<Field> {
    (field.bits == 0).then_some(field)
}

/// Looks every field up.
pub fn resolve(btf: &Btf) -> Fields {
    let mut fields = Fields {
        values: [MISSING; f::COUNT],
    };
    let first = |paths: &[&str]| paths.iter().find_map(|path| btf.field(path));
    for (index, paths) in OFFSETS {
        if let Some(field) = first(paths) {
            fields.set(*index, field.offset);
        }
    }
    match btf.field("linux_binprm.secureexec") {
        Some(field) if field.bits == 1 => fields.set(f::BPRM_SECUREEXEC_BIT, field.bit),
        _ => fields.set(f::BPRM_SECUREEXEC, MISSING),
    }
    if let Some(size) = btf.size("upid") {
        fields.set(f::UPID_SIZE, size);
    }
    if let Some(field) = btf.field("sock.sk_shutdown").and_then(whole)
        && field.size == 1
    {
        fields.set(f::SOCK_SHUTDOWN, field.offset);
    }
    // A bit field up to 5.5.
    if let Some(field) = btf.field("sock.sk_type").and_then(whole)
        && field.size == 2
    {
        fields.set(f::SOCK_TYPE, field.offset);
    }
    if btf.tracepoint_args("mm_filemap_fault").is_some()
        && btf.tracepoint_args("mm_filemap_map_pages").is_some()
    {
        fields.set(f::HAS_FAULTS, 1);
    }
    match btf.field("sock.sk_protocol").and_then(whole) {
        Some(field) => fields.set(f::SOCK_PROTOCOL_SIZE, field.size),
        None => fields.set(f::SOCK_PROTOCOL, MISSING),
    }
    if let Some(field) = first(&[
        "inode.i_ctime_nsec",
        "inode.__i_ctime.tv_nsec",
        "inode.i_ctime.tv_nsec",
    ]) {
        fields.set(f::INODE_CTIME_NSEC_SIZE, field.size);
    }
    if let Some(size) = btf.size("inode") {
        fields.set(f::INODE_END, size);
    }
    if let Some(field) = first(&["iov_iter.iter_type", "iov_iter.type"]) {
        fields.set(f::ITER_TYPE_SIZE, field.size);
    }
    if let Some(value) = btf.enumerator("iter_type", "ITER_UBUF") {
        fields.set(f::ENUM_ITER_UBUF, value);
    }
    if let Some(value) = btf.enumerator("iter_type", "ITER_IOVEC") {
        fields.set(f::ENUM_ITER_IOVEC, value);
    }
    let group_dead = btf
        .tracepoint_args("sched_process_exit")
        .is_some_and(|args| args >= 2);
    fields.set(f::HAS_GROUP_DEAD, u32::from(group_dead));
    fields.set(f::RETURN_ON_STACK, 1);
    for register in registers::OF_THIS {
        if let Some(field) = btf.field(register.path) {
            fields.set(register.place, field.offset + register.behind);
        }
    }
    fields
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
