//! Named requests: whatever is sent again is not executed again, and is answered as it was.

use super::support::*;
use chronos::clock::{SystemClock, Wall};
use chronos::embedded::Database;
use chronos::error::{Error, SqlState};
use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, OriginUid, Term};
use chronos::machine::{Body, Command, Machine, REQUESTS_MAX, Request, RequestId, SESSIONS_MAX, Transaction};
use chronos::raft::{Entry, Membership, Payload};
use chronos::sql::execute::{Answer, Executor, Group, Limits, Task};
use chronos::sql::memory::Pool;
use chronos::storage::cache::Cache;
use chronos::storage::engine::Stop;
use chronos::storage::levels::Levels;
use chronos::storage::view::View;
use std::sync::Arc;
use std::time::Duration;

/// A statement under a name: rows affected.
fn named(database: &Database, id: RequestId, sql: &str) -> Result<u64, Error> {
    let task = Task { request: Some(id), ..Task::default() };
    let executor = Executor::new(small(), Pool::new(1 << 20), Arc::new(SystemClock));
    wait(executor.execute(database.group(), sql, &task)).map(|answer| affected(&answer))
}

fn named_batch(database: &Database, id: RequestId, statements: &[&str]) -> Result<Vec<u64>, Error> {
    let task = Task { request: Some(id), ..Task::default() };
    let executor = Executor::new(small(), Pool::new(1 << 20), Arc::new(SystemClock));
    let statements: Vec<String> = statements.iter().map(|sql| (*sql).to_string()).collect();
    let answers = wait(executor.execute_batch(database.group(), &statements, &task));
    answers.map(|answers| answers.iter().map(affected).collect()).map_err(|(_, error)| error)
}

/// Commands small enough that some are staged.
fn small() -> Limits {
    Limits { command_bytes_max: 4 << 10, ..Limits::default() }
}

fn wait<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn affected(answer: &Answer) -> u64 {
    match answer {
        Answer::Done { affected } => *affected,
        Answer::Rows(_) => panic!("a statement that writes answers no rows"),
    }
}

fn session(sequence: u64) -> RequestId {
    RequestId::Session { client: "edge-1".into(), sequence }
}

/// A `UUIDv7` of an instant.
fn bare(created_ms: u64, tail: u128) -> RequestId {
    RequestId::Bare(u128::from(created_ms) << 80 | 7 << 76 | 2 << 62 | tail)
}

fn table(world: &World) -> Database {
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    db
}

#[test]
fn a_repeated_request_is_not_executed_again_and_answers_the_same() {
    let world = World::new();
    let mut db = table(&world);
    let names: [fn(u64) -> RequestId; 2] = [session, |n| bare(BEGIN_MS, n.into())];
    for (round, id) in names.into_iter().enumerate() {
        run(&db, "DELETE FROM t");
        let other = format!("CREATE TABLE u{round} (id INT)");
        let gone = format!("DROP TABLE u{round}");
        let indexed = format!("CREATE INDEX i{round} ON t (v)");
        let requests = [
            ("INSERT INTO t VALUES (1, 0), (2, 0)", Ok(2)),
            ("UPDATE t SET v = v + 1", Ok(2)),
            ("INSERT INTO t VALUES (1, 0)", Err(SqlState::UNIQUE_VIOLATION)),
            ("DELETE FROM t WHERE v = 1 AND id = 2", Ok(1)),
            ("UPDATE t SET v = 0 WHERE id = 99", Ok(0)),
            (&other, Ok(0)),
            (&indexed, Ok(0)),
            (&gone, Ok(0)),
        ];
        for turn in 0..4 {
            for (n, (sql, expected)) in requests.iter().enumerate() {
                let answer = named(&db, id(n as u64 + 1), sql).map_err(|error| error.sqlstate());
                assert_eq!(answer, *expected, "turn {turn}: {sql}");
            }
            assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(1)]]);
            db = world.restart(db, if turn % 2 == 0 { Stop::Abandon } else { Stop::Clean });
        }
    }
}

