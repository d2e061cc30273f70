//! The router: where doors put requests. Cheap to clone; the supervisor keeps its routes current.
//!
//! It also does what every door would otherwise do again: run brief statements at once (front.rs), choose an executor
//! for the others, and count.
//!
//! * Requests do not pass through the supervisor, so no flood keeps it from restarting anything.

use crate::actors::executor::Executor;
use crate::actors::forward::{Elsewhere, Leaders, Leadership};
use crate::actors::front::Front;
use crate::actors::janitor::Janitor;
use crate::actors::messages::{
    Backup, BackupDirectory, BatchFailure, ContentHash, DamageMet, Execute, ExecuteBatch, Hashed, Health, HealthReport,
    Output, Query, Render, Statement, Status, StatusReport, Streamed, Terms,
};
use crate::actors::metrics::{Metrics, MetricsActor, Work};
use crate::actors::outcome::{Attempts, failure_since, in_doubt_since};
use crate::actors::peers::Peers;
use crate::actors::published::Published;
use crate::actors::raft::Raft;
use crate::actors::route::{Deadline, Route};
use crate::actors::rows::held_bytes;
use crate::actors::storage::Storage;
use crate::actors::sync::Sync;
use crate::actors::transit::{AwayTurn, Hold, Side, Transit};
use chronos::clock::{Clock, Monotonic};
use chronos::error::{Error, Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How many election timeouts a statement waits for a leader: as long as a healthy group takes to elect one, in a second
/// round where the first was split.
pub const LEADER_WAIT_TIMEOUTS: u32 = 5;

/// How long to wait for news of a leader before the last one is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a scrape or a health check may take.
const ADMIN_WAIT: Duration = Duration::from_secs(2);

/// How long an answer waits for the hash of the content: tens of thousands of rows have theirs by then.
const CONTENT_WAIT: Duration = Duration::from_millis(100);

/// How much longer than its deadline an executor is waited for: it knows whether a write that is late was proposed at
/// all. Half of what the gRPC door keeps for its answer.
const VERDICT_WAIT: Duration = Duration::from_millis(5);

/// The ways to all actors.
#[derive(Clone)]
pub struct Router {
    routes: Arc<Routes>,
    front: Arc<Front>,
}

/// Where statements have their answers from.
enum Handed {
    /// Another node.
    Answered(Result<Vec<Output>, BatchFailure>),
    /// This one, which is to run them.
    Here {
        /// Another node may have run them already: what is not begun here is no news of that.
        in_doubt: Option<Error>,
    },
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
    /// Where the consensus stands.
    pub published: Arc<Published>,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// Connections to leaders.
    pub leaders: Leaders,
    /// Bytes of a statement that is handed on, or of its answer.
    pub forward_bytes_max: usize,
    /// How long a statement waits for a leader.
    pub leader_wait: Duration,
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
        let result = match self.elsewhere(std::slice::from_ref(&statement), false, &terms).await {
            Handed::Answered(Ok(mut outputs)) => Ok(outputs.pop().unwrap_or_default()),
            Handed::Answered(Err(failure)) => Err(failure.error),
            Handed::Here { in_doubt } => {
                self.run(statement, terms).await.map_err(|error| in_doubt_since(error, in_doubt.as_ref()))
            }
        };
        self.note(work, began, result.as_ref().err());
        result
    }

    async fn run(&self, statement: Statement, terms: Terms) -> Result<Output> {
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        match self.front.execute(&statement, &terms).await {
            Some(result) => result,
            None => self.executor().ask(Execute { statement, terms }, deadline).await,
        }
    }

    /// The same here, and nowhere else: for what another node has handed on, and counts.
    pub async fn execute_here(&self, statement: Statement, terms: Terms) -> Result<Output> {
        self.check_leading()?;
        let result = self.run(statement, terms).await;
        self.look_at(result.as_ref().err());
        result
    }

    /// Runs statements as one here, and nowhere else.
    pub async fn batch_here(&self, statements: Vec<Statement>, terms: Terms) -> Result<Vec<Output>, BatchFailure> {
        self.check_leading().map_err(|error| BatchFailure { statement: 0, error })?;
        let result = self.run_batch(statements, terms).await;
        self.look_at(result.as_ref().err().map(|failure| &failure.error));
        result
    }

    /// What is handed on by mistake goes back at once, so that its sender looks for the leader again.
    fn check_leading(&self) -> Result<()> {
        let raft = self.routes.published.raft();
        if raft.serves { Ok(()) } else { Err(Error::unavailable(format!("no leader (term {})", raft.status.term))) }
    }

    /// Runs statements that may write where the leader is.
    async fn elsewhere(&self, statements: &[Statement], is_batch: bool, terms: &Terms) -> Handed {
        let routes = &self.routes;
        let raft = routes.published.raft();
        // Values beside a text do not travel with it. What this node says of them is what any other would say.
        let stays = statements.iter().any(|statement| !statement.parameters.is_empty());
        let is_leading = raft.serves || raft.status.membership.members.len() <= 1;
        if is_leading || stays || !statements.iter().any(Statement::may_write) {
            return Handed::Here { in_doubt: None };
        }
        let mut until = Deadline::after(terms.deadline.left().min(routes.leader_wait));
        let mut reports = routes.published.watch_raft();
        let mut attempts = Attempts::none(Error::unavailable(format!("no leader (term {})", raft.status.term)));
        let mut room = None;
        loop {
            let report = reports.borrow_and_update().clone();
            if report.serves {
                return Handed::Here { in_doubt: attempts.in_doubt() };
            }
            if let Some((id, address)) = report.leads_elsewhere() {
                if room.is_none() {
                    match self.room_of_answers(statements, terms).await {
                        Ok(taken) => room = Some(taken),
                        Err(error) => return Handed::Answered(Err(BatchFailure { statement: 0, error })),
                    }
                    // What was waited for until now was room, and no leader. Meanwhile another one may lead.
                    until = Deadline::after(terms.deadline.left().min(routes.leader_wait));
                    continue;
                }
                let leadership = Leadership::new(&reports, id, report.status.term);
                let ran = routes.leaders.run(
                    address,
                    statements,
                    is_batch,
                    terms,
                    &leadership,
                    (&routes.peers, routes.forward_bytes_max),
                );
                let heard = ran.await;
                if matches!(heard, Elsewhere::Unknown(_)) {
                    // What was waited for until now was an answer, and no leader.
                    until = Deadline::after(terms.deadline.left().min(routes.leader_wait));
                }
                if let Some(answer) = attempts.heard(heard) {
                    let hold = room.map_or_else(Hold::nothing, |(hold, _turn)| hold);
                    return Handed::Answered(answer.and_then(|outputs| in_room(outputs, hold)));
                }
            }
            if until.left().is_zero() {
                return Handed::Answered(Err(BatchFailure { statement: 0, error: attempts.given_up() }));
            }
            let pause = Deadline::after(until.left().min(RETRY_PAUSE));
            let _ = tokio::time::timeout_at(pause.instant(), reports.changed()).await;
        }
    }

    /// Room for what statements answer that are handed on: where some of them read, for the longest answer there is, as
    /// where they run. Afterwards nothing may fail for want of it.
    async fn room_of_answers(&self, statements: &[Statement], terms: &Terms) -> Result<(Hold, Option<AwayTurn<'_>>)> {
        let transit = &self.routes.transit;
        if statements.iter().all(Statement::may_write) {
            return Ok((transit.answer(), None));
        }
        let turn = transit.turn_away(terms.deadline).await?;
        let hold = transit.admit(Side::Answer, transit.sure_answer_bytes(), terms.deadline).await?;
        Ok((hold, Some(turn)))
    }

    /// Runs one statement and hands out its rows as they are found.
    pub async fn query(&self, statement: Statement, terms: Terms) -> Result<Streamed> {
        if statement.may_write() {
            // No rows: a write answers whole, here or elsewhere.
            return self.execute(statement, terms).await.map(Streamed::Whole);
        }
        let (began, work) = self.begin(statement.may_write());
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        let mut result = self.executor().ask(Query { statement, terms }, deadline).await;
        match &mut result {
            // What it took, and whether it failed, is known at its end.
            Ok(Streamed::Rows(rows)) => {
                let router = self.clone();
                rows.when_done(move |failure| router.note(work, began, failure));
            }
            Ok(Streamed::Whole(_)) => self.note(work, began, None),
            Err(error) => self.note(work, began, Some(error)),
        }
        result
    }

    /// Runs statements as one.
    pub async fn batch(&self, statements: Vec<Statement>, terms: Terms) -> Result<Vec<Output>, BatchFailure> {
        let (began, work) = self.begin(statements.iter().any(Statement::may_write));
        let result = match self.elsewhere(&statements, true, &terms).await {
            Handed::Answered(answer) => answer,
            Handed::Here { in_doubt } => {
                let ran = self.run_batch(statements, terms).await;
                ran.map_err(|failure| failure_since(failure, in_doubt.as_ref()))
            }
        };
        self.note(work, began, result.as_ref().err().map(|failure| &failure.error));
        result
    }

    async fn run_batch(&self, statements: Vec<Statement>, terms: Terms) -> Result<Vec<Output>, BatchFailure> {
        let deadline = terms.deadline.plus(VERDICT_WAIT);
        let asked = self.executor().ask(ExecuteBatch { statements, terms }, deadline).await;
        asked.unwrap_or_else(|error| Err(BatchFailure { statement: 0, error }))
    }

    /// Counts a statement that has ended, on the node that was asked and nowhere else.
    fn note(&self, work: Work, began: Monotonic, failure: Option<&Error>) {
        self.routes.counters.statement(work, self.since(began), failure);
        self.look_at(failure);
    }

    /// Damage that a statement has met is made known, as that which the janitor finds.
    fn look_at(&self, failure: Option<&Error>) {
        if let Some(error) = failure.filter(|error| error.kind() == Kind::Damaged) {
            // Where the janitor is away or busy, the next statement that meets it says so again.
            drop(self.routes.janitor.ask_now(DamageMet { found: error.to_string() }));
        }
    }

    /// The text of `/metrics`.
    pub async fn render(&self) -> Result<String> {
        self.routes.metrics.ask(Render, Deadline::after(ADMIN_WAIT)).await
    }

    /// How the node is. Answers even where the actor that judges does not.
    pub async fn health(&self) -> Result<HealthReport> {
        self.routes.metrics.ask(Health, Deadline::after(ADMIN_WAIT)).await
    }

    /// Has the newest view hashed where that is not known, and waits for it as long as a small database takes.
    async fn refresh_content(&self) {
        let mut known = self.routes.published.watch_content();
        let newer = async {
            let asked = self.routes.janitor.ask(ContentHash, Deadline::after(CONTENT_WAIT)).await;
            if asked.is_ok_and(|hashed| hashed == Hashed::UnderWay) {
                let _ = known.changed().await;
            }
        };
        // What is not there by then is in one of the next answers.
        let _ = tokio::time::timeout(CONTENT_WAIT, newer).await;
    }

    /// Everything an operator may want to see.
    pub async fn status(&self) -> Result<StatusReport> {
        self.refresh_content().await;
        self.routes.metrics.ask(Status, Deadline::after(ADMIN_WAIT)).await
    }

    /// A copy of the whole database, on its own disk.
    pub async fn backup(&self, permit: OwnedSemaphorePermit, deadline: Deadline) -> Result<BackupDirectory> {
        if let Some(refusal) = self.routes.published.raft().witness_refusal() {
            return Err(refusal);
        }
        self.routes.storage.ask(Backup { permit }, deadline).await
    }

    /// Where snapshots of this node are taken in.
    pub fn snapshots(&self) -> Result<PathBuf> {
        self.front.snapshots()
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

/// Answers from another node, in the room that was taken for them.
fn in_room(mut outputs: Vec<Output>, mut hold: Hold) -> Result<Vec<Output>, BatchFailure> {
    let bytes = outputs.iter().flat_map(|output| &output.batches).map(held_bytes).sum();
    hold.shrink_to(bytes);
    // There may be less room than they take: bytes on their way are bounded, and not what columns are made of them. And no
    // room was taken where all statements may write.
    if let Err(error) = hold.reach(bytes)
        && outputs.len() == 1
    {
        // A statement that answers rows has only read.
        return Err(BatchFailure { statement: 0, error });
    }
    // Rows of a batch that have no room go on without: it took effect, and who is told of room sends it again.
    if let Some(first) = outputs.first_mut() {
        first.hold = hold;
    }
    Ok(outputs)
}
