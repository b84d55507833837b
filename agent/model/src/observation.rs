//! What the core consumes: kernel records after `secret` has replaced every payload by what was found in it.
//!
//! A recording is a sequence of these, one JSON object a line; replaying it gives byte-identical events.

use super::words::{
    Direction, FileAction, GapReason, IdentifiedBy, Reach, Signal, Transform, optional_signal,
};
use super::{CredentialRef, PodNames, Request, Undecoded};
use serde::{Deserialize, Serialize};

/// Clock ticks a second in /proc/PID/stat and in process keys (USER_HZ, 100 on every Linux architecture we build for).
pub const TICK_NS: u64 = 10_000_000;

/// Names a process within one boot: survives an agent restart, because /proc gives both parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pid {
    pub tgid: u32,
    /// Start of the thread group leader in clock ticks since boot.
    pub start: u64,
}

/// The task a record is about, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    pub boot_ns: u64,
    pub pid: Pid,
    pub tid: u32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub cgroup_id: u64,
    pub comm: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Observation {
    /// First of every recording: everything the core must not ask the machine for.
    Start(AgentStart),
    /// Time has passed; sent at least every 250 ms while the agent runs.
    Tick {
        boot_ns: u64,
        wall_ns: u64,
    },
    /// A process that was there before the agent (or whose exec was lost), read from /proc.
    Snapshot(Box<Snapshot>),
    Exec(Box<ExecSeen>),
    Fork {
        at: TaskInfo,
        child: Pid,
        child_ns_tgid: u32,
    },
    Exit {
        at: TaskInfo,
        status: i32,
        signal: i32,
        /// The kernel wrote a core dump of it, as this pattern says (core(5)); empty when the pattern could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dumped: Option<String>,
    },
    File(Box<FileSeen>),
    /// Which pipes a process has as standard streams: behind its exec, a read of it, or before its end.
    Pipes(PipesSeen),
    /// The environment or the memory of a process was read.
    Taken(TakenSeen),
    Answer(Box<AnswerSeen>),
    /// What nobody knew before is used; the send that holds it comes next.
    InUse(Box<InUseSeen>),
    Connect {
        at: TaskInfo,
        ends: Endpoints,
    },
    Send(Box<SendSeen>),
    Write(Box<WriteSeen>),
    TlsWrite(Box<TlsSeen>),
    /// A file with a credential that was not there before.
    Created {
        at: Option<TaskInfo>,
        boot_ns: u64,
        file: FileFacts,
        credentials: Vec<CredentialRef>,
    },
    /// Something happened to a file that holds these, or held them.
    FileChanged {
        at: Option<TaskInfo>,
        boot_ns: u64,
        /// As it is now; of one that is gone, as it was.
        file: FileFacts,
        change: FileChange,
        credentials: Vec<CredentialRef>,
    },
    /// A file was written that makes programs run by themselves, or lets somebody in.
    Persistence {
        at: Option<TaskInfo>,
        boot_ns: u64,
        file: FileFacts,
        /// Id of ATT&CK.
        technique: String,
        /// Of a symbolic link: where it leads, as it stands there.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        link: String,
    },
    /// What was learnt is no credential: it was the beginning of one, read while the file was being written.
    Withdrawn {
        boot_ns: u64,
        fingerprint: String,
    },
    Gap(GapSeen),
    /// A file with TLS inside whose functions are not probed.
    Unhooked(Box<UnhookedSeen>),
    /// A pod of this node is called so from now on.
    Pod {
        boot_ns: u64,
        names: Box<PodNames>,
    },
    /// The pod of this uid is not on this node any more.
    PodGone {
        boot_ns: u64,
        uid: String,
    },
    /// What the stage of findings is told from outside: rules, what is usual, decoys. JSON of that stage.
    Findings {
        #[serde(rename = "told")]
        input: String,
    },
    /// The recording ends: what is pending is decided now.
    Stop {
        boot_ns: u64,
    },
}

/// A program or a library that encrypts and is not seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhookedSeen {
    pub path: String,
    /// What it is, and why.
    pub reason: String,
    /// Processes that had it mapped when it was found.
    pub users: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStart {
    pub agent: String,
    pub boot_id: String,
    pub epoch: u64,
    pub boot_ns: u64,
    /// Wall clock at `boot_ns`, nanoseconds since the epoch.
    pub wall_ns: u64,
    pub host: String,
    /// The last sign of life of the agent before this one, and whether it stopped cleanly.
    pub previous_alive_wall_ns: Option<u64>,
    pub previous_clean: bool,
    /// The agent before this one ran in another boot of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebooted: bool,
    /// Emit process_start and process_exit for every process.
    pub process_events: bool,
    /// Only this process and its descendants are followed: what it begins with is reported, whoever had it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<u32>,
}

