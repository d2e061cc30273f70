//! The storage actor: owns the engine, and with it the files and their lock.
//!
//! The engine's three threads do the work; appends go straight to the log thread, reads to the published view. What is
//! left for an actor is the engine's life: it is opened by `recover`, lent out as handles, and closed by its drop.
//!
//! * One engine at a time: a life's drop joins its threads, and only then is its end reported.
//! * A failure of the disk is not mended by a restart: it ends the process.
//!
//! Restart: the engine is opened again, as at boot.

use crate::actors::lifeline::{Lifeline, News};
use crate::actors::messages::Close;
use crate::actors::published::{Published, StorageStatus};
use crate::actors::route::Ask;
use actix::{Actor, AsyncContext, Context, Handler};
use chronos::embedded::{self, engine_options, open_directory};
use chronos::error::{Error, Result};
use chronos::ids::OriginUid;
use chronos::raft::{Ready, Recovered};
use chronos::storage::engine::{Append, Engine, Event, Handle, Stop, Waiting};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// How often sizes are published. They are measured by the engine's own threads; this only copies them.
const PUBLISH: Duration = Duration::from_secs(1);

/// What storage leaves for the actors that start after it.
#[derive(Default)]
pub struct Parts {
    present: Mutex<Option<Present>>,
}

/// The present engine.
struct Present {
    handle: Handle,
    origin: OriginUid,
    directory: PathBuf,
    /// What the log holds once all that was handed to it is written. The log thread takes appends in order and ends
    /// the process where it cannot write one, so a raft actor that starts later goes on from here.
    log: Recovered,
    /// Where the engine's events go: to the present raft actor.
    events: Option<mpsc::UnboundedSender<Event>>,
}

impl Parts {
    /// The way to the present engine.
    pub fn handle(&self) -> Result<Handle> {
        self.with(|present| present.handle.clone())
    }

    /// What rows written here carry.
    pub fn origin(&self) -> Result<OriginUid> {
        self.with(|present| present.origin)
    }

    /// The node's own directory.
    pub fn directory(&self) -> Result<PathBuf> {
        self.with(|present| present.directory.clone())
    }

    /// What a raft actor begins with: what is in the log, and the engine's events from here on.
    pub fn open_log(&self) -> Result<(Recovered, mpsc::UnboundedReceiver<Event>)> {
        // Bounded by the appends that are out, each of which is reported at most twice.
        let (sender, events) = mpsc::unbounded_channel();
        let recovered = self.with(|present| {
            present.events = Some(sender);
            Recovered { applied: present.handle.view().version, ..present.log.clone() }
        })?;
        Ok((recovered, events))
    }

    /// Hands what raft wants done to the log thread, and remembers it for the next raft actor.
    pub fn append(&self, ready: Ready, waiting: Vec<Option<Waiting>>) -> Result<()> {
        let hard_state = ready.hard_state.clone();
        let last = ready.entries.last().map(|entry| (entry.index, entry.term, entry.hlc));
        self.with(|present| {
            present.handle.append(Append::of(ready, waiting));
            if let Some(hard_state) = hard_state {
                present.log.hard_state = hard_state;
            }
            if let Some((index, term, hlc)) = last {
                present.log.last = (index, term);
                present.log.hlc = hlc;
            }
        })
    }

    fn tell(&self, event: Event) {
        // A raft actor that is gone learns what happened when its successor recovers.
        let _ = self.with(|present| present.events.as_ref().map(|events| events.send(event)));
    }

    fn set(&self, present: Option<Present>) {
        *self.lock() = present;
    }

    fn with<T>(&self, run: impl FnOnce(&mut Present) -> T) -> Result<T> {
        self.lock().as_mut().map(run).ok_or_else(|| Error::unavailable("storage is restarting"))
    }

    /// No code panics while it holds this lock, so a poisoned one still guards whole values.
    fn lock(&self) -> MutexGuard<'_, Option<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the actor is made from.
pub struct Seed {
    /// The directory given by the operator; the node's own is in it.
    pub directory: PathBuf,
    /// Limits of storage.
    pub database: embedded::Options,
    /// Where it leaves the handle.
    pub parts: Arc<Parts>,
    /// Where to say how it is.
    pub published: Arc<Published>,
    /// Where to report what no restart mends.
    pub news: mpsc::UnboundedSender<News>,
}

/// Owns the files.
pub struct Storage {
    engine: Option<Engine>,
    handle: Handle,
    /// Set before the engine is ended on purpose: its threads then report failures that are none.
    ending: Arc<AtomicBool>,
    seed: Arc<Seed>,
    _lifeline: Lifeline,
}

impl Storage {
    /// Opens the engine. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Storage> {
        let options = engine_options(seed.database.engine.clone());
        let directory = open_directory(&seed.directory, &seed.database, &options)?;
        let (path, origin) = (directory.path.clone(), directory.identity.origin);
        let ending = Arc::new(AtomicBool::new(false));
        let (parts, news, is_ending) = (seed.parts.clone(), seed.news.clone(), ending.clone());
        let events = move |event| {
            if let Event::Failed(error) = &event
                && !is_ending.load(Ordering::Acquire)
            {
                let _ = news.send(News::Fatal(error.clone()));
            }
            parts.tell(event);
        };
        let (engine, recovered) = Engine::recover(directory, &options, Arc::new(events))?;
        let handle = engine.handle();
        let log = recovered.to_raft();
        seed.parts.set(Some(Present { handle: handle.clone(), origin, directory: path, log, events: None }));
        Ok(Storage { engine: Some(engine), handle, ending, seed, _lifeline: lifeline })
    }

    fn publish(&self) {
        let counters = self.handle.counters();
        self.seed.published.set_storage(StorageStatus {
            size_bytes: counters.disk_bytes.load(Ordering::Relaxed),
            disk_free_bytes: counters.free_bytes.load(Ordering::Relaxed),
            disk_full: counters.disk_low.load(Ordering::Relaxed),
        });
    }

    fn end(&mut self, how: Stop) -> Result<()> {
        self.ending.store(true, Ordering::Release);
        self.seed.parts.set(None);
        self.engine.take().map_or(Ok(()), |engine| engine.stop(how))
    }
}

impl Drop for Storage {
    /// Joins the engine's threads before the lifeline reports the end, so that the successor finds the lock free.
    fn drop(&mut self) {
        if let Err(error) = self.end(Stop::Abandon) {
            warn!(%error, "storage did not end well; the next start replays the log");
        }
    }
}

impl Actor for Storage {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.publish();
        context.run_interval(PUBLISH, |storage, _| storage.publish());
    }
}

impl Handler<Ask<Close>> for Storage {
    type Result = ();

    fn handle(&mut self, ask: Ask<Close>, _: &mut Self::Context) {
        let (Close, reply) = ask.open();
        reply.send(self.end(Stop::Clean));
    }
}
