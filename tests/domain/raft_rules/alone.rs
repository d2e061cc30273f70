//! A group of one is led in Raft's order too.

use super::Group;
use super::group::{command, disk_of, id, voters};
use chronos::ids::Term;
use chronos::raft::{
    Config, HardState, Member, Membership, Message, Naming, Node, Payload, Recovered, Role, bootstrap,
};

fn recovered(membership: &Membership) -> Recovered {
    Recovered { membership: membership.clone(), ..Recovered::default() }
}

#[test]
fn its_vote_is_durable_before_it_counts() {
    let mut group = Group::of(&[], &voters(&["a"]));
    group.slow_disks = true;
    group.place("a", disk_of("a"), vec![bootstrap(&voters(&["a"]))]);
    assert_eq!(group.role("a"), Role::Candidate);
    assert!(group.machine("a").hard_state.vote.is_none());
    group.persist("a");
    assert!(group.leads("a"));
    assert_eq!(group.machine("a").hard_state.term, Term(2));
    assert!(group.machine("a").hard_state.vote.is_some());
}

#[test]
fn it_raises_its_term_at_every_start() {
    let mut group = Group::new(&["a"]);
    group.tick("a");
    let term = group.term("a");
    group.restart("a");
    group.tick("a");
    assert!(group.leads("a") && group.term("a") > term);
}

#[test]
fn reads_wait_for_the_first_entry_of_its_own() {
    let mut group = Group::led(&["a"]);
    group.propose("a", b"x").unwrap();
    group.slow_disks = true;
    group.restart("a");
    let now = group.now();
    group.persist("a");
    group.persist("a");
    assert!(group.leads("a") && group.node("a").may_read(), "its disk has worked, for its vote and for the entry");
    group.restart("a");
    // The vote becomes durable, and the entry that follows it does not.
    let this = id("a");
    let vote = Message::VoteReply { granted: true };
    let term = group.term("a");
    group.step(&this.0, "a", term, vote);
    assert!(group.leads("a") && !group.node("a").may_read() && !group.node("a").holds_lease(now.monotonic));
    assert_eq!(group.read("a", 1), None);
    group.persist("a");
    let committed = chronos::ids::LogIndex(group.committed("a"));
    assert_eq!(group.answer("a", 1).unwrap().index, Some(committed));
}

#[test]
fn stamps_rise_while_the_wall_clock_goes_back() {
    let mut group = Group::new(&["a"]);
    group.tick("a");
    for n in 0..5_u8 {
        group.wall_offset -= 3_600_000;
        group.propose("a", &[n]).unwrap();
    }
    let stamps: Vec<_> = group.machine("a").log.iter().map(|entry| entry.hlc).collect();
    assert!(stamps.len() >= 7 && stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    let now = group.now();
    assert!(group.node("a").instant(now.wall) >= stamps[stamps.len() - 1]);
}

#[test]
fn proposals_above_the_limit_are_refused_until_some_are_applied() {
    let mut group = Group::new(&["a"]);
    group.shape = |config| config.proposals_bytes_max = 100;
    group.restart("a");
    group.tick("a");
    group.machine("a").disk_waits = true;
    group.propose("a", &[0; 300]).unwrap();
    let refused = group.propose("a", &[0; 1]).unwrap_err();
    assert!(refused.message().contains("overloaded, retry: 300 bytes"), "{refused:?}");
    assert!(refused.is_retryable());
    group.persist("a");
    group.propose("a", &[0; 1]).unwrap();
}

#[test]
fn a_renamed_node_says_so_in_the_log() {
    let mut config = Config::new(id("b"), disk_of("b"), 1);
    config.naming = Naming::Renamed;
    let mut recovered = recovered(&Membership::single(&id("a")));
    recovered.append(&command(1, 1));
    recovered.hard_state = HardState { term: Term(1), ..HardState::default() };
    let mut node = Node::recover(config, recovered).unwrap();
    let mut group = Group::new(&["a"]);
    node.tick(group.now());
    let ready = node.take_ready();
    for envelope in ready.after_persist {
        node.step(envelope, group.now());
    }
    let entries = node.take_ready().entries;
    assert_eq!(node.role(), Role::Leader);
    let renamed = entries.iter().any(|entry| match Payload::decode(&entry.payload).unwrap() {
        Payload::Membership(membership) => membership.get(&id("b")).is_some() && membership.get(&id("a")).is_none(),
        Payload::Noop | Payload::Command(_) => false,
    });
    assert!(renamed, "{entries:?}");
    group.millis += 1;
}

#[test]
fn a_directory_of_another_group_is_refused_by_name() {
    let refused =
        Node::recover(Config::new(id("b"), disk_of("b"), 1), recovered(&Membership::single(&id("a")))).unwrap_err();
    assert!(refused.message().contains("belongs to a alone, not to b"), "{refused:?}");
    let mut config = Config::new(id("d"), disk_of("d"), 1);
    config.naming = Naming::Renamed;
    let refused = Node::recover(config, recovered(&voters(&["a", "b", "c"]))).unwrap_err();
    assert!(refused.message().contains("only the single member"), "{refused:?}");
}

#[test]
fn a_group_of_one_commits_with_its_own_disk_alone() {
    let mut group = Group::new(&["a"]);
    group.tick("a");
    assert!(group.machine("a").commit_on_persist);
    let index = group.propose("a", b"x").unwrap();
    assert_eq!(group.committed("a"), index.0);
    let status = group.node("a").status();
    assert_eq!((status.proposals_bytes, status.leader, status.peers.len()), (0, Some(id("a")), 0));
}

#[test]
fn a_group_of_one_is_known_by_its_directory_whatever_others_say() {
    let mut group = Group::led(&["a"]);
    group.step("z", "a", 9, Message::NewDisk);
    group.pass(1000);
    assert!(group.leads("a"));
    group.propose("a", b"x").unwrap();
    assert_eq!(group.machine("a").hard_state.quarantined_until, None);
}

#[test]
fn a_group_of_one_grows_and_then_waits_for_both() {
    let mut group = Group::led(&["a"]);
    group.tick("a");
    group.place("b", disk_of("b"), vec![]);
    let now = group.now();
    let add = chronos::raft::Change::Add { id: id("b"), address: "b:1".into(), role: Member::default().role };
    group.node("a").change(&add, now).unwrap();
    group.pump("a");
    group.pass(2000);
    assert_eq!(group.node("a").membership().quorum(), 2);
    group.cut.push("b");
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert!(group.committed("a") < index.0, "two nodes commit only with both");
    assert_eq!(bootstrap(&voters(&["a"])).index.0, 1);
}
