//! One node of a group: dispatch of inputs, transitions between roles.

use crate::clock::{Monotonic, Wall};
use crate::hlc::{Hlc, Timestamp};
use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, HardState, Membership, Message, NodeId, Payload, Ready};
use crate::{Error, Result};
use std::collections::VecDeque;

/// What is settled when a node starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Bytes of proposals that may wait to be applied; above it a proposal is refused.
    pub proposals_bytes_max: usize,
    /// What to do where the log knows this node by another name.
    pub naming: Naming,
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
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The group, from the log or the state record.
    pub membership: Membership,
    /// Position and term of the last entry in the log.
    pub last: (LogIndex, Term),
    /// What the state machine holds.
    pub applied: LogIndex,
    /// The highest stamp in log and state.
    pub hlc: Timestamp,
}

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes what the leader sends.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
}

/// What an operator may ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node's role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Everything up to here is committed.
    pub committed: LogIndex,
    /// Everything up to here is in the state machine.
    pub applied: LogIndex,
    /// End of the log.
    pub last: LogIndex,
    /// Bytes proposed and not yet applied.
    pub proposals_bytes: usize,
    /// The group.
    pub membership: Membership,
}

/// The consensus core of one node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    membership: Membership,
    hard_state: HardState,
    role: Role,
    hlc: Hlc,
    last: (LogIndex, Term),
    persisted: LogIndex,
    committed: LogIndex,
    applied: LogIndex,
    /// The group that this node announces once it leads, where the operator has renamed the node.
    renamed: Option<Membership>,
    /// First entry of this leader's own term: once it is committed, so is everything before it (5.4.2).
    leader_since: Option<LogIndex>,
    /// (index, bytes) of entries proposed here and not yet applied.
    in_flight: VecDeque<(LogIndex, usize)>,
    in_flight_bytes: usize,
    ready: Ready,
}

impl Node {
    /// A node that goes on from what is durable, as a follower. Boot and restart both come here.
    pub fn recover(config: Config, recovered: Recovered) -> Result<Node> {
        let renamed = match config.naming {
            Naming::Renamed if recovered.membership.voters.len() == 1 => Some(Membership::single(&config.id)),
            Naming::Renamed | Naming::Kept => None,
        };
        let renamed = renamed.filter(|membership| *membership != recovered.membership);
        if renamed.is_none() && !recovered.membership.is_only(&config.id) {
            let voters: Vec<&str> = recovered.membership.voters.iter().map(|voter| voter.0.as_str()).collect();
            return Err(Error::invalid(
                crate::error::SqlState::CONFIG_ERROR,
                format!("this directory belongs to the group [{}], not to {} alone", voters.join(", "), config.id),
            )
            .hint("start with the --id that it has, or with --rename, which the only member of a group may be given"));
        }
        Ok(Node {
            config,
            membership: renamed.clone().unwrap_or(recovered.membership),
            renamed,
            hard_state: recovered.hard_state,
            role: Role::Follower,
            hlc: Hlc::recover(recovered.hlc),
            last: recovered.last,
            persisted: recovered.last.0,
            committed: recovered.applied,
            applied: recovered.applied,
            leader_since: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            ready: Ready { commit_on_persist: true, ..Ready::default() },
        })
    }

    /// Time passed. A follower that is the only voter need not wait for anyone: it stands at once.
    pub fn tick(&mut self, _now: Monotonic) {
        match self.role {
            Role::Follower => self.stand(),
            Role::Candidate | Role::Leader => {}
        }
    }

    /// A message arrived, from a peer or from this node's own disk.
    pub fn step(&mut self, message: Message, wall: Wall) {
        match message {
            Message::Vote { term, candidate, .. } => {
                let counts =
                    self.role == Role::Candidate && term == self.hard_state.term && candidate == self.config.id;
                if counts && self.membership.quorum() <= 1 {
                    self.lead(wall);
                }
            }
        }
    }

