//! What stages ask for beside what they tell. Ingest and the core return it, in its order, and the engine alone carries it
//! out.

use super::{InventoryUpdate, Pid, PipeId};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A file as the kernel tells it apart: the device as it encodes it (`i_sb->s_dev`), and the inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    pub device: u32,
    pub inode: u64,
}

/// Something to be done.
#[derive(Debug)]
pub enum Effect {
    /// For the core: all is known that this process began or read with, so it can say whether it holds something.
    Decide(Decision),
    /// For the inventory.
    Inventory(InventoryUpdate),
    /// For the sensor.
    Sensor(SensorChange),
}

impl From<SensorChange> for Effect {
    fn from(change: SensorChange) -> Self {
        Effect::Sensor(change)
    }
}

/// A process whose state in the kernel can be decided now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub pid: Pid,
    /// Under which number the kernel side waits for it.
    pub exec_id: u64,
}

/// How much of what a process sends is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    Nothing,
    /// It holds nothing but private keys: of what it answers less is captured, which is signatures.
    Keys,
    All,
}

/// Which decision of the kernel side's is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// None: whatever it waits for, this is so.
    Any,
    /// What the process itself began or read under this number.
    Own(u64),
    /// The process reads what another one writes, which has this number.
    Passed(u64),
}

/// What the sensor has to see otherwise from now on.
#[derive(Debug)]
pub enum SensorChange {
    SetProcess {
        tgid: u32,
        capture: Capture,
        answers: Answers,
    },
    /// The pipes that a process has as standard streams which ran before the agent looked.
    SetStreams {
        tgid: u32,
        stdin: Option<PipeId>,
        stdout: Option<PipeId>,
    },
    /// A file holds credentials: who reads it is reported.
    Watch { path: PathBuf, file: FileKey },
    /// A watched inode is another file by now, or none.
    Unwatch { file: FileKey },
    /// A file needs no further look in this version.
    MarkClean { file: FileKey, ctime_ns: u64 },
    /// A holder is about to talk: what it has mapped may have TLS inside.
    ScanLibraries { tgid: u32 },
    /// A holder runs another program, which may have TLS inside.
    ScanProgram { tgid: u32 },
    /// A file that may be a program was written.
    ScanWritten { file: OwnedFd, path: PathBuf },
    /// A process of another pid namespace: reads in its procfs are listened to.
    WatchProcfs { tgid: u32 },
}
