//! The storage engine: three threads that own a database directory.
//!
//! ```text
//!            Append                  Apply                       Flush
//!  raft ───────────────> log ──────────────────> state ─────────────────────> background
//!                        WAL, fdatasync          machine, memtable            hot store, sealed files, CURRENT
//!   ^                     │                       │      └─ answers the waiting door
//!   └──── Persisted ──────┴─────── Applied ───────┘                            │ exchanges levels
//!  readers <───────────────────────────── view (an atomic pointer) <───────────┘
//! ```
//!
//! With one voter, what is persisted is committed, so the log thread hands a batch straight to the state thread and
//! raft learns of it afterwards: a write crosses four threads (door, raft, log, state) and comes back.
//!
//! A fourth thread never touches the disk: it watches that the disk answers the others (`watcher`). A command larger than
//! memory takes a way of its own (`sink`).
//!
//! Invariants:
//!
//! * an answer is sent only after its entry is durable and its effect is in the published view
//! * nothing is applied above the locally persisted position
//! * only the background thread writes `CURRENT`
//! * every channel is bounded by what raft lets be in flight, or by the one frozen memtable
//! * the directory's lock is held until all three threads have ended
//! * a panic in one of them ends all, and is told: who owns the engine opens it again, from what is durable

mod background;
mod backlog;
mod backup;
mod claim;
mod counters;
mod histogram;
mod limits;
mod log;
mod memory;
mod open;
mod pending;
mod rebuild;
mod shared;
mod sink;
mod space;
mod state;
mod status;
mod threads;
mod watcher;
mod witness;

pub use backup::{IsWanted, PREFIX as BACKUP_PREFIX};
pub use claim::{Claim, claim};
pub use counters::Counters;
pub use histogram::{Distribution, Histogram};
pub use limits::Limits;
pub use open::{Recovered, format};
pub use rebuild::has_others;
pub use status::Status;

/// The name, in the state directory, of what is put by for a full disk.
pub const RESERVE: &str = space::RESERVE;

use crate::Result;
use crate::clock::{Clock, Monotonic};
use crate::error::{Error, Kind, SqlState};
use crate::ids::LogIndex;
use crate::machine::Outcome;
use crate::raft::{Entry, Envelope, HardState, Known, Position, Ready};
use crate::storage::directory::{Database, Identity};
use crate::storage::files::Files;
use crate::storage::snapshot::{self, Snapshot, Staged};
use crate::storage::view::View;
use crate::storage::wal::Wal;
use crate::storage::watch::Watch;
use background::Job;
use log::{Control, LogRequest};
use shared::{Phase, Shared};
use state::{Next, StateDesk, StateRequest};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use threads::{Alone, Guard};
use tokio::sync::oneshot;
use watcher::Watcher;

/// What a client is told.
pub type Answer = Result<Outcome>;

/// Who waits for an answer.
pub type Waiting = oneshot::Sender<Answer>;

/// Where the engine reports; called on its threads, so it must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// What the engine reports to raft.
#[derive(Debug)]
pub enum Event {
    /// The log is durable up to `last` (where entries were appended), and so is what the messages rest on.
    Persisted {
        /// End of the durable log.
        last: Option<Position>,
        /// Promises that may now be sent.
        messages: Vec<Envelope>,
    },
    /// The state holds everything up to here, which is thereby also durable.
    Applied(LogIndex),
    /// The log has let go of everything up to here.
    Trimmed(Position),
    /// A block of a sealed file is damaged. What does not need it is served as ever.
    Damaged(Error),
    /// The disk does not answer, or has no room for the log. It may come back; meanwhile others lead better.
    Stalled,
    /// A thread has failed; nothing more will be written or applied. The process must end.
    Failed(Error),
    /// A thread has panicked; nothing more will be written or applied. Opening the directory again goes on from what is
    /// durable.
    Panicked {
        /// Which one.
        thread: &'static str,
    },
    /// A block of the hot store is damaged; nothing more will be written or applied. Opening the directory again makes the
    /// hot store anew from the log.
    Distrusted(Error),
}

