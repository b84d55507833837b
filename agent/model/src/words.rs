//! The closed vocabularies: each value with its number in `keytrail.v1` and the short word that people are shown,
//! filters take and recordings hold. `keytrail-export` tests that the schema has the same numbers and names.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(i32)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant = $number,)+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Its number in the schema; 0 is unspecified there.
            #[must_use]
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// `None` for 0 and for what this version does not know.
            #[must_use]
            pub const fn of_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            #[must_use]
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }

            /// What people are shown for a number: nothing for 0, `?` for what this version does not know.
            #[must_use]
            pub const fn word_of(number: i32) -> &'static str {
                match Self::of_number(number) {
                    Some(value) => value.word(),
                    None if number == 0 => "",
                    None => "?",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What an event is about.
    EventKind {
        CredentialRead = 1 "credential_read",
        /// Opened, and not read.
        CredentialOpened = 2 "credential_opened",
        CredentialExposed = 3 "credential_exposed",
        CredentialSent = 4 "credential_sent",
        CredentialCreated = 5 "credential_created",
        CoverageGap = 6 "coverage_gap",
        ProcessStart = 7 "process_start",
        ProcessExit = 8 "process_exit",
        /// A rule found something in another event.
        Finding = 9 "finding",
        /// Read out of another process.
        CredentialTaken = 10 "credential_taken",
        /// A file that makes programs run by themselves, or lets somebody in, was written.
        PersistenceWritten = 11 "persistence_written",
        /// What a pod is called, of which events were reported before that was known.
        WorkloadNamed = 12 "workload_named",
        /// Something happened to a file that holds a credential.
        CredentialFileChanged = 13 "credential_file_changed",
        /// A metadata service was asked for credentials.
        CredentialRequested = 14 "credential_requested",
        /// It answered with one.
        CredentialReceived = 15 "credential_received",
    }
}

impl EventKind {
    /// Whether it is only the context of others: streams leave it out unless it is asked for.
    #[must_use]
    pub const fn is_context(self) -> bool {
        matches!(self, Self::ProcessStart | Self::ProcessExit)
    }
}

words! {
    /// How much was seen.
    EvidenceGrade {
        /// The secret's own bytes.
        Observed = 1 "observed",
        /// Its public identifier.
        Identified = 2 "identified",
        /// A holder sent something.
        Lineage = 3 "lineage",
    }
}

words! {
    /// By what a credential was known that was not seen itself.
    IdentifiedBy {
        /// Its public identifier stood there as a word of its own.
        Identifier = 1 "identifier",
        /// Its user name, in a login by SCRAM that proves the password and does not send it.
        ScramLogin = 2 "scram_login",
        /// Its public identifier, in the claims or the header of a JSON Web Token.
        JwtClaim = 3 "jwt_claim",
        /// Its key id, in the scope of a signature of AWS (SigV4), in a header or in a presigned URL.
        AwsSignature = 4 "aws_signature",
        /// The public half of the key.
        PublicKey = 5 "public_key",
        /// The public half of the key, in the certificate that a client showed in its TLS handshake.
        ClientCertificate = 6 "client_certificate",
        /// A JSON Web Token whose signature the key made: it was verified.
        JwtSignature = 7 "jwt_signature",
    }
}

words! {
    /// By which way a credential came or went.
    Channel {
        Tls = 1 "tls",
        Tcp = 2 "tcp",
        File = 3 "file",
        Env = 4 "env",
        Argv = 5 "argv",
        /// `/proc/PID/environ` of a process.
        ProcessEnvironment = 6 "process_environment",
        /// `/proc/PID/mem` of a process.
        ProcessMemory = 7 "process_memory",
        /// Datagrams, in clear as far as they were inspected.
        Udp = 8 "udp",
        /// A Unix socket of this host.
        Unix = 9 "unix",
        /// Written to a pipe or FIFO.
        Pipe = 10 "pipe",
        /// Written to a terminal.
        Terminal = 11 "terminal",
        /// Read out of a process by process_vm_readv(2).
        ProcessVmRead = 12 "process_vm_readv",
        /// Read out of a process by ptrace(2).
        Ptrace = 13 "ptrace",
        /// A descriptor taken out of a process by pidfd_getfd(2).
        Descriptor = 14 "pidfd_getfd",
        /// Written by the kernel when the process died (core(5)).
        CoreDump = 15 "core_dump",
    }
}

