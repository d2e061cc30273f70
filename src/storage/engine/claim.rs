//! `chronos admin recover --accept-loss`: an operator says that this copy counts, and no other one.
//!
//! A group survives the loss of fewer than half of its disks. Where more are lost, or damaged so that their members are
//! quarantined, nobody can be elected, and no program can tell what of the last writes had been acknowledged. So a person
//! decides, on one stopped node whose copy is the best that is left: as `--force-new-cluster` does for etcd, and
//! `unsafe-recover` for `TiKV`. Offline, because the node must not take part in an election of the old group while it
//! leaves it, and because nobody can answer for a group that has no leader.
//!
//! ```text
//!   log of the old group  ... | 97 | 98 |      | 99: a,b,c damaged, or on a disk that is lost |
//!   claimed by a          ... | 97 | 98 | 99: membership {a}, removed {b's disk, c's disk}, of a term far above | ...
//! ```
//!
//! * What this copy has is kept, all that can be read of its log included, committed or not: what a client was told to be
//!   in doubt may turn out to have happened. What only others had is lost.
//! * The group keeps its id, so that those who are left out can be told so by name, and their disks are written down as
//!   removed. What they say counts for nothing here. Each asks the others when it starts, before it may stand; told so, it
//!   is out for good (`raft::HardState::DISMISSED`). Two of three that hear of nobody could elect one of them all the same,
//!   were they whole: that is why none of them may run while this is done, and why their directories are to be emptied.
//! * Another disk under an old name is added like any new member, with `admin add-node`.
//!
//! ```text
//!   RECOVERED: which entry, durable ─> log: {term, no quarantine, group} and entry 99 in one batch, durable
//!        │                                                      from here on this node decides alone
//!        └── the next start finds the entry in its log, warns that data may have been lost, and removes the file
//! ```
//!
//! A crash before the batch is durable leaves the member as it was, but for the part of a damaged log that a start would
//! have let go, too; done again, it is done. Where its term and vote cannot be read, which a claim far above every term
//! does not need, the member is out by then (`wal::salvage`): only the claim makes it count again.

use super::{Options, log_directory, open, salt, state_directory};
use crate::error::{Error, Result, SqlState};
use crate::hlc::Hlc;
use crate::ids::{LogIndex, Term};
use crate::raft::{HardState, Membership, NodeId, Payload};
use crate::storage::current::{Current, boot_id, hot_path, is_same_boot};
use crate::storage::directory::{Database, RECOVERED};
use crate::storage::files::{self, Files};
use crate::storage::wal::{Entry, Position, Seat, Survey, Wal};
use crate::storage::watch::Watch;
use std::path::Path;

/// How far the claim's term is above the one that this disk knows: the others may have reached later ones in elections
/// that it missed, and two entries of one position and term would be taken for the same.
const TERMS_AHEAD: u64 = 1000;

/// What a member's disk says, and what becomes of the group where it alone counts.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The log.
    pub log: Survey,
    /// Everything up to here is in sealed files, and so was committed.
    pub sealed: LogIndex,
    /// False where the copy may reach further than [`Claim::reach`] says: the hot store may have applied what a damaged log
    /// no longer has, and how far it stands only opening it tells, which writes.
    pub is_exact: bool,
    /// The group as this disk knows it.
    pub group: Membership,
    /// The group afterwards.
    pub next: Membership,
    /// It decides alone already, and nothing of it is damaged: there is nothing to recover.
    pub is_alone: bool,
}

impl Claim {
    /// Looks at a database that nobody runs, and changes nothing. Refused, with the reason, where its copy cannot be the one
    /// that counts.
    pub fn survey(database: &Database) -> Result<Claim> {
        let (files, state) = (database.files(), state_directory(&database.path));
        let id = NodeId(database.identity.node_id.clone());
        let refused = |text: String, hint: &'static str| Err(Error::invalid(SqlState::NOT_IN_STATE, text).hint(hint));
        let current = Current::load(&**files, &state)?;
        let sealed = current.birth;
        let behind = Position { index: sealed, term: current.birth_term };
        let log = Wal::survey(&**files, &log_directory(&database.path), salt(&database.identity), behind)?;
        let other = "choose the member that has most of the log";
        let mut group = log.hard_state.membership.clone();
        if group.is_empty() {
            // No hard state can be read of a damaged log. The state may be older, but it is of this group.
            group = open::open_runs(files, &state, &current)?.1.membership;
        }
        if group.is_empty() {
            return refused(format!("{id} has nothing of its group yet"), other);
        }
        let group = Membership::decode(&group)?;
        let Some(this) = group.get(&id) else {
            let text =
                format!("{id} is no member of its group any more, or was brought a state of before its addition");
            return refused(text, other);
        };
        if this.role.is_witness() {
            return refused(format!("{id} is a witness, which has no rows"), other);
        }
        if this.disk.is_some_and(|disk| disk != database.identity.disk_id) {
            return refused(format!("{id} has a new disk, and nothing of what the old one had"), other);
        }
        if !group.is_bound() {
            let hint = "start all of its members on their disks, or all of them on empty ones";
            return refused("the group has never begun: no client was ever answered".to_owned(), hint);
        }
        if reach(&log, sealed) <= LogIndex(1) {
            return refused(format!("{id} has no rows: its state was given up, and none brought to it since"), other);
        }
        let next = group.claimed_by(&id, database.identity.disk_id);
        let is_whole = log.damage.is_none() && log.hard_state.quarantined_until.is_none();
        let has_all = !log.is_end_lost && reach(&log, sealed) >= log.reached;
        let is_exact = log.damage.is_none() || has_all || !is_hot_trusted(&**files, &state, &current);
        Ok(Claim { is_alone: is_whole && group.members.len() == 1, log, sealed, is_exact, group, next })
    }

