//! Reads the rows of a Parquet file, one page of each column at a time.
//!
//! Nested values become arrays and objects, dates and times ISO 8601 text, decimals exact text, and bytes text if they are
//! UTF-8, else base64. The crate that reads the file panics at some kinds of columns; this is an error of the file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::civil::{Date, Time, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use parquet::basic::{LogicalType, TimeUnit};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Number, Value};

use super::ingest::{Ingest, RawRecord, ReadStop};
use super::jsonl::too_long_message;
use super::parquet_footer;
use super::parquet_group::{CheckedGroup, check_values};

/// Bytes that a value counts for which is no text, as in a workbook.
const PLAIN_VALUE_BYTES: usize = 8;

/// Reads the rows of `file`, which has `total` bytes. A row has at most `limit` bytes.
pub(super) fn read(
    mut file: File,
    total: Option<u64>,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let damaged = |reason: &str, ingest: &Ingest| {
        ingest.unreadable(format!(
            "it is a Parquet file that cannot be read: {reason}; write it again, for example with pyarrow or DuckDB, or \
             convert it to JSON lines"
        ))
    };
    parquet_footer::check(&mut file).map_err(|reason| damaged(&reason, ingest))?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(|reason| damaged(&reason, ingest))?;
    let metadata = reader.metadata().file_metadata();
    let row_count = u64::try_from(metadata.num_rows()).unwrap_or(0).max(1);
    let schema = metadata.schema_descr().root_schema_ptr();
    let names: Vec<String> = schema.get_fields().iter().map(|column| column.name().to_owned()).collect();
    ingest.check_columns(&names).map_err(|fault| ingest.layout_error(1, fault))?;
    // All of them before the first item, since an item costs money.
    for group in reader.metadata().row_groups() {
        check_values(group).map_err(|reason| damaged(&reason, ingest))?;
    }
    let mut number = 0;
    for index in 0..reader.num_row_groups() {
        let group = guarded(|| reader.get_row_group(index)).map_err(|reason| damaged(&reason, ingest))?;
        let group = CheckedGroup(group);
        let mut rows =
            guarded(|| RowIter::from_row_group(None, &group)).map_err(|reason| damaged(&reason, ingest))?;
        while let Some(row) =
            guarded(|| rows.next().transpose()).map_err(|reason| damaged(&reason, ingest))?
        {
            number += 1;
            let share = number as f64 / row_count as f64;
            let end = (share.min(1.0) * total.unwrap_or(0) as f64) as u64;
            let record = RawRecord { line: number, bytes: None, length: 0, end };
            if row_bytes(&row) > limit {
                ingest.reject(record, too_long_message(limit), None)?;
            } else {
                ingest.value(record, row_value(&row, schema.get_fields()))?;
            }
        }
    }
    Ok(())
}

/// Calls the crate, and returns a panic in it as an error.
fn guarded<T>(call: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it is damaged, or a column has a type that is not supported".to_owned()),
    }
}

/// Returns the bytes of the names and values of a row, before its values are converted.
fn row_bytes(row: &Row) -> usize {
    row.get_column_iter().map(|(name, field)| name.len() + field_bytes(field)).sum()
}

/// Returns the bytes of a value. The schema bounds how deep it is.
fn field_bytes(field: &Field) -> usize {
    match field {
        Field::Str(text) => text.len(),
        Field::Bytes(bytes) => bytes.len(),
        Field::Group(row) => row_bytes(row),
        Field::ListInternal(list) => list.elements().iter().map(field_bytes).sum(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(key, value)| field_bytes(key) + field_bytes(value)).sum()
        }
        Field::Null
        | Field::Bool(_)
        | Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_)
        | Field::Float16(_)
        | Field::Float(_)
        | Field::Double(_)
        | Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => PLAIN_VALUE_BYTES,
    }
}

fn row_value(row: &Row, types: &[TypePtr]) -> Value {
    let mut object = Map::with_capacity(row.len());
    for (index, (name, field)) in row.get_column_iter().enumerate() {
        object.insert(name.clone(), value(field, types.get(index).map(|column| &**column)));
    }
    Value::Object(object)
}

