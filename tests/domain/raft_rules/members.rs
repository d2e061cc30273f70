//! Changing the group: one voter at a time, learners first (thesis 4).

use super::Group;
use super::group::{at, bound, command, disk_of, heartbeat_reply, id, membership_entry, voters, votes};
use chronos::ids::LogIndex;
use chronos::raft::{Change, Entry, MemberRole, Message, Role, Verdict};

pub(super) fn add(name: &str, role: MemberRole) -> Change {
    Change::Add { id: id(name), address: format!("{name}:1"), role }
}

pub(super) fn remove(name: &str) -> Change {
    Change::Remove { id: id(name) }
}

pub(super) fn change(group: &mut Group, leader: &str, change: &Change) -> chronos::Result<LogIndex> {
    let now = group.now();
    let done = group.node(leader).change(change, now);
    group.pump(leader);
    done
}

fn role(group: &mut Group, of: &str) -> MemberRole {
    group.node("a").membership().get(&id(of)).unwrap().role
}

#[test]
fn a_new_member_learns_and_is_promoted_when_it_has_caught_up() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.place("d", disk_of("d"), vec![]);
    change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
    assert_eq!((role(&mut group, "d"), group.node("a").membership().quorum()), (MemberRole::Learner, 2));
    group.pass(1500);
    assert_eq!((role(&mut group, "d"), group.node("a").membership().quorum()), (MemberRole::Voter, 3));
    assert_eq!(group.machine("d").last(), group.machine("a").last());
    assert_eq!(group.node("a").membership().get(&id("d")).unwrap().disk, Some(disk_of("d")));
}

#[test]
fn a_learner_that_does_not_answer_is_not_promoted() {
    let mut group = Group::led(&["a", "b", "c"]);
    change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
    group.pass(3000);
    assert_eq!(role(&mut group, "d"), MemberRole::Learner);
}

#[test]
fn a_learner_in_quarantine_is_not_promoted_however_much_of_the_log_it_has() {
    for (until, becomes) in [(Some(LogIndex(90)), MemberRole::Learner), (None, MemberRole::Voter)] {
        let mut group = Group::led(&["a", "b", "c"]);
        change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
        for round in 1..30 {
            group.pass(50);
            let Message::HeartbeatReply { command_version, wall, .. } = heartbeat_reply(round, group.now().wall) else {
                unreachable!()
            };
            let reply =
                Message::HeartbeatReply { round, command_version, quarantined_until: until, wall, is_disk_low: false };
            group.step("d", "a", 2, reply);
            let matched = group.machine("a").last().index;
            group.step("d", "a", 2, Message::AppendReply(Verdict::Accepted { matched }));
        }
        assert_eq!(role(&mut group, "d"), becomes);
    }
}

#[test]
fn an_observer_stays_one() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.place("d", disk_of("d"), vec![]);
    change(&mut group, "a", &add("d", MemberRole::Observer)).unwrap();
    group.pass(2000);
    assert_eq!(role(&mut group, "d"), MemberRole::Observer);
    assert_eq!(group.machine("d").last(), group.machine("a").last());
    group.pass(3000);
    assert_eq!(group.role("d"), Role::Follower, "and never stands");
}

#[test]
fn a_learner_counts_towards_no_quorum() {
    let mut group = Group::led(&["a", "b", "c"]);
    for name in ["d", "e"] {
        group.place(name, disk_of(name), vec![]);
        change(&mut group, "a", &add(name, MemberRole::Observer)).unwrap();
        group.pass(500);
    }
    group.cut = vec!["b", "c"];
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!((group.machine("d").last().index, group.machine("e").last().index), (index, index));
    assert!(group.committed("a") < index.0, "three copies of five machines, and only one of them votes");
}

#[test]
fn a_learner_elects_nobody() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.place("d", disk_of("d"), vec![]);
    change(&mut group, "a", &add("d", MemberRole::Observer)).unwrap();
    group.pass(500);
    group.cut = vec!["a", "c"];
    group.stand("b");
    let term = group.term("b");
    group.step("d", "b", term + 1, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("b"), term);
}

