//! Who leads, and who lets whom (thesis 3.4, 4.2.3, 9.6).

use super::Group;
use super::group::{at, command, disk_of, id, votes};
use chronos::ids::Term;
use chronos::raft::{Message, Role, bootstrap};

const VOTE: fn(u64, u64) -> Message = |index, term| Message::Vote { last: at(index, term), transfer: false };
const PRE_VOTE: fn(u64, u64) -> Message = |index, term| Message::PreVote { last: at(index, term) };

#[test]
fn a_quorum_elects_one_leader() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.elect("a");
    assert_eq!((group.term("a"), group.term("b"), group.role("b")), (2, 2, Role::Follower));
    assert_eq!(group.node("b").leader(), Some(&id("a")));
}

#[test]
fn a_minority_elects_nobody_and_disturbs_nobody() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.cut = vec!["b", "c"];
    group.pass(5000);
    assert_eq!((group.role("a"), group.term("a")), (Role::Candidate, 1), "pre-votes change no term");
}

#[test]
fn a_vote_is_durable_before_it_is_sent() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.millis += 1000;
    group.machine("b").disk_waits = true;
    group.step("a", "b", 2, VOTE(1, 1));
    assert!(votes(&group.take()).is_empty());
    group.persist("b");
    assert_eq!(votes(&group.take()), [("a".to_owned(), true)]);
    assert_eq!(group.machine("b").hard_state.vote, Some(id("a").number(disk_of("a"))));
}

#[test]
fn a_candidate_counts_its_own_vote_once_it_is_durable() {
    let mut group = Group::bound(&["a", "b", "c"]);
    group.machine("a").disk_waits = true;
    group.stand("a");
    group.deliver();
    assert_eq!(group.term("a"), 2, "a quorum would elect it");
    group.step("b", "a", 2, Message::VoteReply { granted: true });
    assert!(!group.leads("a"), "one vote of three, and its own is not durable");
    assert!(!group.sent.iter().any(|envelope| matches!(envelope.message, Message::Vote { .. })));
    group.persist("a");
    assert!(group.leads("a"));
}

#[test]
fn a_node_votes_once_in_a_term() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.millis += 1000;
    group.step("a", "b", 2, VOTE(1, 1));
    group.step("c", "b", 2, VOTE(1, 1));
    group.step("a", "b", 2, VOTE(1, 1));
    let (a, c) = (("a".to_owned(), true), ("c".to_owned(), false));
    assert_eq!(votes(&group.take()), [a.clone(), c, a], "who has the vote may ask again");
}

#[test]
fn a_vote_survives_a_restart() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.millis += 1000;
    group.step("a", "b", 2, VOTE(1, 1));
    group.restart("b");
    group.millis += 1000;
    group.take();
    group.step("c", "b", 2, VOTE(9, 1));
    assert_eq!(votes(&group.take()), [("c".to_owned(), false)]);
}

#[test]
fn a_vote_for_a_name_is_a_vote_for_its_disk() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.millis += 1000;
    group.step("a", "b", 2, VOTE(1, 1));
    group.take();
    group.step_from_disk("a", disk_of("x"), "b", 2, VOTE(1, 1));
    assert_eq!(votes(&group.take()), [("a".to_owned(), false)], "an empty disk knows nothing of that vote");
}

#[test]
fn a_candidate_with_less_of_the_log_gets_no_vote() {
    let mut group = Group::new(&["a", "b", "c"]);
    let log = vec![group.machine("b").log[0].clone(), command(2, 3), command(3, 3)];
    group.place("b", disk_of("b"), log);
    group.millis += 1000;
    for (last, granted) in [((2, 3), false), ((9, 2), false), ((3, 3), true), ((2, 4), true)] {
        group.take();
        group.step("a", "b", 4, PRE_VOTE(last.0, last.1));
        assert_eq!(votes(&group.take()), [("a".to_owned(), granted)], "{last:?}");
        group.step("a", "b", 10 + last.0, VOTE(last.0, last.1));
        assert_eq!(votes(&group.take()), [("a".to_owned(), granted)], "{last:?}");
        group.machine("b").hard_state.vote = None;
        group.machine("b").hard_state.term = Term(3);
        group.restart("b");
        group.millis += 2000;
    }
}

#[test]
fn an_earlier_term_gets_no_vote_and_learns_of_the_present_one() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.take();
    group.step("c", "b", 1, PRE_VOTE(99, 99));
    assert_eq!(group.wire[0].term, Term(2));
    assert_eq!(votes(&group.take()), [("c".to_owned(), false)]);
    group.step("c", "b", 1, VOTE(99, 99));
    assert!(group.take().is_empty());
    assert_eq!(group.term("b"), 2);
}

#[test]
fn who_hears_a_leader_ignores_candidates() {
    let mut group = Group::led(&["a", "b", "c"]);
    let term = group.term("b");
    group.take();
    group.step("c", "b", term + 5, VOTE(99, 99));
    group.step("c", "a", term + 5, VOTE(99, 99));
    assert!(group.take().is_empty() && group.leads("a"));
    assert_eq!(group.term("b"), term, "the term does not change either");
    group.step("c", "b", term + 1, PRE_VOTE(99, 99));
    assert_eq!(votes(&group.take()), [("c".to_owned(), false)]);
    group.millis += 600;
    group.step("c", "b", term + 1, PRE_VOTE(99, 99));
    assert_eq!(votes(&group.take()), [("c".to_owned(), true)]);
}

