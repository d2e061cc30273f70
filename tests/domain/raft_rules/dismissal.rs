//! Disks whose removal is committed: what they say counts for nothing, and who is told so is out for good.

use super::group::{bound, command, disk_of, id, membership_entry};
use super::*;
use chronos::ids::{DiskId, LogIndex, Term};
use chronos::raft::{
    Config, Envelope, Known, Member, Message, Node, Now, Outcast, Position, Recovered, Role, bootstrap,
};

fn dismissed(name: &str) -> Message {
    Message::Dismissed { disk: disk_of(name) }
}

/// `a` was claimed by an operator; `b` and `c` come back as they were, and are more.
fn recovered() -> Group {
    let mut group = Group::bound(&["a", "b", "c"]);
    let group_of_one = bound(&["a", "b", "c"]).claimed_by(&id("a"), disk_of("a"));
    let log = vec![bootstrap(&bound(&["a", "b", "c"])), command(2, 5), membership_entry(3, 1005, &group_of_one)];
    group.place("a", disk_of("a"), log);
    group.pass(200);
    assert!(group.leads("a"), "it decides alone");
    group
}

#[test]
fn a_claim_leaves_the_others_out_disks_and_all() {
    let claimed = bound(&["a", "b", "c"]).claimed_by(&id("b"), DiskId(77));
    assert!(claimed.is_only(&id("b")) && claimed.members.len() == 1);
    assert_eq!(claimed.removed, [disk_of("a"), disk_of("c")]);
    let kept = Member { address: "b:1".into(), disk: Some(DiskId(77)), ..Member::default() };
    assert_eq!(claimed.get(&id("b")), Some(&kept));
}

#[test]
fn those_who_were_left_out_elect_nobody_once_they_have_asked() {
    let mut group = recovered();
    for name in ["b", "c"] {
        group.step("a", name, 0, dismissed(name));
    }
    group.pass(5000);
    for name in ["b", "c"] {
        assert_eq!((group.role(name), group.node(name).status().outcast), (Role::Follower, Some(Outcast::Removed)));
        assert!(group.machine(name).hard_state.is_dismissed(), "durably");
    }
    // After another start nobody needs to tell them.
    group.cut = vec!["a"];
    ["b", "c"].into_iter().for_each(|name| group.restart(name));
    group.pass(5000);
    assert!(["b", "c"].into_iter().all(|name| group.role(name) == Role::Follower));
    assert_eq!(group.node("b").status().outcast, Some(Outcast::Removed));
}

#[test]
fn a_majority_of_old_disks_that_has_elected_a_leader_meanwhile_is_not_followed_and_ends() {
    let mut group = recovered();
    group.cut = vec!["a"];
    group.pass(5000);
    let old = if group.leads("b") { "b" } else { "c" };
    assert!(group.leads(old), "nobody has told them");
    let term = group.term("a");
    group.cut.clear();
    group.step(
        old,
        "a",
        5000,
        Message::Heartbeat { commit: LogIndex(9), round: 1, confirmed: None, held: LogIndex(0) },
    );
    group.pass(5000);
    assert!(group.leads("a") && group.term("a") == term, "a later term of theirs is nothing to it");
    assert!(!group.leads("b") && !group.leads("c"));
    assert!(group.machine("b").hard_state.is_dismissed() && group.machine("c").hard_state.is_dismissed());
}

#[test]
fn the_word_of_who_is_no_member_dismisses_nobody() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("d", "b", 0, dismissed("b"));
    assert_eq!(group.machine("b").hard_state.quarantined_until, None);
    group.pass(500);
    assert_eq!(group.node("b").status().outcast, None, "its leader says otherwise");
    // Nor what is said to another disk of its name.
    group.step("a", "b", 0, dismissed("x"));
    assert_eq!(group.machine("b").hard_state.quarantined_until, None);
    // Nor that of a member's name on another disk.
    group.step_from_disk("c", DiskId(7), "b", 0, dismissed("b"));
    assert_eq!(group.machine("b").hard_state.quarantined_until, None);
}

#[test]
fn a_removal_that_may_never_have_been_committed_dismisses_nobody() {
    // Its state is lost, and the newest word of its log is one that a later leader may have taken back.
    let mut without = bound(&["a", "b"]);
    without.removed.push(disk_of("c"));
    for known in [Known::Committed, Known::Hearsay] {
        let recovered = Recovered { membership: without.clone(), known, ..Recovered::default() };
        let mut node = Node::recover(Config::new(id("b"), disk_of("b"), 1), recovered).unwrap();
        node.tick(Now::default());
        let message = Message::PreVote { last: Position::default() };
        let (from, to) = (id("c"), id("b"));
        node.step(Envelope { from, disk: disk_of("c"), to, term: Term(5), message }, Now::default());
        let answers: Vec<Message> = node.take_ready().messages.into_iter().map(|envelope| envelope.message).collect();
        let is_settled = known == Known::Committed;
        assert_eq!(answers.contains(&dismissed("c")), is_settled, "{known:?}: {answers:?}");
        assert_eq!(node.status().dismissed.contains(&disk_of("c")), is_settled, "{known:?}");
    }
}

#[test]
fn a_dismissed_member_acknowledges_nothing() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("a", "b", 0, dismissed("b"));
    group.cut = vec!["c"];
    group.sent.clear();
    group.pass(3000);
    assert!(!group.leads("a"), "it would count towards a majority that there is not");
    assert!(group.sent.iter().all(|envelope| envelope.from != id("b")), "{:?}", group.sent);
}
