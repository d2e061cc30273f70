//! A whole node without doors: statements through all actors, and a poison for each of them.

use crate::actors::DaemonConfig;
use crate::actors::executor::Executor;
use crate::actors::janitor::Janitor;
use crate::actors::lifeline::News;
use crate::actors::messages::{Close, Freshness, Output, Statement, Streamed, Terms};
use crate::actors::metrics::MetricsActor;
use crate::actors::node::Node;
use crate::actors::policy::Policy;
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Ask, Deadline, Question};
use crate::actors::router::Router;
use crate::actors::storage::{Parts, Storage};
use crate::actors::supervisor::End;
use crate::actors::sync::Sync;
use crate::actors::tests::quiet;
use crate::actors::transit::Hold;
use actix::{Context, Handler};
use chronos::clock::{Clock, SystemClock};
use chronos::embedded::engine_options;
use chronos::error::{Kind, Result, SqlState};
use chronos::sql::execute::Access;
use chronos::sql::value::Value;
use chronos::storage::engine;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A statement that panics while it runs.
pub const POISONED: &str = "SELECT poison";

/// A message that panics in its handler.
pub struct Poison;

impl Question for Poison {
    type Answer = ();
}

macro_rules! poisoned {
    ($($actor:ty),+) => {$(
        impl Handler<Ask<Poison>> for $actor {
            type Result = ();
            fn handle(&mut self, ask: Ask<Poison>, _: &mut Context<Self>) {
                let _opened = ask.open();
                panic!("poison");
            }
        }
    )+};
}

poisoned!(Storage, Raft, Executor, Janitor, Sync, MetricsActor);

pub fn terms() -> Terms {
    let deadline = Deadline::after(Duration::from_secs(30));
    Terms { deadline, whole: None, freshness: Freshness::default(), request: None, access: Access::default() }
}

pub fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_string(), parameters: Vec::new(), hold: Hold::nothing() }
}

/// A running node, and the way to end it.
pub struct Running {
    pub router: Router,
    pub published: Arc<Published>,
    pub parts: Arc<Parts>,
    news: mpsc::UnboundedSender<News>,
}

impl Running {
    pub async fn start(directory: &Path) -> Running {
        let limits = engine::Limits::default();
        Running::start_on(directory, engine_options(limits), Arc::new(SystemClock)).await
    }

    /// The same with an engine and a clock of the test's choice.
    pub async fn start_on(directory: &Path, engine: engine::Options, clock: Arc<dyn Clock>) -> Running {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Running::start_with(DaemonConfig::new("node1", directory, address), engine, clock).await
    }

    /// The same with settings of the test's choice.
    pub async fn start_with(mut config: DaemonConfig, engine: engine::Options, clock: Arc<dyn Clock>) -> Running {
        quiet();
        config.executors = 2;
        config.policy = Policy { failures_max: usize::MAX, backoff_first: Duration::ZERO, ..Policy::default() };
        config.database.engine = engine.limits.clone();
        let Node { router, published, parts, supervisor, .. } = Node::start_on(&config, clock, engine).await.unwrap();
        let news = supervisor.sender();
        actix::spawn(async {
            if let End::GaveUp(error) = supervisor.run().await {
                // As the daemon does; the test would wait for a node that is no more.
                eprintln!("the node has failed: {error:?}");
                std::process::exit(1);
            }
        });
        let running = Running { router, published, parts, news };
        // The first leader's first entry takes a moment.
        running.until_served().await;
        running
    }

    pub async fn execute(&self, sql: &str) -> Result<Output> {
        self.router.execute(statement(sql), terms()).await
    }

    pub async fn until_served(&self) {
        while self.execute("SELECT 1").await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until storage has said how it is after everything so far.
    pub async fn until_published(&self) {
        let before = self.published.storage();
        while Arc::ptr_eq(&before, &self.published.storage()) {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the storage actor by a panic in its handler.
    pub async fn poison_storage(&self) {
        self.router.routes().storage.ask(Poison, terms().deadline).await.unwrap_err();
    }

    pub async fn stop(self) {
        // The last poison may still be on its way to the supervisor.
        while self.router.routes().storage.ask(Close, terms().deadline).await.is_err() {}
        let (done, ended) = oneshot::channel();
        self.news.send(News::Shutdown(done)).unwrap();
        ended.await.unwrap();
    }
}

pub fn ints(output: &Output) -> Vec<i64> {
    let rows = output.batches.iter().flat_map(|batch| (0..batch.rows).map(|row| batch.row(row)));
    let int = |row: Vec<Value>| if let Value::Int(value) = row[0] { Some(value) } else { None };
    rows.map(|row| int(row).expect("the column is INT")).collect()
}

pub fn on_a_system<F: Future>(work: F) -> F::Output {
    actix::System::new().block_on(work)
}

#[test]
fn a_statement_goes_through_all_actors_and_back() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY, x FLOAT)").await.unwrap();
        let written = node.execute("INSERT INTO t (id, x) VALUES (1, 0.5), (2, 1.5)").await.unwrap();
        assert_eq!(written.affected, 2);
        let read = node.execute("SELECT id FROM t ORDER BY id").await.unwrap();
        assert_eq!((ints(&read), read.columns[0].name.as_str()), (vec![1, 2], "id"));
        let error = node.execute("SELECT nothing FROM t").await.unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::UNDEFINED_COLUMN);
        node.stop().await;
    });
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        on_a_system(async {
            let node = Running::start(directory.path()).await;
            if round == 0 {
                node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
            }
            node.execute(&format!("INSERT INTO t VALUES ({round})")).await.unwrap();
            let read = node.execute("SELECT id FROM t ORDER BY id").await.unwrap();
            assert_eq!(ints(&read), (0..=round).collect::<Vec<i64>>());
            node.stop().await;
        });
    }
}

