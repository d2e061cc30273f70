//! `chronos export --skip-damaged`: what can still be read of a table with damaged blocks.
//!
//! What is missing is named by the values of the key, on standard error, before the first row is written; rows of a table
//! without a key by when they were inserted.

use super::super::embedded::Embedded;
use super::super::output::{Format, Writer};
use super::super::session::{Column, Sink, sink_error};
use super::super::{Stop, report};
use chronos::error::{Error, Result, SqlState};
use chronos::hlc::Timestamp;
use chronos::sql::catalog::Table;
use chronos::sql::execute::Group;
use chronos::sql::value::Value;
use chronos::storage::keys::{self, Key, KeyRange};
use chronos::storage::rescue::{Lost, Rescue};
use chronos::storage::view::ScanRequest;
use std::io::Write;
use std::sync::Arc;

/// Rows read at once: those of a sealed block.
const BATCH_ROWS: usize = 2048;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Rows written.
    pub rows: u64,
    /// Blocks that cannot be read.
    pub blocks_lost: usize,
    /// Rows in them, at most so many that are missing.
    pub rows_lost: u64,
    /// Rows that can be read and are older than a block that cannot: it may have replaced or deleted them.
    pub left_out: u64,
}

impl Saved {
    /// What is said of it where something is missing.
    pub fn complaint(&self) -> Option<String> {
        if self.blocks_lost == 0 {
            return None;
        }
        let Saved { rows, blocks_lost, rows_lost, left_out } = self;
        let blocks = if *blocks_lost == 1 { "block" } else { "blocks" };
        let older = match left_out {
            0 => String::new(),
            some => format!(", and {some} older rows, which may have been replaced or deleted in there, were left out"),
        };
        Some(format!("{rows} rows are written; {rows_lost} rows in {blocks_lost} {blocks} cannot be read{older}"))
    }
}

/// Writes what can be read of a table.
pub fn write(session: &Embedded, table: &str, format: Format, out: &mut dyn Write) -> std::result::Result<Saved, Stop> {
    let mut writer = Writer::new(out, format);
    let outcome = save(session, table, &mut writer);
    let finished = writer.finish(outcome.is_err());
    let saved = outcome.map_err(|error| Stop::Message(report::describe(&error, "").trim_end().to_owned()))?;
    finished.and_then(|()| out.flush()).map_err(|error| Stop::output(&error))?;
    Ok(saved)
}

fn save(session: &Embedded, name: &str, sink: &mut dyn Sink) -> Result<Saved> {
    let group = session.database().group();
    let handle = group.handle().ok_or_else(|| Error::unavailable("the database is closed"))?;
    // It takes as long as it takes, and nobody else is here.
    let view = handle.lasting_view();
    let table = view
        .catalog
        .table(name)
        .cloned()
        .ok_or_else(|| Error::invalid(SqlState::UNDEFINED_TABLE, format!("table \"{name}\" does not exist")))?;
    let request = ScanRequest {
        keyspace: table.keyspace,
        ranges: vec![KeyRange::all()],
        columns: table.columns.iter().map(|column| column.id).collect(),
        bounds: Vec::new(),
        expired_below_ms: table.expired_below(group.instant().wall().0),
        with_keys: true,
        batch_rows: BATCH_ROWS,
    };
    let mut saved = Saved::default();
    let mut rescue = Rescue::new(&view, request, &mut |lost: Lost| {
        saved.rows_lost += u64::from(lost.rows);
        eprintln!("missing: {} ({} rows): {}", range(&table, &lost), lost.rows, lost.error.message());
    })?;
    saved.blocks_lost = rescue.blocks_lost();
    let columns: Vec<Column> = table
        .columns
        .iter()
        .map(|column| Column { name: column.name.clone(), data_type: Some(column.data_type) })
        .collect();
    sink.head(&columns).map_err(|error| sink_error(&error))?;
    while let Some(batch) = rescue.next_batch()? {
        for row in 0..batch.rows {
            sink.row(&batch.row(row)).map_err(|error| sink_error(&error))?;
        }
        saved.rows += batch.rows as u64;
    }
    saved.left_out = rescue.left_out();
    Ok(saved)
}

/// The keys of a block as its table's user knows them.
fn range(table: &Arc<Table>, lost: &Lost) -> String {
    if table.has_row_id() {
        return format!("rows inserted from {} to {}", inserted(table, &lost.first), inserted(table, &lost.last));
    }
    let names: Vec<&str> =
        table.primary_key.iter().filter_map(|id| Some(table.column_by_id(*id)?.name.as_str())).collect();
    format!("{} from {} to {}", listed(&names), values(table, &lost.first), values(table, &lost.last))
}

/// When the row of a hidden row id was inserted: its first component is the stamp.
fn inserted(table: &Arc<Table>, key: &Key) -> String {
    match decoded(table, key).as_deref() {
        Some([Value::Int(stamp), ..]) => {
            let wall_ms = Timestamp(*stamp as u64).wall().0;
            Value::Timestamp(i64::try_from(wall_ms).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
        }
        Some(_) | None => format!("{key:?}"),
    }
}

fn values(table: &Arc<Table>, key: &Key) -> String {
    match decoded(table, key) {
        Some(values) => listed(&values),
        None => format!("{key:?}"),
    }
}

fn decoded(table: &Arc<Table>, key: &Key) -> Option<Vec<Value>> {
    keys::decode(key, &table.layout().key_types()).ok()
}

/// One as it is, several in parentheses.
fn listed(items: &[impl ToString]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    if let [only] = texts.as_slice() { only.clone() } else { format!("({})", texts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_one_line_and_nothing_where_nothing_is() {
        let saved = Saved { rows: 100, blocks_lost: 1, rows_lost: 2048, left_out: 0 };
        assert_eq!(saved.complaint().expect("said"), "100 rows are written; 2048 rows in 1 block cannot be read");
        let more = Saved { blocks_lost: 2, left_out: 7, ..saved };
        assert!(more.complaint().expect("said").ends_with(
            "2 blocks cannot be read, and 7 older rows, which may have been replaced or deleted in there, were left out"
        ));
        assert_eq!(Saved { rows: 100, ..Saved::default() }.complaint(), None);
    }
}
