//! The log, and when its entries count (thesis 3.5, 3.6, 10.2.1).

use super::Group;
use super::group::{at, command, disk_of, id};
use super::members::{add, change};
use chronos::ids::LogIndex;
use chronos::raft::{Config, Delivery, Entry, Flow, MemberRole, Message, Payload, Verdict};

fn append(previous: (u64, u64), entries: Vec<Entry>, commit: u64) -> Message {
    Message::Append { previous: at(previous.0, previous.1), entries, commit: LogIndex(commit) }
}

fn verdicts(group: &mut Group) -> Vec<Verdict> {
    let verdict = |envelope: chronos::raft::Envelope| match envelope.message {
        Message::AppendReply(verdict) => Some(verdict),
        _ => None,
    };
    group.take().into_iter().filter_map(verdict).collect()
}

fn accepted(matched: u64) -> Verdict {
    Verdict::Accepted { matched: LogIndex(matched) }
}

#[test]
fn entries_are_durable_before_they_are_acknowledged() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.machine("b").disk_waits = true;
    group.step("a", "b", 2, append((1, 1), vec![command(2, 2)], 0));
    assert!(verdicts(&mut group).is_empty());
    group.persist("b");
    assert_eq!(verdicts(&mut group), [accepted(2)]);
}

#[test]
fn an_append_of_an_earlier_term_is_refused() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.take();
    group.step("c", "b", 1, append((1, 1), vec![command(2, 1)], 9));
    assert_eq!(group.wire[0].term.0, 2, "its sender learns of the later term");
    assert!(matches!(verdicts(&mut group)[..], [Verdict::Rejected { .. }]));
    assert_eq!(group.node("b").leader(), Some(&id("a")));
}

#[test]
fn an_append_behind_a_gap_or_another_entry_is_rejected_with_a_hint() {
    let mut group = Group::new(&["a", "b", "c"]);
    let first = group.machine("a").log[0].clone();
    group.place("b", disk_of("b"), vec![first, command(2, 2), command(3, 2), command(4, 5)]);
    group.step("a", "b", 6, append((9, 6), vec![], 0));
    group.step("a", "b", 6, append((4, 4), vec![command(5, 6)], 0));
    let hint = |previous, index, term| Verdict::Rejected {
        previous: LogIndex(previous),
        hint: at(index, term),
        quarantined: false,
    };
    assert_eq!(verdicts(&mut group), [hint(9, 4, 5), hint(4, 3, 2)]);
    assert_eq!(group.machine("b").last(), at(4, 5), "nothing is taken back without proof");
}

#[test]
fn conflicting_entries_are_replaced_and_others_stay() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.step("a", "b", 2, append((1, 1), vec![command(2, 2), command(3, 2), command(4, 2)], 0));
    group.step("a", "b", 2, append((1, 1), vec![command(2, 2)], 0));
    assert_eq!(group.machine("b").last(), at(4, 2), "what arrives late takes nothing back");
    group.step("c", "b", 3, append((2, 2), vec![command(3, 3)], 0));
    assert_eq!(group.machine("b").last(), at(3, 3));
    assert_eq!(verdicts(&mut group), [accepted(4), accepted(2), accepted(3)]);
}

#[test]
fn entries_that_are_not_yet_durable_are_replaced_too() {
    let mut group = Group::new(&["a", "b", "c"]);
    let now = group.now();
    let first = ("a", 2, append((1, 1), vec![command(2, 2), command(3, 2)], 0));
    let second = ("c", 3, append((2, 2), vec![command(3, 3)], 0));
    for (from, term, message) in [first, second] {
        let term = chronos::ids::Term(term);
        let envelope = chronos::raft::Envelope { from: id(from), disk: disk_of(from), to: id("b"), term, message };
        group.node("b").step(envelope, now);
    }
    let entries = group.node("b").take_ready().entries;
    let positions: Vec<_> = entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect();
    assert_eq!(positions, [(2, 2), (3, 3)]);
}

#[test]
fn what_is_committed_is_never_taken_back() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.step("a", "b", 2, append((1, 1), vec![command(2, 2), command(3, 2)], 3));
    assert_eq!(group.committed("b"), 3);
    group.step("c", "b", 3, append((2, 2), vec![command(3, 3)], 0));
    group.step("c", "b", 3, append((3, 3), vec![], 0));
    assert_eq!(group.machine("b").last(), super::group::at(3, 2), "whoever leads: it may be all that is left");
    let status = group.node("b").status();
    assert_eq!((status.outcast, status.leader), (Some(chronos::raft::Outcast::Contradicted), None));
    group.step("c", "b", 4, append((3, 2), vec![], 0));
    assert_eq!(group.node("b").status().outcast, None);
}

