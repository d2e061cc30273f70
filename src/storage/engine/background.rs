//! The background thread: flush, seal, merge, spare segments, and a look at the disk.
//!
//! Flush comes first: writers wait for it. So seal and merge give way after each block, and run what flushes have come
//! meanwhile in between. Only this thread writes `CURRENT`, always in the order: output and directory durable, CURRENT
//! switched durably, levels swapped, inputs let go.
//!
//! * At most one frozen hot store awaits its seal; while it does, the next one is not frozen.
//! * Any other failed flush ends the engine, wherever it was made room for: the next one would publish a position above rows that
//!   are in no block, and a restart would take them for applied.
//! * A flush that finds no room waits for it. At a stop it is left undone, with all that comes after: the log has it.
//! * A failed seal or merge is tried again after a pause, each by itself: a disk too full for a seal may have room again
//!   after a merge. From the moment that `CURRENT` is written a failure ends the engine: nobody knows what it says.

mod backoff;
mod disk;
mod large;
mod seal;
mod steps;

use super::backup::{Backup, IsWanted, wanted};
use super::counters::Counters;
use super::log::{Control, LogRequest};
use super::shared::{Phase, Shared};
use super::{Event, Events, Freshness, Options, SNAPSHOTS, space};
use crate::clock::Monotonic;
use crate::ids::LogIndex;
use crate::sql::catalog::Catalog;
use crate::storage::current::Current;
use crate::storage::draft::{Draft, FlushWork};
use crate::storage::hot::HotStore;
use crate::storage::level::Level;
use crate::storage::levels::Edit;
use crate::storage::memtable::Memtable;
use crate::storage::merge::{self, RUNS_MAX};
use crate::storage::sealed::SealedRun;
use crate::storage::snapshot::{self, Snapshot};
use crate::storage::state::StateRecord;
use crate::storage::wal::Pool;
use crate::storage::watch::Watch;
use crate::{Error, Result};
use backoff::Backoff;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use steps::Steps;
use tokio::sync::oneshot;

/// How often an idle background thread looks at the disk and for something to merge.
const TICK: Duration = Duration::from_secs(5);

/// The first look comes sooner: a database that is open for longer than this is there to stay, so that a spare segment is
/// filled for it and a reserve put by.
const FIRST_TICK: Duration = Duration::from_secs(1);

/// Rows written by the last flushes for each row that came in, above which the hot store is sealed early. A seal writes
/// each row once, the merges that follow about once for every fourfold growth: two for the next stretch of growth. With
/// random keys the n-th flush writes n rows for one, so from three on going on is the dearer way. Appends stay below two.
const SEAL_AMPLIFICATION: f64 = 3.0;

/// Rows in the hot store before it is sealed early: thirty-two sealed blocks, beside which the fsyncs of a seal are small.
/// Not bytes of log: columns make them few where rows are alike, and those are rewritten as often.
const EARLY_SEAL_ROWS: u64 = 32 * 2048;

/// What the background thread is asked.
pub(super) enum Job {
    /// Make this memtable part of the hot store.
    Flush {
        /// The memtable, to which nobody writes any more.
        frozen: Arc<Memtable>,
        /// The state at its end.
        state: Box<StateRecord>,
        /// Bytes of log written by then.
        log_mark: u64,
    },
    /// Write a part of a large command into blocks that nobody sees yet.
    Absorb {
        /// The part, to which nobody writes any more.
        part: Arc<Memtable>,
        /// The state before the command.
        before: Arc<StateRecord>,
        /// Told once the part is written; dropped where it is not.
        done: Sender<()>,
    },
    /// Make visible what was absorbed, together with the position of its command.
    Publish {
        /// The state after the command.
        state: Box<StateRecord>,
        /// Its catalog.
        catalog: Arc<Catalog>,
        /// Bytes of log written by then.
        log_mark: u64,
        /// Told once readers see it.
        done: Sender<()>,
    },
    /// Seal the hot store, whatever its size.
    Seal(Sender<Result<()>>),
    /// Write a backup.
    Backup {
        /// A directory that is not there yet.
        to: PathBuf,
        /// Asked between pieces of work: no is the end of it.
        is_wanted: IsWanted,
        /// Who waits for it.
        done: oneshot::Sender<Result<()>>,
    },
    /// Make a snapshot for a peer.
    Snapshot {
        /// How new it is to be.
        freshness: Freshness,
        /// Who waits for it.
        done: oneshot::Sender<Result<Option<Snapshot>>>,
    },
    /// Stop.
    Stop,
}

