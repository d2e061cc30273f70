//! Short ways to write expressions, plans and batches, and a map of rows to read from.

use chronos::error::Result;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, KeyspaceId, LogIndex, OriginUid};
use chronos::sql::batch::{Batch, Column, ColumnBuilder};
use chronos::sql::expression::{BinaryOperator, Expression, UnaryOperator};
use chronos::sql::memory::Pool;
use chronos::sql::operator::{self, BatchSource, Context, PointSource, Source};
use chronos::sql::plan::Plan;
use chronos::sql::value::{DataType, Value};
use chronos::storage::keys::{self, KeyRange};
use chronos::storage::rows::Stamp;
use chronos::storage::view::{Found, ScanBatch, ScanRequest};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn int(value: i64) -> Expression {
    Expression::Constant { value: Value::Int(value), data_type: DataType::Int }
}

pub fn float(value: f64) -> Expression {
    Expression::Constant { value: Value::Float(value), data_type: DataType::Float }
}

pub fn text(value: &str) -> Expression {
    Expression::Constant { value: Value::Text(value.into()), data_type: DataType::Text }
}

pub fn boolean(value: Option<bool>) -> Expression {
    Expression::Constant { value: value.map_or(Value::Null, Value::Bool), data_type: DataType::Bool }
}

pub fn null(data_type: DataType) -> Expression {
    Expression::Constant { value: Value::Null, data_type }
}

pub fn column(index: usize, data_type: DataType) -> Expression {
    Expression::Column { index, data_type, name: format!("c{index}") }
}

pub fn binary(operator: BinaryOperator, left: Expression, right: Expression) -> Expression {
    Expression::Binary { operator, left: Box::new(left), right: Box::new(right) }
}

pub fn not(input: Expression) -> Expression {
    Expression::Unary { operator: UnaryOperator::Not, input: Box::new(input) }
}

pub fn cast(input: Expression, to: DataType) -> Expression {
    Expression::Cast { input: Box::new(input), to }
}

/// A batch whose columns are vectors of these types.
pub fn batch(types: &[DataType], rows: &[Vec<Value>]) -> Batch {
    let mut columns: Vec<ColumnBuilder> = types.iter().map(|&of| ColumnBuilder::new(of, rows.len())).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    Batch { columns: columns.into_iter().map(|column| Arc::new(column.finish())).collect(), rows: rows.len() }
}

/// A batch of one row whose columns are constants.
pub fn constant_batch(types: &[DataType], row: &[Value]) -> Batch {
    let column = |(value, &of): (&Value, &DataType)| Arc::new(Column::constant(value.clone(), of, 1));
    Batch { columns: row.iter().zip(types).map(column).collect(), rows: 1 }
}

/// Equal as SQL's IS NOT DISTINCT FROM says.
pub fn same(a: &Value, b: &Value) -> bool {
    a.order(b) == Ordering::Equal
}

pub fn values_plan(types: &[DataType], rows: &[Vec<Value>]) -> Plan {
    let cell = |(value, &data_type): (&Value, &DataType)| Expression::Constant { value: value.clone(), data_type };
    let rows = rows.iter().map(|row| row.iter().zip(types).map(cell).collect()).collect();
    Plan::Values { rows, types: types.to_vec() }
}

pub fn context(source: impl Source + 'static) -> Context {
    Context {
        source: Arc::new(source),
        now_ms: 0,
        memory: Pool::new(1 << 30).query(1 << 30),
        interrupt: Arc::new(|| Ok(())),
        analysis: None,
    }
}

/// All rows of a plan over no tables.
pub fn run(plan: &Plan) -> Result<Vec<Vec<Value>>> {
    run_in(plan, &context(Map::default()))
}

/// All rows of a plan.
pub fn run_in(plan: &Plan, context: &Context) -> Result<Vec<Vec<Value>>> {
    let batches = operator::collect(&mut *operator::build(plan, context)?)?;
    Ok(batches.iter().flat_map(|batch| (0..batch.rows).map(|i| batch.row(i))).collect())
}

/// Rows by keyspace and key. Storage as a plain map: columns are found by their place in `columns`.
#[derive(Clone, Default)]
pub struct Map {
    pub keyspaces: BTreeMap<KeyspaceId, Keyspace>,
}

