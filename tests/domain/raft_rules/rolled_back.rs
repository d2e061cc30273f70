//! Disks that were put back to what they were at some earlier time, more of them than a group survives.

use super::Group;
use super::group::{at, id};
use chronos::ids::LogIndex;
use chronos::raft::{HardState, Message, Outcast};

/// `c` has applied more than `a` and `b`, whose disks are older copies, and has let go of that.
fn rolled_back() -> Group {
    let mut group = Group::led(&["a", "b", "c"]);
    let (kept, hard_state) = (group.machine("a").log.clone(), group.machine("a").hard_state.clone());
    for n in 0..8_u8 {
        group.propose("a", &[n]).unwrap();
        group.deliver();
    }
    group.pass(200);
    let last = group.committed("c");
    group.trim("c", last - 1);
    for name in ["a", "b"] {
        let machine = group.machine(name);
        machine.log.clone_from(&kept);
        machine.hard_state = HardState { vote: None, ..hard_state.clone() };
        group.restart(name);
    }
    group.millis += 2000;
    group
}

#[test]
fn a_member_that_has_more_than_its_leader_is_named_and_kept() {
    let mut group = rolled_back();
    let (last, leads) = (group.machine("c").last(), group.machine("a").last().index);
    assert!(last.index.0 > leads.0 + 4);
    group.elect("a");
    group.settle();
    assert!(group.leads("a"), "a panic would have it lead again, and panic again");
    assert_eq!(group.node("c").status().outcast, Some(Outcast::Contradicted));
    // For as long as that leader is there, whatever it says.
    for _ in 0..20 {
        group.propose("a", b"x").unwrap();
        group.pass(300);
        assert_eq!(group.node("c").status().outcast, Some(Outcast::Contradicted));
    }
    assert!(group.leads("a"));
    assert_eq!(group.machine("c").last(), last, "what it has may be all that is left");
    let peers = group.node("a").status().peers;
    let c = peers.iter().find(|peer| peer.id == id("c")).unwrap();
    assert_eq!(c.matched, LogIndex(0), "and counts for nothing");
    assert_eq!(group.read("c", 1).unwrap().index, None, "its leader knows nothing of its state");
}

#[test]
fn what_is_not_known_to_be_this_log_ends_no_entry_here() {
    let mut group = Group::led(&["a", "b", "c"]);
    let (term, committed) = (group.term("a"), group.committed("c"));
    for (commit, held) in [(0, 0), (committed, committed)] {
        // The first word of a leader whose log nobody has compared with this one says that nothing is known to match.
        let commit = LogIndex(commit);
        group.step("a", "c", term, Message::Heartbeat { commit, round: 9, confirmed: None, held: LogIndex(1000) });
        assert_eq!(group.node("c").held(), LogIndex(held));
    }
}

#[test]
fn what_others_have_of_another_history_ends_no_entry_here() {
    let mut group = rolled_back();
    group.elect("a");
    group.settle();
    let term = group.term("a");
    for held in [3, 1000] {
        let beat = Message::Heartbeat { commit: LogIndex(0), round: 9, confirmed: None, held: LogIndex(held) };
        group.step("a", "c", term, beat);
        assert_eq!(group.node("c").held(), LogIndex(0), "it may be the only one that has its log");
    }
}

#[test]
fn it_follows_again_once_a_leader_shows_what_is_committed() {
    let mut group = rolled_back();
    group.elect("a");
    group.settle();
    let last = group.machine("c").last();
    let term = group.term("a") + 1;
    group.take();
    let entries = |from: u64, to: u64| (from..=to).map(|index| super::group::command(index, term)).collect();
    // First from beyond its end, as a leader that has written more would.
    let ahead = at(last.index.0 + 3, term);
    group.step("b", "c", term, Message::Append { previous: ahead, entries: vec![], commit: LogIndex(0) });
    assert_eq!(group.node("c").status().outcast, Some(Outcast::Contradicted), "it is asked on");
    let asked = group.take();
    assert!(asked.iter().any(|envelope| matches!(envelope.message, Message::AppendReply(_))), "{asked:?}");
    let entries = entries(last.index.0 + 1, last.index.0 + 3);
    group.step("b", "c", term, Message::Append { previous: last, entries, commit: LogIndex(0) });
    assert_eq!(group.node("c").status().outcast, None);
    assert_eq!(group.node("c").leader(), Some(&id("b")));
}
