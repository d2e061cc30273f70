//! Which group each row belongs to.
//!
//! Rows of time series come in runs: a device's rows stand together, in a block often all of them. So a batch is
//! assigned to groups run by run, with one look into the table a run, and aggregates work on runs as slices. Only where
//! runs are short is a number given to each row.
//!
//! * Groups are numbered as they first come, from 0.
//! * NULL is a group of its own; -0.0 is in that of 0.0, all NaN are in one.

use super::numbering::{Bytes, Integers};
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, ColumnBuilder, Strings, Values};
use crate::sql::value::{DataType, Value};
use crate::storage::keys;
use std::sync::Arc;

/// Average length from which runs are worth more than a number for each row.
const RUN_ROWS_MIN: usize = 4;

/// Bytes of group keys together: they stand in one column, which is below 4 GiB, and may double before the next look.
const KEY_BYTES_MAX: usize = 1 << 30;

/// Rows `from..to` of a batch, all in one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) group: u32,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// The groups of a batch's rows.
#[derive(Debug)]
pub(super) enum Assignment {
    /// Run by run; all rows, in order.
    Runs(Vec<Run>),
    /// Row by row.
    Rows(Vec<u32>),
}

/// The groups so far.
pub(super) struct Groups {
    kind: Kind,
    types: Vec<DataType>,
    /// Room for one composite key, and for the one before.
    key: Vec<u8>,
    previous: Vec<u8>,
}

enum Kind {
    /// No group columns: one group, of everything or of nothing.
    Whole,
    /// One column of BOOL, INT or TIMESTAMP.
    Integer { numbers: Integers, null: Option<u32> },
    /// One column of TEXT or BLOB.
    Text { numbers: Bytes, null: Option<u32> },
    /// Any other: the columns as the components of a key.
    Composite { numbers: Bytes },
}

impl Groups {
    /// No groups yet; without columns, one.
    pub(super) fn new(types: Vec<DataType>) -> Result<Groups> {
        let kind = match types[..] {
            [] => Kind::Whole,
            [DataType::Bool | DataType::Int | DataType::Timestamp] => {
                Kind::Integer { numbers: Integers::new()?, null: None }
            }
            [DataType::Text | DataType::Blob] => Kind::Text { numbers: Bytes::new()?, null: None },
            _ => Kind::Composite { numbers: Bytes::new()? },
        };
        Ok(Groups { kind, types, key: Vec::new(), previous: Vec::new() })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        match &self.kind {
            Kind::Whole => 1,
            Kind::Integer { numbers, .. } => numbers.keys().len(),
            Kind::Text { numbers, .. } | Kind::Composite { numbers } => numbers.len(),
        }
    }

    /// Bytes held.
    pub(super) fn byte_len(&self) -> usize {
        match &self.kind {
            Kind::Whole => 0,
            Kind::Integer { numbers, .. } => numbers.byte_len(),
            Kind::Text { numbers, .. } | Kind::Composite { numbers } => numbers.byte_len(),
        }
    }

    /// Finds or makes the group of each row.
    pub(super) fn assign(&mut self, columns: &[Arc<Column>], rows: usize) -> Result<Assignment> {
        if self.byte_len() > KEY_BYTES_MAX {
            let message = format!("the keys of groups take more than {KEY_BYTES_MAX} bytes");
            return Err(Error::limit(SqlState::OUT_OF_MEMORY, message));
        }
        let all = |group| Assignment::Runs(vec![Run { group, from: 0, to: rows as u32 }]);
        let constant = columns.iter().all(|column| matches!(**column, Column::Constant { .. }));
        let visited = if constant { 1 } else { rows };
        let assignment = match &mut self.kind {
            Kind::Whole => return Ok(all(0)),
            Kind::Integer { numbers, null } => integers(&columns[0], numbers, null, visited),
            Kind::Text { numbers, null } => texts(&columns[0], numbers, null, visited),
            Kind::Composite { numbers } => {
                let (key, previous) = (&mut self.key, &mut self.previous);
                let mut runs = Runs::default();
                for row in 0..visited {
                    key.clear();
                    for column in columns {
                        keys::push_cell(key, column, row);
                    }
                    if row == 0 || key != previous {
                        runs.begin(numbers.number(key), row);
                        std::mem::swap(key, previous);
                    }
                }
                runs.finish(visited)
            }
        };
        if !constant {
            return Ok(assignment);
        }
        Ok(all(match assignment {
            Assignment::Runs(runs) => runs[0].group,
            Assignment::Rows(groups) => groups[0],
        }))
    }