/// What raft asks of the log thread.
#[derive(Debug, Default)]
pub struct Append {
    /// To be made durable; an entry at a position that the log has replaces it and all behind it.
    pub entries: Vec<Entry>,
    /// Who waits for each entry; as many as entries, or none.
    pub waiting: Vec<Option<Waiting>>,
    /// Term and vote, where they changed.
    pub hard_state: Option<HardState>,
    /// Reported back once all of this is durable.
    pub after_persist: Vec<Envelope>,
    /// One voter: what is durable is committed and goes on to the state thread.
    pub commit_on_persist: bool,
    /// Everything up to here is committed, and applied once the promises have left. [`Handle::commit`] says it at once.
    pub committed: Option<Position>,
}

/// Which engine keeps the hot store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotEngine {
    /// sled, on disk, beside the files of the blocks.
    Sled,
    /// A map in memory: for simulation and tests. A restart replays the log.
    Memory,
}

/// What an engine is made of.
#[derive(Clone)]
pub struct Options {
    /// The file system.
    pub files: Arc<dyn Files>,
    /// The time, for measuring.
    pub clock: Arc<dyn Clock>,
    /// The hot store's engine.
    pub hot: HotEngine,
    /// Names this boot of the machine; none where it cannot be told, which counts as another boot.
    pub boot_id: Option<String>,
    /// Limits.
    pub limits: Limits,
}

/// What of the log is kept for peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The first entry that each of those lacks that lag: kept from the first one on for which that is not more than the
    /// limit.
    pub lagging: Vec<LogIndex>,
    /// The first entry behind each snapshot that is on its way, or has just arrived: kept as long as there is disk for it.
    pub pinned: Vec<LogIndex>,
}

/// How new a snapshot is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As the last seal has left it: costs nothing.
    Sealed,
    /// What is not sealed yet is sealed for it.
    Now,
}

/// How an engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Flush and seal, and leave a short log: the next start is quick.
    Clean,
    /// Stop at the next step, as after a failure: the next start replays the log.
    Abandon,
}

/// The owner of the three threads.
pub struct Engine {
    database: Database,
    handle: Handle,
    state: Sender<StateRequest>,
    background: Sender<Job>,
    threads: Threads,
    watcher: Watcher,
}

/// An engine whose threads have ended. The directory is still locked.
struct Ended {
    database: Database,
    handle: Handle,
    watcher: Watcher,
    left: Result<(Wal, background::Background)>,
}

struct Threads {
    log: JoinHandle<Wal>,
    state: JoinHandle<()>,
    background: JoinHandle<background::Background>,
}

/// A cheap way to reach an engine; outlives it harmlessly.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    state: Arc<StateDesk>,
    log: Sender<LogRequest>,
    clock: Arc<dyn Clock>,
    background: Sender<Job>,
}

impl Append {
    /// What a node wants done, with those who wait for its entries.
    pub fn of(ready: Ready, waiting: Vec<Option<Waiting>>) -> Append {
        Append {
            entries: ready.entries,
            waiting,
            hard_state: ready.hard_state,
            after_persist: ready.after_persist,
            commit_on_persist: ready.commit_on_persist,
            committed: ready.committed,
        }
    }
}

impl Handle {
    /// Hands entries to the log thread. An engine that has ended drops them; whoever waits learns that the outcome is
    /// in doubt.
    pub fn append(&self, append: Append) {
        let _ = self.log.send(LogRequest::Append(append, self.clock.monotonic()));
    }

    /// Everything up to here is committed, and applied once it is durable here.
    pub fn commit(&self, position: Position) {
        let ask = match self.state.commit(position) {
            Ok(Next::Wait) => return,
            Ok(Next::Read { .. }) => Control::HandOn,
            // The log thread tells it, as it does of its own.
            Err(error) => Control::Fail(error),
        };
        let _ = self.log.send(LogRequest::Control(ask));
    }

