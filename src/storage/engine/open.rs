//! From a directory to a state: what boot and restart both do before the threads start.
//!
//! ```text
//! CURRENT ─> sealed runs ─> log
//!                        ─> hot store, if this boot of the machine wrote it and its chain is whole
//!                              else a fresh one, born where CURRENT says
//!         ─> log: where a snapshot was installed, brought in line with it; must reach back to that birth ─> replay from the state's position to the end
//! ```
//!
//! * Nothing is deleted before `CURRENT` and its directory are durable. Where the directory cannot be served, for it is
//!   damaged, newer, or of another disk, nothing in it is changed.
//! * Damage is never repaired by forgetting: what `CURRENT` names and is not there is an error. Where there are others to
//!   fetch it from, a damaged log is kept as far as it is whole, and a damaged state is given up (`rebuild`); the member is
//!   quarantined until it has what it had.

use super::background::Background;
use super::shared::Shared;
use super::{HotEngine, Options, SNAPSHOTS, log_directory, space, state_directory};
use super::{claim, rebuild};
use crate::error::Kind;
use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::machine::{Machine, bare};
use crate::raft::{HardState, Known, Membership, NodeId, Payload, bootstrap};
use crate::storage::block_store::BlockStore;
use crate::storage::cache::Cache;
use crate::storage::current::{self, Current};
use crate::storage::files::Files;
use crate::storage::hot::HotStore;
use crate::storage::lease::Leases;
use crate::storage::levels::Levels;
use crate::storage::memory::MemoryStore;
use crate::storage::sealed::SealedRun;
use crate::storage::sled::SledStore;
use crate::storage::snapshot;
use crate::storage::state::StateRecord;
use crate::storage::wal::{Needs, Position, Seat, Terms, Wal, WalOptions};
use crate::storage::watch::Watch;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// What raft needs to go on, once everything durable has been read.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The group.
    pub membership: Membership,
    /// How the state knows that.
    pub known: Known,
    /// What the log behind the state says of the group.
    pub later: Vec<(LogIndex, Membership)>,
    /// The terms of the log's entries.
    pub terms: Terms,
    /// What the state holds.
    pub applied: LogIndex,
    /// The highest stamp in log and state.
    pub hlc: crate::hlc::Timestamp,
    /// Entries that were applied from the log.
    pub replayed: u64,
    /// True where the hot store was not to be trusted, and everything since the last seal was replayed.
    pub rebuilt: bool,
}

impl Recovered {
    /// The same for the consensus core.
    pub fn to_raft(&self) -> crate::raft::Recovered {
        crate::raft::Recovered {
            hard_state: self.hard_state.clone(),
            membership: self.membership.clone(),
            known: self.known,
            later: self.later.clone(),
            terms: self.terms.clone(),
            applied: self.applied,
            hlc: self.hlc,
        }
    }
}

/// A directory opened.
pub(super) struct Opened {
    pub wal: Wal,
    pub machine: Machine,
    pub shared: Arc<Shared>,
    pub background: Background,
    pub hard_state: HardState,
    pub known: Known,
    pub rebuilt: bool,
}

/// Formats an empty directory: the log with its first entry (none for a node that is to join a group), an empty state, then `CURRENT`. The directory's identity
/// is the caller's to write, last: a directory without one is not a database yet.
pub fn format(path: &Path, options: &Options, membership: Option<&Membership>, salt: u64) -> Result<()> {
    let files = &*options.files;
    let (log, state) = (log_directory(path), state_directory(path));
    files.create_dir(&log)?;
    files.create_dir(&state)?;
    let mut wal = Wal::create(options.files.clone(), &log, wal_options(options, salt))?.wal;
    if let Some(membership) = membership {
        let hard_state = HardState { term: Term(1), membership: membership.encode(), ..HardState::default() };
        wal.append(&[bootstrap(membership)], Some(&hard_state))?;
    } else {
        // Its first entry comes from the group that it joins. Until it has one it may know an old group of which it is all,
        // and must not lead that.
        let hard_state = HardState { quarantined_until: Some(LogIndex(1)), ..HardState::default() };
        wal.append(&[], Some(&hard_state))?;
    }
    wal.sync()?;
    Current::new().store(files, &state)?;
    files.sync_dir(path)
}

/// Opens the database of node `id`; one whose state is damaged without it, where others have what it had.
pub(super) fn open(path: &Path, options: &Options, watch: &Arc<Watch>, salt: u64, id: &str) -> Result<Opened> {
    match open_whole(path, options, watch, salt, Seat::Kept, can_refetch) {
        Err(error) if error.kind() == Kind::Damaged => {
            rebuild::begin(path, options, salt, id, &error)?;
            open_whole(path, options, watch, salt, Seat::Kept, can_refetch)
        }
        done => done,
    }
}

