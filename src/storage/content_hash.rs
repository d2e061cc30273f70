//! The content hash: one number for everything that a view shows, equal on every replica at the same position.
//!
//! ```text
//! sum mod 2^128 over visible rows of H(keyspace, key, column id: value, ..., HLC, origin)  +  H(catalog)
//! ```
//!
//! A sum does not depend on the order of rows, so replicas whose levels were flushed, sealed and merged at different
//! times agree; and sums of parts can be added. Rows that have expired, or that a newer version shadows, are not there.
//!
//! * Expiry is judged by the stamp of the last applied entry, which the position decides.
//! * What only this disk knows (positions of the log within rows, levels, blocks) does not count.
//! * It shows that two copies differ, not that somebody meant them to: H is fast, not cryptographic.

use crate::Result;
use crate::ids::KeyspaceId;
use crate::sql::batch::Column;
use crate::sql::catalog::{Layout, SESSIONS, STAGES};
use crate::storage::keys::{self, KeyRange};
use crate::storage::view::{ScanRequest, View};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Rows taken from a scan at once.
const STEP_ROWS: usize = 1024;

/// The hash of all that `view` shows. `pause` is called once a step: it may wait, or end the work by an error.
pub fn content_hash(view: &View, pause: &dyn Fn() -> Result<()>) -> Result<u128> {
    let now_ms = view.hlc.wall().0;
    let catalog = postcard::to_stdvec(&*view.catalog).expect("a catalog has a plain encoding");
    let mut sum = xxh3_128(&catalog);
    for keyspace in [SESSIONS, STAGES] {
        sum = sum.wrapping_add(keyspace_hash(view, keyspace, &Layout::system(), 0, pause)?);
    }
    for table in view.catalog.tables() {
        let expired_below_ms = table.expired_below(now_ms);
        sum = sum.wrapping_add(keyspace_hash(view, table.keyspace, &table.layout(), expired_below_ms, pause)?);
    }
    Ok(sum)
}

fn keyspace_hash(
    view: &View,
    keyspace: KeyspaceId,
    layout: &Layout,
    expired_below_ms: u64,
    pause: &dyn Fn() -> Result<()>,
) -> Result<u128> {
    let columns: Vec<_> = layout.columns.iter().map(|column| column.id).collect();
    let mut scanner = view.scan(ScanRequest {
        keyspace,
        ranges: vec![KeyRange::all()],
        columns: columns.clone(),
        bounds: vec![],
        expired_below_ms,
        with_keys: true,
        batch_rows: STEP_ROWS,
    })?;
    let (mut sum, mut row_bytes) = (0u128, Vec::new());
    while let Some(scanned) = scanner.next_batch()? {
        pause()?;
        let (row_keys, metadata) = scanned.keys.expect("keys were asked for");
        for row in 0..scanned.batch.rows {
            row_bytes.clear();
            row_bytes.extend_from_slice(&keyspace.0.to_le_bytes());
            row_bytes.extend_from_slice(&(row_keys.get(row).len() as u64).to_le_bytes());
            row_bytes.extend_from_slice(row_keys.get(row));
            for (id, column) in columns.iter().zip(&scanned.batch.columns) {
                push_value(&mut row_bytes, id.0, column, row);
            }
            row_bytes.extend_from_slice(&metadata.hlc[row].to_le_bytes());
            row_bytes.extend_from_slice(&metadata.origin[row].to_le_bytes());
            sum = sum.wrapping_add(xxh3_128(&row_bytes));
        }
    }
    Ok(sum)
}

/// The key encoding is one of values too: equal bytes exactly for equal values (floats by order, so -0.0 is 0.0).
fn push_value(out: &mut Vec<u8>, id: u16, column: &Arc<Column>, row: usize) {
    out.extend_from_slice(&id.to_le_bytes());
    keys::push_cell(out, column, row);
}