#[test]
fn a_batch_takes_effect_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let batch = |texts: &[&str]| texts.iter().map(|sql| statement(sql)).collect::<Vec<Statement>>();
        let good = batch(&["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "SELECT id FROM t ORDER BY id"]);
        let outputs = node.router.batch(good, terms()).await.unwrap();
        assert_eq!(ints(&outputs[2]), [1, 2], "a statement sees those before it");
        let bad = batch(&["INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (1)"]);
        let failure = node.router.batch(bad, terms()).await.unwrap_err();
        assert_eq!(failure.error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert_eq!(ints(&node.execute("SELECT COUNT(*) FROM t").await.unwrap()), [2]);
        node.stop().await;
    });
}

#[test]
fn a_large_result_streams_and_is_refused_in_one_piece() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        for part in 0..10 {
            let values: Vec<String> = (part * 1000..(part + 1) * 1000).map(|id| format!("({id})")).collect();
            node.execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        }
        let streamed = node.router.query(statement("SELECT id FROM t"), terms()).await.unwrap();
        let Streamed::Rows(mut rows) = streamed else { panic!("a query streams") };
        let mut seen = 0;
        while let Some(batch) = rows.next().await {
            seen += batch.unwrap().look(|batch| batch.rows).unwrap();
        }
        assert_eq!(seen, 10_000);
        node.stop().await;
    });
}

#[test]
fn a_statement_that_panics_answers_xx000_and_costs_nobody_anything() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        for _ in 0..100 {
            let error = node.execute(POISONED).await.unwrap_err();
            assert_eq!((error.kind(), error.sqlstate()), (Kind::Internal, SqlState::INTERNAL));
            node.execute("SELECT 1").await.unwrap();
        }
        let status = node.router.status().await.unwrap();
        assert!(status.actors.iter().all(|actor| actor.restarts == 0), "{:?}", status.actors);
        node.stop().await;
    });
}

fn survives(poisons: usize, poison: &impl AsyncFn(&Router) -> Result<()>) -> Fates {
    survives_on(engine_options(engine::Limits::default()), poisons, poison)
}

/// How a writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// Rows of literals: the door runs them by itself.
    Literals,
    /// Rows of expressions: an executor evaluates them.
    Expressions,
    /// A row that counts up: an executor reads it first.
    Updates,
}

impl Writer {
    fn statement(self, number: i64) -> Statement {
        statement(&match self {
            Writer::Literals => format!("INSERT INTO t VALUES ({number})"),
            Writer::Expressions => format!("INSERT INTO t VALUES ({number} + 0)"),
            Writer::Updates => format!("UPDATE counted SET n = {number} WHERE id = 1"),
        })
    }
}

/// What became of the writes of one writer, by their numbers.
#[derive(Default)]
struct Fate {
    acknowledged: Vec<i64>,
    in_doubt: Vec<i64>,
    refused: usize,
}

impl Fate {
    async fn of(writer: Writer, router: Router, stop: Arc<AtomicBool>, next: Arc<AtomicI64>) -> (Writer, Fate) {
        let mut fate = Fate::default();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match router.execute(writer.statement(number), terms()).await {
                Ok(_) => fate.acknowledged.push(number),
                Err(error) if error.kind() == Kind::InDoubt => fate.in_doubt.push(number),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Unavailable, "{writer:?}: {error:?}");
                    fate.refused += 1;
                }
            }
        }
        (writer, fate)
    }
}

/// What became of the writes.
pub struct Fates {
    by_writer: Vec<(Writer, Fate)>,
}