words! {
    /// How a secret was encoded in a payload.
    Transform {
        Raw = 1 "raw",
        Base64 = 2 "base64",
        Base64Url = 3 "base64url",
        Percent = 4 "percent",
        Json = 5 "json",
        Hex = 6 "hex",
        Xml = 7 "xml",
        Utf16 = 8 "utf16",
        Gzip = 9 "gzip",
        Deflate = 10 "deflate",
        Brotli = 11 "br",
        Zstd = 12 "zstd",
        /// The Huffman code of HTTP/2 headers.
        Huffman = 13 "huffman",
        /// A reference to a header that was sent before on the connection.
        Hpack = 14 "hpack",
        Base32 = 15 "base32",
        Utf32 = 16 "utf32",
        /// Quoted-printable, with line breaks or escapes of it inside.
        QuotedPrintable = 17 "quoted_printable",
    }
}

words! {
    /// How the destination of a send was found.
    DestinationMethod {
        /// Taken from the socket that carried the bytes.
        Socket = 1 "socket",
        /// The send happened inside the TLS call.
        NestedSend = 2 "nested_send",
        /// A later send has exactly the length of these bytes in TLS records.
        RecordLength = 3 "record_length",
        /// The process had one TLS connection.
        SingleSocket = 4 "single_socket",
        Unknown = 5 "unknown",
        /// The TLS session itself holds the number of its socket.
        ConnectionFd = 6 "connection_fd",
        /// The file behind the descriptor that was written to.
        Descriptor = 7 "descriptor",
        /// The thread's next act was a send of exactly the length of these bytes in TLS records.
        NextSend = 8 "next_send",
    }
}

words! {
    /// Who asked for a connection.
    Direction {
        /// The process itself.
        Outgoing = 1 "outgoing",
        /// The peer: the process listened.
        Accepted = 2 "accepted",
    }
}

words! {
    /// What ties a holder to a credential in lineage.
    LineageBasis {
        /// The process obtained it itself, or is a copy (by fork) of one that did.
        Own = 1 "own",
        /// An ancestor or an earlier program of the process obtained it, and an exec lies between: memory did not come along.
        Inherited = 2 "inherited",
        /// Another process obtained it and could write to a pipe that this one could read.
        Passed = 3 "passed",
    }
}

words! {
    /// What a process runs in, reported by its ancestry.
    ContextKind {
        /// What an installation of a package runs.
        PackageInstall = 1 "package_install",
        /// What an AI agent runs as a tool.
        AgentTool = 2 "agent_tool",
        CiJob = 3 "ci_job",
        Cron = 4 "cron",
        SshSession = 5 "ssh_session",
        /// A shell that login(1), sshd(8) or su(1) began for a person.
        LoginShell = 6 "login_shell",
    }
}

words! {
    /// On whose behalf a process runs, by the same names: it explains, and proves nothing.
    Actor {
        /// At a shell of a session.
        Person = 1 "person",
        /// An AI agent, by its tools.
        Agent = 2 "agent",
        /// The scripts of a package that is being installed.
        Package = 3 "package",
        Ci = 4 "ci",
        /// Cron or at.
        Job = 5 "job",
        /// A unit of systemd, a container or a pod.
        Service = 6 "service",
    }
}

words! {
    /// Who can come as far as a file, by the directories above it.
    Reach {
        /// Its owner and root, or some group at most.
        Few = 1 "few",
        /// Everybody.
        World = 2 "world",
    }
}

