//! Seal and merge: what changes `CURRENT`.
//!
//! ```text
//!   write files ─> open what comes next ─> │ CURRENT ─> levels ─> memory │ ─> let the inputs go
//!   a failure is tried again               │ a failure ends the engine   │
//! ```
//!
//! What follows is built beside what is: until `CURRENT` is written nothing here has changed, and a failure leaves files
//! that nobody names. From then on memory must follow, or it would draw numbers anew that the disk has names for.

use super::super::Event;
use super::super::counters::Counters;
use super::super::log::{Control, LogRequest};
use super::super::open::create_hot;
use super::{Background, Frozen};
use crate::error::{Kind, SqlState};
use crate::storage::current::{self, Current};
use crate::storage::level::Level;
use crate::storage::levels::Edit;
use crate::storage::merge::{self, RUNS_MAX};
use crate::storage::seal::{self, Target};
use crate::storage::sealed::{self, SealedRun};
use crate::storage::state::StateRecord;
use crate::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Entries that a clean stop leaves in the log alone, where they brought no rows: a millisecond of the next start. A
/// directory that is opened and closed over and over is sealed once in about so many times.
const ROWLESS_ENTRIES_MAX: u64 = 64;

impl Background {
    pub(super) fn birth_state(&self) -> StateRecord {
        self.runs.first().map_or_else(StateRecord::default, |run| run.state.clone())
    }

    /// Freezes the hot store, unless one waits already, and writes it as the newest sealed run. One run more than may be
    /// there waits for a merge.
    pub(super) fn seal(&mut self, pause: &dyn Fn(&mut Background) -> Result<()>) -> Result<()> {
        if self.frozen.is_none() {
            // A draft belongs to the hot store that it was begun on.
            if self.hot.state().applied == self.current.birth || self.draft.is_some() {
                return Ok(());
            }
            self.check_room()?;
            self.freeze()?;
        }
        self.check_room()?;
        self.measure_free();
        let Some(frozen) = &self.frozen else { return Ok(()) };
        let (level, state, log_mark) = (frozen.hot.level(), frozen.hot.state().clone(), frozen.log_mark);
        let older: Vec<Level> = self.runs.iter().map(|run| run.level.clone()).collect();
        let (files, directory) = (self.options.files.clone(), self.directory.clone());
        let first_number = self.current.next_number;
        let (names, report) = {
            let background = RefCell::new(&mut *self);
            let target = Target {
                files: &*files,
                directory: &directory,
                first_number,
                limits: seal::Limits::default(),
                pause: &|| pause(&mut background.borrow_mut()),
            };
            seal::seal(target, &level, &older, &state)?
        };
        let next = self.current.sealed(names, self.current.hot + 1, state.applied, state.applied_term);
        let mut runs = self.open_runs(&next, 1)?;
        let put = runs.iter().map(|run| Arc::new(run.level.clone())).collect();
        runs.extend(self.runs.iter().cloned());
        let edit = Edit { take_memtables: vec![], take_blocks: vec![level], put };
        let switched = self.switch(next, runs, &edit);
        self.must("sealing", switched)?;
        self.birth_mark = log_mark;
        self.retire_frozen();
        if let Some(log) = &self.log {
            // A log thread that has stopped trims when the engine is opened again.
            let _ = log.send(LogRequest::Control(Control::Trim(self.current.birth.next())));
        }
        Counters::add(&self.shared.counters.seals, 1);
        Counters::add(&self.shared.counters.seal_bytes, report.bytes);
        Counters::add(&self.shared.counters.rows_expired, report.rows_expired);
        self.note_runs();
        Ok(())
    }

    fn check_room(&self) -> Result<()> {
        if self.runs.len() < RUNS_MAX {
            return Ok(());
        }
        Err(Error::overloaded(format!(
            "{} sealed runs must be merged before the hot store can be sealed",
            self.runs.len()
        )))
    }

