//! Disks that are short of room: who leads then, and what is said of it.

use super::Group;
use super::group::{disk_of, heartbeat_reply, id};
use super::members::{add, change};
use chronos::clock::Wall;
use chronos::raft::{MemberRole, Message, Role};

/// Long enough for a leader that has just been elected, or has just tried, to hand over.
const PAUSE: u64 = 10_500;

/// Disks run full, that of the leader after it has heard of the others.
fn fill(group: &mut Group, names: &[&str]) {
    let (last, first): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| group.leads(name));
    first.iter().for_each(|name| group.node(name).set_disk_low(true));
    group.pass(200);
    last.iter().for_each(|name| group.node(name).set_disk_low(true));
}

fn leader(group: &Group) -> Option<&'static str> {
    group.machines.keys().copied().find(|name| group.leads(name))
}

fn transfer(group: &mut Group, to: Option<&str>) -> chronos::Result<chronos::raft::NodeId> {
    let (now, to) = (group.now(), to.map(id));
    let done = group.node("a").transfer(to.as_ref(), now);
    group.pump("a");
    done
}

#[test]
fn a_leader_that_is_short_of_disk_hands_over_to_one_that_has_room() {
    for (full, heir) in [(["a", "b"], "c"), (["a", "c"], "b")] {
        let mut group = Group::led(&["a", "b", "c"]);
        fill(&mut group, &full);
        group.pass(600);
        assert_eq!((leader(&group), group.role("a")), (Some(heir), Role::Follower));
        group.propose(heir, b"x").unwrap();
        group.pass(2 * PAUSE);
        assert_eq!((leader(&group), group.term(heir)), (Some(heir), 3), "once, and for good");
        // Whose disk has room again is not owed anything.
        group.node("a").set_disk_low(false);
        group.pass(PAUSE);
        assert_eq!(group.term(heir), 3);
    }
}

#[test]
fn a_leader_stays_where_nobody_has_room() {
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["a", "b", "c"]);
    group.pass(2 * PAUSE);
    assert_eq!((leader(&group), group.term("a")), (Some("a"), 2));
    let status = group.node("a").status();
    assert!(status.is_disk_low && status.peers.iter().all(|peer| peer.is_disk_low), "{status:?}");
    // As a group of one, which has nobody.
    let mut group = Group::led(&["a"]);
    fill(&mut group, &["a"]);
    group.pass(PAUSE);
    group.propose("a", b"x").unwrap();
}

#[test]
fn nobody_hands_over_to_one_that_cannot_lead() {
    // A witness has no rows, an observer no vote, and one that is cut off does not answer.
    let mut group = Group::led(&["a", "b", "c"]);
    change(&mut group, "a", &add("d", MemberRole::Witness)).unwrap();
    group.place("d", disk_of("d"), vec![]);
    group.pass(1000);
    change(&mut group, "a", &add("e", MemberRole::Observer)).unwrap();
    group.place("e", disk_of("e"), vec![]);
    group.pass(1000);
    assert_eq!(group.node("a").membership().get(&id("d")).unwrap().role, MemberRole::Witness);
    fill(&mut group, &["a", "b"]);
    group.cut = vec!["c"];
    group.pass(PAUSE);
    assert_eq!((leader(&group), group.term("a")), (Some("a"), 2));
    group.cut.clear();
    group.pass(PAUSE);
    assert_eq!(leader(&group), Some("c"));
}

#[test]
fn one_whose_disk_stands_still_is_not_waited_for() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.elect("a");
    group.settle();
    group.cut = vec!["c"];
    group.machine("c").disk_waits = true;
    group.elect_by_transfer("b");
    group.cut.clear();
    group.pass(600);
    fill(&mut group, &["a", "b"]);
    group.pass(PAUSE);
    assert!(!group.sent.iter().any(|sent| sent.message == Message::TimeoutNow && sent.to == id("c")));
    group.propose("b", b"x").expect("nothing keeps it from being proposed");
}

#[test]
fn an_attempt_that_fails_is_followed_by_a_pause() {
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["a", "b"]);
    // It answers, and its disk takes no more: it never has the whole log.
    group.machine("c").disk_waits = true;
    group.propose("a", b"x").unwrap();
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..2 * PAUSE / 50 {
        group.pass(50);
        match group.propose("a", b"x") {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(leader(&group) == Some("a") && (10..=40).contains(&refused) && taken > 350, "{refused} {taken}");
}

#[test]
fn one_that_is_short_of_disk_is_elected_where_it_must_be_and_hands_on() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.propose("a", b"only a and b have it").unwrap();
    group.pass(100);
    // c lacks an entry that b has, so nobody but b can be elected.
    group.node("b").set_disk_low(true);
    group.cut = vec!["a"];
    group.pass(2500);
    let led = group.sent.iter().any(|sent| sent.from == id("b") && matches!(sent.message, Message::Heartbeat { .. }));
    assert!(led && leader(&group) == Some("c"), "{:?}", leader(&group));
    group.propose("c", b"x").unwrap();
    group.deliver();
    assert_eq!(group.committed("c"), group.machine("c").last().index.0);
}

#[test]
fn a_leader_that_has_just_been_elected_hears_the_others_first() {
    let (mut group, hour) = (Group::new(&["a", "b", "c"]), 3_600_000);
    group.node("a").set_disk_low(true);
    group.stand("a");
    for _ in 0..5 {
        // They take what it sends, and their answers to heartbeats come late: of their clocks these tell nothing.
        while !group.wire.is_empty() {
            group.wire.retain(|envelope| !matches!(envelope.message, Message::HeartbeatReply { .. }));
            group.deliver_one();
        }
        let term = group.term("a");
        ["b", "c"].iter().for_each(|name| group.step(name, "a", term, heartbeat_reply(0, Wall(0))));
        group.millis += 50;
        group.tick("a");
    }
    assert!(group.leads("a") && group.committed("a") == group.machine("a").last().index.0);
    for _ in 0..5 {
        answer(&mut group, &[("b", hour, false), ("c", 0, true)]);
    }
    let told = group.sent.iter().find(|envelope| envelope.message == Message::TimeoutNow);
    assert_eq!(told, None, "b has room, and would hand back for its clock");
}

