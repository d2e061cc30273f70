//! A node is its disk: a name with another disk has lost what it promised.

use super::Group;
use super::group::{at, disk_of, id, votes};
use super::members::{add, change, remove};
use chronos::ids::LogIndex;
use chronos::raft::{MemberRole, Message, Outcast, Verdict, bootstrap};

#[test]
fn disks_are_written_down_before_the_first_write() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.stand("a");
    while !group.leads("a") {
        group.deliver_one();
    }
    let refused = group.propose("a", b"x").unwrap_err();
    assert!(refused.message().contains("the group has just begun"), "{refused:?}");
    group.settle();
    group.propose("a", b"x").unwrap();
    let disks: Vec<_> = group.node("a").membership().members.values().map(|member| member.disk).collect();
    assert_eq!(disks, ["a", "b", "c"].map(|name| Some(disk_of(name))));
}

#[test]
fn a_member_with_a_new_disk_is_told_so_and_does_not_count() {
    let mut group = Group::led(&["a", "b", "c"]);
    let index = group.machine("a").last().index;
    group.cut = vec!["b", "c"];
    group.propose("a", b"x").unwrap();
    group.take();
    let new = disk_of("x");
    group.step_from_disk("b", new, "a", 2, Message::AppendReply(Verdict::Accepted { matched: index.next() }));
    assert!(group.committed("a") <= index.0);
    assert_eq!(group.take()[0].message, Message::NewDisk);
    group.millis += 2000;
    for message in [Message::PreVote { last: at(1, 1) }, Message::Vote { last: at(1, 1), transfer: false }] {
        group.step_from_disk("b", new, "c", 3, message);
        let answers = group.take();
        assert!(votes(&answers).is_empty() && answers[0].message == Message::NewDisk);
    }
    assert_eq!(group.term("c"), 2);
}

#[test]
fn who_was_added_again_behind_the_end_of_a_log_gets_its_vote() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.millis += 2000;
    group.take();
    let new = disk_of("x");
    group.step_from_disk("a", new, "b", 3, Message::PreVote { last: at(99, 2) });
    group.step_from_disk("a", new, "b", 3, Message::Vote { last: at(99, 2), transfer: false });
    assert_eq!(votes(&group.take()), [("a".to_owned(), true), ("a".to_owned(), true)], "or the two could elect nobody");
}

#[test]
fn a_vote_of_a_new_disk_does_not_count() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.stand("b");
    group.take();
    group.step_from_disk("c", disk_of("x"), "b", 3, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("b"), 2);
    group.step("c", "b", 3, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("b"), 3);
}

#[test]
fn who_hears_that_its_disk_is_new_neither_stands_nor_votes() {
    let mut group = Group::led(&["a", "b", "c"]);
    let first = bootstrap(&super::group::voters(&["a", "b", "c"]));
    group.place("c", disk_of("x"), vec![first]);
    group.pass(500);
    assert_eq!(group.node("c").status().outcast, Some(Outcast::NewDisk));
    let term = group.term("c");
    group.cut = vec!["a", "b"];
    group.pass(3000);
    assert_eq!(group.term("c"), term);
    group.take();
    group.step("b", "c", term + 1, Message::Vote { last: at(99, 9), transfer: true });
    assert_eq!(votes(&group.take()), [("b".to_owned(), false)]);
}

#[test]
fn who_is_written_down_does_not_believe_others_that_it_is_new() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("c", "b", 2, Message::NewDisk);
    group.cut = vec!["a"];
    group.stand("b");
    group.deliver();
    assert!(group.leads("b"), "their logs may lag behind its own");
}

#[test]
fn the_first_disk_that_a_leader_hears_counts_until_one_is_written_down() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.elect("a");
    group.settle();
    group.step("c", "a", 2, Message::HeartbeatReply { round: 1, command_version: 1, quarantined_until: None });
    group.take();
    let reply = Message::HeartbeatReply { round: 1, command_version: 1, quarantined_until: None };
    group.step_from_disk("c", disk_of("x"), "a", 2, reply);
    assert_eq!(group.take()[0].message, Message::NewDisk);
    group.pass(200);
    assert_eq!(group.node("a").membership().get(&id("c")).unwrap().disk, Some(disk_of("c")));
}

#[test]
fn once_disks_are_written_down_others_do_not_count() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.elect("a");
    group.settle();
    assert_eq!(group.node("b").membership().get(&id("c")).unwrap().disk, None);
    // Whatever disk speaks for c, a leader that knows of it must write it down first: it may be another one tomorrow.
    group.cut = vec!["a"];
    group.stand("b");
    let term = group.term("b");
    group.step("c", "b", term + 1, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("b"), term);
    group.step("a", "b", term + 1, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("b"), term + 1);
}

#[test]
fn a_removed_disk_does_not_pass_for_the_new_member_of_its_name() {
    let mut group = Group::led(&["a", "b", "c"]);
    change(&mut group, "a", &remove("c")).unwrap();
    group.settle();
    let old = disk_of("c");
    group.place("c", disk_of("x"), vec![]);
    change(&mut group, "a", &add("c", MemberRole::Voter)).unwrap();
    group.take();
    group.step_from_disk("c", old, "a", 2, Message::AppendReply(Verdict::Accepted { matched: LogIndex(1) }));
    assert_eq!(group.take()[0].message, Message::Removed);
    group.pass(2000);
    let member = group.node("a").membership().get(&id("c")).unwrap().clone();
    assert_eq!((member.disk, member.role), (Some(disk_of("x")), MemberRole::Voter));
}

#[test]
fn a_leader_is_followed_whatever_the_log_says_of_its_disk() {
    let mut group = Group::led(&["a", "b", "c"]);
    let beat = Message::Heartbeat { commit: LogIndex(0), round: 1, confirmed: None };
    group.step_from_disk("c", disk_of("x"), "b", 5, beat);
    assert_eq!(group.node("b").leader(), Some(&id("c")), "a quorum that knows it has elected it");
    group.step_from_disk("b", disk_of("x"), "b", 5, Message::VoteReply { granted: true });
    assert_eq!(group.term("b"), 5);
}

#[test]
fn a_stranger_is_told_by_the_leader_that_it_is_no_member() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.take();
    group.step("z", "a", 9, Message::PreVote { last: at(9, 9) });
    assert_eq!(group.take()[0].message, Message::Removed);
    group.step("z", "a", 9, Message::NewDisk);
    group.step("z", "a", 9, Message::Removed);
    assert!(group.take().is_empty() && group.leads("a"), "two nodes never send each other away for ever");
}