#[test]
fn a_name_of_a_statement_is_none_of_a_batch_of_it() {
    let world = World::new();
    let db = table(&world);
    let sql = "INSERT INTO t VALUES (1, 1)";
    let names: [fn(u64) -> RequestId; 2] = [session, |n| bare(BEGIN_MS, n.into())];
    for (round, id) in names.into_iter().enumerate() {
        run(&db, "DELETE FROM t");
        named(&db, id(1), sql).unwrap();
        let refused = named_batch(&db, id(1), &[sql]).unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::INVALID_PARAMETER, "round {round}: {refused}");
        assert!(refused.message().contains("another statement or batch"), "{refused}");
        run(&db, "DELETE FROM t");
        assert_eq!(named_batch(&db, id(2), &[sql]).unwrap(), [1]);
        assert_eq!(named_batch(&db, id(2), &[sql]).unwrap(), [1], "answered again");
        let refused = named(&db, id(2), sql).unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::INVALID_PARAMETER, "round {round}: {refused}");
    }
}

#[test]
fn a_request_name_stands_for_one_statement() {
    let world = World::new();
    let db = table(&world);
    named(&db, session(1), "INSERT INTO t VALUES (1, 1)").unwrap();
    for other in ["INSERT INTO t VALUES (2, 1)", "UPDATE t SET v = 9", "SELECT 1 FROM t WHERE id = 1 AND 1 = 0"] {
        if let Err(error) = named_result(&db, session(1), other) {
            assert_eq!(error.sqlstate(), SqlState::INVALID_PARAMETER, "{error}");
            assert!(error.to_string().contains("another statement"), "{error}");
        } else {
            panic!("{other} was run");
        }
    }
    assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(1)]]);
}

fn named_result(database: &Database, id: RequestId, sql: &str) -> Result<(), Error> {
    let task = Task { request: Some(id), ..Task::default() };
    let executor = Executor::new(small(), Pool::new(1 << 20), Arc::new(SystemClock));
    wait(executor.execute(database.group(), sql, &task)).map(drop)
}

#[test]
fn a_session_keeps_64_outcomes_and_refuses_what_is_older() {
    let world = World::new();
    let db = table(&world);
    for n in 1..=80 {
        assert_eq!(named(&db, session(n), &format!("INSERT INTO t VALUES ({n}, 0)")).unwrap(), 1);
    }
    let db = world.restart(db, Stop::Abandon);
    run(&db, "DELETE FROM t");
    for n in 1..=80 {
        let answer = named(&db, session(n), &format!("INSERT INTO t VALUES ({n}, 0)"));
        if n <= 16 {
            let error = answer.unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::INVALID_PARAMETER);
            assert!(error.to_string().contains("not executed"), "{error}");
        } else {
            assert_eq!(answer.unwrap(), 1);
        }
    }
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 0);
}

#[test]
fn requests_of_a_session_may_arrive_in_any_order() {
    let world = World::new();
    let db = table(&world);
    for n in [5, 3, 9, 1, 64] {
        assert_eq!(named(&db, session(n), &format!("INSERT INTO t VALUES ({n}, 0)")).unwrap(), 1);
    }
    for n in [1, 9, 64, 3, 5] {
        assert_eq!(named(&db, session(n), &format!("INSERT INTO t VALUES ({n}, 0)")).unwrap(), 1);
    }
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 5);
}

#[test]
fn a_bare_name_is_good_for_ten_minutes() {
    let world = World::new();
    let mut db = table(&world);
    let sql = "UPDATE t SET v = v + 1";
    run(&db, "INSERT INTO t VALUES (1, 0)");
    let early = bare(BEGIN_MS, 1);
    assert_eq!(named(&db, early.clone(), sql).unwrap(), 1);
    for how in [Stop::Clean, Stop::Abandon] {
        world.clock.advance(Duration::from_secs(299));
        db = world.restart(db, how);
        assert_eq!(named(&db, early.clone(), sql).unwrap(), 1);
    }
    world.clock.advance(Duration::from_secs(2));
    for old in [early, bare(BEGIN_MS, 2)] {
        let error = named(&db, old, sql).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::REQUEST_ID_EXPIRED);
        assert!(error.to_string().contains("10 minutes"), "{error}");
    }
    let future = bare(BEGIN_MS + 24 * 3600 * 1000, 1);
    let error = named(&db, future, sql).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::REQUEST_ID_EXPIRED);
    assert!(error.to_string().contains("future"), "an outcome that is forgotten before its name ages: {error}");
    assert_eq!(int(&db, "SELECT v FROM t"), 1);
}