    /// Appends a command and returns its position. The answer comes from the state machine when it is applied.
    pub fn propose(&mut self, command: &[u8], wall: Wall) -> Result<LogIndex> {
        match self.role {
            Role::Leader => {}
            Role::Follower | Role::Candidate => {
                return Err(Error::unavailable(format!("no leader (term {})", self.hard_state.term)));
            }
        }
        // One proposal is always let through, or a command larger than the limit could never be.
        if self.in_flight_bytes > 0 && self.in_flight_bytes + command.len() > self.config.proposals_bytes_max {
            return Err(Error::overloaded(format!(
                "overloaded, retry: {} bytes of writes wait to be applied",
                self.in_flight_bytes
            )));
        }
        let index = self.append(&Payload::Command(command), wall);
        self.in_flight.push_back((index, command.len()));
        self.in_flight_bytes += command.len();
        Ok(index)
    }

    /// The log is durable up to `index`, which the log thread reports in order.
    pub fn persisted(&mut self, index: LogIndex) {
        assert!(index <= self.last.0, "persisted {index} is beyond the end of the log, {}", self.last.0);
        self.persisted = self.persisted.max(index);
        // Entries of older terms count only behind one of the leader's own (5.4.2).
        if self.leader_since.is_some_and(|since| self.persisted >= since) && self.persisted > self.committed {
            self.committed = self.persisted;
            self.ready.committed = Some(self.committed);
        }
    }

