//! Statements that take turns after a conflict.

use super::support::*;
use chronos::Error;
use chronos::clock::SystemClock;
use chronos::embedded::LocalGroup;
use chronos::hlc::Timestamp;
use chronos::ids::OriginUid;
use chronos::machine::Outcome;
use chronos::sql::execute::{Answer, Executor, Group, Limits, Task};
use chronos::sql::memory::Pool;
use chronos::storage::view::View;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::oneshot::{Receiver, Sender, channel};

type Answered = Result<Outcome, Error>;

/// A group in which the first proposals of two statements meet a conflict, and the second one of the first waits.
struct Turns<'a> {
    inner: &'a LocalGroup,
    proposals: Mutex<usize>,
    held: Mutex<Option<Sender<Answered>>>,
}

impl Group for Turns<'_> {
    fn view(&self) -> Result<View, Error> {
        self.inner.view()
    }

    fn instant(&self) -> Timestamp {
        self.inner.instant()
    }

    fn origin(&self) -> OriginUid {
        self.inner.origin()
    }

    fn check_space(&self) -> Result<(), Error> {
        Ok(())
    }

    fn propose(&self, command: Vec<u8>) -> Receiver<Answered> {
        let mut proposals = self.proposals.lock().unwrap();
        *proposals += 1;
        let (sender, receiver) = channel();
        match *proposals {
            1 | 3 => drop(sender.send(Err(Error::conflict("someone was faster")))),
            2 => *self.held.lock().unwrap() = Some(sender),
            _ => return self.inner.propose(command),
        }
        receiver
    }
}

#[test]
fn a_statement_that_waited_for_its_turn_judges_by_the_time_at_which_it_came() {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT) WITH TTL=30m");
    run(&db, "INSERT INTO t VALUES (1, 0)");
    let group = Turns { inner: db.group(), proposals: Mutex::new(0), held: Mutex::new(None) };
    let executor = Executor::new(Limits::default(), Pool::new(1 << 20), Arc::new(SystemClock));
    let task = Task::default();
    let affected = |answer: Result<Answer, Error>| match answer.unwrap() {
        Answer::Done { affected } => affected,
        Answer::Rows(_) => panic!("an update answers no rows"),
    };
    let first_done = Cell::new(false);
    let first = async {
        let done = affected(executor.execute(&group, "UPDATE t SET v = v + 1", &task).await);
        first_done.set(true);
        done
    };
    let second = async { affected(executor.execute(&group, "UPDATE t SET v = v + 2", &task).await) };
    let outside = async {
        // Both have met their conflict; one holds the latch and waits for its outcome, the other waits for the latch.
        while *group.proposals.lock().unwrap() < 3 {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*group.proposals.lock().unwrap(), 3, "the other does not propose beside it");
        world.clock.advance(Duration::from_hours(1));
        let held = group.held.lock().unwrap().take().unwrap();
        held.send(Ok(Outcome { affected: 1 })).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (first, second, ()) = runtime.block_on(async { tokio::join!(first, second, outside) });
    assert!(first_done.get());
    assert_eq!(first + second, 1, "the row had expired when the second came to it");
}