    /// The group columns of the groups `from..to`.
    pub(super) fn columns(&self, from: usize, to: usize) -> Result<Vec<Arc<Column>>> {
        let with_null = |values: Values, null: &Option<u32>| match null {
            Some(null) if (from..to).contains(&(*null as usize)) => {
                let mut nulls = vec![false; to - from];
                nulls[*null as usize - from] = true;
                Column::with_nulls(values, nulls)
            }
            Some(_) | None => Column::new(values),
        };
        match &self.kind {
            Kind::Whole => Ok(Vec::new()),
            Kind::Integer { numbers, null } => {
                let keys = &numbers.keys()[from..to];
                let values = match self.types[0] {
                    DataType::Bool => Values::Bool(keys.iter().map(|&key| key != 0).collect()),
                    DataType::Timestamp => Values::Timestamp(keys.to_vec()),
                    DataType::Int | DataType::Float | DataType::Text | DataType::Blob => Values::Int(keys.to_vec()),
                };
                Ok(vec![Arc::new(with_null(values, null))])
            }
            Kind::Text { numbers, null } => {
                let keys: Strings = (from..to).map(|number| numbers.keys().get(number)).collect();
                let values = if self.types[0] == DataType::Blob { Values::Blob(keys) } else { Values::Text(keys) };
                Ok(vec![Arc::new(with_null(values, null))])
            }
            Kind::Composite { numbers } => {
                let mut columns: Vec<ColumnBuilder> =
                    self.types.iter().map(|&data_type| ColumnBuilder::new(data_type, to - from)).collect();
                for number in from..to {
                    let mut rest = numbers.keys().get(number);
                    for (column, &data_type) in columns.iter_mut().zip(&self.types) {
                        column.push(&keys::pull(&mut rest, data_type)?);
                    }
                }
                Ok(columns.into_iter().map(|column| Arc::new(column.finish())).collect())
            }
        }
    }
}

/// Runs under way.
#[derive(Default)]
struct Runs {
    runs: Vec<Run>,
}

impl Runs {
    fn begin(&mut self, group: u32, row: usize) {
        if let Some(last) = self.runs.last_mut() {
            last.to = row as u32;
        }
        self.runs.push(Run { group, from: row as u32, to: row as u32 });
    }

    fn finish(mut self, rows: usize) -> Assignment {
        if let Some(last) = self.runs.last_mut() {
            last.to = rows as u32;
        }
        if self.runs.len() * RUN_ROWS_MIN <= rows || self.runs.len() == 1 {
            return Assignment::Runs(self.runs);
        }
        let mut groups = Vec::with_capacity(rows);
        for run in &self.runs {
            groups.resize(run.to as usize, run.group);
        }
        Assignment::Rows(groups)
    }
}

fn integers(column: &Column, numbers: &mut Integers, null: &mut Option<u32>, rows: usize) -> Assignment {
    if let Column::Vector { values: Values::Int(values) | Values::Timestamp(values), nulls: None } = column {
        return by_rows(rows, |row| values[row], |key| numbers.number(key));
    }
    let key = |row: usize| match column {
        Column::Vector { nulls: Some(nulls), .. } if nulls[row] => None,
        Column::Vector { values: Values::Int(values) | Values::Timestamp(values), .. } => Some(values[row]),
        Column::Vector { values: Values::Bool(values), .. } => Some(i64::from(values[row])),
        Column::Constant { value: Value::Int(value) | Value::Timestamp(value), .. } => Some(*value),
        Column::Constant { value: Value::Bool(value), .. } => Some(i64::from(*value)),
        Column::Vector { .. } | Column::Constant { .. } => None,
    };
    let number = |key: Option<i64>| match key {
        Some(key) => numbers.number(key),
        None => *null.get_or_insert_with(|| numbers.add_apart(0)),
    };
    by_rows(rows, key, number)
}

fn texts(column: &Column, numbers: &mut Bytes, null: &mut Option<u32>, rows: usize) -> Assignment {
    let key = |row: usize| match column {
        Column::Vector { nulls: Some(nulls), .. } if nulls[row] => None,
        Column::Vector { values: Values::Text(values) | Values::Blob(values), .. } => Some(values.get(row)),
        Column::Constant { value: Value::Text(value), .. } => Some(value.as_bytes()),
        Column::Constant { value: Value::Blob(value), .. } => Some(&value[..]),
        Column::Vector { .. } | Column::Constant { .. } => None,
    };
    let number = |key: Option<&[u8]>| match key {
        Some(key) => numbers.number(key),
        None => *null.get_or_insert_with(|| numbers.add_apart()),
    };
    by_rows(rows, key, number)
}

fn by_rows<K: PartialEq + Copy>(rows: usize, key: impl Fn(usize) -> K, mut number: impl FnMut(K) -> u32) -> Assignment {
    let mut runs = Runs::default();
    let mut previous = None;
    for row in 0..rows {
        let key = key(row);
        if previous != Some(key) {
            runs.begin(number(key), row);
            previous = Some(key);
        }
    }
    runs.finish(rows)
}
