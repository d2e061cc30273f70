//! What clients asked and were told, and whether one order explains it: linearizability (Herlihy and Wing, 1990).
//!
//! The group has an order of its own: a write's place is where the first of its entries is in the log, and a read's is how
//! far was applied where it was answered. It is proof enough where it keeps real time and explains every answer by value,
//! whoever proposed it, and that is seen in one walk. Where it does not, clients may have been told what another order
//! explains, and one is sought; that can take for ever where many writes have no answer.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory (2017): of the operations that nothing finished before them,
//! one is next; what was done already and what came of it is never tried twice. Each object is judged on its own, which is
//! enough (locality).
//!
//! * A write whose answer never came may have happened at any time since, or not at all.
//! * One that was refused has no place, and what it wanted must not be seen.
//! * A retry is the same operation, from the first time it was asked to the first answer.
//!
//! The tester of the crate `stateright` does the same without a memory, copies what is left of the history at every step,
//! and would bring 15 crates that are not here, a web server among them: hence these lines.

use super::ledger::{Command, OBJECTS, Wish, blank, grant};
use chronos::ids::LogIndex;
use std::collections::{BTreeMap, HashSet};

/// Nobody knows when.
const NEVER: u64 = u64::MAX;

/// Steps of a search that is given up, after about a second: one that comes to an end takes a hundredth of it.
const STEPS_MAX: u64 = 3_000_000;

#[derive(Clone, Copy, Debug)]
struct Operation {
    object: usize,
    wish: Wish,
    begin: u64,
    end: u64,
    answer: u64,
    is_refused: bool,
    /// Where the group has it; none of a write that nobody applied.
    place: Option<LogIndex>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    operations: Vec<Operation>,
    /// By session and sequence.
    writes: BTreeMap<(u32, u32), usize>,
    moment: u64,
}

impl History {
    /// An instant of its own.
    pub(super) fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A client asks for a write.
    pub(super) fn begin(&mut self, command: &Command) -> usize {
        let Command { session, sequence, object, wish } = *command;
        let (begin, operation) = (self.moment(), self.operations.len());
        let object = usize::from(object);
        self.operations.push(Operation { object, wish, begin, end: NEVER, answer: 0, is_refused: false, place: None });
        self.writes.insert((session, sequence), operation);
        operation
    }

    /// It has its answer.
    pub(super) fn end(&mut self, operation: usize, answer: u64) {
        let end = self.moment();
        let operation = &mut self.operations[operation];
        assert_eq!((operation.end, operation.is_refused), (NEVER, false), "a write is answered twice");
        (operation.end, operation.answer) = (end, answer);
    }

    /// It did not happen, and will not.
    pub(super) fn refuse(&mut self, operation: usize) {
        self.operations[operation].is_refused = true;
    }

    /// A read that was asked at `begin` has its answer, of a view that stands at `seen`.
    pub(super) fn saw(&mut self, object: usize, begin: u64, answer: u64, seen: LogIndex) {
        let (end, place) = (self.moment(), Some(seen));
        self.operations.push(Operation { object, wish: Wish::Read, begin, end, answer, is_refused: false, place });
    }

    /// How many operations have an answer, and how many writes never had one.
    pub(super) fn count(&self) -> (u64, u64) {
        let all = self.operations.iter().filter(|operation| !operation.is_refused);
        all.fold(
            (0, 0),
            |(known, open), operation| {
                if operation.end == NEVER { (known, open + 1) } else { (known + 1, open) }
            },
        )
    }

    /// Panics where no order explains what clients were told. `places` are those of writes. Returns of how many objects the
    /// group's own order did not.
    pub(super) fn check(&mut self, places: &BTreeMap<(u32, u32), LogIndex>) -> u64 {
        for (write, place) in places {
            self.operations[self.writes[write]].place = Some(*place);
        }
        let mut sought = 0;
        for object in 0..OBJECTS {
            let is_of = |operation: &&Operation| operation.object == object && !operation.is_refused;
            let mut operations: Vec<Operation> = self.operations.iter().filter(is_of).copied().collect();
            operations.sort_by_key(|operation| operation.begin);
            match judge(blank(object), &operations) {
                Ok(is_own) => sought += u64::from(!is_own),
                Err(text) => panic!("object {object} is not linearizable: {text}"),
            }
        }
        sought
    }
}

