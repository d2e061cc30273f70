//! What a node wants done.

use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, HardState, NodeId};

/// Effects, in the order in which they must happen: first `hard_state` and `entries` become durable, in one batch;
/// then `after_persist` is sent. `committed` may be applied at any time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be made durable, where it changed.
    pub hard_state: Option<HardState>,
    /// To be appended; an entry at an index that the log has replaces it and all behind it.
    pub entries: Vec<Entry>,
    /// Promises that rest on `hard_state` and `entries`. A group of one sends its vote to itself.
    pub after_persist: Vec<Message>,
    /// Every entry up to here is committed; the log thread applies what it persists up to here without asking back.
    pub committed: Option<LogIndex>,
    /// A group of one: what is persisted is thereby committed.
    pub commit_on_persist: bool,
}

impl Ready {
    /// True where nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Ready { commit_on_persist: self.commit_on_persist, ..Ready::default() }
    }
}

/// A promise between voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `from` votes for `candidate` in `term`.
    Vote {
        /// In which term.
        term: Term,
        /// Who votes.
        from: NodeId,
        /// For whom.
        candidate: NodeId,
    },
}
