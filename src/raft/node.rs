//! One node of a group: what is settled when it starts, time, transitions between roles.
//!
//! What a node does in a role is in a file of its own: `follower`, `candidate`, `leader`, and `read` for reads; what it does
//! with a message at all is in `arrival`.

use crate::clock::{Monotonic, Wall};
use crate::hlc::{Hlc, Timestamp};
use crate::ids::{DiskId, LogIndex, Term};
use crate::raft::candidate::Candidacy;
use crate::raft::entry::membership_of;
use crate::raft::leader::Leadership;
use crate::raft::log::Log;
use crate::raft::membership::History;
use crate::raft::progress::Window;
use crate::raft::read::{Answered, Asked, Freshness};
use crate::raft::{
    Entry, Envelope, HardState, Known, Member, Membership, Message, NodeId, Outcast, Payload, Ready, Role,
};
use crate::storage::wal::{Position, Terms};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::time::Duration;

/// What is settled when a node starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Where others reach it; empty where nobody does. A leader writes it down where its group knows another.
    pub address: String,
    /// Bytes of proposals that may wait to be applied; above it a proposal is refused.
    pub proposals_bytes_max: usize,
    /// What to do where the log knows this node by another name.
    pub naming: Naming,
    /// A follower that hears no leader for this long, and up to twice as long by chance, stands for election.
    pub election_timeout: Duration,
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// Bytes of entries in one message to a peer.
    pub message_bytes_max: usize,
    /// Bytes of entries on their way to one peer.
    pub window_bytes_max: usize,
    /// Bytes of entries that are kept in memory for peers.
    pub memory_bytes_max: usize,
    /// Entries behind a leader's log from which on a member that has nothing is brought a snapshot, though the log has all.
    pub snapshot_lag: u64,
    /// How far a leader's wall clock may be from those of the others before one of them takes over.
    pub clock_drift_max: Duration,
    /// Where chance begins. Two nodes of a group have different ones, and so have two lives of a node.
    pub seed: u64,
}

/// The shortest election timeout that a member of a group may have, whatever the others have.
pub const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// Messages of entries on their way to one peer: enough for a link of a tenth of a second at a thousand messages a
/// second.
const WINDOW_MESSAGES: usize = 128;

/// Reads that wait for an answer. One more is told that there is no leader, as after a lost message.
pub(super) const READS_MAX: usize = 4096;

impl Config {
    /// A node with the defaults of the documentation.
    pub fn new(id: NodeId, disk: DiskId, seed: u64) -> Config {
        Config {
            id,
            disk,
            address: String::new(),
            proposals_bytes_max: 32 << 20,
            naming: Naming::Kept,
            election_timeout: Duration::from_millis(500),
            heartbeat: Duration::from_millis(100),
            message_bytes_max: 1 << 20,
            window_bytes_max: 4 << 20,
            memory_bytes_max: 4 << 20,
            snapshot_lag: 100_000,
            clock_drift_max: Duration::from_mins(1),
            seed,
        }
    }

    pub(super) fn window(&self) -> Window {
        Window { messages: WINDOW_MESSAGES, bytes: self.window_bytes_max }
    }

    /// How long a lease lasts from when the round that confirmed it was sent. A tenth less than followers wait: their
    /// clocks may run that much faster than the leader's. How long they wait is set at each of them, so what counts is the
    /// least that any may.
    pub fn lease(&self) -> Duration {
        self.election_timeout.min(ELECTION_TIMEOUT_MIN) * 9 / 10
    }

    /// How long messages to a peer may stay unanswered before they are sent again.
    pub(super) fn patience(&self) -> Duration {
        self.election_timeout
    }
}

/// What to do where the group is one node of another name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// It is another node's log: refuse it.
    #[default]
    Kept,
    /// It is this node's, which the operator has given a new name: the log says so from here on.
    Renamed,
}

/// What the disk says when a node starts.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The group, as the state knows it.
    pub membership: Membership,
    /// How that is known.
    pub known: Known,
    /// What the log behind the state says of the group.
    pub later: Vec<(LogIndex, Membership)>,
    /// The terms of the entries in the log.
    pub terms: Terms,
    /// What the state machine holds.
    pub applied: LogIndex,
    /// The highest stamp in log and state.
    pub hlc: Timestamp,
}