    /// The state machine holds everything up to `index`.
    pub fn applied(&mut self, index: LogIndex) {
        self.applied = self.applied.max(index);
        while let Some(&(first, bytes)) = self.in_flight.front() {
            if first > self.applied {
                break;
            }
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
    }

    /// What is to be done since the last call.
    pub fn take_ready(&mut self) -> Ready {
        std::mem::replace(&mut self.ready, Ready { commit_on_persist: true, ..Ready::default() })
    }

    /// An instant not below any stamp of the log: what `now()` and expiry are judged by.
    pub fn instant(&self, wall: Wall) -> Timestamp {
        self.hlc.high().max(Timestamp::at(wall))
    }

    /// True once an entry of this leader's own term is committed: reads may be served (6.4).
    pub fn may_read(&self) -> bool {
        self.role == Role::Leader && self.leader_since.is_some_and(|since| self.applied >= since)
    }

    /// Role, term and positions.
    pub fn status(&self) -> Status {
        Status {
            role: self.role,
            term: self.hard_state.term,
            committed: self.committed,
            applied: self.applied,
            last: self.last.0,
            proposals_bytes: self.in_flight_bytes,
            membership: self.membership.clone(),
        }
    }

    fn stand(&mut self) {
        self.role = Role::Candidate;
        self.hard_state.term = Term(self.hard_state.term.0 + 1);
        self.hard_state.vote = Some(self.config.id.number());
        self.ready.hard_state = Some(self.hard_state.clone());
        // The vote must be durable before it counts, or a restart could vote twice in one term.
        self.ready.after_persist.push(Message::Vote {
            term: self.hard_state.term,
            from: self.config.id.clone(),
            candidate: self.config.id.clone(),
        });
    }

    fn lead(&mut self, wall: Wall) {
        self.role = Role::Leader;
        self.leader_since = Some(self.append(&Payload::Noop, wall));
        if let Some(membership) = self.renamed.take() {
            // It counts from the append on (4.1), so the log's next segments begin with it.
            self.hard_state.membership = membership.encode();
            self.ready.hard_state = Some(self.hard_state.clone());
            self.leader_since = Some(self.append(&Payload::Membership(membership), wall));
        }
    }

    fn append(&mut self, payload: &Payload<'_>, wall: Wall) -> LogIndex {
        let index = self.last.0.next();
        let term = self.hard_state.term;
        self.ready.entries.push(Entry { index, term, hlc: self.hlc.tick(wall), payload: payload.encode() });
        self.last = (index, term);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let id = NodeId("node1".into());
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), ..HardState::default() },
            membership: Membership::single(&id),
            last: (LogIndex(1), Term(1)),
            applied: LogIndex(1),
            hlc: Timestamp(1),
        };
        Node::recover(Config { id, proposals_bytes_max: 100, naming: Naming::Kept }, recovered).unwrap()
    }

    fn leader() -> Node {
        let mut node = node();
        node.tick(Monotonic::ZERO);
        let ready = node.take_ready();
        node.step(ready.after_persist[0].clone(), Wall(5));
        node
    }

    #[test]
    fn a_vote_is_durable_before_it_counts() {
        let mut node = node();
        node.tick(Monotonic::ZERO);
        let ready = node.take_ready();
        assert_eq!(
            ready.hard_state,
            Some(HardState { term: Term(2), vote: Some(NodeId("node1".into()).number()), ..HardState::default() })
        );
        assert_eq!(node.status().role, Role::Candidate);
        assert!(ready.entries.is_empty(), "nothing is appended before the vote is durable");
        node.step(ready.after_persist[0].clone(), Wall(5));
        assert_eq!(node.status().role, Role::Leader);
    }

    #[test]
    fn older_entries_commit_only_behind_one_of_the_leaders_own_term() {
        let mut node = leader();
        node.persisted(LogIndex(1));
        assert_eq!(node.take_ready().committed, None);
        node.persisted(LogIndex(2));
        assert_eq!(node.take_ready().committed, Some(LogIndex(2)));
    }

    #[test]
    fn reads_wait_for_the_leaders_first_entry() {
        let mut node = leader();
        node.persisted(LogIndex(2));
        assert!(!node.may_read());
        node.applied(LogIndex(2));
        assert!(node.may_read());
    }

    #[test]
    fn stamps_rise_strictly_while_the_wall_clock_goes_back() {
        let mut node = leader();
        node.propose(b"a", Wall(1000)).unwrap();
        node.propose(b"b", Wall(10)).unwrap();
        let entries = node.take_ready().entries;
        assert!(entries.windows(2).all(|pair| pair[0].hlc < pair[1].hlc));
    }

    #[test]
    fn proposals_above_the_limit_are_refused_until_some_are_applied() {
        let mut node = leader();
        let index = node.propose(&[0; 90], Wall(1)).unwrap();
        let refused = node.propose(&[0; 20], Wall(1)).unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::Overloaded);
        node.persisted(index);
        node.applied(index);
        node.propose(&[0; 20], Wall(1)).unwrap();
    }

    fn of_another_name(naming: Naming, voters: &[&str]) -> Result<Node> {
        let id = NodeId("node1".into());
        let recovered = Recovered {
            hard_state: HardState::default(),
            membership: Membership { voters: voters.iter().map(|id| NodeId((*id).into())).collect() },
            last: (LogIndex(1), Term(1)),
            applied: LogIndex(1),
            hlc: Timestamp(1),
        };
        Node::recover(Config { id, proposals_bytes_max: 1, naming }, recovered)
    }

    #[test]
    fn a_directory_of_another_group_is_refused() {
        let refused = of_another_name(Naming::Kept, &["node2"]).unwrap_err();
        assert!(refused.message().contains("node2"), "{refused}");
        assert!(of_another_name(Naming::Renamed, &["node2", "node3"]).is_err(), "nobody renames a member of a group");
    }

    #[test]
    fn a_renamed_node_says_so_before_it_serves() {
        let mut node = of_another_name(Naming::Renamed, &["node2"]).unwrap();
        node.tick(Monotonic::ZERO);
        let stood = node.take_ready();
        assert!(stood.entries.is_empty());
        node.step(stood.after_persist[0].clone(), Wall(5));
        let led = node.take_ready();
        let named = Membership::single(&NodeId("node1".into()));
        assert_eq!(Payload::decode(&led.entries[0].payload).unwrap(), Payload::Noop, "ends what older terms began");
        assert_eq!(Payload::decode(&led.entries[1].payload).unwrap(), Payload::Membership(named.clone()));
        node.persisted(led.entries[0].index);
        node.applied(led.entries[0].index);
        assert!(!node.may_read());
        node.persisted(led.entries[1].index);
        node.applied(led.entries[1].index);
        assert!(node.may_read());
        assert_eq!(led.hard_state.unwrap().membership, named.encode());
    }
}
