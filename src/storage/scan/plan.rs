//! What a scan needs of which block: decided from manifests, before anything is read.
//!
//! A block is left out for one of two reasons, and they differ in what may be forgotten with it:
//!
//! * No row of the block and no older version of its rows can be wanted: the key columns are out of bounds, or a range
//!   delete hides all. The block is left out as if it were not there.
//! * No row of the block is wanted, but an older version of one might look as if it were: other columns are out of
//!   bounds, all rows have expired or are tombstones. Its keys still shadow older blocks; only where none of these is
//!   read within its key range is it left out.

use super::request::Wanted;
use crate::storage::keys::KeyRange;
use crate::storage::level::{BlockEntry, Zone};
use crate::storage::view::may_hold;
use std::sync::Arc;

/// A block that a scan has to look at.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// The block.
    pub(super) entry: Arc<BlockEntry>,
    /// What is needed of it.
    pub(super) need: Need,
}

/// What a scan needs of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Its rows.
    Rows,
    /// Its keys, which shadow rows of older blocks.
    Shadow,
}

/// The blocks of a range, level by level, newest first; in key order within a level.
pub(super) fn blocks(wanted: &Wanted, range: &KeyRange) -> Vec<Vec<Planned>> {
    let levels = &wanted.view.levels.blocks;
    let point = point_of(range);
    let mut planned: Vec<Vec<Planned>> = Vec::with_capacity(levels.len());
    // Oldest first, since a shadow is needed only where something older is read.
    for (i, level) in levels.iter().enumerate().rev() {
        let rank = wanted.memtables() + i;
        let overlapping = level.manifest.overlapping(wanted.keyspace, range);
        let mut kept = Vec::with_capacity(overlapping.len());
        for entry in overlapping {
            if point.is_some_and(|key| !may_hold(entry, key)) || is_irrelevant(wanted, rank, entry) {
                continue;
            }
            let need = if has_nothing(wanted, entry) { Need::Shadow } else { Need::Rows };
            if need == Need::Rows || planned.iter().any(|older| overlaps(older, entry)) {
                kept.push(Planned { entry: entry.clone(), need });
            }
        }
        planned.push(kept);
    }
    planned.reverse();
    planned
}

/// The key of a range that holds one key only.
fn point_of(range: &KeyRange) -> Option<&[u8]> {
    let (from, to) = (&*range.from, range.to.as_deref()?);
    (to.split_last() == Some((&0, from))).then_some(from)
}

/// True where rows are read of a block that has keys between the first and the last of `entry`.
fn overlaps(blocks: &[Planned], entry: &BlockEntry) -> bool {
    let from = blocks.partition_point(|block| block.entry.last < entry.first);
    let overlapping = blocks[from..].iter().take_while(|block| block.entry.first <= entry.last);
    overlapping.into_iter().any(|block| block.need == Need::Rows)
}

/// True where the block and all older versions of its rows can be forgotten.
fn is_irrelevant(wanted: &Wanted, rank: usize, entry: &BlockEntry) -> bool {
    let hidden = wanted.deletes_of(rank, entry).any(|delete| {
        delete.index > entry.summary.modified_max
            && delete.range.contains(&entry.first)
            && delete.range.contains(&entry.last)
    });
    hidden || wanted.bounds.iter().any(|bound| bound.is_key && bound.excludes(zone_of(entry, bound.slot)))
}

/// True where no row of the block is wanted.
fn has_nothing(wanted: &Wanted, entry: &BlockEntry) -> bool {
    let summary = &entry.summary;
    summary.tombstones == summary.rows
        || summary.created_max_ms < wanted.expired_below_ms
        || wanted.bounds.iter().any(|bound| !bound.is_key && bound.excludes(zone_of(entry, bound.slot)))
}

fn zone_of(entry: &BlockEntry, slot: usize) -> Option<&Zone> {
    entry.summary.zones.get(slot)
}