#[test]
fn a_follower_commits_only_what_the_message_verified() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.step("a", "b", 2, append((1, 1), vec![command(2, 2), command(3, 2)], 0));
    group.step("c", "b", 3, append((2, 2), vec![], 9));
    assert_eq!(group.committed("b"), 2, "entry 3 may be another one at this leader");
    group.step("c", "b", 3, append((2, 2), vec![command(3, 3)], 9));
    assert_eq!(group.committed("b"), 3);
}

#[test]
fn a_heartbeat_names_only_what_the_receiver_is_known_to_have() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.propose("a", b"x").unwrap();
    group.deliver();
    group.take();
    group.millis += 100;
    group.tick("a");
    let commit = |to: &str| {
        let to = id(to);
        group.wire.iter().find_map(|envelope| match envelope.message {
            Message::Heartbeat { commit, .. } if envelope.to == to => Some(commit.0),
            _ => None,
        })
    };
    let committed = group.committed("a");
    assert_eq!(commit("b"), Some(committed));
    assert_eq!(commit("c"), Some(committed - 1));
}

#[test]
fn the_leader_counts_its_own_copy_once_it_is_durable() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["c"];
    group.machine("a").disk_waits = true;
    let before = group.committed("a");
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.machine("b").last().index, index, "entries travel while the disk works");
    assert_eq!(group.committed("a"), before);
    group.persist("a");
    assert_eq!(group.committed("a"), index.0);
}

#[test]
fn a_quorum_commits_without_the_leaders_disk() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.machine("a").disk_waits = true;
    let index = group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.committed("a"), index.0);
    assert!(group.node("a").status().applied < index, "and nothing is applied that is not durable here");
}

#[test]
fn older_entries_commit_only_behind_one_of_the_leaders_own() {
    let mut group = Group::bound(&["a", "b", "c"]);
    let first = group.machine("a").log[0].clone();
    let log = vec![first, command(2, 2), command(3, 3)];
    group.place("a", disk_of("a"), log.clone());
    group.place("b", disk_of("b"), log);
    group.cut = vec!["c"];
    group.stand("a");
    while !group.leads("a") {
        assert!(group.deliver_one());
    }
    group.take();
    group.step("b", "a", 4, Message::AppendReply(accepted(3)));
    assert_eq!(group.committed("a"), 0, "a quorum has entries 2 and 3, and they may still be replaced (5.4.2)");
    group.step("b", "a", 4, Message::AppendReply(accepted(4)));
    assert_eq!(group.committed("a"), 4);
}

#[test]
fn a_new_leader_appends_an_entry_of_its_own() {
    let mut group = Group::new(&["a", "b", "c"]);
    group.elect("a");
    let entry = group.machine("a").log[1].clone();
    assert_eq!((entry.term.0, Payload::decode(&entry.payload).unwrap()), (2, Payload::Noop));
}

#[test]
fn logs_that_differ_are_made_equal() {
    let mut group = Group::new(&["a", "b", "c"]);
    let first = group.machine("a").log[0].clone();
    let base = vec![first, command(2, 2), command(3, 2)];
    let with = |more: Vec<Entry>| [base.clone(), more].concat();
    group.place("a", disk_of("a"), with(vec![command(4, 6), command(5, 6)]));
    group.place("b", disk_of("b"), with((4..20).map(|index| command(index, 3)).collect()));
    group.place("c", disk_of("c"), base.clone());
    group.elect("a");
    group.settle();
    let log = group.machine("a").log.clone();
    assert!(group.machine("b").log == log && group.machine("c").log == log);
    let probes = group.sent.iter().filter(|envelope| match &envelope.message {
        Message::Append { entries, .. } => envelope.to == id("b") && entries.is_empty(),
        _ => false,
    });
    assert!(probes.count() <= 4, "a term is gone through at once");
}

/// Entries of each message to `b` that is on the wire.
fn on_the_way(group: &Group) -> Vec<usize> {
    let to_b = group.wire.iter().filter(|envelope| envelope.to == id("b"));
    let entries = to_b.map(|envelope| match &envelope.message {
        Message::Append { entries, .. } => entries.len(),
        _ => 0,
    });
    entries.filter(|entries| *entries > 0).collect()
}

