//! A member whose log was damaged keeps its seat, and promises nothing before it has fetched again what it may have lost.

use super::Group;
use super::group::{at, id, votes};
use chronos::ids::LogIndex;
use chronos::raft::{Message, Role, Verdict};

/// `b` has lost the end of its log, as the disk's salvage leaves it.
fn damaged() -> Group {
    let mut group = Group::led(&["a", "b", "c"]);
    for n in 0..5_u8 {
        group.propose("a", &[n]).unwrap();
        group.deliver();
    }
    let last = group.machine("b").last().index;
    group.machine("b").log.truncate(3);
    group.machine("b").hard_state.quarantined_until = Some(last);
    group.cut = vec!["b"];
    group.restart("b");
    group.millis += 100;
    group
}

#[test]
fn a_quarantined_member_grants_no_vote() {
    let mut group = damaged();
    group.millis += 2000;
    group.take();
    group.step("c", "b", 3, Message::PreVote { last: at(99, 2) });
    group.step("c", "b", 3, Message::Vote { last: at(99, 2), transfer: true });
    assert_eq!(votes(&group.take()), [("c".to_owned(), false), ("c".to_owned(), false)]);
}

#[test]
fn a_quarantined_member_does_not_stand() {
    let mut group = damaged();
    group.cut = vec!["a", "c"];
    group.pass(4000);
    assert_eq!((group.role("b"), group.term("b")), (Role::Follower, 2));
    group.step("a", "b", 2, Message::Heartbeat { commit: LogIndex(0), round: 9, confirmed: None, held: LogIndex(0) });
    group.step("a", "b", 2, Message::TimeoutNow);
    assert_eq!(group.role("b"), Role::Follower, "not even when it is told to");
}

#[test]
fn its_old_acknowledgements_do_not_count_any_more() {
    let mut group = damaged();
    let matched = |group: &mut Group| {
        let peers = group.node("a").status().peers;
        peers.into_iter().find(|peer| peer.id == id("b")).unwrap().matched.0
    };
    assert!(matched(&mut group) > 3);
    let hint = at(3, 2);
    let previous = LogIndex(matched(&mut group));
    group.step("b", "a", 2, Message::AppendReply(Verdict::Rejected { previous, hint, quarantined: true }));
    assert_eq!(matched(&mut group), 3);
}

#[test]
fn it_is_whole_again_once_it_has_what_it_may_have_acknowledged() {
    let mut group = damaged();
    let until = group.machine("b").hard_state.quarantined_until.unwrap();
    group.cut.clear();
    group.propose("a", b"x").unwrap();
    group.pass(800);
    assert!(group.machine("b").last().index > until);
    assert_eq!(group.machine("b").hard_state.quarantined_until, None);
    assert_eq!(group.node("b").status().quarantined_until, None);
    group.cut = vec!["a"];
    group.stand("b");
    group.deliver();
    assert!(group.leads("b"));
}

#[test]
fn nothing_need_be_written_for_its_leader_to_find_out() {
    let mut group = damaged();
    group.cut.clear();
    group.pass(800);
    assert_eq!(group.machine("b").last(), group.machine("a").last());
    assert_eq!(group.machine("b").hard_state.quarantined_until, None);
}

#[test]
fn the_leaders_commit_moves_the_goal_and_a_heartbeat_does_not() {
    let mut group = damaged();
    let until = group.machine("b").hard_state.quarantined_until.unwrap();
    group.step("a", "b", 2, Message::Heartbeat { commit: LogIndex(99), round: 9, confirmed: None, held: LogIndex(0) });
    assert_eq!(group.machine("b").hard_state.quarantined_until, Some(until));
    let append = |commit| Message::Append { previous: at(3, 2), entries: vec![], commit: LogIndex(commit) };
    group.step("a", "b", 2, append(0));
    group.step("a", "b", 2, append(50));
    assert_eq!(group.machine("b").hard_state.quarantined_until, Some(LogIndex(50)), "whatever came first");
}

#[test]
fn quarantine_outlasts_a_restart_and_a_leader_without_an_entry_of_its_own() {
    let mut group = damaged();
    let goal = group.machine("b").hard_state.quarantined_until.unwrap();
    let entries = group.machine("a").log.clone()[3..].to_vec();
    let last = entries.last().unwrap().index;
    assert_eq!(last, goal);
    let append = Message::Append { previous: at(3, 2), entries, commit: last };
    group.step("c", "b", 7, append);
    assert_eq!(group.committed("b"), last.0);
    assert_eq!(group.machine("b").hard_state.quarantined_until, Some(goal), "that leader has committed nothing yet");
    group.restart("b");
    assert_eq!(group.node("b").status().quarantined_until, Some(goal));
}

