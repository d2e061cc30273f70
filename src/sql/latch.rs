//! Latches: writers of one hot row take turns instead of failing each other.
//!
//! A statement that read rows names them as unchanged; of two that run at once one must evaluate again. Under a steady
//! crowd on one row the same statement could lose forever. So after its first conflict a statement evaluates under the
//! latch of its table, held until its outcome is known: it then competes only with statements that do not read.
//!
//! * A latch is a courtesy among statements of one node, not a lock: correctness is the preconditions' business.
//! * A statement takes one latch, a batch takes all of its own in one order, so no cycle can form.

use crate::ids::TableId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Latches to share among all tables: two tables on one latch only wait for each other a little longer.
const LATCHES: usize = 64;

/// The latches of one node.
#[derive(Debug)]
pub struct Latches {
    latches: Vec<Arc<Mutex<()>>>,
}

/// Held while a statement is evaluated and proposed.
#[derive(Debug)]
pub struct Latch {
    _guard: OwnedMutexGuard<()>,
}

impl Default for Latches {
    fn default() -> Latches {
        Latches { latches: (0..LATCHES).map(|_| Arc::default()).collect() }
    }
}

impl Latches {
    /// Waits for the latch of a table; first come, first served.
    pub async fn acquire(&self, table: TableId) -> Latch {
        let latch = self.latches[table.0 as usize % LATCHES].clone();
        Latch { _guard: latch.lock_owned().await }
    }

    /// Waits for the latches of several tables, each once and in one order, so that no two batches wait for each other.
    /// The caller must hold none.
    pub async fn acquire_all(&self, tables: &[TableId]) -> Vec<Latch> {
        let places: BTreeSet<usize> = tables.iter().map(|table| table.0 as usize % LATCHES).collect();
        let mut held = Vec::with_capacity(places.len());
        for place in places {
            held.push(Latch { _guard: self.latches[place].clone().lock_owned().await });
        }
        held
    }
}
