//! A group of one in this process: storage engine and raft node, composed without actors.
//!
//! The node is a value behind a lock that is held for the microseconds of a step; the engine's threads report to it
//! directly. Entries are handed to the log thread under the same lock, so they arrive in the order of their positions.

use crate::clock::Clock;
use crate::clock::random_u64;
use crate::error::{Error, SqlState};
use crate::hlc::Timestamp;
use crate::ids::OriginUid;
use crate::machine::{Outcome, check_version};
use crate::raft::{Config, Naming, Node, NodeId, Now};
use crate::sql::execute::Group;
use crate::storage::directory::Database;
use crate::storage::engine::{Append, Engine, Event, Events, Handle, Options, Recovered, Stop, Waiting};
use crate::storage::view::View;
use crate::{Result, raft};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::oneshot;

/// Bytes of writes that may wait to be applied.
const PROPOSALS_BYTES_MAX: usize = 8 << 20;

/// A running group of one.
pub struct LocalGroup {
    inner: Arc<Inner>,
    engine: Mutex<Option<Engine>>,
    recovered: Recovered,
}

struct Inner {
    clock: Arc<dyn Clock>,
    origin: OriginUid,
    state: Mutex<State>,
    /// Signalled when the group begins to serve, and when it fails.
    changed: Condvar,
    handle: OnceLock<Handle>,
}

struct State {
    /// None until the engine has told what is on disk.
    node: Option<Node>,
    failure: Option<Error>,
}

impl LocalGroup {
    /// Opens a directory and waits until the group serves.
    pub fn open(database: Database, options: &Options, naming: Naming) -> Result<LocalGroup> {
        let id = NodeId(database.identity.node_id.clone());
        let disk = database.identity.disk_id;
        let inner = Arc::new(Inner {
            clock: options.clock.clone(),
            origin: database.identity.origin,
            state: Mutex::new(State { node: None, failure: None }),
            changed: Condvar::new(),
            handle: OnceLock::new(),
        });
        let events: Events = {
            let inner = inner.clone();
            Arc::new(move |event| inner.report(event))
        };
        let (engine, recovered) = Engine::recover(database, options, events)?;
        let config =
            Config { proposals_bytes_max: PROPOSALS_BYTES_MAX, naming, ..Config::new(id, disk, random_u64()?) };
        let node = match Node::recover(config, recovered.to_raft()) {
            Ok(node) => node,
            Err(error) => {
                let _ = engine.stop(Stop::Abandon);
                return Err(error);
            }
        };
        if let Err(error) = check_alone(&node) {
            let _ = engine.stop(Stop::Abandon);
            return Err(error);
        }
        inner.handle.get_or_init(|| engine.handle());
        inner.lock().node = Some(node);
        inner.step(|node, inner| node.tick(inner.now()));
        if let Err(error) = inner.wait_until_served() {
            // Its threads must have ended before the directory is let go, and why they did not serve says more than how
            // they ended.
            let _ = engine.stop(Stop::Abandon);
            return Err(error);
        }
        Ok(LocalGroup { inner, engine: Mutex::new(Some(engine)), recovered })
    }

    /// What was found on disk.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Role, term and positions.
    pub fn status(&self) -> Option<raft::Status> {
        self.inner.lock().node.as_ref().map(Node::status)
    }

    /// The storage engine's handle.
    pub fn handle(&self) -> Option<Handle> {
        self.inner.handle.get().cloned()
    }

    /// Runs something on the engine, unless it has been stopped.
    pub fn with_engine<T>(&self, run: impl FnOnce(&Engine) -> Result<T>) -> Result<T> {
        match &*self.engine.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(engine) => run(engine),
            None => Err(Error::unavailable("the database has been closed")),
        }
    }

    /// Ends the group; a second call does nothing.
    pub fn stop(&self, how: Stop) -> Result<()> {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inner.fail(Error::unavailable("the database has been closed"));
        engine.map_or(Ok(()), |engine| engine.stop(how))
    }
}

/// A member of a group of several would wait for the others for ever.
fn check_alone(node: &Node) -> Result<()> {
    let membership = node.membership();
    if membership.members.len() == 1 {
        return Ok(());
    }
    let members: Vec<&str> = membership.members.keys().map(|id| id.0.as_str()).collect();
    Err(Error::invalid(
        SqlState::CONFIG_ERROR,
        format!("this directory is a member of the group [{}], and cannot be opened alone", members.join(", ")),
    )
    .hint("start it with `chronos node`, or restore a snapshot of it into another directory"))
}