/// True where the group's own order explains all answers, false where another does.
fn judge(blank: u64, operations: &[Operation]) -> Result<bool, String> {
    let Err(own) = certify(blank, operations) else { return Ok(true) };
    match order(blank, operations) {
        Ok(()) => Ok(false),
        Err(sought) => Err(format!("in the group's own order {own}; of others, {sought}")),
    }
}

/// Walks through the order that the group has: nothing may come behind what began after its end.
fn certify(blank: u64, operations: &[Operation]) -> Result<(), String> {
    if let Some(lost) = operations.iter().find(|operation| operation.end != NEVER && operation.place.is_none()) {
        return Err(format!("{lost:?} is nowhere"));
    }
    // Without an answer and nowhere, it never happened.
    let mut own: Vec<&Operation> = operations.iter().filter(|operation| operation.place.is_some()).collect();
    own.sort_by_key(|operation| (operation.place, operation.wish == Wish::Read, operation.begin));
    let (mut object, mut latest) = (blank, 0);
    for operation in own {
        if operation.end < latest {
            return Err(format!("{operation:?} comes behind what began at {latest}"));
        }
        latest = latest.max(operation.begin);
        let (after, answer) = grant(object, operation.wish);
        if operation.end != NEVER && answer != operation.answer {
            return Err(format!("it is {answer:#x} for {operation:?}, which was told {:#x}", operation.answer));
        }
        object = after;
    }
    Ok(())
}

/// Which operations have their place.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// Those that may come next, the likeliest last: nothing that is left was over before they began.
fn next(operations: &[Operation], placed: &Placed) -> Vec<usize> {
    let mut choices = Vec::new();
    let mut first_end = NEVER;
    for (at, operation) in operations.iter().enumerate().filter(|(at, _)| !placed.has(*at)) {
        if operation.begin > first_end {
            break;
        }
        first_end = first_end.min(operation.end);
        choices.push(at);
    }
    choices.sort_by_key(|at| std::cmp::Reverse(operations[*at].end));
    choices
}

