//! One machine: a node, its disk, its clock, its state machine and the clients that it answers.

use super::agenda::Event;
use super::checks::Checks;
use super::disk::{Crash, Disk, State};
use super::faults::Fault;
use super::ledger::Command;
use chronos::clock::Wall;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{
    Config, Entry, Known, MemberRole, Membership, Node, NodeId, Now, Payload, Position, Recovered, Role,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// A client's read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// What clients knew when it was asked for.
    pub(super) known: LogIndex,
    /// Of what, and the moment at which it was asked for.
    pub(super) object: usize,
    pub(super) begin: u64,
    /// Where the view must stand, once the leader has said so.
    pub(super) index: Option<LogIndex>,
    /// It was asked of a leader.
    pub(super) by_leader: bool,
}

/// A client's write that waits to be applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) position: Position,
    /// What clients knew when it was asked for.
    pub(super) known: LogIndex,
    pub(super) client: usize,
    pub(super) command: Command,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about a machine")]
#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) disk_id: DiskId,
    pub(super) disk: Disk,
    pub(super) node: Option<Node>,
    pub(super) state: State,
    pub(super) committed: Position,
    /// What is told to an earlier life is dropped.
    pub(super) life: u64,
    pub(super) disk_is_busy: bool,
    /// Nothing moves before then.
    pub(super) stopped_until: u64,
    /// What stopped it, until that has kept something from happening.
    pub(super) stopped_by: Option<Fault>,
    /// And what is sent to it meanwhile is lost: the machine is suspended, not the process.
    pub(super) sleeps: bool,
    /// What has come meanwhile, and waits for it to go on.
    pub(super) held: Vec<Event>,
    /// The last term in which it has told another to stand.
    pub(super) stepped_aside_in: Term,
    /// The last term that it led, and was asked in by clients of its successor.
    pub(super) asked_in: Term,
    /// Microseconds that a write to disk takes at most beside the least.
    pub(super) slow_disk: u64,
    /// Its disk is short of room, and a leader on it refuses what clients write.
    pub(super) is_full: bool,
    /// And what made it so, until a leader has refused something or handed over for that.
    pub(super) filled_by: Option<Fault>,
    /// Its disk answers nothing before then.
    pub(super) stalled_until: u64,
    /// And what made it so, until something has been put off for that.
    pub(super) stalled_by: Option<Fault>,
    /// What made it slow, until something has waited for that.
    pub(super) slowed_by: Option<Fault>,
    /// It goes down in the middle of its next write, and that is what is left of it.
    pub(super) doomed: Option<(Fault, Crash)>,
    /// How long it waits for a leader at least.
    pub(super) election_timeout: Duration,
    /// Its log lost something, and was in quarantine for it.
    pub(super) was_damaged: bool,
    /// When it left a quarantine last: a leader may learn of that late.
    pub(super) healed_at: Option<u64>,
    /// Its disk was taken out, and no leader has given it anything since it came back: one may still know of another.
    pub(super) was_away: bool,
    /// Of a million microseconds, so many more or fewer pass here.
    pub(super) rate: i64,
    /// What changed that, until something was decided by how much time had passed.
    pub(super) rated_by: Option<Fault>,
    pub(super) wall_offset: i64,
    /// What moved its wall clock, until somebody has looked at it.
    pub(super) stepped_by: Option<Fault>,
    /// Writes that clients wait for.
    pub(super) writes: BTreeMap<LogIndex, Asked>,
    pub(super) reads: BTreeMap<u64, Read>,
    /// It has the name of a member, and a disk that is none's.
    pub(super) has_new_disk: bool,
    /// Where it says that it is reached now, until the group has committed that.
    pub(super) address: Option<String>,
    /// The disk that was taken out of it.
    pub(super) shelf: Option<(DiskId, Disk)>,
}

