//! The snapshot that a witness gets: position, term and group, and no rows.
//!
//! It is a snapshot like any other, of one sealed file without blocks whose state record is a witness's: so it travels, is
//! checked and is installed as every other one.

use super::Snapshot;
use crate::error::{Error, Result};
use crate::machine::bare;
use crate::storage::current::Current;
use crate::storage::entry::start;
use crate::storage::files::Files;
use crate::storage::judge::Judge;
use crate::storage::seal::{Limits, RunWriter, Target};
use crate::storage::sealed::SealedRun;
use crate::storage::state::StateRecord;
use std::path::Path;
use std::sync::Arc;

/// Writes a state without rows into a directory, with the next number of `current`; gives what `CURRENT` is to name then.
pub(crate) fn write(
    files: &Arc<dyn Files>,
    directory: &Path,
    current: &Current,
    state: &StateRecord,
) -> Result<Current> {
    let state = bare::stripped(state);
    files.create_dir(directory)?;
    let judge = Judge::new(&state, &[], Vec::new());
    let first_number = current.next_number;
    let target = Target { files: &**files, directory, first_number, limits: Limits::default(), pause: &|| Ok(()) };
    let (names, _) = RunWriter::new(target, &judge, Vec::new(), &state, start()).finish(None)?;
    Ok(Current {
        runs: vec![names],
        birth: state.applied,
        birth_term: state.applied_term,
        next_number: first_number + 1,
        ..current.clone()
    })
}

impl Snapshot {
    /// What a witness is sent in the place of this one, written into a directory of its own. Its file goes with the last
    /// handle, the directory is the caller's.
    pub fn for_witness(&self, files: &Arc<dyn Files>, directory: &Path) -> Result<Snapshot> {
        let newest = self.runs.first().ok_or_else(|| Error::internal("a snapshot has no run"))?;
        let current = write(files, directory, &Current::new(), &newest.state)?;
        let run = SealedRun::open(files, directory, &current.runs[0], &[])?;
        run.doom(&current.numbers());
        Snapshot::of(&current, &[run]).ok_or_else(|| Error::internal("a snapshot of one run has none"))
    }

    /// True where it is a witness's.
    pub fn is_bare(&self) -> bool {
        self.runs.first().is_some_and(|run| bare::is_bare(&run.state))
    }
}