/// Where a credential was found in a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FoundIn {
    Env(String),
    Argv(u32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub credential: CredentialRef,
    pub place: FoundIn,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExeFacts {
    pub path: String,
    pub device: u64,
    pub inode: u64,
    /// Its file was made, written or moved there less than a minute before it was executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// It lies in the upper layer of an overlay: in a container, it was put there after that was made from its image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upper_layer: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecSeen {
    pub at: TaskInfo,
    pub parent: Pid,
    pub exe: ExeFacts,
    pub ns_tgid: u32,
    /// Redacted.
    pub argv: Vec<String>,
    pub cwd: String,
    pub cgroup: String,
    pub loginuid: u32,
    pub session: u32,
    pub found: Vec<Found>,
    pub argv_truncated: bool,
    pub env_truncated: bool,
    /// Bytes of the whole argv and environment, and of those inspected.
    pub env_bytes: u64,
    pub env_inspected: u64,
    pub argv_bytes: u64,
    pub argv_inspected: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub at: TaskInfo,
    pub parent: Pid,
    pub exe: ExeFacts,
    pub ns_tgid: u32,
    pub argv: Vec<String>,
    pub cwd: String,
    pub cgroup: String,
    pub loginuid: u32,
    pub session: u32,
    pub found: Vec<Found>,
    /// Why its environment could not be read, if so.
    pub env_unreadable: Option<String>,
    /// It has executed another program since it was last reported, and the record of that was lost.
    #[serde(default)]
    pub executed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileFacts {
    /// As its reader has it in its mount namespace, where that is known.
    pub path: String,
    /// As the host has it, where that is another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_path: String,
    pub device: u64,
    pub inode: u64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    pub ctime_ns: u64,
    /// `None` where the directories were not inspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// The index of the git work tree it is in has it. False where nobody looked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tracked: bool,
    /// Its owner is a person's uid that has no account on this host. False where nobody looked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
}

/// What happened to a file that holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    pub action: FileAction,
    /// Mode and owners before, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileAccess>,
    /// Where the file is now (moved, replaced), or its other name (linked); empty when that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub new_path: String,
    /// Of a file whose name is a symbolic link now (replaced): where it leads, as it stands there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// Fingerprint of the credential whose place was taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous: String,
}

impl FileChange {
    #[must_use]
    pub fn new(action: FileAction) -> Self {
        Self {
            action,
            before: None,
            new_path: String::new(),
            link: String::new(),
            previous: String::new(),
        }
    }
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAccess {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl FileAccess {
    #[must_use]
    pub fn of(file: &FileFacts) -> Self {
        Self {
            mode: file.mode,
            uid: file.owner_uid,
            gid: file.owner_gid,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Open,
    Read,
    Mmap,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileSeen {
    pub at: TaskInfo,
    pub access: Access,
    pub file: FileFacts,
    /// What this version of the file holds.
    pub credentials: Vec<CredentialRef>,
    /// The file could not be inspected in this version, and why.
    pub unreadable: Option<String>,
    /// Only a part of the file was inspected.
    pub truncated: bool,
    /// Which hook saw it, for example `raw_tp:mm_filemap_get_pages`.
    pub hook: String,
}

/// A pipe: device and inode, which are its own as long as somebody has it open. Or one way through a pair of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PipeId {
    pub device: u64,
    pub inode: u64,
}

impl PipeId {
    /// In place of a device: a nameless pair of sockets, known by the one from which something is read.
    pub const SOCKET_PAIR: u64 = 0xffff_ffff;

    #[must_use]
    pub fn is_socket_pair(self) -> bool {
        self.device == Self::SOCKET_PAIR
    }
}

/// The pipes of a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipesSeen {
    pub at: TaskInfo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<PipeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<PipeId>,
    /// The ancestor that can write to `stdin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feeder: Option<Pid>,
    /// The ancestor that can read `stdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taker: Option<Pid>,
    /// These are no standard streams but what it opened by name: a FIFO, or a terminal whose other end `taker` has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opened: bool,
}

/// Both ends of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoints {
    pub sock: u64,
    pub local_ip: String,
    pub local_port: u16,
    pub peer_ip: String,
    pub peer_port: u16,
    /// `tcp`, `udp` or `unix`.
    pub protocol: String,
    pub net_ns: u32,
    /// Name of a Unix socket as who bound it gave it, `@` before an abstract one; empty for one without.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Who is at the other end of a connected Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Box<PeerSeen>>,
}

impl Endpoints {
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.protocol == "unix"
    }

    #[must_use]
    pub fn is_udp(&self) -> bool {
        self.protocol == "udp"
    }
}

/// The process that listened, asked for the connection, or made the pair: it may have handed its end to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerSeen {
    pub tgid: u32,
    /// As in [`Pid`]; 0 when it was gone.
    pub start: u64,
    /// Empty when it was not inspected, or gone.
    pub executable: String,
    pub comm: String,
}

/// A secret or a public identifier that was in a payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub credential: CredentialRef,
    /// true: the secret itself. false: only its public identifier.
    pub secret: bool,
    pub transform: Transform,
    /// What the text it was in had been decoded from, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Transform>,
    pub part: String,
    pub occurrences: u32,
    /// What it was known by; `None` for the secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<IdentifiedBy>,
    /// An identifier that ends with the payload: whether it is a whole word, the next payload tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The request it was in, among those of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u16>,
    /// In the body of a message of HTTP, once at least.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body: bool,
    /// In the first line of a request of HTTP, its URL, once at least.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub target: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostName {
    pub name: String,
    pub provenance: String,
}