/// The log thread writes the newest hard state before the entries of all requests that it has gathered, and the power may go
/// between the two.
#[test]
fn quarantine_is_not_over_before_what_was_fetched_is_durable() {
    let mut group = damaged();
    let goal = group.machine("b").hard_state.quarantined_until.unwrap();
    let entries = group.machine("a").log.clone()[3..].to_vec();
    group.machine("b").disk_waits = true;
    group.step("a", "b", 2, Message::Append { previous: at(3, 2), entries, commit: goal });
    let heartbeat = Message::Heartbeat { commit: goal, round: 9, confirmed: None, held: LogIndex(0) };
    group.step("a", "b", 2, heartbeat.clone());
    assert_eq!((group.committed("b"), group.node("b").status().quarantined_until), (goal.0, Some(goal)));
    group.persist("b");
    group.step("a", "b", 2, heartbeat);
    assert_eq!(group.node("b").status().quarantined_until, None);
}

#[test]
fn quarantine_is_over_for_others_once_that_is_durable() {
    let mut group = damaged();
    let goal = group.machine("b").hard_state.quarantined_until.unwrap();
    let entries = group.machine("a").log.clone()[3..].to_vec();
    let shown = |group: &mut Group| {
        group.take();
        group.step("a", "b", 2, Message::Heartbeat { commit: goal, round: 9, confirmed: None, held: LogIndex(0) });
        group.take().into_iter().find_map(|envelope| match envelope.message {
            Message::HeartbeatReply { quarantined_until, .. } => Some(quarantined_until),
            _ => None,
        })
    };
    group.machine("b").disk_waits = true;
    group.step("a", "b", 2, Message::Append { previous: at(3, 2), entries, commit: goal });
    group.persist("b");
    assert_eq!(shown(&mut group), Some(Some(goal)));
    assert_eq!(group.node("b").status().quarantined_until, None);
    assert_eq!(shown(&mut group), Some(Some(goal)), "a crash now, and it wakes up in quarantine");
    group.persist("b");
    assert_eq!(shown(&mut group), Some(None));
}

#[test]
fn a_quarantine_that_begins_before_the_last_one_is_durably_over_is_shown() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.machine("b").hard_state.quarantined_until = Some(LogIndex(2));
    group.restart("b");
    group.machine("b").disk_waits = true;
    let entries = vec![super::group::command(2, 2)];
    group.step("a", "b", 2, Message::Append { previous: at(1, 1), entries, commit: LogIndex(2) });
    group.persist("b");
    group.step("a", "b", 2, Message::Heartbeat { commit: LogIndex(2), round: 8, confirmed: None, held: LogIndex(0) });
    assert_eq!(group.node("b").status().quarantined_until, None);
    // Somebody knows its name with another disk, and no log that it has says which it is.
    group.step("c", "b", 2, Message::NewDisk);
    assert!(group.node("b").status().quarantined_until.is_some());
    group.persist("b");
    group.take();
    let heartbeat = Message::Heartbeat { commit: LogIndex(1), round: 9, confirmed: None, held: LogIndex(0) };
    group.step("a", "b", 2, heartbeat);
    let is_shown = |envelope: &chronos::raft::Envelope| {
        matches!(envelope.message, Message::HeartbeatReply { quarantined_until: Some(_), .. })
    };
    assert!(group.take().iter().any(is_shown), "or a leader would promote it");
}

#[test]
fn nobody_hands_leadership_to_a_quarantined_member() {
    let mut group = damaged();
    // c has not answered for long, and b has.
    group.cut = vec!["b", "c"];
    group.pass(300);
    let goal = group.machine("b").hard_state.quarantined_until;
    let wall = group.now().wall;
    let reply =
        Message::HeartbeatReply { round: 1, command_version: 1, quarantined_until: goal, wall, is_disk_low: false };
    group.step("b", "a", 2, reply);
    group.millis += 300;
    let now = group.now();
    let refused = group.node("a").transfer(None, now).unwrap_err();
    assert!(refused.message().contains("no other voter answers"), "{refused:?}");
}