impl Host {
    pub(super) fn new(id: NodeId, disk_id: DiskId, disk: Disk) -> Host {
        Host {
            id,
            disk_id,
            disk,
            node: None,
            state: State::default(),
            committed: Position::default(),
            life: 0,
            disk_is_busy: false,
            stopped_until: 0,
            stopped_by: None,
            sleeps: false,
            held: Vec::new(),
            stepped_aside_in: Term(0),
            asked_in: Term(0),
            slow_disk: 0,
            is_full: false,
            filled_by: None,
            stalled_until: 0,
            stalled_by: None,
            slowed_by: None,
            doomed: None,
            election_timeout: Duration::from_millis(500),
            was_damaged: false,
            healed_at: None,
            was_away: false,
            rate: 0,
            rated_by: None,
            wall_offset: 0,
            stepped_by: None,
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            has_new_disk: false,
            address: None,
            shelf: None,
        }
    }

    /// This machine's clocks when the world's says `now`.
    pub(super) fn now(&self, now: u64) -> Now {
        let passed = now as i64 + now as i64 * self.rate / 1_000_000;
        let wall = 1_700_000_000_000 + passed / 1000 + self.wall_offset;
        Now { monotonic: Duration::from_micros(passed as u64), wall: Wall(wall.max(0) as u64) }
    }

    /// Starts from what is durable.
    pub(super) fn start(&mut self, seed: u64, checks: &mut Checks) {
        self.life += 1;
        self.disk.queue.clear();
        self.disk.under_way = 0;
        self.disk_is_busy = false;
        self.state = self.disk.snapshot.clone();
        checks.restored(&self.state);
        self.committed = self.state.applied;
        let later = self.disk.memberships();
        let newest = later.last().map_or(&self.state.membership, |(_, membership)| membership);
        if newest.is_only(&self.id) && self.disk.hard_state.quarantined_until.is_none() {
            // Its log is the majority's, so all of it is committed.
            self.committed = self.disk.last();
            self.apply(checks);
        }
        let hlc = self.disk.entries.iter().map(|entry| entry.hlc).max().unwrap_or_default().max(self.state.hlc);
        let recovered = Recovered {
            hard_state: self.disk.hard_state.clone(),
            membership: self.state.membership.clone(),
            known: Known::Committed,
            later: later.into_iter().filter(|(index, _)| *index > self.state.applied.index).collect(),
            terms: self.disk.terms(),
            applied: self.state.applied.index,
            hlc,
        };
        let config = Config {
            // Small, so that windows, loads from disk and trimmed logs are met all the time.
            message_bytes_max: 300,
            window_bytes_max: 1200,
            memory_bytes_max: 2000,
            proposals_bytes_max: 10_000,
            election_timeout: self.election_timeout,
            // Met by who joins a short log, by few, and by nobody.
            snapshot_lag: [5, 20, u64::MAX][usize::try_from(seed % 3).unwrap_or_default()],
            ..Config::new(self.id.clone(), self.disk_id, seed)
        };
        // A member that has applied its own removal does not start again.
        self.node = Node::recover(config, recovered).ok();
        self.set_full(self.is_full);
    }

