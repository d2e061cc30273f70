//! Programs of different versions in one group: what is proposed, and what is not passed over.

use super::Group;
use super::group::{at, bound, disk_of, heartbeat_reply, id, votes};
use super::members::{add, change};
use chronos::clock::Wall;
use chronos::ids::LogIndex;
use chronos::machine::{COMMAND_VERSION, FIRST_COMMAND_VERSION, check_version};
use chronos::raft::{Entry, MemberRole, Message, Payload, Role, bootstrap};

/// The same answer by an older program.
fn older(round: u64, wall: Wall, version: u8) -> Message {
    match heartbeat_reply(round, wall) {
        Message::HeartbeatReply { round, quarantined_until, wall, is_disk_low, .. } => {
            Message::HeartbeatReply { round, command_version: version, quarantined_until, wall, is_disk_low }
        }
        other => other,
    }
}

#[test]
fn a_group_begins_with_the_version_that_every_program_knows_and_rises_to_what_all_understand() {
    let mut group = Group::of(&["a", "b", "c"], &super::group::base(&["a", "b", "c"]));
    let Payload::Membership(first) = Payload::decode(&group.machine("a").log[0].payload).unwrap() else {
        panic!("the first entry is the group")
    };
    assert_eq!(first.command_version, FIRST_COMMAND_VERSION, "whichever programs they are");
    group.elect("a");
    group.settle();
    assert_eq!(group.node("a").membership().command_version, COMMAND_VERSION);
}

#[test]
fn a_node_on_its_own_writes_down_once_that_it_understands_more() {
    let mut alone = bound(&["a"]);
    alone.command_version = 0;
    let mut group = Group::of(&["a"], &alone);
    group.elect("a");
    group.settle();
    assert_eq!(group.node("a").membership().command_version, COMMAND_VERSION);
    let last = group.machine("a").last().index;
    group.pass(2000);
    assert_eq!(group.machine("a").last().index, last, "and an idle log stands still");
    group.propose("a", b"x").unwrap();
}

#[test]
fn who_understands_less_than_the_group_uses_is_not_promoted_and_named() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.place("d", disk_of("d"), vec![]);
    group.cut = vec!["d"];
    change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
    group.settle();
    // What d would say, were it an older program.
    let says = |group: &mut Group, version: u8| {
        for _ in 0..60 {
            group.pass(50);
            let (last, term, wall) = (group.machine("a").last().index, group.term("a"), group.now().wall);
            let verdict = chronos::raft::Verdict::Accepted { matched: last };
            group.step("d", "a", term, older(1, wall, version));
            group.step("d", "a", term, Message::AppendReply(verdict));
        }
        group.node("a").membership().get(&id("d")).unwrap().role
    };
    assert_eq!(says(&mut group, COMMAND_VERSION - 1), MemberRole::Learner);
    let peer = group.node("a").status().peers.into_iter().find(|peer| peer.id == id("d")).unwrap();
    assert_eq!(peer.command_version, Some(COMMAND_VERSION - 1));
    assert_eq!(says(&mut group, COMMAND_VERSION), MemberRole::Voter);
}

#[test]
fn a_command_above_the_groups_version_is_refused_by_name() {
    check_version(&[1, 7], 1).unwrap();
    let refused = check_version(&[2, 7], 1).unwrap_err();
    assert!(refused.message().contains("commands of version 2") && !refused.is_retryable(), "{refused}");
}

#[test]
fn who_does_not_understand_what_the_group_is_stops_by_name_and_promises_nothing() {
    // A membership of a version to come, and an entry that may be one for all that is known.
    for payload in [&[1, 0xFF, 200, 1][..], &[7, 1]] {
        let mut group = Group::bound(&["a", "b", "c"]);
        let previous = at(1, 1);
        let unknown = Entry { payload: payload.into(), ..super::group::command(2, 2) };
        group.step("a", "b", 2, Message::Append { previous, entries: vec![unknown], commit: LogIndex(1) });
        let why = group.node("b").stopped().unwrap().to_string();
        assert!(why.starts_with("entry 2: ") && why.contains("start a newer one"), "{why}");
        assert_eq!(group.machine("b").last(), previous, "it is not in the log");
        assert!(group.take().is_empty(), "nor acknowledged");
        group.millis += 5000;
        group.tick("b");
        group.step("c", "b", 9, Message::Vote { last: at(9, 8), transfer: true });
        assert!(votes(&group.take()).is_empty() && group.role("b") == Role::Follower);
    }
    let mut group = Group::bound(&["a", "b", "c"]);
    let known = Entry { payload: bootstrap(&bound(&["a", "b"])).payload, ..super::group::command(2, 2) };
    group.step("a", "b", 2, Message::Append { previous: at(1, 1), entries: vec![known], commit: LogIndex(1) });
    assert!(group.node("b").stopped().is_none());
}
