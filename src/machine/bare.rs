//! The state of a witness: who belongs to the group, up to where, and nothing that clients have written.
//!
//! A witness keeps entries for others and applies none of them. Its state moves on all the same, since what the state
//! covers is what the log may be trimmed to. What is left out cannot be had back from what is there, so the mark stays:
//! it is in the state record, and a state that has it is never served, compared or sent to anybody.

use super::apply::Machine;
use crate::raft::{Known, Membership};
use crate::sql::catalog::Catalog;
use crate::storage::state::StateRecord;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The counter that marks such a state.
const MARK: &str = "witness";

/// Its value where what the state says of the group was committed.
const COMMITTED: u64 = 1;

/// And where that is the newest word of a log, beside which the state was lost.
const HEARSAY: u64 = 2;

/// The mark of a state, by how it knows its group.
pub fn mark(known: Known) -> BTreeMap<String, u64> {
    let value = match known {
        Known::Committed => COMMITTED,
        Known::Hearsay => HEARSAY,
    };
    BTreeMap::from([(MARK.to_owned(), value)])
}

impl Machine {
    /// From here on nothing that clients write is applied, and nothing of it is kept.
    pub fn strip(&mut self) {
        self.catalog = Arc::new(Catalog::default());
        self.counters = mark(Known::Committed);
    }

    /// True where the state is a witness's.
    pub fn is_bare(&self) -> bool {
        self.counters.contains_key(MARK)
    }

    /// How it knows its group.
    pub fn group_known(&self) -> Known {
        if self.counters.get(MARK) == Some(&HEARSAY) { Known::Hearsay } else { Known::Committed }
    }

    /// The log says who belongs to the group, and that is committed.
    pub(super) fn settle_group(&mut self, membership: Membership) {
        self.membership = membership;
        if self.is_bare() {
            self.counters = mark(Known::Committed);
        }
    }
}

/// The same for a state record.
pub fn is_bare(state: &StateRecord) -> bool {
    state.counters.contains_key(MARK)
}

/// What a witness keeps of a state.
pub fn stripped(state: &StateRecord) -> StateRecord {
    StateRecord {
        catalog: Catalog::default(),
        counters: BTreeMap::from([(MARK.to_owned(), state.counters.get(MARK).copied().unwrap_or(COMMITTED))]),
        membership: state.membership.clone(),
        ..*state
    }
}
