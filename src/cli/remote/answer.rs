//! An answer on its way from the wire to whoever shows it.

use super::super::session::{Column, Sink, sink_error};
use crate::actors::proto::wire::value::Value as Wire;
use crate::actors::proto::wire::{Row, SqlResponse};
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::value::{DataType, Value};

/// An answer as it arrives, in one message or many.
#[derive(Default)]
pub struct Answer {
    /// How many columns it has, once that is known.
    pub columns: Option<usize>,
    /// Rows handed on.
    pub rows: u64,
    /// Reused from row to row.
    row: Vec<Value>,
}

impl Answer {
    /// Hands on what one message holds; gives the rows that were written.
    pub fn take(&mut self, part: SqlResponse, sink: &mut dyn Sink) -> Result<u64> {
        if !part.success {
            return Err(failed(&part));
        }
        if self.columns.is_none() && !part.columns.is_empty() {
            let columns: Vec<Column> = part
                .columns
                .iter()
                .enumerate()
                .map(|(i, name)| Column { name: name.clone(), data_type: part.types.get(i).and_then(|t| data_type(t)) })
                .collect();
            sink.head(&columns).map_err(|error| sink_error(&error))?;
            self.columns = Some(columns.len());
        }
        for row in part.rows {
            self.row(row, sink)?;
        }
        Ok(part.affected)
    }

    fn row(&mut self, row: Row, sink: &mut dyn Sink) -> Result<()> {
        self.row.clear();
        self.row.extend(row.values.into_iter().map(|value| from_wire(value.value)));
        let columns = self.columns.unwrap_or(0);
        if self.row.len() != columns {
            let message = format!("the node sent a row of {} values for {columns} columns", self.row.len());
            return Err(Error::invalid(SqlState::PROTOCOL_VIOLATION, message));
        }
        self.rows += 1;
        sink.row(&self.row).map_err(|error| sink_error(&error))
    }
}

/// The error in an answer with `success = false`.
pub fn failed(response: &SqlResponse) -> Error {
    let state = SqlState::parse(&response.sqlstate);
    let kind = match state {
        SqlState::SERIALIZATION_FAILURE => Kind::Conflict,
        SqlState::IN_DOUBT => Kind::InDoubt,
        SqlState::CANNOT_CONNECT_NOW => Kind::Unavailable,
        SqlState::TOO_MANY_REQUESTS => Kind::Overloaded,
        SqlState::OUT_OF_MEMORY | SqlState::LIMIT_EXCEEDED | SqlState::QUERY_CANCELED => Kind::Limit,
        SqlState::DISK_FULL | SqlState::IO_ERROR => Kind::Io,
        SqlState::DATA_CORRUPTED => Kind::Damaged,
        SqlState::INTERNAL => Kind::Internal,
        _ => Kind::Invalid,
    };
    let error = Error::new(kind, state, response.error.clone());
    match response.position {
        0 => error,
        position => error.at(position),
    }
}

fn from_wire(value: Option<Wire>) -> Value {
    match value {
        None | Some(Wire::NullValue(_)) => Value::Null,
        Some(Wire::StringValue(text)) => Value::Text(text),
        Some(Wire::IntValue(number)) => Value::Int(number),
        Some(Wire::FloatValue(number)) => Value::Float(number),
        Some(Wire::BoolValue(flag)) => Value::Bool(flag),
    }
}

/// A type by the name that the server gives it.
pub fn data_type(name: &str) -> Option<DataType> {
    let all = [DataType::Bool, DataType::Int, DataType::Float, DataType::Text, DataType::Blob, DataType::Timestamp];
    all.into_iter().find(|data_type| data_type.to_string() == name)
}
