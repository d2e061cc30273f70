//! A node is its disk: a name with another disk has lost what it promised.

use super::Group;
use super::group::{at, bound, command, disk_of, heartbeat_reply, id, membership_entry, voters, votes};
use super::members::{add, change, remove};
use chronos::clock::Wall;
use chronos::ids::{LogIndex, Term};
use chronos::raft::{HardState, MemberRole, Message, NodeId, Outcast, Verdict, bootstrap};

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
    let replaced = |group: &mut Group| group.node("a").status().replaced;
    assert_eq!(replaced(&mut group), [NodeId("b".to_owned())], "its leader says which");
    group.step("b", "a", 2, Message::AppendReply(Verdict::Accepted { matched: index }));
    assert_eq!(replaced(&mut group), [], "the disk that it had is back");
    group.take();
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
fn the_disk_that_a_voter_has_voted_with_is_the_one_that_is_written_down() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.stand("a");
    while !group.leads("a") {
        group.deliver_one();
    }
    // The machine is lost, and comes back empty, before anything was written down anywhere.
    group.take();
    group.step_from_disk("c", disk_of("x"), "a", 2, heartbeat_reply(1, Wall::default()));
    assert!(group.take().iter().any(|envelope| envelope.message == Message::NewDisk));
    assert_eq!(group.node("a").membership().get(&id("c")).unwrap().disk, Some(disk_of("c")));
}

#[test]
fn a_group_is_founded_by_all_of_its_voters() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.pass(5000);
    assert_eq!((group.term("a"), group.term("b")), (1, 1), "a quorum is not enough: c may be the one with the data");
    assert!(
        ["a", "b"].iter().any(|name| group.node(name).status().awaited == [id("c")]),
        "and who is missing is named"
    );
    group.cut.clear();
    group.pass(5000);
    let leader = ["a", "b", "c"].into_iter().find(|name| group.leads(name)).unwrap();
    group.propose(leader, b"x").unwrap();
}

#[test]
fn two_empty_disks_do_not_found_the_group_again() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.propose("a", b"x").unwrap();
    group.deliver();
    let (committed, first) = (group.committed("a"), voters(&["a", "b", "c"]));
    // Nobody who has the data is there to tell them.
    group.cut = vec!["a"];
    group.wipe("b", 1001, &first);
    group.wipe("c", 1002, &first);
    group.pass(5000);
    assert_eq!((group.term("b"), group.term("c")), (1, 1));
    group.cut.clear();
    group.pass(5000);
    assert!(!group.leads("b") && !group.leads("c") && !group.leads("a"), "no majority is left");
    assert_eq!((group.committed("a"), group.machine("a").last().index.0), (committed, committed));
    assert!(group.propose("b", b"y").is_err());
    // The disks were only unplugged.
    for name in ["b", "c"] {
        let log = group.machine("a").log.clone();
        group.place(name, disk_of(name), log);
    }
    group.pass(5000);
    let leader = ["a", "b", "c"].into_iter().find(|name| group.leads(name)).unwrap();
    group.propose(leader, b"y").unwrap();
}

#[test]
fn who_is_told_that_its_disk_is_new_remembers_it() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.step("a", "c", 1, Message::NewDisk);
    group.restart("c");
    assert_eq!(group.node("c").status().outcast, None);
    group.take();
    group.millis += 2000;
    group.step("a", "c", 2, Message::Vote { last: at(99, 2), transfer: true });
    group.step("a", "c", 2, Message::PreVote { last: at(99, 2) });
    assert_eq!(votes(&group.take()), [("a".to_owned(), false), ("a".to_owned(), false)]);
    group.pass(5000);
    assert!(["a", "b", "c"].iter().all(|name| !group.leads(name)));
}

#[test]
fn whoever_says_that_a_disk_is_new_may_be_in_an_earlier_term() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.step("b", "c", 7, Message::PreVoteReply { granted: false });
    group.step("a", "c", 2, Message::NewDisk);
    assert_eq!(group.node("c").status().outcast, Some(Outcast::NewDisk));
}