#[test]
fn one_change_at_a_time() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b", "c"];
    change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
    for other in [add("e", MemberRole::Voter), remove("c")] {
        let refused = change(&mut group, "a", &other).unwrap_err();
        assert!(refused.message().contains("another change of the group is under way"), "{refused:?}");
    }
    group.cut.clear();
    group.pass(700);
    change(&mut group, "a", &remove("c")).unwrap();
}

#[test]
fn no_change_before_an_entry_of_the_term_is_committed() {
    // The erratum of 2015: a change of an earlier term may still be alive elsewhere.
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    group.stand("b");
    while !group.leads("b") {
        assert!(group.deliver_one());
    }
    let refused = change(&mut group, "b", &remove("a")).unwrap_err();
    assert!(refused.message().contains("another change"), "{refused:?}");
    group.deliver();
    change(&mut group, "b", &remove("a")).unwrap();
}

#[test]
fn a_change_counts_from_the_append_on() {
    let mut group = Group::led(&["a", "b", "c", "d"]);
    group.cut = vec!["c", "d"];
    change(&mut group, "a", &remove("d")).unwrap();
    group.deliver();
    let last = group.machine("a").last().index.0;
    assert_eq!(group.committed("a"), last, "two of three decide, where it took three of four before");
}

#[test]
fn a_change_that_a_later_leader_takes_back_no_longer_counts() {
    let mut group = Group::led(&["a", "b", "c"]);
    let last = group.machine("b").last();
    let smaller = voters(&["a", "b"]);
    let entry = membership_entry(last.index.0 + 1, 3, &smaller);
    group.step("a", "b", 3, Message::Append { previous: last, entries: vec![entry], commit: LogIndex(0) });
    assert_eq!(group.node("b").membership(), &smaller);
    let other: Entry = command(last.index.0 + 1, 4);
    group.step("c", "b", 4, Message::Append { previous: last, entries: vec![other], commit: LogIndex(0) });
    assert_eq!(group.node("b").membership().members.len(), 3);
    assert_eq!(chronos::raft::Membership::decode(&group.machine("b").hard_state.membership).unwrap().members.len(), 3);
}

#[test]
fn a_leader_that_removes_itself_leads_until_that_is_committed() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    change(&mut group, "a", &remove("a")).unwrap();
    assert!(group.leads("a"));
    group.deliver();
    assert!(group.leads("a"), "the two who stay decide, and one is not there");
    group.cut.clear();
    group.pass(600);
    assert!(!group.leads("a"));
    let leader = if group.leads("b") { "b" } else { "c" };
    assert!(group.leads(leader), "it told one of them to stand at once");
    group.pass(3000);
    assert_eq!((group.role("a"), group.node(leader).membership().members.len()), (Role::Follower, 2));
}

#[test]
fn who_was_removed_and_does_not_know_disturbs_nobody() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    change(&mut group, "a", &remove("c")).unwrap();
    group.deliver();
    group.cut.clear();
    let term = group.term("a");
    group.pass(4000);
    assert!(group.leads("a") && group.term("a") == term);
    assert_eq!(group.node("c").status().outcast, Some(chronos::raft::Outcast::Removed));
}

#[test]
fn the_last_voter_that_has_the_data_stays() {
    let mut group = Group::led(&["a", "b"]);
    group.cut = vec!["b"];
    group.pass(450);
    group.millis += 100;
    let refused = change(&mut group, "a", &remove("a")).unwrap_err();
    assert!(refused.message().contains("the last voter that has the data and answers"), "{refused:?}");
    group.cut.clear();
    group.pass(3000);
    group.elect_by_transfer("a");
    change(&mut group, "a", &remove("a")).unwrap();
    group.pass(2000);
    assert!(group.leads("b"));
}

#[test]
fn nobody_is_removed_where_those_who_stay_could_not_decide() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.pass(700);
    let refused = change(&mut group, "a", &remove("b")).unwrap_err();
    let says = "without b the group could not decide: of its 2 voters 2 must answer, and c does not";
    assert!(refused.message().contains(says), "{refused:?}");
    let refused = change(&mut group, "a", &remove("a")).unwrap_err();
    assert!(refused.message().contains("without a the group could not decide"), "{refused:?}");
    change(&mut group, "a", &remove("c")).unwrap();
    group.deliver();
    let last = group.machine("a").last().index.0;
    assert_eq!(group.committed("a"), last, "the one that is dead may go");
}

