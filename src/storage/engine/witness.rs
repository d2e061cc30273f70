//! The engine of a witness: nothing that clients write is applied, and the log is kept for others.
//!
//! Its state is sealed like any other, and covers the log as it does elsewhere; but what that lets go of stays until the
//! others have it too. That is looked at wherever the log is trimmed, so that no seal, no full disk and no clean stop makes
//! a witness let go of what it is there for.

use super::Handle;
use super::log::{Control, LogRequest};
use crate::ids::LogIndex;
use std::sync::atomic::Ordering;

impl Handle {
    /// This is a witness: what clients write is not applied from here on, and the log is kept for others, all of it until
    /// [`Handle::keep_for_others`] says more. For good: what was passed over is in no state here.
    pub fn become_witness(&self) {
        self.shared.keep_from(LogIndex(0));
        self.state.strip();
    }

    /// True where this is a witness, which has no rows.
    pub fn is_witness(&self) -> bool {
        self.shared.is_bare()
    }

    /// A witness's log may be let go of before this entry, as far as its own state covers it.
    pub fn keep_for_others(&self, from: LogIndex) {
        self.shared.keep_from(from);
        let covered = LogIndex(self.shared.counters.birth.load(Ordering::Relaxed));
        let _ = self.log.send(LogRequest::Control(Control::Trim(covered.next())));
    }
}