/// Finds an order that explains all answers; says how far the longest one came.
fn order(blank: u64, operations: &[Operation]) -> Result<(), String> {
    let mut left = operations.iter().filter(|operation| operation.end != NEVER).count();
    let mut placed = Placed(vec![0; operations.len() / 64 + 1]);
    let mut tried = HashSet::new();
    let (mut path, mut stack) = (Vec::new(), vec![(blank, next(operations, &placed))]);
    let (mut steps, mut furthest) = (0, (left, String::new()));
    while left > 0 {
        steps += 1;
        if steps > STEPS_MAX {
            return Err(format!("no order was found in {STEPS_MAX} steps; {}", furthest.1));
        }
        let Some((object, choices)) = stack.last_mut() else { return Err(furthest.1) };
        let object = *object;
        let Some(at) = choices.pop() else {
            stack.pop();
            if let Some(at) = path.pop() {
                placed.flip(at);
                left += usize::from(operations[at].end != NEVER);
            }
            continue;
        };
        let operation = &operations[at];
        let (after, answer) = grant(object, operation.wish);
        let is_open = operation.end == NEVER;
        if (is_open && after == object) || (!is_open && answer != operation.answer) {
            if !is_open && left <= furthest.0 {
                let told = operation.answer;
                furthest = (left, format!("with {left} to go it is {object:#x}, and {operation:?} was told {told:#x}"));
            }
            continue;
        }
        placed.flip(at);
        if tried.insert((placed.clone(), after)) {
            left -= usize::from(!is_open);
            path.push(at);
            stack.push((after, next(operations, &placed)));
        } else {
            placed.flip(at);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ledger::BANK;
    use super::*;

    fn operation(wish: Wish, begin: u64, end: u64, answer: u64) -> Operation {
        Operation { object: 0, wish, begin, end, answer, is_refused: false, place: None }
    }

    fn put(value: u64, begin: u64, end: u64, answer: u64) -> Operation {
        operation(Wish::Put { value }, begin, end, answer)
    }

    fn read(begin: u64, end: u64, answer: u64) -> Operation {
        operation(Wish::Read, begin, end, answer)
    }

    fn is_explained(operations: &[Operation]) -> bool {
        order(0, operations).is_ok()
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        assert!(is_explained(&[put(1, 1, 9, 0), read(2, 3, 0), read(4, 5, 1)]));
        assert!(!is_explained(&[put(1, 1, 9, 0), read(2, 3, 1), read(4, 5, 0)]), "back in time");
    }

    #[test]
    fn what_is_acknowledged_is_seen_and_never_lost() {
        assert!(!is_explained(&[put(1, 1, 2, 0), read(3, 4, 0)]), "a stale read");
        assert!(!is_explained(&[put(1, 1, 2, 0), put(2, 3, 4, 0)]), "a lost write");
        assert!(!is_explained(&[read(1, 2, 5)]), "what nobody wrote");
    }

    #[test]
    fn a_write_without_an_answer_happens_late_or_never() {
        let lost = put(1, 1, NEVER, 0);
        assert!(is_explained(&[lost, put(2, 2, 3, 0), read(4, 5, 2), read(6, 7, 1)]));
        assert!(is_explained(&[lost, put(2, 2, 3, 0), read(4, 5, 2)]));
        assert!(!is_explained(&[lost, read(2, 3, 1), put(2, 4, 5, 1), read(6, 7, 1)]), "twice");
    }

    fn placed<const N: usize>(mut operations: [Operation; N], places: [u64; N]) -> [Operation; N] {
        for (operation, place) in operations.iter_mut().zip(places) {
            operation.place = (place > 0).then_some(LogIndex(place));
        }
        operations
    }

    #[test]
    fn the_order_that_a_group_has_is_proof_enough() {
        let history = [put(1, 1, 9, 0), put(2, 2, 3, 1), read(4, 5, 2), put(3, 6, NEVER, 0)];
        assert_eq!(judge(0, &placed(history, [1, 2, 2, 0])), Ok(true));
        assert_eq!(judge(0, &placed(history, [1, 2, 2, 3])), Ok(true), "seen by nobody");
        assert_eq!(judge(0, &placed(history, [2, 1, 2, 0])), Ok(false), "the wrong order");
        assert_eq!(judge(0, &placed(history, [1, 0, 2, 0])), Ok(false), "an answer, and no place");
        assert_eq!(judge(0, &placed(history, [2, 3, 3, 1])), Ok(false), "before it was asked for");
    }

    #[test]
    fn the_order_that_a_group_has_is_not_believed() {
        let wrong = [put(1, 1, 2, 0), put(2, 3, 4, 1), read(5, 6, 1)];
        assert!(judge(0, &placed(wrong, [1, 2, 2])).is_err(), "a wrong answer");
        assert!(judge(0, &placed(wrong, [1, 2, 1])).is_err(), "a stale read of a view as old");
        let back = [put(1, 1, 9, 0), read(2, 3, 1), read(4, 5, 0)];
        let place = |places| certify(0, &placed(back, places));
        assert!(place([2, 2, 1]).is_err_and(|text| text.contains("comes behind")), "back in time");
        assert!(judge(0, &placed([put(1, 1, NEVER, 0), read(2, 3, 5)], [1, 1])).is_err(), "what nobody wrote");
    }

    #[test]
    fn a_search_is_not_needed_where_many_writes_are_open() {
        let swap = operation(Wish::Swap { expected: 41, value: 42 }, 1, NEVER, 0);
        let mut history: Vec<Operation> = (2..=41).map(|value| put(value, value, NEVER, 0)).collect();
        history.iter_mut().for_each(|write| write.place = Some(LogIndex(write.begin)));
        history.insert(0, Operation { place: Some(LogIndex(42)), ..swap });
        history.push(Operation { place: Some(LogIndex(42)), ..read(50, 51, 42) });
        assert_eq!(judge(0, &history), Ok(true));
    }

    #[test]
    fn a_transfer_happens_once() {
        let blank = blank(BANK);
        let wish = Wish::Transfer { from: 0, to: 1, amount: 60 };
        let (once, _) = grant(blank, wish);
        let (refused, _) = grant(once, wish);
        assert_eq!(once, refused, "there is not enough left");
        let twice = grant(once, Wish::Transfer { from: 0, to: 1, amount: 30 }).0;
        assert!(order(blank, &[operation(wish, 1, NEVER, 0), read(2, 3, once), read(4, 5, once)]).is_ok());
        assert!(order(blank, &[operation(wish, 1, NEVER, 0), read(2, 3, twice)]).is_err());
    }
}
