//! Aggregates under way: a value for each group.
//!
//! An accumulator takes a column and the groups of its rows. Runs are worked on as slices ([`super::kernels`]); a
//! constant column counts as often as it has rows, without a loop.
//!
//! * NULL is skipped by all but `COUNT(*)`. Zero stands at null positions, so sums need not look for them.
//! * Sums of INT are kept in 128 bits and checked at the end: 22003 depends on the sum, not on the order of rows.
//! * DISTINCT lets each value of a group through once.

use super::grouping::{Assignment, Run};
use super::kernels::{End, FloatSum, sum_integers};
use super::numbering::Bytes;
use crate::error::{Error, Result, SqlState};
use crate::sql::batch::{Column, ColumnBuilder, Values};
use crate::sql::expression::Expression;
use crate::sql::plan::{Aggregate, AggregateFunction};
use crate::sql::value::{DataType, Value, order_floats};
use crate::storage::keys;

/// One aggregate over all groups.
pub(super) struct Accumulator {
    state: State,
    data_type: DataType,
    distinct: Option<Distinct>,
}

enum State {
    /// `COUNT(*)`, `COUNT(x)`
    Count(Vec<i64>),
    /// SUM and AVG of INT.
    Integers { totals: Vec<(i128, u64)>, mean: bool },
    /// SUM and AVG of FLOAT.
    Floats { totals: Vec<(FloatSum, u64)>, mean: bool },
    /// MIN and MAX of BOOL, INT, TIMESTAMP.
    IntegerEnd { ends: Vec<Option<i64>>, end: End },
    /// MIN and MAX of FLOAT.
    FloatEnd { ends: Vec<Option<f64>>, end: End },
    /// MIN and MAX of TEXT, BLOB.
    StringEnd { ends: Vec<Option<Box<[u8]>>>, end: End, bytes: usize },
}

/// Pairs of group and value that have come.
struct Distinct {
    seen: Bytes,
    key: Vec<u8>,
}

