//! What waits for the log thread while the disk has no room.
//!
//! It may wait for hours, and the others do not stand still meanwhile: each retry of a leader is answered by a promise
//! more, each election by another term and vote. So what comes is folded into what waits: the newest term and vote count,
//! and of promises of one kind to one node the newest. The one before it is as good as lost on its way, which every
//! message may be.
//!
//! * Appends with entries are as many as a leader lets be in flight to a member that does not answer.
//! * Whoever asks to read waits for the answer before it asks again.

use super::Append;
use super::log::LogRequest;
use crate::raft::Envelope;
use std::collections::VecDeque;
use std::mem::discriminant;

/// Requests in the order in which they came.
#[derive(Default)]
pub(super) struct Backlog(VecDeque<LogRequest>);

impl Backlog {
    /// The first one.
    pub(super) fn pop(&mut self) -> Option<LogRequest> {
        self.0.pop_front()
    }

    /// One more, behind all others.
    pub(super) fn push(&mut self, request: LogRequest) {
        match (request, self.0.back_mut()) {
            (LogRequest::Append(append, _), Some(LogRequest::Append(last, _))) if append.entries.is_empty() => {
                fold(last, append);
            }
            (request, _) => self.0.push_back(request),
        }
    }
}

/// Adds an append without entries to the one before it, as one batch would hold both.
fn fold(last: &mut Append, next: Append) {
    if next.hard_state.is_some() {
        last.hard_state = next.hard_state;
    }
    for promise in next.after_persist {
        let is_older =
            |older: &Envelope| older.to == promise.to && discriminant(&older.message) == discriminant(&promise.message);
        last.after_persist.retain(|older| !is_older(older));
        last.after_persist.push(promise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Timestamp;
    use crate::ids::{DiskId, LogIndex, Term};
    use crate::raft::{Entry, HardState, Message, NodeId, Verdict};
    use std::time::Duration;

    fn promise(to: &str, matched: u64) -> Envelope {
        let message = Message::AppendReply(Verdict::Accepted { matched: LogIndex(matched) });
        let (from, to) = (NodeId("c".into()), NodeId(to.into()));
        Envelope { from, disk: DiskId(1), to, term: Term(3), message }
    }

    fn vote(to: &str, term: u64) -> Append {
        let message = Message::VoteReply { granted: true };
        let hard_state = HardState { term: Term(term), ..HardState::default() };
        let after_persist = vec![Envelope { message, term: Term(term), ..promise(to, 0) }];
        Append { hard_state: Some(hard_state), after_persist, ..Append::default() }
    }

    fn entry(index: u64) -> Append {
        let entry = Entry { index: LogIndex(index), term: Term(3), hlc: Timestamp(index), payload: vec![].into() };
        Append { entries: vec![entry], after_persist: vec![promise("a", index)], ..Append::default() }
    }

    fn push(backlog: &mut Backlog, append: Append) {
        backlog.push(LogRequest::Append(append, Duration::ZERO));
    }

    fn all(mut backlog: Backlog) -> Vec<Append> {
        let append = |request| match request {
            LogRequest::Append(append, _) => append,
            LogRequest::Control(_) => panic!("only appends were pushed"),
        };
        std::iter::from_fn(|| backlog.pop()).map(append).collect()
    }

    #[test]
    fn hours_of_retries_and_elections_leave_one_promise_of_a_kind_to_each() {
        let mut backlog = Backlog::default();
        push(&mut backlog, entry(7));
        for round in 0..10_000 {
            let retry = Append { after_persist: vec![promise("a", 7), promise("b", 7)], ..Append::default() };
            push(&mut backlog, retry);
            push(&mut backlog, vote("b", 3 + round));
        }
        push(&mut backlog, entry(8));
        let left = all(backlog);
        assert_eq!(left.len(), 2);
        assert_eq!(left[0].hard_state.as_ref().map(|state| state.term), Some(Term(10_002)), "the newest vote");
        let to = |name: &str| left[0].after_persist.iter().filter(|promise| promise.to.0 == name).count();
        assert_eq!((to("a"), to("b")), (1, 2), "{:?}", left[0].after_persist);
        assert_eq!((left[0].entries[0].index, left[1].entries[0].index), (LogIndex(7), LogIndex(8)));
    }

    #[test]
    fn nothing_overtakes_entries() {
        let mut backlog = Backlog::default();
        push(&mut backlog, vote("a", 3));
        push(&mut backlog, entry(7));
        push(&mut backlog, vote("a", 4));
        let left = all(backlog);
        let terms: Vec<_> = left.iter().map(|append| append.hard_state.as_ref().map(|state| state.term.0)).collect();
        assert_eq!(
            terms,
            [Some(3), Some(4)],
            "the vote of term 4 rests on a batch that begins with entry 7 at the earliest"
        );
    }
}
