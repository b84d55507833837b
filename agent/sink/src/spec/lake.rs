//! What objects of Parquet in a bucket are, as Amazon Security Lake has them.

/// Whose objects they are, and what is in them. Each class of OCSF is a custom source of its own there
/// (<https://docs.aws.amazon.com/security-lake/latest/userguide/custom-sources.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeSpec {
    /// The custom source: its name, and its version behind a `/` where it has one.
    pub source: String,
    /// The account of AWS, or any other word for who is at home there.
    pub account: String,
    pub class: OcsfClass,
}

/// The classes of OCSF that events of the ledger are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcsfClass {
    BaseEvent,
    FileActivity,
    DetectionFinding,
    DataSecurityFinding,
}

impl OcsfClass {
    pub const ALL: [OcsfClass; 4] = [
        OcsfClass::BaseEvent,
        OcsfClass::FileActivity,
        OcsfClass::DetectionFinding,
        OcsfClass::DataSecurityFinding,
    ];

    /// Its name in the schema.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OcsfClass::BaseEvent => "base_event",
            OcsfClass::FileActivity => "file_activity",
            OcsfClass::DetectionFinding => "detection_finding",
            OcsfClass::DataSecurityFinding => "data_security_finding",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<OcsfClass> {
        OcsfClass::ALL.into_iter().find(|c| c.word() == word)
    }

    /// Its `class_uid`.
    #[must_use]
    pub fn uid(self) -> u32 {
        match self {
            OcsfClass::BaseEvent => 0,
            OcsfClass::FileActivity => 1001,
            OcsfClass::DetectionFinding => 2004,
            OcsfClass::DataSecurityFinding => 2006,
        }
    }
}
