//! Reads that see everything committed before they were asked (thesis 6.4), and reads that know how old they are.

use super::Group;
use super::group::id;
use chronos::ids::LogIndex;
use chronos::raft::{Message, ReadAnswer};
use std::time::Duration;

fn heartbeats(group: &Group) -> usize {
    let beats = |envelope: &&chronos::raft::Envelope| {
        envelope.to == id("b") && matches!(envelope.message, Message::Heartbeat { .. })
    };
    group.sent.iter().filter(beats).count()
}

#[test]
fn a_read_is_answered_after_a_round_that_was_sent_behind_it() {
    let mut group = Group::led(&["a", "b", "c"]);
    let now = group.now();
    group.node("a").read(1, now);
    group.pump("a");
    assert_eq!(group.answer("a", 1), None);
    group.deliver();
    let committed = LogIndex(group.committed("a"));
    assert_eq!(group.answer("a", 1), Some(ReadAnswer { id: 1, index: Some(committed) }));
}

#[test]
fn a_round_that_was_under_way_proves_nothing_for_a_later_read() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.millis += 100;
    group.tick("a");
    let now = group.now();
    let under_way = group.take();
    group.node("a").read(1, now);
    group.pump("a");
    group.take();
    for envelope in under_way {
        group.wire.push_back(envelope);
    }
    for _ in 0..group.wire.len() {
        group.deliver_one();
    }
    // The answers to the round before.
    for _ in 0..group.wire.len() {
        group.deliver_one();
    }
    assert_eq!(group.answer("a", 1), None);
    group.pass(150);
    assert!(group.answer("a", 1).unwrap().index.is_some());
}

#[test]
fn one_round_serves_all_reads_that_wait() {
    let mut group = Group::led(&["a", "b", "c"]);
    let (now, before) = (group.now(), heartbeats(&group));
    for ask in 0..50 {
        group.node("a").read(ask, now);
        group.pump("a");
    }
    group.deliver();
    assert!((0..50).all(|ask| group.answer("a", ask).unwrap().index.is_some()));
    assert_eq!(heartbeats(&group) - before, 2, "one for the first, one for those that came meanwhile");
}

#[test]
fn reads_wait_for_the_leaders_first_entry() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.stand("a");
    while !group.leads("a") {
        group.deliver_one();
    }
    ["b", "c"].iter().for_each(|name| group.machine(name).disk_waits = true);
    group.node("a").read(1, chronos::raft::Now::default());
    group.pump("a");
    group.deliver();
    group.pass(300);
    assert_eq!(group.answer("a", 1), None, "it does not know yet what is committed");
    for _ in 0..3 {
        group.persist("b");
        group.deliver();
    }
    assert!(group.answer("a", 1).unwrap().index >= Some(LogIndex(2)));
}

#[test]
fn a_follower_asks_the_leader_and_waits_to_have_applied() {
    let mut group = Group::led(&["a", "b", "c"]);
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    let answer = group.read("b", 7).unwrap();
    assert_eq!(answer.index, Some(index));
    assert_eq!(group.committed("b"), index.0, "the answer brings the commit index with it");
}

#[test]
fn without_a_leader_no_read_is_answered() {
    let mut group = Group::new(&["a", "b", "c"]);
    assert_eq!(group.read("b", 1), Some(ReadAnswer { id: 1, index: None }));
    group.step("c", "b", 1, Message::ReadIndex { id: 9 });
    assert!(matches!(group.take()[0].message, Message::ReadIndexReply { id: 9, index: None, .. }));
    group.stand("b");
    group.step("c", "b", 1, Message::ReadIndex { id: 10 });
    group.step("c", "b", 0, Message::ReadIndex { id: 11 });
    let refused = group
        .take()
        .into_iter()
        .filter(|envelope| matches!(envelope.message, Message::ReadIndexReply { index: None, .. }));
    assert_eq!(refused.count(), 2);
}

#[test]
fn a_leader_that_is_cut_off_answers_no_read() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    assert_eq!(group.read("a", 1), None);
    group.pass(1000);
    assert_eq!(group.answer("a", 1), Some(ReadAnswer { id: 1, index: None }), "and says so when it steps down");
}

#[test]
fn reads_of_a_follower_are_given_up_when_the_leader_changes() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    assert_eq!(group.read("b", 1), None);
    group.step("c", "b", 5, Message::Heartbeat { commit: LogIndex(0), round: 1, confirmed: None, held: LogIndex(0) });
    assert_eq!(group.answer("b", 1), Some(ReadAnswer { id: 1, index: None }));
    group.step("c", "b", 5, Message::ReadIndexReply { id: 1, index: Some(LogIndex(1)), commit: LogIndex(1) });
    assert_eq!(group.machine("b").reads.len(), 1, "what comes too late is not asked for any more");
}

