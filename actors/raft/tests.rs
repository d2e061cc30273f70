//! What only a test inside the raft actor can show.

use super::tell::differs;
use super::*;
use crate::actors::lifeline::{ChildId, Generation};
use crate::actors::route::{Deadline, Question, Route};
use crate::actors::tests::node::{Running, ints, on_a_system};
use chronos::error::SqlState;
use chronos::hlc::Timestamp;
use chronos::ids::{DiskId, OriginUid};
use chronos::machine::{Body, Command, Outcome};
use chronos::raft::{Member, Message};
use tokio::sync::oneshot;

/// Has another actor take over while this one is about to append, as when its thread was taken for dead.
struct TakeOver;

impl Question for TakeOver {
    type Answer = ();
}

impl Handler<Ask<TakeOver>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<TakeOver>, _: &mut Self::Context) {
        let (TakeOver, reply) = ask.open();
        let body = Body::EvictRequests { before: Timestamp::default() };
        let command = Command { request: None, origin: OriginUid::default(), affected: 0, body }.encode();
        let now = self.now();
        self.node.propose(&command, now).unwrap();
        let (news, _) = mpsc::unbounded_channel();
        let lifeline = Lifeline::new(ChildId(0), Generation(0), news);
        let mut successor = Raft::recover(self.seed.clone(), lifeline).unwrap();
        while !successor.node.may_read() {
            successor.take_events();
            successor.tick();
            successor.flush();
        }
        reply.send(Ok(()));
    }
}

/// A peer's message arrives, and right behind it a proposal, before the actor has looked at either.
struct Deposed(Route<Raft>);

impl Question for Deposed {
    type Answer = oneshot::Receiver<Result<Outcome>>;
}

impl Handler<Ask<Deposed>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<Deposed>, _: &mut Self::Context) {
        let (Deposed(raft), reply) = ask.open();
        let (peer, inbound) = mpsc::channel(1);
        self.inbound = inbound;
        let message = Message::Heartbeat { commit: LogIndex(0), round: 1, confirmed: None, held: LogIndex(0) };
        let (from, to) = (NodeId("z".into()), self.seed.config.id.clone());
        let term = Term(self.node.term().0 + 1);
        peer.try_send(Envelope { from, disk: DiskId(7), to, term, message }).unwrap();
        let body = Body::EvictRequests { before: Timestamp::default() };
        let command = Command { request: None, origin: OriginUid::default(), affected: 0, body }.encode();
        reply.send(Ok(raft.ask_now(Propose { command })));
    }
}

#[test]
fn what_peers_have_said_counts_before_what_clients_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        let raft = node.router.routes().raft.clone();
        let asked = raft.ask(Deposed(raft.clone()), Deadline::after(Duration::from_secs(20))).await.unwrap();
        let refused = asked.await.unwrap().unwrap_err();
        assert!(refused.message().contains("z leads"), "{refused}");
        node.until_served().await;
        node.stop().await;
    });
}

#[test]
fn what_a_group_does_not_understand_is_not_proposed() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        let command = vec![chronos::machine::COMMAND_VERSION + 1, 0];
        let deadline = Deadline::after(Duration::from_secs(20));
        let refused = node.router.routes().raft.ask(Propose { command }, deadline).await.unwrap_err();
        assert!(refused.message().contains("not every member of the group"), "{refused}");
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        node.stop().await;
    });
}

/// A change of the group whose entry was taken back, of a term that is over.
struct LostChange;

impl Question for LostChange {
    type Answer = ();
}

impl Handler<Ask<LostChange>> for Raft {
    type Result = ();

    fn handle(&mut self, ask: Ask<LostChange>, _: &mut Self::Context) {
        let (LostChange, reply) = ask.open();
        self.changes.push((LogIndex(u64::MAX), Term(0), reply));
    }
}

#[test]
fn a_lost_change_is_answered_where_nothing_is_committed_any_more() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        let deadline = Deadline::after(Duration::from_secs(20));
        let lost = node.router.routes().raft.ask(LostChange, deadline).await.unwrap_err();
        assert!(lost.message().contains("another leader has taken over"), "{lost}");
        node.stop().await;
    });
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), hlc: Timestamp(index), payload: Arc::from(&b"x"[..]) }
}

#[test]
fn a_door_waits_for_its_own_entry_and_for_none_in_its_place() {
    let at = |index, term| Position { index: LogIndex(index), term: Term(term) };
    let mut waiting = VecDeque::from([(at(5, 2), "taken back"), (at(6, 2), "as well")]);
    let (paired, stale) = pair(&mut waiting, &[entry(5, 3)]);
    assert_eq!((paired, stale), (vec![None], vec!["taken back", "as well"]));
    let mut waiting = VecDeque::from([(at(5, 2), "old"), (at(6, 4), "new"), (at(8, 4), "newer")]);
    let (paired, stale) = pair(&mut waiting, &[entry(5, 3), entry(6, 4), entry(7, 4), entry(8, 4)]);
    assert_eq!((paired, stale), (vec![None, Some("new"), None, Some("newer")], vec!["old"]));
    let mut waiting = VecDeque::from([(at(5, 2), "taken back")]);
    assert_eq!(pair(&mut waiting, &[]), (vec![], vec!["taken back"]), "and nothing came in its place");
    assert!(waiting.is_empty());
}

#[test]
fn only_other_members_or_their_places_are_a_difference() {
    let list = |members: &[(&str, &str)]| {
        let member = |&(id, address): &(&str, &str)| {
            (NodeId(id.into()), Member { address: address.into(), ..Member::default() })
        };
        Membership::of(members.iter().map(member))
    };
    let (own, group) = (NodeId("a".into()), list(&[("a", "1"), ("b", "2")]));
    for (configured, is_other) in [
        (list(&[("a", "1"), ("b", "2")]), false),
        (list(&[("a", "9"), ("b", "2")]), false),
        (list(&[("a", "1"), ("b", "9")]), true),
        (list(&[("a", "1"), ("c", "2")]), true),
        (list(&[("a", "1"), ("b", "2"), ("c", "3")]), true),
    ] {
        assert_eq!(differs(&configured, &group, &own), is_other, "{configured:?}");
    }
    assert!(!differs(&group, &Membership::default(), &own), "a node that joins knows of nobody yet");
}

#[test]
fn an_actor_that_was_taken_for_dead_appends_nothing_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        node.execute("INSERT INTO t VALUES (1)").await.unwrap();
        for id in 2..5 {
            let restarts = node.router.routes().counters.restarts_of("raft");
            node.router.routes().raft.ask(TakeOver, Deadline::after(Duration::from_secs(30))).await.unwrap();
            while node.router.routes().counters.restarts_of("raft") == restarts {
                assert_eq!(node.router.routes().counters.restarts_of("storage"), 0, "the log refused its append");
                tokio::task::yield_now().await;
            }
            // Until the next one leads; where its predecessor left the outcome in doubt, the row may be there.
            let insert = format!("INSERT INTO t VALUES ({id})");
            while node.execute(&insert).await.is_err_and(|error| error.sqlstate() != SqlState::UNIQUE_VIOLATION) {}
        }
        assert_eq!(ints(&node.execute("SELECT id FROM t ORDER BY id").await.unwrap()), [1, 2, 3, 4]);
        assert_eq!(node.router.routes().counters.restarts_of("storage"), 0);
        node.stop().await;
    });
}
