//! Nodes, disks and wires that move only when told.

use chronos::clock::Wall;
use chronos::hlc::Timestamp;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{
    Config, Entry, Envelope, HardState, Load, Member, MemberRole, Membership, Message, Node, NodeId, Now, Payload,
    Position, ReadAnswer, Ready, Recovered, Role, Terms, bootstrap,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Rounds of messages after which a group that still talks is taken to do so for ever.
const ROUNDS_MAX: usize = 200;

/// One node, and what surrounds it.
pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) disk: DiskId,
    pub(super) hard_state: HardState,
    pub(super) log: Vec<Entry>,
    pub(super) previous: Position,
    /// What the log up to `previous` said of the group.
    base: Membership,
    queue: VecDeque<Ready>,
    /// Nothing becomes durable until `persist`.
    pub(super) disk_waits: bool,
    pub(super) reads: Vec<ReadAnswer>,
    pub(super) loads: Vec<Load>,
    /// Loads are answered by the test.
    pub(super) holds_loads: bool,
    pub(super) snapshots: Vec<NodeId>,
    pub(super) commit_on_persist: bool,
    committed: LogIndex,
}

pub(super) struct Group {
    pub(super) machines: BTreeMap<&'static str, Machine>,
    pub(super) wire: VecDeque<Envelope>,
    /// Everything that was ever sent.
    pub(super) sent: Vec<Envelope>,
    /// Nodes that nothing reaches and that reach nobody.
    pub(super) cut: Vec<&'static str>,
    pub(super) millis: u64,
    /// Milliseconds that the wall clock is off.
    pub(super) wall_offset: i64,
    pub(super) shape: fn(&mut Config),
    /// Disks of machines placed from now on wait.
    pub(super) slow_disks: bool,
}

pub(super) fn id(name: &str) -> NodeId {
    NodeId(name.into())
}

pub(super) fn disk_of(name: &str) -> DiskId {
    DiskId(u128::from(name.as_bytes()[0]))
}

/// Voters as their operator lists them.
pub(super) fn base(names: &[&str]) -> Membership {
    let member = |name: &str| Member { role: MemberRole::Voter, address: format!("{name}:1"), disk: None };
    Membership::of(names.iter().map(|name| (id(name), member(name))))
}

/// The same in a group that knows already what they understand.
pub(super) fn voters(names: &[&str]) -> Membership {
    Membership { command_version: chronos::machine::COMMAND_VERSION, ..base(names) }
}

/// The same, with their disks written down: a group that was founded before.
pub(super) fn bound(names: &[&str]) -> Membership {
    let mut membership = voters(names);
    for (id, member) in &mut membership.members {
        member.disk = Some(disk_of(&id.0));
    }
    membership
}

