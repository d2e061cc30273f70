//! Views that never read the disk: for applying on a thread that must not wait for it.
//!
//! ```text
//!   levels ──> the same manifests, filters and memtables, over sources that refuse to read
//! ```
//!
//! What is in the cache, or ruled out by key ranges and filters, is answered as ever. Anything else is an error, and the
//! view says that it was of this kind: the entry is then applied by the thread that may wait.

use crate::storage::block::Block;
use crate::storage::level::{BlockEntry, BlockSource, Level};
use crate::storage::levels::Levels;
use crate::storage::view::View;
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Makes such views, and keeps what the last one was made of: levels change far less often than entries come.
#[derive(Default)]
pub(super) struct InMemory {
    /// The levels of blocks, which are not kept by this, and each of them without its disk.
    levels: Vec<(Weak<Level>, Arc<Level>)>,
    refused: Arc<Refused>,
}

/// Whether a read was refused since the last view was made.
#[derive(Default)]
pub(super) struct Refused(AtomicBool);

impl Refused {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl BlockSource for Refused {
    fn read(&self, _entry: &BlockEntry) -> Result<Block> {
        self.0.store(true, Ordering::Relaxed);
        Err(Error::unavailable("a block is not in memory"))
    }
}

impl InMemory {
    /// The same view without the disk, and whether that was missed.
    pub(super) fn view(&mut self, view: View) -> (View, Arc<Refused>) {
        self.refused.0.store(false, Ordering::Relaxed);
        let blocks = &view.levels.blocks;
        let is_of = |(level, (of, _)): (&Arc<Level>, &(Weak<Level>, Arc<Level>))| Arc::as_ptr(level) == of.as_ptr();
        if blocks.len() != self.levels.len() || !blocks.iter().zip(&self.levels).all(is_of) {
            let refusing = |level: &Arc<Level>| Arc::new(Level { source: self.refused.clone(), ..Level::clone(level) });
            self.levels = blocks.iter().map(|level| (Arc::downgrade(level), refusing(level))).collect();
        }
        let blocks = self.levels.iter().map(|(_, level)| level.clone()).collect();
        let levels = Arc::new(Levels { memtables: view.levels.memtables.clone(), blocks });
        (View { levels, ..view }, self.refused.clone())
    }
}
