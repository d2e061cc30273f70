//! The supervisor: holds a factory for each actor, and starts it again when it ends.
//!
//! Why not `actix::Supervisor`: it does not restart after a panic and never makes a new actor. Here a restart is the
//! same function as the boot, `recover`, on what is durable; nothing repairs itself.
//!
//! ```text
//!   actor (its thread) ─── drop: Lifeline ──> news ──> supervisor (main thread)
//!        ^                                                 | 1. the address is withdrawn: callers wait on their route
//!        |                                                 | 2. what was started after it is ended, newest first
//!        +───────────── factory(Lifeline) <────────────────+ 3. all are started again, oldest first
//! ```
//!
//! * Start order is rank order: storage, raft, executors, janitor, sync, metrics. An end restarts its rank's actor and
//!   every actor of a higher rank, since those hold what it made.
//! * Requests never pass through here, so no flood delays a restart.
//! * An old generation's end changes nothing.
//! * [`Policy`] decides how soon, and when to end the process instead.
//! * A recovery that fails with `unavailable` is no failure of its own: what it rests on has just ended.
//! * An actor whose thread does not run a heartbeat for [`Watch::hang_after`] hangs. Where it owns files the process
//!   ends; else it gets a new thread, at most [`ARBITERS_MAX`] times, since the old one cannot be ended.

use crate::actors::child::{Beat, Child, Thread, Watch, WhenHung};
use crate::actors::lifeline::{ChildId, Ending, Generation, Lifeline, News};
use crate::actors::policy::{Decision, Failures, Policy};
use crate::actors::route::{MAILBOX_MESSAGES_MAX, Slot};
use actix::{Actor, Context};
use chronos::clock::{Clock, random_u64};
use chronos::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// How often threads are asked for a sign of life. A hang is counted in tens of seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// New threads that a hanging actor gets. Each leaves a stuck one behind, so they are counted.
const ARBITERS_MAX: u8 = 2;

/// How long an ended actor may take to be dropped before its successor starts anyway. What owns files joins its
/// predecessor itself.
const RETIRE_WAIT: Duration = Duration::from_secs(2);

/// How long `recover` may take. Replaying a full log takes two seconds; a slow disk gets sixty times that.
const START_WAIT: Duration = Duration::from_mins(2);

/// Why the supervisor returned.
#[derive(Debug)]
pub enum End {
    /// It was asked to; all actors have ended.
    Shutdown,
    /// Restarting does not help.
    GaveUp(Error),
}