/// Returns a value whose type in the schema is `column`.
fn value(field: &Field, column: Option<&Type>) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(is_true) => Value::from(*is_true),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        // The crate returns nanoseconds as a plain number.
        Field::Long(number) => match column.and_then(nanoseconds) {
            Some(is_utc) => timestamp(Timestamp::from_nanosecond(i128::from(*number)).ok(), is_utc, *number),
            None => Value::from(*number),
        },
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float16(number) => float(f64::from(f32::from(*number))),
        // The shortest text of a single is not that of its double.
        Field::Float(number) => float(number.to_string().parse().unwrap_or(f64::from(*number))),
        Field::Double(number) => float(*number),
        Field::Decimal(_) => Value::from(field.to_string()),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => bytes_value(bytes.data()),
        Field::Date(days) => {
            day(*days).map_or_else(|| Value::from(*days), |day| Value::from(day.to_string()))
        }
        Field::TimeMillis(millis) => time_of_day(i64::from(*millis) * 1000),
        Field::TimeMicros(micros) => time_of_day(*micros),
        Field::TimestampMillis(millis) => {
            timestamp(Timestamp::from_millisecond(*millis).ok(), column.is_some_and(is_utc), *millis)
        }
        Field::TimestampMicros(micros) => {
            timestamp(Timestamp::from_microsecond(*micros).ok(), column.is_some_and(is_utc), *micros)
        }
        Field::Group(row) => row_value(row, column.map_or(&[], fields_of)),
        Field::ListInternal(list) => {
            let element = column.and_then(element_type);
            list.elements().iter().map(|field| value(field, element)).collect()
        }
        Field::MapInternal(map) => {
            let pair = column.and_then(|map| fields_of(map).first()).map_or(&[][..], |pair| fields_of(pair));
            let mut object = Map::with_capacity(map.len());
            for (key, field) in map.entries() {
                let key = value(key, pair.first().map(|key| &**key));
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                object.insert(key, value(field, pair.get(1).map(|field| &**field)));
            }
            Value::Object(object)
        }
    }
}

/// Returns the types of the fields of a group; none for a plain value.
fn fields_of(column: &Type) -> &[TypePtr] {
    if column.is_group() { column.get_fields() } else { &[] }
}

/// Returns the type of the elements of a list.
fn element_type(list: &Type) -> Option<&Type> {
    let repeated = fields_of(list).first()?;
    match fields_of(repeated) {
        [only] => Some(only),
        _ => Some(repeated),
    }
}

/// Returns whether a column of timestamps is in UTC, and not in a local time without a zone.
fn is_utc(column: &Type) -> bool {
    match column.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(kind)) => kind.is_adjusted_to_u_t_c,
        _ => true,
    }
}

/// Returns whether a column of timestamps in nanoseconds is in UTC; `None` if it is another column.
fn nanoseconds(column: &Type) -> Option<bool> {
    match column.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(kind)) if kind.unit == TimeUnit::NANOS => Some(kind.is_adjusted_to_u_t_c),
        _ => None,
    }
}

/// Returns a moment as text, with `Z` if it is in UTC. One that is out of range is its number.
fn timestamp(moment: Option<Timestamp>, is_utc: bool, number: i64) -> Value {
    match moment {
        Some(moment) if is_utc => Value::from(moment.to_string()),
        Some(moment) => Value::from(moment.to_zoned(TimeZone::UTC).datetime().to_string()),
        None => Value::from(number),
    }
}

fn day(days: i32) -> Option<Date> {
    date(1970, 1, 1).checked_add(days.days()).ok()
}

fn time_of_day(micros: i64) -> Value {
    let time = Time::midnight().checked_add(micros.microseconds());
    time.map_or_else(|_| Value::from(micros), |time| Value::from(time.to_string()))
}

/// Returns a number; one that JSON does not have, such as NaN, is null.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn bytes_value(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => Value::from(BASE64_STANDARD.encode(bytes)),
    }
}
