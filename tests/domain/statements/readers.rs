//! Callers that may only read, at every way into the executor.

use super::support::*;
use chronos::clock::SystemClock;
use chronos::error::SqlState;
use chronos::machine::RequestId;
use chronos::sql::execute::{Access, Answer, Executor, Limits, Task};
use chronos::sql::memory::Pool;
use std::sync::Arc;

fn wait<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn reader() -> Task {
    Task { access: Access::ReadOnly, ..Task::default() }
}

const WRITES: [&str; 9] = [
    "INSERT INTO t VALUES (2, 'x')",
    "INSERT INTO t VALUES (1 + 1, 'x')",
    "/* SELECT */ insert into t (id) values (2)",
    "UPDATE t SET s = 'y'",
    "DELETE FROM t WHERE id = 1",
    "CREATE TABLE u (id INT)",
    "CREATE INDEX i ON t (s)",
    "DROP TABLE t",
    "EXPLAIN ANALYZE DELETE FROM t",
];

#[test]
fn a_reader_is_refused_at_every_way_in() {
    let world = World::new();
    let database = world.open();
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, s TEXT)").unwrap();
    database.execute("INSERT INTO t VALUES (1, 'kept')").unwrap();
    let executor = Executor::new(Limits::default(), Pool::new(1 << 20), Arc::new(SystemClock));
    let group = database.group();
    for sql in WRITES {
        for request in [None, Some(RequestId::Session { client: "edge".into(), sequence: 1 })] {
            let task = Task { request, ..reader() };
            assert!(wait(executor.execute_brief(group, sql, &task)).is_none(), "{sql}");
            let refused = wait(executor.execute(group, sql, &task)).err().unwrap();
            assert_eq!(refused.sqlstate(), SqlState::INSUFFICIENT_PRIVILEGE, "{sql}: {refused}");
            let both = ["SELECT 1".to_string(), sql.to_string()];
            let (at, refused) = wait(executor.execute_batch(group, &both, &task)).err().unwrap();
            assert_eq!((at, refused.sqlstate()), (1, SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {refused}");
        }
    }
    for sql in ["SELECT * FROM t WHERE id = 1", "SELECT COUNT(*) FROM t", "SHOW TABLES", "EXPLAIN DELETE FROM t"] {
        assert!(matches!(wait(executor.execute(group, sql, &reader())), Ok(Answer::Rows(_))), "{sql}");
        assert!(wait(executor.execute_batch(group, &[sql.to_string()], &reader())).is_ok(), "{sql}");
    }
    let broken = wait(executor.execute(group, "SELEC 1", &reader())).err().unwrap();
    assert_eq!(broken.sqlstate(), SqlState::SYNTAX_ERROR);
    assert_eq!(database.execute("SELECT id, s FROM t").unwrap().rows.len(), 1);
}
