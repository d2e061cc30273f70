//! What flush, seal and merge may leave out, judged by one state record.
//!
//! Whoever rewrites rows asks here, and only here. The record is the one that a replay would begin from: flush judges by
//! the record that it publishes, seal by the one that becomes the birth state, merge by the birth state. A later record
//! would take from a replay what its commands saw.
//!
//! | what | left out | otherwise |
//! |---|---|---|
//! | rows of a dropped table or index | always | |
//! | a row under a range delete of higher position | always: the range delete stays | |
//! | an expired row | where no older level may hold its key | key and metadata stay, other columns become NULL |
//! | a tombstone at or below its table's floor | where no older level may hold its key | stays |
//! | a range delete at or below the floor | where there is no older level | stays |
//!
//! * An expired row that must still shadow an older one stays an expired row, never a tombstone: for the checks of
//!   apply an expired row is absent, a tombstone above the floor is not, and what merging did must not decide that.
//! * Expiry only ever grows: changing a TTL raises the watermark first, so a row left out cannot come back to life.
//! * A block goes unread only where every row in it, tombstones included, would be left out.
//! * Tombstones of the system's own keyspaces have no floor: nothing is checked against them, a key absent is absent.

use crate::ids::{KeyspaceId, LogIndex};
use crate::sql::catalog::{FIRST_USER_KEYSPACE, Layout, Table};
use crate::sql::value::DataType;
use crate::storage::filter;
use crate::storage::keys::KeyRange;
use crate::storage::level::{BlockEntry, Level, RangeDelete};
use crate::storage::rows::Rows;
use crate::storage::state::StateRecord;
use crate::storage::weave;
use std::cell::Cell;
use std::rc::Rc;

/// Judges rows on their way into a level.
pub struct Judge<'a> {
    state: &'a StateRecord,
    /// Levels below the one that is written: what a row left out could have shadowed.
    older: &'a [Level],
    deletes: Vec<RangeDelete>,
    /// Rows that the judges of its keyspaces left out as expired.
    expired: Rc<Cell<u64>>,
}

/// The judge of one keyspace.
pub struct KeyspaceJudge<'a> {
    /// How the keyspace is stored.
    pub layout: Layout,
    keyspace: KeyspaceId,
    older: &'a [Level],
    expired_below_ms: u64,
    floor: LogIndex,
    /// Range deletes that concern it.
    deletes: Vec<RangeDelete>,
    /// For an index: where the primary key is found in an entry's key.
    primary_key: Option<PrimaryKey>,
    expired: Rc<Cell<u64>>,
}

/// What to do with a block that overlaps nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing in it is left out: it may be kept or copied as it is.
    Keep,
    /// Everything in it is left out: it need not be read.
    Drop,
    /// Its rows must be judged one by one.
    Look,
}

