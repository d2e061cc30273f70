//! A witness votes and keeps the log, and has no state: it leads only until somebody else can.

use super::Group;
use super::group::{bound, disk_of, id, voters};
use super::members::{add, change, remove};
use chronos::clock::Wall;
use chronos::ids::LogIndex;
use chronos::raft::{Envelope, Flow, MemberRole, Message, Payload, Role};

fn with_witness() -> Group {
    let mut membership = voters(&["a", "b", "w"]);
    membership.members.get_mut(&id("w")).unwrap().role = MemberRole::Witness;
    let mut group = Group::of(&["a", "b", "w"], &membership);
    group.elect("a");
    group.settle();
    group
}

#[test]
fn a_witness_counts_towards_commit() {
    let mut group = with_witness();
    group.cut = vec!["b"];
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.committed("a"), index.0);
    assert_eq!(group.machine("w").last().index, index, "it stores full entries");
}

#[test]
fn a_witness_waits_two_timeouts_longer_before_it_stands() {
    let mut group = with_witness();
    group.cut = vec!["a", "b"];
    group.wire.clear();
    group.pass(1450);
    assert_eq!(group.role("w"), Role::Follower);
    group.pass(700);
    assert_eq!(group.role("w"), Role::Candidate);
}

#[test]
fn a_witness_that_leads_refuses_clients_and_hands_over_to_a_full_voter() {
    let mut group = with_witness();
    group.cut = vec!["b"];
    group.propose("a", b"x").unwrap();
    group.deliver();
    group.cut = vec!["a"];
    // b lacks the entry, so the witness alone can be elected, and brings it up to date.
    group.machine("b").disk_waits = true;
    group.millis += 3000;
    group.stand("w");
    for _ in 0..40 {
        group.deliver_one();
        group.persist("b");
        if group.leads("w") {
            break;
        }
    }
    assert!(group.leads("w"));
    let refused = group.propose("w", b"y").unwrap_err();
    assert!(refused.message().contains("a witness leads until"), "{refused:?}");
    assert_eq!(group.read("w", 1).unwrap().index, None);
    let now = group.now();
    assert!(!group.node("w").may_read() && !group.node("w").holds_lease(now.monotonic));
    group.machine("b").disk_waits = false;
    group.persist("b");
    group.pass(1000);
    assert!(group.leads("b"));
    assert_eq!(group.machine("b").last().index, group.machine("w").last().index);
    assert!(group.sent.iter().any(|e| e.from == id("w") && e.message == Message::TimeoutNow));
}

#[test]
fn a_witness_that_cannot_commit_hands_over_all_the_same() {
    let mut membership = voters(&["a", "b", "w", "x"]);
    for witness in ["w", "x"] {
        membership.members.get_mut(&id(witness)).unwrap().role = MemberRole::Witness;
    }
    let mut group = Group::of(&["a", "b", "w", "x"], &membership);
    group.elect("a");
    group.settle();
    group.cut = vec!["a"];
    group.millis += 3000;
    group.stand("w");
    while !group.leads("w") {
        assert!(group.deliver_one(), "nobody says anything more");
    }
    // As where it needs a snapshot, which a witness has not: with a gone, nothing can be committed without it.
    group.machine("x").disk_waits = true;
    let committed = group.committed("w");
    group.pass(200);
    assert_eq!(group.committed("w"), committed);
    assert!(group.sent.iter().any(|e| e.from == id("w") && e.to == id("b") && e.message == Message::TimeoutNow));
    group.machine("x").disk_waits = false;
    group.persist("x");
    group.pass(1000);
    assert!(group.leads("b"));
}

#[test]
fn a_witness_takes_no_reads() {
    let mut group = with_witness();
    assert_eq!(group.read("w", 1).unwrap().index, None);
}

#[test]
fn a_new_witness_learns_first() {
    let mut group = Group::led(&["a", "b"]);
    group.place("w", super::group::disk_of("w"), vec![]);
    let add = super::members::add("w", MemberRole::Witness);
    super::members::change(&mut group, "a", &add).unwrap();
    assert_eq!(group.node("a").membership().get(&id("w")).unwrap().role, MemberRole::LearningWitness);
    group.pass(1500);
    assert_eq!(group.node("a").membership().get(&id("w")).unwrap().role, MemberRole::Witness);
}

