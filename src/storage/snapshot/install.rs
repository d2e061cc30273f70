//! Putting a snapshot in the place of a state, while no engine runs.
//!
//! ```text
//!   files linked into state/ ─> directory synced ─> they open and say what the manifest says
//!     ─> CURRENT {these, a fresh hot directory, birth = the snapshot's position, `installed`}
//!   from here on a start completes it: [`settle`]
//!     log holds the position ─> what follows it stays        else every entry goes, term and vote stay
//!     ─> `installed` cleared
//! ```
//!
//! A crash before `CURRENT` is switched leaves the old state, and files beside it that nobody names; what had arrived is
//! still in `snapshots/`.

use super::Staged;
use crate::error::{Error, Result, SqlState};
use crate::storage::current::{self, Current, SealedName};
use crate::storage::files::Files;
use crate::storage::sealed::{self, SealedRun};
use crate::storage::state::StateRecord;
use crate::storage::wal::{HardState, Position, Wal};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Makes a snapshot the state in `directory`, durably. The next start brings the log in line with it.
pub fn install(files: &Arc<dyn Files>, directory: &Path, staged: &Staged) -> Result<()> {
    let manifest = &staged.manifest;
    let present = Current::load(&**files, directory)?;
    if manifest.position.index <= present.birth {
        let text = format!("the snapshot of entry {} is older than the state", manifest.position.index);
        return Err(Error::invalid(SqlState::NOT_IN_STATE, text));
    }
    // What an engine has left behind must not be taken for a part of what is installed.
    current::clean(&**files, directory, &present)?;
    let mut numbers = BTreeMap::new();
    for entry in &manifest.files {
        let local = present.next_number + numbers.len() as u32;
        let (from, to) = (staged.file(entry), sealed::path(directory, local));
        if let Err(refused) = files.hard_link(&from, &to) {
            // Some file systems have no second names. A crash then costs another transfer of this file.
            tracing::debug!(%refused, "a file is moved instead of linked");
            files.rename(&from, &to)?;
        }
        numbers.insert(entry.number, local);
    }
    files.sync_dir(directory)?;
    let local = |name: &SealedName| {
        let number = numbers.get(&name.number).copied();
        let number = number.ok_or_else(|| Error::internal(format!("a snapshot has no file {}", name.number)))?;
        Ok(SealedName { number, ..name.clone() })
    };
    let runs = manifest.runs.iter().map(|run| run.iter().map(local).collect()).collect::<Result<Vec<Vec<_>>>>()?;
    expect(files, directory, &runs, staged)?;
    let next = present.installed(runs, manifest.position.index, manifest.position.term);
    next.store(&**files, directory)?;
    // What is left of it costs space, and goes with the next start.
    if let Err(error) = files.remove_dir(&staged.path) {
        tracing::warn!(%error, "cannot remove an installed snapshot");
    }
    Ok(())
}

/// Refuses files that are not what their manifest says.
fn expect(files: &Arc<dyn Files>, directory: &Path, runs: &[Vec<SealedName>], staged: &Staged) -> Result<()> {
    let mut opened: Vec<SealedRun> = Vec::with_capacity(runs.len());
    for names in runs {
        let run = SealedRun::open(files, directory, names, &opened)?;
        opened.push(run);
    }
    let manifest = &staged.manifest;
    let is_same = opened.first().is_some_and(|newest| {
        let state = &newest.state;
        Position { index: state.applied, term: state.applied_term } == manifest.position
            && state.membership == manifest.membership
    });
    if is_same { Ok(()) } else { Err(Error::damaged("the files of a snapshot are of another position than it says")) }
}

/// Completes an install that `CURRENT` tells of: brings the log in line with the state. Done again after a crash, it
/// changes nothing more.
pub(crate) fn settle(
    files: &dyn Files,
    directory: &Path,
    current: &mut Current,
    birth: &StateRecord,
    wal: &mut Wal,
) -> Result<()> {
    if !current.installed {
        return Ok(());
    }
    let position = Position { index: birth.applied, term: birth.applied_term };
    if wal.holds(position) {
        tracing::info!(index = position.index.0, "a snapshot is installed, and the log goes on from it");
    } else {
        // What the log says of the group goes with its entries.
        let kept = wal.hard_state().cloned().unwrap_or_default();
        wal.reset(position, Some(&HardState { membership: birth.membership.clone(), ..kept }))?;
        tracing::info!(index = position.index.0, "a snapshot is installed in the place of the log");
    }
    current.installed = false;
    current.store(files, directory)
}