impl Accumulator {
    /// An accumulator without groups.
    pub(super) fn new(aggregate: &Aggregate) -> Result<Accumulator> {
        let of = aggregate.argument.as_ref().map(Expression::data_type);
        let mean = aggregate.function == AggregateFunction::Avg;
        let refuse = |data_type: DataType| {
            let message = format!("function {:?}({data_type}) does not exist", aggregate.function);
            Err(Error::invalid(SqlState::UNDEFINED_FUNCTION, message.to_lowercase()))
        };
        let state = match (aggregate.function, of) {
            (AggregateFunction::Count, _) => State::Count(Vec::new()),
            (_, None) => return Err(Error::internal("only COUNT goes without an argument")),
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(DataType::Int)) => {
                State::Integers { totals: Vec::new(), mean }
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(DataType::Float)) => {
                State::Floats { totals: Vec::new(), mean }
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(other)) => return refuse(other),
            (AggregateFunction::Min, Some(of)) => State::end(End::Least, of),
            (AggregateFunction::Max, Some(of)) => State::end(End::Greatest, of),
        };
        let distinct = if aggregate.distinct && aggregate.argument.is_some() {
            Some(Distinct { seen: Bytes::new()?, key: Vec::new() })
        } else {
            None
        };
        Ok(Accumulator { state, data_type: aggregate.data_type, distinct })
    }

    /// Makes room for so many groups.
    pub(super) fn resize(&mut self, groups: usize) {
        match &mut self.state {
            State::Count(counts) => counts.resize(groups, 0),
            State::Integers { totals, .. } => totals.resize(groups, (0, 0)),
            State::Floats { totals, .. } => totals.resize(groups, (FloatSum::default(), 0)),
            State::IntegerEnd { ends, .. } => ends.resize(groups, None),
            State::FloatEnd { ends, .. } => ends.resize(groups, None),
            State::StringEnd { ends, .. } => ends.resize(groups, None),
        }
    }

    /// Bytes held.
    pub(super) fn byte_len(&self) -> usize {
        let state = match &self.state {
            State::Count(counts) => counts.capacity() * size_of::<i64>(),
            State::Integers { totals, .. } => totals.capacity() * size_of::<(i128, u64)>(),
            State::Floats { totals, .. } => totals.capacity() * size_of::<(FloatSum, u64)>(),
            State::IntegerEnd { ends, .. } => ends.capacity() * size_of::<Option<i64>>(),
            State::FloatEnd { ends, .. } => ends.capacity() * size_of::<Option<f64>>(),
            State::StringEnd { ends, bytes, .. } => ends.capacity() * size_of::<Option<Box<[u8]>>>() + bytes,
        };
        state + self.distinct.as_ref().map_or(0, |distinct| distinct.seen.byte_len())
    }

    /// Takes the rows of a batch; `argument` is none for `COUNT(*)`.
    pub(super) fn update(&mut self, argument: Option<&Column>, groups: &Assignment) {
        if let (Some(distinct), Some(column)) = (&mut self.distinct, argument) {
            let (rows, groups) = distinct.first_of(column, groups);
            if !rows.is_empty() {
                self.state.update(Some(&column.gather(&rows)), &Assignment::Rows(groups));
            }
            return;
        }
        self.state.update(argument, groups);
    }

    /// The results of the groups `from..to`.
    ///
    /// # Errors
    /// 22003 where a sum is out of range.
    pub(super) fn finish(&self, from: usize, to: usize) -> Result<Column> {
        let mut out = ColumnBuilder::new(self.data_type, to - from);
        for group in from..to {
            out.push(&self.result(group)?);
        }
        Ok(out.finish())
    }

    fn result(&self, group: usize) -> Result<Value> {
        Ok(match &self.state {
            State::Count(counts) => Value::Int(counts[group]),
            State::Integers { totals, mean } => match totals[group] {
                (_, 0) => Value::Null,
                (sum, count) if *mean => Value::Float(sum as f64 / count as f64),
                (sum, _) => Value::Int(
                    i64::try_from(sum)
                        .map_err(|_| Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, "INT out of range"))?,
                ),
            },
            State::Floats { totals, mean } => match &totals[group] {
                (_, 0) => Value::Null,
                (sum, count) => {
                    let sum = sum.value().ok_or_else(|| {
                        Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, "value out of range: overflow")
                    })?;
                    Value::Float(if *mean { sum / *count as f64 } else { sum })
                }
            },
            State::IntegerEnd { ends, .. } => match (ends[group], self.data_type) {
                (None, _) => Value::Null,
                (Some(value), DataType::Bool) => Value::Bool(value != 0),
                (Some(value), DataType::Timestamp) => Value::Timestamp(value),
                (Some(value), DataType::Int | DataType::Float | DataType::Text | DataType::Blob) => Value::Int(value),
            },
            State::FloatEnd { ends, .. } => ends[group].map_or(Value::Null, Value::Float),
            State::StringEnd { ends, .. } => match (&ends[group], self.data_type) {
                (None, _) => Value::Null,
                (Some(value), DataType::Blob) => Value::Blob(value.to_vec()),
                (Some(value), _) => Value::Text(String::from_utf8_lossy(value).into_owned()),
            },
        })
    }
}

impl Distinct {
    /// The rows whose value is new to its group, with their groups.
    fn first_of(&mut self, column: &Column, groups: &Assignment) -> (Vec<u32>, Vec<u32>) {
        let (mut rows, mut of) = (Vec::new(), Vec::new());
        let constant = matches!(column, Column::Constant { .. });
        let mut visit = |row: u32, group: u32| {
            if column.is_null(row as usize) {
                return;
            }
            self.key.clear();
            self.key.extend_from_slice(&group.to_be_bytes());
            keys::push_cell(&mut self.key, column, row as usize);
            let known = self.seen.len();
            if self.seen.number(&self.key) as usize == known {
                rows.push(row);
                of.push(group);
            }
        };
        match groups {
            Assignment::Runs(runs) => {
                for run in runs {
                    let to = if constant { run.to.min(run.from + 1) } else { run.to };
                    (run.from..to).for_each(|row| visit(row, run.group));
                }
            }
            Assignment::Rows(groups) => (0u32..).zip(groups).for_each(|(row, &group)| visit(row, group)),
        }
        (rows, of)
    }
}

