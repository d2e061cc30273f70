//! The storage actor: owns the engine, and with it the files and their lock.
//!
//! The engine's three threads do the work; appends go straight to the log thread, reads to the published view. What is
//! left for an actor is the engine's life: it is opened by `recover`, lent out as handles, and closed by its drop.
//!
//! * One engine at a time: a life's drop joins its threads, and only then is its end reported.
//! * A failure of the disk is not mended by a restart: it ends the process.
//! * A panic in one of the engine's threads ends this actor, and with it the engine: the next life opens it again.
//!
//! * A snapshot of the leader takes the place of the state while no engine runs: this life ends with it, and the next
//!   one goes on from there.
//!
//! * A state that is damaged on disk, or is not the group's, is given up where others have it (`condemned`): the next life
//!   begins without one, in quarantine, and is brought a snapshot.
//!
//! Restart: the engine is opened again, as at boot.

pub mod condemned;

use crate::actors::figures::{StorageStatus, Totals};
use crate::actors::lifeline::{Lifeline, News};
use crate::actors::messages::{Backup, BackupDirectory, Close, Install};
use crate::actors::published::Published;
use crate::actors::route::{Ask, Deadline};
use actix::fut::ActorFutureExt;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, WrapFuture};
use chronos::embedded::{self, open_directory};
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{ClusterId, DiskId, LogIndex, OriginUid, Term};
use chronos::raft::{Entry, NodeId, Position, Ready, Recovered};
use chronos::storage::engine::{
    Append, BACKUP_PREFIX, Engine, Event, Events, Handle, Keep, Options, Stop, Waiting, has_others,
};
use chronos::storage::snapshot::Staged;
use condemned::{Condemned, Failure, Step};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tracing::{error, warn};

/// How often sizes are published. They are measured by the engine's own threads; this only copies them.
const PUBLISH: Duration = Duration::from_secs(1);

/// What storage leaves for the actors that start after it.
pub struct Parts {
    present: Mutex<Option<Present>>,
    /// The raft actors so far. Counted here and not with the engine: one that outlives its engine must not pass for
    /// another on the next.
    tickets: AtomicU64,
    /// What the present engine has applied.
    applied: AtomicU64,
    /// True where raft wants to be woken for it. Once it serves it need not be: it looks when it is woken anyway, and
    /// a thread woken for every batch would run in the way of the door that has the answer.
    is_followed: AtomicBool,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts {
            present: Mutex::default(),
            tickets: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            is_followed: AtomicBool::new(true),
        }
    }
}

/// Which raft actor appends. A thread that was given up for dead may go on once its disk or its swap answers: what it
/// would still append, its successor has already given other entries the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The engine, as it is lent to whoever reads and writes.
#[derive(Clone)]
pub struct Lent {
    /// The way to it.
    pub handle: Handle,
    /// What rows written here carry.
    pub origin: OriginUid,
    /// Ends the life of storage that owns it.
    reopen: Arc<Notify>,
    /// Why its state is to be given up.
    condemned: Arc<Condemned>,
    /// Told when entries have been applied.
    applied: Arc<Notify>,
}

impl Lent {
    /// Waits until everything up to `index` is applied, at most until then.
    pub async fn reach(&self, index: LogIndex, until: Deadline) -> Result<()> {
        loop {
            let mut applied = std::pin::pin!(self.applied.notified());
            // Before looking: what is applied in between is not missed.
            applied.as_mut().enable();
            if self.handle.lasting_view().version >= index {
                return Ok(());
            }
            let late = || Error::unavailable(format!("this node is behind: it has not applied entry {index} yet"));
            tokio::time::timeout_at(until.instant(), applied).await.map_err(|_| late())?;
        }
    }

    /// Has the directory opened again, where this engine is still the present one: what is damaged in the hot store is
    /// then made anew from the log. One that is gone has a successor, which has done so already.
    pub fn reopen(&self) {
        self.reopen.notify_one();
    }

    /// Has the state given up, once the group can do without it, and brought anew by another member.
    pub fn condemn(&self, why: Error) {
        self.condemned.condemn(why);
    }
}

/// What a raft actor goes on from.
pub struct Log {
    /// What is in the log, once all that was handed to it is written.
    pub recovered: Recovered,
    /// On which disk.
    pub disk: DiskId,
    /// Of which group.
    pub cluster: ClusterId,
}

/// The present engine.
struct Present {
    disk: DiskId,
    cluster: ClusterId,
    lent: Lent,
    directory: PathBuf,
    /// What the log holds once all that was handed to it is written. The log thread takes appends in order and ends
    /// the process where it cannot write one, so a raft actor that starts later goes on from here.
    log: Recovered,
    /// Everything up to here is committed, as raft has said.
    committed: LogIndex,
    /// The raft actor that may append to it; none before the first.
    raft: Option<Ticket>,
    /// Where the engine's events go: to the present raft actor.
    events: Option<mpsc::UnboundedSender<Event>>,
}