    /// The last position of this copy that can be read without changing it: where two copies are compared, the one that
    /// reaches further has more, if both are exact.
    pub fn reach(&self) -> LogIndex {
        reach(&self.log, self.sealed)
    }

    /// The members that are left out.
    pub fn left_out(&self) -> impl Iterator<Item = (&NodeId, &crate::raft::Member)> {
        self.group.members.iter().filter(|(id, _)| self.next.get(id).is_none())
    }
}

/// True where the next start goes on from the hot store, if that is whole.
fn is_hot_trusted(files: &dyn Files, state: &Path, current: &Current) -> bool {
    is_same_boot(files, &hot_path(state, current.hot), boot_id(files).as_deref())
}

/// Behind a damaged log the state may stand further ahead, and goes on from there.
fn reach(log: &Survey, sealed: LogIndex) -> LogIndex {
    log.last.index.max(sealed)
}

/// Makes this database the only one of its group that counts; gives the entry that says so. Nothing is changed where there
/// is nothing to recover.
pub fn claim(database: &Database, options: &Options) -> Result<Option<Position>> {
    let known = Claim::survey(database)?;
    if known.is_alone {
        return Ok(None);
    }
    let path = &database.path;
    let watch = Watch::new(options.clock.clone(), options.limits.disk_stall_max);
    // As a start would: the log is brought in line with the state, which must be whole.
    let opened = open::open_whole(path, options, &watch, salt(&database.identity), Seat::GivenUp, |_| true)?;
    let mut wal = opened.wal;
    let (_, hlc) = open::behind(&wal, opened.machine.applied.0, opened.machine.hlc)?;
    let term = Term(opened.hard_state.term.max(wal.last().term).0 + TERMS_AHEAD);
    let entry = Entry {
        index: wal.last().index.next(),
        term,
        hlc: Hlc::recover(hlc).tick(options.clock.wall()),
        payload: Payload::Membership(known.next.clone()).encode(),
    };
    let position = Position { index: entry.index, term };
    note(&*options.files, path, position)?;
    let hard_state = HardState { term, vote: None, quarantined_until: None, membership: known.next.encode() };
    wal.append(&[entry], Some(&hard_state))?;
    wal.sync()?;
    // So that damage to this entry, of all, is not taken for a torn tail.
    wal.close(LogIndex(0))?;
    Ok(Some(position))
}

/// Tells the next start.
fn note(files: &dyn Files, path: &Path, at: Position) -> Result<()> {
    files::replace(files, &path.join(RECOVERED), format!("{} {}\n", at.index, at.term).as_bytes())
}

/// Says once, at the start after it, that an operator has recovered the group with this copy. A note of what was not
/// completed says nothing.
pub(super) fn announce(files: &dyn Files, path: &Path, wal: &Wal) {
    let note = path.join(RECOVERED);
    if !files.exists(&note) {
        return;
    }
    let content = files::read(files, &note).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let mut numbers = content.split_whitespace().map(str::parse::<u64>);
    if let (Some(Ok(index)), Some(Ok(term))) = (numbers.next(), numbers.next())
        && wal.holds(Position { index: LogIndex(index), term: Term(term) })
    {
        tracing::warn!(
            index,
            term,
            "audit_recover: an operator has recovered the group with this copy alone (admin recover --accept-loss): what \
             only other members had is lost, acknowledged writes may be among it"
        );
    }
    if let Err(error) = files.remove(&note) {
        tracing::warn!(%error, path = %note.display(), "cannot remove the note of a recovery, which is told again");
    }
}