#[test]
fn a_peer_that_answers_soon_gets_what_gathers_meanwhile_as_one_message() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.propose("a", b"known to answer soon").unwrap();
    group.deliver();
    for n in 0..200_u8 {
        group.propose("a", &[n]).unwrap();
    }
    assert_eq!(on_the_way(&group), [1]);
    while on_the_way(&group) == [1] || on_the_way(&group).is_empty() {
        assert!(group.deliver_one());
    }
    assert_eq!(on_the_way(&group), [199]);
    group.deliver();
    assert_eq!(group.machine("b").last(), group.machine("a").last());
}

#[test]
fn entries_are_sent_ahead_within_a_window_and_lost_ones_again() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.propose("a", b"answered late").unwrap();
    group.deliver_after(100);
    group.shape = |_| {};
    group.cut = vec!["b", "c"];
    for n in 0..200_u8 {
        group.propose("a", &[n]).unwrap();
    }
    assert_eq!(on_the_way(&group).len(), 128);
    group.take();
    group.cut.clear();
    group.pass(700);
    assert_eq!(group.machine("b").last(), group.machine("a").last());
    assert_eq!(group.committed("a"), group.machine("a").last().index.0);
}

#[test]
fn a_peer_that_cannot_be_reached_is_probed() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.node("a").unreachable(&id("b"));
    group.node("a").unreachable(&id("nobody"));
    let flow = |group: &mut Group| group.node("a").status().peers[0].flow;
    assert_eq!(flow(&mut group), Flow::Probe);
    group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(flow(&mut group), Flow::Replicate);
    group.node("b").unreachable(&id("a"));
}

#[test]
fn what_memory_does_not_hold_is_loaded_from_the_disk() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.shape = |config| config.memory_bytes_max = 300;
    group.restart("a");
    group.elect("a");
    group.settle();
    group.machine("a").holds_loads = true;
    group.cut = vec!["b"];
    for n in 0..20_u8 {
        group.propose("a", &[n; 50]).unwrap();
        group.deliver();
        let held = group.node("a").status().tail_bytes;
        assert!((1..=300).contains(&held), "{held} bytes are held");
    }
    group.cut.clear();
    group.pass(700);
    let load = group.machine("a").loads.pop().unwrap();
    assert_eq!(load.peer, id("b"));
    let now = group.now();
    group.node("a").loaded(&id("b"), vec![], now);
    group.pump("a");
    let again = group.machine("a").loads.pop().unwrap();
    assert_eq!(again.from, load.from, "what could not be read is asked for again");
    let entries: Vec<Entry> = group.machine("a").log.iter().filter(|entry| entry.index >= load.from).cloned().collect();
    // A slow disk answers what was asked for in another term: those are not this leader's entries.
    let foreign = entries.iter().map(|entry| Entry { term: chronos::ids::Term(1), ..entry.clone() }).collect();
    group.node("a").loaded(&id("b"), foreign, now);
    group.pump("a");
    group.deliver();
    assert!(group.machine("b").last().index < load.from);
    group.machine("a").loads.clear();
    group.node("a").loaded(&id("b"), entries, now);
    group.pump("a");
    group.deliver();
    assert_eq!(group.machine("b").last(), group.machine("a").last());
    group.node("b").loaded(&id("a"), vec![], now);
    group.node("a").loaded(&id("nobody"), vec![], now);
}

#[test]
fn who_lags_behind_the_log_is_sent_a_snapshot() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["b"];
    for n in 0..10_u8 {
        group.propose("a", &[n]).unwrap();
        group.deliver();
    }
    let kept = group.node("a").wanted_from().unwrap();
    assert_eq!(kept, group.machine("b").last().index.next(), "the log is wanted from here on");
    let last = group.committed("a");
    group.trim("a", last);
    group.cut.clear();
    group.pass(700);
    assert_eq!(group.machine("a").snapshots, [id("b")]);
    let now = group.now();
    group.node("a").snapshot_ended(&id("b"), Delivery::Failed, now);
    group.pump("a");
    group.deliver();
    assert_eq!(group.machine("a").snapshots.len(), 2, "where it failed, the same comes again");
    let membership = group.node("a").membership().clone();
    let hard_state = group.machine("b").hard_state.clone();
    group.place_with("b", disk_of("b"), vec![], hard_state, (at(last, 2), membership));
    group.node("a").snapshot_ended(&id("b"), Delivery::Installed(LogIndex(last)), now);
    group.pump("a");
    group.propose("a", b"x").unwrap();
    group.deliver();
    assert_eq!(group.machine("b").last(), group.machine("a").last());
    group.node("a").snapshot_ended(&id("b"), Delivery::Failed, now);
    group.node("b").snapshot_ended(&id("a"), Delivery::Failed, now);
    assert_eq!(group.node("b").wanted_from(), None);
}