#[test]
fn an_answer_to_a_read_of_an_earlier_life_answers_none_of_this_one() {
    let mut group = Group::led(&["a", "b", "c"]);
    let now = group.now();
    group.node("b").read(1, now);
    group.pump("b");
    group.deliver_one();
    let late = group.take().into_iter().chain(group.sent.clone()).find_map(|envelope| match envelope.message {
        Message::ReadIndex { id } => Some(id),
        _ => None,
    });
    let late = Message::ReadIndexReply { id: late.unwrap(), index: Some(LogIndex(1)), commit: LogIndex(1) };
    group.shape = |config| config.seed = 7777;
    group.restart("b");
    group.pass(200);
    assert_eq!(group.node("b").leader(), Some(&id("a")));
    let now = group.now();
    group.node("b").read(1, now);
    group.step("a", "b", 2, late);
    assert_eq!(group.answer("b", 1), None, "what was committed then may be less than what is committed now");
    group.deliver();
    assert!(group.answer("b", 1).unwrap().index.unwrap() > LogIndex(1));
}

#[test]
fn only_the_leader_that_was_asked_answers_a_read() {
    let mut group = Group::led(&["a", "b", "c"]);
    let now = group.now();
    group.node("b").read(1, now);
    group.pump("b");
    let asked = group.take().into_iter().find_map(|envelope| match envelope.message {
        Message::ReadIndex { id } => Some(id),
        _ => None,
    });
    let answer = Message::ReadIndexReply { id: asked.unwrap(), index: Some(LogIndex(1)), commit: LogIndex(1) };
    group.step("c", "b", 2, answer.clone());
    assert_eq!(group.answer("b", 1), None);
    group.step("a", "b", 2, answer);
    assert!(group.answer("b", 1).is_some());
}

#[test]
fn a_read_whose_question_was_lost_is_given_up_in_time() {
    let mut group = Group::led(&["a", "b", "c"]);
    let now = group.now();
    group.node("b").read(1, now);
    group.pump("b");
    group.take();
    group.pass(450);
    assert_eq!(group.answer("b", 1), None);
    group.pass(100);
    assert_eq!(group.answer("b", 1), Some(ReadAnswer { id: 1, index: None }));
}

#[test]
fn reads_that_wait_are_bounded() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    let now = group.now();
    for ask in 0..5000 {
        group.node("a").read(ask, now);
        group.node("b").read(ask, now);
    }
    group.pump("a");
    group.pump("b");
    for name in ["a", "b"] {
        assert_eq!(group.machine(name).reads.len(), 5000 - 4096, "{name}");
    }
}

#[test]
fn a_group_of_one_reads_at_once() {
    let mut group = Group::led(&["a"]);
    let now = group.now();
    assert_eq!(group.node("a").staleness(now.monotonic), Some(Duration::ZERO));
    assert_eq!(group.read("a", 1).unwrap().index, Some(LogIndex(group.committed("a"))));
}

#[test]
fn a_follower_knows_how_old_its_view_is_at_most() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.pass(500);
    let now = group.now();
    let age = group.node("b").staleness(now.monotonic).unwrap();
    assert!(age <= Duration::from_millis(350), "{age:?}");
    group.cut = vec!["b"];
    group.pass(2000);
    let now = group.now();
    assert_eq!(group.node("b").staleness(now.monotonic), Some(age + Duration::from_secs(2)));
}

#[test]
fn a_follower_that_lags_is_not_taken_for_current() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.pass(500);
    group.machine("b").disk_waits = true;
    group.propose("a", b"x").unwrap();
    let asked = group.millis;
    group.deliver();
    group.pass(1500);
    let now = group.now();
    let age = group.node("b").staleness(now.monotonic).unwrap();
    assert!(age >= Duration::from_millis(group.millis - asked), "{age:?}");
    group.persist("b");
    group.deliver();
    group.machine("b").disk_waits = false;
    group.pass(400);
    let now = group.now();
    assert!(group.node("b").staleness(now.monotonic).unwrap() < Duration::from_millis(400));
}

#[test]
fn a_heartbeat_that_was_on_its_way_for_long_makes_no_view_current() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.pass(500);
    group.millis += 100;
    group.tick("a");
    let late = group.take();
    group.millis += 5000;
    let age = |group: &mut Group| {
        let now = group.now();
        group.node("b").staleness(now.monotonic).unwrap()
    };
    let before = age(&mut group);
    for envelope in late.into_iter().filter(|envelope| envelope.to == id("b")) {
        let now = group.now();
        group.node("b").step(envelope, now);
    }
    assert!(before >= Duration::from_secs(5) && age(&mut group) >= Duration::from_secs(5));
}