impl Parts {
    /// The present engine.
    pub fn lent(&self) -> Result<Lent> {
        self.with(|present| present.lent.clone())
    }

    /// The way to it.
    pub fn handle(&self) -> Result<Handle> {
        self.with(|present| present.lent.handle.clone())
    }

    /// The node's own directory.
    pub fn directory(&self) -> Result<PathBuf> {
        self.with(|present| present.directory.clone())
    }

    /// What a raft actor begins with: what is in the log, the engine's events from here on, and the right to append,
    /// which the one before it loses.
    pub fn open_log(&self) -> Result<(Log, mpsc::UnboundedReceiver<Event>, Ticket)> {
        // Bounded by the appends that are out, each of which is reported at most twice.
        let (sender, events) = mpsc::unbounded_channel();
        let (log, ticket) = self.with(|present| {
            let ticket = Ticket(self.tickets.fetch_add(1, Ordering::AcqRel) + 1);
            present.raft = Some(ticket);
            present.events = Some(sender);
            self.is_followed.store(true, Ordering::Release);
            let recovered = Recovered { applied: present.lent.handle.view().version, ..present.log.clone() };
            (Log { recovered, disk: present.disk, cluster: present.cluster }, ticket)
        })?;
        Ok((log, events, ticket))
    }

    /// Says whether raft is to be woken when entries have been applied.
    pub fn follow(&self, ticket: Ticket, follow: bool) -> Result<()> {
        self.with_raft(ticket, |_| self.is_followed.store(follow, Ordering::Release))
    }

    /// True where a later raft actor has begun.
    pub fn is_superseded(&self, ticket: Ticket) -> bool {
        self.tickets.load(Ordering::Acquire) != ticket.0
    }

    /// What the present engine has applied since raft began; 0 for nothing.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Acquire))
    }

    /// Hands what raft wants done to the log thread, and remembers it for the next raft actor.
    pub fn append(&self, ticket: Ticket, ready: Ready, waiting: Vec<Option<Waiting>>) -> Result<()> {
        let hard_state = ready.hard_state.clone();
        self.with_raft(ticket, |present| {
            ready.entries.iter().for_each(|entry| present.log.append(entry));
            if let Some(hard_state) = hard_state {
                present.log.hard_state = hard_state;
            }
            if let Some(position) = ready.committed {
                present.committed = present.committed.max(position.index);
            }
            present.lent.handle.append(Append::of(ready, waiting));
        })
    }

    /// Everything up to here is committed.
    pub fn commit(&self, ticket: Ticket, position: Position) -> Result<()> {
        let handle = self.with_raft(ticket, |present| {
            present.committed = present.committed.max(position.index);
            present.lent.handle.clone()
        })?;
        // What is small is applied on this thread, and told here again: not under the lock.
        handle.commit(position);
        Ok(())
    }

    /// Peers may need these entries.
    pub fn keep_log(&self, ticket: Ticket, keep: Keep) -> Result<()> {
        self.with_raft(ticket, |present| present.lent.handle.keep_log(keep))
    }

    /// Withdraws the present engine for a snapshot that is to take its place: nothing is appended or committed from here
    /// on.
    fn give_up_for(&self, position: Position, term: Term) -> Result<()> {
        let mut present = self.lock();
        let Some(engine) = &*present else { return Err(Error::unavailable("storage is restarting")) };
        let refused = |text: String| Err(Error::invalid(SqlState::NOT_IN_STATE, text));
        if term < engine.log.hard_state.term {
            return refused(format!("a snapshot of term {term}, and this is term {}", engine.log.hard_state.term));
        }
        if position.index <= engine.committed {
            return refused(format!("a snapshot of entry {}, and {} is committed", position.index, engine.committed));
        }
        *present = None;
        self.applied.store(0, Ordering::Release);
        Ok(())
    }

    /// Reads entries of the log for a peer; `done` is called with them, on the log thread.
    pub fn read_log(
        &self,
        ticket: Ticket,
        from: LogIndex,
        bytes_max: usize,
        done: impl FnOnce(Vec<Entry>) + Send + 'static,
    ) -> Result<()> {
        self.with_raft(ticket, |present| present.lent.handle.read_log(from, bytes_max, done))
    }

    /// A later raft actor does not ask for what is gone.
    fn trimmed(&self, previous: Position) {
        let _ = self.with(|present| present.log.terms.trim(previous));
    }

    fn tell(&self, event: Event) {
        if let Event::Applied(index) = &event {
            self.applied.store(index.0, Ordering::Release);
            if !self.is_followed.load(Ordering::Acquire) {
                return;
            }
        }
        // A raft actor that is gone learns what happened when its successor recovers.
        let _ = self.with(|present| present.events.as_ref().map(|events| events.send(event)));
    }

    fn set(&self, present: Option<Present>) {
        self.applied.store(0, Ordering::Release);
        *self.lock() = present;
    }

    fn with<T>(&self, run: impl FnOnce(&mut Present) -> T) -> Result<T> {
        self.lock().as_mut().map(run).ok_or_else(|| Error::unavailable("storage is restarting"))
    }

    /// The same for the raft actor that has begun last, and for no other.
    fn with_raft<T>(&self, ticket: Ticket, run: impl FnOnce(&mut Present) -> T) -> Result<T> {
        self.with(|present| match present.raft {
            Some(raft) if raft == ticket => Ok(run(present)),
            Some(_) | None => Err(Error::unavailable("another raft actor has taken over")),
        })?
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
    /// This node.
    pub id: NodeId,
    /// Which database of the directory, and its limits.
    pub database: embedded::Options,
    /// What the engine is made of.
    pub options: Options,
    /// What earlier engines of this process counted.
    pub past: Mutex<Totals>,
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
    /// Told when this life is to end: a thread of the engine panicked, or a block is to be made anew.
    reopen: Arc<Notify>,
    condemned: Arc<Condemned>,
    /// Backups so far, for their names.
    backups: u64,
    seed: Arc<Seed>,
    _lifeline: Lifeline,
}