#[test]
fn who_was_refused_and_is_added_again_counts_once_it_has_what_the_group_has() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.wipe("c", 1001, &voters(&["a", "b", "c"]));
    group.pass(500);
    assert_eq!(group.node("c").status().outcast, Some(Outcast::NewDisk));
    change(&mut group, "a", &remove("c")).unwrap();
    group.settle();
    change(&mut group, "a", &add("c", MemberRole::Voter)).unwrap();
    group.pass(2000);
    let status = group.node("c").status();
    assert_eq!((status.outcast, status.quarantined_until), (None, None));
    group.cut = vec!["b"];
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.committed("a"), index.0);
    group.cut = vec!["a"];
    group.stand("c");
    group.deliver();
    assert!(group.leads("c"));
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
    assert_eq!(group.take()[0].message, Message::Dismissed { disk: old });
    group.pass(2000);
    let member = group.node("a").membership().get(&id("c")).unwrap().clone();
    assert_eq!((member.disk, member.role), (Some(disk_of("x")), MemberRole::Voter));
}

#[test]
fn a_leader_with_another_disk_is_followed_once_it_shows_what_is_committed() {
    let mut group = Group::led(&["a", "b", "c"]);
    let (committed, last) = (group.committed("b"), group.machine("b").last());
    assert_eq!(committed, last.index.0);
    group.take();
    let beat = Message::Heartbeat { commit: LogIndex(committed), round: 1, confirmed: None, held: LogIndex(0) };
    group.step_from_disk("c", disk_of("x"), "b", 5, beat.clone());
    assert_eq!(group.take()[0].message, Message::NewDisk);
    assert_eq!((group.term("b"), group.node("b").leader()), (2, Some(&id("a"))));
    // Its log goes on behind what is known here: it is asked from where on.
    let append = |previous| Message::Append { previous, entries: vec![], commit: LogIndex(0) };
    group.step_from_disk("c", disk_of("x"), "b", 5, append(at(last.index.0 + 9, 4)));
    let answer = &group.take()[0];
    assert!(
        matches!(answer.message, Message::AppendReply(Verdict::Rejected { .. })) && answer.term.0 == 5,
        "{answer:?}"
    );
    assert_eq!(group.node("b").leader(), None, "which is not to follow it");
    group.step_from_disk("c", disk_of("x"), "b", 5, append(last));
    group.step_from_disk("c", disk_of("x"), "b", 5, beat);
    assert_eq!(group.node("b").leader(), Some(&id("c")), "it was added again behind the end of this log");
    group.step_from_disk("b", disk_of("x"), "b", 5, Message::VoteReply { granted: true });
    assert_eq!(group.term("b"), 5);
}

#[test]
fn a_leader_with_another_disk_that_begins_too_far_back_is_asked_on_where_there_is_no_other() {
    let mut group = Group::led(&["a", "b", "c"]);
    let last = group.machine("b").last();
    let append = |previous, entries| Message::Append { previous, entries, commit: LogIndex(0) };
    for (waits, is_asked_on) in [(0, false), (5000, true)] {
        group.millis += waits;
        group.take();
        group.step_from_disk("c", disk_of("x"), "b", 9, append(at(1, 1), vec![]));
        let accepted = Message::AppendReply(Verdict::Accepted { matched: LogIndex(1) });
        let answer = &group.take()[0].message;
        assert_eq!(*answer, if is_asked_on { accepted } else { Message::NewDisk });
        assert_ne!(group.node("b").leader(), Some(&id("c")), "nor is it followed yet");
    }
    let entries = group.machine("a").log.iter().filter(|entry| entry.index > LogIndex(1)).cloned().collect();
    group.step_from_disk("c", disk_of("x"), "b", 9, append(at(1, 1), entries));
    assert_eq!(group.node("b").leader(), Some(&id("c")));
    assert_eq!(group.machine("b").last(), last);
}