impl<'a> Judge<'a> {
    /// A judge by `state` over rows that these range deletes may hide, with `older` levels below them.
    pub fn new(state: &'a StateRecord, older: &'a [Level], deletes: Vec<RangeDelete>) -> Judge<'a> {
        Judge { state, older, deletes, expired: Rc::default() }
    }

    /// Rows left out because they had expired.
    pub fn rows_expired(&self) -> u64 {
        self.expired.get()
    }

    /// Those of the range deletes that must be kept in the level that is written.
    pub fn kept(&self, deletes: &[RangeDelete]) -> Vec<RangeDelete> {
        deletes.iter().filter(|delete| !self.is_done(delete)).cloned().collect()
    }

    fn is_done(&self, delete: &RangeDelete) -> bool {
        if delete.keyspace.0 < FIRST_USER_KEYSPACE {
            return self.older.is_empty();
        }
        match self.state.catalog.owner(delete.keyspace) {
            Some(table) => self.older.is_empty() && delete.index <= table.floor,
            None => true,
        }
    }

    /// Keyspaces in which a range delete hides rows: the table's own, and those of its indexes.
    pub fn reach(&self, delete: &RangeDelete) -> Vec<KeyspaceId> {
        let indexes = self.state.catalog.owner(delete.keyspace).filter(|table| table.keyspace == delete.keyspace);
        let indexes = indexes.iter().flat_map(|table| table.indexes.iter().map(|index| index.keyspace));
        std::iter::once(delete.keyspace).chain(indexes).collect()
    }

    /// The judge of a keyspace; none where its table or index has been dropped and all its rows are left out.
    pub fn keyspace(&self, keyspace: KeyspaceId) -> Option<KeyspaceJudge<'a>> {
        let layout = self.state.catalog.layout(keyspace)?;
        let owner = if keyspace.0 < FIRST_USER_KEYSPACE { None } else { self.state.catalog.owner(keyspace) };
        let rows_of = owner.map_or(keyspace, |table| table.keyspace);
        let deletes = self.deletes.iter().filter(|delete| delete.keyspace == rows_of).cloned().collect();
        Some(KeyspaceJudge {
            keyspace,
            older: self.older,
            expired_below_ms: owner.map_or(0, |table| table.expired_below(self.state.now_ms())),
            floor: owner.map_or(LogIndex(u64::MAX), |table| table.floor),
            deletes,
            primary_key: owner.and_then(|table| PrimaryKey::within(table, keyspace, &layout)),
            layout,
            expired: self.expired.clone(),
        })
    }
}

impl KeyspaceJudge<'_> {
    /// What to do with a block that is written nowhere but here: no other input overlaps it.
    pub fn block(&self, entry: &BlockEntry) -> Verdict {
        let summary = &entry.summary;
        let tombstones_done = summary.tombstones == 0 || summary.modified_max <= self.floor;
        if summary.created_max_ms < self.expired_below_ms && tombstones_done && !self.older_overlaps(entry) {
            return Verdict::Drop;
        }
        if self.is_hidden(entry) {
            return Verdict::Drop;
        }
        let hides_some =
            |delete: &RangeDelete| self.primary_key.is_some() || delete.range.overlaps(&entry.first, &entry.last);
        let expires_some = summary.created_min_ms < self.expired_below_ms;
        let buries_some = summary.tombstones > 0 && self.floor > LogIndex(0);
        if expires_some || buries_some || self.deletes.iter().any(hides_some) { Verdict::Look } else { Verdict::Keep }
    }

    /// Counts the rows of a block that is left out unread; those under a range delete are not expired ones.
    pub fn count_dropped(&self, entry: &BlockEntry) {
        let summary = &entry.summary;
        if summary.created_max_ms < self.expired_below_ms && !self.is_hidden(entry) {
            self.count_expired(u64::from(summary.rows) - u64::from(summary.tombstones));
        }
    }

    fn count_expired(&self, rows: u64) {
        self.expired.set(self.expired.get() + rows);
    }

    /// True where one range delete hides every row of the block, whatever it overlaps.
    pub fn is_hidden(&self, entry: &BlockEntry) -> bool {
        self.deletes.iter().any(|delete| {
            self.primary_key.is_none()
                && delete.index > entry.summary.modified_max
                && delete.range.contains(&entry.first)
                && delete.range.contains(&entry.last)
        })
    }

    /// The rows without those left out, and stripped where only key and metadata stay.
    pub fn rows(&self, rows: Rows) -> Rows {
        if self.floor == LogIndex(0) && self.expired_below_ms == 0 && self.deletes.is_empty() {
            return rows;
        }
        let mut keep = vec![true; rows.len()];
        let mut strip = vec![false; rows.len()];
        let mut hidden = vec![false; rows.len()];
        let mut gone = 0;
        self.mark_hidden(&rows, &mut hidden);
        for row in 0..rows.len() {
            let expired = rows.metadata.created_ms[row] < self.expired_below_ms;
            if hidden[row] {
                keep[row] = false;
            } else if rows.metadata.tombstone[row] {
                let done = rows.metadata.modified[row] <= self.floor.0;
                keep[row] = !done || self.older_holds(rows.keys.get(row));
            } else if expired {
                keep[row] = self.older_holds(rows.keys.get(row));
                strip[row] = keep[row];
                gone += u64::from(!keep[row]);
            }
        }
        self.count_expired(gone);
        let rows = if strip.contains(&true) { weave::strip(&self.layout, rows, &strip) } else { rows };
        if keep.contains(&false) { weave::filter(&self.layout, &rows, &keep) } else { rows }
    }

    fn mark_hidden(&self, rows: &Rows, hidden: &mut [bool]) {
        if self.deletes.is_empty() {
            return;
        }
        let (mut bounds, mut buffer) = (Vec::new(), Vec::new());
        for (row, hidden) in hidden.iter_mut().enumerate() {
            let key = rows.keys.get(row);
            let key = match &self.primary_key {
                None => key,
                Some(primary_key) => primary_key.extract(key, &mut bounds, &mut buffer),
            };
            let modified = rows.metadata.modified[row];
            *hidden = self.deletes.iter().any(|delete| modified < delete.index.0 && delete.range.contains(key));
        }
    }

    fn older_overlaps(&self, entry: &BlockEntry) -> bool {
        let range = KeyRange { from: entry.first.clone(), to: Some(entry.last.successor()) };
        self.older.iter().any(|level| !level.manifest.overlapping(self.keyspace, &range).is_empty())
    }

    fn older_holds(&self, key: &[u8]) -> bool {
        self.older.iter().any(|level| level.manifest.find(self.keyspace, key).is_some_and(|entry| may_hold(entry, key)))
    }
}

