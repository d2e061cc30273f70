//! The background thread: flush, seal, merge, spare segments, and a look at the disk.
//!
//! Flush comes first: writers wait for it. So seal and merge give way after each block, and run what flushes have come
//! meanwhile in between. Only this thread writes `CURRENT`, always in the order: output and directory durable, CURRENT
//! switched durably, levels swapped, inputs let go.
//!
//! * At most one frozen hot store awaits its seal; while it does, the next one is not frozen.
//! * A failed seal or merge is tried again at the next tick; a failed flush ends the process, since memory would grow.

use super::log::{Control, LogRequest};
use super::open::create_hot;
use super::shared::{Counters, Shared};
use super::{Event, Events, HotEngine, Options};
use crate::ids::LogIndex;
use crate::storage::current::{self, Current};
use crate::storage::hot::HotStore;
use crate::storage::level::Level;
use crate::storage::levels::Edit;
use crate::storage::memtable::Memtable;
use crate::storage::merge;
use crate::storage::seal::{self, Target};
use crate::storage::sealed::SealedRun;
use crate::storage::state::StateRecord;
use crate::storage::wal::Pool;
use crate::{Error, Result};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How often an idle background thread looks at the disk and for something to merge.
const TICK: Duration = Duration::from_secs(5);

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
    /// Seal the hot store, whatever its size.
    Seal(Sender<Result<()>>),
    /// Stop.
    Stop,
}

pub(super) struct Background {
    options: Options,
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
    /// Jobs that came while a seal or merge gave way.
    deferred: Vec<Job>,
    stopping: bool,
}

struct Frozen {
    hot: HotStore,
    log_mark: u64,
}

impl Background {
    #[expect(clippy::too_many_arguments, reason = "it is built in one place, from what opening has found")]
    pub fn new(
        options: &Options,
        directory: &Path,
        current: Current,
        hot: HotStore,
        runs: Vec<SealedRun>,
        shared: Arc<Shared>,
        pool: Arc<Pool>,
        log_bytes: u64,
    ) -> Background {
        shared.counters.log_bytes.store(log_bytes, Ordering::Relaxed);
        Background {
            options: options.clone(),
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
            deferred: Vec::new(),
            stopping: false,
        }
    }

    pub fn with(self, log: Sender<LogRequest>, events: Events) -> Background {
        Background { log: Some(log), events, ..self }
    }

    /// Position from which the log is needed.
    pub fn birth(&self) -> LogIndex {
        self.current.birth
    }

