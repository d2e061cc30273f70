//! Leases: no other node leads while one is held, if clocks run at about the same speed.

use super::Group;
use super::group::{at, id};
use chronos::raft::{Message, Role};

#[test]
fn a_lease_counts_from_when_the_round_was_sent() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.take();
    group.millis += 100;
    let sent = group.now();
    group.tick("a");
    group.millis += 300;
    group.deliver();
    let lease = chronos::raft::Config::new(id("a"), super::group::disk_of("a"), 1).lease();
    assert!(lease < std::time::Duration::from_millis(500));
    let brief = std::time::Duration::from_millis(1);
    assert!(group.node("a").holds_lease(sent.monotonic + lease.saturating_sub(brief)));
    assert!(!group.node("a").holds_lease(sent.monotonic + lease));
    assert!(!group.node("b").holds_lease(sent.monotonic));
}

#[test]
fn no_lease_holds_before_an_entry_of_the_term_is_applied() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.machine("a").disk_waits = true;
    group.stand("a");
    group.deliver();
    group.persist("a");
    for _ in 0..6 {
        group.deliver_one();
    }
    let now = group.now();
    assert!(group.leads("a") && !group.node("a").holds_lease(now.monotonic));
}

#[test]
fn a_leader_that_steps_aside_gives_up_its_lease_for_the_term() {
    let mut group = Group::led(&["a", "b", "c"]);
    let now = group.now();
    assert!(group.node("a").holds_lease(now.monotonic));
    group.node("a").transfer(Some(&id("b")), now).unwrap();
    assert!(!group.node("a").holds_lease(now.monotonic), "before the message leaves");
    group.pump("a");
    assert!(group.sent.iter().any(|envelope| envelope.message == Message::TimeoutNow));
    group.take();
    // The message is lost; however late another copy arrives, its voters would not wait.
    for _ in 0..20 {
        group.pass(50);
        let now = group.now();
        assert!(!group.node("a").holds_lease(now.monotonic));
    }
    assert!(group.leads("a") && group.propose("a", b"x").is_ok(), "it leads on, with rounds alone");
}

#[test]
fn a_later_term_does_not_make_a_follower_forget_the_leader_it_heard() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.pass(100);
    let now = group.now();
    assert!(group.node("a").holds_lease(now.monotonic));
    // A late answer to a pre-vote of long ago brings a later term.
    group.step("c", "b", 7, Message::PreVoteReply { granted: false });
    assert_eq!((group.term("b"), group.node("b").leader()), (7, None));
    group.take();
    group.step("c", "b", 8, Message::Vote { last: at(99, 7), transfer: false });
    group.step("c", "b", 8, Message::PreVote { last: at(99, 7) });
    let granted = super::group::votes(&group.take()).into_iter().any(|(_, granted)| granted);
    assert!(!granted && group.term("b") == 7, "the lease of a counts on b");
    group.millis += 600;
    group.step("c", "b", 8, Message::Vote { last: at(99, 7), transfer: false });
    assert_eq!(super::group::votes(&group.take()), [("c".to_owned(), true)]);
}

#[test]
fn a_lease_ends_before_the_least_that_any_member_may_wait() {
    let own = chronos::raft::Config::new(id("a"), super::group::disk_of("a"), 1);
    // The others are set up by themselves, and may have the shortest election timeout that there is.
    let patient = chronos::raft::Config { election_timeout: std::time::Duration::from_secs(30), ..own.clone() };
    assert_eq!(patient.lease(), own.lease());
    assert!(own.lease() < own.election_timeout);
}

#[test]
fn a_deposed_leader_holds_no_lease() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("b", "a", 9, Message::PreVoteReply { granted: false });
    let now = group.now();
    assert_eq!(group.role("a"), Role::Follower);
    assert!(!group.node("a").holds_lease(now.monotonic) && !group.node("a").may_read());
}