pub(super) struct Background {
    options: Options,
    watch: Arc<Watch>,
    directory: PathBuf,
    current: Current,
    hot: HotStore,
    runs: Vec<SealedRun>,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    log: Option<Sender<LogRequest>>,
    events: Events,
    /// Bytes of log at the hot store's birth, and at its last flush.
    birth_mark: u64,
    flush_mark: u64,
    /// A hot store that is frozen and not yet sealed.
    frozen: Option<Frozen>,
    /// What was written of a large command that is not complete.
    draft: Option<Draft>,
    /// Jobs that came while a seal or merge gave way.
    deferred: Vec<Job>,
    seal_backoff: Backoff,
    merge_backoff: Backoff,
    spare_backoff: Backoff,
    steps: Steps,
    stopping: bool,
    /// Set once the stop found no room for a flush: what follows it is left to the log.
    unflushed: bool,
}

struct Frozen {
    hot: HotStore,
    log_mark: u64,
}

impl Background {
    #[expect(clippy::too_many_arguments, reason = "it is built in one place, from what opening has found")]
    pub fn new(
        options: &Options,
        watch: &Arc<Watch>,
        directory: &Path,
        current: Current,
        hot: HotStore,
        runs: Vec<SealedRun>,
        shared: Arc<Shared>,
        pool: Arc<Pool>,
        log_bytes: u64,
    ) -> Background {
        shared.counters.log_bytes.store(log_bytes, Ordering::Relaxed);
        let background = Background {
            options: options.clone(),
            watch: watch.clone(),
            directory: directory.to_path_buf(),
            current,
            hot,
            runs,
            shared,
            pool,
            log: None,
            events: Arc::new(|_| {}),
            birth_mark: 0,
            flush_mark: 0,
            frozen: None,
            draft: None,
            deferred: Vec::new(),
            seal_backoff: Backoff::default(),
            merge_backoff: Backoff::default(),
            spare_backoff: Backoff::default(),
            steps: Steps::default(),
            stopping: false,
            unflushed: false,
        };
        background.note_runs();
        background
    }

    pub fn with(self, log: Sender<LogRequest>, events: Events) -> Background {
        let background = Background { log: Some(log), events, ..self };
        background.watch_over(&background.hot);
        background.watch_runs(&background.runs);
        background
    }

    /// Tells of the first damaged block of each file.
    fn watch_runs(&self, runs: &[SealedRun]) {
        for file in runs.iter().flat_map(SealedRun::files) {
            // Weak: the levels that hold the file are held by what it tells.
            let events = Arc::downgrade(&self.events);
            file.on_damage(Box::new(move |error| {
                if let Some(events) = events.upgrade() {
                    events(Event::Damaged(error.clone()));
                }
            }));
        }
    }

    /// Ends the engine once a block of this store is found damaged, by whoever reads it.
    fn watch_over(&self, hot: &HotStore) {
        // Weak: the levels that hold the store are held by what it tells.
        let (shared, events) = (Arc::downgrade(&self.shared), Arc::downgrade(&self.events));
        hot.on_damage(Box::new(move |error| {
            // Told first: what the threads then report is a consequence of it.
            if let Some(events) = events.upgrade() {
                events(Event::Distrusted(error.clone()));
            }
            if let Some(shared) = shared.upgrade() {
                shared.fail();
            }
        }));
    }

    /// Position from which the log is needed.
    pub fn birth(&self) -> LogIndex {
        self.current.birth
    }