#[test]
fn who_joins_is_brought_a_snapshot_once_its_disk_is_settled() {
    for role in [MemberRole::Witness, MemberRole::Voter] {
        let mut group = Group::led(&["a", "b", "c"]);
        group.propose("a", b"x").unwrap();
        group.pass(200);
        let last = group.committed("a");
        group.trim("a", last);
        group.place("w", disk_of("w"), vec![]);
        group.cut = vec!["b", "c"];
        change(&mut group, "a", &add("w", role)).unwrap();
        group.pass(300);
        assert!(group.leads("a") && group.machine("a").last().index.0 > last);
        assert!(group.machine("a").snapshots.is_empty(), "another leader may give its name to another disk, with rows");
        group.cut.clear();
        group.pass(400);
        assert_eq!(group.machine("a").snapshots, [id("w")]);
        let committed = group.committed("a");
        let is_bound = group.machine("a").log.iter().filter(|entry| entry.index.0 <= committed).any(|entry| {
            let payload = Payload::decode(&entry.payload).unwrap();
            matches!(payload, Payload::Membership(of) if of.get(&id("w")).is_some_and(|w| w.disk == Some(disk_of("w"))))
        });
        assert!(is_bound, "{role:?}");
    }
}

/// Up to where the witness may let go of its log, as it has been told.
fn held(group: &mut Group) -> u64 {
    group.node("w").held().0
}

#[test]
fn a_witness_is_told_up_to_where_every_full_voter_has_the_log() {
    let mut group = with_witness();
    let before = group.machine("a").last().index.0;
    assert_eq!(held(&mut group), before);
    group.cut = vec!["b"];
    let index = group.propose("a", b"x").unwrap();
    group.pass(300);
    assert_eq!(group.committed("a"), index.0, "the leader and the witness are a majority");
    assert_eq!(held(&mut group), before, "b may need it of the witness");
    group.cut.clear();
    group.pass(1500);
    assert_eq!(held(&mut group), group.machine("a").last().index.0);
}

#[test]
fn who_learns_to_vote_holds_a_witness_back_and_an_observer_does_not() {
    for (role, is_waited_for) in [(MemberRole::Voter, true), (MemberRole::Observer, false)] {
        let mut group = with_witness();
        change(&mut group, "a", &add("d", role)).unwrap();
        group.pass(500);
        let last = group.machine("a").last().index.0;
        assert_eq!(held(&mut group), if is_waited_for { 0 } else { last }, "{role:?}");
    }
}

#[test]
fn while_a_change_is_under_way_nothing_may_be_let_go_of() {
    let mut group = with_witness();
    group.place("d", disk_of("d"), vec![]);
    change(&mut group, "a", &add("d", MemberRole::Voter)).unwrap();
    group.pass(1500);
    // d goes, by the word of a leader that nobody else has heard yet: it may stay.
    group.cut = vec!["d"];
    group.propose("a", b"x").unwrap();
    group.pass(200);
    group.cut = vec!["b", "w", "d"];
    change(&mut group, "a", &remove("d")).unwrap();
    assert_eq!(group.node("a").held(), LogIndex(0));
    group.cut = vec!["d"];
    group.pass(700);
    let last = group.machine("a").last().index.0;
    assert_eq!(held(&mut group), last, "it is gone, and nobody else lacks anything");
}

#[test]
fn a_voter_that_has_lost_its_log_counts_as_one_that_has_nothing() {
    let mut group = with_witness();
    let round = 99;
    let command_version = chronos::machine::COMMAND_VERSION;
    let term = group.term("a");
    let lost = |quarantined_until| Message::HeartbeatReply {
        round,
        command_version,
        quarantined_until,
        wall: Wall(0),
        is_disk_low: false,
    };
    group.step("b", "a", term, lost(Some(LogIndex(3))));
    assert_eq!(group.node("a").held(), LogIndex(0));
}

/// A group of a leader a, b, and a witness that has fallen behind what the leader's log still has, after a new election.
fn with_a_witness_behind() -> Group {
    let mut group = with_witness();
    group.cut = vec!["w"];
    group.propose("a", b"x").unwrap();
    group.pass(200);
    let last = group.committed("a");
    group.trim("a", last);
    group.restart("a");
    group
}

#[test]
fn a_witness_that_fell_behind_is_brought_up_to_date_where_the_silent_had_everything() {
    let mut group = with_a_witness_behind();
    // b is gone for good.
    group.cut = vec!["b"];
    group.elect("a");
    group.pass(1500);
    let committed = group.committed("a");
    assert_eq!(group.machine("a").snapshots, [id("w")]);
    assert_eq!(group.node("a").held(), LogIndex(0), "nothing is heard of b");
    assert_eq!(group.node("a").once_held(), LogIndex(committed), "a and b have committed it without the witness");
}