#[derive(Clone, Default)]
pub struct Keyspace {
    pub columns: Vec<(ColumnId, DataType)>,
    /// By key: created (ms), and the values; none is a tombstone.
    pub rows: BTreeMap<Vec<u8>, (u64, Option<Vec<Value>>)>,
}

impl Keyspace {
    fn pick(&self, row: &[Value], columns: &[ColumnId]) -> Vec<Value> {
        let place = |id: &ColumnId| self.columns.iter().position(|(known, _)| known == id).expect("a known column");
        columns.iter().map(|id| row[place(id)].clone()).collect()
    }
}

struct MapScan {
    batches: std::vec::IntoIter<Batch>,
}

impl BatchSource for MapScan {
    fn next_batch(&mut self) -> Result<Option<ScanBatch>> {
        Ok(self.batches.next().map(|batch| ScanBatch { batch, keys: None }))
    }
}

struct MapPoints {
    keyspace: Keyspace,
    columns: Vec<ColumnId>,
}

impl PointSource for MapPoints {
    fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        Ok(self.keyspace.rows.get(key).map(|(created_ms, row)| Found {
            stamp: Stamp { created_ms: *created_ms, hlc: Timestamp(1), origin: OriginUid(1), modified: LogIndex(1) },
            values: row.as_ref().map(|row| self.keyspace.pick(row, &self.columns)),
        }))
    }
}

impl Source for Map {
    fn scan(&self, request: ScanRequest) -> Result<Box<dyn BatchSource>> {
        let keyspace = self.keyspaces.get(&request.keyspace).cloned().unwrap_or_default();
        let wanted = |key: &[u8]| request.ranges.iter().any(|range: &KeyRange| range.contains(key));
        let rows: Vec<Vec<Value>> = keyspace
            .rows
            .iter()
            .filter(|(key, (created_ms, _))| wanted(key) && *created_ms >= request.expired_below_ms)
            .filter_map(|(_, (_, row))| row.as_ref().map(|row| keyspace.pick(row, &request.columns)))
            .collect();
        let type_of = |id: &ColumnId| keyspace.columns.iter().find(|(known, _)| known == id).expect("a known column").1;
        let types: Vec<DataType> = request.columns.iter().map(type_of).collect();
        let batches: Vec<Batch> = rows.chunks(request.batch_rows).map(|rows| batch(&types, rows)).collect();
        Ok(Box::new(MapScan { batches: batches.into_iter() }))
    }

    fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>> {
        let keyspace = self.keyspaces.get(&keyspace).cloned().unwrap_or_default();
        Ok(Box::new(MapPoints { keyspace, columns: columns.to_vec() }))
    }
}

/// The encoded key of these values.
pub fn key(values: &[Value]) -> Vec<u8> {
    keys::encode(values).to_vec()
}

/// Batches as they are, whatever is asked for.
pub struct Blocks(pub Vec<Batch>);

impl Source for Blocks {
    fn scan(&self, _: ScanRequest) -> Result<Box<dyn BatchSource>> {
        Ok(Box::new(MapScan { batches: self.0.clone().into_iter() }))
    }

    fn points(&self, keyspace: KeyspaceId, columns: &[ColumnId]) -> Result<Box<dyn PointSource>> {
        Map::default().points(keyspace, columns)
    }
}

/// Rows in batches of these sizes, over and over; a column of one value is a constant, as storage has it.
pub fn blocks(types: &[DataType], rows: &[Vec<Value>], sizes: &[usize]) -> Blocks {
    let mut batches = Vec::new();
    let mut rest = rows;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (rows, others) = rest.split_at((*size).min(rest.len()));
        rest = others;
        let mut block = batch(types, rows);
        for (column, &of) in block.columns.iter_mut().zip(types) {
            let first = column.value(0);
            if (1..column.len()).all(|i| format!("{:?}", column.value(i)) == format!("{first:?}")) {
                *column = Arc::new(Column::constant(first, of, rows.len()));
            }
        }
        batches.push(block);
    }
    Blocks(batches)
}
