//! Events of one class of OCSF as a file of Parquet, compressed by zstd, as Amazon Security Lake wants it of a custom source:
//! one class to a file, pages of no more than 1 MiB, rows in the order of their times
//! (<https://docs.aws.amazon.com/security-lake/latest/userguide/custom-sources.html>).

mod columns;
mod shred;

use crate::spec::OcsfClass;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use shred::{Leaf, Shredder, Values};
use std::sync::Arc;

const PAGE_MAX: usize = 1 << 20;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParquetFault {
    #[error("an event is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a file of Parquet cannot be made: {0}")]
    Parquet(#[from] ParquetError),
}

/// A file of these events, each a line of JSON of this class. The same events make the same file.
pub(crate) fn file<'a>(
    class: OcsfClass,
    lines: impl Iterator<Item = &'a [u8]>,
    version: &str,
) -> Result<Vec<u8>, ParquetFault> {
    let mut rows: Vec<Value> = lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()?;
    rows.sort_by_key(|row| row["time"].as_i64());
    let columns = columns::columns(class);
    let mut shredder = Shredder::new(&columns);
    for row in &rows {
        shredder.add(row);
    }
    let schema = Arc::new(parse_message_type(&columns::schema(&columns))?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_size_limit(PAGE_MAX)
        .set_created_by(format!("keytrail version {version}"))
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let mut leaves = shredder.leaves().into_iter();
    while let Some(mut column) = group.next_column()? {
        if let Some(leaf) = leaves.next() {
            write(column.untyped(), leaf)?;
        }
        column.close()?;
    }
    group.close()?;
    Ok(writer.into_inner()?)
}

fn write(column: &mut ColumnWriter<'_>, leaf: Leaf) -> Result<(), ParquetError> {
    let (definitions, repetitions) = (Some(&leaf.definitions[..]), Some(&leaf.repetitions[..]));
    match (column, leaf.values) {
        (ColumnWriter::ByteArrayColumnWriter(column), Values::Text(values)) => {
            let values: Vec<ByteArray> = values
                .into_iter()
                .map(|text| text.into_bytes().into())
                .collect();
            column.write_batch(&values, definitions, repetitions)
        }
        (ColumnWriter::Int32ColumnWriter(column), Values::Int(values)) => {
            column.write_batch(&values, definitions, repetitions)
        }
        (ColumnWriter::Int64ColumnWriter(column), Values::Long(values)) => {
            column.write_batch(&values, definitions, repetitions)
        }
        (ColumnWriter::BoolColumnWriter(column), Values::Flag(values)) => {
            column.write_batch(&values, definitions, repetitions)
        }
        _ => Err(ParquetError::General(
            "a column is not of the type of its values".to_owned(),
        )),
    }
    .map(drop)
}

#[cfg(test)]
mod tests;
