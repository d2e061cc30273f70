//! Leading: replication, commitment, heartbeats, changes of the group, and stepping aside.
//!
//! * Entries leave for the peers while this node's own disk works (thesis 10.2.1); its own copy counts once it is
//!   durable.
//! * Entries of older terms commit only behind one of this leader's own (5.4.2), which it appends when elected.
//! * A leader that has not heard a quorum within an election timeout steps down (check-quorum): it could not commit, and
//!   nobody would learn from it that it cannot.
//! * One change of the group at a time, and only once an entry of the present term is committed (the erratum of 2015).
//! * The disk of every voter is written down before the first write of a client (`changes`). Until then a member that lost
//!   its disk could not be told from one that did not.

use crate::clock::Monotonic;
use crate::ids::{DiskId, LogIndex};
use crate::raft::log::Found;
use crate::raft::node::{Now, State};
use crate::raft::progress::{Delivery, Flow, Progress};
use crate::raft::read::{Mark, Waiting};
use crate::raft::{Entry, Load, MemberRole, Message, Node, NodeId, Payload, Peer, Verdict, quorum};
use crate::storage::wal::Position;
use crate::{Error, Result};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub(super) struct Leadership {
    /// First entry of this leader's own term: once it is committed, so is everything before it (5.4.2).
    pub(super) since: LogIndex,
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// Rounds of heartbeats so far.
    pub(super) round: u64,
    /// The round has not left yet: what is asked now is still covered by it.
    pub(super) round_is_open: bool,
    /// (round, when it was sent), of rounds that no quorum has answered; the oldest are dropped at [`ROUNDS_MAX`].
    pub(super) rounds: VecDeque<(u64, Monotonic)>,
    /// When the newest round that a quorum has answered was sent.
    pub(super) confirmed: Option<Monotonic>,
    /// The round whose confirmation will prove followers current; one at a time.
    pub(super) mark: Option<Mark>,
    /// What was committed when the mark was set that a quorum has confirmed last.
    pub(super) proven: Option<LogIndex>,
    pub(super) next_heartbeat: Monotonic,
    /// Reads that wait for a round.
    pub(super) reads: VecDeque<Waiting>,
    pub(super) transfer: Option<Transfer>,
    /// No earlier than then it hands over by itself to one that is fitter.
    pub(super) steps_aside_after: Monotonic,
    /// Somebody was told to stand. However late it does, its voters do not wait for this leader any more: no lease holds
    /// in the rest of the term.
    pub(super) has_stepped_aside: bool,
}

/// Leadership is being handed over.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    /// It is given up then.
    until: Monotonic,
    has_told: bool,
    /// This node does not go on leading where it is given up.
    steps_down: bool,
}

/// Rounds of heartbeats that may wait for an answer: with one every 100 ms, those of a minute.
pub(super) const ROUNDS_MAX: usize = 600;

impl Node {
    /// Begins to lead.
    pub(super) fn lead(&mut self) {
        let last = self.log.last().index;
        let voters = match &self.state {
            State::Candidate(candidacy) => candidacy.disks(),
            State::Follower | State::Leader(_) => Vec::new(),
        };
        self.leader = Some(self.config.id.clone());
        self.state = State::Leader(Box::new(Leadership {
            since: last.next(),
            progress: BTreeMap::new(),
            round: 0,
            round_is_open: false,
            rounds: VecDeque::new(),
            confirmed: None,
            mark: None,
            proven: None,
            next_heartbeat: self.now.monotonic,
            reads: VecDeque::new(),
            transfer: None,
            has_stepped_aside: false,
            steps_aside_after: self.now.monotonic + self.config.election_timeout,
        }));
        self.append(&Payload::Noop);
        if let Some(membership) = self.renamed.take() {
            let renamed = self.append(&Payload::Membership(membership));
            if let State::Leader(lead) = &mut self.state {
                lead.since = renamed;
            }
        }
        self.follow_members();
        voters.into_iter().for_each(|(id, disk)| self.note_disk(&id, disk));
        self.found();
        self.begin_round();
    }

    /// Tracks those who are members now, and nobody else.
    pub(super) fn follow_members(&mut self) {
        let membership = self.memberships.newest();
        let (now, last) = (self.now.monotonic, self.log.last().index);
        let State::Leader(lead) = &mut self.state else { return };
        lead.progress.retain(|id, _| membership.get(id).is_some());
        for id in membership.members.keys().filter(|id| **id != self.config.id) {
            // From the entry before this leader's first: a peer that follows closely has it.
            let start = last.min(lead.since.previous());
            lead.progress.entry(id.clone()).or_insert_with(|| Progress::new(start, now));
        }
    }

