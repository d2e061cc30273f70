//! Handing leadership over (thesis 3.10).

use super::Group;
use super::group::{disk_of, id};
use super::members::{add, change};
use chronos::raft::{MemberRole, Message, Role};

fn transfer(group: &mut Group, to: Option<&str>) -> chronos::Result<chronos::raft::NodeId> {
    let now = group.now();
    let to = to.map(id);
    let done = group.node("a").transfer(to.as_ref(), now);
    group.pump("a");
    done
}

#[test]
fn the_chosen_voter_leads_at_once() {
    let mut group = Group::led(&["a", "b", "c"]);
    assert_eq!(transfer(&mut group, Some("c")).unwrap(), id("c"));
    group.deliver();
    assert!(group.leads("c") && group.term("c") == 3 && group.role("a") == Role::Follower);
}

#[test]
fn where_nobody_is_named_the_best_one_leads() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(transfer(&mut group, None).unwrap(), id("b"));
    group.deliver();
    assert!(group.leads("b"));
}

#[test]
fn the_successor_is_told_only_once_it_has_the_whole_log() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.machine("b").disk_waits = true;
    group.propose("a", b"x").unwrap();
    transfer(&mut group, Some("b")).unwrap();
    group.deliver();
    assert!(!group.sent.iter().any(|envelope| envelope.message == Message::TimeoutNow));
    let refused = group.propose("a", b"y").unwrap_err();
    assert!(refused.message().contains("b is taking over, retry") && refused.is_retryable(), "{refused:?}");
    group.persist("b");
    group.machine("b").disk_waits = false;
    group.deliver();
    assert!(group.leads("b"));
}

#[test]
fn nothing_is_written_down_of_the_members_while_somebody_takes_over() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.settle();
    group.cut = vec!["b"];
    transfer(&mut group, Some("b")).unwrap();
    let last = group.machine("a").last().index;
    group.node("a").reached_at(&id("c"), disk_of("c"), "c:9");
    group.pass(300);
    assert_eq!(group.machine("a").last().index, last, "the heir would lack it, and not be elected");
    group.pass(600);
    assert_eq!(group.node("a").membership().get(&id("c")).unwrap().address, "c:9");
}

#[test]
fn a_transfer_that_fails_is_given_up() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b"];
    transfer(&mut group, Some("b")).unwrap();
    assert!(group.propose("a", b"x").is_err());
    group.pass(600);
    assert!(group.leads("a"));
    group.propose("a", b"x").unwrap();
}

#[test]
fn wrong_successors_are_named() {
    let mut group = Group::led(&["a", "b", "c"]);
    change(&mut group, "a", &add("d", MemberRole::Observer)).unwrap();
    group.settle();
    for (to, says) in
        [("a", "a leads already"), ("d", "d does not vote: those who do are a, b, c"), ("z", "z does not")]
    {
        let refused = transfer(&mut group, Some(to)).unwrap_err();
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let now = group.now();
    assert!(group.node("b").transfer(None, now).unwrap_err().message().contains("a leads"));
}

#[test]
fn a_successor_that_could_not_be_elected_is_refused_by_name() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b"];
    group.pass(700);
    let refused = transfer(&mut group, Some("b")).unwrap_err();
    assert!(refused.message().contains("b does not answer") && refused.is_retryable(), "{refused:?}");
    let (round, wall) = (1, group.now().wall);
    let lost = Some(chronos::ids::LogIndex(9));
    let reply =
        Message::HeartbeatReply { round, command_version: 2, quarantined_until: lost, wall, is_disk_low: false };
    group.step("b", "a", 2, reply);
    let refused = transfer(&mut group, Some("b")).unwrap_err();
    assert!(refused.message().contains("b fetches again") && refused.is_retryable(), "{refused:?}");
    group.propose("a", b"x").unwrap();
}

#[test]
fn reads_go_on_while_leadership_is_handed_over() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b"];
    transfer(&mut group, Some("b")).unwrap();
    assert!(group.read("a", 1).unwrap().index.is_some());
}

#[test]
fn only_the_leader_may_tell_a_node_to_stand() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("c", "b", 2, Message::TimeoutNow);
    group.step("a", "b", 1, Message::TimeoutNow);
    assert_eq!((group.role("b"), group.term("b")), (Role::Follower, 2));
}

#[test]
fn a_leader_whose_disk_stands_still_has_another_one_lead() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.machine("a").disk_waits = true;
    group.propose("a", b"x").unwrap();
    group.deliver();
    let now = group.now();
    group.node("a").step_aside(now);
    group.pump("a");
    group.deliver();
    assert!((group.leads("b") || group.leads("c")) && group.role("a") == Role::Follower);
}

#[test]
fn a_leader_whose_disk_stands_still_follows_where_nobody_takes_over_in_time() {
    // Nobody answers at all, then one that lags too far to take over.
    for lags in [false, true] {
        let mut group = Group::led(&["a", "b", "c"]);
        group.machine("b").disk_waits = lags;
        group.cut = if lags { vec!["c"] } else { vec!["b", "c"] };
        group.pass(400);
        group.propose("a", b"x").unwrap();
        group.deliver();
        let now = group.now();
        group.node("a").step_aside(now);
        group.pump("a");
        group.deliver();
        if group.leads("a") {
            group.pass(600);
        }
        assert_eq!(group.role("a"), Role::Follower, "lags {lags}");
    }
}

#[test]
fn a_group_of_one_has_nobody_to_step_aside_for() {
    let mut group = Group::led(&["a"]);
    let now = group.now();
    group.node("a").step_aside(now);
    group.pump("a");
    assert!(group.leads("a"));
    group.propose("a", b"x").unwrap();
}