    /// Reads entries from `from` on, about `bytes_max` bytes of them, all that were handed over before among them. None
    /// where the log has let go of them. `done` is called on the log thread.
    pub fn read_log(&self, from: LogIndex, bytes_max: usize, done: impl FnOnce(Vec<Entry>) + Send + 'static) {
        let _ = self.log.send(LogRequest::Control(Control::Read(from, bytes_max, Box::new(done))));
    }

    /// What of the log is kept for peers, although sealed files hold what it did.
    pub fn keep_log(&self, keep: Keep) {
        let _ = self.log.send(LogRequest::Control(Control::Keep(keep)));
    }

    /// The newest view: holds everything that has been answered. For a statement: it may be read as long as its lease
    /// lasts.
    pub fn view(&self) -> View {
        self.shared.leased_view()
    }

    /// The newest view, however long it takes, but only while what it keeps is not too much: for what can be given up.
    pub fn patient_view(&self) -> View {
        self.shared.patient_view()
    }

    /// The newest view, for as long as it takes: for backups, of which there is one at a time.
    pub fn lasting_view(&self) -> View {
        self.shared.view()
    }

    /// What there was at the newest `HashAt` that was applied, once; read it for as long as it takes.
    pub fn take_marked(&self) -> Option<View> {
        self.shared.take_marked()
    }

    /// The counters.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Refuses what would grow the files while free space is below the reserve, or while seals fail and the hot store and
    /// the log grow without them. It recovers by itself.
    pub fn check_space(&self) -> Result<()> {
        let counters = &self.shared.counters;
        if counters.seal_overdue.load(Ordering::Relaxed) {
            return Err(Error::overloaded("the hot store cannot be sealed, and the next one is due")
                .hint("the log of this node says why; writes are taken again once it is sealed"));
        }
        if !counters.is_disk_full() {
            return Ok(());
        }
        let free_mb = counters.free_bytes.load(Ordering::Relaxed) >> 20;
        Err(Error::new(Kind::Overloaded, SqlState::DISK_FULL, format!("disk full, {free_mb} MB free"))
            .hint("delete rows or free space; storage.disk_reserve says how much is kept back"))
    }

    /// Writes a backup of everything applied by now into a directory that does not exist yet, on the same file system:
    /// in `snapshots/`, under a name that begins with [`BACKUP_PREFIX`]. The caller removes it; a dropped sender means
    /// that the engine has ended. Once `is_wanted` says no it ends early, with an error, and nothing is left of it.
    pub fn backup(&self, to: &Path, is_wanted: IsWanted) -> oneshot::Receiver<Result<()>> {
        let (done, wait) = oneshot::channel();
        let _ = self.background.send(Job::Backup { to: to.to_path_buf(), is_wanted, done });
        wait
    }

    /// A snapshot for a peer: what is sealed, or everything applied by now. None where nothing is. A dropped sender means
    /// that the engine has ended.
    pub fn snapshot(&self, freshness: Freshness) -> oneshot::Receiver<Result<Option<Snapshot>>> {
        let (done, wait) = oneshot::channel();
        match freshness {
            Freshness::Sealed => {
                let _ = self.background.send(Job::Snapshot { freshness, done });
            }
            Freshness::Now => self.state.snapshot(done),
        }
        wait
    }

    /// True once a thread has failed.
    pub fn has_failed(&self) -> bool {
        self.shared.has_failed()
    }
}