impl Drop for LocalGroup {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Stop::Clean) {
            tracing::warn!(%error, "the database was not closed cleanly; the next start replays the log");
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { monotonic: self.clock.monotonic(), wall: self.clock.wall() }
    }

    /// One step of the node, and what follows from it.
    fn step(&self, step: impl FnOnce(&mut Node, &Inner)) {
        let mut state = self.lock();
        let Some(node) = &mut state.node else { return };
        step(node, self);
        self.dispatch(node, Vec::new());
        self.changed.notify_all();
    }

    /// Hands on what the node wants done. The lock is held, so the log sees entries in their order.
    fn dispatch(&self, node: &mut Node, waiting: Vec<Option<Waiting>>) {
        let ready = node.take_ready();
        if let Some(handle) = self.handle.get()
            && (!ready.entries.is_empty() || ready.hard_state.is_some())
        {
            handle.append(Append::of(ready, waiting));
        }
    }

    fn report(&self, event: Event) {
        match event {
            Event::Persisted { last, messages } => self.step(|node, inner| {
                if let Some(last) = last {
                    node.persisted(last);
                }
                messages.into_iter().for_each(|message| node.step(message, inner.now()));
            }),
            Event::Applied(index) => self.step(|node, _| node.applied(index)),
            Event::Trimmed(previous) => self.step(|node, _| node.trimmed(previous)),
            // Nobody else can lead, and nobody else has what is damaged: whoever asks for it is told.
            Event::Stalled | Event::Damaged(_) => {}
            Event::Failed(error) => {
                tracing::error!(%error, "storage failed");
                self.fail(error);
            }
            Event::Panicked { thread } => {
                tracing::error!(thread, "storage panicked");
                self.fail(Error::internal(format!("the {thread} thread of storage panicked: open the database again")));
            }
            Event::Distrusted(error) => {
                tracing::error!(%error, "a block of the hot store is damaged");
                self.fail(error.hint("open the database again: the hot store is then made anew from the log"));
            }
        }
    }

    fn fail(&self, error: Error) {
        self.lock().failure.get_or_insert(error);
        self.changed.notify_all();
    }

    fn wait_until_served(&self) -> Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            if state.node.as_ref().is_some_and(Node::may_read) {
                return Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn try_propose(&self, command: &[u8], waiting: Waiting) -> std::result::Result<(), (Waiting, Error)> {
        let mut state = self.lock();
        if let Some(error) = &state.failure {
            return Err((waiting, error.clone()));
        }
        let Some(node) = &mut state.node else {
            return Err((waiting, Error::unavailable("the database is starting")));
        };
        let understood = check_version(command, node.membership().command_version);
        match understood.and_then(|()| node.propose(command, self.now())) {
            Ok(_) => {
                self.dispatch(node, vec![Some(waiting)]);
                Ok(())
            }
            Err(error) => Err((waiting, error)),
        }
    }
}

impl Group for LocalGroup {
    fn view(&self) -> Result<View> {
        if let Some(error) = &self.inner.lock().failure {
            return Err(error.clone());
        }
        let handle = self.inner.handle.get().ok_or_else(|| Error::unavailable("the database is starting"))?;
        Ok(handle.view())
    }

    fn instant(&self) -> Timestamp {
        let wall = self.inner.clock.wall();
        self.inner.lock().node.as_ref().map_or(Timestamp::at(wall), |node| node.instant(wall))
    }

    fn origin(&self) -> OriginUid {
        self.inner.origin
    }

    fn check_space(&self) -> Result<()> {
        self.inner.handle.get().map_or(Ok(()), Handle::check_space)
    }

    fn propose(&self, command: Vec<u8>) -> oneshot::Receiver<Result<Outcome>> {
        let (waiting, outcome) = oneshot::channel();
        if let Err((waiting, error)) = self.inner.try_propose(&command, waiting) {
            // The receiver is in our hands, so it cannot be gone.
            let _ = waiting.send(Err(error));
        }
        outcome
    }
}
