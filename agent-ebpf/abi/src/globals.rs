//! The read-only globals that the user side sets before loading: where this kernel keeps its fields.
//!
//! Rust has no CO-RE relocations, so user space resolves every field from `/sys/kernel/btf/vmlinux` and hands the
//! offsets over in one array. The map behind it is frozen: the verifier treats each value as a constant, and code
//! that depends on a field this kernel does not have is never even checked.

/// An offset that this kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Name of the global array of [`field::COUNT`] `u32`s.
pub const FIELDS_GLOBAL: &str = "FIELDS";

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        fields!(@index 0usize; $($(#[$doc])* $name,)+);
        /// Names of the places in the array, in order: for messages.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
    (@index $n:expr; $(#[$doc:meta])* $name:ident, $($rest:tt)*) => {
        $(#[$doc])*
        pub const $name: usize = $n;
        fields!(@index $n + 1usize; $($rest)*);
    };
    (@index $n:expr;) => {
        pub const COUNT: usize = $n;
    };
}

/// Places in the global array. Byte offsets within the named struct, unless said otherwise.
pub mod field {
    fields! {
        TASK_PID,
        TASK_TGID,
        TASK_GROUP_LEADER,
        TASK_START_BOOTTIME,
        TASK_REAL_PARENT,
        TASK_MM,
        TASK_CRED,
        TASK_SIGNAL,
        TASK_FS,
        /// `fs_struct.pwd`, its two parts.
        FS_PWD_MNT,
        FS_PWD_DENTRY,
        TASK_CGROUPS,
        /// `css_set.cgrp_links`, a list of `cgrp_cset_link`s by their `cgrp_link`.
        CSET_LINKS,
        LINK_NODE,
        LINK_CGROUP,
        CGROUP_KN,
        KN_ID,
        TASK_NSPROXY,
        TASK_THREAD_PID,
        TASK_EXIT_CODE,
        TASK_LOGINUID,
        TASK_SESSIONID,
        /// Counts the execs of a thread.
        TASK_SELF_EXEC_ID,
        TASK_FILES,
        FILES_FDT,
        FDTABLE_FD,
        FDTABLE_MAX,
        /// `fdtable.open_fds`: a bit for each open descriptor.
        FDTABLE_OPEN,
        TASK_FLAGS,
        /// `task_struct.children.prev`: the node of the youngest child.
        TASK_CHILDREN_PREV,
        /// `task_struct.sibling.prev`.
        TASK_SIBLING_PREV,
        FILE_PRIVATE,
        /// `socket.sk`.
        SOCKET_SK,
        CRED_EUID,
        CRED_SUID,
        SIGNAL_LIVE,
        MM_ARG_START,
        MM_ARG_END,
        MM_ENV_START,
        MM_ENV_END,
        MM_EXE_FILE,
        NSPROXY_MNT_NS,
        NSPROXY_NET_NS,
        MNT_NS_INUM,
        NET_INUM,
        PID_LEVEL,
        PID_NUMBERS,
        UPID_NR,
        /// Size of `struct upid`.
        UPID_SIZE,
        BPRM_ARGC,
        BPRM_ENVC,
        BPRM_FILENAME,
        /// Byte that holds `linux_binprm.secureexec`.
        BPRM_SECUREEXEC,
        /// Its bit in that byte.
        BPRM_SECUREEXEC_BIT,
        FILE_INODE,
        FILE_DENTRY,
        FILE_MNT,
        FILE_POS,
        FILE_MODE,
        INODE_INO,
        INODE_SB,
        INODE_SIZE,
        INODE_FLAGS,
        /// Seconds of `inode->i_ctime`, 64 bits.
        INODE_CTIME_SEC,
        /// Nanoseconds of it.
        INODE_CTIME_NSEC,
        /// Bytes of the nanoseconds field: 4 or 8.
        INODE_CTIME_NSEC_SIZE,
        /// Bytes of `struct inode`: in an inode of an overlay, which begins or ends with one, its dentry in the upper layer
        /// stands right behind (`struct ovl_inode`, fs/overlayfs/ovl_entry.h).
        INODE_END,
        SB_DEV,
        MAPPING_HOST,
        DENTRY_PARENT,
        DENTRY_INODE,
        DENTRY_NAME,
        /// `dentry.d_name.hash_len`: hash and length of the name, 64 bits.
        DENTRY_HASH_LEN,
        /// `dentry.d_u.d_alias`: the node in `inode.i_dentry`.
        DENTRY_ALIAS,
        /// `inode.i_dentry.first`.
        INODE_ALIASES,
        INODE_MODE,
        SB_MAGIC,
        /// 1: files that were not seen before are reported when they are read.
        DISCOVER,
        /// 1: accesses to pages of mappings are reported (`mm_filemap_fault`, 6.12 and later).
        HAS_FAULTS,
        SOCK_FAMILY,
        SOCK_STATE,
        SOCK_SHUTDOWN,
        /// `inet_connection_sock.icsk_ulp_ops`.
        SOCK_ULP,
        SOCK_ERR,
        SOCK_WMEM_QUEUED,
        SOCK_SNDBUF,
        /// `sock.sk_write_queue.prev`: the socket buffer that is filled at present.
        SOCK_WRITE_TAIL,
        /// `sock.sk_write_queue`: where its list ends.
        SOCK_WRITE_QUEUE,
        SOCK_GSO_MAX_SIZE,
        SKB_LEN,
        SOCK_DADDR,
        SOCK_RCV_SADDR,
        SOCK_DPORT,
        SOCK_NUM,
        SOCK_V6_DADDR,
        SOCK_V6_RCV_SADDR,
        SOCK_NET,
        SOCK_PROTOCOL,
        /// Bytes of `sk_protocol`: 1 or 2; MISSING where it is a bit field (then TCP is known from the hook).
        SOCK_PROTOCOL_SIZE,
        SOCK_TYPE,
        /// `sock.sk_peer_pid`: who is at the other end of a connected Unix socket.
        SOCK_PEER_PID,
        UNIX_PEER,
        UNIX_ADDR,
        /// `unix_address.len`: of the whole address, with the two bytes of its family.
        UNIX_ADDR_LEN,
        UNIX_ADDR_NAME,
        /// `pid.tasks`: a list head of each PIDTYPE.
        PID_TASKS,
        /// `task_struct.pid_links`: its node in each of those lists.
        TASK_PID_LINKS,
        TCP_WRITE_SEQ,
        TCP_SND_UNA,
        TCP_GSO_SEGS,
        TCP_MSS_CACHE,
        MSG_FLAGS,
        MSG_ITER,
        ITER_TYPE,
        /// Bytes of the type field: 1, or 4 up to 5.13, where the lowest bit is the direction.
        ITER_TYPE_SIZE,
        ITER_OFFSET,
        ITER_COUNT,
        ITER_SEGS,
        /// `iov_iter.ubuf` (6.0 and later).
        ITER_UBUF,
        /// `iov_iter.__iov` (or `iov`).
        ITER_IOV,
        /// Value of the enumerator ITER_UBUF, not an offset.
        ENUM_ITER_UBUF,
        /// Value of the enumerator ITER_IOVEC.
        ENUM_ITER_IOVEC,
        /// The registers of a thread in user space, by what `agent-ebpf/src/arch` reads there: `pt_regs.sp`.
        REGS_SP,
        /// The number of the system call: `orig_ax`, `syscallno`.
        REGS_SYSCALL,
        /// What the call returns: `ax`, `x0`.
        REGS_RESULT,
        /// What Go's calling convention has its arguments in, beside the same: `bx` and `cx`, `x1` and `x2`.
        REGS_BX,
        REGS_CX,
        REGS_IP,
        REGS_FLAGS,
        REGS_ARG0,
        REGS_ARG1,
        REGS_ARG2,
        REGS_ARG3,
        REGS_ARG4,
        REGS_ARG5,
        /// The first argument of a system call, also after it has returned (aarch64: `orig_x0`).
        REGS_ORIGINAL,
        /// Where a function is to return to (aarch64: `x30`).
        REGS_LINK,
        /// `task_struct.io_uring` (read on aarch64 only).
        TASK_IO_URING,
        /// 1: `bpf_task_pt_regs` and `bpf_get_current_task_btf` may be called.
        HAS_TASK_REGS,
        /// 1: FIFOs that are opened by name, and terminals, are followed (6.4 and later): before, the verifier goes over what
        /// follows a call once for each way through it.
        FOLLOWS_OPENED,
        /// 1: `bpf_get_attach_cookie` may be called.
        HAS_COOKIE,
        /// 1: `sched_process_exit` says whether the whole group is gone (6.16 and later).
        HAS_GROUP_DEAD,
        /// 1: where the return address of a function is on the stack is known from its code.
        RETURN_ON_STACK,
        /// Bytes of unread ring from which on any record wakes user space, when it waits.
        WAKE_BYTES,
        /// Limits of [`crate::budget::passed`], bytes a second, in its order.
        LIMIT_ANSWERS,
        LIMIT_KEYS,
        LIMIT_PROCESS,
        LIMIT_CONNECTION,
        LIMIT_WRITES,
        /// What tells a system call of 32 bits: `task_struct.thread_info.status`, on aarch64 `.flags`.
        TASK_STATUS,
        /// Who a thread traces: the list and its link in the traced one.
        TASK_PTRACED,
        TASK_PTRACE_ENTRY,
        FILES_NEXT_FD,
        INODE_RDEV,
        INODE_UID,
        INODE_GID,
        /// `file.f_op`: the same address for all files of one kind.
        FILE_OP,
        INODE_GENERATION,
        INODE_PRIVATE,
        /// `upid.ns`, `pid_namespace.ns.inum`.
        UPID_NS,
        PID_NS_INUM,
        /// `cred.cap_effective`: its lowest 32 bits come first.
        CRED_CAPS,
        VFSMOUNT_ROOT,
        /// `mount.mnt`: the `vfsmount` inside a mount.
        MOUNT_MNT,
        MOUNT_PARENT,
        MOUNT_MOUNTPOINT,
    }
}

const _: () = assert!(field::NAMES.len() == field::COUNT);