/// Told of restarts, for metrics.
pub type OnRestart = Box<dyn Fn(&'static str)>;

/// Starts actors and keeps them alive.
pub struct Supervisor {
    children: Vec<Child>,
    news: mpsc::UnboundedReceiver<News>,
    sender: mpsc::UnboundedSender<News>,
    failures: Failures,
    clock: Arc<dyn Clock>,
    on_restart: OnRestart,
    /// Messages that a mailbox holds.
    mailbox: usize,
}

impl Supervisor {
    /// A supervisor without children. It must live on the thread of an actix system.
    pub fn new(policy: Policy, clock: Arc<dyn Clock>, on_restart: OnRestart) -> Supervisor {
        let (sender, news) = mpsc::unbounded_channel();
        let failures = Failures::new(policy);
        Supervisor { children: Vec::new(), news, sender, failures, clock, on_restart, mailbox: MAILBOX_MESSAGES_MAX }
    }

    /// The same with mailboxes that hold so many messages.
    #[must_use]
    pub fn with_mailbox(self, messages: usize) -> Supervisor {
        Supervisor { mailbox: messages, ..self }
    }

    /// Where to report what no restart mends, and where to ask for the end.
    pub fn sender(&self) -> mpsc::UnboundedSender<News> {
        self.sender.clone()
    }

    /// Adds an actor; children must be added in the order of their ranks. Nothing runs before [`Supervisor::start`].
    pub fn add<A, F>(&mut self, slot: Slot<A>, watch: Watch, factory: F) -> Result<()>
    where
        A: Actor<Context = Context<A>>,
        F: Fn(Lifeline) -> Result<A> + Send + Sync + 'static,
    {
        self.add_on(Thread::new()?, slot, watch, factory);
        Ok(())
    }

    /// The same on a given thread. Should that hang, the actor gets one of its own.
    pub fn add_on<A, F>(&mut self, thread: Thread, slot: Slot<A>, watch: Watch, factory: F)
    where
        A: Actor<Context = Context<A>>,
        F: Fn(Lifeline) -> Result<A> + Send + Sync + 'static,
    {
        assert!(
            self.children.last().is_none_or(|last| last.watch.rank <= watch.rank),
            "children are added in the order of their ranks"
        );
        self.children.push(Child::new(slot, watch, factory, thread, self.mailbox, self.clock.monotonic()));
    }

    /// Starts every child in order. What fails here is a fact about the machine or the settings, not a crash: it is
    /// returned, not retried.
    pub async fn start(&mut self) -> Result<()> {
        for index in 0..self.children.len() {
            self.start_child(index).await?;
        }
        Ok(())
    }

    /// Watches until asked to end, or until restarting does not help.
    pub async fn run(mut self) -> End {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                news = self.news.recv() => match news.expect("the supervisor holds a sender itself") {
                    News::Exited { child, generation, ending } => self.exited(child, generation, ending).await,
                    News::Fatal(error) => Err(error),
                    News::Shutdown(done) => {
                        self.retire(&(0..self.children.len()).collect::<Vec<usize>>()).await;
                        let _ = done.send(());
                        return End::Shutdown;
                    }
                },
                _ = heartbeat.tick() => self.check_hung().await,
            };
            if let Err(error) = outcome {
                error!(%error, "the process ends: restarting does not help");
                return End::GaveUp(error);
            }
        }
    }

    async fn exited(&mut self, child: ChildId, generation: Generation, ending: Ending) -> Result<()> {
        if self.children[child.0].generation != generation {
            return Ok(());
        }
        warn!(actor = self.children[child.0].name, ?ending, "an actor ended");
        self.restart(child.0).await
    }

    /// Restarts a child and all that came after it; a child that fails to start counts as having failed again.
    async fn restart(&mut self, mut failed: usize) -> Result<()> {
        loop {
            let now = self.clock.monotonic();
            let child = &mut self.children[failed];
            let lived = now.saturating_sub(child.started);
            let chance = random_u64()?;
            let after = match self.failures.decide(&mut child.streak, lived, now, chance) {
                Decision::Restart { after } => after,
                Decision::GiveUp => {
                    return Err(Error::internal(format!("{} failed once too often, see the log above", child.name)));
                }
            };
            (self.on_restart)(child.name);
            self.retire_from(failed).await;
            tokio::time::sleep(after).await;
            match self.start_from(failed).await {
                Ok(()) => return Ok(()),
                // What it rests on has ended in the meantime. That end is on its way here, and starts this one too;
                // should it not come, the next heartbeat finds an actor without a life.
                Err((index, error)) if error.kind() == Kind::Unavailable => {
                    warn!(actor = self.children[index].name, %error, "an actor waits for another one");
                    return Ok(());
                }
                Err((index, error)) => {
                    error!(actor = self.children[index].name, %error, "an actor did not start");
                    failed = index;
                }
            }
        }
    }

    /// Ends a child and those of higher rank.
    async fn retire_from(&mut self, first: usize) {
        let rank = self.children[first].watch.rank;
        let affected = (0..self.children.len())
            .filter(|&index| index == first || self.children[index].watch.rank > rank)
            .collect::<Vec<usize>>();
        self.retire(&affected).await;
    }

    /// Ends children, newest first. Withdrawing all addresses comes before that, so that callers wait instead of
    /// meeting an actor that is about to go.
    async fn retire(&mut self, affected: &[usize]) {
        for &index in affected {
            (self.children[index].withdraw)();
        }
        for &index in affected.iter().rev() {
            let child = &mut self.children[index];
            // Its end is expected from here on.
            child.generation.0 += 1;
            if let Some(task) = child.task.take() {
                task.abort();
                if tokio::time::timeout(RETIRE_WAIT, task).await.is_err() {
                    warn!(actor = child.name, "an actor is busy and could not be ended in time");
                }
            }
        }
    }

    async fn start_from(&mut self, first: usize) -> Result<(), (usize, Error)> {
        for index in first..self.children.len() {
            if self.children[index].task.is_none() {
                self.start_child(index).await.map_err(|error| (index, error))?;
            }
        }
        Ok(())
    }

    async fn start_child(&mut self, index: usize) -> Result<()> {
        let child = &mut self.children[index];
        child.generation.0 += 1;
        child.beat = None;
        child.started = self.clock.monotonic();
        let lifeline = Lifeline::new(ChildId(index), child.generation, self.sender.clone());
        // Where the old life is still busy on this thread, the new one would wait for it.
        if !self.answers(index).await {
            self.replace_thread(index)?;
        }
        let child = &mut self.children[index];
        let task = tokio::time::timeout(START_WAIT, (child.launch)(&child.thread.handle(), lifeline))
            .await
            .unwrap_or_else(|_| Err(Error::internal(format!("did not recover within {START_WAIT:?}"))))
            .map_err(|error| error.context(child.name))?;
        child.task = Some(task);
        child.started = self.clock.monotonic();
        info!(actor = child.name, generation = child.generation.0, "an actor started");
        Ok(())
    }

    /// True where the child's thread runs what it is given.
    async fn answers(&self, index: usize) -> bool {
        let child = &self.children[index];
        let (sender, receiver) = oneshot::channel::<()>();
        child.thread.handle().spawn_fn(move || {
            let _ = sender.send(());
        });
        match child.watch.when_hung {
            // It must not run twice, whatever it takes.
            WhenHung::EndProcess => true,
            WhenHung::NewArbiter => tokio::time::timeout(RETIRE_WAIT, receiver).await.is_ok_and(|sent| sent.is_ok()),
        }
    }

    fn replace_thread(&mut self, index: usize) -> Result<()> {
        let child = &mut self.children[index];
        if child.threads_made >= ARBITERS_MAX {
            return Err(Error::internal(format!("{} hangs again on a new thread", child.name)));
        }
        child.threads_made += 1;
        child.thread.leave();
        child.thread = Thread::new()?;
        warn!(actor = child.name, "a hanging actor gets a new thread");
        Ok(())
    }

    /// Sends heartbeats, and deals with threads that left one unanswered for too long, and with actors that wait for
    /// another one's restart in vain.
    async fn check_hung(&mut self) -> Result<()> {
        if let Some(absent) = self.children.iter().position(|child| child.task.is_none()) {
            return self.restart(absent).await;
        }
        let now = self.clock.monotonic();
        let mut hung = None;
        for (index, child) in self.children.iter_mut().enumerate() {
            match &child.beat {
                Some(beat) if !beat.answered.load(Ordering::Acquire) => {
                    if now.saturating_sub(beat.sent) > child.watch.hang_after {
                        hung.get_or_insert(index);
                    }
                }
                Some(_) | None => {
                    let answered = Arc::new(AtomicBool::new(false));
                    let flag = answered.clone();
                    child.thread.handle().spawn_fn(move || flag.store(true, Ordering::Release));
                    child.beat = Some(Beat { sent: now, answered });
                }
            }
        }
        let Some(index) = hung else { return Ok(()) };
        let child = &self.children[index];
        let silent = child.watch.hang_after;
        match child.watch.when_hung {
            WhenHung::EndProcess => {
                Err(Error::internal(format!("{} gave no sign of life for {silent:?} and owns files", child.name)))
            }
            WhenHung::NewArbiter => {
                error!(actor = child.name, ?silent, "an actor gives no sign of life");
                self.replace_thread(index)?;
                self.restart(index).await
            }
        }
    }
}

/// Panics become one log line, without a backtrace: unwinding symbols took 200 ms in which the actor looked alive.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        let thread = std::thread::current();
        error!(thread = thread.name().unwrap_or("unnamed"), place, text, "panicked");
    }));
}
