//! The columns of each class of OCSF 1.8.0, of what `format::ocsf` says of it: names and types are those of the schema
//! (<https://schema.ocsf.io/1.8.0>), objects are groups. Each may be absent.
//!
//! Times are milliseconds since the epoch, as OCSF's `timestamp_t`. What the schema has no place for (`unmapped`) is a map of
//! texts; what is no text in it is JSON.

use crate::spec::OcsfClass;
use std::fmt::Write as _;

/// What a column holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Int,
    Long,
    Flag,
    Group(&'static [Column]),
    List(&'static Kind),
    /// Of texts, by text.
    Map,
}

pub(super) type Column = (&'static str, Kind);

use Kind::{Flag, Group, Int, List, Long, Map, Text};

const TEXTS: Kind = List(&Text);

const METADATA: Kind = Group(&[
    ("version", Text),
    ("profiles", TEXTS),
    (
        "product",
        Group(&[("name", Text), ("vendor_name", Text), ("version", Text)]),
    ),
    ("uid", Text),
    ("event_code", Text),
    ("correlation_uid", Text),
    ("sequence", Long),
    ("is_truncated", Flag),
]);

const DEVICE: Kind = Group(&[
    ("type_id", Int),
    ("hostname", Text),
    ("name", Text),
    ("uid", Text),
    ("boot_uid", Text),
]);

const USER: Kind = Group(&[("uid", Text)]);

const FILE: Kind = Group(&[
    ("name", Text),
    ("path", Text),
    ("type_id", Int),
    ("uid", Text),
    ("owner", USER),
]);

const EXECUTABLE: Kind = Group(&[("name", Text), ("path", Text), ("type_id", Int)]);

const PROCESS: Kind = Group(&[
    ("pid", Int),
    ("uid", Text),
    ("name", Text),
    ("cmd_line", Text),
    ("working_directory", Text),
    ("created_time", Long),
    ("file", EXECUTABLE),
    ("user", USER),
    (
        "parent_process",
        Group(&[
            ("pid", Int),
            ("uid", Text),
            ("name", Text),
            ("file", EXECUTABLE),
        ]),
    ),
]);

const ACTOR: Kind = Group(&[("process", PROCESS)]);

const ENDPOINT: Kind = Group(&[("ip", Text), ("hostname", Text), ("port", Int)]);

const TECHNIQUE: Kind = Group(&[("uid", Text)]);

const FINDING_INFO: Kind = Group(&[
    ("uid", Text),
    ("title", Text),
    ("desc", Text),
    ("types", TEXTS),
    ("data_sources", TEXTS),
    (
        "analytic",
        Group(&[("type_id", Int), ("uid", Text), ("name", Text)]),
    ),
    (
        "attacks",
        List(&Group(&[
            ("version", Text),
            ("technique", TECHNIQUE),
            ("sub_technique", TECHNIQUE),
        ])),
    ),
    ("related_events", List(&Group(&[("uid", Text)]))),
]);

const RESOURCES: Kind = List(&Group(&[("type", Text), ("name", Text), ("uid", Text)]));

const EVIDENCES: Kind = List(&Group(&[
    ("actor", ACTOR),
    ("file", FILE),
    ("dst_endpoint", ENDPOINT),
]));

const DATA_SECURITY: Kind = Group(&[
    ("category_id", Int),
    ("category", Text),
    ("data_lifecycle_state_id", Int),
    ("data_lifecycle_state", Text),
    ("detection_system_id", Int),
    ("detection_system", Text),
    ("confidentiality_id", Int),
    ("confidentiality", Text),
    ("detection_pattern", Text),
    ("uid", Text),
    (
        "classifier_details",
        Group(&[("type", Text), ("name", Text)]),
    ),
]);

/// Of every class.
const COMMON: &[Column] = &[
    ("time", Long),
    ("class_uid", Int),
    ("class_name", Text),
    ("category_uid", Int),
    ("activity_id", Int),
    ("activity_name", Text),
    ("type_uid", Long),
    ("severity_id", Int),
    ("count", Long),
    ("start_time", Long),
    ("end_time", Long),
    ("message", Text),
    ("metadata", METADATA),
    ("device", DEVICE),
    ("unmapped", Map),
];

const FILE_ACTIVITY: &[Column] = &[("actor", ACTOR), ("file", FILE)];

const DETECTION_FINDING: &[Column] = &[
    ("finding_info", FINDING_INFO),
    ("status_id", Int),
    ("is_alert", Flag),
    ("actor", ACTOR),
    ("evidences", EVIDENCES),
    ("resources", RESOURCES),
    ("remediation", Group(&[("desc", Text)])),
];

const DATA_SECURITY_FINDING: &[Column] = &[
    ("finding_info", FINDING_INFO),
    ("status_id", Int),
    ("actor", ACTOR),
    ("file", FILE),
    ("dst_endpoint", ENDPOINT),
    ("src_endpoint", ENDPOINT),
    ("resources", RESOURCES),
    ("data_security", DATA_SECURITY),
    ("confidence_id", Int),
    ("confidence", Text),
];

/// Those of a class, in their order.
pub(super) fn columns(class: OcsfClass) -> Vec<Column> {
    let own: &[Column] = match class {
        OcsfClass::BaseEvent => &[],
        OcsfClass::FileActivity => FILE_ACTIVITY,
        OcsfClass::DetectionFinding => DETECTION_FINDING,
        OcsfClass::DataSecurityFinding => DATA_SECURITY_FINDING,
    };
    [COMMON, own].concat()
}

impl Kind {
    /// How many columns of values it is.
    pub fn leaves(&self) -> usize {
        match self {
            Text | Int | Long | Flag => 1,
            Group(columns) => columns.iter().map(|(_, kind)| kind.leaves()).sum(),
            List(kind) => kind.leaves(),
            Map => 2,
        }
    }
}

/// The schema of a file of these, as Parquet's parser of schemas reads it
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>, "Lists" and "Maps").
pub(super) fn schema(columns: &[Column]) -> String {
    let mut text = String::from("message ocsf {\n");
    for (name, kind) in columns {
        declare(name, kind, &mut text);
    }
    text.push('}');
    text
}

fn declare(name: &str, kind: &Kind, text: &mut String) {
    // Writing to a string does not fail.
    let _ = match kind {
        Text => writeln!(text, "optional binary {name} (STRING);"),
        Int => writeln!(text, "optional int32 {name};"),
        Long => writeln!(text, "optional int64 {name};"),
        Flag => writeln!(text, "optional boolean {name};"),
        Group(columns) => {
            let _ = writeln!(text, "optional group {name} {{");
            for (name, kind) in *columns {
                declare(name, kind, text);
            }
            writeln!(text, "}}")
        }
        List(kind) => {
            let _ = writeln!(
                text,
                "optional group {name} (LIST) {{\nrepeated group list {{"
            );
            declare("element", kind, text);
            writeln!(text, "}}\n}}")
        }
        Map => writeln!(
            text,
            "optional group {name} (MAP) {{\nrepeated group key_value {{\nrequired binary key (STRING);\noptional binary value (STRING);\n}}\n}}"
        ),
    };
}