impl State {
    fn end(end: End, of: DataType) -> State {
        match of {
            DataType::Bool | DataType::Int | DataType::Timestamp => State::IntegerEnd { ends: Vec::new(), end },
            DataType::Float => State::FloatEnd { ends: Vec::new(), end },
            DataType::Text | DataType::Blob => State::StringEnd { ends: Vec::new(), end, bytes: 0 },
        }
    }

    fn update(&mut self, argument: Option<&Column>, groups: &Assignment) {
        match groups {
            Assignment::Runs(runs) => runs.iter().for_each(|run| self.take_run(argument, *run)),
            Assignment::Rows(groups) => self.take_rows(argument, groups),
        }
    }

    /// Takes the rows of one run.
    fn take_run(&mut self, argument: Option<&Column>, run: Run) {
        let group = run.group as usize;
        let (from, to) = (run.from as usize, run.to as usize);
        let Some(column) = argument else {
            if let State::Count(counts) = self {
                counts[group] += (to - from) as i64;
            }
            return;
        };
        let (values, nulls) = match column {
            Column::Constant { value, .. } => return self.take_repeated(value, group, to - from),
            Column::Vector { values, nulls } => (values, nulls.as_ref().map(|nulls| &nulls[from..to])),
        };
        let present = to - from - nulls.map_or(0, |nulls| nulls.iter().filter(|null| **null).count());
        if present == 0 {
            return;
        }
        match (&mut *self, values) {
            (State::Count(counts), _) => counts[group] += present as i64,
            (State::Integers { totals, .. }, Values::Int(values)) => {
                totals[group].0 += sum_integers(&values[from..to]);
                totals[group].1 += present as u64;
            }
            (State::Floats { totals, .. }, Values::Float(values)) => {
                totals[group].0.add_all(&values[from..to]);
                totals[group].1 += present as u64;
            }
            (State::IntegerEnd { ends, end }, Values::Int(values) | Values::Timestamp(values)) if nulls.is_none() => {
                if let Some(value) = end.of_integers(&values[from..to]) {
                    keep_integer(&mut ends[group], *end, value);
                }
            }
            (State::FloatEnd { ends, end }, Values::Float(values)) if nulls.is_none() => {
                if let Some(value) = end.of_floats(&values[from..to]) {
                    keep_float(&mut ends[group], *end, value);
                }
            }
            _ => (from..to).for_each(|row| self.take_row(column, row, group)),
        }
    }

    /// Takes one value so many times.
    fn take_repeated(&mut self, value: &Value, group: usize, times: usize) {
        match (self, value) {
            (_, Value::Null) => {}
            (State::Count(counts), _) => counts[group] += times as i64,
            (State::Integers { totals, .. }, Value::Int(value)) => {
                totals[group].0 += i128::from(*value) * times as i128;
                totals[group].1 += times as u64;
            }
            (State::Floats { totals, .. }, Value::Float(value)) => {
                totals[group].0.add_repeated(*value, times);
                totals[group].1 += times as u64;
            }
            (State::IntegerEnd { ends, end }, Value::Int(value) | Value::Timestamp(value)) => {
                keep_integer(&mut ends[group], *end, *value);
            }
            (State::IntegerEnd { ends, end }, Value::Bool(value)) => {
                keep_integer(&mut ends[group], *end, i64::from(*value));
            }
            (State::FloatEnd { ends, end }, Value::Float(value)) => keep_float(&mut ends[group], *end, *value),
            (State::StringEnd { ends, end, bytes }, Value::Text(value)) => {
                keep_string(&mut ends[group], *end, bytes, value.as_bytes());
            }
            (State::StringEnd { ends, end, bytes }, Value::Blob(value)) => {
                keep_string(&mut ends[group], *end, bytes, value);
            }
            (_, value) => panic!("an aggregate was given {value:?}"),
        }
    }