/// An answer to a round of heartbeats by somebody whose wall clock is `wall`.
pub(super) fn heartbeat_reply(round: u64, wall: Wall) -> Message {
    let command_version = chronos::machine::COMMAND_VERSION;
    Message::HeartbeatReply { round, command_version, quarantined_until: None, wall, is_disk_low: false }
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

pub(super) fn command(index: u64, term: u64) -> Entry {
    let payload = Payload::Command(b"x").encode();
    Entry { index: LogIndex(index), term: Term(term), hlc: Timestamp(1_000_000 + index), payload }
}

pub(super) fn membership_entry(index: u64, term: u64, membership: &Membership) -> Entry {
    let payload = Payload::Membership(membership.clone()).encode();
    Entry { payload, ..command(index, term) }
}

impl Machine {
    fn new(config: Config, log: Vec<Entry>, hard_state: HardState, base: (Position, Membership)) -> Machine {
        let disk = config.disk;
        let (previous, base) = base;
        let node = recover(config, &log, &hard_state, previous, &base);
        Machine {
            node,
            disk,
            hard_state,
            log,
            previous,
            base,
            queue: VecDeque::new(),
            disk_waits: false,
            reads: Vec::new(),
            loads: Vec::new(),
            holds_loads: false,
            snapshots: Vec::new(),
            commit_on_persist: false,
            committed: LogIndex(0),
        }
    }

    /// Makes the oldest request durable; returns what may be sent thereby.
    fn complete(&mut self, ready: Ready) -> Vec<Envelope> {
        if let Some(hard_state) = ready.hard_state {
            self.hard_state = hard_state;
        }
        let last = ready.entries.last().map(|entry| Position { index: entry.index, term: entry.term });
        for entry in ready.entries {
            self.log.retain(|old| old.index < entry.index);
            self.log.push(entry);
        }
        if let Some(last) = last {
            self.node.persisted(last);
            if ready.commit_on_persist {
                self.committed = self.committed.max(last.index);
            }
        }
        ready.after_persist
    }

    pub(super) fn last(&self) -> Position {
        self.log.last().map_or(self.previous, |entry| Position { index: entry.index, term: entry.term })
    }
}

fn recover(config: Config, log: &[Entry], hard_state: &HardState, previous: Position, membership: &Membership) -> Node {
    let mut terms = Terms::after(previous);
    let mut recovered = Recovered {
        hard_state: hard_state.clone(),
        membership: membership.clone(),
        applied: previous.index,
        ..Recovered::default()
    };
    log.iter().for_each(|entry| assert!(terms.push(entry.term)));
    recovered.terms = Terms::after(previous);
    log.iter().for_each(|entry| recovered.append(entry));
    assert_eq!(recovered.terms.last(), terms.last());
    Node::recover(config, recovered).unwrap()
}

impl Group {
    /// Voters that have nothing but the first entry.
    pub(super) fn new(names: &[&'static str]) -> Group {
        Group::of(names, &voters(names))
    }

    pub(super) fn of(names: &[&'static str], membership: &Membership) -> Group {
        let mut group = Group {
            machines: BTreeMap::new(),
            wire: VecDeque::new(),
            sent: Vec::new(),
            cut: Vec::new(),
            millis: 10_000,
            wall_offset: 0,
            shape: |_| {},
            slow_disks: false,
        };
        let first = bootstrap(membership);
        names.iter().for_each(|name| group.place(name, disk_of(name), vec![first.clone()]));
        group
    }

    /// The same of a group that was founded before.
    pub(super) fn bound(names: &[&'static str]) -> Group {
        Group::of(names, &bound(names))
    }

    /// An empty disk in this machine, which starts as its group first did.
    pub(super) fn wipe(&mut self, name: &'static str, disk: u128, of: &Membership) {
        self.place(name, DiskId(disk), vec![bootstrap(of)]);
    }

    /// A leader `a` whose group is bound and agrees.
    pub(super) fn led(names: &[&'static str]) -> Group {
        let mut group = Group::new(names);
        group.elect("a");
        group.settle();
        group
    }

    /// A machine whose disk holds `log`.
    pub(super) fn place(&mut self, name: &'static str, disk: DiskId, log: Vec<Entry>) {
        let term = log.last().map_or(Term(0), |entry| entry.term);
        let hard_state = HardState { term, ..HardState::default() };
        self.place_with(name, disk, log, hard_state, (Position::default(), Membership::default()));
    }

    pub(super) fn place_with(
        &mut self,
        name: &'static str,
        disk: DiskId,
        log: Vec<Entry>,
        hard_state: HardState,
        base: (Position, Membership),
    ) {
        let mut config = Config::new(id(name), disk, u64::from(name.as_bytes()[0]));
        (self.shape)(&mut config);
        self.machines.insert(name, Machine::new(config, log, hard_state, base));
        let now = self.now();
        self.machine(name).disk_waits = self.slow_disks;
        self.machine(name).node.tick(now);
        self.pump(name);
    }

    pub(super) fn now(&self) -> Now {
        let wall = 1_700_000_000_000 + self.millis as i64 + self.wall_offset;
        Now { monotonic: Duration::from_millis(self.millis), wall: Wall(wall as u64) }
    }

    pub(super) fn machine(&mut self, name: &str) -> &mut Machine {
        self.machines.get_mut(name).unwrap()
    }

    pub(super) fn node(&mut self, name: &str) -> &mut Node {
        &mut self.machine(name).node
    }

    pub(super) fn role(&self, name: &str) -> Role {
        self.machines[name].node.role()
    }

    pub(super) fn term(&self, name: &str) -> u64 {
        self.machines[name].node.term().0
    }

    pub(super) fn committed(&self, name: &str) -> u64 {
        self.machines[name].node.committed().0
    }

    pub(super) fn leads(&self, name: &str) -> bool {
        self.role(name) == Role::Leader
    }

    /// Does what the node wants done.
    pub(super) fn pump(&mut self, name: &str) {
        let now = self.now();
        loop {
            let machine = self.machines.get_mut(name).unwrap();
            let mut ready = machine.node.take_ready();
            machine.commit_on_persist = ready.commit_on_persist;
            if ready.is_empty() {
                break;
            }
            machine.reads.append(&mut ready.reads);
            machine.loads.append(&mut ready.loads);
            machine.snapshots.append(&mut ready.snapshots);
            let messages = std::mem::take(&mut ready.messages);
            if let Some(committed) = ready.committed {
                machine.committed = machine.committed.max(committed.index);
            }
            let mut promised = Vec::new();
            if ready.writes() && machine.disk_waits {
                machine.queue.push_back(ready);
            } else {
                promised = machine.complete(ready);
            }
            messages.into_iter().for_each(|envelope| self.post(envelope));
            self.keep_promises(name, promised, now);
            self.apply(name);
            self.load(name, now);
        }
    }

    /// Reads from the disk what peers lack.
    fn load(&mut self, name: &str, now: Now) {
        let machine = self.machine(name);
        if machine.holds_loads {
            return;
        }
        for load in std::mem::take(&mut machine.loads) {
            let entries = machine.log.iter().filter(|entry| entry.index >= load.from).cloned().collect();
            machine.node.loaded(&load.peer, entries, now);
        }
    }

    fn keep_promises(&mut self, name: &str, promised: Vec<Envelope>, now: Now) {
        for envelope in promised {
            if envelope.to == id(name) {
                self.node(name).step(envelope, now);
            } else {
                self.post(envelope);
            }
        }
    }

    fn post(&mut self, envelope: Envelope) {
        self.sent.push(envelope.clone());
        self.wire.push_back(envelope);
    }

    fn apply(&mut self, name: &str) {
        let machine = self.machine(name);
        let durable = machine.last().index;
        let applied = machine.committed.min(durable);
        machine.node.applied(applied);
    }

    /// Everything that the disk was asked for becomes durable.
    pub(super) fn persist(&mut self, name: &str) {
        let now = self.now();
        while let Some(ready) = self.machine(name).queue.pop_front() {
            let promised = self.machine(name).complete(ready);
            self.keep_promises(name, promised, now);
            self.apply(name);
        }
        self.pump(name);
    }

    /// The process dies and starts again: what was not durable is gone.
    pub(super) fn restart(&mut self, name: &'static str) {
        let machine = self.machines.remove(name).unwrap();
        let base = (machine.previous, machine.base);
        self.place_with(name, machine.disk, machine.log, machine.hard_state, base);
    }

    /// Lets go of the log up to where the node has applied.
    pub(super) fn trim(&mut self, name: &str, index: u64) {
        let machine = self.machine(name);
        let position = at(index, machine.log.iter().find(|entry| entry.index.0 == index).unwrap().term.0);
        for entry in machine.log.iter().filter(|entry| entry.index.0 <= index) {
            if let Ok(Payload::Membership(membership)) = Payload::decode(&entry.payload) {
                machine.base = membership;
            }
        }
        machine.log.retain(|entry| entry.index.0 > index);
        machine.previous = position;
        machine.node.trimmed(position);
    }

    /// A message arrives, wherever it comes from.
    pub(super) fn step(&mut self, from: &str, to: &str, term: u64, message: Message) {
        self.step_from_disk(from, disk_of(from), to, term, message);
    }

    pub(super) fn step_from_disk(&mut self, from: &str, disk: DiskId, to: &str, term: u64, message: Message) {
        let envelope = Envelope { from: id(from), disk, to: id(to), term: Term(term), message };
        let now = self.now();
        self.node(to).step(envelope, now);
        self.pump(to);
    }

    /// Delivers the oldest message; false where there is none.
    pub(super) fn deliver_one(&mut self) -> bool {
        let Some(envelope) = self.wire.pop_front() else { return false };
        let now = self.now();
        let is_cut = self.cut.iter().any(|name| envelope.from == id(name) || envelope.to == id(name));
        if let Some(name) = self.machines.keys().copied().find(|name| envelope.to == id(name) && !is_cut) {
            self.node(name).step(envelope, now);
            self.pump(name);
        }
        true
    }

    /// Delivers until nobody says anything more.
    pub(super) fn deliver(&mut self) {
        for _ in 0..ROUNDS_MAX {
            for _ in 0..self.wire.len() {
                self.deliver_one();
            }
            if self.wire.is_empty() {
                return;
            }
        }
        panic!("they talk for ever");
    }

    /// What is on the wire arrives only after so long, and so do its answers.
    pub(super) fn deliver_after(&mut self, millis: u64) {
        self.millis += millis;
        self.deliver();
    }

    /// Time passes at all nodes, with heartbeats and all.
    pub(super) fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.millis += 50;
            for name in self.machines.keys().copied().collect::<Vec<_>>() {
                self.tick(name);
            }
            self.deliver();
        }
    }

    pub(super) fn tick(&mut self, name: &str) {
        let now = self.now();
        self.node(name).tick(now);
        self.pump(name);
    }

    /// Enough time for a leader to have written everything down.
    pub(super) fn settle(&mut self) {
        self.deliver();
        self.pass(400);
    }

    /// Time passes until this node alone stands, and is elected where it can be.
    pub(super) fn elect(&mut self, name: &str) {
        self.stand(name);
        self.deliver();
        assert!(self.leads(name), "{name} was not elected");
    }

    /// Whoever leads hands over to this node.
    pub(super) fn elect_by_transfer(&mut self, name: &str) {
        let now = self.now();
        if let Some(leader) = self.machines.keys().copied().find(|other| self.leads(other) && *other != name) {
            self.node(leader).transfer(Some(&id(name)), now).unwrap();
            self.pump(leader);
            self.deliver();
            self.pass(300);
        }
        assert!(self.leads(name), "{name} was not elected");
    }

    /// Time passes until this node alone asks around.
    pub(super) fn stand(&mut self, name: &str) {
        self.wire.clear();
        for _ in 0..80 {
            self.millis += 50;
            self.tick(name);
            if self.role(name) == Role::Candidate {
                return;
            }
        }
    }

    pub(super) fn propose(&mut self, name: &str, command: &[u8]) -> chronos::Result<LogIndex> {
        let now = self.now();
        let index = self.node(name).propose(command, now);
        self.pump(name);
        index
    }

    /// Asks for a read; its answer so far, after all messages are through.
    pub(super) fn read(&mut self, name: &str, ask: u64) -> Option<ReadAnswer> {
        let now = self.now();
        self.node(name).read(ask, now);
        self.pump(name);
        self.deliver();
        self.answer(name, ask)
    }

    pub(super) fn answer(&self, name: &str, ask: u64) -> Option<ReadAnswer> {
        self.machines[name].reads.iter().find(|answer| answer.id == ask).cloned()
    }

    /// What was sent to `to` since the last call, of all that is on the wire.
    pub(super) fn take(&mut self) -> Vec<Envelope> {
        self.wire.drain(..).collect()
    }
}

/// The votes among messages: (to, granted).
pub(super) fn votes(messages: &[Envelope]) -> Vec<(String, bool)> {
    let vote = |envelope: &Envelope| match envelope.message {
        Message::VoteReply { granted } | Message::PreVoteReply { granted } => Some((envelope.to.0.clone(), granted)),
        _ => None,
    };
    messages.iter().filter_map(vote).collect()
}
