//! A witness votes and keeps the log, and has no state: it leads only until somebody else can.

use super::Group;
use super::group::{id, voters};
use chronos::raft::{MemberRole, Message, Role};

fn with_witness() -> Group {
    let mut membership = voters(&["a", "b", "w"]);
    membership.members.get_mut(&id("w")).unwrap().role = MemberRole::Witness;
    let mut group = Group::of(&["a", "b", "w"], &membership);
    group.elect("a");
    group.settle();
    group
}

#[test]
fn a_witness_counts_towards_commit() {
    let mut group = with_witness();
    group.cut = vec!["b"];
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.committed("a"), index.0);
    assert_eq!(group.machine("w").last().index, index, "it stores full entries");
}

#[test]
fn a_witness_waits_two_timeouts_longer_before_it_stands() {
    let mut group = with_witness();
    group.cut = vec!["a", "b"];
    group.wire.clear();
    group.pass(1450);
    assert_eq!(group.role("w"), Role::Follower);
    group.pass(700);
    assert_eq!(group.role("w"), Role::Candidate);
}

#[test]
fn a_witness_that_leads_refuses_clients_and_hands_over_to_a_full_voter() {
    let mut group = with_witness();
    group.cut = vec!["b"];
    group.propose("a", b"x").unwrap();
    group.deliver();
    group.cut = vec!["a"];
    // b lacks the entry, so the witness alone can be elected, and brings it up to date.
    group.machine("b").disk_waits = true;
    group.millis += 3000;
    group.stand("w");
    for _ in 0..40 {
        group.deliver_one();
        group.persist("b");
        if group.leads("w") {
            break;
        }
    }
    assert!(group.leads("w"));
    let refused = group.propose("w", b"y").unwrap_err();
    assert!(refused.message().contains("a witness leads until"), "{refused:?}");
    assert_eq!(group.read("w", 1).unwrap().index, None);
    let now = group.now();
    assert!(!group.node("w").may_read() && !group.node("w").holds_lease(now.monotonic));
    group.machine("b").disk_waits = false;
    group.persist("b");
    group.pass(1000);
    assert!(group.leads("b"));
    assert_eq!(group.machine("b").last().index, group.machine("w").last().index);
    assert!(group.sent.iter().any(|e| e.from == id("w") && e.message == Message::TimeoutNow));
}

#[test]
fn a_witness_takes_no_reads() {
    let mut group = with_witness();
    assert_eq!(group.read("w", 1).unwrap().index, None);
}

#[test]
fn a_new_witness_learns_first() {
    let mut group = Group::led(&["a", "b"]);
    group.place("w", super::group::disk_of("w"), vec![]);
    let add = super::members::add("w", MemberRole::Witness);
    super::members::change(&mut group, "a", &add).unwrap();
    assert_eq!(group.node("a").membership().get(&id("w")).unwrap().role, MemberRole::LearningWitness);
    group.pass(1500);
    assert_eq!(group.node("a").membership().get(&id("w")).unwrap().role, MemberRole::Witness);
}