    /// What a leader does as time passes.
    pub(super) fn keep_leading(&mut self) {
        let (now, patience) = (self.now.monotonic, self.config.patience());
        if !self.hears_quorum() {
            self.follow(self.hard_state.term, None);
            return;
        }
        let State::Leader(lead) = &mut self.state else { return };
        if let Some(over) = lead.transfer.take_if(|transfer| now >= transfer.until)
            && over.steps_down
        {
            self.follow(self.hard_state.term, None);
            return;
        }
        lead.progress.values_mut().for_each(|progress| progress.retry(patience, now));
        if now >= lead.next_heartbeat {
            self.begin_round();
        }
        self.hand_over_to_full_voter();
        self.hand_over_to_a_fitter_one();
        self.amend();
    }

    /// True where a quorum has said something within an election timeout.
    fn hears_quorum(&self) -> bool {
        let State::Leader(lead) = &self.state else { return false };
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        let hears = |id: &&NodeId| {
            **id == self.config.id || lead.progress.get(id).is_some_and(|progress| progress.heard >= since)
        };
        let count = self.membership().voters().filter(hears).count();
        // Where this node is being removed, those who stay decide without it.
        count >= self.membership().quorum()
    }

    /// Sends every peer what it lacks, as far as its window goes.
    pub(super) fn replicate(&mut self) {
        let State::Leader(lead) = &self.state else { return };
        for peer in lead.progress.keys().cloned().collect::<Vec<_>>() {
            while self.send_entries(&peer) {}
        }
    }

    /// Sends a peer its next entries; false where there is nothing to send, or no room.
    fn send_entries(&mut self, peer: &NodeId) -> bool {
        let (window, bytes_max, now) = (self.config.window(), self.config.message_bytes_max, self.now.monotonic);
        let skips_log = self.skips_log(peer);
        let State::Leader(lead) = &mut self.state else { return false };
        let Some(progress) = lead.progress.get_mut(peer).filter(|progress| progress.has_room(window)) else {
            return false;
        };
        let previous = progress.next.previous();
        let previous_term = self.log.term(previous);
        let found =
            if skips_log || previous_term.is_none() { Found::Trimmed } else { self.log.read(progress.next, bytes_max) };
        let probes = progress.flow == Flow::Probe;
        match (found, previous_term) {
            (Found::Entries(entries), Some(term)) if probes || !entries.is_empty() => {
                // A probe only asks where the logs agree.
                let entries = if probes { Vec::new() } else { entries };
                let last = entries.last().map_or(previous, |entry| entry.index);
                progress.sent(last, entries.iter().map(|entry| entry.payload.len()).sum(), now);
                self.send_append(peer, Position { index: previous, term }, entries);
                true
            }
            (Found::OnDisk, Some(term)) if probes => {
                progress.sent(previous, 0, now);
                self.send_append(peer, Position { index: previous, term }, Vec::new());
                true
            }
            (Found::OnDisk, _) => {
                progress.loading = true;
                let from = progress.next;
                self.ready.loads.push(Load { peer: peer.clone(), from, bytes_max });
                false
            }
            (Found::Trimmed, _) => {
                if self.memberships.may_be_brought_a_snapshot(peer) {
                    progress.snapshot();
                    self.ready.snapshots.push(peer.clone());
                }
                false
            }
            (Found::Entries(_), _) => false,
        }
    }

    /// True where a peer is brought a snapshot instead of entries that are there: it has nothing, and they are many. The
    /// state is as large as what lives, the log as all that was ever written, and applying it again costs the processor
    /// that serves clients. What has no rows is best served by entries, and a witness has no rows to send.
    fn skips_log(&self, peer: &NodeId) -> bool {
        let State::Leader(lead) = &self.state else { return false };
        let Some(progress) = lead.progress.get(peer).filter(|progress| progress.skips_log()) else { return false };
        let has_rows = self.membership().get(peer).is_some_and(|member| !member.role.is_witness());
        let lag = self.log.last().index.0.saturating_sub(progress.next.0);
        lag >= self.config.snapshot_lag && has_rows && !self.is_witness()
    }

    fn send_append(&mut self, peer: &NodeId, previous: Position, entries: Vec<Entry>) {
        let commit = self.committed;
        self.send(peer, Message::Append { previous, entries, commit });
    }