#[test]
fn what_a_silent_voter_may_lack_a_witness_keeps() {
    let mut group = with_witness();
    group.cut = vec!["b"];
    group.propose("a", b"x").unwrap();
    group.pass(200);
    group.restart("a");
    group.elect("a");
    group.pass(300);
    assert!(group.committed("a") > 0);
    assert_eq!(group.node("a").once_held(), LogIndex(0), "the witness may have committed it with a");
}

#[test]
fn nothing_is_kept_for_a_voter_whose_disk_was_replaced_or_that_is_to_go() {
    let mut replaced = with_witness();
    replaced.cut = vec!["b"];
    replaced.propose("a", b"x").unwrap();
    replaced.pass(200);
    let index = LogIndex(replaced.committed("a"));
    assert!(replaced.node("a").once_held() < index);
    let (term, reply) = (replaced.term("a"), super::group::heartbeat_reply(9, Wall(0)));
    replaced.step_from_disk("b", chronos::ids::DiskId(99), "a", term, reply.clone());
    assert!(replaced.node("a").held() < index && replaced.node("a").once_held() == index);
    // The disk that was its own is there after all.
    replaced.step("b", "a", term, reply);
    assert!(replaced.node("a").once_held() < index);
    let mut leaving = with_witness();
    leaving.cut = vec!["b"];
    leaving.propose("a", b"x").unwrap();
    leaving.pass(200);
    leaving.cut = vec!["b", "w"];
    change(&mut leaving, "a", &remove("b")).unwrap();
    assert!(leaving.node("a").held() == LogIndex(0) && leaving.node("a").once_held() >= index);
}

#[test]
fn a_witness_whose_log_is_full_does_not_count_towards_commit_until_it_has_room() {
    let mut group = with_witness();
    group.node("w").set_log_full(true);
    group.cut = vec!["b"];
    let before = group.machine("w").last().index;
    let index = group.propose("a", b"x").unwrap();
    group.pass(2000);
    assert!(group.leads("a"), "it is heard all the same");
    assert!(group.committed("a") < index.0, "the leader alone is no majority");
    assert_eq!(group.machine("w").last().index, before);
    let full = |group: &mut Group| {
        let status = group.node("a").status();
        status.peers.iter().any(|peer| peer.id == id("w") && peer.flow == Flow::Full)
    };
    assert!(full(&mut group) && group.node("w").status().log_is_full);
    group.node("w").set_log_full(false);
    group.pass(1200);
    assert_eq!((group.committed("a"), group.machine("w").last().index), (index.0, index));
    assert!(!full(&mut group));
}

#[test]
fn a_full_witness_is_asked_for_nothing_but_its_position() {
    let mut group = with_witness();
    group.node("w").set_log_full(true);
    group.cut = vec!["b"];
    for _ in 0..5 {
        group.propose("a", &[7; 1000]).unwrap();
    }
    group.pass(600);
    group.sent.clear();
    group.pass(3000);
    let bytes: usize = group.sent.iter().filter(|sent| sent.to == id("w")).map(Envelope::entry_bytes).sum();
    assert_eq!(bytes, 0, "nothing that it would throw away");
}

#[test]
fn a_member_with_rows_takes_entries_whatever_its_log_has_come_to() {
    let mut group = with_witness();
    group.node("b").set_log_full(true);
    group.cut = vec!["w"];
    let index = group.propose("a", b"x").unwrap();
    group.pass(300);
    assert_eq!(group.committed("a"), index.0);
}

#[test]
fn what_a_disk_is_for_is_known_once_that_is_committed() {
    let mut group = with_witness();
    assert_eq!(group.node("w").duty(), Some(MemberRole::Witness));
    assert_eq!(group.node("b").duty(), Some(MemberRole::Voter));
    // An empty disk that has only the first entry has the name, and nothing more.
    let first = voters(&["a", "b", "w"]);
    group.wipe("w", 99, &first);
    assert_eq!(group.node("w").duty(), None);
    // Nor is it full before it knows: it would never come to know.
    let mut with_disks = bound(&["a", "b", "w"]);
    with_disks.members.get_mut(&id("w")).unwrap().role = MemberRole::Witness;
    group.wipe("w", 99, &with_disks);
    group.node("w").set_log_full(true);
    assert!(group.node("w").is_witness() && group.node("w").duty().is_none());
    assert!(!group.node("w").status().log_is_full);
}