impl Recovered {
    /// The same with one more entry in the log, which may replace what was there.
    pub fn append(&mut self, entry: &Entry) {
        if entry.index <= self.terms.last().index {
            self.terms.truncate(entry.index.previous());
            self.later.retain(|(index, _)| *index < entry.index);
        }
        let rises = self.terms.push(entry.term);
        assert!(rises, "the term falls at entry {}", entry.index);
        if let Some(membership) = membership_of(entry).expect("a node takes no entry that it does not understand") {
            self.later.push((entry.index, membership));
        }
        self.hlc = self.hlc.max(entry.hlc);
    }
}

/// The time when something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// By the clock that only goes forward, and counts suspended time.
    pub monotonic: Monotonic,
    /// By the wall clock.
    pub wall: Wall,
}

/// What a node does in its role, and knows for it.
#[derive(Debug)]
pub(super) enum State {
    Follower,
    Candidate(Candidacy),
    Leader(Box<Leadership>),
}

/// The consensus core of one node.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) memberships: History,
    pub(super) hard_state: HardState,
    pub(super) state: State,
    pub(super) leader: Option<NodeId>,
    pub(super) hlc: Hlc,
    pub(super) log: Log,
    pub(super) committed: LogIndex,
    pub(super) applied: LogIndex,
    pub(super) now: Now,
    /// When this node started: none before the first tick tells the time.
    pub(super) started: Option<Monotonic>,
    /// When a leader was last heard, of whatever term: its lease counts on this node from then on.
    pub(super) heard: Option<Monotonic>,
    /// The rounds of heartbeats of the present leader that this node has answered, and when.
    pub(super) answered: Answered,
    /// How current what this node has applied is known to be.
    pub(super) freshness: Freshness,
    /// When this node stands if nothing is heard before.
    pub(super) deadline: Monotonic,
    pub(super) random: u64,
    /// Rounds of asking around so far, in turns.
    pub(super) asked_around: u64,
    /// The group that this node announces once it leads, where the operator has renamed the node.
    pub(super) renamed: Option<Membership>,
    /// A quarantined member has had entries of a leader since it started.
    pub(super) contacted: bool,
    /// What the leader is told of the quarantine: over once that is durable, or it would promote a node that wakes up in it.
    pub(super) shown_quarantine: Option<LogIndex>,
    pub(super) outcast: Option<Outcast>,
    /// (term, disk) of a leader that has shown a log with all that is committed here, although its name was another disk's
    /// by then.
    pub(super) believed: Option<(Term, DiskId)>,
    /// Reads that wait for the leader's word, and the number of the last one. The first is drawn: an answer to a read of an
    /// earlier life of this node must not pass for one to a read of this life.
    pub(super) asked: VecDeque<Asked>,
    pub(super) last_asked: u64,
    /// (index, bytes) of entries proposed here and not yet applied.
    pub(super) in_flight: VecDeque<(LogIndex, usize)>,
    pub(super) in_flight_bytes: usize,
    /// What the leader has said of where all others have the log.
    pub(super) held: LogIndex,
    /// A witness takes no more entries: its log has reached its limit.
    pub(super) log_is_full: bool,
    /// This node's disk is short of room.
    pub(super) is_disk_low: bool,
    /// Set for good where a leader has sent what this program does not understand: it says and does nothing any more.
    pub(super) stopped: Option<Error>,
    pub(super) ready: Ready,
}

