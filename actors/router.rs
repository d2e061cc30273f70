//! The router: where doors put requests. Cheap to clone; the supervisor keeps its routes current.
//!
//! It also does what every door would otherwise do again: run brief statements at once (front.rs), choose an executor
//! for the others, and count.
//!
//! * Requests do not pass through the supervisor, so no flood keeps it from restarting anything.

use crate::actors::executor::Executor;
use crate::actors::front::Front;
use crate::actors::janitor::Janitor;
use crate::actors::messages::{
    Backup, BackupDirectory, BatchFailure, Content, ContentHash, Execute, ExecuteBatch, Health, HealthReport, Output,
    Query, Render, Statement, Status, StatusReport, Streamed, Terms,
};
use crate::actors::metrics::{Metrics, MetricsActor, Work};
use crate::actors::raft::Raft;
use crate::actors::route::{Deadline, Route};
use crate::actors::storage::Storage;
use crate::actors::sync::Sync;
use crate::actors::transit::Transit;
use chronos::clock::{Clock, Monotonic};
use chronos::error::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How long a scrape or a health check may take.
const ADMIN_WAIT: Duration = Duration::from_secs(2);

/// How much longer than its deadline an executor is waited for: it knows whether a write that is late was proposed at
/// all. Half of what the gRPC door keeps for its answer.
const VERDICT_WAIT: Duration = Duration::from_millis(5);

/// The ways to all actors.
#[derive(Clone)]
pub struct Router {
    routes: Arc<Routes>,
    front: Arc<Front>,
}

/// One route to each actor.
pub struct Routes {
    /// Owns the files.
    pub storage: Route<Storage>,
    /// Orders writes.
    pub raft: Route<Raft>,
    /// Run statements; at least one.
    pub executors: Vec<Route<Executor>>,
    /// Removes what has expired.
    pub janitor: Route<Janitor>,
    /// Talks to the sync target.
    pub sync: Route<Sync>,
    /// Renders metrics.
    pub metrics: Route<MetricsActor>,
    /// Counts statements.
    pub counters: Arc<Metrics>,
    /// Room for requests and answers on their way.
    pub transit: Arc<Transit>,
    /// Measures them.
    pub clock: Arc<dyn Clock>,
    /// Spreads statements over idle executors.
    pub next: AtomicUsize,
}

impl Router {
    /// A router over these routes; brief statements run at the front.
    pub fn new(routes: Routes, front: Front) -> Router {
        assert!(!routes.executors.is_empty(), "a node has at least one executor");
        Router { routes: Arc::new(routes), front: Arc::new(front) }
    }

    /// The routes, for actors that ask each other.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Runs one statement to its end.
    pub async fn execute(&self, statement: Statement, terms: Terms) -> Result<Output> {
        let (began, work) = self.begin(statement.may_write());
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        let result = match self.front.execute(&statement, &terms).await {
            Some(result) => result,
            None => self.executor().ask(Execute { statement, terms }, deadline).await,
        };
        self.routes.counters.statement(work, self.since(began), result.as_ref().err());
        result
    }

    /// Runs one statement and hands out its rows as they are found.
    pub async fn query(&self, statement: Statement, terms: Terms) -> Result<Streamed> {
        let (began, work) = self.begin(statement.may_write());
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        let result = self.executor().ask(Query { statement, terms }, deadline).await;
        self.routes.counters.statement(work, self.since(began), result.as_ref().err());
        result
    }

    /// Runs statements as one.
    pub async fn batch(&self, statements: Vec<Statement>, terms: Terms) -> Result<Vec<Output>, BatchFailure> {
        let (began, work) = self.begin(statements.iter().any(Statement::may_write));
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        let result = match self.executor().ask(ExecuteBatch { statements, terms }, deadline).await {
            Ok(result) => result,
            Err(error) => Err(BatchFailure { statement: 0, error }),
        };
        self.routes.counters.statement(work, self.since(began), result.as_ref().err().map(|failure| &failure.error));
        result
    }

    /// The text of `/metrics`.
    pub async fn render(&self) -> Result<String> {
        self.routes.metrics.ask(Render, Deadline::after(ADMIN_WAIT)).await
    }

    /// How the node is. Answers even where the actor that judges does not.
    pub async fn health(&self) -> Result<HealthReport> {
        self.routes.metrics.ask(Health, Deadline::after(ADMIN_WAIT)).await
    }

    /// Everything an operator may want to see.
    pub async fn status(&self) -> Result<StatusReport> {
        self.routes.metrics.ask(Status, Deadline::after(ADMIN_WAIT)).await
    }

    /// A copy of the whole database, on its own disk.
    pub async fn backup(&self, permit: OwnedSemaphorePermit, deadline: Deadline) -> Result<BackupDirectory> {
        self.routes.storage.ask(Backup { permit }, deadline).await
    }

    /// The hash of everything that the newest view shows.
    pub async fn content_hash(&self) -> Result<Content> {
        self.routes.janitor.ask(ContentHash, Deadline::after(ADMIN_WAIT)).await
    }

    /// Each actor with what waits for it.
    pub fn depths(&self) -> Vec<(&'static str, usize)> {
        let routes = &self.routes;
        let executors = routes.executors.iter().map(Route::depth).sum();
        vec![
            (routes.storage.name(), routes.storage.depth()),
            (routes.raft.name(), routes.raft.depth()),
            (routes.executors[0].name(), executors),
            (routes.janitor.name(), routes.janitor.depth()),
            (routes.sync.name(), routes.sync.depth()),
            (routes.metrics.name(), routes.metrics.depth()),
        ]
    }

    /// Actors that have no present life.
    pub fn absent(&self) -> Vec<&'static str> {
        let routes = &self.routes;
        let all = [
            (routes.storage.name(), routes.storage.is_live()),
            (routes.raft.name(), routes.raft.is_live()),
            (routes.executors[0].name(), routes.executors.iter().all(Route::is_live)),
            (routes.janitor.name(), routes.janitor.is_live()),
            (routes.sync.name(), routes.sync.is_live()),
        ];
        all.into_iter().filter(|(_, live)| !live).map(|(name, _)| name).collect()
    }

    /// The executor with the least before it; among equals the next in turn.
    fn executor(&self) -> &Route<Executor> {
        let executors = &self.routes.executors;
        let first = self.routes.next.fetch_add(1, Ordering::Relaxed) % executors.len();
        let in_turn = executors[first..].iter().chain(&executors[..first]);
        // An absent one has nothing before it, and would be chosen for just that.
        in_turn.min_by_key(|route| (!route.is_live(), route.depth())).unwrap_or(&executors[first])
    }

    fn begin(&self, may_write: bool) -> (Monotonic, Work) {
        (self.routes.clock.monotonic(), if may_write { Work::Write } else { Work::Read })
    }

    fn since(&self, began: Monotonic) -> Duration {
        self.routes.clock.monotonic().saturating_sub(began)
    }
}