/// Opens a database whose state is whole, and whose log is, or is kept as far as it is where its hard state is `admitted`.
/// A witness whose log has lost what its state has passed over goes back to where its log begins.
pub(super) fn open_whole(
    path: &Path,
    options: &Options,
    watch: &Arc<Watch>,
    salt: u64,
    seat: Seat,
    admitted: fn(&HardState) -> bool,
) -> Result<Opened> {
    let directory = state_directory(path);
    let files = &options.files;
    let mut current = Current::load(&**files, &directory)?;
    current::clean(&**files, &directory, &current)?;
    let snapshots = path.join(SNAPSHOTS);
    space::release(options, &directory)?;
    super::backup::remove_leftovers(&**files, &snapshots)?;
    let (runs, birth) = open_runs(files, &directory, &current)?;
    // Before the hot store: one that is not to be trusted is thrown away, and a log that cannot be read could not make it
    // anew.
    let needs = Needs { behind: covered(&birth), seat };
    let mut log = Wal::salvage(files.clone(), &log_directory(path), wal_options(options, salt), needs, admitted)?;
    if let Some(foreign) = log.wal.foreign_segment() {
        // Its entries may follow this state by position and term, and have nothing to do with it.
        return Err(Error::damaged(format!("{} is of the log of another disk", foreign.display()))
            .hint("put back the raft directory that belongs to this CLUSTER"));
    }
    snapshot::settle(&**files, &directory, &mut current, &birth, &mut log.wal)?;
    let (hot, rebuilt) = open_hot(options, watch, &directory, &mut current, &birth)?;
    let mut machine = machine_of(hot.state())?;
    let (applied, term) = machine.applied;
    if rejoin(&mut log.wal, Position { index: applied, term }, machine.is_bare())? == Rejoined::Behind {
        // Its state is made anew in its place, and does not lie ahead then. What it knows of the group it knows as well.
        drop(hot);
        rebuild::begin_at_log(path, options, &log.wal, &machine.membership, machine.group_known())?;
        drop(log);
        return open_whole(path, options, watch, salt, seat, admitted);
    }
    let (previous, last) = (log.wal.previous().index, log.wal.last().index);
    if previous > applied || last < applied || log.wal.term(applied) != Some(term) {
        return Err(Error::damaged(format!(
            "{}: the log covers positions {} to {last}, the state stands at {applied}",
            path.display(),
            previous.next()
        )));
    }
    snapshot::remove_stale(&**files, &snapshots, applied)?;
    if applied > LogIndex(0) {
        rebuild::forget(&**files, path);
    }
    claim::announce(&**files, path, &log.wal);
    let hard_state = log.wal.hard_state().cloned().unwrap_or_default();
    let mut known = machine.group_known();
    if last == LogIndex(0) && !hard_state.membership.is_empty() {
        // Neither state nor log says who the others are: a state was given up.
        machine.membership = Membership::decode(&hard_state.membership)?;
        known = Known::Hearsay;
    }
    let blocks = std::iter::once(hot.level()).chain(runs.iter().map(|run| Arc::new(run.level.clone()))).collect();
    let cache = Arc::new(Cache::new(options.limits.cache_bytes_max));
    let leases = Leases::new(options.clock.clone(), options.limits.leases());
    let shared = Arc::new(Shared::new(&machine, Levels::new(blocks), cache, leases));
    let log_bytes = log.wal.bytes_since(current.birth.next());
    let background =
        Background::new(options, watch, &directory, current, hot, runs, shared.clone(), log.wal.pool(), log_bytes);
    Ok(Opened { wal: log.wal, machine, shared, background, hard_state, known, rebuilt })
}

/// True where others can bring back what a damaged log has lost: a witness has all of the log, too.
fn can_refetch(hard_state: &HardState) -> bool {
    Membership::decode(&hard_state.membership).is_ok_and(|group| group.voters().count() > 1)
}

/// Opens the sealed files that `CURRENT` names, newest first, with the state that they hold.
pub(super) fn open_runs(
    files: &Arc<dyn Files>,
    directory: &Path,
    current: &Current,
) -> Result<(Vec<SealedRun>, StateRecord)> {
    let mut runs: Vec<SealedRun> = Vec::with_capacity(current.runs.len());
    for names in &current.runs {
        let run = SealedRun::open(files, directory, names, &runs)?;
        runs.push(run);
    }
    let birth = runs.first().map_or_else(StateRecord::default, |run| run.state.clone());
    if birth.applied != current.birth {
        return Err(Error::damaged(format!(
            "{}: CURRENT says position {}, the sealed files say {}",
            directory.display(),
            current.birth,
            birth.applied
        )));
    }
    Ok((runs, birth))
}

/// What the sealed files stand for in the place of entries. Those of a witness stand for none: it has what is in its log.
fn covered(birth: &StateRecord) -> Position {
    if bare::is_bare(birth) { Position::default() } else { Position { index: birth.applied, term: birth.applied_term } }
}

/// How a log and a state go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejoined {
    /// They do, as far as a quarantine can tell.
    Here,
    /// The log of a witness ends before its state, or begins after it.
    Behind,
}