    /// Runs until it is asked to stop or a flush fails; gives itself back for the last seal.
    pub fn run(mut self, jobs: &Receiver<Job>) -> Background {
        self.measure();
        while !self.stopping && !self.shared.has_failed() {
            let job = match self.deferred.pop() {
                Some(job) => Some(job),
                None => match jobs.recv_timeout(TICK) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            if let Some(job) = job
                && let Err(error) = self.perform(job)
            {
                self.shared.fail();
                (self.events)(Event::Failed(error.context("flush")));
                break;
            }
            if let Err(error) = self.tidy(jobs)
                && !self.stopping
            {
                tracing::warn!(%error, "seal or merge failed and will be tried again");
            }
        }
        self
    }

    fn perform(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Flush { frozen, state, log_mark } => self.flush(&frozen, *state, log_mark),
            Job::Seal(done) => {
                let sealed = self.seal(&|_| Ok(()));
                // Whoever asked and has gone does not need the answer.
                let _ = done.send(sealed);
                Ok(())
            }
            Job::Stop => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    fn flush(&mut self, frozen: &Arc<Memtable>, state: StateRecord, log_mark: u64) -> Result<()> {
        let before = self.hot.level();
        let sealing = self.frozen.iter().map(|frozen| Level::clone(&frozen.hot.level()));
        let older: Vec<Level> = sealing.chain(self.runs.iter().map(|run| run.level.clone())).collect();
        let report = self.hot.flush(&**frozen, state, &older)?;
        let edit = Edit { take_memtables: vec![frozen.clone()], take_blocks: vec![before], put: vec![report.level] };
        self.swap(&edit)?;
        self.flush_mark = log_mark;
        self.shared.note_flushed();
        Counters::add(&self.shared.counters.flushes, 1);
        Counters::add(&self.shared.counters.flush_bytes, report.work.bytes_written);
        Ok(())
    }

    /// Applies an edit to the present levels. Only this thread takes levels out, so the inputs are there.
    fn swap(&self, edit: &Edit) -> Result<()> {
        self.shared.publish(|published| {
            let next = published.levels.edit(edit);
            let next = next.ok_or_else(|| Error::internal("a level was taken out by someone else"))?;
            published.levels = Arc::new(next);
            Ok(())
        })
    }

    /// What can be done when no flush waits.
    fn tidy(&mut self, jobs: &Receiver<Job>) -> Result<()> {
        // What flushes superseded goes once readers have let go of it.
        if let Err(error) = self.hot.collect() {
            tracing::warn!(%error, "cannot remove a superseded file of hot blocks");
        }
        self.measure();
        if self.is_seal_due() || self.frozen.is_some() {
            self.seal(&|background| background.give_way(jobs))?;
        }
        while let Some(pick) = merge::pick(&self.current, &self.runs, &self.birth_state()) {
            self.merge(&pick, jobs)?;
        }
        self.pool.prepare_spare()?;
        Ok(())
    }

    /// True where the log since the hot store's birth is long enough; earlier where its blocks are rewritten faster
    /// than they fill.
    fn is_seal_due(&self) -> bool {
        self.flush_mark.saturating_sub(self.birth_mark) >= self.options.limits.seal_wal_bytes
            || (self.hot.amplification() > SEAL_AMPLIFICATION && self.hot.rows() >= EARLY_SEAL_ROWS)
    }

    /// Runs the flushes that have come; other jobs wait.
    fn give_way(&mut self, jobs: &Receiver<Job>) -> Result<()> {
        while let Ok(job) = jobs.try_recv() {
            match job {
                Job::Flush { .. } => self.perform(job)?,
                Job::Seal(_) => self.deferred.push(job),
                Job::Stop => self.stopping = true,
            }
        }
        if self.stopping || self.shared.has_failed() {
            return Err(Error::unavailable("storage is stopping"));
        }
        Ok(())
    }

    fn birth_state(&self) -> StateRecord {
        self.runs.first().map_or_else(StateRecord::default, |run| run.state.clone())
    }

    /// Freezes the hot store, unless one waits already, and writes it as the newest sealed run.
    fn seal(&mut self, pause: &dyn Fn(&mut Background) -> Result<()>) -> Result<()> {
        if self.frozen.is_none() {
            if self.hot.state().applied == self.current.birth {
                return Ok(());
            }
            self.freeze()?;
        }
        let Some(frozen) = &self.frozen else { return Ok(()) };
        let (level, state) = (frozen.hot.level(), frozen.hot.state().clone());
        let older: Vec<Level> = self.runs.iter().map(|run| run.level.clone()).collect();
        let (files, directory) = (self.options.files.clone(), self.directory.clone());
        let first_number = self.current.next_number;
        let written = {
            let background = RefCell::new(&mut *self);
            let target = Target {
                files: &*files,
                directory: &directory,
                first_number,
                limits: seal::Limits::default(),
                pause: &|| pause(&mut background.borrow_mut()),
            };
            seal::seal(target, &level, &older, &state)
        };
        let (names, _) = written?;
        let Some(frozen) = self.frozen.take() else { return Ok(()) };
        self.current = self.current.sealed(names, self.current.hot + 1, state.applied, state.applied_term);
        self.current.store(&*self.options.files, &self.directory)?;
        let run = SealedRun::open(&files, &directory, &self.current.runs[0], &self.runs)?;
        let edit = Edit { take_memtables: vec![], take_blocks: vec![level], put: vec![Arc::new(run.level.clone())] };
        self.swap(&edit)?;
        self.runs.insert(0, run);
        self.birth_mark = frozen.log_mark;
        let hot = current::hot_path(&directory, self.current.hot - 1);
        frozen.hot.retire(Box::new(move || {
            // A failure here costs space until the next start, which removes what CURRENT does not name.
            if files.exists(&hot) {
                let _ = files.remove_dir(&hot);
            }
        }));
        if let Some(log) = &self.log {
            // A log thread that has stopped trims when the engine is opened again.
            let _ = log.send(LogRequest::Control(Control::Trim(self.current.birth.next())));
        }
        Counters::add(&self.shared.counters.seals, 1);
        Ok(())
    }

    /// Puts a fresh hot store above the present one. `CURRENT` still names the old one: until the seal is done, a
    /// restart goes on from there.
    fn freeze(&mut self) -> Result<()> {
        let state = self.hot.state().clone();
        let fresh = create_hot(&self.options, &self.directory, self.current.hot + 1, &state)?;
        self.swap(&Edit { take_memtables: vec![], take_blocks: vec![], put: vec![fresh.level()] })?;
        let hot = std::mem::replace(&mut self.hot, fresh);
        self.frozen = Some(Frozen { hot, log_mark: self.flush_mark });
        Ok(())
    }

    fn merge(&mut self, pick: &merge::Pick, jobs: &Receiver<Job>) -> Result<()> {
        let (files, directory) = (self.options.files.clone(), self.directory.clone());
        let (current, runs, birth) = (self.current.clone(), self.runs.clone(), self.birth_state());
        let step = {
            let background = RefCell::new(&mut *self);
            let target = Target {
                files: &*files,
                directory: &directory,
                first_number: current.next_number,
                limits: seal::Limits::default(),
                pause: &|| background.borrow_mut().give_way(jobs),
            };
            merge::merge_step(target, &current, &runs, &birth, pick)?
        };
        step.next.store(&*files, &directory)?;
        let mut opened: Vec<SealedRun> = Vec::with_capacity(step.next.runs.len());
        for names in &step.next.runs {
            let mut known = runs.clone();
            known.extend(opened.iter().cloned());
            opened.push(SealedRun::open(&files, &directory, names, &known)?);
        }
        let before = self.sealed_levels();
        let put: Vec<Arc<Level>> = opened.iter().map(|run| Arc::new(run.level.clone())).collect();
        self.swap(&Edit { take_memtables: vec![], take_blocks: before, put })?;
        for run in &self.runs {
            run.doom(&step.obsolete);
        }
        self.runs = opened;
        self.current = step.next;
        Counters::add(&self.shared.counters.merges, 1);
        Ok(())
    }

    /// The levels of the sealed runs as they stand in the present list, below the hot stores.
    fn sealed_levels(&self) -> Vec<Arc<Level>> {
        let levels = self.shared.levels();
        levels.blocks[levels.blocks.len() - self.runs.len()..].to_vec()
    }

    /// Seals what a clean stop leaves in the hot store.
    pub fn seal_at_stop(&mut self) -> Result<()> {
        // A hot store that was being sealed when the stop came is sealed first, then the one above it.
        self.seal(&|_| Ok(()))?;
        self.seal(&|_| Ok(()))
    }

    /// Notes the sizes that operators see and writers are refused by.
    fn measure(&self) {
        let counters = &self.shared.counters;
        if self.options.hot == HotEngine::Memory {
            return;
        }
        let database = self.directory.parent().unwrap_or(&self.directory);
        if let Ok(free) = self.options.files.free_bytes(&self.directory) {
            counters.free_bytes.store(free, Ordering::Relaxed);
            counters.disk_low.store(free < self.options.limits.disk_reserve_bytes, Ordering::Relaxed);
        }
        counters.disk_bytes.store(bytes_below(database), Ordering::Relaxed);
    }
}

/// Bytes of the files in a directory and those below it; what vanishes meanwhile counts as nothing.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
