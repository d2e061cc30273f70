//! Statements that take turns after a conflict.

use super::support::*;
use chronos::Error;
use chronos::clock::SystemClock;
use chronos::embedded::{Database, LocalGroup};
use chronos::error::{Kind, SqlState};
use chronos::hlc::Timestamp;
use chronos::ids::OriginUid;
use chronos::machine::Outcome;
use chronos::sql::evaluate::{KEY_BYTES_MAX, LONG_BYTES_MIN};
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

/// One statement's way to the group: whether what it has proposed may have taken effect.
struct InDoubt<'a> {
    turns: &'a Turns<'a>,
    is_in_doubt: Mutex<bool>,
}

impl Group for InDoubt<'_> {
    fn view(&self) -> Result<View, Error> {
        self.turns.view()
    }

    fn instant(&self) -> Timestamp {
        self.turns.instant()
    }

    fn origin(&self) -> OriginUid {
        self.turns.origin()
    }

    fn check_space(&self) -> Result<(), Error> {
        Ok(())
    }

    fn propose(&self, command: Vec<u8>) -> Receiver<Answered> {
        *self.is_in_doubt.lock().unwrap() = true;
        self.turns.propose(command)
    }

    fn conflicted(&self) {
        *self.is_in_doubt.lock().unwrap() = false;
    }
}

#[test]
fn a_statement_that_waits_for_its_turn_is_not_in_doubt() {
    let update = "UPDATE t SET v = v + 1".to_owned();
    // So long that it is read in slices, and few enough rows for one command.
    let insert = format!("INSERT INTO t VALUES (2, 1, '{}')", "x".repeat(LONG_BYTES_MIN));
    for (sql, is_batch) in [(&update, false), (&update, true), (&insert, false)] {
        let db = fresh();
        run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, s TEXT)");
        run(&db, "INSERT INTO t VALUES (1, 0, '')");
        let turns = Turns { inner: db.group(), proposals: Mutex::new(0), held: Mutex::new(None) };
        let executor = Executor::new(Limits::default(), Pool::new(1 << 20), Arc::new(SystemClock));
        let groups = [0, 1].map(|_| InDoubt { turns: &turns, is_in_doubt: Mutex::new(false) });
        let task = Task::default();
        let update = async |group: &InDoubt<'_>| {
            if is_batch {
                return executor
                    .execute_batch(group, std::slice::from_ref(sql), &task)
                    .await
                    .map(drop)
                    .map_err(|(_, error)| error);
            }
            executor.execute(group, sql, &task).await.map(drop)
        };
        let in_doubt = || [&groups[0], &groups[1]].map(|group| *group.is_in_doubt.lock().unwrap());
        let outside = async {
            // The first holds the latch and waits for its outcome, the second has met its conflict and waits for the latch.
            while *turns.proposals.lock().unwrap() < 3 {
                tokio::task::yield_now().await;
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(in_doubt(), [true, false]);
            // Whoever would answer for the first now does not know; its sender goes, and so it stays.
            drop(turns.held.lock().unwrap().take().unwrap());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (first, second, ()) =
            runtime.block_on(async { tokio::join!(update(&groups[0]), update(&groups[1]), outside) });
        assert_eq!(first.unwrap_err().kind(), Kind::InDoubt);
        second.unwrap();
        assert_eq!(in_doubt(), [true, true], "no conflict came after the last proposal");
        assert_eq!(int(&db, "SELECT SUM(v) FROM t"), 1);
    }
}

/// A group that says when something is proposed, and runs a statement of someone else before it.
struct Watched<'a> {
    db: &'a Database,
    before: Mutex<Option<String>>,
    is_proposed: Mutex<bool>,
}

impl Group for Watched<'_> {
    fn view(&self) -> Result<View, Error> {
        self.db.group().view()
    }

    fn instant(&self) -> Timestamp {
        self.db.group().instant()
    }

    fn origin(&self) -> OriginUid {
        self.db.group().origin()
    }

    fn check_space(&self) -> Result<(), Error> {
        Ok(())
    }

    fn propose(&self, command: Vec<u8>) -> Receiver<Answered> {
        *self.is_proposed.lock().unwrap() = true;
        let before = self.before.lock().unwrap().take();
        if let Some(sql) = before {
            run(self.db, &sql);
        }
        self.db.group().propose(command)
    }
}

#[test]
fn others_have_their_turn_while_a_table_is_looked_through() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, s TEXT)");
    for from in (0..15_000).step_by(5_000) {
        let rows: Vec<String> = (from..from + 5_000).map(|id| format!("({id}, 1, 's{id}')")).collect();
        run(&db, &format!("INSERT INTO t VALUES {}", rows.join(",")));
    }
    let executor = Executor::new(Limits::default(), Pool::new(1 << 20), Arc::new(SystemClock));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The index is of no use to a pattern without a beginning. Few rows pass, so all are read before one is proposed.
    let (update, delete) = ("UPDATE t SET v = 2 WHERE s LIKE '%14999'", "DELETE FROM t WHERE s LIKE '%14998'");
    for sql in ["CREATE INDEX by_s ON t (s)", update, delete, "DELETE FROM t"] {
        let group = Watched { db: &db, before: Mutex::new(None), is_proposed: Mutex::new(false) };
        let task = Task::default();
        let others = async {
            let mut turns = 0;
            while !*group.is_proposed.lock().unwrap() {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        };
        let (done, turns) = runtime.block_on(async { tokio::join!(executor.execute(&group, sql, &task), others) });
        assert!(done.is_ok() && turns >= 3, "{sql}: {turns} turns");
    }
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
}

#[test]
fn a_row_whose_index_entry_is_too_long_can_be_updated_in_its_other_columns() {
    let db = fresh();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT, s TEXT)");
    let long = "x".repeat(KEY_BYTES_MAX);
    let insert = format!("INSERT INTO t VALUES (1, 1, '{long}')");
    let group = Watched { db: &db, before: Mutex::new(Some(insert)), is_proposed: Mutex::new(false) };
    let executor = Executor::new(Limits::default(), Pool::new(1 << 20), Arc::new(SystemClock));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The row comes between the look at all rows and the index.
    runtime.block_on(executor.execute(&group, "CREATE INDEX by_s ON t (s)", &Task::default())).unwrap();
    assert_eq!(run(&db, "UPDATE t SET v = 2 WHERE id = 1"), 1);
    batch(&db, &["UPDATE t SET v = v + 1"]).unwrap();
    assert_eq!(int(&db, "SELECT v FROM t"), 3);
    for sql in ["UPDATE t SET s = s || 'y'", "UPDATE t SET id = 2"] {
        fail(&db, sql, SqlState::LIMIT_EXCEEDED);
    }
    assert_eq!(run(&db, "UPDATE t SET s = 'short'"), 1);
    assert_eq!(run(&db, "UPDATE t SET id = 2"), 1);
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t WHERE s = 'short'"), 1);
}