#[test]
fn after_a_start_no_vote_is_granted_for_an_election_timeout() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.restart("b");
    group.step("a", "b", 2, PRE_VOTE(1, 1));
    group.step("a", "b", 2, VOTE(1, 1));
    assert_eq!(votes(&group.take()), [("a".to_owned(), false)], "and to a request for a real one it says nothing");
    group.step("a", "b", 2, Message::Vote { last: at(1, 1), transfer: true });
    assert_eq!(votes(&group.take()), [("a".to_owned(), true)], "but for a transfer");
    group.restart("c");
    group.millis += 500;
    group.step("a", "c", 2, VOTE(1, 1));
    assert_eq!(votes(&group.take()), [("a".to_owned(), true)]);
}

#[test]
fn an_old_pre_vote_does_not_count() {
    let mut group = Group::bound(&["a", "b", "c"]);
    group.stand("a");
    group.take();
    group.step("b", "a", 7, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("a"), 1);
    group.step("b", "a", 2, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("a"), 2);
    group.step("c", "a", 2, Message::PreVoteReply { granted: true });
    assert!(!group.leads("a"), "a pre-vote is no vote");
}

#[test]
fn refusals_of_a_quorum_end_a_candidacy() {
    let mut group = Group::bound(&["a", "b", "c"]);
    group.stand("a");
    group.step("b", "a", 1, Message::PreVoteReply { granted: false });
    assert_eq!(group.role("a"), Role::Candidate);
    group.step("c", "a", 1, Message::PreVoteReply { granted: false });
    assert_eq!(group.role("a"), Role::Follower);
    group.stand("a");
    let term = asked_for(&mut group);
    group.step("b", "a", term, Message::PreVoteReply { granted: true });
    assert_eq!((group.role("a"), group.term("a")), (Role::Candidate, term));
    group.step("b", "a", term, Message::VoteReply { granted: false });
    group.step("c", "a", term, Message::VoteReply { granted: false });
    assert_eq!((group.role("a"), group.term("a")), (Role::Follower, term));
}

/// The term of the newest pre-votes.
fn asked_for(group: &mut Group) -> u64 {
    let asks = |envelope: &&chronos::raft::Envelope| matches!(envelope.message, Message::PreVote { .. });
    group.take();
    group.sent.iter().rfind(asks).unwrap().term.0
}

#[test]
fn a_pre_vote_of_an_earlier_round_does_not_count() {
    let mut group = Group::bound(&["a", "b", "c"]);
    let mut terms = Vec::new();
    for _ in 0..3 {
        group.stand("a");
        terms.push(asked_for(&mut group));
        group.step("b", "a", 1, Message::PreVoteReply { granted: false });
        group.step("c", "a", 1, Message::PreVoteReply { granted: false });
    }
    group.stand("a");
    let last = asked_for(&mut group);
    for early in terms {
        // Both voters may hear a leader by now.
        group.step("b", "a", early, Message::PreVoteReply { granted: true });
        group.step("c", "a", early, Message::PreVoteReply { granted: true });
        assert_eq!(group.term("a"), 1, "a round of term {early}, and the present one of {last}");
    }
    group.step("b", "a", last, Message::PreVoteReply { granted: true });
    assert_eq!(group.term("a"), last);
    group.take();
    // However often it asks, no term is far away.
    group.cut = vec!["b", "c"];
    group.pass(60_000);
    let (term, most) = (group.term("a"), asked_for(&mut group));
    assert!(most <= term + 8, "{most} of term {term}");
}

#[test]
fn a_candidate_follows_the_leader_of_its_term_and_of_later_ones() {
    let mut group = Group::bound(&["a", "b", "c"]);
    group.stand("a");
    group.step("b", "a", 2, Message::PreVoteReply { granted: true });
    assert_eq!((group.role("a"), group.term("a")), (Role::Candidate, 2));
    let append = Message::Append { previous: at(1, 1), entries: vec![], commit: chronos::ids::LogIndex(0) };
    group.step("b", "a", 2, append.clone());
    assert_eq!((group.role("a"), group.node("a").leader()), (Role::Follower, Some(&id("b"))));
    group.step("c", "a", 5, append);
    assert_eq!((group.term("a"), group.node("a").leader()), (5, Some(&id("c"))));
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b"];
    group.pass(2000);
    assert!(group.leads("a"), "one of two others is a quorum");
    group.cut = vec!["b", "c"];
    group.pass(600);
    assert!(!group.leads("a"));
    assert!(group.propose("a", b"x").unwrap_err().message().contains("no leader (term 2)"));
}

#[test]
fn a_later_term_ends_leadership() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("b", "a", 9, Message::PreVoteReply { granted: false });
    assert_eq!((group.role("a"), group.term("a"), group.node("a").leader()), (Role::Follower, 9, None));
}

#[test]
fn writes_go_on_after_the_leader_is_gone() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    group.pass(2500);
    let leader = if group.leads("b") { "b" } else { "c" };
    group.propose(leader, b"x").unwrap();
    group.deliver();
    let last = group.machine(leader).last();
    assert_eq!(group.committed(leader), last.index.0);
    group.cut.clear();
    group.pass(500);
    assert!(!group.leads("a"));
    assert_eq!(group.machine("a").last(), last, "and who was cut off follows");
}

#[test]
fn who_stands_again_and_again_keeps_its_term() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.pass(5000);
    assert_eq!(group.term("c"), 2);
    group.cut.clear();
    group.pass(500);
    assert!(group.leads("a") && group.term("a") == 2, "it comes back and disturbs nobody");
}

#[test]
fn messages_for_others_are_not_ours() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.millis += 1000;
    let now = group.now();
    let envelope =
        chronos::raft::Envelope { from: id("a"), disk: disk_of("a"), to: id("c"), term: Term(7), message: VOTE(9, 9) };
    group.node("b").step(envelope, now);
    group.pump("b");
    assert_eq!((group.term("b"), group.wire.len()), (1, 0));
    assert_eq!(bootstrap(group.node("b").membership()).term, Term(1));
}