    /// Puts a fresh hot store above the present one. `CURRENT` still names the old one: until the seal is done, a
    /// restart goes on from there.
    fn freeze(&mut self) -> Result<()> {
        self.check_hot_room()?;
        let state = self.hot.state().clone();
        let fresh = create_hot(&self.options, &self.watch, &self.directory, self.current.hot + 1, &state)?;
        self.watch_over(&fresh);
        self.swap(&Edit { take_memtables: vec![], take_blocks: vec![], put: vec![fresh.level()] })?;
        let hot = std::mem::replace(&mut self.hot, fresh);
        self.frozen = Some(Frozen { hot, log_mark: self.flush_mark });
        Ok(())
    }

    /// Lets go of the hot store that is sealed: its directory goes with the last level of it.
    fn retire_frozen(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        let (files, hot) = (self.options.files.clone(), current::hot_path(&self.directory, self.current.hot - 1));
        frozen.hot.retire(Box::new(move || {
            // A failure here costs space until the next start, which removes what CURRENT does not name.
            if files.exists(&hot) {
                let _ = files.remove_dir(&hot);
            }
        }));
    }

    pub(super) fn merge(&mut self, pick: &merge::Pick, jobs: &Receiver<super::Job>) -> Result<()> {
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
        let opened = self.open_runs(&step.next, step.next.runs.len())?;
        let put: Vec<Arc<Level>> = opened.iter().map(|run| Arc::new(run.level.clone())).collect();
        let edit = Edit { take_memtables: vec![], take_blocks: self.sealed_levels(), put };
        let switched = self.switch(step.next, opened, &edit);
        self.must("merging", switched)?;
        for run in &runs {
            run.doom(&step.obsolete);
        }
        Counters::add(&self.shared.counters.merges, 1);
        Counters::add(&self.shared.counters.merge_bytes, step.report.bytes);
        Counters::add(&self.shared.counters.rows_expired, step.report.rows_expired);
        self.note_runs();
        Ok(())
    }

    /// Opens the newest `count` runs of the next `CURRENT`. Where that fails, the files that only it names are removed.
    fn open_runs(&self, next: &Current, count: usize) -> Result<Vec<SealedRun>> {
        let mut opened: Vec<SealedRun> = Vec::with_capacity(count);
        for names in &next.runs[..count] {
            let mut known = self.runs.clone();
            known.extend(opened.iter().cloned());
            let run = SealedRun::open(&self.options.files, &self.directory, names, &known).inspect_err(|_| {
                for number in next.obsolete(&self.current) {
                    // A failure here costs space until the number is drawn again.
                    let _ = self.options.files.remove(&sealed::path(&self.directory, number));
                }
            })?;
            opened.push(run);
        }
        Ok(opened)
    }

    /// Switches `CURRENT`, then the levels, then what this thread remembers. A failure leaves open which of them is what
    /// counts: it must end the engine.
    fn switch(&mut self, next: Current, runs: Vec<SealedRun>, edit: &Edit) -> Result<()> {
        next.store(&*self.options.files, &self.directory)?;
        self.swap(edit)?;
        (self.current, self.runs) = (next, runs);
        self.watch_runs(&self.runs);
        Ok(())
    }

    /// The levels of the sealed runs as they stand in the present list, below the hot stores.
    fn sealed_levels(&self) -> Vec<Arc<Level>> {
        let levels = self.shared.levels();
        levels.blocks[levels.blocks.len() - self.runs.len()..].to_vec()
    }

    /// False for a few entries without a row: a start and a stop make some, and flash is not worn for them.
    fn is_worth_sealing(&self) -> bool {
        let entries = self.hot.state().applied.0 - self.current.birth.0;
        self.frozen.is_some() || self.hot.rows() > 0 || entries > ROWLESS_ENTRIES_MAX
    }

    /// Seals what a clean stop leaves in the hot store. Where a merge would have to come first, or hardly anything came
    /// since the last seal, the log suffices.
    pub fn seal_at_stop(&mut self) -> Result<()> {
        // Whoever stops the engine is told by the answer.
        self.events = Arc::new(|_: Event| {});
        if self.unflushed {
            return Err(Error::new(Kind::Overloaded, SqlState::DISK_FULL, "the last flush found no room"));
        }
        // A hot store that was being sealed when the stop came is sealed first, then the one above it.
        for _ in 0..2 {
            if self.runs.len() < RUNS_MAX && self.is_worth_sealing() {
                self.seal(&|_| Ok(()))?;
            }
        }
        Ok(())
    }
}