    /// Its disk is short of room, or has room again.
    pub(super) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        if let Some(node) = &mut self.node {
            node.set_disk_low(is_full);
        }
    }

    /// The process dies: what was not durable is gone, and whoever waited does not learn what became of it.
    pub(super) fn crash(&mut self) {
        self.node = None;
        self.life += 1;
        self.disk.queue.clear();
        self.disk.under_way = 0;
        self.disk_is_busy = false;
        self.doomed = None;
        self.writes.clear();
        self.reads.clear();
    }

    pub(super) fn commit(&mut self, position: Position) {
        if position.index > self.committed.index {
            self.committed = position;
        }
    }

    /// What the group has it for, as far as its own log says. Who joins reads of what its name was with an earlier disk.
    fn role(&self) -> Option<MemberRole> {
        let member = self.node.as_ref()?.membership().get(&self.id)?;
        let is_this = member.disk.map_or(self.disk.is_founder, |disk| disk == self.disk_id);
        is_this.then_some(member.role)
    }

    /// True where the group has it for a witness.
    pub(super) fn is_witness(&self) -> bool {
        self.role().is_some_and(MemberRole::is_witness)
    }

    /// True where it has something to read, whatever it is told to be.
    pub(super) fn has_rows(&self) -> bool {
        !self.is_witness() && !self.state.is_bare
    }

    /// True where the group knows this machine by another disk: it does not count, until it is removed and added again.
    pub(super) fn is_stranger(&self, membership: &Membership) -> bool {
        let bound = membership.get(&self.id).and_then(|member| member.disk);
        self.has_new_disk || bound.is_some_and(|disk| disk != self.disk_id)
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.disk.hard_state.quarantined_until.is_some()
    }

    /// True where its own log names it with its disk.
    pub(super) fn is_bound(&self) -> bool {
        self.disk.newest_membership().get(&self.id).is_some_and(|member| member.disk == Some(self.disk_id))
    }

    /// True where it leads that term.
    pub(super) fn leads(&self, term: Term) -> bool {
        self.node.as_ref().is_some_and(|node| node.role() == Role::Leader && node.term() == term)
    }

    /// True where a read by lease would be answered. Everything the leader has committed and answered is applied; others
    /// may know of more only once it has lost its lease.
    pub(super) fn may_read_by_lease(&self, now: u64) -> bool {
        self.node.as_ref().is_some_and(|node| {
            let is_whole = self.state.applied.index >= node.committed() && !self.state.is_bare;
            is_whole && node.holds_lease(self.now(now).monotonic)
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Applies what is committed and durable here. Returns the writes that clients wait for, with their answers; without
    /// one where the client has gone on meanwhile.
    pub(super) fn apply(&mut self, checks: &mut Checks) -> Vec<(Asked, Option<u64>)> {
        let mut answered = Vec::new();
        // Until the log holds what is committed, what it holds there is about to be replaced.
        let holds = self.disk.entry(self.committed.index).is_some_and(|entry| entry.term == self.committed.term);
        while holds && self.state.applied.index < self.committed.index {
            let Some(entry) = self.disk.entry(self.state.applied.index.next()).cloned() else { break };
            let answer = self.apply_entry(&entry, checks);
            while let Some(first) = self.writes.first_entry() {
                if *first.key() > entry.index {
                    break;
                }
                let asked = first.remove();
                // Another leader's entry took its place: the client does not learn what became of it.
                if asked.position.term == entry.term && asked.position.index == entry.index {
                    answered.push((asked, answer));
                }
            }
        }
        if let Some(node) = &mut self.node {
            node.applied(self.state.applied.index);
        }
        answered
    }

    fn apply_entry(&mut self, entry: &Entry, checks: &mut Checks) -> Option<u64> {
        assert!(entry.hlc > self.state.hlc, "the stamp of entry {} does not rise", entry.index);
        let is_settled = !self.is_quarantined();
        let payload = Payload::decode(&entry.payload).unwrap();
        let mut answer = None;
        if is_settled && self.is_witness() {
            self.state.strip();
        } else if self.state.is_bare && is_settled && self.role().is_some() {
            self.replay(entry, checks);
            answer = self.state.take(entry, &payload);
        } else if !self.state.is_bare {
            answer = self.state.take(entry, &payload);
        }
        self.state.hlc = entry.hlc;
        self.state.applied = Position { index: entry.index, term: entry.term };
        if !self.state.is_bare {
            checks.applies(self.state.applied, self.state.hash, &payload);
        }
        if let Payload::Membership(membership) = payload {
            self.state.membership = membership;
        }
        answer
    }

    /// An empty disk whose name was a witness's in the first entry took itself for one, until its log said what it is. A
    /// witness keeps its log, so all that it passed over is there.
    fn replay(&mut self, entry: &Entry, checks: &mut Checks) {
        let is_whole = self.disk.is_founder && self.disk.snapshot.applied.index == LogIndex(0);
        assert!(is_whole, "{} applies entry {} to the state of a witness", self.id, entry.index);
        self.state = State::default();
        let before: Vec<Entry> = self.disk.entries.iter().take_while(|old| old.index < entry.index).cloned().collect();
        for old in &before {
            self.apply_entry(old, checks);
        }
    }
}