impl Node {
    /// A node that goes on from what is durable, as a follower. Boot and restart both come here.
    pub fn recover(config: Config, recovered: Recovered) -> Result<Node> {
        let mut memberships = History::new(recovered.membership, recovered.known, recovered.later);
        let renamed = rename(&config, memberships.newest())?;
        memberships.settle(recovered.applied);
        if let Some(renamed) = &renamed {
            memberships = History::new(renamed.clone(), Known::Committed, vec![]);
        }
        let (random, last_asked) = (config.seed, mixed(config.seed));
        let bytes_max = config.memory_bytes_max;
        let mut hard_state = recovered.hard_state;
        if recovered.terms.last().index == LogIndex(0) && memberships.newest().members.is_empty() {
            // Who joins reads of groups that its name belonged to with an earlier disk. It grants and decides nothing
            // before it has what the group has.
            hard_state.quarantined_until = hard_state.quarantined_until.or(Some(LogIndex(1)));
        }
        let shown_quarantine = hard_state.quarantined_until;
        let outcast = hard_state.is_dismissed().then_some(Outcast::Removed);
        Ok(Node {
            config,
            memberships,
            renamed,
            hard_state,
            state: State::Follower,
            leader: None,
            hlc: Hlc::recover(recovered.hlc),
            log: Log::new(recovered.terms, bytes_max),
            committed: recovered.applied,
            applied: recovered.applied,
            now: Now::default(),
            started: None,
            heard: None,
            answered: Answered::default(),
            freshness: Freshness::default(),
            deadline: Monotonic::ZERO,
            random,
            asked_around: 0,
            contacted: false,
            shown_quarantine,
            outcast,
            believed: None,
            asked: VecDeque::new(),
            last_asked,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            held: LogIndex(0),
            log_is_full: false,
            is_disk_low: false,
            stopped: None,
            ready: Ready::default(),
        })
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
        self.advance(now);
        if self.stopped.is_some() {
            return;
        }
        match &self.state {
            State::Follower | State::Candidate(_) => {
                self.forget_old_reads();
                if self.is_alone() {
                    // Nobody to wait for, but the disk.
                    if matches!(self.state, State::Follower) {
                        self.stand(false);
                    }
                } else if self.now.monotonic >= self.deadline && self.may_stand() {
                    self.ask_around();
                }
            }
            State::Leader(_) => self.keep_leading(),
        }
    }

    /// Takes note of the time; the first one begins the wait for a leader.
    pub(super) fn advance(&mut self, now: Now) {
        self.now = Now { monotonic: now.monotonic.max(self.now.monotonic), wall: now.wall };
        if self.started.is_none() {
            self.started = Some(now.monotonic);
            self.wait_for_leader();
        }
    }

    /// Appends a command and returns its position. The answer comes from the state machine when it is applied.
    pub fn propose(&mut self, command: &[u8], now: Now) -> Result<LogIndex> {
        self.advance(now);
        self.check_leading()?;
        // One proposal is always let through, or a command larger than the limit could never be.
        if self.in_flight_bytes > 0 && self.in_flight_bytes + command.len() > self.config.proposals_bytes_max {
            return Err(Error::overloaded(format!(
                "overloaded, retry: {} bytes of writes wait to be applied",
                self.in_flight_bytes
            )));
        }
        let index = self.append(&Payload::Command(command));
        self.in_flight.push_back((index, command.len()));
        self.in_flight_bytes += command.len();
        Ok(index)
    }

    /// The log is durable up to `position`, which the log thread reports in order.
    pub fn persisted(&mut self, position: Position) {
        if self.log.persist(position) && matches!(self.state, State::Leader(_)) {
            self.count_copies();
        }
    }

