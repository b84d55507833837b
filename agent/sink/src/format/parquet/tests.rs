use super::*;
use crate::format::{self, Reporter, samples};
use crate::spec::Format;
use columns::{Column, Kind};
use hyper::body::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

fn lines(class: OcsfClass) -> Vec<Vec<u8>> {
    let of_class = |event: &keytrail_proto::v1::Event| format::class_uid(event) == class.uid();
    let reporter = Reporter {
        host: "h".into(),
        version: "1".into(),
        agent: "a".into(),
    };
    samples::all()
        .iter()
        .filter(|event| of_class(event))
        .map(|event| format::encode(Format::OcsfParquet, event, &reporter).unwrap())
        .collect()
}

/// What of a value has no column, or another type than it.
fn unknown(kind: &Kind, value: &Value, at: &str, all: &mut Vec<String>) {
    let of = |columns: &[Column], value: &Value, all: &mut Vec<String>| {
        for (name, value) in value.as_object().unwrap() {
            let at = format!("{at}.{name}");
            match columns.iter().find(|(column, _)| column == name) {
                Some((_, kind)) => unknown(kind, value, &at, all),
                None => all.push(at),
            }
        }
    };
    let fits = match (kind, value) {
        (Kind::Group(columns), Value::Object(_)) => {
            of(columns, value, all);
            true
        }
        (Kind::List(kind), Value::Array(values)) => {
            for value in values {
                unknown(kind, value, at, all);
            }
            true
        }
        (Kind::Map, value) => value.is_object(),
        (Kind::Text, value) => value.is_string(),
        (Kind::Int, value) => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (Kind::Long, value) => value.as_i64().is_some(),
        (Kind::Flag, value) => value.is_boolean(),
        _ => false,
    };
    if !fits {
        all.push(at.to_owned());
    }
}

/// What `format::ocsf` says has a column of its type, and nothing is lost.
#[test]
fn everything_has_a_column() {
    for class in OcsfClass::ALL {
        let columns: &'static [Column] = columns::columns(class).leak();
        let lines = lines(class);
        assert!(!lines.is_empty(), "{class:?}");
        let mut all = Vec::new();
        for line in &lines {
            let value = serde_json::from_slice(line).unwrap();
            unknown(&Kind::Group(columns), &value, class.word(), &mut all);
        }
        assert!(all.is_empty(), "{all:?}");
    }
}

#[test]
fn a_file_holds_its_events_and_is_the_same_again() {
    for class in OcsfClass::ALL {
        let lines = lines(class);
        let make = || file(class, lines.iter().map(Vec::as_slice), "1").unwrap();
        let bytes = make();
        assert_eq!(bytes, make());
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let group = reader.metadata().row_group(0);
        assert_eq!(group.num_rows() as usize, lines.len());
        assert!(
            group
                .columns()
                .iter()
                .all(|column| matches!(column.compression(), Compression::ZSTD(_)))
        );
        let mut classes = 0;
        for row in reader.get_row_iter(None).unwrap() {
            let text = row.unwrap().to_string();
            let number = format!("class_uid: {},", class.uid());
            assert!(text.contains(&number), "{text}");
            classes += 1;
        }
        assert_eq!(classes, lines.len());
    }
    assert!(file(OcsfClass::BaseEvent, [&b"no"[..]].into_iter(), "1").is_err());
}