impl Storage {
    /// Opens the engine. Boot and restart both come here.
    pub fn recover(seed: Arc<Seed>, lifeline: Lifeline) -> Result<Storage> {
        let options = &seed.options;
        let directory = open_directory(&seed.directory, &seed.database, options)?;
        let (path, origin) = (directory.path.clone(), directory.identity.origin);
        let (disk, cluster) = (directory.identity.disk_id, directory.identity.cluster_id);
        let ending = Arc::new(AtomicBool::new(false));
        let reopen = Arc::new(Notify::new());
        let applied = Arc::new(Notify::new());
        let condemned = Arc::new(Condemned::default());
        let told = Told {
            ending: ending.clone(),
            reopen: reopen.clone(),
            applied: applied.clone(),
            condemned: condemned.clone(),
        };
        let events = watch(&seed, told);
        let (engine, recovered) = Engine::recover(directory, options, events)?;
        let handle = engine.handle();
        let log = recovered.to_raft();
        seed.parts.set(Some(Present {
            disk,
            cluster,
            lent: Lent {
                handle: handle.clone(),
                origin,
                reopen: reopen.clone(),
                condemned: condemned.clone(),
                applied,
            },
            directory: path,
            committed: log.applied,
            log,
            raft: None,
            events: None,
        }));
        Ok(Storage { engine: Some(engine), handle, ending, reopen, condemned, backups: 0, seed, _lifeline: lifeline })
    }

    fn publish(&self) {
        let status = StorageStatus::of(&self.handle, &self.seed.past());
        self.seed.published.set_storage(status);
    }

    fn end(&mut self, how: Stop) -> Result<()> {
        self.ending.store(true, Ordering::Release);
        self.seed.parts.set(None);
        let Some(engine) = self.engine.take() else { return Ok(()) };
        let stopped = engine.stop(how);
        let mut past = self.seed.past();
        *past = past.plus(&Totals::of(&self.handle));
        stopped
    }
}

impl Storage {
    /// Puts a snapshot in the place of the state.
    fn install(&mut self, staged: &Staged, term: Term) -> Result<()> {
        self.seed.parts.give_up_for(staged.manifest.position, term)?;
        self.ending.store(true, Ordering::Release);
        let Some(engine) = self.engine.take() else { return Err(Error::unavailable("storage is stopping")) };
        let installed = engine.install(&self.seed.options.files, staged);
        let mut past = self.seed.past();
        *past = past.plus(&Totals::of(&self.handle));
        installed
    }
}

impl Storage {
    /// Gives up a state that is condemned, as soon as the group can do without this node.
    fn mend(&mut self, context: &mut Context<Storage>) {
        let Some(why) = self.condemned.why() else { return };
        match condemned::step(&self.seed.published.raft().status, &self.seed.id.0) {
            Step::Wait => {}
            Step::HandOver => self.seed.parts.tell(Event::Damaged(why)),
            Step::GiveUp => {
                self.give_up_state(&why);
                context.terminate();
            }
        }
    }

    /// Ends this life without its state.
    fn give_up_state(&mut self, why: &Error) {
        self.ending.store(true, Ordering::Release);
        self.seed.parts.set(None);
        let Some(engine) = self.engine.take() else { return };
        if let Err(error) = engine.rebuild(&self.seed.options, why) {
            error!(%error, "the state could not be given up");
        }
        let mut past = self.seed.past();
        *past = past.plus(&Totals::of(&self.handle));
    }
}

