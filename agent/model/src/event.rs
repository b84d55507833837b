//! What the core says: graded events. `keytrail-export` makes `keytrail.v1` of them, field by field; the schema's
//! comments say what each field means.

use super::words::{
    Actor, Channel, ContextKind, DestinationMethod, Direction, EventKind, EvidenceGrade, GapReason,
    IdentifiedBy, LineageBasis, Reach, Signal, SourceType, Transform,
};
use super::{CredentialRef, ExeFacts, FileChange, HostName, Owner, Request};
use std::collections::BTreeMap;

/// One thing that was seen, or one thing that could not be seen. Times are wall clock, nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: EventId,
    pub time_ns: u64,
    /// Since boot.
    pub boot_ns: u64,
    pub kind: EventKind,
    pub process: Option<Process>,
    pub credential: Option<CredentialRef>,
    pub source: Option<Source>,
    pub destination: Option<Destination>,
    pub evidence: Option<Evidence>,
    pub truncation: Option<Truncation>,
    pub coverage: Vec<String>,
    pub attack: Vec<String>,
    pub gap: Option<Gap>,
    pub exit: Option<ProcessExit>,
    /// Out of which process a credential was taken.
    pub victim: Option<Process>,
    pub request: Option<Request>,
    /// What was reported late; of `process` it stands there.
    pub workload: Option<Box<WorkloadNames>>,
    /// What happened to the file that `source` is.
    pub change: Option<Box<FileChange>>,
    /// Set where the event stands for many of one kind; `time_ns` is that of the last.
    pub repeats: Option<Repeats>,
    /// Of several events that report one act: the number of the first. 0 where there is only one.
    pub group: u64,
    /// Who brought it into the container that the process is in.
    pub delivery: Option<Box<Delivery>>,
}

/// How many acts of one kind an event stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    pub count: u64,
    pub first_ns: u64,
}

/// A container's runtime brought a credential into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// As its runtime calls it.
    pub container: String,
    /// Who wrote (`wrote`) or read (`read`) the container's configuration, from the outermost on.
    pub path: Vec<PathStep>,
}

impl Event {
    /// An event of which no more is known than what it is and when it was.
    #[must_use]
    pub fn new(kind: EventKind, time_ns: u64, boot_ns: u64) -> Self {
        Self {
            id: EventId::default(),
            time_ns,
            boot_ns,
            kind,
            process: None,
            credential: None,
            source: None,
            destination: None,
            evidence: None,
            truncation: None,
            coverage: Vec::new(),
            attack: Vec::new(),
            gap: None,
            exit: None,
            victim: None,
            request: None,
            workload: None,
            change: None,
            repeats: None,
            group: 0,
            delivery: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventId {
    pub agent: String,
    pub boot: String,
    pub epoch: u64,
    pub sequence: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub key: String,
    pub pid: u32,
    pub namespace_pid: u32,
    /// `None` when nothing is known of the process but its pid.
    pub executable: Option<ExeFacts>,
    pub comm: String,
    /// Redacted.
    pub argv: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub loginuid: u32,
    pub session: u32,
    pub cgroup: String,
    pub container: String,
    pub unit: String,
    pub pod: String,
    /// Parent first.
    pub ancestors: Vec<Ancestor>,
    pub start_time_ns: Option<u64>,
    pub ppid: u32,
    /// Innermost first.
    pub contexts: Vec<Context>,
    pub actor: Option<Actor>,
    /// What `pod` and `container` are called, once that is known.
    pub workload: Option<Box<WorkloadNames>>,
}

/// What a pod, and a container of it, is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadNames {
    /// By which it is joined: as in [`Process`].
    pub pod_uid: String,
    pub container_id: String,
    pub namespace: String,
    pub pod: String,
    /// Empty while the container is not known to be one of the pod's.
    pub container: String,
    pub image: String,
    pub image_digest: String,
    pub service_account: String,
    pub node: String,
    pub owner: Option<Owner>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestor {
    pub key: String,
    pub pid: u32,
    pub comm: String,
    pub executable: String,
    /// Script or module of an interpreter.
    pub script: String,
}

/// What a process runs in, and which ancestor says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub kind: ContextKind,
    /// For example `npm`, `claude`, `github`.
    pub name: String,
    /// Key of the ancestor.
    pub key: String,
}

/// Where the process got the credential from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub r#type: SourceType,
    pub path: String,
    /// Of a file that the host has under another path.
    pub host_path: String,
    pub device: u64,
    pub inode: u64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    /// Permission bits, octal text.
    pub mode: String,
    pub env_name: String,
    pub argv_index: u32,
    pub inherited_from: String,
    pub first_seen_ns: Option<u64>,
    /// Of a file whose directories were inspected.
    pub reach: Option<Reach>,
    /// Of a file: git has it in the index of its work tree.
    pub tracked: bool,
    /// Of a file of the host: its owner has no account.
    pub orphaned: bool,
    /// Of one first seen in use: with which others it was likely got.
    pub parents: Vec<Parent>,
}

/// A credential with which a process asked for a token a while before it used another one. The answer was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    pub kind: String,
    pub fingerprint: String,
    /// Who was asked, as the request says, and for which path.
    pub host: String,
    pub path: String,
    pub time_ns: u64,
}