    /// The state machine holds everything up to `index`.
    pub fn applied(&mut self, index: LogIndex) {
        self.applied = self.applied.max(index);
        self.freshness.applied(self.applied);
        // Nothing is applied that is not durable here.
        if let Some(term) = self.log.term(index) {
            self.persisted(Position { index, term });
        }
        while let Some(&(first, bytes)) = self.in_flight.front() {
            if first > self.applied {
                break;
            }
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
    }

    /// The disk has let go of the log up to `position`.
    pub fn trimmed(&mut self, position: Position) {
        self.log.trim(position);
    }

    /// What is to be done since the last call.
    pub fn take_ready(&mut self) -> Ready {
        if let State::Leader(_) = self.state {
            self.replicate();
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.commit_on_persist = self.is_alone();
        self.close_round();
        ready
    }

    /// An instant not below any stamp of the log: what `now()` and expiry are judged by.
    pub fn instant(&self, wall: Wall) -> Timestamp {
        self.hlc.high().max(Timestamp::at(wall))
    }

    /// The group, as the newest entry of this node's log has it.
    pub fn membership(&self) -> &Membership {
        self.memberships.newest()
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<&NodeId> {
        self.leader.as_ref()
    }

    /// Everything up to here is in the state machine.
    pub fn applied_index(&self) -> LogIndex {
        self.applied
    }

    /// Everything up to here is committed, as far as this node knows.
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// Why this node must end, where it must: a newer program takes its place.
    pub fn stopped(&self) -> Option<&Error> {
        self.stopped.as_ref()
    }

    /// End of the log.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// True where no other node votes. One that is fetching its log may read there of a group of one that is long gone.
    pub(super) fn is_alone(&self) -> bool {
        self.membership().is_only(&self.config.id) && self.hard_state.quarantined_until.is_none()
    }

    pub(super) fn this(&self) -> Option<&Member> {
        self.membership().get(&self.config.id)
    }

    /// Chance: the same seed gives the same node.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.random) % below.max(1)
    }

    pub(super) fn envelope(&self, to: &NodeId, message: Message) -> Envelope {
        Envelope {
            from: self.config.id.clone(),
            disk: self.config.disk,
            to: to.clone(),
            term: self.hard_state.term,
            message,
        }
    }

    /// To be sent now.
    pub(super) fn send(&mut self, to: &NodeId, message: Message) {
        let envelope = self.envelope(to, message);
        self.ready.messages.push(envelope);
    }

    /// To be sent once all that is asked for by now is durable.
    pub(super) fn promise(&mut self, to: &NodeId, message: Message) {
        let envelope = self.envelope(to, message);
        self.ready.after_persist.push(envelope);
    }

    /// Term and vote, and what else they carry, are to be made durable.
    pub(super) fn save(&mut self) {
        self.hard_state.membership = self.membership().encode();
        self.ready.hard_state = Some(self.hard_state.clone());
    }

    /// Goes to a later term, or takes a step back within this one.
    pub(super) fn follow(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.hard_state.term {
            self.hard_state.term = term;
            self.hard_state.vote = None;
            self.save();
        }
        if self.leader != leader {
            self.give_up_reads();
        }
        self.state = State::Follower;
        self.leader = leader;
        // Rounds are numbered by leader and term. What was heard of an earlier leader still holds: its lease does not
        // end because somebody else has reached a later term.
        self.answered.clear();
        self.wait_for_leader();
    }

    /// Everything up to `index` is committed, as far as this log has it.
    pub(super) fn commit(&mut self, index: LogIndex) {
        let index = index.min(self.log.last().index);
        if index > self.committed {
            self.committed = index;
            self.ready.committed = self.log.term(index).map(|term| Position { index, term });
            self.memberships.settle(index);
        }
    }

    /// Adds an entry to this node's own log.
    pub(super) fn append(&mut self, payload: &Payload<'_>) -> LogIndex {
        let index = self.log.last().index.next();
        let entry =
            Entry { index, term: self.hard_state.term, hlc: self.hlc.tick(self.now.wall), payload: payload.encode() };
        self.adopt(entry);
        index
    }

    /// The entry is this node's last one from here on.
    pub(super) fn adopt(&mut self, entry: Entry) {
        self.hlc.merge(entry.hlc);
        if let Some(membership) = membership_of(&entry).expect("what is not understood was not taken") {
            // It counts from the append on (4.1), so the log's next segments begin with it.
            self.memberships.push(entry.index, membership);
            self.save();
        }
        self.log.push(entry.clone());
        if self.membership().members.len() <= 1 {
            self.log.forget_tail();
        }
        self.ready.entries.push(entry);
    }
}

/// A number's bits, stirred, by splitmix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The group under this node's new name, where the operator has given it one.
fn rename(config: &Config, membership: &Membership) -> Result<Option<Membership>> {
    let mut members = membership.members.keys();
    let (first, others) = (members.next(), members.next().is_some());
    let refused =
        |text: String, hint: &'static str| Err(Error::invalid(crate::error::SqlState::CONFIG_ERROR, text).hint(hint));
    match (first, config.naming) {
        // A node that joins or was removed finds itself in no membership, and waits for the group's word.
        (Some(_), Naming::Kept) if others => Ok(None),
        (Some(first), _) if *first == config.id && !others => Ok(None),
        (None, _) => Ok(None),
        (Some(_), Naming::Renamed) if !others => {
            let single = Membership::single(&config.id);
            let command_version = single.command_version.max(membership.command_version);
            Ok(Some(Membership { command_version, ..single }))
        }
        (Some(_), Naming::Renamed) => refused(
            "only the single member of a group can be renamed".to_owned(),
            "remove the member and add it again under its new name",
        ),
        (Some(first), Naming::Kept) => refused(
            format!("this directory belongs to {first} alone, not to {}", config.id),
            "start with the --id that it has, or with --rename",
        ),
    }
}