#[test]
fn an_operator_is_refused_a_successor_that_would_hand_on_at_once() {
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["b"]);
    group.pass(300);
    let refused = transfer(&mut group, Some("b")).unwrap_err();
    let says =
        "b is short of disk, and would hand leadership on at once: free space there, or name a voter that has room";
    assert!(refused.message() == says && refused.is_retryable(), "{refused:?}");
    group.propose("a", b"x").expect("nobody is waited for");
    group.deliver();
    assert_eq!(transfer(&mut group, None).unwrap(), id("c"), "the fitter one");
    group.deliver();
    assert!(group.leads("c"));
    // Where nobody has room it may lead as well as any.
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["a", "b", "c"]);
    group.pass(300);
    assert_eq!(transfer(&mut group, Some("b")).unwrap(), id("b"));
    group.deliver();
    assert!(group.leads("b"));
}

#[test]
fn who_names_nobody_hands_over_to_one_that_is_short_of_disk_before_to_nobody() {
    // As a node that is about to stop.
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["b", "c"]);
    group.pass(PAUSE);
    transfer(&mut group, Some("b")).unwrap_err();
    transfer(&mut group, None).unwrap();
    group.pass(300);
    assert!(leader(&group).is_some_and(|leader| leader != "a"));
}

#[test]
fn a_leader_whose_disk_stands_still_takes_one_that_is_short_of_room_for_better_than_none() {
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["b", "c"]);
    group.pass(300);
    let now = group.now();
    group.node("a").step_aside(now);
    group.pump("a");
    group.deliver();
    assert!((group.leads("b") || group.leads("c")) && group.role("a") == Role::Follower);
}

/// Answers to the newest round of heartbeats of `a`: (who, milliseconds that its clock is ahead, whether it is short of disk).
fn answer(group: &mut Group, says: &[(&str, i64, bool)]) {
    group.millis += 100;
    group.take();
    group.tick("a");
    let rounds = group.take().into_iter().filter_map(|envelope| match envelope.message {
        Message::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    let round = rounds.max().unwrap();
    for (name, ahead, is_disk_low) in says {
        let wall = Wall((group.now().wall.0 as i64 + ahead) as u64);
        let (command_version, quarantined_until) = (chronos::machine::COMMAND_VERSION, None);
        let is_disk_low = *is_disk_low;
        let term = group.term("a");
        group.step(
            name,
            "a",
            term,
            Message::HeartbeatReply { round, command_version, quarantined_until, wall, is_disk_low },
        );
    }
}

#[test]
fn leadership_goes_to_the_fitter_one_and_in_no_circle() {
    let hour = 3_600_000;
    for (is_full, says, heir) in [
        // The clock of a is right. One that has room, and would hand back for its clock, is left alone.
        (true, [("b", hour, false), ("c", 0, true)], None),
        (true, [("b", hour, false), ("c", 0, false)], Some("c")),
        (true, [("b", 0, false), ("c", hour, true)], Some("b")),
        (false, [("b", 0, true), ("c", hour, true)], None),
        // The clock of a is wrong. Right ones come first, with room or without.
        (true, [("b", hour, true), ("c", hour, false)], Some("c")),
        (false, [("b", hour, true), ("c", hour, true)], Some("c")),
        (false, [("b", hour, false), ("c", hour, true)], Some("b")),
    ] {
        let mut group = Group::led(&["a", "b", "c"]);
        group.pass(300);
        answer(&mut group, &says);
        group.node("a").set_disk_low(is_full);
        group.millis += 50;
        group.tick("a");
        let told = group.take().into_iter().find(|envelope| envelope.message == Message::TimeoutNow);
        assert_eq!(told.map(|told| told.to), heir.map(id), "{is_full} {says:?}");
    }
}

#[test]
fn a_clock_that_nobody_has_seen_lately_is_none_to_hand_over_to() {
    let (mut group, hour) = (Group::led(&["a", "b", "c", "d", "e"]), 3_600_000);
    for _ in 0..7 {
        answer(&mut group, &[("b", hour, false), ("c", hour, false)]);
        // What these say comes late: of their clocks it tells nothing.
        for name in ["d", "e"] {
            group.step(name, "a", 2, heartbeat_reply(0, Wall(0)));
        }
    }
    let told = group.sent.iter().find(|envelope| envelope.message == Message::TimeoutNow);
    assert!(told.is_some_and(|told| told.to == id("b") || told.to == id("c")), "{told:?}");
}

#[test]
fn a_follower_without_room_starves_once_what_it_has_is_old() {
    let mut group = Group::led(&["a", "b", "c"]);
    fill(&mut group, &["c"]);
    group.pass(PAUSE);
    assert!(!group.node("c").status().starves, "short of room, and it takes what the leader sends");
    // Its log waits for room.
    group.machine("c").disk_waits = true;
    group.propose("a", b"x").unwrap();
    group.pass(4000);
    assert!(!group.node("c").status().starves, "not for so little");
    group.pass(2000);
    assert!(group.node("c").status().starves && !group.node("b").status().starves);
    // It finds room for that, if not for more.
    group.machine("c").disk_waits = false;
    group.persist("c");
    group.pass(600);
    assert!(!group.node("c").status().starves);
    assert_eq!(group.committed("c"), group.machine("a").last().index.0);
}