words! {
    /// Where a process has a credential from.
    SourceType {
        File = 1 "file",
        Env = 2 "env",
        Argv = 3 "argv",
        Payload = 4 "payload",
        Unknown = 5 "unknown",
        /// Another process, out of which it was read.
        Process = 6 "process",
        /// A metadata service, which gave it.
        Service = 7 "service",
    }
}

words! {
    /// What happened to a file that holds a credential.
    FileAction {
        /// Another file lies under its name.
        Replaced = 1 "replaced",
        /// Another credential of the kind stands where one stood.
        Rotated = 2 "rotated",
        /// The file is there, and the credential is not in it any more.
        Removed = 3 "removed",
        Deleted = 4 "deleted",
        /// To another name.
        Moved = 5 "moved",
        /// Mode, owner or group changed.
        Permissions = 6 "permissions",
        /// It got another name (link(2)).
        Linked = 7 "linked",
        /// Something was mounted over it.
        Covered = 8 "covered",
    }
}

words! {
    /// Why something was not seen.
    GapReason {
        AgentDown = 1 "agent_down",
        HookRefused = 2 "hook_refused",
        RecordsLost = 3 "records_lost",
        EnvironmentTruncated = 4 "environment_truncated",
        ArgvTruncated = 5 "argv_truncated",
        PayloadTruncated = 6 "payload_truncated",
        SecretNotMatched = 7 "secret_not_matched",
        TlsWriteUnsent = 8 "tls_write_unsent",
        LibraryNotCovered = 9 "library_not_covered",
        Backfill = 10 "backfill",
        ClientTooSlow = 11 "client_too_slow",
        ReplayLimited = 12 "replay_limited",
        TableFull = 13 "table_full",
        Offsets = 14 "offsets",
        EnvironmentUnreadable = 15 "environment_unreadable",
        FileUnreadable = 16 "file_unreadable",
        FileTruncated = 17 "file_truncated",
        FileUnwatched = 18 "file_unwatched",
        FilesClosed = 19 "files_closed",
        FilesSkipped = 20 "files_skipped",
        WritesUnseen = 21 "writes_unseen",
        InspectionTimeout = 22 "inspection_timeout",
        InspectionBacklog = 23 "inspection_backlog",
        InspectionBudget = 24 "inspection_budget",
        RecordsLeft = 25 "records_left",
        LedgerLost = 26 "ledger_lost",
        Excluded = 27 "excluded",
        BudgetUsed = 28 "budget_used",
        SinkBehind = 29 "sink_behind",
        NamesUnavailable = 30 "names_unavailable",
        AgentStopped = 31 "agent_stopped",
        AgentTraced = 32 "agent_traced",
        AgentReplaced = 33 "agent_replaced",
        /// A hook was taken off from outside, or does not fire any more.
        HookLost = 34 "hook_lost",
        /// A BPF program of somebody else can write into users' memory or change what calls return.
        ForeignBpf = 35 "foreign_bpf",
        /// Somebody else has a map or a program of the agent.
        AgentOpened = 36 "agent_opened",
        /// What was learned of credentials, and how often findings were made, could not be written down.
        LearnedLost = 37 "learned_lost",
    }
}

impl GapReason {
    /// Something that would have been seen was not taken in. The others are out of the agent's reach or beyond what it is
    /// configured to inspect, over, or reported to one client only.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        match self {
            Self::HookRefused
            | Self::HookLost
            | Self::RecordsLost
            | Self::TableFull
            | Self::Offsets
            | Self::FileUnwatched
            | Self::FilesClosed
            | Self::InspectionTimeout
            | Self::InspectionBacklog
            | Self::InspectionBudget
            | Self::RecordsLeft
            | Self::LedgerLost
            | Self::LearnedLost
            | Self::AgentStopped
            | Self::SinkBehind => true,
            Self::AgentDown
            | Self::AgentTraced
            | Self::AgentReplaced
            | Self::ForeignBpf
            | Self::AgentOpened
            | Self::EnvironmentUnreadable
            | Self::EnvironmentTruncated
            | Self::ArgvTruncated
            | Self::PayloadTruncated
            | Self::SecretNotMatched
            | Self::TlsWriteUnsent
            | Self::LibraryNotCovered
            | Self::Backfill
            | Self::ClientTooSlow
            | Self::ReplayLimited
            | Self::FileUnreadable
            | Self::FileTruncated
            | Self::FilesSkipped
            | Self::WritesUnseen
            | Self::Excluded
            | Self::BudgetUsed
            | Self::NamesUnavailable => false,
        }
    }
}

