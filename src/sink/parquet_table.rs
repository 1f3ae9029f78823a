//! Writes the rows of a spool as a Parquet file.
//!
//! Text is UTF-8. A column is a number or a Boolean if each of its values is one. Every column may have nulls. Rows are
//! read in groups of bounded size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use serde_json::Value;

use super::column_type::ColumnType;
use super::output_owner::{REAL_PARQUET_KEY, SIMULATED_PARQUET_KEY};

/// Most rows of a group.
const MAX_GROUP_ROWS: usize = 50_000;

/// Bytes of the spool after which a group ends.
const GROUP_BYTES: usize = 16 << 20;

/// The columns of a table.
pub(super) struct Table {
    pub(super) columns: Vec<(String, ColumnType)>,
    pub(super) is_simulated: bool,
}

impl Table {
    /// Writes the rows of `spool`, one JSON array a line, to `out`.
    pub(super) fn write(&self, mut spool: &File, out: &File) -> io::Result<()> {
        spool.rewind()?;
        let mut rows = BufReader::with_capacity(1 << 16, spool);
        let key = if self.is_simulated { SIMULATED_PARQUET_KEY } else { REAL_PARQUET_KEY };
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![KeyValue::new(key.to_owned(), "1".to_owned())]))
            .build();
        let schema = Arc::new(self.schema().map_err(failed)?);
        let mut file = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(failed)?;
        loop {
            let group = self.read_group(&mut rows)?;
            if group.rows == 0 {
                break;
            }
            let mut writer = file.next_row_group().map_err(failed)?;
            for ((_, column_type), cells) in self.columns.iter().zip(&group.columns) {
                let Some(column) = writer.next_column().map_err(failed)? else { break };
                write_column(column, *column_type, cells).map_err(failed)?;
            }
            writer.close().map_err(failed)?;
        }
        file.close().map_err(failed)?;
        Ok(())
    }

    fn schema(&self) -> Result<Type, ParquetError> {
        let columns = self.columns.iter().map(|(name, column_type)| {
            let column = match column_type {
                ColumnType::Boolean => Type::primitive_type_builder(name, PhysicalType::BOOLEAN),
                ColumnType::SmallInteger | ColumnType::Integer => {
                    Type::primitive_type_builder(name, PhysicalType::INT64)
                }
                ColumnType::Float => Type::primitive_type_builder(name, PhysicalType::DOUBLE),
                ColumnType::Empty | ColumnType::Text => {
                    Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
                        .with_logical_type(Some(LogicalType::String))
                }
            };
            column.with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
        });
        Type::group_type_builder("results").with_fields(columns.collect::<Result<_, _>>()?).build()
    }

    fn read_group(&self, rows: &mut impl BufRead) -> io::Result<Group> {
        let mut group = Group { rows: 0, columns: self.columns.iter().map(|_| Vec::new()).collect() };
        let mut bytes = 0;
        let mut line = Vec::new();
        while group.rows < MAX_GROUP_ROWS && bytes < GROUP_BYTES {
            line.clear();
            bytes += rows.read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            let cells: Vec<Value> = serde_json::from_slice(&line)?;
            for (column, cell) in group.columns.iter_mut().zip(cells) {
                column.push(cell);
            }
            group.rows += 1;
        }
        Ok(group)
    }
}

/// Rows that are written together, by their columns.
struct Group {
    rows: usize,
    columns: Vec<Vec<Value>>,
}

fn failed(error: ParquetError) -> io::Error {
    match error {
        // A full disk is recognized by its error.
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    }
}

fn write_column(
    mut column: SerializedColumnWriter<'_>,
    column_type: ColumnType,
    cells: &[Value],
) -> Result<(), ParquetError> {
    match column_type {
        ColumnType::Boolean => write_values::<BoolType>(&mut column, cells, Value::as_bool)?,
        ColumnType::SmallInteger | ColumnType::Integer => {
            write_values::<Int64Type>(&mut column, cells, Value::as_i64)?;
        }
        ColumnType::Float => write_values::<DoubleType>(&mut column, cells, Value::as_f64)?,
        ColumnType::Empty | ColumnType::Text => write_values::<ByteArrayType>(&mut column, cells, text)?,
    }
    column.close()
}

fn write_values<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    cells: &[Value],
    value: impl Fn(&Value) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = cells.iter().map(value).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    Ok(())
}

fn text(cell: &Value) -> Option<ByteArray> {
    match cell {
        Value::Null => None,
        Value::String(text) => Some(text.as_bytes().to_vec().into()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(cell.to_string().into_bytes().into())
        }
    }
}