impl Engine {
    /// Opens a formatted directory and starts the threads. With one voter the whole log is applied first.
    pub fn recover(database: Database, options: &Options, events: Events) -> Result<(Engine, Recovered)> {
        let salt = salt(&database.identity);
        let watch = Watch::new(options.clock.clone(), options.limits.disk_stall_max);
        let options = &Options { files: watch.over(options.files.clone()), ..options.clone() };
        let open::Opened { wal, machine, background, shared, hard_state, mut known, rebuilt } =
            open::open(&database.path, options, &watch, salt, &database.identity.node_id)
                .map_err(|error| advise(error, &database.path))?;
        let (log_sender, log_requests) = channel();
        let (state_sender, state_requests) = channel();
        let (job_sender, jobs) = channel();
        let background = background.with(log_sender.clone(), events.clone());
        let guard = Guard::new(shared.clone(), events.clone());
        let background = guard.spawn("background", move || background.run(&jobs))?;
        let background = Alone::new(background, job_sender.clone(), shared.clone());
        let applied = machine.applied.0;
        let mut state = state::StateThread {
            machine,
            // One active and one frozen memtable share the budget.
            sink: sink::Sink::new(
                shared.clone(),
                job_sender.clone(),
                options.limits.memtable_bytes_max / 2,
                options.limits.seal_wal_bytes,
            ),
            memory: memory::InMemory::default(),
            shared: shared.clone(),
            background: job_sender.clone(),
            clock: options.clock.clone(),
            events: Arc::new(|_| {}),
        };
        let (mut later, mut hlc) = (Vec::new(), state.machine.hlc);
        if open::decides_alone(&hard_state, &state.machine.membership, &database.identity.node_id)? {
            // Its log is the majority's, so all of it is committed.
            state.replay(&wal).map_err(|error| advise(error, &database.path))?;
            known = Known::Committed;
            hlc = state.machine.hlc;
        } else {
            (later, hlc) = open::behind(&wal, state.machine.applied.0, hlc)?;
        }
        let recovered = Recovered {
            hard_state,
            membership: state.machine.membership.clone(),
            known,
            later,
            terms: wal.terms().clone(),
            applied: state.machine.applied.0,
            hlc,
            replayed: state.machine.applied.0.0 - applied.0,
            rebuilt,
        };
        state.events = events.clone();
        shared.set_phase(Phase::Serving);
        let state = Arc::new(state::StateDesk::new(state, wal.last(), state_sender.clone(), log_sender.clone()));
        let log = log::LogThread {
            wal,
            options: options.clone(),
            directory: state_directory(&database.path),
            pending: backlog::Backlog::default(),
            segments: 0,
            looked: Monotonic::default(),
            linger: options.limits.commit_linger,
            clock: options.clock.clone(),
            shared: shared.clone(),
            state: state.clone(),
            events: events.clone(),
            trim_to: LogIndex(0),
            keep: Keep::default(),
            keep_bytes_max: options.limits.log_keep_bytes_max,
        };
        let desk = state.clone();
        let threads = Threads {
            log: guard.spawn("log", move || log.run(&log_requests))?,
            state: guard.spawn("state", move || state.run(&state_requests))?,
            background: background.join_later(),
        };
        let watcher = Watcher::start(watch, shared.clone(), events)?;
        let handle = Handle {
            shared,
            state: desk,
            log: log_sender,
            clock: options.clock.clone(),
            background: job_sender.clone(),
        };
        let engine = Engine { database, handle, state: state_sender, background: job_sender, threads, watcher };
        Ok((engine, recovered))
    }

    /// A way to reach the engine.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The directory with its identity.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Flushes and seals now, so that sealed files hold everything applied so far; for backups and tests.
    pub fn seal(&self) -> Result<()> {
        let (done, wait) = channel();
        self.state.send(StateRequest::Seal(done)).map_err(|_| Error::unavailable("storage has stopped"))?;
        wait.recv().unwrap_or_else(|_| Err(Error::unavailable("storage has stopped")))
    }

    /// Ends the threads, puts a snapshot in the place of the state, and lets go of the directory: opening it goes on from
    /// there. After an error that is the old state, or the new one.
    pub fn install(self, files: &Arc<dyn Files>, staged: &Staged) -> Result<()> {
        let Ended { database, watcher, .. } = self.end(Stop::Abandon)?;
        // Whatever became of the threads: what counts is durable.
        watcher.end();
        snapshot::install(files, &database.state(), staged)
    }