    /// Entries that were asked for by `Ready::loads`; none where they could not be read.
    pub fn loaded(&mut self, peer: &NodeId, entries: Vec<Entry>, now: Now) {
        self.advance(now);
        let State::Leader(lead) = &mut self.state else { return };
        let Some(progress) = lead.progress.get_mut(peer) else { return };
        progress.loading = false;
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        // A slow disk may answer what this node asked in an earlier term, and has replaced since.
        let is_own = entries.iter().all(|entry| self.log.term(entry.index) == Some(entry.term));
        let is_wanted = is_own && progress.flow == Flow::Replicate && first == progress.next;
        let Some(term) = self.log.term(first.previous()).filter(|_| is_wanted) else { return };
        let last = entries.last().map_or(first, |entry| entry.index);
        progress.sent(last, entries.iter().map(|entry| entry.payload.len()).sum(), now.monotonic);
        self.send_append(peer, Position { index: first.previous(), term }, entries);
    }

    /// A snapshot for a peer is on its way no more.
    pub fn snapshot_ended(&mut self, peer: &NodeId, delivery: Delivery, now: Now) {
        self.advance(now);
        let last = self.log.last().index;
        let State::Leader(lead) = &mut self.state else { return };
        if let Some(progress) = lead.progress.get_mut(peer).filter(|progress| progress.flow == Flow::Snapshot) {
            progress.delivered(delivery, last);
        }
    }

    /// Messages to a peer were lost: what is out may not have arrived.
    pub fn unreachable(&mut self, peer: &NodeId) {
        let State::Leader(lead) = &mut self.state else { return };
        if let Some(progress) = lead.progress.get_mut(peer)
            && progress.flow == Flow::Replicate
        {
            progress.next = progress.matched.next();
            progress.probe();
        }
    }

    /// Takes note that a peer is there.
    fn peer(&mut self, from: &NodeId) -> Option<&mut Progress> {
        let now = self.now.monotonic;
        let State::Leader(lead) = &mut self.state else { return None };
        let progress = lead.progress.get_mut(from)?;
        progress.heard = now;
        Some(progress)
    }

    /// The disk that this leader has heard of first under a name.
    pub(super) fn heard_disk(&self, id: &NodeId) -> Option<DiskId> {
        let State::Leader(lead) = &self.state else { return None };
        lead.progress.get(id).and_then(|progress| progress.disk)
    }

    /// Takes note of the disk that speaks under a name.
    pub(super) fn note_disk(&mut self, id: &NodeId, disk: DiskId) {
        if let Some(progress) = self.unheard(id) {
            progress.disk.get_or_insert(disk);
            progress.replaced = false;
        }
    }

    /// Another disk speaks in this member's name.
    pub(super) fn note_replaced(&mut self, id: &NodeId) {
        if let Some(progress) = self.unheard(id) {
            progress.replaced = true;
        }
    }

    /// The same as `peer`, for what does not show that the member is there.
    fn unheard(&mut self, id: &NodeId) -> Option<&mut Progress> {
        let State::Leader(lead) = &mut self.state else { return None };
        lead.progress.get_mut(id)
    }

    pub(super) fn take_verdict(&mut self, from: &NodeId, verdict: Verdict) {
        let now = self.now.monotonic;
        let last = self.log.last().index;
        match verdict {
            Verdict::Accepted { matched } | Verdict::Full { matched } if matched > last => {
                // Also said to one who led this term before it started anew, with a shorter log.
                if self.peer(from).is_some() {
                    self.contradict(from, matched);
                }
            }
            Verdict::Accepted { matched } => {
                let Some(progress) = self.peer(from) else { return };
                if progress.accepted(matched, now) {
                    self.count_copies();
                    self.hand_over();
                }
            }
            Verdict::Full { matched } => {
                let Some(progress) = self.peer(from) else { return };
                let is_news = progress.accepted(matched, now);
                progress.full(now);
                if is_news {
                    self.count_copies();
                }
            }
            Verdict::Rejected { previous, hint, quarantined } => {
                let agreeable = self.log.agreeable(hint.index, hint.term).index;
                if let Some(progress) = self.peer(from) {
                    if quarantined {
                        progress.quarantined = true;
                        progress.lost(agreeable);
                    }
                    progress.rejected(previous, agreeable);
                }
            }
        }
    }