/// In quarantine a log may end before the state, or begin after it: what was applied is committed, so it goes on behind
/// that, and the rest is fetched again. Not so where the state is `bare`: there are no rows in it that stand for what the
/// log has lost, and a log that went on behind it would be taken for one that has all of that.
fn rejoin(wal: &mut Wal, applied: Position, is_bare: bool) -> Result<Rejoined> {
    let until = wal.hard_state().and_then(|hard_state| hard_state.quarantined_until);
    let Some(until) = until else { return Ok(Rejoined::Here) };
    if until != HardState::DISMISSED {
        tracing::warn!(
            kept = wal.last().index.0,
            until = until.0,
            "the log was damaged: it is fetched again from the group"
        );
    }
    if wal.holds(applied) {
        return Ok(Rejoined::Here);
    }
    if is_bare {
        return Ok(Rejoined::Behind);
    }
    wal.reset(applied, None)?;
    Ok(Rejoined::Here)
}

pub(super) fn wal_options(options: &Options, salt: u64) -> WalOptions {
    WalOptions { segment_bytes: options.limits.segment_bytes, salt, ..WalOptions::default() }
}

/// Goes on with the hot store where it can be trusted; otherwise begins a fresh one of the same birth.
fn open_hot(
    options: &Options,
    watch: &Arc<Watch>,
    directory: &Path,
    current: &mut Current,
    birth: &StateRecord,
) -> Result<(HotStore, bool)> {
    let files = &*options.files;
    let path = current::hot_path(directory, current.hot);
    let trusted = options.hot == HotEngine::Sled && current::is_same_boot(files, &path, options.boot_id.as_deref());
    if trusted {
        match new_store(options.hot, watch, &path).and_then(|store| HotStore::open(store, options.files.clone(), &path))
        {
            Ok(hot) if hot.birth() == (birth.applied, birth.applied_term) => return Ok((hot, false)),
            Ok(_) => tracing::warn!(path = %path.display(), "the hot store is one of another birth"),
            // It is whole for all we know, and a new one would take more room.
            Err(error) if space::is_full(&error) => {
                return Err(error.hint(format!(
                    "free {} MiB there and start again; nothing was changed",
                    space::RESERVE_BYTES >> 20
                )));
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "the hot store is not whole"),
        }
        tracing::warn!("replaying the log instead");
    }
    let first = !files.exists(&path);
    if !first {
        current.hot += 1;
        current.store(files, directory)?;
        current::clean(files, directory, current)?;
    }
    Ok((create_hot(options, watch, directory, current.hot, birth)?, !first))
}

/// A fresh hot store in a directory of its own.
pub(super) fn create_hot(
    options: &Options,
    watch: &Arc<Watch>,
    directory: &Path,
    number: u64,
    birth: &StateRecord,
) -> Result<HotStore> {
    let path = current::hot_path(directory, number);
    options.files.create_dir(&path)?;
    if options.hot == HotEngine::Sled {
        current::write_boot(&*options.files, &path, options.boot_id.as_deref())?;
    }
    HotStore::create(new_store(options.hot, watch, &path)?, options.files.clone(), &path, birth)
}

fn new_store(engine: HotEngine, watch: &Arc<Watch>, path: &Path) -> Result<Box<dyn BlockStore>> {
    let store: Box<dyn BlockStore> = match engine {
        HotEngine::Sled => Box::new(SledStore::open(path)?),
        HotEngine::Memory => Box::new(MemoryStore::default()),
    };
    Ok(watch.over_store(store, path))
}

fn machine_of(state: &StateRecord) -> Result<Machine> {
    let membership =
        if state.membership.is_empty() { Membership::default() } else { Membership::decode(&state.membership)? };
    Ok(Machine {
        catalog: Arc::new(state.catalog.clone()),
        membership,
        applied: (state.applied, state.applied_term),
        hlc: state.hlc,
        counters: state.counters.clone(),
    })
}

/// True where no other node votes, by the newest word of the log. One that is fetching its log may read there of a group
/// of one that is long gone; and what is in the log of a node of another name is for raft to judge, which knows whether
/// the operator has renamed it.
pub(super) fn decides_alone(hard_state: &HardState, applied: &Membership, id: &str) -> Result<bool> {
    let newest = match hard_state.membership.as_slice() {
        [] => applied.clone(),
        bytes => Membership::decode(bytes)?,
    };
    Ok(hard_state.quarantined_until.is_none() && newest.is_only(&NodeId(id.to_owned())))
}

/// What the log says of the group behind a position, and the highest stamp in it.
pub(super) fn behind(
    wal: &Wal,
    applied: LogIndex,
    mut hlc: Timestamp,
) -> Result<(Vec<(LogIndex, Membership)>, Timestamp)> {
    let mut found = Vec::new();
    wal.replay(applied.next(), wal.last().index, |entry| {
        let named = |error: Error| error.context(format!("entry {}", entry.index));
        if let Payload::Membership(membership) = Payload::decode(&entry.payload).map_err(named)? {
            found.push((entry.index, membership));
        }
        hlc = hlc.max(entry.hlc);
        Ok(())
    })?;
    Ok((found, hlc))
}
