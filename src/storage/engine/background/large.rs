//! Commands larger than memory: written part by part into a draft, published whole. `engine::sink` has the picture.

use super::super::space;
use super::Background;
use crate::sql::catalog::Catalog;
use crate::storage::draft::Draft;
use crate::storage::levels::Edit;
use crate::storage::memtable::Memtable;
use crate::storage::state::StateRecord;
use crate::{Error, Result};
use std::sync::Arc;

impl Background {
    /// Takes in a part of a large command. A failure ends the engine: the files of the draft go with the next start.
    pub(super) fn absorb(&mut self, part: &Memtable, before: &StateRecord) -> Result<()> {
        // In the middle of it there is no way back to before it, so there must be room when it begins.
        self.wait_for(2 * part.bytes() as u64)?;
        let older = self.below_hot();
        let mut draft = self.draft.take().unwrap_or_else(|| Draft::new(&self.hot));
        draft.absorb(&self.hot, part, before, &older)?;
        self.draft = Some(draft);
        Ok(())
    }

    /// Waits until so many bytes are free besides what the engine of the hot store needs.
    fn wait_for(&mut self, bytes: u64) -> Result<()> {
        let mut is_told = false;
        while let Err(error) = self.check_hot_room().and_then(|()| space::check(&self.options, &self.directory, bytes))
        {
            if !self.wait_for_room(&error, &mut is_told)? {
                self.unflushed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Shows what a large command wrote, with its position, in one step.
    pub(super) fn publish(&mut self, state: StateRecord, catalog: Arc<Catalog>, log_mark: u64) -> Result<()> {
        self.wait_for(0)?;
        let draft = self.draft.take().ok_or_else(|| Error::internal("there is no large command to publish"))?;
        let (version, term, hlc) = (state.applied, state.applied_term, state.hlc);
        let before = self.hot.level();
        let report = self.hot.publish(draft, state)?;
        let edit = Edit { take_memtables: vec![], take_blocks: vec![before], put: vec![report.level] };
        self.shared.publish(|published| {
            published.exchange(&edit)?;
            (published.version, published.term, published.hlc) = (version, term, hlc);
            published.catalog = catalog;
            Ok::<(), Error>(())
        })?;
        self.flush_mark = log_mark;
        self.count(report.work);
        Ok(())
    }
}