    /// A member has applied up to `matched` and let go of that, and this leader's log ends before: disks were put back to
    /// what they were at some earlier time, more of them than a group survives. The member cannot see how long this log is,
    /// so it is told what it would find there: an entry of this term at the earliest, where its own is an older one.
    fn contradict(&mut self, from: &NodeId, matched: LogIndex) {
        let at = Position { index: matched, term: self.hard_state.term };
        self.send_append(from, at, Vec::new());
    }

    pub(super) fn take_heartbeat_reply(&mut self, from: &NodeId, round: u64, command_version: u8, quarantined: bool) {
        let Some(progress) = self.peer(from) else { return };
        progress.round = progress.round.max(round);
        progress.command_version = Some(command_version);
        if quarantined && !progress.quarantined && progress.flow == Flow::Replicate {
            // It has lost what it had: asked where it stands, or it would wait for the next write to find out.
            progress.probe();
        }
        progress.quarantined = quarantined;
        self.confirm_rounds();
    }

    /// Commits what a quorum has.
    pub(super) fn count_copies(&mut self) {
        let State::Leader(lead) = &self.state else { return };
        let (membership, since) = (self.membership(), lead.since);
        let has = |id: &NodeId| {
            if !membership.is_voter(id) {
                LogIndex(0)
            } else if *id == self.config.id {
                self.log.persisted()
            } else {
                lead.progress.get(id).map_or(LogIndex(0), |progress| progress.matched)
            }
        };
        let agreed = quorum::agreed(membership.voters().map(has), membership.quorum());
        // Entries of older terms count only behind one of the leader's own (5.4.2).
        if agreed >= since && agreed > self.committed {
            let is_first = self.committed < since;
            self.commit(agreed);
            self.answer_reads();
            if is_first {
                self.amend();
            }
            self.leave_where_removed();
        }
    }

    /// The full voter that is to lead next: of those that have all that is committed the fittest.
    pub(super) fn best_voter(&self) -> Option<NodeId> {
        let judge = self.judge();
        self.best_by(|peer| Some((peer.matched >= self.committed, judge(peer), peer.matched)))
    }

    /// The full voter of the highest rank, among those that answer and have one.
    pub(super) fn best_by<R: Ord>(&self, rank: impl Fn(&Progress) -> Option<R>) -> Option<NodeId> {
        let State::Leader(lead) = &self.state else { return None };
        let is_full = |id: &&NodeId| self.membership().get(id).is_some_and(|member| member.role == MemberRole::Voter);
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        lead.progress
            .iter()
            .filter(|(id, progress)| is_full(id) && progress.heard >= since && !progress.quarantined)
            .filter_map(|(id, progress)| Some((rank(progress)?, id)))
            .max_by(|(one, _), (other, _)| one.cmp(other))
            .map(|(_, id)| id.clone())
    }

    /// Refuses where this node may not append what a client asks for.
    pub(super) fn check_leading(&self) -> Result<()> {
        let State::Leader(lead) = &self.state else {
            return Err(Error::unavailable(match &self.leader {
                Some(leader) => format!("{leader} leads (term {})", self.hard_state.term),
                None => format!("no leader (term {})", self.hard_state.term),
            }));
        };
        if let Some(transfer) = &lead.transfer {
            return Err(Error::unavailable(format!("no leader: {} is taking over, retry", transfer.to)));
        }
        if self.is_witness() {
            return Err(Error::unavailable("no leader: a witness leads until a member that has the data can, retry"));
        }
        if !self.is_alone() && !self.memberships.settled().is_bound() {
            return Err(Error::unavailable("no leader: the group has just begun, retry"));
        }
        Ok(())
    }

    /// Hands leadership to another voter, or to the best one; says to whom.
    pub fn transfer(&mut self, to: Option<&NodeId>, now: Now) -> Result<NodeId> {
        self.advance(now);
        self.check_leading()?;
        let refused = |text: String| Error::invalid(crate::error::SqlState::CONFIG_ERROR, text);
        let is_named = to.is_some();
        let to = match to {
            Some(to) if *to == self.config.id => return Err(refused(format!("{to} leads already"))),
            Some(to) => to.clone(),
            None => self.best_voter().ok_or_else(|| Error::unavailable("no other voter answers"))?,
        };
        if !self.membership().is_voter(&to) {
            let voters: Vec<&str> = self.membership().voters().map(|id| id.0.as_str()).collect();
            return Err(refused(format!("{to} does not vote: those who do are {}", voters.join(", "))));
        }
        self.check_heir(&to)?;
        // Who is about to stop, or cannot serve what it has, hands over to one that is short of disk before it does to nobody.
        if is_named {
            self.check_room(&to)?;
        }
        self.begin_transfer(to.clone());
        Ok(to)
    }