impl Source {
    #[must_use]
    pub fn new(r#type: SourceType) -> Self {
        Self {
            r#type,
            path: String::new(),
            host_path: String::new(),
            device: 0,
            inode: 0,
            owner_uid: 0,
            owner_gid: 0,
            mode: String::new(),
            env_name: String::new(),
            argv_index: 0,
            inherited_from: String::new(),
            first_seen_ns: None,
            reach: None,
            tracked: false,
            orphaned: false,
            parents: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    pub ip: String,
    pub port: u32,
    pub protocol: String,
    pub hosts: Vec<HostName>,
    pub socket_path: String,
    /// Of the file or terminal that was written to, or `pipe:[INODE]`.
    pub path: String,
    pub local_ip: String,
    pub local_port: u32,
    pub network_namespace: u64,
    /// Who asked for the connection; `None` when that is not known.
    pub direction: Option<Direction>,
    /// Of a Unix socket: who is at the other end.
    pub peer: Option<Peer>,
    /// Of a pipe: key of the outermost process from the writer up that has it as its standard output.
    pub stdout_of: String,
}

/// Who listened, asked for the connection, or made the pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Empty when the process was gone.
    pub key: String,
    pub pid: u32,
    pub comm: String,
    pub executable: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// `None` where nothing is claimed: an open that was no read.
    pub grade: Option<EvidenceGrade>,
    pub transform: Option<Transform>,
    pub channel: Channel,
    pub payload_bytes: u64,
    pub inspected_bytes: u64,
    pub destination_method: Option<DestinationMethod>,
    pub part: String,
    pub occurrences: u32,
    pub hook: String,
    /// Set on lineage only.
    pub lineage_basis: Option<LineageBasis>,
    /// What the text in which the secret was had been decoded from, the outermost first.
    pub layers: Vec<Transform>,
    /// By which way a credential that was passed on can have come to the process, from who obtained it first.
    pub path: Vec<PathStep>,
    /// Set on identified only.
    pub identified_by: Option<IdentifiedBy>,
    /// In the body of a message of HTTP, once at least.
    pub in_body: bool,
    /// In the URL of a request of HTTP, once at least.
    pub in_url: bool,
}

/// A process on the way of a credential, and how it came to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathStep {
    /// read | env | argv | taken | fork | pipe | file | socket; of a delivery wrote | read
    pub how: String,
    /// The file, the variable, the argument's place, the process it was taken from, the pipe.
    pub name: String,
    /// The process: its key, pid, executable and name.
    pub key: String,
    pub pid: u32,
    pub executable: String,
    pub comm: String,
}

impl Evidence {
    #[must_use]
    pub fn new(grade: Option<EvidenceGrade>, channel: Channel, hook: &str) -> Self {
        Self {
            grade,
            transform: None,
            channel,
            payload_bytes: 0,
            inspected_bytes: 0,
            destination_method: None,
            part: String::new(),
            occurrences: 0,
            hook: hook.to_owned(),
            lineage_basis: None,
            layers: Vec::new(),
            path: Vec::new(),
            identified_by: None,
            in_body: false,
            in_url: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truncation {
    pub argv: bool,
    pub environment: bool,
    pub payload: bool,
    pub file: bool,
}

/// Something keytrail knows that it could not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub reason: GapReason,
    pub detail: String,
    pub remedy: String,
    pub count: u64,
    pub from_ns: Option<u64>,
    pub to_ns: Option<u64>,
    pub signal: Option<Signal>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessExit {
    pub status: i32,
    pub signal: i32,
    /// Exposures in the process's descendants that they only inherited, as it did or they from it.
    pub inherited_exposures: u64,
    /// Lineage that was not reported one by one: inherited and reported for a relative already, or of the process's clients; and
    /// what was written again to the same file, pipe or terminal.
    pub untold_sends: u64,
}