words! {
    /// What the kernel reports, and what is counted when it is lost.
    Signal {
        Exec = 1 "exec",
        Fork = 2 "fork",
        Exit = 3 "exit",
        FileOpen = 4 "file_open",
        FileRead = 5 "file_read",
        Connect = 6 "connect",
        TcpSend = 7 "tcp_send",
        TlsWrite = 8 "tls_write",
        FileWrite = 9 "file_write",
        /// Arguments and environment of an exec.
        ExecChunk = 10 "exec_chunk",
        /// The first read of a file that nobody has inspected.
        FileNew = 11 "file_new",
        /// What proves that the ring works.
        Canary = 12 "canary",
        /// Everything fanotify reports.
        Fanotify = 13 "fanotify",
        /// The kernel side's table of processes.
        ProcessTable = 14 "process_table",
        /// A hook that was hit inside itself.
        HookNested = 15 "hook_nested",
        /// A read of another process's environment or memory.
        ProcessRead = 16 "process_read",
        /// A send over a Unix socket.
        UnixSend = 17 "unix_send",
        UdpSend = 18 "udp_send",
        /// A write to a file, a pipe or a terminal.
        FdWrite = 19 "fd_write",
        /// Something taken out of another process by a system call.
        ProcessAttach = 20 "process_attach",
        /// The pipes that processes have as standard streams.
        Pipes = 21 "pipes",
        /// What metadata services answer.
        Answer = 22 "answer",
    }
}

impl Signal {
    /// The signals keytrail exists for.
    pub const MISSION: [Self; 8] = [
        Self::Exec,
        Self::Fork,
        Self::Exit,
        Self::FileOpen,
        Self::FileRead,
        Self::Connect,
        Self::TcpSend,
        Self::TlsWrite,
    ];
}

words! {
    /// Which kind of hooks is used.
    Tier {
        /// Raw tracepoints, uprobes, cgroup hooks, fanotify.
        Base = 1 "base",
        /// Trampolines on kernel functions.
        Fentry = 2 "fentry",
    }
}

words! {
    /// Whose TLS a library or program has inside.
    TlsStack {
        OpenSsl = 1 "openssl",
        GnuTls = 2 "gnutls",
        Nss = 3 "nss",
        Go = 4 "go",
        Rustls = 5 "rustls",
        BoringSsl = 6 "boringssl",
        Java = 7 "java",
        MbedTls = 8 "mbedtls",
        WolfSsl = 9 "wolfssl",
        S2n = 10 "s2n",
    }
}

/// For `#[serde(with)]`: a signal, or an empty word.
pub(crate) mod optional_signal {
    use super::Signal;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(signal: &Option<Signal>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(signal.map_or("", Signal::word))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Signal>, D::Error> {
        let word = String::deserialize(from)?;
        if word.is_empty() {
            return Ok(None);
        }
        Signal::of_word(&word)
            .map(Some)
            .ok_or_else(|| de::Error::custom(format!("there is no signal {word:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_lead_back() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_word(kind.word()), Some(*kind));
            assert_eq!(EventKind::of_number(kind.number()), Some(*kind));
            assert_eq!(EventKind::word_of(kind.number()), kind.word());
            assert_eq!(kind.to_string(), kind.word());
        }
        assert_eq!(EventKind::of_word("sent"), None);
        assert_eq!((EventKind::word_of(0), EventKind::word_of(99)), ("", "?"));
    }
}