#[test]
fn a_member_that_has_never_answered_does_not_count_as_one_that_does() {
    let mut group = Group::bound(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.elect("a");
    group.pass(100);
    let refused = change(&mut group, "a", &remove("b")).unwrap_err();
    assert!(refused.message().contains("and c does not"), "{refused:?}");
}

#[test]
fn where_a_member_says_that_it_is_reached_is_written_down() {
    let mut group = Group::led(&["a", "b", "c"]);
    let mut moved = |disk, address: &str| {
        group.node("a").reached_at(&id("c"), disk, address);
        group.pass(200);
        group.node("b").membership().get(&id("c")).unwrap().address.clone()
    };
    assert_eq!(moved(disk_of("x"), "c:2"), "c:1", "another disk speaks for itself");
    assert_eq!(moved(disk_of("c"), "b:1"), "c:1", "another member is reached there");
    assert_eq!(moved(disk_of("c"), ""), "c:1", "it is reached nowhere");
    assert_eq!(moved(disk_of("c"), "c:2"), "c:2");
}

/// Answers to the newest round of heartbeats of `a`, with wall clocks that are so many milliseconds ahead of it.
fn answer_with_clocks(group: &mut Group, clocks: &[(&str, i64)]) {
    group.millis += 100;
    group.take();
    group.tick("a");
    let sent = group.take();
    let round = sent.iter().find_map(|envelope| match envelope.message {
        Message::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    for (name, ahead) in clocks {
        let wall = chronos::clock::Wall((group.now().wall.0 as i64 + ahead) as u64);
        group.step(name, "a", 2, heartbeat_reply(round.unwrap(), wall));
    }
}

#[test]
fn a_leader_whose_clock_is_far_from_the_others_hands_over() {
    let hour = 3_600_000;
    for (clocks, heir) in [
        ([("b", 0), ("c", hour)], None),
        ([("b", 30_000), ("c", 59_000)], None),
        ([("b", -hour), ("c", hour)], None),
        ([("b", hour), ("c", hour + 1000)], Some("b")),
        ([("b", -hour - 90_000), ("c", -hour)], Some("c")),
    ] {
        let mut group = Group::led(&["a", "b", "c"]);
        answer_with_clocks(&mut group, &clocks);
        group.millis += 50;
        group.tick("a");
        let told = group.take().into_iter().find(|envelope| envelope.message == Message::TimeoutNow);
        let is_off = group.node("a").status().clock_off.is_some();
        match heir {
            None => assert!(told.is_none() && !is_off, "{clocks:?}"),
            Some("b") => assert!(told.is_some() && is_off, "{clocks:?}: either of them is right"),
            Some(heir) => assert!(told.unwrap().to == id(heir) && is_off, "{clocks:?}"),
        }
    }
}

#[test]
fn clocks_that_were_read_before_a_leader_stood_still_accuse_nobody() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.millis += 100;
    group.tick("a");
    group.deliver();
    group.millis += 100;
    group.tick("a");
    let late = group.take();
    // The process is stopped for an hour; what the others answered before waits for it.
    let answered = group.now().wall;
    group.millis += 3_600_000;
    for name in ["b", "c"] {
        for round in late.iter().filter_map(|envelope| match envelope.message {
            Message::Heartbeat { round, .. } => Some(round),
            _ => None,
        }) {
            group.step(name, "a", 2, heartbeat_reply(round, answered));
        }
    }
    assert_eq!(group.node("a").status().clock_off, None);
}

#[test]
fn two_nodes_elect_only_with_both() {
    let mut group = Group::led(&["a", "b"]);
    group.cut = vec!["a"];
    group.pass(4000);
    assert_eq!((group.role("a"), group.role("b")), (Role::Candidate, Role::Candidate));
}

#[test]
fn changes_are_for_leaders() {
    let mut group = Group::led(&["a", "b", "c"]);
    let refused = change(&mut group, "b", &remove("c")).unwrap_err();
    assert!(refused.message().contains("a leads (term 2)"), "{refused:?}");
}

#[test]
fn a_voter_answers_a_candidate_that_its_log_does_not_know() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.millis += 2000;
    group.take();
    group.step("d", "b", 3, Message::Vote { last: at(99, 2), transfer: false });
    assert_eq!(votes(&group.take()), [("d".to_owned(), true)], "its own log may be the one that lags (4.2.2)");
}

#[test]
fn who_joins_decides_nothing_before_it_has_what_the_group_has() {
    // Its name was alone in the group once, with an earlier disk.
    let mut group = Group::led(&["a", "b", "c"]);
    group.place("d", disk_of("d"), vec![]);
    let alone = membership_entry(1, 1, &voters(&["d"]));
    group.step("a", "d", 2, Message::Append { previous: at(0, 0), entries: vec![alone], commit: LogIndex(5) });
    group.take();
    group.pass(3000);
    assert_eq!((group.role("d"), group.term("d")), (Role::Follower, 2), "it does not lead that group again");
    assert!(!group.machine("d").commit_on_persist);
    group.take();
    group.step("b", "d", 3, Message::Vote { last: at(99, 2), transfer: true });
    assert_eq!(votes(&group.take()), [("b".to_owned(), false)]);
    assert!(group.machine("d").hard_state.quarantined_until.is_some());
}

#[test]
fn the_groups_version_is_what_all_understand() {
    let mut group = Group::new(&["a", "b", "c"]);
    let known = chronos::machine::COMMAND_VERSION;
    let mut older = bound(&["a", "b", "c"]);
    older.command_version = 0;
    for name in ["a", "b", "c"] {
        group.place(name, disk_of(name), vec![chronos::raft::bootstrap(&older)]);
    }
    group.cut = vec!["c"];
    group.elect("a");
    group.settle();
    assert_eq!(group.node("a").membership().command_version, 0, "one has not said yet what it understands");
    group.cut.clear();
    group.pass(500);
    assert_eq!(group.node("a").membership().command_version, known);
}

#[test]
fn a_change_that_makes_no_sense_is_named() {
    let mut group = Group::led(&["a", "b", "c"]);
    let at_address = Change::Add { id: id("d"), address: "b:1".into(), role: MemberRole::Voter };
    for (wrong, says) in [
        (add("b", MemberRole::Voter), "b is a member already, at b:1"),
        (at_address, "b has the address b:1 already"),
        (remove("z"), "z is no member: those are a, b, c"),
    ] {
        let refused = change(&mut group, "a", &wrong).unwrap_err();
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let mut alone = Group::led(&["a"]);
    let refused = change(&mut alone, "a", &remove("a")).unwrap_err();
    assert!(refused.message().contains("a is the last voter that has the data"), "{refused:?}");
}

#[test]
fn a_group_has_a_most_number_of_members() {
    let mut group = Group::led(&["a", "b", "c"]);
    for n in 0..13 {
        change(&mut group, "a", &add(&format!("x{n}"), MemberRole::Observer)).unwrap();
        group.deliver();
    }
    let refused = change(&mut group, "a", &add("y", MemberRole::Observer)).unwrap_err();
    assert!(refused.message().contains("16 members, which is the most"), "{refused:?}");
}

#[test]
fn what_is_no_entry_is_named() {
    use chronos::raft::{Membership, Payload};
    for (bytes, says) in [(&[9, 9][..], "kind 9"), (&[], "without content"), (&[0, 1], "kind 0")] {
        assert!(Payload::decode(bytes).unwrap_err().message().contains(says), "{bytes:?}");
    }
    assert!(Membership::decode(&[0xFF, 77]).unwrap_err().message().contains("version 77"));
    assert!(Membership::decode(&[0xFF, 2, 0xFF]).unwrap_err().message().contains("does not decode"));
    let older = Membership::decode(&[2, 1, b'a', 1, b'b']).unwrap();
    assert_eq!(older.voters().collect::<Vec<_>>(), [&id("a"), &id("b")], "the form before members had roles");
}