    /// Runs until it is asked to stop or the engine fails; gives itself back for the last seal.
    pub fn run(mut self, jobs: &Receiver<Job>) -> Background {
        self.measure();
        let mut tick = FIRST_TICK;
        while !self.is_ending() {
            let job = match self.deferred.pop() {
                Some(job) => Some(job),
                None => match jobs.recv_timeout(std::mem::replace(&mut tick, TICK)) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            if let Some(job) = job {
                self.perform(job, jobs);
            }
            if !self.is_ending() {
                self.tidy(jobs);
            }
        }
        // Whoever waits for one of these learns that nobody does it any more.
        self.deferred.clear();
        self
    }

    fn is_ending(&self) -> bool {
        self.stopping || self.shared.has_failed()
    }

    fn perform(&mut self, job: Job, jobs: &Receiver<Job>) {
        match job {
            Job::Flush { frozen, state, log_mark } => {
                let flushed = self.flush(&frozen, *state, log_mark);
                // The error has been told.
                let _ = self.must("flush", flushed);
            }
            Job::Absorb { part, before, done } => {
                let absorbed = self.absorb(&part, &before);
                drop(part);
                if self.must("flush of a large command", absorbed).is_ok() {
                    // A state thread that has gone needs no answer.
                    let _ = done.send(());
                }
            }
            Job::Publish { state, catalog, log_mark, done } => {
                let published = self.publish(*state, catalog, log_mark);
                if self.must("publishing a large command", published).is_ok() {
                    let _ = done.send(());
                }
            }
            Job::Seal(done) => {
                let sealed = self.seal(&|_| Ok(()));
                if sealed.is_ok() {
                    self.seal_backoff.note(self.options.clock.monotonic(), "a seal", &sealed);
                }
                // Whoever asked and has gone does not need the answer.
                let _ = done.send(sealed);
            }
            Job::Backup { to, is_wanted, done } => {
                let _ = done.send(self.backup(&to, &is_wanted, jobs));
            }
            Job::Snapshot { freshness, done } => {
                let _ = done.send(self.snapshot(freshness, jobs));
            }
            Job::Stop => self.stopping = true,
        }
    }

    /// What `CURRENT` names, once it is as new as it is to be. Its files stay while the snapshot lives: a merge removes
    /// its inputs with their last handle.
    fn snapshot(&mut self, freshness: Freshness, jobs: &Receiver<Job>) -> Result<Option<Snapshot>> {
        if freshness == Freshness::Now {
            // The first one finishes a seal that failed before, of what was there then.
            for _ in 0..2 {
                self.seal(&|background| background.give_way(jobs))?;
            }
        }
        Ok(Snapshot::of(&self.current, &self.runs))
    }

    /// Ends the engine where this failed. The error is told here; what is given back says no more than that there was
    /// one, so that nobody takes it for an error of its own and tries again.
    fn must<T>(&self, what: &str, done: Result<T>) -> Result<T> {
        done.map_err(|error| {
            let error = error.context(what);
            let told = Error::unavailable(format!("storage has failed: {error}"));
            // First the reason: who finds the flag set says no more than that.
            (self.events)(Event::Failed(error));
            self.shared.fail();
            told
        })
    }

    fn flush(&mut self, frozen: &Arc<Memtable>, state: StateRecord, log_mark: u64) -> Result<()> {
        if self.draft.is_some() {
            return Err(Error::internal("a memtable is to be flushed while a large command is under way"));
        }
        // One above it would publish a position beyond rows that are only in memory.
        if !self.shared.levels().memtables.last().is_some_and(|oldest| Arc::ptr_eq(oldest, frozen)) {
            return Err(Error::internal("a memtable is to be flushed before an older one"));
        }
        let before = self.hot.level();
        let Some(draft) = self.draft_with_room(frozen, &state)? else {
            self.shared.note_flushed();
            return Ok(());
        };
        let report = self.hot.publish(draft, state)?;
        let edit = Edit { take_memtables: vec![frozen.clone()], take_blocks: vec![before], put: vec![report.level] };
        self.swap(&edit)?;
        self.flush_mark = log_mark;
        self.shared.note_flushed();
        self.count(report.work);
        Ok(())
    }

    /// Writes the blocks of a flush once the disk has room for them; none where the engine stops without.
    fn draft_with_room(&mut self, frozen: &Arc<Memtable>, state: &StateRecord) -> Result<Option<Draft>> {
        self.measure_free();
        let mut is_told = false;
        while !self.unflushed {
            let older = self.below_hot();
            let drafted = self.hot.draft(&**frozen, state, &older).and_then(|draft| match self.check_hot_room() {
                Ok(()) => Ok(draft),
                Err(error) => self.hot.discard(draft).and(Err(error)),
            });
            let error = match drafted {
                Err(error) if space::is_full(&error) => error,
                done => return done.map(Some),
            };
            if !self.wait_for_room(&error, &mut is_told)? {
                self.unflushed = true;
            }
        }
        Ok(None)
    }

    /// Waits a moment for room; false where the engine stops meanwhile. While it is opened nobody waits: the error is
    /// given back.
    fn wait_for_room(&self, error: &Error, is_told: &mut bool) -> Result<bool> {
        match self.shared.phase() {
            Phase::Opening => return Err(error.clone()),
            Phase::Stopping => return Ok(false),
            Phase::Serving => {}
        }
        self.measure_free();
        if !std::mem::replace(is_told, true) {
            tracing::warn!(%error, "the disk is full: a flush waits for room");
        }
        std::thread::park_timeout(space::LOOK_EVERY);
        if self.shared.has_failed() { Err(Error::unavailable("storage has failed")) } else { Ok(true) }
    }

    /// The levels below the hot store, newest first.
    fn below_hot(&self) -> Vec<Level> {
        let sealing = self.frozen.iter().map(|frozen| Level::clone(&frozen.hot.level()));
        sealing.chain(self.runs.iter().map(|run| run.level.clone())).collect()
    }

    fn count(&self, work: FlushWork) {
        Counters::add(&self.shared.counters.flushes, 1);
        Counters::add(&self.shared.counters.flush_bytes, work.bytes_written);
        Counters::add(&self.shared.counters.rows_expired, work.rows_expired);
    }

    /// Applies an edit to the present levels. Only this thread takes levels out, so the inputs are there.
    fn swap(&self, edit: &Edit) -> Result<()> {
        self.shared.publish(|published| published.exchange(edit))
    }

    /// What can be done when no flush waits. Each by itself: what fails is left alone for a while, and keeps nothing
    /// else from being done.
    fn tidy(&mut self, jobs: &Receiver<Job>) {
        let highest = self.shared.view().hlc.wall();
        if let Some(step) = self.steps.look(self.options.clock.wall(), self.now(), highest) {
            step.warn();
        }
        // What flushes superseded goes once readers have let go of it.
        if let Err(error) = self.hot.collect() {
            tracing::warn!(%error, "cannot remove a superseded file of hot blocks");
        }
        // What the log has brought since, a transfer that was given up need not keep on the disk.
        let (snapshots, applied) = (self.directory.with_file_name(SNAPSHOTS), self.hot.state().applied);
        if let Err(error) = snapshot::remove_stale(&*self.options.files, &snapshots, applied) {
            tracing::warn!(%error, "cannot remove what is left of a snapshot");
        }
        self.measure();
        loop {
            self.try_seal(jobs);
            if !self.try_merge(jobs) {
                break;
            }
        }
        if let Err(error) = space::put_by(&self.options, &self.directory) {
            tracing::debug!(%error, "nothing is put by for a full disk");
        }
        // Where there is no room for a spare, filling one would take the rest from the log.
        let spare_bytes = self.options.limits.segment_bytes + space::RESERVE_BYTES;
        let has_room = space::check(&self.options, &self.directory, spare_bytes).is_ok();
        if has_room && self.spare_backoff.is_over(self.now()) {
            let pool = self.pool.clone();
            let prepared = pool.prepare_spare(&mut || self.give_way(jobs));
            if !self.is_ending() {
                self.spare_backoff.note(self.now(), "a spare segment of the log", &prepared);
            }
        }
        let overdue = self.is_next_due() && (self.seal_backoff.is_failing() || self.runs.len() >= RUNS_MAX);
        self.shared.counters.seal_overdue.store(overdue, Ordering::Relaxed);
    }

    fn now(&self) -> Monotonic {
        self.options.clock.monotonic()
    }

    /// Seals what is due, unless a merge must come first.
    fn try_seal(&mut self, jobs: &Receiver<Job>) {
        let is_due = self.is_seal_due() || self.frozen.is_some();
        if !is_due || self.is_ending() || self.runs.len() >= RUNS_MAX || !self.seal_backoff.is_over(self.now()) {
            return;
        }
        let sealed = self.seal(&|background| {
            // Once the next one is due as well, writers wait for this one: else they would outrun it.
            if background.is_next_due() { background.check_ending() } else { background.give_way(jobs) }
        });
        if !self.is_ending() {
            self.seal_backoff.note(self.options.clock.monotonic(), "a seal", &sealed);
        }
    }

    /// Makes one step of a merge; false where there is none to make.
    fn try_merge(&mut self, jobs: &Receiver<Job>) -> bool {
        if self.is_ending() || !self.merge_backoff.is_over(self.now()) {
            return false;
        }
        let Some(pick) = merge::pick(&self.current, &self.runs, &self.birth_state()) else { return false };
        let merged = self.merge(&pick, jobs);
        if !self.is_ending() {
            self.merge_backoff.note(self.options.clock.monotonic(), "a merge", &merged);
        }
        merged.is_ok()
    }

    /// True where the log since the hot store's birth is long enough; earlier where its blocks are rewritten faster
    /// than they fill.
    fn is_seal_due(&self) -> bool {
        self.flush_mark.saturating_sub(self.birth_mark) >= self.options.limits.seal_wal_bytes
            || (self.hot.amplification() > SEAL_AMPLIFICATION && self.hot.rows() >= EARLY_SEAL_ROWS)
    }

    /// True where the hot store above the one that is to be sealed should be sealed as well.
    fn is_next_due(&self) -> bool {
        let step = self.options.limits.seal_wal_bytes;
        let begins = self.frozen.as_ref().map_or(self.birth_mark.saturating_add(step), |frozen| frozen.log_mark);
        self.flush_mark.saturating_sub(begins) >= step
    }

    /// Runs the flushes that have come; other jobs wait.
    fn give_way(&mut self, jobs: &Receiver<Job>) -> Result<()> {
        while !self.shared.has_failed()
            && let Ok(job) = jobs.try_recv()
        {
            match job {
                Job::Flush { .. } | Job::Absorb { .. } | Job::Publish { .. } => self.perform(job, jobs),
                Job::Seal(_) | Job::Backup { .. } | Job::Snapshot { .. } => self.deferred.push(job),
                Job::Stop => self.stopping = true,
            }
        }
        self.check_ending()
    }

    fn check_ending(&self) -> Result<()> {
        if self.is_ending() { Err(Error::unavailable("storage is stopping")) } else { Ok(()) }
    }

    /// See [`super::backup`]. Where it fails, what was written of it is removed.
    fn backup(&mut self, to: &Path, is_wanted: &IsWanted, jobs: &Receiver<Job>) -> Result<()> {
        wanted(is_wanted)?;
        self.seal(&|background| background.give_way(jobs))?;
        let (asked, answer) = channel();
        let log = self.log.as_ref().ok_or_else(|| Error::internal("the background thread knows no log"))?;
        let stopped = || Error::unavailable("storage is stopping");
        log.send(LogRequest::Control(Control::Extents(asked))).map_err(|_| stopped())?;
        let log = answer.recv().map_err(|_| stopped())?;
        let (files, state) = (self.options.files.clone(), self.directory.clone());
        let current = Current { installed: false, ..self.current.clone() };
        let database = state.parent().unwrap_or(&state);
        let backup = Backup { files: &*files, database, state: &state, current: &current, log: &log };
        let mut pause = || wanted(is_wanted).and_then(|()| self.give_way(jobs));
        backup.write(to, &mut pause).inspect_err(|_| {
            // A failure here costs space until the next start.
            let _ = files.remove_dir(to);
        })
    }
}