    /// Refuses a successor that could not be elected: nothing would be proposed while it is waited for.
    fn check_heir(&self, to: &NodeId) -> Result<()> {
        let State::Leader(lead) = &self.state else { return Ok(()) };
        let Some(progress) = lead.progress.get(to) else { return Ok(()) };
        let since = self.now.monotonic.saturating_sub(self.config.election_timeout);
        if progress.disk.is_none() || progress.heard < since {
            return Err(Error::unavailable(format!("{to} does not answer: it cannot take over")));
        }
        if progress.quarantined {
            let text = format!("{to} fetches again what its log has lost, and cannot stand: retry once it has it");
            return Err(Error::unavailable(text));
        }
        Ok(())
    }

    /// From here on nothing is proposed, until the successor stands or its time is over.
    pub(super) fn begin_transfer(&mut self, to: NodeId) {
        let until = self.now.monotonic + self.config.election_timeout;
        if let State::Leader(lead) = &mut self.state {
            lead.transfer = Some(Transfer { to, until, has_told: false, steps_down: false });
        }
        self.hand_over();
    }

    /// Leads no more, for its disk does not answer: the best voter is asked to take over, and where there is none, or it
    /// does not in time, this node follows. Before its disk answers again it cannot even vote for itself.
    pub fn step_aside(&mut self, now: Now) {
        self.advance(now);
        if self.is_alone() || !matches!(self.state, State::Leader(_)) {
            return;
        }
        // Where one is under way already, that will do. One that is short of disk is better than none.
        if self.check_leading().is_ok()
            && let Some(to) = self.best_voter().filter(|to| self.check_heir(to).is_ok())
        {
            self.begin_transfer(to);
        }
        let under_way = if let State::Leader(lead) = &mut self.state { lead.transfer.as_mut() } else { None };
        match under_way {
            Some(transfer) => transfer.steps_down = true,
            None => self.follow(self.hard_state.term, None),
        }
    }

    /// Tells the successor to stand, once it has the whole log.
    fn hand_over(&mut self) {
        let last = self.log.last().index;
        let State::Leader(lead) = &mut self.state else { return };
        let Some(transfer) = lead.transfer.as_mut().filter(|transfer| !transfer.has_told) else { return };
        if lead.progress.get(&transfer.to).is_some_and(|progress| progress.matched == last) {
            transfer.has_told = true;
            lead.has_stepped_aside = true;
            let to = transfer.to.clone();
            self.send(&to, Message::TimeoutNow);
        }
    }

    /// A witness leads only until a voter with the data has the log, committed or not: what it would take to commit may be a
    /// snapshot for another member, and a witness has none to send.
    fn hand_over_to_full_voter(&mut self) {
        let State::Leader(lead) = &self.state else { return };
        if !self.is_witness() || lead.transfer.is_some() {
            return;
        }
        if let Some(to) = self.best_by(|peer| Some(peer.matched)) {
            let until = self.now.monotonic + self.config.election_timeout * 4;
            if let State::Leader(lead) = &mut self.state {
                lead.transfer = Some(Transfer { to, until, has_told: false, steps_down: false });
            }
            self.hand_over();
        }
    }

    /// The others, as this leader knows them.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let State::Leader(lead) = &self.state else { return Vec::new() };
        let describe = |(id, progress): (&NodeId, &Progress)| Peer {
            id: id.clone(),
            matched: progress.matched,
            flow: progress.flow,
            silent: self.now.monotonic.saturating_sub(progress.heard),
            command_version: progress.command_version,
            is_disk_low: progress.is_disk_low,
        };
        lead.progress.iter().map(describe).collect()
    }

    /// The members in whose names another disk speaks.
    pub(super) fn replaced(&self) -> Vec<NodeId> {
        let State::Leader(lead) = &self.state else { return Vec::new() };
        let is_replaced = |(_, progress): &(&NodeId, &Progress)| progress.replaced;
        lead.progress.iter().filter(is_replaced).map(|(id, _)| id.clone()).collect()
    }

    /// The first entry that a member which answers still lacks: the log is kept from here on, as far as its limit goes.
    pub fn wanted_from(&self) -> Option<LogIndex> {
        let State::Leader(lead) = &self.state else { return None };
        lead.progress.values().map(|progress| progress.matched.next()).min()
    }
}
