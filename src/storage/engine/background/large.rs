//! Commands larger than memory: written part by part into a draft, published whole. `engine::sink` has the picture.

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
        let older = self.below_hot();
        let mut draft = self.draft.take().unwrap_or_else(|| Draft::new(&self.hot));
        draft.absorb(&self.hot, part, before, &older)?;
        self.draft = Some(draft);
        Ok(())
    }

    /// Shows what a large command wrote, with its position, in one step.
    pub(super) fn publish(&mut self, state: StateRecord, catalog: Arc<Catalog>, log_mark: u64) -> Result<()> {
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