#[test]
fn a_leader_with_another_disk_that_lacks_what_is_committed_is_told_so() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.propose("a", b"x").unwrap();
    group.pass(200);
    let (log, committed) = (group.machine("b").log.clone(), group.committed("b"));
    assert_eq!(committed, log.last().unwrap().index.0);
    for (previous, entries) in [
        (at(1, 1), vec![command(2, 7)]),
        (at(1, 1), vec![]),
        (at(committed, 7), vec![]),
        (at(1, 1), vec![command(2, 2), command(3, 7)]),
    ] {
        group.take();
        let append = Message::Append { previous, entries, commit: LogIndex(committed) };
        group.step_from_disk("c", disk_of("x"), "b", 9, append);
        assert_eq!(group.take()[0].message, Message::NewDisk, "{previous:?}");
        assert_eq!((group.term("b"), group.node("b").leader()), (2, Some(&id("a"))));
    }
    assert_eq!(group.machine("b").log, log);
}

#[test]
fn an_answer_to_a_leader_that_is_founded_by_its_own_log_does_not_unseat_it() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("c", "a", 2, Message::NewDisk);
    assert!(group.leads("a") && group.node("a").status().outcast.is_none());
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

#[test]
fn a_removal_that_is_not_committed_does_not_silence_who_has_more_of_the_log() {
    let mut group = Group::bound(&["a", "b", "c"]);
    let members = bound(&["a", "b", "c"]);
    let mut without = bound(&["a", "b"]);
    without.removed.push(disk_of("c"));
    let mut log = vec![membership_entry(1, 1, &members), command(2, 1)];
    log.push(membership_entry(3, 2, &without));
    group.place("b", disk_of("b"), log.clone());
    log.pop();
    log.push(command(3, 3));
    group.place("c", disk_of("c"), log);
    // What `c` has was committed with `a`, whose disk is gone.
    group.cut = vec!["a"];
    group.millis += 1000;
    group.elect("c");
    group.propose("c", b"x").unwrap();
    group.settle();
    assert_eq!(group.committed("b"), group.committed("c"));
    assert!(group.committed("b") > 4);
}

/// Four voters that started again. `a` has a new disk since the first entry, and behind what all have its own removal,
/// which is not committed.
fn with_one_that_is_leaving() -> Group {
    let names = ["a", "b", "c", "d"];
    let (mut first, mut without, mut again) = (bound(&names), bound(&["b", "c", "d"]), bound(&names));
    first.members.get_mut(&id("a")).unwrap().disk = Some(disk_of("x"));
    without.removed = vec![disk_of("x")];
    again.removed.clone_from(&without.removed);
    let log = vec![membership_entry(2, 1, &without), membership_entry(3, 1, &again), command(4, 1)];
    without.removed.push(disk_of("a"));
    let leaving = membership_entry(5, 1, &without);
    let mut group = Group::of(&names, &first);
    for name in names {
        let mut log = log.clone();
        log.extend((name == "a").then(|| leaving.clone()));
        let hard_state = HardState { term: Term(1), ..HardState::default() };
        group.place_with(name, disk_of(name), log, hard_state, (at(1, 1), first.clone()));
    }
    group
}

#[test]
fn a_leader_whose_removal_is_not_committed_does_not_take_itself_for_a_new_disk() {
    let mut group = with_one_that_is_leaving();
    // What is committed here names the disk that it had before: so it is told until it has shown its log.
    group.cut = vec!["d"];
    group.stand("a");
    group.deliver();
    assert!(group.sent.iter().any(|envelope| envelope.message == Message::NewDisk));
    assert_eq!(group.node("a").status().quarantined_until, None);
    group.pass(2000);
    assert!(group.committed("b") > 5, "b and c are no quorum without it");
}

#[test]
fn who_is_told_of_its_removal_before_that_is_committed_may_be_needed_to_commit_it() {
    let mut group = with_one_that_is_leaving();
    group.step("b", "a", 1, Message::Removed);
    group.cut = vec!["b"];
    group.stand("a");
    group.pass(2000);
    assert!(group.committed("c") > 5, "c and d are no quorum without it");
}