    /// Takes each row by itself: what short runs come to.
    fn take_rows(&mut self, argument: Option<&Column>, groups: &[u32]) {
        match (&mut *self, argument) {
            (State::Count(counts), None) => groups.iter().for_each(|&group| counts[group as usize] += 1),
            (State::Integers { totals, .. }, Some(Column::Vector { values: Values::Int(values), nulls: None })) => {
                for (&group, &value) in groups.iter().zip(values) {
                    let total = &mut totals[group as usize];
                    total.0 += i128::from(value);
                    total.1 += 1;
                }
            }
            (State::Floats { totals, .. }, Some(Column::Vector { values: Values::Float(values), nulls: None })) => {
                for (&group, &value) in groups.iter().zip(values) {
                    let total = &mut totals[group as usize];
                    total.0.add(value);
                    total.1 += 1;
                }
            }
            (State::FloatEnd { ends, end }, Some(Column::Vector { values: Values::Float(values), nulls: None })) => {
                for (&group, &value) in groups.iter().zip(values) {
                    keep_float(&mut ends[group as usize], *end, value);
                }
            }
            (_, Some(column)) => {
                for (row, &group) in groups.iter().enumerate() {
                    self.take_row(column, row, group as usize);
                }
            }
            (_, None) => panic!("only COUNT goes without an argument"),
        }
    }

    fn take_row(&mut self, column: &Column, row: usize, group: usize) {
        if column.is_null(row) {
            return;
        }
        let Column::Vector { values, .. } = column else {
            return self.take_repeated(&column.value(row), group, 1);
        };
        match (self, values) {
            (State::Count(counts), _) => counts[group] += 1,
            (State::Integers { totals, .. }, Values::Int(values)) => {
                totals[group].0 += i128::from(values[row]);
                totals[group].1 += 1;
            }
            (State::Floats { totals, .. }, Values::Float(values)) => {
                totals[group].0.add(values[row]);
                totals[group].1 += 1;
            }
            (State::IntegerEnd { ends, end }, Values::Int(values) | Values::Timestamp(values)) => {
                keep_integer(&mut ends[group], *end, values[row]);
            }
            (State::IntegerEnd { ends, end }, Values::Bool(values)) => {
                keep_integer(&mut ends[group], *end, i64::from(values[row]));
            }
            (State::FloatEnd { ends, end }, Values::Float(values)) => {
                keep_float(&mut ends[group], *end, values[row]);
            }
            (State::StringEnd { ends, end, bytes }, Values::Text(values) | Values::Blob(values)) => {
                keep_string(&mut ends[group], *end, bytes, values.get(row));
            }
            (_, values) => panic!("an aggregate was given {} values", values.data_type()),
        }
    }
}

fn keep_integer(held: &mut Option<i64>, end: End, value: i64) {
    if held.is_none_or(|held| end.prefers(value.cmp(&held))) {
        *held = Some(value);
    }
}

fn keep_float(held: &mut Option<f64>, end: End, value: f64) {
    if held.is_none_or(|held| end.prefers(order_floats(value, held))) {
        *held = Some(value);
    }
}

fn keep_string(held: &mut Option<Box<[u8]>>, end: End, bytes: &mut usize, value: &[u8]) {
    if held.as_deref().is_none_or(|held| end.prefers(value.cmp(held))) {
        *bytes -= held.as_deref().map_or(0, <[u8]>::len);
        *bytes += value.len();
        *held = Some(value.into());
    }
}
