//! A state that is damaged, or differs from the group's, is given up: the member begins again without one.
//!
//! Only where others hold it. What this member has acknowledged a majority may have counted on, so it keeps its term and
//! vote and is quarantined, as with a damaged log (`wal::salvage`): it grants no vote, does not stand, and counts for
//! nothing but what it has fetched again. The leader finds that it lacks what its own log no longer has, and brings a
//! snapshot.
//!
//! ```text
//!   log: quarantine, no entries, durable ─> files of the state aside ─> CURRENT of an empty state
//! ```
//!
//! * The log comes first: from then on nobody takes this member for one that has what it had. A crash in between leaves
//!   files that do not hold together, which the next start finds, and goes on from here.
//! * A witness keeps its log, which others may need of it, and makes a state anew where that begins: there is nothing else
//!   in it. So it does where its log has lost what the state has passed over, for the state says nothing of what that was.
//! * What was sealed is kept in `state-damaged` until a state is whole again, where the disk has room for both.

use super::{Options, log_directory, space, state_directory};
use crate::error::{Error, Result};
use crate::ids::LogIndex;
use crate::machine::bare::mark;
use crate::raft::{HardState, Known, Member, MemberRole, Membership, NodeId};
use crate::storage::current::{self, Current};
use crate::storage::files::{Files, Open};
use crate::storage::snapshot::bare;
use crate::storage::state::StateRecord;
use crate::storage::wal::{Needs, Position, Wal};
use std::path::{Path, PathBuf};

/// True where another member has the whole state, by a group's newest word.
pub fn has_others(group: &Membership, id: &str) -> bool {
    // A group of one under another name is this node, renamed.
    let is_other = |(other, member): (&crate::raft::NodeId, &Member)| other.0 != id && member.role == MemberRole::Voter;
    group.members.len() > 1 && group.members.iter().any(is_other)
}

/// Gives up the state of a database that nobody has open: what it was is fetched again from the group. Refused, with
/// nothing changed, where nobody else has it.
pub(super) fn begin(path: &Path, options: &Options, salt: u64, id: &str, why: &Error) -> Result<()> {
    let files = &options.files;
    let (log, state) = (log_directory(path), state_directory(path));
    let admits =
        |hard_state: &HardState| Membership::decode(&hard_state.membership).is_ok_and(|group| has_others(&group, id));
    // Looked at before it is opened, since opening a log completes what a crash has left of it.
    if !Wal::last_words(&**files, &log).is_ok_and(|words| admits(&words)) {
        return Err(why.clone());
    }
    let mut wal =
        Wal::salvage(files.clone(), &log, super::open::wal_options(options, salt), Needs::default(), admits)?.wal;
    let known = wal.hard_state().cloned().unwrap_or_default();
    if wal.foreign_segment().is_some() || !admits(&known) {
        return Err(why.clone());
    }
    if is_witness(&known, id) {
        tracing::error!(error = %why, "the state is given up: a witness makes one anew where its log begins");
        // What counts of the group is in the log, or was committed before it begins.
        let said = super::open::behind(&wal, wal.previous().index, crate::hlc::Timestamp(0))?.0;
        let is_certain = said.is_empty() && known.quarantined_until.is_none();
        let how = if is_certain { Known::Committed } else { Known::Hearsay };
        return begin_at_log(path, options, &wal, &Membership::decode(&known.membership)?, how);
    }
    tracing::error!(error = %why, "the state is given up, and fetched again from the group");
    let until = known.quarantined_until.max(Some(wal.last().index));
    wal.reset(Position::default(), Some(&HardState { quarantined_until: until, ..known }))?;
    drop(wal);
    set_aside(path, options)?;
    let hot = 1 + hot_numbers(&**files, &state)?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
    remove_hot(&**files, &state)?;
    Current { hot, ..Current::new() }.store(&**files, &state)?;
    files.sync_dir(path)
}

/// True where the newest word of the log has this node for a witness.
fn is_witness(known: &HardState, id: &str) -> bool {
    let member = |group: Membership| group.get(&NodeId(id.to_owned())).map(|member| member.role);
    Membership::decode(&known.membership).ok().and_then(member).is_some_and(MemberRole::is_witness)
}

/// A witness has nothing in its state that its log does not say, and others may need the log: that stays, and so do term
/// and vote. The state begins right before its first entry. Of the group it says what is known, and how.
pub(super) fn begin_at_log(path: &Path, options: &Options, wal: &Wal, group: &Membership, known: Known) -> Result<()> {
    let (files, state) = (&options.files, state_directory(path));
    set_aside(path, options)?;
    let hot = 1 + hot_numbers(&**files, &state)?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
    remove_hot(&**files, &state)?;
    let begin = wal.previous();
    let mut current = Current { hot, ..Current::new() };
    if begin.index > LogIndex(0) {
        let record = StateRecord {
            applied: begin.index,
            applied_term: begin.term,
            membership: group.encode(),
            counters: mark(known),
            ..StateRecord::default()
        };
        current = bare::write(files, &state, &current, &record)?;
    }
    current.store(&**files, &state)?;
    files.sync_dir(path)
}

/// Removes what was kept of a state that was given up: there is a whole one again.
pub(super) fn forget(files: &dyn Files, path: &Path) {
    let aside = aside(path);
    if files.exists(&aside)
        && let Err(error) = files.remove_dir(&aside)
    {
        tracing::warn!(%error, path = %aside.display(), "cannot remove what is left of a damaged state");
    }
}

fn aside(path: &Path) -> PathBuf {
    path.join("state-damaged")
}

/// Moves what was sealed out of the way.
fn set_aside(path: &Path, options: &Options) -> Result<()> {
    let (files, state, aside) = (&*options.files, state_directory(path), aside(path));
    files.create_dir(&state)?;
    let is_sealed = |path: &PathBuf| path.extension().is_some_and(|end| end == "blk") || *path == current::path(&state);
    let sealed: Vec<PathBuf> = files.list(&state)?.into_iter().filter(is_sealed).collect();
    let bytes = |path: &PathBuf| files.open(path, Open::Read).and_then(|file| file.len()).unwrap_or(0);
    let needed = sealed.iter().map(bytes).sum::<u64>() + options.limits.disk_reserve_bytes;
    if space::check(options, &state, needed).is_err() {
        tracing::warn!("the damaged files are removed: the disk has no room for them beside new ones");
        return sealed.iter().try_for_each(|path| files.remove(path)).and_then(|()| files.sync_dir(&state));
    }
    files.create_dir(&aside)?;
    for from in &sealed {
        let Some(name) = from.file_name() else { continue };
        files.rename(from, &aside.join(name))?;
    }
    files.sync_dir(&aside)?;
    files.sync_dir(&state)
}

/// Hot directories by number.
fn hot_numbers(files: &dyn Files, state: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let number = |path: PathBuf| {
        let number = path.file_name()?.to_str()?.strip_prefix("hot-")?.parse().ok()?;
        Some((number, path))
    };
    Ok(files.list(state)?.into_iter().filter_map(number).collect())
}

fn remove_hot(files: &dyn Files, state: &Path) -> Result<()> {
    hot_numbers(files, state)?.iter().try_for_each(|(_, path)| files.remove_dir(path))
}