impl Seed {
    /// No code panics while it holds this lock, so a poisoned one still guards whole values.
    fn past(&self) -> MutexGuard<'_, Totals> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the engine's news change.
struct Told {
    ending: Arc<AtomicBool>,
    reopen: Arc<Notify>,
    applied: Arc<Notify>,
    condemned: Arc<Condemned>,
}

/// What is done with the engine's news, on its threads.
fn watch(seed: &Arc<Seed>, told: Told) -> Events {
    let Told { ending, reopen, applied, condemned } = told;
    let (parts, news, published) = (seed.parts.clone(), seed.news.clone(), seed.published.clone());
    let id = seed.id.clone();
    Arc::new(move |event| {
        match &event {
            Event::Failed(error) => {
                let (is_ending, is_condemned) = (ending.load(Ordering::Acquire), condemned.why().is_some());
                match condemned::judge(error, is_ending, is_condemned) {
                    Failure::Told => {}
                    Failure::Damage if has_others(&published.raft().status.membership, &id.0) => {
                        error!(%error, "storage cannot go on with what is damaged");
                        condemned.end(error.clone());
                        ending.store(true, Ordering::Release);
                        reopen.notify_one();
                    }
                    Failure::Damage | Failure::Fatal => {
                        let _ = news.send(News::Fatal(error.clone()));
                    }
                }
            }
            Event::Panicked { thread } => {
                error!(thread, "a thread of storage panicked");
                ending.store(true, Ordering::Release);
                reopen.notify_one();
            }
            Event::Distrusted(error) => {
                error!(%error, "a block of the hot store is damaged: it is made anew from the log");
                ending.store(true, Ordering::Release);
                reopen.notify_one();
            }
            Event::Damaged(error) => {
                error!(%error, "a block of a sealed file is damaged");
                condemned.condemn(error.clone());
            }
            Event::Trimmed(previous) => parts.trimmed(*previous),
            Event::Applied(_) => applied.notify_waiters(),
            Event::Persisted { .. } | Event::Stalled => {}
        }
        parts.tell(event);
    })
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
        context.run_interval(PUBLISH, |storage, context| {
            storage.publish();
            storage.mend(context);
        });
        let reopen = self.reopen.clone();
        let told = async move { reopen.notified().await }.into_actor(self);
        // Its drop joins what is left of the engine; the supervisor then makes the next one.
        context.spawn(told.map(|(), storage, context| {
            if let Some(why) = storage.condemned.fatal() {
                storage.give_up_state(&why);
            }
            context.terminate();
        }));
    }
}

impl Handler<Ask<Close>> for Storage {
    type Result = ();

    fn handle(&mut self, ask: Ask<Close>, _: &mut Self::Context) {
        let (Close, reply) = ask.open();
        reply.send(self.end(Stop::Clean));
    }
}

impl Handler<Ask<Install>> for Storage {
    type Result = ();

    fn handle(&mut self, ask: Ask<Install>, context: &mut Self::Context) {
        let (Install { staged, term }, reply) = ask.open();
        let installed = self.install(&staged, term);
        if self.engine.is_none() {
            // Installed or not: the supervisor opens what is there, and starts raft after it.
            context.terminate();
        }
        reply.send(installed);
    }
}

impl Handler<Ask<Backup>> for Storage {
    type Result = ();

    fn handle(&mut self, ask: Ask<Backup>, context: &mut Self::Context) {
        let (Backup { permit }, mut reply) = ask.open();
        let Some(engine) = &self.engine else {
            return reply.send(Err(Error::unavailable("storage is stopping")));
        };
        // It copies the log, and keeps what is merged away meanwhile.
        if let Err(full) = self.handle.check_space() {
            return reply.send(Err(full));
        }
        let database = engine.database();
        self.backups += 1;
        let path = database.snapshots().join(format!("{BACKUP_PREFIX}{}", self.backups));
        // Made before it is asked for: where nobody waits any more, dropping it removes what the engine has written.
        let backup = BackupDirectory::new(path, database.identity.node_id.clone(), permit);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let abandoned = is_abandoned.clone();
        let mut written = self.handle.backup(&backup.path, Arc::new(move || !abandoned.load(Ordering::Acquire)));
        context.spawn(
            async move {
                let written = tokio::select! {
                    written = &mut written => written,
                    // The engine ends it early, and only then may it be removed, and another one begun.
                    () = reply.abandoned() => {
                        is_abandoned.store(true, Ordering::Release);
                        written.await
                    }
                };
                let written = written.unwrap_or_else(|_| Err(Error::unavailable("storage has stopped")));
                reply.send(written.map(|()| backup));
            }
            .into_actor(self),
        );
    }
}