/// A group whose log has thirty entries more than "d" has, which has nothing and is on its way to this role.
fn joined_by_one_with_nothing(role: MemberRole, shape: fn(&mut Config)) -> Group {
    let mut group = Group::led(&["a", "b", "c"]);
    for n in 0..30_u8 {
        group.propose("a", &[n]).unwrap();
        group.deliver();
    }
    group.shape = shape;
    group.restart("a");
    group.elect("a");
    group.place("d", disk_of("d"), vec![]);
    change(&mut group, "a", &add("d", role)).unwrap();
    group.pass(700);
    group
}

#[test]
fn who_has_nothing_is_brought_a_snapshot_where_the_log_is_long() {
    for role in [MemberRole::Voter, MemberRole::Observer] {
        let mut group = joined_by_one_with_nothing(role, |config| config.snapshot_lag = 20);
        assert_eq!(group.machine("a").snapshots, [id("d")], "{role:?}");
        // Others are being sent, and then it breaks off, again and again.
        for (times, delivery) in [(5, Delivery::Postponed), (3, Delivery::Failed)] {
            for _ in 0..times {
                assert!(group.machine("d").last().index <= LogIndex(1));
                group.machine("a").snapshots.clear();
                let now = group.now();
                group.node("a").snapshot_ended(&id("d"), delivery, now);
                group.pump("a");
                group.pass(200);
            }
        }
        assert!(group.machine("a").snapshots.is_empty(), "it comes by the log");
        assert_eq!(group.machine("d").last(), group.machine("a").last());
    }
}

#[test]
fn who_has_nothing_comes_by_a_short_log_or_where_it_needs_no_rows() {
    let short: fn(&mut Config) = |config| config.snapshot_lag = 100;
    let long: fn(&mut Config) = |config| config.snapshot_lag = 20;
    for (role, shape) in [(MemberRole::Voter, short), (MemberRole::Witness, long)] {
        let mut group = joined_by_one_with_nothing(role, shape);
        assert!(group.machine("a").snapshots.is_empty(), "{role:?}");
        assert_eq!(group.machine("d").last(), group.machine("a").last());
    }
}

#[test]
fn a_trimmed_log_takes_entries_from_before_its_start() {
    let mut group = Group::led(&["a", "b", "c"]);
    let last = group.committed("b");
    group.trim("b", last);
    let entries = group.machine("a").log.clone()[1..].to_vec();
    group.take();
    group.step("a", "b", 2, append((1, 1), entries, last));
    assert_eq!(verdicts(&mut group), [accepted(last)]);
    let log = group.machine("a").log.clone()[1..3].to_vec();
    group.step("a", "b", 2, append((1, 1), log, last));
    assert_eq!(verdicts(&mut group), [accepted(last)], "what was trimmed here was committed, so it is the leader's");
}

#[test]
fn stamps_of_the_leader_are_above_all_that_followers_had() {
    let mut group = Group::new(&["a", "b", "c"]);
    let far = Entry { hlc: chronos::hlc::Timestamp(u64::MAX / 2), ..command(2, 2) };
    group.step("c", "a", 2, append((1, 1), vec![far.clone()], 0));
    group.elect("a");
    let noop = group.machine("a").log[2].clone();
    assert!(noop.hlc > far.hlc);
}

#[test]
fn proposals_of_a_leader_that_was_replaced_no_longer_count_as_waiting() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.cut = vec!["a"];
    group.propose("a", &[0; 500]).unwrap();
    assert_eq!(group.node("a").status().proposals_bytes, 500);
    group.pass(2500);
    group.cut.clear();
    group.pass(500);
    assert!(!group.leads("a"));
    assert_eq!(group.node("a").status().proposals_bytes, 0);
}

#[test]
#[should_panic(expected = "two leaders in one term")]
fn a_second_leader_of_a_term_stops_the_node() {
    let mut group = Group::led(&["a", "b", "c"]);
    group.step("b", "a", 2, append((1, 1), vec![], 0));
}
