//! The list of levels, newest to oldest, and how it changes.
//!
//! ```text
//! newest                                                                        oldest
//! [active memtable] [frozen memtable]... | [hot store] [frozen hot store] [sealed run] [sealed run] ...
//!        memtables, newest first         |              blocks, newest first
//! ```
//!
//! Flush, seal and merge run beside one another and beside the state thread, each on inputs of its own. So none of
//! them computes the next list: each describes an [`Edit`], take these out and put this in their place, and whoever
//! holds the present list applies it. An edit whose inputs are gone is void: someone else's change came first, and the
//! one who made it begins anew.
//!
//! * A list never changes; views share it. A key's version in one level is above all its versions in older ones.
//! * The levels that an edit takes out are neighbours, or the level put in their place would change the order of
//!   versions; memtables go out oldest first.

use crate::storage::level::Level;
use crate::storage::memtable::Memtable;
use std::sync::Arc;

/// All that a read looks at, newest to oldest.
#[derive(Clone, Default)]
pub struct Levels {
    /// What was applied since the last flush, newest first; the first one may still be written to.
    pub memtables: Vec<Arc<Memtable>>,
    /// The levels below, newest first.
    pub blocks: Vec<Arc<Level>>,
}

/// A change of levels: take these out, put this in their place.
#[derive(Clone, Default)]
pub struct Edit {
    /// Memtables that go, newest first: the oldest of the list.
    pub take_memtables: Vec<Arc<Memtable>>,
    /// Levels that go, newest first: neighbours, and the first ones of the list where memtables go too.
    pub take_blocks: Vec<Arc<Level>>,
    /// What stands in their place, newest first. Where no level goes, it is put above all levels of blocks.
    pub put: Vec<Arc<Level>>,
}

impl Levels {
    /// One empty memtable above these levels.
    pub fn new(blocks: Vec<Arc<Level>>) -> Levels {
        Levels { memtables: vec![Arc::new(Memtable::new())], blocks }
    }

    /// The list with a new memtable on top; the one that was there is frozen with it.
    #[must_use]
    pub fn with_memtable(&self, memtable: Arc<Memtable>) -> Levels {
        let memtables = std::iter::once(memtable).chain(self.memtables.iter().cloned()).collect();
        Levels { memtables, blocks: self.blocks.clone() }
    }

    /// The list after an edit; none where an input is gone or is no longer where the edit needs it.
    pub fn edit(&self, edit: &Edit) -> Option<Levels> {
        let keep = self.memtables.len().checked_sub(edit.take_memtables.len())?;
        let (kept, taken) = self.memtables.split_at(keep);
        if !same(taken, &edit.take_memtables) {
            return None;
        }
        let from = match edit.take_blocks.first() {
            Some(first) => self.blocks.iter().position(|level| Arc::ptr_eq(level, first))?,
            None => 0,
        };
        let to = from + edit.take_blocks.len();
        if !same(self.blocks.get(from..to)?, &edit.take_blocks) {
            return None;
        }
        if !taken.is_empty() && from != 0 {
            return None;
        }
        let mut blocks = self.blocks.clone();
        blocks.splice(from..to, edit.put.iter().cloned());
        Some(Levels { memtables: kept.to_vec(), blocks })
    }

    /// Bytes of memory that the memtables hold.
    pub fn memtable_bytes(&self) -> usize {
        self.memtables.iter().map(|memtable| memtable.bytes()).sum()
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};
    use crate::storage::block::Block;
    use crate::storage::level::{BlockEntry, BlockSource, Manifest};

    struct NoBlocks;

    impl BlockSource for NoBlocks {
        fn read(&self, _entry: &BlockEntry) -> Result<Block> {
            Err(Error::damaged("there are no blocks"))
        }
    }

    fn level() -> Arc<Level> {
        Arc::new(Level { manifest: Manifest::default(), range_deletes: Arc::default(), source: Arc::new(NoBlocks) })
    }

    #[test]
    fn a_flush_puts_its_level_where_the_memtable_and_the_hot_store_were() {
        let (hot, sealed, flushed) = (level(), level(), level());
        let frozen = Levels::new(vec![hot.clone(), sealed.clone()]);
        let levels = frozen.with_memtable(Arc::default());
        let edit =
            Edit { take_memtables: frozen.memtables.clone(), take_blocks: vec![hot], put: vec![flushed.clone()] };
        let after = levels.edit(&edit).expect("the inputs are there");
        assert!(same(&after.memtables, &levels.memtables[..1]));
        assert!(same(&after.blocks, &[flushed, sealed]));
        assert!(after.edit(&edit).is_none(), "an edit is void once its inputs are gone");
    }

    #[test]
    fn a_merge_takes_neighbours_only() {
        let (a, b, c, merged) = (level(), level(), level(), level());
        let levels = Levels::new(vec![a.clone(), b.clone(), c.clone()]);
        let merge = |inputs: &[&Arc<Level>]| Edit {
            take_memtables: Vec::new(),
            take_blocks: inputs.iter().map(|&input| input.clone()).collect(),
            put: vec![merged.clone()],
        };
        assert!(levels.edit(&merge(&[&a, &c])).is_none());
        let after = levels.edit(&merge(&[&b, &c])).expect("the inputs are neighbours");
        assert!(same(&after.blocks, &[a, merged]));
    }

    #[test]
    fn the_newest_memtable_is_not_flushed_before_an_older_one() {
        let levels = Levels::new(Vec::new()).with_memtable(Arc::default());
        let newest = Edit { take_memtables: levels.memtables[..1].to_vec(), take_blocks: vec![], put: vec![level()] };
        assert!(levels.edit(&newest).is_none());
    }
}