/// False where the block's filter proves that the key is not in it.
fn may_hold(entry: &BlockEntry, key: &[u8]) -> bool {
    entry.filter.as_deref().is_none_or(|filter| filter::may_contain(filter, key))
}

/// Finds a row's primary key inside the key of an index entry.
struct PrimaryKey {
    /// Types of the entry's key components.
    types: Vec<DataType>,
    /// For each component of the primary key, which component of the entry's key it is.
    components: Vec<usize>,
}

impl PrimaryKey {
    fn within(table: &Table, keyspace: KeyspaceId, layout: &Layout) -> Option<PrimaryKey> {
        if table.keyspace == keyspace {
            return None;
        }
        let place = |id| {
            let slot = layout.slot(id).expect("an index entry holds every column of the primary key");
            layout.key.iter().position(|&key| key as usize == slot).expect("all columns of an index entry are its key")
        };
        Some(PrimaryKey { types: layout.key_types(), components: table.key_columns().into_iter().map(place).collect() })
    }

    /// The primary key within `key`; `bounds` and `out` are room that is used again from row to row.
    fn extract<'b>(&self, key: &[u8], bounds: &mut Vec<usize>, out: &'b mut Vec<u8>) -> &'b [u8] {
        bounds.clear();
        bounds.push(0);
        let mut end = 0;
        for &data_type in &self.types {
            end += component_bytes(&key[end..], data_type);
            bounds.push(end);
        }
        out.clear();
        for &component in &self.components {
            out.extend_from_slice(&key[bounds[component]..bounds[component + 1]]);
        }
        out
    }
}

/// Bytes of the first component of `key`, as `storage::keys` writes them; never more than there are.
fn component_bytes(key: &[u8], data_type: DataType) -> usize {
    const NULL: u8 = 0xFF;
    let bytes = match (key.first(), data_type) {
        (None, _) => 0,
        (Some(&NULL), _) => 1,
        (Some(_), DataType::Bool) => 2,
        (Some(_), DataType::Int | DataType::Float | DataType::Timestamp) => 9,
        (Some(_), DataType::Text | DataType::Blob) => {
            let mut at = 1;
            while at + 1 < key.len() && (key[at], key[at + 1]) != (0, 0) {
                // A zero byte of the string itself is followed by FF, which is stepped over with it.
                at += if key[at] == 0 { 2 } else { 1 };
            }
            at + 2
        }
    };
    bytes.min(key.len())
}
