//! What a scan wants, worked out once: slots instead of column names, and the range deletes in its way.

use crate::error::{Error, Result};
use crate::ids::{KeyspaceId, LogIndex};
use crate::sql::catalog::{Layout, LayoutColumn};
use crate::sql::value::Value;
use crate::storage::codec::Decoder;
use crate::storage::level::{BlockEntry, RangeDelete, Zone};
use crate::storage::view::{ScanRequest, View, wanted_slots};

/// A request, resolved against the layout of its keyspace.
pub(super) struct Wanted {
    pub(super) view: View,
    pub(super) keyspace: KeyspaceId,
    pub(super) layout: Layout,
    /// Slots of the columns asked for, each once.
    pub(super) slots: Vec<usize>,
    /// For each column asked for, its place among `slots`.
    pub(super) outputs: Vec<usize>,
    /// Decodes row images into `slots`.
    pub(super) decoder: Decoder,
    pub(super) bounds: Vec<Bound>,
    /// Range deletes of the keyspace with the rank of the level that has them.
    deletes: Vec<(usize, RangeDelete)>,
    pub(super) expired_below_ms: u64,
    pub(super) with_keys: bool,
    pub(super) batch_rows: usize,
}

/// A bound on the values of one slot.
pub(super) struct Bound {
    pub(super) slot: usize,
    /// All versions of a row have the same value here.
    pub(super) is_key: bool,
    /// What stands here in blocks written before the column existed.
    missing: Value,
    min: Option<Value>,
    max: Option<Value>,
}

impl Bound {
    /// True where no value of the zone meets the bound. No zone is the zone of a column that was added later.
    pub(super) fn excludes(&self, zone: Option<&Zone>) -> bool {
        let (least, greatest) = zone.map_or((&self.missing, &self.missing), |zone| (&zone.min, &zone.max));
        let is_below = |min: &Value| greatest.is_null() || greatest.order(min).is_lt();
        let is_above = |max: &Value| least.is_null() || least.order(max).is_gt();
        self.min.as_ref().is_some_and(is_below) || self.max.as_ref().is_some_and(is_above)
    }
}

impl Wanted {
    /// Resolves a request; a column that the keyspace does not have is an error.
    pub(super) fn new(view: View, request: &ScanRequest) -> Result<Wanted> {
        let layout = view.layout(request.keyspace)?;
        let (slots, outputs) = wanted_slots(&layout, &request.columns)?;
        let decoder = Decoder::new(&layout, &slots);
        let mut bounds = Vec::with_capacity(request.bounds.len());
        for bound in &request.bounds {
            let slot = layout.slot(bound.column);
            let slot =
                slot.ok_or_else(|| Error::internal(format!("column {} is not in its keyspace", bound.column)))?;
            let LayoutColumn { missing, .. } = &layout.columns[slot];
            bounds.push(Bound {
                slot,
                is_key: layout.key.contains(&(slot as u16)),
                missing: missing.clone(),
                min: bound.min.clone(),
                max: bound.max.clone(),
            });
        }
        Ok(Wanted {
            deletes: deletes(&view, request.keyspace),
            view,
            keyspace: request.keyspace,
            layout,
            slots,
            outputs,
            decoder,
            bounds,
            expired_below_ms: request.expired_below_ms,
            with_keys: request.with_keys,
            batch_rows: request.batch_rows.max(1),
        })
    }

    /// How many memtables there are; the rank of the newest level of blocks.
    pub(super) fn memtables(&self) -> usize {
        self.view.levels.memtables.len()
    }

    /// True where a range delete hides the row from this view.
    pub(super) fn is_deleted(&self, rank: usize, key: &[u8], modified: LogIndex) -> bool {
        // The loop is mostly over nothing: range deletes are rare and go with the next merge.
        self.deletes
            .iter()
            .any(|(newest, delete)| *newest <= rank && modified < delete.index && delete.range.contains(key))
    }

    /// The range deletes that may hide rows of a block in the level of this rank.
    pub(super) fn deletes_of(&self, rank: usize, entry: &BlockEntry) -> impl Iterator<Item = &RangeDelete> {
        let (first, last) = (&entry.first, &entry.last);
        self.deletes
            .iter()
            .filter(move |(newest, delete)| *newest <= rank && delete.range.overlaps(first, last))
            .map(|(_, delete)| delete)
    }
}

/// Range deletes of a keyspace. One hides rows of its own level and of older ones; newer ones were written after it.
fn deletes(view: &View, keyspace: KeyspaceId) -> Vec<(usize, RangeDelete)> {
    let memtables = view.levels.memtables.iter().map(|memtable| memtable.range_deletes());
    let blocks = view.levels.blocks.iter().map(|level| {
        let of_keyspace = level.range_deletes.iter().filter(|delete| delete.keyspace == keyspace);
        of_keyspace.cloned().collect()
    });
    let ranked = memtables.chain(blocks).enumerate();
    ranked
        .flat_map(|(rank, deletes): (usize, Vec<RangeDelete>)| deletes.into_iter().map(move |delete| (rank, delete)))
        .filter(|(_, delete)| delete.keyspace == keyspace && delete.index <= view.version)
        .collect()
}