/// What a payload turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    pub total: u64,
    pub inspected: u64,
    pub truncated: bool,
    pub hits: Vec<Hit>,
    pub hosts: Vec<HostName>,
    /// Its first bytes may go on with a word that the payload before them ended in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// The requests that these bytes belong to, as far as they were recognised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    #[serde(default, skip_serializing_if = "Undecoded::is_empty")]
    pub undecoded: Undecoded,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SendSeen {
    pub at: TaskInfo,
    pub ends: Endpoints,
    pub payload: Payload,
    /// When the bytes are TLS records: content type of the first one that begins in them and its length field; length
    /// 0 when they only go on with one.
    pub tls_record: Option<(u8, u16)>,
    /// The records after it, as far as their headers were captured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_more: Vec<(u8, u16)>,
    /// No send, but more of the one before on this socket, which was of TLS records in several pieces: where in it the
    /// first record here begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_on: Option<u64>,
    /// The TLS call this send happened in, and its session.
    pub tls_call: Option<(u64, u64)>,
    /// A TLS hello begins it: a client's on an outgoing connection, a server's on an accepted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<Direction>,
    /// Who asked for the connection, where the kernel side knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// A packet of a protocol that encrypts (QUIC, DTLS) begins it: it was inspected as it was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
    /// Of a question to a name service: bytes in long labels of all names that the process asked for in a row under one domain,
    /// this one among them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub asked: u64,
    pub hook: String,
}

fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// What a descriptor that is no socket leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteTarget {
    File,
    Pipe,
    Terminal,
}

/// Bytes written to a file, a pipe or a terminal: seen when it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteSeen {
    pub at: TaskInfo,
    pub target: WriteTarget,
    /// Kernel device number and inode: of a pipe, what its other end has as well.
    pub device: u64,
    pub inode: u64,
    /// Empty when it is not known, and of pipes without a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    pub payload: Payload,
    pub hook: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsSeen {
    pub at: TaskInfo,
    pub call: u64,
    pub session: u64,
    /// The socket that the session itself names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Socket>,
    /// It is one TLS record, encrypted in this call: the same bytes again are another one, not another attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Hash of the first bytes that were captured of the call, by a key that the agent has in memory alone: tells the same bytes
    /// again from others of the same length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<u64>,
    /// What is given begins with a TLS record, of another session: its content type and length field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<(u8, u16)>,
    pub payload: Payload,
    pub hook: String,
}

/// A connection of a process: the kernel's address of the socket and what tells it from a later one there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Socket {
    pub sock: u64,
    pub local_port: u16,
    pub peer_port: u16,
}

impl Socket {
    /// Does it have these ends?
    #[must_use]
    pub fn has(&self, ends: &Endpoints) -> bool {
        (self.sock, self.local_port, self.peer_port) == (ends.sock, ends.local_port, ends.peer_port)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapSeen {
    pub boot_ns: u64,
    pub reason: GapReason,
    pub detail: String,
    pub remedy: String,
    pub count: u64,
    #[serde(with = "optional_signal")]
    pub signal: Option<Signal>,
    /// Interval in wall-clock nanoseconds since the epoch; 0 when open.
    pub from_wall_ns: u64,
    pub to_wall_ns: u64,
    /// The process concerned, when it is one.
    pub pid: Option<Pid>,
}

impl GapSeen {
    /// A gap of which no more is known than why and when.
    #[must_use]
    pub fn new(reason: GapReason, boot_ns: u64) -> Self {
        Self {
            boot_ns,
            reason,
            detail: String::new(),
            remedy: String::new(),
            count: 0,
            signal: None,
            from_wall_ns: 0,
            to_wall_ns: 0,
            pid: None,
        }
    }
}

/// What of a process was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// The block it was started with.
    Environment,
    /// Its memory, in whole or in part: any of its credentials may have been there.
    Memory,
    /// The same, by process_vm_readv(2).
    VmRead,
    /// The same or its registers, by ptrace(2).
    Traced,
    /// A descriptor, by pidfd_getfd(2).
    Descriptor,
}

/// A metadata service has answered with credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerSeen {
    /// Who took it in.
    pub at: TaskInfo,
    /// The peer is the service.
    pub ends: Endpoints,
    pub credentials: Vec<CredentialRef>,
    pub hook: String,
}

/// A process uses credentials that nobody knew, in headers that hold nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InUseSeen {
    pub at: TaskInfo,
    pub credentials: Vec<CredentialRef>,
}

/// A process read what another one (or itself) holds, out of that process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenSeen {
    /// Who read.
    pub at: TaskInfo,
    /// Out of which process.
    pub victim: Pid,
    pub what: Taken,
    /// Bytes that were asked for; 0 where that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asked: u64,
    /// It is not known whether the call brought anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    pub hook: String,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde wants"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