#[test]
fn a_repeated_batch_is_not_executed_again_and_answers_the_same() {
    let world = World::new();
    let mut db = table(&world);
    let statements = [
        "INSERT INTO t VALUES (1, 0), (2, 0)",
        "UPDATE t SET v = v + 1",
        "DELETE FROM t WHERE id = 2",
        "CREATE TABLE u (id INT)",
    ];
    for how in [Stop::Abandon, Stop::Clean, Stop::Clean] {
        assert_eq!(named_batch(&db, session(1), &statements).unwrap(), [2, 2, 1, 0]);
        assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(1)]]);
        assert!(named_batch(&db, session(1), &statements[..2]).is_err(), "another batch");
        db = world.restart(db, how);
    }
    named(&db, session(2), "UPDATE t SET v = 5").unwrap();
    // Only the last outcome is kept in full.
    let error = named_batch(&db, session(1), &statements).unwrap_err();
    assert!(error.to_string().contains("already applied"), "{error}");
    assert_eq!(error.sqlstate(), SqlState::REQUEST_APPLIED);
    assert_eq!(ints(&db, "SELECT id, v FROM t"), [[Some(1), Some(5)]]);
}

#[test]
fn a_staged_request_is_executed_once_and_its_parts_are_not_kept() {
    let world = World::new();
    let db = table(&world);
    let sql = insert_range("t", 0..2000);
    for _ in 0..3 {
        assert_eq!(named(&db, session(1), &sql).unwrap(), 2000);
    }
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 2000);
    assert_eq!(stages(&db), 0);
    assert!(named(&db, session(2), &sql).is_err(), "duplicates");
    run(&db, "SELECT 1");
    run(&db, "DELETE FROM t WHERE id = 1");
    assert_eq!(stages(&db), 0);
}

/// Rows of staged parts.
fn stages(database: &Database) -> usize {
    let request = chronos::storage::view::ScanRequest {
        keyspace: chronos::sql::catalog::STAGES,
        ranges: vec![chronos::storage::keys::KeyRange::all()],
        columns: vec![],
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: true,
        batch_rows: 1024,
    };
    let mut scanner = database.group().view().unwrap().scan(request).unwrap();
    let mut rows = 0;
    while let Some(batch) = scanner.next_batch().unwrap() {
        rows += batch.batch.rows;
    }
    rows
}

#[test]
fn parts_staged_before_a_restart_are_not_kept() {
    let world = World::new();
    let mut db = table(&world);
    for how in [Stop::Abandon, Stop::Clean] {
        let body = Body::Stage { stage: 7, part: 0, bytes: vec![1; 10_000] };
        let command = Command { request: None, origin: db.group().origin(), affected: 0, body };
        wait(db.group().propose(command.encode())).unwrap().unwrap();
        assert_eq!(stages(&db), 4);
        db = world.restart(db, how);
        assert_eq!(stages(&db), 0);
    }
}

/// Applies one command as the next entry, and writes what it does into the view's memtable.
fn apply(machine: &mut Machine, view: &View, body: Body, request: Option<Request>) -> Result<(), Error> {
    let command = Command { request, origin: OriginUid(1), affected: 0, body }.encode();
    let entry = Entry {
        index: machine.applied.0.next(),
        term: Term(1),
        hlc: machine.hlc.next(),
        payload: Payload::Command(&command).encode(),
    };
    machine.apply(&entry, view, &*view.levels.memtables[0]).unwrap().map(drop)
}

/// A machine with these counters, before its second command, and the empty levels it reads.
fn machine(counters: &[(&str, u64)]) -> (Machine, View) {
    let machine = Machine {
        catalog: Arc::default(),
        membership: Membership::default(),
        applied: (LogIndex(1), Term(1)),
        hlc: Timestamp::at(Wall(BEGIN_MS)),
        counters: counters.iter().map(|(name, count)| ((*name).to_string(), *count)).collect(),
    };
    let view = View {
        version: LogIndex(u64::MAX),
        hlc: machine.hlc,
        catalog: machine.catalog.clone(),
        levels: Arc::new(Levels::new(Vec::new())),
        cache: Arc::new(Cache::new(0)),
        lease: None,
    };
    (machine, view)
}