impl Fates {
    /// Rows that are there: every acknowledged one, and no other but those in doubt; keys below 0 are not the writers'.
    fn assert_rows(&self, there: &[i64]) {
        let fates = || self.by_writer.iter().filter(|(writer, _)| *writer != Writer::Updates).map(|(_, fate)| fate);
        let acknowledged: Vec<i64> = fates().flat_map(|fate| fate.acknowledged.clone()).chain([0]).collect();
        let missing: Vec<_> = acknowledged.iter().filter(|id| there.binary_search(id).is_err()).collect();
        assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
        let known = |id: &i64| *id < 0 || acknowledged.contains(id) || fates().any(|fate| fate.in_doubt.contains(id));
        let unknown: Vec<_> = there.iter().filter(|id| !known(id)).collect();
        assert!(unknown.is_empty(), "told that nothing happened, and there: {unknown:?}");
    }

    /// The row that counts up holds the last acknowledged number, or a later one in doubt.
    fn assert_count(&self, there: i64) {
        for (_, fate) in self.by_writer.iter().filter(|(writer, _)| *writer == Writer::Updates) {
            let last = fate.acknowledged.last().copied().unwrap_or(0);
            let may_be = there == last || there > last && fate.in_doubt.contains(&there);
            assert!(may_be, "{there} is there, {last} was acknowledged last, in doubt: {:?}", fate.in_doubt);
        }
    }

    /// How many writes of those writers came to a bad end.
    fn failed(&self, of: impl Fn(Writer) -> bool) -> usize {
        let fates = self.by_writer.iter().filter(|(writer, _)| of(*writer));
        fates.map(|(_, fate)| fate.in_doubt.len() + fate.refused).sum()
    }
}

/// Poisons one actor again and again under writes, half of which take the way through an executor; every acknowledged one
/// must be there afterwards, and no other but those in doubt.
pub fn survives_on(engine: engine::Options, poisons: usize, poison: &impl AsyncFn(&Router) -> Result<()>) -> Fates {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start_on(directory.path(), engine, Arc::new(SystemClock)).await;
        for sql in [
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "INSERT INTO t VALUES (0)",
            "CREATE TABLE counted (id INT PRIMARY KEY, n INT)",
            "INSERT INTO counted VALUES (1, 0)",
        ] {
            node.execute(sql).await.unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicI64::new(1));
        let writers = [Writer::Literals, Writer::Literals, Writer::Expressions, Writer::Updates];
        let writers =
            writers.map(|writer| actix::spawn(Fate::of(writer, node.router.clone(), stop.clone(), next.clone())));
        for _ in 0..poisons {
            poison(&node.router).await.unwrap_err();
            node.until_served().await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut fates = Fates { by_writer: Vec::new() };
        for writer in writers {
            fates.by_writer.push(writer.await.unwrap());
        }
        assert!(fates.by_writer.iter().any(|(_, fate)| !fate.acknowledged.is_empty()));
        fates.assert_rows(&ints(&until_answered(&node, "SELECT id FROM t ORDER BY id").await));
        fates.assert_count(ints(&until_answered(&node, "SELECT n FROM counted").await)[0]);
        node.stop().await;
        fates
    })
}

/// The answer, once there is one: the last poison may still be on its way to the supervisor.
async fn until_answered(node: &Running, sql: &str) -> Output {
    loop {
        if let Ok(output) = node.execute(sql).await {
            return output;
        }
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_executors_panic() {
    let turn = AtomicUsize::new(0);
    let fates = survives(100, &async |router| {
        let executors = &router.routes().executors;
        let poisoned = &executors[turn.fetch_add(1, Ordering::Relaxed) % executors.len()];
        poisoned.ask(Poison, terms().deadline).await
    });
    // Executors had statements at hand when they panicked, and what the door runs by itself needs none.
    let runs_on_an_executor = |writer: Writer| writer != Writer::Literals;
    assert!(fates.failed(runs_on_an_executor) > 10, "{}", fates.failed(runs_on_an_executor));
    assert_eq!(fates.failed(|writer| !runs_on_an_executor(writer)), 0);
}

#[test]
fn no_acknowledged_write_is_lost_when_raft_panics() {
    survives(100, &async |router| router.routes().raft.ask(Poison, terms().deadline).await);
}

#[test]
fn no_acknowledged_write_is_lost_when_storage_panics() {
    // Each one opens the database again.
    survives(100, &async |router| router.routes().storage.ask(Poison, terms().deadline).await);
}

#[test]
fn the_others_may_panic_as_they_like() {
    survives(100, &async |router| {
        let routes = router.routes();
        routes.janitor.ask(Poison, terms().deadline).await.unwrap_err();
        routes.sync.ask(Poison, terms().deadline).await.unwrap_err();
        routes.metrics.ask(Poison, terms().deadline).await
    });
}