    /// Ends the threads, gives up the state, and lets go of the directory: opening it begins without one, to be brought
    /// one by the group. Refused, with the state as it was, where nobody else has it.
    pub fn rebuild(self, options: &Options, why: &Error) -> Result<()> {
        let Ended { database, watcher, .. } = self.end(Stop::Abandon)?;
        watcher.end();
        let identity = &database.identity;
        rebuild::begin(&database.path, options, salt(identity), &identity.node_id, why)
    }

    /// Ends the threads, in the order in which work flows, and gives what they leave.
    fn end(self, how: Stop) -> Result<Ended> {
        if how == Stop::Abandon {
            self.handle.shared.fail();
        }
        self.handle.shared.set_phase(Phase::Stopping);
        let Engine { database, handle, state, background, threads, watcher } = self;
        // A thread that the disk does not let go cannot be joined, and nobody may write beside it: the directory stays
        // locked until the process ends.
        let join = || {
            let _ = handle.log.send(LogRequest::Control(Control::Stop));
            let log = watcher.join(threads.log)?;
            let _ = state.send(StateRequest::Stop);
            let state = watcher.join(threads.state)?;
            let _ = background.send(Job::Stop);
            Ok((log, state, watcher.join(threads.background)?))
        };
        let (log, state, background) = match join() {
            Ok(joined) => joined,
            Err(hung) => {
                std::mem::forget(database);
                return Err(hung);
            }
        };
        // Only now, with no thread left that writes, may the directory be let go, whichever of them has panicked.
        let left = log
            .map_err(|_| ended("log"))
            .and_then(|wal| background.map(|background| (wal, background)).map_err(|_| ended("background")))
            .and_then(|parts| state.map(|()| parts).map_err(|_| ended("state")));
        Ok(Ended { database, handle, watcher, left })
    }

    /// Ends the threads, and lets go of the directory.
    pub fn stop(self, how: Stop) -> Result<()> {
        let Ended { database, handle, watcher, left } = self.end(how)?;
        let (wal, mut background) = match left {
            Ok(parts) if !handle.has_failed() => parts,
            left => {
                watcher.end();
                return left.map(drop);
            }
        };
        // On a thread of its own, for the disk may hang in the last seal as in any other.
        let last = move || {
            let sealed = background.seal_at_stop();
            // The entry at the birth is in sealed files too; the log's header keeps its position and term.
            let closed = wal.close(background.birth().next().min(handle.shared.kept_from()));
            match sealed.and(closed) {
                Err(error) if space::is_full(&error) => {
                    // All of it is in the log and in what was sealed before.
                    tracing::warn!(%error, "the disk is full: the log was not trimmed, and the next start replays it");
                    Ok(())
                }
                done => done,
            }
        };
        let closed = threads::spawn("close", last).and_then(|thread| watcher.join(thread));
        match closed {
            Ok(closed) => {
                watcher.end();
                closed.unwrap_or_else(|_| Err(ended("close")))
            }
            Err(error) => {
                // Not let go either: see above.
                std::mem::forget(database);
                Err(error)
            }
        }
    }
}

fn ended(name: &str) -> Error {
    Error::internal(format!("the {name} thread panicked"))
}

/// What an operator does about a directory that is damaged.
fn advise(error: Error, path: &Path) -> Error {
    if error.kind() != Kind::Damaged || error.hint_text().is_some() {
        return error;
    }
    error.hint(format!(
        "{} is left as it is: keep a copy of it, and restore a snapshot into another --data-dir (chronos snapshot \
         restore)",
        path.display()
    ))
}

/// Bound into the log's checksums: part of what only this disk has.
pub fn salt(identity: &Identity) -> u64 {
    identity.disk_id.0 as u64
}

/// The directory of the log.
fn log_directory(database: &Path) -> PathBuf {
    database.join("raft")
}

/// Where a database directory has what arrives of a snapshot.
const SNAPSHOTS: &str = "snapshots";

/// The directory of the state.
fn state_directory(database: &Path) -> PathBuf {
    database.join("state")
}