#[test]
fn bare_ids_have_a_ceiling_above_which_the_oldest_are_refused_and_never_executed_again() {
    let (mut machine, view) = machine(&[("requests", REQUESTS_MAX - 3)]);
    let body = || Body::Transaction(Transaction::default());
    let of = |ms: u64, random| Request { id: bare(ms, random), fingerprint: 1, counts: Vec::new() };
    for (ms, random) in [(BEGIN_MS - 50, 1), (BEGIN_MS - 40, 2), (BEGIN_MS - 30, 3)] {
        apply(&mut machine, &view, body(), Some(of(ms, random))).unwrap();
    }
    apply(&mut machine, &view, body(), Some(of(BEGIN_MS - 50, 1))).expect("its outcome is known");
    assert_eq!((machine.counters["requests"], machine.counters.get("requests_floor_ms")), (REQUESTS_MAX, None));
    apply(&mut machine, &view, body(), Some(of(BEGIN_MS - 10, 4))).expect("a new one takes the place of old ones");
    assert_eq!(machine.counters["requests"], REQUESTS_MAX - 2, "three are forgotten at once");
    for (ms, random) in [(BEGIN_MS - 50, 1), (BEGIN_MS - 30, 3), (BEGIN_MS - 30, 99)] {
        let refused = apply(&mut machine, &view, body(), Some(of(ms, random))).unwrap_err();
        assert!(refused.message().contains("it was not executed"), "{refused}");
        assert_eq!(refused.sqlstate(), SqlState::REQUEST_ID_FORGOTTEN);
    }
    apply(&mut machine, &view, body(), Some(of(BEGIN_MS - 29, 5))).expect("one above those is executed");
    apply(&mut machine, &view, body(), Some(of(BEGIN_MS - 10, 4))).expect("its outcome is known");
}

#[test]
fn a_long_error_is_remembered_by_its_beginning() {
    let db = fresh();
    run(&db, "CREATE TABLE t (name TEXT PRIMARY KEY)");
    let insert = format!("INSERT INTO t VALUES ('{}')", "ü".repeat(4_000));
    run(&db, &insert);
    let id = bare(BEGIN_MS, 5);
    let first = named(&db, id.clone(), &insert).unwrap_err();
    let again = named(&db, id, &insert).unwrap_err();
    assert_eq!((first.sqlstate(), again.sqlstate()), (SqlState::UNIQUE_VIOLATION, SqlState::UNIQUE_VIOLATION));
    assert!(again.message().len() < 600 && again.message().ends_with("..."), "{again}");
    assert!(first.message().starts_with(again.message().trim_end_matches("...")), "{again}");
}

#[test]
fn sessions_have_a_ceiling_and_eviction_makes_room() {
    let (mut machine, view) = machine(&[("sessions", SESSIONS_MAX - 2)]);
    let body = || Body::Transaction(Transaction::default());
    let of = |client: &str, sequence| {
        let id = RequestId::Session { client: client.to_string(), sequence };
        Some(Request { id, fingerprint: sequence, counts: Vec::new() })
    };
    apply(&mut machine, &view, body(), of("a", 1)).unwrap();
    apply(&mut machine, &view, body(), of("a", 2)).unwrap();
    let between = machine.hlc.next();
    apply(&mut machine, &view, body(), of("b", 1)).unwrap();
    assert_eq!(machine.counters["sessions"], SESSIONS_MAX);
    let refused = apply(&mut machine, &view, body(), of("c", 1)).unwrap_err();
    assert_eq!(refused.sqlstate(), SqlState::LIMIT_EXCEEDED);
    assert!(refused.to_string().contains("100000 sessions"), "{refused}");
    apply(&mut machine, &view, body(), of("b", 2)).expect("a session that is there goes on");
    let bare = Request { id: bare(BEGIN_MS, 9), fingerprint: 1, counts: Vec::new() };
    apply(&mut machine, &view, body(), Some(bare)).expect("bare ids are no sessions");
    apply(&mut machine, &view, Body::EvictRequests { before: between }, None).unwrap();
    assert_eq!(machine.counters["sessions"], SESSIONS_MAX - 1, "a is gone, b is not");
    apply(&mut machine, &view, body(), of("c", 1)).unwrap();
    apply(&mut machine, &view, body(), of("a", 3)).unwrap_err();
    let now = machine.hlc.next();
    apply(&mut machine, &view, Body::EvictRequests { before: now }, None).unwrap();
    assert_eq!(machine.counters["sessions"], SESSIONS_MAX - 2, "b and c are gone");
}
