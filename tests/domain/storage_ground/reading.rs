//! What levels of blocks show, read the plain way: every block, from the oldest level to the newest.

use super::*;

/// The newest version of a key.
#[derive(Clone, Debug)]
pub struct Newest {
    pub values: Vec<Value>,
    pub stamp: Stamp,
    pub is_tombstone: bool,
}

/// The newest version of every key, tombstones included, range deletes not looked at.
pub fn newest_rows(levels: &[Level], layout: &Layout, keyspace: KeyspaceId) -> BTreeMap<Vec<u8>, Newest> {
    let mut newest = BTreeMap::new();
    for level in levels.iter().rev() {
        for entry in level.manifest.blocks(keyspace) {
            let rows: Rows = level.source.read(entry).unwrap().decode(layout).unwrap();
            assert_eq!(rows.keys.get(0), &*entry.first);
            assert_eq!(rows.keys.get(rows.len() - 1), &*entry.last);
            for i in 0..rows.len() {
                let key = rows.keys.get(i);
                if let Some(filter) = &entry.filter {
                    assert!(chronos::storage::filter::may_contain(filter, key));
                }
                let values = rows.columns.iter().map(|column| column.value(i)).collect();
                let is_tombstone = rows.metadata.tombstone[i];
                newest.insert(key.to_vec(), Newest { values, stamp: rows.metadata.stamp(i), is_tombstone });
            }
        }
    }
    newest
}

fn is_hidden(levels: &[Level], key: &[u8], modified: LogIndex) -> bool {
    let deletes = levels.iter().flat_map(|level| level.range_deletes.iter());
    let mut deletes = deletes.filter(|delete| delete.keyspace == ROWS);
    deletes.any(|delete| modified < delete.index && delete.range.contains(key))
}

/// Every visible row with `created` and position, in key order.
pub fn visible_rows(levels: &[Level], state: &StateRecord) -> Vec<(Vec<Value>, u64, u64)> {
    let Some(layout) = state.catalog.layout(ROWS) else { return Vec::new() };
    let expired_below = state.catalog.owner(ROWS).unwrap().expired_below(state.now_ms());
    newest_rows(levels, &layout, ROWS)
        .into_iter()
        .filter(|(key, row)| {
            !row.is_tombstone && row.stamp.created_ms >= expired_below && !is_hidden(levels, key, row.stamp.modified)
        })
        .map(|(_, row)| (row.values, row.stamp.created_ms, row.stamp.modified.0))
        .collect()
}

pub fn visible_entries(levels: &[Level], state: &StateRecord) -> Vec<Vec<Value>> {
    let Some(layout) = state.catalog.layout(INDEX) else { return Vec::new() };
    let expired_below = state.catalog.owner(ROWS).unwrap().expired_below(state.now_ms());
    newest_rows(levels, &layout, INDEX)
        .into_values()
        .filter(|entry| {
            let row = keys::encode(&entry.values[1..]);
            !entry.is_tombstone
                && entry.stamp.created_ms >= expired_below
                && !is_hidden(levels, &row, entry.stamp.modified)
        })
        .map(|entry| entry.values)
        .collect()
}
